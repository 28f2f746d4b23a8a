// SPDX-License-Identifier: MIT
/*
 * The contract of every driver, first part: geometry, ranges, data there and back, durability,
 * requests at the same time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/bytes.h"
#include "core/report.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/contract.h"
#include "tests/lib/run.h"

#define CHANGING STACK_READ_ONLY /* unwanted where a test writes */

/* ---- Geometry and ranges. ---- */

static void check_geometry(struct instance *instance)
{
	const struct disk *disk = instance->disk;

	CHECK_EQ(disk_sector_size(disk), instance->sector_size);
	CHECK_EQ(disk_size(disk), align_down(CONTRACT_SIZE, instance->sector_size));
	CHECK_EQ(disk_sector_count(disk), disk_size(disk) / instance->sector_size);
	CHECK(disk->geometry.physical_sector_size >= instance->sector_size);
	CHECK(disk->geometry.optimal_unmap_sectors >= 1);
	CHECK_EQ(disk_is_read_only(disk), (instance->stack->flags & STACK_READ_ONLY) != 0);
}

static void test_geometry(struct instance *instance)
{
	struct disk_geometry before = instance->disk->geometry;
	struct report *report = report_new(REPORT_JSON);
	static char data[4096];
	size_t length;

	check_geometry(instance);
	disk_get(instance->disk, data, 0, 1);
	disk_inspect(instance->disk, report);
	free(report_finish(report, &length));
	CHECK(length > 0);
	check_geometry(instance);
	CHECK(memcmp(&before, &instance->disk->geometry, sizeof(before)) == 0);
}

static void check_refused(struct disk *disk, uint64_t sector, uint64_t count)
{
	enum error_kind change = disk_is_read_only(disk) ? ERROR_READ_ONLY : ERROR_ILLEGAL_BLOCK;
	static char data[8192];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count * disk_sector_size(disk));

	CHECK_KIND(disk_read(disk, &sg, sector), ERROR_ILLEGAL_BLOCK);
	CHECK_KIND(disk_write(disk, &sg, sector, 0), change);
	CHECK_KIND(disk_unmap(disk, sector, count), change);
	CHECK_KIND(disk_write_zeroes(disk, sector, count, 0), change);
}

static void test_representable(struct instance *instance)
{
	unsigned shift = disk_sector_shift(instance->disk);
	uint64_t max = (uint64_t)INT64_MAX >> shift;

	check_refused(instance->disk, UINT64_MAX, 1);
	check_refused(instance->disk, UINT64_MAX - 1, 2);
	check_refused(instance->disk, max, 1);
	check_refused(instance->disk, max - 1, 2);
	check_refused(instance->disk, (uint64_t)1 << (64 - shift), 1);
}

static void test_range(struct instance *instance)
{
	struct disk *disk = instance->disk;
	uint64_t count = disk_sector_count(disk), max = (uint64_t)INT64_MAX >> 9;
	static char data[4096];

	check_refused(disk, count, 1);
	check_refused(disk, count - 1, 2);
	check_refused(disk, max - 1, 1);
	disk_get(disk, data, count - 1, 1);
	disk_get(disk, data, 0, 0);
	if (instance->stack->flags & STACK_READ_ONLY)
		return;
	pattern_fill(data, instance->sector_size, 7);
	disk_put(disk, data, count - 1, 1, 0);
	disk_holds(instance, data, (count - 1) * instance->sector_size, instance->sector_size);
}

static void test_begins_as_zeros(struct instance *instance)
{
	disk_zeros(instance, 0, disk_size(instance->disk));
}

static void test_content_of_read_only(struct instance *instance)
{
	char *data = malloc(CONTRACT_SIZE);

	pattern_fill(data, CONTRACT_SIZE, 0);
	disk_holds(instance, data, 0, CONTRACT_SIZE);
	free(data);
	CHECK_OK(disk_flush(instance->disk));
	CHECK_KIND(disk_write_bytes(instance->disk, "x", 1, 1, 0), ERROR_READ_ONLY);
	CHECK_KIND(disk_zero_bytes(instance->disk, 1, 1, 0), ERROR_READ_ONLY);
}

/* ---- There and back. ---- */

/* How memory is scattered: lengths that repeat, up to the first 0; and the gaps between. */
static const struct {
	size_t lengths[5];
	size_t gap;
} scatters[] = {
	{{SIZE_MAX}, 0}, {{1, 3, 0}, 1},     {{4096}, 4096}, {{512}, 0},
	{{513, 511}, 7}, {{1000, 24, 1}, 0}, {{65536}, 512},
};

#define SEGMENTS_MAX 8192

static struct sg scatter(unsigned which, char *memory, struct iovec *iov, size_t length)
{
	const size_t *lengths = scatters[which].lengths;
	unsigned count = 0;

	for (size_t left = length, j = 0; left > 0; j++) {
		/* An empty segment now and then. */
		if (count % 5 == 1)
			iov[count++] = (struct iovec){memory, 0};
		if (lengths[j] == 0)
			j = 0;

		size_t part = min_u64(left, lengths[j]);

		if (count > SEGMENTS_MAX - 4)
			part = left;
		iov[count++] = (struct iovec){memory, part};
		memory += part + scatters[which].gap;
		left -= part;
	}
	return (struct sg){.iov = iov, .len = length};
}

/* Writes scattered as @out, reads scattered as @in. */
static bool check_scatter(struct instance *instance, char *memory, struct iovec *iov, unsigned out,
			  unsigned in, uint64_t sector, uint64_t count)
{
	size_t length = count * instance->sector_size;
	char *flat = malloc(length);
	struct sg sg = scatter(out, memory, iov, length);
	bool held;

	pattern_fill(flat, length, sector * 31 + out * 7 + in);
	sg_copy_from(&sg, flat);
	held = CHECK_OK(disk_write(instance->disk, &sg, sector, out % 2 ? DISK_FUA : 0));
	sg = scatter(in, memory, iov, length);
	memset(memory, 0x77, length);
	sg_zero(&sg);
	held &= CHECK_OK(disk_read(instance->disk, &sg, sector));
	if (instance->stack->flags & STACK_DROPS_WRITES)
		memset(flat, 0, length);

	char *back = malloc(length);

	sg_copy_to(&sg, back);
	held &= CHECK(memcmp(flat, back, length) == 0);
	free(back);
	free(flat);
	return held;
}

static void test_scattered(struct instance *instance)
{
	static const size_t sizes[] = {4096, 8192, 69632, MIB, MIB + 4096, 3 * MIB};
	char *memory = aligned_alloc(4096, 8 * MIB);
	struct iovec *iov = calloc(SEGMENTS_MAX, sizeof(*iov));
	struct random random = {.state = 1};
	bool held = true;

	for (unsigned i = 0; held && i < ARRAY_SIZE(sizes) * ARRAY_SIZE(scatters); i++) {
		unsigned out = i % ARRAY_SIZE(scatters);
		uint64_t count = sizes[i / ARRAY_SIZE(scatters)] / instance->sector_size;
		uint64_t last = disk_sector_count(instance->disk) - count;

		held = check_scatter(instance, memory, iov, out,
				     (unsigned)random_below(&random, ARRAY_SIZE(scatters)),
				     random_below(&random, last + 1), count);
	}
	free(iov);
	free(memory);
}

/* Every sector has its own content, and a read of any run of them finds it. */
static void test_places(struct instance *instance)
{
	size_t size = disk_size(instance->disk);
	char *data = malloc(size);
	struct random random = {.state = 2};

	pattern_fill(data, size, 3);
	disk_put(instance->disk, data, 0, disk_sector_count(instance->disk), 0);
	for (unsigned i = 0; i < 200; i++) {
		uint64_t offset = align_down(random_below(&random, size), instance->sector_size);
		uint64_t length = random_below(&random, min_u64(size - offset, 70000)) + 1;

		if (!disk_holds(instance, data + offset, offset, length))
			break;
	}
	free(data);
}

static void test_bytes(struct instance *instance)
{
	size_t size = 64 * KIB;
	char *model = calloc(1, size), *data = malloc(size);
	struct random random = {.state = 3};

	for (unsigned i = 0; i < 200; i++) {
		uint64_t offset = random_below(&random, size);
		size_t length = 1 + random_below(&random, min_u64(size - offset, 9000));

		pattern_fill(data, length, i);
		if (i % 4 == 3) {
			memset(data, 0, length);
			CHECK_OK(disk_zero_bytes(instance->disk, offset, length,
						 i % 8 == 3 ? DISK_MAY_UNMAP : 0));
		} else {
			CHECK_OK(disk_write_bytes(instance->disk, data, length, offset,
						  i % 3 ? 0 : DISK_FUA));
		}
		memcpy(model + offset, data, length);
		if (!disk_holds(instance, model, 0, size))
			break;
	}
	free(model);
	free(data);
}

/* ---- Durability, as far as it can be seen without a crash. ---- */

static void test_fua_and_flush(struct instance *instance)
{
	char data[8192];

	pattern_fill(data, sizeof(data), 5);
	disk_put(instance->disk, data, 1, sizeof(data) / instance->sector_size, DISK_FUA);
	CHECK_OK(disk_flush(instance->disk));
	CHECK_OK(disk_flush(instance->disk));
	disk_holds(instance, data, instance->sector_size, sizeof(data));
}

static void test_lasts(struct instance *instance)
{
	char data[20480];

	pattern_fill(data, sizeof(data), 6);
	disk_put(instance->disk, data, 2, sizeof(data) / instance->sector_size, 0);
	CHECK_OK(disk_flush(instance->disk));
	instance_close(instance);
	if (instance_open(instance, instance->stack, instance->sector_size, instance->size))
		disk_holds(instance, data, 2 * (uint64_t)instance->sector_size, sizeof(data));
}

/* ---- At the same time. ---- */

#define TASKS 16

/* Each task has a part of the disk for itself. */
static void use_own_part(unsigned index, void *argument)
{
	struct instance *instance = argument;
	uint64_t part = disk_sector_count(instance->disk) / TASKS, first = index * part;
	struct random random = {.state = index};
	char *data = malloc(32 * KIB), *back = malloc(32 * KIB);

	for (unsigned i = 0; i < 40; i++) {
		uint64_t count = 1 + random_below(&random, min_u64(part, 32 * KIB / 4096));
		uint64_t sector = first + random_below(&random, part - count + 1);
		size_t length = count * instance->sector_size;

		pattern_fill(data, length, random_next(&random));
		if (!disk_put(instance->disk, data, sector, count, 0) ||
		    !disk_get(instance->disk, back, sector, count))
			break;
		if (instance->stack->flags & STACK_DROPS_WRITES)
			memset(data, 0, length);
		if (!CHECK(memcmp(data, back, length) == 0))
			break;
		if (i % 10 == 9)
			CHECK_OK(disk_flush(instance->disk));
	}
	free(data);
	free(back);
}

static void test_disjoint(struct instance *instance)
{
	run_tasks(TASKS, use_own_part, instance);
}

/* A sector that was written or read while others wrote it has the value of one of them. */
static void check_whole_sectors(const struct instance *instance, const char *data, uint64_t count)
{
	uint32_t size = instance->sector_size;

	for (uint64_t i = 0; i < count; i++) {
		unsigned char value = (unsigned char)data[i * size];

		CHECK(value <= TASKS);
		CHECK_EQ(bytes_differ(data + i * size, size, value), size);
	}
}

/* All write and read the same few sectors; each writes one value throughout. */
static void fight(unsigned index, void *argument)
{
	struct instance *instance = argument;
	uint32_t size = instance->sector_size;
	char *data = malloc(8 * (size_t)size);
	struct random random = {.state = index};

	for (unsigned i = 0; i < 100; i++) {
		uint64_t sector = random_below(&random, 8), count = 1 + random_below(&random, 8);

		memset(data, (int)index + 1, count * size);
		if (i % 3)
			disk_put(instance->disk, data, sector, count, 0);
		disk_get(instance->disk, data, sector, count);
		if (instance->stack->flags & STACK_WHOLE_READS)
			check_whole_sectors(instance, data, count);
	}
	free(data);
}

static void check_end_of_fight(void *argument)
{
	struct instance *instance = argument;
	char *data = malloc(16 * (size_t)instance->sector_size);

	disk_get(instance->disk, data, 0, 16);
	check_whole_sectors(instance, data, 16);
	free(data);
}

static void test_overlapping(struct instance *instance)
{
	run_tasks(TASKS, fight, instance);
	run_task(check_end_of_fight, instance);
}

/* Neighbouring bytes of the same sectors, each of one task. */
static void write_own_bytes(unsigned index, void *argument)
{
	struct instance *instance = argument;

	for (unsigned i = 0; i < 60; i++) {
		uint64_t at = (uint64_t)i * TASKS + index;
		char value = (char)(index + 1);

		CHECK_OK(disk_write_bytes(instance->disk, &value, 1, at, 0));
	}
}

static void check_own_bytes(void *argument)
{
	struct instance *instance = argument;
	char data[60 * TASKS];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i % TASKS + 1);
	disk_holds(instance, data, 0, sizeof(data));
}

static void test_neighbouring_bytes(struct instance *instance)
{
	run_tasks(TASKS, write_own_bytes, instance);
	run_task(check_own_bytes, instance);
}

static const struct contract contracts[] = {
	{.name = "geometry", .in_task = test_geometry},
	{.name = "representable", .in_task = test_representable},
	{.name = "range", .in_task = test_range},
	{.name = "begins as zeros", .in_task = test_begins_as_zeros, .unwanted_flags = CHANGING},
	{.name = "read-only",
	 .in_task = test_content_of_read_only,
	 .wanted_flags = STACK_READ_ONLY},
	{.name = "scattered", .in_task = test_scattered, .unwanted_flags = CHANGING},
	{.name = "places", .in_task = test_places, .unwanted_flags = CHANGING},
	{.name = "bytes", .in_task = test_bytes, .unwanted_flags = CHANGING},
	{.name = "FUA and flush", .in_task = test_fua_and_flush, .unwanted_flags = CHANGING},
	{.name = "lasts",
	 .in_task = test_lasts,
	 .wanted_flags = STACK_LASTS,
	 .unwanted_flags = CHANGING},
	{.name = "disjoint", .on_thread = test_disjoint, .unwanted_flags = CHANGING},
	{.name = "overlapping",
	 .on_thread = test_overlapping,
	 .unwanted_flags = CHANGING | STACK_DROPS_WRITES},
	{.name = "neighbouring bytes",
	 .on_thread = test_neighbouring_bytes,
	 .unwanted_flags = CHANGING},
};

int main(void)
{
	return contract_run("data", contracts, ARRAY_SIZE(contracts));
}
