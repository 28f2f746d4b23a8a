#!/bin/bash
# SPDX-License-Identifier: MIT
# The memory cache of remote disks, as programs see it: what the server is asked, and how much memory
# is taken.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/blob/lib.sh"
requires python3 curl nginx fio
requires_fuse

image=$work/www/disk.raw
mkdir "$work/www"
random_file "$image" 12582912 3
random_file "$work/www/other.raw" 4194304 4
http=$(free_ports 1)
start_nginx <<EOT
server {
	listen 127.0.0.1:$http;
	root $work/www;
}
EOT
server_is_up "$work/nginx/error.log" 20 "http://127.0.0.1:$http/other.raw" || exit 1

# with MEMORY [OPTION]...: mounts base.img, of these options, and other.img.
with() {
	local memory=$1

	shift
	{
		printf '[diskfs]\ncache = none\ncache_memory = %s\n' "$memory"
		printf '[other]\ndriver = blob\nurl = http://127.0.0.1:%s/other.raw\n' "$http"
		printf '[base]\ndriver = blob\nurl = http://127.0.0.1:%s/disk.raw\n' "$http"
		printf '%s\n' "$@"
	} | config
	mount_disks "$conf" -o transport=auto
}

# The disk is as large as the image, so what came of it beyond that came twice. (One byte is read when
# the disk is opened.)
received() {
	blob_number bytes_received
}

read_all() {
	check cmp "$image" "$mnt/base.img"
}

# ---- what the server is asked ----------------------------------------------------------------------

read_once() {
	with 64M
	read_all
	check_equal 12582913 "$(received)" "bytes received"
	read_all
	reads_match "$mnt/base.img" "$image"
	check_equal 12582913 "$(received)" "bytes received in all"
	check_equal 12582912 "$(blob_number cache.memory)" "memory"
	unmount_disks
}

# Many who read the same at the same time.
read_together() {
	local pids=() pid i

	with 64M
	for i in 1 2 3 4 5 6; do
		cmp "$image" "$mnt/base.img" >"$work/cmp.$i" 2>&1 &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || not_ok "a reader: $(cat "$work"/cmp.*)"
	done
	check_equal 12582913 "$(received)" "bytes received"
	unmount_disks
}

# What is read at random is fetched and nothing else, or hardly anything.
read_at_random() {
	local asked

	with 64M
	check fio --name=random --filename="$mnt/base.img" --readonly --rw=randread --bs=4k --direct=1 \
		--ioengine=libaio --iodepth=32 --size=12M --io_size=2M --randrepeat=1
	asked=$(blob_number cache.fetched)
	[ "$(received)" -lt $((asked + asked / 4)) ] || not_ok "$(received) bytes received for $asked"
	[ "$(received)" -gt 1500000 ] || not_ok "only $(received) bytes received"
	unmount_disks
}

# Small reads, one after the other, make large requests.
read_ahead() {
	local fetches

	with 64M "readahead = 4M"
	check_equal "$(md5sum <"$image")" \
		"$(dd if="$mnt/base.img" bs=16K iflag=direct status=none | md5sum)" "what is read"
	fetches=$(blob_number cache.fetches)
	[ "$fetches" -lt 250 ] || not_ok "$fetches requests for 768 reads"
	[ "$(blob_number readahead.useful)" -gt 11000000 ] || not_ok "hardly any of it was read ahead"
	check_equal 0 "$(blob_number readahead.wasted)" "wasted"
	check_equal 12582913 "$(received)" "bytes received"
	unmount_disks
}

read_nothing_ahead() {
	with 64M "readahead = 0"
	check_equal "$(md5sum <"$image")" \
		"$(dd if="$mnt/base.img" bs=64K iflag=direct status=none | md5sum)" "what is read"
	check_equal 192 "$(blob_number cache.fetches)" "requests"
	check_equal 0 "$(blob_number readahead.fetched)" "read ahead"
	unmount_disks
}

test_case "what was read is not asked for again" read_once
test_case "what many want is asked for once" read_together
test_case "random reads fetch what they need" read_at_random
test_case "a sequential reader is read ahead of" read_ahead
test_case "or not, if that is what is said" read_nothing_ahead

# ---- memory ----------------------------------------------------------------------------------------

# All disks of a mount have one budget, however much is read.
bounded() {
	with 2M
	check cmp "$work/www/other.raw" "$mnt/other.img"
	reads_match "$mnt/base.img" "$image"
	read_all
	check cmp "$work/www/other.raw" "$mnt/other.img"
	[ "$(blob_number cache.memory_of_mount)" -le 2097152 ] || not_ok "more than 2 MiB is used"
	check_equal 2097152 "$(blob_number cache.memory_limit)" "limit"
	check_equal "$(blob_number cache.memory_of_mount)" \
		$(($(blob_number cache.memory) + $(blob_number cache.memory other.img))) "the sum of both"
	unmount_disks
}

tiny() {
	local memory

	for memory in 0 64K; do
		with $memory
		read_all
		reads_match "$mnt/base.img" "$image"
		unmount_disks
	done
}

test_case "one budget for all disks" bounded
test_case "hardly any memory, and none" tiny
