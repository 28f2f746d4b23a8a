#!/bin/bash
# SPDX-License-Identifier: MIT
# A file system on a loop device on an image: made, mounted, filled, checked.
. "$(dirname "$0")/lib.sh"
requires losetup mkfs.ext4 fsck.ext4 python3
requires_root
requires_fuse
losetup -f >/dev/null 2>&1 || skip_all "no loop devices here"

config <<EOT
[file]
driver = file
path = file.img
size = 64M

[ram4k]
driver = ram
size = 64M
sector_size = 4096
EOT
mkdir "$work/fs"
cleanup_fn unmount_lazily "$work/fs"

# file_system IMAGE LOSETUP-OPTION...
file_system() {
	local image=$1 loop i

	shift
	loop=$(losetup -f --show "$@" "$image") || { not_ok "losetup $* $image"; return; }
	cleanup_fn free_loop "$loop"
	check_output 67108864 blockdev --getsize64 "$loop"
	if ! check mkfs.ext4 -q -F "$loop" || ! check mount -o discard "$loop" "$work/fs"; then
		free_loop "$loop"
		return
	fi
	for i in 1 2 3 4 5 6 7 8; do
		random_file "$work/fs/$i" $((i * 555555)) "$i"
	done
	mkdir "$work/fs/many"
	for i in $(seq 300); do
		echo "$i" >"$work/fs/many/$i"
	done
	check sync -f "$work/fs"
	rm "$work/fs/3" "$work/fs/many/1"*
	check umount "$work/fs"
	check fsck.ext4 -f -n "$loop"
	check mount -o ro "$loop" "$work/fs"
	for i in 1 2 4 5 6 7 8; do
		random_file "$work/expected" $((i * 555555)) "$i"
		check cmp "$work/expected" "$work/fs/$i"
	done
	check_equal 300 "$(cat "$work/fs/many/300" 2>&1)"
	check umount "$work/fs"
	check losetup -d "$loop"
}

# The backing file of a file stack is the same file system, without diskfs.
checked_without_diskfs() {
	check fsck.ext4 -f -n "$work/file.img"
}

mount_disks "$conf"
test_case "file: loop device" file_system "$mnt/file.img"
test_case "file: loop device, direct I/O" file_system "$mnt/file.img" --direct-io=on
test_case "ram, 4096-byte sectors: loop device" file_system "$mnt/ram4k.img"
test_case "ram, 4096-byte sectors: loop device of 4096-byte sectors, direct I/O" \
	file_system "$mnt/ram4k.img" --sector-size 4096 --direct-io=on
end_disks
test_case "the file system is in the backing file" checked_without_diskfs
