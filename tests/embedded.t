#!/bin/bash
# The two-file form: compiles without a warning under both compilers and both widths, needs nothing
# but memcpy and memset, and runs where there is no libc at all.
set -u
. tests/tap.sh

build=${BUILD:-build}
out=$build/tests/embedded
single=$build/single
mkdir -p "$out"

ok "two files are written" tools/single.sh "$single"

flags=(-std=c11 -O2 -ffreestanding -fno-pic -Wall -Wextra -Wconversion -Werror -I "$single")

status_of() {
    "$@"
    echo $?
}

for cc in gcc clang; do
    for width in 64 32; do
        heap=$out/heap-$cc-$width.o
        bare=$out/bare-$cc-$width
        ok "$cc -m$width compiles it without a warning" \
            "$cc" -m$width "${flags[@]}" -c "$single/hmm_heap.c" -o "$heap"
        is "$cc -m$width: it needs nothing but memcpy and memset" \
            "$(nm -u "$heap" | awk '{print $2}' | sort | xargs)" "memcpy memset"
        # Without -fno-builtin the loops of memcpy and memset become calls of themselves.
        ok "$cc -m$width: it links without any library" \
            "$cc" -m$width "${flags[@]}" -fno-builtin -nostdlib -static tests/embedded/bare.c \
            "$heap" -o "$bare"
        is "$cc -m$width: it runs, until a double free ends it" "$(status_of "$bare")" 99
    done
done

# Spaces, zeros and letters, as overflowing text has them; levels 0, 2 and 3 look.
for width in 64 32; do
    ok "-m$width: a program of its user links it" \
        gcc -m$width -std=c11 -O1 -Wall -Wextra -I "$single" tests/embedded/overflow.c \
        "$single/hmm_heap.c" -o "$out/overflow-$width"
    for level in 0 2 3; do
        for byte in 32 48 97 255; do
            is "-m$width, level $level: a tag overwritten with $byte is a crime" \
                "$(status_of "$out/overflow-$width" $level $byte)" 42
        done
    done
    for hardening in 2 3; do
        for byte in 0 32 48 97 255; do
            is "-m$width, hardened: the end of a block overwritten with $byte is a crime" \
                "$(status_of "$out/overflow-$width" 0 $byte $hardening)" 42
        done
    done
done

cat > "$out/user.cc" <<'TEXT'
#include "hmm_heap.h"
int main() { return HmmHeapInit(nullptr, 0, nullptr) != nullptr; }
TEXT
ok "C++ can include the header" \
    g++ -I "$single" -Wall -Wextra -Werror -c "$out/user.cc" -o "$out/user.o"

done_testing
