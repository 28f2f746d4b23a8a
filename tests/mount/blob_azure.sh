#!/bin/bash
# SPDX-License-Identifier: MIT
# Remote disks in Azure Blob storage, as far as the emulator Azurite is like it: block and page blobs,
# anonymous, by shared access signatures, by the account's key.
#
# Not to be learned here: Azurite answers If-Range and ranges behind the end otherwise than the
# service, and takes any version of its interface.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/blob/lib.sh"
requires python3 curl openssl mkfs.ext4 node
requires_fuse

azurite_version=3.35.0
azurite=${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/diskfs/azurite-$azurite_version
azurite=$azurite/node_modules/.bin/azurite-blob
[ -x "$azurite" ] || skip_all "Azurite is not installed: scripts/setup --test gets it from npm's registry"

account=testaccount
key=$(printf 'The key of the account of tests' | base64)
(umask 077 && echo "$key" >"$work/key" && printf 'Not the key' | base64 >"$work/wrong_key")
read -r port tls_port <<<"$(free_ports 2)"
endpoint=http://127.0.0.1:$port/$account

# start_azurite PORT LOG ARGUMENT...: keeps what it holds in memory.
start_azurite() {
	local port=$1 log=$2

	shift 2
	AZURITE_ACCOUNTS="$account:$key" start_server "$log" "$azurite" --blobHost 127.0.0.1 \
		--blobPort "$port" --inMemoryPersistence --disableTelemetry --blobKeepAliveTimeout 1 "$@"
}

azure() {
	python3 "$blob_folder/azure.py" "$endpoint" "$account" "$key" "$@"
}

# secret_file NAME TEXT
secret_file() {
	(umask 077 && echo "$2" >"$work/$1")
}

start_azurite "$port" "$work/azurite.log"
make_image
server_is_up "$work/azurite.log" 60 "http://127.0.0.1:$port/" || exit 1
azure container public public && azure container private &&
	azure block public/image.raw "$work/image.raw" &&
	azure page private/image.raw "$work/image.raw" || exit 1
sas=$(azure sas private/image.raw 600)
secret_file sas "$sas"
secret_file expired "$(azure sas private/image.raw -60)"
secret_file write_only "$(azure sas private/image.raw 600 w)"
secret_file broken "${sas%????????}AAAA%3D"

# ---- the whole of it -----------------------------------------------------------------------------

layers_conf "url = azure://$account/public/image.raw
endpoint = $endpoint"
all_uses "a public block blob"
layers_conf "url = azure://$account/private/image.raw
endpoint = $endpoint
account_key_file = key"
all_uses "a page blob, by the account's key"

# ---- who may read --------------------------------------------------------------------------------

private_conf() {
	{
		printf '[diskfs]\ncache = none\n[base]\ndriver = blob\n'
		printf 'url = azure://%s/private/%s\nendpoint = %s\n' $account "${blob:-image.raw}" "$endpoint"
		printf '%s\n' "$@"
	} | config
}

by_signature() {
	private_conf "query_file = sas"
	mount_disks "$conf" -o transport=auto
	is_the_image "$mnt/base.img"
	no_secret "$sas" "${sas##*sig=}" "$key"
	unmount_disks
}

by_key() {
	private_conf "account_key_file = key"
	mount_disks "$conf" -o transport=auto
	reads_match "$mnt/base.img"
	no_secret "$key" SharedKey
	unmount_disks
}

# As a plain URL of the web, with the signature in a file.
by_url() {
	config <<-EOT
		[base]
		driver = blob
		url = $endpoint/private/image.raw
		query_file = sas
	EOT
	mount_disks "$conf" -o transport=auto
	reads_match "$mnt/base.img"
	no_secret "${sas##*sig=}"
	unmount_disks
}

# refused REGEX OPTION...
refused() {
	local wanted=$1 output

	shift
	private_conf "$@"
	output=$(timeout 60 "$BUILD/diskfs" "$conf" "$mnt" 2>&1)
	grep -Eq -- "$wanted" <<<"$output" || not_ok "'$output' does not match '$wanted'"
	check_equal "" "$(grep -F -- "${sas##*sig=}" <<<"$output")" "what tells the signature"
	! mounted "$mnt" || { not_ok "mounted"; unmount "$mnt"; }
}

test_case "a shared access signature" by_signature
test_case "the account's key" by_key
test_case "a signature behind a plain URL" by_url
test_case "anonymous, where that is not allowed" refused "\[base\] .*(403|404|409)"
test_case "a signature that has expired" refused "\[base\] .*403" "query_file = expired"
test_case "a signature for writing only" refused "\[base\] .*403" "query_file = write_only"
test_case "a signature that was tampered with" refused "\[base\] .*403" "query_file = broken"
test_case "a wrong key" refused "\[base\] .*403" "account_key_file = wrong_key"
blob=nothing.raw
test_case "a blob that is not there" refused "\[base\] .*404" "account_key_file = key"
unset blob

# ---- the service's own names ---------------------------------------------------------------------

# Without an endpoint the account is in the host's name, and not in the path, which is a part of what is
# signed. On the way to that host is a proxy; what it says is the host is Azurite, with TLS in front,
# which takes the account from there, too.
own_names_conf() {
	config <<-EOT
		[diskfs]
		cache = none
		[base]
		driver = blob
		url = azure://$account/$1
		ca_file = ca.pem
		proxy = http://127.0.0.1:$relay_port
		proxy_auth_file = proxy_auth
		${2:-}
	EOT
}

own_names() {
	local what

	make_ca ca && make_certificate own ca "DNS:$account.blob.core.windows.net" &&
		start_relay tls "$work/own.pem" "$work/own.key" "$port" &&
		start_relay connect me:hush "$relay_port" || { not_ok "no relay"; return; }
	secret_file proxy_auth me:hush
	for what in public/image.raw "private/image.raw account_key_file=key" \
		"private/image.raw query_file=sas"; do
		# shellcheck disable=SC2086 # two words
		own_names_conf $what
		mount_disks "$conf" -o transport=auto
		reads_match "$mnt/base.img"
		no_secret "$key" "${sas##*sig=}" SharedKey
		unmount_disks
	done
	check_match "^CONNECT $account.blob.core.windows.net:443 " cat "$work/relay"
	for what in private/image.raw "private/image.raw account_key_file=wrong_key" \
		"private/image.raw query_file=broken" "private/image.raw query_file=expired"; do
		# shellcheck disable=SC2086
		own_names_conf $what
		check_match "\[base\] .*https://$account.blob.core.windows.net/private/image.raw.*(403|404|409)" \
			timeout 60 "$BUILD/diskfs" "$conf" "$mnt"
		! mounted "$mnt" || { not_ok "mounted"; unmount "$mnt"; }
	done
}

test_case "the service's own host names" own_names

# ---- names ---------------------------------------------------------------------------------------

# Escaped once, signed as it was sent.
odd_names() {
	local name

	for name in "a b/c+d&e.raw" "100%25/öl.raw"; do
		azure block "private/$(python3 -c 'import sys, urllib.parse
print(urllib.parse.quote(urllib.parse.unquote(sys.argv[1])))' "$name")" "$work/image.raw" || return
		blob=$name
		private_conf "account_key_file = key"
		mount_disks "$conf" -o transport=auto
		reads_match "$mnt/base.img"
		unmount_disks
	done
	unset blob
}

test_case "odd names" odd_names

# ---- changes -------------------------------------------------------------------------------------

replaced() {
	azure block private/changing.raw "$work/image.raw"
	blob=changing.raw
	private_conf "account_key_file = key"
	unset blob
	mount_disks "$conf" -o transport=auto
	check_output 4096 fileop -o rdonly,direct "$mnt/base.img" pread 1M 4096
	check azure block private/changing.raw "$work/image.raw"
	check_output EIO fileop -o rdonly,direct "$mnt/base.img" pread 8M 4096
	check_match 'changed' cat "$work/log"
	unmount_disks
}

# It closes connections that were idle for a second.
idle_connection() {
	private_conf "account_key_file = key"
	mount_disks "$conf" -o transport=auto
	check cmp -n 65536 "$work/image.raw" "$mnt/base.img"
	sleep 2
	reads_match "$mnt/base.img"
	unmount_disks
}

test_case "a blob that is replaced is never mixed" replaced
test_case "a connection that the server has closed meanwhile" idle_connection

# ---- TLS -----------------------------------------------------------------------------------------

with_tls() {
	local old_endpoint=$endpoint

	make_ca ca && make_certificate leaf ca DNS:localhost,IP:127.0.0.1 || return
	start_azurite "$tls_port" "$work/azurite-tls.log" --cert "$work/leaf.pem" --key "$work/leaf.key"
	server_is_up "$work/azurite-tls.log" 60 "https://127.0.0.1:$tls_port/" --cacert "$work/ca.pem" ||
		not_ok "no server"
	endpoint=https://127.0.0.1:$tls_port/$account
	refused "\[base\] .*certificate" "account_key_file = key"
	# There is nothing in this one, but that it says so is a signed request over TLS.
	refused "\[base\] .*404" "account_key_file = key" "ca_file = ca.pem"
	endpoint=$old_endpoint
}

test_case "TLS" with_tls
