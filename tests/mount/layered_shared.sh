#!/bin/bash
# SPDX-License-Identifier: MIT
# Three machines on one read-only image of a system: at the same time each makes a file system of
# its own and copies the system there. Each diff then has the changes of its machine, all of them and
# those of no other, and is found again by the next daemon.
. "$(dirname "$0")/lib.sh"
requires losetup mkfs.ext4 mkfs.xfs mkfs.btrfs python3 cmp
requires_root
requires_fuse
losetup -f >/dev/null 2>&1 || skip_all "no loop devices here"
for kind in xfs btrfs; do
	modprobe -q $kind 2>/dev/null
	grep -qw $kind /proc/filesystems || skip_all "no $kind here"
done
cd "$work" || exit 1
kinds=(ext4 xfs btrfs)
mkdir tree system "${kinds[@]}"
cp -a /etc /usr/sbin tree/
truncate -s 320M base.raw
mkfs.ext4 -q -d tree base.raw || exit 1
cp --sparse=always base.raw base.copy
cleanup_fn unmount_lazily "$work/system"
mount -o loop,ro,noload base.copy system || exit 1

config <<EOT
[base]
driver = file
path = base.raw
readonly = yes

$(for kind in "${kinds[@]}"; do
	printf '[diff-%s]\ndriver = sqlite\npath = %s.layer\n' "$kind" "$kind"
	printf '[%s]\ndriver = layered\nbelow = diff-%s, base\n' "$kind" "$kind"
done)
EOT

# What one machine does.
work_as() {
	local kind=$1 force=-f

	[ "$kind" = ext4 ] && force=-F
	"mkfs.$kind" -q $force "$mnt/$kind.img" && mount -o loop "$mnt/$kind.img" "$kind" || return
	cp -a system/. "$kind/" && yes "this belongs to $kind" | head -c 4000000 >"$kind/mark" &&
		sync -f "$kind" && rm -rf "$kind/etc" && umount "$kind"
}

at_the_same_time() {
	local kind pids=()

	for kind in "${kinds[@]}"; do
		cleanup_fn unmount_lazily "$work/$kind"
		work_as "$kind" >"$kind.log" 2>&1 &
		pids+=($!)
	done
	for kind in "${kinds[@]}"; do
		wait "${pids[0]}" || not_ok "$kind: status $?: $(cat "$kind.log")"
		pids=("${pids[@]:1}")
	done
}

same_content() {
	local kind

	check cmp base.copy base.raw
	for kind in "${kinds[@]}"; do
		mount -o loop,ro "$mnt/$kind.img" "$kind" || not_ok "cannot mount $kind"
		check diff -r --no-dereference --exclude=etc --exclude=mark system "$kind"
		[ ! -e "$kind/etc" ] || not_ok "$kind: what was removed is there"
		check_output 4000000 stat -c %s "$kind/mark"
		check cmp <(yes "this belongs to $kind" | head -c 4000000) "$kind/mark"
		check umount "$kind"
	done
}

# No sector differs from the image where the diff has nothing, and the diffs share nothing.
own_changes_only() {
	local kind other

	for kind in "${kinds[@]}"; do
		cp --sparse=always "$mnt/$kind.img" want.$kind
	done
	end_disks
	for kind in "${kinds[@]}"; do
		diskfs map --json "$conf" "$kind" >map.json || not_ok "no map of $kind"
		check python3 - "$kind" <<'PY'
import json, sys
kind = sys.argv[1]
with open("base.raw", "rb") as base, open("want." + kind, "rb") as want:
    for run in json.load(open("map.json")):
        base.seek(run["offset"]), want.seek(run["offset"])
        if run["layer"] == "base" and base.read(run["length"]) != want.read(run["length"]):
            sys.exit(f"{run} differs, and is not in the diff")
PY
		for other in "${kinds[@]}"; do
			if [ "$other" = "$kind" ]; then
				grep -qaF "this belongs to $other" "$kind.layer" || not_ok "$kind lacks its own mark"
			else
				! grep -qaF "this belongs to $other" "$kind.layer" || not_ok "$kind has what is of $other"
			fi
		done
	done
	mount_disks "$conf"
}

mount_disks "$conf"
test_case "three file systems are made and filled" at_the_same_time
test_case "each has its own content" same_content
test_case "each diff has its own changes, and they are all" own_changes_only
test_case "and after a restart" same_content
end_disks
