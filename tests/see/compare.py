# Compares what `hmm explain --json` says: the parts add up; the kernel's count agrees; a core and a run of its own
# have the same heap as the process.
#
#     compare.py sum FILE                 the parts are the total
#     compare.py kernel FILE PID          the total is what the kernel counts, within 2 %
#     compare.py same FILE FILE           every part of the heap is the same, within 2 % of the total
import json
import sys

TOLERANCE = 0.02
HEAP_KINDS = [
    "live-small", "live-medium", "live-large", "live-blocks", "live-heaps", "rounding", "free-slots",
    "free-blocks", "caches", "dirty", "metadata",
]


def load(path):
    with open(path) as file:
        return json.load(file)


def kernel_bytes(process):
    with open("/proc/%s/smaps_rollup" % process) as file:
        for line in file:
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    return 0


def by_kind(report):
    sums = dict.fromkeys(HEAP_KINDS, 0)
    for part in report["parts"]:
        if part["kind"] in sums:
            sums[part["kind"]] += part["bytes"]
    return sums


def main():
    question, report = sys.argv[1], load(sys.argv[2])
    whole = report["resident_bytes"]
    if question == "sum":
        total = sum(part["bytes"] for part in report["parts"])
        if total != whole or whole == 0 or report["changed"]:
            sys.exit("the parts are %d of %d bytes, changed: %s" % (total, whole, report["changed"]))
    elif question == "kernel":
        counted = kernel_bytes(sys.argv[3])
        if abs(counted - whole) > TOLERANCE * counted:
            sys.exit("%d bytes, the kernel counts %d" % (whole, counted))
    else:
        left, right = by_kind(report), by_kind(load(sys.argv[3]))
        far = [(kind, left[kind], right[kind]) for kind in HEAP_KINDS
               if abs(left[kind] - right[kind]) > TOLERANCE * whole]
        if far:
            sys.exit("of %d bytes: %s" % (whole, far))


main()
