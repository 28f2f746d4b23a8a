#!/bin/bash
# SPDX-License-Identifier: MIT
# passthrough = yes: the kernel reads and writes the file itself; all else still comes to diskfs.
. "$(dirname "$0")/lib.sh"
requires fio python3 qemu-io fallocate
requires_root
requires_fuse

size=67108864
passed='
[p]
driver = file
path = p.img
size = 64M
passthrough = yes

[frozen]
driver = file
path = frozen.img
readonly = yes
passthrough = yes

[other]
driver = ram
size = 16M
'
random_file "$work/frozen.img" 1048576

# How many requests the disk of an image has served: served IMAGE read|write
served() {
	python3 - "$mnt/.status.json" "$@" <<'PY'
import json, sys
operations = json.load(open(sys.argv[1]))["images"][sys.argv[2]]["operations"]
print(operations.get(sys.argv[3], {"requests": 0})["requests"])
PY
}

tells_so() {
	check_match "served_by: the kernel" cat "$mnt/.status"
	check_match "features: .*passthrough" cat "$mnt/.status"
}

# By all ways at once, and the file is what was written.
same_bytes() {
	local engine

	random_file "$work/data" 8388608 2
	check dd if="$work/data" of="$mnt/p.img" bs=1M conv=notrunc,fsync
	check cmp -n 8388608 "$work/data" "$work/p.img"
	check dd if="$work/data" of="$mnt/p.img" bs=1M seek=8 conv=notrunc oflag=direct
	check cmp -n 8388608 "$work/data" "$mnt/p.img" 0 8388608
	for engine in libaio io_uring psync mmap; do
		check fio --name=a --filename="$mnt/p.img" --allow_file_create=0 --rw=randrw --bs=4k,64k \
			--ioengine=$engine --iodepth=16 --direct=$([ $engine = mmap ] && echo 0 || echo 1) \
			--size=64M --io_size=32M --verify=crc32c --verify_state_save=0 --fallocate=none \
			--output-format=terse
	done
	check cmp "$mnt/p.img" "$work/p.img"
	check_equal 0 "$(served p.img read)" "requests for reads that came to diskfs"
	check_equal 0 "$(served p.img write)" "requests for writes that came to diskfs"
}

# Buffered, direct and mapped openers together; none is refused.
openers_mix() {
	check python3 - "$mnt/p.img" <<'PY'
import mmap, os, sys
path = sys.argv[1]
buffered = os.open(path, os.O_RDWR)
direct = os.open(path, os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
with mmap.mmap(buffered, 1 << 20) as mapped:
    for n in range(64):
        mapped[8192:12288] = bytes([n]) * 4096
        mapped.flush()
        assert os.preadv(direct, [page], 8192) == 4096
        assert page[:] == bytes([n]) * 4096, n
        page[:] = bytes([255 - n]) * 4096
        assert os.pwritev(direct, [page], 8192) == 4096
        assert os.pread(buffered, 4096, 8192) == bytes([255 - n]) * 4096, n
        assert mapped[8192:12288] == bytes([255 - n]) * 4096, n
PY
}

holes() {
	check fallocate --punch-hole -o 0 -l 16M "$mnt/p.img"
	check_output same fileop "$mnt/p.img" all 0 16M 0
	check_output "$(stat -c %b "$work/p.img")" stat -c %b "$mnt/p.img"
	check qemu-io -t none -f raw -c "write -P 5 1M 1M" -c "discard 1M 512k" \
		-c "read -P 0 1M 512k" -c "read -P 5 1536k 512k" "$mnt/p.img"
	check_output 1572864 python3 -c 'import os, sys
print(os.lseek(os.open(sys.argv[1], os.O_RDONLY), 0, os.SEEK_DATA))' "$mnt/p.img"
}

read_only() {
	check cmp "$mnt/frozen.img" "$work/frozen.img"
	check_match "Read-only" dd if=/dev/zero of="$mnt/frozen.img" count=1 conv=notrunc
}

# What the manual says: nothing keeps it from that, but it is told at the end.
beyond_the_end() {
	check dd if=/dev/zero of="$mnt/p.img" bs=1M seek=64 count=1 conv=notrunc
	check_equal $((size + 1048576)) "$(stat -c %s "$work/p.img")" "the size of the file"
	wait_for 5 size_is $size || not_ok "the size of the image: $(stat -c %s "$mnt/p.img")"
}

size_is() {
	[ "$(stat -c %s "$mnt/p.img")" = "$1" ]
}

told() {
	check_match "p.img\] somebody has written beyond its end: .* 1048576 bytes" cat "$work/log"
	truncate -s $size "$work/p.img"
}

# refused TEXT [ARGUMENT...]: this configuration (stdin) is not mounted, for this reason.
refused() {
	local wanted=$1

	shift
	config
	check_match "$wanted" timeout 20 "$BUILD/diskfs" "$@" "$conf" "$mnt"
	! mounted "$mnt" || not_ok "it is mounted"
}

reasons() {
	refused "passthrough: not for 'a.img': driver 'ram' is more than a raw file" <<<'[a]
driver = ram
size = 1M
passthrough = yes'
	refused "passthrough: not for 'top.img': driver 'fault' is more than" <<<'[a]
driver = ram
size = 1M
[top]
driver = fault
below = a
passthrough = yes'
	refused "\[a\] passthrough: other disks stand on this one" <<<'[a]
driver = ram
size = 1M
passthrough = yes
[top]
driver = fault
below = a'
	truncate -s 1000000 "$work/odd.img"
	refused "passthrough: not for 'a.img': the last sector of its file is incomplete" <<<"[a]
driver = file
path = odd.img
sector_size = 4096
passthrough = yes"
	refused "passthrough: not with cache = writeback" -o cache=writeback <<<"$passed"
}

config <<<"$passed"
"$BUILD/diskfs" "$conf" "$mnt" >"$work/out" 2>&1 || {
	grep -q "does not offer" "$work/out" && skip_all "this kernel has no passthrough"
	cat "$work/out"
}
umount "$mnt"
wait_for 10 flock --nonblock "$work/p.img" true # the daemon ends a moment later
for cache in writethrough none; do
	mount_disks "$conf" -o cache=$cache
	test_case "$cache: .status says who serves" tells_so
	test_case "$cache: reads and writes" same_bytes
	test_case "$cache: openers of all kinds" openers_mix
	test_case "$cache: holes" holes
	test_case "$cache: a read-only disk" read_only
	test_case "$cache: a write beyond the end" beyond_the_end
	end_disks
	test_case "$cache: the log tells of it" told
done
test_case "what cannot be passed through is refused" reasons
