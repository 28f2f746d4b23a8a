/* SPDX-License-Identifier: MIT */
/*
 * Which block is forgotten next: S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you
 * need for cache eviction", SOSP 2023).
 *
 * A block comes into a small queue, a fifth of all. If nobody has used it again by the time that it
 * reaches the end, it is forgotten, else it moves on into the main queue, where it goes round as
 * long as it is used. So whoever reads everything once pushes out no more than that fifth. (It is
 * more than in the paper, so that what is read ahead has room there until it is read.) What was
 * forgotten is remembered for a while by a tag, its *ghost*: if it comes back, it was worth more
 * than it seemed, and goes into the main queue at once.
 *
 * A use is a store in the block, by whoever reads it, without a lock. All else here is guarded by
 * the caller.
 */
#ifndef BACKENDS_BLOB_EVICT_H
#define BACKENDS_BLOB_EVICT_H

#include "backends/blob/block.h"

struct evict_queue {
	uint32_t newest, oldest, count;
};

struct ghost;

struct evict {
	struct block *table;
	struct evict_queue queues[QUEUES];
	uint32_t small_target;
	struct ghost *ghosts;
	uint64_t ghost_mask; /* of the sets of ghosts */
	uint32_t ghost_life; /* how many others are forgotten before a ghost is */
	uint32_t forgotten;  /* so far; it wraps */
};

/* The bytes that are needed here for each block. */
#define EVICT_BLOCK_BYTES 16

/* Of at most @count blocks, in @table from index 1 on. False without memory. */
bool evict_init(struct evict *evict, struct block *table, uint32_t count);
void evict_destroy(struct evict *evict);

/* Queues a block that is ready and in no queue. */
void evict_add(struct evict *evict, uint32_t index);
/* Takes the one that is to be forgotten out of its queue; BLOCK_NONE where there is none. */
uint32_t evict_take(struct evict *evict);
/* Takes this one out, without a ghost. */
void evict_remove(struct evict *evict, uint32_t index);

#endif
