#!/bin/bash
# SPDX-License-Identifier: MIT
# Block devices as images: loop devices of both sector sizes, a partition, what is read-only, mounted
# or claimed; checked data, holes, a file system, a crash; and what is wrong with a configuration.
. "$(dirname "$0")/lib.sh"
requires fio losetup addpart mkfs.ext4 e2fsck getfattr
requires_root
requires_fuse
mkdir "$work/inside"

# make_loop FILE BYTES LOSETUP-OPTION...: $loop is then the device of a new file.
make_loop() {
	local file=$work/$1

	truncate -s "$2" "$file"
	shift 2
	loop=$(losetup -f --show "$@" "$file" 2>"$work/losetup") ||
		skip_all "no loop devices: $(cat "$work/losetup")"
	cleanup_fn free_loop "$loop"
}

make_loop small.raw 32M
small=$loop
make_loop large.raw 32M -b 4096
large=$loop
make_loop parts.raw 32M -P
parts=$loop
make_loop fixed.raw 8M -r
fixed=$loop
make_loop empty.raw 0
empty=$loop
# Of 16 MiB, from 4 MiB on. Not every kernel knows how to find them by itself.
addpart "$parts" 1 8192 32768 || skip_all "no partitions of loop devices"
random_file "$work/data" $((8 << 20))

config <<EOT
[small]
driver = blockdev
path = $small

[large]
driver = blockdev
path = $large

[part]
driver = blockdev
path = ${parts}p1

[fixed]
driver = blockdev
path = $fixed
readonly = yes

[diff]
driver = ram
[view]
driver = layered
below = diff, fixed
EOT
mount_disks "$conf"

what_they_are() {
	check_output 33554432 stat -c %s "$mnt/small.img"
	check_output 16777216 stat -c %s "$mnt/part.img"
	check_output 512 attribute sector_size small.img
	check_output 4096 attribute sector_size large.img
	check_output blockdev attribute type part.img
	check_output unspecified attribute unmap small.img
	check_output yes attribute fua small.img
	check_output no attribute pr small.img
	check_output no attribute read_only large.img
	check grep -q "    state: present" "$mnt/.status"
	check grep -q "    partition: 1" "$mnt/.status"
}
test_case "what they are" what_they_are

same_bytes() {
	check dd if="$work/data" of="$mnt/small.img" bs=1M seek=1 conv=notrunc,fsync status=none
	check cmp -i 1048576:0 -n 8388608 "$work/small.raw" "$work/data"
	check dd if="$work/data" of="$mnt/large.img" bs=7777 conv=notrunc,fsync status=none
	check cmp -n 8388608 "$work/large.raw" "$work/data"
	check dd if="$work/data" of="$mnt/part.img" bs=64k seek=128 conv=notrunc status=none oflag=direct
	check sync "$mnt/part.img"
	# It ends where the partition does.
	check_match "No space left" dd if="$work/data" of="$mnt/part.img" bs=1M seek=16 conv=notrunc
	check cmp -i $((12 << 20)):0 -n 8388608 "$work/parts.raw" "$work/data"
	check cmp -i $((20 << 20)):0 -n 1048576 "$work/parts.raw" /dev/zero
	# Odd places, by bytes.
	check dd if="$work/data" of="$mnt/large.img" bs=1001 count=1 seek=3 conv=notrunc,fsync status=none
	check cmp -i 3003:0 -n 1001 "$work/large.raw" "$work/data"
	check cmp -i 4004:4004 -n 8000000 "$work/large.raw" "$work/data"
}
test_case "the bytes are the device's" same_bytes

verified() {
	local name

	for name in small large part; do
		check timeout 60 fio --name=$name --filename="$mnt/$name.img" --allow_file_create=0 \
			--rw=randwrite --bsrange=4k-512k --ioengine=io_uring --iodepth=16 --direct=1 \
			--size=16M --io_size=32M --verify=crc32c --verify_fatal=1 --sync=sync \
			--verify_state_save=0 --fallocate=none --output="$work/fio"
	done
}
test_case "verified data" verified

holes() {
	local before after

	check dd if=/dev/zero of="$mnt/small.img" bs=1M count=32 conv=notrunc,fsync status=none
	before=$(stat -c %b "$work/small.raw")
	check fallocate -p -o 1000 -l 20000000 "$mnt/small.img"
	check sync "$mnt/small.img"
	after=$(stat -c %b "$work/small.raw")
	[ "$after" -lt $((before - 19000000 / 512)) ] || not_ok "$before blocks became $after"
	check dd if="$work/data" of="$mnt/small.img" bs=1M conv=notrunc,fsync status=none
	check fallocate -z -o 4321 -l 12345 "$mnt/small.img"
	check cmp -n 4321 "$mnt/small.img" "$work/data"
	check cmp -i 4321:0 -n 12345 "$mnt/small.img" /dev/zero
	check cmp -i 16666:16666 -n 8000000 "$mnt/small.img" "$work/data"
}
test_case "holes give space back, and are zeros to the byte" holes

read_only_below() {
	check dd if="$work/data" of="$mnt/view.img" bs=1M count=2 seek=1 conv=notrunc status=none
	check cmp -i 1048576:0 -n 2097152 "$mnt/view.img" "$work/data"
	check cmp -n 8388608 "$work/fixed.raw" /dev/zero
}
test_case "a read-only device can be written over" read_only_below

# Nobody else gets what is served, and it takes nothing that somebody else has.
claims() {
	check_match "already mounted|busy|in use" mount "$small" "$work/inside"
	check_match "apparently in use" mkfs.ext4 "$small"
	cat >"$work/second.conf" <<-EOT
		[second]
		driver = blockdev
		path = $small
	EOT
	check_output "$work/second.conf:3: [second] path: '$small' is in use: another program has claimed it for itself (shared = yes opens it all the same)" \
		diskfs -f "$work/second.conf" "$work/inside"
	# A check disturbs nobody.
	check_match "second: blockdev, 32 MiB" diskfs --check "$work/second.conf"
}
test_case "what is served is claimed" claims

file_system() {
	check mkfs.ext4 -q -F -E discard "$mnt/part.img"
	check e2fsck -fn "$mnt/part.img"
}
test_case "a file system" file_system
end_disks

what_is_mounted() {
	check e2fsck -fn "${parts}p1"
	check mount "${parts}p1" "$work/inside"
	config <<-EOT
		[part]
		driver = blockdev
		path = ${parts}p1
	EOT
	check_output "$conf:3: [part] path: '${parts}p1' is in use: mounted on $work/inside (shared = yes opens it all the same)" \
		diskfs -f "$conf" "$mnt"
	config <<-EOT
		[whole]
		driver = blockdev
		path = $parts
	EOT
	check_output "$conf:3: [whole] path: '$parts' is in use: partition $(basename "$parts")p1 is mounted on $work/inside (shared = yes opens it all the same)" \
		diskfs -f "$conf" "$mnt"
	echo "shared = yes" >>"$conf"
	echo "readonly = yes" >>"$conf"
	mount_disks "$conf"
	check cmp -n 1000000 "$mnt/whole.img" "$work/parts.raw"
	unmount_disks
	check umount "$work/inside"
}
test_case "what is mounted is refused, unless it is shared" what_is_mounted

# A device that has no space for a write says so, and so does the image.
full() {
	check dd if="$work/data" of="$mnt/full.img" bs=64k count=64 oflag=direct conv=notrunc status=none
	check_match "No space left on device" \
		timeout 20 dd if="$work/data" of="$mnt/full.img" bs=4k seek=2048 count=1 oflag=direct conv=notrunc
	check grep -qF "write of 8 sectors at LBA 16384: I/O error (ENOSPC)" "$work/log"
	check_match "No space left on device" \
		timeout 20 dd if="$work/data" of="$mnt/full.img" bs=4k seek=2048 count=1 conv=notrunc,fsync
	check_match "No space left on device" timeout 20 fallocate -z -o 8M -l 4M "$mnt/full.img"
	# What has its space is as usable as before.
	check dd if="$work/data" of="$mnt/full.img" bs=64k count=1 oflag=direct conv=notrunc,fsync status=none
	check cmp -n $((4 << 20)) "$mnt/full.img" "$work/data"
	check grep -q "    state: present" "$mnt/.status"
}

mkdir "$work/small"
if mount -t tmpfs -o size=4M none "$work/small"; then
	cleanup_fn unmount_lazily "$work/small"
	make_loop small/full.raw 32M
	config <<-EOT
		[full]
		driver = blockdev
		path = $loop
	EOT
	mount_disks "$conf"
	test_case "a device without space" full
	end_disks
	losetup -d "$loop"
	umount "$work/small"
else
	skip_case "a device without space" "no tmpfs can be mounted"
fi

# What was acknowledged to fsync is there after kill -9, and the device is free.
crash() {
	config <<-EOT
		[large]
		driver = blockdev
		path = $large
	EOT
	mount_disks "$conf"
	check dd if="$work/data" of="$mnt/large.img" bs=1M seek=16 conv=notrunc,fsync status=none
	kill_disks
	unmount_lazily "$mnt"
	check cmp -i 16777216:0 -n 8388608 "$large" "$work/data"
	mount_disks "$conf"
	check cmp -i 16777216:0 -n 8388608 "$mnt/large.img" "$work/data"
	unmount_disks
}
test_case "kill -9" crash

# Through the page cache, where somebody wants that.
cached() {
	echo "direct = no" >>"$conf"
	mount_disks "$conf"
	check grep -q "    direct: no" "$mnt/.status"
	check dd if="$work/data" of="$mnt/large.img" bs=1M conv=notrunc,fsync status=none
	check cmp -n 8388608 "$work/large.raw" "$work/data"
	unmount_disks
}
test_case "through the page cache" cached

# refused SENTENCE LINE...: the configuration is that node.
refused() {
	local sentence=$1

	shift
	printf '%s\n' "[x]" "driver = blockdev" "$@" >"$conf"
	check_output "$conf:3: [x] path: $sentence" diskfs -f "$conf" "$mnt"
	check_output "$conf:3: [x] path: $sentence" diskfs --check "$conf"
}

what_is_wrong() {
	refused "'$work/data' is no block device: driver = file serves files" "path = data"
	refused "'/dev/null' is no block device" "path = /dev/null"
	refused "cannot open '/dev/none': No such file or directory" "path = /dev/none"
	refused "'$fixed' is read-only: set readonly = yes" "path = $fixed"
	refused "'$empty' has no medium, or nothing stands behind it: its size is 0" "path = $empty"
}
test_case "what is refused" what_is_wrong
