#!/bin/bash
# SPDX-License-Identifier: MIT
# FUSE over io_uring: when it is used, a set-up that fails half-way, requests that are stuck, the
# bound of its memory, clients on every CPU, and what comes by descriptor beside it.
# (Load and ugly endings: uring_endings.sh. All other tests run by both transports.)
# Runs alone: it forbids FUSE over io_uring and allows it again.
. "$(dirname "$0")/uring/lib.sh"

mib=1048576
request=$((mib + 4096)) # memory for one
# How many CPUs the kernel has queues for, and those where a client can run.
possible=$(getconf _NPROCESSORS_CONF)
mapfile -t cpus < <(python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)), sep="\n")')

config <<EOT
[file]
driver = file
path = file.img
size = 64M

[second]
driver = file
path = second.img
size = 64M

[ram]
driver = ram
size = 64M

[base]
driver = ram
size = 64M

[bad]
driver = fault
below = base
EOT

works() {
	check_output "1048576
same
0" timeout 30 "$BUILD/tests/fileop" "$mnt/file.img" pwrite 1M 1M 7 all 1M 1M 7 fsync
	check_output "1048576
same" timeout 30 "$BUILD/tests/fileop" -o direct "$mnt/file.img" pwrite 3M 1M 8 all 3M 1M 8
	check_output "same
same" fileop "$work/file.img" all 1M 1M 7 all 3M 1M 8
}

rules() {
	timeout 20 setfattr -n user.diskfs.bad.rules -v "$1" "$mnt/bad.img"
}

# ---- when it is used -----------------------------------------------------------------------------

by_default() {
	local before

	mount_uring
	check_match "^ *transport: uring" cat "$mnt/.status"
	before=$(kernel ring_requests)
	check_output "100
100" fileop -o direct "$mnt/ram.img" aio_read 100 4096 aio_write 100 4096 1
	[ "$(kernel ring_requests)" -ge $((before + 200)) ] ||
		not_ok "ring_requests: $before, then $(kernel ring_requests)"
	works
	unmount_disks
	mount_disks "$conf" -o transport=poll
	check_match "^ *transport: poll" cat "$mnt/.status"
	unmount_disks
}

# A mount that asks for the ring and cannot have it is there at once, by descriptor, says why, and
# works: refused REASON ARGUMENT...
refused() {
	local begin=$SECONDS

	mount_disks "$conf" -o transport=uring "${@:2}"
	unset LD_PRELOAD
	[ $((SECONDS - begin)) -le 10 ] || not_ok "the mount took $((SECONDS - begin)) s"
	check_equal poll "$(kernel transport)" "the transport"
	check_match "no_ring: .*$1" cat "$mnt/.status"
	works
	unmount_disks
}

not_offered() {
	allow_uring N
	refused "enable_uring"
	allow_uring Y
}

# The parameter is for new mounts; those that are there do not notice.
no_longer_offered() {
	local before

	mount_uring
	allow_uring N
	before=$(kernel ring_requests)
	works
	[ "$(kernel ring_requests)" -gt "$before" ] || not_ok "no more requests come by the ring"
	unmount_disks
	log_is_clean
	allow_uring Y
}

# Somebody reads the status before the transport has been chosen.
watched() {
	local watcher _

	rm -f "$work/stop"
	until [ -e "$work/stop" ]; do
		timeout 20 cat "$mnt/.status" 2>/dev/null
	done >"$work/watched" &
	watcher=$!
	for _ in 1 2 3; do
		allow_uring N
		refused "enable_uring"
		mount_uring -o cache=none
		unmount_disks
	done
	touch "$work/stop"
	wait $watcher
	check_match "transport: uring" cat "$work/watched"
}

# ---- a set-up that fails -------------------------------------------------------------------------

# refused_half_way REASON VARIABLE=n ARGUMENT...
refused_half_way() {
	export "${2?}" LD_PRELOAD="$preload"
	refused "$1" "${@:3}"
	unset "${2%%=*}"
}

kernel_refuses() {
	refused_half_way "the kernel has refused" REFUSE_QUEUE=1 "$@"
	check_match "warning: .*the kernel refuses.*Invalid argument" cat "$work/log"
}

# ---- stuck requests ------------------------------------------------------------------------------

# Lets the test itself run on these CPUs only.
stay_on() {
	taskset -pc "$(tr ' ' , <<<"$*")" $$ >/dev/null
}

# From each of these CPUs the status is answered, another disk works, and so do attributes.
answers_from() {
	local cpu

	for cpu; do
		check_match "transport: uring" taskset -c "$cpu" timeout 20 cat "$mnt/.status"
		check_output "65536
same" taskset -c "$cpu" timeout 20 "$BUILD/tests/fileop" -o direct "$mnt/ram.img" \
			pwrite 1M 64K 9 all 1M 64K 9
		check taskset -c "$cpu" timeout 20 getfattr -d "$mnt/bad.img"
	done
}

# What finds no entry waits in the kernel, behind the stuck.
many_stuck() {
	local memory

	mount_uring -o ring_memory=1G
	check rules "read hang"
	client --name=stuck --filename="$mnt/bad.img" --size=64M --rw=randread --bs=4k --direct=1 \
		--ioengine=libaio --iodepth=300 --number_ios=300 --cpus_allowed="${cpus[0]}"
	wait_for 20 has_in_flight bad.img read 300 ||
		not_ok "$(in_flight bad.img read) of 300 in flight"
	answers_from "${cpus[@]}"
	memory=$(kernel ring_memory)
	if [ "$memory" -lt $((300 * request)) ] || [ "$memory" -gt $((1 << 30)) ]; then
		not_ok "ring_memory is $memory"
	fi
	check taskset -c "${cpus[0]}" timeout 20 setfattr -n user.diskfs.bad.rules -v "" "$mnt/bad.img"
	client_succeeds
	works
	unmount_disks
}

# The kernel does not come back to what waits before a reply goes to the same CPU, whatever entries it
# has got since. So what comes at once, sooner than the daemon can do anything, must not wait.
burst() {
	local reader

	mount_uring
	check rules "read hang"
	mkfifo "$work/go"
	taskset -c "${cpus[0]}" "$BUILD/tests/fileop" -o direct "$mnt/bad.img" hold aio_read 200 4096 \
		<"$work/go" >"$work/aio" 2>&1 &
	reader=$!
	exec 8>"$work/go"
	sleep 0.3 # it opens the image
	kill -STOP "$daemon_pid"
	exec 8>&-
	sleep 0.3
	kill -CONT "$daemon_pid"
	stay_on "${cpus[@]:1}"
	wait_for 5 has_in_flight bad.img read 200 || not_ok "$(in_flight bad.img read) of 200 in flight"
	stay_on "${cpus[@]}"
	check rules ""
	wait $reader
	check_output "0
200" cat "$work/aio"
	unmount_disks
}

# read_one NAME: of a disk, in the background, on the first CPU; in $reader.
read_one() {
	taskset -c "${cpus[0]}" dd if="$mnt/$1.img" of=/dev/null bs=4k count=1 iflag=direct \
		2>"$work/dd-$1" &
	reader=$!
}

# Without the shell's word on it.
kill_client() {
	disown "$1"
	kill -KILL "$1"
}

# With one entry for each CPU, a request in a disk keeps all others of that CPU waiting in the kernel.
# Clients of those can be killed, other CPUs are not concerned, and in the end all are served.
least_memory() {
	local stuck waiting

	mount_uring -o ring_memory=$((possible * request))
	# A name that is looked up is locked, for clients of other CPUs as well.
	stat "$mnt"/*.img "$mnt"/.status* >/dev/null
	stay_on "${cpus[@]:1}"
	check rules "read hang"
	read_one bad
	stuck=$reader
	wait_for 20 has_in_flight bad.img read 1 || not_ok "the read has not come"
	read_one ram
	waiting=$reader
	sleep 0.3
	alive $waiting || not_ok "the bound does not bind"
	read_one ram
	kill_client $waiting
	wait_for 5 dead $waiting || not_ok "who waits in the kernel cannot be killed"
	answers_from "${cpus[@]:1}"
	check rules ""
	wait $stuck || not_ok "the read fails after its release: $(cat "$work/dd-bad")"
	wait $reader || not_ok "the read fails that has waited: $(cat "$work/dd-ram")"
	stay_on "${cpus[@]}"
	answers_from "${cpus[@]}"
	check_equal $((possible * request)) "$(kernel ring_memory)" ring_memory
	unmount_disks
	log_is_clean
}

# ---- what comes by descriptor --------------------------------------------------------------------

by_descriptor() {
	python3 - "$mnt/.status.json" <<'PY'
import json, sys
status = json.load(open(sys.argv[1]))
print(sum(w["requests"] for w in status["workers"]) - status["kernel"]["ring_requests"])
PY
}

# Inodes are forgotten while others look them up again.
forgotten() {
	local before watcher _

	mount_uring
	before=$(by_descriptor)
	rm -f "$work/stop"
	until [ -e "$work/stop" ]; do
		stat "$mnt"/*.img "$mnt/.status" >/dev/null || echo stat
	done >"$work/watched" 2>&1 &
	watcher=$!
	for _ in 1 2 3 4 5; do
		echo 2 >/proc/sys/vm/drop_caches
		sleep 0.1
	done
	touch "$work/stop"
	wait $watcher
	check_output "" cat "$work/watched"
	[ "$(by_descriptor)" -gt "$before" ] || not_ok "nothing has come by descriptor"
	works
	unmount_disks
	log_is_clean
}

# A client is killed while the disk holds its read: that goes on, and an INTERRUPT comes.
killed_client() {
	local before

	mount_uring
	check rules "read hang"
	read_one bad
	wait_for 20 has_in_flight bad.img read 1 || not_ok "the read has not come"
	before=$(by_descriptor)
	kill_client $reader
	sleep 0.2
	check has_in_flight bad.img read 1
	check rules ""
	wait_for 20 dead $reader || not_ok "the client outlives the read"
	check has_in_flight bad.img read 0
	[ "$(by_descriptor)" -gt "$before" ] || not_ok "nothing has come by descriptor"
	works
	unmount_disks
	log_is_clean
}

# ---- data ----------------------------------------------------------------------------------------

# verify OPTION...: clients write, and verify checksums.
verify() {
	client --ioengine=libaio --verify=crc32c --verify_fatal=1 --do_verify=1 "$@"
	client_succeeds
}

# More is asked for at once than there is memory for: it waits, and is served.
bounded() {
	local rss

	mount_uring -o ring_memory=16M
	verify --bs=1M --iodepth=32 --direct=1 --rw=randwrite --size=64M --loops=4 \
		--name=a --filename="$mnt/file.img" --name=b --filename="$mnt/second.img"
	[ "$(kernel ring_memory)" -le $((16 * mib)) ] || not_ok "ring_memory: $(kernel ring_memory)"
	rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$daemon_pid/status")
	[ -n "$(sanitizer_library)" ] || [ "$rss" -lt $((200 << 10)) ] || not_ok "$rss KiB of memory"
	unmount_disks
}

# Fewer workers than queues, and more: workers COUNT
workers() {
	mount_uring -o workers="$1"
	verify --bssplit=512/20:4k/30:52k/20:1M/20:2M/10 --blockalign=512 --rw=randrw --iodepth=16 \
		--size=64M --io_size=16M \
		--name=a --filename="$mnt/ram.img" --direct=1 --name=b --filename="$mnt/file.img" --direct=1 \
		--name=c --filename="$mnt/bad.img" --name=d --filename="$mnt/second.img"
	unmount_disks
}

# Requests that the kernel cuts, at places that are odd in memory and on the disk.
large() {
	mount_uring
	check python3 - "$mnt/file.img" "$work/file.img" <<'PY'
import mmap, os, random, sys
size, at = (8 << 20) - 512, (1 << 20) + 512
memory = mmap.mmap(-1, 16 << 20)
file = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
for place in 0, 512, 3584:
    data = random.Random(place).randbytes(size)
    part = memoryview(memory)[place:place + size]
    part[:] = data
    assert os.pwritev(file, [part], at) == size
    with open(sys.argv[2], "rb") as below:
        below.seek(at)
        assert below.read(size) == data, "written data"
    part[:] = bytes(size)
    assert os.preadv(file, [part], at) == size
    assert part == data, "read data"
PY
	unmount_disks
}

# Entries belong to CPUs, and a client may be on another one when its reply comes.
moving() {
	local mover

	mount_uring
	client --ioengine=libaio --thread --verify=crc32c --verify_fatal=1 --verify_backlog=64 \
		--rw=randrw --bssplit=4k/60:64k/30:512k/10 --iodepth=8 --direct=1 --size=16M \
		--numjobs=4 --offset_increment=16M --time_based --runtime=5 --name=moving \
		--filename="$mnt/ram.img"
	python3 - "$client" "${cpus[@]}" <<'PY' 2>"$work/mover" &
import os, random, sys, time
try:
    while True:
        for thread in os.listdir(f"/proc/{sys.argv[1]}/task"):
            os.sched_setaffinity(int(thread), {int(random.choice(sys.argv[2:]))})
        time.sleep(0.01)
except (FileNotFoundError, ProcessLookupError):
    pass
PY
	mover=$!
	client_succeeds
	wait $mover || not_ok "$(cat "$work/mover")"
	unmount_disks
}

# ---- sharing -------------------------------------------------------------------------------------

# random_reads BYTES DEPTH COUNT: of one client on one CPU.
random_reads() {
	client --name=reads --filename="$mnt/ram.img" --size=64M --rw=randread --bs="$1" --direct=1 \
		--ioengine=libaio --iodepth="$2" --iodepth_batch="$2" --norandommap \
		--io_size=$(($3 * $1)) --cpus_allowed="${cpus[0]}"
	client_succeeds
}

# One client that asks for much at once is served by several workers, one that does not by one, unless
# its requests are large.
# shared BYTES DEPTH
shared() {
	local before

	mount_uring
	random_reads "$1" "$2" 20000
	[ "$(kernel ring_requests_shared)" -gt 100 ] ||
		not_ok "$(kernel ring_requests_shared) requests of $(kernel ring_requests) were shared"
	if [ "$1" -lt 65536 ]; then
		random_reads "$1" 1 2000
		before=$(kernel ring_requests_shared)
		random_reads "$1" 1 500
		check_equal "$before" "$(kernel ring_requests_shared)" "requests shared"
	fi
	unmount_disks
	log_is_clean
}

# ---- all of them ---------------------------------------------------------------------------------

test_case "by default it is used where the kernel offers it, and not where it is not wanted" by_default
test_case "the kernel does not offer it" not_offered
test_case "the kernel offers it no longer, while mounted" no_longer_offered
test_case "the status is read while mounting" watched
if [ "$possible" -gt 1 ]; then
	test_case "too little memory for one request a CPU" refused "one request for each CPU" \
		-o ring_memory=1M
fi

if ! build_preload "$(dirname "$0")/uring/refuse.c"; then
	skip_case "a set-up that fails half-way" "no compiler, or no liburing-dev"
elif [ "$possible" = 1 ]; then
	skip_case "a set-up that fails half-way" "one CPU has one queue"
else
	for workers in 1 2 5; do
		# A worker that has a queue gets its memory in one piece.
		test_case "no memory for the last worker, $workers workers" refused_half_way \
			"out of memory" REFUSE_MEMORY=$((workers < possible ? workers : possible)) \
			-o workers=$workers
		test_case "the kernel refuses a queue, $workers workers" kernel_refuses -o workers=$workers
	done
fi

test_case "300 requests of one CPU are stuck" many_stuck
if [ ${#cpus[@]} -gt 1 ]; then
	test_case "200 requests come at once and are stuck" burst
	test_case "the least memory" least_memory
	test_case "workers share small requests of one CPU" shared 4096 64
	test_case "workers share large requests of one CPU" shared 1048576 4
else
	skip_case "requests that come at once, the least memory, sharing" "needs two CPUs"
fi
test_case "inodes are forgotten" forgotten
test_case "a client is killed" killed_client
test_case "ring_memory bounds" bounded
test_case "1 worker" workers 1
test_case "5 workers" workers 5
test_case "requests above 1 MiB" large
test_case "clients that are moved between CPUs" moving
