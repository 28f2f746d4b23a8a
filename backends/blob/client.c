// SPDX-License-Identifier: MIT
/*
 * A read is one fetch: a sequence of exchanges, each of which asks for what has not come yet. A
 * fetch begins where the redirects of another have led to (target.h), so that they do not cost each
 * a round trip. Where the answer from there is not right, it begins at once at the object's own URL,
 * and only what comes of that is an error: so a signature in the target of a redirect may get too
 * old. Every further try begins at the object's own URL, too.
 *
 * Between two tries the task sleeps: it holds neither its worker nor a place in the engine.
 *
 * Where a request has got stuck, its connection may be dead without knowing it, and with HTTP/2
 * others would be sent over it, too. The next try takes a new one, and connections that are idle
 * and were there before are not used again.
 */
#include "backends/blob/client.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "backends/blob/backoff.h"
#include "backends/blob/counters.h"
#include "backends/blob/target.h"
#include "core/offload.h"
#include "core/task.h"

#define REDIRECTS_MAX 10
#define SHOWN_MAX     300

/* Who sleeps before another try looks that often whether there is to be one. */
#define LOOK_NS (NS_PER_S / 4)

struct blob_client {
	struct client_options options;
	struct engine *engine;
	uint64_t length; /* 0: not known yet */
	struct validator validator;
	struct backoff backoff;
	struct counters counters;
	struct target_memory targets;
	struct log_limit error_limit, retry_limit;
	_Atomic uint64_t stuck_ns; /* when a request got stuck for the last time; 0: never */
	atomic_bool aborting;
};

/* One read, on the stack of its task. */
struct fetch {
	struct blob_client *client;
	uint64_t first, last; /* bytes that have not come yet */
	struct sg rest;
	uint64_t deadline_ns;
	unsigned tries, redirects;
	bool fresh;		/* the last try got stuck */
	struct target *target;	/* that it has begun at, or NULL */
	char *url;		/* where a redirect has led to, or NULL */
	bool is_moved_for_ever; /* all of its redirects were permanent */
	struct exchange exchange;
};

/* Where the next exchange goes to. */
static const char *fetch_url(const struct fetch *fetch)
{
	if (fetch->url)
		return fetch->url;
	return fetch->target ? target_url(fetch->target) : fetch->client->options.exchange.url;
}

/* ---- Words. ---- */

/* What went wrong with the last exchange, without what nobody may know. */
static void describe(const struct fetch *fetch, char *text, size_t size)
{
	const struct exchange *exchange = &fetch->exchange;
	char shown[SHOWN_MAX], why[CURL_ERROR_SIZE], status[24] = "";

	snprintf(shown, sizeof(shown), "%s", fetch->client->options.shown);
	if (fetch->url || fetch->target)
		url_redact(shown, sizeof(shown), fetch_url(fetch));
	if (exchange->response.status)
		snprintf(status, sizeof(status), ", status %u", exchange->response.status);
	snprintf(text, size, "%s, bytes %llu-%llu%s: %s", shown,
		 (unsigned long long)exchange->expected.first,
		 (unsigned long long)exchange->expected.last, status,
		 response_show(why, sizeof(why), exchange->why));
}

/* ---- Tries. ---- */

static enum exchange_outcome fetch_try(struct fetch *fetch)
{
	struct blob_client *client = fetch->client;
	const struct exchange_options *options = &client->options.exchange;
	struct exchange *exchange = &fetch->exchange;
	uint64_t stuck_ns = atomic_load(&client->stuck_ns);
	size_t left = fetch->rest.len;

	*exchange = (struct exchange){
		.options = options,
		.url = fetch_url(fetch),
		.expected = {fetch->first, fetch->last, client->length,
			     client->length ? &client->validator : NULL},
		.deadline_ns = fetch->deadline_ns,
		.fresh = fetch->fresh,
		.age_max_ns = stuck_ns ? now_ns() - stuck_ns : 0,
		.rest = fetch->rest,
	};
	exchange_run(exchange, client->engine);
	left -= exchange->rest.len;
	fetch->rest = exchange->rest;
	fetch->first += left;
	counters_add(&client->counters, exchange, left);
	fetch->fresh = exchange->result == CURLE_OPERATION_TIMEDOUT;
	if (fetch->fresh)
		atomic_store(&client->stuck_ns, now_ns());
	return exchange->outcome;
}

/* Goes where the exchange was redirected to. False where it does not. */
static bool fetch_follow(struct fetch *fetch)
{
	struct exchange *exchange = &fetch->exchange;

	exchange->why = url_refuse_redirect(exchange->url, exchange->redirect);
	if (exchange->why)
		return false;
	if (fetch->redirects == REDIRECTS_MAX) {
		exchange->why = "there are too many redirects";
		return false;
	}
	fetch->redirects++;
	fetch->is_moved_for_ever &= target_is_permanent(exchange->response.status);
	free(fetch->url);
	fetch->url = exchange->redirect;
	exchange->redirect = NULL;
	exchange_end(exchange);
	return true;
}

/* After an exchange that was not right: the next one goes to the object's own URL. */
static void fetch_begin_again(struct fetch *fetch)
{
	if (fetch->target)
		target_forget(&fetch->client->targets, fetch->target);
	target_release(fetch->target);
	free(fetch->url);
	fetch->target = NULL;
	fetch->url = NULL;
	fetch->redirects = 0;
	fetch->is_moved_for_ever = true;
	exchange_end(&fetch->exchange);
}

/* Whether the answer came from where others had been redirected to, and the object's own URL may know
 * better. A server that has too much to do is left in peace as always. */
static bool fetch_is_misled(const struct fetch *fetch, enum exchange_outcome outcome)
{
	return fetch->target && outcome != EXCHANGE_DONE &&
	       !status_is_temporary(fetch->exchange.response.status);
}

/* False where the client is aborted meanwhile. */
static bool client_sleep(struct blob_client *client, uint64_t end_ns)
{
	uint64_t now = now_ns();

	while (now < end_ns && !atomic_load(&client->aborting)) {
		task_sleep_ns(min_u64(end_ns - now, LOOK_NS));
		now = now_ns();
	}
	return !atomic_load(&client->aborting);
}

/* Waits before the next try. False where there is none. */
static bool fetch_wait(struct fetch *fetch)
{
	struct blob_client *client = fetch->client;
	struct exchange *exchange = &fetch->exchange;
	const struct response *response = &exchange->response;
	char text[LAST_ERROR_MAX];
	uint64_t wait_ns, end_ns;

	if (fetch->tries > client->options.retries)
		return false;
	wait_ns = backoff_draw(&client->backoff, fetch->tries - 1);
	if (response->has_retry_after)
		wait_ns = max_u64(wait_ns, backoff_seconds(response->retry_after_s));
	if (__builtin_add_overflow(now_ns(), wait_ns, &end_ns) || end_ns >= fetch->deadline_ns) {
		if (response->has_retry_after)
			exchange->why = "the server wants it again later than there is time for";
		return false;
	}
	describe(fetch, text, sizeof(text));
	counters_error(&client->counters, text, false);
	log_limited(&client->retry_limit, LOG_LEVEL_INFO, client->options.node,
		    "%s; try %u follows in %llu ms", text, fetch->tries + 1,
		    (unsigned long long)(wait_ns / (NS_PER_S / 1000)));
	if (!client_sleep(client, end_ns))
		return false;
	fetch_begin_again(fetch);
	return true;
}

/* What the last of its exchanges has come to; that remains to be ended. */
static enum exchange_outcome fetch_run(struct fetch *fetch)
{
	uint64_t now = now_ns();

	fetch->deadline_ns = now + fetch->client->options.timeout_ns;
	fetch->tries = 1;
	fetch->is_moved_for_ever = true;
	fetch->target = target_recall(&fetch->client->targets, now);
	for (;;) {
		enum exchange_outcome outcome = fetch_try(fetch);

		if (fetch_is_misled(fetch, outcome)) {
			fetch_begin_again(fetch);
			continue;
		}
		if (outcome == EXCHANGE_DONE && fetch->url)
			target_remember(&fetch->client->targets, fetch->url,
					fetch->is_moved_for_ever, now_ns());
		if (outcome == EXCHANGE_REDIRECT) {
			if (fetch_follow(fetch))
				continue;
			return EXCHANGE_REFUSED;
		}
		if (outcome != EXCHANGE_AGAIN || !fetch_wait(fetch))
			return outcome;
		fetch->tries++;
	}
}

static void fetch_end(struct fetch *fetch)
{
	exchange_end(&fetch->exchange);
	free(fetch->url);
	target_release(fetch->target);
}

static void tell_failure(const struct fetch *fetch)
{
	struct blob_client *client = fetch->client;
	char text[LAST_ERROR_MAX];

	if (atomic_load(&client->aborting))
		return;
	describe(fetch, text, sizeof(text));
	counters_error(&client->counters, text, true);
	log_limited(&client->error_limit, LOG_LEVEL_ERROR, client->options.node, "%s, at try %u",
		    text, fetch->tries);
}

int blob_fetch(struct blob_client *client, uint64_t offset, const struct sg *sg)
{
	struct fetch fetch = {
		.client = client,
		.first = offset,
		.last = offset + sg->len - 1,
		.rest = *sg,
	};
	int error = 0;

	if (sg->len == 0)
		return 0;
	if (fetch_run(&fetch) != EXCHANGE_DONE) {
		tell_failure(&fetch);
		error = error_io(fetch.exchange.result == CURLE_OUT_OF_MEMORY ? ENOMEM : EIO);
	}
	fetch_end(&fetch);
	return error;
}

/* ---- Life. ---- */

/* The first request: for one byte, since not every signature that allows GET allows HEAD, and the
 * answer to this shows that ranges work. */
static int client_probe(struct blob_client *client, struct err *err)
{
	char byte, text[LAST_ERROR_MAX];
	struct iovec iov;
	struct fetch fetch = {.client = client, .rest = sg_of(&iov, &byte, 1)};
	enum exchange_outcome outcome = fetch_run(&fetch);
	const struct response *response = &fetch.exchange.response;
	int result = 0;

	if (outcome == EXCHANGE_DONE) {
		client->length = response->range.total;
		client->validator = response->validator;
	} else if (response->status == 416) {
		result = err_set_key(err, "url", "'%s' is empty", client->options.shown);
	} else {
		describe(&fetch, text, sizeof(text));
		result = err_set_key(err, "url", "cannot read %s%s", text,
				     response->status == 200 ? ": the server has no ranges of it"
							     : "");
	}
	fetch_end(&fetch);
	return result;
}

/* libcurl and OpenSSL read files, and want more stack than a task has. */
struct engine_starting {
	unsigned limit;
	struct err *err;
	struct engine *engine;
};

static void start_job(void *argument)
{
	struct engine_starting *start = argument;

	start->engine = engine_start(start->limit, start->err);
}

struct blob_client *client_open(const struct client_options *options, struct err *err)
{
	struct blob_client *client = calloc(1, sizeof(*client));
	struct engine_starting start = {.limit = options->max_requests, .err = err};
	uint64_t seed = now_ns();

	if (!client) {
		err_set(err, "%s", strerror(ENOMEM));
		return NULL;
	}
	/* So that clients which have failed together do not come back together. */
	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0)
		seed = now_ns();
	client->options = *options;
	backoff_init(&client->backoff, options->retry_delay_ns, options->retry_delay_max_ns, seed);
	counters_init(&client->counters);
	target_memory_init(&client->targets);
	offload(start_job, &start);
	client->engine = start.engine;
	if (!client->engine || client_probe(client, err) < 0) {
		client_close(client);
		return NULL;
	}
	return client;
}

static void stop_job(void *argument)
{
	engine_stop(argument);
}

void client_abort(struct blob_client *client)
{
	atomic_store(&client->aborting, true);
	engine_abort(client->engine);
}

void client_close(struct blob_client *client)
{
	if (!client)
		return;
	offload(stop_job, client->engine);
	counters_destroy(&client->counters);
	target_memory_destroy(&client->targets);
	free(client);
}

uint64_t client_length(const struct blob_client *client)
{
	return client->length;
}

const struct validator *client_validator(const struct blob_client *client)
{
	return &client->validator;
}

void client_read_numbers(struct blob_client *client, struct client_numbers *numbers)
{
	struct engine_numbers of_engine;

	engine_read_numbers(client->engine, &of_engine);
	*numbers = (struct client_numbers){
		.active = of_engine.active,
		.waiting = of_engine.waiting,
		.connections = of_engine.connections,
		.connected = of_engine.connected,
	};
	counters_read(&client->counters, numbers);
}

void client_read_times(struct blob_client *client, enum client_time time,
		       struct stats_totals *totals)
{
	counters_read_times(&client->counters, time, totals);
}

bool client_last_error(struct blob_client *client, char text[static LAST_ERROR_MAX], time_t *when)
{
	return counters_last_error(&client->counters, text, when);
}
