#!/bin/bash
# SPDX-License-Identifier: MIT
# fio writes and verifies checksums, by synchronous calls and by io_uring, direct and buffered, on
# disks of 512-byte and 4096-byte sectors.
. "$(dirname "$0")/lib.sh"
requires fio
requires_fuse

config <<EOT
[file]
driver = file
path = file.img
size = 32M

[file4k]
driver = file
path = file4k.img
size = 32M
sector_size = 4096

[direct]
driver = file
path = direct.img
size = 32M
direct = yes

[ram]
driver = ram
size = 32M

[ram4k]
driver = ram
size = 32M
sector_size = 4096
EOT

# verify DISK OPTION...
verify() {
	local disk=$1

	shift
	check fio --name="$disk" --filename="$mnt/$disk.img" --size=32M --allow_file_create=0 \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --invalidate=0 \
		--fallocate=none --output-format=terse --aux-path="$work" "$@"
}

uring="--ioengine=io_uring --iodepth=32"
psync=--ioengine=psync
small=8M
[ -z "${LONG:-}" ] || small=32M

mount_disks "$conf"
for disk in file file4k direct ram ram4k; do
	# shellcheck disable=SC2086 # these are several words
	{
		test_case "$disk: io_uring, direct, 4 KiB random" \
			verify $disk $uring --direct=1 --rw=randwrite --bs=4k --io_size=$small
		test_case "$disk: io_uring, direct, 512 bytes to 64 KiB" \
			verify $disk $uring --direct=1 --rw=randwrite --bsrange=512-64k --bs_unaligned=0 \
			--blockalign=512 --norandommap=0 --io_size=$small
		test_case "$disk: io_uring, direct, 1 MiB sequential" \
			verify $disk $uring --iodepth=4 --direct=1 --rw=write --bs=1M
		test_case "$disk: io_uring, buffered, mixed sizes" \
			verify $disk $uring --direct=0 --rw=randwrite --bssplit=512/20:4k/50:20k/20:256k/10 \
			--io_size=$small
		test_case "$disk: psync, buffered, random, any size" \
			verify $disk $psync --direct=0 --rw=randwrite --bsrange=700-9000 --bs_unaligned=1 \
			--io_size=$small
		test_case "$disk: psync, direct, 512 bytes sequential" \
			verify $disk $psync --direct=1 --rw=write --bs=512 --size=2M
		test_case "$disk: psync, direct, mixed reads and writes" \
			verify $disk $psync --direct=1 --rw=randrw --bs=8k --io_size=$small --fsync=64
	}
done
# Two clients write halves of one disk, in sectors that the other's border on.
test_case "two jobs on one disk" \
	check fio --filename="$mnt/ram4k.img" --allow_file_create=0 --fallocate=none --invalidate=0 \
	--verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --ioengine=io_uring --iodepth=16 --direct=1 \
	--rw=randwrite --bs=512 --size=4000256 --io_size=2M --output-format=terse --aux-path="$work" \
	--name=left --offset=0 --name=right --offset=4000256
end_disks
