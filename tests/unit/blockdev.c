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
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/blockdev/blockdev.h"
#include "backends/list.h"
#include "core/log.h"
#include "tests/lib/check.h"
#include "tests/lib/loop.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/stacks.h"

#define SIZE (8 * MIB)

/* ---- Devices. ---- */

/* A device for a test, and a disk on it. */
struct fixture {
	uint32_t sector_size;
	unsigned flags; /* enum loop_flags */
	uint64_t size;
	const char *foreign; /* BLOCKDEV */
	struct loop loop;
	const char *path;
	struct disk *disk;
	struct err err;
	void (*test)(struct fixture *fixture);
};

static void fixture_file(const struct fixture *fixture, uint64_t size)
{
	int fd = open("raw", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	(void)fixture;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

/* False: there are no loop devices. */
static bool fixture_begin(struct fixture *fixture)
{
	const char *missing;

	fixture->foreign = getenv("BLOCKDEV");
	scratch_enter();
	if (fixture->foreign) {
		fixture->path = fixture->foreign;
		return true;
	}
	if (fixture->size == 0)
		fixture->size = SIZE;
	fixture_file(fixture,
		     fixture->size +
			     (fixture->flags & LOOP_PARTITION ? 2 * LOOP_PARTITION_MARGIN : 0));
	missing = loop_open(&fixture->loop, "raw", fixture->sector_size, fixture->flags);
	fixture->path = fixture->loop.path;
	if (!missing)
		return true;
	scratch_leave();
	print_message("skipped - %s\n", missing);
	return false;
}

static void fixture_end(struct fixture *fixture)
{
	loop_close(&fixture->loop);
	scratch_leave();
}

/* On a loop device, or the test is skipped. */
static void fixture_begin_own(struct fixture *fixture)
{
	if (getenv("BLOCKDEV") || !fixture_begin(fixture))
		skip();
}

static struct disk *open_path(const char *path, unsigned flags, const char *option,
			      const char *value, struct err *err)
{
	const char *options[][2] = {{"path", path}, {option, value}};

	err->text[0] = '\0';
	return driver_open(driver_find("blockdev"), (const char *const(*)[2])options, 2, flags,
			   NULL, err);
}

static void fixture_task(void *argument)
{
	struct fixture *fixture = argument;

	fixture->disk = open_path(fixture->path, 0, NULL, NULL, &fixture->err);
	CHECK_TEXT(fixture->err.text, "");
	if (!fixture->disk)
		return;
	fixture->test(fixture);
	disk_close(fixture->disk);
}

/* Runs @test on an open disk, of each sector size, whole and on a partition. */
static void on_each(void (*test)(struct fixture *fixture))
{
	for (unsigned i = 0; i < 4; i++) {
		struct fixture fixture = {
			.sector_size = i % 2 ? 4096 : 512,
			.flags = i / 2 ? LOOP_PARTITION : 0,
			.test = test,
		};

		if (!fixture_begin(&fixture))
			skip();
		check_context("sectors of %u%s", fixture.sector_size,
			      fixture.flags ? ", a partition" : "");
		run_task(fixture_task, &fixture);
		fixture_end(&fixture);
		if (fixture.foreign)
			break;
	}
}

/* Whether the file behind the device holds @data at byte @offset of the disk. */
static bool file_holds(const struct fixture *fixture, const void *data, uint64_t offset,
		       size_t length)
{
	char *is = malloc(length);
	int fd = open("raw", O_RDONLY | O_CLOEXEC);
	bool held;

	if (fixture->flags & LOOP_PARTITION)
		offset += LOOP_PARTITION_MARGIN;
	held = pread(fd, is, length, (off_t)offset) == (ssize_t)length &&
	       memcmp(is, data, length) == 0;
	close(fd);
	free(is);
	return held;
}

static void resize(const struct fixture *fixture, uint64_t size)
{
	CHECK_EQ(truncate("raw", (off_t)size), 0);
	CHECK(loop_resized(&fixture->loop));
}

static uint64_t file_bytes(void)
{
	struct stat stat_buffer;

	return stat("raw", &stat_buffer) == 0 ? (uint64_t)stat_buffer.st_blocks * 512 : 0;
}

static int transfer(struct disk *disk, bool is_write, void *data, uint64_t sector, size_t length)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, length);

	return is_write ? disk_write(disk, &sg, sector, 0) : disk_read(disk, &sg, sector);
}

/* Page-aligned memory with a pattern. */
static char *pattern_new(size_t length, uint64_t seed)
{
	char *data = aligned_alloc(4096, align_up(length, 4096));

	assert_non_null(data);
	pattern_fill(data, length, seed);
	return data;
}

/* ---- What the disk is. ---- */

static void geometry(struct fixture *fixture)
{
	const struct disk_geometry *is = &fixture->disk->geometry;

	if (!fixture->foreign) {
		CHECK_EQ(is->sector_size, fixture->sector_size);
		CHECK_EQ(disk_size(fixture->disk), fixture->size);
		CHECK(!is->has_id);
		CHECK(!disk_pr(fixture->disk));
		CHECK_EQ(is->unmap, UNMAP_UNSPECIFIED);
	}
	CHECK(is->physical_sector_size >= is->sector_size);
	CHECK(is->fua && !is->read_only);
	CHECK(is->memory_align <= is->length_align);
	CHECK_EQ(is->length_align, is->sector_size);
	CHECK(is->max_segments > 0 && is->max_segments <= FDIO_SEGMENTS);
	CHECK(is->optimal_unmap_sectors > 0);
	CHECK_KIND(disk_eject(fixture->disk), ERROR_UNSUPPORTED);
}

static void test_geometry(void **state)
{
	(void)state;
	on_each(geometry);
}

/* ---- Data. ---- */

#define MANY 3000

/* Lists of many small segments, at addresses of any sort. */
static void segments_of(struct fixture *fixture, size_t part, size_t shift)
{
	uint32_t sector_size = disk_sector_size(fixture->disk);
	size_t length = align_down(MANY * part, sector_size), gap = part + 64;
	struct iovec *iov = calloc(MANY + 1, sizeof(*iov));
	char *memory = calloc(MANY + 1, gap), *data = malloc(length), *back = malloc(length);
	struct sg sg = {.iov = iov, .len = length};

	for (unsigned i = 0; i <= MANY; i++)
		iov[i] = (struct iovec){memory + i * gap + shift, part};
	pattern_fill(data, length, part + shift);
	sg_copy_from(&sg, data);
	CHECK_OK(disk_write(fixture->disk, &sg, 5, 0));
	CHECK_OK(transfer(fixture->disk, false, back, 5, length));
	CHECK(memcmp(data, back, length) == 0);
	if (!fixture->foreign)
		CHECK(file_holds(fixture, data, 5ULL * sector_size, length));
	memset(memory, 0, (MANY + 1) * gap);
	CHECK_OK(disk_read(fixture->disk, &sg, 5));
	sg_copy_to(&sg, back);
	CHECK(memcmp(data, back, length) == 0);
	free(iov);
	free(memory);
	free(data);
	free(back);
}

static void segments(struct fixture *fixture)
{
	segments_of(fixture, 512, 0);
	segments_of(fixture, 512, 4);
	segments_of(fixture, 100, 1);
	segments_of(fixture, 516, 8);
}

static void test_segments(void **state)
{
	(void)state;
	on_each(segments);
}

/* Memory that the device cannot reach as it is, and that it can; at the end of the disk, too. */
static void edges(struct fixture *fixture)
{
	struct disk *disk = fixture->disk;
	uint32_t size = disk_sector_size(disk);
	uint64_t last = disk_sector_count(disk) - 1;
	char *data = pattern_new(3 * size, 2), *back = malloc(3 * size + 8);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, 3 * size);

	for (unsigned shift = 0; shift < 8; shift += 2) {
		CHECK_OK(transfer(disk, true, data, last - 2, 3 * size));
		memset(back, 0, 3 * size + 8);
		CHECK_OK(transfer(disk, false, back + shift, last - 2, 3 * size));
		CHECK(memcmp(back + shift, data, 3 * size) == 0);
		CHECK_OK(transfer(disk, true, back + shift, 0, 3 * size));
		CHECK_OK(transfer(disk, false, back, 0, 3 * size));
		CHECK(memcmp(back, data, 3 * size) == 0);
	}
	CHECK_OK(disk_write(disk, &sg, 7, DISK_FUA));
	CHECK_OK(disk_flush(disk));
	CHECK_KIND(transfer(disk, true, data, last, 2 * size), ERROR_ILLEGAL_BLOCK);
	if (!fixture->foreign)
		CHECK(file_holds(fixture, data, (last - 2) * size, 3 * size));
	free(data);
	free(back);
}

static void test_edges(void **state)
{
	(void)state;
	on_each(edges);
}

/* ---- Zeros and discards. ---- */

static void zeroes(struct fixture *fixture)
{
	/* A loop device of a file on tmpfs forgets how to punch holes once it has been asked for
	 * zeros without. */
	static const unsigned ways[] = {DISK_MAY_UNMAP, DISK_FUA | DISK_MAY_UNMAP, 0, DISK_FUA};
	struct disk *disk = fixture->disk;
	uint32_t size = disk_sector_size(disk);
	size_t length = 2 * MIB;
	char *data = pattern_new(length, 3), *back = malloc(length);
	uint64_t count = MIB / size;

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		CHECK_OK(transfer(disk, true, data, 0, length));

		uint64_t full = file_bytes();

		CHECK_OK(disk_write_zeroes(disk, count / 2, count, ways[i]));
		CHECK_OK(transfer(disk, false, back, 0, length));
		CHECK(memcmp(back, data, length / 4) == 0);
		CHECK_EQ(bytes_differ(back + length / 4, MIB, 0), MIB);
		CHECK(memcmp(back + length / 4 * 3, data + length / 4 * 3, length / 4) == 0);
		if (!fixture->foreign && (ways[i] & DISK_MAY_UNMAP))
			CHECK(file_bytes() < full - MIB / 2);
	}
	CHECK_KIND(disk_write_zeroes(disk, disk_sector_count(disk), 1, 0), ERROR_ILLEGAL_BLOCK);
	free(data);
	free(back);
}

static void test_zeroes(void **state)
{
	(void)state;
	on_each(zeroes);
}

/* By the ring, and as on a kernel that does not know that. */
static void discards(struct fixture *fixture)
{
	struct disk *disk = fixture->disk;
	struct blockdev *blockdev = disk->state;
	uint32_t size = disk_sector_size(disk);
	size_t length = 4 * MIB;
	char *data = pattern_new(length, 4), *back = malloc(length);

	for (unsigned ring = 0; ring < 2; ring++) {
		atomic_store(&blockdev->ring_discard, ring);
		CHECK_OK(transfer(disk, true, data, 0, length));

		uint64_t full = file_bytes();

		CHECK_OK(disk_unmap(disk, MIB / size, 2 * MIB / size));
		CHECK_OK(transfer(disk, false, back, 0, length));
		CHECK(memcmp(back, data, MIB) == 0);
		CHECK(memcmp(back + 3 * MIB, data + 3 * MIB, MIB) == 0);
		if (!fixture->foreign)
			CHECK(file_bytes() <= full - 2 * MIB);
	}
	/* All of it, in several calls where it is large. */
	CHECK_OK(disk_unmap(disk, 0, disk_sector_count(disk)));
	free(data);
	free(back);
}

static void test_discards(void **state)
{
	(void)state;
	on_each(discards);
}

/* ---- Many at once. ---- */

#define TASKS 16

static void one_of_many(unsigned index, void *argument)
{
	struct fixture *fixture = argument;
	size_t length = 64 * KIB;
	uint64_t sector = index * length / disk_sector_size(fixture->disk);
	char *data = pattern_new(length, index), *back = malloc(length);

	for (unsigned i = 0; i < 20; i++) {
		pattern_fill(data, length, index * 100 + i);
		CHECK_OK(transfer(fixture->disk, true, data, sector, length));
		CHECK_OK(transfer(fixture->disk, false, back, sector, length));
		CHECK(memcmp(data, back, length) == 0);
		if (i % 4 == 1)
			CHECK_OK(disk_flush(fixture->disk));
		if (i % 4 == 2)
			CHECK_OK(disk_unmap(fixture->disk, sector,
					    length / disk_sector_size(fixture->disk)));
	}
	free(data);
	free(back);
}

static void open_task(void *argument)
{
	struct fixture *fixture = argument;

	fixture->disk = open_path(fixture->path, 0, NULL, NULL, &fixture->err);
	CHECK_TEXT(fixture->err.text, "");
}

static void close_task(void *argument)
{
	struct fixture *fixture = argument;

	disk_close(fixture->disk);
}

static void test_many(void **state)
{
	struct fixture fixture = {.sector_size = 512};

	(void)state;
	if (!fixture_begin(&fixture))
		skip();
	run_task(open_task, &fixture);
	run_tasks(TASKS, one_of_many, &fixture);
	run_task(close_task, &fixture);
	fixture_end(&fixture);
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
	if (!CHECK(!open_path(path, flags, option, value, &err)))
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
	struct fixture fixture = {.sector_size = 512};

	(void)state;
	fixture_begin_own(&fixture);
	resize(&fixture, 0);
	run_task(refused_task, (void *)(uintptr_t)fixture.path);
	fixture_end(&fixture);
}

static void read_only_task(void *argument)
{
	struct fixture *fixture = argument;
	char sector[4096];
	struct err err;

	CHECK_TEXT(refusal(fixture->path, 0, NULL, NULL), " is read-only: set readonly = yes");
	CHECK_TEXT(refusal(fixture->path, DISK_OPEN_CHECK, NULL, NULL),
		   " is read-only: set readonly = yes");

	struct disk *disk = open_path(fixture->path, DISK_OPEN_READ_ONLY, NULL, NULL, &err);

	CHECK_TEXT(err.text, "");
	CHECK(disk_is_read_only(disk));
	CHECK_OK(transfer(disk, false, sector, 0, sizeof(sector)));
	CHECK_KIND(transfer(disk, true, sector, 0, sizeof(sector)), ERROR_READ_ONLY);
	CHECK_KIND(disk_unmap(disk, 0, 1), ERROR_READ_ONLY);
	CHECK_OK(disk_flush(disk));
	disk_close(disk);
}

static void test_read_only(void **state)
{
	struct fixture fixture = {.sector_size = 4096, .flags = LOOP_READ_ONLY};

	(void)state;
	fixture_begin_own(&fixture);
	run_task(read_only_task, &fixture);
	fixture_end(&fixture);
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
	struct fixture *fixture = argument;
	struct err err;
	struct disk *first = open_path(fixture->path, 0, NULL, NULL, &err), *second;

	CHECK_TEXT(err.text, "");
	CHECK_TEXT(refusal(fixture->path, 0, NULL, NULL), in_use);
	CHECK_TEXT(refusal(fixture->path, DISK_OPEN_READ_ONLY, NULL, NULL), in_use);
	/* The whole of which it is a part. */
	if (fixture->flags & LOOP_PARTITION)
		CHECK_TEXT(refusal(fixture->loop.whole, 0, NULL, NULL), in_use);
	/* Whoever only looks, and whoever shares, is let in. */
	second = open_path(fixture->path, DISK_OPEN_CHECK, NULL, NULL, &err);
	CHECK_TEXT(err.text, "");
	disk_close(second);
	second = open_path(fixture->path, 0, "shared", "yes", &err);
	CHECK_TEXT(err.text, "");
	disk_close(second);
	disk_close(first);

	int fd = open_as_qemu(fixture->path);

	CHECK_TEXT(refusal(fixture->path, 0, NULL, NULL),
		   " is in use by another program, perhaps QEMU (shared = yes opens it all the "
		   "same)");
	second = open_path(fixture->path, 0, "shared", "yes", &err);
	CHECK_TEXT(err.text, "");
	disk_close(second);
	close(fd);
	/* Nothing is left of any of them. */
	second = open_path(fixture->path, 0, NULL, NULL, &err);
	CHECK_TEXT(err.text, "");
	disk_close(second);
}

static void test_claimed(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct fixture fixture = {.sector_size = 512, .flags = i ? LOOP_PARTITION : 0};

		fixture_begin_own(&fixture);
		check_context("%s", i ? "a partition" : "whole");
		run_task(claimed_task, &fixture);
		fixture_end(&fixture);
	}
}

/* ---- Another size. ---- */

static void sizes(struct fixture *fixture)
{
	struct disk *disk = fixture->disk;
	uint32_t size = disk_sector_size(disk);
	uint64_t count = disk_sector_count(disk);
	char *data = pattern_new(2 * size, 5);

	if (fixture->foreign || (fixture->flags & LOOP_PARTITION))
		goto done; /* a partition stays what it is */
	/* Larger: noticed when somebody asks for it. */
	resize(fixture, fixture->size + MIB);
	CHECK_EQ(disk_sector_count(disk), count);
	blockdev_check_size(disk);
	CHECK_EQ(disk_sector_count(disk), count + MIB / size);
	CHECK_OK(transfer(disk, true, data, count, 2 * size));
	/* Smaller: noticed by every sort of request behind the end; none of them passes for a
	 * success. */
	for (unsigned i = 0; i < 5; i++) {
		resize(fixture, fixture->size + MIB);
		blockdev_check_size(disk);
		resize(fixture, fixture->size);
		check_context("smaller, request %u", i);
		if (i == 0)
			CHECK_KIND(transfer(disk, false, data, count, size), ERROR_ILLEGAL_BLOCK);
		else if (i == 1)
			CHECK_KIND(transfer(disk, true, data, count - 1, 2 * size),
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
	CHECK_OK(transfer(disk, false, data, count - 1, size));
done:
	free(data);
}

static void test_sizes(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	on_each(sizes);
}

/* ---- Eject. ---- */

static void eject_task(void *argument)
{
	const char *path = argument;
	char sector[4096];
	struct err err;
	struct disk *disk = open_path(path, 0, NULL, NULL, &err);

	CHECK_TEXT(err.text, "");
	if (!disk)
		return;
	CHECK_OK(disk_eject(disk));
	CHECK(transfer(disk, false, sector, 0, sizeof(sector)) != 0);
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
