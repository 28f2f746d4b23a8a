// SPDX-License-Identifier: MIT
#include "tests/lib/device.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/list.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/stacks.h"

static void make_file(uint64_t size)
{
	int fd = open("raw", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

bool device_begin(struct device *device)
{
	const char *missing;

	device->foreign = getenv("BLOCKDEV");
	scratch_enter();
	if (device->foreign) {
		device->path = device->foreign;
		return true;
	}
	if (device->size == 0)
		device->size = DEVICE_SIZE;
	make_file(device->size + (device->flags & LOOP_PARTITION ? 2 * LOOP_PARTITION_MARGIN : 0));
	missing = loop_open(&device->loop, "raw", device->sector_size, device->flags);
	device->path = device->loop.path;
	if (!missing)
		return true;
	scratch_leave();
	print_message("skipped - %s\n", missing);
	return false;
}

void device_end(struct device *device)
{
	loop_close(&device->loop);
	scratch_leave();
}

void device_begin_own(struct device *device)
{
	if (getenv("BLOCKDEV") || !device_begin(device))
		skip();
}

struct disk *device_open(const char *path, unsigned flags, const char *option, const char *value,
			 struct err *err)
{
	const char *options[][2] = {{"path", path}, {option, value}};

	err->text[0] = '\0';
	return driver_open(driver_find("blockdev"), (const char *const(*)[2])options, 2, flags,
			   NULL, err);
}

static void device_task(void *argument)
{
	struct device *device = argument;

	device->disk = device_open(device->path, 0, NULL, NULL, &device->err);
	CHECK_TEXT(device->err.text, "");
	if (!device->disk)
		return;
	device->test(device);
	disk_close(device->disk);
}

void on_each_device(void (*test)(struct device *device))
{
	for (unsigned i = 0; i < 4; i++) {
		struct device device = {
			.sector_size = i % 2 ? 4096 : 512,
			.flags = i / 2 ? LOOP_PARTITION : 0,
			.test = test,
		};

		if (!device_begin(&device))
			skip();
		check_context("sectors of %u%s", device.sector_size,
			      device.flags ? ", a partition" : "");
		run_task(device_task, &device);
		device_end(&device);
		if (device.foreign)
			break;
	}
}

bool device_file_holds(const struct device *device, const void *data, uint64_t offset,
		       size_t length)
{
	char *is = malloc(length);
	int fd = open("raw", O_RDONLY | O_CLOEXEC);
	bool held;

	if (device->flags & LOOP_PARTITION)
		offset += LOOP_PARTITION_MARGIN;
	held = pread(fd, is, length, (off_t)offset) == (ssize_t)length &&
	       memcmp(is, data, length) == 0;
	close(fd);
	free(is);
	return held;
}

void device_resize(const struct device *device, uint64_t size)
{
	CHECK_EQ(truncate("raw", (off_t)size), 0);
	CHECK(loop_resized(&device->loop));
}

uint64_t device_file_bytes(void)
{
	struct stat stat_buffer;

	return stat("raw", &stat_buffer) == 0 ? (uint64_t)stat_buffer.st_blocks * 512 : 0;
}

int device_transfer(struct disk *disk, bool is_write, void *data, uint64_t sector, size_t length)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, length);

	return is_write ? disk_write(disk, &sg, sector, 0) : disk_read(disk, &sg, sector);
}

char *pattern_new(size_t length, uint64_t seed)
{
	char *data = aligned_alloc(4096, align_up(length, 4096));

	assert_non_null(data);
	pattern_fill(data, length, seed);
	return data;
}
