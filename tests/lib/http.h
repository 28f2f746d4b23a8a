/* SPDX-License-Identifier: MIT */
/*
 * A small HTTP/1.1 server for tests, in the process of the test, on a free port of 127.0.0.1: a
 * thread for each connection, raw sockets. It serves objects in memory as RFC 9110 wants it (GET,
 * HEAD, one range, If-Match, If-Unmodified-Since, keep-alive), and misbehaves as it is told by
 * rules. What it was asked can be looked at afterwards.
 *
 * All functions may be called on any thread; they do not suspend tasks, and block for moments only
 * (http_stop() until all connections have ended, which it ends itself, whatever they wait for).
 */
#ifndef TESTS_LIB_HTTP_H
#define TESTS_LIB_HTTP_H

#include <time.h>
#include "core/util.h"

struct http_server;

/* What a path of the server holds. Nothing is copied: all of it must live until http_stop(). */
struct http_object {
	const void *data; /* NULL: zeros */
	uint64_t length;
	const char *etag; /* as in the header, with its quotes; NULL: none */
	time_t modified;  /* 0: no Last-Modified */
};

/* NULL with errno. */
struct http_server *http_start(void);
/* NULL is allowed. */
void http_stop(struct http_server *server);

unsigned http_port(const struct http_server *server);
/* "http://127.0.0.1:PORT" and @path, which begins with a slash; in @url, which it returns. */
const char *http_url(const struct http_server *server, const char *path, char url[static 200]);

/* The object at @path, which begins with a slash, replaces one that is there. A query (?...) is no
 * part of the path. */
void http_put(struct http_server *server, const char *path, const struct http_object *object);

/*
 * Replaces the rules by those of @text, divided by ';' or newlines. NULL, or the first word that is
 * wrong (inside of @text; the rules are none then).
 *
 * A rule is a list of words, divided by blanks. A request is answered by the first rule that
 * matches it and is not used up, or else properly. Which requests:
 *
 *	path=/p		of this path, or /p* of all that begin so
 *	method=GET	of this method
 *	range=A-B	with a range that touches bytes A to B
 *	skip=N		not the first N of them
 *	times=N		N of them, then no more
 *	chance=P	P of 100
 *
 * What becomes of the answer; several may go together:
 *
 *	delay=MS	it comes so much later
 *	status=N	an error page of this status instead of the object
 *	location=URL	with this Location; 302 where no status is given
 *	header=TEXT	with this line more ("Retry-After:%201"; %XX are bytes)
 *	headers=N	with N lines more
 *	folded		its head begins with a line that continues another
 *	etag=TEXT	another ETag, or etag=none
 *	length=TEXT	another Content-Length, or length=none
 *	content-range=TEXT	another Content-Range, or content-range=none; %F, %L and %T in it
 *			are the first byte, the last byte and the length of the object
 *	content-encoding=TEXT
 *	unconditional	whatever If-Match and If-Unmodified-Since say
 *	full		as if no range was asked for
 *	chunked		in chunks, without Content-Length
 *	multipart	as multipart/byteranges
 *	mangle=N	N bytes of its head, but for ends of lines, are something else
 *	body=N		the body ends after N bytes, without Content-Length being told so
 *	more=N		N bytes more follow: behind what Content-Length says, or in chunks
 *	drip=N,MS	N bytes of the body every MS milliseconds
 *	interim=N	N answers "100 Continue" before it
 *	garbage		what comes is no HTTP
 *	silent		nothing comes
 *	close		the connection is closed after it (with Connection: close, where a header comes)
 *	reset		it is reset after it
 *	stall		nothing more comes over it, though it stays open
 *
 * "silent reset" resets before the answer, "body=100 reset" in the middle of it.
 */
const char *http_rules(struct http_server *server, const char *text);

/* ---- What happened so far. ---- */

struct http_counts {
	unsigned requests;    /* whose head has come */
	unsigned answers;     /* that were sent to their end */
	unsigned connections; /* accepted */
	unsigned open;	      /* connections now */
	unsigned waiting_max; /* the most requests that were not answered yet at one time */
	uint64_t body_bytes;  /* sent */
};

void http_counts(struct http_server *server, struct http_counts *counts);

/* A request as it came. Only the first HTTP_LOG_MAX are kept. */
struct http_request {
	char method[8];
	char target[512]; /* with the query */
	const char *head; /* all of it, lines divided by CR LF; until http_stop() */
	bool ranged;
	uint64_t first, last; /* the range; @last is UINT64_MAX in "5-" */
	unsigned connection;  /* its number, from 0 */
};

#define HTTP_LOG_MAX 8192

/* Number @index, from 0; false if there is no such. */
bool http_request(struct http_server *server, unsigned index, struct http_request *request);

/* The value of a field of @request, case of the name ignored; in @value, which it returns; NULL if
 * it has none. */
const char *http_header(const struct http_request *request, const char *name,
			char value[static 1024]);

#endif
