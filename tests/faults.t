#!/usr/bin/env bash
# Faults: each system call refused at every point, and the corners that programs find themselves in.
#
# BUILD       the build folder (build)
# CC          the compiler (cc)
# POINT_STEP  1: each point of each system call, with each error (8; minutes instead of seconds)
# shellcheck disable=SC2317 # Functions are called by way of ok.
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

export POINT_STEP=${POINT_STEP:-8}
limit_seconds=$((POINT_STEP == 1 ? 600 : 120)) # a program that tries each point takes a minute or two

compile faults/refused faults/refused.c -I"$tests_folder" "${linked[@]}"
compile faults/corners faults/corners.c -I"$tests_folder/stress" "${linked[@]}"
compile faults/refused_secure faults/refused.c -I"$tests_folder" "${linked_secure[@]}"
compile faults/corners_secure faults/corners.c -I"$tests_folder/stress" "${linked_secure[@]}"
compile faults/plugin.so stress/plugin.c -shared -fPIC
compile_done

# -------------------------------------------------------------------------------- system calls are refused
# With the library, and with the rooms built for debugging, which are audited at the end.
programs() { # programs OPTIONS
    echo faults/refused
    [[ $1 != engine=fast && $POINT_STEP != 1 || ! -x $programs_folder/refused ]] || echo refused
}

declare -A used=(
    [engine=fast]='mmap mprotect munmap madvise mremap'
    [engine=block]='mmap mprotect munmap madvise'
    [engine=block,region=sbrk]='mmap mprotect munmap madvise brk'
)
if "$programs_folder/faults/refused" can_be_tried 2>/dev/null; then
    for options in "${!used[@]}"; do
        for program in $(programs "$options"); do
            for call in ${used[$options]}; do
                ok "$program, $options: $call" run HMM_OPTIONS="$options" "$program" "${call}_is_refused"
            done
            for case in futex_wait_is_refused half_of_all_calls_are_refused nothing_more_is_needed; do
                ok "$program, $options: $case" run HMM_OPTIONS="$options" "$program" "$case"
            done
        done
    done
    # What waits in quarantine, and fences that cannot be opened, stay behind. Fenced blocks are never moved. Their
    # fences make so many calls that fewer of the points are enough here.
    for call in mmap mprotect munmap madvise; do
        ok "secure: $call" run POINT_STEP=$((POINT_STEP * 16)) LEFT_KIBIBYTES=1000000 \
            faults/refused_secure "${call}_is_refused"
    done
    for case in futex_wait_is_refused half_of_all_calls_are_refused nothing_more_is_needed; do
        ok "secure: $case" run LEFT_KIBIBYTES=1000000 faults/refused_secure "$case"
    done
    for level in 1 2 3; do
        for case in half_of_all_calls_are_refused nothing_more_is_needed; do
            ok "hardened=$level: $case" \
                run HMM_OPTIONS="hardened=$level" LEFT_KIBIBYTES=1000000 faults/refused "$case"
        done
    done
else
    skip "system calls are refused" "this kernel hands no system calls over to another process"
fi

# ------------------------------------------------------------------------------------------- the corners
mapfile -t corners < <("$programs_folder/faults/corners")
ok "there are corners" test "${#corners[@]}" -gt 0
try_corners() { # try_corners NAME PROGRAM OPTIONS
    local case
    for case in "${corners[@]}"; do
        if [[ $case == the_root_is_empty && $(id -u) != 0 ]]; then
            skip "$1: $case" "only root can change the root"
            continue
        fi
        run_case "$1: $case" PLUGIN="$programs_folder/faults/plugin.so" HMM_OPTIONS="$3" "$2" "$case"
    done
}

for options in engine=fast engine=block engine=block,region=sbrk; do
    try_corners "$options" faults/corners "$options"
done
try_corners secure faults/corners_secure engine=fast

done_testing
