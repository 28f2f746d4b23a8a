#!/bin/bash
# SPDX-License-Identifier: MIT
# Persistent reservations as users have them: several files of one disk, ioctls on them, fencing of
# programs and of QEMU.
. "$(dirname "$0")/lib.sh"
requires fio python3 getfattr qemu-io
requires_fuse

size=8388608

# Types of reservations.
we=1 ea=2 wero=3 earo=4 wear=5 eaar=6

# ---- ioctls --------------------------------------------------------------------------------------

ioctls() {
	check_output "0 0
0 0x0 0" prctl -r "$mnt/a.img" keys 0 reservation
	check_output "0
EBADE
0
EBADE
0
1 0xa1 1" prctl "$mnt/a.img" register 0 0xa1 register 0xa2 0xa3 reserve 0xa1 $we reserve 0xa1 $ea \
		reserve 0xa1 $we reservation
	check_output "EBADE
EBADE
EBADE
0
EBADE
2 0xa1 1
2 2" prctl "$mnt/b.img" reserve 0 $we clear 0 preempt 0 0xa1 $we register 0 0xb1 reserve 0xb1 $we \
		reservation keys 0
	check_output "EINVAL
0
2 0x0 0
0" prctl "$mnt/a.img" release 0xa1 $ea release 0xa1 $we reservation reserve 0xa1 $wear
	# It is held by all, so by nobody's key.
	check_output "2 0x0 5" prctl "$mnt/b.img" reservation
	# The caller's key first, then the victim's.
	check_output "EBADE
0
3 0x0 5
3 1" prctl "$mnt/a.img" preempt 0xb1 0xa1 $we preempt 0xa1 0xb1 $we reservation keys 0
	check_output "EBADE" prctl "$mnt/b.img" clear 0xb1
	check_output "0
EINVAL
0
5 0xb2 4
0
6 0x0 0
6 0" prctl "$mnt/b.img" ignore 0xdead 0xb2 preempt 0xb2 0 9 preempt_abort 0xb2 0 $earo reservation \
		clear 0xb2 reservation keys 10
}

other_ioctls() {
	check_output "EOPNOTSUPP
0
EOPNOTSUPP
EINVAL
EINVAL" prctl "$mnt/a.img" register_flag 0 1 register 0 1 reserve_flag 1 $we reserve 1 0 reserve 1 7
	# The keys themselves cannot travel: no half of an answer.
	check_output "EOPNOTSUPP
1 1" prctl "$mnt/a.img" keys 1 keys 0
	forget_all
	# Whoever cannot write cannot reserve, but may look.
	check_output "EPERM
EPERM
EPERM
EPERM
EPERM
EPERM" prctl -r "$mnt/a.img" register 0 1 reserve 1 $we release 1 $we preempt 1 1 $we \
		preempt_abort 1 1 $we clear 1
	check_match '^[0-9]+ 0$' prctl -r "$mnt/a.img" keys 0
	check_output "ENOTTY
ENOTTY
ENOTTY" prctl "$mnt/other.img" register 0 1 keys 0 reservation
	check_output $size fileop "$mnt/b.img" size64
	check_output ENOTTY fileop "$mnt/b.img" ioctl 0x70d0
}

attributes() {
	check_output yes attribute pr a.img
	check_output no attribute pr other.img
	check_match "No such attribute" attribute pr_keys other.img
	check_equal "" "$(getfattr --absolute-names -d "$mnt/other.img" | grep pr_)"
	check_output none attribute pr_type b.img
	check_output "" attribute pr_keys b.img
	check_output "" attribute pr_holders b.img
	prctl "$mnt/a.img" register 0 0xa1 reserve 0xa1 $earo >/dev/null
	prctl "$mnt/b.img" register 0 0xffffffffffffffff >/dev/null
	check_output exclusive-access-registrants-only attribute pr_type b.img
	check_output "0xa1 0xffffffffffffffff" attribute pr_keys b.img
	check_output 0xa1 attribute pr_holders b.img
	check_output yes attribute pr_persist b.img
	check_match '^[1-9]' attribute pr_generation b.img
	check_match 'user.diskfs.pr_holders="0xa1"' getfattr -d "$mnt/a.img"
	check_match "Operation not permitted" setfattr -n user.diskfs.pr_keys -v 1 "$mnt/a.img"
	check_match "^    key: 0xa1$" cat "$mnt/.status"
	check_match "^        reservation: exclusive-access-registrants-only$" cat "$mnt/.status"
	check_match "^            file: b.img$" cat "$mnt/.status"
	check python3 - "$mnt" <<'PY'
import json, sys
images = json.load(open(sys.argv[1] + "/.status.json"))["images"]
node = images["b.img"]["below"][0]
assert images["b.img"]["node"] == "b.img" and images["b.img"]["may_write"], images
assert node["node"] == "shared" and node["type"] == "prwrap", node
assert [r["holds_reservation"] for r in node["registrants"]] == [True, False], node
PY
	check_match 'node="b.img/shared/disk",op="read"' cat "$mnt/.metrics"
	forget_all
}

# ---- fencing -------------------------------------------------------------------------------------

# What somebody may do by b.img: prints read, write, or none of them.
rights() {
	local file=$mnt/b.img what="" got

	for op in "pread 0 4096" "pwrite 0 4096 7" "pwrite 100 3 7" fsync "fallocate punch,keep 4096 4096" \
		"fallocate zero,keep 4096 100" "data 0"; do
		# shellcheck disable=SC2086 # several words
		got=$(fileop "$file" $op)
		case $got in
		EBADE) what+="-" ;;
		E*) what+="?" ;;
		*) what+="+" ;;
		esac
	done
	echo "$what"
}

# read, write, sub-sector write, fsync, punch, zero, seek.
all="+++++++" reads="+-----+" nothing="-------"

fenced_by_type() {
	local type unregistered registered

	check_output 65536 fileop "$mnt/b.img" pwrite 0 64K 1 # something that seeking finds
	while read -r type unregistered registered; do
		check_output "0
0" prctl "$mnt/a.img" ignore 0 0xa1 reserve 0xa1 "$type"
		check_equal "$unregistered" "$(rights)" "type $type, not registered"
		check_output 0 prctl "$mnt/b.img" register 0 0xb1
		check_equal "$registered" "$(rights)" "type $type, registered"
		# Always possible: to look.
		check stat "$mnt/b.img"
		check_output 4096 fileop "$mnt/a.img" pwrite 0 4096 1
		check_output 0 fileop "$mnt/a.img" fsync
		forget_all
		check_equal "$all" "$(rights)" "after a clear"
	done <<-EOT
		$we $reads $reads
		$ea $nothing $nothing
		$wero $reads $all
		$earo $nothing $all
		$wear $reads $all
		$eaar $nothing $all
	EOT
}

# What one writes the other reads, whatever the policy of the page cache.
same_disk() {
	local i

	check_output $(((size + 1048576) / 4096)) stat -f -c %b "$mnt"
	for i in 1 2 3; do
		check_output 4096 fileop "$mnt/a.img" pwrite 64K 4096 "$i"
		check_output same fileop "$mnt/b.img" all 64K 4096 "$i"
		check_output 5 fileop "$mnt/b.img" pwrite 65541 5 $((i + 10))
		check_output "same
same
same" fileop "$mnt/a.img" all 65541 5 $((i + 10)) all 64K 5 "$i" all 65546 90 "$i"
	done
	# Nor is anything kept that is not to be read any more.
	check_output 4096 fileop "$mnt/b.img" pread 64K 4096
	prctl "$mnt/a.img" register 0 1 reserve 1 $ea >/dev/null
	check_output EBADE fileop "$mnt/b.img" pread 64K 4096
	forget_all
}

# Two processes that stay: each holds its file open, and they take turns.
two_processes() {
	check_output "b writes: EBADE
b takes over
a writes: EBADE
a reads b
a syncs: EBADE" python3 - "$mnt/a.img" "$mnt/b.img" "$BUILD/tests/prctl" <<'PY'
import errno, os, subprocess, sys, multiprocessing

a_file, b_file, prctl = sys.argv[1:]

def pr(file, *arguments):
    return subprocess.run([prctl, file, *arguments], capture_output=True, text=True).stdout.split()

def attempt(what, call, *arguments):
    try:
        call(*arguments)
        return print(what, flush=True)
    except OSError as error:
        print(f"{what}: {errno.errorcode[error.errno]}", flush=True)

def other(pipe):
    fd = os.open(b_file, os.O_RDWR)
    pipe.recv()
    attempt("b writes", os.pwrite, fd, b"b" * 512, 0)
    assert pr(b_file, "register", "0", "2", "preempt", "2", "1", "1") == ["0", "0"]
    attempt("b takes over", os.pwrite, fd, b"b" * 512, 0)
    pipe.send(None)

ours, theirs = multiprocessing.Pipe()
process = multiprocessing.Process(target=other, args=(theirs,))
fd = os.open(a_file, os.O_RDWR)
assert pr(a_file, "register", "0", "1", "reserve", "1", "1") == ["0", "0"]
os.pwrite(fd, b"a" * 512, 0)
process.start()
ours.send(None)
ours.recv()
attempt("a writes", os.pwrite, fd, b"a" * 512, 0)
print("a reads", os.pread(fd, 1, 0).decode(), flush=True)
attempt("a syncs", os.fsync, fd)
process.join()
PY
	forget_all
}

# ---- QEMU ----------------------------------------------------------------------------------------

# Two machines' block layers at once, each with its own file.
two_qemus() {
	local a b

	mkfifo "$work/to_a" "$work/to_b"
	qemu-io -f raw -t none "$mnt/a.img" <"$work/to_a" >"$work/from_a" 2>&1 &
	a=$!
	qemu-io -f raw -t none "$mnt/b.img" <"$work/to_b" >"$work/from_b" 2>&1 &
	b=$!
	exec 7>"$work/to_a" 8>"$work/to_b"
	check_output "0
0" prctl "$mnt/a.img" register 0 1 reserve 1 $wero
	echo "write -P 1 0 64k" >&7
	wait_for 20 grep -q "wrote 65536" "$work/from_a" || not_ok "a cannot write: $(cat "$work/from_a")"
	echo "read -P 1 0 64k" >&8
	wait_for 20 grep -q "read 65536" "$work/from_b" || not_ok "b cannot read: $(cat "$work/from_b")"
	echo "write -P 2 0 64k" >&8
	wait_for 20 grep -q "write failed: Invalid exchange" "$work/from_b" ||
		not_ok "b is not fenced: $(cat "$work/from_b")"
	# b takes over, and a is fenced.
	check_output "0
0" prctl "$mnt/b.img" register 0 2 preempt_abort 2 1 $ea
	: >"$work/from_a"
	echo "write -P 3 0 64k" >&7
	wait_for 20 grep -q "write failed: Invalid exchange" "$work/from_a" ||
		not_ok "a is not fenced: $(cat "$work/from_a")"
	echo "read 0 64k" >&7
	wait_for 20 grep -q "read failed: Invalid exchange" "$work/from_a" ||
		not_ok "a still reads: $(cat "$work/from_a")"
	echo "write -P 4 0 64k" >&8
	echo "flush" >&8
	echo "read -P 4 0 64k" >&8
	exec 7>&- 8>&-
	wait $a
	wait $b
	check_equal 1 "$(grep -c "wrote 65536" "$work/from_b")" "writes of b"
	check_equal 2 "$(grep -c "read 65536" "$work/from_b")" "reads of b"
	check_equal "" "$(grep -i "pattern" "$work/from_b")"
	check_output same fileop "$mnt/b.img" all 0 64K 4
	forget_all
}

# ---- under load ----------------------------------------------------------------------------------

# The second half of the disk, as a sees it.
second_half() {
	dd if="$mnt/a.img" bs=1M skip=4 iflag=direct status=none | md5sum
}

# a writes and verifies its half of the disk, b writes to the other without end; a third lets b, and
# fences it again, and then nothing of b may change any more. (52 is EBADE, 125 ECANCELED.)
fenced_under_load() {
	local fio_a fio_b i before rounds=$((${LONG:-0} == 1 ? 200 : 20))

	forget_all
	check_output "0
0" prctl "$mnt/a.img" register 0 1 reserve 1 $wero
	fio --name=a --filename="$mnt/a.img" --allow_file_create=0 --size=4M --rw=randwrite --bs=4k \
		--ioengine=io_uring --iodepth=8 --direct=1 --loops=$((rounds * 2)) --fallocate=none \
		--verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0 --aux-path="$work" \
		>"$work/fio_a" 2>&1 &
	fio_a=$!
	fio --name=b --filename="$mnt/b.img" --allow_file_create=0 --offset=4M --size=4M --rw=randwrite \
		--bs=16k --ioengine=io_uring --iodepth=8 --direct=1 --time_based --runtime=300 \
		--fallocate=none --continue_on_error=write --ignore_error=,52:125 --refill_buffers --aux-path="$work" \
		>"$work/fio_b" 2>&1 &
	fio_b=$!
	for ((i = 0; i < rounds; i++)); do
		check_output 0 prctl "$mnt/b.img" ignore 0 2
		sleep 0.05
		if ((i % 2)); then
			check_output 0 prctl "$mnt/a.img" preempt_abort 1 2 0
		else
			check_output 0 prctl "$mnt/a.img" preempt 1 2 0
		fi
		before=$(second_half)
		sleep 0.02
		check_equal "$before" "$(second_half)" "what b may not write, in round $i,"
	done
	alive $fio_b || not_ok "the second fio has ended: $(cat "$work/fio_b")"
	kill -INT $fio_b
	wait $fio_b
	wait $fio_a || not_ok "the first fio failed: $(cat "$work/fio_a")"
	check_match "write: IOPS" cat "$work/fio_b"
	check python3 - "$mnt" <<'PY'
import json, sys
write = json.load(open(sys.argv[1] + "/.status.json"))["images"]["b.img"]["operations"]["write"]
assert 0 < write["errors"] < write["requests"] and write["in_flight"] == 0, write
PY
	forget_all
}

is_alone() {
	[ "$(attribute pr_keys a.img)" = 0x1 ]
}

# A preemption waits for what the disk below has already: here for ever, until it is let go.
waits_for_requests() {
	local writer preempter

	config <<-EOT
		[ram]
		driver = ram
		size = 1M

		[slow]
		driver = fault
		below = ram

		[shared]
		driver = prwrap
		below = slow
		file = a.img, b.img
	EOT
	mount_disks "$conf"
	prctl "$mnt/a.img" register 0 1 reserve 1 $wero >/dev/null
	prctl "$mnt/b.img" register 0 2 >/dev/null
	check setfattr -n user.diskfs.slow.rules -v "write hang" "$mnt/a.img"
	fileop "$mnt/b.img" pwrite 0 4096 7 >"$work/writer" &
	writer=$!
	wait_for 20 has_in_flight b.img write 1 || not_ok "the write has not come"
	prctl "$mnt/a.img" preempt_abort 1 2 0 >"$work/preempter" &
	preempter=$!
	# It has happened, but it has not returned.
	wait_for 20 is_alone || not_ok "nobody is preempted"
	check_output EBADE fileop "$mnt/b.img" pwrite 0 4096 8
	sleep 0.3
	alive $preempter || not_ok "the preemption has not waited"
	check_output 4096 fileop "$mnt/b.img" pread 0 4096
	check setfattr -n user.diskfs.slow.rules -v "" "$mnt/a.img"
	wait $preempter
	wait $writer
	check_output 0 cat "$work/preempter"
	check_output ECANCELED cat "$work/writer"
}

# ---- configurations ------------------------------------------------------------------------------

# Without a state file all are forgotten; below other disks there is nothing to reserve; the deepest
# stack.
other_stacks() {
	{
		cat <<-EOT
			[ram]
			driver = ram
			size = 1M

			[shared]
			driver = prwrap
			below = ram
			file = x.img, y z.img

			[low]
			driver = ram
			size = 1M

			[middle]
			driver = prwrap
			below = low

			[top]
			driver = fault
			below = middle

			[d1]
			driver = ram
			size = 1M
		EOT
		for i in $(seq 2 64); do
			printf '[d%s]\ndriver = prwrap\nbelow = d%s\n' "$i" $((i - 1))
		done
		printf '[base]\ndriver = ram\nsize = 1M\n'
		printf '[fixed]\ndriver = prwrap\nbelow = base\nreadonly = yes\nfile = r.img, s.img\n'
	} >"$conf"
	mount_disks "$conf"
	check_output "0
0" prctl "$mnt/x.img" register 0 1 reserve 1 $ea
	check_output no attribute pr_persist x.img
	check_output EBADE fileop "$mnt/y z.img" pread 0 512
	check_output no attribute pr top.img
	check_output ENOTTY prctl "$mnt/top.img" register 0 1
	check_output 4096 fileop "$mnt/top.img" pwrite 0 4096 1
	check_output "4096
same
0" fileop "$mnt/d64.img" pwrite 0 4096 7 all 0 4096 7 fsync
	check_output "0
0
1 0xd 4" prctl "$mnt/d64.img" register 0 0xd reserve 0xd $earo reservation
	check_output EROFS prctl "$mnt/r.img" register 0 1
	check_output "EPERM
0 0" prctl -r "$mnt/r.img" register 0 1 keys 0
	check_output 512 fileop -o rdonly "$mnt/s.img" pread 0 512
	check grep -q 'image="y z.img",node="y z.img/shared/ram"' "$mnt/.metrics"
}

not_for_passthrough() {
	share_conf none "a.img, b.img"
	sed -i 's/^below = disk/&\npassthrough = yes/' "$conf"
	check_fails 1 diskfs "$conf" "$mnt"
	check_match "passthrough: not for|passthrough: the kernel does not offer" diskfs "$conf" "$mnt"
}

for cache in none writethrough writeback; do
	rm -f "$work/pr.state"
	share_conf $cache "a.img, b.img"
	mount_disks "$conf"
	[ $cache != none ] || test_case "the ioctls" ioctls
	test_case "$cache: who may do what" fenced_by_type
	test_case "$cache: the files are one disk" same_disk
	test_case "$cache: two processes fence one another" two_processes
	test_case "$cache: two QEMUs fence one another" two_qemus
	rm -f "$work"/to_* "$work"/from_*
	end_disks
done
share_conf none "a.img, b.img"
mount_disks "$conf"
test_case "ioctls that are refused" other_ioctls
test_case "attributes and status" attributes
test_case "fencing under load" fenced_under_load
end_disks
test_case "other stacks" other_stacks
end_disks
test_case "a preemption waits for requests" waits_for_requests
end_disks
test_case "no passthrough" not_for_passthrough
