#!/bin/bash
# SPDX-License-Identifier: MIT
# In the background: the command returns when the mount answers, or with the real error.
. "$(dirname "$0")/lib.sh"
requires_fuse

config <<EOT
[ram]
driver = ram
size = 8M
EOT

# The process that serves $mnt: the only one of ours with these arguments.
served_by() {
	local cmdline

	for cmdline in /proc/[0-9]*/cmdline; do
		grep -qzxF "$mnt" "$cmdline" 2>/dev/null && echo "${cmdline//[!0-9]/}"
	done
}

gone() {
	[ -z "$(served_by)" ]
}

leave() {
	check unmount "$mnt"
	wait_for 10 gone || not_ok "the daemon stays after umount"
	sanitizer_check
}
cleanup_fn end_daemon

end_daemon() {
	local pid

	unmount_lazily "$mnt"
	for pid in $(served_by); do
		end_process "$pid"
	done
}

ready_at_return() {
	local i

	for i in 1 2 3 4 5 6 7 8 9 10; do
		diskfs "$conf" "$mnt" || not_ok "try $i: status $?"
		grep -q ram "$mnt/.status" || not_ok "try $i: no status right after the start"
		leave
	done
}

detached() {
	local pid

	check diskfs "$conf" "$mnt"
	pid=$(served_by)
	check_match '^[0-9]+$' echo "$pid"
	check_equal / "$(readlink "/proc/$pid/cwd")" "the working directory of the daemon"
	check_equal "$pid" "$(ps -o sid= -p "$pid" | tr -d ' ')" "the session"
	for fd in 0 1 2; do
		check_output /dev/null readlink "/proc/$pid/fd/$fd"
	done
	leave
}

# Who reads the command's output sees its end although the daemon lives on.
output_ends() {
	check_output "" timeout 20 "$BUILD/diskfs" "$conf" "$mnt"
	leave
}

ended_by_signal() {
	check diskfs "$conf" "$mnt"
	kill -TERM "$(served_by)"
	wait_for 10 gone || not_ok "the daemon stays after SIGTERM"
	! mounted "$mnt" || not_ok "still mounted"
	sanitizer_check
}

# A command that is ended while it waits leaves no daemon; one that had the answer leaves its own.
ended_while_starting() {
	local try status

	for try in {0..24}; do
		"$BUILD/diskfs" "$conf" "$mnt" 2>>"$work/stderr" &
		sleep "0.0$(printf %02d $((try * 2)))"
		kill -TERM $! 2>/dev/null
		status=0
		wait $! || status=$?
		if [ $status = 0 ]; then
			leave
		else
			check_match '^(143|1)$' echo $status
			wait_for 5 gone || not_ok "try $try: status $status, and a daemon is left"
			! mounted "$mnt" || not_ok "try $try: status $status, and mounted"
			end_daemon
		fi
	done
}

# fails TEXT COMMAND...: status 1, the text on stderr, nothing on stdout, nothing mounted.
fails() {
	local text=$1

	shift
	check_equal 1 "$("$@" >"$work/stdout" 2>"$work/stderr"; echo $?)" "the status of '$*'"
	check_match "$text" cat "$work/stderr"
	check_output "" cat "$work/stdout"
	! mounted "$mnt" || not_ok "mounted"
	wait_for 5 gone || not_ok "left running"
}

real_errors() {
	printf '[disk]\ndriver = file\npath = /nowhere/disk.img\n' >"$work/missing.conf"
	fails "missing.conf.*disk.*/nowhere/disk.img.*No such file" diskfs "$work/missing.conf" "$mnt"
	fails "No such file" diskfs "$work/no.conf" "$mnt"
	fails "$work/nowhere.*No such file" diskfs "$conf" "$work/nowhere"
	fails "cannot mount on '$conf': it is no folder" diskfs "$conf" "$conf"
	fails "no_such_option" diskfs -o no_such_option "$conf" "$mnt"
}

closed_descriptors() {
	check bash -c '"$@" <&- >&- 2>&-' - "$BUILD/diskfs" "$conf" "$mnt"
	check grep -q ram "$mnt/.status"
	check_output "4096
same" fileop "$mnt/ram.img" pwrite 0 4096 1 all 0 4096 1
	leave
	check_fails 1 bash -c '"$@" <&- >&- 2>&-' - "$BUILD/diskfs" "$work/no.conf" "$mnt"
}

mount_options() {
	check diskfs -o ro "$conf" "$mnt"
	check_match "$mnt .* ro[ ,]" grep " $mnt " /proc/self/mounts
	check_output EROFS fileop "$mnt/ram.img" pread 0 1
	leave
	check diskfs -o noexec,nosuid "$conf" "$mnt"
	check_match "noexec" grep " $mnt " /proc/self/mounts
	leave
	# As in /etc/fstab.
	check diskfs "$conf" "$mnt" -o defaults,nofail,relatime,nodiratime,lazytime,x-systemd.automount
	leave
	check_fails 1 diskfs -o nonsense "$conf" "$mnt"
}

named() {
	check diskfs "$conf" "$mnt"
	check_output fuse.diskfs findmnt -n -o FSTYPE "$mnt"
	leave
}

# A daemon that was killed leaves a dead mount, which a new one can follow.
after_a_kill() {
	check diskfs "$conf" "$mnt"
	kill -KILL "$(served_by)"
	wait_for 10 gone
	unmount_lazily "$mnt"
	check diskfs "$conf" "$mnt"
	check grep -q ram "$mnt/.status"
	leave
}

foreground() {
	mount_disks "$conf"
	check_equal "$daemon_pid" "$(served_by)" "the process that serves the mount"
	unmount_disks
}

test_case "the mount answers when the command returns" ready_at_return
test_case "the daemon is detached" detached
test_case "the command's output ends" output_ends
test_case "SIGTERM ends the daemon" ended_by_signal
test_case "SIGTERM of a command that starts a daemon" ended_while_starting
test_case "errors are said before the command returns" real_errors
test_case "without stdin, stdout and stderr" closed_descriptors
test_case "mount options" mount_options
test_case "the type of the mount" named
test_case "a new start after a kill" after_a_kill
test_case "-f stays in the foreground" foreground
