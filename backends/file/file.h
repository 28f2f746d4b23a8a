/* SPDX-License-Identifier: MIT */
/* What the parts of the file driver share: file.c is the driver, open.c its open and close,
 * resize.c its size. */
#ifndef BACKENDS_FILE_FILE_H
#define BACKENDS_FILE_FILE_H

#include "backends/fdio.h"
#include "core/disk.h"
#include "core/log.h"
#include "core/resizable.h"
#include "core/watch.h"

struct file_config {
	char *path;
	uint64_t size;
	bool direct;
	bool lock;
	uint64_t sector_size;
	uint64_t physical_sector_size;
	int resizable;
};

struct file {
	struct fdio io;
	/* Bytes, as far as is known; never more than the file has, unless somebody truncates it. */
	_Atomic uint64_t size;
	_Atomic unsigned sizes; /* how often `size` has changed */
	bool size_is_cheap;	/* of a file system that tells a file's size without waiting */
	atomic_bool truncated;	/* the file has been found shorter than the disk */
	atomic_bool zero_range; /* worth trying FALLOC_FL_ZERO_RANGE */
	atomic_bool is_shared;	/* somebody has got the file itself, see file_raw_file() */
	struct task_mutex resize_mutex;
	struct watch watch;
	bool is_ready; /* the two are there */
	struct log_limit log_limit;
};

extern const struct image_ops raw_image;

/* As struct driver says. */
int file_open(struct disk *disk, struct err *err);
void file_close(struct disk *disk);
int file_resize(struct disk *disk, uint64_t count);

/* As struct watch says. */
bool file_size_differs(struct disk *disk);
void file_check_size(struct disk *disk);

/* The file ends where it did not, and that is noted and told, once; returns the error that requests
 * beyond the end get. */
int file_truncated(struct disk *disk, uint64_t offset);

#endif
