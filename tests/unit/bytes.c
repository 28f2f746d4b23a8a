// SPDX-License-Identifier: MIT
/* Access by bytes: every range of a small disk against a model, and neighbours at the same time. */
#include "core/bytes.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"

/* A disk, what should be on it, and room for a copy. */
struct fixture {
	struct probe probe;
	struct disk *disk;
	size_t size;
	char *model, *data;
};

static void fixture_open(struct fixture *fixture, uint32_t sector_size, uint64_t count)
{
	struct err err;

	probe_init(&fixture->probe, sector_size, count);
	fixture->disk = probe_open(&fixture->probe, 0, NULL, &err);
	fixture->size = sector_size * count;
	fixture->model = malloc(fixture->size);
	fixture->data = malloc(fixture->size);
	pattern_fill(fixture->model, fixture->size, sector_size);
	memcpy(fixture->probe.data, fixture->model, fixture->size);
}

static void fixture_close(struct fixture *fixture)
{
	disk_close(fixture->disk);
	probe_destroy(&fixture->probe);
	free(fixture->model);
	free(fixture->data);
}

static bool model_holds(const struct fixture *fixture)
{
	return CHECK(memcmp(fixture->probe.data, fixture->model, fixture->size) == 0);
}

/* All three operations on one range. */
static bool check_range(struct fixture *fixture, size_t offset, size_t length)
{
	struct disk *disk = fixture->disk;
	char *data = fixture->data, *model = fixture->model;
	bool held = true;

	memset(data, '#', fixture->size);
	held &= CHECK_OK(disk_read_bytes(disk, data + 1, length, offset));
	held &= CHECK(memcmp(data + 1, model + offset, length) == 0);
	held &= CHECK(data[0] == '#' && (length + 1 >= fixture->size || data[length + 1] == '#'));

	pattern_fill(data, length, offset * 7919 + length);
	memcpy(model + offset, data, length);
	held &= CHECK_OK(disk_write_bytes(disk, data, length, offset, 0));
	held &= model_holds(fixture);

	memset(model + offset, 0, length);
	held &= CHECK_OK(disk_zero_bytes(disk, offset, length, offset % 2 ? DISK_MAY_UNMAP : 0));
	held &= model_holds(fixture);

	/* Not zeros again, for the next. */
	pattern_fill(model + offset, length, offset + length);
	memcpy(fixture->probe.data + offset, model + offset, length);
	probe_forget(&fixture->probe);
	return held;
}

static void check_every_range(uint32_t sector_size, uint64_t count, size_t step)
{
	struct fixture fixture;

	fixture_open(&fixture, sector_size, count);
	fixture.data = realloc(fixture.data, fixture.size + 2);
	for (size_t offset = 0; offset <= fixture.size; offset += step) {
		for (size_t length = 0; length <= fixture.size - offset; length += step) {
			check_context("sector size %u, offset %zu, length %zu", sector_size, offset,
				      length);
			if (!check_range(&fixture, offset, length))
				goto end;
		}
	}
end:
	fixture_close(&fixture);
}

static void test_every_range_task(void *argument)
{
	(void)argument;
	/* Steps that meet, and miss, every boundary. */
	check_every_range(512, 4, 64);
	check_every_range(512, 3, 41);
	check_every_range(4096, 3, 512);
	check_every_range(4096, 3, 377);
}
RUN_IN_TASK(test_every_range)

/* Offsets and ends at most two bytes from each boundary of a sector. */
static void check_boundaries(uint32_t sector_size)
{
	struct fixture fixture;

	fixture_open(&fixture, sector_size, 4);
	fixture.data = realloc(fixture.data, fixture.size + 2);
	for (unsigned i = 0; i < 25 * 25; i++) {
		size_t offset = i % 25 / 5 * sector_size + i % 5 - 2;
		size_t end = i / 25 / 5 * sector_size + i / 25 % 5 - 2;

		check_context("sector size %u, offset %zu, end %zu", sector_size, offset, end);
		if (offset <= end && end <= fixture.size &&
		    !check_range(&fixture, offset, end - offset))
			break;
	}
	fixture_close(&fixture);
}

static void test_boundaries_task(void *argument)
{
	(void)argument;
	check_boundaries(512);
	check_boundaries(4096);
	check_boundaries(65536);
}
RUN_IN_TASK(test_boundaries)

/* ---- Errors. ---- */

static void test_outside_task(void *argument)
{
	static const struct {
		uint64_t offset, length;
	} outside[] = {
		{4 * 512, 1},	     {4 * 512 - 1, 2},	       {4 * 512 + 1, 0},
		{0, 4 * 512 + 1},    {UINT64_MAX, 1},	       {UINT64_MAX, 0},
		{UINT64_MAX - 1, 2}, {(uint64_t)INT64_MAX, 1}, {1, (uint64_t)1 << 62},
	};
	struct fixture fixture;
	struct disk *disk;

	(void)argument;
	fixture_open(&fixture, 512, 4);
	disk = fixture.disk;
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		uint64_t offset = outside[i].offset, length = outside[i].length;

		CHECK_KIND(disk_read_bytes(disk, NULL, length, offset), ERROR_ILLEGAL_BLOCK);
		CHECK_KIND(disk_write_bytes(disk, NULL, length, offset, 0), ERROR_ILLEGAL_BLOCK);
		CHECK_KIND(disk_zero_bytes(disk, offset, length, 0), ERROR_ILLEGAL_BLOCK);
	}
	CHECK_OK(disk_read_bytes(disk, NULL, 0, 4 * 512));
	CHECK_OK(disk_write_bytes(disk, NULL, 0, 4 * 512, 0));
	CHECK_OK(disk_zero_bytes(disk, 4 * 512, 0, 0));
	CHECK_EQ(fixture.probe.call_count, 0);
	disk->geometry.read_only = true;
	CHECK_KIND(disk_write_bytes(disk, "x", 1, 1, 0), ERROR_READ_ONLY);
	CHECK_KIND(disk_write_bytes(disk, "x", 0, 1, 0), ERROR_READ_ONLY);
	CHECK_KIND(disk_zero_bytes(disk, 1, 1, 0), ERROR_READ_ONLY);
	CHECK_EQ(fixture.probe.call_count, 0);
	fixture_close(&fixture);
}
RUN_IN_TASK(test_outside)

/* What fails changes nothing outside, and leaves nothing locked. */
static void test_failures_task(void *argument)
{
	static const char data[1024] = {0};
	struct fixture fixture;

	(void)argument;
	fixture_open(&fixture, 512, 4);
	for (unsigned op = PROBE_READ; op <= PROBE_WRITE; op++) {
		fixture.probe.fail[op] =
			(typeof(fixture.probe.fail[0])){error_medium(EIO, MEDIUM_WRITE_FAULT), 2,
							3};
		CHECK_KIND(disk_write_bytes(fixture.disk, data, 1024, 100, 0), ERROR_MEDIUM);
		model_holds(&fixture);
		CHECK_KIND(disk_write_bytes(fixture.disk, data, 100, 1030, 0), ERROR_MEDIUM);
		model_holds(&fixture);
		fixture.probe.fail[op].error = 0;
	}
	CHECK(!fixture.disk->core.byte_lock->held);
	check_range(&fixture, 100, 1024);
	fixture_close(&fixture);
}
RUN_IN_TASK(test_failures)

/* ---- Fewest calls, FUA. ---- */

static void test_calls_task(void *argument)
{
	static char data[2048];
	struct fixture fixture;
	struct probe *probe = &fixture.probe;

	(void)argument;
	fixture_open(&fixture, 512, 4);
	CHECK_OK(disk_write_bytes(fixture.disk, data, 1024, 512, DISK_FUA));
	CHECK_EQ(probe->call_count, 1); /* whole sectors: nothing is read */
	CHECK_EQ(probe->calls[0].flags, DISK_FUA);
	probe_forget(probe);
	CHECK_OK(disk_write_bytes(fixture.disk, data, 1500, 100, DISK_FUA));
	CHECK_EQ(probe->counts[PROBE_READ], 2);
	CHECK_EQ(probe->counts[PROBE_WRITE], 1);
	CHECK_EQ(probe->calls[2].flags, DISK_FUA);
	probe_forget(probe);
	CHECK_OK(disk_read_bytes(fixture.disk, data, 1500, 100));
	CHECK_EQ(probe->call_count, 1);
	probe_forget(probe);
	CHECK_OK(disk_zero_bytes(fixture.disk, 100, 1500, DISK_FUA | DISK_MAY_UNMAP));
	CHECK_EQ(probe->counts[PROBE_WRITE_ZEROES], 1);
	CHECK_EQ(probe->counts[PROBE_WRITE], 2);
	for (unsigned i = 0; i < probe->call_count; i++)
		CHECK(probe->calls[i].op == PROBE_READ || (probe->calls[i].flags & DISK_FUA));
	fixture_close(&fixture);
}
RUN_IN_TASK(test_calls)

/* ---- At the same time. ---- */

#define WRITERS 16
#define TURNS	60

/*
 * Each task owns every WRITERS-th byte of a disk of 4 sectors, whose driver lets others run between
 * a read and the write that follows it. No other task's write may undo its bytes.
 */
static void write_own_bytes(unsigned index, void *argument)
{
	struct fixture *fixture = argument;
	struct random random = {.state = index};

	for (unsigned turn = 1; turn <= TURNS; turn++) {
		for (unsigned i = 0; i < 4; i++) {
			size_t at =
				random_below(&random, fixture->size / WRITERS) * WRITERS + index;
			char value = (char)random_next(&random), back;

			CHECK_OK(disk_write_bytes(fixture->disk, &value, 1, at, 0));
			CHECK_OK(disk_read_bytes(fixture->disk, &back, 1, at));
			CHECK_EQ(back, value);
			fixture->model[at] = value;
		}
	}
}

static void setup_fixture(void *argument)
{
	struct fixture *fixture = argument;

	fixture_open(fixture, 512, 4);
	fixture->probe.shared = true;
	fixture->probe.yields = 1;
}

static void end_fixture(void *argument)
{
	struct fixture *fixture = argument;

	model_holds(fixture);
	CHECK(!fixture->disk->core.byte_lock->held);
	fixture_close(fixture);
}

static void test_neighbours(void **state)
{
	struct fixture fixture;

	(void)state;
	run_task(setup_fixture, &fixture);
	run_tasks(WRITERS, write_own_bytes, &fixture);
	run_task(end_fixture, &fixture);
}

/* The same against whole sectors: task 0 writes sector 1 alone, the others around and across it. */
static void write_around(unsigned index, void *argument)
{
	struct fixture *fixture = argument;
	char data[1024], back[512];

	for (unsigned turn = 0; turn < TURNS; turn++) {
		memset(data, (int)(turn * 16 + index), sizeof(data));
		if (index == 0) {
			CHECK_OK(disk_write_bytes(fixture->disk, data, 512, 512, 0));
		} else if (index % 2) {
			/* The end of sector 0: never a byte of sector 1. */
			CHECK_OK(disk_write_bytes(fixture->disk, data, 100, 412, 0));
		} else {
			CHECK_OK(disk_zero_bytes(fixture->disk, 1024, 600, 0));
		}
		/* Whole, whoever wrote it. */
		CHECK_OK(disk_read_bytes(fixture->disk, back, 100, 412));
		CHECK_EQ(bytes_differ(back, 100, (unsigned char)back[0]), 100);
		CHECK_OK(disk_read_bytes(fixture->disk, back, 512, 512));
		CHECK_EQ(bytes_differ(back, 512, (unsigned char)back[0]), 512);
	}
}

static void end_around(void *argument)
{
	struct fixture *fixture = argument;

	CHECK(memcmp(fixture->probe.data, fixture->model, 412) == 0);
	CHECK_EQ(bytes_differ(fixture->probe.data + 512, 512, (TURNS - 1) * 16 & 0xff), 512);
	CHECK_EQ(bytes_differ(fixture->probe.data + 1024, 600, 0), 600);
	CHECK(memcmp(fixture->probe.data + 1624, fixture->model + 1624, 2048 - 1624) == 0);
	fixture_close(fixture);
}

static void setup_around(void *argument)
{
	struct fixture *fixture = argument;

	setup_fixture(fixture);
	memset(fixture->probe.data + 412, 1, 100);
	memset(fixture->probe.data + 512, 2, 512);
}

static void test_whole_sectors_and_edges(void **state)
{
	struct fixture fixture;

	(void)state;
	run_task(setup_around, &fixture);
	run_tasks(9, write_around, &fixture);
	run_task(end_around, &fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_range),
		cmocka_unit_test(test_boundaries),
		cmocka_unit_test(test_outside),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_neighbours),
		cmocka_unit_test(test_whole_sectors_and_edges),
	};

	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
