/* SPDX-License-Identifier: MIT */
/*
 * What is under way from one object: each missing block is fetched once, however many wait for it;
 * fetches that lie side by side go along in one request; and no more than so many requests are under
 * way at once.
 *
 * A *fetch* is a run of blocks, in one of these states:
 *
 *	queued	 its blocks are loading, but no request has been made yet;
 *	running	 part of a request; it cannot be joined to others any more;
 *	done	 its blocks are ready, or they have failed.
 *
 * It is held by its request, and by everyone who waits for it: as long as it is held, its blocks
 * stay where they are. Requests are made by *runners*, tasks that each take one after the other off
 * the queues, and end when there is nothing left. A runner lets others go first when it is started,
 * so that what is asked for at the same time comes together before it looks. What somebody waits
 * for goes before what is read ahead, and some runners never read ahead.
 */
#ifndef BACKENDS_BLOB_FLIGHT_H
#define BACKENDS_BLOB_FLIGHT_H

#include <pthread.h>
#include "backends/blob/blocks.h"
#include "backends/blob/cache.h"
#include "core/lock.h"

/* The most that one request asks for. */
#define REQUEST_BLOCKS_MAX 256U
#define REQUEST_MAX	   (REQUEST_BLOCKS_MAX * CACHE_BLOCK)

enum fetch_kind {
	FETCH_WANTED, /* somebody waits for it */
	FETCH_AHEAD,  /* nobody does, so far */
	FETCH_KINDS
};

struct flight;

struct fetch {
	struct flight *flight;
	uint64_t first; /* block */
	unsigned count; /* blocks; constant once it is queued */
	atomic_uint holders;
	bool ahead; /* it was begun by readahead; constant */

	/* Guarded by the flight's mutex. */
	enum fetch_kind kind; /* the queue that it is in */
	bool queued;
	struct fetch *next, **link; /* in the queue, then in its request */

	/* Guarded by its own. */
	struct task_mutex mutex;
	struct wait_queue waiters;
	bool done;
	int error;
	uint64_t asked_first, asked_count; /* blocks of the request that failed */

	uint32_t indices[];
};

struct fetch_queue {
	struct fetch *first, **tail;
};

struct flight {
	struct blob_cache_source source;
	struct blocks *blocks;
	struct block_owner owner;

	pthread_mutex_t mutex; /* of all below */
	struct fetch_queue queues[FETCH_KINDS];
	unsigned runners, runners_ahead; /* running; of those, reading ahead now */

	_Atomic uint64_t requests, coalesced, failures, ahead_bytes;
};

void flight_init(struct flight *flight, struct blocks *blocks,
		 const struct blob_cache_source *source);
/* In a task. Drops what is queued, and waits for what is running. Nobody waits for a fetch. */
void flight_end(struct flight *flight);

/* ---- All in a task. ---- */

enum flight_result {
	FLIGHT_STARTED,
	FLIGHT_THERE, /* the first block is in memory or loading by now */
	FLIGHT_FULL,  /* no memory, for the fetch or for its blocks */
};

/*
 * Queues a fetch of those of the @count blocks from @first on that are missing, up to the first that
 * is not, and at most REQUEST_BLOCKS_MAX; held for the caller in *fetch if it has been started.
 */
enum flight_result flight_start(struct flight *flight, uint64_t first, uint64_t count,
				enum fetch_kind kind, struct fetch **fetch);

/* Somebody will wait for it. */
void fetch_want(struct fetch *fetch);
/* Waits until it is done; returns its error. */
int fetch_wait(struct fetch *fetch);
/* After that, without an error: copies the bytes at @offset of the object to @sg; all in the fetch.
 * @look is as if they had been found. */
void fetch_copy(struct fetch *fetch, uint64_t offset, const struct sg *sg, struct look *look);
/* After an error: whether all that its request asked for lies in [@offset, @end) of the object, to
 * the block. */
bool fetch_asked_within(const struct fetch *fetch, uint64_t offset, uint64_t end);

/* Any thread. */
void fetch_hold(struct fetch *fetch);
void fetch_release(struct fetch *fetch);

/* Reads past the cache. */
int flight_read_past(struct flight *flight, const struct sg *sg, uint64_t offset);

#endif
