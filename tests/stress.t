#!/usr/bin/env bash
# Stress: threads, forks, early and late calls, loading and unloading, static programs, and hostile options.
#
# BUILD   the build folder (build)
# CC      the compiler (cc)
# shellcheck disable=SC2317 # Functions are called by way of ok.
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/stress.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

operations=150000 # a thread; eight threads take about half a second for them

compile stress/handlers_late.so stress/early_handlers.c -shared -fPIC
compile stress/handlers_early.so stress/early_handlers.c -shared -fPIC -Wl,-z,initfirst
compile stress/plugin.so stress/plugin.c -shared -fPIC
compile stress/own_plugin.so stress/plugin.c -shared -fPIC -Wl,--exclude-libs,ALL "$archive"
compile stress/guarded_library.so stress/guarded_library.c -shared -fPIC
compile_done

compile stress/handover stress/handover.c
for fit in GOOD FIRST NEXT BEST; do
    compile "stress/handover_$fit" stress/handover.c -DHEAP_FIT="HMM_FIT_$fit" "${linked[@]}"
done
compile stress/forks stress/forks.c "${linked[@]}"
compile stress/forks_array stress/forks.c "${linked_array[@]}"
for order in early late; do
    compile "stress/atfork_$order" stress/atfork.c "${linked[@]}" "$programs_folder/stress/handlers_$order.so"
done
compile stress/guarded stress/guarded.c "$programs_folder/stress/guarded_library.so"
compile stress/first stress/first.c
compile stress/threads stress/threads.c
compile stress/early stress/early.c
compile stress/loading stress/loading.c
compile stress/privileged stress/privileged.c
compile stress/threads-static stress/threads.c -static "$archive"
for kind in static static-pie; do
    compile "stress/early-$kind" stress/early.c "-$kind" "$archive"
    compile "stress/handover-$kind" stress/handover.c "-$kind" "$archive"
    compile "stress/forks-$kind" stress/forks.c "-$kind" "$archive"
done
compile stress/privileged-static stress/privileged.c -static "$archive"
compile_done

# ------------------------------------------------------------------------------------------------ threads
ok "eight threads: engine=fast" \
    run LD_PRELOAD="$library" HMM_OPTIONS=engine=fast stress/handover "$operations"
for fit in good first; do
    for region in reserve sbrk; do
        ok "eight threads: engine=block,fit=$fit,region=$region" \
            run LD_PRELOAD="$library" HMM_OPTIONS="engine=block,fit=$fit,region=$region" stress/handover "$operations"
    done
    ok "eight threads: fit=$fit, array" \
        run LD_PRELOAD="$array_library" HMM_OPTIONS="fit=$fit" stress/handover "$operations"
done
for fit in GOOD FIRST NEXT BEST; do
    ok "eight threads: a heap of one's own, $fit" run "stress/handover_$fit" "$operations"
done
for engine in fast block; do
    ok "forks while a library allocates under its mutex: engine=$engine" \
        run LD_PRELOAD="$library" HMM_OPTIONS="engine=$engine" stress/guarded
done
ok "forks while a library allocates under its mutex: array" run LD_PRELOAD="$array_library" stress/guarded
for options in engine=fast engine=block engine=block,region=sbrk,fit=best; do
    run_cases "threads, $options" LD_PRELOAD="$library" HMM_OPTIONS="$options" stress/threads
done

# ------------------------------------------------------------------------------------------------ forks
for engine in fast block; do
    run_cases "fork, engine=$engine" HMM_OPTIONS="engine=$engine" stress/forks
done
for case in forks_from_several_threads children_that_exit_properly fork_before_the_first_allocation \
    forks_while_streams_are_flushed forks_in_a_signal_handler; do
    ok "fork, sbrk: $case" run HMM_OPTIONS=engine=block,region=sbrk,fit=first stress/forks "$case"
    ok "fork, array: $case" run stress/forks_array "$case"
done

# Handlers run in the order of their registration, and prepare in reverse. The library wants to be first, but
# may meet another that wants the same.
initializations() { # initializations ORDER [NAME=VALUE]: which of the two came first
    env LD_DEBUG=files "${@:2}" "$programs_folder/stress/atfork_$1" 2>&1 |
        grep -oE 'calling init: .*/(libhmm|handlers_[a-z]+)' | grep -oE '[a-z_]+$' | tr '\n' ' '
}
is "preloaded, the library registers its handlers first" \
    "$(initializations late LD_PRELOAD="$library")" 'libhmm handlers_late '
is "linked, it registers them first" "$(initializations late)" 'libhmm handlers_late '
is "another library can be before it" "$(initializations early)" 'handlers_early libhmm '
for options in engine=fast engine=block engine=block,region=sbrk; do
    for order in early late; do
        run_cases "others' handlers of fork are $order, $options" HMM_OPTIONS="$options" "stress/atfork_$order"
    done
done

first_forks() { # first_forks OPTIONS: many processes, each with one first allocation
    local i
    for ((i = 0; i < 40; i++)); do
        run HMM_OPTIONS="$1" stress/first "$library" || return
    done
}
for options in engine=fast engine=block engine=block,region=sbrk; do
    ok "fork in the middle of the first allocation, $options" first_forks "$options"
done

# --------------------------------------------------------------------------------- early, late, loaded
stations='preinit first-constructor constructor main on_exit atexit destructor last-destructor'
for options in engine=fast engine=block engine=block,region=sbrk; do
    is "early and late, $options" "$(run LD_PRELOAD="$library" HMM_OPTIONS="$options" stress/early)" "$stations"
done
is "early and late, array" "$(run LD_PRELOAD="$array_library" stress/early)" "$stations"

loading=(LIBRARY="$library" PLUGIN="$programs_folder/stress/plugin.so" OWN_PLUGIN="$programs_folder/stress/own_plugin.so")
for options in engine=fast engine=block engine=block,region=sbrk,fit=first; do
    run_cases "loading, $options" "${loading[@]}" HMM_OPTIONS="$options" stress/loading
done
ok "loading, preloaded: plugins_come_and_go" \
    run "${loading[@]}" LD_PRELOAD="$library" stress/loading plugins_come_and_go
ok "loading, preloaded: its_blocks_outlive_dlclose" \
    run "${loading[@]}" LD_PRELOAD="$library" stress/loading its_blocks_outlive_dlclose

# ------------------------------------------------------------------------------------------- static
for kind in static static-pie; do
    is "$kind: early and late" "$(run "stress/early-$kind")" "$stations"
    for engine in fast block; do
        ok "$kind: eight threads, engine=$engine" \
            run HMM_OPTIONS="engine=$engine" "stress/handover-$kind" "$operations"
    done
    for case in forks_from_several_threads children_that_exit_properly fork_before_the_first_allocation \
        forks_within_forks forks_while_streams_are_flushed forks_in_a_signal_handler; do
        ok "$kind: $case" run "stress/forks-$kind" "$case"
    done
done

run_cases 'static: threads' stress/threads-static

# ------------------------------------------------------------------------------------------ options
# What is wrong is told, a line for each item, and the program runs as if that item were not there.
is_told() { # is_told NAME OPTIONS LINE...: what the library says about its options
    local name=$1 options=$2 output
    shift 2
    output=$(run LD_PRELOAD="$library" HMM_OPTIONS="$options" stress/privileged 2>&1)
    is "options: $name" "$output" "$(printf '%s\n' "$@" ordinary)"
}

is_untold() { # is_untold NAME OPTIONS
    is "options: $1" "$(run LD_PRELOAD="$library" HMM_OPTIONS="$2" stress/privileged 2>&1)" ordinary
}

huge=$(printf '%0100000d' 0)
sixty=${huge:0:60}
fits='good|first|next|best'
is_untold 'none' ''
is_untold 'good ones' 'engine=block,fit=best,region=sbrk,limit=100M'
is_untold 'nothing between commas' ',,,fit=next,,'
is_untold 'the last of two' 'fit=next,fit=best'
is_told 'junk' 'junk' 'hmm: HMM_OPTIONS: junk: unknown option, ignored'
is_told 'an unknown name' 'colour=red' 'hmm: HMM_OPTIONS: colour=red: unknown option, ignored'
is_told 'an unknown value' 'fit=worst' "hmm: HMM_OPTIONS: fit=worst: ignored, wants $fits"
is_told 'no value' 'fit' "hmm: HMM_OPTIONS: fit: ignored, wants $fits"
is_told 'an empty value' 'fit=' "hmm: HMM_OPTIONS: fit=: ignored, wants $fits"
is_told 'a list for a value' 'fit=good|first' "hmm: HMM_OPTIONS: fit=good|first: ignored, wants $fits"
is_told 'capitals' 'FIT=good' 'hmm: HMM_OPTIONS: FIT=good: unknown option, ignored'
is_told 'blanks' ' fit=good' 'hmm: HMM_OPTIONS:  fit=good: unknown option, ignored'
is_told 'no name' '=good' 'hmm: HMM_OPTIONS: =good: unknown option, ignored'
is_told 'UTF-8' 'größe=zwölf' 'hmm: HMM_OPTIONS: gr????e=zw??lf: unknown option, ignored'
is_told 'what a terminal would obey' $'fit=\e[31m\a' "hmm: HMM_OPTIONS: fit=?[31m?: ignored, wants $fits"
is_told 'lines' $'fit=good\nhmm: free(0x0): a lie' \
    "hmm: HMM_OPTIONS: fit=good?hmm: free(0x0): a lie: ignored, wants $fits"
is_told 'huge' "$huge" "hmm: HMM_OPTIONS: $sixty...: unknown option, ignored"
is_told 'a huge value' "fit=$huge" "hmm: HMM_OPTIONS: fit=${sixty:4}...: ignored, wants $fits"
is_told 'two wrong, one right' 'a=1,fit=best,region=moon' 'hmm: HMM_OPTIONS: a=1: unknown option, ignored' \
    'hmm: HMM_OPTIONS: region=moon: ignored, wants reserve|sbrk'
for value in '' x -1 +1 1MM 0x10 1.5M ' 1' 99999999999999999999 18446744073709551616 17179869184G 1KiB; do
    is_told "limit=$value" "limit=$value" "hmm: HMM_OPTIONS: limit=$value: ignored, wants BYTES"
done
for value in 0 00 16777216 16384k 16384K 16m 16M 1g 1G 1T; do
    is_untold "limit=$value" "limit=$value"
done

# Whoever may do more than the one who started it obeys nobody's environment.
if [[ $(id -u) == 0 ]] && getent passwd nobody >/dev/null; then
    # Root runs the program in the name of nobody, which is privilege enough.
    chmod 755 "$work"
    cp "$programs_folder/stress/privileged-static" "$work/privileged"
    is "not set-uid: the options are read" "$(HMM_OPTIONS=junk "$work/privileged" 2>&1)" \
        $'hmm: HMM_OPTIONS: junk: unknown option, ignored\nordinary'
    chown nobody "$work/privileged"
    chmod 4755 "$work/privileged"
    output=$(HMM_OPTIONS=junk "$work/privileged" 2>&1)
    if [[ $output == *ordinary ]]; then
        skip "set-uid: the options are not read" "this file system knows no set-uid programs"
    else
        is "set-uid: the options are not read" "$output" privileged
    fi
else
    skip "set-uid: the options are not read" "only root can make a program of another user"
fi

done_testing
