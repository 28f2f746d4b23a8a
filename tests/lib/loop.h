/* SPDX-License-Identifier: MIT */
/*
 * Loop devices for tests. A loop device lasts as long as the descriptor that the struct holds, or
 * somebody else's: also when the test dies, nothing is left of it.
 */
#ifndef TESTS_LIB_LOOP_H
#define TESTS_LIB_LOOP_H

#include "core/util.h"

enum loop_flags {
	LOOP_READ_ONLY = 1 << 0,
	/* The device has one partition, with a megabyte before and behind it. */
	LOOP_PARTITION = 1 << 1,
};

#define LOOP_PARTITION_MARGIN MIB

struct loop {
	int fd;		/* of the whole device; 0: none */
	char whole[32]; /* /dev/loopN */
	char path[40];	/* of what the disk shall be: the whole device or the partition */
};

/*
 * Makes one of the file @path, whose size is a multiple of @sector_size. NULL, or what is missing:
 * no root, no loop devices.
 */
const char *loop_open(struct loop *loop, const char *path, uint32_t sector_size, unsigned flags);

/* Gives up the test's own descriptor. */
void loop_close(struct loop *loop);

/* The kernel looks at the size of the file again. */
bool loop_resized(const struct loop *loop);

#endif
