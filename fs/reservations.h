/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations of an image: Linux's ioctls of block devices (linux/pr.h), and texts for
 * its extended attributes.
 */
#ifndef FS_RESERVATIONS_H
#define FS_RESERVATIONS_H

#include "fs/image.h"

/* The longest argument of an ioctl. */
#define RESERVATIONS_IOCTL_MAX 24

/*
 * Answers @command, whose argument is at @in as far as the command carries one in; it puts what
 * comes out to @out, of RESERVATIONS_IOCTL_MAX bytes, and its length to *length. @handle is the
 * opener's. 0 or a negative errno: -ENOTTY if the command is none of these, or the image has no
 * reservations. In a task.
 */
int reservations_ioctl(struct image *image, uint64_t handle, unsigned command, const void *in,
		       void *out, size_t *length);

enum reservations_field {
	RESERVATIONS_TYPE,
	RESERVATIONS_HOLDERS, /* their keys */
	RESERVATIONS_KEYS,    /* of all registrants */
	RESERVATIONS_GENERATION,
	RESERVATIONS_PERSIST,
};

/* The field as text, to be freed. 0 or a negative errno: -ENODATA if the image has no reservations.
 * In a task. */
int reservations_describe(struct image *image, enum reservations_field field, char **text);

#endif
