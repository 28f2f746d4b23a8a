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

[odd4k]
; of 4096 * N bytes, N odd; the file has 512 bytes more, which no sector reaches
driver = file
path = odd4k.img
sector_size = 4096
EOT
random_file "$work/odd4k.img" 8393216 6

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

	for disk in file file4k ram odd odd4k; do
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
	local cache

	for cache in none directsync; do
		check qemu-io -f raw -t $cache -c 'write -P 20 8388608 512' -c 'read -P 20 8388608 512' \
			"$mnt/odd.img"
		check qemu-io -f raw -t $cache -c 'write -P 22 8388608 4k' -c 'read -P 22 8388608 4k' \
			-c 'write -P 23 8392192 512' -c 'read -P 23 8392192 512' -c 'read -P 22 8388608 3584' \
			"$mnt/odd4k.img"
	done
	check_output same fileop "$mnt/odd.img" all 8M 512 20
	check_output 8392704 stat -c %s "$mnt/odd4k.img"
	check_output same fileop "$work/odd4k.img" all 8392192 512 23
}

zeroes_and_discard() {
	local disk

	for disk in file file4k ram; do
		check qemu-io -f raw -t none -d unmap -c 'write -P 21 0 4M' -c 'write -z 1M 1M' \
			-c 'write -z -u 2M 512k' -c 'discard 3M 1M' -c 'read -P 21 0 1M' -c 'read -P 0 1M 1536k' \
			-c 'read -P 21 2560k 512k' -c 'read -P 0 3M 1M' "$mnt/$disk.img"
	done
}

kib_of() {
	du -k "$1" | cut -f 1
}

# opened_with OPTIONS DISK: as a virtual machine names its drive.
opened_with() {
	echo "driver=raw,file.driver=file,file.filename=$mnt/$2.img,$1"
}

# What the guest discards, or zeroes, is given back on the host, and what lies around it stays.
gives_back() {
	local disk=$1 backing=$work/$1.img before after

	check qemu-io --image-opts -t none -c 'write -P 24 0 24M' -c flush \
		"$(opened_with discard=ignore "$disk")"
	before=$(kib_of "$backing")
	[ "$before" -ge 24576 ] || not_ok "only $before KiB of the full disk"
	check qemu-io --image-opts -t none -c 'discard 4M 4M' -c 'read -P 24 4M 4M' \
		"$(opened_with discard=ignore "$disk")"
	check_equal "$before" "$(kib_of "$backing")" "KiB after an ignored discard"

	check qemu-io --image-opts -t none -c 'discard 4M 4M' -c 'read -P 0 4M 4M' -c 'read -P 24 0 4M' \
		-c 'read -P 24 8M 16M' "$(opened_with discard=unmap "$disk")"
	after=$(kib_of "$backing")
	[ "$after" -le $((before - 4096)) ] || not_ok "discard: $before KiB before, $after KiB after"

	before=$after
	check qemu-io --image-opts -t none -c 'write -z -u 10M 3M' -c 'read -P 0 10M 3M' \
		"$(opened_with discard=unmap "$disk")"
	after=$(kib_of "$backing")
	[ "$after" -le $((before - 3072)) ] || not_ok "zeroes: $before KiB before, $after KiB after"

	before=$after
	check qemu-io --image-opts -t none -c 'write -P 0 14M 2M' -c 'read -P 0 14M 2M' \
		-c 'read -P 24 13M 1M' -c 'read -P 24 16M 8M' \
		"$(opened_with discard=unmap,detect-zeroes=unmap "$disk")"
	after=$(kib_of "$backing")
	[ "$after" -le $((before - 2048)) ] || not_ok "zeroes found: $before KiB before, $after KiB after"

	# From outside, all of it is where it belongs.
	check qemu-img map -f raw --output=json "$mnt/$disk.img"
	check_equal "0+4194304 4194304-4194304 8388608+2097152 10485760-3145728 13631488+1048576 \
14680064-2097152 16777216+8388608" "$(ranges_of "$mnt/$disk.img")" "the map"
	check cmp "$backing" "$mnt/$disk.img"
}

# The map in one line: START+LENGTH is data, START-LENGTH a hole.
ranges_of() {
	qemu-img map -f raw --output=json "$1" | python3 -c '
import json, sys
print(" ".join("%d%s%d" % (r["start"], "-+"[r["data"]], r["length"]) for r in json.load(sys.stdin)))'
}

# Opens the qcow2 image in the disk and keeps it: $holder is the process, descriptor 9 its input.
hold_image() {
	: >"$work/out"
	qemu-io -f qcow2 "$mnt/ram.img" <"$work/fifo" >"$work/out" 2>&1 &
	holder=$!
	exec 9>"$work/fifo"
	echo 'write -P 7 0 512' >&9
	wait_for 10 grep -q 'wrote 512/512' "$work/out" || not_ok "$(cat "$work/out")"
}

# A second QEMU that wants to write is refused, as on a plain file. (Of a qcow2 image inside: raw
# images, qemu-io shares with everybody.)
two_users() {
	local holder

	check qemu-img create -q -f qcow2 "$work/small.qcow2" 1M
	check dd if="$work/small.qcow2" of="$mnt/ram.img" conv=notrunc
	mkfifo "$work/fifo"
	hold_image
	check_match 'Failed to get .*lock' qemu-io -f qcow2 -c 'write 0 512' "$mnt/ram.img"
	exec 9>&-
	wait "$holder"
	check qemu-io -f qcow2 -c 'write 0 512' "$mnt/ram.img"

	# The lock of one that was killed is gone with it.
	hold_image
	check_match 'Failed to get .*lock' qemu-io -f qcow2 -c 'write 0 512' "$mnt/ram.img"
	check_match 'Failed to get .*lock' qemu-img check -f qcow2 "$mnt/ram.img"
	kill -KILL "$holder"
	wait "$holder" 2>/dev/null
	exec 9>&-
	check qemu-io -f qcow2 -c 'read -P 7 0 512' -c 'write 4k 512' "$mnt/ram.img"
	check qemu-img check -f qcow2 -r all "$mnt/ram.img"
}

mount_disks "$conf"
for disk in file file4k ram; do
	test_case "$disk: qemu-img info" information $disk
	test_case "$disk: qemu-img convert and compare" converting $disk
	for cache in none directsync writeback; do
		test_case "$disk: qemu-img convert, cache=$cache" converting $disk -t $cache -T $cache
	done
	test_case "$disk: qemu-img map" mapping $disk
done
test_case "qemu-io in every cache mode" input_output
test_case "qemu-io with every engine" engines
test_case "a size that is no multiple of 4096" odd_end
test_case "write zeroes and discard" zeroes_and_discard
for disk in file file4k; do
	if fileop -o creat "$work/holes" pwrite 0 4096 1 fallocate punch,keep 0 4096 | grep -q EOPNOTSUPP; then
		skip_case "$disk: what is discarded is given back" "no holes in files of $work"
	else
		test_case "$disk: what is discarded is given back" gives_back $disk
	fi
done
test_case "QEMU's image locks" two_users
end_disks
