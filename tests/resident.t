#!/usr/bin/env bash
# What the library itself adds to every process: 64 KiB of its file, which is what the kernel maps at a time, and two
# pages of data; and 64 KiB more where blocks are large or change their size, or threads end at the same time
# (src/libhmm.ld).
#
# BUILD   the build folder (build)
# CC CXX  the compilers (cc, c++)
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

lean_kib=72   # 64 of text and constants, a page of what is relocated, a page of variables
large_kib=136 # twice as much of text

# Other compilers make other functions, whose names the list has not got.
is_ordered() {
    readelf -SW "$1" | grep -q ' \.rodata\.first ' && readelf -p .comment "$1" | grep -q GCC &&
        ! readelf -p .comment "$1" | grep -q clang
}
if ! is_ordered "${BUILD:-build}/lib/libhmm.so"; then
    skip "what every process needs of the library" "its parts lie in another order"
    done_testing
fi

# Written page by page, so that the page cache has it in pages, too.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
dd if="${BUILD:-build}/lib/libhmm.so" of="$scratch/libhmm.so" bs=4096 status=none

# KiB of the library that are resident when the command has read a line and answered with one.
resident() { # resident COMMAND...
    local input
    coproc LD_PRELOAD="$scratch/libhmm.so" exec "$@" 2>/dev/null
    echo line >&"${COPROC[1]}"
    read -r <&"${COPROC[0]}"
    awk '/^[0-9a-f]+-[0-9a-f]+ / { counts = index($6, "/libhmm.so") }
        counts && /^Rss:/ { kib += $2 }
        END { print kib + 0 }' "/proc/$COPROC_PID/smaps"
    input=${COPROC[1]}
    exec {input}>&-
    wait
}

is_within() { # is_within NAME KIB COMMAND...
    local name=$1 kib_max=$2 kib
    shift 2
    kib=$(resident "$@")
    ok "$name: $kib_max KiB of the library" test "$kib" -gt 0 -a "$kib" -le "$kib_max" || diag "$kib KiB"
}

is_within cat $lean_kib cat
# shellcheck disable=SC2016 # The programs expand.
is_within bash $lean_kib bash -c 'while read -r line; do echo "$(echo "$line")"; done'
# shellcheck disable=SC2016
is_within perl $lean_kib perl -e '$| = 1; while (<STDIN>) { print; }'

compile resident/threads resident/threads.c -pthread
compile resident/objects resident/objects.cc
compile resident/buffers resident/buffers.c
compile_done
is_within 'a program with threads' $large_kib "$programs_folder/resident/threads"
is_within 'a program in C++' $lean_kib "$programs_folder/resident/objects"
is_within 'a program with buffers of all sizes' $large_kib "$programs_folder/resident/buffers"

done_testing
