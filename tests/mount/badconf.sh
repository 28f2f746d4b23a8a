#!/bin/bash
# SPDX-License-Identifier: MIT
# Bad configurations and command lines: exactly one clear line for each error, status 1, nothing
# mounted. And what the command prints when nothing is wrong.
. "$(dirname "$0")/lib.sh"
requires_fuse
cd "$work" || exit 1
printf 'x%.0s' {1..5120} >good.img
: >empty.img
bad_conf=$work/bad.conf

# bad NAME LINES [LINES]: the configuration on standard input, and all that is said about it; by
# --check, and where that differs by mounting.
bad() {
	cat >"$bad_conf"
	test_case "$1" refused "$2" "${3:-$2}"
}

refused() {
	check_equal 1 "$(status_of diskfs --check bad.conf)" "status of --check"
	check_output "$1" cat stderr
	check_output "" cat stdout
	check_equal 1 "$(status_of diskfs bad.conf mnt)" "status of mounting"
	check_output "$2" cat stderr
	check_output "" cat stdout
	! mounted "$mnt" || not_ok "mounted"
}

status_of() {
	local status=0

	"$@" >stdout 2>stderr </dev/null || status=$?
	echo $status
}

# ---- the file's form -----------------------------------------------------------------------------

bad "no section" "bad.conf: there is no disk: write a [section] with a driver" <<EOT
; nothing but a comment
EOT
bad "only settings" "bad.conf: there is no disk: write a [section] with a driver" <<EOT
[diskfs]
workers = 2
EOT
bad "a key before the first section" \
	"bad.conf:1: 'driver' stands before the first [section]" <<EOT
driver = ram
[a]
driver = ram
size = 1M
EOT
bad "no equals sign" "bad.conf:3: [a]: no '=' in 'size 1M': write key = value" <<EOT
[a]
driver = ram
size 1M
EOT
bad "no closing bracket" "bad.conf:1: '[' without ']'
bad.conf:2: 'driver' stands before the first [section]" <<EOT
[a
driver = ram
EOT
bad "a section twice" "bad.conf:4: [a]: the section is repeated; the first is in line 1" <<EOT
[a]
driver = ram
size = 1M
[a]
driver = ram
size = 2M
EOT
bad "a key twice" "bad.conf:4: [a] size: is repeated; the first is in line 3" <<EOT
[a]
driver = ram
size = 1M
size = 2M
EOT
bad "an upper case section" \
	"bad.conf:1: [Disk]: write the name in lower case (\`file =\` gives an image any name)" <<EOT
[Disk]
driver = ram
size = 1M
EOT
bad "an upper case key" "bad.conf:3: [a] Size: write the name in lower case" <<EOT
[a]
driver = ram
Size = 1M
EOT
bad "a colon in a section" \
	"bad.conf:1: [a:b]: a name is of a-z, 0-9, '-', '_' and '.', and begins with a letter or digit" <<EOT
[a:b]
driver = ram
size = 1M
EOT
bad "a comment sign in a value" \
	"bad.conf:3: [a] path: '#' in a value: put the value into quotes, or a blank in front of a comment" <<EOT
[a]
driver = file
path = /srv/a#1.img
EOT
bad "a quote that does not end" "bad.conf:3: [a] path: the closing quote is missing" <<EOT
[a]
driver = file
path = "/srv/a.img
EOT
bad "a line that goes on" \
	"bad.conf:2: [a]: the line ends with a backslash; values cannot go on in the next line
bad.conf:3: [a]: no '=' in 'ram': write key = value" <<'EOT'
[a]
driver = \
ram
EOT
bad "no text at all" "bad.conf:1: column 1: this is not UTF-8" < <(printf '\377\376[\n')
bad "a control character" "bad.conf:2: [a]: column 3: control characters are not allowed" \
	< <(printf '[a]\ndr\001ver = ram\n')
bad "an endless line" "bad.conf:1: the line is longer than 1000 bytes" \
	< <(head -c 1001 /dev/zero | tr '\0' a)

# ---- sections and keys ---------------------------------------------------------------------------

bad "no driver" \
	"bad.conf:1: [a] driver: is missing, but every disk needs one (diskfs --drivers lists all)" <<EOT
[a]
file = a.img
EOT
bad "an unknown driver" \
	"bad.conf:2: [a] driver: unknown driver 'tape' (diskfs --drivers lists all)" <<EOT
[a]
driver = tape
EOT
bad "a mistyped driver" \
	"bad.conf:2: [a] driver: unknown driver 'fiel' (did you mean 'file'? diskfs --drivers lists all)" <<EOT
[a]
driver = fiel
path = good.img
EOT
bad "an unknown key" "bad.conf:4: [a] colour: unknown key 'colour'" <<EOT
[a]
driver = ram
size = 1M
colour = red
EOT
bad "a mistyped key" \
	"bad.conf:4: [a] sector_sise: unknown key 'sector_sise' (did you mean 'sector_size'?)" <<EOT
[a]
driver = ram
size = 1M
sector_sise = 512
EOT
bad "a mistyped setting" \
	"bad.conf:2: [diskfs] worker: unknown key 'worker' (did you mean 'workers'?)" <<EOT
[diskfs]
worker = 2
[a]
driver = ram
size = 1M
EOT
bad "a missing key" "bad.conf:1: [a] size: is missing, but driver 'ram' needs it" <<EOT
[a]
driver = ram
EOT
bad "a missing path" "bad.conf:1: [a] path: is missing, but driver 'file' needs it" <<EOT
[a]
driver = file
EOT
bad "no value" "bad.conf:3: [a] size: has no value" <<EOT
[a]
driver = ram
size =
EOT
bad "no size" \
	"bad.conf:3: [a] size: '12x' is no size: write a number of bytes, or one with K, M, G or T" <<EOT
[a]
driver = ram
size = 12x
EOT
bad "neither yes nor no" "bad.conf:4: [a] readonly: 'maybe' is neither yes nor no" <<EOT
[a]
driver = file
path = good.img
readonly = maybe
EOT
bad "none of the choices" "bad.conf:2: [diskfs] cache: 'some' is none of none, writethrough or writeback" <<EOT
[diskfs]
cache = some
[a]
driver = ram
size = 1M
EOT
bad "no mode" "bad.conf:2: [diskfs] mode: '999' is no octal mode: write one like 0640" <<EOT
[diskfs]
mode = 999
[a]
driver = ram
size = 1M
EOT
bad "no number" \
	"bad.conf:2: [diskfs] workers: 'two' is no number: write digits, or 0x and hexadecimal ones" <<EOT
[diskfs]
workers = two
[a]
driver = ram
size = 1M
EOT
bad "several errors" "bad.conf:2: [diskfs] cache: 'some' is none of none, writethrough or writeback
bad.conf:5: [a] size: '?' is no size: write a number of bytes, or one with K, M, G or T
bad.conf:7: [b] driver: unknown driver 'tape' (diskfs --drivers lists all)" <<EOT
[diskfs]
cache = some
[a]
driver = ram
size = ?
[b]
driver = tape
EOT

# ---- stacks --------------------------------------------------------------------------------------

bad "a leaf on another disk" "bad.conf:7: [b] below: driver 'ram' stands on no other disk" <<EOT
[a]
driver = ram
size = 1M
[b]
driver = ram
size = 1M
below = a
EOT
bad "a dangling name" "bad.conf:4: [b] below: driver 'ram' stands on no other disk
bad.conf:4: [b] below: there is no section [nobody]" <<EOT
[b]
driver = ram
size = 1M
below = nobody
EOT
bad "the same file name twice" "bad.conf:7: [b] file: [a] is exported as 'a.img' already" <<EOT
[a]
driver = ram
size = 1M
[b]
driver = ram
size = 1M
file = a.img
EOT
bad "a slash in a file name" "bad.conf:4: [a] file: the name 'x/a.img' contains a '/'" <<EOT
[a]
driver = ram
size = 1M
file = x/a.img
EOT
bad "a file name like the status" "bad.conf:4: [a] file: the name '.status' begins with a '.'" <<EOT
[a]
driver = ram
size = 1M
file = .status
EOT

# ---- disks that do not open ----------------------------------------------------------------------

missing="bad.conf:3: [a] path: cannot open '$work/missing.img': No such file or directory"
bad "no backing file" "$missing" "$missing (size = would create it)" <<EOT
[a]
driver = file
path = missing.img
EOT
bad "a read-only disk without backing file" "$missing" <<EOT
[a]
driver = file
path = missing.img
readonly = yes
EOT
bad "a folder as backing file" "bad.conf:3: [a] path: '$work/mnt' is no regular file" \
	"bad.conf:3: [a] path: cannot open '$work/mnt': Is a directory" <<EOT
[a]
driver = file
path = mnt
EOT
bad "an empty backing file" \
	"bad.conf:3: [a] path: '$work/empty.img' is empty: remove it and set size, to have it created" <<EOT
[a]
driver = file
path = empty.img
EOT
bad "a backing file of another size" \
	"bad.conf:4: [a] size: '$work/good.img' has 5120 bytes, not 1048576: an existing file is not resized" <<EOT
[a]
driver = file
path = good.img
size = 1M
EOT
bad "a backing file smaller than a sector" \
	"bad.conf:3: [a] path: '$work/good.img' is smaller than one sector of 8192 bytes" <<EOT
[a]
driver = file
path = good.img
sector_size = 8K
EOT
bad "a size that is no multiple of the sector" \
	"bad.conf:3: [a] size: must be a multiple of the sector size of 512" <<EOT
[a]
driver = ram
size = 1000
EOT
bad "a sector size below 512" \
	"bad.conf:4: [a] sector_size: '256' is out of range: it must be 512 to 64K" <<EOT
[a]
driver = ram
size = 1M
sector_size = 256
EOT
bad "a user that there is not" "bad.conf:2: [diskfs] uid: there is no user 'nobody-at-all'" <<EOT
[diskfs]
uid = nobody-at-all
[a]
driver = ram
size = 1M
EOT
bad "a sector size that there is not" "bad.conf:4: [a] sector_size: '1000' is no power of two" <<EOT
[a]
driver = ram
size = 1M
sector_size = 1000
EOT
missing="bad.conf:6: [b] path: cannot open '/nowhere/b.img': No such file or directory"
bad "the second of two disks does not open" "$missing" "$missing (size = would create it)" <<EOT
[a]
driver = ram
size = 1M
[b]
driver = file
path = /nowhere/b.img
EOT

# ---- the command line ----------------------------------------------------------------------------

cat >good.conf <<EOT
[a]
driver = file
path = good.img

[b]
driver = ram
size = 2M
file = Bee.img
EOT

no_configuration() {
	check_equal 1 "$(status_of diskfs nowhere.conf mnt)"
	check_output "cannot read 'nowhere.conf': No such file or directory" cat stderr
	check_equal 1 "$(status_of diskfs mnt mnt)"
	check_output "cannot read 'mnt': Is a directory" cat stderr
}

bad_mountpoints() {
	check_equal 1 "$(status_of diskfs good.conf nowhere)"
	check_equal 1 "$(wc -l <stderr)" "number of lines"
	check_output "diskfs: cannot mount on 'nowhere': No such file or directory" cat stderr
	check_equal 1 "$(status_of diskfs good.conf good.img)"
	check_equal 1 "$(wc -l <stderr)" "number of lines"
	check_output "diskfs: cannot mount on 'good.img': it is no folder" cat stderr
	check_equal 1 "$(status_of diskfs -o nonsense good.conf mnt)"
	check_match "nonsense" cat stderr
	! mounted "$mnt" || not_ok "mounted"
}

# Status 1, a word about it on stderr, nothing on stdout.
usage_errors() {
	local arguments

	for arguments in "" "good.conf" "good.conf mnt more" "--nonsense" "-o" "-z good.conf mnt" \
		"--check" "--check good.conf mnt"; do
		# shellcheck disable=SC2086 # these are several words
		check_equal 1 "$(status_of diskfs $arguments)" "status of 'diskfs $arguments'"
		check grep -q . stderr
		check_output "" cat stdout
	done
	check_equal 1 "$(status_of diskfs --help tape)" "status of --help tape"
	check_match tape cat stderr
	! mounted "$mnt" || not_ok "mounted"
}

help() {
	local driver

	check_equal 0 "$(status_of diskfs --help)"
	check_output "" cat stderr
	check_match 'CONFIG MOUNTPOINT' cat stdout
	check_match '  workers: ' cat stdout
	check_match '  readonly: ' cat stdout
	check_equal 0 "$(status_of diskfs --drivers)"
	cp stdout drivers
	for driver in file ram null; do
		check_match "^ *$driver +[A-Za-z]" cat drivers
		check_equal 0 "$(status_of diskfs --help $driver)"
		check_output "" cat stderr
		check_match '^  sector_size: ' cat stdout
	done
	check_equal 0 "$(status_of diskfs --version)"
	check_match '[0-9]+\.[0-9]+\.[0-9]+' cat stdout
}

checked() {
	check_output "a.img  5 KiB, writable
  a: file, 5 KiB, sector 512 (physical 4096)
Bee.img  2 MiB, writable
  b: ram, 2 MiB, sector 512" diskfs --check good.conf
}

# --check changes nothing, even where mounting would make a file.
check_is_harmless() {
	printf '[a]\ndriver = file\npath = new.img\nsize = 1M\n' >new.conf
	check diskfs --check new.conf
	check test ! -e new.img
	check_match '1 MiB' diskfs --check new.conf
	# Nor does a lock of another user matter.
	mount_disks good.conf
	check diskfs --check good.conf
	unmount_disks
}

unaligned_size() {
	printf 'x%.0s' {1..1000} >unaligned.img
	printf '[a]\ndriver = file\npath = unaligned.img\n' >unaligned.conf
	mount_disks unaligned.conf
	check_output 512 stat -c %s mnt/a.img
	check cmp -n 512 unaligned.img mnt/a.img
	check dd if=/dev/zero of=mnt/a.img bs=512 count=1
	unmount_disks
	check_output 1000 stat -c %s unaligned.img
}

test_case "no such configuration" no_configuration
test_case "bad mount points and options" bad_mountpoints
test_case "wrong command lines" usage_errors
test_case "--help, --drivers, --version" help
test_case "--check prints the stacks" checked
test_case "--check changes nothing" check_is_harmless
test_case "a size that is no multiple of the sector" unaligned_size
