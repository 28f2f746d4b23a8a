#!/bin/bash
# SPDX-License-Identifier: MIT
# The log, where whoever should read it does not: no request waits for that.
#
# The script runs itself again in a mount namespace of its own, with a /dev/log that is its own.
if [ -z "${LOG_NAMESPACE:-}" ] && [ "$(id -u)" = 0 ]; then
	LOG_NAMESPACE=1 exec unshare --mount --propagation private "$0"
fi
. "$(dirname "$0")/lib.sh"
requires python3 setfattr
requires_root
requires_fuse
forget_other_mounts

config <<EOT
[ram]
driver = ram
size = 1M

[bad]
driver = fault
below = ram
EOT

# Each change is logged: more of them than there is room for.
change_rules() {
	local i

	for i in {1..1500}; do
		setfattr -n user.diskfs.bad.rules -v "read delay=1ms range=0-${i}K" "$mnt/bad.img" || return
	done
	dd if="$mnt/bad.img" of="$work/copy" bs=64k iflag=direct
}

# Who waits for the daemon cannot be killed, but the daemon can.
talk() {
	local talker

	change_rules >"$work/talk" 2>&1 &
	talker=$!
	if ! wait_for 60 dead $talker; then
		not_ok "a change of the rules waits for the log"
		kill_disks
	fi
	wait $talker || not_ok "$(cat "$work/talk")"
}

unread_stderr() {
	local reader

	mkfifo "$work/pipe"
	exec 8<>"$work/pipe"
	env --default-signal=INT "$BUILD/diskfs" -f "$conf" "$mnt" 2>"$work/pipe" 8>&- &
	daemon_pid=$!
	wait_for 30 answers || not_ok "does not mount"
	talk
	[ "$case_failed" = 0 ] || return
	# Somebody reads again.
	cat <"$work/pipe" >"$work/log" 8>&- &
	reader=$!
	exec 8>&-
	wait_for 20 grep -q "range=0-1000K" "$work/log" || not_ok "nothing in the log"
	check setfattr -n user.diskfs.bad.rules -v "" "$mnt/bad.img"
	unmount_disks
	wait $reader
	check_match "warning: [0-9]+ messages before this one could not be written" cat "$work/log"
	check_match "info: \[bad\] rules: now ''" cat "$work/log"
}

# A syslog that takes messages only while there is the file $work/reading.
cat >"$work/syslog.py" <<'PY'
import os, socket, sys, time

path, reading, out = sys.argv[1:]
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind(path)
server.settimeout(0.05)
with open(out, "wb", buffering=0) as log:
    while True:
        if not os.path.exists(reading):
            time.sleep(0.05)
            continue
        try:
            log.write(server.recv(4096) + b"\n")
        except TimeoutError:
            pass
PY

start_syslog() {
	rm -f /dev/log
	python3 "$work/syslog.py" /dev/log "$work/reading" "$work/syslog" &
	syslog=$!
	cleanup_fn end_process $syslog
	wait_for 10 test -S /dev/log || not_ok "no /dev/log"
}

logged() {
	grep -Eq "$1" "$work/syslog"
}

unread_syslog() {
	touch "$work/reading"
	start_syslog
	"$BUILD/diskfs" "$conf" "$mnt" || { not_ok "does not mount"; return; }
	daemon_pid=$(pgrep -xf "$BUILD/diskfs $conf $mnt")
	check setfattr -n user.diskfs.bad.rules -v "read error" "$mnt/bad.img"
	wait_for 10 logged \
		"^<30>[A-Z][a-z]{2} [ 0-9]{2} [0-9:]{8} diskfs\[[0-9]+\]: \[bad\] rules: now 'read error'\$" ||
		not_ok "$(cat "$work/syslog")"
	rm "$work/reading"
	talk
	[ "$case_failed" = 0 ] || return
	touch "$work/reading"
	wait_for 20 logged "range=0-10K" || not_ok "nothing in the log"
	sleep 0.5 # until all is read
	check setfattr -n user.diskfs.bad.rules -v "" "$mnt/bad.img"
	wait_for 10 logged "rules: now ''" || not_ok "not logged"
	check grep -Eq "<28>.*: [0-9]+ messages before this one could not be written" "$work/syslog"
	# Another syslog takes over.
	end_process $syslog
	check setfattr -n user.diskfs.bad.rules -v "write error" "$mnt/bad.img"
	start_syslog
	check setfattr -n user.diskfs.bad.rules -v "flush error" "$mnt/bad.img"
	wait_for 10 logged "rules: now 'flush error'" || not_ok "nothing after the restart of syslog"
	check unmount "$mnt"
	daemon_pid=
}

test_case "nobody reads stderr" unread_stderr
mkdir "$work/dev"
if mknod "$work/dev/null" c 1 3 && mknod "$work/dev/fuse" c 10 229 && mknod "$work/dev/urandom" c 1 9 &&
	chmod 666 "$work"/dev/* && mount --bind "$work/dev" /dev && : >/dev/null; then
	cleanup_fn umount -l /dev
	test_case "nobody reads syslog" unread_syslog
else
	skip_case "nobody reads syslog" "no /dev of one's own"
fi
