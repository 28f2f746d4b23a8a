/* SPDX-License-Identifier: MIT */
/*
 * striped: what its files share. striped.c has the requests, resize.c the size.
 */
#ifndef BACKENDS_STRIPED_STRIPED_H
#define BACKENDS_STRIPED_STRIPED_H

#include "core/disk.h"

/* More than a line of the configuration can name. */
#define STRIPED_MEMBERS_MAX 512

struct striped_config {
	uint64_t chunk_size, size;
};

struct striped {
	uint64_t chunk;		      /* sectors */
	uint64_t max;		      /* sectors that the disk may have */
	struct task_mutex wish_mutex; /* one wish for another size at a time; outside of the next */
	struct task_mutex count_mutex; /* while our count follows those of the members */
	bool mutexes_made;
};

/* How many sectors the members make together, as they are now. */
uint64_t striped_members_count(const struct disk *disk);

/* See struct driver. */
void striped_below_resized(struct disk *disk, struct disk *below);
int striped_resize(struct disk *disk, uint64_t count);

#endif
