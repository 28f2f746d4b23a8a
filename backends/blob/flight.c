// SPDX-License-Identifier: MIT
/*
 * Blocks of an object are claimed with the flight's mutex held, so that a fetch is queued when
 * others find its blocks. Only runners take fetches off the queues, but for the end: then those that
 * nobody waits for are dropped.
 *
 * There is a runner for everything that is queued: whoever queues something, or moves it from one
 * queue to the other, starts one unless there are as many as may be; and a runner ends only when it
 * finds nothing that it may take, with the mutex held. Those that may not read ahead leave that to
 * those that do, of which there is at least one then.
 */
#include "backends/blob/flight.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "core/error.h"
#include "core/task.h"

static void add(_Atomic uint64_t *counter, uint64_t value)
{
	atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

/* ---- The queues. With the mutex. ---- */

static void queue_push(struct fetch_queue *queue, struct fetch *fetch)
{
	if (!queue->tail)
		queue->tail = &queue->first;
	fetch->next = NULL;
	fetch->link = queue->tail;
	*queue->tail = fetch;
	queue->tail = &fetch->next;
}

static void queue_remove(struct fetch_queue *queue, struct fetch *fetch)
{
	*fetch->link = fetch->next;
	if (fetch->next)
		fetch->next->link = fetch->link;
	else
		queue->tail = fetch->link;
	fetch->next = NULL;
}

/* ---- Fetches. ---- */

static struct fetch *fetch_new(struct flight *flight, uint64_t first, unsigned count,
			       enum fetch_kind kind)
{
	struct fetch *fetch = malloc(sizeof(*fetch) + count * sizeof(fetch->indices[0]));

	if (!fetch)
		return NULL;
	*fetch = (struct fetch){
		.flight = flight,
		.first = first,
		.kind = kind,
		.ahead = kind == FETCH_AHEAD,
		.holders = 1,
	};
	task_mutex_init(&fetch->mutex);
	return fetch;
}

static void fetch_free(struct fetch *fetch)
{
	task_mutex_destroy(&fetch->mutex);
	free(fetch);
}

void fetch_hold(struct fetch *fetch)
{
	atomic_fetch_add_explicit(&fetch->holders, 1, memory_order_relaxed);
}

void fetch_release(struct fetch *fetch)
{
	if (atomic_fetch_sub_explicit(&fetch->holders, 1, memory_order_acq_rel) > 1)
		return;
	blocks_release(fetch->flight->blocks, fetch->indices, fetch->count);
	fetch_free(fetch);
}

int fetch_wait(struct fetch *fetch)
{
	int error;

	task_mutex_lock(&fetch->mutex);
	while (!fetch->done)
		wait_queue_wait(&fetch->waiters, &fetch->mutex);
	error = fetch->error;
	task_mutex_unlock(&fetch->mutex);
	return error;
}

void fetch_copy(struct fetch *fetch, uint64_t offset, const struct sg *sg, struct look *look)
{
	struct blocks *blocks = fetch->flight->blocks;
	struct sg rest = *sg;

	while (rest.len > 0) {
		uint32_t index = fetch->indices[(offset >> CACHE_BLOCK_SHIFT) - fetch->first];
		size_t begin = offset % CACHE_BLOCK;
		struct sg to = sg_take(&rest, min_u64(CACHE_BLOCK - begin, rest.len));

		sg_copy_from(&to, blocks_memory(blocks, index) + begin);
		blocks_touch(blocks, index, look);
		offset += to.len;
	}
}

bool fetch_asked_within(const struct fetch *fetch, uint64_t offset, uint64_t end)
{
	return fetch->asked_first >= offset >> CACHE_BLOCK_SHIFT &&
	       fetch->asked_first + fetch->asked_count <= (end + CACHE_BLOCK - 1) >>
		       CACHE_BLOCK_SHIFT;
}

/* It and its blocks are done; those who wait go on. */
static void fetch_end(struct fetch *fetch, uint64_t asked_first, uint64_t asked_count, int error)
{
	struct flight *flight = fetch->flight;

	if (error)
		blocks_withdraw(flight->blocks, fetch->indices, fetch->count);
	else
		blocks_publish(flight->blocks, fetch->indices, fetch->count,
			       fetch->ahead ? BLOCK_UNREAD | BLOCK_NOTIFY : 0);
	if (!error && fetch->ahead)
		add(&flight->ahead_bytes, fetch->count * CACHE_BLOCK);
	task_mutex_lock(&fetch->mutex);
	fetch->done = true;
	fetch->error = error;
	fetch->asked_first = asked_first;
	fetch->asked_count = asked_count;
	wait_queue_wake_all(&fetch->waiters);
	task_mutex_unlock(&fetch->mutex);
	fetch_release(fetch);
}

/* ---- Requests. ---- */

/* Fetches that lie side by side, in ascending order. */
struct request {
	struct fetch *first;
	uint64_t block;
	unsigned count; /* blocks */
	unsigned fetches;
	bool ahead; /* nobody waits for it */
};

static struct fetch *request_last(const struct request *request)
{
	struct fetch *last = request->first;

	while (last->next)
		last = last->next;
	return last;
}

/* With the mutex: takes a fetch off its queue, and puts it where it belongs in the request. */
static void request_take(struct request *request, struct fetch_queue *queue, struct fetch *fetch)
{
	queue_remove(queue, fetch);
	fetch->queued = false;
	if (!request->first) {
		request->first = fetch;
		request->block = fetch->first;
	} else if (fetch->first < request->block) {
		fetch->next = request->first;
		request->first = fetch;
		request->block = fetch->first;
	} else {
		request_last(request)->next = fetch;
	}
	request->count += fetch->count;
	request->fetches++;
}

static bool request_fits(const struct request *request, const struct fetch *fetch)
{
	return request->count + fetch->count <= REQUEST_BLOCKS_MAX &&
	       (fetch->first == request->block + request->count ||
		fetch->first + fetch->count == request->block);
}

/* With the mutex: makes a request of the first fetch of a queue and all that lies beside it. */
static void request_make(struct request *request, struct fetch_queue *queue)
{
	struct fetch *fetch = queue->first;

	*request = (struct request){.first = NULL};
	while (fetch) {
		request_take(request, queue, fetch);
		fetch = queue->first;
		while (fetch && !request_fits(request, fetch))
			fetch = fetch->next;
	}
}

static int request_transfer(struct flight *flight, const struct request *request)
{
	struct iovec iov[REQUEST_BLOCKS_MAX];
	uint64_t offset = request->block << CACHE_BLOCK_SHIFT;
	struct sg sg = {.iov = iov};
	unsigned used = 0;

	for (const struct fetch *fetch = request->first; fetch; fetch = fetch->next)
		for (unsigned i = 0; i < fetch->count; i++) {
			char *memory = blocks_memory(flight->blocks, fetch->indices[i]);
			struct iovec *last = used > 0 ? &iov[used - 1] : NULL;

			if (last && (char *)last->iov_base + last->iov_len == memory)
				last->iov_len += CACHE_BLOCK;
			else
				iov[used++] = (struct iovec){memory, CACHE_BLOCK};
		}
	/* The last block of the object may be a part of one. */
	sg.len = min_u64(request->count * CACHE_BLOCK, flight->source.size - offset);
	return flight->source.fetch(flight->source.client, offset, &sg);
}

static void request_run(struct flight *flight, const struct request *request)
{
	int error = request_transfer(flight, request);
	struct fetch *fetch = request->first;

	add(&flight->requests, 1);
	add(&flight->coalesced, request->fetches - 1);
	add(&flight->failures, error ? 1 : 0);
	while (fetch) {
		struct fetch *next = fetch->next;

		fetch_end(fetch, request->block, request->count, error);
		fetch = next;
	}
}

/* ---- Runners. ---- */

/* How many of them may read ahead at once: a quarter is left to those who wait. */
static unsigned ahead_max(const struct flight *flight)
{
	unsigned all = flight->source.requests_max;

	return all > 1 ? all - (all + 3) / 4 : 1;
}

/* With the mutex: what a runner should do next, or NULL. */
static struct fetch_queue *queue_next(struct flight *flight)
{
	if (flight->queues[FETCH_WANTED].first)
		return &flight->queues[FETCH_WANTED];
	if (flight->queues[FETCH_AHEAD].first && flight->runners_ahead < ahead_max(flight))
		return &flight->queues[FETCH_AHEAD];
	return NULL;
}

/* What @request was is done. False: there is nothing to do, and the runner is no more: the flight
 * may be gone. */
static bool runner_next(struct flight *flight, struct request *request)
{
	struct fetch_queue *queue;

	pthread_mutex_lock(&flight->mutex);
	if (request->ahead)
		flight->runners_ahead--;
	queue = queue_next(flight);
	if (queue) {
		request_make(request, queue);
		request->ahead = queue == &flight->queues[FETCH_AHEAD];
		flight->runners_ahead += request->ahead;
	} else {
		flight->runners--;
	}
	pthread_mutex_unlock(&flight->mutex);
	return queue != NULL;
}

static void runner_main(void *argument)
{
	struct flight *flight = argument;
	struct request request = {.first = NULL};

	/* What else arrives in this turn of the worker can go along. */
	task_yield();
	while (runner_next(flight, &request))
		request_run(flight, &request);
}

/* With the mutex: whether there should be another runner; it is counted then. */
static bool runner_admit(struct flight *flight)
{
	if (flight->runners >= flight->source.requests_max || !queue_next(flight))
		return false;
	flight->runners++;
	return true;
}

static void runner_start(struct flight *flight)
{
	/* Without a stack the caller does its work: slower, never an error. */
	if (task_start(runner_main, flight) < 0)
		runner_main(flight);
}

/* ---- Starting. ---- */

enum flight_result flight_start(struct flight *flight, uint64_t first, uint64_t count,
				enum fetch_kind kind, struct fetch **started)
{
	unsigned most = (unsigned)min_u64(count, REQUEST_BLOCKS_MAX);
	struct fetch *fetch = fetch_new(flight, first, most, kind);
	bool admitted = false;
	int claimed;

	if (!fetch)
		return FLIGHT_FULL;
	pthread_mutex_lock(&flight->mutex);
	claimed = blocks_claim(flight->blocks, &flight->owner, first, most, fetch, fetch->indices);
	if (claimed > 0) {
		fetch->count = (unsigned)claimed;
		fetch->holders++; /* the request's */
		fetch->queued = true;
		queue_push(&flight->queues[kind], fetch);
		admitted = runner_admit(flight);
	}
	pthread_mutex_unlock(&flight->mutex);
	if (claimed <= 0) {
		fetch_free(fetch);
		return claimed == 0 ? FLIGHT_THERE : FLIGHT_FULL;
	}
	if (admitted)
		runner_start(flight);
	*started = fetch;
	return FLIGHT_STARTED;
}

void fetch_want(struct fetch *fetch)
{
	struct flight *flight = fetch->flight;
	bool admitted = false;

	if (!fetch->ahead)
		return;
	pthread_mutex_lock(&flight->mutex);
	if (fetch->queued && fetch->kind == FETCH_AHEAD) {
		queue_remove(&flight->queues[FETCH_AHEAD], fetch);
		fetch->kind = FETCH_WANTED;
		queue_push(&flight->queues[FETCH_WANTED], fetch);
		admitted = runner_admit(flight);
	}
	pthread_mutex_unlock(&flight->mutex);
	if (admitted)
		runner_start(flight);
}

int flight_read_past(struct flight *flight, const struct sg *sg, uint64_t offset)
{
	int error = flight->source.fetch(flight->source.client, offset, sg);

	add(&flight->requests, 1);
	add(&flight->failures, error ? 1 : 0);
	return error;
}

/* ---- Life. ---- */

void flight_init(struct flight *flight, struct blocks *blocks,
		 const struct blob_cache_source *source)
{
	*flight = (struct flight){.source = *source, .blocks = blocks};
	assert(source->requests_max > 0);
	blocks_owner_init(&flight->owner);
	pthread_mutex_init(&flight->mutex, NULL);
}

/* With the mutex: takes all off the queue of what is read ahead. */
static struct fetch *take_ahead(struct flight *flight)
{
	struct fetch *dropped = flight->queues[FETCH_AHEAD].first;

	flight->queues[FETCH_AHEAD] = (struct fetch_queue){.first = NULL};
	return dropped;
}

void flight_end(struct flight *flight)
{
	struct fetch *dropped;
	unsigned runners;

	pthread_mutex_lock(&flight->mutex);
	assert(!flight->queues[FETCH_WANTED].first);
	dropped = take_ahead(flight);
	pthread_mutex_unlock(&flight->mutex);
	while (dropped) {
		struct fetch *next = dropped->next;

		fetch_end(dropped, dropped->first, dropped->count, error_io(ECANCELED));
		dropped = next;
	}
	do {
		pthread_mutex_lock(&flight->mutex);
		runners = flight->runners;
		pthread_mutex_unlock(&flight->mutex);
		if (runners > 0)
			task_sleep_ns(NS_PER_S / 1000);
	} while (runners > 0);
	pthread_mutex_destroy(&flight->mutex);
}
