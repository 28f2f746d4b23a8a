// SPDX-License-Identifier: MIT
#include "tests/lib/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* So often, until nobody else takes the same free device at the same moment. */
#define ATTEMPTS 100

/* Opens a free device; its descriptor, or -1. */
static int open_free(struct loop *loop, int open_flags)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);

	if (control >= 0)
		close(control);
	if (number < 0)
		return -1;
	snprintf(loop->whole, sizeof(loop->whole), "/dev/loop%d", number);
	return open(loop->whole, open_flags | O_CLOEXEC);
}

static const char *attach(struct loop *loop, int file, uint32_t sector_size, unsigned flags)
{
	int open_flags = flags & LOOP_READ_ONLY ? O_RDONLY : O_RDWR;
	struct loop_config config = {
		.fd = (uint32_t)file,
		.block_size = sector_size,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR |
				 (flags & LOOP_READ_ONLY ? LO_FLAGS_READ_ONLY : 0U) |
				 (flags & LOOP_PARTITION ? LO_FLAGS_PARTSCAN : 0U),
	};

	for (unsigned i = 0; i < ATTEMPTS; i++) {
		loop->fd = open_free(loop, open_flags);
		if (loop->fd < 0)
			break;
		if (ioctl(loop->fd, LOOP_CONFIGURE, &config) == 0)
			return NULL;
		close(loop->fd);
		if (errno != EBUSY)
			break;
	}
	loop->fd = 0;
	return "no loop devices here";
}

/* The kernel need not know any sort of partition table for that. */
static const char *add_partition(struct loop *loop)
{
	struct blkpg_partition partition = {.start = LOOP_PARTITION_MARGIN, .pno = 1};
	struct blkpg_ioctl_arg argument = {.op = BLKPG_ADD_PARTITION,
					   .datalen = sizeof(partition),
					   .data = &partition};
	uint64_t size;

	if (ioctl(loop->fd, BLKGETSIZE64, &size) < 0)
		return "no size of a loop device";
	partition.length = (long long)(size - 2 * LOOP_PARTITION_MARGIN);
	snprintf(loop->path, sizeof(loop->path), "%sp1", loop->whole);
	if (ioctl(loop->fd, BLKPG, &argument) < 0 || access(loop->path, F_OK) < 0)
		return "no partitions of loop devices here";
	return NULL;
}

const char *loop_open(struct loop *loop, const char *path, uint32_t sector_size, unsigned flags)
{
	int file = open(path, (flags & LOOP_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	const char *missing = "no file for a loop device";

	if (file >= 0) {
		missing = attach(loop, file, sector_size, flags);
		close(file);
	}
	if (missing)
		return missing;
	snprintf(loop->path, sizeof(loop->path), "%s", loop->whole);
	if (flags & LOOP_PARTITION)
		missing = add_partition(loop);
	if (missing)
		loop_close(loop);
	return missing;
}

void loop_close(struct loop *loop)
{
	if (loop->fd > 0)
		close(loop->fd);
	loop->fd = 0;
}

bool loop_resized(const struct loop *loop)
{
	return ioctl(loop->fd, LOOP_SET_CAPACITY) == 0;
}
