#!/usr/bin/env bash
# The fast engine from outside: how short its paths are, and how little it needs of the system.
#
# BUILD   the build folder (build)
# CC      the compiler (cc)
# shellcheck disable=SC2317 # Functions are called by way of ok.
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

# Ten of free's, and one of malloc's, are what finds crimes: HMM_FREE_CHECKS=0 leaves them out.
declare -A instructions=([malloc]="${MALLOC_INSTRUCTIONS:-15}" [free]="${FREE_INSTRUCTIONS:-26}")
# Of slots of 96 to 144 bytes, which are looked through and cleared.
declare -A secure_instructions=([malloc]=60 [free]=108)
static_tls_bytes=512
tiny_kibibytes=250
calls_a_pair=2
other_calls=5 # a run takes one more or less besides, now and then

compile fast/steps fast/steps.c
compile fast/workload fast/workload.c -I"$tests_folder"
compile fast/tiny fast/tiny.c
compile fast/large_pairs fast/large_pairs.c
compile fast/static_tls fast/static_tls.c
compile fast/static_tls_user.so fast/static_tls_user.c -shared -fPIC
compile_done

# ------------------------------------------------------------------------------------- the fast paths
# Counts the instructions from the entry to the first return: no conditional jump is taken, and every other
# jump is followed.
straight_path() { # straight_path LIBRARY FUNCTION
    local start
    start=$(nm -D "$1" | awk -v name="$2" '$3 == name {print $1}')
    objdump -d --no-show-raw-insn "$1" | awk -F '\t' -v start="$start" '
        function plain(address) { sub(/^0*/, "", address); return address }
        /^ +[0-9a-f]+:/ {
            address = $1
            gsub(/[ :]/, "", address)
            at[++count] = $2
            place[address] = count
        }
        END {
            i = place[plain(start)]
            for (steps = 1; i != "" && at[i] !~ /^(bnd |notrack |repz )?ret/ && steps < 1000; steps++) {
                split(at[i], word, " +")
                i = word[1] == "jmp" ? place[plain(word[2])] : i + 1
            }
            print i == "" ? "a jump that leads nowhere" : steps
        }'
}

if [[ $(uname -m) == x86_64 ]]; then
    for function in malloc free; do
        limit=${instructions[$function]}
        count=$(straight_path "$library" "$function")
        ok "$function: at most $limit instructions in the text" test "$count" -le "$limit" ||
            diag "there are $count"
        limit=${secure_instructions[$function]}
        count=$(straight_path "$secure_library" "$function")
        ok "$function in the secure library: at most $limit" test "$count" -le "$limit" ||
            diag "there are $count"
    done
    run_cases 'step by step' LD_PRELOAD="$library" fast/steps
else
    skip "how many instructions malloc and free take" "counted on x86-64"
fi

# --------------------------------------------------------------------------------------- static TLS
tls_bytes=$(($(readelf -lW "$library" | awk '$1 == "TLS" {print $6}')))
ok "at most $static_tls_bytes bytes of static TLS" test "$tls_bytes" -le "$static_tls_bytes" ||
    diag "there are $tls_bytes"
ok "loaded late, where static TLS is scarce" \
    run LIBRARY="$library" USER_LIBRARY="$programs_folder/fast/static_tls_user.so" fast/static_tls

# ------------------------------------------------------------------------------------- a tiny program
glibc_kibibytes=$(run fast/tiny)
own_kibibytes=$(run LD_PRELOAD="$library" fast/tiny)
ok "64 sizes touched once: within $tiny_kibibytes KiB of glibc" \
    test "$own_kibibytes" -le $((glibc_kibibytes + tiny_kibibytes)) ||
    diag "$own_kibibytes KiB against $glibc_kibibytes"

# ------------------------------------------------------------------- large blocks of the secure library
# A block takes the place of one of its size with the fences that it has: one call to hide it, one to show it.
calls_of() { # calls_of ROUNDS: how often the system is asked for memory
    strace -f -e trace=mmap,mprotect,madvise,munmap,mremap -E LD_PRELOAD="$secure_library" \
        "$programs_folder/fast/large_pairs" "$1" 2>&1 >/dev/null | grep -c '^m'
}
ok "large blocks in the secure library" run LD_PRELOAD="$secure_library" fast/large_pairs 100
if strace true 2>/dev/null; then
    few=$(calls_of 100)
    many=$(calls_of 600)
    ok "malloc and free of a large block there: $calls_a_pair system calls" \
        test $((many - few)) -le $((500 * calls_a_pair + other_calls)) || diag "$few of 100, $many of 600"
else
    skip "how many system calls a large block takes" "there is no strace"
fi

# ------------------------------------------------------------------------------ what the system grants
limited() ( # limited OPTION KIBIBYTES COMMAND...: under a limit of bash's ulimit that binds no other test
    ulimit "$1" "$2" || exit
    shift 2
    "$@"
)
for case in the_workload a_filter_of_system_calls a_stricter_filter a_large_heap_has_few_mappings \
    an_idle_thread_keeps_little; do
    ok "$case" run LD_PRELOAD="$library" fast/workload "$case"
done
ok "little address space: the_workload" limited -v 500000 run LD_PRELOAD="$library" fast/workload the_workload
for purge in peak 0 1M; do
    ok "purge=$purge: the_workload" \
        run LD_PRELOAD="$library" HMM_OPTIONS="purge=$purge" fast/workload the_workload
done
if [[ $(id -u) == 0 ]]; then
    for case in all_memory_is_locked all_memory_is_locked_at_once; do
        ok "$case" run LD_PRELOAD="$library" fast/workload "$case"
    done
else
    skip "locked memory" "only root may lock as much as it likes"
fi

done_testing
