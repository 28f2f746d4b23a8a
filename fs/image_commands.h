/* SPDX-License-Identifier: MIT */
/*
 * Commands on single image files, without a configuration: create, check. What formats there are
 * the drivers say (core/image.h).
 */
#ifndef FS_IMAGE_COMMANDS_H
#define FS_IMAGE_COMMANDS_H

#include "core/disk.h"
#include "core/image.h"

/* Exit statuses of check, which are those of fsck(8). */
enum check_status {
	CHECK_CLEAN = 0,
	CHECK_MENDED = 1,
	CHECK_LEFT = 4,	  /* something is wrong */
	CHECK_FAILED = 8, /* it could not be checked */
	CHECK_USAGE = 16,
};

/* @arguments: the format, the path, and @option_count KEY=VALUE. Returns the exit status. */
int create_image(const struct driver *const *drivers, char *const *arguments, int option_count,
		 bool replace);
/* Prints the formats, and what each takes. */
void create_help(const struct driver *const *drivers);

/* Returns the exit status. */
int check_image(const struct driver *const *drivers, const char *path, bool repair);

#endif
