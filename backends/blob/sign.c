// SPDX-License-Identifier: MIT
#include "backends/blob/sign.h"
#include <ctype.h>
#include <curl/curl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Query parameters, sorted, as "\nname:value". ---- */

#define PARAMETERS_MAX 32

/* Where it begins in the query, and how long it is. */
struct parameter {
	const char *text;
	int length;
};

static int compare_parameters(const void *a, const void *b)
{
	const struct parameter *first = a, *second = b;
	size_t length = (size_t)(first->length < second->length ? first->length : second->length);
	int order = strncasecmp(first->text, second->text, length);

	return order ? order : first->length - second->length;
}

/* "name=value", the value as it was before it was encoded for the URL. */
static void print_parameter(FILE *out, const struct parameter *parameter)
{
	const char *equals = memchr(parameter->text, '=', (size_t)parameter->length);
	int name_length = equals ? (int)(equals - parameter->text) : parameter->length;
	int value_length = equals ? parameter->length - name_length - 1 : 0;
	char *value =
		value_length ? curl_easy_unescape(NULL, equals + 1, value_length, NULL) : NULL;

	fputc('\n', out);
	for (int i = 0; i < name_length; i++)
		fputc(tolower((unsigned char)parameter->text[i]), out);
	fprintf(out, ":%s", value ? value : "");
	curl_free(value);
}

static void print_parameters(FILE *out, const char *query)
{
	struct parameter parameters[PARAMETERS_MAX];
	size_t count = 0;

	while (*query && count < PARAMETERS_MAX) {
		size_t length = strcspn(query, "&");

		if (length > 0)
			parameters[count++] = (struct parameter){query, (int)length};
		query += length;
		query += *query == '&';
	}
	qsort(parameters, count, sizeof(parameters[0]), compare_parameters);
	for (size_t i = 0; i < count; i++)
		print_parameter(out, &parameters[i]);
}

/* ---- The text. ---- */

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

static void print_text(FILE *out, const struct azure_request *request, const char *path,
		       const char *query)
{
	/* The headers that a GET might have, each on a line of its own: Content-Encoding,
	 * -Language, -Length, -MD5, -Type, Date, If-Modified-Since; If-Match; If-None-Match;
	 * If-Unmodified-Since; Range. */
	fprintf(out, "GET\n\n\n\n\n\n\n\n%s\n\n%s\n%s\n", or_empty(request->if_match),
		or_empty(request->if_unmodified_since), or_empty(request->range));
	fprintf(out, "x-ms-date:%s\nx-ms-version:%s\n/%s%s", request->date, request->version,
		request->account, path);
	print_parameters(out, or_empty(query));
}

char *azure_string_to_sign(const struct azure_request *request)
{
	CURLU *url = curl_url();
	char *path = NULL, *query = NULL, *text = NULL;
	size_t length;
	FILE *out = NULL;

	if (url && curl_url_set(url, CURLUPART_URL, request->url, CURLU_PATH_AS_IS) == CURLUE_OK &&
	    curl_url_get(url, CURLUPART_PATH, &path, 0) == CURLUE_OK) {
		curl_url_get(url, CURLUPART_QUERY, &query, 0);
		out = open_memstream(&text, &length);
	}
	if (out) {
		print_text(out, request, path, query);
		if (fclose(out) != 0) {
			free(text);
			text = NULL;
		}
	}
	curl_free(path);
	curl_free(query);
	curl_url_cleanup(url);
	return text;
}

bool azure_sign(char signature[AZURE_SIGNATURE_SIZE], const char *text, const void *key,
		size_t key_length)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned digest_length = 0;

	if (!HMAC(EVP_sha256(), key, (int)key_length, (const unsigned char *)text, strlen(text),
		  digest, &digest_length) ||
	    digest_length != 32)
		return false;
	EVP_EncodeBlock((unsigned char *)signature, digest, (int)digest_length);
	return true;
}
