/* SPDX-License-Identifier: MIT */
/*
 * Transfers by libcurl for tasks. An engine is one thread with a multi handle: its connections, and
 * all transfers over them. Tasks hand it transfers and suspend.
 *
 * libcurl waits in places where no worker may: it reads files with certificates, and joins the threads
 * that look up names. The price is a wake-up across threads for a request, microseconds against the
 * milliseconds of a network. (engine.c says what else was measured.)
 */
#ifndef BACKENDS_BLOB_ENGINE_H
#define BACKENDS_BLOB_ENGINE_H

#include <curl/curl.h>
#include "core/error.h"

struct engine;
struct task;

/* One transfer; on the stack of its task. Both functions are called on the engine's thread. */
struct transfer {
	/* Sets the handle up, whose options are all at their defaults but for what the engine needs
	 * itself. CURLE_OK, or why not. */
	CURLcode (*prepare)(struct transfer *transfer, CURL *handle);
	/* It has ended, or could not be begun; the handle is still as it was (NULL: there was
	 * none). */
	void (*finish)(struct transfer *transfer, CURL *handle, CURLcode result);
	/* private to the engine follows */
	struct task *task;
	struct transfer *next;
	unsigned place; /* among the active ones */
};

/* Starts an engine that has at most @limit transfers under way at the same time; others wait, first
 * come, first served. May block. NULL with a sentence in @err. */
struct engine *engine_start(unsigned limit, struct err *err);

/* Lets all transfers fail with CURLE_ABORTED_BY_CALLBACK, those to come as well. Any thread. */
void engine_abort(struct engine *engine);

/* Ends it; no transfer is under way. Blocks, perhaps for seconds: not on a worker. NULL is
 * allowed. */
void engine_stop(struct engine *engine);

/* Runs a transfer, and returns when it has finished. In a task, which is suspended meanwhile. */
void engine_run(struct engine *engine, struct transfer *transfer);

/* Any thread. */
struct engine_numbers {
	unsigned active;      /* transfers under way */
	unsigned waiting;     /* for their turn */
	unsigned connections; /* open */
	uint64_t connected;   /* connections that were made, or tried */
};

void engine_read_numbers(struct engine *engine, struct engine_numbers *numbers);

#endif
