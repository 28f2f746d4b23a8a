# SPDX-License-Identifier: MIT
"""
A dynamic VHD: against qemu-storage-daemon on the same image, against the raw file; and the first
writes to a new one, against those to a sparse file.
"""

import json
import os
import subprocess

from benchlib.layers import fill
from benchlib.measure import progress, scale_pairs, scale_row
from benchlib.subjects import Failure, diskfs_of, qsd_export, settings_text

ROWS = (
    ("4 KiB random read, depth 32", ("read", ["--rw=randread", "--bs=4k", "--iodepth=32"], "kIOPS"), 3),
    ("4 KiB random write, depth 32",
     ("write", ["--rw=randwrite", "--bs=4k", "--iodepth=32"], "kIOPS"), 3),
    ("1 MiB sequential read", ("read", ["--rw=read", "--bs=1m", "--iodepth=4"], "GB/s"), 2),
    ("1 MiB sequential write", ("write", ["--rw=write", "--bs=1m", "--iodepth=4"], "GB/s"), 2),
)

FIRST = (
    ("4 KiB random", ["--rw=randwrite", "--bs=4k", "--iodepth=32"]),
    ("1 MiB sequential", ["--rw=write", "--bs=1m", "--iodepth=4"]),
)


def make_image(path, size):
    subprocess.run(["qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=dynamic,force_size",
                    path, str(size)], check=True)


def qsd_vpc(image, folder):
    return qsd_export(folder,
                      f"driver=file,node-name=file,filename={image},aio=io_uring,locking=off",
                      "driver=vpc,node-name=disk,file=file")


def vhd_text(image):
    return (f"[image]\ndriver = file\npath = {image}\nlock = no\n"
            "[vhd]\ndriver = vhd\nbelow = image\n")


def scale_allocated(folder, options):
    image, raw = os.path.join(folder, "dynamic.vhd"), os.path.join(folder, "plain.raw")
    make_image(image, options.size)
    with open(raw, "wb") as out:
        out.truncate(options.size)
    text = settings_text(options.set) + vhd_text(image) + f"[raw]\ndriver = file\npath = {raw}\n"
    rows = []
    with diskfs_of(text, folder, "vhd") as (mountpoint, _):
        ours, plain = (os.path.join(mountpoint, name) for name in ("vhd.img", "raw.img"))
        fill(ours, options.size)
        fill(plain, options.size)
        subprocess.run(["sync", ours], check=True)  # so that the table is in the file
        with qsd_vpc(image, folder) as rival:
            for name, row, bar in ROWS:
                rows.append(scale_pairs(f"{name}: VHD, allocated / by qsd",
                                        [(ours, row), (rival, row)], bar, folder, options))
        for name, row, _ in ROWS:
            rows.append(scale_pairs(f"{name}: VHD, allocated / file",
                                    [(ours, row), (plain, row)], 0.9, folder, options))
    os.unlink(image)
    os.unlink(raw)
    return rows


def first_writes(path, size, arguments, folder):
    """Every block of the disk once, and a flush; bytes a second."""
    result = subprocess.run(
        ["fio", "--name=first", f"--filename={path}", f"--size={size}", "--ioengine=io_uring",
         "--direct=1", "--invalidate=0", "--fallocate=none", "--allow_file_create=0", "--thread",
         "--end_fsync=1", "--output-format=json", f"--aux-path={folder}", *arguments],
        capture_output=True, text=True, check=False)
    if result.returncode:
        raise Failure(f"fio on {path}: {result.stderr.strip() or result.stdout.strip()}")
    job = json.loads(result.stdout[result.stdout.index("{"):])["jobs"][0]
    return job["write"]["bw_bytes"]


def scale_first(folder, options):
    image, raw = os.path.join(folder, "new.vhd"), os.path.join(folder, "new.raw")
    rows = []
    for name, arguments in FIRST:
        ratios = []
        for turn in range(options.rounds):
            progress(f"first writes, {name}: round {turn + 1} of {options.rounds}")
            rates = {}
            make_image(image, options.size)
            text = settings_text(options.set) + vhd_text(image)
            text += f"[raw]\ndriver = file\npath = {raw}\nsize = {options.size}\n"
            with diskfs_of(text, folder, "first") as (mountpoint, _):
                for which in ("vhd", "raw") if turn % 2 == 0 else ("raw", "vhd"):
                    rates[which] = first_writes(os.path.join(mountpoint, which + ".img"),
                                                options.size, arguments, folder)
            ratios.append(rates["vhd"] / rates["raw"])
            os.unlink(image)
            os.unlink(raw)
        rows.append(scale_row(f"{name} first writes: new VHD / sparse file", "", ratios, ">=", 0.5))
    return rows


def scale_vhd(_, folder, options):
    return scale_allocated(folder, options) + scale_first(folder, options)
