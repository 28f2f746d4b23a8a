/* SPDX-License-Identifier: MIT */
/* The footer of a VHD file and its copy, as the commands read them. */
#ifndef BACKENDS_VHD_FOOTERS_H
#define BACKENDS_VHD_FOOTERS_H

#include "backends/image/image_file.h"
#include "backends/vhd/format.h"

/* The two places where a footer may be. */
struct vhd_footers {
	uint8_t end_bytes[VHD_FOOTER_SIZE], copy_bytes[VHD_FOOTER_SIZE];
	uint64_t end_offset;	/* where the one at the end is, or would be */
	uint32_t end_length;	/* VHD_FOOTER_SIZE or VHD_OLD_FOOTER_SIZE; 0: there is none */
	bool has_end, has_copy; /* right ones */
	struct vhd_footer end, copy;
	/* Why not; empty where nothing there looks like a footer. */
	struct err end_err, copy_err;
};

/* -1: the file could not be read. */
int vhd_footers_read(const struct image_file *file, struct vhd_footers *footers, struct err *err);
/* The one to go by, or NULL. */
const struct vhd_footer *vhd_footers_best(const struct vhd_footers *footers);

/* Whether both are right, and of different disks. */
bool vhd_footers_conflict(const struct vhd_footers *footers);

#endif
