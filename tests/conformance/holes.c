// SPDX-License-Identifier: MIT
/*
 * The contract of every driver, second part: unmap, write-zeroes, extents and the space that a disk
 * takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/check.h"
#include "tests/lib/contract.h"
#include "tests/lib/run.h"

#define CHANGING STACK_READ_ONLY /* unwanted where a test writes */

/* Unwanted where it wants zeros, or holes, of unmap. */
#define WITHOUT_UNMAP (STACK_READ_ONLY | STACK_DENSE | STACK_OPAQUE)

/* Fills the whole disk; returns what is on it then. */
static char *fill(struct instance *instance)
{
	size_t size = disk_size(instance->disk);
	char *data = malloc(size);

	pattern_fill(data, size, 11);
	disk_put(instance->disk, data, 0, disk_sector_count(instance->disk), 0);
	return data;
}

/* ---- Zeros. ---- */

/* Ranges of bytes (whole sectors), of every size that drivers treat differently. */
static const struct {
	uint64_t offset, length;
} ranges[] = {
	{0, 4096},
	{4096, 4096},
	{12288, 8192},
	{100 * 4096, 61440},
	{MIB, MIB},
	{2 * MIB - 4096, 8192}, /* across two leaves */
	{2 * MIB, 2 * MIB},	/* a whole leaf */
	{MIB + 4096, 3 * MIB},	/* and parts of its neighbours */
	{4 * MIB, MIB + 12288}, /* to the end */
	{5 * MIB + 8192, 4096}, /* the last sector of 4096 */
};

/* Ranges of 512-byte sectors inside and across pages. */
static const struct {
	uint64_t sector, count;
} small_ranges[] = {
	{1, 1}, {7, 1}, {7, 2}, {8, 1}, {9, 6}, {9, 7}, {9, 8}, {15, 9}, {17, 30}, {4095, 2},
};

enum way { UNMAP, ZEROES, ZEROES_FUA, ZEROES_UNMAP, ZEROES_UNMAP_FUA, WAYS };

static int make_zeros(struct disk *disk, enum way way, uint64_t sector, uint64_t count)
{
	static const unsigned flags[WAYS] = {
		[ZEROES_FUA] = DISK_FUA,
		[ZEROES_UNMAP] = DISK_MAY_UNMAP,
		[ZEROES_UNMAP_FUA] = DISK_MAY_UNMAP | DISK_FUA,
	};

	return way == UNMAP ? disk_unmap(disk, sector, count)
			    : disk_write_zeroes(disk, sector, count, flags[way]);
}

/* The range has become zeros, its neighbours have not changed, and it can be written again. */
static bool check_zeros(struct instance *instance, char *data, enum way way, uint64_t offset,
			uint64_t length)
{
	uint32_t size = instance->sector_size;
	uint64_t before = min_u64(offset, 16384);
	uint64_t after = min_u64(disk_size(instance->disk) - offset - length, 16384);
	bool held;

	held = CHECK_OK(make_zeros(instance->disk, way, offset / size, length / size));
	held &= disk_zeros(instance, offset, length);
	held &= disk_holds(instance, data + offset - before, offset - before, before);
	held &= disk_holds(instance, data + offset + length, offset + length, after);
	held &= disk_put(instance->disk, data + offset, offset / size, 1, 0);
	held &= disk_holds(instance, data + offset, offset, size);
	held &= disk_zeros(instance, offset + size, length - size);
	held &= disk_put(instance->disk, data + offset, offset / size, length / size, 0);
	return held;
}

static void check_way(struct instance *instance, enum way way)
{
	char *data = fill(instance);
	bool held = true;

	for (size_t i = 0; held && i < ARRAY_SIZE(ranges); i++)
		held = check_zeros(instance, data, way, ranges[i].offset, ranges[i].length);
	for (size_t i = 0; held && instance->sector_size == 512 && i < ARRAY_SIZE(small_ranges);
	     i++)
		held = check_zeros(instance, data, way, small_ranges[i].sector * 512,
				   small_ranges[i].count * 512);
	CHECK(held);
	disk_holds(instance, data, 0, disk_size(instance->disk));
	free(data);
}

static void test_unmap(struct instance *instance)
{
	if (CHECK_EQ(instance->disk->geometry.unmap, UNMAP_ZEROES))
		check_way(instance, UNMAP);
}

static void test_write_zeroes(struct instance *instance)
{
	for (enum way way = ZEROES; way < WAYS; way++)
		check_way(instance, way);
}

/* ---- Extents. ---- */

/*
 * Walks over the extents of [first, first + count): none is empty or too long, and holes read as
 * zeros. Returns how many sectors are data.
 */
static uint64_t walk(struct instance *instance, uint64_t first, uint64_t count)
{
	uint64_t end = first + count, data = 0;

	while (first < end) {
		struct extent extent = {.count = 0};

		if (!CHECK_OK(disk_extent(instance->disk, first, end - first, &extent)))
			break;
		if (!CHECK(extent.count > 0 && extent.count <= end - first))
			break;
		if (extent.kind == EXTENT_HOLE)
			disk_zeros(instance, first * instance->sector_size,
				   extent.count * instance->sector_size);
		else
			data += extent.count;
		first += extent.count;
	}
	return data;
}

static void test_extents(struct instance *instance)
{
	struct disk *disk = instance->disk;
	uint64_t all = disk_sector_count(disk), page = 4096 / instance->sector_size;
	char data[4096];

	CHECK_EQ(walk(instance, 0, all), 0); /* it begins empty */
	pattern_fill(data, sizeof(data), 12);
	for (unsigned i = 1; i < 6; i++)
		disk_put(disk, data, i * MIB / instance->sector_size, page, 0);
	disk_put(disk, data, all - page, page, 0);
	if (instance->stack->flags & STACK_DROPS_WRITES)
		return;
	CHECK_EQ(walk(instance, 0, all), 6 * page);
	CHECK_EQ(walk(instance, MIB / instance->sector_size, page), page);
	CHECK_EQ(walk(instance, MIB / instance->sector_size - page, page), 0);
	for (uint64_t i = 0; i < page; i++) /* from inside of data, too */
		CHECK_EQ(walk(instance, MIB / instance->sector_size + i, page), page - i);
	CHECK_OK(disk_unmap(disk, 0, all));
	CHECK_EQ(walk(instance, 0, all), 0);
}

/* After any writes and unmaps: what was written last is data, holes are zeros. */
static void test_extents_of_anything(struct instance *instance)
{
	uint64_t all = disk_sector_count(instance->disk);
	struct random random = {.state = 5};
	char *data = malloc(64 * KIB);

	for (unsigned i = 0; i < 60; i++) {
		uint64_t sector = random_below(&random, all);
		uint64_t count =
			1 + random_below(&random,
					 min_u64(all - sector, 64 * KIB / instance->sector_size));

		if (i % 3 == 2) {
			CHECK_OK(disk_unmap(instance->disk, sector, count));
			disk_zeros(instance, sector * instance->sector_size,
				   count * instance->sector_size);
			continue;
		}
		pattern_fill(data, 64 * KIB, i);
		disk_put(instance->disk, data, sector, count, 0);
		if (!(instance->stack->flags & STACK_DROPS_WRITES))
			CHECK_EQ(walk(instance, sector, count), count);
	}
	walk(instance, 0, all);
	free(data);
}

static void test_unmap_of_dense(struct instance *instance)
{
	uint64_t all = disk_sector_count(instance->disk);
	char *data = fill(instance);

	CHECK_OK(disk_unmap(instance->disk, 0, all));
	disk_holds(instance, data, 0, disk_size(instance->disk));
	CHECK_EQ(walk(instance, 0, all), all);
	free(data);
}

/* Whatever it does to its own sectors, it does nothing to their neighbours, and they can be written
 * again. */
static void test_unmap_of_opaque(struct instance *instance)
{
	uint64_t sector = MIB / instance->sector_size + 3, count = MIB / instance->sector_size;
	size_t begin = sector * instance->sector_size, length = count * instance->sector_size;
	char *data = fill(instance);

	CHECK_EQ(instance->disk->geometry.unmap, UNMAP_UNSPECIFIED);
	CHECK_OK(disk_unmap(instance->disk, sector, count));
	disk_holds(instance, data, 0, begin);
	disk_holds(instance, data + begin + length, begin + length,
		   disk_size(instance->disk) - begin - length);
	disk_put(instance->disk, data + begin, sector, count, 0);
	disk_holds(instance, data, 0, disk_size(instance->disk));
	CHECK_EQ(walk(instance, 0, disk_sector_count(instance->disk)),
		 disk_sector_count(instance->disk));
	free(data);
}

static void test_extents_of_read_only(struct instance *instance)
{
	CHECK_EQ(walk(instance, 0, disk_sector_count(instance->disk)),
		 disk_sector_count(instance->disk));
}

/* ---- Space. ---- */

static uint64_t allocated(struct instance *instance)
{
	uint64_t bytes = 0;

	/* Some file systems only decide when the data goes to the disk. */
	CHECK_OK(disk_flush(instance->disk));
	CHECK_OK(disk_allocated(instance->disk, &bytes));
	return bytes;
}

static void test_space(struct instance *instance)
{
	uint64_t size = disk_size(instance->disk), empty = allocated(instance);
	uint32_t sector = instance->sector_size;

	CHECK(empty < 64 * KIB);
	free(fill(instance));
	CHECK(allocated(instance) >= align_down(size, 4096));
	CHECK(allocated(instance) < size + 256 * KIB);
	CHECK_OK(disk_unmap(instance->disk, MIB / sector, 2 * MIB / sector));
	CHECK(allocated(instance) < size - 2 * MIB + 256 * KIB);
	CHECK_OK(disk_write_zeroes(instance->disk, 3 * MIB / sector, MIB / sector, DISK_MAY_UNMAP));
	CHECK(allocated(instance) < size - 3 * MIB + 256 * KIB);
	CHECK_OK(disk_unmap(instance->disk, 0, disk_sector_count(instance->disk)));
	CHECK(allocated(instance) < 128 * KIB);
}

/* ---- Everything at once. ---- */

#define TASKS 12

/* Each task zeroes and writes a part of its own, next to that of others, sector by sector. */
static void zero_own_sectors(unsigned index, void *argument)
{
	struct instance *instance = argument;
	struct random random = {.state = index};
	uint32_t size = instance->sector_size;
	char *data = malloc(size), *back = malloc(size);

	for (unsigned i = 0; i < 100; i++) {
		uint64_t sector = random_below(&random, 40) * TASKS + index;
		enum way way = (enum way)random_below(&random, WAYS);

		if (way == UNMAP && (instance->stack->flags & WITHOUT_UNMAP))
			way = ZEROES_UNMAP;
		pattern_fill(data, size, random_next(&random));
		disk_put(instance->disk, data, sector, 1, 0);
		disk_get(instance->disk, back, sector, 1);
		if (!(instance->stack->flags & STACK_DROPS_WRITES))
			CHECK(memcmp(data, back, size) == 0);
		CHECK_OK(make_zeros(instance->disk, way, sector, 1));
		disk_get(instance->disk, back, sector, 1);
		CHECK_EQ(bytes_differ(back, size, 0), size);
	}
	free(data);
	free(back);
}

static void test_neighbours(struct instance *instance)
{
	run_tasks(TASKS, zero_own_sectors, instance);
}

static const struct contract contracts[] = {
	{.name = "unmap", .in_task = test_unmap, .unwanted_flags = WITHOUT_UNMAP},
	{.name = "write zeroes", .in_task = test_write_zeroes, .unwanted_flags = CHANGING},
	{.name = "extents", .in_task = test_extents, .unwanted_flags = WITHOUT_UNMAP},
	{.name = "extents of anything",
	 .in_task = test_extents_of_anything,
	 .unwanted_flags = WITHOUT_UNMAP},
	{.name = "unmap that does nothing",
	 .in_task = test_unmap_of_dense,
	 .wanted_flags = STACK_DENSE},
	{.name = "unmap that may leave anything",
	 .in_task = test_unmap_of_opaque,
	 .wanted_flags = STACK_OPAQUE},
	{.name = "extents of read-only",
	 .in_task = test_extents_of_read_only,
	 .wanted_flags = STACK_READ_ONLY},
	{.name = "space", .in_task = test_space, .wanted_flags = STACK_SPARSE},
	{.name = "neighbours", .on_thread = test_neighbours, .unwanted_flags = CHANGING},
};

int main(void)
{
	return contract_run("holes", contracts, ARRAY_SIZE(contracts));
}
