# SPDX-License-Identifier: MIT
"""diskfs beside itself: many disks, the daemon's work for a request, workers."""

import argparse
import os
import subprocess
import time

from benchlib.measure import (cycles_during, daemon_work, fio, progress, resident_kib, scale_pairs,
                              scale_row)
from benchlib.subjects import diskfs_of, settings_text

STACKS = 1000    # of the rows about many stacks

NEIGHBOURS = 99  # idle disks beside a busy one


def many_stacks(count, folder, options):
    """Half of them files, half RAM disks."""
    return settings_text(options.set) + "".join(
        f"[disk{i}]\ndriver = file\npath = {folder}/disk{i}.raw\nsize = 16M\n" if i % 2 == 0
        else f"[disk{i}]\ndriver = ram\nsize = 16M\n" for i in range(count))


def measure_start(count, folder, options):
    """Mounts so many stacks: seconds, resident KiB while idle, milliseconds of a .status."""
    text = many_stacks(count, folder, options)
    begin = time.monotonic()
    with diskfs_of(text, folder) as (mountpoint, process):
        seconds = time.monotonic() - begin
        resident = resident_kib(process)
        begin = time.monotonic()
        subprocess.run(["cat", os.path.join(mountpoint, ".status")], stdout=subprocess.DEVNULL,
                       check=True)
        return seconds, resident, (time.monotonic() - begin) * 1e3


def scale_start(folder, options):
    seconds, per_stack, status = [], [], []
    for turn in range(options.rounds):
        progress(f"{STACKS} stacks: round {turn + 1} of {options.rounds}")
        base = measure_start(1, folder, options)
        many = measure_start(STACKS, folder, options)
        seconds.append(many[0])
        per_stack.append((many[1] - base[1]) / (STACKS - 1))
        status.append(many[2])
    return [scale_row(f"{STACKS} stacks mounted", "s", seconds, "<", 2),
            scale_row(f"resident per idle stack of {STACKS}", "KiB", per_stack, "<", 64),
            scale_row(f"cat .status of {STACKS} stacks", "ms", status, "<", 100)]


def scale_neighbours(backing, folder, options):
    # The bar is nearer to 1 than one round's noise: two mounts of the same differ by up to 30 %.
    options = argparse.Namespace(**{**vars(options), "rounds": 5 * options.rounds})
    disk = f"[busy]\ndriver = file\npath = {backing}\nlock = no\n"
    alone = settings_text(options.set) + disk
    rows = []
    with diskfs_of(alone, folder, "alone") as (one, _), \
            diskfs_of(many_stacks(NEIGHBOURS, folder, options) + disk, folder, "many") as (many, _):
        for what in ("read", "write"):
            row = (what, ["--rw=rand" + what, "--bs=4k", "--iodepth=32"], "kIOPS")
            rows.append(scale_pairs(
                f"4 KiB random {what}, depth 32, beside {NEIGHBOURS} idle disks / alone",
                [(f"{many}/busy.img", row), (f"{one}/busy.img", row)], 0.95, folder, options))
    return rows


def scale_unaligned(backing, folder, options):
    text = settings_text(options.set)
    text += f"[disk]\ndriver = file\npath = {backing}\nsector_size = 4096\n"
    rows = []
    with diskfs_of(text, folder) as (mountpoint, _):
        path = os.path.join(mountpoint, "disk.img")
        for depth in (1, 32):
            sides = [(path, ("write", ["--rw=randwrite", f"--bs={size}", f"--iodepth={depth}"],
                             "kIOPS")) for size in (512, 4096)]
            rows.append(scale_pairs(
                f"random writes into sectors of 4096 bytes, depth {depth}: 512 bytes / 4 KiB",
                sides, 0.5, folder, options))
    return rows


def cost_of(transport, what, depth, backing, folder, options):
    """Of one 4 KiB request, in the daemon: ns, context switches, cycles (or None)."""
    text = settings_text([*options.set, f"transport={transport}"])
    text += f"[disk]\ndriver = file\npath = {backing}\nlock = no\n"
    row = (what, ["--rw=rand" + what, "--bs=4k", f"--iodepth={depth}"], "kIOPS")
    with diskfs_of(text, folder, transport) as (mountpoint, process):
        path = os.path.join(mountpoint, "disk.img")
        before = daemon_work(process)
        rate, cycles = cycles_during(
            process, lambda: fio(path, options.size, row, options.runtime, True, folder))
        after = daemon_work(process)
    requests = rate * 1e3 * options.runtime
    return [(b - a) / requests for a, b in zip(before, after)] + [cycles and cycles / requests]


def scale_cost(backing, folder, options):
    rows = []
    for transport in ("poll", "uring"):
        for what, depth in (("read", 1), ("read", 32), ("write", 32)):
            name = f"one 4 KiB {what} by {transport}, depth {depth}"
            values = []
            for turn in range(options.rounds):
                progress(f"{name}: round {turn + 1} of {options.rounds}")
                values.append(cost_of(transport, what, depth, backing, folder, options))
            ns, switches, cycles = zip(*values)
            rows.append(scale_row(f"{name}: processor time of the daemon", "ns", ns))
            rows.append(scale_row(f"{name}: its context switches", "", switches))
            if all(cycles):
                rows.append(scale_row(f"{name}: its cycles", "", cycles))
    return rows


def scale_workers(backing, folder, options):
    """From one worker to as many as CPUs, with as many clients."""
    rows = []
    cpus = os.cpu_count()
    row = ("read", ["--rw=randread", "--bs=4k", "--iodepth=32", f"--numjobs={cpus}"], "kIOPS")
    for transport in ("poll", "uring"):
        for workers in range(1, cpus + 1):
            text = settings_text([*options.set, f"transport={transport}", f"workers={workers}"])
            text += f"[disk]\ndriver = file\npath = {backing}\nlock = no\n"
            name = f"4 KiB random read, depth 32, {cpus} jobs, by {transport}: {workers} worker(s)"
            with diskfs_of(text, folder, f"{transport}{workers}") as (mountpoint, _):
                path = os.path.join(mountpoint, "disk.img")
                values = []
                for turn in range(options.rounds):
                    progress(f"{name}: round {turn + 1} of {options.rounds}")
                    values.append(fio(path, options.size, row, options.runtime, True, folder))
            rows.append(scale_row(name, "kIOPS", values))
    return rows


def scale_disks(backing, folder, options):
    return (scale_start(folder, options) + scale_neighbours(backing, folder, options)
            + scale_unaligned(backing, folder, options) + scale_cost(backing, folder, options)
            + scale_workers(backing, folder, options))
