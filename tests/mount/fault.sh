#!/bin/bash
# SPDX-License-Identifier: MIT
# Faults as the user of a file sees them: which errno, how often, and what goes on beside them.
. "$(dirname "$0")/lib.sh"
requires fio python3 getfattr setfattr
requires_fuse

size=8388608

# Two disks with faults, and one without, by one worker: nobody can move out of another's way.
policy() {
	config <<EOT
[diskfs]
cache = $1
workers = 1

[base]
driver = file
path = base.img
size = 8M

[bad]
driver = fault
below = base

[ram]
driver = ram
size = 8M

[other]
driver = fault
below = ram
rules = write error=ENOSPC range=1M-2M count=1

[good]
driver = ram
size = 8M
EOT
	mount_disks "$conf"
}

# rules TEXT: of bad.img
rules() {
	setfattr -n user.diskfs.bad.rules -v "$1" "$mnt/bad.img"
}

# Never leaves anybody hanging behind it.
release() {
	rules ""
	wait "$@"
}

# ---- errno ---------------------------------------------------------------------------------------

errno_of_each_kind() {
	local kind errno

	while read -r kind errno; do
		check rules "any error=$kind"
		check_output "$errno
$errno
$errno
$errno" fileop "$mnt/bad.img" pread 0 4096 pwrite 0 4096 1 fsync fallocate punch,keep 0 4096
		check_output "$errno" fileop -o direct "$mnt/bad.img" pread 4096 512
		check_output "$errno" fileop -o direct "$mnt/bad.img" pwrite 4096 512 1
	done <<-EOT
		EIO EIO
		ENOSPC ENOSPC
		ETIMEDOUT ETIMEDOUT
		medium-read EIO
		medium-write EIO
		illegal-block ENXIO
		invalid-input EINVAL
		read-only EROFS
		conflict EBADE
		aborted ECANCELED
	EOT
	check rules ""
	check_output same fileop "$mnt/bad.img" all 0 $size 0
}

parts() {
	check rules "write tear=4K count=1"
	check_output "EIO
same
same" fileop -o direct "$mnt/bad.img" pwrite 64K 8192 5 all 64K 4096 5 all 68K 4096 0
	check rules "write short=4K count=1, read drop range=0-4K"
	check_output "8192
same
same" fileop -o direct "$mnt/bad.img" pwrite 128K 8192 6 all 128K 4096 6 all 132K 4096 0
	check rules "write drop"
	check_output "4096
same" fileop -o direct "$mnt/bad.img" pwrite 64K 4096 9 all 64K 4096 5
	# A read that fails changes nothing.
	check rules "read error count=1"
	check_output "EIO
same" fileop -o direct "$mnt/bad.img" all 64K 4096 5 all 64K 4096 5
	check rules ""
	check_output same fileop "$work/base.img" all 64K 4096 5
}

# ---- rules ---------------------------------------------------------------------------------------

rules_while_mounted() {
	check_output "" getfattr --absolute-names --only-values -n user.diskfs.bad.rules "$mnt/bad.img"
	check rules "read error=ENOSPC count=2,write delay=1ms"
	check_output "read error=ENOSPC count=2, write delay=1ms" \
		getfattr --absolute-names --only-values -n user.diskfs.bad.rules "$mnt/bad.img"
	check_output "ENOSPC
ENOSPC
512" fileop -o direct "$mnt/bad.img" pread 0 512 pread 0 512 pread 0 512
	check_match "rule: read error=ENOSPC count=2" cat "$mnt/.status"
	check_equal 2 "$(grep -A 1 "rule: read error=ENOSPC" "$mnt/.status" | sed -n 's/ *hits: //p')" hits
	# By the rules of the configuration, on another disk.
	check_output "ENOSPC
4096" fileop -o direct "$mnt/other.img" pwrite 1M 4096 1 pwrite 1M 4096 1
	check rules ""
}

wrong_rules() {
	check rules "read error=EBUSY"
	check_match "Invalid argument" rules "read oops"
	check_match "warning: \[bad\] rules: 'oops' is no action: write error" cat "$work/log"
	check_match "Invalid argument" rules "read error range=1M-2G-"
	check_match "Invalid argument" python3 -c '
import os, sys
os.setxattr(sys.argv[1], "user.diskfs.bad.rules", b"read error\0, write error")' "$mnt/bad.img"
	check_match "Invalid argument" setfattr -n user.diskfs.bad.seed -v 1 "$mnt/bad.img"
	# The old ones are still there.
	check_output EBUSY fileop -o direct "$mnt/bad.img" pread 0 512
	check rules ""
}

# ---- the page cache ------------------------------------------------------------------------------

neighbours() {
	check rules "read error range=64K-68K"
	check_output "65536
EIO
65536
same" fileop "$mnt/bad.img" pread 0 64K pread 64K 4096 pread 68K 64K all 136K 1M 0
	check_output 65536 fileop "$mnt/bad.img" pread 0 68K # cut short before the bad page
	check rules ""
	check_output same fileop "$mnt/bad.img" all 0 1M 0
}

# Two openers; each is told once.
late_errors() {
	local errno

	for errno in EIO ENOSPC; do
		check rules "write error=$errno count=1"
		check_output "4096
$errno 0 $errno 0
4096
0 0" python3 - "$mnt/bad.img" <<'PY'
import errno, os, sys

def sync(fd):
    try:
        os.fsync(fd)
        return "0"
    except OSError as error:
        return errno.errorcode[error.errno]

first, second = (os.open(sys.argv[1], os.O_RDWR) for i in range(2))
print(os.pwrite(first, b"7" * 4096, 4 << 20))
print(sync(first), sync(first), sync(second), sync(second))
print(os.pwrite(second, b"8" * 4096, 4 << 20))
print(sync(second), sync(first))
PY
		check_output same fileop "$work/base.img" all 4M 4096 0x38
	done
	check rules ""
}

early_errors() {
	check rules "write error=ENOSPC count=1"
	check_output "ENOSPC
0
4096
0
same" fileop "$mnt/bad.img" pwrite 4M 4096 7 fsync pwrite 4M 4096 7 fsync all 4M 4096 7
	check_output same fileop "$work/base.img" all 4M 4096 7
	check rules "flush error=EIO count=1"
	check_output "EIO
0" fileop "$mnt/bad.img" fsync fsync
	check rules ""
}

# ---- at once -------------------------------------------------------------------------------------

# As many as the client has under way are in the fault, none more: they wait there.
deep() {
	local direction operation fio

	for direction in randread randwrite; do
		operation=${direction#rand}
		check rules "$operation hang"
		fio --name=deep --filename="$mnt/bad.img" --allow_file_create=0 --size=8M --rw=$direction \
			--bs=4k --ioengine=io_uring --iodepth=32 --direct=1 --number_ios=64 \
			--fallocate=none --invalidate=0 --output-format=terse >"$work/fio" 2>&1 &
		fio=$!
		wait_for 20 has_in_flight bad.img "$operation" 32 ||
			not_ok "$operation: $(in_flight bad.img "$operation") of 32 in flight"
		release $fio || not_ok "fio failed: $(cat "$work/fio")"
	done
}

# O_DIRECT that comes after the open.
deep_later() {
	local operation client

	for operation in read write; do
		check rules "$operation hang"
		# shellcheck disable=SC2046 # several words
		fileop "$mnt/bad.img" setdirect "aio_$operation" 32 4096 \
			$([ $operation = read ] || echo 1) >"$work/aio" 2>&1 &
		client=$!
		wait_for 20 has_in_flight bad.img "$operation" 32 ||
			not_ok "$operation: $(in_flight bad.img "$operation") of 32 in flight"
		release $client
		check_output "0
32" cat "$work/aio"
	done
}

reports_slow_read() {
	grep -A 4 "slow_requests:" "$mnt/.status" | grep -q "node: bad"
}

# One disk hangs; all else goes on.
stuck_disk() {
	local stuck

	check rules "any hang"
	dd if="$mnt/bad.img" of=/dev/null bs=4k count=1 iflag=direct 2>"$work/dd" &
	stuck=$!
	wait_for 20 has_in_flight bad.img read 1 || not_ok "the read has not come"
	check timeout 20 dd if=/dev/zero of="$mnt/good.img" bs=64k count=128 conv=notrunc,fsync
	check timeout 20 dd if="$mnt/other.img" of=/dev/null bs=64k
	check timeout 20 ls -l "$mnt"
	check timeout 20 stat "$mnt/bad.img"
	check timeout 20 getfattr -d "$mnt/bad.img"
	check_match 'diskfs_' timeout 20 cat "$mnt/.metrics"
	check_match "rule: any hang" timeout 20 cat "$mnt/.status"
	wait_for 20 reports_slow_read || not_ok "the slow request is not in .status"
	alive $stuck || not_ok "the read has not waited"
	release $stuck || not_ok "the read fails after its release: $(cat "$work/dd")"
}

for cache in none writethrough writeback; do
	policy $cache
	# What is in the page cache needs no read, and what is written to it does not fail.
	if [ $cache = none ]; then
		test_case "errno of each kind of error" errno_of_each_kind
		test_case "torn, short and dropped requests" parts
		test_case "rules while mounted" rules_while_mounted
		test_case "wrong rules" wrong_rules
	else
		test_case "$cache: a page that cannot be read, and its neighbours" neighbours
	fi
	if [ $cache = writeback ]; then
		test_case "writeback: fsync tells each opener once" late_errors
	else
		test_case "$cache: the write itself fails" early_errors
		test_case "$cache: a depth of 32 is 32 at the disk" deep
		test_case "$cache: a depth of 32 with O_DIRECT set later" deep_later
	fi
	test_case "$cache: a disk that hangs" stuck_disk
	unmount_disks
	rm -f "$work/base.img"
done
