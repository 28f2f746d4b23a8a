#!/bin/bash
# SPDX-License-Identifier: MIT
# Layers in files, as a user has them: what kills of the daemon leave, who may use a file, what a
# look at it changes, caches that find their file again, a file system that is full.
#
#	KILLS=n	rounds, instead of 3 (LONG: 60)
. "$(dirname "$0")/lib.sh"
requires python3
requires_fuse

default_rounds=3
[ -z "${LONG:-}" ] || default_rounds=60
rounds=${KILLS:-$default_rounds}
bytes=16777216

truncate -s $bytes "$work/base.raw"
config <<EOT
[base]
driver = file
path = base.raw
readonly = yes

[diff]
driver = sqlite
path = diff.diskfs
base_check = size, content

[vm]
driver = layered
below = diff, base

[alone]
driver = sqlite
path = alone.diskfs
size = 16M
sector_size = 4096
EOT
disks="vm alone"

writer() {
	python3 "$(dirname "$0")/writer.py" "$@"
}

acknowledged() {
	cat "$@" 2>/dev/null | grep -c '^durable'
}

has_acknowledged() {
	[ "$(acknowledged "$work"/log-*)" -ge "$1" ]
}

# ---- kills ---------------------------------------------------------------------------------------

kill_round() {
	local disk pid pids=() before

	before=$(acknowledged "$work"/log-*)
	mount_disks "$conf"
	for disk in $disks; do
		writer write "$mnt/$disk.img" "$work/log-$disk" "$1" $bytes >"$work/end-$disk" 2>&1 &
		pids+=($!)
	done
	wait_for 60 has_acknowledged $((before + 100 + RANDOM % 300)) ||
		not_ok "only $(($(acknowledged "$work"/log-*) - before)) blocks: $(cat "$work"/end-*)"
	kill_disks
	for pid in "${pids[@]}"; do
		wait "$pid"
	done
	mount_disks "$conf"
	for disk in $disks; do
		check writer check "$mnt/$disk.img" "$work/log-$disk"
	done
	unmount_disks
}

all_rounds() {
	local round

	for ((round = 1; round <= rounds && case_failed == 0; round++)); do
		kill_round $round
	done
	echo "# $rounds kills, $(acknowledged "$work"/log-*) blocks acknowledged"
}

# Nothing stays beside the files after a clean end.
nothing_left() {
	check_equal "alone.diskfs diff.diskfs" "$(cd "$work" && echo *.diskfs*)" "what is there"
}

test_case "what fsync acknowledged survives kills of the daemon" all_rounds
test_case "nothing is left beside the files" nothing_left

# ---- who may use it ------------------------------------------------------------------------------

second_daemon() {
	local before

	mount_disks "$conf"
	check dd if=/dev/urandom of="$mnt/vm.img" bs=64k count=4 conv=notrunc,fsync status=none
	sum=$(md5sum <"$mnt/vm.img")
	mkdir -p "$work/second"
	check_match '\[(diff|alone)\] path: .*is in use by another disk or another diskfs' \
		diskfs "$conf" "$work/second"
	before=$(cd "$work" && ls -l ./*.diskfs*)
	check diskfs --check "$conf"
	check_equal "$before" "$(cd "$work" && ls -l ./*.diskfs*)" "what --check leaves"
	check dd if=/dev/urandom of="$mnt/vm.img" bs=64k seek=5 count=4 conv=notrunc,fsync status=none
	sum=$(md5sum <"$mnt/vm.img")
	unmount_disks
	mount_disks "$conf"
	check_equal "$sum" "$(md5sum <"$mnt/vm.img")" "the content after a restart"
	unmount_disks
}

# By the names and the bytes of all that is there.
look_changes_nothing() {
	local before

	mount_disks "$conf"
	check dd if=/dev/urandom of="$mnt/vm.img" bs=64k count=9 conv=notrunc,fsync status=none
	kill_disks
	unmount_lazily "$mnt"
	[ -s "$work/diff.diskfs-wal" ] || not_ok "the kill has left no log"
	before=$(cd "$work" && md5sum ./*.diskfs*)
	check diskfs --check "$conf"
	check diskfs map "$conf" vm
	check_equal "$before" "$(cd "$work" && md5sum ./*.diskfs*)" "what looking leaves"
}

# A diff over a base that is not the same any more.
other_base() {
	printf x | dd of="$work/base.raw" bs=1 seek=5 conv=notrunc status=none
	check_match '\[vm\] below: .diff. cannot be a layer here: base_check: .* over another content' \
		diskfs "$conf" "$mnt"
	printf '\0' | dd of="$work/base.raw" bs=1 seek=5 conv=notrunc status=none
	check diskfs --check "$conf"
}

test_case "a second daemon is refused, --check works beside the first" second_daemon
test_case "looking changes nothing, also after a kill" look_changes_nothing
test_case "a diff over another content is refused" other_base

# diskfs commit changes what is below: before it, in the middle, and after it, the diff fits.
committed() {
	mount_disks "$conf"
	sum=$(md5sum <"$mnt/vm.img")
	unmount_disks
	sed -i '/^readonly/d' "$conf"
	check diskfs commit "$conf" diff
	check_equal "$sum" "$(md5sum <"$work/base.raw")" "the base after a commit"
	mount_disks "$conf"
	check_equal "$sum" "$(md5sum <"$mnt/vm.img")" "the image after a commit"
	unmount_disks
}

test_case "a diff with a fingerprint is committed" committed

# ---- caches --------------------------------------------------------------------------------------

mkdir "$work/caches"
config <<EOT
[base]
driver = file
path = base.raw
readonly = yes

[cache]
driver = sqlite
cache_dir = caches
key = mine
limit = 8M

[cached]
driver = layered
below = cache, base
read_cache = cache
readonly = yes
EOT

# cache_number NAME: a number of .status.
cache_number() {
	python3 - "$mnt/.status.json" "$1" <<'PY'
import json, sys
cache = json.load(open(sys.argv[1]))["images"]["cached.img"]["below"][0]
print(cache[sys.argv[2]])
PY
}

is_kept() {
	[ "$(cache_number data_bytes)" -ge "$1" ]
}

cache_is_found() {
	head -c 4M /dev/urandom | dd of="$work/base.raw" conv=notrunc status=none
	mount_disks "$conf"
	check_equal "$(md5sum <"$work/base.raw")" "$(md5sum <"$mnt/cached.img")"
	wait_for 30 is_kept 4194304 || not_ok "the cache holds $(cache_number data_bytes) bytes"
	unmount_disks
	[ -f "$work/caches/mine.diskfs" ] || not_ok "there is no caches/mine.diskfs"
	mount_disks "$conf"
	is_kept 4194304 || not_ok "the cache holds $(cache_number data_bytes) bytes after a restart"
	check_equal "$(md5sum <"$work/base.raw")" "$(md5sum <"$mnt/cached.img")"
	unmount_disks
}

# It never has more than it may, whatever is read.
cache_forgets() {
	local i

	head -c $bytes /dev/urandom >"$work/base.raw"
	rm "$work/caches/mine.diskfs"
	mount_disks "$conf" -o cache=none
	# Not all that is read at once is kept.
	for ((i = 0; i < 20 && $(cache_number evicted_bytes) == 0; i++)); do
		check_equal "$(md5sum <"$work/base.raw")" "$(md5sum <"$mnt/cached.img")"
		[ "$(cache_number data_bytes)" -le 8388608 ] ||
			not_ok "the cache holds $(cache_number data_bytes) bytes"
	done
	[ "$(cache_number evicted_bytes)" -gt 0 ] || not_ok "nothing was forgotten"
	is_kept 4194304 || not_ok "the cache holds $(cache_number data_bytes) bytes"
	unmount_disks
}

test_case "a cache is found again" cache_is_found
test_case "a cache forgets what is too much" cache_forgets

# ---- no room -------------------------------------------------------------------------------------

full_file_system() {
	mkdir "$work/full"
	check mount -t tmpfs -o size=6M diskfs-test "$work/full" || return
	cleanup_fn unmount_lazily "$work/full"
	config <<-EOT
		[small]
		driver = sqlite
		path = full/small.diskfs
		size = 64M
	EOT
	mount_disks "$conf" -o cache=none
	check dd if=/dev/urandom of="$work/data" bs=1M count=1 status=none
	check dd if="$work/data" of="$mnt/small.img" bs=64k conv=notrunc,fsync status=none
	check_match 'No space left on device' dd if=/dev/urandom of="$mnt/small.img" bs=64k seek=64 \
		count=400 conv=notrunc,fsync status=none
	check cmp -n 1048576 "$work/data" "$mnt/small.img"
	# With room again all goes on.
	check mount -o remount,size=64M "$work/full"
	sleep 1.2
	check dd if=/dev/urandom of="$mnt/small.img" bs=64k seek=64 count=100 conv=notrunc,fsync status=none
	check cmp -n 1048576 "$work/data" "$mnt/small.img"
	unmount_disks
	umount "$work/full"
}

if [ "$(id -u)" = 0 ]; then
	test_case "a file system that is full, and then is not" full_file_system
else
	skip_case "a file system that is full, and then is not" "needs root"
fi
