/* SPDX-License-Identifier: MIT */
/*
 * A mount: its images, its way to the kernel, its life.
 *
 * Node ids: 1 is the root; 2, 3 and 4 are the status files; an image's is a hash of its name, so
 * that it stays the same from one run to the next, whatever else comes or goes.
 */
#ifndef FS_MOUNT_H
#define FS_MOUNT_H

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include "conf/config.h"
#include "fs/channel.h"
#include "fs/image.h"
#include "fs/resize.h"
#include "fs/settings.h"
#include "fs/status.h"

enum {
	NODE_ROOT = 1,
	NODE_STATUS_FIRST = 2,
};

struct fuse_session;

struct mount {
	const struct settings *settings;
	struct config *config;
	char *mountpoint; /* absolute */
	time_t started;

	struct image *images; /* in the order of the configuration */
	size_t image_count;
	uint32_t *table; /* open addressing: node id & mask -> index in images + 1, 0 is free */
	uint64_t table_mask;

	struct status_files status;
	struct followers followers;

	struct fuse_session *session;
	struct kernel_link link;
	struct channel *channels; /* one for each worker */
	unsigned channel_count;
	int event_fd; /* readable once the kernel has ended the mount */
	_Atomic unsigned closed_channels;
	atomic_bool broken; /* a channel has failed otherwise than by the kernel's wish */
	sem_t settled; /* posted once INIT has been answered, or the kernel has ended the mount */
	bool passthrough;		   /* some image wants it */
	bool uring_ready;		   /* the channels have entries for the ring */
	const char *_Atomic uring_refused; /* why the ring is not used */
};

/* A mount of the images of @config, to be started. NULL: out of memory. */
struct mount *mount_new(const struct settings *settings, struct config *config);

/*
 * Mounts on @mountpoint (resolved), with the FUSE options @options ("ro,nosuid" or ""). Workers
 * run, disks are open. On success (0) the mount answers; else -1 with a sentence in @err, and
 * nothing is mounted. Not on a worker.
 */
int mount_start(struct mount *mount, const char *mountpoint, const char *options, struct err *err);

/*
 * Serves until the mount is ended from outside or a signal of @signals arrives (which are blocked),
 * and ends it. Returns false where requests had to be abandoned: then the process can only exit,
 * which aborts them. Not on a worker. (end.c)
 */
bool mount_run(struct mount *mount, const sigset_t *signals);

/* Parts of both: lets all workers stop serving; gives up the kernel's side. */
void mount_stop_channels(struct mount *mount);
void mount_disconnect(struct mount *mount);

/* Releases a mount that has ended or never begun, after the workers: their rings may hold on to its
 * channels until then. NULL is allowed. */
void mount_free(struct mount *mount);

/* The image with this node id, or with this name; NULL. Any thread. */
struct image *image_find(const struct mount *mount, uint64_t node_id);
struct image *image_find_name(const struct mount *mount, const char *name);

/* INIT has been answered. On a worker. */
void mount_initialized(struct mount *mount);

/* The kernel has ended a channel with @errnum. On a worker. */
void mount_closed(struct mount *mount, int errnum);

#endif
