#!/usr/bin/env bash
# Whether reading a process costs it anything: a program that allocates runs alone and under 100 reads a second, by
# turns, and the medians of its processor time and wall time are compared. The reader has a processor of its own where
# there are two.
#
#     bench/reader.sh [ROUNDS]       BUILD: the build folder (build)
#
# The goal is a ratio of at most 1.02.
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
    enum { LIVE = 200000, STEPS = 12000000 };
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

median() { # median FILE COLUMN
    awk -v column="$2" '{print $column}' "$1" | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'
}

reads=0
for ((round = 0; round < rounds; round++)); do
    target "$work/alone"
    wait "$target_id"
    target "$work/read"
    sleep 0.05
    (pin 1 "$build/bin/hmm" stat --watch --interval=0.01 --json -o "$work/samples" "$target_id" 2> "$work/end") || true
    wait "$target_id"
    reads=$((reads + $(wc -l < "$work/samples")))
done

awk -v rounds="$rounds" -v reads="$reads" \
    -v cpu_alone="$(median "$work/alone" 1)" -v cpu_read="$(median "$work/read" 1)" \
    -v wall_alone="$(median "$work/alone" 2)" -v wall_read="$(median "$work/read" 2)" 'BEGIN {
    printf "rounds %d, reads a second %.0f\n", rounds, reads / (rounds * wall_read)
    printf "%-10s %9s %9s %7s\n", "median", "alone", "read", "ratio"
    printf "%-10s %9.3f %9.3f %7.3f\n", "cpu s", cpu_alone, cpu_read, cpu_read / cpu_alone
    printf "%-10s %9.3f %9.3f %7.3f\n", "wall s", wall_alone, wall_read, wall_read / wall_alone
}'
