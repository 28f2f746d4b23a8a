#!/bin/bash
# SPDX-License-Identifier: MIT
# ext4, XFS and btrfs on loop devices on images, with the loop's direct I/O and without: what was
# written is there, their own checkers find nothing, and what they trim is given back on the host.
. "$(dirname "$0")/lib.sh"
requires losetup blkdiscard fstrim python3
requires_root
requires_fuse
losetup -f >/dev/null 2>&1 || skip_all "no loop devices here"

config <<EOT
[file]
driver = file
path = file.img
size = 320M

[file4k]
driver = file
path = file4k.img
size = 320M
sector_size = 4096
EOT
mkdir "$work/fs"
cleanup_fn unmount_lazily "$work/fs"

# A tree of small and large files in some hundred folders, the same for the same seed.
make_tree() {
	python3 - "$1" <<'PY'
import os, random, sys
top, rng = sys.argv[1], random.Random(11)
for folder in range(150):
    path = os.path.join(top, "d%d" % (folder % 10), "e%d" % folder)
    os.makedirs(path)
    for file in range(6):
        with open(os.path.join(path, "f%d" % file), "wb") as out:
            out.write(rng.randbytes(int(rng.expovariate(1 / 10000))))
    os.symlink("f0", os.path.join(path, "link"))
    os.link(os.path.join(path, "f1"), os.path.join(path, "hard"))
PY
	random_file "$1/large" 20000000 12
}

# Names and contents of a tree, in one number.
digest() {
	(cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
}

kib_of() {
	du -k "$1" | cut -f 1
}

check_ext4() {
	check fsck.ext4 -f -n "$1"
}

check_xfs() {
	check xfs_repair -n "$1"
}

check_btrfs() {
	check btrfs check --readonly "$1"
}

scrub_btrfs() {
	check btrfs scrub start -B -r "$work/fs"
	check_match 'no errors found' btrfs scrub status "$work/fs"
}

# fill_and_trim LOOP BACKING-FILE
fill_and_trim() {
	local loop=$1 backing=$2 before after

	check cp -a "$work/tree" "$work/fs/tree" || return
	check cp "$work/tree/large" "$work/fs/to-delete"
	check cp "$work/tree/large" "$work/fs/to-delete-too"
	check sync -f "$work/fs"
	before=$(kib_of "$backing")
	rm "$work/fs/to-delete" "$work/fs/to-delete-too"
	# XFS frees blocks some time after rm, at the latest now.
	check umount "$work/fs" && check mount "$loop" "$work/fs" || return
	check fstrim "$work/fs"
	check sync -f "$work/fs"
	after=$(kib_of "$backing")
	# Of 39062 KiB; the file systems write something at the same time.
	[ "$after" -le $((before - 30000)) ] || not_ok "fstrim: $before KiB before, $after KiB after"
}

# on_loop KIND DISK LOOP
on_loop() {
	local kind=$1 backing=$work/$2.img loop=$3

	check "mkfs.$kind" -q "$force" "$loop" && check mount "$loop" "$work/fs" || return
	fill_and_trim "$loop" "$backing"
	check umount "$work/fs" || return
	"check_$kind" "$loop"
	# Not from the page cache of the loop device.
	check blockdev --flushbufs "$loop"
	check mount -o ro "$loop" "$work/fs" || return
	check_equal "$wanted" "$(digest "$work/fs/tree")" "the digest of the tree"
	[ "$kind" != btrfs ] || scrub_btrfs
	check umount "$work/fs"
}

# file_system KIND DISK DIRECT
file_system() {
	local kind=$1 disk=$2 direct=$3 loop force=-F size=512

	[ "$kind" = ext4 ] || force=-f
	[ "$disk" = file ] || size=4096
	loop=$(losetup -f --show --direct-io="$direct" --sector-size $size "$mnt/$disk.img") ||
		{ not_ok "losetup $disk"; return; }
	cleanup_fn free_loop "$loop"
	on_loop "$kind" "$disk" "$loop"
	unmount_lazily "$work/fs"
	check blkdiscard "$loop"
	check losetup -d "$loop"
	[ "$(kib_of "$work/$disk.img")" -le 1024 ] ||
		not_ok "$(kib_of "$work/$disk.img") KiB after blkdiscard"
	check_output same fileop "$mnt/$disk.img" all 0 4M 0
}

known() {
	if ! command -v "mkfs.$1" >/dev/null; then
		skip_case "$1" "mkfs.$1 is not installed"
		return 1
	fi
	modprobe "$1" 2>/dev/null
	if ! grep -qw "$1" /proc/filesystems; then
		skip_case "$1" "the kernel does not know it"
		return 1
	fi
}

mkdir "$work/tree"
make_tree "$work/tree"
wanted=$(digest "$work/tree")
mount_disks "$conf"
for kind in ext4 xfs btrfs; do
	known $kind || continue
	for direct in off on; do
		test_case "$kind, loop device with direct I/O $direct" file_system $kind file $direct
	done
	test_case "$kind, sectors of 4096 bytes, direct I/O on" file_system $kind file4k on
done
end_disks
