#!/bin/bash
# SPDX-License-Identifier: MIT
# VHD images, with other programs as judges: what they make is read here as they read it, and what is
# written here they read as it was written. 7-Zip and libvhdi know chains of differencing images,
# QEMU does not.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io 7zz python3
requires_fuse
cd "$work" || exit 1
PATH=$BUILD:$BUILD/tests:$PATH

# By one transport: what is in the file does not depend on it.
mount_image() {
	mount_disks "$conf" -o transport=auto
}

# ---- the judges ----------------------------------------------------------------------------------

by_7zip() {
	7zz e -tvhd -so "$1" 2>7zip.log
}

# Debian's own python, which has the module, if it is there at all.
has_libvhdi() {
	/usr/bin/python3 -c 'import pyvhdi' 2>/dev/null
}

# by_libvhdi IMAGE [PARENT...]. Its version of 2021 reads what is the parent's where a read of a child
# crosses a block: so in pages.
by_libvhdi() {
	/usr/bin/python3 - "$@" <<-'EOT'
		import pyvhdi, sys
		files = []
		for path in sys.argv[1:]:
		    files.append(pyvhdi.file())
		    files[-1].open(path)
		for child, parent in reversed(list(zip(files, files[1:]))):
		    child.set_parent(parent)
		rest = files[0].get_media_size()
		while rest > 0:
		    data = files[0].read_buffer(min(rest, 4096))
		    sys.stdout.buffer.write(data)
		    rest -= len(data)
	EOT
}

by_qemu() {
	qemu-img convert -f vpc -O raw "$1" qemu.raw && cat qemu.raw
}

# judges WANTED IMAGE [PARENT...]: all of them read WANTED from the image, and check has nothing to
# say.
judges() {
	local wanted=$1

	shift
	check_equal "$1: vhd, nothing is wrong" "$(diskfs check "$1" | tail -n 1)"
	by_7zip "$1" >7zip.raw || not_ok "7-Zip: $(cat 7zip.log)"
	check cmp "$wanted" 7zip.raw
	# It takes all bits of a byte in a bitmap of a child for one, where one is set.
	if has_libvhdi && { [ $# = 1 ] || [ $align = 4096 ]; }; then
		by_libvhdi "$@" >libvhdi.raw
		check cmp "$wanted" libvhdi.raw
	fi
	[ $# != 1 ] || check cmp "$wanted" <(by_qemu "$1")
	rm -f 7zip.raw libvhdi.raw qemu.raw
}

# ---- what is written -----------------------------------------------------------------------------

# scribble SEED FILE...: the same into each, at random: writes of any length, holes, a sync. With
# $align, places and lengths are multiples of that.
align=1
scribble() {
	python3 - "$align" "$@" <<-'EOT'
		import os, random, subprocess, sys
		align = int(sys.argv[1])
		random.seed(sys.argv[2])
		paths = sys.argv[3:]
		files = [os.open(path, os.O_RDWR) for path in paths]
		size = os.stat(paths[0]).st_size
		size = min(size, min(os.stat(path).st_size for path in paths))
		for turn in range(60):
		    length = random.choice([512, 4096, 65536, 1000, random.randrange(1, 3 << 20)])
		    at = random.randrange(size)
		    if random.random() < 0.5:
		        at &= ~4095
		    at -= at % align
		    length = min(length + -length % align, size - at)
		    data = random.randbytes(length) if turn % 5 else bytes(length)
		    for path, file in zip(paths, files):
		        if turn % 6 == 0:
		            subprocess.run(["fallocate", "-p", "-n", "-o", str(at), "-l", str(length), path],
		                           check=True)
		        else:
		            os.pwrite(file, data, at)
		for file in files:
		    os.fsync(file)
	EOT
}

# vhd_config NAME [LINE...]: a node for NAME.vhd, with a file below.
vhd_config() {
	local name=$1

	shift
	printf '[%s_file]\ndriver = file\npath = %s.vhd\n' "$name" "$name"
	printf '[%s]\ndriver = vhd\nbelow = %s_file\n' "$name" "$name"
	[ $# = 0 ] || printf '%s\n' "$@"
}

# ---- images of others ----------------------------------------------------------------------------

# reads_as IMAGE-NAME WANTED
reads_as() {
	vhd_config "$1" "readonly = yes" >"$conf"
	mount_image
	check cmp "$2" "$mnt/$1.img"
	unmount_disks
}

images_of_qemu() {
	local options name=0

	python3 -c 'import random, sys; random.seed(1); sys.stdout.buffer.write(random.randbytes(5 << 20))' >data
	truncate -s 8M data
	dd if=data of=data bs=1M count=3 seek=17 conv=notrunc status=none
	truncate -s 33M data
	for options in dynamic,force_size=on fixed,force_size=on dynamic fixed; do
		name=$((name + 1))
		qemu-img convert -f raw -O vpc -o subformat=$options data qemu$name.vhd
		# Without force_size it rounds up to cylinders.
		by_qemu qemu$name.vhd >wanted.raw
		reads_as qemu$name wanted.raw
		check cmp -n $((33 << 20)) data wanted.raw
		check_fails 0 diskfs check qemu$name.vhd
	done
}

# They are written on by turns.
turns_with_qemu() {
	local turn

	diskfs create vhd turns.vhd size=24M
	truncate -s 24M turns.raw
	vhd_config turns >"$conf"
	for turn in 1 2 3; do
		mount_image
		check cmp turns.raw "$mnt/turns.img"
		scribble $turn turns.raw "$mnt/turns.img"
		unmount_disks
		check cmp turns.raw <(by_qemu turns.vhd)
		qemu-io -f vpc -c "write -P $turn ${turn}M 9K" -c "write -P 9 $((20 + turn))M 64K" \
			-c flush turns.vhd >/dev/null
		qemu-io -f raw -c "write -P $turn ${turn}M 9K" -c "write -P 9 $((20 + turn))M 64K" \
			turns.raw >/dev/null
	done
	judges turns.raw turns.vhd
}

test_case "images of QEMU" images_of_qemu
test_case "by turns with QEMU" turns_with_qemu

# ---- images of ours ------------------------------------------------------------------------------

# written NAME OPTION...: made, written, and judged.
written() {
	local name=$1

	shift
	check diskfs create vhd "$name.vhd" "$@" || return
	vhd_config "$name" >"$conf"
	mount_image
	truncate -s "$(stat -c %s "$mnt/$name.img")" "$name.raw"
	scribble "$name" "$name.raw" "$mnt/$name.img"
	check cmp "$name.raw" "$mnt/$name.img"
	unmount_disks
	judges "$name.raw" "$name.vhd"
}

images_of_ours() {
	written fixed size=20M type=fixed
	written small size=20M block_size=512K
	written usual size=20M
	written large size=40M block_size=16M
	written odd size=10241K
	written round size=20M round=geometry
	written azure size=10241K round=mib type=fixed
	check_equal 0 "$(($(stat -c %s azure.raw) % 1048576))"
	check_equal 0 "$(stat -c %s usual.raw | awk '{ print $1 - 20971520 }')"
}

# What is freed is not in the file any more, and judges see zeros.
discards() {
	local before

	written freed size=32M block_size=512K
	vhd_config freed >"$conf"
	mount_image
	check fallocate -p -n -o 0 -l 32M "$mnt/freed.img"
	check fileop "$mnt/freed.img" fsync
	before=$(stat -c %s freed.vhd)
	# Pages of which slots have a part each stay.
	[ "$(du -k freed.vhd | cut -f 1)" -lt 512 ] || not_ok "the file takes $(du -k freed.vhd)"
	[ "$(du -k "$mnt/freed.img" | cut -f 1)" -lt 512 ] || not_ok "$(du -k "$mnt/freed.img")"
	dd if=freed.raw of="$mnt/freed.img" bs=512K count=8 conv=notrunc status=none
	unmount_disks
	check_equal "$before" "$(stat -c %s freed.vhd)" "the size, with freed blocks in use again"
	dd if=freed.raw of=again.raw bs=512K count=8 status=none
	truncate -s 32M again.raw
	judges again.raw freed.vhd
}

test_case "images of ours" images_of_ours
test_case "discards" discards

# ---- chains --------------------------------------------------------------------------------------

# chain ALIGN: three deep, of three sizes of blocks; each is written to before the next is made over
# it, in pieces that begin at a multiple of ALIGN.
chain() {
	local name parents="" last size

	align=$1
	written base$1 size=20M
	cp base$1.raw chain.raw
	last=base$1
	for size in 512k 2m 16m; do
		name=$size-$1
		check diskfs create vhd $name.vhd parent=$last.vhd block_size=${size^^}
		vhd_config $name >"$conf"
		mount_image
		check cmp chain.raw "$mnt/$name.img"
		scribble $name chain.raw "$mnt/$name.img"
		check cmp chain.raw "$mnt/$name.img"
		unmount_disks
		parents="$last.vhd $parents"
		# shellcheck disable=SC2086 # several files
		judges chain.raw $name.vhd $parents
		last=$name
	done
	# What is below stayed as it was.
	judges base$1.raw base$1.vhd
	align=1
}

# Another folder than the parent's is only followed where that is allowed.
elsewhere() {
	mkdir elsewhere
	check diskfs create vhd elsewhere/far.vhd parent=16m-512.vhd
	vhd_config elsewhere/far | sed 's|\[elsewhere/|[|; s|below = .*/|below = |' >"$conf"
	check_match 'parent_folder' diskfs "$conf" "$mnt"
	echo "parent_folder = ." >>"$conf"
	mount_image
	check cmp chain512.raw "$mnt/far.img"
	unmount_disks
}

# After a kill all that was flushed, in the lower half, is there; a repair makes it an image that the
# strictest reader takes.
killed() {
	local turn status

	check diskfs create vhd killed.vhd size=64M block_size=512K
	truncate -s 32M killed.raw
	vhd_config killed >"$conf"
	for turn in 1 2 3 4; do
		mount_image
		check cmp -n 32M killed.raw "$mnt/killed.img"
		scribble $turn killed.raw "$mnt/killed.img"
		# New blocks in the upper half, which nobody flushes.
		(while [ -e "$mnt/killed.img" ]; do
			fileop "$mnt/killed.img" pwrite $((32 + RANDOM % 32))M 4K 7
		done) >/dev/null 2>&1 &
		sleep 0.2
		kill -KILL "$daemon_pid"
		wait "$daemon_pid" 2>/dev/null
		unmount_lazily "$mnt"
		wait
		daemon_pid=
		status=0
		diskfs check --repair killed.vhd >check.log || status=$?
		[ $status -le 1 ] || not_ok "check says $(cat check.log)"
		check_fails 0 diskfs check killed.vhd
		by_7zip killed.vhd >7zip.raw || not_ok "7-Zip: $(cat 7zip.log)"
		check cmp -n 32M killed.raw 7zip.raw
	done
}

# ---- dirty bitmaps -------------------------------------------------------------------------------

# soil IMAGE MODE [RAW]: "noise" fills what is not valid in the slots, "zeros" makes it zeros; "clear" makes
# pages that have data invalid, and zeros in RAW.
soil() {
	python3 - "$@" <<-'EOT'
		import struct, sys
		d = bytearray(open(sys.argv[1], "rb").read())
		raw = bytearray(open(sys.argv[3], "rb").read()) if len(sys.argv) > 3 else None
		table, = struct.unpack(">Q", d[528:536])
		size, = struct.unpack(">Q", d[48:56])
		block_size, = struct.unpack(">I", d[544:548])
		pages, bitmap = block_size // 4096, -(-block_size // 512 // 4096) * 512
		count = 0
		for block in range(-(-size // block_size)):
		    at = struct.unpack(">I", d[table + 4 * block:table + 4 * block + 4])[0] * 512
		    for page in range(pages if at < 0xffffffff * 512 else 0):
		        data = at + bitmap + page * 4096
		        if sys.argv[2] != "clear" and d[at + page] == 0:
		            d[data:data + 4096] = b"?" * 4096 if sys.argv[2] == "noise" else bytes(4096)
		        elif sys.argv[2] == "clear" and page % 7 == 3 and any(d[data:data + 4096]):
		            d[at + page] = 0
		            first = block * block_size + page * 4096
		            raw[first:first + 4096] = bytes(4096)
		        else:
		            continue
		        count += 1
		open(sys.argv[1], "r+b").write(d)
		if raw:
		    open(sys.argv[3], "wb").write(raw)
		sys.exit(count == 0)
	EOT
}

# In a child it is nobody's: all show the parent's there, and a repair takes it away.
dirty_child() {
	align=4096
	cp --preserve=timestamps 16m-4096.vhd clean.vhd
	cp --preserve=timestamps 16m-4096.vhd dirty.vhd
	check soil dirty.vhd noise
	check_match 'data in .* sectors that its bitmap does not have' diskfs check dirty.vhd
	check_fails 4 diskfs check dirty.vhd
	check cmp chain.raw <(by_7zip dirty.vhd)
	reads_as dirty chain.raw
	check_fails 1 diskfs check --repair dirty.vhd
	judges chain.raw dirty.vhd 2m-4096.vhd 512k-4096.vhd base4096.vhd
	check cmp clean.vhd dirty.vhd
	align=1
}

# In a dynamic image they do not agree: it is told, and nothing is changed.
dirty_dynamic() {
	cp usual.vhd dirty.vhd
	cp usual.raw clear.raw
	check soil dirty.vhd clear clear.raw
	check_fails 1 cmp -s usual.raw clear.raw
	cp dirty.vhd before.vhd
	check_match 'they read as zeros, but QEMU shows the data' diskfs check dirty.vhd
	check_fails 4 diskfs check --repair dirty.vhd
	check cmp before.vhd dirty.vhd
	reads_as dirty clear.raw
	check cmp usual.raw <(by_qemu dirty.vhd)
	! has_libvhdi || check cmp clear.raw <(by_libvhdi dirty.vhd)
	# The strictest reader takes none of it, but the zeros of writers that set bits as they write.
	check_fails 2 7zz t -tvhd dirty.vhd
	check soil dirty.vhd zeros
	check_fails 0 diskfs check dirty.vhd
	check cmp clear.raw <(by_7zip dirty.vhd)
}

# What was not flushed when the daemon was killed is there without its bits.
killed_child() {
	check diskfs create vhd orphan.vhd parent=base4096.vhd
	cp base4096.raw orphan.raw
	vhd_config orphan >"$conf"
	mount_image
	check fileop "$mnt/orphan.img" pwrite 3M 64K 5 fsync
	check fileop orphan.raw pwrite 3M 64K 5
	check fileop "$mnt/orphan.img" pwrite 2M 256K 6
	kill -KILL "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null
	unmount_lazily "$mnt"
	daemon_pid=
	check_match 'in block 1 there are data in 512 sectors .* the first at byte 2097152 ' \
		diskfs check orphan.vhd
	check_fails 1 diskfs check --repair orphan.vhd
	align=4096
	judges orphan.raw orphan.vhd base4096.vhd
	align=1
}

# A bitmap that cannot be read is told, and all else is looked at.
unreadable() {
	local at

	at=$(python3 -c 'import struct, sys
d = open("usual.vhd", "rb").read()
table, = struct.unpack(">Q", d[528:536])
print(struct.unpack(">I", d[table:table + 4])[0] * 512)')
	printf '[file]\ndriver = file\npath = usual.vhd\n[bad]\ndriver = fault\nbelow = file\n' >"$conf"
	printf 'rules = read error range=%d-%d\n' "$at" $((at + 512)) >>"$conf"
	mount_image
	check_match '^[^ ]*: not all bitmaps could be looked at: cannot read .* Input/output error$' \
		diskfs check "$mnt/bad.img"
	check_fails 4 diskfs check "$mnt/bad.img"
	unmount_disks
}

test_case "a chain" chain 512
cp chain.raw chain512.raw
test_case "a chain, written in pages" chain 4096
test_case "a parent in another folder" elsewhere
test_case "killed" killed
test_case "data that no bitmap has, in a child" dirty_child
test_case "data that no bitmap has, in a dynamic image" dirty_dynamic
test_case "a child whose daemon was killed" killed_child
test_case "a bitmap that cannot be read" unreadable
