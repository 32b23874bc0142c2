#!/usr/bin/env bash
# What the library itself adds to every process: 64 KiB of its file, which is what the kernel maps at a time, and two
# pages of data (src/libhmm.ld).
#
# BUILD   the build folder (build)
# CC      the compiler (cc)
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

kib_max=72 # 64 of text and constants, a page of what is relocated, a page of variables

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

is_lean() { # is_lean NAME COMMAND...
    local name=$1 kib
    shift
    kib=$(resident "$@")
    ok "$name: $kib_max KiB of the library" test "$kib" -gt 0 -a "$kib" -le "$kib_max" || diag "$kib KiB"
}

is_lean cat cat
# shellcheck disable=SC2016 # The programs expand.
is_lean bash bash -c 'while read -r line; do echo "$(echo "$line")"; done'
# shellcheck disable=SC2016
is_lean perl perl -e '$| = 1; while (<STDIN>) { print; }'

compile resident/threads resident/threads.c -pthread
compile_done
is_lean 'a program with threads' "$programs_folder/resident/threads"

done_testing
