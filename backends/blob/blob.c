// SPDX-License-Identifier: MIT
/*
 * blob: a read-only disk over an object that a server has: of HTTP, of Azure Blob Storage, or of
 * S3.
 *
 * The object must stay what it is. When the disk is opened, its length is taken down, and what
 * identifies its content (ETag, else Last-Modified); every request asks for that very content, and
 * every response is checked. Where the object has been changed, reads fail from then on, and never
 * show a part of the one and a part of the other.
 *
 * An object whose size is no multiple of the sector size is served without its last, incomplete
 * sector, which no request reaches, only the driver of a format on top of it (disk_tail()); a warning
 * and `.status` say so.
 *
 * The disk's id is made of the object's URL, its length and what identifies its content, so that a
 * cache that is called after it is a cache of just this content. Where the server tells nothing
 * that identifies it, there is no id.
 *
 * Flush and crash: there is nothing to lose.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backends/blob/blob.h"
#include "core/log.h"
#include "core/offload.h"

#define PHYSICAL_SECTOR_SIZE 4096

struct blob_config {
	char *url, *endpoint, *region;
	int addressing;
	char *auth_file, *query_file, *account_key_file, *credentials_file;
	char *ca_file;
	bool verify;
	char *proxy, *proxy_auth_file;
	int http;
	uint64_t max_requests;
	uint64_t connect_timeout, low_speed, low_speed_time, timeout;
	uint64_t retries, retry_delay, retry_delay_max;
	uint64_t readahead;
	uint64_t sector_size;
};

/* ---- Data. ---- */

static int blob_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	const struct blob *blob = disk->state;

	return blob_cache_read(blob->cache, sg, sector << disk_sector_shift(disk));
}

/* The last, incomplete sector. */
static int blob_tail(struct disk *disk, void *data, size_t *length)
{
	const struct blob *blob = disk->state;
	size_t wanted = blob_unreachable_bytes(disk);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, wanted);
	int error = blob_cache_read(blob->cache, &sg, disk_size(disk));

	*length = error ? 0 : wanted;
	return error;
}

/* ---- Opening. ---- */

static int no_memory(struct err *err)
{
	return err_set(err, "%s", strerror(ENOMEM));
}

/* What is known before the server is asked. Blocking. */
static int blob_prepare(struct disk *disk, struct err *err)
{
	const struct blob_config *config = disk->config;
	struct blob *blob = disk->state;
	struct blob_place place = {config->url, config->endpoint, config->region,
				   (enum blob_addressing)config->addressing};
	struct credential_files files = {config->auth_file, config->query_file,
					 config->account_key_file, config->credentials_file,
					 config->proxy_auth_file};

	if (blob_url_make(&blob->url, &place, err) < 0 ||
	    credentials_read(&blob->credentials, &files, blob->url.store, disk->name, err) < 0)
		return -1;
	if (config->proxy && url_has_user(config->proxy))
		return err_set_key(err, "proxy",
				   "there is a user name or a password in it: put them into a "
				   "file, and give that as proxy_auth_file");
	blob->request_url = url_with_query(blob->url.text, blob->credentials.query);
	blob->shown = malloc(strlen(blob->url.text) + 1);
	if (!blob->request_url || !blob->shown)
		return no_memory(err);
	url_redact(blob->shown, strlen(blob->url.text) + 1, blob->url.text);
	if (!url_is_https(blob->url.text) && (blob->credentials.query || config->auth_file))
		log_warning(disk->name,
			    "the password or signature for '%s' is sent unencrypted: use https",
			    blob->shown);
	if (url_is_https(blob->url.text) && !config->verify)
		log_warning(disk->name, "nobody checks that '%s' comes from the right server",
			    blob->shown);
	return 0;
}

struct preparation {
	struct disk *disk;
	struct err *err;
	int result;
};

static void prepare_job(void *argument)
{
	struct preparation *preparation = argument;

	preparation->result = blob_prepare(preparation->disk, preparation->err);
}

static struct client_options client_options_of(struct disk *disk)
{
	const struct blob_config *config = disk->config;
	const struct blob *blob = disk->state;

	return (struct client_options){
		.exchange =
			{
				.store = blob->url.store,
				.url = blob->request_url,
				.account = blob->url.account,
				.region = config->region,
				.credentials = &blob->credentials,
				.ca_file = config->ca_file,
				.proxy = config->proxy,
				.verify = config->verify,
				.http_1 = config->http == 1,
				.connect_timeout_ns = config->connect_timeout,
				.low_speed = config->low_speed,
				.low_speed_time_ns = config->low_speed_time,
			},
		.shown = blob->shown,
		.node = disk->name,
		.max_requests = (unsigned)config->max_requests,
		.retries = (unsigned)config->retries,
		.retry_delay_ns = config->retry_delay,
		.retry_delay_max_ns = config->retry_delay_max,
		.timeout_ns = config->timeout,
	};
}

/* The first bytes of SHA-256 of "URL\nLENGTH\nETAG or date". */
static int set_id(struct disk *disk, struct err *err)
{
	const struct blob *blob = disk->state;
	const struct validator *validator = client_validator(blob->client);
	const char *tag = validator->etag[0] ? validator->etag : validator->last_modified;
	unsigned char digest[EVP_MAX_MD_SIZE];
	char *text;
	int length, done;

	if (!tag[0]) {
		log_warning(disk->name,
			    "'%s' has neither an ETag nor a date: if it is replaced by one of the "
			    "same length, nobody notices",
			    blob->shown);
		return 0;
	}
	length = asprintf(&text, "%s\n%llu\n%s", blob->url.text,
			  (unsigned long long)client_length(blob->client), tag);
	if (length < 0)
		return no_memory(err);
	done = EVP_Digest(text, (size_t)length, digest, NULL, EVP_sha256(), NULL);
	free(text);
	if (done != 1)
		return err_set(err, "there is no SHA-256");
	memcpy(disk->geometry.id, digest, sizeof(disk->geometry.id));
	disk->geometry.has_id = true;
	return 0;
}

static int set_geometry(struct disk *disk, struct err *err)
{
	const struct blob_config *config = disk->config;
	const struct blob *blob = disk->state;
	uint64_t length = client_length(blob->client);

	disk->geometry.sector_size = (uint32_t)config->sector_size;
	disk->geometry.physical_sector_size =
		(uint32_t)max_u64(config->sector_size, PHYSICAL_SECTOR_SIZE);
	disk->geometry.read_only = true;
	disk->geometry.unmap = UNMAP_IGNORED;
	if (length < config->sector_size)
		return err_set_key(err, "url", "'%s' is smaller than one sector of %llu bytes",
				   blob->shown, (unsigned long long)config->sector_size);
	if (length > INT64_MAX)
		return err_set_key(err, "url", "'%s' is too large for a file", blob->shown);
	if (blob_unreachable_bytes(disk) > 0)
		log_warning(disk->name,
			    "the last %llu bytes of '%s' are no whole sector and cannot be reached",
			    (unsigned long long)blob_unreachable_bytes(disk), blob->shown);
	return set_id(disk, err);
}

static int open_cache(struct disk *disk, struct err *err)
{
	const struct blob_config *config = disk->config;
	struct blob *blob = disk->state;
	struct blob_cache_source source = {
		.client = blob->client,
		.fetch = blob_fetch,
		.size = client_length(blob->client),
		.requests_max = (unsigned)config->max_requests,
		.readahead_max = config->readahead,
	};

	blob->cache = blob_cache_open(&source);
	return blob->cache ? 0 : no_memory(err);
}

static int blob_open(struct disk *disk, struct err *err)
{
	struct blob *blob = disk->state;
	struct preparation preparation = {.disk = disk, .err = err};
	struct client_options options;

	offload(prepare_job, &preparation);
	if (preparation.result < 0)
		return -1;
	options = client_options_of(disk);
	blob->client = client_open(&options, err);
	if (!blob->client || set_geometry(disk, err) < 0 || open_cache(disk, err) < 0)
		return -1;
	disk_set_sector_count(disk, client_length(blob->client) / disk_sector_size(disk));
	return 0;
}

static void blob_close(struct disk *disk)
{
	struct blob *blob = disk->state;

	/* What is being read ahead is wanted no more. */
	if (blob->client)
		client_abort(blob->client);
	blob_cache_close(blob->cache);
	client_close(blob->client);
	credentials_destroy(&blob->credentials);
	blob_url_free(&blob->url);
	if (blob->request_url)
		OPENSSL_cleanse(blob->request_url, strlen(blob->request_url));
	free(blob->request_url);
	free(blob->shown);
	*blob = (struct blob){.client = NULL};
}

/* ---- Options. ---- */

#define FIELD(member) offsetof(struct blob_config, member)

static const char *const addressings[] = {"auto", "path", "virtual", NULL};
static const char *const http_versions[] = {"auto", "1.1", NULL};

static const struct option blob_options[] = {
	{.name = "url",
	 .type = OPTION_STRING,
	 .offset = FIELD(url),
	 .flags = OPTION_REQUIRED,
	 .help = "The object: http://..., https://..., azure://ACCOUNT/CONTAINER/BLOB or "
		 "s3://BUCKET/KEY"},
	{.name = "endpoint",
	 .type = OPTION_STRING,
	 .offset = FIELD(endpoint),
	 .help = "Where the store of azure:// or s3:// is, as http(s)://HOST[:PORT][/PATH]. The "
		 "defaults are those of Microsoft and Amazon"},
	{.name = "region",
	 .type = OPTION_STRING,
	 .offset = FIELD(region),
	 .fallback = "us-east-1",
	 .help = "S3: the region that requests are signed for"},
	{.name = "addressing",
	 .type = OPTION_ENUM,
	 .offset = FIELD(addressing),
	 .choices = addressings,
	 .fallback = "auto",
	 .help = "S3: the bucket is a part of the path, or of the host's name (virtual). auto is "
		 "path where an endpoint is given, or the bucket's name contains a dot"},
	{.name = "auth_file",
	 .type = OPTION_PATH,
	 .offset = FIELD(auth_file),
	 .help = "http and https: a file whose first line is user:password, for basic "
		 "authentication"},
	{.name = "query_file",
	 .type = OPTION_PATH,
	 .offset = FIELD(query_file),
	 .help = "A file whose first line is added to the URL as its query: a SAS token of Azure, "
		 "or another signature"},
	{.name = "account_key_file",
	 .type = OPTION_PATH,
	 .offset = FIELD(account_key_file),
	 .help = "Azure: a file with the shared key of the account, in base64"},
	{.name = "credentials_file",
	 .type = OPTION_PATH,
	 .offset = FIELD(credentials_file),
	 .help = "S3: a file with lines aws_access_key_id = ..., aws_secret_access_key = ... and "
		 "perhaps aws_session_token = ..."},
	{.name = "ca_file",
	 .type = OPTION_PATH,
	 .offset = FIELD(ca_file),
	 .help = "Certificates of authorities (PEM) that are trusted instead of the system's"},
	{.name = "verify",
	 .type = OPTION_BOOL,
	 .offset = FIELD(verify),
	 .fallback = "yes",
	 .help = "Check that the server is who it should be; without, anybody on the way can read "
		 "and change everything"},
	{.name = "proxy",
	 .type = OPTION_STRING,
	 .offset = FIELD(proxy),
	 .help = "A proxy, as http://HOST:PORT, https://, socks5:// or socks5h://. What the "
		 "environment says of proxies does not matter"},
	{.name = "proxy_auth_file",
	 .type = OPTION_PATH,
	 .offset = FIELD(proxy_auth_file),
	 .help = "A file whose first line is user:password for the proxy"},
	{.name = "http",
	 .type = OPTION_ENUM,
	 .offset = FIELD(http),
	 .choices = http_versions,
	 .fallback = "auto",
	 .help = "auto is HTTP/2, all requests on one connection, where the server has it with "
		 "https; else HTTP/1.1, a connection for each request under way"},
	{.name = "max_requests",
	 .type = OPTION_U64,
	 .offset = FIELD(max_requests),
	 .min = 1,
	 .max = 1024,
	 .fallback = "64",
	 .help = "The most requests under way at the same time; others wait for their turn"},
	{.name = "connect_timeout",
	 .type = OPTION_DURATION,
	 .offset = FIELD(connect_timeout),
	 .min = NS_PER_S / 1000,
	 .max = 3600 * NS_PER_S,
	 .fallback = "10s",
	 .help = "How long a connection may take to be made, encryption included"},
	{.name = "low_speed",
	 .type = OPTION_SIZE,
	 .offset = FIELD(low_speed),
	 .max = GIB,
	 .fallback = "256",
	 .help = "A request that gets less than these bytes a second, for low_speed_time, is "
		 "given up and tried again. 0: it may be as slow as it likes"},
	{.name = "low_speed_time",
	 .type = OPTION_DURATION,
	 .offset = FIELD(low_speed_time),
	 .min = NS_PER_S,
	 .max = 3600 * NS_PER_S,
	 .fallback = "15s",
	 .help = "See low_speed; in whole seconds"},
	{.name = "timeout",
	 .type = OPTION_DURATION,
	 .offset = FIELD(timeout),
	 .min = NS_PER_S / 1000,
	 .max = 24 * 3600 * NS_PER_S,
	 .fallback = "120s",
	 .help = "How long a read may take in all, with every wait and every try, until it fails"},
	{.name = "retries",
	 .type = OPTION_U64,
	 .offset = FIELD(retries),
	 .max = 1000,
	 .fallback = "8",
	 .help = "How often a request is tried again that failed for the moment (no connection, a "
		 "broken one, too slow, status 408, 429 or 5xx)"},
	{.name = "retry_delay",
	 .type = OPTION_DURATION,
	 .offset = FIELD(retry_delay),
	 .max = 3600 * NS_PER_S,
	 .fallback = "200ms",
	 .help = "The longest wait before the first of these; it doubles with each. The wait is "
		 "random, from 0 on, or what the server asks for"},
	{.name = "retry_delay_max",
	 .type = OPTION_DURATION,
	 .offset = FIELD(retry_delay_max),
	 .max = 3600 * NS_PER_S,
	 .fallback = "10s",
	 .help = "The most that it doubles to"},
	{.name = "readahead",
	 .type = OPTION_SIZE,
	 .offset = FIELD(readahead),
	 .max = GIB,
	 .fallback = "32M",
	 .help = "The most that is read ahead of one sequential reader; an eighth of the mount's "
		 "cache_memory is the limit in any case. 0: nothing"},
	{.name = "sector_size",
	 .type = OPTION_SIZE,
	 .offset = FIELD(sector_size),
	 .flags = OPTION_POWER_OF_TWO,
	 .min = 512,
	 .max = GEOMETRY_SECTOR_MAX,
	 .fallback = "512",
	 .help = "Logical sector size in bytes. An incomplete sector at the end of the object "
		 "cannot "
		 "be reached"},
	{.name = NULL},
};

const struct driver blob_driver = {
	.name = "blob",
	.summary = "a remote object, read-only: HTTP(S), Azure Blob, S3",
	.options = blob_options,
	.config_size = sizeof(struct blob_config),
	.state_size = sizeof(struct blob),
	.open = blob_open,
	.close = blob_close,
	.read = blob_read,
	.tail = blob_tail,
	.inspect = blob_inspect,
	.metrics = blob_metrics,
};
