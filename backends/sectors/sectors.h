/* SPDX-License-Identifier: MIT */
/*
 * Sectors in memory: a sparse map from sector numbers to their content, with the three states of a
 * layer (core/layer.h). What a RAM disk or layer is made of, and what a layer in a file keeps its
 * newest writes in.
 *
 * The map has no size: whoever has one checks it. Memory follows the content: pages for data, a
 * few per cent for finding them, next to nothing for runs of zeros, however long. Finding a sector
 * costs the same wherever it is.
 *
 * Any thread, several at once; never waits but for a short critical section. Each operation is
 * atomic for each sector.
 */
#ifndef BACKENDS_SECTORS_SECTORS_H
#define BACKENDS_SECTORS_SECTORS_H

#include "core/layer.h"

struct sectors;

/* @limit: bytes of memory that the content may take, index included, 0: no limit. NULL: no
 * memory. */
struct sectors *sectors_new(uint32_t sector_size, uint64_t limit);
/* NULL is allowed. */
void sectors_free(struct sectors *sectors);

/* 0, or ERROR_IO with ENOSPC at the limit or without memory: some of the sectors may have been
 * changed then, each as a whole. The limit does not keep sectors from being dropped, nor data from
 * becoming zeros. */
int sectors_write(struct sectors *sectors, const struct sg *sg, uint64_t sector);
int sectors_populate(struct sectors *sectors, const struct sg *sg, uint64_t sector);
int sectors_zero(struct sectors *sectors, uint64_t sector, uint64_t count);
int sectors_drop(struct sectors *sectors, uint64_t sector, uint64_t count);

/*
 * sectors_zero() and sectors_drop() of ranges with much data in them, a piece at a time, for a task
 * that lets others run meanwhile. Filled by the caller but for `done`, which begins zeroed.
 */
struct sectors_clear {
	uint64_t sector, count;
	enum layer_state state; /* LAYER_ZEROES or LAYER_ABSENT */
	struct {
		unsigned shards;
		uint64_t cells; /* of the next shard */
	} done;
};

/* 1: there is more to do; 0: all is done; or an error as above. */
int sectors_clear_some(struct sectors *sectors, struct sectors_clear *clear);

/* As struct layer_ops says of read() and run(). */
void sectors_read(struct sectors *sectors, const struct sg *sg, uint64_t sector,
		  struct layer_gaps *gaps);
void sectors_run(struct sectors *sectors, uint64_t sector, uint64_t count, struct layer_run *run);

struct sectors_memory {
	uint64_t data;	/* bytes of sectors with data, as they are allocated */
	uint64_t index; /* bytes for everything else */
};

void sectors_memory(const struct sectors *sectors, struct sectors_memory *memory);

struct sectors_present {
	uint64_t data, zeroes; /* sectors */
};

/* How many sectors are there, by state. */
void sectors_present(struct sectors *sectors, struct sectors_present *present);

#endif
