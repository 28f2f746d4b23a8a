#!/bin/bash
# SPDX-License-Identifier: MIT
# More is written to a file system on a loop device on an image than the kernel lets be dirty. To
# clean pages it writes to the image, for which the daemon must not wait for pages to be cleaned:
# then nothing ever moves again. With CAP_SYS_RESOURCE the daemon is exempt from waiting; without
# it, direct = yes keeps it from the page cache. Then the same with a writer that has not enough
# memory in its cgroup.
#
# In a virtual machine (scripts/in-guest): what has dead-locked cannot be killed.
if [ "${1:-}" != inside ]; then
	BUILD=$(realpath "${BUILD:-build}")
	memory=256 seconds=240
	[ -z "${LONG:-}" ] || seconds=1500
	# Shadow memory.
	grep -q __asan_init "$BUILD/diskfs" && memory=512
	grep -q __tsan_init "$BUILD/diskfs" && echo "skip: too slow with ThreadSanitizer" && exit 77
	exec "$(dirname "$0")/../../scripts/in-guest" --memory $memory --timeout $seconds \
		env BUILD="$BUILD" LONG="${LONG:-}" bash "$(realpath "$0")" inside
fi
. "$(dirname "$0")/lib.sh"
requires python3 losetup mkfs.ext4 fsck.ext4 setpriv
requires_fuse
transports=poll
{ echo Y >/sys/module/fuse/parameters/enable_uring; } 2>/dev/null && transports="poll uring"
# By default a fifth of the memory may be dirty. What has to be written shrinks with this.
echo $((4 << 20)) >/proc/sys/vm/dirty_bytes
written_mib=24
if [ -n "${LONG:-}" ]; then
	echo 20 >/proc/sys/vm/dirty_ratio
	written_mib=$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo)
fi
mkdir "$work/fs"
cleanup_fn unmount_lazily "$work/fs"

# Blocks of 1 MiB, each full of its own number: stamp write|verify FILE MIB
cat >"$work/stamp" <<'PY'
import os, sys
what, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(path, "wb" if what == "write" else "rb", buffering=0) as file:
    for number in range(count):
        block = number.to_bytes(8, "little") * (1 << 17)
        if what == "write":
            assert file.write(block) == len(block)
        else:
            assert file.read(1 << 20) == block, number
    if what == "write":
        os.fsync(file.fileno())
PY

# Runs a command in the cgroup, if there is one.
group=
in_group() {
	bash -c '[ -z "$1" ] || echo $$ >"$1/cgroup.procs"; shift; exec "$@"' in_group "$group" "$@"
}

# From now on the daemon is started without CAP_SYS_RESOURCE.
drop_capability() {
	mkdir "$work/without"
	cat >"$work/without/diskfs" <<-EOT
		#!/bin/sh
		exec setpriv --bounding-set=-sys_resource "$BUILD/diskfs" "\$@"
	EOT
	chmod +x "$work/without/diskfs"
	BUILD=$work/without
}

# short_memory TRANSPORT CACHE DIRECT LOOP-OPTION
short_memory() {
	local loop

	config <<-EOT
		[diskfs]
		cache = $2

		[disk]
		driver = file
		path = disk.img
		size = 512M
		direct = $3
	EOT
	mount_disks "$conf" -o "transport=$1"
	loop=$(losetup -f --show "$4" "$mnt/disk.img") || { not_ok "losetup"; return; }
	cleanup_fn free_loop "$loop"
	if check mkfs.ext4 -q -F -J size=4 "$loop" && check mount "$loop" "$work/fs"; then
		check in_group python3 "$work/stamp" write "$work/fs/a" "$written_mib"
		check umount "$work/fs"
		check fsck.ext4 -f -n "$loop"
		check mount -o ro "$loop" "$work/fs"
		check in_group python3 "$work/stamp" verify "$work/fs/a" "$written_mib"
		check umount "$work/fs"
	fi
	check losetup -d "$loop"
	alive "$daemon_pid" || not_ok "the daemon is dead"
	unmount_disks
	# From the backing file, without us.
	check fsck.ext4 -f -n "$work/disk.img"
	rm -f "$work/disk.img"
}

# The writer's group, with a limit that it feels.
small_group() {
	group=/sys/fs/cgroup/writer
	check mkdir -p $group
	echo 16M >$group/memory.max || not_ok "no limit of memory"
	short_memory "$@"
	[ "$(awk '$1 == "max" { print $2 }' $group/memory.events)" -gt 0 ] ||
		not_ok "the limit was never reached"
	group=
}

# each TRANSPORT NAME COMMAND ARGUMENT...: by this transport, in a long run by all that there are.
each() {
	local transport

	for transport in $transports; do
		if [ -n "${LONG:-}" ] || [ "$transport" = "$1" ] || [ "$transports" = poll ]; then
			test_case "$transport: $2" "$3" "$transport" "${@:4}"
		fi
	done
}

each poll "page cache" short_memory writethrough no --direct-io=off
each uring "direct I/O of the loop device" short_memory none no --direct-io=on
each uring "writeback cache" short_memory writeback no --direct-io=off
drop_capability
each uring "direct = yes, without CAP_SYS_RESOURCE" short_memory writethrough yes --direct-io=off
each poll "the same, with the writer in a small cgroup" small_group none yes --direct-io=on
