#!/usr/bin/env bash
# Another C library: what programs under musl live with. `make musl` builds the libraries and churn with it.
#
# BUILD  the build folder (build)
# shellcheck disable=SC2317 # Functions are called by way of ok.
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

BUILD=${BUILD:-build}/musl
if [[ ! -e $BUILD/lib/libhmm.so ]]; then
    skip "programs under musl" "there is no musl-gcc"
    done_testing
fi
CC="musl-gcc -idirafter $(realpath "$BUILD")/include"

# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

steps=20000

compile stress/guarded_library.so stress/guarded_library.c -shared -fPIC
compile stress/handlers_late.so stress/early_handlers.c -shared -fPIC
compile_done
compile doors/resolved doors/resolved.c -fPIC
compile doors/named doors/named.c "${linked[@]}"
compile doors/named-static doors/named.c -static "$archive"
compile stress/guarded stress/guarded.c "$programs_folder/stress/guarded_library.so"
compile stress/atfork stress/atfork.c "${linked[@]}" "$programs_folder/stress/handlers_late.so"
compile stress/forks stress/forks.c "${linked[@]}"
compile stress/forks-static stress/forks.c -static "$archive"
compile stress/privileged stress/privileged.c
compile limits/idle limits/idle.c
compile insight/crime insight/crime.c
compile_done

family=(malloc free calloc realloc reallocarray posix_memalign aligned_alloc memalign valloc malloc_usable_size)
for file in "$library" "$secure_library" "$array_library"; do
    name=${file##*/}
    is "$name: needs the C library and nothing else" \
        "$(readelf -dW "$file" | grep -F '(NEEDED)' | grep -o '\[.*\]')" '[libc.so]'
    is "$name: every name leads here" "$(run LD_PRELOAD="$file" doors/resolved "$file" "${family[@]}" 2>&1)" ''
done

for options in engine=fast engine=block hardened=1 hardened=2 hardened=3; do
    ok "threads that come and go, $options" run HMM_OPTIONS="$options" churn "$steps"
    ok "forks while a library allocates under its mutex, $options" \
        run LD_PRELOAD="$library" HMM_OPTIONS="$options" stress/guarded
done
for options in engine=fast engine=block hardened=2; do
    run_cases "fork, $options" HMM_OPTIONS="$options" stress/forks
    run_cases "others' handlers of fork, $options" HMM_OPTIONS="$options" stress/atfork
    run_cases "static: fork, $options" HMM_OPTIONS="$options" stress/forks-static
done
for program in named named-static; do
    for case in both_names_are_one_heap bad_requests_are_refused the_programs_limit_holds; do
        ok "$program: $case" run "doors/$program" "$case"
    done
    ok "$program: the_environments_limit_holds" \
        run HMM_OPTIONS=limit=128M "doors/$program" the_environments_limit_holds
done

# A stack cannot be had, and is not waited for.
for bytes in 24 5000 100000 2097152; do
    for file in "$library" "$secure_library"; do
        is "${file##*/}: a double free of $bytes bytes" \
            "$(LD_PRELOAD=$file HMM_OPTIONS=backtrace=1,sites=1 "$programs_folder/insight/crime" "$bytes" 2>&1 |
                grep -oE '^hmm: free\(0x[0-9a-f]+\): double free' | cut -d ' ' -f 3-)" 'double free'
    done
done

# Constructors are told nothing, options are read all the same.
is 'options' "$(run LD_PRELOAD="$library" HMM_OPTIONS=stats=exit,stats_signal=KILL stress/privileged 2>&1 | head -n 1)" \
    'hmm: HMM_OPTIONS: stats_signal=KILL: ignored, wants none|SIGNAL'
ok 'options: numbers at the end' grep -q '^hmm: the heap of process [0-9]*, engine=fast' \
    <(run LD_PRELOAD="$library" HMM_OPTIONS=stats=exit stress/privileged 2>&1)
# With musl 1.2.3 a forked child waits for ever that ends its first thread, whatever its malloc.
limit_seconds=90
for case in $("$programs_folder/limits/idle" | grep -v '^ends_with'); do
    run_case "scavenger: $case" LD_PRELOAD="$library" HMM_OPTIONS=scavenger=1 limits/idle "$case"
done

done_testing
