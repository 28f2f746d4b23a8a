/* SPDX-License-Identifier: MIT */
/* What the parts of the file driver share: file.c is the driver, open.c its open and close. */
#ifndef BACKENDS_FILE_FILE_H
#define BACKENDS_FILE_FILE_H

#include "core/disk.h"
#include "core/log.h"

struct file_config {
	char *path;
	uint64_t size;
	bool direct;
	bool lock;
	uint64_t sector_size;
	uint64_t physical_sector_size;
};

struct file {
	int fd;				       /* -1: none */
	uint64_t size;			       /* bytes, as found at open */
	bool in_memory;			       /* of a file system that never waits for a device */
	bool size_is_cheap;		       /* of one that tells a file's size without waiting */
	atomic_bool truncated;		       /* the file has been found shorter than the disk */
	atomic_bool nowait_read, nowait_write; /* worth trying RWF_NOWAIT */
	atomic_bool zero_range;		       /* worth trying FALLOC_FL_ZERO_RANGE */
	struct log_limit log_limit;
};

extern const struct image_ops raw_image;

/* As struct driver says. */
int file_open(struct disk *disk, struct err *err);
void file_close(struct disk *disk);

#endif
