#!/bin/bash
# SPDX-License-Identifier: MIT
# Remote disks whose connection dies without a word; the numbers in .metrics.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/blob/lib.sh"
requires python3 curl openssl nginx
requires_fuse

make_ca ca && make_certificate leaf ca DNS:localhost,IP:127.0.0.1 || exit 1
mkdir "$work/www"
random_file "$work/www/disk.raw" 8388608 1
https=$(free_ports 1)
start_nginx <<EOT
server {
	listen 127.0.0.1:$https ssl http2;
	root $work/www;
	ssl_certificate $work/leaf.pem;
	ssl_certificate_key $work/leaf.key;
}
EOT
server_is_up "$work/nginx/error.log" 20 --cacert "$work/ca.pem" "https://localhost:$https/disk.raw" ||
	exit 1

# ---- a dead connection ---------------------------------------------------------------------------

# read_part NUMBER: a part of the disk that nobody has read yet, and how long it took at most.
read_part() {
	local before=$SECONDS

	check cmp <(dd if="$mnt/base.img" bs=64K skip="$1" count=1 status=none) \
		<(dd if="$work/www/disk.raw" bs=64K skip="$1" count=1 status=none)
	[ $((SECONDS - before)) -le "$2" ] || not_ok "it took $((SECONDS - before)) s"
}

# The one who gets stuck goes on over a new connection, and nobody after it gets stuck again.
dead_connection() {
	start_relay freeze "$https" "$work/freeze" || return
	config <<-EOT
		[diskfs]
		cache = none
		[base]
		driver = blob
		url = https://localhost:$relay_port/disk.raw
		ca_file = ca.pem
		readahead = 0
		low_speed_time = 2s
	EOT
	mount_disks "$conf" -o transport=auto
	read_part 0 5
	sleep 1.1 # what is younger than a second when it dies is not known to be the dead one
	touch "$work/freeze"
	read_part 10 10
	read_part 20 1
	read_part 30 1
	check_equal 1 "$(blob_number retries)" "retries"
	check_equal 0 "$(blob_number failures)" "failures"
	check_equal 2 "$(grep -c connection "$work/relay")" "connections"
	unmount_disks
}

test_case "a connection of HTTP/2 that is dead without knowing it" dead_connection

# ---- .metrics ------------------------------------------------------------------------------------

# metric NAME LABELS: its value.
metric() {
	awk -v start="$1{$2}" 'index($0, start " ") == 1 { print $2 }' "$mnt/.metrics"
}

has_metrics() {
	local node='image="vm.img",node="vm/base"'

	start_http_server "/disk=$work/www/disk.raw"
	config <<-EOT
		[diskfs]
		cache = none
		[base]
		driver = blob
		url = http://127.0.0.1:$http_port/disk
		retry_delay = 1ms
		readahead = 0
		[scratch]
		driver = ram
		[vm]
		driver = layered
		below = scratch, base
	EOT
	mount_disks "$conf" -o transport=auto
	metrics_form
	rules "status=503 times=2"
	check_output 65536 eval 'dd if="$mnt/vm.img" bs=64K count=1 iflag=direct status=none | wc -c'
	rules "status=403 times=1"
	check_output EIO fileop -o rdonly,direct "$mnt/vm.img" pread 4M 4096
	check_equal 2 "$(metric diskfs_blob_requests_total "$node,outcome=\"interrupted\"")" "interrupted"
	check_equal 1 "$(metric diskfs_blob_requests_total "$node,outcome=\"refused\"")" "refused"
	check_equal 2 "$(metric diskfs_blob_requests_total "$node,outcome=\"succeeded\"")" "succeeded"
	check_equal 2 "$(metric diskfs_blob_retries_total "$node")" "retries"
	check_equal 1 "$(metric diskfs_blob_failures_total "$node")" "failures"
	check_equal 65537 "$(metric diskfs_blob_received_bytes_total "$node")" "bytes"
	check_equal 2 "$(metric diskfs_blob_first_byte_seconds_count "$node")" "first bytes"
	check_equal 2 "$(metric diskfs_blob_request_seconds_bucket "$node,le=\"+Inf\"")" "requests"
	metrics_form
	unmount_disks
}

test_case "what became of requests is in .metrics" has_metrics
