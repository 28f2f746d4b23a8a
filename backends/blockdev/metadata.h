/* SPDX-License-Identifier: MIT */
/*
 * What a block device says of itself: by ioctl, and by sysfs where only that has it. May block.
 */
#ifndef BACKENDS_BLOCKDEV_METADATA_H
#define BACKENDS_BLOCKDEV_METADATA_H

#include "core/error.h"

#define BLOCKDEV_IDENTITY_MAX 160

struct blockdev_metadata {
	/* By ioctl. */
	uint64_t size;		       /* bytes */
	uint32_t sector_size;	       /* logical, bytes */
	uint32_t physical_sector_size; /* bytes */
	bool read_only;
	bool rotational;
	/* By sysfs; 0, false or "" where that says nothing. Of a partition, mostly those of its
	 * whole device. */
	bool removable;
	unsigned partition; /* its number; 0: a whole device */
	bool fua;	    /* the device has writes that go past its cache */
	bool write_cache;
	bool is_zoned;
	uint64_t discard_granularity; /* bytes */
	uint64_t discard_max;	      /* bytes of one discard; 0: it has none */
	uint64_t write_zeroes_max;    /* bytes; 0: it has none, the kernel writes zeros */
	uint32_t dma_align;	      /* bytes; of memory */
	uint64_t max_transfer;	      /* bytes that the device takes at once */
	unsigned max_segments;
	/* Which medium it is, wherever it is attached: the WWN or the like; "": not known. */
	char identity[BLOCKDEV_IDENTITY_MAX];
};

/* Fills what ioctls tell. -1 with a sentence in @err that does not name the device. */
int metadata_ask(int fd, struct blockdev_metadata *metadata, struct err *err);

/* Fills what sysfs tells; @folder is that of the device. False: there is no such folder. */
bool metadata_read(const char *folder, struct blockdev_metadata *metadata);

/*
 * The id of a disk with that identity: the same for every path to the same medium, another for each
 * of its partitions. False: there is none.
 */
bool metadata_id(const struct blockdev_metadata *metadata, uint8_t id[static 16]);

/* Reads the first line of a file of sysfs, without blanks at its ends. False: there is no such
 * file, or it is empty. */
bool sysfs_line(const char *folder, const char *name, char *text, size_t size);

/* A decimal number; 0 where there is no such file, or something else in it. */
uint64_t sysfs_number(const char *folder, const char *name);

#endif
