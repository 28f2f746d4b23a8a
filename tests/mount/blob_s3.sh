#!/bin/bash
# SPDX-License-Identifier: MIT
# Remote disks in S3, on Ceph's object gateway, which verifies signatures.
#
# Not to be learned here: it takes any region, and one that is wrong is no error.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/blob/lib.sh"
. "$(dirname "$0")/blob/ceph.sh"
requires python3 curl openssl mkfs.ext4
requires_fuse
for program in ceph-mon ceph-osd ceph radosgw; do
	command -v $program >/dev/null || skip_all "no Ceph here ($program): scripts/setup --test installs it"
done

make_ca ca && make_certificate leaf ca DNS:localhost,DNS:bucket.localhost,IP:127.0.0.1 || exit 1
start_ceph || exit 1
make_image
s3 PUT /bucket && s3 PUT /bucket/image.raw -T "$work/image.raw" &&
	s3 PUT /bucket/open.raw -T "$work/image.raw" -H "x-amz-acl: public-read" || exit 1
# credentials NAME ACCESS-KEY SECRET [TOKEN]
credentials() {
	(umask 077 && printf 'aws_access_key_id = %s\naws_secret_access_key = %s\n%s\n' "$2" "$3" \
		"${4:+aws_session_token = $4}" >"$work/$1")
}
credentials credentials "$s3_access" "$s3_secret"
credentials wrong_secret "$s3_access" "No$s3_secret"
credentials stranger NOBODY "$s3_secret"

s3_conf() {
	{
		printf '[diskfs]\ncache = none\n[base]\ndriver = blob\n'
		printf '%s\n' "$@"
	} | config
}

endpoint="endpoint = http://127.0.0.1:$s3_port"
region="region = us-east-1"

# ---- the whole of it -----------------------------------------------------------------------------

layers_conf "url = s3://bucket/image.raw
$endpoint
$region
credentials_file = credentials"
all_uses "an object of S3"

# ---- who may read --------------------------------------------------------------------------------

# reads_as OPTION...: base.img of these options is the image.
reads_as() {
	s3_conf "$@"
	mount_disks "$conf" -o transport=auto
	reads_match "$mnt/base.img"
	no_secret "$s3_secret" "$(printf '%s:%s' "$s3_access" "$s3_secret" | base64)" Signature=
	unmount_disks
}

# refused REGEX OPTION...
refused() {
	local wanted=$1 output

	shift
	s3_conf "$@"
	output=$(timeout 60 "$BUILD/diskfs" "$conf" "$mnt" 2>&1)
	grep -Eq -- "$wanted" <<<"$output" || not_ok "'$output' does not match '$wanted'"
	check_equal "" "$(grep -F -- "$s3_secret" <<<"$output")" "what tells the secret"
	! mounted "$mnt" || { not_ok "mounted"; unmount "$mnt"; }
}

# As an HTTP client that knows nothing of S3 has it.
presigned_query() {
	python3 - "$1" "$s3_access" "$s3_secret" "$s3_port" <<'PY'
import datetime, hashlib, hmac, sys, urllib.parse
path, access, secret, port = sys.argv[1:]
now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
scope = f"{now[:8]}/us-east-1/s3/aws4_request"
query = "&".join(f"{name}={urllib.parse.quote(value, safe='')}" for name, value in sorted({
    "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{access}/{scope}",
    "X-Amz-Date": now, "X-Amz-Expires": "600", "X-Amz-SignedHeaders": "host"}.items()))
request = f"GET\n{path}\n{query}\nhost:127.0.0.1:{port}\n\nhost\nUNSIGNED-PAYLOAD"
text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n" + hashlib.sha256(request.encode()).hexdigest()
key = ("AWS4" + secret).encode()
for part in scope.split("/"):
    key = hmac.new(key, part.encode(), hashlib.sha256).digest()
print(query + "&X-Amz-Signature=" + hmac.new(key, text.encode(), hashlib.sha256).hexdigest())
PY
}

presigned() {
	local query

	query=$(presigned_query /bucket/image.raw)
	(umask 077 && echo "$query" >"$work/query")
	s3_conf "url = http://127.0.0.1:$s3_port/bucket/image.raw" "query_file = query"
	mount_disks "$conf" -o transport=auto
	reads_match "$mnt/base.img"
	no_secret "${query##*Signature=}"
	unmount_disks
}

# The key of a session is one only together with its token, which is signed, too.
session() {
	local options=("url = s3://bucket/image.raw" "$endpoint" "$region" "credentials_file = session")
	local middle

	start_session || return
	credentials session "$session_access" "$session_secret" "$session_token"
	reads_as "${options[@]}"
	s3_conf "${options[@]}"
	mount_disks "$conf" -o transport=auto
	no_secret "$session_secret" "$session_token"
	unmount_disks
	credentials session "$session_access" "$session_secret"
	refused "\[base\] .*403" "${options[@]}"
	credentials session "$session_access" "No$session_secret" "$session_token"
	refused "\[base\] .*403" "${options[@]}"
	middle=${session_token:40:1}
	[ "$middle" = A ] && middle=B || middle=A
	credentials session "$session_access" "$session_secret" \
		"${session_token:0:40}$middle${session_token:41}"
	refused "\[base\] .*40[03]" "${options[@]}"
}

test_case "an object for everybody, without credentials" \
	reads_as "url = s3://bucket/open.raw" "$endpoint" "$region"
test_case "the same as a plain URL" reads_as "url = http://127.0.0.1:$s3_port/bucket/open.raw"
test_case "an URL that was signed before" presigned
test_case "the token of a session" session
test_case "over TLS" reads_as "url = s3://bucket/image.raw" \
	"endpoint = https://127.0.0.1:$s3_tls_port" "$region" "ca_file = ca.pem" \
	"credentials_file = credentials"
# bucket.localhost is a name of this machine, and the gateway knows its own.
test_case "the bucket as a part of the host's name" reads_as "url = s3://bucket/image.raw" \
	"endpoint = https://localhost:$s3_tls_port" "addressing = virtual" "$region" "ca_file = ca.pem" \
	"credentials_file = credentials"
test_case "no credentials" refused "\[base\] .*403" "url = s3://bucket/image.raw" "$endpoint" "$region"
test_case "a wrong secret" refused "\[base\] .*403" "url = s3://bucket/image.raw" "$endpoint" \
	"$region" "credentials_file = wrong_secret"
test_case "an unknown key" refused "\[base\] .*403" "url = s3://bucket/image.raw" "$endpoint" \
	"$region" "credentials_file = stranger"
test_case "no such object" refused "\[base\] .*404" "url = s3://bucket/nothing" "$endpoint" \
	"$region" "credentials_file = credentials"
test_case "no such bucket" refused "\[base\] .*(403|404)" "url = s3://nothing/image.raw" "$endpoint" \
	"$region" "credentials_file = credentials"

# ---- names ---------------------------------------------------------------------------------------

odd_names() {
	local name path

	for name in "a b/c+d&e.raw" "öl/100%25.raw" "=;,'().raw"; do
		path=$(python3 -c 'import sys, urllib.parse
print(urllib.parse.quote(urllib.parse.unquote(sys.argv[1])))' "$name")
		check s3 PUT "/bucket/$path" -T "$work/image.raw"
		reads_as "url = \"s3://bucket/$name\"" "$endpoint" "$region" "credentials_file = credentials"
	done
}

test_case "odd names" odd_names

# ---- changes -------------------------------------------------------------------------------------

# What was sent in parts has an ETag that is no MD5.
in_parts() {
	local id part tags=

	id=$(s3 POST "/bucket/parts.raw?uploads=" -d "" | sed 's|.*<UploadId>\(.*\)</UploadId>.*|\1|')
	for part in 1 2; do
		dd if="$work/image.raw" of="$work/part" bs=24M skip=$((part - 1)) count=1 status=none
		tags+="<Part><PartNumber>$part</PartNumber><ETag>$(s3 PUT \
			"/bucket/parts.raw?partNumber=$part&uploadId=$id" -T "$work/part" -D - -o /dev/null |
			sed -n 's/^etag: *"\(.*\)".*/\1/Ip')</ETag></Part>"
	done
	check s3 POST "/bucket/parts.raw?uploadId=$id" -o /dev/null \
		-d "<CompleteMultipartUpload>$tags</CompleteMultipartUpload>"
	reads_as "url = s3://bucket/parts.raw" "$endpoint" "$region" "credentials_file = credentials"
}

replaced() {
	check s3 PUT /bucket/changing.raw -T "$work/image.raw"
	s3_conf "url = s3://bucket/changing.raw" "$endpoint" "$region" "credentials_file = credentials"
	mount_disks "$conf" -o transport=auto
	check_output 4096 fileop -o rdonly,direct "$mnt/base.img" pread 1M 4096
	cp "$work/image.raw" "$work/changed.raw"
	echo changed | dd of="$work/changed.raw" bs=1M seek=8 conv=notrunc status=none
	check s3 PUT /bucket/changing.raw -T "$work/changed.raw"
	check_output EIO fileop -o rdonly,direct "$mnt/base.img" pread 8M 4096
	check_match 'changed' cat "$work/log"
	unmount_disks
}

test_case "an object that was sent in parts" in_parts
test_case "an object that is replaced is never mixed" replaced
