#!/bin/bash
# SPDX-License-Identifier: MIT
# Remote disks on a real web server, nginx: HTTP/1.1, HTTP/2 over TLS, redirects, passwords, rate
# limits. What a server may do wrong is in blob_misbehaving.sh.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/blob/lib.sh"
requires python3 curl openssl nginx mkfs.ext4
requires_fuse

read -r http https wrong down other proxy <<<"$(free_ports 6)"
password=ThePasswordOfTheTests
printf 'tester:%s\n' "$(openssl passwd -apr1 $password)" >"$work/htpasswd"
(umask 077 && echo "tester:$password" >"$work/auth" && echo "tester:no$password" >"$work/wrong_auth")
make_ca ca && make_ca stranger && make_certificate leaf ca DNS:localhost,IP:127.0.0.1 &&
	make_certificate elsewhere ca DNS:elsewhere.example || exit 1
make_image
mkdir "$work/www"
cp "$work/image.raw" "$work/www/disk.raw"
head -c 1000 "$work/image.raw" >"$work/www/tail.raw"
head -c 1M "$work/image.raw" >"$work/www/small.raw"
: >"$work/www/empty.raw"

start_nginx <<EOT
limit_req_zone \$binary_remote_addr zone=often:64k rate=20r/s;
limit_req_zone \$binary_remote_addr zone=retry:64k rate=4r/s;
limit_conn_zone \$binary_remote_addr zone=connections:64k;
log_format asked '"\$request" \$status';
log_format shown '\$request_uri "\$http_authorization" "\$http_cookie"';
server {
	listen 127.0.0.1:$http;
	root $work/www;
	keepalive_requests 20;
	location /private/ {
		alias $work/www/;
		auth_basic tests;
		auth_basic_user_file $work/htpasswd;
	}
	location = /moved { return 302 /disk.raw; }
	location = /moved/relative { return 307 ../disk.raw; }
	location = /moved/twice { return 301 http://127.0.0.1:$http/moved; }
	location = /moved/other { return 302 http://127.0.0.1:$other/asked/disk.raw; }
	location = /moved/private { return 302 /private/disk.raw; }
	location = /loop { return 302 /loop?again; }
	location /often/ {
		alias $work/www/;
		limit_req zone=often burst=1 nodelay;
	}
	location /retry/ {
		alias $work/www/;
		limit_req zone=retry burst=1 nodelay;
		limit_req_status 429;
		error_page 429 = @later;
	}
	location @later {
		internal;
		add_header Retry-After 1 always;
		return 429;
	}
	location /few/ {
		alias $work/www/;
		limit_conn connections 2;
	}
	location /slow/ {
		alias $work/www/;
		limit_rate 2m;
	}
	location /whole/ {
		alias $work/www/;
		max_ranges 0;
	}
	location /zipped/ {
		alias $work/www/;
		gzip on;
		gzip_min_length 1;
		gzip_types application/octet-stream;
	}
	location /vague/ {
		alias $work/www/;
		etag off;
	}
	location /nameless/ {
		alias $work/www/;
		etag off;
		add_header Last-Modified "";
	}
	location /dead/ { proxy_pass http://127.0.0.1:$down; }
	location /silent/ { return 444; }
	location /forbidden/ { deny all; }
}
server {
	listen 127.0.0.1:$https ssl http2;
	root $work/www;
	ssl_certificate $work/leaf.pem;
	ssl_certificate_key $work/leaf.key;
	location = /down { return 302 http://127.0.0.1:$http/disk.raw; }
	location = /aside { return 302 https://localhost:$https/disk.raw; }
}
server {
	listen 127.0.0.1:$wrong ssl;
	root $work/www;
	ssl_certificate $work/elsewhere.pem;
	ssl_certificate_key $work/elsewhere.key;
}
server {
	# As a proxy.
	listen 127.0.0.1:$proxy;
	access_log $work/nginx/proxy.log asked;
	location / { proxy_pass http://127.0.0.1:$http; }
}
server {
	# Its log tells what a stranger is shown.
	listen 127.0.0.1:$other;
	location /asked/ { alias $work/www/; }
	location / { return 404; }
	access_log $work/nginx/shown.log shown;
}
EOT
server_is_up "$work/nginx/error.log" 20 "http://127.0.0.1:$http/small.raw" || exit 1

# refused REGEX OPTION...: a disk of these options is not mounted, and why: $refusal.
refused() {
	local wanted=$1

	shift
	{
		printf '[base]\ndriver = blob\n'
		printf '%s\n' "$@"
	} | config
	refusal=$(timeout 60 "$BUILD/diskfs" "$conf" "$mnt" 2>&1)
	grep -Eq -- "$wanted" <<<"$refusal" || not_ok "'$refusal' does not match '$wanted'"
	! mounted "$mnt" || { not_ok "mounted"; unmount "$mnt"; }
}

# mounted_as OPTION...: mounts base.img of these options.
mounted_as() {
	{
		printf '[diskfs]\ncache = none\n[base]\ndriver = blob\n'
		printf '%s\n' "$@"
	} | config
	mount_disks "$conf" -o transport=auto
}

# reads_as IMAGE OPTION...: base.img of these options is IMAGE.
reads_as() {
	local image=$1

	shift
	mounted_as "$@"
	check cmp "$image" "$mnt/base.img"
	unmount_disks
}

# ---- the whole of it -----------------------------------------------------------------------------

layers_conf "url = http://127.0.0.1:$http/disk.raw"
all_uses "HTTP/1.1"
layers_conf "url = https://localhost:$https/disk.raw
ca_file = ca.pem"
all_uses "HTTP/2 with TLS"

# ---- an image format on top ----------------------------------------------------------------------

# vhd_conf FILE: a VHD on the server, alone and under a layer.
vhd_conf() {
	config <<-EOT
		[diskfs]
		cache = none

		[blob]
		driver = blob
		url = http://127.0.0.1:$http/$1
		readonly = yes

		[vhd]
		driver = vhd
		below = blob
		readonly = yes

		[scratch]
		driver = ram

		[vm]
		driver = layered
		below = scratch, vhd

		[blob2]
		driver = blob
		url = http://127.0.0.1:$http/$1

		[base]
		driver = vhd
		below = blob2
		readonly = yes
	EOT
}

vhd_on_blob() {
	check qemu-img convert -f raw -O vpc -o "subformat=$1,force_size=on" "$work/image.raw" \
		"$work/www/$1.vhd"
	vhd_conf "$1.vhd"
	mount_disks "$conf" -o transport=auto
	is_the_image "$mnt/base.img"
	[ "$(id -u)" != 0 ] || ! losetup -f >/dev/null 2>&1 || used_through_layer
	unmount_disks
}

# The footer of old writers lacks a byte: it is behind the last whole sector.
old_vhd_on_blob() {
	head -c -1 "$work/www/fixed.vhd" >"$work/www/old.vhd"
	vhd_conf old.vhd
	mount_disks "$conf" -o transport=auto
	is_the_image "$mnt/base.img"
	unmount_disks
}

for format in fixed dynamic; do
	if diskfs --drivers | grep -q '^vhd '; then
		test_case "a $format VHD on a server" vhd_on_blob $format
	else
		skip_case "a $format VHD on a server" "this diskfs has no driver for VHD"
	fi
done
test_case "an old VHD on a server" old_vhd_on_blob

# ---- protocols -----------------------------------------------------------------------------------

protocols_used() {
	check_match '"GET /disk.raw HTTP/2.0" 206' cat "$work/nginx/access.log"
	check_match '"GET /disk.raw HTTP/1.1" 206' cat "$work/nginx/access.log"
	check_equal "" "$(grep '/disk.raw' "$work/nginx/access.log" | grep -vE '" (206|200) ')" \
		"requests that were answered otherwise"
}

# Many requests at once go over one connection.
multiplexed() {
	mounted_as "url = https://localhost:$https/disk.raw" "ca_file = ca.pem"
	reads_match "$mnt/base.img"
	unmount_disks
}

test_case "both versions of HTTP are spoken, by ranges" protocols_used
test_case "many requests at once over HTTP/2" multiplexed

# ---- certificates --------------------------------------------------------------------------------

test_case "a certificate of an unknown authority is refused" refused \
	"\[base\] .*certificate" "url = https://localhost:$https/disk.raw"
test_case "a certificate of another authority is refused" refused \
	"\[base\] .*certificate" "url = https://localhost:$https/disk.raw" "ca_file = stranger.pem"
test_case "a certificate of another name is refused" refused \
	"\[base\] .*(certificate|subject name)" "url = https://localhost:$wrong/disk.raw" "ca_file = ca.pem"
test_case "an authority that is not there" refused \
	"\[base\] .*nowhere.pem" "url = https://localhost:$https/disk.raw" "ca_file = nowhere.pem"
test_case "TLS with a server without" refused \
	"\[base\] .*https://localhost:$http/disk.raw" "url = https://localhost:$http/disk.raw" "retries = 0"

# ---- redirects -----------------------------------------------------------------------------------

test_case "a redirect" reads_as "$work/image.raw" "url = http://127.0.0.1:$http/moved"
test_case "a relative redirect" reads_as "$work/image.raw" "url = http://127.0.0.1:$http/moved/relative"
test_case "two redirects" reads_as "$work/image.raw" "url = http://127.0.0.1:$http/moved/twice"
test_case "a redirect from https to another host's https" reads_as "$work/image.raw" \
	"url = https://127.0.0.1:$https/aside" "ca_file = ca.pem"
test_case "a redirect from https to http is refused" refused "\[base\] .*(redirect|http)" \
	"url = https://localhost:$https/down" "ca_file = ca.pem"
test_case "a loop of redirects is refused" refused "\[base\] .*redirect" "url = http://127.0.0.1:$http/loop"

# ---- passwords -----------------------------------------------------------------------------------

with_password() {
	mounted_as "url = http://127.0.0.1:$http/private/disk.raw" "auth_file = auth"
	check cmp "$work/image.raw" "$mnt/base.img"
	no_secret "$password" "$(printf 'tester:%s' $password | base64)"
	unmount_disks
}

# The password is for the server that was named, not for the one that it names.
password_kept() {
	: >"$work/nginx/shown.log"
	reads_as "$work/image.raw" "url = http://127.0.0.1:$http/moved/other" "auth_file = auth"
	check_match '^/asked/disk.raw ' cat "$work/nginx/shown.log"
	check_equal "" "$(grep -v '"-" "-"$' "$work/nginx/shown.log")" "what the other server was shown"
}

test_case "a password" with_password
test_case "a password behind a redirect of the same server" reads_as "$work/image.raw" \
	"url = http://127.0.0.1:$http/moved/private" "auth_file = auth"
test_case "a password is not shown to another server" password_kept
test_case "without the password" refused "\[base\] .*401" "url = http://127.0.0.1:$http/private/disk.raw"
test_case "a wrong password" refused "\[base\] .*401" "url = http://127.0.0.1:$http/private/disk.raw" \
	"auth_file = wrong_auth"
password_in_url() {
	refused "\[base\] url: .*auth_file" "url = http://tester:$password@127.0.0.1:$http/disk.raw"
	check_equal "" "$(grep -F $password <<<"$refusal")" "what tells the password"
}

test_case "a password in the URL is refused, and not shown" password_in_url

# ---- proxies -------------------------------------------------------------------------------------

proxied() {
	mounted_as "url = http://no.such.host.example/disk.raw" "proxy = http://127.0.0.1:$proxy"
	reads_match "$mnt/base.img"
	unmount_disks
	check_match '"GET http://no.such.host.example/disk.raw HTTP/1.1" 206' cat "$work/nginx/proxy.log"
}

proxied_tls() {
	local before

	start_relay connect "tester:$password" || return
	mounted_as "url = https://localhost:$https/disk.raw" "ca_file = ca.pem" \
		"proxy = http://127.0.0.1:$relay_port" "proxy_auth_file = auth"
	reads_match "$mnt/base.img"
	no_secret "$password" "$(printf 'tester:%s' $password | base64)"
	unmount_disks
	check_match "^CONNECT localhost:$https " cat "$work/relay"
	before=$(wc -l <"$work/relay")
	refused "\[base\] .*407" "url = https://localhost:$https/disk.raw" "ca_file = ca.pem" \
		"proxy = http://127.0.0.1:$relay_port" "proxy_auth_file = wrong_auth"
	check_equal $((before + 1)) "$(wc -l <"$work/relay")" "what a proxy that refuses was asked"
	refused "\[base\] proxy: " "url = https://localhost:$https/disk.raw" "ca_file = ca.pem" \
		"proxy = http://tester:$password@127.0.0.1:$relay_port"
	check_equal "" "$(grep -F $password <<<"$refusal")" "what tells the password"
}

# What the environment says of proxies is not for disks.
proxy_of_environment() {
	http_proxy=http://127.0.0.1:$down ALL_PROXY=http://127.0.0.1:$down \
		mounted_as "url = http://127.0.0.1:$http/disk.raw"
	reads_match "$mnt/base.img"
	unmount_disks
}

test_case "a proxy" proxied
test_case "a proxy with a password, for https" proxied_tls
test_case "a proxy of the environment" proxy_of_environment

# ---- limits --------------------------------------------------------------------------------------

# Requests that were refused for a while are asked again, and all is right in the end.
limited() {
	local refusals

	mounted_as "url = http://127.0.0.1:$http/$1/small.raw" "retries = 30" "retry_delay = 20ms"
	head -c 1M "$work/image.raw" >"$work/small"
	check dd if="$mnt/base.img" of="$work/copy" bs=256K iflag=direct status=none
	check cmp "$work/small" "$work/copy"
	refusals=$(grep "/$1/small.raw" "$work/nginx/access.log" | grep -c "\" $2 ")
	[ "$3" = no ] || [ "$refusals" -gt 0 ] || not_ok "no request was refused: nothing was tested"
	unmount_disks
}

test_case "a limited rate of requests, 503" limited often 503 yes
test_case "a limited rate of requests, 429 with Retry-After" limited retry 429 yes
test_case "a limited number of connections" limited few 503 no
test_case "a slow server" limited slow 503 no

# ---- what can be no disk -------------------------------------------------------------------------

test_case "nothing there" refused "\[base\] .*404" "url = http://127.0.0.1:$http/nothing.raw"
test_case "forbidden" refused "\[base\] .*403" "url = http://127.0.0.1:$http/forbidden/disk.raw"
test_case "nobody answers" refused "\[base\] .*127.0.0.1:$down" \
	"url = http://127.0.0.1:$down/disk.raw" "retries = 1" "retry_delay = 10ms"
test_case "the server behind the server is gone" refused "\[base\] .*502" \
	"url = http://127.0.0.1:$http/dead/disk.raw" "retries = 1" "retry_delay = 10ms"
test_case "the server hangs up" refused "\[base\] .*/silent/" \
	"url = http://127.0.0.1:$http/silent/disk.raw" "retries = 1" "retry_delay = 10ms"
test_case "a server without ranges" refused "\[base\] .*range" "url = http://127.0.0.1:$http/whole/disk.raw"
test_case "an empty object" refused "\[base\] .*" "url = http://127.0.0.1:$http/empty.raw"

# Compression is not asked for, so that it does not come.
test_case "a server that would compress" reads_as "$work/image.raw" "url = http://127.0.0.1:$http/zipped/disk.raw"
test_case "a server with dates only" reads_as "$work/image.raw" "url = http://127.0.0.1:$http/vague/disk.raw"

# There is no telling then whether it is replaced: a warning, and no id.
nothing_identifies() {
	mounted_as "url = http://127.0.0.1:$http/nameless/disk.raw"
	check_match '/nameless/disk.raw. has neither an ETag nor a date' cat "$work/log"
	check_fails 1 attribute disk_id base.img
	check cmp "$work/image.raw" "$mnt/base.img"
	unmount_disks
}

test_case "a server that says nothing to identify the object" nothing_identifies

tail_left_out() {
	mounted_as "url = http://127.0.0.1:$http/tail.raw"
	check_output 512 stat -c %s "$mnt/base.img"
	check cmp -n 512 "$work/image.raw" "$mnt/base.img"
	unmount_disks
}

test_case "a tail of less than a sector is left out" tail_left_out

# ---- an object that changes, a server that comes and goes ----------------------------------------

replaced() {
	cp "$work/image.raw" "$work/www/changing.raw"
	touch -d '2020-01-01' "$work/www/changing.raw"
	mounted_as "url = http://127.0.0.1:$http/$1changing.raw"
	check_output 4096 fileop -o rdonly,direct "$mnt/base.img" pread 1M 4096
	python3 -c "open('$work/www/changing.raw', 'r+b').write(b'changed' * 1000)"
	check_output EIO fileop -o rdonly,direct "$mnt/base.img" pread 8M 4096
	check_match 'changed' cat "$work/log"
	check_match "$http/$1changing.raw" cat "$work/log"
	unmount_disks
	check rm "$work/www/changing.raw"
}

test_case "an object that is replaced is never mixed" replaced ""
test_case "an object that is replaced, told by its date" replaced vague/
