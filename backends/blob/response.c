// SPDX-License-Identifier: MIT
#include "backends/blob/response.h"
#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- Values. ---- */

/* Takes a decimal number off *text: digits only, at least one, no overflow. */
static bool take_number(const char **text, uint64_t *number)
{
	const char *at = *text;

	*number = 0;
	for (; *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(*number, 10, number) ||
		    __builtin_add_overflow(*number, (uint64_t)(*at - '0'), number))
			return false;
	if (at == *text)
		return false;
	*text = at;
	return true;
}

static bool take_character(const char **text, char character)
{
	if (**text != character)
		return false;
	++*text;
	return true;
}

bool content_range_parse(struct content_range *range, const char *text)
{
	if (strncasecmp(text, "bytes ", 6) != 0)
		return false;
	text += 6;
	return take_number(&text, &range->first) && take_character(&text, '-') &&
	       take_number(&text, &range->last) && take_character(&text, '/') &&
	       take_number(&text, &range->total) && *text == '\0' && range->first <= range->last &&
	       range->last < range->total;
}

bool retry_after_parse(uint64_t *seconds, const char *text, time_t now)
{
	const char *at = text;
	time_t date;

	if (take_number(&at, seconds))
		return *at == '\0';
	date = curl_getdate(text, NULL);
	if (date < 0)
		return false;
	*seconds = date > now ? (uint64_t)(date - now) : 0;
	return true;
}

/* ---- Lines. ---- */

/* No value that is wanted here is longer. */
#define VALUE_MAX 512

/* "HTTP/1.1 206 Partial Content": begins a new head. */
static void take_status(struct response *response, const char *line)
{
	const char *at = strchr(line, ' ');
	uint64_t status;

	*response = (struct response){.head_bytes = response->head_bytes};
	if (at && at++ && take_number(&at, &status) && status >= 100 && status <= 999)
		response->status = (unsigned)status;
	else
		response->malformed = "status line";
}

/* Keeps a value that is sent back later: printable, and of a length that fits. */
static bool keep_text(char *to, size_t size, const char *value)
{
	if (strlen(value) >= size || value[0] == '\0')
		return false;
	for (const char *at = value; *at; at++)
		if (iscntrl((unsigned char)*at))
			return false;
	strcpy(to, value);
	return true;
}

/* Twice the same is once; anything else is a contradiction. */
static bool take_range(struct response *response, const char *value)
{
	struct content_range range;

	/* Of status 416: says how long the object is, which is of no use. */
	if (response->status == 416)
		return true;
	if (!content_range_parse(&range, value))
		return false;
	if (response->has_range && memcmp(&range, &response->range, sizeof(range)) != 0)
		return false;
	response->range = range;
	response->has_range = true;
	return true;
}

static bool take_etag(struct response *response, const char *value)
{
	return keep_text(response->validator.etag, ETAG_MAX, value);
}

static bool take_last_modified(struct response *response, const char *value)
{
	return keep_text(response->validator.last_modified, LAST_MODIFIED_MAX, value);
}

static bool take_encoding(struct response *response, const char *value)
{
	response->has_encoding |= value[0] && strcasecmp(value, "identity") != 0;
	return true;
}

static bool take_length(struct response *response, const char *value)
{
	response->has_length = take_number(&value, &response->length) && *value == '\0';
	return response->has_length;
}

/* One that cannot be read is none. */
static bool take_retry_after(struct response *response, const char *value)
{
	response->has_retry_after = retry_after_parse(&response->retry_after_s, value, time(NULL));
	return true;
}

const char *response_find_value(const char *line, size_t *length, const char *name)
{
	size_t name_length = strlen(name), left = *length;

	if (left <= name_length || line[name_length] != ':' ||
	    strncasecmp(line, name, name_length) != 0)
		return NULL;
	line += name_length + 1;
	left -= name_length + 1;
	for (; left > 0 && isspace((unsigned char)*line); left--)
		line++;
	while (left > 0 && isspace((unsigned char)line[left - 1]))
		left--;
	*length = left;
	return line;
}

static const struct {
	const char *name;
	bool (*take)(struct response *response, const char *value);
} fields[] = {
	{"Content-Range", take_range},	       {"ETag", take_etag},
	{"Last-Modified", take_last_modified}, {"Content-Encoding", take_encoding},
	{"Content-Length", take_length},       {"Retry-After", take_retry_after},
};

/* Copies what is short enough and without zero bytes. */
static bool copy_text(char text[VALUE_MAX], const char *from, size_t length)
{
	if (length >= VALUE_MAX || memchr(from, '\0', length))
		return false;
	memcpy(text, from, length);
	text[length] = '\0';
	return true;
}

bool response_take_line(struct response *response, const char *line, size_t length)
{
	char text[VALUE_MAX];

	response->head_bytes += length;
	if (response->head_bytes > HEAD_MAX)
		return false;
	if (length >= 5 && strncasecmp(line, "HTTP/", 5) == 0) {
		take_status(response, copy_text(text, line, length) ? text : "");
		return true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		size_t value_length = length;
		const char *value = response_find_value(line, &value_length, fields[i].name);

		if (value &&
		    (!copy_text(text, value, value_length) || !fields[i].take(response, text)))
			response->malformed = fields[i].name;
	}
	return true;
}

const char *response_show(char *shown, size_t size, const char *text)
{
	snprintf(shown, size, "%s", text);
	for (char *at = shown; *at; at++)
		if (*at < ' ' || *at > '~')
			*at = '?';
	return shown;
}

/* ---- Verdicts. ---- */

bool validator_is_strong(const struct validator *validator)
{
	return validator->etag[0] && strncmp(validator->etag, "W/", 2) != 0;
}

/* Whether the response is of the content that @then was seen of: by the best that was seen. */
static bool is_same_content(const struct validator *now, const struct validator *then)
{
	if (then->etag[0])
		return strcmp(now->etag, then->etag) == 0;
	return strcmp(now->last_modified, then->last_modified) == 0;
}

const char *response_refuse(const struct response *response, const struct expectation *expected,
			    bool *changed)
{
	uint64_t length = expected->last - expected->first + 1;

	if (response->malformed)
		return "its head is malformed";
	if (response->has_encoding)
		return "it is encoded (Content-Encoding), though that was not asked for";
	if (response->status == 200 &&
	    (expected->first != 0 || expected->total != length || !response->has_length))
		return "it is the whole object, not a range";
	if (response->status == 206 && !response->has_range)
		return "it is a range without a Content-Range";
	if ((expected->validator && !is_same_content(&response->validator, expected->validator)) ||
	    (expected->total && response->status == 206 &&
	     response->range.total != expected->total) ||
	    (expected->total && response->status == 200 && response->length != expected->total)) {
		*changed = true;
		return "the object has been changed";
	}
	if (response->status == 206 &&
	    (response->range.first != expected->first || response->range.last != expected->last))
		return "it is another range";
	if (response->has_length && response->length != length)
		return "its length is not that of the range";
	return NULL;
}

bool status_is_temporary(unsigned status)
{
	return status == 408 || status == 429 || (status >= 500 && status <= 599);
}

bool status_is_redirect(unsigned status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}
