# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# A Ceph cluster in $work/ceph, with an object gateway that speaks S3 at $s3_port: one monitor, one
# OSD in memory, no manager. After lib.sh.

s3_access=AKTESTACCESS s3_secret=TheSecretOfTheTests

# A key as Ceph has them: type, time, length, 16 bytes.
ceph_key() {
	python3 - "$1" <<'PY'
import base64, hashlib, struct, sys
print(base64.b64encode(struct.pack("<hiih", 1, 1700000000, 0, 16)
                       + hashlib.md5(sys.argv[1].encode()).digest()).decode())
PY
}

# keyring NAME CAPABILITIES...: one entry of a keyring.
keyring() {
	echo "[$1]"
	echo "key = $(ceph_key "$1")"
	shift
	printf 'caps %s\n' "$@"
}

# The short intervals of paxos are what makes it start in two seconds instead of ten: each new pool
# waits for several of them.
ceph_conf() {
	cat <<-EOT
		[global]
		fsid = 6c7a1c4e-52b0-4a5e-9e0a-3d3f1d1f0001
		mon_host = v2:127.0.0.1:$1
		public_network = 127.0.0.0/8
		public_addr = 127.0.0.1
		cluster_addr = 127.0.0.1
		ms_bind_ipv6 = false
		auth_cluster_required = cephx
		auth_service_required = cephx
		auth_client_required = cephx
		run_dir = $ceph
		pid_file = $ceph/\$type.pid
		admin_socket = $ceph/\$type.\$pid.asok
		crash_dir = $ceph
		log_file = $ceph/\$type.log
		keyring = $ceph/admin.keyring
		mon_data = $ceph/mon
		mon_allow_pool_size_one = true
		mon_max_pg_per_osd = 1000
		paxos_propose_interval = 0.02
		paxos_min_wait = 0.01
		osd_data = $ceph/osd
		osd_objectstore = memstore
		memstore_device_bytes = 1G
		osd_memory_target = 939524096
		osd_pool_default_size = 1
		osd_pool_default_min_size = 1
		osd_pool_default_pg_num = 1
		osd_pool_default_pgp_num = 1
		osd_pool_default_pg_autoscale_mode = off
		osd_crush_chooseleaf_type = 0
		[osd]
		keyring = $ceph/osd.keyring
		[client.rgw]
		keyring = $ceph/rgw.keyring
		rgw_dns_name = localhost
		rgw_s3_auth_use_sts = true
		rgw_sts_key = sixteen.letters.
	EOT
}

start_cluster() {
	local mon_port=$1 osd=6c7a1c4e-52b0-4a5e-9e0a-3d3f1d1f0002

	ceph_conf "$mon_port" >"$CEPH_CONF"
	keyring client.admin 'mon = "allow *"' 'osd = "allow *"' >"$ceph/admin.keyring"
	keyring client.rgw 'mon = "allow rwx"' 'osd = "allow rwx"' >"$ceph/rgw.keyring"
	keyring osd.0 'mon = "allow profile osd"' 'osd = "allow *"' >"$ceph/osd.keyring"
	{
		keyring mon. 'mon = "allow *"'
		cat "$ceph"/{admin,rgw,osd}.keyring
	} >"$ceph/first.keyring"
	cleanup_fn end_by_file "$ceph/mon.pid"
	cleanup_fn end_by_file "$ceph/osd.pid"
	monmaptool --create --fsid 6c7a1c4e-52b0-4a5e-9e0a-3d3f1d1f0001 \
		--addv a "[v2:127.0.0.1:$mon_port]" "$ceph/monmap" &&
		ceph-mon -i a --mkfs --monmap "$ceph/monmap" --keyring "$ceph/first.keyring" &&
		ceph-mon -i a && timeout 30 ceph osd new $osd &&
		ceph-osd -i 0 --mkfs --osd-uuid $osd && ceph-osd -i 0
}

# A gateway refuses to start by messages alone; a user is made first, which also makes the pools.
start_gateway() {
	timeout 60 radosgw-admin user create --uid=tests --display-name=tests \
		--access-key="$s3_access" --secret-key="$s3_secret" || return
	start_server "$ceph/gateway.log" radosgw -f -n client.rgw \
		--rgw-frontends="beast endpoint=127.0.0.1:$1 tcp_nodelay=1 ssl_endpoint=127.0.0.1:$2 \
ssl_certificate=$work/leaf.pem ssl_private_key=$work/leaf.key"
}

# start_ceph: $s3_port speaks http, $s3_tls_port https with leaf.pem and leaf.key of $work.
start_ceph() {
	local mon_port

	ceph=$work/ceph
	mkdir -p "$ceph/mon" "$ceph/osd"
	export CEPH_CONF=$ceph/ceph.conf
	read -r mon_port s3_port s3_tls_port <<<"$(free_ports 3)"
	if ! start_cluster "$mon_port" >"$ceph/start.log" 2>&1 ||
		! start_gateway "$s3_port" "$s3_tls_port" >>"$ceph/start.log" 2>&1; then
		echo "# Ceph does not start:"
		tail -n 20 "$ceph/start.log" | sed 's/^/#   /'
		return 1
	fi
	server_is_up "$ceph/gateway.log" 60 "http://127.0.0.1:$s3_port/"
}

# s3 METHOD PATH [CURL'S ARGUMENTS...]: a signed request, which has to succeed.
s3() {
	local method=$1 path=$2

	shift 2
	curl -sS --fail -X "$method" --aws-sigv4 aws:amz:us-east-1:s3 -u "$s3_access:$s3_secret" \
		-H "x-amz-content-sha256: UNSIGNED-PAYLOAD" "$@" "http://127.0.0.1:$s3_port$path"
}

# start_session: of the role "reader", which may read what is not everybody's; $session_access,
# $session_secret, $session_token.
start_session() {
	local allow='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", ' answer

	answer=$(timeout 60 radosgw-admin role create --role-name=reader --assume-role-policy-doc="$allow
		\"Principal\": {\"AWS\": [\"arn:aws:iam:::user/tests\"]}, \"Action\": [\"sts:AssumeRole\"]}]}" \
		2>&1 && timeout 60 radosgw-admin role-policy put --role-name=reader --policy-name=read \
		--policy-doc="$allow \"Action\": [\"s3:GetObject\"], \"Resource\": \"*\"}]}" 2>&1 &&
		curl -sS --aws-sigv4 aws:amz:us-east-1:sts -u "$s3_access:$s3_secret" \
			-d "Action=AssumeRole&RoleArn=arn:aws:iam:::role/reader&RoleSessionName=tests" \
			-d "Version=2011-06-15" "http://127.0.0.1:$s3_port/" 2>&1)
	session_access=$(session_value AccessKeyId)
	session_secret=$(session_value SecretAccessKey)
	session_token=$(session_value SessionToken)
	[ "$session_token" ] || not_ok "no session: $answer"
}

# session_value NAME: of start_session's $answer.
session_value() {
	sed -n "s|.*<$1>\(.*\)</$1>.*|\1|p" <<<"$answer"
}
