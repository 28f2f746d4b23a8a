# SPDX-License-Identifier: MIT
"""diskfs beside its rivals, all on the same file."""

import contextlib
import os
import re
import statistics
import tempfile

from benchlib.measure import fio, make_file, print_table, progress, read_through, short
from benchlib.subjects import SUBJECTS

# name, fio's options, unit of the result
ROWS = [
    (f"4 KiB random {what}, depth {depth}, {jobs} job{'s' if jobs > 1 else ''}",
     ["--rw=rand" + what, "--bs=4k", f"--iodepth={depth}", f"--numjobs={jobs}"], "kIOPS")
    for depth in (1, 32) for jobs in (1, 2) for what in ("read", "write")
] + [
    (f"1 MiB sequential {what}, depth 4",
     ["--rw=" + what, "--bs=1M", "--iodepth=4", "--numjobs=1"], "GB/s")
    for what in ("read", "write")
]

# What is divided by what; diskfs by each other subject comes first.
PAIRS = [("passthrough", "plain")]

# place, row, (subject, rival), least ratio: what this version promises.
BARS = [
    ("tmpfs", r"4 KiB .* depth 32, 1 job", ("diskfs", "qsd"), 4),
    ("tmpfs", r"4 KiB .* depth 32, 1 job", ("diskfs", "loop"), 0.95),
    ("tmpfs", r"4 KiB random read, depth 32, 2 jobs", ("diskfs", "qsd"), 5),
    ("tmpfs", r"4 KiB random read, depth 32, 2 jobs", ("diskfs", "loop"), 1.1),
    ("tmpfs", r"depth 1,", ("diskfs", "qsd"), 2),
    ("tmpfs", r"depth 1,", ("diskfs", "loop"), 1.5),
    ("tmpfs", r"1 MiB sequential read", ("diskfs", "qsd"), 5),
    ("tmpfs", r"1 MiB sequential read", ("diskfs", "loop"), 0.95),
    ("tmpfs", r"1 MiB sequential write", ("diskfs", "qsd"), 1.4),
    ("tmpfs", r"1 MiB sequential write", ("diskfs", "loop"), 0.85),
    ("cached", r"4 KiB random read, depth 32, 1 job", ("diskfs", "qsd"), 2),
    ("cached", r"4 KiB random read, depth 32, 2 jobs", ("diskfs", "qsd"), 3),
    ("cached", r"4 KiB random read, depth 32, 2 jobs", ("diskfs", "loop"), 1.1),
    ("", r"4 KiB .* depth 32", ("diskfs", "nbdfuse"), 5),
    ("", r"", ("passthrough", "plain"), 0.95),
]


def is_direct(place, subject):
    return not (place == "cached" and subject in ("plain", "passthrough"))


def measure_place(place, backing, rows, options, folder):
    """Returns {row name: {subject: [a value for each round]}}."""
    values = {row[0]: {} for row in rows}
    with contextlib.ExitStack() as stack:
        paths = {}
        for name in options.subjects:
            if place == "cached" and name == "loop-direct":
                continue
            paths[name] = stack.enter_context(SUBJECTS[name][0](backing, folder, options.set))
        for name, path in paths.items():
            progress(f"{place}: warm-up of {name}")
            for row in rows[:1] + rows[-1:]:
                fio(path, options.size, row, min(options.runtime, 1), is_direct(place, name), folder)
        for row in rows:
            if place == "cached":
                read_through(backing)
            for turn in range(options.rounds):
                names = list(paths)
                names = names[turn % len(names):] + names[:turn % len(names)]
                for name in names:
                    progress(f"{place}: {row[0]}: round {turn + 1} of {options.rounds}: {name}")
                    values[row[0]].setdefault(name, []).append(
                        fio(paths[name], options.size, row, options.runtime, is_direct(place, name),
                            folder))
    return values


def ratio_cell(place, row, pair, values):
    if not all(subject in values for subject in pair):
        return "-"
    ratios = [a / b for a, b in zip(values[pair[0]], values[pair[1]])]
    text = f"{statistics.median(ratios):.2f}"
    if len(ratios) > 1:
        text += f" ({min(ratios):.2f}..{max(ratios):.2f})"
    for bar_place, pattern, bar_pair, least in BARS:
        if bar_place in ("", place) and pair == bar_pair and re.search(pattern, row):
            text += f" {'ok' if statistics.median(ratios) >= least else 'below'} {least}"
    return text


def table(place, units, results, subjects):
    pairs = [("diskfs", name) for name in subjects if name != "diskfs"]
    pairs += [pair for pair in PAIRS if all(name in subjects for name in pair)]
    header = [place, "diskfs"] + [
        f"/ {rival}" if subject == "diskfs" else f"{subject} / {rival}" for subject, rival in pairs]
    lines = [header]
    for row, values in results.items():
        mine = values["diskfs"]
        absolute = f"{short(statistics.median(mine))} {units[row]}"
        if len(mine) > 1:
            absolute += f" ({short(min(mine))}..{short(max(mine))})"
        lines.append([row, absolute] + [ratio_cell(place, row, pair, values) for pair in pairs])
    return lines
