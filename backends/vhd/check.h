/* SPDX-License-Identifier: MIT */
/* One check of a VHD file. */
#ifndef BACKENDS_VHD_CHECK_H
#define BACKENDS_VHD_CHECK_H

#include "backends/vhd/footers.h"

/* As many bad blocks are told one by one. */
#define VHD_TOLD_MAX 100

/* The place of a block in the file, that it shares with nobody but perhaps other blocks. */
struct vhd_slot {
	uint32_t sector, block;
};

struct vhd_check {
	const struct image_check *job;
	bool repair; /* this file, not one of its parents */
	struct image_file file;
	struct vhd_footers footers;
	const struct vhd_footer *footer; /* the one to go by */
	/* Of dynamic and differencing disks, once they are found right. */
	bool has_header; /* and what follows */
	struct vhd_header header;
	struct vhd_layout layout;
	struct vhd_slot *slots; /* in the order of the file */
	uint32_t slot_count;
	uint64_t used_end; /* bytes: nothing that is in use is behind it */
};

/* Where the data of sector @sector of the block are, in bytes. */
static inline uint64_t vhd_slot_data(const struct vhd_layout *layout, const struct vhd_slot *slot,
				     uint32_t sector)
{
	return ((uint64_t)slot->sector + layout->bitmap_sectors + sector) * VHD_SECTOR;
}

/* ---- check.c ---- */

/* Tells something that is wrong; see struct image_finding. */
void vhd_finding(const struct vhd_check *check, bool is_mended, const char *remedy,
		 const char *format, ...) PRINTF_LIKE(4, 5);

/* Tells something that is not wrong, but worth knowing. */
void vhd_note(const struct vhd_check *check, const char *format, ...) PRINTF_LIKE(2, 3);

/* Makes durable what was mended; the images over this one know it by the time of its last change,
 * which stays: its disk is as it was. 0, or -1 with a sentence in @err. */
int vhd_mended(const struct vhd_check *check, struct err *err);

/* ---- check_bitmaps.c ---- */

/* Looks at the blocks that the slots are of, which is only right where all of the table is. 0, or -1
 * with a sentence in @err. */
int vhd_check_bitmaps(struct vhd_check *check, struct err *err);

/* ---- check_parents.c ---- */

/* The files of a chain, by their real paths, the image itself first. */
struct vhd_chain_files {
	char *root;   /* parents must be in this folder; real */
	char **paths; /* owned */
	unsigned count;
};

/* 0, or -1 with a sentence in @err. To be freed in any case. */
int vhd_chain_begin(struct vhd_chain_files *files, const char *path, struct err *err);
void vhd_chain_free(struct vhd_chain_files *files);

/*
 * Finds the parent of the image that was checked last, has a header and is differencing, and tells
 * what is wrong with it as a parent. 1: it is the last of @files now, to be checked itself; 0: there
 * is none that could be; or -1 with a sentence in @err.
 */
int vhd_chain_next(struct vhd_chain_files *files, const struct vhd_check *child, struct err *err);

#endif
