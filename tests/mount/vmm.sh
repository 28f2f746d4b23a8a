#!/bin/bash
# SPDX-License-Identifier: MIT
# What Cloud Hypervisor, crosvm, Firecracker and QEMU do with an image when they open it, and what
# they need of it then; vmm.c has their steps.
. "$(dirname "$0")/lib.sh"
requires_fuse

disks="file file4k direct ram ram4k odd odd4k wrapped"
disk_sections() {
	cat <<EOT
[file]
driver = file
path = file.img
size = 8M

[file4k]
driver = file
path = file4k.img
size = 8M
sector_size = 4096

[direct]
; the daemon itself bypasses the page cache
driver = file
path = direct.img
size = 8M
direct = yes

[ram]
driver = ram
size = 8M

[ram4k]
driver = ram
size = 8M
sector_size = 4096

[odd]
; of 512 * N bytes, N odd
driver = file
path = odd.img
size = 8389120

[odd4k]
; of 4096 * N bytes, N odd
driver = ram
size = 8392704
sector_size = 4096

[wrapped]
driver = fault
below = inner

[inner]
driver = file
path = inner.img
size = 8M
EOT
}

# run MONITOR DISK: the last line of its output says that it came to the end.
run() {
	local output status=0

	output=$(timeout 60 "$BUILD/tests/vmm" "$1" "$mnt/$2.img" 2>&1) || status=$?
	[ "$status" = 0 ] && [ "${output##*$'\n'}" = "done" ] && return
	not_ok "$1 on $2 ended with status $status"
	show "$(tail -n 5 <<<"$output")"
}

on_every_disk() {
	local disk

	for disk in $disks; do
		run "$1" "$disk"
	done
}

# The monitors find fault with what is at fault: the check itself is checked.
refused() {
	local monitor

	random_file "$work/odd-bytes" 262145
	for monitor in cloud-hypervisor crosvm firecracker qemu; do
		check_fails 1 "$BUILD/tests/vmm" $monitor "$work/odd-bytes"
		check_fails 1 "$BUILD/tests/vmm" $monitor "$work/missing"
	done
	check_fails 2 "$BUILD/tests/vmm" bochs "$work/odd-bytes"
}

for cache in none writethrough writeback; do
	{ printf '[diskfs]\ncache = %s\n' $cache; disk_sections; } | config
	mount_disks "$conf"
	for monitor in cloud-hypervisor crosvm firecracker qemu; do
		test_case "cache = $cache: $monitor" on_every_disk $monitor
	done
	end_disks
done
test_case "a file that is none of theirs is refused" refused
