// SPDX-License-Identifier: MIT
/*
 * The head of the response is taken in line by line; with the first byte of the body it has to be
 * that of an honest answer (response.h), else nothing lands. So the bytes that have landed are the
 * right ones even if the connection breaks after them, and need not come again.
 *
 * Nothing is left to libcurl that it does for everybody: it does not follow redirects (the client
 * does, who knows what may be sent where), decode content, or look into the environment or
 * ~/.netrc.
 *
 * Credentials go to the object's own origin only.
 */
#include "backends/blob/exchange.h"
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backends/blob/sign.h"

/* What an error says in its body is not read, but taken, as far as this, so that the connection can
 * be used again. */
#define DRAIN_MAX     ((uint64_t)64 * 1024)

#define AZURE_VERSION "2020-10-02"

/* SHA-256 of nothing: the body of a GET. */
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

#define NS_PER_MS    (NS_PER_S / 1000)

/* ---- The response. ---- */

/* libcurl's own idea of where a redirect leads to would contain the user and password that it was
 * given. */
static void take_location(struct exchange *exchange, const char *line, size_t length)
{
	const char *value = response_find_value(line, &length, "Location");
	char *text = value ? strndup(value, length) : NULL;

	if (!text)
		return;
	free(exchange->redirect);
	exchange->redirect = url_resolve(exchange->url, text);
	free(text);
}

static size_t on_head(char *line, size_t size, size_t count, void *argument)
{
	struct exchange *exchange = argument;
	size_t length = size * count;

	if (exchange->body_begun) { /* a trailer, of which nothing is expected */
		exchange->response.head_bytes += length;
		if (exchange->response.head_bytes <= HEAD_MAX)
			return length;
	} else if (response_take_line(&exchange->response, line, length)) {
		take_location(exchange, line, length);
		return length;
	}
	exchange->why = "the head of the response is too long";
	return length + 1;
}

/* With the first byte of the body, or at the end where there is none. */
static bool check_head(struct exchange *exchange)
{
	const struct response *response = &exchange->response;

	exchange->body_begun = true;
	if (response->status == 200 || response->status == 206)
		exchange->why =
			response_refuse(response, &exchange->expected, &exchange->has_changed);
	return !exchange->why;
}

static bool is_success(const struct exchange *exchange)
{
	return exchange->response.status == 200 || exchange->response.status == 206;
}

static size_t on_body(char *data, size_t size, size_t count, void *argument)
{
	struct exchange *exchange = argument;
	size_t length = size * count;
	struct sg part;

	if (!exchange->body_begun && !check_head(exchange))
		return length + 1;
	if (!is_success(exchange)) {
		exchange->drained += length;
		return exchange->drained <= DRAIN_MAX ? length : length + 1;
	}
	if (length > exchange->rest.len) {
		exchange->why = "its body is longer than the range";
		return length + 1;
	}
	part = sg_take(&exchange->rest, length);
	sg_copy_from(&part, data);
	return length;
}

/* ---- The request. ---- */

static bool add_header(struct exchange *exchange, const char *name, const char *value)
{
	struct curl_slist *list;
	char *line;
	bool added = false;

	if (!value || !value[0])
		return true;
	if (asprintf(&line, "%s: %s", name, value) < 0)
		return false;
	list = curl_slist_append(exchange->headers, line);
	if (list) {
		exchange->headers = list;
		added = true;
	}
	OPENSSL_cleanse(line, strlen(line));
	free(line);
	return added;
}

/* The headers by which the object has to be what it was. */
static void condition(const struct exchange *exchange, const char **if_match,
		      const char **if_unmodified_since)
{
	const struct validator *validator = exchange->expected.validator;

	*if_match = *if_unmodified_since = NULL;
	if (!validator)
		return;
	if (validator_is_strong(validator))
		*if_match = validator->etag;
	else if (validator->last_modified[0])
		*if_unmodified_since = validator->last_modified;
}

static bool sign_azure(struct exchange *exchange, struct azure_request *request)
{
	const struct credentials *credentials = exchange->options->credentials;
	char signature[AZURE_SIGNATURE_SIZE], value[AZURE_SIGNATURE_SIZE + 160];
	char *text = azure_string_to_sign(request);
	bool is_signed = text && azure_sign(signature, text, credentials->account_key,
					    credentials->account_key_length);

	free(text);
	if (!is_signed)
		return false;
	snprintf(value, sizeof(value), "SharedKey %s:%s", request->account, signature);
	return add_header(exchange, "Authorization", value);
}

/* The headers of Azure; all others that are signed have been added. */
static bool add_azure(struct exchange *exchange, const char *range, bool with_credentials)
{
	struct azure_request request = {
		.account = exchange->options->account,
		.url = exchange->url,
		.range = range,
		.version = AZURE_VERSION,
	};
	time_t now = time(NULL);
	struct tm tm;
	char date[40];

	condition(exchange, &request.if_match, &request.if_unmodified_since);
	gmtime_r(&now, &tm);
	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	request.date = date;
	if (!add_header(exchange, "x-ms-date", date) ||
	    !add_header(exchange, "x-ms-version", AZURE_VERSION))
		return false;
	if (!with_credentials || !exchange->options->credentials->account_key)
		return true;
	return sign_azure(exchange, &request);
}

static bool add_headers(struct exchange *exchange, const char *range, bool with_credentials)
{
	const struct exchange_options *options = exchange->options;
	const char *if_match, *if_unmodified_since;

	condition(exchange, &if_match, &if_unmodified_since);
	if (!add_header(exchange, "Range", range) || !add_header(exchange, "If-Match", if_match) ||
	    !add_header(exchange, "If-Unmodified-Since", if_unmodified_since))
		return false;
	if (options->store == BLOB_AZURE)
		return add_azure(exchange, range, with_credentials);
	/* Of S3, what is sent is signed, and proxies are known to change this one. */
	if (options->store != BLOB_S3)
		return add_header(exchange, "Accept-Encoding", "identity");
	if (!with_credentials || !options->credentials->user)
		return true;
	return add_header(exchange, "x-amz-content-sha256", EMPTY_SHA256) &&
	       add_header(exchange, "x-amz-security-token", options->credentials->session_token);
}

#define SET(option, value)                                               \
	do {                                                             \
		CURLcode set_ = curl_easy_setopt(handle, option, value); \
		if (set_ != CURLE_OK)                                    \
			return set_;                                     \
	} while (0)

static CURLcode set_credentials(const struct exchange *exchange, CURL *handle)
{
	const struct exchange_options *options = exchange->options;
	char provider[128];

	if (!options->credentials->user)
		return CURLE_OK;
	SET(CURLOPT_USERNAME, options->credentials->user);
	SET(CURLOPT_PASSWORD, options->credentials->password);
	if (options->store == BLOB_S3) {
		snprintf(provider, sizeof(provider), "aws:amz:%s:s3", options->region);
		SET(CURLOPT_AWS_SIGV4, provider);
	} else {
		SET(CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
	}
	return CURLE_OK;
}

static CURLcode set_network(const struct exchange *exchange, CURL *handle)
{
	const struct exchange_options *options = exchange->options;

	SET(CURLOPT_HTTP_VERSION,
	    options->http_1 ? (long)CURL_HTTP_VERSION_1_1 : (long)CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_PIPEWAIT, options->http_1 ? 0L : 1L);
	SET(CURLOPT_SSL_VERIFYPEER, options->verify ? 1L : 0L);
	SET(CURLOPT_SSL_VERIFYHOST, options->verify ? 2L : 0L);
	if (options->ca_file) {
		SET(CURLOPT_CAINFO, options->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	/* Not what the environment says. */
	SET(CURLOPT_PROXY, options->proxy ? options->proxy : "");
	SET(CURLOPT_NOPROXY, "");
	/* What a proxy says for itself is no response. */
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	if (options->proxy && options->credentials->proxy_user) {
		SET(CURLOPT_PROXYUSERNAME, options->credentials->proxy_user);
		SET(CURLOPT_PROXYPASSWORD, options->credentials->proxy_password);
	}
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_FRESH_CONNECT, exchange->fresh ? 1L : 0L);
	if (exchange->age_max_ns > 0)
		SET(CURLOPT_MAXLIFETIME_CONN, (long)max_u64(exchange->age_max_ns / NS_PER_S, 1));
	return CURLE_OK;
}

static CURLcode set_timeouts(const struct exchange *exchange, CURL *handle)
{
	const struct exchange_options *options = exchange->options;
	uint64_t stall_s = (options->low_speed_time_ns + NS_PER_S - 1) / NS_PER_S;
	uint64_t now = now_ns();
	uint64_t left_ns = exchange->deadline_ns > now ? exchange->deadline_ns - now : 0;

	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)(options->connect_timeout_ns / NS_PER_MS));
	SET(CURLOPT_LOW_SPEED_LIMIT, (long)options->low_speed);
	SET(CURLOPT_LOW_SPEED_TIME, (long)stall_s);
	SET(CURLOPT_TIMEOUT_MS, (long)max_u64(left_ns / NS_PER_MS, 1));
	return CURLE_OK;
}

static CURLcode set_callbacks(struct exchange *exchange, CURL *handle)
{
	/* Of libcurl's, for what it receives: not larger than what comes. */
	long buffer = (long)min_u64(max_u64(exchange->rest.len, 16 * KIB), 256 * KIB);

	SET(CURLOPT_BUFFERSIZE, buffer);
	SET(CURLOPT_HEADERFUNCTION, on_head);
	SET(CURLOPT_HEADERDATA, exchange);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, exchange);
	SET(CURLOPT_ERRORBUFFER, exchange->error);
	return CURLE_OK;
}

static CURLcode on_prepare(struct transfer *transfer, CURL *handle)
{
	struct exchange *exchange = CONTAINER_OF(transfer, struct exchange, transfer);
	bool with_credentials = url_same_origin(exchange->options->url, exchange->url);
	char range[64];

	snprintf(range, sizeof(range), "bytes=%llu-%llu",
		 (unsigned long long)exchange->expected.first,
		 (unsigned long long)exchange->expected.last);
	if (!add_headers(exchange, range, with_credentials))
		return CURLE_OUT_OF_MEMORY;
	SET(CURLOPT_URL, exchange->url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_HTTPHEADER, exchange->headers);
	SET(CURLOPT_USERAGENT, "diskfs/" DISKFS_VERSION);
	SET(CURLOPT_HTTP_CONTENT_DECODING, 0L);
	if (with_credentials) {
		CURLcode result = set_credentials(exchange, handle);

		if (result != CURLE_OK)
			return result;
	}
	CURLcode result = set_network(exchange, handle);

	if (result == CURLE_OK)
		result = set_timeouts(exchange, handle);
	return result == CURLE_OK ? set_callbacks(exchange, handle) : result;
}

/* ---- The outcome. ---- */

/* Whether libcurl would fail in the same way again. */
static bool is_final(CURLcode result)
{
	switch ((int)result) {
	case CURLE_URL_MALFORMAT:
	case CURLE_NOT_BUILT_IN:
	case CURLE_OUT_OF_MEMORY:
	case CURLE_ABORTED_BY_CALLBACK:
	case CURLE_BAD_FUNCTION_ARGUMENT:
	case CURLE_UNKNOWN_OPTION:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_ENGINE_NOTFOUND:
	case CURLE_SSL_ENGINE_SETFAILED:
	case CURLE_SSL_ENGINE_INITFAILED:
		return true;
	default:
		return false;
	}
}

/* The response is there, and libcurl content with it. */
static enum exchange_outcome judge_response(struct exchange *exchange)
{
	unsigned status = exchange->response.status;

	if (is_success(exchange)) {
		exchange->why = "its body is shorter than the range";
		return exchange->rest.len > 0 ? EXCHANGE_AGAIN : EXCHANGE_DONE;
	}
	if (status == 412) {
		exchange->why = "the object has been changed";
		return EXCHANGE_CHANGED;
	}
	if (status_is_redirect(status)) {
		exchange->why = "the redirect is malformed";
		return exchange->redirect ? EXCHANGE_REDIRECT : EXCHANGE_REFUSED;
	}
	exchange->why = "the server refuses";
	return status_is_temporary(status) ? EXCHANGE_AGAIN : EXCHANGE_REFUSED;
}

static enum exchange_outcome judge(struct exchange *exchange)
{
	CURLcode result = exchange->result;

	if (result == CURLE_OK && !exchange->body_begun)
		check_head(exchange);
	if (exchange->has_changed)
		return EXCHANGE_CHANGED;
	if (exchange->why) /* ours */
		return EXCHANGE_REFUSED;
	/* All has come, whatever became of the connection behind it. */
	if (exchange->body_begun && is_success(exchange) && exchange->rest.len == 0)
		return EXCHANGE_DONE;
	/* An error's body that was too long, or broke off, makes no difference to the error. */
	if (result == CURLE_OK || (exchange->body_begun && !is_success(exchange)))
		return judge_response(exchange);
	exchange->why = exchange->error[0] ? exchange->error : curl_easy_strerror(result);
	return is_final(result) || exchange->proxy_refuses ? EXCHANGE_REFUSED : EXCHANGE_AGAIN;
}

/* Whether a proxy does not let us through to the server, and would not the next time. */
static bool proxy_refuses(CURL *handle)
{
	long status = 0;

	curl_easy_getinfo(handle, CURLINFO_HTTP_CONNECTCODE, &status);
	return status >= 400 && !status_is_temporary((unsigned)status);
}

static void on_finish(struct transfer *transfer, CURL *handle, CURLcode result)
{
	struct exchange *exchange = CONTAINER_OF(transfer, struct exchange, transfer);
	curl_off_t first_byte_us = 0, total_us = 0;

	if (handle) {
		curl_easy_getinfo(handle, CURLINFO_STARTTRANSFER_TIME_T, &first_byte_us);
		curl_easy_getinfo(handle, CURLINFO_TOTAL_TIME_T, &total_us);
		exchange->proxy_refuses = proxy_refuses(handle);
	}
	exchange->first_byte_ns = (uint64_t)first_byte_us * NS_PER_US;
	exchange->total_ns = (uint64_t)total_us * NS_PER_US;
	exchange->result = result;
	exchange->outcome = judge(exchange);
}

/* ---- Life. ---- */

void exchange_run(struct exchange *exchange, struct engine *engine)
{
	exchange->transfer = (struct transfer){.prepare = on_prepare, .finish = on_finish};
	engine_run(engine, &exchange->transfer);
}

void exchange_end(struct exchange *exchange)
{
	/* It may be a signature, or a token. */
	for (struct curl_slist *item = exchange->headers; item; item = item->next)
		OPENSSL_cleanse(item->data, strlen(item->data));
	curl_slist_free_all(exchange->headers);
	free(exchange->redirect);
	exchange->headers = NULL;
	exchange->redirect = NULL;
}
