#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory is short: a file system on a loop device on an image, daemon and writer in one cgroup that
# is smaller than what is written. To get memory the kernel must write to the image, for which the
# daemon must not need memory that only writing to the image would free: then nothing ever moves
# again. And many images that are punched at once, while others read them.
. "$(dirname "$0")/lib.sh"
requires python3 losetup mkfs.ext4 fsck.ext4
requires_root
requires_fuse

limit=$((96 << 20))
written_mib=384
# A sanitizer's shadow memory counts as well.
grep -q __asan_init "$BUILD/diskfs" && limit=$((256 << 20)) written_mib=640

# ---- the cgroup ----------------------------------------------------------------------------------

group=

# Makes a cgroup with the memory limit: of version 2 at the top, where other groups may stand beside
# processes; of version 1 below our own, whose limits go on to hold.
make_group() {
	local top file

	while read -r _ top kind _; do
		case $kind in
		cgroup2)
			grep -qw memory "$top/cgroup.subtree_control" 2>/dev/null || continue
			file=memory.max
			;;
		cgroup)
			[ -e "$top/memory.limit_in_bytes" ] || continue
			top=$top$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)
			file=memory.limit_in_bytes
			;;
		*) continue ;;
		esac
		group=$top/diskfs-test.$$
		mkdir "$group" 2>/dev/null && echo $limit 2>/dev/null >"$group/$file" && return
		rmdir "$group" 2>/dev/null
	done </proc/self/mounts
	group=
	return 1
}

# Whether a process here may be an I/O flusher (CAP_SYS_RESOURCE). Without it the dead-lock is real:
# the daemon's writes to the page cache wait for the writer's pages, in the kernel, where no signal
# and no timeout ends them; only an abort of the connection does.
may_flush() {
	(((0x$(awk '$1 == "CapEff:" { print $2 }' /proc/self/status) >> 24) & 1))
}

remove_group() {
	[ -z "$group" ] || wait_for 10 rmdir "$group" 2>/dev/null
}

# Runs a command in the group.
in_group() {
	bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' in_group "$group" "$@"
}

# ---- a writer larger than the group --------------------------------------------------------------

free_loop() {
	losetup -d "$1" 2>/dev/null
}

# Blocks of 1 MiB, each full of its own number: stamp write|verify FILE MIB
stamp() {
	cat <<'PY'
import os, sys
what, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(path, "wb" if what == "write" else "rb", buffering=0) as file:
    for number in range(count):
        block = number.to_bytes(8, "little") * (1 << 17)
        if what == "write":
            assert file.write(block) == len(block)
        else:
            assert file.read(1 << 20) == block, number
    if what == "write":
        os.fsync(file.fileno())
PY
}

# under_pressure CACHE LOOP-OPTION...
under_pressure() {
	local loop

	printf '[diskfs]\ncache = %s\n[file]\ndriver = file\npath = %s.img\nsize = 1G\n' "$1" "$1" | config
	mount_disks "$conf"
	echo "$daemon_pid" >"$group/cgroup.procs" || not_ok "the daemon is not in the cgroup"
	loop=$(losetup -f --show "${@:2}" "$mnt/file.img") || { not_ok "losetup"; return; }
	cleanup_fn free_loop "$loop"
	if check mkfs.ext4 -q -F "$loop" && check mount "$loop" "$work/fs"; then
		check in_group timeout 90 python3 "$work/stamp" write "$work/fs/a" $written_mib
		check in_group timeout 90 python3 "$work/stamp" verify "$work/fs/a" $written_mib
		check umount "$work/fs"
		check fsck.ext4 -f -n "$loop"
		check mount -o ro "$loop" "$work/fs"
		check in_group timeout 90 python3 "$work/stamp" verify "$work/fs/a" $written_mib
		check umount "$work/fs"
	fi
	check losetup -d "$loop"
	alive "$daemon_pid" || not_ok "the daemon is dead"
	unmount_disks
	# From the backing file, without us.
	check fsck.ext4 -f -n "$work/$1.img"
	rm -f "$work/$1.img"
}

# The limit was felt, or the test was none.
limit_reached() {
	local counts

	counts=$(cat "$group/memory.failcnt" 2>/dev/null ||
		awk '$1 == "max" { print $2 }' "$group/memory.events")
	[ "${counts:-0}" -gt 0 ] || not_ok "the limit of memory was never reached"
}

# ---- many holes at once --------------------------------------------------------------------------

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

stamp >"$work/stamp"
mkdir "$work/fs"
cleanup_fn unmount_lazily "$work/fs"
cleanup_fn remove_group

if ! losetup -f >/dev/null 2>&1; then
	skip_case "a writer larger than its cgroup" "no loop devices here"
elif ! may_flush; then
	skip_case "a writer larger than its cgroup" "no CAP_SYS_RESOURCE: it would dead-lock"
elif ! make_group; then
	skip_case "a writer larger than its cgroup" "no cgroup with a limit of memory can be made here"
else
	test_case "a writer larger than its cgroup" under_pressure writethrough
	test_case "the same, direct I/O of the loop device" under_pressure none --direct-io=on
	test_case "the same, writeback cache" under_pressure writeback
	test_case "its limit was reached" limit_reached
fi

punch_config | config
mount_disks "$conf"
test_case "$images images of 1 GiB punched at once" punch_all
end_disks
