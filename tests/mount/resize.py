# SPDX-License-Identifier: MIT
"""
What tests/mount/resize.sh does with files that are open all the time.

    resize.py size MOUNTPOINT IMAGE SIZE  waits for this size, and compares all that tells it
    resize.py grow IMAGE FILE FROM TO     makes the FILE below longer
    resize.py shrink IMAGE SIZE POLICY    makes the RAM disk smaller and larger again
    resize.py load IMAGE SMALL LARGE DONE reads and writes up to LARGE until the file DONE is there
    resize.py limit DEVICE SIZE           gives a loop device this size
    resize.py hears DEVICE                status 0: events of a block device can be heard
    resize.py events DEVICE LOG SIZE      gives it sizes from there on, and waits for the log
    resize.py qemu MOUNTPOINT FOLDER      resizes the disks of a virtual machine
"""
import errno
import fcntl
import json
import mmap
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time

PAGE = mmap.PAGESIZE


def wait_until(what, condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit("not in time: " + what)
        time.sleep(0.01)


def want(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r:.80}, wanted {wanted!r:.80}")


def call_error(function, *arguments):
    """The name of the errno, or None."""
    try:
        function(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


def map_error(mapped, offset):
    """Whether a look at the map ends in SIGBUS."""
    child = os.fork()
    if child == 0:
        os._exit(mapped[offset] & 0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def read_direct(path, length, offset):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    memory = mmap.mmap(-1, length)
    got = os.preadv(fd, [memory], offset)
    os.close(fd)
    return memory[:got]


def size(mountpoint, image, bytes):
    path = f"{mountpoint}/{image}"
    wait_until(f"{image} with {bytes} bytes", lambda: os.stat(path).st_size == bytes)
    fd = os.open(path, os.O_RDONLY)
    wait_until("the size by seeking", lambda: os.lseek(fd, 0, os.SEEK_END) == bytes)
    want("the attribute", int(os.getxattr(fd, "user.diskfs.sector_count")), bytes // 512)
    with open(mountpoint + "/.status.json") as file:
        want(".status.json", json.load(file)["images"][image]["size"], bytes)


def grow(path, below, old, new):
    fd = os.open(path, os.O_RDWR)
    cached = os.pread(fd, PAGE, old // PAGE * PAGE - PAGE)  # the last page is in the cache
    tail = os.pread(fd, PAGE, old // PAGE * PAGE)
    want("the end", len(tail), old % PAGE)
    with open(below, "r+b") as file:
        file.truncate(new)
        file.seek(new - 512)
        file.write(b"n" * 512)
    wait_until("the new size", lambda: os.fstat(fd).st_size == new)
    wait_until("the size by seeking", lambda: os.lseek(fd, 0, os.SEEK_END) == new)
    added = b"\0" * (new - old - 512) + b"n" * 512
    want("what is new, read", os.pread(fd, new - old, old), added)
    want("what is new, direct", read_direct(path, 512, new - 512), b"n" * 512)
    with mmap.mmap(fd, new) as mapped:
        want("what is new, mapped", mapped[old:new] == added, True)
        mapped[new - 1] = ord("m")
        mapped.flush()
    want("what the map wrote", read_direct(path, 512, new - 512), b"n" * 511 + b"m")
    want("what was there", os.pread(fd, PAGE, old // PAGE * PAGE - PAGE), cached)
    want("what was at the end", os.pread(fd, old % PAGE, old // PAGE * PAGE), tail)
    want("a write at the end", os.pwrite(fd, b"x" * 512, new - 512), 512)
    os.fsync(fd)
    want("it in the file", os.pread(os.open(below, os.O_RDONLY), 512, new - 512), b"x" * 512)


def shrink(path, size, policy):
    small = size // 2
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"a" * size, 0)
    os.fsync(fd)
    mapped = mmap.mmap(fd, size)
    want("the map", mapped[size - 1], ord("a"))
    os.setxattr(path, "user.diskfs.ram.size", str(small).encode())
    wait_until("SIGBUS beyond the end",
               lambda: map_error(mapped, size - PAGE) == signal.SIGBUS)
    want("the last page", mapped[small - 1], ord("a"))
    if policy == "writeback":
        # The kernel keeps the size to itself, but has nothing to show there; and learns it so.
        want("a read beyond", call_error(os.pread, fd, PAGE, small), "EIO")
        os.ftruncate(fd, small)
    want("a read beyond", os.pread(fd, PAGE, small), b"")
    want("a read across", os.pread(fd, PAGE, small - 512), b"a" * 512)
    want("a direct read beyond", read_direct(path, PAGE, small), b"")
    wait_until("the size", lambda: os.fstat(fd).st_size == small)
    if policy != "writeback":
        want("a write beyond", call_error(os.pwrite, fd, b"b" * PAGE, small), "ENOSPC")
        want("a write across", os.pwrite(fd, b"b" * 1024, small - 512), 512)
    direct = os.open(path, os.O_WRONLY | os.O_DIRECT)
    want("a direct write beyond", call_error(os.pwritev, direct, [mmap.mmap(-1, PAGE)], small),
         "ENOSPC")
    want("the map beyond", map_error(mapped, size - PAGE), signal.SIGBUS)

    # Twice, the second time with both changes at once.
    os.setxattr(path, "user.diskfs.ram.size", str(size).encode())
    # (By what the kernel goes by; stat() tells what it was told, also where that came too late.)
    wait_until("the old size", lambda: os.lseek(fd, 0, os.SEEK_END) == size)
    want("a read of what is new", os.pread(fd, size - small, small) == b"\0" * (size - small), True)
    want("a map of what is new", mapped[small:] == b"\0" * (size - small), True)
    os.pwrite(fd, b"c" * (size - small), small)
    os.fsync(fd)
    want("the map", mapped[size - 1], ord("c"))
    os.setxattr(path, "user.diskfs.ram.size", str(small).encode())
    os.setxattr(path, "user.diskfs.ram.size", str(size).encode())
    wait_until("the pages to be dropped",
               lambda: os.pread(fd, size - small, small) == b"\0" * (size - small))
    # (A map has what the kernel knows of the size: somebody has to ask.)
    wait_until("the mapped ones, too",
               lambda: os.lseek(fd, 0, os.SEEK_END) == size and mapped[size - 1] == 0)
    want("a direct read", read_direct(path, PAGE, size - PAGE), b"\0" * PAGE)


def load(path, small, large, done):
    """Nothing but the end may be in the way."""
    rand = random.Random(1)
    direct = os.open(path, os.O_RDWR | os.O_DIRECT)
    cached = os.open(path, os.O_RDWR)
    memory = mmap.mmap(-1, 65536)
    requests = beyond = 0
    while not os.path.exists(done):
        fd = rand.choice((direct, cached))
        length = rand.randrange(1, 17) * 4096
        offset = rand.randrange(small, large, 4096)
        requests += 1
        try:
            if rand.random() < 0.5:
                count = os.preadv(fd, [memoryview(memory)[:length]], offset)
            else:
                count = os.pwritev(fd, [memoryview(memory)[:length]], offset)
            beyond += count < length
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENXIO, errno.EIO):
                raise
            # The page cache has but one errno for reads that fail.
            if error.errno == errno.EIO and fd == direct:
                raise
            beyond += 1
    print(f"requests: {requests}, beyond the end: {beyond}")


def limit(device, size):
    # struct loop_info64: the limit is the fourth of its numbers of 64 bits.
    LOOP_SET_STATUS64, LOOP_GET_STATUS64 = 0x4C04, 0x4C05
    fd = os.open(device, os.O_RDONLY)
    info = bytearray(232)
    fcntl.ioctl(fd, LOOP_GET_STATUS64, info)
    struct.pack_into("=Q", info, 4 * 8, size)
    fcntl.ioctl(fd, LOOP_SET_STATUS64, info)


def hears(device):
    NETLINK_KOBJECT_UEVENT = 15
    name = os.path.basename(device)
    try:
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_KOBJECT_UEVENT)
        listener.bind((0, 1))
        listener.settimeout(2)
        with open(f"/sys/class/block/{name}/uevent", "w") as file:
            file.write("change")
        while f"DEVNAME={name}\0".encode() not in listener.recv(8192):
            pass
    except OSError:
        sys.exit(1)


def events(device, log, size):
    rounds = 8
    begin = time.monotonic()
    for i in range(1, rounds + 1):
        limit(device, size + i * PAGE)
        wait_until("the size", lambda: f"has {size + i * PAGE} bytes now" in open(log).read())
    # Each would take a second if nobody listened.
    want("by events", time.monotonic() - begin < rounds * 0.6, True)


class Machine:
    """A virtual machine that has not begun to run, and its monitor."""

    def __init__(self, folder, images):
        path = folder + "/qmp"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        command = ["qemu-system-x86_64", "-accel", "tcg", "-S", "-nodefaults", "-display", "none",
                   "-qmp", "unix:" + path]
        for name, image in images.items():
            command += ["-blockdev", json.dumps({"driver": "raw", "node-name": name, "file": {
                "driver": "file", "filename": image, "cache": {"direct": True}}}),
                        "-device", "virtio-blk-pci,drive=" + name]
        self.process = subprocess.Popen(command)
        listener.settimeout(30)
        self.stream = listener.accept()[0].makefile("rw")
        json.loads(self.stream.readline())
        self.call("qmp_capabilities")

    def call(self, name, **arguments):
        json.dump({"execute": name, "arguments": arguments}, self.stream)
        self.stream.write("\n")
        self.stream.flush()
        while True:
            answer = json.loads(self.stream.readline())
            if "event" not in answer:
                return answer

    def size(self, name):
        for disk in self.call("query-block")["return"]:
            inserted = disk.get("inserted", {})
            if inserted.get("node-name") == name:
                return inserted["image"]["virtual-size"]
        return None

    def resize(self, name, size):
        return self.call("block_resize", **{"node-name": name, "size": size})


def qemu(mountpoint, folder):
    machine = Machine(folder, {n: f"{mountpoint}/{n}.img" for n in ("file", "ram")})
    try:
        mib = 1 << 20
        want("the size", machine.size("file"), 8 * mib)
        # The file grows below; the machine is told.
        os.truncate(folder + "/file.raw", 32 * mib)
        wait_until("the new size", lambda: os.stat(mountpoint + "/file.img").st_size == 32 * mib)
        want("block_resize", machine.resize("file", 32 * mib), {"return": {}})
        want("the size then", machine.size("file"), 32 * mib)
        # Here the machine makes the disk larger by itself; not smaller, and not what is fixed.
        want("block_resize", machine.resize("ram", 16 * mib), {"return": {}})
        want("the size then", machine.size("ram"), 16 * mib)
        want("the size of the image", os.stat(mountpoint + "/ram.img").st_size, 16 * mib)
        want("to less", "error" in machine.resize("ram", 8 * mib), True)
        want("of what is fixed", "error" in machine.resize("file", 64 * mib), True)
        want("the size still", os.stat(mountpoint + "/ram.img").st_size, 16 * mib)
    finally:
        machine.process.terminate()
        machine.process.wait()


COMMANDS = (size, grow, shrink, load, limit, hears, events, qemu)

if __name__ == "__main__":
    command = {function.__name__: function for function in COMMANDS}[sys.argv[1]]
    command(*(int(a) if a.isdigit() else a for a in sys.argv[2:]))
