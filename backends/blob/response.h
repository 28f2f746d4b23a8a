/* SPDX-License-Identifier: MIT */
/*
 * The head of a response, as far as it matters, and whether it is the answer to what was asked for.
 * What a server sends is believed only after it has been checked here.
 */
#ifndef BACKENDS_BLOB_RESPONSE_H
#define BACKENDS_BLOB_RESPONSE_H

#include <time.h>
#include "core/util.h"

/* Longer ones are refused. */
#define ETAG_MAX	  256
#define LAST_MODIFIED_MAX 64

/* The most bytes of all heads of one response, interim ones included. */
#define HEAD_MAX ((size_t)64 * 1024)

/* What tells one content of an object from another; empty where the server does not say. */
struct validator {
	char etag[ETAG_MAX];
	char last_modified[LAST_MODIFIED_MAX];
};

/* Of a Content-Range: bytes @first to @last of @total. */
struct content_range {
	uint64_t first, last, total;
};

struct response {
	unsigned status; /* 0: none yet */
	size_t head_bytes;
	bool has_range, has_length, has_encoding, has_retry_after;
	struct content_range range;
	uint64_t length; /* Content-Length */
	uint64_t retry_after_s;
	struct validator validator;
	const char *malformed; /* what of it is, or NULL */
};

/* What was asked for. */
struct expectation {
	uint64_t first, last;		   /* bytes */
	uint64_t total;			   /* of the object; 0: not known yet */
	const struct validator *validator; /* as of then; NULL: not known yet */
};

/* "bytes FIRST-LAST/TOTAL", and nothing else. */
bool content_range_parse(struct content_range *range, const char *text);

/* Seconds, or a date (of which the past is 0) as seen at @now. */
bool retry_after_parse(uint64_t *seconds, const char *text, time_t now);

/*
 * Takes in one line of a head, as it came, of @length bytes; a status line begins a new head. False
 * where there are too many of them.
 */
bool response_take_line(struct response *response, const char *line, size_t length);

/*
 * Why the body that follows a head with status 200 or 206 is not what was expected: a phrase, or
 * NULL where it is. Of an object that has changed since @expected was learned, *changed is set.
 */
const char *response_refuse(const struct response *response, const struct expectation *expected,
			    bool *changed);

/* Copies @text, from a server, for messages and reports: what is no printable ASCII becomes "?".
 * Returns @shown. */
const char *response_show(char *shown, size_t size, const char *text);

/* Where the value of a field called @name begins in @line, a line of a head as it came, of *length
 * bytes, and how long it is without blanks around it; NULL: it is another line. */
const char *response_find_value(const char *line, size_t *length, const char *name);

/* Whether the same request may succeed later. */
bool status_is_temporary(unsigned status);

/* Whether it says that the object is elsewhere. */
bool status_is_redirect(unsigned status);

/* Whether the entity tag identifies the bytes, so that If-Match can be used. */
bool validator_is_strong(const struct validator *validator);

#endif
