#!/bin/bash
# SPDX-License-Identifier: MIT
# Stripe sets as files: what lies where on the members, checked data, file systems, holes, a member
# that fails, and what is wrong with a configuration.
. "$(dirname "$0")/lib.sh"
requires fio python3 qemu-img mkfs.ext4 e2fsck debugfs setfattr
requires_fuse

# members DRIVER NAME COUNT LINE...: sections NAME0, NAME1 ...
members() {
	local driver=$1 name=$2 count=$3 i

	shift 3
	for ((i = 0; i < count; i++)); do
		echo "[$name$i]"
		echo "driver = $driver"
		[ "$driver" != file ] || echo "path = $name$i.raw"
		printf '%s\n' "$@"
	done
}

# Three files with odd chunks; four with 4096-byte sectors, bypassing the cache; one in the other.
config <<EOT
$(members file odd 3 "size = 8M")
[odd]
driver = striped
below = odd0, odd1, odd2
chunk_size = 2560
size = 20M

$(members file large 4 "size = 8M" "sector_size = 4096" "direct = yes")
[large]
driver = striped
below = large0, large1, large2, large3

$(members ram inner 2 "size = 16M")
[inner]
driver = striped
below = inner0, inner1
chunk_size = 4K
[outer0]
driver = ram
size = 32M
[bad]
driver = fault
below = outer0
[outer]
driver = striped
below = bad, inner
chunk_size = 64K
EOT

# What the members of a stripe set make together, by its definition.
unstripe() {
	python3 - "$@" <<'PY'
import sys
chunk, size = int(sys.argv[1]), int(sys.argv[2])
members = [open(path, "rb").read() for path in sys.argv[3:]]
for at in range(0, size, chunk):
    row, column = divmod(at // chunk, len(members))
    sys.stdout.buffer.write(members[column][row * chunk:row * chunk + min(chunk, size - at)])
PY
}

same_as_members() {
	check cmp <(unstripe 2560 20971520 "$work"/odd[012].raw) "$mnt/odd.img"
	check cmp <(unstripe 131072 33554432 "$work"/large[0123].raw) "$mnt/large.img"
}

places() {
	local disk

	check_equal 20971520 "$(stat -c %s "$mnt/odd.img")"
	check_equal 33554432 "$(stat -c %s "$mnt/large.img")"
	random_file "$work/random" 33554432 7
	for disk in odd large; do
		check dd if="$work/random" of="$mnt/$disk.img" bs=700001 conv=notrunc,fsync \
			count="$(stat -c %s "$mnt/$disk.img")" iflag=count_bytes
		check cmp -n "$(stat -c %s "$mnt/$disk.img")" "$work/random" "$mnt/$disk.img"
	done
	same_as_members
}

# verify DISK OPTION...
verify() {
	local disk=$1

	shift
	check fio --name="$disk" --filename="$mnt/$disk.img" --size=20M --allow_file_create=0 \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --invalidate=0 \
		--fallocate=none --output-format=terse --aux-path="$work" --ioengine=io_uring "$@"
}

checksums() {
	local disk=$1

	verify "$disk" --iodepth=32 --direct=1 --rw=randwrite --bs=4k --io_size=8M
	verify "$disk" --iodepth=16 --direct=1 --rw=randwrite --bsrange=512-300k --bs_unaligned=0 \
		--blockalign=512 --norandommap=0 --io_size=16M
	verify "$disk" --iodepth=4 --direct=1 --rw=write --bs=1M
	verify "$disk" --iodepth=8 --direct=0 --rw=randwrite --bsrange=700-90000 --bs_unaligned=1 \
		--io_size=8M
}

file_system() {
	mkdir -p "$work/tree/folder"
	random_file "$work/tree/one" 3000000 1
	random_file "$work/tree/folder/two" 70000 2
	check mkfs.ext4 -q -F -d "$work/tree" "$mnt/large.img"
	check e2fsck -f -n "$mnt/large.img"
	mkdir "$work/back"
	check debugfs -R "rdump / $work/back" "$mnt/large.img"
	check diff -r "$work/tree" "$work/back" --exclude=lost+found
	unstripe 131072 33554432 "$work"/large[0123].raw >"$work/whole"
	check qemu-img compare -f raw -F raw "$mnt/large.img" "$work/whole"
}

# extents IMAGE: offset, length and kind of each.
extents() {
	qemu-img map -f raw --output=json "$1" | python3 -c '
import json, sys
print(*("%d+%d%s" % (e["start"], e["length"], "=" if e["data"] else "0") for e in json.load(sys.stdin)))'
}

holes() {
	local disk=$1 blocks

	check fileop "$mnt/$disk.img" fallocate punch,keep 0 64M
	check_equal 0 "$(stat -c %b "$mnt/$disk.img")" blocks
	check_output "0+$(stat -c %s "$mnt/$disk.img")0" extents "$mnt/$disk.img"
	# One run over all members, from the middle of a chunk to the middle of another.
	check fileop "$mnt/$disk.img" pwrite 1028K 2M 3
	check_output "0+10526720 1052672+2097152= 3149824+$(($(stat -c %s "$mnt/$disk.img") - 3149824))0" \
		extents "$mnt/$disk.img"
	blocks=$(stat -c %b "$mnt/$disk.img")
	[ "$blocks" = 4096 ] || not_ok "$blocks blocks instead of 4096"
	check fileop "$mnt/$disk.img" fallocate punch,keep 1500K 4096
	check_output "same
same
same" fileop "$mnt/$disk.img" all 1028K 472K 3 all 1500K 4096 0 all 1504K 1572K 3
}

# The members of large and inner have blocks of 4096 bytes, and so do their chunks.
holes_of_files() {
	# So that no cache says that there is data.
	check fileop "$mnt/large.img" fsync
	holes large
	check_equal "$(stat -c %b "$mnt/large.img")" \
		"$(($(stat -c %b "$work"/large[0123].raw | paste -sd +)))" "the sum of the members' blocks"
}

failing_member() {
	check setfattr -n user.diskfs.bad.rules -v "write error=ENOSPC range=1M-2M, flush error=ETIMEDOUT" \
		"$mnt/outer.img"
	# 2M..4M of the disk lies on 1M..2M of each member; the odd chunks are not the bad one's.
	check_output "ENOSPC
65536
ENOSPC
ETIMEDOUT" fileop -o direct "$mnt/outer.img" pwrite 2M 4096 1 pwrite 2112K 64K 2 pwrite 2112K 128K 3 fsync
	# The others have done their part of what failed.
	check_output same fileop -o direct "$mnt/outer.img" all 2112K 64K 3
	check setfattr -n user.diskfs.bad.rules -v "" "$mnt/outer.img"
	check_output "131072
0
same" fileop -o direct "$mnt/outer.img" pwrite 2M 128K 4 fsync all 2M 128K 4
}

status() {
	check_match '^ *type: striped' cat "$mnt/.status"
	check python3 - "$mnt/.status.json" <<'PY'
import json, sys
odd = json.load(open(sys.argv[1]))["images"]["odd.img"]
assert odd["members"] == 3 and odd["chunk_size"] == 2560, odd
assert [below["node"] for below in odd["below"]] == ["odd0", "odd1", "odd2"], odd
assert all(below["operations"]["write"]["bytes"] > 6 << 20 for below in odd["below"])
PY
	check_output zeroes getfattr --absolute-names --only-values -n user.diskfs.unmap "$mnt/large.img"
	check_output 4096 getfattr --absolute-names --only-values -n user.diskfs.sector_size "$mnt/large.img"
}

mount_disks "$conf"
test_case "what lies where" places
for disk in odd large outer; do
	test_case "$disk: checksums" checksums $disk
done
test_case "the members hold what was written" same_as_members
test_case "a file system" file_system
test_case "holes over files" holes_of_files
test_case "holes in memory" holes outer
test_case "a member that fails" failing_member
test_case "what .status says" status
end_disks

mount_disks "$conf"
test_case "the next mount finds it" same_as_members
end_disks

# ---- mistakes ------------------------------------------------------------------------------------

# mistake MESSAGE LINE...: with these lines in the section of the stripe set, after members a and b.
mistake() {
	local message=$1

	shift
	{
		printf '[a]\ndriver = ram\nsize = 1M\n[b]\ndriver = ram\nsize = 1M\n'
		printf '[odd]\ndriver = ram\nsize = 1M\nsector_size = 4096\n[less]\ndriver = ram\nsize = 512K\n'
		printf '[s]\ndriver = striped\n'
		printf '%s\n' "$@"
	} >"$work/mistake.conf"
	check_match "$message" diskfs --check "$work/mistake.conf"
	check_fails 1 diskfs "$work/mistake.conf" "$mnt"
}

mistakes() {
	mistake "\[s\] below: the sectors of 'odd' have 4096 bytes, those of 'a' 512" "below = a, odd"
	mistake "\[s\] below: 'less' has 524288 bytes, 'a' 1048576: they must be equal, or size" \
		"below = a, b, less"
	mistake "\[s\] below: 'less' has 524288 bytes, less than a chunk of 1048576" \
		"below = a, less" "chunk_size = 1M" "size = 1M"
	mistake "\[s\] chunk_size: 1000 is no multiple of the sector size of 512" \
		"below = a, b" "chunk_size = 1000"
	mistake "\[s\] chunk_size: '0' is out of range" "below = a, b" "chunk_size = 0"
	mistake "\[s\] size: more than the 2097152 bytes" "below = a, b" "size = 3M"
	mistake "\[s\] size: 1000 is no multiple" "below = a, b" "size = 1000"
	mistake "\[s\] below: 'a' is named twice" "below = a, a"
	mistake "\[s\] below: driver 'striped' takes 1 to 512 disks below, not 0" "size = 1M"
}

test_case "mistakes in the configuration" mistakes
