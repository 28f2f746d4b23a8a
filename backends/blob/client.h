/* SPDX-License-Identifier: MIT */
/*
 * A client of one remote object: knows what it is (from the first request on), reads ranges of it
 * (fetch.h), follows redirects, tries again what may succeed later, and counts.
 *
 * A request ends in bounded time: it is tried again at most @retries times and until @timeout_ns, and
 * each try is bounded by the other timeouts.
 */
#ifndef BACKENDS_BLOB_CLIENT_H
#define BACKENDS_BLOB_CLIENT_H

#include "backends/blob/exchange.h"
#include "backends/blob/fetch.h"
#include "core/log.h"

struct report;

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
 * Starts a client, and asks for the object: how long it is, what identifies it, whether ranges of it
 * can be had. The strings and credentials of @options must live as long as the client. In a task;
 * may block. NULL with a sentence in @err.
 */
struct blob_client *client_open(const struct client_options *options, struct err *err);

/* Lets all fetches fail, and those to come, without a word. Any thread. */
void client_abort(struct blob_client *client);

/* Nothing is in flight. In a task; may block. NULL is allowed. */
void client_close(struct blob_client *client);

/* Of the object, as of then. */
uint64_t client_length(const struct blob_client *client); /* bytes */
const struct validator *client_validator(const struct blob_client *client);

/* Adds fields to @report. Any thread. */
void client_inspect(struct blob_client *client, struct report *report);

#endif
