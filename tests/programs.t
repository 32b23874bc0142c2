#!/usr/bin/env bash
# Real programs must not notice the allocator.
#
# Each workload of programs/workloads.sh runs once on the C library's malloc, and then once for each
# configuration with the library preloaded. Output, exit statuses and the files it writes must be identical.
#
# BUILD          the build folder (build)
# HMM_LIB        the library to preload instead of BUILD/lib/libhmm.so; any malloc replacement will do
# HMM_ARRAY_LIB  the same for BUILD/lib/libhmm-array.so
# WORKLOADS      the workloads to run, where not all (see programs/workloads.sh)
# shellcheck disable=SC2317 # Functions are called by way of ok.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sources=$here/programs
library=$(realpath -ms "${HMM_LIB:-${BUILD:-build}/lib/libhmm.so}")
array_library=$(realpath -ms "${HMM_ARRAY_LIB:-${BUILD:-build}/lib/libhmm-array.so}")
chosen_workloads=${WORKLOADS:-}

work=$(mktemp -d "${TMPDIR:-/tmp}/programs.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
fixtures=$work/fixtures
mkdir "$work/home" "$work/tmp" "$fixtures"

# Nothing of the user's environment may reach the programs: it could change what they print.
for name in $(compgen -e); do
    [[ $name == PATH ]] || unset "$name"
done
export HOME="$work/home" TMPDIR="$work/tmp" LC_ALL=C TZ=UTC0 TERM=dumb
export GIT_CONFIG_NOSYSTEM=1 PYTHONMALLOC=malloc PYTHONHASHSEED=0 PYTHONUNBUFFERED=1
ulimit -c 0
exec </dev/null

# A python3 that comes first on the PATH may be a script that chooses between several.
python=/usr/bin/python3
[[ -x $python ]] || python=python3

# shellcheck source=tests/tap.sh
. "$here/tap.sh"
# shellcheck source=tests/programs/workloads.sh
. "$here/programs/workloads.sh"

# Starts a program, and stops it after a minute when it hangs; the slowest needs about half a second.
watched=(timeout -k 5 60)

# What env needs to bring the allocator in; empty for the runs that others are compared with.
allocator=()

# Runs one program under the allocator and tells its exit status. timeout and env themselves run without.
tested() { # tested PROGRAM ARGUMENT...
    "${watched[@]}" env "${allocator[@]}" "$@"
    echo "${1##*/} exits with $?"
}

# Runs a workload in a folder of its own, which receives its output and its files.
run_workload() { # run_workload WORKLOAD FOLDER
    mkdir -p "$2"
    (cd "$2" && "run_$1") >"$2/output" 2>&1
}

run_all() { # run_all FOLDER: as many at a time as there are processors.
    local workload
    for workload in "${workloads[@]}"; do
        while (($(jobs -rp | wc -l) >= $(nproc))); do
            wait -n
        done
        run_workload "$workload" "$1/$workload" &
    done
    wait
}

# The plain run has to be right by itself, or the comparison would prove nothing.
is_sound() { # is_sound FOLDER
    grep -rqx finished "$1" && ! grep -q ' exits with [^0]' "$1/output"
}

# An executable may bring its own malloc or be linked statically; then its run would prove nothing.
binds_malloc() { # binds_malloc PROGRAM...: tells whether the program's calls of malloc reach the library.
    rm -f "$work"/bindings.*
    "${watched[@]}" env LD_PRELOAD="$library" LD_DEBUG=bindings LD_DEBUG_OUTPUT="$work/bindings" \
        "$@" >/dev/null 2>&1
    grep -qsF "to $library [0]: normal symbol \`malloc'" "$work"/bindings.*
}

# The changed run is the left side of the difference: a crash then says its word in the first lines.
check_identical() { # check_identical NAME PLAIN_FOLDER FOLDER
    if diff -r "$3" "$2" >"$work/difference" 2>&1; then
        pass "$1"
    else
        fail "$1"
        sed "s,$work/,,g" "$work/difference" | cut -c 1-160 | head -n 15 | diag
    fi
}

check_configuration() { # check_configuration LIBRARY OPTIONS GROUND
    local name workload answer
    name="${1##*/} $2"
    allocator=(LD_PRELOAD="$1" HMM_OPTIONS="$2")
    answer=$(tested "$fixtures/whose_malloc" 2>&1 | head -n 1)
    # Other allocators, which HMM_LIB may name, know nothing of our regions.
    [[ ${1##*/} == libhmm* ]] || answer=${answer/memory in */memory in $3}
    is "$name: in use" "$answer" "${1##*/}, memory in $3" || return
    run_all "$work/changed"
    for workload in "${workloads[@]}"; do
        check_identical "$name: $workload" "$work/plain/$workload" "$work/changed/$workload"
    done
    rm -rf "$work/changed"
}

# Without these nothing can be compared.
for file in "$library" "$array_library"; do
    ok "${file##*/} is built" test -e "$file" || diag "there is no $file"
done
for program in "${!package_of[@]}"; do
    ok "$program is installed" command -v "$program" ||
        diag "install the Debian package ${package_of[$program]}"
done
((tap_failed == 0)) || done_testing

if [[ -n $chosen_workloads ]]; then
    read -ra workloads <<<"$chosen_workloads"
fi
cd "$fixtures" || exit
ok "whose_malloc is compiled" gcc -std=c11 "$sources/whose_malloc.c" -o whose_malloc -ldl
for workload in "${workloads[@]}"; do
    if declare -F "prepare_$workload" >/dev/null; then
        ok "$workload: is prepared" "prepare_$workload"
    fi
done
run_all "$work/plain"
for workload in "${workloads[@]}"; do
    ok "$workload: works without the allocator" is_sound "$work/plain/$workload" ||
        tail -n 15 "$work/plain/$workload/output" | diag
done
((tap_failed == 0)) || done_testing

for program in bash vim "$python" git gcc "$(gcc -print-prog-name=cc1)" as perl sqlite3 gdb redis-server; do
    ok "${program##*/}: its malloc is the library's" binds_malloc "$program" --version
done

check_configuration "$library" engine=fast 'a mapping'
for region in sbrk reserve; do
    ground='the break'
    [[ $region == sbrk ]] || ground='a mapping'
    for fit in good first next best; do
        check_configuration "$library" "engine=block,region=$region,fit=$fit" "$ground"
    done
done
check_configuration "$array_library" fit=good 'a static array'

done_testing
