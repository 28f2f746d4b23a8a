#!/bin/bash
# SPDX-License-Identifier: MIT
# Mounts by io_uring that end under load, again and again, in each way there is: clients end, the
# daemon ends, nothing stays mounted, and the next mount works. And many mounts that begin, work and
# end at once.
#
#	ROUNDS=n	of each ending, instead of 5 (LONG: 50)
# Runs alone: it forbids FUSE over io_uring and allows it again.
. "$(dirname "$0")/uring/lib.sh"

rounds=5
[ -z "${LONG:-}" ] || rounds=50
rounds=${ROUNDS:-$rounds}
mounts=16

config <<EOT
[file]
driver = file
path = file.img
size = 16M

[ram]
driver = ram
size = 16M
EOT

# ---- under load ----------------------------------------------------------------------------------

is_busy() {
	[ "$(kernel ring_requests)" -gt 2000 ]
}

load_begins() {
	client --name=ram --filename="$mnt/ram.img" --name=file --filename="$mnt/file.img" \
		--size=16M --rw=randrw --bs=4k --direct=1 --ioengine=libaio --iodepth=32 \
		--time_based --runtime=120
	wait_for 30 is_busy || not_ok "no load: $(cat "$work/fio")"
}

# The daemon ends by itself, and with status 0.
daemon_ends() {
	local status=0

	if ! wait_for 30 dead "$daemon_pid"; then
		not_ok "diskfs does not end"
		kill -KILL "$daemon_pid"
	fi
	wait "$daemon_pid" || status=$?
	daemon_pid=
	check_equal 0 $status "the status of diskfs"
	sanitizer_check
}

# Those who have files open are served until they close them.
by_umount() {
	check umount -l "$mnt"
	sleep 0.1
	alive "$client" || not_ok "fio has not survived: $(cat "$work/fio")"
	kill -TERM "$client"
	client_ends 30
	daemon_ends
	log_is_clean
}

# With requests in the daemon, in entries that it holds, and in the kernel's queues.
by_abort() {
	echo 1 >"$connections/$(stat -c %d "$mnt")/abort"
	client_ends 30 && not_ok "fio has not noticed"
	daemon_ends
	unmount_lazily "$mnt"
}

# The end of the ring is that of the connection. What stays mounted is for the next one to replace.
by_kill() {
	kill_disks
	client_ends 30 && not_ok "fio has not noticed"
	check_match "Transport endpoint is not connected" stat "$mnt/."
}

by_signal() {
	kill -TERM "$daemon_pid"
	sleep 0.2
	kill -TERM "$client"
	client_ends 30
	daemon_ends
}

under_load() {
	local round

	for ((round = 0; round < rounds && case_failed == 0; round++)); do
		mount_uring
		load_begins
		"$@"
		[ "$*" = by_kill ] || ! mounted "$mnt" || not_ok "still mounted"
	done
	# The last one is not to be followed by a mount in every case.
	unmount_lazily "$mnt"
}

# ---- many mounts ---------------------------------------------------------------------------------

each_mount() {
	local i

	for ((i = 0; i < mounts; i++)); do
		"$1" "$work/many/$i" $i
	done
}

begin_one() {
	mkdir -p "$1"
	"$BUILD/diskfs" -f "$work/ram.conf" "$1" >"$1.log" 2>&1 &
	daemons+=($!)
	cleanup_fn unmount_lazily "$1"
	cleanup_fn end_process $!
}

wait_one() {
	wait_for 60 test -e "$1/.status" || not_ok "$1 is not mounted: $(cat "$1.log")"
}

# Each has bytes of its own.
use_one() {
	timeout 60 fio --name="many$2" --filename="$1/ram.img" --allow_file_create=0 --fallocate=none \
		--invalidate=0 --size=16M --rw=randwrite --bsrange=4k-256k --direct=1 --ioengine=libaio \
		--iodepth=8 --verify=crc32c --verify_fatal=1 --randseed="$2" --verify_state_save=0 \
		--output-format=terse --aux-path="$work" >"$1.fio" 2>&1 &
	clients+=($!)
}

ring_one() {
	check_match "transport: uring" cat "$1/.status"
}

unmount_one() {
	umount "$1" >"$1.umount" 2>&1 &
	clients+=($!)
}

gone_one() {
	! mounted "$1" || not_ok "$1 is still mounted: $(cat "$1.umount")"
}

wait_clients() {
	local pid

	for pid in "${clients[@]}"; do
		wait "$pid" || not_ok "$1: $(tail -n 3 "$work"/many/*.fio)"
	done
	clients=()
}

many_mounts() {
	local i status daemons=() clients=()

	printf '[ram]\ndriver = ram\nsize = 16M\n' >"$work/ram.conf"
	allow_uring Y
	each_mount begin_one
	each_mount wait_one
	each_mount use_one
	wait_clients "fio failed"
	each_mount ring_one
	each_mount unmount_one
	wait_clients "umount failed"
	for ((i = 0; i < mounts; i++)); do
		status=0
		wait_for 30 dead "${daemons[i]}" || not_ok "daemon $i does not end"
		wait "${daemons[i]}" || status=$?
		check_equal 0 $status "the status of daemon $i"
		check_output "" cat "$work/many/$i.log"
	done
	each_mount gone_one
	sanitizer_check
}

connections=/sys/fs/fuse/connections
if [ -z "$(ls $connections 2>/dev/null)" ]; then
	connections=$work/control
	mkdir "$connections"
	mount -t fusectl none "$connections" && cleanup_fn unmount_lazily "$connections"
fi

test_case "umount -l, $rounds times" under_load by_umount
if mounted "$connections"; then
	test_case "the connection is aborted, $rounds times" under_load by_abort
else
	skip_case "the connection is aborted" "no fusectl"
fi
test_case "kill -9, $rounds times" under_load by_kill
test_case "SIGTERM, $rounds times" under_load by_signal
test_case "$mounts mounts at once" many_mounts
