/* SPDX-License-Identifier: MIT */
/* VHD files as a whole, for the commands that make and check them (core/image.h). */
#ifndef BACKENDS_VHD_COMMANDS_H
#define BACKENDS_VHD_COMMANDS_H

#include "core/image.h"

extern const struct image_ops vhd_image;

/* What can be said of a new one. */
enum vhd_option_type {
	VHD_TYPE_AUTO, /* differencing where there is a parent, else dynamic */
	VHD_TYPE_FIXED,
	VHD_TYPE_DYNAMIC,
	VHD_TYPE_DIFFERENCING,
};

enum vhd_round {
	VHD_ROUND_NONE,
	VHD_ROUND_GEOMETRY,
	VHD_ROUND_MIB,
};

struct vhd_options {
	int type; /* enum vhd_option_type */
	uint64_t size;
	int round; /* enum vhd_round */
	uint64_t block_size;
	char *parent;
	bool preallocate;
};

/* As struct image_ops says. */
int vhd_create(const struct image_creation *creation, struct err *err);
enum image_verdict vhd_check(const struct image_check *check, struct err *err);

#endif
