// SPDX-License-Identifier: MIT
/*
 * The driver blockdev on loop devices of 512 and 4096 byte sectors, and on partitions of them.
 *
 * With BLOCKDEV=/dev/... in the environment, what makes sense on any device runs on that one
 * instead; its content is lost. With BLOCKDEV_EJECT=/dev/... that one is ejected.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/blockdev/blockdev.h"
#include "core/log.h"
#include "tests/lib/check.h"
#include "tests/lib/device.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"

/* ---- What the disk is. ---- */

static void geometry(struct device *device)
{
	const struct disk_geometry *is = &device->disk->geometry;

	if (!device->foreign) {
		CHECK_EQ(is->sector_size, device->sector_size);
		CHECK_EQ(disk_size(device->disk), device->size);
		CHECK(!is->has_id);
		CHECK(!disk_pr(device->disk));
		CHECK_EQ(is->unmap, UNMAP_UNSPECIFIED);
	}
	CHECK(is->physical_sector_size >= is->sector_size);
	CHECK(is->fua && !is->read_only);
	CHECK(is->memory_align <= is->length_align);
	CHECK_EQ(is->length_align, is->sector_size);
	CHECK(is->max_segments > 0 && is->max_segments <= FDIO_SEGMENTS);
	CHECK(is->optimal_unmap_sectors > 0);
	CHECK_KIND(disk_eject(device->disk), ERROR_UNSUPPORTED);
}

static void test_geometry(void **state)
{
	(void)state;
	on_each_device(geometry);
}

/* ---- Data. ---- */

#define MANY 3000

/* Lists of many small segments, at addresses of any sort. */
static void segments_of(struct device *device, size_t part, size_t shift)
{
	uint32_t sector_size = disk_sector_size(device->disk);
	size_t length = align_down(MANY * part, sector_size), gap = part + 64;
	struct iovec *iov = calloc(MANY + 1, sizeof(*iov));
	char *memory = calloc(MANY + 1, gap), *data = malloc(length), *back = malloc(length);
	struct sg sg = {.iov = iov, .len = length};

	for (unsigned i = 0; i <= MANY; i++)
		iov[i] = (struct iovec){memory + i * gap + shift, part};
	pattern_fill(data, length, part + shift);
	sg_copy_from(&sg, data);
	CHECK_OK(disk_write(device->disk, &sg, 5, 0));
	CHECK_OK(device_transfer(device->disk, false, back, 5, length));
	CHECK(memcmp(data, back, length) == 0);
	if (!device->foreign)
		CHECK(device_file_holds(device, data, 5ULL * sector_size, length));
	memset(memory, 0, (MANY + 1) * gap);
	CHECK_OK(disk_read(device->disk, &sg, 5));
	sg_copy_to(&sg, back);
	CHECK(memcmp(data, back, length) == 0);
	free(iov);
	free(memory);
	free(data);
	free(back);
}

static void segments(struct device *device)
{
	segments_of(device, 512, 0);
	segments_of(device, 512, 4);
	segments_of(device, 100, 1);
	segments_of(device, 516, 8);
}

static void test_segments(void **state)
{
	(void)state;
	on_each_device(segments);
}

/* Memory that the device cannot reach as it is, and that it can; at the end of the disk, too. */
static void edges(struct device *device)
{
	struct disk *disk = device->disk;
	uint32_t size = disk_sector_size(disk);
	uint64_t last = disk_sector_count(disk) - 1;
	char *data = pattern_new(3 * size, 2), *back = malloc(3 * size + 8);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, 3 * size);

	for (unsigned shift = 0; shift < 8; shift += 2) {
		CHECK_OK(device_transfer(disk, true, data, last - 2, 3 * size));
		memset(back, 0, 3 * size + 8);
		CHECK_OK(device_transfer(disk, false, back + shift, last - 2, 3 * size));
		CHECK(memcmp(back + shift, data, 3 * size) == 0);
		CHECK_OK(device_transfer(disk, true, back + shift, 0, 3 * size));
		CHECK_OK(device_transfer(disk, false, back, 0, 3 * size));
		CHECK(memcmp(back, data, 3 * size) == 0);
	}
	CHECK_OK(disk_write(disk, &sg, 7, DISK_FUA));
	CHECK_OK(disk_flush(disk));
	CHECK_KIND(device_transfer(disk, true, data, last, 2 * size), ERROR_ILLEGAL_BLOCK);
	if (!device->foreign)
		CHECK(device_file_holds(device, data, (last - 2) * size, 3 * size));
	free(data);
	free(back);
}

static void test_edges(void **state)
{
	(void)state;
	on_each_device(edges);
}

/* ---- Zeros and discards. ---- */

static void zeroes(struct device *device)
{
	/* A loop device of a file on tmpfs forgets how to punch holes once it has been asked for
	 * zeros without. */
	static const unsigned ways[] = {DISK_MAY_UNMAP, DISK_FUA | DISK_MAY_UNMAP, 0, DISK_FUA};
	struct disk *disk = device->disk;
	uint32_t size = disk_sector_size(disk);
	size_t length = 2 * MIB;
	char *data = pattern_new(length, 3), *back = malloc(length);
	uint64_t count = MIB / size;

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		CHECK_OK(device_transfer(disk, true, data, 0, length));

		uint64_t full = device_file_bytes();

		CHECK_OK(disk_write_zeroes(disk, count / 2, count, ways[i]));
		CHECK_OK(device_transfer(disk, false, back, 0, length));
		CHECK(memcmp(back, data, length / 4) == 0);
		CHECK_EQ(bytes_differ(back + length / 4, MIB, 0), MIB);
		CHECK(memcmp(back + length / 4 * 3, data + length / 4 * 3, length / 4) == 0);
		if (!device->foreign && (ways[i] & DISK_MAY_UNMAP))
			CHECK(device_file_bytes() < full - MIB / 2);
	}
	CHECK_KIND(disk_write_zeroes(disk, disk_sector_count(disk), 1, 0), ERROR_ILLEGAL_BLOCK);
	free(data);
	free(back);
}

static void test_zeroes(void **state)
{
	(void)state;
	on_each_device(zeroes);
}

/* By the ring, and as on a kernel that does not know that. */
static void discards(struct device *device)
{
	struct disk *disk = device->disk;
	struct blockdev *blockdev = disk->state;
	uint32_t size = disk_sector_size(disk);
	size_t length = 4 * MIB;
	char *data = pattern_new(length, 4), *back = malloc(length);

	for (unsigned ring = 0; ring < 2; ring++) {
		atomic_store(&blockdev->ring_discard, ring);
		CHECK_OK(device_transfer(disk, true, data, 0, length));

		uint64_t full = device_file_bytes();

		CHECK_OK(disk_unmap(disk, MIB / size, 2 * MIB / size));
		CHECK_OK(device_transfer(disk, false, back, 0, length));
		CHECK(memcmp(back, data, MIB) == 0);
		CHECK(memcmp(back + 3 * MIB, data + 3 * MIB, MIB) == 0);
		if (!device->foreign)
			CHECK(device_file_bytes() <= full - 2 * MIB);
	}
	/* All of it, in several calls where it is large. */
	CHECK_OK(disk_unmap(disk, 0, disk_sector_count(disk)));
	free(data);
	free(back);
}

static void test_discards(void **state)
{
	(void)state;
	on_each_device(discards);
}

/* ---- Many at once. ---- */

#define TASKS 16

static void one_of_many(unsigned index, void *argument)
{
	struct device *device = argument;
	size_t length = 64 * KIB;
	uint64_t sector = index * length / disk_sector_size(device->disk);
	char *data = pattern_new(length, index), *back = malloc(length);

	for (unsigned i = 0; i < 20; i++) {
		pattern_fill(data, length, index * 100 + i);
		CHECK_OK(device_transfer(device->disk, true, data, sector, length));
		CHECK_OK(device_transfer(device->disk, false, back, sector, length));
		CHECK(memcmp(data, back, length) == 0);
		if (i % 4 == 1)
			CHECK_OK(disk_flush(device->disk));
		if (i % 4 == 2)
			CHECK_OK(disk_unmap(device->disk, sector,
					    length / disk_sector_size(device->disk)));
	}
	free(data);
	free(back);
}

static void open_task(void *argument)
{
	struct device *device = argument;

	device->disk = device_open(device->path, 0, NULL, NULL, &device->err);
	CHECK_TEXT(device->err.text, "");
}

static void close_task(void *argument)
{
	struct device *device = argument;

	disk_close(device->disk);
}

static void test_many(void **state)
{
	struct device device = {.sector_size = 512};

	(void)state;
	if (!device_begin(&device))
		skip();
	run_task(open_task, &device);
	run_tasks(TASKS, one_of_many, &device);
	run_task(close_task, &device);
	device_end(&device);
}

/* ---- What is refused. ---- */

/* Opens @path, which has to fail; returns what was said, with the path cut out. */
static const char *refusal(const char *path, unsigned flags, const char *option, const char *value)
{
	static char text[sizeof(((struct err *)0)->text)];
	char quoted[100];
	struct err err;
	char *found;

	snprintf(quoted, sizeof(quoted), "'%s'", path);
	if (!CHECK(!device_open(path, flags, option, value, &err)))
		return "opened";
	found = strstr(err.text, quoted);
	CHECK(found);
	snprintf(text, sizeof(text), "%s", found ? found + strlen(quoted) : err.text);
	return text;
}

static void refused_task(void *argument)
{
	const char *path = argument; /* of a loop device without a byte */
	char text[200];

	scratch_write("file", "x", 1);
	CHECK_TEXT(refusal("file", 0, NULL, NULL),
		   " is no block device: driver = file serves files");
	CHECK_TEXT(refusal("/dev/null", 0, NULL, NULL), " is no block device");
	snprintf(text, sizeof(text), ": %s", strerror(ENOENT));
	CHECK_TEXT(refusal("missing", 0, NULL, NULL), text);
	CHECK_TEXT(refusal(path, 0, NULL, NULL),
		   " has no medium, or nothing stands behind it: its size is 0");
}

static void test_refused(void **state)
{
	struct device device = {.sector_size = 512};

	(void)state;
	device_begin_own(&device);
	device_resize(&device, 0);
	run_task(refused_task, (void *)(uintptr_t)device.path);
	device_end(&device);
}

static void read_only_task(void *argument)
{
	struct device *device = argument;
	char sector[4096];
	struct err err;

	CHECK_TEXT(refusal(device->path, 0, NULL, NULL), " is read-only: set readonly = yes");
	CHECK_TEXT(refusal(device->path, DISK_OPEN_CHECK, NULL, NULL),
		   " is read-only: set readonly = yes");

	struct disk *disk = device_open(device->path, DISK_OPEN_READ_ONLY, NULL, NULL, &err);

	CHECK_TEXT(err.text, "");
	CHECK(disk_is_read_only(disk));
	CHECK_OK(device_transfer(disk, false, sector, 0, sizeof(sector)));
	CHECK_KIND(device_transfer(disk, true, sector, 0, sizeof(sector)), ERROR_READ_ONLY);
	CHECK_KIND(disk_unmap(disk, 0, 1), ERROR_READ_ONLY);
	CHECK_OK(disk_flush(disk));
	disk_close(disk);
}

static void test_read_only(void **state)
{
	struct device device = {.sector_size = 4096, .flags = LOOP_READ_ONLY};

	(void)state;
	device_begin_own(&device);
	run_task(read_only_task, &device);
	device_end(&device);
}

/* Takes the lock that QEMU holds as long as it writes. */
static int open_as_qemu(const char *path)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	return fd;
}

static void claimed_task(void *argument)
{
	static const char in_use[] = " is in use: another program has claimed it for itself "
				     "(shared = yes opens it all the same)";
	struct device *device = argument;
	struct err err;
	struct disk *first = device_open(device->path, 0, NULL, NULL, &err), *second;

	CHECK_TEXT(err.text, "");
	CHECK_TEXT(refusal(device->path, 0, NULL, NULL), in_use);
	CHECK_TEXT(refusal(device->path, DISK_OPEN_READ_ONLY, NULL, NULL), in_use);
	/* The whole of which it is a part. */
	if (device->flags & LOOP_PARTITION)
		CHECK_TEXT(refusal(device->loop.whole, 0, NULL, NULL), in_use);
	/* Whoever only looks, and whoever shares, is let in. */
	second = device_open(device->path, DISK_OPEN_CHECK, NULL, NULL, &err);
	CHECK_TEXT(err.text, "");
	disk_close(second);
	second = device_open(device->path, 0, "shared", "yes", &err);
	CHECK_TEXT(err.text, "");
	disk_close(second);
	disk_close(first);

	int fd = open_as_qemu(device->path);

	CHECK_TEXT(refusal(device->path, 0, NULL, NULL),
		   " is in use by another program, perhaps QEMU (shared = yes opens it all the "
		   "same)");
	second = device_open(device->path, 0, "shared", "yes", &err);
	CHECK_TEXT(err.text, "");
	disk_close(second);
	close(fd);
	/* Nothing is left of any of them. */
	second = device_open(device->path, 0, NULL, NULL, &err);
	CHECK_TEXT(err.text, "");
	disk_close(second);
}

static void test_claimed(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct device device = {.sector_size = 512, .flags = i ? LOOP_PARTITION : 0};

		device_begin_own(&device);
		check_context("%s", i ? "a partition" : "whole");
		run_task(claimed_task, &device);
		device_end(&device);
	}
}

/* ---- Another size. ---- */

static void sizes(struct device *device)
{
	struct disk *disk = device->disk;
	uint32_t size = disk_sector_size(disk);
	uint64_t count = disk_sector_count(disk);
	char *data = pattern_new(2 * size, 5);

	if (device->foreign || (device->flags & LOOP_PARTITION))
		goto done; /* a partition stays what it is */
	/* Larger: noticed when somebody asks for it. */
	device_resize(device, device->size + MIB);
	CHECK_EQ(disk_sector_count(disk), count);
	blockdev_check_size(disk);
	CHECK_EQ(disk_sector_count(disk), count + MIB / size);
	CHECK_OK(device_transfer(disk, true, data, count, 2 * size));
	/* Smaller: noticed by every sort of request behind the end; none of them passes for a
	 * success. */
	for (unsigned i = 0; i < 5; i++) {
		device_resize(device, device->size + MIB);
		blockdev_check_size(disk);
		device_resize(device, device->size);
		check_context("smaller, request %u", i);
		if (i == 0)
			CHECK_KIND(device_transfer(disk, false, data, count, size),
				   ERROR_ILLEGAL_BLOCK);
		else if (i == 1)
			CHECK_KIND(device_transfer(disk, true, data, count - 1, 2 * size),
				   ERROR_ILLEGAL_BLOCK);
		else if (i == 2)
			CHECK_KIND(disk_write_zeroes(disk, count - 1, 2, 0), ERROR_ILLEGAL_BLOCK);
		else if (i == 3)
			CHECK_KIND(disk_write_zeroes(disk, count - 1, 2, DISK_MAY_UNMAP),
				   ERROR_ILLEGAL_BLOCK);
		else
			CHECK_KIND(disk_unmap(disk, count - 1, 2), ERROR_ILLEGAL_BLOCK);
		CHECK_EQ(disk_sector_count(disk), count);
	}
	CHECK_OK(device_transfer(disk, false, data, count - 1, size));
done:
	free(data);
}

static void test_sizes(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	on_each_device(sizes);
}

/* ---- Eject. ---- */

static void eject_task(void *argument)
{
	const char *path = argument;
	char sector[4096];
	struct err err;
	struct disk *disk = device_open(path, 0, NULL, NULL, &err);

	CHECK_TEXT(err.text, "");
	if (!disk)
		return;
	CHECK_OK(disk_eject(disk));
	CHECK(device_transfer(disk, false, sector, 0, sizeof(sector)) != 0);
	disk_close(disk);
}

static void test_eject(void **state)
{
	char *path = getenv("BLOCKDEV_EJECT");

	(void)state;
	if (!path)
		return; /* that of what cannot be ejected is in test_geometry */
	run_task(eject_task, path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_geometry), cmocka_unit_test(test_segments),
		cmocka_unit_test(test_edges),	 cmocka_unit_test(test_zeroes),
		cmocka_unit_test(test_discards), cmocka_unit_test(test_many),
		cmocka_unit_test(test_refused),	 cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_claimed),	 cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_eject),
	};

	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
