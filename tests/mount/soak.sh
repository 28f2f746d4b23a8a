#!/bin/bash
# SPDX-License-Identifier: MIT
# fio --verify for half a minute by each transport (LONG: ten minutes), by changing engines, sizes
# and page-cache policies. Between each writing and its verification the daemon is killed, its
# connection aborted, or its mount taken away, while there is noise on a neighbour: everything that
# fsync acknowledged is there.
#
#	SOAK=s	seconds, instead of 30 (LONG: 600)
. "$(dirname "$0")/lib.sh"
requires fio
requires_root
requires_fuse

default_seconds=30
[ -z "${LONG:-}" ] || default_seconds=600
seconds=${SOAK:-$default_seconds}

config <<EOT
[file]
driver = file
path = file.img
size = 32M

[file4k]
driver = file
path = file4k.img
size = 32M
sector_size = 4096

[direct]
driver = file
path = direct.img
size = 32M
direct = yes

[noise]
driver = ram
size = 32M
EOT

disks=(file file4k direct)
policies=(none writethrough writeback)
mixes=(
	"--ioengine=io_uring --iodepth=32 --direct=1 --rw=randwrite --bs=4k"
	"--ioengine=io_uring --iodepth=4 --direct=1 --rw=write --bs=1M"
	"--ioengine=psync --direct=0 --rw=randwrite --bsrange=700-9000 --bs_unaligned=1"
	"--ioengine=io_uring --iodepth=16 --direct=1 --rw=randwrite --bsrange=512-64k --blockalign=512"
	"--ioengine=psync --direct=0 --rw=randwrite --bs=64k --fsync=8"
	"--ioengine=io_uring --iodepth=32 --direct=0 --rw=randwrite --bssplit=512/20:4k/50:20k/20:256k/10"
)

# job ROUND OPTION...: the same job for the same round, to write or to verify.
job() {
	local round=$1

	shift
	# shellcheck disable=SC2086 # these are several words
	fio --name=soak --filename="$mnt/${disks[round % 3]}.img" --size=32M --io_size=8M \
		--allow_file_create=0 --fallocate=none --invalidate=0 --randseed="$round" \
		--verify=crc32c --verify_fatal=1 --verify_state_save=0 --output-format=terse \
		--aux-path="$work" ${mixes[round % ${#mixes[@]}]} "$@"
}

noise() {
	fio --name=noise --filename="$mnt/noise.img" --size=32M --allow_file_create=0 --fallocate=none \
		--ioengine=io_uring --iodepth=8 --direct=1 --rw=randrw --bs=4k --time_based --runtime=60 \
		--output-format=terse --aux-path="$work" >/dev/null 2>&1 &
	noise_pid=$!
}

# The end of a round's mount, under load. Lazily unmounted, it goes on until the noise has ended.
end_round() {
	case $(($1 % 3)) in
	0) kill_disks ;;
	1)
		abort_connection || not_ok "cannot abort the connection"
		ends_with 0
		;;
	2)
		check umount -l "$mnt"
		kill -TERM "$noise_pid"
		ends_with 0
		;;
	esac
	wait "$noise_pid"
}

soak() {
	local end=$((SECONDS + seconds)) round=0

	while [ "$SECONDS" -lt "$end" ] && [ "$case_failed" = 0 ]; do
		mount_disks "$conf" -o "cache=${policies[round / 6 % 3]}"
		noise
		check job "$round" --do_verify=0 --end_fsync=1
		end_round "$round"
		mount_disks "$conf"
		check job "$round" --verify_only=1
		unmount_disks
		round=$((round + 1))
	done
	echo "# $round rounds, each with an end under load"
}

test_case "what was written and synced is verified after each end" soak
