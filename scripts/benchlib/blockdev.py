# SPDX-License-Identifier: MIT
"""
A loop device by the driver blockdev.

On the file system of the build folder, against its file by the driver file, both past the page cache;
a loop device hands every request to a thread of the kernel, so the same ratio without diskfs stands
beside it. On tmpfs, where only the processor counts, against qemu-storage-daemon on the same device;
and the device itself against that, which is the most that anything on top of it could reach.
"""

import os
import re
import tempfile

from benchlib.measure import make_file, scale_pairs
from benchlib.rivals import BARS, ROWS
from benchlib.subjects import diskfs_of, loop_device, qsd_export, settings_text

# What the other way through the same daemon may cost.
LEAST_OF_FILE = 0.9


def qsd_device(device, folder):
    return qsd_export(folder, f"driver=host_device,node-name=disk,filename={device},aio=io_uring,"
                              "cache.direct=on,locking=off,discard=unmap")


def least_of_qsd(row):
    """What the version promises of files on tmpfs."""
    for place, pattern, pair, least in BARS:
        if place == "tmpfs" and pair == ("diskfs", "qsd") and re.search(pattern, row[0]):
            return least
    return None


def ratios_of(place, ours, other, name, least, folder, options):
    """One job: that two of them share the work is no affair of the driver."""
    rows = [row for row in ROWS if "--numjobs=1" in row[1] and re.search(options.rows, row[0])]
    return [scale_pairs(f"{row[0]}, {place}: {name}", [(ours, row), (other, row)], least(row),
                        folder, options) for row in rows]


def measure_file(folder, options):
    """Against the file."""
    backing = os.path.join(folder, "backing.raw")
    make_file(backing, options.size)
    with loop_device(backing, "--direct-io=on") as device:
        text = settings_text(options.set)
        text += f"[device]\ndriver = blockdev\npath = {device}\nshared = yes\n"
        text += f"[file]\ndriver = file\npath = {backing}\ndirect = yes\nlock = no\n"
        with diskfs_of(text, folder, "blockdev") as (mountpoint, _):
            ours, plain = [os.path.join(mountpoint, name) for name in ("device.img", "file.img")]
            rows = ratios_of("file system", ours, plain, "loop device / its file",
                             lambda _: LEAST_OF_FILE, folder, options)
        return rows + ratios_of("file system", device, backing, "the same without diskfs",
                                lambda _: None, folder, options)


def measure_qsd(backing, folder, options):
    with loop_device(backing) as device:
        text = settings_text(options.set)
        text += f"[device]\ndriver = blockdev\npath = {device}\nshared = yes\n"
        with diskfs_of(text, folder, "blockdev") as (mountpoint, _), \
                qsd_device(device, folder) as rival:
            rows = ratios_of("tmpfs", os.path.join(mountpoint, "device.img"), rival,
                             "loop device, diskfs / qsd", least_of_qsd, folder, options)
            return rows + ratios_of("tmpfs", device, rival, "the loop device itself / qsd",
                                    lambda _: None, folder, options)


def scale_blockdev(backing, folder, options):
    build = os.path.abspath(os.environ.get("BUILD", "build"))
    rows = measure_qsd(backing, folder, options)
    with tempfile.TemporaryDirectory(prefix="diskfs-bench.", dir=build) as other:
        return rows + measure_file(other, options)
