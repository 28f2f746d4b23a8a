# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# Servers for the tests of remote disks, on loopback addresses, each in a folder of its own in $work and
# ended with the test; and what is checked of a disk, whatever server it lies on. After ../lib.sh.

blob_folder=$(dirname "${BASH_SOURCE[0]}")

# ---- servers -------------------------------------------------------------------------------------

# free_ports COUNT: so many TCP ports that nobody uses, on one line.
free_ports() {
	python3 - "$1" <<'PY'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for i in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets))
PY
}

# start_server LOG COMMAND...: a child of the test; its process is $server_pid.
start_server() {
	local log=$1

	shift
	"$@" >"$log" 2>&1 </dev/null &
	server_pid=$!
	cleanup_fn end_process "$server_pid"
}

answers_http() {
	curl -s -o /dev/null --max-time 2 "$@"
}

# Whether a server is there; if not, says why: server_is_up LOG SECONDS URL [CURL'S ARGUMENTS...]
server_is_up() {
	local log=$1 seconds=$2

	shift 2
	wait_for "$seconds" answers_http "$@" && return
	echo "# nobody answers at $1:"
	tail -n 20 "$log" | sed 's/^/#   /'
	return 1
}

# make_ca NAME: NAME.pem, NAME.key; make_certificate NAME CA SUBJECTS: a leaf of it.
make_ca() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
		-keyout "$work/$1.key" -out "$work/$1.pem" 2>/dev/null
}

make_certificate() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
		-CA "$work/$2.pem" -CAkey "$work/$2.key" -addext "subjectAltName=$3" \
		-addext "basicConstraints=critical,CA:FALSE" \
		-keyout "$work/$1.key" -out "$work/$1.pem" 2>/dev/null
}

# The pid that a server which went into the background has written.
end_by_file() {
	local pid

	pid=$(cat "$1" 2>/dev/null) || return 0
	end_process "$pid"
}

# start_nginx: with the server blocks on the standard input, in $work/nginx.
start_nginx() {
	local dir=$work/nginx

	mkdir "$dir"
	{
		[ "$(id -u)" != 0 ] || echo "user root;"
		cat <<-EOT
			daemon off;
			worker_processes 1;
			pid $dir/pid;
			error_log $dir/error.log;
			events { worker_connections 512; }
			http {
				access_log $dir/access.log;
				default_type application/octet-stream;
				client_body_temp_path $dir/body;
				proxy_temp_path $dir/proxy;
				fastcgi_temp_path $dir/fastcgi;
				uwsgi_temp_path $dir/uwsgi;
				scgi_temp_path $dir/scgi;
		EOT
		cat
		echo "}"
	} >"$dir/nginx.conf"
	start_server "$dir/log" nginx -e "$dir/error.log" -p "$dir" -c "$dir/nginx.conf"
}

# start_http_server PATH=FILE...: the server of the tests (../http_server.c), at $http_port.
start_http_server() {
	coproc HTTP { exec "$BUILD/tests/http_server" "$@" 2>"$work/http_server.log"; }
	cleanup_fn end_process "$HTTP_PID"
	# The coprocess's own are not there in subshells.
	exec {http_in}>&"${HTTP[1]}" {http_out}<&"${HTTP[0]}"
	read -r http_port <&"$http_out" || { cat "$work/http_server.log"; exit 1; }
}

# start_relay ARGUMENT...: relay.py, at $relay_port; what it prints goes to $work/relay.
start_relay() {
	rm -f "$work/relay"
	start_server "$work/relay" python3 "$blob_folder/relay.py" "$@"
	wait_for 10 test -s "$work/relay" || { cat "$work/relay"; return 1; }
	read -r relay_port <"$work/relay"
}

# http_tell COMMAND: prints its answer.
http_tell() {
	local line

	echo "$*" >&"$http_in"
	read -r line <&"$http_out"
	echo "$line"
}

# rules TEXT: what the server does from now on; by default nothing wrong.
rules() {
	check_equal ok "$(http_tell "rules $*")" "the rules '$*'"
}

# The requests since the last call.
http_log() {
	local line

	echo log >&"$http_in"
	while read -r line <&"$http_out" && [ "$line" != ok ]; do
		echo "${line%$'\r'}"
	done
}

# http_count WHAT: one of the numbers of the server.
http_count() {
	http_tell counts | awk -v what="$1" '{ for (i = 1; i < NF; i += 2) if ($i == what) print $(i + 1) }'
}

# ---- images --------------------------------------------------------------------------------------

# make_image: $work/image.raw, a file system of 48 MiB with the files of $work/tree.
make_image() {
	local i

	mkdir -p "$work/tree/usr/share" "$work/tree/etc"
	for i in 1 2 3 4 5 6; do
		random_file "$work/tree/usr/share/file$i" $((i * 700001)) "$i"
	done
	for i in $(seq 200); do
		echo "setting $i" >"$work/tree/etc/$i.conf"
	done
	ln -s ../etc "$work/tree/usr/etc"
	truncate -s 48M "$work/image.raw"
	mkfs.ext4 -q -F -d "$work/tree" "$work/image.raw"
}

# ---- what a disk on any server does --------------------------------------------------------------

# layers_conf BLOB...: the blob (its section's text) as base.img, and once more as vm.img and diff.img,
# under a layer in memory and one in a file.
layers_conf() {
	config <<-EOT
		[diskfs]
		cache = none

		[base]
		driver = blob
		$*

		[below]
		driver = blob
		readonly = yes
		$*

		[scratch]
		driver = ram

		[vm]
		driver = layered
		below = scratch, below

		[file]
		driver = sqlite
		path = diff.diskfs

		[diff]
		driver = layered
		below = file, below
	EOT
}

# Small reads here and there, from $1 and from the image: direct, in an order of their own, several at
# a time.
reads_match() {
	check python3 - "$1" "${2:-$work/image.raw}" <<'PY'
import mmap, os, random, sys, threading

disk, image = sys.argv[1:]
size = os.stat(image).st_size
assert os.stat(disk).st_size == size, f"{os.stat(disk).st_size} bytes, not {size}"
wrong = []

def read(seed):
    choice = random.Random(seed)
    fd = os.open(disk, os.O_RDONLY | os.O_DIRECT)
    source = os.open(image, os.O_RDONLY)
    memory = mmap.mmap(-1, 1 << 20)
    for _ in range(60):
        length = 512 * choice.choice((1, 8, 8, 8, 50, 777, 2048))
        at = choice.randrange(0, size // 512) * 512
        wanted = os.pread(source, length, at)
        got = os.preadv(fd, [memoryview(memory)[:length]], at)
        if got != len(wanted) or memory[:got] != wanted:
            wrong.append((at, length, got))

threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
for each in threads: each.start()
for each in threads: each.join()
assert not wrong, wrong[:5]
PY
}

is_the_image() {
	check cmp "$work/image.raw" "$1"
	reads_match "$1"
}

copied_from() {
	check qemu-img convert -f raw -O raw "$mnt/base.img" "$work/copy.raw"
	check cmp "$work/image.raw" "$work/copy.raw"
	rm -f "$work/copy.raw"
}

is_read_only() {
	check_output EROFS fileop "$mnt/base.img" pread 0 1
}

end_mount() {
	! mounted "$1" || umount "$1"
}

mount_image() {
	mkdir -p "$work/fs"
	check mount -o loop "$1" "$work/fs" || return
	cleanup_fn end_mount "$work/fs"
}

# The file system of the image is used through a layer: found whole, written to.
used_through_layer() {
	mount_image "$mnt/vm.img" || return
	check diff -r --no-dereference -x lost+found "$work/tree" "$work/fs"
	check cp -r "$work/tree/usr" "$work/fs/again"
	check rm -r "$work/fs/etc"
	check sync -f "$work/fs"
	check diff -r --no-dereference "$work/tree/usr" "$work/fs/again"
	check umount "$work/fs"
	check e2fsck -fn "$mnt/vm.img"
	check cmp "$work/image.raw" "$mnt/base.img"
}

# A new file system is made through a layer that lasts.
made_anew() {
	check mkfs.ext4 -q -F -L anew "$mnt/diff.img"
	mount_image "$mnt/diff.img" || return
	check cp -r "$work/tree/usr/share" "$work/fs/share"
	check umount "$work/fs"
	unmount_disks
	mount_disks "$conf" -o transport=auto
	check e2fsck -fn "$mnt/diff.img"
	mount_image "$mnt/diff.img" || return
	check diff -r "$work/tree/usr/share" "$work/fs/share"
	check umount "$work/fs"
	check cmp "$work/image.raw" "$mnt/base.img"
}

# all_uses SERVER: of what layers_conf has made.
all_uses() {
	mount_disks "$conf" -o transport=auto
	test_case "$1: the disk is the object, byte for byte" is_the_image "$mnt/base.img"
	test_case "$1: it cannot be written" is_read_only
	test_case "$1: it is copied" copied_from
	if [ "$(id -u)" = 0 ] && losetup -f >/dev/null 2>&1; then
		test_case "$1: its file system is used through a layer" used_through_layer
		test_case "$1: a new one is made through a layer in a file" made_anew
	else
		skip_case "$1: its file system is used through a layer" "no loop device"
	fi
	test_case "$1: diskfs ends" unmount_disks
	rm -f "$work"/diff.diskfs*
}

# blob_number NAME [IMAGE]: a number of what .status says of a blob.
blob_number() {
	python3 - "$mnt/.status.json" "$1" "${2:-base.img}" <<'PY'
import json, sys
found = json.load(open(sys.argv[1]))["images"][sys.argv[3]]
for key in sys.argv[2].split("."):
    found = found[key]
print(found)
PY
}

# no_secret SECRET...: in what diskfs says of itself: messages, .status, metrics, attributes, the
# command line.
no_secret() {
	local secret

	for secret; do
		check_equal "" "$(cat "$work"/log "$work"/log.* "$mnt"/.status "$mnt"/.status.json \
			"$mnt"/.metrics 2>/dev/null | grep -F -- "$secret")" "what tells '$secret'"
		check_equal "" "$(tr '\0' ' ' <"/proc/$daemon_pid/cmdline" | grep -F -- "$secret")"
		check_equal "" "$(getfattr --absolute-names --only-values -d -m - "$mnt"/*.img 2>/dev/null |
			grep -aF -- "$secret")"
	done
}
