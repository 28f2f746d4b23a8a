#!/bin/bash
# SPDX-License-Identifier: MIT
# diskfs create and diskfs check: image files, without a mount.
. "$(dirname "$0")/lib.sh"
requires python3 qemu-img
manual=$(realpath "$(dirname "$0")/../../fs/diskfs.8")
cd "$work" || exit 1
PATH=$BUILD:$PATH

# ---- create --------------------------------------------------------------------------------------

size_of() {
	stat -c %s "$1"
}

raw_images() {
	check_output "" diskfs create raw a.raw size=10M
	check_equal 10485760 "$(size_of a.raw)"
	check_equal 0 "$(stat -c %b a.raw)" "blocks"
	check_output "" diskfs create raw b.raw size=1M preallocate=yes
	check_equal 2048 "$(stat -c %b b.raw)" "blocks"
	check cmp <(head -c 1M /dev/zero) b.raw
}

# What is there stays, or is replaced as a whole.
existing_files() {
	echo keep >a
	check_output "diskfs: 'a' exists already (--force replaces it)" diskfs create raw a size=1M
	check_fails 1 diskfs create raw a size=1M
	check_equal keep "$(cat a)"
	ln -s a link
	check_fails 1 diskfs create raw link size=1M
	check diskfs create --force raw link size=1M
	check_equal a "$(readlink link)"
	check_equal 1048576 "$(size_of a)"
	ln -s nowhere dangling
	check_fails 1 diskfs create raw dangling size=1M
	check_fails 1 diskfs create --force raw dangling size=1M
	check_fails 1 diskfs create --force raw . size=1M
	check diskfs create --force raw new size=1M
	mkfifo fifo
	check_match 'no regular file' timeout 5 diskfs create --force raw fifo size=1M
}

# in_use PATH COMMAND...: while somebody else has it locked for writing.
in_use() {
	local path=$1

	shift
	flock -x "$path" "$@"
}

images_in_use() {
	check diskfs create --force vhd used.vhd size=1M
	check_match "'used.vhd' is in use" in_use used.vhd diskfs create --force raw used.vhd size=1M
	check_match "'used.vhd' is in use" in_use used.vhd diskfs check used.vhd
	check_match "'used.vhd' is in use" in_use used.vhd diskfs check --repair used.vhd
	check_fails 8 in_use used.vhd diskfs check used.vhd
	check_match "'used.vhd' is in use" in_use used.vhd diskfs create vhd child.vhd parent=used.vhd
	# Readers do not mind one another, but a repair does.
	check flock -s used.vhd diskfs check used.vhd
	check_fails 8 flock -s used.vhd diskfs check --repair used.vhd
	check diskfs check used.vhd
}

# A failure leaves no file, not even a part of one.
failures() {
	local before

	before=$(ls -A)
	check_match 'File too large' eval '(ulimit -f 16; diskfs create raw big size=1M)'
	check_match 'File too large' eval '(ulimit -f 16; diskfs create vhd big size=1M type=fixed)'
	check_match 'File too large' eval '(ulimit -f 16; diskfs create vhd big size=2000G)'
	check_match 'File too large' \
		eval '(ulimit -f 16; diskfs create --force raw used.vhd size=1M preallocate=yes)'
	check_match 'No such file' diskfs create raw nowhere/a size=1M
	check_equal "$before" "$(ls -A)" "the folder"
	check diskfs check used.vhd
	if [ "$(id -u)" = 0 ]; then
		mkdir small
		mount -t tmpfs -o size=64k none small || return
		cleanup_fn unmount_lazily "$work/small"
		check_match 'No space left' diskfs create raw small/a size=1M preallocate=yes
		check_match 'No space left' diskfs create vhd small/a size=2000G
		check_equal "" "$(ls -A small)" "what is left"
		umount small
	fi
}

mistakes() {
	check_output "diskfs: there is no format 'qcow': there are raw, vhd" \
		diskfs create qcow a.img size=1M
	check_output "diskfs: size: is missing" diskfs create raw x
	check_output "diskfs: size: is missing" diskfs create vhd x
	check_output "diskfs: size: is given twice" diskfs create raw x size=1M size=2M
	check_output "diskfs: 'size' is not KEY=VALUE" diskfs create raw x size
	check_output "diskfs: 'sise' is no option of the format raw (did you mean 'size'?)" \
		diskfs create raw x sise=1M
	check_match "^diskfs: size: '1x' is no size" diskfs create raw x size=1x
	check_output "diskfs: size: is no multiple of 512 bytes" diskfs create raw x size=1000
	check_output "diskfs: size: is no multiple of 512 bytes" diskfs create vhd x size=1000
	check_match '^diskfs: size: .*2040G' diskfs create vhd x size=3T
	check_match '^diskfs: block_size: is too small' diskfs create vhd x size=2000G block_size=4K
	check_match '^diskfs: block_size: .*power of two' diskfs create vhd x size=1M block_size=3M
	check_match '^diskfs: parent: is missing' diskfs create vhd x type=differencing
	check_match '^diskfs: parent: is for' diskfs create vhd x type=dynamic size=1M parent=used.vhd
	check_match '^diskfs: size: .*parent' diskfs create vhd x size=1M parent=used.vhd
	check_match '^diskfs: preallocate: is for' diskfs create vhd x size=1M preallocate=yes
	check_match "cannot open 'gone'" diskfs create vhd x parent=gone
	check_match "'a' is no VHD" diskfs create vhd x parent=a
	check_match 'no control characters|no UTF-8' eval \
		'diskfs create vhd $'"'n\xffx.vhd'"' size=1M && diskfs create vhd x parent=$'"'n\xffx.vhd'"
	check_match 'wrong number of arguments' diskfs create raw
	check_match -- '--force is for create' diskfs check --force a
	check_match -- '--repair is for check' diskfs create --repair raw x size=1M
	check_fails 16 diskfs check
	check_fails 16 diskfs check --wrong a
	check_fails 16 diskfs check a b
	check_equal "" "$(ls x 2>/dev/null)" "what was created"
}

# help_lists FORMAT OPTION...
help_lists() {
	local format=$1 option

	shift
	for option; do
		check_match "^  $option: " eval \
			"diskfs --help create | sed -n '/^$format: /,/^[a-z]*: /p'"
		check_match "Cm $option" sed -n '/^\.Sh IMAGE FILES/,/^\.Sh /p' "$manual"
	done
}

helps() {
	help_lists raw size preallocate
	help_lists vhd type size round block_size parent preallocate
	check_equal 8 "$(diskfs --help create | grep -cE '^  [a-z_]+: ')" "options in the help"
}

test_case "raw images" raw_images
test_case "files that are there already" existing_files
test_case "images in use" images_in_use
test_case "nothing is left of what fails" failures
test_case "mistakes" mistakes
test_case "help and manual" helps

# ---- check ---------------------------------------------------------------------------------------

# edit FILE CODE: Python that changes the bytes in d; put(at, bytes), footer(at), header() and
# entry(i, sector) are there, of which footer and header make the checksum right again.
edit() {
	python3 - "$1" <<-EOT
		import struct, sys
		d = bytearray(open(sys.argv[1], "rb").read())
		def put(at, data):
		    d[at:at + len(data)] = data
		def sign(at, length, field):
		    put(at + field, bytes(4))
		    put(at + field, struct.pack(">I", ~sum(d[at:at + length]) & 0xffffffff))
		def footer(at, *puts):
		    at %= len(d)
		    for where, data in puts:
		        put(at + where, data)
		    sign(at, 512, 64)
		def header(*puts):
		    for where, data in puts:
		        put(512 + where, data)
		    sign(512, 1024, 36)
		table = struct.unpack(">Q", d[528:536])[0]
		def entry(i, sector):
		    put(table + 4 * i, struct.pack(">I", sector))
		def sector_of(i):
		    return struct.unpack(">I", d[table + 4 * i:table + 4 * i + 4])[0]
		$2
		open(sys.argv[1], "wb").write(d)
	EOT
}

# damaged IMAGE CODE SENTENCE: CODE is what happens to IMAGE.
damaged() {
	cp "$1" bad.vhd
	edit bad.vhd "$2"
	cp bad.vhd bad.copy
	check_match "^bad.vhd: $3" diskfs check bad.vhd
	check_fails 4 diskfs check bad.vhd
	check cmp bad.copy bad.vhd
}

# mends IMAGE CODE SENTENCE: and --repair makes it what it was.
mends() {
	local output status=0

	damaged "$@"
	check_match ' \(--repair: ' diskfs check bad.vhd
	touch -d '2020-02-02 02:02:02' bad.vhd
	output=$(diskfs check --repair bad.vhd) || status=$?
	check_equal 1 $status "the status of a repair"
	check_match "^bad.vhd: $3.*: repaired, " echo "$output"
	# By which its children know it.
	check_equal 2020-02-02 "$(date -r bad.vhd +%F)" "the time of its last change"
	check_match '^bad.vhd: vhd, nothing is wrong' diskfs check bad.vhd
	check cmp "$1" bad.vhd || echo "# after: $2"
}

# leaves IMAGE CODE SENTENCE: and --repair changes nothing.
leaves() {
	damaged "$@"
	check_fails 4 diskfs check --repair bad.vhd
	check cmp bad.copy bad.vhd
}

clean_images() {
	local image

	head -c 9M /dev/urandom >data.raw
	truncate -s 20M data.raw
	qemu-img convert -f raw -O vpc -o subformat=dynamic,force_size=on data.raw dynamic.vhd
	qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on data.raw fixed.vhd
	diskfs create vhd empty.vhd size=20M
	diskfs create vhd child.vhd parent=dynamic.vhd
	for image in dynamic fixed empty child; do
		check_equal "$image.vhd: vhd, nothing is wrong" "$(diskfs check $image.vhd | tail -n 1)"
		check_fails 0 diskfs check --repair $image.vhd
	done
}

footers() {
	local image

	mends empty.vhd 'del d[-512:]' 'the footer is missing at the end of the file'
	mends empty.vhd 'd[-100] ^= 1' 'the footer is damaged: the footer has checksum'
	for image in dynamic child; do
		mends $image.vhd 'd[-100] ^= 1' 'the footer is damaged: the footer has checksum'
		mends $image.vhd 'd[100] ^= 1' 'the copy of the footer at the beginning is damaged'
		mends $image.vhd 'put(0, bytes(512))' 'the copy of the footer at the beginning is missing'
		mends $image.vhd 'del d[-512:]' 'the footer is missing at the end of the file'
		mends $image.vhd 'd[-512:] = bytes(512)' 'the footer is missing at the end of the file'
		mends $image.vhd 'del d[-300:]' 'the footer is missing at the end of the file'
		mends $image.vhd 'd += bytes(100)' 'the file has 100 bytes behind its footer'
		mends $image.vhd 'footer(0, (24, b"time"))' 'the copy of the footer .* differs from it'
		leaves $image.vhd 'footer(0, (68, b"id"))' '.*of different disks'
		leaves $image.vhd 'd[100] ^= 1; d[-100] ^= 1' 'the footer has checksum'
		leaves $image.vhd 'footer(0, (84, b"1")); footer(-512, (84, b"1"))' '.*saved state'
	done
	mends fixed.vhd 'd += bytes(100)' 'the file has 100 bytes behind its footer'
	leaves fixed.vhd 'd[-100] ^= 1' 'the footer has checksum'
	leaves fixed.vhd 'del d[0:1024]' 'the disk has 20971520 bytes, but the file only 20970496'
	# The file of another day may begin with a whole VHD.
	edit fixed.vhd 'put(0, open("dynamic.vhd", "rb").read(4096))'
	check_fails 0 diskfs check fixed.vhd
}

tables() {
	leaves dynamic.vhd 'd[600] ^= 1' 'the dynamic disk header has checksum'
	leaves dynamic.vhd 'header((32, struct.pack(">I", 3 << 20)))' 'the dynamic disk header says blocks'
	leaves dynamic.vhd 'header((28, struct.pack(">I", 1)))' 'the block allocation table has 1 entries'
	leaves dynamic.vhd 'header((16, struct.pack(">Q", 1 << 40)))' 'the block allocation table ends'
	leaves dynamic.vhd 'entry(1, 0x7fffffff)' 'block 1 lies in sectors'
	leaves dynamic.vhd 'entry(1, 2)' 'block 1, in sectors .* lies on'
	leaves dynamic.vhd 'entry(1, sector_of(0) + 5)' 'blocks 0 and 1 overlap'
	leaves dynamic.vhd 'entry(9, sector_of(0))' 'blocks 0 and 9 overlap'
	# Where nobody knows what is in use, nothing is written but over what was a footer.
	leaves dynamic.vhd 'entry(1, 2); del d[-512:]' 'the footer is missing'
	damaged dynamic.vhd 'entry(1, 2); d[-100] ^= 1' 'the footer is damaged'
	check_fails 4 diskfs check --repair bad.vhd
	check cmp <(tail -c 512 bad.vhd) <(head -c 512 dynamic.vhd)
	# Of many that are wrong not all are told.
	diskfs create --force vhd many.vhd size=1G block_size=4K
	edit many.vhd 'for i in range(5000): entry(i, 2)'
	check_equal 101 "$(diskfs check many.vhd | wc -l)" "lines"
	check_match '5000 blocks in all are wrong' diskfs check many.vhd
}

# What its bitmap does not have: the image of QEMU has all of it; in the child, block 0 has a slot of
# which the second eight sectors are valid.
bitmaps() {
	local where='the first at byte'

	diskfs create vhd partly.vhd parent=dynamic.vhd block_size=512K
	edit partly.vhd 'put(len(d) - 512, bytes([0, 255]) + bytes(510) + bytes(4096) + b"data" * 1024 +
bytes((512 << 10) - 8192) + d[:512]); entry(0, len(d) // 512 - 1026)'
	check_match '^partly.vhd: vhd, nothing is wrong' diskfs check partly.vhd
	mends partly.vhd 'put(sector_of(0) * 512 + 512, b"x")' \
		"in block 0 there are data in 1 sectors .*, $where 0 of the disk: .* in the parent"
	mends partly.vhd 'put((sector_of(0) + 1 + 1000) * 512 + 511, b"x" * 513)' \
		"in block 0 there are data in 2 sectors .*, $where 512000 of the disk"
	mends partly.vhd 'put(sector_of(0) * 512 + 512, b"x"); del d[-512:]' \
		'the footer is missing at the end'
	leaves dynamic.vhd 'd[sector_of(1) * 512 + 511] = 0xf0' \
		"in block 1 there are data in 4 sectors .*, $where 4192256 of the disk: .*QEMU"
	# Zeros are never data, nor is what no block has. Where blocks overlap nobody is asked.
	edit partly.vhd 'put(len(d) - 512, b"x" * 4096 + d[:512])'
	check_fails 0 diskfs check partly.vhd
	leaves partly.vhd 'put(sector_of(0) * 512 + 512, b"x"); entry(7, sector_of(0) + 8)' \
		'blocks 0 and 7 overlap'
	check_fails 1 grep bitmap <(diskfs check bad.vhd)
}

# Each image of a chain is looked at, the first is mended.
chains() {
	local here

	here=$(pwd -P)
	mkdir chain
	cp --preserve=timestamps dynamic.vhd chain/base.vhd
	(cd chain && diskfs create vhd middle.vhd parent=base.vhd &&
		diskfs create vhd top.vhd parent=middle.vhd) || return
	check_output "chain/top.vhd: its parent is '$here/chain/middle.vhd'
$here/chain/middle.vhd: its parent is '$here/chain/base.vhd'
chain/top.vhd: vhd, nothing is wrong" diskfs check chain/top.vhd
	check_fails 0 diskfs check --repair chain/top.vhd

	cp chain/middle.vhd middle.copy
	edit chain/middle.vhd 'd[100] ^= 1'
	cp chain/middle.vhd middle.bad
	check_match "^$here/chain/middle.vhd: the copy .* \(--repair: " diskfs check chain/top.vhd
	check_fails 4 diskfs check --repair chain/top.vhd
	check cmp middle.bad chain/middle.vhd
	check_fails 1 diskfs check --repair chain/middle.vhd
	check cmp middle.copy chain/middle.vhd
	check_fails 0 diskfs check chain/top.vhd

	edit chain/base.vhd 'footer(0, (68, b"other id")); footer(-512, (68, b"other id"))'
	check_match "^$here/chain/middle.vhd: '.*base.vhd' is not the parent: its unique id is" \
		diskfs check chain/top.vhd
	rm chain/base.vhd
	check_match "^$here/chain/middle.vhd: its parent is not found: tried" diskfs check chain/top.vhd
	check_fails 4 diskfs check chain/top.vhd
	check_match 'is in use' in_use chain/middle.vhd diskfs check chain/top.vhd
	mkdir elsewhere
	(cd elsewhere && diskfs create vhd far.vhd parent=../chain/middle.vhd) || return
	check_match "'$here/chain/middle.vhd', which is outside of .*it was not looked at" \
		diskfs check elsewhere/far.vhd
	check_fails 0 diskfs check elsewhere/far.vhd
}

# Which image of a chain has what: partly.vhd has the second eight sectors.
maps() {
	printf '[file]\ndriver = file\npath = partly.vhd\n[vm]\ndriver = vhd\nbelow = file\n' >vm.conf
	check_match '^ *0 +4096  data   /.*/dynamic.vhd$' diskfs map vm.conf vm
	check_match '^ *4096 +4096  data   /?.*partly.vhd$' diskfs map vm.conf vm
	# 9 MiB, and what is in the same page of the file.
	check_match '^ *8192 +94[0-9]{5}  data   /.*/dynamic.vhd$' diskfs map vm.conf vm
	check_match '^ *10485760 +10485760  zeros  -$' diskfs map vm.conf vm
	diskfs map --json vm.conf vm >map.json || not_ok "status $?"
	check_output "20971520 ['dynamic.vhd', 'partly.vhd', 'dynamic.vhd'] None" python3 -c '
import json, os
runs = json.load(open("map.json"))
assert all(a["offset"] + a["length"] == b["offset"] for a, b in zip(runs, runs[1:]))
print(runs[-1]["offset"] + runs[-1]["length"],
      [os.path.basename(run["layer"]) for run in runs[:3]], runs[-1]["layer"])'
}

no_images() {
	check_output "diskfs: cannot open 'gone': No such file or directory" diskfs check gone
	check_output "diskfs: 'data.raw' is of no format that can be checked" diskfs check data.raw
	check_fails 8 diskfs check data.raw
	: >empty
	check_fails 8 diskfs check empty
	check_match 'neither a regular file' timeout 5 diskfs check fifo
	check_fails 8 diskfs check .
	check_match 'cannot write' eval 'diskfs check dynamic.vhd >/dev/full'
	check_fails 8 eval 'diskfs check dynamic.vhd >/dev/full'
}

test_case "images that are right" clean_images
test_case "footers" footers
test_case "tables" tables
test_case "bitmaps" bitmaps
test_case "chains" chains
test_case "maps of chains" maps
test_case "what is no image" no_images

# ---- the bar -------------------------------------------------------------------------------------

# A commit of two batches down into a slow disk shows on a terminal how far it is, elsewhere nothing.
bar() {
	local i

	truncate -s 4M slow.raw
	cat >slow.conf <<-EOT
		[raw]
		driver = file
		path = slow.raw
		[slow]
		driver = delay
		below = raw
		[diff]
		driver = sqlite
		path = slow.layer
		[disk]
		driver = layered
		below = diff, slow
	EOT
	for i in plain terminal; do
		mount_disks slow.conf -o transport=poll # once is enough
		python3 -c 'import os, sys
f = os.open(sys.argv[1], os.O_RDWR)
for at in range(0, 4 << 20, 65536):
    os.pwrite(f, sys.argv[2].encode(), at)
os.fsync(f)' "$mnt/disk.img" $i
		unmount_disks
		sed 's/driver = delay/&\nwrite_delay = 700ms/' slow.conf >slower.conf
		if [ $i = plain ]; then
			check_output "" diskfs commit slower.conf disk
		else
			script -qec "diskfs commit slower.conf disk" typescript >/dev/null </dev/null
			check_match '\[#+ *\] +[0-9]+ %, .* of .*iB' cat typescript
		fi
		check_equal $i "$(head -c ${#i} slow.raw)" "what is below"
	done
}

if [ -w /dev/fuse ] && command -v script >/dev/null; then
	test_case "a bar for what takes longer" bar
else
	skip_case "a bar for what takes longer" "needs FUSE and script"
fi
