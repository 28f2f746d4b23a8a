/* SPDX-License-Identifier: MIT */
/*
 * Where the file is known to have nothing, so that a read need not go there to find that out: most
 * of a young diff, and most of what is read through one. A bit for each *range* of the disk, in
 * memory only; it is learned as reads find nothing.
 *
 * A bit is set only if nothing was being committed, from before the look into the file until it is
 * set: whoever commits begins a change first, and clears the bits of all that he will touch before
 * it becomes visible. As long as it is not, his batch has it (pending.h). So who holds the batches
 * and then finds a bit set may believe it.
 *
 * Any thread.
 */
#ifndef BACKENDS_SQLITE_ABSENCE_H
#define BACKENDS_SQLITE_ABSENCE_H

#include <pthread.h>
#include "core/util.h"

struct absence {
	pthread_mutex_t guard;
	uint64_t generation; /* odd while something is being committed */
	unsigned shift;	     /* log2 of the sectors of a range */
	uint64_t range_count, sector_count;
	_Atomic uint64_t *bits;
};

/* Nothing is known. 0 or -ENOMEM. */
int absence_init(struct absence *absence, unsigned sector_shift, uint64_t sector_count);
/* May be called after a failed init. */
void absence_destroy(struct absence *absence);

/* The file is empty. Before anybody else uses it. */
void absence_all(struct absence *absence);

/* Whether [@sector, @sector + *count) is known to be absent; cuts *count where that changes. */
bool absence_is_known(struct absence *absence, uint64_t sector, uint64_t *count);

/* The range of a sector. */
void absence_range(const struct absence *absence, uint64_t sector, uint64_t *first,
		   uint64_t *count);
/* Before looking whether a range is empty, and after: nothing is learned if something was committed
 * in between. */
uint64_t absence_look(struct absence *absence);
void absence_learn(struct absence *absence, uint64_t look, uint64_t sector);

/* Around a commit, and in between for all that it touches. One at a time. */
void absence_change_begin(struct absence *absence);
void absence_change(struct absence *absence, uint64_t sector, uint64_t count);
void absence_change_end(struct absence *absence);

#endif
