#!/bin/bash
# SPDX-License-Identifier: MIT
# The three page-cache policies: whoever looks, by whatever way, sees the same bytes.
. "$(dirname "$0")/lib.sh"
requires python3
requires_fuse

size=8388608
random_file "$work/source" $size 3

policy() {
	config <<EOT
[diskfs]
cache = $1

[file]
driver = file
path = file.img
size = 8M

[ram]
driver = ram
size = 8M
sector_size = 4096
EOT
	mount_disks "$conf"
}

each() {
	"$1" "$mnt/file.img"
	"$1" "$mnt/ram.img"
}

buffered_then_direct() {
	check dd if="$work/source" of="$1" bs=100k conv=notrunc
	check dd if="$1" of="$work/copy" bs=1M iflag=direct
	check cmp "$work/source" "$work/copy"
	check cmp "$work/source" "$1"
}

direct_then_buffered() {
	check cmp "$work/source" "$1" # now it may be cached
	check_output "65536
same" fileop -o direct "$1" pwrite 1M 64K 77 all 1M 64K 77
	check_output "same
same" fileop "$1" all 1M 64K 77 all 1M 64K 77
	# The same through a descriptor that has been open and has read before.
	check_output "same
65536
same" fileop "$1" all 1M 64K 77 pwrite 1M 64K 78 all 1M 64K 78
	check_output same fileop -o direct "$1" all 1M 64K 78
}

small_writes() {
	check_output $size fileop "$1" pwrite 0 $size 1
	check_output "1
4097
1
same
same
same" fileop "$1" pwrite 0 1 2 pwrite 100000 4097 2 pwrite $((size - 1)) 1 2 \
		all 1 99999 1 all 100000 4097 2 all 104097 100000 1
	check_output "same
same" fileop -o direct "$1" all 512 99328 1 all 104448 65536 1
	check_output "same
same
same" fileop "$1" all 0 1 2 all 100000 4097 2 all $((size - 1)) 1 2
}

past_the_end() {
	check_output 100 fileop "$1" pwrite $((size - 100)) 1000 3
	check_output ENOSPC fileop "$1" pwrite $size 1 3
	check_output $size stat -c %s "$1"
}

# With writeback the kernel takes the write, and believes its own size of the file until it is
# mounted again; the disk does not grow.
late_error() {
	check_output "1000
ENOSPC" fileop "$mnt/file.img" pwrite $((size + 4096)) 1000 3 fsync
	check_output ENOSPC fileop -o direct "$mnt/file.img" pwrite $((size + 4096)) 4096 3
	unmount_disks
	check_output $size stat -c %s "$work/file.img"
}

synced() {
	check dd if="$work/source" of="$mnt/file.img" bs=1M conv=notrunc,fsync
	check cmp "$work/source" "$work/file.img"
	check_output "4096
0" fileop "$mnt/file.img" pwrite 8192 4096 99 fdatasync
	check_output same fileop "$work/file.img" all 8192 4096 99
	check_output 4096 fileop -o dsync "$mnt/file.img" pwrite 16384 4096 98
	check_output same fileop "$work/file.img" all 16384 4096 98
}

holes() {
	check_output $size fileop "$1" pwrite 0 $size 1
	check_output "0
same
same
same" fileop "$1" fallocate punch,keep 5000 100000 all 5000 100000 0 all 0 5000 1 all 105000 5000 1
	check_output "0
same" fileop "$1" fallocate zero,keep 4096 123 all 4096 123 0
	check_output same fileop -o direct "$1" all 8192 65536 0
}

maps() {
	check_output $size fileop "$1" pwrite 0 $size 1
	check_output "0
same" fileop "$1" map_shared 4096 1M 1 33 all 4096 1M 33
	check_output same fileop -o direct "$1" all 4096 1M 33
	check_output "0
same" fileop "$1" map_private 4096 1M 33 44 all 4096 1M 33
	# What is written after a map was made is in the next one.
	check_output "8192
0" fileop "$1" pwrite 4096 8192 34 map_shared 4096 8192 34 35
}

# Maps that live on while others read and write the file: shared ones are the file.
living_maps() {
	check python3 - "$1" <<'PY'
import mmap, os, sys

AT, SIZE = 1 << 20, 1 << 18
file, other = (os.open(sys.argv[1], os.O_RDWR) for i in range(2))
direct = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
memory = mmap.mmap(-1, SIZE)

def put_direct(value):
    memory[:] = value * SIZE
    os.pwritev(direct, [memory], AT)

def get_direct():
    os.preadv(direct, [memory], AT)
    return memory[:]

os.pwrite(file, b"a" * SIZE, AT)
shared = mmap.mmap(file, SIZE, mmap.MAP_SHARED, offset=AT)
private = mmap.mmap(file, SIZE, mmap.MAP_PRIVATE, offset=AT)
assert shared[:] == private[:] == b"a" * SIZE, "at the beginning"
os.pwrite(other, b"b" * SIZE, AT)
assert shared[:] == b"b" * SIZE, "a buffered write, by the shared map"
put_direct(b"c")
assert shared[:] == b"c" * SIZE, "a direct write, by the shared map"
shared[:] = b"d" * SIZE
assert private[:] == b"d" * SIZE, "the shared map, by the private one"
private[:4096] = b"e" * 4096
assert shared[:] == b"d" * SIZE, "the private map has changed the shared one"
shared.flush()
assert os.pread(other, SIZE, AT) == b"d" * SIZE, "the shared map, by a buffered read"
assert get_direct() == b"d" * SIZE, "the shared map, by a direct read"
os.pwrite(other, b"f" * 512, AT + 8192)
assert shared[8192:8704] == b"f" * 512, "a small write, by the shared map"
shared[8704:9216] = b"g" * 512
shared.flush()
put = b"d" * 8192 + b"f" * 512 + b"g" * 512 + b"d" * (SIZE - 9216)
assert get_direct() == put, "a small write and the shared map"
assert private[:4096] == b"e" * 4096, "the private page"
PY
}

# Two writers at once, of neighbouring pages: one by the page cache in small pieces, one direct.
mixed_writers() {
	check python3 - "$1" <<'PY'
import mmap, os, sys

PAGE, PAGES, ROUNDS = 4096, 256, 8

def write_buffered(fd):
    for round in range(ROUNDS):
        for page in range(0, PAGES, 2):
            for at in range(0, PAGE, 512):
                os.pwrite(fd, bytes([round + 1]) * 512, page * PAGE + at)

def write_direct(fd):
    memory = mmap.mmap(-1, PAGE)
    for round in range(ROUNDS):
        for page in range(1, PAGES, 2):
            memory[:] = bytes([round + 101]) * PAGE
            os.pwritev(fd, [memory], page * PAGE)

child = os.fork()
fd = os.open(sys.argv[1], os.O_RDWR | (0 if child else os.O_DIRECT))
(write_buffered if child else write_direct)(fd)
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
wanted = (bytes([ROUNDS]) * PAGE + bytes([ROUNDS + 100]) * PAGE) * (PAGES // 2)
assert os.pread(fd, len(wanted), 0) == wanted, "by a buffered read"
os.fsync(fd)
memory = mmap.mmap(-1, len(wanted))
os.preadv(os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT), [memory], 0)
assert memory[:] == wanted, "by a direct read"
PY
}

# What was written by a loop device is in the image once it is synced, and the other way round.
on_loop() {
	local loop mode

	for mode in off on; do
		loop=$(losetup -f --show --direct-io=$mode "$1") || { not_ok "no loop device"; return; }
		cleanup_fn free_loop "$loop"
		check dd if="$work/source" of="$loop" bs=64k conv=fsync
		check dd if="$1" of="$work/copy" bs=1M iflag=direct
		check cmp "$work/source" "$work/copy"
		check cmp "$work/source" "$1"
		check_output "65536
0" fileop -o direct "$1" pwrite 1M 64K 55 fsync
		check blockdev --flushbufs "$loop"
		check_output same fileop -o rdonly "$loop" all 1M 64K 55
		check_output "65536
0" fileop "$1" pwrite 2M 64K 56 fsync
		check blockdev --flushbufs "$loop"
		check_output same fileop -o rdonly "$loop" all 2M 64K 56
		check losetup -d "$loop"
	done
}

kept_over_the_end() {
	check dd if="$work/source" of="$mnt/file.img" bs=1M conv=notrunc
	unmount_disks
	check cmp "$work/source" "$work/file.img"
}

for cache in none writethrough writeback; do
	policy $cache
	test_case "$cache: buffered writes, direct reads" each buffered_then_direct
	test_case "$cache: direct writes, buffered reads" each direct_then_buffered
	test_case "$cache: writes of single bytes" each small_writes
	test_case "$cache: fsync and O_DSYNC reach the backing file" synced
	test_case "$cache: zeroed ranges" each holes
	test_case "$cache: maps" each maps
	test_case "$cache: maps that live on" each living_maps
	test_case "$cache: buffered and direct writers at once" each mixed_writers
	if [ "$(id -u)" = 0 ] && losetup -f >/dev/null 2>&1; then
		test_case "$cache: loop devices" each on_loop
	else
		skip_case "$cache: loop devices" "none here"
	fi
	[ $cache = writeback ] || test_case "$cache: writes past the end" each past_the_end
	test_case "$cache: nothing is lost at the end" kept_over_the_end
done
policy writeback
test_case "writeback: a write past the end fails later" late_error
