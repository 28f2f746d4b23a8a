#!/bin/bash
# SPDX-License-Identifier: MIT
# Encrypted disks, judged by others: XTS by hand from the ECB of openssl, cryptsetup, QEMU. And what
# becomes of the keys.
. "$(dirname "$0")/lib.sh"
requires python3 openssl cryptsetup qemu-img qemu-io fio
requires_fuse

# xts.py encrypt|decrypt KEY UNIT STEP FIRST IN OUT: AES-XTS of a file of whole units, of which unit u
# has the tweak FIRST + u * STEP.
cat >"$work/xts.py" <<'PY'
import subprocess, sys

def ecb(key, data, *options):
    return subprocess.run(["openssl", "enc", f"-aes-{len(key) * 8}-ecb", "-nopad", "-K", key.hex(), *options],
                          input=data, capture_output=True, check=True).stdout

direction, key, unit, step, first, source, target = sys.argv[1:]
key, unit = open(key, "rb").read(), int(unit)
data = open(source, "rb").read()
half = len(key) // 2
tweaks = ecb(key[half:], b"".join((int(first) + u * int(step)).to_bytes(16, "little")
                                  for u in range(len(data) // unit)))
masks = bytearray()
for at in range(0, len(tweaks), 16):
    tweak = int.from_bytes(tweaks[at:at + 16], "little")
    for _ in range(unit // 16):
        masks += tweak.to_bytes(16, "little")
        tweak <<= 1
        if tweak >> 128:
            tweak ^= 1 << 128 | 0x87
mask = int.from_bytes(masks, "little")
masked = lambda text: (int.from_bytes(text, "little") ^ mask).to_bytes(len(data), "little")
open(target, "wb").write(masked(ecb(key[:half], masked(data), *(["-d"] if direction == "decrypt" else []))))
PY

xts() {
	python3 "$work/xts.py" "$@"
}

python3 -c "open('$work/key', 'wb').write(bytes(range(64)))"
random_file "$work/key2" 64 2
printf %s "pass phrase" >"$work/pass"
chmod 600 "$work/key" "$work/key2" "$work/pass"
random_file "$work/plain" 1048576 3

# A disk [vm] on the file NAME, with more options on the standard input.
volume() {
	cat <<-EOT
		[$1-file]
		driver = file
		path = $1
		${2:-}

		[$1]
		driver = crypt
		below = $1-file
	EOT
	cat
}

# ---- raw -----------------------------------------------------------------------------------------

# Sector size below, options, and what the cipher is to be asked for: unit, step.
layouts() {
	cat <<-EOT
		512 - 512 1
		512 iv=plain64-512 512 1
		4096 - 4096 1
		4096 iv=plain64-512 4096 8
		4096 sector_size=512 512 1
		512 sector_size=4096 4096 1
		512 sector_size=4096,iv=plain64-512 4096 8
		4096 sector_size=1024,iv=plain64-512,discard=pass 1024 2
		16384 - 4096 1
	EOT
}

raw_config() {
	local below options unit step n=0

	layouts | while read -r below options unit step; do
		n=$((n + 1))
		volume raw$n "size = 1M
sector_size = $below" <<<"key_file = key
$(tr ',' '\n' <<<"${options#-}")"
	done
}

raw_layouts() {
	local below options unit step n=0

	while read -r below options unit step; do
		n=$((n + 1))
		check dd if="$work/plain" of="$mnt/raw$n.img" bs=64k conv=notrunc,fsync status=none
		xts encrypt "$work/key" "$unit" "$step" 0 "$work/plain" "$work/wanted"
		check cmp "$work/raw$n" "$work/wanted"
		check cmp "$mnt/raw$n.img" "$work/plain"
	done < <(layouts)
}

# What somebody else has written.
raw_read() {
	local below options unit step n=0

	random_file "$work/plain2" 1048576 4
	while read -r below options unit step; do
		n=$((n + 1))
		xts encrypt "$work/key" "$unit" "$step" 0 "$work/plain2" "$work/raw$n"
	done < <(layouts)
	config < <(raw_config)
	mount_disks "$conf"
	for n in {1..9}; do
		check cmp "$mnt/raw$n.img" "$work/plain2"
	done
	unmount_disks
}

# What dm-crypt makes of two sectors of zeros, by aes-xts-plain64.
known_sectors() {
	check dd if=/dev/zero of="$mnt/raw1.img" bs=512 count=2 conv=notrunc status=none
	check_output "189a6fc875ed3a956a5c4bae438c5e14  -" md5sum < <(head -c 512 "$work/raw1")
	check_output "429d5206640d70597ab896b58d6b8528  -" md5sum < <(tail -c +513 "$work/raw1" | head -c 512)
}

no_key_in_sight() {
	check_fails 1 grep -q "000102030405" "$mnt/.status" "$mnt/.status.json" "$work/log"
	check_match "cipher: aes-xts, 512 bits" cat "$mnt/.status"
}

config < <(raw_config)
mount_disks "$conf"
test_case "raw: what is below is XTS-AES-256" raw_layouts
test_case "raw: sectors that dm-crypt wrote" known_sectors
test_case "raw: .status has no key" no_key_in_sight
unmount_disks
test_case "raw: what others encrypted" raw_read
rm -f "$work"/raw*

# ---- what is refused -----------------------------------------------------------------------------

# refused TEXT: by both --check and the mount, in one line.
refused() {
	local wanted=$1

	check_output "$wanted" diskfs --check "$conf"
	check_fails 1 diskfs "$conf" "$mnt"
	! mounted "$mnt" || not_ok "mounted"
}

key_files() {
	volume vm "size = 1M" >"$conf" <<<"key_file = nokey"
	truncate -s 1M "$work/vm"
	refused "$conf:9: [vm] key_file: cannot open '$work/nokey': No such file or directory"
	head -c 63 "$work/key" >"$work/nokey"
	chmod 600 "$work/nokey"
	refused "$conf:9: [vm] key_file: '$work/nokey' has 63 bytes: a key is 64 bytes, or 128 hexadecimal digits"
	head -c 64 /dev/zero >"$work/nokey"
	refused "$conf:6: [vm]: the halves of the key are equal, which XTS forbids"
	volume vm "size = 1M" >"$conf" </dev/null
	refused "$conf:6: [vm] key_file: format = raw needs a key"
	volume vm "size = 1M" >"$conf" <<<"key_file = key"
	check diskfs --check "$conf"
	chmod 640 "$work/key"
	check_match "warning: \[vm\] key_file: others than its owner can use '$work/key' \(mode 0640\): chmod 600" \
		diskfs --check "$conf"
	chmod 600 "$work/key"
	rm "$work/vm"
}

luks_refused() {
	truncate -s 20M "$work/vm"
	volume vm >"$conf" <<<"format = luks
passphrase_file = pass"
	refused "$conf:6: [vm]: there is no valid LUKS header on 'vm-file'"
	check cryptsetup luksFormat -q --type luks2 --pbkdf-memory 1024 --pbkdf-force-iterations 4 \
		"$work/vm" "$work/pass"
	check diskfs --check "$conf"
	printf %s "pass phrasf" >"$work/pass"
	refused "$conf:6: [vm]: the passphrase or key file opens no key slot of the LUKS volume on 'vm-file'"
	printf %s "pass phrase" >"$work/pass"
	# Both copies of the header.
	dd if=/dev/zero of="$work/vm" bs=4k count=8 conv=notrunc status=none
	refused "$conf:6: [vm]: there is no valid LUKS header on 'vm-file'"
	rm "$work/vm"
}

test_case "key files that are none" key_files
test_case "LUKS: wrong passphrases and damaged headers" luks_refused

# ---- QEMU ----------------------------------------------------------------------------------------

secret=(--object "secret,id=s,file=$work/pass")
luks=driver=luks,key-secret=s,file.driver=file,file.filename=$work/qemu

# It measures its processor time to choose the iterations, and fails at times where that is short.
qemu_create() {
	wait_for 30 qemu-img create -q -f luks "${secret[@]}" -o "key-secret=s,iter-time=20$1" \
		"$work/qemu" "$2" 2>"$work/create" || not_ok "qemu-img: $(cat "$work/create")"
}

qemu_both_ways() {
	qemu_create "" 8M
	check qemu-io "${secret[@]}" -c "write -P 0x5a 0 1M" -c "write -P 0xa5 5M 64k" \
		-c "write -P 0x11 8388096 512" --image-opts "$luks"
	volume qemu >"$conf" <<<"format = luks
key_file = pass"
	mount_disks "$conf"
	check_equal 8388608 "$(stat -c %s "$mnt/qemu.img")" size
	check_output "same
same
same" fileop "$mnt/qemu.img" all 0 1M 0x5a all 5M 64K 0xa5 all 8388096 512 0x11
	check dd if="$work/plain" of="$mnt/qemu.img" bs=7777 seek=1M oflag=seek_bytes conv=notrunc,fsync status=none
	check_output 512 fileop -o direct "$mnt/qemu.img" pwrite 4M 512 0x33
	unmount_disks
	check qemu-io -r "${secret[@]}" -c "read -P 0x5a 0 1M" -c "read -P 0x33 4M 512" \
		-c "read -P 0xa5 5M 64k" -c "read -P 0x11 8388096 512" --image-opts "$luks"
	check qemu-img convert "${secret[@]}" --image-opts "$luks" -O raw "$work/decrypted"
	check cmp "$work/plain" <(tail -c +1048577 "$work/decrypted" | head -c 1048576)
	rm "$work/qemu" "$work/decrypted"
}

# A volume with the key size that QEMU calls aes-128.
qemu_short_key() {
	qemu_create ,cipher-alg=aes-128 2M
	check qemu-io "${secret[@]}" -c "write -P 0x5a 0 1M" --image-opts "$luks"
	volume qemu "sector_size = 4096" >"$conf" <<<"format = luks
key_file = pass"
	mount_disks "$conf"
	check_output "same
4096
0" fileop "$mnt/qemu.img" all 0 1M 0x5a pwrite 1M 4096 0x77 fsync
	unmount_disks
	check qemu-io -r "${secret[@]}" -c "read -P 0x77 1M 4096" --image-opts "$luks"
	rm "$work/qemu"
}

test_case "LUKS of QEMU, both ways" qemu_both_ways
test_case "LUKS of QEMU with a key of 256 bits" qemu_short_key

# ---- cryptsetup ----------------------------------------------------------------------------------

fast=(--pbkdf pbkdf2 --pbkdf-force-iterations 1000)

# What is written is what the volume's key makes of it, at the place that the header says.
luks_of() {
	local offset=$1 unit=$2

	shift 2
	truncate -s $((offset + 1048576)) "$work/luks"
	check cryptsetup luksFormat -q "$@" "${fast[@]}" --volume-key-file "$work/key2" \
		--key-size 512 "$work/luks" "$work/pass"
	head -c "$offset" "$work/luks" >"$work/header"
	volume luks >"$conf" <<<"format = luks
passphrase_file = pass"
	mount_disks "$conf"
	check_equal 1048576 "$(stat -c %s "$mnt/luks.img")" size
	check dd if="$work/plain" of="$mnt/luks.img" bs=100k conv=notrunc,fsync status=none
	check cmp "$mnt/luks.img" "$work/plain"
	unmount_disks
	xts encrypt "$work/key2" "$unit" $((unit / 512)) 0 "$work/plain" "$work/wanted"
	check cmp "$work/wanted" <(tail -c 1048576 "$work/luks")
	check cmp "$work/header" <(head -c "$offset" "$work/luks")
	check cryptsetup luksOpen --test-passphrase --key-file "$work/pass" "$work/luks"
	rm "$work/luks" "$work/wanted" "$work/header"
}

# cryptsetup encrypts a file in place, and later decrypts and encrypts it for another key.
cryptsetup_both_ways() {
	local quietly=(-q --key-file "$work/pass" "${fast[@]}")

	cp "$work/plain" "$work/luks"
	truncate -s $((1048576 + 33554432)) "$work/luks"
	if ! cryptsetup reencrypt --encrypt --type luks2 --reduce-device-size 32M "${quietly[@]}" \
		"$work/luks" 2>"$work/reencrypt"; then
		skip_case "LUKS2 that cryptsetup encrypts, and gives another key" "$(head -n 1 "$work/reencrypt")"
		return
	fi
	volume luks >"$conf" <<<"format = luks
key_file = pass"
	mount_disks "$conf"
	check cmp -n 1048576 "$mnt/luks.img" "$work/plain"
	check dd if="$work/key2" of="$mnt/luks.img" bs=64 seek=10000 oflag=seek_bytes conv=notrunc,fsync status=none
	cp "$mnt/luks.img" "$work/changed"
	unmount_disks
	cp "$work/luks" "$work/before"
	check cryptsetup reencrypt --force-offline-reencrypt "${quietly[@]}" "$work/luks"
	check_fails 1 cmp -n 4096 -i 16777216 "$work/luks" "$work/before"
	mount_disks "$conf"
	check cmp "$mnt/luks.img" "$work/changed"
	unmount_disks
	rm "$work/luks" "$work/changed" "$work/before"
}

test_case "LUKS1 of cryptsetup" luks_of 2097152 512 --type luks1
test_case "LUKS2 of cryptsetup, sectors of 512" luks_of 16777216 512 --type luks2 --sector-size 512
test_case "LUKS2 of cryptsetup, sectors of 4096" luks_of 16777216 4096 --type luks2 --sector-size 4096
test_case "LUKS2 that cryptsetup encrypts, and gives another key" cryptsetup_both_ways

# ---- use -----------------------------------------------------------------------------------------

holes() {
	local image=$1

	check_output "1048576
0" fileop "$mnt/$image.img" pwrite 0 1M 0x5a fsync
	check_output "0
0" fileop "$mnt/$image.img" fallocate punch,keep 64K 512K fsync
	check_output "same
same
same" fileop "$mnt/$image.img" all 0 64K 0x5a all 64K 512K 0 all 576K 448K 0x5a
}

holes_are_encrypted() {
	holes kept
	check_fails 1 cmp -n 16 -i 65536:0 "$work/kept" /dev/zero
	check_fails 1 cmp -n 16 -i 300000:0 "$work/kept" /dev/zero
	check_equal 1048576 "$(($(stat -c %b "$work/kept") * 512))" "what the file takes"
}

holes_are_given_back() {
	holes given
	check cmp -n 524288 -i 65536:0 "$work/given" /dev/zero
	check_equal 524288 "$(($(stat -c %b "$work/given") * 512))" "what the file takes"
	check_match "unmap: zeroes" cat "$mnt/.status"
}

verify() {
	local image

	for image in kept given; do
		check fio --name=verify --filename="$mnt/$image.img" --size=8M --rw=randrw --bsrange=512-128k \
			--bs_unaligned --ioengine=psync --verify=crc32c --verify_fatal=1 --fallocate=none \
			--allow_file_create=0 --verify_state_save=0 --aux-path="$work"
		check fio --name=deep --filename="$mnt/$image.img" --size=8M --rw=randwrite --bs=4k --direct=1 \
			--iodepth=32 --ioengine=io_uring --verify=crc32c --verify_fatal=1 --fallocate=none \
			--allow_file_create=0 --verify_state_save=0 --aux-path="$work"
	done
}

config < <(
	volume kept "size = 8M" <<<"key_file = key2"
	volume given "size = 8M" <<<"key_file = key2
discard = pass"
)
mount_disks "$conf"
test_case "a hole is zeros, encrypted" holes_are_encrypted
test_case "discard = pass: a hole is zeros, and given back" holes_are_given_back
test_case "fio --verify" verify

# ---- keys in memory ------------------------------------------------------------------------------

# Where in the memory of a process pieces of the key are: the flags of each mapping, once.
cat >"$work/search.py" <<'PY'
import re, sys

key = open(sys.argv[1], "rb").read()
pieces = [key[at:at + 16] for at in range(0, len(key), 16)]
if len(sys.argv) == 3:
    content = open(sys.argv[2], "rb").read()
    print(sum(content.count(piece) for piece in pieces), int(b"kept-file" in content))
    sys.exit()
found, mapping = set(), None
with open(f"/proc/{sys.argv[3]}/mem", "rb", buffering=0) as memory, \
        open(f"/proc/{sys.argv[3]}/smaps", encoding="utf-8") as maps:
    for line in maps:
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line)
        if match:
            mapping = int(match[1], 16), int(match[2], 16), match[3]
        elif line.startswith("VmFlags:") and "r" in mapping[2] and mapping[1] - mapping[0] < 1 << 30:
            try:
                memory.seek(mapping[0])
                content = memory.read(mapping[1] - mapping[0])
            except (OSError, ValueError, OverflowError):
                continue
            if any(piece in content for piece in pieces):
                flags = line.split()
                found.add(" ".join(flag for flag in ("dd", "wf", "lo") if flag in flags))
print("; ".join(sorted(found)))
PY

sanitized() {
	nm -D "$BUILD/diskfs" 2>/dev/null | grep -q "__asan_init\|__tsan_init"
}

memory() {
	# Sanitizers do not let memory be locked.
	check_output "dd wf$(sanitized || echo " lo")" python3 "$work/search.py" "$work/key2" pid "$daemon_pid"
}

# As a crash writes it.
core_dump() {
	local core

	kill -ABRT "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null
	daemon_pid=
	unmount_lazily "$mnt"
	core=$(find "$work" -maxdepth 1 -name 'core*' | head -n 1)
	[ -n "$core" ] || { not_ok "no core dump"; return; }
	check_output "0 1" python3 "$work/search.py" "$work/key2" "$core"
	rm -f "$core"
}

unmount_disks
cd "$work" || exit 1
case $(cat /proc/sys/kernel/core_pattern) in
core | core.%p) dumps=yes ;;
*) dumps= ;;
esac
ulimit -c unlimited 2>/dev/null || dumps=
mount_disks "$conf"
test_case "keys are in locked memory, outside of core dumps" memory
if [ -z "$dumps" ] || sanitized; then
	skip_case "a core dump has no key" "no core dumps here"
	unmount_disks
else
	test_case "a core dump has no key" core_dump
fi
