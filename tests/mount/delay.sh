#!/bin/bash
# SPDX-License-Identifier: MIT
# Delays as the user of a file sees them: who waits, how many at once, and how it is changed while
# mounted.
. "$(dirname "$0")/lib.sh"
requires fio python3 getfattr setfattr
requires_fuse

config <<EOT
[diskfs]
workers = 1

[base]
driver = file
path = base.img
size = 8M

[slow]
driver = delay
below = base

[left]
driver = ram
size = 8M
[waits]
driver = delay
below = left
write_delay = 2ms
jitter = 3ms
[right]
driver = ram
size = 8M
[both]
driver = striped
below = waits, right
chunk_size = 8K
EOT

set_delay() {
	check setfattr -n "user.diskfs.slow.$1" -v "$2" "$mnt/slow.img"
}

get_delay() {
	getfattr --absolute-names --only-values -n "user.diskfs.slow.$1" "$mnt/slow.img"
}

# at_least MILLISECONDS COMMAND...: takes so long, or longer.
at_least() {
	local least=$1 begin=${EPOCHREALTIME/./}

	shift
	check "$@"
	[ $(((${EPOCHREALTIME/./} - begin) / 1000)) -ge "$least" ] || not_ok "too early: $*"
}

options() {
	check_output 0ns get_delay read_delay
	set_delay read_delay 1500us
	set_delay jitter 2s
	set_delay seed 32
	check_output 1500us get_delay read_delay
	check_output 2s get_delay jitter
	check_output 32 get_delay seed
	check_match 'read_delay: 1500us' cat "$mnt/.status"
	check_match "Invalid argument" setfattr -n user.diskfs.slow.read_delay -v 5 "$mnt/slow.img"
	check_match "warning: \[slow\] read_delay: '5' is no duration" cat "$work/log"
	check_match "Invalid argument" setfattr -n user.diskfs.slow.write_delay -v 2h "$mnt/slow.img"
	check_output 1500us get_delay read_delay
	set_delay read_delay 0
	set_delay jitter 0
}

who_waits() {
	set_delay read_delay 200ms
	set_delay write_delay 300ms
	set_delay flush_delay 400ms
	at_least 200 fileop -o direct "$mnt/slow.img" pread 0 4096
	at_least 300 fileop -o direct "$mnt/slow.img" pwrite 0 4096 1
	at_least 300 fileop -o direct "$mnt/slow.img" fallocate punch,keep 0 4096
	at_least 400 fileop -o direct "$mnt/slow.img" fsync
	# Nobody else does.
	set_delay write_delay 0
	set_delay flush_delay 0
	set_delay read_delay 3600s
	check timeout 30 "$BUILD/tests/fileop" -o direct "$mnt/slow.img" pwrite 0 4096 1 fsync fallocate punch,keep 0 4096
	check timeout 30 stat "$mnt/slow.img"
	set_delay read_delay 0
	check_output same fileop "$work/base.img" all 0 4096 0
}

deep() {
	fio --name=deep --filename="$mnt/slow.img" --allow_file_create=0 --size=8M --rw=randread --bs=4k \
		--ioengine=io_uring --iodepth=256 --direct=1 --number_ios="$1" --fallocate=none \
		--invalidate=0 --cpus_allowed=0 --output-format=terse --aux-path="$work"
}

# As many as the client has under way wait, by one worker; a change lets them go.
all_at_once() {
	local fio

	set_delay read_delay 5ms
	check deep 8192
	set_delay read_delay 3600s
	deep 512 >"$work/fio" 2>&1 &
	fio=$!
	wait_for 20 has_in_flight slow.img read 256 ||
		not_ok "$(in_flight slow.img read) of 256 in flight"
	check timeout 20 "$BUILD/tests/fileop" -o direct "$mnt/both.img" pread 0 1M
	set_delay read_delay 1ms
	wait $fio || not_ok "fio failed: $(cat "$work/fio")"
	set_delay read_delay 0
}

checksums() {
	set_delay write_delay 1ms
	set_delay flush_delay 1ms
	set_delay jitter 1ms
	for disk in slow both; do
		check fio --name=$disk --filename="$mnt/$disk.img" --size=8M --allow_file_create=0 \
			--verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --invalidate=0 \
			--fallocate=none --output-format=terse --aux-path="$work" --ioengine=io_uring \
			--iodepth=64 --direct=1 --rw=randwrite --bsrange=512-64k --bs_unaligned=0 \
			--blockalign=512 --norandommap=0 --io_size=6M --fsync=100
	done
	set_delay write_delay 0
	set_delay flush_delay 0
}

# Who is ended while requests wait still ends, and what was acknowledged is there. (An asynchronous
# write: behind another the kernel would not let us change the attribute.)
end_while_waiting() {
	local writer

	set_delay write_delay 3600s
	fileop -o direct "$mnt/slow.img" aio_write 4 4096 9 >"$work/written" &
	writer=$!
	wait_for 20 has_in_flight slow.img write 4 || not_ok "the writes have not come"
	set_delay write_delay 500ms
	unmount_disks TERM
	wait $writer
	check_output 4 cat "$work/written"
	check_output same fileop "$work/base.img" all 0 16K 9
}

mount_disks "$conf"
test_case "options, while mounted" options
test_case "who waits" who_waits
test_case "256 wait at once" all_at_once
test_case "checksums" checksums
test_case "an end while requests wait" end_while_waiting
