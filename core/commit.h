/* SPDX-License-Identifier: MIT */
/*
 * Committing a layer: what it holds, data and zeros, is moved into a disk below it.
 *
 * At any moment each sector is in the layer, or durable below, or both. So an interruption changes
 * nothing of what the disk above shows, and the next run does the rest. Nobody else uses any of
 * these disks meanwhile. In a task.
 */
#ifndef CORE_COMMIT_H
#define CORE_COMMIT_H

#include "core/layer.h"

struct commit {
	struct disk *layer;
	struct disk *below;	     /* what is moved goes there */
	struct disk *const *between; /* read caches: they forget what changes below them */
	unsigned between_count;
	/* Told from time to time, in bytes of data and zeros; NULL: nobody is. */
	void (*progress)(void *context, uint64_t done, uint64_t total);
	void *context;
};

/* Returns 0 when all of it is durable below, and gone from the layer for good; or -1 with a sentence
 * in @err. */
int commit_run(const struct commit *commit, struct err *err);

#endif
