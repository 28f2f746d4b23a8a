/* SPDX-License-Identifier: MIT */
/*
 * The parent of a differencing image: where it may be (locate.c), and whether a file is it
 * (kinship.c). For whoever has read the image: the driver, and the check of a file. May block.
 */
#ifndef BACKENDS_VHD_LINEAGE_H
#define BACKENDS_VHD_LINEAGE_H

#include "backends/vhd/format.h"

/* The image whose parent is looked for. */
struct vhd_child {
	const struct vhd_header *header;
	/* Reads whole sectors of its file; 0, or an error. */
	int (*load)(const void *context, void *data, uint64_t sector, uint64_t count);
	const void *context;
};

/* ---- locate.c ---- */

/* Paths at which the parent of an image may be, in the order in which they are tried. */
#define CANDIDATES_MAX (2 * VHD_LOCATORS + 1)

struct candidates {
	char *paths[CANDIDATES_MAX]; /* owned */
	unsigned count;
};

/* @path is of the image. 0, or -1 with a sentence in @err. */
int candidates_find(const struct vhd_child *child, const char *path, struct candidates *candidates,
		    struct err *err);
void candidates_free(struct candidates *candidates);
/* None of them is there: sets @err, and returns -1. */
int candidates_missing(const struct candidates *candidates, struct err *err);

/* The real folder of a file, to be freed. NULL with a sentence in @err. */
char *folder_of(const char *path, struct err *err);
/* Whether @real, a real path, is in the folder @root or below. If not: -1 with a sentence in @err. */
int folder_check(const char *root, const char *real, struct err *err);

/* ---- kinship.c ---- */

enum kinship {
	KIN_PARENT,
	KIN_CHANGED, /* it has been the parent, but is not as it was */
	KIN_STRANGER,
};

/*
 * What a file, called @name, with the footer @footer, is to the image. @changed: the time of its last
 * change; NULL: it is not known. Unless it is the parent, @err has a sentence.
 */
enum kinship kinship_of(const struct vhd_header *child, const struct vhd_footer *footer,
			const char *name, const uint32_t *changed, struct err *err);

#endif
