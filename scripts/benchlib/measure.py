# SPDX-License-Identifier: MIT
"""What is measured, by fio and of a process; and how it is shown."""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys

from benchlib.subjects import Failure


def make_file(path, size):
    with open("/dev/urandom", "rb") as random:
        block = random.read(16 << 20)
    with open(path, "wb") as out:
        for at in range(0, size, len(block)):
            # Every copy of the block begins with its place, so that none equals another.
            out.write((at.to_bytes(8, "little") + block[8:])[:size - at])
        out.flush()
        os.fsync(out.fileno())


def read_through(path):
    """Brings the file into the page cache."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def fio(path, size, row, runtime, direct, folder):
    result = subprocess.run(
        ["fio", "--name=bench", f"--filename={path}", f"--size={size}", "--ioengine=io_uring",
         f"--direct={int(direct)}", "--time_based", f"--runtime={runtime}", "--group_reporting",
         "--norandommap", "--randrepeat=0", "--invalidate=0", "--fallocate=none",
         "--allow_file_create=0", "--thread", "--output-format=json", f"--aux-path={folder}",
         *row[1]], capture_output=True, text=True, check=False)
    if result.returncode:
        raise Failure(f"fio on {path}: {result.stderr.strip() or result.stdout.strip()}")
    job = json.loads(result.stdout[result.stdout.index("{"):])["jobs"][0]
    if job["error"]:
        raise Failure(f"fio on {path}: error {job['error']}")
    side = job["write" if "write" in row[0] else "read"]
    return side["iops"] / 1e3 if row[2] == "kIOPS" else side["bw_bytes"] / 1e9


def daemon_work(process):
    """What a process has used so far: nanoseconds of processor time, context switches."""
    with open(f"/proc/{process.pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    switches = 0
    for thread in os.listdir(f"/proc/{process.pid}/task"):
        with open(f"/proc/{process.pid}/task/{thread}/status", encoding="utf-8") as status:
            switches += sum(map(int, re.findall(r"ctxt_switches:\s*(\d+)", status.read())))
    return ticks * 1e9 / os.sysconf("SC_CLK_TCK"), switches


def cycles_during(process, run):
    """Cycles that a process uses meanwhile, by perf; None where they are not counted."""
    perf = shutil.which("perf")
    if not perf:
        return run(), None
    with subprocess.Popen([perf, "stat", "-x", ",", "-e", "cycles", "-p", str(process.pid)],
                          stderr=subprocess.PIPE, text=True) as counter:
        result = run()
        counter.send_signal(signal.SIGINT)
        match = re.search(r"^(\d+),", counter.communicate()[1], re.MULTILINE)
    return result, int(match[1]) if match else None


def resident_kib(process):
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as status:
        return int(re.search(r"VmRSS:\s*(\d+)", status.read())[1])


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def short(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def scale_row(name, unit, values, relation=None, bar=None):
    median = statistics.median(values)
    if relation is None:
        verdict = "-"
    else:
        good = median < bar if relation == "<" else median >= bar
        verdict = f"{'ok' if good else 'missed'}: {relation} {bar} {unit}".rstrip()
    spread = f" ({short(min(values))}..{short(max(values))})" if len(values) > 1 else ""
    return [name, f"{short(median)} {unit}".rstrip() + spread, verdict]


def scale_pairs(name, sides, least, folder, options):
    """The ratio of two (path, fio row), taken in turns; they are what fio() wants. No @least: no bar."""
    ratios = []
    for path, row in sides:
        fio(path, options.size, row, min(options.runtime, 1), True, folder)
    for turn in range(options.rounds):
        progress(f"{name}: round {turn + 1} of {options.rounds}")
        values = {}
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            path, row = sides[side]
            values[side] = fio(path, options.size, row, options.runtime, True, folder)
        ratios.append(values[0] / values[1])
    return scale_row(name, "", ratios, ">=" if least else None, least)


def print_table(lines, markdown):
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for index, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths)]
        print("| " + " | ".join(cells) + " |" if markdown else "  ".join(cells).rstrip())
        if index == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|" if markdown
                  else "-" * (sum(widths) + 2 * len(widths) - 2))
    print(flush=True)


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        model = re.search(r"model name\s*: (.*)", info.read())
    return f"{os.cpu_count()} x {model[1] if model else os.uname().machine}"


def print_head(options):
    print(f"{processor()}, Linux {os.uname().release}; {options.rounds} rounds of "
          f"{options.runtime:g} s; medians (least..greatest)"
          + ("\n" if options.scale else
             "; ratios are diskfs/rival, with the bar where there is one\n"), flush=True)
