#!/usr/bin/env bash
# Whether reading a process costs it anything: a program that allocates runs alone and under 100 reads a second, two runs
# side by side in time, first the one and then the other, in the next round the other way round. Each round gives a
# ratio; what counts is the median of the ratios, and how far the middle half of them spreads. The reader has a
# processor of its own where there are two. Wants a quiet machine.
#
#     bench/reader.sh [ROUNDS]       BUILD: the build folder (build)
#
# The goal is a ratio of at most 1.02. Exit status 1: it was missed by more than the spread explains.
set -eu

cd "$(dirname "$0")/.."
build=${BUILD:-build}
rounds=${1:-11}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/target.c" <<'SOURCE'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A live set of 200,000 blocks, of which one after the other is replaced. */
int main(void)
{
    enum { LIVE = 200000, STEPS = 48000000 };
    static void *blocks[LIVE];
    unsigned random = 1;
    double wall = seconds(CLOCK_MONOTONIC);
    for (unsigned step = 0; step < STEPS; step++) {
        random = random * 1664525 + 1013904223;
        void **block = &blocks[(random >> 8) % LIVE];
        free(*block);
        size_t bytes = 16 + (random >> 20) % 400;
        *block = memset(malloc(bytes), 1, bytes < 64 ? bytes : 64);
    }
    printf("%.6f %.6f\n", seconds(CLOCK_PROCESS_CPUTIME_ID), seconds(CLOCK_MONOTONIC) - wall);
    return 0;
}
SOURCE
"${CC:-cc}" -O2 -w -o "$work/target" "$work/target.c"

pin() { # pin CPU COMMAND...
    local cpu=$1
    shift
    if [ "$(nproc)" -ge 2 ]; then
        exec taskset -c "$cpu" "$@"
    fi
    exec "$@"
}

target() { # target FILE
    (pin 0 env LD_PRELOAD="$PWD/$build/lib/libhmm.so" "$work/target" >> "$1") &
    target_id=$!
}

run_alone() {
    target "$work/alone"
    wait "$target_id"
}

run_read() {
    target "$work/read"
    sleep 0.05
    (pin 1 "$build/bin/hmm" stat --watch --interval=0.01 --json -o "$work/samples" "$target_id" 2> "$work/end") || true
    wait "$target_id"
    reads=$((reads + $(wc -l < "$work/samples")))
}

reads=0
for ((round = 0; round < rounds; round++)); do
    if ((round % 2 == 0)); then
        run_alone
        run_read
    else
        run_read
        run_alone
    fi
done

# Of a column, as lines of `alone read` in the order of rounds: the medians, that of the ratios, and its quartiles.
summary() { # summary NAME COLUMN
    paste "$work/alone" "$work/read" | awk -v column="$2" '{print $(column + 2) / $column, $column, $(column + 2)}' |
        sort -n > "$work/ratios"
    awk -v name="$1" -v goal=1.02 '
        function at(share) { return ratios[int(1 + share * (NR - 1) + 0.5)] }
        { ratios[NR] = $1; alone += $2; read += $3 }
        END {
            printf "%-8s alone %.3f  read %.3f  ratio %.3f (middle half %.3f to %.3f, goal %.2f): %s\n", name,
                alone / NR, read / NR, at(0.5), at(0.25), at(0.75), goal,
                at(0.5) <= goal ? "met" : at(0.25) <= goal ? "not to be told" : "missed"
            exit at(0.25) > goal
        }' "$work/ratios"
}

status=0
awk -v rounds="$rounds" -v reads="$reads" '{wall += $2} END {
    printf "rounds %d, reads a second %.0f, seconds on average\n", rounds, reads / wall}' "$work/read"
summary "cpu s" 1 || status=1
summary "wall s" 2 || status=1
exit "$status"
