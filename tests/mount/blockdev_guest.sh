#!/bin/bash
# SPDX-License-Identifier: MIT
# blockdev on devices that few machines have: NVMe namespaces, SCSI disks, device-mapper, a SAN's two
# paths to one disk. What they are, that their errors keep their identity, that reservations fence,
# and that nothing hangs when one is taken away. In a virtual machine (scripts/in-guest).
if [ "${1:-}" != inside ]; then
	here=$(realpath "$(dirname "$0")")
	BUILD=$(realpath "${BUILD:-build}")
	grep -q __tsan_init "$BUILD/diskfs" && echo "skip: too slow with ThreadSanitizer" && exit 77
	[ -z "${LONG:-}" ] && grep -q __asan_init "$BUILD/diskfs" &&
		echo "skip: slow with AddressSanitizer: with LONG=1 only" && exit 77
	work=$(mktemp -d "${TMPDIR:-/tmp}/blockdev_guest.XXXXXX") || exit 1
	trap 'rm -rf "$work"' EXIT
	trap 'exit 143' HUP INT TERM
	truncate -s 48M "$work"/{small,large,failing}.img
	# An error on reading byte 1 MiB, and one on writing byte 2 MiB.
	blockdev='{"driver":"blkdebug","node-name":"failing","image":{"driver":"file",'
	blockdev+='"filename":"'$work'/failing.img"},"inject-error":['
	blockdev+='{"event":"none","iotype":"read","errno":5,"sector":2048},'
	blockdev+='{"event":"none","iotype":"write","errno":28,"sector":4096}]}'
	# What cannot be compiled in the machine in time.
	cc -shared -fPIC -O1 -o "$BUILD/tests/old_kernel.so" "$here/blockdev/old_kernel.c" || exit 1
	"$here/../../scripts/in-guest" --timeout 250 \
		--qemu "-device nvme,id=nv0,serial=diskfs-0" \
		--qemu "-drive file=$work/small.img,if=none,id=d1,format=raw,discard=unmap" \
		--qemu "-device nvme-ns,drive=d1,bus=nv0,nsid=1,uuid=11111111-2222-3333-4444-555555555555" \
		--qemu "-drive file=$work/large.img,if=none,id=d2,format=raw,discard=unmap" \
		--qemu "-device nvme-ns,drive=d2,bus=nv0,nsid=2,logical_block_size=4096,physical_block_size=4096" \
		--qemu "-blockdev $blockdev -device nvme-ns,drive=failing,bus=nv0,nsid=3" \
		env BUILD="$BUILD" bash "$here/$(basename "$0")" inside 2>"$work/errors"
	status=$?
	[ $status != 77 ] || grep '^skip: ' "$work/errors"
	[ $status = 0 ] || [ $status = 77 ] || cat "$work/errors"
	exit $status
fi
. "$(dirname "$0")/lib.sh"
requires blkdiscard dmsetup fio getfattr
requires_fuse
sanitized=$(sanitizer_library)
mnt2=$work/mnt2
mkdir "$mnt2"
began=$SECONDS

configfs=/sys/kernel/config
# Each path by itself.
modprobe nvme_core multipath=N
modprobe -a nvme sd_mod dm_mod dm_delay dm_flakey dm_thin_pool tcm_loop configfs || skip_all "modules are missing"
mount -t configfs configfs $configfs 2>/dev/null
echo 0 >/proc/sys/kernel/printk

# The device that is namespace $1 of NVMe controller number $2 (QEMU's is 0).
namespace() {
	local file

	for file in /sys/block/nvme"${2:-0}"n*/nsid; do
		[ "$(cat "$file")" != "$1" ] || basename "$(dirname "$file")"
	done
}

# The disks of SCSI hosts with this name, in order.
scsi_disks() {
	local host

	for host in /sys/class/scsi_host/host*; do
		[ "$(cat "$host/proc_name")" != "$1" ] || ls "$host"/device/target*/*/block 2>/dev/null
	done
}

# node NAME DEVICE [LINE]...
node() {
	local name=$1 device=$2

	shift 2
	printf '[%s]\ndriver = blockdev\npath = %s\n' "$name" "/dev/$device"
	[ $# = 0 ] || printf '%s\n' "$@"
}

mount_nodes() {
	config
	mount_disks "$conf" -o transport=poll "$@"
}

# write_byte FILE OFFSET: 4 KiB there, past the page cache, each sort of failure by its name.
write_at() {
	dd if=/dev/zero of="$1" bs=4096 count=1 seek=$(($2 / 4096)) oflag=direct conv=notrunc status=none
}

read_at() {
	dd if="$1" of=/dev/null bs=4096 count=1 skip=$(($2 / 4096)) iflag=direct status=none
}

logged() {
	grep -qF -- "$1" "$work/log" || {
		not_ok "not logged: $1"
		show "$(tail -n 5 "$work/log")"
	}
}

state_of() {
	sed -nE "/^  $1:/,/^  [^ ]/s/^    state: //p" "${2:-$mnt}/.status"
}

# What was lost with a device is no success; everything else ends as it should.
unmount_lost() {
	wait_for 10 unmount "$mnt" 2>/dev/null || not_ok "cannot unmount"
	ends_with 1
	! mounted "$mnt" || not_ok "still mounted"
}

end_lost() {
	test_case "diskfs ends, and says that something is lost" unmount_lost
}

# ---- NVMe ----------------------------------------------------------------------------------------

n1=$(namespace 1) n2=$(namespace 2) n3=$(namespace 3)

# The driver's own test, on a device that is not a loop device.
unit_test() {
	BLOCKDEV=/dev/$1 check "$BUILD/tests/unit/blockdev"
}

what_namespaces_are() {
	check_output 512 attribute sector_size a.img
	check_output 4096 attribute sector_size b.img
	check_output 4096 attribute physical_sector_size b.img
	check_output unspecified attribute unmap a.img
	check_output no attribute pr a.img
	# By its identifier; the other has none, but a serial number.
	check_match '^11111111222233334444555555555555$|^[0-9a-f]{32}$' attribute disk_id a.img
	check_match '^[0-9a-f]{32}$' attribute disk_id b.img
	[ "$(attribute disk_id a.img)" != "$(attribute disk_id b.img)" ] || not_ok "the same id twice"
	check grep -q "    memory_align: 4$" "$mnt/.status"
	check grep -q "    device_fua: yes" "$mnt/.status"
	check grep -q "    state: present" "$mnt/.status"
}

data_of_namespaces() {
	check timeout 60 fio --name=both --filename="$mnt/a.img:$mnt/b.img" --allow_file_create=0 \
		--rw=randwrite --bsrange=4k-256k --ioengine=libaio --iodepth=8 --direct=1 --size=24M \
		--io_size=12M --verify=crc32c --verify_fatal=1 --verify_state_save=0 --fallocate=none \
		--output="$work/fio"
	# What has been discarded takes no space, and reads as zeros.
	check fallocate -p -o 0 -l 8M "$mnt/b.img"
	check cmp -n 8388608 "$mnt/b.img" /dev/zero
	check cmp -n 8388608 "/dev/$n2" /dev/zero
}

test_case "NVMe: the driver's tests, sectors of 512 bytes" unit_test "$n1"
test_case "NVMe: the driver's tests, sectors of 4096 bytes" unit_test "$n2"
{ node a "$n1"; node b "$n2"; node c "$n3"; } >"$conf"
mount_disks "$conf" -o transport=poll
test_case "NVMe: what namespaces are" what_namespaces_are
test_case "NVMe: data" data_of_namespaces

nvme_errors() {
	check_fails 1 read_at "$mnt/c.img" $((1 << 20))
	logged "read of 8 sectors at LBA 2048: medium error (unrecovered read, ENODATA)"
	check_fails 1 write_at "$mnt/c.img" $((2 << 20))
	logged "write of 8 sectors at LBA 4096: medium error (write fault, ENODATA)"
	check read_at "$mnt/c.img" 0
	check write_at "$mnt/c.img" 0
}
test_case "NVMe: errors of the medium" nvme_errors

# load IMAGE SECONDS: reads and writes until that fails; what dd says goes to $work/load.
load() {
	local end=$((SECONDS + $2))

	while [ "$SECONDS" -lt "$end" ]; do
		dd if=/dev/zero of="$1" bs=64k count=200 oflag=direct conv=notrunc status=none || return
		dd if="$1" of=/dev/null bs=64k count=200 iflag=direct status=none || return
	done 2>"$work/load"
}

# removed_under_load IMAGE COMMAND...: the command takes its device away.
removed_under_load() {
	local image=$1 pid

	shift
	load "$mnt/$image" 40 &
	pid=$!
	sleep 1
	check "$@"
	wait_for 20 dead $pid || { not_ok "it hangs"; kill $pid; }
	wait $pid && not_ok "no error in spite of all"
	check_match 'No such device|Input/output error' cat "$work/load"
	check_fails 1 read_at "$mnt/$image" 65536
	check_fails 1 write_at "$mnt/$image" 65536
	check_fails 1 sync "$mnt/$image"
	check_output removed state_of "$image"
	logged "has been removed"
	# It is still what it was, and the others live.
	check_match '^[1-9][0-9]*$' stat -c %s "$mnt/$image"
	check cat "$mnt/.status.json"
}

remove_nvme() {
	echo 1 >"$(realpath "/sys/block/$n1/device/device")/remove"
}

test_case "NVMe: the controller is taken away under load" removed_under_load a.img remove_nvme
end_lost

# ---- device-mapper -------------------------------------------------------------------------------

# dm NAME: the table is the input.
dm() {
	dmsetup create --noudevsync --noudevrules "$1" && dmsetup mknodes
}

truncate -s 48M "$work/dm.raw"
loop=$(losetup -f --show "$work/dm.raw")
cleanup_fn free_loop "$loop"
dm late <<<"0 8192 delay $loop 0 200"
dm broken <<EOT
0 2048 linear $loop 8192
2048 2048 error
4096 2048 linear $loop 10240
EOT
dm flaky <<<"0 8192 flakey $loop 16384 0 60 1 error_writes"
# 8 MiB for a disk of 32 MiB, in blocks of 64 KiB.
dm meta <<<"0 8192 linear $loop 24576"
dm space <<<"0 16384 linear $loop 32768"
dm pool <<<"0 16384 thin-pool /dev/mapper/meta /dev/mapper/space 128 0 1 error_if_no_space"
dmsetup message pool 0 "create_thin 0"
dm thin <<<"0 65536 thin /dev/mapper/pool 0"
for name in late broken flaky meta space pool thin; do
	cleanup_fn dmsetup remove --noudevsync --noudevrules $name
done

{
	node late mapper/late
	node broken mapper/broken
	node flaky mapper/flaky
	node thin mapper/thin
} >"$conf"
mount_disks "$conf" -o transport=poll

# All wait at the same time, and nobody waits for them.
late_at_once() {
	local begin=${EPOCHREALTIME/./} took

	check timeout 60 fio --name=late --filename="$mnt/late.img" --allow_file_create=0 --rw=randread \
		--bs=4k --ioengine=libaio --iodepth=32 --direct=1 --size=4M --number_ios=96 \
		--output-format=terse --output="$work/fio"
	took=$(((${EPOCHREALTIME/./} - begin) / 1000))
	# One after another they take 19 s.
	[ $took -lt 12000 ] || not_ok "took $took ms"
}
test_case "dm-delay: many requests wait at once" late_at_once

some_fail() {
	check read_at "$mnt/broken.img" 0
	check_fails 1 read_at "$mnt/broken.img" $((1 << 20))
	logged "read of 8 sectors at LBA 2048: I/O error (EIO)"
	check_fails 1 write_at "$mnt/broken.img" $(((2 << 20) - 4096))
	logged "write of 8 sectors at LBA 4088: I/O error (EIO)"
	check read_at "$mnt/broken.img" $((2 << 20))
	check_match "Input/output error" read_at "$mnt/broken.img" $((1 << 20))
	check_output present state_of broken.img
}
test_case "dm-error: only what it has fails" some_fail

writes_fail() {
	check read_at "$mnt/flaky.img" 4096
	check_match "Input/output error" write_at "$mnt/flaky.img" 4096
	logged "write of 8 sectors at LBA 8: I/O error (EIO)"
}
test_case "dm-flakey: writes fail" writes_fail

# no_space OFFSET LENGTH DD-OPERAND...: the write fails for that reason, at once.
no_space() {
	check_match "No space left on device" timeout 20 dd if=/dev/zero of="$mnt/thin.img" \
		bs="$2" count=1 seek="$1" oflag="seek_bytes${3:+,$3}" conv=notrunc,fsync
}

# A thin device whose pool is full refuses what needs a new block, and does all else.
thin_is_full() {
	local half=$((16 << 20))

	check timeout 60 dd if=/dev/urandom of="$mnt/thin.img" bs=64k count=128 oflag=direct \
		conv=notrunc status=none
	no_space $half 4096 direct
	logged "write of 8 sectors at LBA 32768: I/O error (ENOSPC)"
	# A part of a sector, and what begins where there is space, through the page cache and past it.
	no_space $((half + 100)) 1000
	no_space 8323072 131072
	no_space 8323072 131072 direct
	check write_at "$mnt/thin.img" 65536
	check cmp -n 4096 -i 65536:0 "$mnt/thin.img" /dev/zero
	check cmp -n 65536 -i $half:0 "$mnt/thin.img" /dev/zero
	check_output present state_of thin.img
	check timeout 20 sync "$mnt/thin.img"
	# Somebody makes room, which the pool sees when it is asked.
	check blkdiscard -f -o 1M -l 1M /dev/mapper/thin
	check dmsetup status pool
	check write_at "$mnt/thin.img" $half
	check timeout 20 sync "$mnt/thin.img"
}
test_case "dm-thin: no space" thin_is_full

claimed() {
	node x "${loop#/dev/}" >"$work/x.conf"
	check_match "'$loop' is in use: used by dm-[0-9]+ \(shared = yes opens it all the same\)\$" \
		diskfs -f "$work/x.conf" "$mnt2"
}
test_case "device-mapper has claimed it" claimed
end_lost

# ---- SCSI ----------------------------------------------------------------------------------------

scsi_debug=/sys/bus/pseudo/drivers/scsi_debug

# 16 sectors of 512 bytes from 0x1000 are bad.
modprobe scsi_debug dev_size_mb=32 physblk_exp=3 lbpu=1 lbpws=1 lbpws10=1 lbprz=1 \
	unmap_granularity=8 opts=2 medium_error_start=4096 medium_error_count=16 ndelay=0
wait_for 10 test -n "$(scsi_disks scsi_debug)"
scsi=$(scsi_disks scsi_debug | head -n 1)
node scsi "$scsi" >"$conf"
mount_disks "$conf" -o transport=poll

what_scsi_is() {
	check_output 512 attribute sector_size scsi.img
	check_output 4096 attribute physical_sector_size scsi.img
	check_output unspecified attribute unmap scsi.img
	check_output 8 attribute optimal_unmap_sectors scsi.img
	check_match '^[0-9a-f]{32}$' attribute disk_id scsi.img
	check grep -q "    identity: naa\." "$mnt/.status"
}
test_case "SCSI: what the disk is" what_scsi_is

scsi_zeros() {
	check dd if=/dev/urandom of="$mnt/scsi.img" bs=1M seek=8 count=4 conv=notrunc,fsync status=none
	check_match '(^|,)2048-3071(,|$)' cat $scsi_debug/map
	check fallocate -p -o 9M -l 2M "$mnt/scsi.img"
	check cmp -n 2097152 -i 9437184:0 "$mnt/scsi.img" /dev/zero
	# The disk has it no more; its map counts units of 4 KiB.
	check_match '(^|,)2048-2303,2816-3071(,|$)' cat $scsi_debug/map
}
test_case "SCSI: zeros give the space back" scsi_zeros

scsi_errors() {
	check_match "Input/output error" read_at "$mnt/scsi.img" $((2 << 20))
	logged "read of 8 sectors at LBA 4096: medium error (unrecovered read, ENODATA)"
	check read_at "$mnt/scsi.img" $((1 << 20))
	# Protection information that is wrong.
	echo 0x20 >$scsi_debug/opts
	echo 1 >$scsi_debug/every_nth
	check_fails 1 read_at "$mnt/scsi.img" 8192
	logged "read of 8 sectors at LBA 16: medium error (guard check failed, EILSEQ)"
	echo 0 >$scsi_debug/every_nth
	echo 2 >$scsi_debug/opts
	# Somebody protects the disk against writing.
	echo 1 >/sys/module/scsi_debug/parameters/wp
	check_fails 1 write_at "$mnt/scsi.img" 16384
	logged "write of 8 sectors at LBA 32: medium error (write fault, EREMOTEIO)"
	echo 0 >/sys/module/scsi_debug/parameters/wp
	check write_at "$mnt/scsi.img" 16384
}
test_case "SCSI: errors of the medium" scsi_errors

remove_scsi() {
	echo 1 >"/sys/block/$scsi/device/delete"
}
test_case "SCSI: the disk is taken away under load" removed_under_load scsi.img remove_scsi
end_lost

eject() {
	echo 1 >$scsi_debug/removable
	echo 1 >$scsi_debug/add_host
	wait_for 10 test -n "$(scsi_disks scsi_debug)" || not_ok "no disk to eject"
	BLOCKDEV_EJECT=/dev/$(scsi_disks scsi_debug | head -n 1) check "$BUILD/tests/unit/blockdev"
}
test_case "SCSI: a medium is ejected" eject

# ---- zoned ---------------------------------------------------------------------------------------

zoned() {
	modprobe null_blk nr_devices=1 zoned=1 zone_size=4 gb=1 || return
	node x nullb0 >"$work/x.conf"
	check_match "'/dev/nullb0' is a zoned device: " diskfs --check "$work/x.conf"
	check_match "'/dev/nullb0' is a zoned device: " diskfs -f "$work/x.conf" "$mnt2"
	modprobe -r null_blk
}
test_case "a zoned device is refused" zoned

# ---- reservations --------------------------------------------------------------------------------

# One disk in memory, with two paths to it, as a SAN has them: each is an initiator of its own.
mkdir -p /proc/1/root/var/target/pr # where it keeps what persists
san=$configfs/target
mkdir -p $san/core/rd_mcp_0/disk
echo rd_pages=4096 >$san/core/rd_mcp_0/disk/control
echo 1 >$san/core/rd_mcp_0/disk/enable
echo diskfs-1 >$san/core/rd_mcp_0/disk/wwn/vpd_unit_serial
for i in 1 2; do
	path=$san/loopback/naa.600000000000000$i/tpgt_1
	mkdir -p $path/lun/lun_0
	ln -s $san/core/rd_mcp_0/disk $path/lun/lun_0/disk
	echo naa.600000000000001$i >$path/nexus
	cat $path/address >"$work/address"
	echo "- - -" >"/sys/class/scsi_host/host$(cut -d: -f1 "$work/address")/scan"
done
wait_for 10 test "$(scsi_disks tcm_loopback | wc -l)" = 2
read -r -d "" path1 path2 < <(scsi_disks tcm_loopback) || true

# second_mount [VARIABLE=VALUE]...: of the second path, by another diskfs.
second_mount() {
	node b "$path2" >"$work/second.conf"
	env "$@" "$BUILD/diskfs" -f -o transport=poll "$work/second.conf" "$mnt2" >"$work/log2" 2>&1 &
	second_pid=$!
	wait_for 30 test -e "$mnt2/.status" || not_ok "$(cat "$work/log2")"
}

end_second() {
	wait_for 10 umount "$mnt2" 2>/dev/null
	wait_for 20 dead $second_pid || not_ok "the second does not end"
	wait $second_pid || not_ok "the second ended with status $?"
}

# What the image says of its reservations: report FILE KEYS TYPE HOLDERS. (Each program that is
# started takes its time here.)
report() {
	local wanted="pr_holders=\"$4\" pr_keys=\"$2\" pr_type=\"$3\"" got

	got=$(getfattr --absolute-names -d -m '^user.diskfs.pr_(holders|keys|type)$' "$1" 2>&1)
	got=${got#*$'\n'}
	got=${got//user.diskfs./}
	check_equal "$wanted" "${got//$'\n'/ }" "the report"
}

# The rules are the same whichever way they are asked for: fenced $mnt/a.img $mnt2/b.img.
fenced() {
	local a=$1 b=$2

	check_output $'0\n0\nEBADE' prctl "$a" ignore 0 0 register 0 0xa1 register 0 0xa2
	check_output 0 prctl "$b" register 0 0xb1
	report "$a" "0xa1 0xb1" none ""
	# Write exclusive, registrants only: b is one, for now. Of another type than it holds: some
	# devices say it so, some so.
	check_match '^(EINVAL|EBADE)$' prctl "$a" reserve 0xa1 3 release 0xa1 1
	check_output EBADE prctl "$b" reserve 0xb1 1
	report "$b" "0xa1 0xb1" write-exclusive-registrants-only 0xa1
	check write_at "$b" 0
	# b throws a out, and takes over.
	check_output 0 prctl "$b" preempt 0xb1 0xa1 3
	report "$a" 0xb1 write-exclusive-registrants-only 0xb1
	check_match "Invalid exchange" write_at "$a" 0
	check read_at "$a" 0
	check_output EBADE prctl "$a" clear 0xa1
	check_output 0 prctl "$b" release 0xb1 3
	check write_at "$a" 0
	# Registered anew, whatever its key, and no more.
	check_output $'0\n0\n0\n0' prctl "$b" ignore 0 0xb2 ignore 0 0xb3 register 0xb3 0 ignore 0 0
	report "$a" "" none ""
}

fenced_mounts() {
	check_output yes attribute pr a.img
	fenced "$mnt/a.img" "$mnt2/b.img"
	logged "write of 8 sectors at LBA 0: reservation conflict"
}

one_id() {
	local here there

	here=$(getfattr --only-values --absolute-names -n user.diskfs.disk_id "$mnt/a.img")
	there=$(getfattr --only-values --absolute-names -n user.diskfs.disk_id "$mnt2/b.img")
	[ -n "$here" ] || not_ok "no id"
	check_equal "$here" "$there" "the id by the other path"
}

node a "$path1" >"$conf"
mount_disks "$conf" -o transport=poll
second_mount
test_case "SCSI: both paths have one id" one_id
test_case "SCSI: two mounts of two paths fence one another" fenced_mounts
end_second
end_disks

# A kernel that has no ioctl for reports: the device itself is asked.
old=$BUILD/tests/old_kernel.so
LD_PRELOAD="$sanitized $old" mount_disks "$conf" -o transport=poll
second_mount LD_PRELOAD="$sanitized $old"
test_case "SCSI: the same without the kernel's reports" fenced_mounts
end_second
end_disks

# What stands on the device passes them on.
above() {
	check_output yes attribute pr above.img
	check_output $'0\n0' prctl "$mnt/above.img" register 0 0xc1 reserve 0xc1 1
	report "$mnt/above.img" 0xc1 write-exclusive 0xc1
	check_match "Invalid exchange" write_at "/dev/$path2" 0
	check_output 0 prctl "$mnt/above.img" clear 0xc1
}
dm above <<<"0 8192 linear /dev/$path1 0"
cleanup_fn dmsetup remove --noudevsync --noudevrules above
node above mapper/above >"$conf"
mount_disks "$conf" -o transport=poll
test_case "device-mapper: reservations of the device below" above
end_disks

# One namespace through two controllers, by nvmet's loop, where the kernel lets it have reservations.
nvme_san() {
	local subsystem=$configfs/nvmet/subsystems/diskfs port=$configfs/nvmet/ports/1

	modprobe -a nvme-loop nvmet || return
	mkdir $subsystem $port || return
	echo 1 >$subsystem/attr_allow_any_host
	mkdir $subsystem/namespaces/1
	echo -n "$loop" >$subsystem/namespaces/1/device_path
	echo 1 2>/dev/null >$subsystem/namespaces/1/resv_enable || return
	echo 1 >$subsystem/namespaces/1/enable
	echo loop >$port/addr_trtype
	ln -s $subsystem $port/subsystems/diskfs
	for i in 1 2; do
		echo "nqn=diskfs,transport=loop,hostnqn=nqn.2024-01.org.diskfs:$i,hostid=0000000$i-0000-0000-0000-000000000000" \
			>/dev/nvme-fabrics || return
	done
	wait_for 10 test "$(loop_namespaces | wc -l)" = 2
}

loop_namespaces() {
	local file

	for file in /sys/class/nvme/nvme*/transport; do
		[ "$(cat "$file")" != loop ] || ls "$(dirname "$file")" | grep -xE 'nvme[0-9]+n[0-9]+'
	done
}

if nvme_san 2>"$work/nvme_san"; then
	read -r -d "" path1 path2 < <(loop_namespaces) || true
	node a "$path1" >"$conf"
	mount_disks "$conf" -o transport=poll
	second_mount
	test_case "NVMe: two mounts of two controllers fence one another" fenced_mounts
	end_second
	end_disks
	LD_PRELOAD="$sanitized $old" mount_disks "$conf" -o transport=poll
	second_mount LD_PRELOAD="$sanitized $old"
	test_case "NVMe: the same without the kernel's reports" fenced_mounts
	end_second
	end_disks
else
	skip_case "NVMe: reservations" "this kernel's nvmet has none: $(tail -n 1 "$work/nvme_san")"
fi

echo "# in the machine: $((cases - failed_cases)) passed, $failed_cases failed, $((SECONDS - began)) s"
