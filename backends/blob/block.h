/* SPDX-License-Identifier: MIT */
/*
 * What the files of the cache know of a block: CACHE_BLOCK bytes of an object, at a multiple of that,
 * in a fixed place in memory. A block is known by its index, which begins with 1.
 *
 * 4 KiB is the least that a page cache above asks for: so a random read fetches no more than it
 * needs, and memory holds no neighbours that nobody has asked for. Large requests are made of many
 * blocks (flight.h).
 *
 * States, and who may change them:
 *
 *	free	 in the list of free blocks, or in the hands of who has just taken it off;
 *	loading	 can be found (blocks.h), and belongs to the fetch that fills it;
 *	ready	 can be found and read. Until the last holder of its fetch lets go it is in no queue,
 *		 so that it stays; then it is in one (evict.h) and may be forgotten at any time;
 *	failed	 cannot be found any more, and is freed when the last holder of its fetch lets go.
 */
#ifndef BACKENDS_BLOB_BLOCK_H
#define BACKENDS_BLOB_BLOCK_H

#include <stdatomic.h>
#include "core/util.h"

#define CACHE_BLOCK_SHIFT 12U
#define CACHE_BLOCK	  ((size_t)1 << CACHE_BLOCK_SHIFT)
#define BLOCK_NONE	  0U /* an index that no block has */

enum block_state {
	BLOCK_FREE,
	BLOCK_LOADING,
	BLOCK_READY,
	BLOCK_FAILED,
};

enum block_mark {
	BLOCK_UNREAD = 1 << 0, /* was read ahead, and nobody has read it yet */
	BLOCK_NOTIFY = 1 << 1, /* its reader is one whom readahead waits for */
};

enum block_queue {
	QUEUE_NONE,
	QUEUE_SMALL,
	QUEUE_MAIN,
	QUEUES,
};

/* Counted to here, no further: what was used more often is not worth more. */
#define BLOCK_USES_MAX 3

struct fetch;

/* Whose blocks they are: an object. */
struct block_owner {
	uint64_t id;		 /* never used again */
	_Atomic uint64_t held;	 /* blocks */
	_Atomic uint64_t wasted; /* blocks that were forgotten unread */
};

struct block {
	uint64_t number; /* of the object's blocks */
	struct block_owner *owner;
	union {
		struct fetch *fetch; /* while loading */
		struct {
			uint32_t previous, next; /* in its queue; the next free one */
		} link;
	};
	uint32_t chain;	      /* the next block in the same bucket */
	uint8_t state;	      /* enum block_state */
	uint8_t queue;	      /* enum block_queue */
	_Atomic uint8_t uses; /* since it was read first, at most BLOCK_USES_MAX */
	_Atomic uint8_t marks;
};

_Static_assert(sizeof(struct block) == 32, "two in a cache line");

#endif
