/* SPDX-License-Identifier: MIT */
/* One request for a range, and its response: what of it is right lands in the caller's memory. */
#ifndef BACKENDS_BLOB_EXCHANGE_H
#define BACKENDS_BLOB_EXCHANGE_H

#include "backends/blob/credentials.h"
#include "backends/blob/engine.h"
#include "backends/blob/response.h"
#include "core/sg.h"

/* What the requests of an object have in common; constant while there are any. */
struct exchange_options {
	enum blob_store store;
	const char *url; /* the object's, with the secret part of its query */
	const char *account, *region;
	const struct credentials *credentials;
	const char *ca_file, *proxy; /* or NULL */
	bool verify;		     /* the server's certificate */
	bool http_1;		     /* no HTTP/2 */
	uint64_t connect_timeout_ns, low_speed, low_speed_time_ns;
};

enum exchange_outcome {
	EXCHANGE_DONE,
	EXCHANGE_REDIRECT, /* to exchange.redirect */
	EXCHANGE_AGAIN,	   /* might be different the next time */
	EXCHANGE_REFUSED,  /* would not */
	EXCHANGE_CHANGED,  /* the object is not what it was */
	EXCHANGE_OUTCOMES
};

/* On the stack of the task that it is for. */
struct exchange {
	const struct exchange_options *options;
	const char *url;
	struct expectation expected;
	uint64_t deadline_ns; /* by now_ns() */
	bool fresh;	      /* over a new connection, */
	uint64_t age_max_ns;  /* or one that is not much older; 0: whatever its age */
	struct sg rest;	      /* memory for what is still to come; what has come is right */

	/* When it has ended. */
	enum exchange_outcome outcome;
	CURLcode result;
	struct response response;
	const char *why; /* unless it is done; may point into error */
	char *redirect;	 /* an URL, or NULL */
	uint64_t first_byte_ns, total_ns;

	/* private follows */
	struct transfer transfer;
	struct curl_slist *headers;
	bool body_begun, has_changed, proxy_refuses;
	uint64_t drained;
	char error[CURL_ERROR_SIZE]; /* libcurl's words */
};

/* Runs it: options, url, expected, deadline_ns and rest are filled in, all else is zero. In a
 * task. */
void exchange_run(struct exchange *exchange, struct engine *engine);

/* Releases what it holds. */
void exchange_end(struct exchange *exchange);

#endif
