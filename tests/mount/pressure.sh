#!/bin/bash
# SPDX-License-Identifier: MIT
# Many large images are punched at once, while others read them.
. "$(dirname "$0")/lib.sh"
requires python3
requires_fuse

images=50
punch_config() {
	local i

	for ((i = 0; i < images; i++)); do
		printf '[d%d]\ndriver = %s\nsize = 1025M\n' $i "$([ $((i % 2)) = 0 ] && echo ram || echo file)"
		[ $((i % 2)) = 0 ] || printf 'path = d%d.img\n' $i
	done
}

# 1 GiB of every image is given back, while readers look at what goes and at what stays.
punch_all() {
	check timeout 120 python3 - "$mnt" $images <<'PY'
import os, sys, threading, time
mount, images = sys.argv[1], int(sys.argv[2])
GIB, STEP, PIECE = 1 << 30, 1 << 26, 1 << 16
files = [os.open(f"{mount}/d{i}.img", os.O_RDWR) for i in range(images)]
for i, file in enumerate(files):
    data = bytes([i + 1]) * PIECE
    for at in range(0, GIB + 1, STEP):
        assert os.pwrite(file, data, at) == PIECE
    os.fsync(file)

import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
errors, done, reads, slowest = [], threading.Event(), [0], [0.0]

def punch(some):
    for file in some:
        if libc.fallocate(file, 3, 0, GIB) != 0:
            errors.append("punch: " + os.strerror(ctypes.get_errno()))

def read(first):
    i = first
    while not done.is_set() and not errors:
        i = (i + 7) % images
        begin = time.monotonic()
        kept = os.pread(files[i], 4096, GIB + 8192)
        gone = os.pread(files[i], 4096, STEP * (i % 16))
        slowest[0] = max(slowest[0], time.monotonic() - begin)
        if kept != bytes([i + 1]) * 4096:
            errors.append(f"disk {i}: what stays has changed")
        if gone not in (bytes([i + 1]) * 4096, bytes(4096)):
            errors.append(f"disk {i}: neither the data nor zeros")
        reads[0] += 1

readers = [threading.Thread(target=read, args=(n,)) for n in range(4)]
for thread in readers:
    thread.start()
begin = time.monotonic()
punchers = [threading.Thread(target=punch, args=(files[n::10],)) for n in range(10)]
for thread in punchers:
    thread.start()
for thread in punchers:
    thread.join()
elapsed = time.monotonic() - begin
done.set()
for thread in readers:
    thread.join()
assert not errors, errors[:5]
for i, file in enumerate(files):
    for at in range(0, GIB, STEP):
        assert os.pread(file, PIECE, at) == bytes(PIECE), (i, at)
    assert os.pread(file, PIECE, GIB) == bytes([i + 1]) * PIECE, i
    assert os.lseek(file, 0, os.SEEK_DATA) == GIB, i
with open(mount + "/../punched", "w") as out:
    out.write(f"{images} x 1 GiB in {elapsed:.3f} s, {reads[0]} pairs of reads meanwhile, "
              f"the slowest {slowest[0] * 1e3:.1f} ms")
PY
	[ ! -e "$work/punched" ] || echo "# $(cat "$work/punched")"
}

punch_config | config
mount_disks "$conf"
test_case "$images images of 1 GiB punched at once" punch_all
end_disks
