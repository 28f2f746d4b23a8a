/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the driver share above images: vhd.c (options, opening, what it is), chain.c
 * (parents), access.c (requests). Private to them.
 *
 * A disk is a chain of images: its own, that one's parent, and so on, down to one that is not
 * differencing. Only the first is ever written to. Each sector is read from the first image that
 * has it.
 */
#ifndef BACKENDS_VHD_VHD_H
#define BACKENDS_VHD_VHD_H

#include "backends/vhd/image.h"

enum parent_time {
	PARENT_TIME_CHECK,
	PARENT_TIME_IGNORE,
};

struct vhd_config {
	char *parent;	     /* path; NULL: as the image says */
	char *parent_folder; /* NULL: the folder of the image */
	int parent_time;     /* enum parent_time */
	int size_from;	     /* enum vhd_size_rule */
};

struct parent;

struct vhd {
	struct vhd_image *image;
	/* The images from the top down; the first is `image`. */
	struct vhd_image **chain;
	unsigned depth;
	/* Those that belong to files that we have found, for the release: chain[1] and on. */
	struct parent **parents;
	unsigned parent_count;
};

/* ---- chain.c. In a task. ---- */

/* Completes the chain, once disk->state->image is open. 0, or -1 with a sentence in @err. */
int chain_open(struct disk *disk, struct err *err);
void chain_close(struct vhd *vhd);
void chain_inspect(const struct vhd *vhd, struct report *report);

/* The file that a disk stands on, as a path; NULL: it is none, or another driver's secret. */
const char *disk_path(const struct disk *disk);

/* ---- access.c: as struct driver says. ---- */

int vhd_read(struct disk *disk, const struct sg *sg, uint64_t sector);
int vhd_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags);
int vhd_flush(struct disk *disk);
int vhd_unmap(struct disk *disk, uint64_t sector, uint64_t count);
int vhd_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags);
int vhd_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent);
int vhd_part(struct disk *disk, uint64_t sector, uint64_t count, struct disk_part *part);

#endif
