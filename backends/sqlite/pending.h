/* SPDX-License-Identifier: MIT */
/*
 * What was acknowledged and is not in the file yet, in memory: two *batches* at most. The *active*
 * one takes changes. To be committed it is *sealed*, and a new one becomes active; it stays readable
 * until all of it is in the file, and is active no more.
 *
 * A batch says of each sector: data, zeros, *dropped* (what the file has is void), or nothing. A
 * read asks the active batch, then the sealed one, then the file. It holds the batches from before
 * it asks the first; a batch is let go only after its commit is visible. So a sector that was
 * written before the read began is found: either in a batch that is held, or in the file. What comes
 * or goes meanwhile is concurrent.
 *
 * Within a batch, drops lie under data and zeros. A drop first marks the sectors, then takes them
 * out of data and zeros; a read asks in the other order. So it never sees what lay under both.
 *
 * A change *enters* the active batch and leaves it again, without suspending in between; to seal a
 * batch costs nothing, but it is complete only when the last has left.
 *
 * Any thread; critical sections are short.
 */
#ifndef BACKENDS_SQLITE_PENDING_H
#define BACKENDS_SQLITE_PENDING_H

#include <pthread.h>
#include "backends/sectors/sectors.h"

/* Changes of one batch, before they are joined. */
#define CHANGES_MAX 32768U

struct batch {
	uint64_t number; /* 1, 2, ... in the order of commits */
	struct sectors *sectors;
	_Atomic(struct sectors *) dropped; /* zeros there: dropped; NULL: nothing is */
	/* Guarded by the guard of struct pending. */
	unsigned references;
	unsigned writers;
	bool full;
	struct layer_gap *changes; /* ranges that were changed, in the order of time */
	unsigned change_count, change_room;
	uint64_t memory; /* bytes */
	uint64_t data_bytes;
};

struct pending {
	pthread_mutex_t guard;
	pthread_cond_t left; /* the last writer has left a batch */
	uint32_t sector_size;
	uint64_t batch_memory;	       /* bytes at which a batch is full */
	struct batch *active, *sealed; /* the latter NULL: none */
	uint64_t changes;	       /* in all */
};

/* The batches that a read looks into, the newest first. */
struct batches {
	struct batch *batches[2];
	unsigned count;
};

/* 0 or -ENOMEM. */
int pending_init(struct pending *pending, uint32_t sector_size, uint64_t batch_memory);
/* Nobody uses it; what was not committed is gone. May be called after a failed init. */
void pending_destroy(struct pending *pending);

void pending_hold(struct pending *pending, struct batches *batches);
void pending_release(struct pending *pending, struct batches *batches);

/* ---- Changes. ---- */

/* The active batch, entered. NULL: it is *full, or there is no memory. */
struct batch *pending_enter(struct pending *pending, bool *full);
/* The active batch, entered, if it still is number @number; else, or where it is full, NULL. */
struct batch *pending_enter_same(struct pending *pending, uint64_t number);
/* Leaves; [@sector, @sector + @count) may have changed. True: the batch is full now. */
bool pending_leave(struct pending *pending, struct batch *batch, uint64_t sector, uint64_t count);

/* In a batch that was entered: as sectors_drop(), for what the file has as well. */
int batch_drop(struct batch *batch, uint64_t sector, uint64_t count);

/* ---- Reading. ---- */

/*
 * Reads what the batch has into @sg, or, where that is NULL, looks for it: what it does not have
 * becomes gaps, as sectors_read() says.
 */
void batch_read(const struct batch *batch, const struct sg *sg, unsigned shift, uint64_t sector,
		uint64_t count, struct layer_gaps *gaps);
/* Whether [@sector, @sector + *count) is dropped, after it was found to be a gap; cuts *count where
 * that changes. */
bool batch_is_dropped(const struct batch *batch, uint64_t sector, uint64_t *count);

/* ---- Committing. ---- */

/* Seals the active batch, if it has changes and none is sealed. 0 or -ENOMEM. */
int pending_seal(struct pending *pending);
/* The sealed batch, once it is complete; blocks: never on a worker. */
struct batch *pending_sealed(struct pending *pending);
/* Sorts the changes of a complete batch, and joins those that touch. */
void batch_join_changes(struct batch *batch);
/* The sealed batch is in the file. */
void pending_committed(struct pending *pending);

/* The number of the newest batch with changes, or 0: nothing is pending. */
uint64_t pending_newest(struct pending *pending);
bool pending_is_full(struct pending *pending);
bool pending_has_sealed(struct pending *pending);
/* Bytes of data, and of memory. */
void pending_bytes(struct pending *pending, uint64_t *data, uint64_t *memory);
/* Grows with every change. */
uint64_t pending_changes(struct pending *pending);

#endif
