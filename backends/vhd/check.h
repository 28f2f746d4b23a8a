/* SPDX-License-Identifier: MIT */
/* One check of a VHD file. */
#ifndef BACKENDS_VHD_CHECK_H
#define BACKENDS_VHD_CHECK_H

#include "backends/vhd/footers.h"

/* The place of a block in the file, that it shares with nobody but perhaps other blocks. */
struct vhd_slot {
	uint32_t sector, block;
};

struct vhd_check {
	const struct image_check *job;
	struct image_file file;
	struct vhd_footers footers;
	const struct vhd_footer *footer; /* the one to go by */
	/* Of dynamic and differencing disks, once they are found right. */
	struct vhd_header header;
	struct vhd_layout layout;
	struct vhd_slot *slots; /* in the order of the file */
	uint32_t slot_count;
	uint64_t used_end; /* bytes: nothing that is in use is behind it */
};

/* Tells something that is wrong; see struct image_finding. */
void vhd_finding(const struct vhd_check *check, bool is_mended, const char *remedy,
		 const char *format, ...) PRINTF_LIKE(4, 5);

#endif
