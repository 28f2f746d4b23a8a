/* SPDX-License-Identifier: MIT */
/*
 * An image: the disk at the top of a stack, as a file. What a user of the file may do, by bytes, is
 * decided here; ops.c and wire.c bring the requests, core/bytes.h does the work.
 *
 * The operations run in tasks and return 0 or a count, or a negative errno for the user of the
 * file.
 */
#ifndef FS_IMAGE_H
#define FS_IMAGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>
#include "core/disk.h"

/* File handles of images: bits that say how the file was opened. Stable numbers, as node ids are.
 */
enum image_handle {
	IMAGE_HANDLE_DIRECT = 1 << 0,	/* the kernel bypasses its page cache for this opener */
	IMAGE_HANDLE_WRITABLE = 1 << 1, /* opened for writing */
};

/* Opens for writing that may be followed by the truncation that O_TRUNC asks for. */
#define IMAGE_OPENERS 16

struct image {
	const char *name;
	uint64_t node_id;
	struct disk *disk;
	bool passthrough;	/* the kernel is to read and write the disk's file */
	bool shared;		/* other files are the same disk: the kernel must not cache it */
	bool kernel_has_size;	/* the kernel keeps the size to itself: cache = writeback */
	_Atomic int backing_id; /* the kernel's number of that file; 0: not yet */
	/* Attributes that the user may change; for the life of the mount. */
	pthread_mutex_t mutex;
	mode_t mode; /* permission bits */
	uid_t uid;
	gid_t gid;
	struct timespec atime, ctime;
	pid_t openers[IMAGE_OPENERS]; /* 0: free */
	unsigned next_opener;
	/* The last write that failed, of those that are no write-back: whose, and where it ended. */
	pid_t failed_pid;
	uint64_t failed_end; /* 0: none */
	_Atomic int64_t mtime_ns; /* since the epoch; negative: before it */
};

/* @mode: permission bits; the disk is open. */
void image_init(struct image *image, const char *name, uint64_t node_id, struct disk *disk,
		mode_t mode, uid_t uid, gid_t gid);
void image_destroy(struct image *image);

/* What is before 1678 or after 2261 becomes the nearest that there is, as on most file systems. */
void image_set_mtime(struct image *image, const struct timespec *time);

/* Short at the end of the disk. @flags are the opener's O_*: with O_DIRECT, what is no multiple of
 * 512 is EINVAL. @handle is the opener's. */
ssize_t image_read(struct image *image, void *data, size_t size, uint64_t offset, int flags,
		   uint64_t handle);

/*
 * Short at the end of the disk, then ENOSPC. @handle is the opener's. @from_cache: the kernel
 * writes back its page cache, and will ask for a flush by itself. @pid is the writer's.
 */
ssize_t image_write(struct image *image, const void *data, size_t size, uint64_t offset, int flags,
		    uint64_t handle, bool from_cache, pid_t pid);

int image_flush(struct image *image);

/* @mode is fallocate()'s. */
int image_fallocate(struct image *image, int mode, uint64_t offset, uint64_t length);

/* @whence is SEEK_DATA or SEEK_HOLE. */
off_t image_seek(struct image *image, off_t offset, int whence);

/* Fills everything of @stat but st_ino. */
int image_stat(struct image *image, struct stat *stat);

/* Notes an open for writing by process @pid, and tells whether the file may be opened with @flags.
 */
int image_open(struct image *image, int flags, pid_t pid);

/*
 * Sets the size, if the disk can be resized; whole sectors, at least one. To what it is: always. To
 * 0 by the process that has just opened the file for writing, since that is how O_TRUNC arrives: it
 * is ignored, as on a block device. @by_path: not by a file descriptor.
 */
int image_truncate(struct image *image, uint64_t size, bool by_path, pid_t pid);

#endif
