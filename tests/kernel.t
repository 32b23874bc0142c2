#!/usr/bin/env bash
# Other kernels, as far as a process can tell: larger pages, fewer addresses, more memory, no moving of pages, or less of it.
# `make kernel` builds what runs here.
#
# BUILD  the build folder (build)
# UNITS  which unit tests are run (those of the rooms that know pages)
# shellcheck disable=SC2317 # Functions are called by way of ok.
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

units=${UNITS:-test_arena test_region test_medium}
steps=2000
library=$(realpath -m "${BUILD:-build}/kernel/lib/libhmm.so")
programs_folder=$(realpath -m "${BUILD:-build}/kernel/tests")
limit_seconds=300

ok "the programs are built" test -x "$programs_folder/churn" -a -e "$library"

for kibibytes in 16 64; do
    for unit in $units; do
        ok "pages of $kibibytes KiB: $unit" run CMOCKA_MESSAGE_OUTPUT=TAP KERNEL_PAGE_KIB="$kibibytes" "$unit"
    done
    for engine in fast block; do
        ok "pages of $kibibytes KiB, engine=$engine: threads that come and go" \
            run KERNEL_PAGE_KIB="$kibibytes" HMM_OPTIONS="engine=$engine" churn "$steps"
    done
done

# A terabyte of memory makes the library want more addresses than there are.
for kernel in 'KERNEL_ADDRESS_BITS=39 KERNEL_MEMORY_SHIFT=40' 'KERNEL_ADDRESS_BITS=36 KERNEL_MEMORY_SHIFT=44' \
    KERNEL_ADDRESS_BITS=33 KERNEL_HAS_NO_MREMAP=1; do
    for engine in fast block; do
        # shellcheck disable=SC2086 # words
        ok "$kernel, engine=$engine: threads that come and go" run $kernel HMM_OPTIONS="engine=$engine" churn "$steps"
    done
done

long='addresses of 57 bits'
if grep -qw la57 /proc/cpuinfo; then
    for unit in $units; do
        ok "$long: $unit" run CMOCKA_MESSAGE_OUTPUT=TAP KERNEL_ADDRESS_BITS=57 "$unit"
    done
    for engine in fast block; do
        ok "$long, engine=$engine: threads that come and go" \
            run KERNEL_ADDRESS_BITS=57 HMM_OPTIONS="engine=$engine" churn "$steps"
    done
else
    skip "$long" "the processor has none"
fi

for unit in 'test_fast large_blocks*' 'test_purge *_back_*' 'test_guard *resized*'; do
    # shellcheck disable=SC2086 # words, the second for the test to take
    ok "before Linux 6.1: $unit" run CMOCKA_MESSAGE_OUTPUT=TAP KERNEL_IS_OLD=1 $unit
done
ok "before Linux 6.1: threads that come and go" run KERNEL_IS_OLD=1 churn "$steps"

# Under real programs, whose own calls go to the real kernel.
query=(sqlite3 ':memory:')
for kibibytes in 16 64; do
    if command -v python3 >/dev/null; then
        ok "pages of $kibibytes KiB: python3" \
            env LD_PRELOAD="$library" KERNEL_PAGE_KIB="$kibibytes" python3 "$tests_folder/programs/python.py"
    else
        skip "pages of $kibibytes KiB: python3" "it is not installed"
    fi
    if command -v sqlite3 >/dev/null; then
        is "pages of $kibibytes KiB: sqlite3" \
            "$(LD_PRELOAD="$library" KERNEL_PAGE_KIB="$kibibytes" "${query[@]}" <"$tests_folder/programs/sqlite.sql")" \
            "$("${query[@]}" <"$tests_folder/programs/sqlite.sql")"
    else
        skip "pages of $kibibytes KiB: sqlite3" "it is not installed"
    fi
done

done_testing
