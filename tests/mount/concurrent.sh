#!/bin/bash
# SPDX-License-Identifier: MIT
# Several clients at once on several images, while others read the status and open and close.
. "$(dirname "$0")/lib.sh"
requires fio python3 getfattr
requires_fuse

config <<EOT
[diskfs]
workers = 3

[a]
driver = file
path = a.img
size = 16M

[b]
driver = file
path = b.img
size = 16M
sector_size = 4096

[c]
driver = ram
size = 16M

[d]
driver = ram
size = 16M
sector_size = 4096
EOT
seconds=5
[ -z "${LONG:-}" ] || seconds=120

client() {
	fio --name="$1" --filename="$mnt/$1.img" --allow_file_create=0 --size=16M --ioengine=io_uring \
		--iodepth=16 --direct="$2" --rw=randrw --bssplit=512/30:4k/50:64k/20 --verify=crc32c \
		--verify_fatal=1 --verify_backlog=200 --verify_state_save=0 --fallocate=none \
		--invalidate=0 --time_based --runtime=$seconds --output-format=terse --aux-path="$work" \
		>"$work/fio-$1" 2>&1
}

# Each reads until $work/stop exists, and says what went wrong.
watch_status() {
	until [ -e "$work/stop" ]; do
		python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$mnt/.status.json" || echo JSON
		grep -q . "$mnt/.status" || echo status
		grep -q . "$mnt/.metrics" || echo metrics
		getfattr -d "$mnt/a.img" 2>&1 | grep -q user.diskfs.type || echo attributes
	done
}

watch_folder() {
	until [ -e "$work/stop" ]; do
		[ "$(find "$mnt" -name '*.img' -size 32768 | wc -l)" = 4 ] || echo folder
		head -c 1000 "$mnt/c.img" >/dev/null || echo head
	done
}

at_once() {
	local pids=() watchers=() pid disk

	watch_status >"$work/watch-status" 2>&1 &
	watchers+=($!)
	watch_folder >"$work/watch-folder" 2>&1 &
	watchers+=($!)
	for disk in a b c d; do
		client $disk $(($(printf %d "'$disk") % 2)) &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || not_ok "a client failed: $(cat "$work"/fio-*)"
	done
	touch "$work/stop"
	wait "${watchers[@]}"
	check_output "" cat "$work/watch-status" "$work/watch-folder"
}

# Many processes write bytes that share sectors; none is lost.
shared_sectors() {
	local i image=$1 pids=()

	check_output 65536 fileop "$image" pwrite 0 64K 0
	for i in 0 1 2 3 4 5 6 7; do
		python3 - "$image" $i <<'PY' &
import os, sys
file, which = os.open(sys.argv[1], os.O_RDWR), int(sys.argv[2])
for at in range(which, 65536, 8 * 16):
    os.pwrite(file, bytes([which + 1]), at)
PY
		pids+=($!)
	done
	wait "${pids[@]}"
	check python3 - "$image" <<'PY'
import sys
data = open(sys.argv[1], "rb").read(65536)
for at, byte in enumerate(data):
    want = at % 128 + 1 if at % 128 < 8 else 0
    assert byte == want, (at, byte, want)
PY
}

mount_disks "$conf"
test_case "four clients and two watchers" at_once
test_case "bytes of shared sectors, file" shared_sectors "$mnt/b.img"
test_case "bytes of shared sectors, ram" shared_sectors "$mnt/d.img"
end_disks
