/* SPDX-License-Identifier: MIT */
/* Where an object is: the forms that a user may write, what is requested, and what may be shown. */
#ifndef BACKENDS_BLOB_URL_H
#define BACKENDS_BLOB_URL_H

#include "core/error.h"

enum blob_store {
	BLOB_HTTP,
	BLOB_AZURE,
	BLOB_S3,
};

/* How the bucket of S3 is named: in the host, in the path, or as it suits. */
enum blob_addressing {
	BLOB_ADDRESS_AUTO,
	BLOB_ADDRESS_PATH,
	BLOB_ADDRESS_VIRTUAL,
};

/* What the options say. */
struct blob_place {
	const char *url;
	const char *endpoint; /* of Azure or S3; may be NULL */
	const char *region;   /* of S3 */
	enum blob_addressing addressing;
};

/* Zeroed, it is none. */
struct blob_url {
	enum blob_store store;
	char *text;    /* as it is requested, but for a query that is secret */
	char *account; /* of Azure, else NULL */
};

/*
 * Makes an URL of http or https of
 *
 *	http://..., https://...			itself
 *	azure://ACCOUNT/CONTAINER/BLOB[?QUERY]	at ENDPOINT, or https://ACCOUNT.blob.core.windows.net
 *	s3://BUCKET/KEY[?QUERY]			at ENDPOINT, or https://s3.REGION.amazonaws.com
 *
 * In the latter two, what is no letter, digit or one of -._~/ is percent-encoded, once: the path
 * may be written either way. Returns 0, or -1 with a sentence in @err and nothing to be freed. Any
 * thread.
 */
int blob_url_make(struct blob_url *url, const struct blob_place *place, struct err *err);
void blob_url_free(struct blob_url *url);

/* Writes @url without its query, fragment, user and password, for messages, cut to @size. Any text
 * is allowed. Returns @shown. */
const char *url_redact(char *shown, size_t size, const char *url);

/* Whether scheme, host and port of both are the same, so that what is secret to one is the other's
 * to know. */
bool url_same_origin(const char *a, const char *b);

/* Why a redirect of a request from @from to @to is not followed: a phrase, or NULL where it is. */
const char *url_refuse_redirect(const char *from, const char *to);

/* What @location, perhaps relative, means in a response to a request for @url; to be freed. NULL:
 * it is malformed, or there is no memory. */
char *url_resolve(const char *url, const char *location);

/* @url with @query, which may be NULL, added to its query; to be freed. NULL: no memory. */
char *url_with_query(const char *url, const char *query);

/* Whether @url contains a user name or a password. */
bool url_has_user(const char *url);

/* Whether what is sent to @url is encrypted. */
bool url_is_https(const char *url);

#endif
