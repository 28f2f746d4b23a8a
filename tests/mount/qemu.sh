#!/bin/bash
# SPDX-License-Identifier: MIT
# QEMU's tools on images of the mount: info, convert, compare, map, and I/O in every cache mode.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io python3
requires_fuse

random_file "$work/source.raw" 16777216 4
truncate -s 24M "$work/source.raw"
qemu-img convert -f raw -O qcow2 "$work/source.raw" "$work/source.qcow2" || exit 1
random_file "$work/odd.img" 8389120 5
config <<EOT
[file]
driver = file
path = file.img
size = 24M

[file4k]
driver = file
path = file4k.img
size = 24M
sector_size = 4096

[ram]
driver = ram
size = 24M

[odd]
; of 512 * N bytes, N odd
driver = file
path = odd.img
EOT

information() {
	check_match 'virtual size: 24 MiB' qemu-img info -f raw "$mnt/$1.img"
	check_match '"virtual-size": 25165824' qemu-img info -f raw --output=json "$mnt/$1.img"
}

# converting DISK OPTION...
converting() {
	local disk=$1

	shift
	check qemu-img convert -n -O raw "$@" "$work/source.qcow2" "$mnt/$disk.img"
	check qemu-img compare -f raw -F qcow2 "$mnt/$disk.img" "$work/source.qcow2"
	check cmp "$work/source.raw" "$mnt/$disk.img"
	check qemu-img convert -f raw -O qcow2 "$mnt/$disk.img" "$work/back.qcow2"
	check qemu-img compare "$work/back.qcow2" "$work/source.qcow2"
}

# The third part is a hole, and QEMU sees it.
mapping() {
	check fileop "$mnt/$1.img" fallocate punch,keep 16M 8M
	check_match '"start": 16777216, "length": 8388608,.*"(zero": true|data": false)' \
		qemu-img map -f raw --output=json "$mnt/$1.img"
}

# A pattern written with one cache mode is read with the same and with another.
input_output() {
	local cache disk

	for disk in file file4k ram odd; do
		for cache in none writeback writethrough directsync; do
			check qemu-io -f raw -t $cache -c 'write -P 17 1M 1M' -c 'write -P 18 1049088 512' \
				-c 'read -P 17 1M 512' -c 'read -P 18 1049088 512' -c flush \
				-c 'read -P 17 1049600 64k' "$mnt/$disk.img"
			check qemu-io -f raw -c 'read -P 17 1M 512' -c 'read -P 18 1049088 512' "$mnt/$disk.img"
		done
	done
}

engines() {
	local engine

	for engine in threads native io_uring; do
		check qemu-io -f raw -t none -i $engine -c 'aio_write -P 19 2M 1M' -c aio_flush \
			-c 'read -P 19 2M 1M' "$mnt/file.img"
	done
}

# The odd end of a disk must be reachable without the page cache.
odd_end() {
	check qemu-io -f raw -t none -c 'write -P 20 8388608 512' -c 'read -P 20 8388608 512' \
		"$mnt/odd.img"
	check_output same fileop "$mnt/odd.img" all 8M 512 20
}

zeroes_and_discard() {
	local disk

	for disk in file file4k ram; do
		check qemu-io -f raw -t none -d unmap -c 'write -P 21 0 4M' -c 'write -z 1M 1M' \
			-c 'write -z -u 2M 512k' -c 'discard 3M 1M' -c 'read -P 21 0 1M' -c 'read -P 0 1M 1536k' \
			-c 'read -P 21 2560k 512k' -c 'read -P 0 3M 1M' "$mnt/$disk.img"
	done
}

# A second QEMU that wants to write is refused, as on a plain file. (Of a qcow2 image inside: raw
# images, qemu-io shares with everybody.)
two_users() {
	local holder

	check qemu-img create -q -f qcow2 "$work/small.qcow2" 1M
	check dd if="$work/small.qcow2" of="$mnt/ram.img" conv=notrunc
	mkfifo "$work/fifo"
	: >"$work/out"
	qemu-io -f qcow2 "$mnt/ram.img" <"$work/fifo" >"$work/out" 2>&1 &
	holder=$!
	exec 9>"$work/fifo"
	echo 'read 0 512' >&9
	wait_for 10 grep -q 'read 512/512' "$work/out" || not_ok "$(cat "$work/out")"
	check_match 'Failed to get .*lock' qemu-io -f qcow2 -c 'write 0 512' "$mnt/ram.img"
	exec 9>&-
	wait "$holder"
	check qemu-io -f qcow2 -c 'write 0 512' "$mnt/ram.img"
}

mount_disks "$conf"
for disk in file file4k ram; do
	test_case "$disk: qemu-img info" information $disk
	test_case "$disk: qemu-img convert and compare" converting $disk
	test_case "$disk: qemu-img convert, cache=none" converting $disk -t none -T none
	test_case "$disk: qemu-img map" mapping $disk
done
test_case "qemu-io in every cache mode" input_output
test_case "qemu-io with every engine" engines
test_case "a size that is no multiple of 4096" odd_end
test_case "write zeroes and discard" zeroes_and_discard
test_case "QEMU's image locks" two_users
end_disks
