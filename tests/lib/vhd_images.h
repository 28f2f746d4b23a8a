/* SPDX-License-Identifier: MIT */
/* VHD images in memory, for tests: made by the program's own commands, on a medium. */
#ifndef TESTS_LIB_VHD_IMAGES_H
#define TESTS_LIB_VHD_IMAGES_H

#include "core/image.h"
#include "tests/lib/medium.h"

/* Makes an image file; @options are those of `diskfs create vhd`. Not in a task; fails the test by an
 * assertion. */
void vhd_create_file(const char *path, const char *const (*options)[2], size_t count);

/* A file's content as a medium, and back. */
void medium_load(struct medium *medium, const char *path);
void medium_save(const struct medium *medium, const char *path);

/*
 * Opens a disk of the driver vhd on @below, whose parent is the disk @parent unless that is NULL. In
 * a task. NULL with a sentence in @err.
 */
struct disk *vhd_open_on(struct disk *below, struct disk *parent, unsigned open_flags,
			 struct err *err);

/* What a check has found. */
struct vhd_findings {
	unsigned mended, mendable, left;
	char last[200]; /* the text of the last */
};

/* A finding callback for struct image_check, whose context is a struct vhd_findings. */
void vhd_count_finding(void *context, const struct image_finding *finding);

/* Checks the file, and with @repair mends it; fails, by a check, where that cannot be done. */
struct vhd_findings vhd_check_file(const char *path, bool repair);

#endif
