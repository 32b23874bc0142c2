#!/usr/bin/env bash
# Runs the benches and writes what they found to docs/bench-*.md, with a plot beside each.
#
#     bench/run.sh [all | policies | array] [NAME=PATH.so...]
#
# The peers are for the array bench, whose source says what they are; a version belongs in the name.
#
# BUILD       the build folder (build)
# DOCS        where the pages go (docs)
# CC          the compiler that the build used, to be named on the pages (cc)
# OPERATIONS  the calls that a workload makes, where the benches' own number is not wanted
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$(realpath -m "${BUILD:-$root/build}")/bench
docs=$(realpath -m "${DOCS:-$root/docs}")

# One line: when, on what, built with what.
circumstances() {
    local cpu version commit compiler
    cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
    version=$(sed -n 's/^#define HMM_VERSION  *"\(.*\)"/\1/p' "$root/include/hmm.h")
    commit=$(git -C "$root" describe --always --dirty 2>/dev/null || echo 'no commit')
    compiler=$("${CC:-cc}" --version | head -n 1)
    echo "Measured on $(date +%F) with HMM $version ($commit) on ${cpu:-$(uname -m)}," \
        "$(nproc) cores, $(uname -sr), $compiler, \`-O2\`."
}

# Each index of a data file becomes a section with a table, numbers to the right.
sections() { # sections DATA
    awk -F '\t' '
        function row(cells,    i, line) {
            line = "|"
            for (i = 1; i <= NF; i++) line = line " " (cells == "ruler" ? ruler($i) : $i) " |"
            return line
        }
        function ruler(cell) { return cell ~ /^[0-9.]+$/ ? "--:" : "---" }
        /^# / { print "\n## " substr($0, 3) "\n"; rows = 0; next }
        NF && ++rows == 2 { print row("ruler") }
        NF { print row("cells") }' "$1"
}

# The plot's line on the page, or where there is no gnuplot a word about it.
plot() { # plot NAME TEXT
    if command -v gnuplot >/dev/null; then
        gnuplot -e "data='$build/$1.tsv'; output_file='$docs/bench-$1.svg'" "$root/bench/$1.gp"
        printf '\n![%s](bench-%s.svg)\n' "$2" "$1"
    else
        echo "run.sh: no gnuplot: the page has tables only, and bench-$1.svg is not touched" >&2
        printf '\n(No plot: gnuplot was not there.)\n'
    fi
}

page() { # page NAME TITLE PLOT_TEXT <METHOD
    mkdir -p "$docs"
    {
        printf '# %s\n\n%s\n\n' "$2" "$measured"
        cat
        plot "$1" "$3"
        sections "$build/$1.tsv"
    } >"$build/$1.md"
    mv "$build/$1.md" "$docs/bench-$1.md"
    echo "$docs/bench-$1.md"
}

run_policies() {
    # shellcheck disable=SC2086 # Unset, it is no argument.
    "$build/policies" ${OPERATIONS:-} >"$build/policies.tsv"
    page policies 'The four placement policies' 'Time and memory by workload and policy' <<'END'
`bench/policies.c` replays each workload under each `fit=`, in a heap without a lock inside an
array. The requests come from a fixed seed, and every policy gets the same ones.

**Time** is the thread's processor time over all calls of a workload, the median of seven rounds
in which the policies take turns. The array is ample and its pages are there, so neither page
faults nor system calls are in it; two words written to each block, and read again, are.

**Memory** is over the most bytes that the workload ever holds, as it asked for them, and the
median of five seeds. The *smallest array* is the smallest one in which the whole workload
succeeds, found by bisection to 0.1 %: what fragmentation, tags and header really cost. The
*highest break* is what a heap with room to grow uses; it moves in steps of 64 KiB or an eighth of
the heap, so up to an eighth of it says nothing of the policy.
END
}

run_array() { # run_array PEERS...
    # shellcheck disable=SC2086 # Unset, it is no argument.
    "$build/array" ${OPERATIONS:-} "HMM=$build/peer_hmm.so" \
        "HMM unchecked=$build/peer_hmm_unchecked.so" "$@" >"$build/array.tsv"
    page array 'Heaps in an array' 'Time of a call, bytes a block, smallest array, by heap' <<'END'
`bench/array.c` puts each heap into the same array, through the same three functions, with the
same requests. *HMM* is `fit=good` as it comes, with the checks of `HMM_INTEGRITY_TAG` but without
a lock, which its peers do not have either; *HMM unchecked* has `HMM_INTEGRITY_NONE`.

**Time** is read around every single call of a workload of sizes from 16 bytes to 64 KiB, freed at
random. What reading the clock costs is taken off. Cycles are those of the time stamp counter,
which does not follow the core's clock. The machine is shared, and an interrupt would look like a
slow call: so the same sequence runs five times, each call counts as the fastest of its runs, and
mean, 99.99th percentile and worst are taken over these. The array's pages are there; cache misses
are part of the figure.

**Bytes a block** come from how many more blocks of one size fit in an array that is 4 MiB larger.
The **smallest array** is the smallest one in which a workload of 200,000 calls succeeds, found by
bisection to 0.1 %, over the most bytes that the workload ever holds as it asked for them; the
median of five seeds.
END
}

what=${1:-all}
shift || true
if [[ ! -x $build/policies || ! -x $build/array ]]; then
    echo "run.sh: nothing built in $build: \`make bench\` builds and runs" >&2
    exit 1
fi
# Once, before the pages change: a page of its own would make the tree look modified.
measured=$(circumstances)
case $what in
all)
    run_policies
    run_array "$@"
    ;;
policies) run_policies ;;
array) run_array "$@" ;;
*)
    echo 'usage: bench/run.sh [all | policies | array] [NAME=PATH.so...]' >&2
    exit 1
    ;;
esac
