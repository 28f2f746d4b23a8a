#!/bin/bash
# SPDX-License-Identifier: MIT
# Persistent reservations after a restart: what the state file keeps, over an end, a kill at any
# moment and a change of the configuration; and state files that are damaged or cannot be written.
. "$(dirname "$0")/lib.sh"
requires python3 getfattr
requires_fuse

state=$work/pr.state

# Types of reservations.
we=1 ea=2 wero=3 earo=4 wear=5 eaar=6

remount() {
	if [ "$1" = kill ]; then
		kill_disks
		unmount_lazily "$mnt"
	else
		unmount_disks
	fi
	mount_disks "$conf"
}

survives() {
	local how=$1 type

	for type in $we $ea $wero $earo $wear $eaar; do
		forget_all
		prctl "$mnt/a.img" register 0 0xa1 reserve 0xa1 "$type" >/dev/null
		prctl "$mnt/b.img" register 0 0xb1 >/dev/null
		prctl "$mnt/a.img" reservation | cut -d ' ' -f 2- >"$work/before"
		remount "$how"
		check_equal "0 $(cat "$work/before")" "$(prctl "$mnt/b.img" reservation)"
		check_output "0xa1 0xb1" attribute pr_keys a.img
		check_output EBADE prctl "$mnt/b.img" reserve 0xb1 $((type % 6 + 1))
		if [ "$type" = $we ] || [ "$type" = $ea ]; then
			check_output EBADE fileop "$mnt/b.img" pwrite 0 512 1
		else
			check_output 512 fileop "$mnt/b.img" pwrite 0 512 1
		fi
	done
	forget_all
	remount "$how"
	check_output "" attribute pr_keys a.img
	check_output "0 0x0 0" prctl "$mnt/a.img" reservation
}

# Kills at any moment of a stream of changes: there is always a state, the last that was told or the
# one under way.
killed_while_changing() {
	local i told client now

	for ((i = 0; i < 10; i++)); do
		forget_all
		(
			key=1
			while [ "$(prctl "$mnt/a.img" ignore 0 $key 2>/dev/null)" = 0 ]; do
				echo $key >>"$work/told"
				key=$((key + 1))
			done
		) &
		client=$!
		wait_for 20 [ -s "$work/told" ] || not_ok "nothing has been registered"
		sleep 0.0$((RANDOM % 10))
		kill_disks
		wait $client
		unmount_lazily "$mnt"
		mount_disks "$conf"
		told=$(tail -n 1 "$work/told")
		rm "$work/told"
		now=$(($(attribute pr_keys a.img)))
		[ "$now" = "$told" ] || [ "$now" = $((told + 1)) ] ||
			not_ok "the key is $now after a restart, but $told was the last that was told"
	done
	forget_all
}

# Whoever has no file any more is still registered, and can be removed.
renamed() {
	prctl "$mnt/b.img" register 0 0xb1 reserve 0xb1 $ea >/dev/null
	unmount_disks
	share_conf none "a.img, c.img"
	mount_disks "$conf"
	check_output EBADE fileop "$mnt/c.img" pread 0 512
	check_output EBADE fileop "$mnt/a.img" pread 0 512
	check_match "^            file: b.img$" cat "$mnt/.status"
	check_output "0
0" prctl "$mnt/c.img" register 0 0xc1 preempt 0xc1 0xb1 $we
	check_output 512 fileop "$mnt/c.img" pread 0 512
	forget_all
	unmount_disks
	share_conf none "a.img, b.img"
	mount_disks "$conf"
}

refuses_damage() {
	local text line

	prctl "$mnt/a.img" register 0 0xa1 reserve 0xa1 $we >/dev/null
	unmount_disks
	cp "$state" "$work/good"
	line="$conf:[0-9]+: \[shared\] state_file: '$state': line"
	sed -i s/00a1/00a2/ "$state"
	check_match "^$line 5: the checksum does not match: the file is damaged" diskfs "$conf" "$mnt"
	check_fails 1 diskfs "$conf" "$mnt"
	check_fails 1 diskfs --check "$conf"
	head -c 40 "$work/good" >"$state"
	check_match "^$line [0-9]+: .*(damaged|cut off)" diskfs "$conf" "$mnt"
	: >"$state"
	check_match "^$line 1: the file is empty \(remove it to start without" diskfs "$conf" "$mnt"
	! mounted "$mnt" || not_ok "mounted with a damaged state file"
	cp "$work/good" "$state"
	check diskfs --check "$conf"
	mount_disks "$conf"
	check_output EBADE fileop "$mnt/b.img" pwrite 0 512 1
	# Not to be had twice.
	text=$(diskfs -f "$work/second.conf" "$work/mnt2" 2>&1)
	check_match "state_file: '$state' is in use by another disk" echo "$text"
	forget_all
}

second_conf() {
	mkdir "$work/mnt2"
	cat >"$work/second.conf" <<-EOT
		[disk]
		driver = ram
		size = 1M

		[shared]
		driver = prwrap
		below = disk
		state_file = pr.state
	EOT
}

# Changes that cannot be kept are refused, and do not happen.
full_state() {
	check_output 0 prctl "$mnt/a.img" register 0 1
	mkdir "$state.new"
	check_output "EISDIR
EISDIR" prctl "$mnt/a.img" reserve 1 $ea register 1 2
	check_output 512 fileop "$mnt/b.img" pread 0 512
	rmdir "$state.new"
	check_output 0 prctl "$mnt/a.img" reserve 1 $ea
	forget_all
}

second_conf
share_conf none "a.img, b.img"
mount_disks "$conf"
test_case "reservations survive a restart" survives umount
test_case "reservations survive kill -9" survives kill
test_case "kill -9 in a stream of changes" killed_while_changing
test_case "files come and go" renamed
test_case "a state file that cannot be written" full_state
test_case "a damaged state file" refuses_damage
end_disks TERM
