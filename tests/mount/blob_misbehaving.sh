#!/bin/bash
# SPDX-License-Identifier: MIT
# Remote disks on a server that misbehaves as it is told (http_server.c): the right bytes or a clear
# error, in bounded time and memory, and no other disk of the mount notices.
#
# Each case that shows after the mount has a disk of its own, on an object of its own, and all of them
# are read at the same time: so the longest wait is the time for all.
#
#	LONG=1	heads are mangled for 200 s
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/blob/lib.sh"
requires python3 curl openssl
requires_fuse

# What a request may take: three tries and 4 s in all.
patience="retries = 2
retry_delay = 20ms
connect_timeout = 2s
low_speed = 4K
low_speed_time = 1s
timeout = 4s"
seconds_max=12 # a loaded machine is given time
campaign=3     # seconds of mangled heads
[ -z "${LONG:-}" ] || campaign=200

token=TheTokenOfTheTests
password=ThePasswordOfTheTests
(umask 077 && echo "token=$token" >"$work/query" && echo "tester:$password" >"$work/auth")
secrets=("$token" "$password" "$(printf 'tester:%s' $password | base64)")

random_file "$work/image.raw" 8388608
random_file "$work/other.raw" 8388608 2
make_ca ca && make_certificate leaf ca DNS:localhost,IP:127.0.0.1 &&
	make_certificate elsewhere ca DNS:elsewhere.example || exit 1

# ---- the cases -----------------------------------------------------------------------------------

# name | rules for its object | what a read of 4 KiB is | what the log says | how many requests it takes
# at most. "right" is the bytes of the object, "EIO" an error; "either" is one of them. In the rules,
# PATH is the object's; {} is the port of the server.
read_cases=(
	"short body, once|times=1 body=1000|right||3"
	"short body, always, but each time more|body=2000|right||3"
	"empty body, always|body=0|EIO|206|3"
	"short body that is promised to be short|length=1000 body=1000 close|EIO|length|3"
	"long body behind the promised length|more=100000|right||3"
	"long body in chunks|chunked more=100000|EIO|longer|3"
	"endless body in chunks|chunked more=1000000000000|EIO|longer|3"
	"chunks|chunked|right||1"
	"no length but the end of the connection|length=none|either||3"
	"no length, and a reset behind the body|length=none reset|right||1"
	"no length, and nothing behind the body|length=none stall|right||1"
	"a length that lies: more|length=9999|EIO|length|3"
	"Content-Range of another place|content-range=bytes%200-4095/%T|EIO|range|1"
	"Content-Range of another length|content-range=bytes%20%F-%L/99999999|EIO|changed|1"
	"Content-Range that is none|content-range=bytes%20some|EIO|malformed|3"
	"Content-Range that overflows|content-range=bytes%2099999999999999999999-4/5|EIO|malformed|3"
	"no Content-Range|content-range=none|EIO|Content-Range|1"
	"200 for a range|full|EIO|whole|1"
	"multipart|multipart|EIO|Content-Range|1"
	"changed ETag|etag=\"other\" unconditional|EIO|changed|1"
	"changed ETag, once|times=1 etag=\"other\" unconditional|EIO|changed|1"
	"no ETag any more|etag=none|EIO|changed|1"
	"412|status=412|EIO|changed|1"
	"503, then success|times=2 status=503|right||3"
	"503, always|status=503|EIO|503|3"
	"429 with Retry-After|times=1 status=429 header=Retry-After:%201|right||2"
	"503 with Retry-After of a date|times=1 status=503 header=Retry-After:%20Thu,%2001%20Jan%201970%2000:00:00%20GMT|right||2"
	"429 with Retry-After of a year|status=429 header=Retry-After:%2031536000|EIO|429|1"
	"429 with Retry-After that overflows|status=429 header=Retry-After:%2099999999999999999999|EIO|429|3"
	# 503, or HTTP/0.9: what the next try on the same connection may find there.
	"503 with a page that never ends|status=503 more=1000000000|EIO|[5H][0T][3T]|3"
	"408, once|times=1 status=408|right||2"
	"404|status=404|EIO|404|1"
	"403|status=403|EIO|403|1"
	"416|status=416|EIO|416|1"
	"204|status=204|EIO|204|1"
	"a status of 999|status=999|EIO|999|3"
	"stalls before the answer, once|times=1 silent stall|right||2"
	"stalls before the answer, always|silent stall|EIO||3"
	"stalls in the body, once|times=1 body=1000 stall|right||2"
	"stalls in the body, always|body=1000 stall|EIO||6"
	"stalls behind the body|stall|right||3"
	"resets before the answer, once|times=1 silent reset|right||3"
	"resets before the answer, always|silent reset|EIO||6"
	"resets in the body, once|times=1 body=1000 reset|right||3"
	"resets in the body, always, with nothing new|body=0 reset|EIO||6"
	"closes without an answer, once|times=1 silent close|right||3"
	"closes without an answer, always|silent close|EIO||6"
	"a slow drip|drip=1,900|EIO||6"
	"a drip that is fast enough|drip=512,20|right||1"
	"a delay|delay=700|right||1"
	"a redirect to itself, always|location=PATH|EIO|redirect|40"
	"a redirect to itself, once|times=1 location=PATH|right||2"
	"a redirect to another object|location=/other|EIO|changed|3"
	"a redirect to nowhere|location=http://|EIO||3"
	"a redirect to a file|location=file:///etc/passwd|EIO||1"
	"a redirect without a place|status=302|EIO|302|3"
	"303, once|times=1 status=303 location=PATH|right||2"
	"a body in gzip|content-encoding=gzip|EIO|encod|1"
	"10,000 headers|headers=10000|EIO|head|3"
	"10,000 headers, once|times=1 headers=10000|either||3"
	"headers that are never ended|headers=1000000|EIO|head|3"
	"a header without a name|header=nothing|either||3"
	"a header with a zero byte|header=X:%20a%00b|either||3"
	"a head that begins with a folded line|folded|either||3"
	"interim answers without an end|interim=1000000|either||3"
	"a few interim answers|interim=5|right||1"
	"no HTTP, once|times=1 garbage|either||3"
	"no HTTP, always|garbage|EIO||6"
)

# ---- one mount of them all -----------------------------------------------------------------------

objects=("/other=$work/other.raw" "/good=$work/image.raw")
all_rules=
{
	printf '[diskfs]\ncache = none\n[ram]\ndriver = ram\nsize = 8M\n'
	printf '[good]\ndriver = blob\nurl = http://127.0.0.1:PORT/good\n'
	for i in "${!read_cases[@]}"; do
		IFS='|' read -r _ words _ <<<"${read_cases[i]}"
		objects+=("/case$i=$work/image.raw")
		all_rules+="path=/case$i ${words//PATH//case$i}; "
		printf '[case%s]\ndriver = blob\nurl = http://127.0.0.1:PORT/case%s\n' "$i" "$i"
		printf 'query_file = query\nauth_file = auth\n%s\n' "$patience"
	done
} >"$work/template"
start_http_server "${objects[@]}"
sed "s/PORT/$http_port/" "$work/template" >"$conf"

# Reads 4 KiB of each case's disk, all at once, and meanwhile of the others: for each case a line
# "RESULT SECONDS" in $work/results.
read_all() {
	python3 - "$mnt" "$work/image.raw" ${#read_cases[@]} "$work/results" <<'PY'
import errno, mmap, os, sys, threading, time

mnt, image, count, results = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
data = open(image, "rb").read()
found = [""] * count
worst = {"good": 0.0, "ram": 0.0}
done = threading.Event()
AT = 1 << 20

def read(name, at, length):
    fd = os.open(f"{mnt}/{name}.img", os.O_RDONLY | os.O_DIRECT)
    memory = mmap.mmap(-1, length)
    begin = time.monotonic()
    try:
        got = os.preadv(fd, [memory], at)
        result = "right" if memory[:got] == data[at:at + length] or name == "ram" else "WRONG"
    except OSError as error:
        result = errno.errorcode[error.errno]
    finally:
        os.close(fd)
    return result, time.monotonic() - begin

def case(index):
    result, seconds = read(f"case{index}", AT, 4096)
    found[index] = f"{result} {seconds:.2f}"

def others(name):
    step = 0
    while not done.is_set():
        result, seconds = read(name, step % 2000 * 4096, 4096)
        worst[name] = max(worst[name], seconds)
        if result != "right":
            worst[name] = 1e9
        step += 37
        time.sleep(0.01)

beside = [threading.Thread(target=others, args=(name,)) for name in worst]
cases = [threading.Thread(target=case, args=(index,)) for index in range(count)]
for each in beside + cases: each.start()
for each in cases: each.join(60)
done.set()
for each in beside: each.join(60)
with open(results, "w") as out:
    for line in found: print(line or "HANGS 60", file=out)
    for name, seconds in worst.items(): print(name, f"{seconds:.2f}", file=out)
os._exit(0)
PY
}

case_of() {
	local i=$1 name words wanted says most result seconds requests

	IFS='|' read -r name words wanted says most <<<"${read_cases[i]}"
	read -r result seconds <<<"$(sed -n "$((i + 1))p" "$work/results")"
	[ "$wanted" != either ] || { [ "$result" != right ] && [ "$result" != EIO ]; } || wanted=$result
	check_equal "$wanted" "$result" "a read"
	[ "${seconds%.*}" -lt $seconds_max ] || not_ok "it took $seconds s"
	requests=$(grep -c "^GET /case$i?" "$work/requests")
	[ "$requests" -le "$most" ] || not_ok "it took $requests requests"
	[ "$result" != EIO ] || check_match "error: \[case$i\] http://127.0.0.1:$http_port/[a-z0-9]+, bytes .*$says" cat "$work/log"
}

others_unaffected() {
	local name seconds

	for name in good ram; do
		seconds=$(sed -n "s/^$name //p" "$work/results")
		[ "${seconds%.*}" -lt 2 ] || not_ok "a read of $name took $seconds s"
		echo "# the slowest read of $name: $seconds s"
	done
}

# All that is remembered of an answer is small, whatever comes.
memory_bounded() {
	local kib

	kib=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$daemon_pid/status")
	echo "# $kib KiB resident at most"
	[ "$kib" -lt 120000 ] || not_ok "it took $kib KiB"
}

# Once the server behaves again, all is well again.
all_well_again() {
	local i

	rules ""
	for i in "${!read_cases[@]}"; do
		check cmp -n 65536 -i 4194304:4194304 "$work/image.raw" "$mnt/case$i.img"
	done
}

mount_disks "$conf" -o transport=auto
http_log >/dev/null
rules "$all_rules"
before=$SECONDS
read_all
echo "# ${#read_cases[@]} cases in $((SECONDS - before)) s"
http_log >"$work/requests"
for i in "${!read_cases[@]}"; do
	test_case "${read_cases[i]%%|*}" case_of "$i"
done
test_case "the other disks of the mount" others_unaffected
test_case "no secret is told" no_secret "${secrets[@]}"
if [ -z "$(sanitizer_library)" ]; then
	test_case "memory" memory_bounded
else
	skip_case "memory" "a sanitizer takes it"
fi
test_case "all is well again" all_well_again
end_disks

# ---- to whom secrets go --------------------------------------------------------------------------

# bad_conf PORT-AND-HOST [OPTION...]
bad_conf() {
	local where=$1

	shift
	{
		printf '[diskfs]\ncache = none\n[bad]\ndriver = blob\nurl = %s\n%s\n' "$where" "$patience"
		printf '%s\n' "$@"
	} | config
}

# The same server under another name is another host.
secrets_stay() {
	bad_conf "http://127.0.0.1:$http_port/case0" "query_file = query" "auth_file = auth"
	mount_disks "$conf" -o transport=auto
	http_log >"$work/requests"
	check_match "^GET /case0\?token=$token " cat "$work/requests"
	check_match '^Authorization: Basic' cat "$work/requests"
	rules "path=/case0 location=http://localhost:$http_port/good"
	check_match "EIO|same" fileop -o rdonly,direct "$mnt/bad.img" pread 1M 4096
	http_log >"$work/requests"
	check_match "^GET /good" cat "$work/requests"
	check_equal "" "$(sed -n '/^GET .good/,/^$/p' "$work/requests" | grep -E "$token|Authorization")" \
		"what the other host was shown"
	rules ""
	unmount_disks
}

test_case "a redirect to another host takes no secrets along" secrets_stay

# ---- TLS -----------------------------------------------------------------------------------------

# start_front NAME: TLS with that certificate in front of the server, at $relay_port.
start_front() {
	start_relay tls "$work/$1.pem" "$work/$1.key" "$http_port"
}

wrong_name() {
	start_front elsewhere || { not_ok "no server"; return; }
	bad_conf "https://localhost:$relay_port/good" "ca_file = ca.pem" "query_file = query"
	not_mounted "certificate|subject name"
	check_equal "" "$(http_log)" "what the server was asked"
}

# Once it is mounted, over TLS.
downgrade() {
	start_front leaf || { not_ok "no server"; return; }
	bad_conf "https://localhost:$relay_port/good" "ca_file = ca.pem" "query_file = query"
	mount_disks "$conf" -o transport=auto
	rules "path=/good location=http://localhost:$http_port/case0"
	http_log >/dev/null
	check_output EIO fileop -o rdonly,direct "$mnt/bad.img" pread 1M 4096
	check_equal "" "$(http_log | grep case0)" "what was asked without TLS"
	check_match 'redirect|http' cat "$work/log"
	rules "path=/good body=1000 reset times=1"
	check_output 4096 fileop -o rdonly,direct "$mnt/bad.img" pread 2M 4096
	rules ""
	unmount_disks
}

# ---- what shows at the mount ---------------------------------------------------------------------

# not_mounted REGEX: of the configuration; in bounded time, with a sentence that says why.
not_mounted() {
	local before=$SECONDS output

	output=$(timeout 60 "$BUILD/diskfs" "$conf" "$mnt" 2>&1)
	grep -Eq -- "test.conf:[0-9]+: \[bad\] .*($1)" <<<"$output" ||
		not_ok "'$output' does not match '$1'"
	[ $((SECONDS - before)) -lt $seconds_max ] || not_ok "it took $((SECONDS - before)) s"
	check_equal "" "$(grep -F -e $token -e $password <<<"$output")" "what tells a secret"
	! mounted "$mnt" || { not_ok "mounted"; unmount "$mnt"; }
}

# name | rules | why not
mount_cases=(
	"a body in gzip|content-encoding=gzip|encod"
	"200 for a range|full|range"
	"no Content-Range|content-range=none|Content-Range"
	"Content-Range of another place|content-range=bytes%205-5/%T|range"
	"Content-Range without a length|content-range=bytes%20%F-%L/*|malformed|length"
	"a length of all there is|content-range=bytes%20%F-%L/18446744073709551615|large|length|size|sector"
	"a length that overflows|content-range=bytes%20%F-%L/99999999999999999999|malformed"
	"10,000 headers|headers=10000|head"
	"no HTTP|garbage|."
	"a stall|silent stall|."
	"a slow drip of the head|interim=3 silent stall|."
	"resets|silent reset|."
	"503|status=503|503"
	"404|status=404|404"
	"429 with Retry-After of a year|status=429 header=Retry-After:%2031536000|429"
	"a loop of redirects|location=/bad|redirect"
	"a redirect to a file|location=file:///etc/passwd|."
	"multipart|multipart|Content-Range"
)

mount_case() {
	sed -i 's/^timeout = .*/timeout = 2s/' "$conf"
	rules "$1"
	not_mounted "$2"
	rules ""
}

test_case "TLS with a wrong name" wrong_name
test_case "a redirect from https to http" downgrade
http_tell "put /bad $work/image.raw" >/dev/null
bad_conf "http://127.0.0.1:$http_port/bad" "query_file = query" "auth_file = auth"
for each in "${mount_cases[@]}"; do
	IFS='|' read -r name words why <<<"$each"
	test_case "at the mount: $name" mount_case "$words" "$why"
done

# ---- many readers --------------------------------------------------------------------------------

# Everything goes wrong now and then; a cache that is too small forgets most of what was read.
now_and_then() {
	http_tell "put /often $work/image.raw" >/dev/null
	bad_conf "http://127.0.0.1:$http_port/often"
	sed -i 's/^retries = .*/retries = 20/; s/^timeout = .*/timeout = 60s/; s/^cache = .*/&\ncache_memory = 2M/' \
		"$conf"
	mount_disks "$conf" -o transport=auto
	rules "path=/often chance=2 silent reset; path=/often chance=2 body=3000 reset;" \
		"path=/often chance=2 body=0; path=/often chance=2 status=503 header=Retry-After:%200;" \
		"path=/often chance=2 status=500; path=/often chance=5 delay=20; path=/often chance=2 location=/often;" \
		"path=/often chance=10 chunked; path=/often chance=2 drip=2000,1; path=/often chance=2 more=500;" \
		"path=/often chance=5 close"
	reads_match "$mnt/bad.img"
	check cmp "$work/image.raw" "$mnt/bad.img"
	[ "$(blob_number retries bad.img)" -gt 0 ] || not_ok "nothing went wrong: nothing was tested"
	rules ""
	unmount_disks
}

# Readers at the moment when the object is replaced: what each gets is the old content, or an error.
replaced_under_readers() {
	http_tell "put /replaced $work/image.raw" >/dev/null
	bad_conf "http://127.0.0.1:$http_port/replaced"
	sed -i 's/^cache = .*/&\ncache_memory = 1M/' "$conf"
	mount_disks "$conf" -o transport=auto
	rules "path=/replaced delay=3"
	{ sleep 0.5; http_tell "put /replaced $work/other.raw"; } >/dev/null &
	check python3 - "$mnt/bad.img" "$work/image.raw" <<'PY'
import mmap, os, random, sys, threading, time

data = open(sys.argv[2], "rb").read()
wrong, failed, end = [], [], time.monotonic() + 2

def read(seed):
    choice = random.Random(seed)
    fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
    memory = mmap.mmap(-1, 1 << 18)
    while time.monotonic() < end:
        length = 4096 * choice.choice((1, 1, 2, 64))
        at = choice.randrange(0, len(data) // 4096) * 4096
        try:
            got = os.preadv(fd, [memoryview(memory)[:length]], at)
            if memory[:got] != data[at:at + length]:
                wrong.append((at, got))
        except OSError as error:
            failed.append(error)

threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
for each in threads: each.start()
for each in threads: each.join()
assert not wrong, wrong[:5]
assert failed, "nothing has failed"
PY
	wait $!
	check_match 'changed' cat "$work/log"
	rules ""
	unmount_disks
}

# Heads in which bytes are something else: what is taken from them is right, or they are refused.
mangled() {
	http_tell "put /mangled $work/image.raw" >/dev/null
	bad_conf "http://127.0.0.1:$http_port/mangled"
	sed -i 's/^cache = .*/&\ncache_memory = 0/' "$conf"
	mount_disks "$conf" -o transport=auto
	rules "path=/mangled chance=50 mangle=1 close; path=/mangled chance=50 mangle=4 close;" \
		"path=/mangled chance=50 mangle=20 close"
	check python3 - "$mnt/bad.img" "$work/image.raw" $campaign <<'PY'
import mmap, os, random, sys, threading, time

data = open(sys.argv[2], "rb").read()
wrong, counts, end = [], {"right": 0, "failed": 0}, time.monotonic() + int(sys.argv[3])

def read(seed):
    choice = random.Random(seed)
    fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
    memory = mmap.mmap(-1, 1 << 16)
    while time.monotonic() < end:
        length = 512 * choice.choice((1, 8, 100))
        at = choice.randrange(0, len(data) // 512) * 512
        try:
            got = os.preadv(fd, [memoryview(memory)[:length]], at)
            if memory[:got] != data[at:at + length]:
                wrong.append((at, length, got))
            counts["right"] += 1
        except OSError:
            counts["failed"] += 1

threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
for each in threads: each.start()
for each in threads: each.join()
print(counts)
assert not wrong, wrong[:5]
assert counts["right"] > 100 and counts["failed"] > 10, counts
PY
	rules ""
	reads_match "$mnt/bad.img"
	unmount_disks
}

test_case "heads that are mangled" mangled
test_case "many readers, and everything goes wrong now and then" now_and_then
test_case "many readers, and the object is replaced" replaced_under_readers

# ---- a server that goes --------------------------------------------------------------------------

server_gone() {
	local before

	bad_conf "http://127.0.0.1:$http_port/good"
	mount_disks "$conf" -o transport=auto
	kill -KILL "$HTTP_PID"
	wait "$HTTP_PID" 2>/dev/null
	before=$SECONDS
	check_output EIO fileop -o rdonly,direct "$mnt/bad.img" pread 1M 4096
	[ $((SECONDS - before)) -lt $seconds_max ] || not_ok "it took $((SECONDS - before)) s"
	check_match "127.0.0.1:$http_port/good" cat "$work/log"
	unmount_disks
}

test_case "a server that is gone" server_gone
