"""The tables, the page and the plot."""

import datetime
import math
import os
import platform
import re
import shutil
import statistics
import subprocess

from launching import BINARIES, DOCS, HERE, note, output_of

# What may stay resident a second after the work, without a call: this much, by the bytes alive.
BOUND_PER_LIVE = 1.25
BOUND_BYTES = 4 << 20

MIB = 1 << 20

# ---------------------------------------------------------------------------- tables


class Results:
    """What was measured, and how it compares. A figure of 0 counts as 1, or it had no ratio."""

    def __init__(self, allocators, by_row, own):
        self.own = own
        self.names = [allocator.name for allocator in allocators]
        self.base = self.names[0]
        self.by_row = by_row

    def rows_with(self, metric):
        return [row for row, by_name in self.by_row.items() if metric in by_name[self.base]]

    def value(self, row, name, metric):
        value = self.by_row[row][name].get(metric)
        return None if value is None else max(value, 1)

    def ratio(self, row, name, metric):
        value = self.value(row, name, metric)
        return value and value / self.value(row, self.base, metric)

    def to_best(self, row, metric):
        """Ours to the best of its peers: below 1, nobody is better. Where the secure library is
        compared, its peers are those that are made to be secure: neither glibc nor HMM."""
        own = self.own in self.names and self.value(row, self.own, metric)
        others = [self.value(row, name, metric) for name in self.peers()]
        others = [value for value in others if value is not None]
        return own / min(others) if own and others else None

    def is_secure(self):
        return self.own != "HMM"

    def peers(self):
        left_out = (self.own, "HMM", self.base) if self.is_secure() else (self.own,)
        return [name for name in self.names if name not in left_out]

    @staticmethod
    def mean(ratios):
        ratios = [ratio for ratio in ratios if ratio is not None]
        return math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None

    def mean_ratio(self, name, metric):
        return self.mean(self.ratio(row, name, metric) for row in self.rows_with(metric))

    def mean_to_best(self, metric):
        return self.mean(self.to_best(row, metric) for row in self.rows_with(metric))


def three_digits(figure):
    return f"{figure:.3g}" if figure < 1000 else f"{figure:.0f}"


def two_places(ratio):
    return "fails" if ratio is None else f"{ratio:.2f}"


def markdown(head, rows, numbers_from=1):
    ruler = ["---"] * numbers_from + ["--:"] * (len(head) - numbers_from)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ruler, *rows))


def ratio_table(results, metric, unit, unit_name):
    """The first allocator's figure, and the others' ratios to it."""
    base, others = results.base, results.names[1:]
    rows = []
    for row in results.rows_with(metric):
        figure = three_digits(results.value(row, base, metric) / unit)
        ratios = [two_places(results.ratio(row, name, metric)) for name in others]
        rows.append([row, figure, *ratios, two_places(results.to_best(row, metric))])
    means = [two_places(results.mean_ratio(name, metric)) for name in others]
    rows.append(["**geometric mean**", "", *means, two_places(results.mean_to_best(metric))])
    return markdown(["", f"{base}, {unit_name}", *others, f"{results.own} / best peer"], rows)


PERCENTILES = ("p99.9_ns", "p99.99_ns", "p100_ns")


def percentile_table(results):
    """Three figures to a cell, in microseconds; the means are ratios to the first allocator."""
    def microseconds(row, name):
        values = [results.value(row, name, metric) for metric in PERCENTILES]
        if None in values:
            return "fails"
        return " / ".join(three_digits(value / 1000) for value in values)

    def three(function, *arguments):
        return " / ".join(two_places(function(*arguments, metric)) for metric in PERCENTILES)

    rows = [
        [row, *(microseconds(row, name) for name in results.names), three(results.to_best, row)]
        for row in results.rows_with(PERCENTILES[0])
    ]
    means = [three(results.mean_ratio, name) for name in results.names]
    rows.append(["**geometric mean** of ratios", *means, three(results.mean_to_best)])
    return markdown(["", *results.names, f"{results.own} / best peer"], rows)


def after_table(results):
    """What is alive, what may be resident by that, and what is; what is beyond, in italics."""
    def mebibytes(row, name, bound):
        value = results.value(row, name, "after_bytes")
        text = "fails" if value is None else f"{value / MIB:.1f}"
        return f"*{text}*" if value is not None and value > bound else text

    rows = []
    for row in results.rows_with("after_bytes"):
        live_bytes = results.by_row[row][results.base].get("live_bytes")
        limits, bound = ["", ""], math.inf
        if live_bytes is not None:
            bound = BOUND_PER_LIVE * live_bytes + BOUND_BYTES
            limits = [f"{live_bytes / MIB:.1f}", f"{bound / MIB:.1f}"]
        sizes = [mebibytes(row, name, bound) for name in results.names]
        rows.append([row, *limits, *sizes, two_places(results.to_best(row, "after_bytes"))])
    means = [two_places(results.mean_ratio(name, "after_bytes")) for name in results.names]
    to_best = two_places(results.mean_to_best("after_bytes"))
    rows.append(["**geometric mean** of ratios", "", "", *means, to_best])
    return markdown(["", "alive", "bound", *results.names, f"{results.own} / best peer"], rows)


def tables(results):
    """Each with a title and a word."""
    base = results.base
    sections = [
        ("Wall time", "", ratio_table(results, "wall_ns", 1e6, "ms")),
        (
            "Processor time",
            "Of all threads, in user and kernel. ",
            ratio_table(results, "cpu_ns", 1e6, "ms"),
        ),
        ("Peak resident size", "", ratio_table(results, "peak_bytes", MIB, "MiB")),
        ("Page faults", "", ratio_table(results, "faults", 1, "faults")),
    ]
    sections = [(title, f"{word}Ratios to {base}.", table) for title, word, table in sections]
    if results.rows_with(PERCENTILES[0]):
        word = "The 99.9th, the 99.99th and the 100th percentile of all calls, in microseconds."
        sections.append(("Single calls", word, percentile_table(results)))
    if results.rows_with("after_bytes"):
        word = (
            f"In MiB, a workload having made no call since. The bound is {BOUND_PER_LIVE} of what "
            f"is alive, and {BOUND_BYTES // MIB} MiB; what is beyond it is in italics."
        )
        sections.append(("Resident size a second after the work", word, after_table(results)))
    return "\n".join(f"## {title}\n\n{word}\n\n{table}" for title, word, table in sections)


# ---------------------------------------------------------------------------- the page

METHOD = """\
`make {page}` runs each workload (`bench/malloc/*.c`) and each program under every allocator,
which comes by `LD_PRELOAD`. The allocators take turns, each repeat begins with another one, and all
figures are medians of {repeats}. The last column has {own}'s figure over that of the best of the
others{who}: below 1, nobody is better. *Fails* means that the program did not end well.

A workload's **wall time** is that of its work, a program's that of the whole process, and redis'
from the first request to the last reply. **Processor time**, **peak resident size** and **page
faults** are the kernel's account of the process. A workload's own tables are taken off its peak.
**Single calls** are timed in a run of their own, each of them, by the time stamp counter; an
interrupt during a call is part of it, so the 100th percentile tells more of the machine than of the
allocator unless it stands out. Threads: {threads}.
"""


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        model = re.search(r"^model name\s*: (.*)", cpuinfo.read(), re.MULTILINE)
    model_name = model[1] if model else platform.machine()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}"
    return f"{model_name}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {system}"


def page_name(results):
    return "bench-secure" if results.is_secure() else "bench-malloc"


def write_plot_data(results, path):
    with open(path, "w", encoding="utf-8") as data:
        for metric in ("wall_ns", "peak_bytes", "p99.99_ns", "after_bytes"):
            print("row", *results.names, sep="\t", file=data)
            for row in results.rows_with(metric):
                ratios = [results.ratio(row, name, metric) or "-" for name in results.names]
                print(row.replace("_", " "), *ratios, sep="\t", file=data)
            print("\n", file=data)


def plot(results):
    """The plot's line on the page."""
    if not shutil.which("gnuplot"):
        note("no gnuplot: the page has tables only, and its plot is not touched")
        return "(No plot: gnuplot was not there.)"
    data = os.path.join(BINARIES, "plot.tsv")
    picture = os.path.join(DOCS, f"{page_name(results)}.svg")
    write_plot_data(results, data)
    settings = (
        f"data='{data}'; base='{results.base}'; last_column={len(results.names) + 1}; "
        f"output_file='{picture}'"
    )
    subprocess.run(["gnuplot", "-e", settings, os.path.join(HERE, "plot.gp")], check=False)
    return f"![Ratios by row and allocator]({page_name(results)}.svg)"


def page(results, rows, allocators, repeats, threads):
    compiler = output_of(os.environ.get("CC", "cc"), "--version")
    versions = "".join(f"- **{each.name}**: {each.version}\n" for each in allocators)
    measured_rows = [row for row in rows if row.name in results.by_row]
    stories = "".join(f"- `{row.name}`: {row.story}\n" for row in measured_rows)
    sections = (
        f"# malloc beside others{', made secure' if results.is_secure() else ''}",
        f"Measured on {datetime.date.today()} on {machine()}, with {compiler}, `-O2`:",
        versions.rstrip(),
        METHOD.format(
            page=page_name(results),
            repeats=repeats,
            threads=threads,
            own=results.own,
            who=f" but {results.base} and HMM" if results.is_secure() else "",
        ).rstrip(),
        plot(results),
        "## The rows",
        stories.rstrip(),
        tables(results).rstrip(),
    )
    path = os.path.join(DOCS, f"{page_name(results)}.md")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n\n".join(sections) + "\n")
    print(path)
