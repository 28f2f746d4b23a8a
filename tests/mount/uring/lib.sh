# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# What the tests of FUSE over io_uring share, beside ../lib.sh, which it reads. The kernel's
# parameter is theirs to change for as long as they run.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
requires fio getfattr python3 setfattr taskset
requires_root
requires_fuse

enable_uring=/sys/module/fuse/parameters/enable_uring
[ -w $enable_uring ] || skip_all "this kernel has no FUSE over io_uring"

# allow_uring Y|N: whether the kernel offers it to new mounts.
allow_uring() {
	echo "$1" >$enable_uring
}
cleanup_fn allow_uring "$(cat $enable_uring)"
unset DISKFS_TRANSPORT # every case has its own

# kernel FIELD: what the status says of the way to the kernel; nothing where it has no such field.
kernel() {
	python3 - "$mnt/.status.json" "$1" <<'PY'
import json, sys
print(json.load(open(sys.argv[1]))["kernel"].get(sys.argv[2], ""))
PY
}

# Mounts $conf with these arguments, by the ring.
mount_uring() {
	allow_uring Y
	mount_disks "$conf" "$@"
	check_equal uring "$(kernel transport)" "the transport"
}

log_is_clean() {
	check_output "" grep -E "error|warning" "$work/log"
}

# client OPTION...: fio, in the background, in $client.
client() {
	fio --allow_file_create=0 --fallocate=none --invalidate=0 --verify_state_save=0 \
		--output-format=terse --aux-path="$work" "$@" >"$work/fio" 2>&1 &
	client=$!
}

# client_ends SECONDS: well or not, but it ends. Its status.
client_ends() {
	if ! wait_for "$1" dead "$client"; then
		not_ok "fio does not end: $(ps -o pid=,stat=,wchan= -p "$client")"
		return 0
	fi
	wait "$client"
}

client_succeeds() {
	client_ends 120 || not_ok "fio failed: $(cat "$work/fio")"
}
