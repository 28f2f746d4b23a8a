# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# What the black-box tests share. A test file sources this first:
#
#	. "$(dirname "$0")/lib.sh"
#	requires fio
#	reads_zeros() { check_output same fileop "$mnt/a.img" all 0 4096 0; }
#	mount_disks "$conf"
#	test_case "a new disk reads zeros" reads_zeros
#	unmount_disks
#
# A case prints `ok - NAME` or, after lines that say what went wrong, `not ok - NAME`. The exit
# status is 1 when a case failed or none ran, 77 when the whole file was skipped.
#
# Everything happens in $work, which is removed at the end, also after an interruption; so is every
# mount, and every process that the test has started here. Only those: nothing is killed by name.

set -u
# Messages are compared.
export LC_ALL=C.UTF-8
PATH=$PATH:/usr/sbin:/sbin
BUILD=$(realpath "${BUILD:-build}") || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/diskfs-$(basename "$0" .sh).XXXXXX") || exit 1
mnt=$work/mnt
conf=$work/test.conf
mkdir "$mnt"

# Reports of the sanitizers go to files, whatever happens to stderr; see sanitizer_check.
export ASAN_OPTIONS=log_path=$work/sanitizer
export UBSAN_OPTIONS=log_path=$work/sanitizer:print_stacktrace=1
export TSAN_OPTIONS=log_path=$work/sanitizer

daemon_pid=
cases=0
failed_cases=0
case_failed=0
cleanups=()

# ---- cases and checks ----------------------------------------------------------------------------

# test_case NAME COMMAND...: the command's checks decide, not its status.
test_case() {
	local name=$1

	shift
	cases=$((cases + 1))
	case_failed=0
	"$@"
	if [ "$case_failed" = 0 ]; then
		echo "ok - $name"
	else
		failed_cases=$((failed_cases + 1))
		echo "not ok - $name"
	fi
}

# Fails the case and says why, with the line of the test.
not_ok() {
	local depth=1

	while [ "${BASH_SOURCE[depth]}" = "${BASH_SOURCE[0]}" ] && [ -n "${BASH_LINENO[depth]:-}" ]; do
		depth=$((depth + 1))
	done
	case_failed=1
	echo "# $(basename "${BASH_SOURCE[depth]}"):${BASH_LINENO[depth - 1]}: $*"
	return 1
}

show() {
	[ -z "$1" ] || echo "#   ${1//$'\n'/$'\n#   '}"
}

# check COMMAND...: succeeds.
check() {
	local output status

	output=$("$@" 2>&1) && return 0
	status=$?
	not_ok "status $status of: $*"
	show "$output"
	return 1
}

# check_fails STATUS COMMAND...: ends with exactly this status.
check_fails() {
	local wanted=$1 output status=0

	shift
	output=$("$@" 2>&1) || status=$?
	[ "$status" = "$wanted" ] && return 0
	not_ok "status $status, wanted $wanted, of: $*"
	show "$output"
	return 1
}

# check_output TEXT COMMAND...: prints exactly this (on stdout or stderr).
check_output() {
	local wanted=$1 output

	shift
	output=$("$@" 2>&1)
	[ "$output" = "$wanted" ] || not_ok "'$*' gave '$output', wanted '$wanted'"
}

# check_match REGEX COMMAND...: a line of what it prints matches this extended regular expression.
check_match() {
	local wanted=$1 output

	shift
	output=$("$@" 2>&1)
	grep -Eq -- "$wanted" <<<"$output" || not_ok "'$*' gave '$output', which does not match '$wanted'"
}

# check_equal WANTED GOT [WHAT]
check_equal() {
	[ "$1" = "$2" ] || not_ok "${3:-it} is '$2', wanted '$1'"
}

# Polls a command for at most SECONDS: wait_for SECONDS COMMAND...
wait_for() {
	local end=$((SECONDS + $1))

	shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.05
	done
}

# ---- skipping ------------------------------------------------------------------------------------

skip_all() {
	echo "skip: $*"
	exit 77
}

# requires PROGRAM...: or the whole file is skipped.
requires() {
	local program

	for program; do
		command -v "$program" >/dev/null || skip_all "$program is not installed"
	done
}

requires_root() {
	[ "$(id -u)" = 0 ] || skip_all "needs root"
}

requires_fuse() {
	[ -x "$BUILD/diskfs" ] || { echo "$BUILD/diskfs is missing: run make"; exit 1; }
	{ : <>/dev/fuse; } 2>/dev/null || skip_all "no access to /dev/fuse"
	[ "$(id -u)" = 0 ] || requires fusermount3
}

# skip_case NAME REASON
skip_case() {
	echo "skipped - $1: $2"
}

# ---- clean-up ------------------------------------------------------------------------------------

# cleanup_fn COMMAND...: to be run at the end, last first.
cleanup_fn() {
	cleanups+=("$(printf '%q ' "$@")")
}

mounted() {
	grep -qF " $1 " /proc/self/mounts
}

unmount() {
	if [ "$(id -u)" = 0 ]; then
		umount "$1"
	else
		fusermount3 -u "$1"
	fi
}

# Detaches a loop device that a test has left, if it still has it: another test may have got it since.
free_loop() {
	case $(losetup -n -O BACK-FILE "$1" 2>/dev/null) in
	"$work"/*) losetup -d "$1" ;;
	esac
}

# In a mount namespace of one's own: lets go of the copies of what other tests have mounted, whose
# daemons would wait for the end of those.
forget_other_mounts() {
	umount -l -a -t fuse.diskfs 2>/dev/null
}

unmount_lazily() {
	while mounted "$1"; do
		umount -l "$1" 2>/dev/null || fusermount3 -uz "$1" || return
	done
}

alive() {
	kill -0 "$1" 2>/dev/null
}

dead() {
	! alive "$1"
}

# Ends a process of ours: politely, then not.
end_process() {
	alive "$1" || return 0
	kill -TERM "$1" 2>/dev/null
	wait_for 5 dead "$1" || kill -KILL "$1" 2>/dev/null
}

finish() {
	local status=$? i

	trap '' INT TERM HUP
	for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do
		eval "${cleanups[i]}"
	done
	unmount_lazily "$mnt"
	[ -z "$daemon_pid" ] || end_process "$daemon_pid"
	sanitizer_check || status=1
	cd / && rm -rf --one-file-system "$work"
	if [ "$failed_cases" != 0 ] || [ "$cases" = 0 ]; then
		[ "$status" != 0 ] || status=1
	fi
	exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Fails when a sanitizer has written a report; shows it once.
sanitizer_check() {
	local log found=0

	for log in "$work"/sanitizer.*; do
		[ -e "$log" ] || continue
		found=1
		echo "# a sanitizer reports:"
		head -n 60 "$log" | sed 's/^/#   /'
		rm -f "$log"
	done
	[ "$found" = 0 ] || not_ok "sanitizer report"
}

# ---- the mount -----------------------------------------------------------------------------------

diskfs() {
	"$BUILD/diskfs" "$@"
}

fileop() {
	"$BUILD/tests/fileop" "$@"
}

# The run-time library of the sanitizer that the daemon was built with, if it was.
sanitizer_library() {
	ldd "$BUILD/diskfs" | awk '/lib[at]san/ { print $3 }'
}

# build_preload SOURCE: makes a library that changes what the daemon finds; $preload is then what
# LD_PRELOAD wants. Fails where there is no compiler or a header is missing.
build_preload() {
	# A sanitizer's wants to be loaded before all others.
	preload="$(sanitizer_library) $work/preload.so"
	cc -shared -fPIC -O1 -o "$work/preload.so" "$1" 2>"$work/cc"
}

# Writes the standard input to the configuration file.
config() {
	cat >"$conf"
}

# The answer of a mounted diskfs, and not of the kernel, which remembers the attributes of a dead one
# for a second.
answers() {
	read -r _ <"$mnt/.status"
} 2>/dev/null

answers_or_dead() {
	answers || dead "$daemon_pid"
}

# mount_disks CONFIG [ARGUMENT...]: in the foreground mode, as a child of the test, so that its
# exit status can be seen. Its messages go to $work/log. By the transport that tests/run has set.
mount_disks() {
	local config=$1

	shift
	# A background child of a shell would ignore SIGINT.
	env --default-signal=INT "$BUILD/diskfs" -f ${DISKFS_TRANSPORT:+-o transport=$DISKFS_TRANSPORT} \
		"$@" "$config" "$mnt" >"$work/log" 2>&1 &
	daemon_pid=$!
	wait_for 30 answers_or_dead
	if ! answers; then
		echo "# diskfs does not mount $config:"
		sed 's/^/#   /' "$work/log"
		exit 1
	fi
}

# unmount_disks [INT|TERM]: by umount, or by a signal; the daemon must end with status 0.
unmount_disks() {
	local status=0

	if [ $# = 0 ]; then
		wait_for 10 unmount "$mnt" 2>/dev/null || unmount "$mnt" || not_ok "cannot unmount"
	else
		kill -"$1" "$daemon_pid"
	fi
	if ! wait_for 30 dead "$daemon_pid"; then
		not_ok "diskfs does not end"
		kill -KILL "$daemon_pid"
	fi
	wait "$daemon_pid" || status=$?
	daemon_pid=
	if [ "$status" != 0 ]; then
		not_ok "diskfs ended with status $status"
		sed 's/^/#   /' "$work/log"
	fi
	! mounted "$mnt" || not_ok "still mounted"
	sanitizer_check
}

# kill -9 of the daemon: the mount stays, dead.
kill_disks() {
	kill -KILL "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null
	daemon_pid=
}

# The daemon ends by itself, with this status: ends_with STATUS [SECONDS]
ends_with() {
	local status=0

	if ! wait_for "${2:-30}" dead "$daemon_pid"; then
		not_ok "diskfs does not end"
		kill -KILL "$daemon_pid"
	fi
	wait "$daemon_pid" || status=$?
	daemon_pid=
	check_equal "$1" $status "the status of diskfs"
	sanitizer_check
}

# Aborts the connection to the daemon, as an administrator would; the mount stays, dead. Not in a
# subshell.
abort_connection() {
	local connections=/sys/fs/fuse/connections

	if [ -z "$(ls $connections 2>/dev/null)" ]; then
		connections=$work/connections
		if ! [ -d "$connections" ]; then
			mkdir "$connections"
			cleanup_fn unmount_lazily "$connections"
		fi
		mounted "$connections" || mount -t fusectl none "$connections" || return
	fi
	echo 1 >"$connections/$(stat -c %d "$mnt")/abort"
}

# in_flight IMAGE read|write|...: how many requests are under way at the top of its stack.
in_flight() {
	python3 - "$mnt/.status.json" "$@" <<'PY'
import json, sys
operations = json.load(open(sys.argv[1]))["images"][sys.argv[2]]["operations"]
print(operations.get(sys.argv[3], {"in_flight": 0})["in_flight"])
PY
}

# has_in_flight IMAGE OPERATION COUNT
has_in_flight() {
	[ "$(in_flight "$1" "$2")" = "$3" ]
}

# has_size IMAGE BYTES: soon; as the file tells it, and its attributes, and .status.
has_size() {
	check python3 "$(dirname "$0")/resize.py" size "$mnt" "$1" "$2"
}

# Ends the mount as a case of its own.
end_disks() {
	test_case "diskfs ends with status 0${1:+ on SIG$1}" unmount_disks "$@"
}

# A file of pseudo-random, reproducible content: random_file FILE BYTES [SEED]
random_file() {
	python3 - "$1" "$2" "${3:-1}" <<'PY'
import random, sys
path, size, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, "wb") as out:
    out.write(random.Random(seed).randbytes(size))
PY
}

# ---- persistent reservations ---------------------------------------------------------------------

prctl() {
	"$BUILD/tests/prctl" "$@"
}

# attribute NAME IMAGE
attribute() {
	getfattr --absolute-names --only-values -n "user.diskfs.$1" "$mnt/$2"
}

# share_conf CACHE FILES: a disk of 8 MiB that is those files, with its state in pr.state.
share_conf() {
	config <<-EOT
		[diskfs]
		cache = $1

		[disk]
		driver = file
		path = disk.raw
		size = 8M

		[shared]
		driver = prwrap
		below = disk
		file = $2
		state_file = pr.state

		[other]
		driver = ram
		size = 1M
	EOT
}

# By a.img: nobody is registered; the generation is whatever it is.
forget_all() {
	prctl "$mnt/a.img" ignore 0 0xffff clear 0xffff >/dev/null
}

# That .metrics has the form of Prometheus.
metrics_form() {
	check python3 - "$mnt/.metrics" <<'PY'
import re, sys
sample = re.compile(
    r'^[a-zA-Z_:][a-zA-Z0-9_:]*'
    r'(\{([a-zA-Z_][a-zA-Z0-9_]*="(\\[\\n"]|[^"\\\n])*"(,|(?=\})))*\})?'
    r' (-?[0-9.]+([eE][-+]?[0-9]+)?|[+-]Inf|NaN)$')
comment = re.compile(r'^# (HELP [a-zA-Z_:][a-zA-Z0-9_:]* .*|'
                     r'TYPE [a-zA-Z_:][a-zA-Z0-9_:]* (counter|gauge|histogram|summary|untyped))$')
text = open(sys.argv[1]).read()
assert text.endswith("\n"), "no newline at the end"
typed, samples, seen = {}, 0, set()
for line in text.splitlines():
    if not line:
        continue
    if line.startswith("#"):
        assert comment.match(line), line
        if line.startswith("# TYPE"):
            name = line.split()[2]
            assert name not in typed, "typed twice: " + name
            typed[name] = line.split()[3]
        continue
    assert sample.match(line), line
    key = line.rsplit(" ", 1)[0]
    assert key not in seen, "twice: " + key
    seen.add(key)
    name = re.split(r"[{ ]", line)[0]
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    assert name in typed or typed.get(base) == "histogram", "no TYPE: " + line
    samples += 1
assert samples > 20, samples
PY
}
