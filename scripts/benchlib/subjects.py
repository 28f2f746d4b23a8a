# SPDX-License-Identifier: MIT
"""Servers of disks: what is compared, started on a file, as contexts that give the path to use."""

import contextlib
import os
import subprocess
import time


class Failure(Exception):
    """Something that the user has to know; no defect of this program."""


def wait_until(condition, what, process=None, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        if process and process.poll() is not None:
            raise Failure(f"{what}: ended with status {process.returncode}")
        if time.monotonic() > end:
            raise Failure(f"{what}: not ready after {seconds} s")
        time.sleep(0.02)


def is_mounted(path):
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        return any(line.split()[1] == path for line in mounts)


def unmount(path):
    for command in (["umount", path], ["fusermount3", "-u", path], ["umount", "-l", path]):
        if not is_mounted(path):
            return
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def running(command, log):
    """A process in a session of its own, so that ^C leaves its end to us."""
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def mounted(command, mountpoint, log):
    with running(command, log) as process:
        try:
            wait_until(lambda: is_mounted(mountpoint), command[0], process)
            yield process
        finally:
            unmount(mountpoint)


@contextlib.contextmanager
def diskfs_of(config_text, folder, name="diskfs"):
    """Mounts a configuration; gives the mountpoint and the process."""
    config = os.path.join(folder, name + ".conf")
    mountpoint = os.path.join(folder, name)
    os.mkdir(mountpoint)
    with open(config, "w", encoding="utf-8") as out:
        out.write(config_text)
    program = os.path.join(os.environ.get("BUILD", "build"), "diskfs")
    try:
        with mounted([program, "-f", config, mountpoint], mountpoint, config + ".log") as process:
            wait_until(lambda: os.path.exists(os.path.join(mountpoint, ".status")), "diskfs", process)
            yield mountpoint, process
    finally:
        os.rmdir(mountpoint)


def settings_text(settings):
    return "[diskfs]\n" + "".join(f"{line}\n" for line in settings if not line[0] == "@")


@contextlib.contextmanager
def diskfs(backing, folder, settings):
    # The file is shared with the other subjects, so nobody takes a lock.
    text = settings_text(settings) + f"[disk]\ndriver = file\npath = {backing}\nlock = no\n"
    text += "".join(f"{line[1:]}\n" for line in settings if line[0] == "@")
    name = "-".join(["diskfs", *(line.split("=")[-1] for line in settings)])
    with diskfs_of(text, folder, name) as (mountpoint, _):
        yield os.path.join(mountpoint, "disk.img")


def diskfs_with(*settings):
    return lambda backing, folder, given: diskfs(backing, folder, [*given, *settings])


@contextlib.contextmanager
def qsd_export(folder, *blockdevs, options=()):
    """qemu-storage-daemon: the file that is its block device "disk", with one iothread."""
    # It mounts over a file.
    path = os.path.join(folder, "qsd.img")
    open(path, "w", encoding="utf-8").close()
    command = ["qemu-storage-daemon", "--object", "iothread,id=io", *options]
    for blockdev in blockdevs:
        command += ["--blockdev", blockdev]
    command += ["--export", f"type=fuse,id=export,node-name=disk,mountpoint={path},writable=on,"
                            "iothread=io"]
    try:
        with mounted(command, path, path + ".log"):
            yield path
    finally:
        os.unlink(path)


def qsd(backing, folder, _):
    return qsd_export(folder, f"driver=file,node-name=disk,filename={backing},aio=io_uring,"
                              "locking=off,discard=unmap")


@contextlib.contextmanager
def nbdfuse(backing, folder, _):
    socket = os.path.join(folder, "nbd.sock")
    path = os.path.join(folder, "nbd.img")
    open(path, "w", encoding="utf-8").close()
    with running(["nbdkit", "-f", "-U", socket, "file", backing], socket + ".log") as server:
        wait_until(lambda: os.path.exists(socket), "nbdkit", server)
        with mounted(["nbdfuse", path, "--unix", socket], path, path + ".log"):
            yield path


@contextlib.contextmanager
def loop_device(backing, *options):
    result = subprocess.run(["losetup", "-f", "--show", *options, backing], check=False,
                            capture_output=True, text=True)
    if result.returncode:
        raise Failure("losetup: " + result.stderr.strip())
    device = result.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=False)


def loop(backing, *_):
    return loop_device(backing)


def loop_direct(backing, *_):
    return loop_device(backing, "--direct-io=on")


@contextlib.contextmanager
def plain(backing, *_):
    yield backing

# name: context, programs needed, a remark for the table's foot
SUBJECTS = {
    "diskfs": (diskfs, [], "driver file, transport = auto"),
    "poll": (diskfs_with("transport=poll"), [], "diskfs with transport = poll"),
    "uring": (diskfs_with("transport=uring"), [], "diskfs with transport = uring"),
    "passthrough": (diskfs_with("@passthrough=yes"), [],
                    "diskfs with passthrough = yes: the kernel does the work"),
    "qsd": (qsd, ["qemu-storage-daemon"],
            "qemu-storage-daemon, FUSE export, one iothread, aio=io_uring"),
    "nbdfuse": (nbdfuse, ["nbdfuse", "nbdkit"], "nbdfuse over nbdkit's file plugin, Unix socket"),
    "loop": (loop, ["losetup"], "loop device as losetup makes it"),
    "loop-direct": (loop_direct, ["losetup"], "loop device with --direct-io=on"),
    "plain": (plain, [], "the backing file itself"),
}
