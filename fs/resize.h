/* SPDX-License-Identifier: MIT */
/*
 * What the kernel knows of an image, its size and the pages that it has cached, follows the disk.
 */
#ifndef FS_RESIZE_H
#define FS_RESIZE_H

#include <pthread.h>
#include "core/lock.h"

struct image;
struct mount;

/* Of one image. */
struct follower {
	struct mount *mount;
	struct image *image;
	/* Bytes, guarded by the mutex of all followers. */
	uint64_t seen;	     /* the size of the disk when it last changed */
	uint64_t told;	     /* the size that the kernel was last told of */
	uint64_t stale_from; /* where what the kernel has may have changed; UINT64_MAX: nowhere */
	bool is_running;     /* a task tells the kernel */
	/* With cache = writeback. */
	unsigned openers;
	bool was_closed;   /* by the last of them, since the task looked */
	bool has_old_size; /* the kernel may take the file for longer than the disk is */
};

struct followers {
	struct follower *all; /* one for each image */
	size_t count;
	pthread_mutex_t mutex;
	bool is_open;	  /* the kernel can be told */
	bool is_ending;	  /* nothing is begun any more */
	unsigned running; /* tasks */
	struct task_mutex notify_mutex;
};

/*
 * Once the images are there, before the kernel knows of any: from now on changes are noticed. The
 * disks must be closed before the mount is freed. 0, or -ENOMEM. Not on a worker.
 */
int followers_init(struct mount *mount);
void followers_destroy(struct mount *mount);

/* INIT has been answered: the kernel is told of changes, at once of those that there have been. Not
 * on a worker. */
void followers_begin(struct mount *mount);

/* An image has been opened, released, or forgotten by the kernel. */
void follower_opened(struct mount *mount, const struct image *image);
void follower_released(struct mount *mount, const struct image *image);
void follower_forgotten(struct mount *mount, const struct image *image);

/*
 * Begins nothing more. What is under way needs the workers to serve the kernel's requests until
 * followers_running() is 0.
 */
void followers_end(struct mount *mount);
unsigned followers_running(struct mount *mount);

#endif
