#!/bin/bash
# SPDX-License-Identifier: MIT
# A virtual machine whose root file system is an image of the mount: it boots, writes, trims, syncs
# and is killed. What it had synced is there, and the file system is sound, in the image and in the
# backing file. (User-mode Linux is the machine: it needs no hardware, and boots in two seconds.)
. "$(dirname "$0")/lib.sh"
requires mkfs.ext4 e2fsck debugfs setsid python3
requires_fuse
guest=$("$(dirname "$0")/../../scripts/guest" uml 2>&1) || skip_all "no guest: $guest"

config <<EOT
[file]
driver = file
path = file.img
size = 96M

[file4k]
driver = file
path = file4k.img
size = 96M
sector_size = 4096
direct = yes

[ram]
driver = ram
size = 96M
EOT

# The root file system: busybox, and a script that is the first process.
make_root() {
	local root=$work/root

	mkdir -p "$root"/{bin,dev,proc,sys,tmp,data}
	cp "$guest/bin/busybox" "$root/bin/"
	random_file "$root/random" 1000000 8
	cat >"$root/init" <<'EOT'
#!/bin/busybox sh
PATH=/bin
busybox mount -t proc proc /proc
busybox mount -o remount,rw,discard / || { echo NO ROOT; exit 1; }
echo "BOOTED $(busybox uname -r), times booted: $(busybox wc -l </data/boots)"
echo boot >>/data/boots
busybox cmp /random /data/copy 2>/dev/null && echo SAME
# Much that is deleted again, for the discard.
busybox dd if=/dev/urandom of=/data/deleted bs=1M count=24 2>/dev/null
busybox sync
busybox rm /data/deleted
for i in 1 2 3 4 5 6 7 8 9 10; do
	busybox seq $i 7 $((i * 20000)) >/data/synced-$i
done
busybox cp /random /data/copy
busybox sync
busybox fstrim / && echo TRIMMED
busybox sync
echo SYNCED
[ "$1" = "stop" ] && busybox poweroff -f
i=0
while busybox cat /random /random >/data/lost-$((i % 7)); do
	i=$((i + 1))
	[ $i != 3 ] || echo WRITING
	[ $((i % 50)) != 0 ] || busybox sync
done
echo WRITE FAILED
busybox poweroff -f
EOT
	chmod +x "$root/init" "$root/bin/busybox"
	mkdir "$root/bin/links"
	ln -s busybox "$root/bin/sh"
	: >"$root/data/boots"
}

machine=
end_machine() {
	[ -z "$machine" ] || kill -KILL -- "-$machine" 2>/dev/null
}
cleanup_fn end_machine

# boot DISK [stop]: in a process group of its own, since the machine has several processes.
boot() {
	: >"$work/console"
	HOME=$work TMPDIR=$work setsid "$guest/usr/bin/linux.uml" mem=128M ubda="$mnt/$1.img" root=/dev/ubda \
		rootfstype=ext4 ro init=/init con=null con0=null,fd:1 con1=fd:0,fd:1 quiet \
		uml_dir="$work/uml" "${@:2}" </dev/null >"$work/console" 2>&1 &
	machine=$!
}

machine_said() {
	grep -q "$1" "$work/console"
}

said_or_dead() {
	machine_said "$1" || dead "$machine"
}

# await WORD: in what the machine says.
await() {
	wait_for 60 said_or_dead "$1"
	machine_said "$1" && return
	not_ok "the machine did not say $1"
	show "$(tail -n 15 "$work/console")"
	return 1
}

# synced_files IMAGE: those are there that the machine had synced.
synced_files() {
	local i

	for i in 1 2 3 4 5 6 7 8 9 10; do
		seq "$i" 7 $((i * 20000)) >"$work/wanted"
		debugfs -R "cat /data/synced-$i" "$1" 2>/dev/null >"$work/got"
		check cmp "$work/wanted" "$work/got"
	done
	debugfs -R "cat /data/copy" "$1" 2>/dev/null >"$work/got"
	check cmp "$work/root/random" "$work/got"
}

killed() {
	local image=$mnt/$1.img status=0 blocks

	check mkfs.ext4 -q -F -d "$work/root" "$image" || return
	boot "$1"
	await BOOTED && await TRIMMED && await SYNCED && await WRITING || { end_machine; return; }
	blocks=$(stat -c %b "$image")
	# 24 MiB were written and deleted, 96 MiB are the disk.
	[ "$blocks" -lt 131072 ] || not_ok "$blocks blocks after the machine's fstrim"
	kill -KILL -- "-$machine"
	wait "$machine" 2>/dev/null
	machine=
	# The journal is replayed, and then nothing is wrong.
	e2fsck -f -p "$image" >"$work/fsck" 2>&1 || status=$?
	[ "$status" -le 1 ] || { not_ok "e2fsck -p ended with status $status"; show "$(cat "$work/fsck")"; }
	check e2fsck -f -n "$image"
	synced_files "$image"
}

boots_again() {
	boot "$1" stop
	await SYNCED || { end_machine; return; }
	wait_for 30 dead "$machine" || not_ok "the machine does not end"
	check_match 'BOOTED .* times booted: 1' cat "$work/console"
	check_match SAME cat "$work/console"
	wait "$machine" 2>/dev/null
	machine=
	check e2fsck -f -n "$mnt/$1.img"
}

# The backing file is the same file system, without diskfs.
in_backing_file() {
	check e2fsck -f -n "$work/$1.img"
	synced_files "$work/$1.img"
}

make_root
mount_disks "$conf"
for disk in file file4k ram; do
	test_case "$disk: a machine that boots from it is killed" killed $disk
	test_case "$disk: another boots from what it left" boots_again $disk
done
end_disks
for disk in file file4k; do
	test_case "$disk: all of it is in the backing file" in_backing_file $disk
done
