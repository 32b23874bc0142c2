#!/bin/bash
# Runs real programs on HMM and shows what the heap did. Part of `make demo`.
set -eu
cd "$(dirname "$0")/.."

build=$(cd "${BUILD:-build}" && pwd)
lib=$build/lib/libhmm.so
array_lib=$build/lib/libhmm-array.so

bold='' plain=''
if [[ -t 1 ]]; then
    bold=$'\033[1m' plain=$'\033[0m'
fi

title() {
    printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}

# run LIBRARY OPTIONS COMMAND...
run() {
    local preload=$1 options=$2
    shift 2
    title "HMM_OPTIONS=$options LD_PRELOAD=$(basename "$preload") $1 ..."
    HMM_OPTIONS=$options LD_PRELOAD=$preload "$@"
}

title "A heap you can look at (examples/picture.c)"
"${CC:-cc}" -O2 -Iinclude examples/picture.c "$build/lib/libhmm.a" -o "$build/picture"
"$build/picture"

run "$lib" stats=exit perl -e '
    my %words; $words{$_ % 5000} .= "x$_" for 1 .. 100000;
    print scalar(keys %words), " keys\n";'

run "$lib" engine=block,region=sbrk,fit=first,stats=exit bash -c '
    for i in {1..2000}; do words[i]="word $i"; done; echo "${#words[@]} words"'

run "$array_lib" stats=exit perl -e 'my @list = map { "item $_" } 1 .. 50000; print scalar(@list), "\n";'

run "$lib" limit=1M,stats=exit perl -e 'print "never gets here\n" if length("x" x 5_000_000);' ||
    echo "perl ran out of its 1 MiB, and said so itself"

title "Where the memory of a program is (hmm explain, hmm map)"
program='import json; d = {i: [i] * 3 for i in range(30000)}; s = json.dumps(d); import os; os._exit(0)'
PYTHONMALLOC=malloc "$build/bin/hmm" explain -- python3 -c "$program"
PYTHONMALLOC=malloc "$build/bin/hmm" map -o - -- python3 -c "$program"

title "A double free ends in one line"
printf '#include <stdlib.h>\nint main(void) { char *p = malloc(40); free(p); free(p); return 0; }\n' |
    "${CC:-cc}" -w -x c - -o "$build/double-free"
LD_PRELOAD=$lib "$build/double-free" || true

title "So does a byte too many, with libhmm-secure.so"
printf '#include <stdlib.h>\nint main(void) { volatile char *p = malloc(40); p[40] = 1; free((char *)p); return 0; }\n' |
    "${CC:-cc}" -w -x c - -o "$build/overflow"
LD_PRELOAD=$build/lib/libhmm-secure.so "$build/overflow" || true

title "What can be set"
"$build/bin/hmm" options
