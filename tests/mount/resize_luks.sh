#!/bin/bash
# SPDX-License-Identifier: MIT
# LUKS volumes that change their size while they are mounted: with what they are on, and by truncate.
. "$(dirname "$0")/lib.sh"
requires python3 getfattr cryptsetup
requires_fuse

M=1048576
header=$((16 * M)) # what LUKS2 keeps for itself, before the data

# luks_format FILE BYTES: a volume whose data are that long.
luks_format() {
	truncate -s $((header + $2)) "$1"
	check cryptsetup luksFormat -q --type luks2 --sector-size 512 --pbkdf pbkdf2 \
		--pbkdf-force-iterations 1000 "$1" "$work/pass"
}

# The volume has no size of its own, but goes to the end of what it is on: grown IMAGE COMMAND... grows
# that by the command, with a size behind it.
luks_grown() {
	local image=$1 old=$((8 * M)) new

	shift
	has_size "$image" $old
	check_output "8388608
0" fileop "$mnt/$image" pwrite 0 8M 1 fsync
	for new in $((8 * M + 1536)) $((24 * M)); do
		check "$@" $((header + new))
		has_size "$image" $new
		check_output same fileop "$mnt/$image" all 0 8M 1
	done
	check_output "1048576
0
same" fileop "$mnt/$image" pwrite 23M 1M 2 fsync all 23M 1M 2
}

grow_file() {
	truncate -s "$1" "$work/luks.raw"
}

grow_base() {
	truncate -s "$1" "$work/luks_base.raw"
}

grow_loop() {
	truncate -s "$1" "$work/loop.raw" && losetup -c "$loop"
}

# By the image itself: it is told the size of the data, and the file below has the header as well.
luks_truncated() {
	check truncate -s 32M "$mnt/luks.img"
	has_size luks.img $((32 * M))
	check_equal $((header + 32 * M)) "$(stat -c %s "$work/luks.raw")" "the file below"
	check_output "same
same" fileop "$mnt/luks.img" all 0 8M 1 all 23M 1M 2
	check_match "Operation not permitted" truncate -s 24M "$mnt/luks.img"
}

luks_again() {
	check_output "same
same" fileop "$mnt/luks.img" all 0 8M 1 all 23M 1M 2
}

printf %s "pass phrase" >"$work/pass"
chmod 600 "$work/pass"
luks_format "$work/luks.raw" $((8 * M))
luks_format "$work/luks_base.raw" $((8 * M))
config <<-EOT
	[file]
	driver = file
	path = luks.raw
	resizable = yes
	[luks]
	driver = crypt
	below = file
	format = luks
	passphrase_file = pass

	[base]
	driver = file
	path = luks_base.raw
	readonly = yes
	[diff]
	driver = ram
	[memory]
	driver = layered
	below = diff, base
	[luks_memory]
	driver = crypt
	below = memory
	format = luks
	passphrase_file = pass
EOT
mount_disks "$conf"
test_case "LUKS on a file that grows" luks_grown luks.img grow_file
test_case "LUKS on memory over a file that grows" luks_grown luks_memory.img grow_base
test_case "LUKS, truncated" luks_truncated
end_disks
mount_disks "$conf"
test_case "LUKS, opened again" luks_again
end_disks

if [ "$(id -u)" = 0 ] && losetup -f >/dev/null 2>&1; then
	luks_format "$work/loop.raw" $((8 * M))
	loop=$(losetup -f --show --direct-io=on "$work/loop.raw") ||
		loop=$(losetup -f --show "$work/loop.raw")
	cleanup_fn free_loop "$loop"
	config <<-EOT
		[dev]
		driver = blockdev
		path = $loop
		[luks]
		driver = crypt
		below = dev
		format = luks
		passphrase_file = pass
	EOT
	mount_disks "$conf"
	test_case "LUKS on a loop device that grows" luks_grown luks.img grow_loop
	end_disks
	losetup -d "$loop"
else
	skip_case "LUKS on a loop device that grows" "no loop devices here"
fi
