#!/bin/bash
# SPDX-License-Identifier: MIT
# The daemon is killed while it writes, again and again: what fsync has acknowledged is there.
#
#	KILLS=n	rounds, instead of 3 (LONG: 100)
. "$(dirname "$0")/lib.sh"
requires fio python3
requires_root
requires_fuse

default_rounds=3
[ -z "${LONG:-}" ] || default_rounds=100
rounds=${KILLS:-$default_rounds}
bytes=16777216
policies=(none writethrough writeback)

config <<EOT
[buffered]
driver = file
path = buffered.img
size = 16M

[direct]
driver = file
path = direct.img
size = 16M
sector_size = 4096
direct = yes

[base]
driver = file
path = wrapped.img
size = 16M

[wrapped]
driver = fault
below = base
rules = any delay=2ms chance=20

[busy]
driver = ram
size = 16M
EOT
disks="buffered direct wrapped"

writer() {
	python3 "$(dirname "$0")/writer.py" "$@"
}

# acknowledged LOG...: how many blocks
acknowledged() {
	cat "$@" 2>/dev/null | grep -c '^durable'
}

has_acknowledged() {
	[ "$(acknowledged "$work"/log-*)" -ge "$1" ]
}

# Clients are under way, the daemon dies, and another one takes its place.
kill_round() {
	local disk pid pids=() before

	before=$(acknowledged "$work"/log-*)
	mount_disks "$conf" -o cache="${policies[$1 % 3]}"
	for disk in $disks; do
		writer write "$mnt/$disk.img" "$work/log-$disk" "$1" $bytes >"$work/end-$disk" 2>&1 &
		pids+=($!)
	done
	fio --name=busy --filename="$mnt/busy.img" --allow_file_create=0 --size=16M --rw=randrw --bs=4k \
		--ioengine=io_uring --iodepth=8 --direct=1 --time_based --runtime=60 --fallocate=none \
		>"$work/fio" 2>&1 &
	pids+=($!)
	wait_for 60 has_acknowledged $((before + 100 + RANDOM % 300)) ||
		not_ok "only $(($(acknowledged "$work"/log-*) - before)) blocks: $(cat "$work"/end-*)"
	kill_disks
	for pid in "${pids[@]}"; do
		wait "$pid"
	done
	for disk in $disks; do
		check_match "ended by: .*(Transport endpoint|Software caused|Input/output|Operation canceled)" \
			cat "$work/end-$disk"
		check writer check "$work/$disk.img" "$work/log-$disk"
	done
}

# The checker itself would notice: a block that was acknowledged and is not there any more.
checker_works() {
	local place

	place=$(awk '$1 == "durable" { print $2; exit }' "$work/log-buffered")
	cp "$work/buffered.img" "$work/spoiled.img"
	check dd if=/dev/zero of="$work/spoiled.img" bs=512 count=1 seek=$((place * 8 + 3)) conv=notrunc
	check_match "place $place: found \(0, 0\)" writer check "$work/spoiled.img" "$work/log-buffered"
}

all_rounds() {
	local round

	for ((round = 1; round <= rounds && case_failed == 0; round++)); do
		kill_round $round
	done
	echo "# $rounds kills, $(acknowledged "$work"/log-*) blocks acknowledged"
}

test_case "what fsync acknowledged survives kills of the daemon" all_rounds
test_case "a lost block would be noticed" checker_works

# The kernel takes a moment to notice that a daemon is dead; the next one does not mount over it.
replaced_at_once() {
	local i

	for ((i = 0; i < 20; i++)); do
		mount_disks "$conf"
		kill_disks
	done
	check_equal 1 "$(grep -cF " $mnt " /proc/self/mounts)" "mounts on the folder"
	unmount_lazily "$mnt"
}

test_case "a daemon that starts at once after a kill replaces the mount" replaced_at_once
