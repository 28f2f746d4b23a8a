#!/bin/bash
# SPDX-License-Identifier: MIT
# A mount with several stacks, read and written by dd, cp and cmp; its three clean ends.
. "$(dirname "$0")/lib.sh"
requires python3
requires_fuse

random_file "$work/raw.img" 8388608
cp "$work/raw.img" "$work/ro.img"
random_file "$work/source" 8388608 2
config <<EOT
; every driver, several geometries
[raw]
driver = file
path = raw.img

[sparse4k]
driver = file
path = $work/sparse.img
size = 16M
sector_size = 4096

[ro]
driver = file
path = ro.img
readonly = yes

[memory]
driver = ram
size = 16M
file = Memory Disk.img

[zero]
driver = null
size = 1T
EOT

listing() {
	check_output "Memory Disk.img
raw.img
ro.img
sparse4k.img
zero.img" env LC_ALL=C ls "$mnt"
	check_output "$mnt/.metrics $mnt/.status $mnt/.status.json" bash -c "echo '$mnt'/.[a-z]*"
	check_output 8388608 stat -c %s "$mnt/raw.img"
	check_output 16777216 stat -c %s "$mnt/sparse4k.img"
	check_output 16777216 stat -c %s "$mnt/Memory Disk.img"
	check_output 1099511627776 stat -c %s "$mnt/zero.img"
	check_output 'regular file' stat -c %F "$mnt/raw.img"
	check_output directory stat -c %F "$mnt"
	check_fails 2 ls "$mnt/other.img"
	check_output 16777216 stat -c %s "$work/sparse.img"
}

inodes() {
	(cd "$mnt" && stat -c '%n %i' . ./*.img .status .status.json .metrics)
}

inodes_differ() {
	check_equal "" "$(inodes | awk '{ print $NF }' | sort | uniq -d)" "an inode number used twice"
}

reading() {
	check cmp "$work/raw.img" "$mnt/raw.img"
	check cmp "$work/ro.img" "$mnt/ro.img"
	check dd if="$mnt/raw.img" of="$work/copy" bs=1M iflag=direct
	check cmp "$work/raw.img" "$work/copy"
	check dd if="$mnt/raw.img" of="$work/copy" bs=7777
	check cmp "$work/raw.img" "$work/copy"
	check dd if="$mnt/raw.img" of="$work/copy" bs=512 iflag=direct count=100 skip=3
	check cmp -n 51200 -i 1536:0 "$work/raw.img" "$work/copy"
	check_output 'same' fileop "$mnt/zero.img" all 999G 1M 0
}

# writing FLAGS...: the source, written by dd with these flags, arrives in the backing file.
writing() {
	random_file "$work/source" 8388608 $RANDOM
	check dd if="$work/source" of="$mnt/raw.img" "$@"
	check cmp "$work/source" "$mnt/raw.img"
	check cmp "$work/source" "$work/raw.img"
	check_output 8388608 stat -c %s "$work/raw.img"
}

writing_inside() {
	cp "$work/raw.img" "$work/expected"
	check dd if="$work/source" of="$work/expected" bs=1000 count=777 seek=1234 conv=notrunc
	check dd if="$work/source" of="$mnt/raw.img" bs=1000 count=777 seek=1234 conv=notrunc,fsync
	check cmp "$work/expected" "$work/raw.img"
}

copying() {
	check cp "$work/source" "$mnt/raw.img"
	check cp "$mnt/raw.img" "$mnt/sparse4k.img"
	check cmp -n 8388608 "$work/source" "$mnt/sparse4k.img"
	check cp --sparse=always "$mnt/sparse4k.img" "$work/copy"
	check cmp "$mnt/sparse4k.img" "$work/copy"
	check cp "$work/source" "$mnt/Memory Disk.img"
	check cmp -n 8388608 "$work/source" "$mnt/Memory Disk.img"
	check sync "$mnt/raw.img"
	check sync -f "$mnt/raw.img"
}

null_drops() {
	check dd if="$work/source" of="$mnt/zero.img" bs=1M seek=5 conv=notrunc oflag=direct
	check_output same fileop "$mnt/zero.img" all 5M 8M 0
}

mount_disks "$conf"
test_case "every stack appears, with its size" listing
test_case "inode numbers are unique" inodes_differ
test_case "images read as their backing files" reading
test_case "dd, buffered" writing bs=1M conv=notrunc
test_case "dd without conv=notrunc" writing bs=64k
test_case "dd, direct" writing bs=1M oflag=direct
test_case "dd, direct, 512 bytes at a time" writing bs=512 oflag=direct conv=notrunc
test_case "dd, odd block size" writing bs=12345 conv=notrunc
test_case "dd, synchronous" writing bs=256k oflag=dsync conv=notrunc
test_case "dd into the middle" writing_inside
test_case "cp onto images and from them" copying
test_case "a null disk drops writes and reads zeros" null_drops
before=$(inodes)
end_disks

# Whatever was written before the end must be in the backing file after it.
end_by() {
	mount_disks "$conf"
	check_equal "$before" "$(inodes)" "inode numbers after a remount"
	random_file "$work/source" 8388608 $RANDOM
	check dd if="$work/source" of="$mnt/raw.img" bs=100k
	unmount_disks "$@"
	check cmp "$work/source" "$work/raw.img"
	check_output "" ls -A "$mnt"
}
test_case "umount, and inode numbers stay" end_by
test_case "SIGTERM" end_by TERM
test_case "SIGINT" end_by INT

# A signal ends the daemon even while somebody has an image open; what was written is kept.
end_while_open() {
	local holder

	mount_disks "$conf"
	mkfifo "$work/fifo"
	: >"$work/out"
	fileop "$mnt/raw.img" pwrite 1M 1M 90 hold <"$work/fifo" >"$work/out" &
	holder=$!
	exec 9>"$work/fifo"
	wait_for 10 grep -q 1048576 "$work/out"
	unmount_disks TERM
	exec 9>&-
	wait "$holder"
	check_output same fileop "$work/raw.img" all 1M 1M 90
}
test_case "SIGTERM while an image is open" end_while_open

relative_paths() {
	cd "$work" || return
	mount_disks test.conf
	check cmp raw.img mnt/raw.img
	unmount_disks
	cd /
}
test_case "relative paths" relative_paths
