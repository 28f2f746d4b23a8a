#!/bin/bash
# SPDX-License-Identifier: MIT
# Ugly endings: the daemon, the mount, the connection or what lies below a disk goes away while
# clients are busy. Never a hang, never silent loss, and a message that says what has happened.
# (kill -9 again and again: kills.sh)
. "$(dirname "$0")/lib.sh"
requires fio python3 setfattr fuser
requires_root
requires_fuse

mib=1048576
read -r enomem ebadf < <(python3 -c 'import errno; print(errno.ENOMEM, errno.EBADF)')
config <<EOT
[a]
driver = file
path = a.img
size = 16M

[base]
driver = ram
size = 16M

[bad]
driver = fault
below = base
EOT

writer() {
	python3 "$(dirname "$0")/writer.py" "$@"
}

acknowledged() {
	grep -c '^durable' "$work/acknowledged"
}
: >"$work/acknowledged"

has_acknowledged() {
	[ "$(acknowledged)" -ge "$1" ]
}

log_says() {
	check_match "$1" cat "$work/log"
}

# A client that writes and notes what is acknowledged, and one that only makes noise.
load_begins() {
	local before

	before=$(acknowledged)
	# Not through the function, which would be a shell between us and it.
	python3 "$(dirname "$0")/writer.py" write "$mnt/a.img" "$work/acknowledged" 1 $((16 * mib)) \
		>"$work/writer" 2>&1 &
	load=($!)
	fio --name=noise --filename="$mnt/bad.img" --allow_file_create=0 --size=16M --rw=randrw \
		--bs=16k --ioengine=io_uring --iodepth=8 --direct=1 --time_based --runtime=120 \
		--fallocate=none --output-format=terse >"$work/noise" 2>&1 &
	load+=($!)
	wait_for 60 has_acknowledged $((before + 50)) || not_ok "no load: $(cat "$work/writer")"
}

load_ends() {
	local pid

	for pid in "${load[@]}"; do
		wait_for 30 dead "$pid" || not_ok "a client hangs: $(ps -o pid=,stat=,args= -p "$pid")"
		wait "$pid"
	done
	check writer check "$work/a.img" "$work/acknowledged"
}

# ---- the daemon ----------------------------------------------------------------------------------

# Again where it is not: the list leaves lines out while others mount and unmount.
mounted_once() {
	[ "$(grep -cF " $mnt " /proc/self/mounts)" = 1 ]
}

killed() {
	mount_disks "$conf"
	load_begins
	kill_disks
	load_ends
	check_match "Transport endpoint is not connected" stat "$mnt/."
	check_match "Transport endpoint is not connected" cat "$mnt/.status"
	# The next start clears the dead mount away.
	mount_disks "$conf"
	wait_for 5 mounted_once || not_ok "not mounted once: $(grep -F "$mnt" /proc/self/mounts)"
	check writer check "$mnt/a.img" "$work/acknowledged"
	unmount_disks
}

# Another file system than a dead one of ours is not replaced.
not_replaced() {
	mount_disks "$conf"
	check_fails 1 timeout 20 "$BUILD/diskfs" -f "$conf" "$mnt"
	check grep -q bad.img "$mnt/.status"
	unmount_disks
}

signal_under_load() {
	mount_disks "$conf"
	load_begins
	kill -TERM "$daemon_pid"
	sleep 0.5 # while the load goes on
	kill "${load[@]}" 2>/dev/null
	load_ends
	ends_with 0
	! mounted "$mnt" || not_ok "still mounted"
	log_says "ending by signal 15"
}

# The second signal does not wait for clients that never pause, and loses nothing either.
second_signal() {
	mount_disks "$conf"
	load_begins
	kill -TERM "$daemon_pid"
	wait_for 20 grep -q "ending by signal 15" "$work/log" || not_ok "the signal is not logged"
	wait_for 20 not_mounted || not_ok "still mounted"
	kill -TERM "$daemon_pid"
	ends_with 0 20
	load_ends
}

not_mounted() {
	! mounted "$mnt"
}

hang() {
	mount_disks "$conf"
	setfattr -n user.diskfs.bad.rules -v "any hang" "$mnt/bad.img"
	dd if="$mnt/bad.img" of=/dev/null bs=4k count=1 iflag=direct 2>"$work/dd" &
	client=$!
	wait_for 20 has_in_flight bad.img read 1 || not_ok "the read has not come"
}

# A request hangs: the daemon gives up after 30 s, by the second signal at once.
signals_and_hang() {
	hang
	kill -TERM "$daemon_pid"
	wait_for 20 grep -q "ending by signal 15" "$work/log" || not_ok "the signal is not logged"
	kill -TERM "$daemon_pid"
	ends_with 1 20
	log_says "error: .*giving up"
	wait_for 20 dead $client || not_ok "the client hangs on"
	wait $client && not_ok "the read has succeeded"
	check_match "not connected|connection abort|Input/output" cat "$work/dd"
	unmount_lazily "$mnt"
}

signal_and_hang() {
	local begin=$SECONDS

	hang
	kill -TERM "$daemon_pid"
	ends_with 1 60
	[ $((SECONDS - begin)) -ge 29 ] || not_ok "given up after $((SECONDS - begin)) s"
	log_says "error: .*giving up"
	wait_for 20 dead $client || not_ok "the client hangs on"
	wait $client
	unmount_lazily "$mnt"
}

umount_and_hang() {
	hang
	check umount -l "$mnt"
	kill -TERM "$daemon_pid"
	sleep 0.2
	kill -TERM "$daemon_pid"
	ends_with 1 20
	wait_for 20 dead $client || not_ok "the client hangs on"
	wait $client
}

# ---- the mount -----------------------------------------------------------------------------------

busy() {
	mount_disks "$conf"
	exec 7<>"$mnt/bad.img"
	check_match "busy" umount "$mnt"
	check grep -q a.img "$mnt/.status"
	# Lazily: whoever has the file open keeps it.
	check umount -l "$mnt"
	! mounted "$mnt" || not_ok "still mounted"
	check_output "True True" python3 - <<'PY'
import os
data = os.urandom(8192)
print(os.pwrite(7, data, 12345) == 8192, os.pread(7, 8192, 12345) == data)
os.fsync(7)
PY
	alive "$daemon_pid" || not_ok "the daemon has not waited"
	exec 7>&-
	ends_with 0
	log_says "" # nothing but what is expected
	check_output "" grep -E "error|warning" "$work/log"
}

connection_aborted() {
	mount_disks "$conf"
	load_begins
	abort_connection || not_ok "cannot abort the connection"
	load_ends
	ends_with 0
	log_says "connection"
	unmount_lazily "$mnt"
}

# ---- requests that cannot be read ----------------------------------------------------------------

mount_unreadable() {
	export LD_PRELOAD="$preload" UNREADABLE="$work/answer"
	mount_disks "$conf" -o transport=poll
	unset LD_PRELOAD UNREADABLE
}

# read_fails ANSWER TEXT: so does the next read of a request (see endings/unreadable.c), and the log
# says so. What a client sees is in $work/client.
read_fails() {
	# A close that nobody has waited for may still be on its way, and would be the next request:
	# what is asked for now comes after it.
	check_match "user.diskfs.type" getfattr -n user.diskfs.type "$mnt/a.img"
	: >"$work/log"
	echo "$1" >"$work/answer"
	getfattr -n user.diskfs.type "$mnt/a.img" >"$work/client" 2>&1
	wait_for 10 log_has "$2" || not_ok "no '$2' in the log: $(cat "$work/log")"
}

log_has() {
	grep -q "$1" "$work/log"
}

# One request is lost, and only that one.
request_lost() {
	mount_unreadable
	check_output 1048576 fileop "$mnt/a.img" pwrite 0 1M 7
	read_fails place "a request of the kernel's was lost.*Bad address"
	check_match "Input/output error" cat "$work/client"
	check_output same fileop -o direct "$mnt/a.img" all 0 1M 7
	unmount_disks
	mount_unreadable
	read_fails "$enomem" "a request of the kernel's was lost.*out of memory"
	check_match "user.diskfs.type" cat "$work/client"
	check_output same fileop -o direct "$mnt/a.img" all 0 1M 7
	unmount_disks
}

# What fails for ever ends the mount, and that is no success.
descriptor_lost() {
	mount_unreadable
	read_fails "$ebadf" "the connection to the kernel has ended: Bad file descriptor"
	ends_with 1
	unmount_lazily "$mnt"
}

# ---- below ---------------------------------------------------------------------------------------

# disk_in FOLDER: a mount of one disk that lies there.
disk_in() {
	printf '[x]\ndriver = file\npath = %s/x.img\nsize = 16M\n' "$1" >"$work/x.conf"
	mount_disks "$work/x.conf" "${@:2}"
}

truncated() {
	disk_in "$work"
	check_output 1048576 fileop -o direct "$mnt/x.img" pwrite 1M 1M 7
	truncate -s 4M "$work/x.img"
	check_output "EIO
same" fileop -o direct "$mnt/x.img" pread 12M 4096 all 1M 1M 7
	check_output EIO fileop "$mnt/x.img" pread 8M 64K
	log_says "error: \[x\] .*(truncated|shorter)"
	# It does not grow again, with zeros for what was lost: that would hide the loss.
	check_output EIO fileop -o direct "$mnt/x.img" pwrite 12M 4096 7
	check_equal 4194304 "$(stat -c %s "$work/x.img")" "the size of the backing file"
	check_output EIO fileop "$mnt/x.img" fsync
	unmount "$mnt" || not_ok "cannot unmount"
	wait "$daemon_pid"
	check_equal 1 $? "the status of diskfs, whose last flush has failed,"
	daemon_pid=
	rm -f "$work/x.img"
}

# The file system below is full: earlier data is whole, and there is an error, sooner or later.
full() {
	local cache

	mkdir -p "$work/small"
	check mount -t tmpfs -o size=4M tmpfs "$work/small" || return
	cleanup_fn unmount_lazily "$work/small"
	for cache in none writethrough writeback; do
		disk_in "$work/small" -o cache=$cache
		check_output "2097152
0" fileop "$mnt/x.img" pwrite 0 2M 5 fsync
		# The first of these may be cut short, and with writeback the last one tells.
		check_match "^ENOSPC$" fileop "$mnt/x.img" pwrite 4M 8M 6 pwrite 12M 1M 6 fsync
		check_output ENOSPC fileop -o direct "$mnt/x.img" pwrite 14M 1M 6
		check_output "same" fileop -o direct "$mnt/x.img" all 0 2M 5
		# Space that is given back can be used.
		check_output 0 fileop "$mnt/x.img" fallocate punch,keep 2M 14M
		check_output "1048576
0" fileop "$mnt/x.img" pwrite 8M 1M 6 fsync
		check_output "same
same" fileop -o direct "$mnt/x.img" all 0 2M 5 all 8M 1M 6
		unmount_disks
		rm "$work/small/x.img"
	done
	check umount "$work/small"
}

# An error of the file system below makes it read-only: changes fail, reads go on.
read_only_below() {
	local loop

	truncate -s 64M "$work/ext4"
	mkdir -p "$work/below"
	check mkfs.ext4 -q -F "$work/ext4" || return
	loop=$(losetup -f --show "$work/ext4") || { not_ok "no loop device"; return; }
	cleanup_fn free_loop "$loop"
	check mount -o errors=remount-ro "$loop" "$work/below" || return
	cleanup_fn unmount_lazily "$work/below"
	disk_in "$work/below"
	check_output "4194304
0" fileop "$mnt/x.img" pwrite 0 4M 5 fsync
	echo 1 >"/sys/fs/ext4/${loop#/dev/}/trigger_fs_error"
	check_match "^(EROFS|EIO)$" timeout 30 "$BUILD/tests/fileop" "$mnt/x.img" pwrite 8M 1M 6 fsync
	check_match "^(EROFS|EIO)$" timeout 30 "$BUILD/tests/fileop" -o direct "$mnt/x.img" \
		pwrite 8M 1M 6 fsync
	check_output same fileop -o direct "$mnt/x.img" all 0 4M 5
	check umount "$mnt"
	wait_for 30 dead "$daemon_pid" || not_ok "diskfs does not end"
	# The last flush cannot succeed, and that is said.
	ends_with 1
	log_says "error: \[x\] the last flush failed"
	check umount "$work/below"
	check losetup -d "$loop"
}

# ---- the start -----------------------------------------------------------------------------------

# refused MESSAGE COMMAND...: status 1, this message, nothing mounted, nothing left running.
refused() {
	check_equal 1 "$(timeout 30 "${@:2}" >"$work/refused" 2>&1; echo $?)" "the status of '${*:2}'"
	check_match "$1" cat "$work/refused"
	! mounted "$mnt" || { not_ok "mounted"; unmount_lazily "$mnt"; }
}

without_stderr() {
	local i

	for i in 1 2; do
		# In the foreground: nobody's descriptor 2 may become a disk.
		"$BUILD/diskfs" -f "$conf" "$mnt" >&- 2>&- &
		daemon_pid=$!
		wait_for 30 answers || not_ok "does not mount"
		check_output /dev/null readlink "/proc/$daemon_pid/fd/2"
		check_match "Invalid argument" setfattr -n user.diskfs.bad.rules -v oops "$mnt/bad.img"
		check_output "4096
same" fileop "$mnt/a.img" pwrite 0 4096 1 all 0 4096 1
		unmount_disks
	done
}

few_descriptors() {
	local i

	for ((i = 0; i < 64; i++)); do
		printf '[d%d]\ndriver = file\npath = %s/many-%d.img\nsize = 64K\n' $i "$work" $i
	done >"$work/many.conf"
	for i in 8 16 32 64; do
		refused "(Too many open files|descriptors)" bash -c "ulimit -n $i; exec \"\$@\"" - \
			"$BUILD/diskfs" -f "$work/many.conf" "$mnt"
	done
	mount_disks "$work/many.conf"
	check_equal 64 "$(find "$mnt" -name 'd*.img' | wc -l)" "the number of images"
	unmount_disks
}

# As another user with room for so many threads, where he can get at the files: too_few THREADS OPTION...
too_few() {
	# shellcheck disable=SC2016 # for the inner shell to expand
	refused "cannot start .*thread.*: Resource temporarily unavailable" \
		unshare --mount --propagation private bash -c '
		umount -l -a -t fuse.diskfs
		mount -t tmpfs tmpfs /mnt && cp "$1" /mnt/diskfs && mkdir -m 777 /mnt/disks || exit
		printf "[x]\ndriver = ram\nsize = 1M\n" >/mnt/conf
		exec setpriv --reuid=65534 --regid=65534 --clear-groups prlimit --nproc="$2" \
			/mnt/diskfs -f "${@:3}" /mnt/conf /mnt/disks' - "$BUILD/diskfs" "$@"
}

few_threads() {
	too_few 1
	too_few 3 -o workers=8
}

test_case "kill -9 under load, and the next start" killed
test_case "a living mount is not replaced" not_replaced
test_case "SIGTERM under load" signal_under_load
test_case "a second SIGTERM under load" second_signal
test_case "a second SIGTERM while a request hangs" signals_and_hang
test_case "umount -l and SIGTERM while a request hangs" umount_and_hang
if [ -n "${LONG:-}" ]; then
	test_case "SIGTERM while a request hangs" signal_and_hang
else
	skip_case "SIGTERM while a request hangs" "takes 30 s: LONG=1"
fi
test_case "umount while files are open" busy
test_case "the connection is aborted" connection_aborted
if build_preload "$(dirname "$0")/endings/unreadable.c"; then
	test_case "a request cannot be read" request_lost
	test_case "the descriptor of the mount fails" descriptor_lost
else
	skip_case "requests that cannot be read" "no compiler"
fi
test_case "the backing file is truncated" truncated
test_case "the file system below is full" full
if command -v mkfs.ext4 >/dev/null && losetup -f >/dev/null 2>&1; then
	test_case "the file system below becomes read-only" read_only_below
else
	skip_case "the file system below becomes read-only" "no mkfs.ext4, or no loop devices"
fi
test_case "without stderr" without_stderr
test_case "few descriptors" few_descriptors
test_case "no threads" few_threads
