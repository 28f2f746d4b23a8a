#!/bin/bash
# SPDX-License-Identifier: MIT
# What a file user sees: every operation on an image, with its exact result.
. "$(dirname "$0")/lib.sh"
requires python3 getfattr setfattr
requires_fuse

mib=1048576
size=$((8 * mib))
config <<EOT
[file]
driver = file
path = file.img
size = 8M

[file4k]
driver = file
path = file4k.img
size = 8M
sector_size = 4096

[ram]
driver = ram
size = 8M

[ram4k]
driver = ram
size = 8M
sector_size = 4096

[null]
driver = null
size = 8M

[odd]
driver = ram
size = 8389120

[ro]
driver = file
path = ro.img
readonly = yes

[quoted]
; a name that every format has to escape
driver = null
file = '"a" <b> {c}; \ü.img'
EOT
random_file "$work/ro.img" $size
writable="file file4k ram ram4k"

each() {
	local disk

	for disk in $writable; do
		"$1" "$mnt/$disk.img"
	done
}

# A disk of bytes 1, with nothing cached.
fill() {
	check_output $size fileop -o direct "$1" pwrite 0 $size 1
}

# ---- reading and writing -------------------------------------------------------------------------

direct_alignment() {
	check_output EINVAL fileop -o direct "$1" pread 0 1
	check_output EINVAL fileop -o direct "$1" pread 0 511
	check_output EINVAL fileop -o direct "$1" pread 1 512
	check_output EINVAL fileop -o direct "$1" pread 511 4096
	check_output EINVAL fileop -o direct "$1" pwrite 0 1 1
	check_output EINVAL fileop -o direct "$1" pwrite 4097 4096 1
	check_output EINVAL fileop -o direct "$1" pwrite 4096 4095 1
	check_output 512 fileop -o direct "$1" pread 512 512
	check_output 512 fileop -o direct "$1" pwrite 512 512 1
	check_output 4096 fileop -o direct "$1" pwrite 512 4096 1
	check_output 4096 fileop -o direct "$1" pread 8192 4096
	check_output "0
EINVAL
512" fileop "$1" setdirect pread 0 100 pread 0 512
}

misaligned_memory() {
	check_output "65536
same" fileop -o direct -m 512 "$1" pwrite 4096 64K 51 all 4096 64K 51
	check_output "65536
same" fileop -m 1 "$1" pwrite 4096 64K 52 all 4096 64K 52
}

partial_sectors() {
	fill "$1"
	check_output "1
same
same
same" fileop "$1" pwrite 5000 1 9 all 0 5000 1 all 5000 1 9 all 5001 5000 1
	check_output "512
same
same
same" fileop -o direct "$1" pwrite 5120 512 8 all 5632 512 1 all 5120 512 8 all 8192 4096 1
	# Over several sectors, with both ends inside one.
	check_output "100000
same
same
same" fileop "$1" pwrite 100001 100000 7 all 90000 10001 1 all 100001 100000 7 all 200001 9999 1
}

past_the_end() {
	check_output 100 fileop "$1" pread $((size - 100)) 1000
	check_output 0 fileop "$1" pread $size 1000
	check_output 0 fileop "$1" pread $((size + 5000)) 1000
	check_output 0 fileop -o direct "$1" pread $size 4096
	check_output 512 fileop -o direct "$1" pread $((size - 512)) 4096
	check_output 100 fileop "$1" pwrite $((size - 100)) 1000 3
	check_output ENOSPC fileop "$1" pwrite $size 1000 3
	check_output ENOSPC fileop "$1" pwrite 1G 1 3
	check_output 512 fileop -o direct "$1" pwrite $((size - 512)) 4096 3
	check_output ENOSPC fileop -o direct "$1" pwrite $size 4096 3
	check_output $size stat -c %s "$1"
	check_output $size fileop "$1" end
	check_fails 1 dd if=/dev/zero of="$1" bs=1M
	check_match 'No space left on device' dd if=/dev/zero of="$1" bs=1M
	check_output $size stat -c %s "$1"
}

appending() {
	check_output ENOSPC fileop -o append "$1" write 10 1
	check_output $size stat -c %s "$1"
}

synchronous() {
	check_output "4096
same" fileop -o dsync "$1" pwrite 0 4096 21 all 0 4096 21
	check_output "4096
same" fileop -o sync,direct "$1" pwrite 0 4096 22 all 0 4096 22
	check_output "0
0" fileop "$1" fsync fdatasync
}

# ---- size ----------------------------------------------------------------------------------------

truncating() {
	fill "$1"
	check_output "0
0" fileop "$1" truncate $size ftruncate $size
	check_output "EPERM
EPERM
EPERM
EPERM" fileop "$1" truncate $((size - 1)) ftruncate 0 ftruncate $((size + 1)) ftruncate 1G
	# Unlike this one, O_TRUNC is ignored, although the kernel makes the same of it.
	check_output EPERM fileop -o rdonly "$1" truncate 0
	check_output same fileop -o trunc "$1" all 0 $size 1
	check_output same fileop -o creat,trunc "$1" all 0 $size 1
	check_output $size stat -c %s "$1"
	check dd if=/dev/zero of="$1" bs=4096 count=1
	check_output "same
same" fileop "$1" all 0 4096 0 all 4096 $((size - 4096)) 1
}

block_ioctls() {
	check_output "$size
ENOTTY
ENOTTY
ENOTTY" fileop "$1" size64 sector_size ioctl 0x1260 ioctl 0x40101234
}

# ---- holes ---------------------------------------------------------------------------------------

# zeroing IMAGE MODE: at every alignment, to the byte.
zeroing() {
	local offset length

	for offset in 0 1 511 512 4096 4097 1048575; do
		for length in 1 511 512 4096 5000 1048577; do
			fill "$1"
			check_output "0
same
same" fileop "$1" fallocate "$2" $offset $length all $offset $length 0 \
				all $((offset + length)) 100000 1 || return
			[ $offset = 0 ] || check_output same fileop "$1" all 0 $offset 1 || return
		done
	done
}

punching() {
	zeroing "$1" punch,keep
}

zeroing_range() {
	zeroing "$1" zero,keep
}

zeroing_at_the_end() {
	local mode

	for mode in punch,keep zero,keep; do
		fill "$1"
		check_output "0
0" fileop "$1" fallocate $mode $size 1 fallocate $mode 1G 1
		check_output "0
same
same" fileop "$1" fallocate $mode $((size - 100)) 10000 all $((size - 100)) 100 0 \
			all $((size - 1100)) 1000 1
		check_output $size stat -c %s "$1"
	done
	fill "$1"
	check_output "0
same" fileop "$1" fallocate zero $((size - 100)) 100 all $((size - 100)) 100 0
	check_output $size stat -c %s "$1"
}

preallocating() {
	fill "$1"
	check_output "0
0
0
same" fileop "$1" fallocate plain 0 $size fallocate plain 100 100 fallocate keep 0 $size \
		all 0 $size 1
}

unknown_modes() {
	check_output "EOPNOTSUPP
EOPNOTSUPP
EOPNOTSUPP" fileop "$1" fallocate collapse 0 4096 fallocate insert 0 4096 fallocate unshare 0 4096
	check_output $size stat -c %s "$1"
}

allocated_blocks() {
	stat -c %b "$1"
}

space_returns() {
	local full

	fill "$1"
	fileop "$1" fsync >/dev/null
	full=$(allocated_blocks "$1")
	[ "$full" -ge $((size / 512)) ] || not_ok "$1: $full blocks when full"
	check_output 0 fileop "$1" fallocate punch,keep 0 $((4 * mib))
	# A file in many pieces takes a few blocks of its file system to list them.
	[ "$(allocated_blocks "$1")" -le $((full - 4 * mib / 512 + 64)) ] ||
		not_ok "$1: $(allocated_blocks "$1") blocks of $full after a punch of half"
	check_output 0 fileop "$1" fallocate punch,keep 0 $size
	[ "$(allocated_blocks "$1")" -le 64 ] ||
		not_ok "$1: $(allocated_blocks "$1") blocks after all was punched"
}

backing_space_returns() {
	[ "$(du -k "$work/file.img" | cut -f 1)" -le 64 ] || not_ok "$(du -k "$work/file.img")"
	[ "$(du -k "$work/file4k.img" | cut -f 1)" -le 64 ] || not_ok "$(du -k "$work/file4k.img")"
}

seeking() {
	check_output 0 fileop "$1" fallocate punch,keep 0 $size
	check_output "ENXIO
0" fileop "$1" data 0 hole 0
	check_output $mib fileop "$1" pwrite 1M 1M 5
	check_output "$mib
$((2 * mib))
0
$((mib + 4096))
ENXIO
ENXIO
ENXIO" fileop "$1" data 0 hole 1M hole 0 data $((mib + 4096)) data 2M data $size hole $size
	fill "$1"
	check_output "0
$size
$((size - 1))
$size" fileop "$1" data 0 hole 0 data $((size - 1)) hole $((size - 1))
}

# ---- read-only -----------------------------------------------------------------------------------

read_only() {
	check_output EROFS fileop "$mnt/ro.img" pread 0 1
	check_output EROFS fileop -o wronly "$mnt/ro.img" pread 0 1
	check_output "4096
0
0" fileop -o rdonly "$mnt/ro.img" pread 0 4096 fsync fdatasync
	check cmp "$work/ro.img" "$mnt/ro.img"
	check_fails 1 dd if=/dev/zero of="$mnt/ro.img" bs=4096 count=1
	check_output 400 stat -c %a "$mnt/ro.img"
}

# ---- locks and maps ------------------------------------------------------------------------------

# Another process holds the lock: ours is refused, and granted after it has gone.
locked_by_another() {
	local holder

	rm -f "$work/fifo"
	mkfifo "$work/fifo"
	: >"$work/out"
	fileop "$mnt/ram.img" "$@" hold <"$work/fifo" >"$work/out" &
	holder=$!
	exec 9>"$work/fifo"
	wait_for 10 grep -q . "$work/out"
	check_output EAGAIN fileop "$mnt/ram.img" "$@"
	exec 9>&-
	wait "$holder"
	check_output 0 fileop "$mnt/ram.img" "$@"
}

backing_locked() {
	mkdir "$work/mnt2"
	cleanup_fn unmount_lazily "$work/mnt2"
	printf '[file]\ndriver = file\npath = file.img\n' >"$work/second.conf"
	check_fails 1 diskfs "$work/second.conf" "$work/mnt2"
	! mounted "$work/mnt2" || not_ok "a second diskfs has mounted the same backing file"
	if command -v qemu-io >/dev/null; then
		check_fails 1 qemu-io -f raw -c 'write 0 512' "$work/file.img"
	fi
	# Readers of a read-only disk may be many.
	printf '[ro]\ndriver = file\npath = ro.img\nreadonly = yes\n' >"$work/second.conf"
	check diskfs "$work/second.conf" "$work/mnt2"
	check cmp "$work/ro.img" "$work/mnt2/ro.img"
	check unmount "$work/mnt2"
}

mapping() {
	fill "$1"
	check_output "0
same" fileop "$1" map_shared 4096 64K 1 33 all 4096 64K 33
	check_output same fileop -o direct "$1" all 4096 64K 33
	check_output "0
same" fileop "$1" map_private 4096 64K 33 44 all 4096 64K 33
	check_output "8192
0" fileop "$1" pwrite 4096 8192 34 map_shared 4096 8192 34 35
}

# ---- attributes ----------------------------------------------------------------------------------

attribute() {
	getfattr --absolute-names --only-values -n "user.diskfs.$2" "$mnt/$1.img"
}

attributes() {
	check_output file attribute file type
	check_output ram attribute ram4k type
	check_output null attribute null type
	check_output 512 attribute file sector_size
	check_output 4096 attribute file4k sector_size
	check_match '^(512|4096)$' attribute file physical_sector_size
	check_output 4096 attribute ram4k physical_sector_size
	check_output 16384 attribute file sector_count
	check_output 2048 attribute file4k sector_count
	check_output 16385 attribute odd sector_count
	check_match 'No such attribute' attribute ram disk_id
	check_match '^(no|false|0)$' attribute file read_only
	check_match '^(yes|true|1)$' attribute ro read_only
	check_match '^(yes|true|1)$' attribute file fua
	check_match '^(zeroes|unspecified|ignored)$' attribute file unmap
	check_output zeroes attribute ram unmap
	check_match '^[1-9][0-9]*$' attribute ram optimal_unmap_sectors
	check_match '^(none|no|false|0)?$' attribute file pr
	check_match 'No such attribute' attribute file nonsense
	check_match 'No such attribute' getfattr -n user.other "$mnt/file.img"
	check_fails 1 setfattr -n user.diskfs.type -v x "$mnt/file.img"
	check_fails 1 setfattr -x user.diskfs.type "$mnt/file.img"
}

attribute_list() {
	local name

	for name in type sector_size physical_sector_size sector_count read_only fua unmap \
		optimal_unmap_sectors inspect; do
		check_match "user.diskfs.$name=" getfattr -d "$mnt/file.img"
	done
	check_output "" getfattr -d "$mnt/.status"
}

inspecting() {
	attribute file4k inspect >"$work/inspect.json"
	check python3 -c '
import json, sys
tree = json.load(open(sys.argv[1]))
text = json.dumps(tree)
assert "file4k.img" in text and "4096" in text, text' "$work/inspect.json"
}

# ---- status --------------------------------------------------------------------------------------

status_text() {
	local disk

	for disk in file file4k ram ram4k null odd ro; do
		check_match "(^|[^a-z0-9])$disk([^a-z0-9]|\$)" cat "$mnt/.status"
	done
	[ "$(wc -c <"$mnt/.status")" -gt 500 ] || not_ok "$(cat "$mnt/.status")"
	check_output EACCES_or_EROFS refuses_writing .status
	# Any part of it can be read, also by one byte at a time.
	check dd if="$mnt/.status" of=/dev/null bs=1
	check tail -c 100 "$mnt/.status"
}

# Nobody writes the made-up files, root included.
refuses_writing() {
	case $(fileop -o wronly "$mnt/$1") in
	EACCES | EROFS | EPERM) echo EACCES_or_EROFS ;;
	*) echo "$1 can be opened for writing" ;;
	esac
}

status_json() {
	check python3 -c '
import json, sys
tree = json.load(open(sys.argv[1]))
text = json.dumps(tree)
for name in "file file4k ram ram4k null odd ro".split():
    assert "\"%s\"" % name in text or "\"%s.img\"" % name in text, name' "$mnt/.status.json"
	check_output EACCES_or_EROFS refuses_writing .status.json
}

metrics_are_read_only() {
	metrics_form
	check_output EACCES_or_EROFS refuses_writing .metrics
}

# The sum of all metrics of node ram that are called like requests of this operation, or bytes.
metric() {
	awk -v op="\"$1\"" -v what="$2" '
		!/^#/ && $1 ~ what && index($0, "\"ram\"") && index($0, op) && !/_bucket/ { sum += $NF }
		END { printf "%.0f\n", sum }' "$mnt/.metrics"
}

# The JSON says of each image what stat and the attributes say.
status_numbers() {
	check python3 - "$mnt" <<'PY'
import json, os, sys
tree = json.load(open(sys.argv[1] + "/.status.json"))
for name, image in tree["images"].items():
    stat = os.stat(sys.argv[1] + "/" + name)
    assert image["size"] == stat.st_size, name
    for key in ("sector_count", "sector_size", "physical_sector_size", "optimal_unmap_sectors"):
        value = os.getxattr(sys.argv[1] + "/" + name, "user.diskfs." + key).decode()
        assert str(image[key]) == value, (name, key, image[key], value)
    assert image["sector_count"] * image["sector_size"] == image["size"], name
    for op in image["operations"].values():
        assert sum(op["latency_from_ns"].values()) == op["requests"], (name, op)
        assert op["in_flight"] == 0, (name, op)
assert len(tree["images"]) == 8, tree["images"].keys()
PY
}

metrics_advance() {
	local reads writes bytes

	reads=$(metric read requests)
	writes=$(metric write requests)
	bytes=$(metric write bytes)
	check dd if=/dev/zero of="$mnt/ram.img" bs=4096 count=100 conv=notrunc oflag=direct
	check dd if="$mnt/ram.img" of=/dev/null bs=4096 count=50 iflag=direct
	check_equal $((reads + 50)) "$(metric read requests)" "reads"
	check_equal $((writes + 100)) "$(metric write requests)" "writes"
	check_equal $((bytes + 409600)) "$(metric write bytes)" "bytes written"
}

# ---- the folder ----------------------------------------------------------------------------------

refused() {
	check_match 'Permission denied|not permitted|Read-only' "$@"
}

folder_is_fixed() {
	refused touch "$mnt/new.img"
	refused mkdir "$mnt/folder"
	refused rm -f "$mnt/ram.img"
	refused mv "$mnt/ram.img" "$mnt/other.img"
	refused ln "$mnt/ram.img" "$mnt/other.img"
	refused ln -s ram.img "$mnt/link"
	refused mkfifo "$mnt/fifo"
	check test -f "$mnt/ram.img"
	check_equal 8 "$(find "$mnt" -name '*.img' | wc -l)" "number of images"
}

ownership() {
	check chmod 640 "$mnt/ram.img"
	check_output 640 stat -c %a "$mnt/ram.img"
	check chown "$(id -u):$(id -g)" "$mnt/ram.img"
	check touch "$mnt/ram.img"
	[ "$(id -u)" = 0 ] || return
	check chown 12:34 "$mnt/ram.img"
	check_output 12:34 stat -c %u:%g "$mnt/ram.img"
	check_output $size stat -c %s "$mnt/ram.img"
}

times() {
	local when wanted

	for when in 1969-12-31T23:59:58.25 1901-01-01 2100-07-01T12:00:00.5 2026-11-24T01:02:03.000000001; do
		check env TZ=UTC touch -d $when "$mnt/ram.img"
		wanted=$(date -ud $when "+%F %T.%N +0000")
		check_output "$wanted $wanted" env TZ=UTC stat -c "%y %x" "$mnt/ram.img"
	done
	# Beyond what is kept: the nearest, not a time of another age.
	check touch -d 2500-01-01T00:00:00Z "$mnt/ram.img"
	check_output 2262 date -ur "$mnt/ram.img" +%Y
	check touch -d 1500-01-01T00:00:00Z "$mnt/ram.img"
	check_output 1677 date -ur "$mnt/ram.img" +%Y
	check touch "$mnt/ram.img"
}

statistics() {
	local blocks

	check df "$mnt"
	check_match '^[1-9]' stat -f -c %S "$mnt"
	blocks=$(stat -f -c '%b' "$mnt")
	[ "$blocks" -gt 0 ] || not_ok "$blocks blocks"
	check_match '^(255|[1-9][0-9]+)$' stat -f -c %l "$mnt"
}

mount_disks "$conf"
test_case "O_DIRECT in multiples of 512, else EINVAL" each direct_alignment
test_case "buffers anywhere in memory" each misaligned_memory
test_case "writes smaller than a sector change nothing beside them" each partial_sectors
test_case "at the end: short, then ENOSPC; the size stays" each past_the_end
test_case "O_APPEND finds no room" each appending
test_case "O_SYNC, O_DSYNC, fsync, fdatasync" each synchronous
test_case "truncate to the same size, O_TRUNC" each truncating
test_case "BLKGETSIZE64 and other ioctls" each block_ioctls
test_case "PUNCH_HOLE to the byte" each punching
test_case "ZERO_RANGE to the byte" each zeroing_range
test_case "zeroing at the end" each zeroing_at_the_end
test_case "preallocation changes nothing" each preallocating
test_case "other modes of fallocate" each unknown_modes
test_case "st_blocks follows holes" each space_returns
test_case "holes give space back below" backing_space_returns
test_case "SEEK_DATA and SEEK_HOLE" each seeking
test_case "a read-only disk" read_only
test_case "flock" locked_by_another flock ex
test_case "open file description locks" locked_by_another ofd ex 100
test_case "backing files are locked" backing_locked
test_case "shared and private maps" each mapping
test_case "attributes" attributes
test_case "attributes are listed" attribute_list
test_case "the inspect attribute is JSON" inspecting
test_case ".status" status_text
test_case ".status.json" status_json
test_case ".status.json has the right numbers" status_numbers
test_case ".metrics has the form of Prometheus" metrics_are_read_only
test_case "counters count" metrics_advance
test_case "the folder cannot be changed" folder_is_fixed
test_case "chmod and chown are accepted" ownership
test_case "times of any age" times
test_case "df" statistics
end_disks

# ---- settings of the mount -----------------------------------------------------------------------

permissions() {
	{
		printf '[diskfs]\nuid = 1234\ngid = 2345\nmode = 0640\nallow_other = yes\n'
		cat "$conf"
	} >"$work/permissions.conf"
	mount_disks "$work/permissions.conf"
	check_output 1234:2345:640 stat -c %u:%g:%a "$mnt/ram.img"
	check_output 1234:2345:440 stat -c %u:%g:%a "$mnt/ro.img"
	if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
		# The folders above must let others pass.
		chmod 755 "$work" "$(dirname "$work")"
		check setpriv --reuid 1234 --regid 2345 --clear-groups dd if="$mnt/ram.img" of=/dev/null count=1
		check_match 'Permission denied' \
			setpriv --reuid 4321 --regid 4321 --clear-groups dd if="$mnt/ram.img" of=/dev/null count=1
	fi
	unmount_disks
}

others_are_shut_out() {
	[ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || return
	mount_disks "$conf"
	chmod 755 "$work" "$(dirname "$work")"
	check_match 'Permission denied' \
		setpriv --reuid 4321 --regid 4321 --clear-groups ls "$mnt/ram.img"
	unmount_disks
}
test_case "uid, gid and mode" permissions
test_case "without allow_other nobody else gets in" others_are_shut_out
