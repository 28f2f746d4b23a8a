#!/bin/bash
# SPDX-License-Identifier: MIT
# CPUs that come and go while requests are under way by io_uring, where the kernel has a queue for
# each: nothing is lost, nothing hangs. In a virtual machine of four CPUs (scripts/in-guest), with
# transport=uring, by fewer and by more workers than CPUs.
if [ "${1:-}" != inside ]; then
	BUILD=$(realpath "${BUILD:-build}")
	grep -q __tsan_init "$BUILD/diskfs" && echo "skip: too slow with ThreadSanitizer" && exit 77
	exec "$(dirname "$0")/../../scripts/in-guest" --cpus 4 --timeout 200 \
		env BUILD="$BUILD" bash "$(realpath "$0")" inside
fi
. "$(dirname "$0")/lib.sh"
requires fio
requires_fuse
echo Y >/sys/module/fuse/parameters/enable_uring

config <<EOT
[ram]
driver = ram
size = 32M

[file]
driver = file
path = file.img
size = 32M
EOT

plug() {
	echo "$2" >"/sys/devices/system/cpu/cpu$1/online"
}

plug_all() {
	plug 1 1
	plug 2 1
	plug 3 1
}
cleanup_fn plug_all

# Until the file "enough" is there: all but the first CPU go and come back, one after another, and
# two together.
come_and_go() {
	until [ -e "$work/enough" ]; do
		for cpu in 1 2 3; do
			plug $cpu 0
			sleep 0.2
			plug $cpu 1
		done
		plug 2 0
		plug 3 0
		sleep 0.2
		plug 3 1
		plug 2 1
		echo round >>"$work/rounds"
	done
}

load() {
	timeout 100 fio --name="$1" --filename="$mnt/$1.img" --allow_file_create=0 --rw=randrw \
		--bsrange=512-64k --ioengine=libaio --iodepth=8 --direct=1 --size=32M \
		--io_size=24M --verify=crc32c --verify_fatal=1 --verify_state_save=0 --fallocate=none \
		--invalidate=0 --output-format=terse --aux-path="$work"
}

under_load() {
	local plugger first

	rm -f "$work/enough" "$work/rounds"
	come_and_go &
	plugger=$!
	load ram >"$work/ram" 2>&1 &
	first=$!
	check load file
	wait $first || not_ok "fio on ram.img: $(cat "$work/ram")"
	: >"$work/enough"
	wait $plugger
	[ -s "$work/rounds" ] || not_ok "no CPU has come back in time"
	check_match "transport: uring" cat "$mnt/.status"
}

# Mounted while a CPU is away: its queue is there when it comes back.
mounted_without() {
	local cpu

	plug_all
	for cpu in 0 1 2 3; do
		check timeout 20 taskset -c $cpu dd if="$mnt/ram.img" of=/dev/null bs=64k iflag=direct
	done
}

for workers in 2 6; do
	mount_disks "$conf" -o transport=uring,workers=$workers
	test_case "$workers workers: CPUs come and go" under_load
	end_disks
done
plug 3 0
mount_disks "$conf" -o transport=uring
test_case "a CPU that was away at the mount comes back" mounted_without
end_disks
