# shellcheck shell=bash
# Builds and runs small programs against the library, for the scripts of tests/ that source this file after
# tap.sh. They expect the library under BUILD, as `make lib` leaves it.

library_folder=$(realpath -m "${BUILD:-build}/lib")
library=$library_folder/libhmm.so
array_library=$library_folder/libhmm-array.so
secure_library=$library_folder/libhmm-secure.so
archive=$library_folder/libhmm.a
programs_folder=$(realpath -m "${BUILD:-build}/tests")
tests_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Without builtins the compiler leaves each call of malloc where it stands; -O1 keeps the rest honest.
# Sizes that no object can have, and pointers used after they were freed, are what we are here for.
compiler_flags=(-g -O1 -fno-builtin -Wall -Wextra -pthread -D_GNU_SOURCE
    -I"$tests_folder/../include" -I"$tests_folder" -I"$tests_folder/doors"
    -Wno-alloc-size-larger-than -Wno-use-after-free -Wno-free-nonheap-object -Wno-deprecated-declarations
    -Wno-array-bounds -Wno-stringop-overflow)
# shellcheck disable=SC2034,SC2054 # The scripts use these three, and their commas are the linker's.
linked=(-L"$library_folder" -lhmm -Wl,-rpath,"$library_folder")
# shellcheck disable=SC2034,SC2054
linked_array=(-L"$library_folder" -lhmm-array -Wl,-rpath,"$library_folder")
# shellcheck disable=SC2034,SC2054
linked_secure=(-L"$library_folder" -lhmm-secure -Wl,-rpath,"$library_folder")

# No program may hang for longer, and none leaves a core.
limit_seconds=30
ulimit -S -c 0

# Nothing of the user's may decide how a test runs.
unset HMM_OPTIONS LD_PRELOAD

for file in "$library" "$array_library" "$secure_library" "$archive"; do
    if [[ ! -e $file ]]; then
        echo "Bail out! there is no $file; run make"
        exit 1
    fi
done

# Compiles a program in the background; compile_done waits for all of them.
# shellcheck disable=SC2206 # CC may bring options along.
compile() { # compile PROGRAM SOURCE [FLAG...]: PROGRAM becomes $programs_folder/PROGRAM
    local program=$programs_folder/$1 source=$tests_folder/$2 compiler=(${CC:-cc} -std=gnu11)
    shift 2
    [[ $source != *.cc ]] || compiler=(${CXX:-c++} -std=c++17 -fsized-deallocation -Wno-mismatched-new-delete)
    mkdir -p "${program%/*}"
    rm -f "$program"
    "${compiler[@]}" "${compiler_flags[@]}" -o "$program" "$source" "$@" -ldl &
    compiled+=("$program")
}

compile_done() {
    local program
    wait
    for program in "${compiled[@]}"; do
        ok "${program##*/} is compiled" test -x "$program"
    done
    compiled=()
}
compiled=()

# What a case exits with that cannot run here (doors/cases.h), once it has said why.
skipped=77

# Runs a program that must exit with 0. Variables come first, as for env.
run() { # run [NAME=VALUE...] PROGRAM [ARGUMENT...]
    local variables=()
    while [[ $1 == *=* ]]; do
        variables+=("$1")
        shift
    done
    local program=$programs_folder/$1
    shift
    # The braces keep the shell's own word about a signal to itself.
    { timeout -k 5 "$limit_seconds" env "${variables[@]}" "$program" "$@" 2>&3; } 3>&2 2>/dev/null
    local status=$?
    ((status == 0 || status == skipped)) || diag "${program##*/} $*: exit status $status (${variables[*]})"
    return "$status"
}

# Runs a case of a program, as a test of its own.
run_case() { # run_case NAME [NAME=VALUE...] PROGRAM CASE
    local name=$1 said=$programs_folder/said.$$
    shift
    run "$@" >"$said"
    case $? in
        0) pass "$name" ;;
        "$skipped") skip "$name" "$(sed -n 's/^# skipped: //p' "$said")" ;;
        *) fail "$name" ;;
    esac
    rm -f "$said"
}

# Runs all cases of a program.
run_cases() { # run_cases LABEL [NAME=VALUE...] PROGRAM
    local label=$1 name
    shift
    local program="${*: -1}" names=()
    mapfile -t names < <("$programs_folder/$program")
    ok "$label: $program has cases" test "${#names[@]}" -gt 0
    for name in "${names[@]}"; do
        run_case "$label: $name" "$@" "$name"
    done
}
