/* SPDX-License-Identifier: MIT */
/*
 * The memory of the cache, and how a block is found in it: one for the whole mount, for the blocks
 * of all objects.
 *
 * Blocks that follow one another are found together: GROUP_BLOCKS of them are in one run of buckets,
 * under one lock. It is held shared to look and to copy, so that what is found cannot be forgotten
 * meanwhile, and exclusive to make blocks appear and disappear. One mutex guards what is free and
 * what will be forgotten next (evict.h); nobody takes it who finds all that he wants. Locks are
 * taken in this order: the mutex of a flight (flight.h), that of the blocks, the lock of a group.
 *
 * All but blocks_get() and blocks_put() from any thread; nothing here suspends.
 */
#ifndef BACKENDS_BLOB_BLOCKS_H
#define BACKENDS_BLOB_BLOCKS_H

#include "backends/blob/block.h"
#include "core/sg.h"

struct blocks;

/* Gets the memory of the mount, of cache_memory() bytes, which is made for the first who asks. NULL:
 * no memory. */
struct blocks *blocks_get(void);
/* The last who puts it back frees it. */
void blocks_put(struct blocks *blocks);

/* A new owner, without blocks. */
void blocks_owner_init(struct block_owner *owner);
/* Forgets all blocks of an owner; none is loading or held. */
void blocks_forget(struct blocks *blocks, const struct block_owner *owner);

/* ---- Reading. ---- */

enum look_found {
	LOOK_HIT,
	LOOK_LOADING,
	LOOK_MISSING,
};

/* A run of bytes that are all in memory, or all in one fetch, or all missing; never empty. */
struct look {
	enum look_found found;
	size_t length;
	struct fetch *fetch; /* that is loading them; held for the caller */
	uint64_t useful; /* bytes of blocks that were read ahead, and have been read now first */
	bool notifies;	 /* readahead waits for this */
};

/*
 * The run that begins at @offset of the object, and lies within @sg. What is in memory is copied to
 * @sg, which is a use of a block, unless it begins inside of one: most who do that go on where they
 * have stopped just before.
 */
void blocks_look(struct blocks *blocks, const struct block_owner *owner, uint64_t offset,
		 const struct sg *sg, struct look *look);

/* How many of the @count blocks from @first on are in memory or loading, before the first that is
 * missing. They are marked BLOCK_NOTIFY. */
uint64_t blocks_skip(struct blocks *blocks, const struct block_owner *owner, uint64_t first,
		     uint64_t count);
/* How many are missing, before the first that is not. */
uint64_t blocks_missing(struct blocks *blocks, const struct block_owner *owner, uint64_t first,
			uint64_t count);

/* ---- Loading. ---- */

/*
 * Makes blocks of @fetch of those from @first on that are missing, up to the first that is not, and
 * at most @count. Returns how many; their indices are in @indices. -1: no memory, since all there is
 * is loading or held. Nobody else may do this for the same owner at the same time.
 */
int blocks_claim(struct blocks *blocks, struct block_owner *owner, uint64_t first, unsigned count,
		 struct fetch *fetch, uint32_t *indices);

/* They have been filled, and can be read; @marks of enum block_mark. */
void blocks_publish(struct blocks *blocks, const uint32_t *indices, unsigned count, unsigned marks);
/* Or they have not, and are missing again. */
void blocks_withdraw(struct blocks *blocks, const uint32_t *indices, unsigned count);
/* Nobody holds them any more, after one or the other. */
void blocks_release(struct blocks *blocks, const uint32_t *indices, unsigned count);

/* The memory of a block that is loading or held. */
char *blocks_memory(const struct blocks *blocks, uint32_t index);

/* Notes that a block that is held has been read: @look is as if it had been found. */
void blocks_touch(struct blocks *blocks, uint32_t index, struct look *look);

/* ---- Numbers. ---- */

uint64_t blocks_used(const struct blocks *blocks);  /* bytes of blocks that hold something */
uint64_t blocks_limit(const struct blocks *blocks); /* bytes, with all that is needed beside them */

#endif
