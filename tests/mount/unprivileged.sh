#!/bin/bash
# SPDX-License-Identifier: MIT
# A user without privileges mounts, uses and unmounts, by way of fusermount3.
#
# The script runs itself again in a mount namespace of its own, where /dev/fuse is open to everyone,
# as on a desktop; where it is not so, nothing outside of the namespace changes.
if [ -z "${UNPRIVILEGED_NAMESPACE:-}" ] && [ "$(id -u)" = 0 ]; then
	UNPRIVILEGED_NAMESPACE=1 exec unshare --mount --propagation private "$0"
fi
. "$(dirname "$0")/lib.sh"
requires unshare runuser fusermount3
requires_root
requires_fuse
forget_other_mounts

user=nobody
mknod "$work/fuse" c 10 229 && chmod 666 "$work/fuse" && mount --bind "$work/fuse" /dev/fuse ||
	skip_all "cannot open /dev/fuse to everyone"
cleanup_fn umount /dev/fuse
# The folders of the tests and of the build are closed to others.
mount -t tmpfs tmpfs /mnt || skip_all "cannot mount a tmpfs"
cleanup_fn umount /mnt
mnt=/mnt/disks
conf=/mnt/test.conf
mkdir "$mnt"
cp "$BUILD/diskfs" /mnt/diskfs
config <<EOT
[ram]
driver = ram
size = 16M
EOT
chown "$user" "$mnt"

as_user() {
	runuser -u "$user" -- "$@"
}

used() {
	check as_user /mnt/diskfs "$conf" "$mnt"
	check as_user dd if=/dev/urandom of="$mnt/ram.img" bs=1M count=4 conv=notrunc,fsync status=none
	check_output 16777216 as_user stat -c %s "$mnt/ram.img"
	check_output "$user" as_user stat -c %U "$mnt/ram.img"
	# Not even root sees what others mount, unless they allow it.
	check_match "Permission denied" ls "$mnt"
	check as_user fusermount3 -u "$mnt"
	! mounted "$mnt" || not_ok "still mounted"
}

allow_other_refused() {
	check_match "cannot mount on '$mnt'" as_user /mnt/diskfs -o allow_other "$conf" "$mnt"
	! mounted "$mnt" || not_ok "mounted"
}

signalled() {
	as_user /mnt/diskfs -f "$conf" "$mnt" >"$work/log" 2>&1 &
	daemon_pid=$!
	wait_for 10 as_user test -e "$mnt/.status" || not_ok "does not answer: $(cat "$work/log")"
	pkill -TERM -P "$daemon_pid"
	wait_for 10 dead "$daemon_pid" || not_ok "does not end"
	daemon_pid=
	! mounted "$mnt" || not_ok "still mounted"
}

test_case "a user mounts, writes and unmounts" used
test_case "allow_other is refused where fuse.conf does not allow it" allow_other_refused
test_case "SIGTERM unmounts" signalled
