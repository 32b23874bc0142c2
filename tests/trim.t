#!/usr/bin/env bash
# malloc_trim: whole pages inside free memory go back, wherever they lie.
#
# BUILD   the build folder (build)
# CC      the compiler (cc)
# shellcheck disable=SC2317 # Functions are called by way of ok.
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

blocks=500      # free ones in the_system_is_asked_once_a_block
other_calls=100 # for whatever else there is

compile trim/trim trim/trim.c
compile_done

run_cases 'the library' LD_PRELOAD="$library" trim/trim
run_cases 'the secure library' LD_PRELOAD="$secure_library" trim/trim
for level in 1 2; do
    run_cases "hardened=$level" LD_PRELOAD="$library" HMM_OPTIONS="hardened=$level" trim/trim
done
# Blocks between fences have given their pages back before anybody asks.
for case in $("$programs_folder/trim/trim" | grep -v pages_between); do
    ok "hardened=3: $case" run LD_PRELOAD="$library" HMM_OPTIONS=hardened=3 trim/trim "$case"
done

# ------------------------------------------------------------------------------------- system calls
calls_of() { # calls_of TRIMS: how often memory is given back
    strace -f -e trace=madvise -E LD_PRELOAD="$library" -E HMM_OPTIONS=purge=1G -E TRIMS="$1" \
        "$programs_folder/trim/trim" the_system_is_asked_once_a_block 2>&1 >/dev/null | grep -c DONTNEED
}
if strace true 2>/dev/null; then
    once=$(calls_of 1)
    often=$(calls_of 20)
    ok "a call for each free block" test "$once" -ge "$blocks" -a "$once" -le $((blocks + other_calls)) ||
        diag "$once calls"
    ok "and no more when it is asked again" test "$often" -le $((once + other_calls)) ||
        diag "$often calls"
else
    skip "how many calls giving back takes" "there is no strace"
fi

done_testing
