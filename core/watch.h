/* SPDX-License-Identifier: MIT */
/*
 * Disks whose size somebody else may change. One thread for all of them, and none where there are
 * none, looks at each once in WATCH_INTERVAL_S seconds; at a block device also as soon as the
 * kernel says that it has changed, by a uevent, where those can be had: in a container or a user
 * namespace nothing comes, and the interval has to do. Nothing of it is on the way of a request.
 */
#ifndef CORE_WATCH_H
#define CORE_WATCH_H

#include <sys/types.h>
#include "core/worker.h"

#define WATCH_INTERVAL_S 1

struct disk;

/* Of one disk; the driver keeps it in its state. */
struct watch {
	/* The driver's to fill; constant while it is watched. */
	struct disk *disk;
	dev_t device; /* a block device; 0: none */
	/* Whether check() is worth its cost: a cheap look that may be wrong, and may block. On the
	 * thread of watch.c. */
	bool (*has_changed)(struct disk *disk);
	/* Finds out the size of the disk, and sets it. In a task; never twice at the same time. */
	void (*check)(struct disk *disk);

	/* watch.c's. */
	struct watch *next, **link;
	struct inbox_item item;
	bool due;	 /* to be checked, whatever has_changed() says */
	bool is_looking; /* has_changed() is being called */
	bool is_checking;
};

/* Begins to watch. Returns 0 or a negative errno. In a task; open() of a driver. */
int watch_add(struct watch *watch);
/* Ends it, and waits until nobody looks any more; a zeroed watch, or one that has not been added, is
 * allowed. In a task; close() of a driver. */
void watch_remove(struct watch *watch);
/* Something has happened that a new size may explain: checks soon. Any thread. */
void watch_soon(struct watch *watch);

#endif
