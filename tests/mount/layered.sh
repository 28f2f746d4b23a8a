#!/bin/bash
# SPDX-License-Identifier: MIT
# Layered disks as files: diffs over a shared image, caches, what lies where, moving a layer down
# while being killed, and what is wrong with a configuration.
#
#	LONG=1	200 interruptions of a commit instead of 20
. "$(dirname "$0")/lib.sh"
requires python3 qemu-img qemu-io mkfs.ext4 e2fsck debugfs cmp
requires_fuse
cd "$work" || exit 1
size=$((32 * 1024 * 1024))
random_file base.raw $size 1
cp base.raw base.copy

# Three machines on one image; a file system takes hold of the third.
config <<EOT
[base]
driver = file
path = base.raw
readonly = yes

$(for i in 1 2 3; do printf '[diff%d]\ndriver = sqlite\npath = diff%d.layer\n' $i $i; done)
[m1]
driver = layered
below = diff1, base
[m2]
driver = layered
below = diff2, base
[m3]
driver = layered
below = diff3, base

[memory]
driver = ram
[trial]
driver = layered
below = memory, base
EOT

shows_base() {
	local disk

	for disk in m1 m2 m3 trial; do
		check_equal $size "$(stat -c %s "$mnt/$disk.img")"
		check cmp base.copy "$mnt/$disk.img"
	done
}

# Each gets changes of its own, and a copy of what it must be.
change() {
	local i

	for i in 1 2; do
		cp base.copy want$i
		check dd if=base.copy of="$mnt/m$i.img" bs=700001 skip=3 seek=$((i * 10)) count=2 conv=notrunc,fsync
		check dd if=base.copy of=want$i bs=700001 skip=3 seek=$((i * 10)) count=2 conv=notrunc
	done
	check qemu-io -f raw -c "write -P 0x51 1M 64k" -c "write -z -u 2M 1M" -c "discard 4M 64k" -c flush \
		"$mnt/m1.img"
	check qemu-io -f raw -c "write -P 0x51 1M 64k" -c "write -P 0 2M 1M" -c "write -P 0 4M 64k" want1
	check fileop "$mnt/m2.img" fallocate punch,keep 0 12345 pwrite 9000 100 7 fsync
	check fileop want2 pwrite 0 12345 0 pwrite 9000 100 7
	dd if=/dev/zero of=want2 bs=9000 count=1 conv=notrunc 2>/dev/null
	dd if=/dev/zero of=want2 bs=1 seek=9100 count=3245 conv=notrunc 2>/dev/null
	make_tree
	check mkfs.ext4 -q -F -d tree "$mnt/m3.img"
	check fileop "$mnt/trial.img" pwrite 0 32M 9 fsync
}

make_tree() {
	mkdir -p tree/folder
	random_file tree/one 3000000 1
	random_file tree/folder/two 70000 2
}

changed() {
	check cmp want1 "$mnt/m1.img"
	check cmp want2 "$mnt/m2.img"
	check e2fsck -f -n "$mnt/m3.img"
	rm -rf back && mkdir back
	check debugfs -R "rdump / back" "$mnt/m3.img"
	check diff -r tree back --exclude=lost+found
	check cmp base.copy base.raw
}

# sum NODE LAYER data|zeros: how many bytes of the disk are in that layer.
sum() {
	diskfs map --json "$conf" "$1" | python3 -c '
import json, sys
layer, is_data = sys.argv[1], sys.argv[2] == "data"
print(sum(e["length"] for e in json.load(sys.stdin) if e["layer"] == layer and e["data"] == is_data))' "$2" "$3"
}

# Only what it changed, to the page that a file is written by.
own_changes_only() {
	local data

	data=$(sum m1 diff1 data)
	[ "$data" -ge 1465538 ] && [ "$data" -le $((1465538 + 4 * 4096)) ] || not_ok "$data bytes in diff1"
	check_equal $((1048576 + 65536)) "$(sum m1 diff1 zeros)"
	data=$(sum m2 diff2 data)
	[ "$data" -ge 1400002 ] && [ "$data" -le $((1400002 + 6 * 4096)) ] || not_ok "$data bytes in diff2"
	check_equal $size $(($(sum m2 diff2 data) + $(sum m2 diff2 zeros) + $(sum m2 base data)))
}

map_text() {
	# Of what qemu-io wrote, which nothing has merged with its neighbours.
	check_match '^ *1048576 +65536  data   diff1$' diskfs map "$conf" m1
	check_match '^ *2097152 +1048576  zeros  diff1$' diskfs map "$conf" m1
	check_match '^ *0 +1048576  data   base$' diskfs map "$conf" m1
	check_match '^\{"offset": 4194304, "length": 65536, "layer": "diff1", "data": false\},$' \
		diskfs map "$conf" m1 --json
	check_match '\[memory\] is in memory only' diskfs map "$conf" trial
	check_output "test.conf:1: [base]: the disk is not made of layers" diskfs map test.conf base
	check_output "diskfs: there is no section [m9] in 'test.conf'" diskfs map test.conf m9
	check_fails 1 diskfs map test.conf m9
	check_match 'cannot write the output' eval "diskfs map test.conf m1 2>&1 >/dev/full"
}

# A configuration may be called like a command.
names() {
	cp "$conf" map
	check_match '^m1.img' diskfs --check map
	check_match 'wrong number of arguments' diskfs map
	check_match '^ *0 ' diskfs map map m1
	check_match 'is for map' diskfs --json commit map m1
	check_match 'are for a mount' diskfs map -f "$conf" m1
	mkdir -p elsewhere
	if diskfs ./map elsewhere; then
		check cmp base.copy elsewhere/trial.img
		unmount elsewhere
		wait_for 10 unused m1 || not_ok "still in use"
	else
		not_ok "cannot mount ./map"
	fi
}

# The files of a process that was killed are closed a moment later.
unused() {
	diskfs map "$conf" "$1" >/dev/null 2>&1
}

in_use() {
	check_match "in use" diskfs map "$conf" m1
	check_fails 1 diskfs map "$conf" m1
}

mount_disks "$conf"
test_case "layers show what is below them" shows_base
test_case "what is written" change
test_case "is there, and not below" changed
test_case "what is in use is not touched" in_use
end_disks
test_case "each diff has its own changes" own_changes_only
test_case "what lies where" map_text
test_case "a configuration called like a command" names
mount_disks "$conf"
test_case "the next mount finds it" changed
test_case "what was in memory is gone" cmp base.copy "$mnt/trial.img"
end_disks

# ---- caches --------------------------------------------------------------------------------------

cache_conf() {
	config <<-EOT
		[base]
		driver = file
		path = base.raw
		[slow]
		driver = delay
		below = base
		read_delay = 1ms
		[cache]
		driver = sqlite
		path = cache.layer
		[memory]
		driver = ram
		[cached]
		driver = layered
		below = memory, cache, slow
		read_cache = cache
		$1
		[diskfs]
		cache = none
	EOT
}

# layer_number LAYER NAME: a number of .status.
layer_number() {
	python3 - "$mnt/.status.json" "$@" <<'PY'
import json, sys
layers = json.load(open(sys.argv[1]))["images"]["cached.img"]["layers"]
print(next(layer[sys.argv[3]] for layer in layers if layer["layer"] == sys.argv[2]))
PY
}

layer_has() {
	[ "$(layer_number "$1" "$2")" = "$3" ]
}

caches() {
	check cmp -n 4M base.copy "$mnt/cached.img"
	wait_for 10 layer_has cache populated_bytes 4194304 ||
		not_ok "$(layer_number cache populated_bytes) bytes kept, $(layer_number cache skipped_bytes) not"
	check_equal 4194304 "$(layer_number slow hit_bytes)"
	check cmp -n 4M base.copy "$mnt/cached.img"
	check_equal 4194304 "$(layer_number slow hit_bytes)" "what was read below the cache"
	check_equal 4194304 "$(layer_number cache hit_bytes)" "what was read from the cache"
}

# Restarted, the cache still has it, and only what is missing is fetched.
hydrates() {
	wait_for 30 is_filled || not_ok "not filled"
	check_equal $((size - 4194304)) "$(layer_number cache populated_bytes)"
	check cmp base.copy "$mnt/cached.img"
	check_match 'done_bytes: 33554432' cat "$mnt/.status"
	check_equal $((size - 4194304)) "$(layer_number slow hit_bytes)"
}

is_filled() {
	grep -q 'state: done' "$mnt/.status"
}

is_filled_at_once() {
	wait_for 5 is_filled || not_ok "not filled"
	check_equal 0 "$(layer_number slow hit_bytes)"
}

cache_conf ""
mount_disks "$conf"
test_case "a cache keeps what was read" caches
end_disks
cache_conf "hydrate = 100M"
mount_disks "$conf"
test_case "a cache is filled in the background" hydrates
end_disks
mount_disks "$conf"
test_case "a full one needs nothing from below" is_filled_at_once
end_disks

# ---- moving a layer down -------------------------------------------------------------------------

config <<EOT
[diskfs]
cache = none

[own]
driver = file
path = own.raw
[diff]
driver = sqlite
path = diff.layer
base_check = size, content
[disk]
driver = layered
below = diff, own
EOT

# A diff with many runs of data and zeros.
make_diff() {
	cp base.copy own.raw
	mount_disks "$conf"
	python3 - "$mnt/disk.img" "$size" <<'PY'
import ctypes, os, random, sys
rng, size = random.Random(5), int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(sys.argv[1], os.O_RDWR)
for i in range(600):
    length = rng.choice([512, 4096, 9000, 65536, 200000])
    offset = rng.randrange(size - length)
    if rng.random() < 0.3:
        # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        if libc.fallocate64(fd, 3, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
            sys.exit("fallocate")
    else:
        os.pwrite(fd, rng.randbytes(length), offset)
os.fsync(fd)
PY
	cp "$mnt/disk.img" want
	check_match "in use" diskfs commit "$conf" disk
	check_fails 1 diskfs commit "$conf" disk
	unmount_disks
	mkdir saved
	cp own.raw diff.layer* saved
	check_fails 1 cmp -s own.raw want
}

commits() {
	check_match '"layer": "diff"' diskfs map --json "$conf" disk
	check_output "" diskfs commit "$conf" diff
	check cmp want own.raw
	check_equal "$size" "$(($(sum disk own data) + $(sum disk own zeros)))"
	# Nothing is left to be done; by the other name.
	check_output "" diskfs commit "$conf" disk
	check cmp want own.raw
}

# In milliseconds.
time_of_commit() {
	local begin=${EPOCHREALTIME/./}

	cp saved/* .
	check diskfs commit "$conf" disk
	echo $(((${EPOCHREALTIME/./} - begin) / 1000))
}

# Killed again and again, at any moment, until one comes through; now and then all is looked at.
interrupted() {
	local wanted=20 killed=0 finished=0 most pid

	[ -z "$LONG" ] || wanted=200
	most=$(($(time_of_commit) + 20))
	cp saved/* .
	while [ "$killed" -lt "$wanted" ]; do
		"$BUILD/diskfs" commit "$conf" disk &
		pid=$!
		sleep "$(printf '0.%03d' $((RANDOM % most)))"
		kill -KILL $pid 2>/dev/null
		if wait $pid 2>/dev/null; then
			finished=$((finished + 1))
			check cmp want own.raw || return
			cp saved/* .
		else
			killed=$((killed + 1))
			wait_for 10 unused disk || not_ok "still in use" || return
			[ $((killed % 5)) != 0 ] || shows_all || return
		fi
	done
	check diskfs commit "$conf" disk
	check cmp want own.raw
	check_equal "$size" "$(($(sum disk own data) + $(sum disk own zeros)))"
	echo "# $killed killed, $finished finished, at most $most ms each"
}

shows_all() {
	mount_disks "$conf"
	check cmp want "$mnt/disk.img"
	unmount_disks
	[ "$case_failed" = 0 ]
}

test_case "a diff with many runs" make_diff
test_case "a commit" commits
test_case "commits that are killed" interrupted

# Into the middle: what is above and below stays where it is.
three_deep() {
	cp base.copy own.raw
	rm -f diff.layer* upper.layer*
	config <<-EOT
		[own]
		driver = file
		path = own.raw
		readonly = yes
		[diff]
		driver = sqlite
		path = diff.layer
		[disk]
		driver = layered
		below = diff, own
	EOT
	mount_disks "$conf"
	check fileop "$mnt/disk.img" pwrite 0 1M 1 fsync
	unmount_disks
	sed -i 's/below = diff, own/below = upper, diff, own/' "$conf"
	printf '[upper]\ndriver = sqlite\npath = upper.layer\n' >>"$conf"
	mount_disks "$conf"
	check fileop "$mnt/disk.img" pwrite 512K 1M 2 fallocate punch,keep 4M 1M fsync
	cp "$mnt/disk.img" want
	unmount_disks
	check_equal 524288 "$(sum disk diff data)"
	check diskfs commit "$conf" upper
	check_equal 1572864 "$(sum disk diff data)"
	check_equal 1048576 "$(sum disk diff zeros)"
	check cmp base.copy own.raw
	mount_disks "$conf"
	check cmp want "$mnt/disk.img"
	unmount_disks
	check_match '^test.conf:1: \[own\]: is readonly = yes' diskfs commit test.conf diff
	# The layer in the middle, with one above it.
	sed -i '/readonly/d' "$conf"
	check diskfs commit "$conf" diff
	check cmp want own.raw
}

# refuses NODE SENTENCE: the configuration on standard input.
refuses() {
	cat >refused.conf
	check_match "$2" diskfs commit refused.conf "$1"
	check_fails 1 diskfs commit refused.conf "$1"
}

refusals() {
	refuses d 'refused.conf:1: \[t\]: is in memory only' <<-EOT
		[t]
		driver = ram
		[b]
		driver = file
		path = own.raw
		[d]
		driver = layered
		below = t, b
	EOT
	refuses d '\[b\]: several disks stand on it' <<-EOT
		[t]
		driver = sqlite
		path = t.layer
		[u]
		driver = ram
		[b]
		driver = file
		path = own.raw
		readonly = yes
		[d]
		driver = layered
		below = t, b
		[e]
		driver = layered
		below = u, b
	EOT
	refuses t '\[b\]: keeps nothing: what is committed to it would be lost' <<-EOT
		[t]
		driver = sqlite
		path = t.layer
		[b]
		driver = ram
		size = 1M
		[f]
		driver = fault
		below = b
		[d]
		driver = layered
		below = t, f
	EOT
	refuses t '\[t\]: is written through' <<-EOT
		[t]
		driver = sqlite
		path = t.layer
		[b]
		driver = file
		path = own.raw
		[d]
		driver = layered
		below = t, b
		write_through = t
	EOT
	refuses c '\[c\]: is a read cache' <<-EOT
		[t]
		driver = ram
		[c]
		driver = sqlite
		path = t.layer
		[b]
		driver = file
		path = own.raw
		[d]
		driver = layered
		below = t, c, b
		read_cache = c
	EOT
	refuses t '\[t\]: is the last layer of \[d\]' <<-EOT
		[t]
		driver = sqlite
		path = t.layer
		size = 1M
		[d]
		driver = layered
		below = t
	EOT
	refuses b 'there is nothing to commit' <<-EOT
		[b]
		driver = file
		path = own.raw
		[f]
		driver = fault
		below = b
	EOT
	refuses d '\[b\]: has every sector' <<-EOT
		[b]
		driver = file
		path = own.raw
		[d]
		driver = layered
		below = b
	EOT
	check_equal "" "$(ls t.layer* 2>/dev/null)" "what was created"
	# A diff that is larger, with data where nothing is below.
	cat >larger.conf <<-EOT
		[t]
		driver = sqlite
		path = larger.layer
		size = 64M
		[b]
		driver = file
		path = own.raw
		[d]
		driver = layered
		below = t, b
	EOT
	mount_disks larger.conf
	check fileop "$mnt/d.img" pwrite 40M 4K 1 fsync
	unmount_disks
	check_output "larger.conf:1: [t]: 't' has data beyond byte 33554432, where 'b' ends: it would be lost" \
		diskfs commit larger.conf t
}

test_case "three deep" three_deep
test_case "what is not committed" refusals

# ---- mistakes ------------------------------------------------------------------------------------

# mistake MESSAGE LINE...: with these lines in the section of the layered disk, after layers a and b.
mistake() {
	local message=$1

	shift
	{
		printf '[%s]\ndriver = ram\nsize = 32M\n' alpha beta
		printf '[base]\ndriver = file\npath = own.raw\n'
		printf '[large]\ndriver = ram\nsize = 1M\nsector_size = 4096\n[layers]\ndriver = layered\n'
		printf '%s\n' "$@"
	} >mistake.conf
	check_match "$message" diskfs --check mistake.conf
	check_fails 1 diskfs mistake.conf "$mnt"
}

mistakes() {
	mistake "\[layers\] read_cache: 'bta' is not one of the disks below \(did you mean 'beta'\?\)" \
		"below = alpha, beta, base" "read_cache = bta"
	mistake "\[layers\] write_through: 'base' is the last layer" "below = alpha, base" \
		"write_through = alpha, base"
	mistake "\[layers\] write_through: nothing is written to 'beta'" "below = alpha, beta, base" \
		"write_through = beta"
	mistake "\[layers\] below: 'base' \(driver 'file'\) has every sector" "below = alpha, base, beta"
	mistake "\[layers\] below: .*sectors" "below = large, base"
	mistake "\[layers\] hydrate: fills one read cache, but read_cache names 0" "below = alpha, base" \
		"hydrate = 1M"
	mistake "\[layers\] hydrate: 'fast' is no size" "below = alpha, base" "hydrate = fast"
	mistake "\[layers\] below: driver 'layered' takes 1 to 64 disks below, not 0" "read_cache = alpha"
	mistake "\[shared\]: stands below one disk as a layer, and below another as a disk" \
		"below = shared, base" "readonly = yes" "[shared]" "driver = ram" "size = 1M" \
		"readonly = yes" "[w]" "driver = delay" "below = shared"
}

checks() {
	printf '[alpha]\ndriver = ram\n[base]\ndriver = file\npath = own.raw\n' >good.conf
	printf '[layers]\ndriver = layered\nbelow = alpha, base\n' >>good.conf
	check_output "layers.img  32 MiB, writable
  layers: layered, 32 MiB, sector 512 (physical 4096)
    alpha: ram, 32 MiB, sector 512
    base: file, 32 MiB, sector 512 (physical 4096), read-only" diskfs --check good.conf
}

test_case "mistakes in the configuration" mistakes
test_case "how it is printed" checks
