/* SPDX-License-Identifier: MIT */
/* Inside of the HTTP server for tests: http.c (connections), http_rules.c, http_answer.c. */
#ifndef TESTS_LIB_HTTP_PRIVATE_H
#define TESTS_LIB_HTTP_PRIVATE_H

#include "tests/lib/http.h"

/* What comes after an answer, or after the part of it that is sent. */
enum http_end {
	HTTP_KEEP,
	HTTP_CLOSE,
	HTTP_RESET,
	HTTP_STALL,
};

#define HTTP_WORD_MAX 1024

struct http_rule {
	/* Which requests. */
	char path[512], method[8];
	bool ranged;
	uint64_t first, last;
	unsigned skip, times, chance;
	bool limited; /* times was given */

	/* What becomes of them; text that was not given is empty. */
	unsigned delay_ms, status, headers, interim, mangle;
	char location[HTTP_WORD_MAX], header[HTTP_WORD_MAX];
	char etag[128], length[32], content_range[128], content_encoding[32];
	bool unconditional, full, chunked, multipart, folded, garbage, silent, cut;
	uint64_t body, more;
	unsigned drip_bytes, drip_ms;
	enum http_end end;
};

/* As http_rules(), into a list that the caller frees; NULL and 0 on a wrong word, which is *wrong. */
struct http_rule *http_rules_parse(const char *text, unsigned *count, const char **wrong);

/* The bytes of a connection's peer. */
struct http_connection {
	int fd;
	unsigned number;
	struct http_server *server;
	struct http_connection *next;
	char *unlogged; /* the head of the request that is being answered, where the log is full */
	/* What was read and not used yet. */
	char input[65536];
	size_t input_length;
};

/*
 * Answers @request for @object (NULL: there is none) as @rule says. Returns what shall become of the
 * connection; HTTP_RESET also where the peer has gone. Adds what it sends of the body to @sent.
 */
enum http_end http_answer(struct http_connection *connection, const struct http_request *request,
			  const struct http_object *object, const struct http_rule *rule,
			  _Atomic uint64_t *sent);

/* Waits until the peer, or http_stop(), closes the connection, @ms at most (-1: without an end).
 * False if it was closed. */
bool http_wait(struct http_connection *connection, int ms);

#endif
