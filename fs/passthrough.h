/* SPDX-License-Identifier: MIT */
/*
 * Passthrough (Linux 6.9): the kernel reads, writes and maps the file of a disk that is nothing but
 * a raw file, without asking us. What is no read, write or mmap still comes here: fsync, fallocate,
 * seeking, attributes.
 *
 * The kernel wants all openers of a file to be served so, or none.
 */
#ifndef FS_PASSTHROUGH_H
#define FS_PASSTHROUGH_H

#include "core/error.h"

struct image;
struct mount;

/* After INIT: makes the files of all images that want it known to the kernel. Returns 0, or -1 with
 * a sentence in @err where that cannot be. Not on a worker. */
int passthrough_begin(struct mount *mount, struct err *err);

/* An opener comes: 0 or a negative errno. Does not wait. */
int passthrough_open(struct mount *mount, struct image *image);

/* At the end: warns of files that have grown, since nothing keeps the kernel from writing beyond
 * the end of the disk. */
void passthrough_check(struct mount *mount);

#endif
