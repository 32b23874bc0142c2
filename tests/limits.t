#!/usr/bin/env bash
# Limits: memory runs out, others move the break, and what was freed goes back.
#
# BUILD   the build folder (build)
# CC      the compiler (cc)
# shellcheck disable=SC2317 # Functions are called by way of ok.
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

aborted=134 # 128 and the number of SIGABRT

compile limits/account limits/account.c
compile limits/exhaust limits/exhaust.c
compile limits/footprint limits/footprint.c
compile limits/break limits/break.c
compile limits/idle limits/idle.c
compile limits/locked limits/locked.c
compile limits/own limits/own.c
compile limits/stack limits/stack.c
compile_done

# ------------------------------------------------------------------------------------- memory runs out
exhausting=(mebibyte_blocks_run_out hundred_byte_blocks_run_out sizes_follow_each_other
    a_block_grows_until_it_cannot threads_start_when_nothing_is_left the_c_library_copes)

# Runs a command under a limit of bash's ulimit, in KiB, that binds no other test.
limited() ( # limited OPTION KIBIBYTES COMMAND...
    ulimit "$1" "$2" || exit
    shift 2
    "$@"
)

exhaust_limited() { # exhaust_limited NAME OPTION KIBIBYTES LEAST_MEBIBYTES HMM_OPTIONS CASE...
    local name=$1 option=$2 kibibytes=$3 least=$4 options=$5 case
    shift 5
    for case in "$@"; do
        ok "$name, $options: $case" limited "$option" "$kibibytes" \
            run LD_PRELOAD="$library" HMM_OPTIONS="$options" LEAST_MEBIBYTES="$least" limits/exhaust "$case"
    done
}

for options in engine=fast engine=block engine=block,region=sbrk; do
    # The reservation, halved until it fits, may leave a part of the address space that holds none of its size.
    exhaust_limited 'address space' -v 500000 300 "$options" mebibyte_blocks_run_out
    exhaust_limited 'less address space' -v 150000 80 "$options" "${exhausting[@]}"
    exhaust_limited 'data' -d 100000 80 "$options" "${exhausting[@]}"
    exhaust_limited 'the option' -d unlimited 90 "$options,limit=100M" "${exhausting[@]}" \
        the_limit_is_the_limit
done
exhaust_limited 'less address space' -v 150000 80 'engine=block,fit=best' mebibyte_blocks_run_out hundred_byte_blocks_run_out
for case in "${exhausting[@]}" the_limit_is_the_limit; do
    ok "the array: $case" \
        run LD_PRELOAD="$array_library" HMM_OPTIONS=limit=100M LEAST_MEBIBYTES=90 limits/exhaust "$case"
done
ok "the whole array" \
    run LD_PRELOAD="$array_library" LEAST_MEBIBYTES=1000 limits/exhaust mebibyte_blocks_run_out

# What programs of a few hundred KiB live with.
for kibibytes in 500 700 1000 1500 2000 4000 9000; do
    for options in engine=fast engine=block hardened=2; do
        ok "$kibibytes KiB of data, $options" \
            limited -d "$kibibytes" env LD_PRELOAD="$library" HMM_OPTIONS="$options" bash -c 'words=$(ls /) && [[ $words ]]'
    done
done

for options in engine=fast engine=block hardened=2; do
    run_cases "own limit, $options" LD_PRELOAD="$library" HMM_OPTIONS="$options" limits/own
done
run_cases "own limit, ${secure_library##*/}" LD_PRELOAD="$secure_library" limits/own

# ------------------------------------------------------------------------------- what was freed goes back
usual_seconds=$limit_seconds
limit_seconds=90 # most of which is waiting
run_cases 'scavenger' LD_PRELOAD="$library" HMM_OPTIONS=scavenger=1 limits/idle
for case in what_was_kept_goes_back ends_with_the_first_thread; do
    ok "scavenger, ${secure_library##*/}: $case" \
        run LD_PRELOAD="$secure_library" HMM_OPTIONS=scavenger=1 limits/idle "$case"
done
is 'scavenger, engine=block: a block heap keeps nothing, so there is no thread' \
    "$(LD_PRELOAD=$library HMM_OPTIONS=engine=block,scavenger=1 grep Threads /proc/self/status)" $'Threads:\t1'
limit_seconds=$usual_seconds
for region in reserve sbrk; do
    run_cases "$region" LD_PRELOAD="$library" HMM_OPTIONS="engine=block,region=$region" limits/footprint
done
# Two cases are about the one end that a block heap has.
for case in $("$programs_folder/limits/footprint" | grep -vE 'the_last_one_holds_the_break|malloc_trim_gives_the_rest'); do
    ok "fast: $case" run LD_PRELOAD="$library" HMM_OPTIONS=engine=fast limits/footprint "$case"
done
# What is freed is cleared, and waits: a block comes back neither with its content nor at once.
for case in $("$programs_folder/limits/footprint" | grep -v a_block_at_the_break_comes_and_goes); do
    for options in hardened=1 hardened=2 hardened=2,region=sbrk; do
        ok "$options: $case" run LD_PRELOAD="$library" HMM_OPTIONS="engine=block,$options" limits/footprint "$case"
    done
    ok "${secure_library##*/}: $case" run LD_PRELOAD="$secure_library" HMM_OPTIONS=engine=block limits/footprint "$case"
done
for fit in first next best; do
    ok "fit=$fit: peak_of_large_blocks" \
        run LD_PRELOAD="$library" HMM_OPTIONS="engine=block,fit=$fit" limits/footprint peak_of_large_blocks
done

# The end of a block heap is the end of its last block.
for options in engine=fast hardened=1 hardened=2; do
    run_cases "accounted, $options" LD_PRELOAD="$library" HMM_OPTIONS="$options" limits/account
done
run_cases "accounted, ${secure_library##*/}" LD_PRELOAD="$secure_library" limits/account

# ------------------------------------------------------------------------------- the break is everybody's
# Two of them are crimes, and end in words.
is_fatal() { # is_fatal NAME PATTERN CASE
    local line status
    line=$(LD_PRELOAD="$library" HMM_OPTIONS=engine=block,region=sbrk "$programs_folder/limits/break" "$3" 2>&1)
    status=$?
    [[ $line =~ ^$2$ ]] && line=$2
    is "$1" "$line (exit status $status)" "$2 (exit status $aborted)"
}
address='0x[0-9a-f]+'
end="heap $address, thread [0-9]+"
is_fatal 'others cut off a block' \
    "hmm: malloc\(0x0\): program break moved below the heap: tag at $address, $end" others_cut_off_a_block
is_fatal "memory of others between ours is nobody's block" \
    "hmm: free\($address\): not a heap pointer: block of [0-9]+ bytes at $address, $end" free_of_others_memory
for fit in good first best; do
    for case in $("$programs_folder/limits/break" | grep -vE 'others_cut_off_a_block|free_of_others_memory'); do
        ok "fit=$fit: $case" run LD_PRELOAD="$library" HMM_OPTIONS="engine=block,region=sbrk,fit=$fit" limits/break "$case"
    done
done

# -------------------------------------------------------------------------------------- little stack
ok "the C library: little stack" run limits/stack eight_kibibytes_of_stack_are_enough
for options in engine=fast engine=block hardened=1 hardened=2 hardened=3 engine=block,hardened=2; do
    run_cases "$options" LD_PRELOAD="$library" HMM_OPTIONS="$options" limits/stack
done
run_cases "${secure_library##*/}" LD_PRELOAD="$secure_library" limits/stack

# ------------------------------------------------------------------------------------- locked memory
if [[ $(id -u) == 0 ]]; then
    for options in engine=fast engine=block engine=block,region=sbrk; do
        for case in all_to_come_is_locked_before_the_first_allocation all_to_come_is_locked_later \
            root_locks_everything what_was_freed_is_not_locked; do
            run_case "locked, $options: $case" \
                LD_PRELOAD="$library" HMM_OPTIONS="$options" limits/locked "$case"
        done
    done
    ok "locked, sbrk: everything_is_locked" \
        run LD_PRELOAD="$library" HMM_OPTIONS=engine=block,region=sbrk limits/locked everything_is_locked
else
    skip "locked memory" "only root can become somebody whom the limits bind"
fi

done_testing
