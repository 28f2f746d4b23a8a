/* SPDX-License-Identifier: MIT */
/*
 * Block devices for tests of the driver blockdev: loop devices of a file "raw" in a scratch folder
 * (tests/lib/scratch.h), or the device that BLOCKDEV in the environment names, whose content is lost.
 */
#ifndef TESTS_LIB_DEVICE_H
#define TESTS_LIB_DEVICE_H

#include "core/disk.h"
#include "tests/lib/loop.h"

#define DEVICE_SIZE (8 * MIB)

/* A device, and a disk on it. What a test wants comes first. */
struct device {
	uint32_t sector_size;
	unsigned flags; /* enum loop_flags */
	uint64_t size;	/* 0: DEVICE_SIZE */
	void (*test)(struct device *device);
	const char *foreign; /* BLOCKDEV */
	struct loop loop;
	const char *path;
	struct disk *disk;
	struct err err;
};

/* ---- On the test's own thread. ---- */

/* False: there are no loop devices. */
bool device_begin(struct device *device);
void device_end(struct device *device);

/* The same on a loop device, or the test is skipped. */
void device_begin_own(struct device *device);

/* Runs @test in a task on an open disk, of each sector size, whole and on a partition. */
void on_each_device(void (*test)(struct device *device));

/* ---- In a task. ---- */

/* A disk on @path; @option may be NULL. NULL with a sentence in @err. */
struct disk *device_open(const char *path, unsigned flags, const char *option, const char *value,
			 struct err *err);
int device_transfer(struct disk *disk, bool is_write, void *data, uint64_t sector, size_t length);

/* ---- Anywhere. ---- */

/* Whether the file behind the device holds @data at byte @offset of the disk. */
bool device_file_holds(const struct device *device, const void *data, uint64_t offset,
		       size_t length);
/* The bytes that the file takes. */
uint64_t device_file_bytes(void);
/* The file, and with it the device, gets another size. */
void device_resize(const struct device *device, uint64_t size);

/* Page-aligned memory with a pattern; to be freed. */
char *pattern_new(size_t length, uint64_t seed);

#endif
