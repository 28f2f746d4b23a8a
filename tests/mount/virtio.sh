#!/bin/bash
# SPDX-License-Identifier: MIT
# A QEMU machine writes to images as its disks, past the page cache, by io_uring and by Linux AIO;
# synchronizes them, goes on writing and is killed. What it had synchronized is there, and the file
# systems are sound, in the images and in the backing files.
. "$(dirname "$0")/lib.sh"
requires qemu-system-x86_64 mkfs.ext4 e2fsck debugfs
requires_fuse
in_guest=$(realpath "$(dirname "$0")/../../scripts/in-guest")
guest=$("$(dirname "$in_guest")/guest" qemu 2>&1) || skip_all "no guest: $guest"

config <<EOT
[io_uring]
driver = file
path = io_uring.img
size = 96M
direct = yes

[native]
driver = file
path = native.img
size = 96M
EOT

# What runs in the machine: bash -c "$job" job DISK...
job=$(cat <<'EOT'
set -e
for name; do
	number=$(grep -lx "$name" /sys/block/*/serial)
	mkdir "/tmp/$name"
	mkfs.ext4 -q "/dev/$(basename "$(dirname "$number")")"
	mount -o discard "/dev/$(basename "$(dirname "$number")")" "/tmp/$name"
	# Much that is deleted again, for the discard.
	head -c 24M /dev/urandom >"/tmp/$name/deleted"
done
sync
for name; do
	rm "/tmp/$name/deleted"
	for i in 1 2 3 4 5; do
		seq $i 7 $((i * 20000)) >"/tmp/$name/synced-$i"
	done
done
sync
for name; do
	fstrim "/tmp/$name"
done
echo SYNCED
i=0
while :; do
	for name; do
		seq $i 7 40000 >"/tmp/$name/lost-$((i % 7))"
	done
	i=$((i + 1))
	[ $i != 5 ] || echo WRITING
	[ $((i % 10)) != 0 ] || sync
done
EOT
)

machine=
end_machine() {
	[ -z "$machine" ] || end_process "$machine"
}
cleanup_fn end_machine

# Options of QEMU for the image: drive NAME OPTION...
drive() {
	echo "-drive file=$mnt/$1.img,format=raw,if=none,id=$1,cache=none,aio=$1,discard=unmap"
	echo "-device virtio-blk-pci,drive=$1,serial=$1"
}

writing_or_dead() {
	grep -q WRITING "$work/console" || dead "$machine"
}

killed() {
	: >"$work/console"
	"$in_guest" --timeout 100 --qemu "-pidfile $work/pid $(drive io_uring) $(drive native)" \
		bash -c "$job" job io_uring native >"$work/console" 2>&1 </dev/null &
	machine=$!
	wait_for 100 writing_or_dead
	if grep -q WRITING "$work/console"; then
		kill -KILL "$(cat "$work/pid")"
	else
		not_ok "the machine does not write"
		show "$(tail -n 40 "$work/console")"
		end_process "$machine"
	fi
	wait "$machine" 2>/dev/null
	machine=
}

# sound IMAGE NAME: once the journal has been replayed.
sound() {
	local i blocks status=0

	# 24 MiB were written and deleted, 96 MiB are the disk.
	blocks=$(stat -c %b "$1")
	[ "$blocks" -lt 131072 ] || not_ok "$blocks blocks after the machine's discard"
	e2fsck -f -p "$1" >"$work/fsck" 2>&1 || status=$?
	[ "$status" -le 1 ] || not_ok "e2fsck -p: status $status: $(cat "$work/fsck")"
	check e2fsck -f -n "$1"
	for i in 1 2 3 4 5; do
		seq "$i" 7 $((i * 20000)) >"$work/wanted"
		debugfs -R "cat /synced-$i" "$1" 2>/dev/null >"$work/got"
		check cmp "$work/wanted" "$work/got"
	done
}

mount_disks "$conf"
test_case "a machine that writes by io_uring and by Linux AIO is killed" killed
for disk in io_uring native; do
	test_case "$disk: what it had synchronized is there" sound "$mnt/$disk.img"
done
end_disks
for disk in io_uring native; do
	test_case "$disk: all of it is in the backing file" sound "$work/$disk.img"
done
