#!/usr/bin/env python3
"""Compares HMM with other malloc replacements, on our workloads and on real programs.

    bench/malloc/run.py [--repeats N] [--only 'ROW ...'] [--allocators 'NAME ...'] [--scale PERCENT]
                        [--threads N] [--secure] [NAME=PATH.so ...]

A row is a workload (bench/malloc/ROW.c, whose first line is its question) or a program. An
allocator comes by LD_PRELOAD: glibc's, HMM's, those that Debian packages, as far as they are
installed, and each PATH.so that is given, for which a NAME with a version in it is best.

With all rows, at their scale and with two threads, the page and its plot are written; else the
tables go to the terminal, and the page stays as it is. --repeats is 5 unless given. With --secure
HMM's secure library is there too, the last column is about it, and the page is another one.

In the environment: BUILD, the build folder (build), with lib/libhmm.so and the built workloads in
bench/malloc; DOCS, where the page goes (docs); CC, the compiler that is named on it (cc);
HMM_OPTIONS reaches the programs, and of the rest little else does.
"""

import argparse
import collections
import glob
import json
import os
import platform
import re
import statistics
import sys
import time

sys.dont_write_bytecode = True  # The sources' folder stays as it is.

from launching import BINARIES, BUILD, INPUTS, LAUNCH, ROOT, Failure, note, output_of
from report import Results, page, tables
from rows import WORKLOADS, Workload, programs

# ---------------------------------------------------------------------------- allocators

Allocator = collections.namedtuple("Allocator", "name preload version")

SECURE = "HMM-secure"

DEBIAN = (
    ("jemalloc", "libjemalloc2", "/usr/lib/{triplet}/libjemalloc.so.2"),
    ("mimalloc", "libmimalloc2.0", "/usr/lib/{triplet}/libmimalloc.so.[0-9]*"),
    ("tcmalloc", "libtcmalloc-minimal4", "/usr/lib/{triplet}/libtcmalloc_minimal.so.4"),
    ("tbbmalloc", "libtbbmalloc2", "/usr/lib/{triplet}/libtbbmalloc_proxy.so.2"),
    (
        "scudo",
        "libclang-rt-19-dev",
        "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-{machine}.so",
    ),
)


def debian_version(path):
    package = output_of("dpkg-query", "-S", path).split(": ")[0]
    version = package and output_of("dpkg-query", "-W", "-f", "${Version}", package)
    return f"{package.split(':')[0]} {version}" if version else "version unknown"


def newest(paths):
    """The path with the highest numbers in it."""
    return max(paths, key=lambda path: [int(digits) for digits in re.findall(r"\d+", path)])


def debian_allocators():
    machine = platform.machine()
    for name, package, pattern in DEBIAN:
        paths = glob.glob(pattern.format(triplet=f"{machine}-linux-gnu", machine=machine))
        if paths:
            path = newest(paths)
            yield Allocator(name, path, debian_version(path))
        else:
            note(f"{name} is left out: install the Debian package {package}")


def hmm_version():
    with open(os.path.join(ROOT, "include", "hmm.h"), encoding="utf-8") as header:
        version = re.search(r'#define HMM_VERSION\s+"(.*)"', header.read())
    commit = output_of("git", "-C", ROOT, "describe", "--always", "--dirty") or "no commit"
    return f"{version[1] if version else '?'} ({commit})"


def given_allocator(argument):
    name, equals, path = argument.partition("=")
    if not equals or not os.path.isfile(path):
        sys.exit(f"run.py: {argument}: NAME=PATH.so is wanted, and a file at the path")
    return Allocator(name, os.path.realpath(path), debian_version(os.path.realpath(path)))


def library(name):
    path = os.path.join(BUILD, "lib", name)
    if not os.path.exists(path):
        sys.exit(f"run.py: there is no {name} in BUILD/lib: `make` builds it")
    return path


def all_allocators(given, is_secure):
    """The first is what the others are compared with. A program that brings an allocator of its own
    finds glibc's before it because that is preloaded too."""
    glibc_version = os.confstr("CS_GNU_LIBC_VERSION").split()[-1]
    yield Allocator("glibc", "libc.so.6", glibc_version)
    yield Allocator("HMM", library("libhmm.so"), hmm_version())
    if is_secure:
        yield Allocator(SECURE, library("libhmm-secure.so"), hmm_version())
    yield from debian_allocators()
    yield from map(given_allocator, given)


# ---------------------------------------------------------------------------- measuring


def medians(samples):
    return {
        metric: statistics.median(sample[metric] for sample in samples) for metric in samples[0]
    }


def measure_row(row, allocators, repeats):
    """Medians by allocator, and none of them where a run failed. Each repeat starts with another
    allocator, and all have run once before the next."""
    samples = {allocator.name: [] for allocator in allocators}
    failed = set()
    for repeat in range(repeats):
        start = repeat % len(allocators)
        for allocator in allocators[start:] + allocators[:start]:
            if allocator.name in failed:
                continue
            try:
                samples[allocator.name].append(row.run(allocator))
            except Failure as failure:
                note(f"{row.name} fails with {allocator.name}: {failure}")
                failed.add(allocator.name)
    return {name: {} if name in failed else medians(runs) for name, runs in samples.items()}


def measure(rows, allocators, repeats):
    """Medians by row and allocator."""
    results = {}
    os.makedirs(INPUTS, exist_ok=True)
    for index, row in enumerate(rows, 1):
        missing = row.missing()
        if missing:
            note(f"{row.name} is left out: {missing}")
            continue
        row.prepare()
        start = time.monotonic()
        results[row.name] = measure_row(row, allocators, repeats)
        note(f"{index}/{len(rows)} {row.name}: {time.monotonic() - start:.0f} s")
        # For other questions than those of the tables, and for a run that was broken off.
        with open(os.path.join(BINARIES, "results.json"), "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
    return results


# ---------------------------------------------------------------------------- the command line


def chosen(everything, names, what):
    """Those that are named, in their order; all, where none is."""
    wanted = {name.lower() for name in names.split()}
    unknown = wanted - {each.name.lower() for each in everything}
    if unknown:
        known = " ".join(each.name for each in everything)
        sys.exit(f"run.py: no {what} {' '.join(sorted(unknown))}; there are {known}")
    return [each for each in everything if not wanted or each.name.lower() in wanted]


def arguments_read():
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        description=__doc__, usage=argparse.SUPPRESS, formatter_class=as_written
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--allocators", default="")
    parser.add_argument("--scale", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--secure", action="store_true")
    parser.add_argument("peers", nargs="*")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("one repeat is the least")
    return arguments


def main():
    arguments = arguments_read()
    if not os.access(LAUNCH, os.X_OK):
        sys.exit(f"run.py: there is no {LAUNCH}: `make bench-malloc` builds it")
    everyone = list(all_allocators(arguments.peers, arguments.secure))
    allocators = chosen(everyone, arguments.allocators, "allocator")
    workloads = [Workload(name, arguments.scale, arguments.threads) for name in WORKLOADS]
    rows = chosen(workloads + programs(), arguments.only, "workload or program")
    own = SECURE if arguments.secure else "HMM"
    results = Results(allocators, measure(rows, allocators, arguments.repeats), own)
    if not results.by_row:
        sys.exit("run.py: nothing was measured")
    is_partial = arguments.only or arguments.scale != 100 or arguments.threads != 2
    if is_partial:
        print(tables(results))
    else:
        page(results, rows, allocators, arguments.repeats, arguments.threads)


if __name__ == "__main__":
    main()
