/* SPDX-License-Identifier: MIT */
/*
 * A client of one remote object: knows what it is (from the first request on), reads ranges of it
 * (fetch.h), follows redirects, tries again what may succeed later, and counts.
 *
 * A request ends in bounded time: it is tried again at most @retries times and until @timeout_ns,
 * and each try is bounded by the other timeouts.
 */
#ifndef BACKENDS_BLOB_CLIENT_H
#define BACKENDS_BLOB_CLIENT_H

#include "backends/blob/exchange.h"
#include "backends/blob/fetch.h"
#include "core/log.h"
#include "core/stats.h"

struct client_options {
	struct exchange_options exchange;
	const char *shown; /* the object, in messages */
	const char *node;
	unsigned max_requests;
	unsigned retries;
	uint64_t retry_delay_ns, retry_delay_max_ns;
	uint64_t timeout_ns;
};

/*
 * Starts a client, and asks for the object: how long it is, what identifies it, whether ranges of
 * it can be had. The strings and credentials of @options must live as long as the client. In a
 * task; may block. NULL with a sentence in @err.
 */
struct blob_client *client_open(const struct client_options *options, struct err *err);

/* Lets all fetches fail, and those to come, without a word. Any thread. */
void client_abort(struct blob_client *client);

/* Nothing is in flight. In a task; may block. NULL is allowed. */
void client_close(struct blob_client *client);

/* Of the object, as of then. */
uint64_t client_length(const struct blob_client *client); /* bytes */
const struct validator *client_validator(const struct blob_client *client);

/* What has become of requests and reads so far. */
struct client_numbers {
	uint64_t outcomes[EXCHANGE_OUTCOMES]; /* of requests */
	uint64_t retries, failures;	      /* of reads */
	uint64_t bytes;			      /* that arrived and were right */
	uint64_t active, waiting;	      /* requests */
	uint64_t connections, connected;      /* open; made, or tried */
};

/* Any thread. */
void client_read_numbers(struct blob_client *client, struct client_numbers *numbers);

/* How long requests took that succeeded: until the first byte, or the last. Any thread. */
enum client_time {
	CLIENT_FIRST_BYTE,
	CLIENT_WHOLE,
	CLIENT_TIMES,
};

void client_read_times(struct blob_client *client, enum client_time time,
		       struct stats_totals *totals);

#define LAST_ERROR_MAX 700

/* The last error of a request or a read, and when it was; false where there was none. Any
 * thread. */
bool client_last_error(struct blob_client *client, char text[static LAST_ERROR_MAX], time_t *when);

#endif
