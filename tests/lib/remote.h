/* SPDX-License-Identifier: MIT */
/*
 * A remote object for tests of the cache of blobs, without a network: it has a round trip, a rate,
 * answers that overtake one another, and failures, and it notes what it was asked.
 *
 * Settings may be changed while nothing is under way, but for `hold`, `fail_first` and `fail_end`.
 * All its functions in a task, but remote_init() and remote_destroy().
 */
#ifndef TESTS_LIB_REMOTE_H
#define TESTS_LIB_REMOTE_H

#include <pthread.h>
#include <stdatomic.h>
#include "backends/blob/cache.h"

#define REMOTE_CALLS_MAX 4096

struct remote_call {
	uint64_t offset, length;
};

struct blob_client {
	/* Settings. */
	uint64_t size;
	uint64_t round_trip_ns;
	uint64_t rate;	    /* bytes a second, of all requests together; 0: no limit */
	uint64_t jitter_ns; /* the most that an answer is late by */
	_Atomic uint64_t fail_first, fail_end; /* requests that touch these bytes fail */
	int error;			       /* with this */
	atomic_bool hold;		       /* answers wait */

	/* What it has seen. */
	pthread_mutex_t mutex;
	struct remote_call calls[REMOTE_CALLS_MAX]; /* the first */
	unsigned call_count;
	unsigned under_way, under_way_max;
	uint64_t bytes;
	uint64_t link_free_ns; /* when all that was sent so far has arrived */
};

void remote_init(struct blob_client *remote, uint64_t size);
void remote_destroy(struct blob_client *remote);

/* Opens it with these limits; the cache has @memory bytes if it is the first that is open. */
struct blob_cache_object *remote_open(struct blob_client *remote, uint64_t memory,
				      unsigned requests_max, uint64_t readahead_max);

/* Forgets what it has seen. */
void remote_forget(struct blob_client *remote);
/* Waits until @count requests are under way; false, after a failed check, if that takes long. */
bool remote_wait(struct blob_client *remote, unsigned count);

/* Reads, in segments of odd lengths, and checks what comes. Returns the error. */
int remote_read(struct blob_cache_object *object, uint64_t offset, size_t length);
/* The same, which has to succeed. */
bool remote_check(struct blob_cache_object *object, uint64_t offset, size_t length);

#endif
