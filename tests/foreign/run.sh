#!/usr/bin/env bash
# Builds the rooms for other processors and runs them under an emulator: threads that come and go, blocks of all
# sizes, with both engines, and where addresses have 39 bits. What cannot be had here is left out, in words.
#
# The compilers of tests/foreign/packages are not installed from here, because Debian's cannot be had beside gcc-multilib,
# which other tests need.
#
# BUILD  the build folder (build)
#
# The emulator (qemu-user up to 7.2 at least) takes the place that moved pages leave behind for free, whatever
# mremap was asked to do, and gives it to the next mapping; so pages are not moved here.
set -eu

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${BUILD:-build}/foreign
steps=3000

emulate() { # emulate PROCESSOR ARGUMENT...
    local processor=$1
    shift
    timeout 300 "qemu-$processor" -L "/usr/$processor-linux-gnu" -E KERNEL_HAS_NO_MREMAP=1 "$@"
}

for processor in aarch64 riscv64; do
    if ! command -v "qemu-$processor" >/dev/null || ! command -v "$processor-linux-gnu-gcc" >/dev/null; then
        echo "$processor: not run, needs qemu-user and $processor-linux-gnu-gcc"
        continue
    fi
    make -s BUILD="$build/$processor" CC="$processor-linux-gnu-gcc" KERNEL=other lib "$build/$processor/tests/churn"
    for engine in fast block; do
        emulate "$processor" -E "HMM_OPTIONS=engine=$engine" "$build/$processor/tests/churn" "$steps"
        echo "$processor, engine=$engine: good"
    done
    emulate "$processor" -R 0x8000000000 -E KERNEL_MEMORY_SHIFT=40 "$build/$processor/tests/churn" "$steps"
    echo "$processor, 39-bit addresses: good"
    emulate "$processor" -E KERNEL_PAGE_KIB=64 "$build/$processor/tests/churn" "$steps"
    echo "$processor, pages of 64 KiB: good"
done
