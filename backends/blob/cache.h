/* SPDX-License-Identifier: MIT */
/*
 * Fast reads of a remote object: what was read is kept in memory, what is being fetched is fetched
 * once, what lies side by side is fetched together, and what a sequential reader will want next is
 * fetched before it asks.
 *
 * The memory is one budget for the whole mount (core/cache_memory.h), shared by all objects: it is
 * there from the first blob_cache_open() to the last blob_cache_close(). It holds blocks of
 * CACHE_BLOCK (block.h), and those that are being fetched count, too. Where it is full of what is
 * under way, and where it is 0, reads go past it.
 *
 * An object does not change: whoever fetches makes sure of that, by an error.
 */
#ifndef BACKENDS_BLOB_CACHE_H
#define BACKENDS_BLOB_CACHE_H

#include "core/report.h"
#include "core/sg.h"

struct blob_client;
struct blob_cache_object;

/* Where the bytes of an object come from. */
struct blob_cache_source {
	struct blob_client *client;
	/* Reads sg->len bytes at @offset into @sg's memory, all of them inside the object; 0 or an
	 * error. In a task, which it may suspend; any number at once. */
	int (*fetch)(struct blob_client *client, uint64_t offset, const struct sg *sg);
	uint64_t size;		/* bytes of the object */
	unsigned requests_max;	/* calls of fetch() at once, at least 1; not counting what goes past
				   the cache */
	uint64_t readahead_max; /* bytes ahead of one sequential reader; 0: none. An eighth of the
				   budget is the most in any case */
};

/* In a task; cheap. The client must live longer. NULL: no memory. */
struct blob_cache_object *blob_cache_open(const struct blob_cache_source *source);

/*
 * In a task. No read may be under way. Waits until no fetch is, which may take as long as one does:
 * the driver had better let those fail first. NULL is allowed.
 */
void blob_cache_close(struct blob_cache_object *object);

/*
 * Reads sg->len bytes at @offset, which are inside the object. In a task, which it may suspend; any
 * number at once, on all workers. 0, or an error that fetch() has had for bytes of this read: where
 * a fetch fails that was more than this read has asked for, the read fetches its part by itself.
 */
int blob_cache_read(struct blob_cache_object *object, const struct sg *sg, uint64_t offset);

/* What has happened to an object since it was opened, and to the memory of the mount. */
struct blob_cache_numbers {
	uint64_t hits;	  /* reads of which all was in memory */
	uint64_t misses;  /* reads that had to wait for something */
	uint64_t cached;  /* bytes of reads that were in memory, */
	uint64_t joined;  /* that were already being fetched, */
	uint64_t fetched; /* that had to be asked for, */
	uint64_t past; /* and that were read past the cache, since it was full or a fetch failed */

	uint64_t requests;  /* calls of fetch(), all of them */
	uint64_t coalesced; /* fetches that went along in the request of another */
	uint64_t failures;  /* of fetch() */

	uint64_t readahead;	   /* bytes that were read ahead; */
	uint64_t readahead_useful; /* those that somebody has read since, */
	uint64_t readahead_wasted; /* and those that were forgotten unread */
	uint64_t window;	   /* bytes that the largest of the current windows reaches ahead */

	uint64_t held;	       /* bytes of memory that the object's blocks take */
	uint64_t memory_used;  /* of all objects, */
	uint64_t memory_limit; /* which share this */
};

/* Any thread; must not block long. */
void blob_cache_read_numbers(struct blob_cache_object *object, struct blob_cache_numbers *numbers);

/* The same as fields of @report, in an object "cache" and one "readahead". Any thread. */
void blob_cache_inspect(struct blob_cache_object *object, struct report *report);

#endif
