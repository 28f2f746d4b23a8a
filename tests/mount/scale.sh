#!/bin/bash
# SPDX-License-Identifier: MIT
# A thousand stacks in one mount, and images of 64 TiB: all of them are there, to the last byte, and
# the reports know all of them. What it takes is printed; `scripts/bench --scale` judges it.
. "$(dirname "$0")/lib.sh"
requires python3 getfattr
requires_fuse

each=500 # files, and as many RAM disks
huge=$((64 << 40))

config <<EOT
$(for ((i = 0; i < each; i++)); do
	printf '[f%d]\ndriver = file\npath = f%d.img\nsize = 1M\n' $i $i
	printf '[r%d]\ndriver = ram\nsize = 1M\n' $i
done)
EOT

now_ms() {
	echo $((${EPOCHREALTIME/./} / 1000))
}

# timed WHAT COMMAND...: runs it and prints how long it took.
timed() {
	local what=$1 begin

	shift
	begin=$(now_ms)
	"$@"
	echo "# $what: $(($(now_ms) - begin)) ms"
}

all_there() {
	local names

	names=$(ls "$mnt")
	check_equal $((2 * each)) "$(wc -l <<<"$names")" "number of images"
	check_equal $((2 * each)) "$(stat -c %s "$mnt"/*.img | grep -cx 1048576)" "images of 1 MiB"
	check_output "type=\"file\"" field type "$mnt/f$((each - 1)).img"
}

field() {
	getfattr --absolute-names -n "user.diskfs.$1" "$2" | sed -n 's/^user\.diskfs\.//p'
}

# Every image holds its own bytes, and no one else's.
own_bytes() {
	check python3 - "$mnt" $each <<'PY'
import os, sys
mount, each = sys.argv[1], int(sys.argv[2])
names = [f"{kind}{i}" for i in range(each) for kind in "fr"]
for name in names:
    file = os.open(f"{mount}/{name}.img", os.O_RDWR)
    assert os.pwrite(file, name.encode().ljust(700, b"."), (1 << 20) - 700) == 700, name
    os.close(file)
for name in names:
    with open(f"{mount}/{name}.img", "rb", buffering=0) as file:
        file.seek(-700, 2)
        assert file.read() == name.encode().ljust(700, b"."), name
# All of them open at once.
files = [os.open(f"{mount}/{name}.img", os.O_RDWR | os.O_DIRECT) for name in names]
for file in files:
    os.fsync(file)
PY
	check_output "f7" head -c 2 <(tail -c 700 "$work/f7.img")
}

# The reports name every disk once, and count what own_bytes did.
reports() {
	timed "cat .status" eval 'cat "$mnt/.status" >"$work/status"'
	timed "cat .status.json" eval 'cat "$mnt/.status.json" >"$work/status.json"'
	timed "cat .metrics" eval 'cat "$mnt/.metrics" >"$work/metrics"'
	check python3 - "$work" $each <<'PY'
import json, re, sys
work, each = sys.argv[1], int(sys.argv[2])
names = {f"{kind}{i}" for i in range(each) for kind in "fr"}

found = re.findall(r"[fr]\d+\.img", open(f"{work}/status").read())
assert {name + ".img" for name in names} <= set(found), "a disk is missing in .status"

def strings(tree):
    if isinstance(tree, dict):
        for value in tree.values():
            yield from strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from strings(value)
    elif isinstance(tree, str):
        yield tree
assert names <= set(strings(json.load(open(f"{work}/status.json")))), "missing in .status.json"

series, sample = set(), re.compile(
    r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_]\w*="([^"\\]|\\.)*",?)*\})? [-+0-9.eE]+$')
text = open(f"{work}/metrics").read()
assert text.endswith("\n")
for line in text.splitlines():
    if line.startswith("#"):
        continue
    assert sample.match(line), line
    assert line.rsplit(" ", 1)[0] not in series, "twice: " + line
    series.add(line.rsplit(" ", 1)[0])
seen = set(re.findall(r'="([fr]\d+)(?:\.img)?"', text))
assert names <= seen, "missing in .metrics"
PY
}

# While it is read, it is of one state: a reader in small pieces gets whole JSON.
read_in_pieces() {
	check python3 -c '
import json, os, sys
file, text = os.open(sys.argv[1], os.O_RDONLY), b""
while piece := os.read(file, 4099):
    text += piece
json.loads(text)' "$mnt/.status.json"
}

# ---- 64 TiB --------------------------------------------------------------------------------------

# A folder whose file system has files of that size.
folder_for_huge() {
	local folder

	for folder in "$work" /dev/shm; do
		[ -w "$folder" ] || continue
		backing=$(mktemp -p "$folder" diskfs-scale.XXXXXX) || continue
		cleanup_fn rm -f "$backing"
		truncate -s $huge "$backing" 2>/dev/null && return
	done
	return 1
}

huge_disk() {
	local image=$mnt/$1.img

	check_output $huge stat -c %s "$image"
	check_output $huge fileop "$image" size64
	check_output "4096
ENOSPC
same
0" fileop "$image" pwrite $((huge - 4096)) 4096 77 pwrite $huge 1 77 \
		all $((huge - 4096)) 4096 "$2" fdatasync
	check_output "512
0" fileop -o direct "$image" pread $((huge - 512)) 512 pread $huge 512
	check_output "700
same" fileop "$image" pwrite $(((32 << 40) - 300)) 700 78 all $(((32 << 40) - 300)) 700 "$3"
}

# What was written is the only data, and is found at once.
huge_holes() {
	local image=$mnt/$1.img data

	# A file has whole blocks, a RAM disk sectors.
	data=$(fileop "$image" data 0)
	[ "$data" = $(((32 << 40) - 4096)) ] || check_equal $(((32 << 40) - 512)) "$data" "where data begin"
	check_output $((huge - 4096)) fileop "$image" data $(((32 << 40) + 4096))
	check_output $huge fileop "$image" hole $((huge - 1))
	[ "$(stat -c %b "$image")" -le 64 ] || not_ok "$(stat -c %b "$image") blocks"
	# Half of the disk given back, in one request.
	check_output "0
same" timeout 60 "$BUILD/tests/fileop" "$image" fallocate punch,keep $((16 << 40)) $((32 << 40)) \
		all $(((32 << 40) - 300)) 700 0
	check_output $((huge - 4096)) fileop "$image" data 0
}

timed "start with $((2 * each)) stacks" mount_disks "$conf"
test_case "$((2 * each)) stacks: names, sizes, attributes" all_there
test_case "$((2 * each)) stacks: each has its own bytes" own_bytes
test_case "$((2 * each)) stacks: the reports are complete" reports
test_case "$((2 * each)) stacks: a report of one state" read_in_pieces
timed "end" end_disks

backing=
kinds="ram null"
if folder_for_huge; then
	kinds="file $kinds"
else
	skip_case "file of 64 TiB" "no file system here has files of that size"
fi
config <<EOT
[diskfs]
; what null has dropped would be in the page cache
cache = none

[ram]
driver = ram
size = 64T

[null]
driver = null
size = 64T
$([[ $kinds != file* ]] || printf '[file]\ndriver = file\npath = %s\n' "$backing")
EOT
mount_disks "$conf"
for kind in $kinds; do
	if [ $kind = null ]; then
		test_case "null: 64 TiB" huge_disk null 0 0
		continue
	fi
	test_case "$kind: 64 TiB" huge_disk $kind 77 78
	test_case "$kind: 64 TiB, data and holes" huge_holes $kind
done
end_disks
