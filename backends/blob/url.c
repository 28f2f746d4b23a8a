// SPDX-License-Identifier: MIT
#include "backends/blob/url.h"
#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* S3 wants paths as they are: "a/../b" is a key. */
#define PARSE_FLAGS (CURLU_PATH_AS_IS | CURLU_NON_SUPPORT_SCHEME)

/* ---- Parts. ---- */

/* The part @part of @url, to be freed by curl_free(); NULL: there is none, or @url is no URL. */
static char *url_part(const char *url, CURLUPart part, unsigned flags)
{
	CURLU *parsed = curl_url();
	char *text = NULL;

	if (parsed && curl_url_set(parsed, CURLUPART_URL, url, PARSE_FLAGS) == CURLUE_OK)
		curl_url_get(parsed, part, &text, flags);
	curl_url_cleanup(parsed);
	return text;
}

static bool url_has(const char *url, CURLUPart part)
{
	char *text = url_part(url, part, 0);

	curl_free(text);
	return text != NULL;
}

bool url_has_user(const char *url)
{
	return url_has(url, CURLUPART_USER) || url_has(url, CURLUPART_PASSWORD);
}

/* Whether @url begins with @scheme and "://". */
static bool has_scheme(const char *url, const char *scheme)
{
	size_t length = strlen(scheme);

	return strncasecmp(url, scheme, length) == 0 && strncmp(url + length, "://", 3) == 0;
}

bool url_is_https(const char *url)
{
	return has_scheme(url, "https");
}

static bool same_part(const char *a, const char *b, CURLUPart part)
{
	char *of_a = url_part(a, part, CURLU_DEFAULT_PORT);
	char *of_b = url_part(b, part, CURLU_DEFAULT_PORT);
	bool same = of_a && of_b && strcasecmp(of_a, of_b) == 0;

	curl_free(of_a);
	curl_free(of_b);
	return same;
}

bool url_same_origin(const char *a, const char *b)
{
	return same_part(a, b, CURLUPART_SCHEME) && same_part(a, b, CURLUPART_HOST) &&
	       same_part(a, b, CURLUPART_PORT);
}

const char *url_redact(char *shown, size_t size, const char *url)
{
	const char *host = strstr(url, "://");
	size_t scheme = host ? (size_t)(host - url) + 3 : 0;
	size_t end = strcspn(url, "?#");

	/* "://" may as well be part of a query. */
	if (scheme > end)
		scheme = 0;

	size_t authority = scheme + strcspn(url + scheme, "/?#\\");

	host = url + scheme;
	for (const char *at = host; at < url + authority; at++)
		if (*at == '@')
			host = at + 1;
	snprintf(shown, size, "%.*s%.*s", (int)min_u64(scheme, size), url,
		 (int)min_u64(end - (size_t)(host - url), size), host);
	/* The log is made of lines. */
	for (char *at = shown; *at; at++)
		if (iscntrl((unsigned char)*at))
			*at = '?';
	return shown;
}

const char *url_refuse_redirect(const char *from, const char *to)
{
	if (!has_scheme(to, "https") && !has_scheme(to, "http"))
		return "the redirect is neither to http nor to https";
	if (url_is_https(from) && !url_is_https(to))
		return "the redirect leads from https to http";
	if (url_has_user(to))
		return "the redirect contains a user name or a password";
	if (!url_has(to, CURLUPART_HOST))
		return "the redirect is malformed";
	return NULL;
}

char *url_resolve(const char *url, const char *location)
{
	CURLU *parsed = curl_url();
	char *text = NULL, *copy = NULL;

	if (parsed && curl_url_set(parsed, CURLUPART_URL, url, PARSE_FLAGS) == CURLUE_OK &&
	    curl_url_set(parsed, CURLUPART_URL, location, PARSE_FLAGS | CURLU_URLENCODE) ==
		    CURLUE_OK &&
	    curl_url_get(parsed, CURLUPART_URL, &text, 0) == CURLUE_OK)
		copy = strdup(text);
	curl_free(text);
	curl_url_cleanup(parsed);
	return copy;
}

char *url_with_query(const char *url, const char *query)
{
	char *text;

	if (!query)
		return strdup(url);
	if (asprintf(&text, "%s%c%s", url, strchr(url, '?') ? '&' : '?', query) < 0)
		return NULL;
	return text;
}

/* ---- The forms. ---- */

static int no_memory(struct err *err)
{
	return err_set(err, "%s", strerror(ENOMEM));
}

/* That @url, of option @key, is an URL of http or https with nothing that does not belong there. */
static int check_http(const char *url, const char *key, struct err *err)
{
	char shown[200];

	url_redact(shown, sizeof(shown), url);
	for (const char *at = url; *at; at++)
		if (isspace((unsigned char)*at) || iscntrl((unsigned char)*at))
			return err_set_key(err, key, "'%s' contains a blank: write %%20", shown);
	if (!has_scheme(url, "https") && !has_scheme(url, "http"))
		return err_set_key(err, key, "'%s' does not begin with http:// or https://", shown);
	/* libcurl would take "http:///a" for "http://a". */
	if (!url_has(url, CURLUPART_HOST) || strstr(url, "://")[3] == '/')
		return err_set_key(err, key, "'%s' is no URL", shown);
	if (url_has_user(url))
		return err_set_key(err, key,
				   "there is a user name or a password in '%s': put them into a "
				   "file, and give that as auth_file",
				   shown);
	if (strchr(url, '#'))
		return err_set_key(err, key, "'%s' has a fragment (#)", shown);
	return 0;
}

static int hex_value(char character)
{
	const char digits[] = "0123456789abcdef";
	const char *found = memchr(digits, tolower((unsigned char)character), 16);

	return found ? (int)(found - digits) : -1;
}

static bool is_plain(unsigned char character)
{
	return isalnum(character) || (character && strchr("-._~/", character));
}

/* @path, percent-encoded or not, as it is signed and sent; to be freed. NULL: no memory. */
static char *encode_path(const char *path, size_t length)
{
	char *encoded = malloc(3 * length + 1), *to = encoded;

	if (!encoded)
		return NULL;
	for (size_t i = 0; i < length; i++) {
		unsigned char character = (unsigned char)path[i];

		if (character == '%' && i + 2 < length && hex_value(path[i + 1]) >= 0 &&
		    hex_value(path[i + 2]) >= 0) {
			character = (unsigned char)(hex_value(path[i + 1]) << 4 |
						    hex_value(path[i + 2]));
			i += 2;
			/* A "/" that was encoded is none. */
			if (character == '/') {
				to += sprintf(to, "%%2F");
				continue;
			}
		}
		if (is_plain(character))
			*to++ = (char)character;
		else
			to += sprintf(to, "%%%02X", character);
	}
	*to = '\0';
	return encoded;
}

/* The pieces of azure://NAME/PATH?QUERY and s3://NAME/PATH?QUERY. */
struct named {
	char name[128];
	char *path;	   /* encoded, without the first "/" */
	const char *query; /* with the "?", or "" */
};

static int named_parse(struct named *named, const char *url, struct err *err)
{
	const char *name = strstr(url, "://") + 3;
	size_t name_length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-");
	const char *path = name + name_length + 1;
	char shown[200];
	size_t length;

	url_redact(shown, sizeof(shown), url);
	if (name_length == 0 || name_length >= sizeof(named->name) || path[-1] != '/')
		return err_set_key(err, "url",
				   "'%s': behind '://' comes a name of small letters, digits, '-' "
				   "and '.', and a '/'",
				   shown);
	length = strcspn(path, "?#");
	if (length == 0 || path[length] == '#')
		return err_set_key(err, "url", "'%s' %s", shown,
				   length ? "contains a '#': write %23" : "names no object");
	memcpy(named->name, name, name_length);
	named->name[name_length] = '\0';
	named->query = path + length;
	named->path = encode_path(path, length);
	return named->path ? 0 : no_memory(err);
}

/* The endpoint without a "/" at its end, to be freed; NULL with a sentence in @err. */
static char *endpoint_of(const struct blob_place *place, struct err *err)
{
	char *endpoint;
	size_t length;

	if (check_http(place->endpoint, "endpoint", err) < 0)
		return NULL;
	if (url_has(place->endpoint, CURLUPART_QUERY)) {
		err_set_key(err, "endpoint", "an endpoint has no query");
		return NULL;
	}
	endpoint = strdup(place->endpoint);
	if (!endpoint) {
		no_memory(err);
		return NULL;
	}
	for (length = strlen(endpoint); length > 0 && endpoint[length - 1] == '/';)
		endpoint[--length] = '\0';
	return endpoint;
}

static int make_azure(struct blob_url *url, const struct blob_place *place,
		      const struct named *named, struct err *err)
{
	char *endpoint = NULL;
	int length;

	if (strchr(named->name, '.') || !strchr(named->path, '/'))
		return err_set_key(err, "url", "write azure://ACCOUNT/CONTAINER/BLOB");
	if (place->endpoint) {
		endpoint = endpoint_of(place, err);
		if (!endpoint)
			return -1;
		length = asprintf(&url->text, "%s/%s%s", endpoint, named->path, named->query);
	} else {
		length = asprintf(&url->text, "https://%s.blob.core.windows.net/%s%s", named->name,
				  named->path, named->query);
	}
	free(endpoint);
	if (length < 0) {
		url->text = NULL;
		return no_memory(err);
	}
	url->account = strdup(named->name);
	return url->account ? 0 : no_memory(err);
}

/* Whether the bucket becomes part of the host's name: with dots in it no certificate would fit, and
 * stores of one's own seldom have names for it. */
static bool is_virtual(const struct blob_place *place, const struct named *named)
{
	if (place->addressing == BLOB_ADDRESS_AUTO)
		return !place->endpoint && !strchr(named->name, '.');
	return place->addressing == BLOB_ADDRESS_VIRTUAL;
}

static int make_s3(struct blob_url *url, const struct blob_place *place, const struct named *named,
		   struct err *err)
{
	char *endpoint = NULL;
	const char *host;
	int length;

	if (place->endpoint)
		endpoint = endpoint_of(place, err);
	else if (asprintf(&endpoint, "https://s3.%s.amazonaws.com", place->region) < 0) {
		endpoint = NULL;
		no_memory(err);
	}
	if (!endpoint)
		return -1;
	host = strstr(endpoint, "://") + 3;
	if (is_virtual(place, named))
		length = asprintf(&url->text, "%.*s%s.%s/%s%s", (int)(host - endpoint), endpoint,
				  named->name, host, named->path, named->query);
	else
		length = asprintf(&url->text, "%s/%s/%s%s", endpoint, named->name, named->path,
				  named->query);
	free(endpoint);
	if (length < 0)
		url->text = NULL;
	return length < 0 ? no_memory(err) : 0;
}

static int make_named(struct blob_url *url, const struct blob_place *place, struct err *err)
{
	struct named named;
	int result;

	if (named_parse(&named, place->url, err) < 0)
		return -1;
	if (url->store == BLOB_AZURE)
		result = make_azure(url, place, &named, err);
	else
		result = make_s3(url, place, &named, err);
	free(named.path);
	return result == 0 ? check_http(url->text, "url", err) : -1;
}

int blob_url_make(struct blob_url *url, const struct blob_place *place, struct err *err)
{
	char shown[200];
	int result = 0;

	*url = (struct blob_url){.store = BLOB_HTTP};
	if (has_scheme(place->url, "azure"))
		url->store = BLOB_AZURE;
	else if (has_scheme(place->url, "s3"))
		url->store = BLOB_S3;
	if (url->store != BLOB_HTTP) {
		result = make_named(url, place, err);
	} else if (!has_scheme(place->url, "https") && !has_scheme(place->url, "http")) {
		result =
			err_set_key(err, "url",
				    "'%s' does not begin with http://, https://, azure:// or s3://",
				    url_redact(shown, sizeof(shown), place->url));
	} else {
		result = check_http(place->url, "url", err);
		if (result == 0 && place->endpoint)
			result = err_set_key(err, "endpoint",
					     "only azure:// and s3:// have an endpoint");
		if (result == 0)
			url->text = strdup(place->url);
		if (result == 0 && !url->text)
			result = no_memory(err);
	}
	if (result < 0)
		blob_url_free(url);
	return result;
}

void blob_url_free(struct blob_url *url)
{
	free(url->text);
	free(url->account);
	*url = (struct blob_url){.store = BLOB_HTTP};
}
