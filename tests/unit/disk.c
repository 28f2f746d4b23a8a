// SPDX-License-Identifier: MIT
/* What stands in front of every driver: validation, ranges, read-only, flags, counters. */
#include "core/disk.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/pr.h"
#include "core/report.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"

#define COUNT 16

/* Opens a probe that must open. */
static struct disk *open_probe(struct probe *probe, uint32_t sector_size, unsigned open_flags)
{
	struct err err = {.text = ""};
	struct disk *disk = probe_open(probe, open_flags, NULL, &err);

	CHECK_TEXT(err.text, "");
	CHECK(!disk || disk_sector_size(disk) == sector_size);
	return disk;
}

/* ---- Geometry. ---- */

struct geometry_case {
	uint32_t sector_size, physical_sector_size;
	uint64_t count;
	const char *text; /* NULL: it is valid */
};

#define BAD_SIZE(size) "invalid sector size " size ": must be a power of two, 512 to 65536"
#define BAD_PHYSICAL(size, sector)                                                     \
	"invalid physical sector size " size ": must be a power of two, at least the " \
	"sector size of " sector

static const struct geometry_case geometry_cases[] = {
	{0, 512, 1, BAD_SIZE("0")},
	{1, 512, 1, BAD_SIZE("1")},
	{256, 512, 1, BAD_SIZE("256")},
	{511, 512, 1, BAD_SIZE("511")},
	{513, 1024, 1, BAD_SIZE("513")},
	{520, 1024, 1, BAD_SIZE("520")},
	{768, 1024, 1, BAD_SIZE("768")},
	{131072, 131072, 1, BAD_SIZE("131072")},
	{0x80000000, 0x80000000, 1, BAD_SIZE("2147483648")},
	{512, 0, 1, BAD_PHYSICAL("0", "512")},
	{512, 256, 1, BAD_PHYSICAL("256", "512")},
	{4096, 512, 1, BAD_PHYSICAL("512", "4096")},
	{512, 520, 1, BAD_PHYSICAL("520", "512")},
	{512, 512, (uint64_t)INT64_MAX / 512 + 1,
	 "too large: more than 18014398509481983 sectors of 512 bytes"},
	{65536, 65536, UINT64_MAX, "too large: more than 140737488355327 sectors of 65536 bytes"},
	{512, 512, 1, NULL},
	{512, 4096, 1, NULL},
	{512, 0x80000000, 1, NULL},
	{65536, 65536, 1, NULL},
	{512, 512, 0, NULL},
	{512, 512, (uint64_t)INT64_MAX / 512, NULL},
	{65536, 65536, (uint64_t)INT64_MAX / 65536, NULL},
};

static void check_geometry(const struct geometry_case *c)
{
	struct probe probe;
	struct err err = {.text = ""};
	struct disk *disk;

	check_context("sector %u, physical %u", c->sector_size, c->physical_sector_size);
	probe_init(&probe, 512, 0);
	probe.geometry.sector_size = c->sector_size;
	probe.geometry.physical_sector_size = c->physical_sector_size;
	probe.sector_count = c->count;
	disk = probe_open(&probe, 0, NULL, &err);
	CHECK_TEXT(err.text, c->text ? c->text : "");
	CHECK(!disk == !!c->text);
	if (disk) {
		CHECK_EQ(disk_sector_count(disk), c->count);
		CHECK_EQ(disk_size(disk), c->count * c->sector_size);
		CHECK_EQ(disk_sector_size(disk), c->sector_size);
		CHECK_EQ(1U << disk_sector_shift(disk), c->sector_size);
		/* What was left at 0 has its least value. */
		CHECK_EQ(disk->geometry.memory_align, 1);
		CHECK_EQ(disk->geometry.optimal_unmap_sectors, 1);
		disk_close(disk);
	}
	CHECK_EQ(probe.counts[PROBE_CLOSE], 1); /* half-built or not */
	probe_destroy(&probe);
}

static void test_geometry_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(geometry_cases); i++)
		check_geometry(&geometry_cases[i]);
}
RUN_IN_TASK(test_geometry)

static void test_open_fails_task(void *argument)
{
	struct probe probe;
	struct err err;

	(void)argument;
	probe_init(&probe, 512, COUNT);
	probe.open_error = "no such thing";
	CHECK(!probe_open(&probe, 0, NULL, &err));
	CHECK_TEXT(err.text, "no such thing");
	CHECK_TEXT(err.key, "probe");
	CHECK_EQ(probe.counts[PROBE_CLOSE], 1);
	disk_close(NULL);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_open_fails)

/* ---- Ranges. ---- */

static int read_at(struct disk *disk, uint64_t sector, uint64_t count)
{
	static char data[4 * 65536];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count << disk_sector_shift(disk));

	return disk_read(disk, &sg, sector);
}

static int write_at(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	static char data[4 * 65536];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count << disk_sector_shift(disk));

	return disk_write(disk, &sg, sector, flags);
}

/* Every operation on a range gives this kind of error; a change of a read-only disk is that. */
static void check_range(struct disk *disk, uint64_t sector, uint64_t count, enum error_kind wanted)
{
	enum error_kind change = disk_is_read_only(disk) ? ERROR_READ_ONLY : wanted;
	enum error_kind extent_wanted = count == 0 ? ERROR_INVALID_INPUT : wanted;
	struct extent extent;

	check_context("sector %llx, %llu of them", (unsigned long long)sector,
		      (unsigned long long)count);
	CHECK_KIND(read_at(disk, sector, count), wanted);
	CHECK_KIND(write_at(disk, sector, count, 0), change);
	CHECK_KIND(write_at(disk, sector, count, DISK_FUA), change);
	CHECK_KIND(disk_unmap(disk, sector, count), change);
	CHECK_KIND(disk_write_zeroes(disk, sector, count, 0), change);
	CHECK_KIND(disk_write_zeroes(disk, sector, count, DISK_FUA | DISK_MAY_UNMAP), change);
	CHECK_KIND(disk_extent(disk, sector, count, &extent), extent_wanted);
}

static void check_ranges(struct disk *disk)
{
	unsigned shift = disk_sector_shift(disk);
	uint64_t max = (uint64_t)INT64_MAX >> shift;
	const struct {
		uint64_t sector, count;
	} outside[] = {
		/* Not representable. */
		{UINT64_MAX, 1},
		{UINT64_MAX - 1, 2},
		{UINT64_MAX - 1, 1},
		{max, 1},
		{max - 1, 2},
		{max - 1, 1},
		{(uint64_t)1 << (64 - shift), 1},
		{((uint64_t)1 << (64 - shift)) - 1, 1},
		{UINT64_MAX, 0},
		/* Outside. */
		{COUNT, 1},
		{COUNT - 1, 2},
		{COUNT + 1, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(outside); i++)
		check_range(disk, outside[i].sector, outside[i].count, ERROR_ILLEGAL_BLOCK);
}

static void check_inside(struct disk *disk, struct probe *probe)
{
	check_range(disk, COUNT - 1, 1, ERROR_NONE);
	check_range(disk, 0, 4, ERROR_NONE);
	probe_forget(probe);
	/* Of length 0: a success that no driver sees. */
	check_range(disk, 0, 0, ERROR_NONE);
	check_range(disk, COUNT, 0, ERROR_NONE);
	CHECK_EQ(probe->call_count, 0);
}

static void test_ranges_task(void *argument)
{
	static const uint32_t sector_sizes[] = {512, 4096, 65536};

	(void)argument;
	for (unsigned i = 0; i < ARRAY_SIZE(sector_sizes) * 6; i++) {
		struct probe probe;
		struct disk *disk;

		probe_init(&probe, sector_sizes[i / 6], COUNT);
		probe.geometry.unmap = (enum unmap_behaviour)(i % 3);
		disk = open_probe(&probe, sector_sizes[i / 6], i / 3 % 2 ? DISK_OPEN_READ_ONLY : 0);
		check_ranges(disk);
		CHECK_EQ(probe.call_count, 0); /* nothing has reached the driver */
		check_inside(disk, &probe);
		disk_close(disk);
		probe_destroy(&probe);
	}
}
RUN_IN_TASK(test_ranges)

/* Lists of bytes that are no whole sectors. */
static void test_whole_sectors_task(void *argument)
{
	static const size_t lengths[] = {1, 511, 513, 4095, 4097, 8191};
	struct probe probe;
	static char data[8192];
	struct iovec iov;

	(void)argument;
	probe_init(&probe, 4096, COUNT);
	struct disk *disk = open_probe(&probe, 4096, 0);

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct sg sg = sg_of(&iov, data, lengths[i]);

		CHECK_KIND(disk_read(disk, &sg, 0), ERROR_INVALID_INPUT);
		CHECK_KIND(disk_write(disk, &sg, 0, 0), ERROR_INVALID_INPUT);
		CHECK_KIND(disk_write(disk, &sg, COUNT, DISK_FUA), ERROR_INVALID_INPUT);
	}
	CHECK_EQ(probe.call_count, 0);
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_whole_sectors)

/* ---- What does not reach the driver. ---- */

static void test_read_only_task(void *argument)
{
	struct probe probe;

	(void)argument;
	for (unsigned by_flag = 0; by_flag < 2; by_flag++) {
		probe_init(&probe, 512, COUNT);
		probe.geometry.read_only = !by_flag;
		struct disk *disk = open_probe(&probe, 512, by_flag ? DISK_OPEN_READ_ONLY : 0);

		CHECK(disk_is_read_only(disk));
		CHECK_KIND(write_at(disk, 0, 1, 0), ERROR_READ_ONLY);
		CHECK_KIND(write_at(disk, 0, 0, 0), ERROR_READ_ONLY);
		CHECK_KIND(write_at(disk, COUNT, 1, ~0U), ERROR_READ_ONLY);
		CHECK_KIND(disk_unmap(disk, 0, 1), ERROR_READ_ONLY);
		CHECK_KIND(disk_write_zeroes(disk, 0, 1, 0), ERROR_READ_ONLY);
		CHECK_OK(disk_flush(disk));
		CHECK_EQ(probe.call_count, 0);
		CHECK_OK(read_at(disk, 0, 1));
		disk_close(disk);
		probe_destroy(&probe);
	}
}
RUN_IN_TASK(test_read_only)

static void test_unmap_ignored_task(void *argument)
{
	struct probe probe;

	(void)argument;
	probe_init(&probe, 512, COUNT);
	probe.geometry.unmap = UNMAP_IGNORED;
	struct disk *disk = open_probe(&probe, 512, 0);

	CHECK_OK(disk_unmap(disk, 0, COUNT));
	CHECK_KIND(disk_unmap(disk, 1, COUNT), ERROR_ILLEGAL_BLOCK);
	CHECK_EQ(probe.call_count, 0);
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_unmap_ignored)

static void test_unknown_flags_task(void *argument)
{
	struct probe probe;

	(void)argument;
	probe_init(&probe, 512, COUNT);
	struct disk *disk = open_probe(&probe, 512, 0);

	CHECK_KIND(write_at(disk, 0, 1, DISK_MAY_UNMAP), ERROR_INVALID_INPUT);
	CHECK_KIND(write_at(disk, 0, 1, 1 << 7), ERROR_INVALID_INPUT);
	CHECK_KIND(disk_write_zeroes(disk, 0, 1, 1 << 2), ERROR_INVALID_INPUT);
	CHECK_EQ(probe.call_count, 0);
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_unknown_flags)

/* A driver without operations: refused, but for those that have an answer without it. */
static void test_missing_operations_task(void *argument)
{
	struct probe probe;
	struct extent extent;
	uint64_t bytes;

	(void)argument;
	probe_init(&probe, 512, COUNT);
	probe.driver = (struct driver){
		.name = "bare",
		.options = probe.driver.options,
		.config_size = probe.driver.config_size,
		.open = probe.driver.open,
		.close = probe.driver.close,
	};
	struct disk *disk = open_probe(&probe, 512, 0);

	CHECK_KIND(read_at(disk, 0, 1), ERROR_UNSUPPORTED);
	CHECK_KIND(write_at(disk, 0, 1, 0), ERROR_UNSUPPORTED);
	CHECK_KIND(write_at(disk, 0, 1, DISK_FUA), ERROR_UNSUPPORTED);
	CHECK_KIND(disk_flush(disk), ERROR_UNSUPPORTED);
	CHECK_KIND(disk_unmap(disk, 0, 1), ERROR_UNSUPPORTED);
	CHECK_KIND(disk_write_zeroes(disk, 0, 1, 0), ERROR_UNSUPPORTED);
	CHECK_KIND(disk_write_zeroes(disk, 0, 1, DISK_MAY_UNMAP), ERROR_UNSUPPORTED);
	CHECK_KIND(disk_eject(disk), ERROR_UNSUPPORTED);
	CHECK_OK(disk_extent(disk, 3, 7, &extent));
	CHECK(extent.kind == EXTENT_DATA && extent.count == 7);
	CHECK_OK(disk_allocated(disk, &bytes));
	CHECK_EQ(bytes, COUNT * 512);
	CHECK(!disk_pr(disk));
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_missing_operations)

static void test_passed_through_task(void *argument)
{
	static const struct pr_ops pr = {.report = NULL};
	struct probe probe;
	struct extent extent = {.kind = EXTENT_DATA, .count = 99};
	uint64_t bytes;

	(void)argument;
	probe_init(&probe, 512, COUNT);
	probe.driver.pr = &pr;
	struct disk *disk = open_probe(&probe, 512, 0);

	CHECK(disk_pr(disk) == &pr);
	CHECK_OK(disk_eject(disk));
	CHECK_OK(disk_allocated(disk, &bytes));
	CHECK_EQ(bytes, 12345);
	probe.fail[PROBE_EXTENT] = (typeof(probe.fail[0])){error_io(EIO), 5, 6};
	CHECK_EQ(disk_extent(disk, 4, 4, &extent), error_io(EIO));
	CHECK_EQ(extent.count, 99); /* untouched */
	CHECK_OK(disk_extent(disk, 6, 4, &extent));
	CHECK(extent.kind == EXTENT_HOLE && extent.count == 1);
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_passed_through)

/* ---- Counters. ---- */

static void check_totals(struct disk *disk, enum stats_op op, uint64_t requests, uint64_t bytes,
			 uint64_t errors)
{
	struct stats_totals totals;
	uint64_t in_buckets = 0;

	stats_read(&disk->core.stats, op, &totals);
	check_context("counters of %s", stats_op_name(op));
	CHECK_EQ(totals.requests, requests);
	CHECK_EQ(totals.bytes, bytes);
	CHECK_EQ(totals.errors, errors);
	CHECK_EQ(totals.in_flight, 0);
	for (unsigned b = 0; b < STATS_BUCKETS; b++)
		in_buckets += totals.latency[b];
	CHECK_EQ(in_buckets, requests);
}

static void test_counters_task(void *argument)
{
	struct probe probe;

	(void)argument;
	probe_init(&probe, 512, COUNT);
	struct disk *disk = open_probe(&probe, 512, 0);

	for (unsigned op = PROBE_READ; op <= PROBE_WRITE_ZEROES; op++)
		probe.fail[op] = (typeof(probe.fail[0])){error_io(EIO), 8, 9};
	CHECK_OK(read_at(disk, 0, 4));
	CHECK_OK(read_at(disk, 1, 1));
	CHECK_EQ(read_at(disk, 8, 1), error_io(EIO));
	CHECK_EQ(read_at(disk, 7, 2), error_io(EIO));
	CHECK_OK(write_at(disk, 0, 3, 0));
	CHECK_EQ(write_at(disk, 8, 1, 0), error_io(EIO));
	CHECK_OK(disk_unmap(disk, 0, 8));
	CHECK_OK(disk_write_zeroes(disk, 9, 7, 0));
	CHECK_OK(disk_flush(disk));
	/* What is refused, or of length 0, is no request. */
	CHECK_KIND(read_at(disk, COUNT, 1), ERROR_ILLEGAL_BLOCK);
	CHECK_OK(write_at(disk, 0, 0, 0));
	check_totals(disk, STATS_READ, 4, 5 * 512, 2);
	check_totals(disk, STATS_WRITE, 2, 3 * 512, 1);
	check_totals(disk, STATS_UNMAP, 1, 8 * 512, 0);
	check_totals(disk, STATS_WRITE_ZEROES, 1, 7 * 512, 0);
	check_totals(disk, STATS_FLUSH, 1, 0, 0);
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_counters)

static int held_read(void *argument)
{
	return read_at(argument, 0, 1);
}

static void test_in_flight_task(void *argument)
{
	struct probe probe;
	struct stats_totals totals;
	struct task_group group = {0};

	(void)argument;
	probe_init(&probe, 512, COUNT);
	struct disk *disk = open_probe(&probe, 512, 0);

	atomic_store(&probe.hold, true);
	for (unsigned i = 0; i < 5; i++)
		task_group_start(&group, held_read, disk);
	task_sleep_ns(3 * NS_PER_US * 1000);
	stats_read(&disk->core.stats, STATS_READ, &totals);
	CHECK_EQ(totals.in_flight, 5);
	CHECK_EQ(totals.requests, 0);
	atomic_store(&probe.hold, false);
	CHECK_OK(task_group_wait(&group));
	check_totals(disk, STATS_READ, 5, 5 * 512, 0);
	/* All of them took 3 ms and more: 2^21 ns are 2 ms. */
	stats_read(&disk->core.stats, STATS_READ, &totals);
	for (unsigned b = 0; b < 21; b++)
		CHECK_EQ(totals.latency[b], 0);
	CHECK(totals.total_ns >= 15 * NS_PER_US * 1000);
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_in_flight)

/* ---- Inspection. ---- */

static void test_inspect_task(void *argument)
{
	struct probe probe, below_probe;
	struct report *report = report_new(REPORT_TEXT);
	struct err err;
	size_t length;

	(void)argument;
	probe_init(&below_probe, 512, COUNT);
	below_probe.geometry.has_id = true;
	memset(below_probe.geometry.id, 0xa5, 16);
	probe_init(&probe, 4096, 2);
	struct disk *below = probe_open(&below_probe, DISK_OPEN_READ_ONLY, NULL, &err);
	struct disk *disk = probe_open(&probe, 0, below, &err);

	CHECK_OK(disk_flush(disk));
	disk_inspect(disk, report);

	char *text = report_finish(report, &length);

	CHECK(strstr(text, "node: probe\ntype: probe\nsize: 8192 (8 KiB)\nsector_count: 2\n"
			   "sector_size: 4096\nphysical_sector_size: 4096\nread_only: no\n"
			   "fua: yes\nunmap: zeroes\noptimal_unmap_sectors: 1\npr: no\n"
			   "operations:\n  flush:\n    requests: 1\n    bytes: 0\n") == text);
	CHECK(strstr(text, "below:\n  -\n    node: probe\n"));
	CHECK(strstr(text, "    read_only: yes\n"));
	CHECK(strstr(text, "    disk_id: a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5\n"));
	free(text);
	disk_close(disk);
	disk_close(below);
	probe_destroy(&probe);
	probe_destroy(&below_probe);
}
RUN_IN_TASK(test_inspect)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_geometry),       cmocka_unit_test(test_open_fails),
		cmocka_unit_test(test_ranges),	       cmocka_unit_test(test_whole_sectors),
		cmocka_unit_test(test_read_only),      cmocka_unit_test(test_unmap_ignored),
		cmocka_unit_test(test_unknown_flags),  cmocka_unit_test(test_missing_operations),
		cmocka_unit_test(test_passed_through), cmocka_unit_test(test_counters),
		cmocka_unit_test(test_in_flight),      cmocka_unit_test(test_inspect),
	};

	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
