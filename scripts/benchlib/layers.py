# SPDX-License-Identifier: MIT
"""
What layers cost: a RAM layer against the RAM disk and the file that it is made of, its memory, and
a diff in a SQLite file against a qcow2 overlay of the same base.
"""

import contextlib
import os
import subprocess
import tempfile

from benchlib.measure import fio, progress, resident_kib, scale_pairs, scale_row
from benchlib.subjects import diskfs_of, qsd_export, settings_text

READ = ("read", ["--rw=randread", "--bs=4k", "--iodepth=32"], "kIOPS")

RAM_SIZE = 256 << 20   # of what is read from memory
SPREAD = 64 << 20      # bytes that are written to see what a RAM layer takes for them
HUGE = 16 << 40


def fill(path, size):
    """Writes all of a disk, once."""
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={size >> 20}",
                    "oflag=direct", "conv=notrunc", "status=none"], check=True)


def layered_text(name, size, backing):
    return (f"[{name}-top]\ndriver = ram\nsize = {size}\n"
            f"[{name}-base]\ndriver = file\npath = {backing}\nlock = no\nreadonly = yes\n"
            f"[{name}]\ndriver = layered\nbelow = {name}-top, {name}-base\n")


def scale_ram_layer(backing, folder, options):
    text = settings_text(options.set)
    text += f"[ram]\ndriver = ram\nsize = {RAM_SIZE}\n"
    text += f"[file]\ndriver = file\npath = {backing}\nlock = no\nreadonly = yes\n"
    text += layered_text("hit", RAM_SIZE, backing) + layered_text("miss", options.size, backing)
    with diskfs_of(text, folder, "layers") as (mountpoint, _):
        path = {name: os.path.join(mountpoint, name + ".img")
                for name in ("ram", "file", "hit", "miss")}
        fill(path["ram"], RAM_SIZE)
        fill(path["hit"], RAM_SIZE)
        small = with_options(options, size=RAM_SIZE)
        return [
            scale_pairs("4 KiB random read, depth 32: RAM layer that has it / RAM disk",
                        [(path["hit"], READ), (path["ram"], READ)], 0.9, folder, small),
            scale_pairs("4 KiB random read, depth 32: RAM layer that does not / file alone",
                        [(path["miss"], READ), (path["file"], READ)], 0.85, folder, options)]


def with_options(options, **changes):
    """A copy of the options with some of them changed."""
    return type(options)(**{**vars(options), **changes})


def scale_ram_size(folder, options):
    """The same data in a disk of 1 GiB and in one of 16 TiB."""
    text = settings_text(options.set)
    for name, size in (("small", 1 << 30), ("huge", HUGE)):
        text += f"[{name}-top]\ndriver = ram\nsize = {size}\n[{name}-base]\ndriver = null\n"
        text += f"size = {size}\nreadonly = yes\n"
        text += f"[{name}]\ndriver = layered\nbelow = {name}-top, {name}-base\n"
    with diskfs_of(text, folder, "sizes") as (mountpoint, _):
        paths = [os.path.join(mountpoint, name + ".img") for name in ("huge", "small")]
        for path in paths:
            fill(path, RAM_SIZE)
        return [scale_pairs("4 KiB random read, depth 32: RAM layer of 16 TiB / of 1 GiB",
                            [(path, READ) for path in paths], 0.9, folder,
                            with_options(options, size=RAM_SIZE))]


def memory_for(block, folder, options):
    """What a RAM layer of 16 TiB takes beyond the bytes that are stored, per cent."""
    text = settings_text(options.set)
    text += f"[top]\ndriver = ram\nsize = {HUGE}\n[base]\ndriver = null\nsize = {HUGE}\n"
    text += "readonly = yes\n[disk]\ndriver = layered\nbelow = top, base\n"
    with diskfs_of(text, folder, "memory") as (mountpoint, process):
        path = os.path.join(mountpoint, "disk.img")
        resident = []
        # The reads bring the buffers of requests into memory, which are none of the layer's.
        for what in ("randread", "randwrite"):
            subprocess.run(
                ["fio", "--name=fill", f"--filename={path}", f"--size={HUGE}", "--direct=1",
                 "--ioengine=io_uring", "--invalidate=0", "--fallocate=none", "--norandommap",
                 "--allow_file_create=0", "--output-format=terse", f"--aux-path={folder}",
                 f"--rw={what}", f"--bs={block}", "--iodepth=32", f"--number_ios={SPREAD // block}"],
                stdout=subprocess.DEVNULL, check=True)
            resident.append(resident_kib(process) * 1024)
        stored = os.stat(path).st_blocks * 512
        return (resident[1] - resident[0] - stored) / stored * 100


def scale_ram_memory(folder, options):
    rows = []
    for what, block, bar in (("runs of 64 KiB", 65536, 5), ("scattered 4 KiB", 4096, 12)):
        progress(f"memory of a RAM layer, {what}")
        rows.append(scale_row(f"memory of a RAM layer beyond what is stored, {what}", "%",
                              [memory_for(block, folder, options)], "<", bar))
    return rows


@contextlib.contextmanager
def qcow2_overlay(base, folder):
    overlay = os.path.join(folder, "overlay.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay],
                   check=True)
    with qsd_export(folder, f"driver=file,node-name=file,filename={overlay},aio=io_uring",
                    f"driver=file,node-name=base-file,filename={base},aio=io_uring,"
                    "read-only=on,locking=off",
                    "driver=raw,node-name=base,file=base-file,read-only=on",
                    "driver=qcow2,node-name=disk,file=file,backing=base") as path:
        yield path
    os.unlink(overlay)


@contextlib.contextmanager
def sqlite_overlay(base, folder, options):
    diff = os.path.join(folder, "diff.sqlite")
    text = settings_text(options.set)
    text += f"[base]\ndriver = file\npath = {base}\nlock = no\nreadonly = yes\n"
    text += f"[diff]\ndriver = sqlite\npath = {diff}\n"
    text += "[disk]\ndriver = layered\nbelow = diff, base\n"
    with diskfs_of(text, folder, "overlay") as (mountpoint, _):
        yield os.path.join(mountpoint, "disk.img")
    for name in os.listdir(folder):
        if name.startswith("diff.sqlite"):
            os.unlink(os.path.join(folder, name))
    os.unlink(os.path.join(folder, "overlay.conf"))


def scale_sqlite(backing, options):
    """On the file system of the build folder, where to flush costs something; each on a new diff."""
    rows = []
    build = os.path.abspath(os.environ.get("BUILD", "build"))
    with tempfile.TemporaryDirectory(prefix="diskfs-bench.", dir=build) as folder:
        base = os.path.join(folder, "base.raw")
        subprocess.run(["cp", backing, base], check=True)
        for every, bar in ((1, 1), (64, 2)):
            row = ("write", ["--rw=randwrite", "--bs=4k", "--iodepth=1", f"--fsync={every}"], "kIOPS")
            name = f"4 KiB random writes, fsync after every {every}: SQLite diff / qcow2 by qsd"
            ratios, rates = [], []
            for turn in range(options.rounds):
                progress(f"{name}: round {turn + 1} of {options.rounds}")
                values = {}
                for side in (0, 1) if turn % 2 == 0 else (1, 0):
                    with qcow2_overlay(base, folder) if side else \
                            sqlite_overlay(base, folder, options) as path:
                        values[side] = fio(path, options.size, row, options.runtime, True, folder)
                ratios.append(values[0] / values[1])
                rates.append(values[0])
            rows.append(scale_row(name, "", ratios, ">=", bar))
            rows.append(scale_row(f"4 KiB random writes into a SQLite diff, fsync after every {every}",
                                  "kIOPS", rates))
    return rows


def scale_layers(backing, folder, options):
    return (scale_ram_layer(backing, folder, options) + scale_ram_size(folder, options)
            + scale_ram_memory(folder, options) + scale_sqlite(backing, options))
