#!/bin/bash
# SPDX-License-Identifier: MIT
# Linux's own stripe set (the target striped of the device mapper) and ours, over the same files:
# what one writes the other reads. In a virtual machine (scripts/in-guest), which has one.
if [ "${1:-}" != inside ]; then
	BUILD=$(realpath "${BUILD:-build}")
	grep -q __tsan_init "$BUILD/diskfs" && echo "skip: too slow with ThreadSanitizer" && exit 77
	"$(dirname "$0")/../../scripts/in-guest" --timeout 200 \
		env BUILD="$BUILD" bash "$(realpath "$0")" inside 2>/tmp/in-guest.$$
	status=$?
	[ $status != 125 ] || { echo "skip: $(tail -n 1 /tmp/in-guest.$$)"; status=77; }
	[ $status != 0 ] && [ $status != 77 ] && cat /tmp/in-guest.$$
	rm -f /tmp/in-guest.$$
	exit $status
fi
. "$(dirname "$0")/lib.sh"
requires dmsetup losetup python3
requires_fuse
modprobe -a dm_mod loop || skip_all "no device mapper here"

# both CHUNK MEMBERS: 512-byte sectors of a chunk; 6 rows of members, and of each a part is left.
both() {
	local chunk=$1 count=$2 bytes=$(($1 * 512 * 6)) devices=() names=() table i

	for ((i = 0; i < count; i++)); do
		truncate -s 0 "$work/m$i.raw"
		truncate -s "$bytes" "$work/m$i.raw"
		names+=("m$i")
		printf '[m%d]\ndriver = file\npath = m%d.raw\n' $i $i
	done >"$conf"
	printf '[s]\ndriver = striped\nbelow = %s\nchunk_size = %d\n' "$(IFS=,; echo "${names[*]}")" \
		$((chunk * 512)) >>"$conf"

	random_file "$work/ours" $((bytes * count)) 1
	random_file "$work/theirs" $((bytes * count)) 2

	mount_disks "$conf" -o transport=poll
	check dd if="$work/ours" of="$mnt/s.img" bs=7777 conv=notrunc,fsync
	unmount_disks

	table="0 $((bytes / 512 * count)) striped $count $chunk"
	for ((i = 0; i < count; i++)); do
		devices[i]=$(losetup -f --show "$work/m$i.raw") || return
		table+=" ${devices[i]} 0"
	done
	check dmsetup create --noudevsync --noudevrules stripes --table "$table"
	check dmsetup mknodes
	check cmp "$work/ours" /dev/mapper/stripes
	check dd if="$work/theirs" of=/dev/mapper/stripes bs=64k conv=fsync
	check dmsetup remove --noudevsync --noudevrules stripes
	losetup -d "${devices[@]}"

	mount_disks "$conf" -o transport=poll
	check cmp "$work/theirs" "$mnt/s.img"
	unmount_disks
}

test_case "one disk, chunks of 12 KiB" both 24 1
test_case "two disks, chunks of 4 KiB" both 8 2
test_case "three disks, chunks of 128 KiB" both 256 3
test_case "five disks, chunks of 12 KiB" both 24 5
