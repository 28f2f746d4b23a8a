#!/bin/bash
# SPDX-License-Identifier: MIT
# Disks that change their size while they are mounted: from below, by truncate, under load; and whoever
# looks, by whatever way and cache policy, sees the new size and nothing stale.
. "$(dirname "$0")/lib.sh"
requires fio python3 getfattr setfattr qemu-img
requires_fuse

M=1048576
helper="$(dirname "$0")/resize.py"

set_ram_size() {
	check setfattr -n user.diskfs.ram.size -v "$1" "$mnt/ram.img"
}

# ---- one mount for each policy -------------------------------------------------------------------

policy() {
	rm -f "$work"/*.raw
	truncate -s 8M "$work/file.raw" "$work/below.raw"
	random_file "$work/base.raw" $((4 * M)) 7
	config <<-EOT
		[diskfs]
		cache = $1

		[file]
		driver = file
		path = file.raw

		[ram]
		driver = ram
		size = 8M
		resizable = shrink

		[base]
		driver = file
		path = base.raw
		readonly = yes
		[diff]
		driver = ram
		[over]
		driver = layered
		below = diff, base

		[below]
		driver = file
		path = below.raw
		resizable = yes
		[crypt]
		driver = crypt
		below = below
		key_file = $work/key
		discard = pass
		[delay]
		driver = delay
		below = crypt
		[share]
		driver = prwrap
		below = delay
		file = a.img, b.img
	EOT
	mount_disks "$conf"
}

# The file below is made longer while it is open, mapped and cached above.
grows() {
	check fileop "$mnt/file.img" pwrite 0 8M 1
	check python3 "$helper" grow "$mnt/file.img" "$work/file.raw" $((8 * M)) $((16 * M))
	has_size file.img $((16 * M))
	check_output "1048576
0" fileop "$mnt/file.img" pwrite 15M 1M 2 fsync
	check_output same fileop "$work/file.raw" all 15M 1M 2
	# By less than a page, twice, where the last page is cached.
	check python3 "$helper" grow "$mnt/file.img" "$work/file.raw" $((16 * M)) $((16 * M + 512))
	check python3 "$helper" grow "$mnt/file.img" "$work/file.raw" $((16 * M + 512)) $((16 * M + 1536))
}

# Smaller, and larger again: nothing that was there is seen again, by no way.
shrinks() {
	check python3 "$helper" shrink "$mnt/ram.img" $((8 * M)) "$1"
	set_ram_size 8M
	has_size ram.img $((8 * M))
}

# A diff of no size of its own over a file that grows; and what it has of its own stays.
over_a_base() {
	check_output 65536 fileop "$mnt/over.img" pwrite 1M 64K 9
	random_file "$work/more" $((2 * M)) 8
	cat "$work/more" >>"$work/base.raw"
	has_size over.img $((6 * M))
	check cmp "$work/more" "$mnt/over.img" 0 $((4 * M))
	check_output "same
65536
same" fileop "$mnt/over.img" all 1M 64K 9 pwrite 5M 64K 10 all 5M 64K 10
	check cmp -n $((M)) "$mnt/over.img" "$work/base.raw"
}

# Both files of a shared disk, on wrappers: the file below grows, and then they are truncated.
on_wrappers() {
	check_output 65536 fileop "$mnt/a.img" pwrite 1M 64K 3
	truncate -s 12M "$work/below.raw"
	has_size a.img $((12 * M))
	has_size b.img $((12 * M))
	check truncate -s 20M "$mnt/b.img"
	has_size b.img $((20 * M))
	has_size a.img $((20 * M))
	check_equal $((20 * M)) "$(stat -c %s "$work/below.raw")" "the file below"
	check_match "Operation not permitted" truncate -s 19M "$mnt/a.img"
	check_output "same
same
65536
0" fileop "$mnt/a.img" all 1M 64K 3 all 12M 8M 0 pwrite 19M 64K 4 fsync
	check_output same fileop "$mnt/b.img" all 19M 64K 4
}

truncates() {
	local how

	has_size ram.img $((8 * M))
	check truncate -s +1M "$mnt/ram.img"
	has_size ram.img $((9 * M))
	check_output "0
0
65536" fileop "$mnt/ram.img" ftruncate 4M ftruncate 16M pwrite 15M 64K 5
	has_size ram.img $((16 * M))
	# To nothing, to no whole sectors, and what cannot be.
	check_output "EPERM
EPERM
EPERM" fileop "$mnt/ram.img" ftruncate 0 ftruncate 1000 ftruncate $((16 * M - 1))
	check_output EPERM fileop -o rdonly "$mnt/ram.img" truncate 0
	# As a block device does it, also here: a tool that empties the file before it writes changes
	# nothing.
	check dd if=/dev/zero of="$mnt/ram.img" bs=512 count=1
	check_output "" sh -c ": >'$mnt/ram.img'"
	has_size ram.img $((16 * M))
	check_output same fileop "$mnt/ram.img" all 15M 64K 5
	for how in 1M 17M; do
		check_match "Operation not permitted" truncate -s $how "$mnt/file.img"
		check_match "Operation not permitted|Read-only" truncate -s $how "$mnt/over.img"
	done
	check truncate -s 8M "$mnt/ram.img"
	has_size ram.img $((8 * M))
}

# When a direct write beyond what the kernel takes for the end fails, the kernel truncates the file to
# that, as if the writer did. It must not get what others have added meanwhile, of which it has not
# heard: behind_the_kernel FILEOP-ARGUMENT... .
behind_the_kernel() {
	local writer

	set_ram_size 8M
	has_size ram.img $((8 * M))
	fileop "$@" <"$work/hold" >"$work/late" &
	writer=$!
	exec 3>"$work/hold"
	wait_for 20 grep -qx $((8 * M)) "$work/late" || not_ok "the writer does not begin"
	# Nobody asks for the size of the file meanwhile.
	set_ram_size 16M
	exec 3>&-
	wait $writer
	has_size ram.img $((16 * M))
}

grown_behind_the_kernel() {
	mkfifo "$work/hold"
	behind_the_kernel "$mnt/ram.img" setdirect end hold pwrite 20M 4K 1
	check_output "$(printf '%s\n' 0 $((8 * M)) 0 ENOSPC)" cat "$work/late"
	behind_the_kernel -o direct "$mnt/ram.img" end hold aio_pwrite 20M 4K 1
	check_output "$(printf '%s\n' $((8 * M)) 0 0)" cat "$work/late"
	rm "$work/hold"
}

# Where the kernel keeps the size to itself, a smaller one shows as soon as nobody has the file open;
# what was in the cache is not lost by that.
smaller_when_closed() {
	local opener other

	set_ram_size 8M
	has_size ram.img $((8 * M))
	check_output 65536 fileop "$mnt/ram.img" pwrite 1M 64K 6
	set_ram_size 6M
	has_size ram.img $((6 * M))
	check_output same fileop "$mnt/ram.img" all 1M 64K 6
	mkfifo "$work/hold" "$work/hold2"
	fileop "$mnt/ram.img" pwrite 2M 64K 7 hold <"$work/hold" >/dev/null &
	opener=$!
	exec 3>"$work/hold"
	fileop "$mnt/ram.img" map_shared 3M 64K 97 8 hold <"$work/hold2" >/dev/null 3>&- &
	other=$!
	exec 4>"$work/hold2"
	set_ram_size 4M
	check wait_for 10 grep -q "had 6291456; with cache = writeback" "$work/log"
	check_output $((6 * M)) fileop "$mnt/ram.img" end
	exec 3>&-
	wait $opener
	check_output $((6 * M)) fileop "$mnt/ram.img" end
	exec 4>&-
	wait $other
	has_size ram.img $((4 * M))
	check_output "same
same
same" fileop "$mnt/ram.img" all 1M 64K 6 all 2M 64K 7 all 3M 64K 8
	rm "$work/hold" "$work/hold2"
}

random_file "$work/key" 64 1
chmod 600 "$work/key"
for cache in none writethrough writeback; do
	policy $cache
	test_case "$cache: a file grows" grows
	test_case "$cache: a disk becomes smaller, and larger again" shrinks $cache
	test_case "$cache: a diff over a base that grows" over_a_base
	test_case "$cache: wrappers" on_wrappers
	test_case "$cache: truncate" truncates
	if [ $cache = writeback ]; then
		test_case "$cache: smaller when it is closed" smaller_when_closed
	else
		test_case "$cache: grown behind the kernel's back" grown_behind_the_kernel
	fi
	end_disks
done

# ---- load ----------------------------------------------------------------------------------------

config <<EOT
[quick]
driver = file
path = quick.img
size = 16M
resizable = shrink

[slow]
driver = file
path = slow.img
size = 16M
resizable = shrink
[late]
driver = fault
below = slow
[both]
driver = prwrap
below = late
file = a.img, b.img

[left]
driver = file
path = left.raw
size = 8M
resizable = shrink
[right]
driver = ram
size = 8M
resizable = shrink
[striped]
driver = striped
below = left, right

[fixed]
driver = ram
size = 8M
[growing]
driver = file
path = growing.raw
size = 8M
resizable = yes
[uneven]
driver = striped
below = growing, fixed
EOT

# Requests that are under way beyond the new end when it comes, or across it. (Of one file the kernel
# keeps them apart; so it is truncated by another.)
in_flight_when_cut() {
	local beyond across

	check setfattr -n user.diskfs.late.rules -v "write hang" "$mnt/a.img"
	fileop -o direct "$mnt/a.img" pwrite 12M 64K 6 pread 12M 64K >"$work/beyond" &
	beyond=$!
	fileop -o direct "$mnt/a.img" pwrite 8176K 64K 7 >"$work/across" &
	across=$!
	wait_for 20 has_in_flight a.img write 2 || not_ok "no writes are under way"
	check truncate -s 8M "$mnt/b.img"
	check setfattr -n user.diskfs.late.rules -v "" "$mnt/b.img" # of a.img it would wait for the writes
	wait $beyond
	wait $across
	check_output "ENOSPC
0" cat "$work/beyond"
	check_output 16384 cat "$work/across"
	has_size a.img $((8 * M))
	check_equal $((8 * M)) "$(stat -c %s "$work/slow.img")" "the file below"
	check truncate -s 16M "$mnt/b.img"
	check_output "same
same" fileop "$mnt/a.img" all 8176K 16K 7 all 8M 8M 0
}

# verify IMAGE BYTES DONE: fio until the file DONE is there.
verify() {
	until [ -e "$3" ]; do
		fio --name=verify --filename="$1" --allow_file_create=0 --size="$2" --io_size="$2" \
			--rw=randwrite --bsrange=512-64k --ioengine=libaio --iodepth=16 --direct=1 \
			--verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --invalidate=0 \
			--fallocate=none --output-format=terse --aux-path="$work" || return
	done
}

# under_load IMAGE SMALL LARGE COMMAND...: resizes by the command, with a size behind it, while what is
# always there is verified, and everywhere else is read and written.
under_load() {
	local image=$1 small=$2 large=$3 verifier writer i

	shift 3
	rm -f "$work/done"
	verify "$mnt/$image" "$small" "$work/done" >"$work/verify" 2>&1 &
	verifier=$!
	python3 "$helper" load "$mnt/$image" "$small" "$large" "$work/done" >"$work/load" 2>&1 &
	writer=$!
	for i in 1 2 3 4; do
		sleep 0.2
		check "$@" "$small"
		has_size "$image" "$small"
		sleep 0.2
		check "$@" "$large"
		has_size "$image" "$large"
	done
	: >"$work/done"
	wait $verifier || not_ok "fio: $(cat "$work/verify")"
	wait $writer || not_ok "$(cat "$work/load")"
	check_match "beyond the end: [1-9]" cat "$work/load"
}

truncate_to() {
	truncate -s "$1" "$mnt/$image"
}

# All members, each its share, or none.
on_members() {
	check truncate -s 20M "$mnt/striped.img"
	has_size striped.img $((20 * M))
	check_equal $((10 * M)) "$(stat -c %s "$work/left.raw")" "the file below"
	check_output "65536
same
0" fileop "$mnt/striped.img" pwrite 19M 64K 3 all 19M 64K 3 fsync
	# No whole rows.
	check_match "Operation not permitted" truncate -s $((12 * M + 131072)) "$mnt/striped.img"
	check truncate -s 12M "$mnt/striped.img"
	has_size striped.img $((12 * M))
	check_equal $((6 * M)) "$(stat -c %s "$work/left.raw")" "the file below"
	check truncate -s 16M "$mnt/striped.img"
	check_output same fileop "$mnt/striped.img" all 12M 4M 0
	# One of these may not.
	check_match "Operation not permitted" truncate -s 20M "$mnt/uneven.img"
	has_size uneven.img $((16 * M))
	check_equal $((8 * M)) "$(stat -c %s "$work/growing.raw")" "the file below"
}

mount_disks "$conf"
test_case "truncated while requests are under way" in_flight_when_cut
test_case "truncated under load, both ways" under_load quick.img $((4 * M)) $((16 * M)) truncate_to
test_case "truncated with all that a stripe set is made of" on_members
test_case "a stripe set, truncated under load" under_load striped.img $((4 * M)) $((16 * M)) truncate_to
end_disks

# Killed while the kernel is being told of new sizes: nothing of the daemon waits for the mount, so it
# goes, and with it everybody who asks.
killed() {
	local i client image=quick.img

	for i in 1 2 3; do
		mount_disks "$conf"
		rm -f "$work/done"
		python3 "$helper" load "$mnt/quick.img" $((4 * M)) $((16 * M)) "$work/done" \
			>"$work/load" 2>&1 &
		client=$!
		while size=$(((RANDOM % 2 * 12 + 4) * M)); do
			truncate_to $size 2>/dev/null || break
		done &
		sleep 0.$((RANDOM % 5 + 3))
		kill_disks
		wait_for 10 dead $client || not_ok "a client waits for ever"
		wait
		wait_for 10 unmount "$mnt" || not_ok "cannot unmount"
	done
}

test_case "killed while it is being resized" killed

# ---- loop devices and QEMU -----------------------------------------------------------------------

# By its file, and by a limit: under load the loop device itself would make a file longer again.
resize_file() {
	truncate -s "$1" "$work/loop.raw" && losetup -c "$loop"
}

resize_loop() {
	python3 "$helper" limit "$loop" "$1"
}

by_its_file() {
	local size

	for size in $((24 * M)) $((8 * M)) $((32 * M)); do
		check resize_file $size
		has_size dev.img $size
	done
	check_output "1048576
0" fileop "$mnt/dev.img" pwrite 31M 1M 5 fsync
	check_output same fileop "$work/loop.raw" all 31M 1M 5
	check resize_file $((16 * M))
	check_output ENOSPC fileop -o direct "$mnt/dev.img" pwrite 31M 64K 6
	has_size dev.img $((16 * M))
	check resize_file $((32 * M))
	has_size dev.img $((32 * M))
	check_output same fileop "$mnt/dev.img" all 31M 1M 0
}

# By the kernel's word, where that can be had: sooner than anybody looks by himself. (Attributes are
# not asked for: that would make it look, too.)
by_events() {
	check python3 "$helper" events "$loop" "$work/log" $((16 * M))
	check resize_loop $((32 * M))
	has_size dev.img $((32 * M))
}

# A loop device on an image follows when it is told to.
loop_on_top() {
	local top

	top=$(losetup -f --show "$mnt/ram.img") || { not_ok "no loop device"; return; }
	cleanup_fn free_loop "$top"
	check_output $((8 * M)) blockdev --getsize64 "$top"
	check truncate -s 24M "$mnt/ram.img"
	check losetup -c "$top"
	check_output $((24 * M)) blockdev --getsize64 "$top"
	check dd if=/dev/urandom of="$top" bs=1M seek=20 count=4 oflag=direct
	check cmp "$mnt/ram.img" "$top"
	check truncate -s 8M "$mnt/ram.img"
	check losetup -c "$top"
	check_output $((8 * M)) blockdev --getsize64 "$top"
	check losetup -d "$top"
}

if [ "$(id -u)" = 0 ] && losetup -f >/dev/null 2>&1; then
	truncate -s 16M "$work/loop.raw"
	loop=$(losetup -f --show --direct-io=on "$work/loop.raw") ||
		loop=$(losetup -f --show "$work/loop.raw")
	cleanup_fn free_loop "$loop"
	config <<-EOT
		[dev]
		driver = blockdev
		path = $loop

		[ram]
		driver = ram
		size = 8M
		resizable = shrink
	EOT
	mount_disks "$conf"
	test_case "a loop device below, by its file" by_its_file
	if python3 "$helper" hears "$loop"; then
		test_case "a loop device below, by events" by_events
	else
		skip_case "a loop device below, by events" "the kernel sends none here"
	fi
	test_case "a loop device below, both ways, under load" \
		under_load dev.img $((8 * M)) $((32 * M)) resize_loop
	test_case "a loop device on top" loop_on_top
	end_disks
	losetup -d "$loop"
else
	skip_case "loop devices" "none here"
fi

# A machine that runs, stopped before its first instruction: its disk has the new size when it is told.
in_qemu() {
	check python3 "$helper" qemu "$mnt" "$work"
}

if command -v qemu-system-x86_64 >/dev/null; then
	truncate -s 8M "$work/file.raw"
	config <<-EOT
		[file]
		driver = file
		path = file.raw

		[ram]
		driver = ram
		size = 8M
		resizable = yes
	EOT
	mount_disks "$conf"
	test_case "QEMU, block_resize" in_qemu
	end_disks
else
	skip_case "QEMU, block_resize" "no qemu-system-x86_64"
fi
