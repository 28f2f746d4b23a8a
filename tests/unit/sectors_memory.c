// SPDX-License-Identifier: MIT
/*
 * What sectors in memory cost: how much is needed to find them, whether that is what the system
 * sees, what comes back, and what happens when there is no more.
 *
 *	LONG=1	a million scattered pages, of 4 GiB, instead of a tenth
 */
#include "backends/sectors/sectors.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/check.h"
#include "tests/lib/run.h"

#define PAGE ((uint64_t)4096)
#define TIB  (1024 * GIB)
#define RUN  (64 * KIB)

/* Shadow memory and delayed frees are no memory of ours. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

/* What the program may need for itself meanwhile, and pages that are free but not given back. */
#define SLACK (3 * MIB)

static char data[MIB];

static int put(struct sectors *sectors, uint64_t sector, size_t length)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, length);

	return sectors_write(sectors, &sg, sector);
}

/* ---- What the system sees. ---- */

static uint64_t resident(void)
{
	unsigned long long size, pages;
	FILE *file = fopen("/proc/self/statm", "r");
	int count = file ? fscanf(file, "%llu %llu", &size, &pages) : 0;

	CHECK_EQ(count, 2);
	if (file)
		fclose(file);
	return count == 2 ? pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static unsigned mappings(void)
{
	FILE *file = fopen("/proc/self/maps", "r");
	unsigned lines = 0;
	int c;

	if (!CHECK(file))
		return 0;
	while ((c = getc(file)) != EOF)
		lines += c == '\n';
	fclose(file);
	return lines;
}

/* The store's own count is what the process has grown by since it had @before. */
static void check_resident(const struct sectors *sectors, uint64_t before)
{
	struct sectors_memory memory;
	uint64_t counted, seen = resident() - before;

	sectors_memory(sectors, &memory);
	counted = memory.data + memory.index;
	if (SANITIZED)
		return;
	CHECK(seen <= counted + SLACK);
	CHECK(seen + SLACK >= counted);
}

/* ---- Overhead. ---- */

/* Runs of @length bytes, each at a multiple of that, anywhere in @size bytes. */
static uint64_t scatter(struct sectors *sectors, uint32_t sector_size, size_t length, uint64_t size,
			uint64_t count)
{
	struct random random = {.state = 3};
	uint64_t before = resident();

	for (uint64_t i = 0; i < count; i++)
		if (!CHECK_OK(put(sectors,
				  random_below(&random, size / length) * length / sector_size,
				  length)))
			break;
	return before;
}

static const struct {
	const char *name;
	uint32_t sector_size;
	size_t length;
	uint64_t size, count, per_cent;
	unsigned mappings;
} scattered[] = {
	{"pages in 16 TiB", 4096, PAGE, 16 * TIB, 100000, 12, 60},
	{"pages in 16 TiB, by sectors of 512", 512, PAGE, 16 * TIB, 100000, 12, 60},
	{"pages in 1 GiB", 4096, PAGE, GIB, 100000, 12, 60},
	{"64 KiB in 16 TiB", 512, RUN, 16 * TIB, 5000, 5, 60},
	{"64 KiB in 2^63", 4096, RUN, INT64_MAX / RUN *RUN, 5000, 5, 60},
	{"sectors of 64 KiB in 16 TiB", 65536, RUN, 16 * TIB, 5000, 5, 60},
	{"1 MiB in 1 TiB", 512, MIB, TIB, 400, 2, 60},
};

/* With what is found there once more, and a half of it dropped again. */
static void check_scattered(size_t index)
{
	uint32_t sector_size = scattered[index].sector_size;
	uint64_t count = scattered[index].count, before, end;
	struct sectors *sectors = sectors_new(sector_size, 0);
	struct sectors_memory memory;
	struct sectors_present present;
	unsigned maps = mappings();

	if (getenv("LONG") && scattered[index].length == PAGE && scattered[index].size > TIB)
		count = 1000000;
	before = scatter(sectors, sector_size, scattered[index].length, scattered[index].size,
			 count);
	sectors_memory(sectors, &memory);
	sectors_present(sectors, &present);
	CHECK_EQ(memory.data, present.data * sector_size);
	CHECK_EQ(present.zeroes, 0);
	CHECK(memory.index * 100 <= memory.data * scattered[index].per_cent);
	check_resident(sectors, before);
	CHECK(mappings() <= maps + scattered[index].mappings);

	end = scattered[index].size / sector_size;
	CHECK_OK(sectors_drop(sectors, 0, end / 2));
	check_resident(sectors, before);
	CHECK_OK(sectors_drop(sectors, end / 2, end - end / 2));
	sectors_memory(sectors, &memory);
	CHECK_EQ(memory.data, 0);
	CHECK(memory.index < 2 * MIB);
	check_resident(sectors, before);
	sectors_free(sectors);
}

static void test_scattered(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(scattered); i++) {
		check_context("%s", scattered[i].name);
		check_scattered(i);
	}
	check_finish();
}

/* Leaves that grow a page at a time, and shrink again: what is needed to find them does, too. */
static void test_growing(void **state)
{
	struct sectors *sectors = sectors_new(512, 0);
	struct random random = {.state = 5};
	uint64_t before = resident(), pages = 128 * MIB / PAGE;
	struct sectors_memory memory;

	(void)state;
	for (uint64_t i = 0; i < pages * 2; i++)
		CHECK_OK(put(sectors, random_below(&random, pages) * 8, PAGE));
	sectors_memory(sectors, &memory);
	CHECK(memory.index * 100 < memory.data * 2);
	check_resident(sectors, before);
	for (uint64_t i = 0; i < pages * 3; i++)
		CHECK_OK(sectors_zero(sectors, random_below(&random, pages) * 8, 8));
	sectors_memory(sectors, &memory);
	CHECK(memory.index < 3 * MIB);
	check_resident(sectors, before);
	sectors_free(sectors);
	check_finish();
}

/* ---- Ranges of any length. ---- */

/* Clearing terabytes neither takes nor lasts. */
static void test_huge_ranges(void **state)
{
	struct sectors *sectors = sectors_new(512, 0);
	struct random random = {.state = 9};
	uint64_t all = 16 * TIB / 512, start = now_ns();
	struct sectors_memory memory, empty;

	(void)state;
	sectors_memory(sectors, &empty);
	CHECK_OK(sectors_zero(sectors, 0, all));
	sectors_memory(sectors, &memory);
	CHECK_EQ(memory.data, 0);
	CHECK(memory.index <= empty.index + 64 * KIB);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t first = random_below(&random, all);
		uint64_t count = 1 + random_below(&random, all - first);

		CHECK_OK(i % 2 ? sectors_zero(sectors, first, count)
			       : sectors_drop(sectors, first, count));
	}
	CHECK_OK(sectors_drop(sectors, 0, all));
	sectors_memory(sectors, &memory);
	CHECK(memory.index <= empty.index + 2 * MIB);
	/* 20 us each here; it would take hours if the length counted. */
	CHECK(now_ns() - start < 20 * NS_PER_S);
	sectors_free(sectors);
	check_finish();
}

/* A tombstone of a terabyte with much in it is one again in the end. */
static void test_tombstone_over_data(void **state)
{
	struct sectors *sectors = sectors_new(512, 0);
	struct sectors_present present;
	struct sectors_memory memory;
	struct layer_run run;
	uint64_t before;

	(void)state;
	before = scatter(sectors, 512, RUN, TIB, 1000);
	CHECK_OK(sectors_zero(sectors, 0, TIB / 512));
	sectors_memory(sectors, &memory);
	sectors_present(sectors, &present);
	CHECK_EQ(memory.data, 0);
	CHECK(memory.index < 2 * MIB);
	CHECK_EQ(present.data, 0);
	CHECK_EQ(present.zeroes, TIB / 512);
	sectors_run(sectors, 0, TIB / 512, &run);
	CHECK_EQ(run.state, LAYER_ZEROES);
	CHECK_EQ(run.count, TIB / 512);
	check_resident(sectors, before);
	sectors_free(sectors);
	check_finish();
}

/* ---- No more memory. ---- */

#define LIMIT (4 * MIB)

static void check_limit(struct sectors *sectors)
{
	struct sectors_memory memory;

	sectors_memory(sectors, &memory);
	CHECK(memory.data + memory.index <= LIMIT + 64 * KIB);
}

static bool is_full(int error)
{
	return error_kind(error) == ERROR_IO && error_errno(error) == ENOSPC;
}

/* Each sector of the store from sector 0 holds 'a' throughout, or 'b', or is absent. */
static void check_whole(struct sectors *sectors, uint32_t size, uint64_t count)
{
	char *back = malloc(size);

	for (uint64_t i = 0; i < count; i++) {
		struct layer_gaps gaps;
		struct iovec iov;
		struct sg sg = sg_of(&iov, back, size);

		sectors_read(sectors, &sg, i, &gaps);
		if (gaps.count == 0)
			CHECK(bytes_differ(back, size, back[0]) == size &&
			      (back[0] == 'a' || back[0] == 'b'));
	}
	free(back);
}

static void check_full(uint32_t sector_size)
{
	struct sectors *sectors = sectors_new(sector_size, LIMIT);
	uint64_t step = 128 * KIB / sector_size, at = 0;
	struct sectors_memory memory;

	memset(data, 'a', sizeof(data));
	while (put(sectors, at, 128 * KIB) == 0)
		at += step;
	check_limit(sectors);
	sectors_memory(sectors, &memory);
	CHECK(memory.data >= LIMIT - 256 * KIB);
	/* What is there can be written; a write that needs more fails, and leaves whole sectors. */
	memset(data, 'b', sizeof(data));
	CHECK_OK(put(sectors, 0, 128 * KIB));
	CHECK(is_full(put(sectors, at - step, 512 * KIB)));
	check_whole(sectors, sector_size, at + 4 * step);
	check_limit(sectors);
	/* What is dropped or zeroed can be used again. */
	CHECK_OK(sectors_drop(sectors, 0, step));
	CHECK_OK(put(sectors, 100 * step, 64 * KIB));
	CHECK_OK(sectors_zero(sectors, step, step));
	CHECK_OK(put(sectors, 200 * step, 64 * KIB));
	check_limit(sectors);
	sectors_free(sectors);
}

static void test_limit(void **state)
{
	(void)state;
	for (uint32_t size = 512; size <= GEOMETRY_SECTOR_MAX; size *= 2) {
		check_context("sectors of %u bytes", size);
		check_full(size);
	}
	check_finish();
}

/* At the limit, pages can still be taken apart, and what is there be dropped; tombstones that need
 * memory of their own cannot go on for ever. */
static void test_clearing_at_the_limit(void **state)
{
	struct sectors *sectors = sectors_new(512, LIMIT);
	uint64_t at = 0, i;
	int error = 0;

	(void)state;
	while (put(sectors, at, 128 * KIB) == 0)
		at += 128 * KIB / 512;
	while (put(sectors, at, PAGE) == 0)
		at += 8;
	for (i = 0; i < at; i += 9)
		CHECK_OK(i % 2 ? sectors_drop(sectors, i, 1) : sectors_zero(sectors, i, 1));
	check_limit(sectors);
	for (i = 0; i < 1000000 && error == 0; i++)
		error = sectors_zero(sectors, (i + 1) * MIB, 1);
	CHECK(is_full(error));
	check_limit(sectors);
	for (uint64_t j = 0; j < i; j++)
		CHECK_OK(sectors_drop(sectors, (j + 1) * MIB, 1));
	CHECK_OK(sectors_drop(sectors, 0, at));
	CHECK_OK(put(sectors, 0, MIB));
	sectors_free(sectors);
	check_finish();
}

/* Populating fails as writing does. */
static void test_populating_at_the_limit(void **state)
{
	struct sectors *sectors = sectors_new(512, LIMIT);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, MIB);
	uint64_t at = 0;
	int error;

	(void)state;
	memset(data, 'a', sizeof(data));
	do {
		error = sectors_populate(sectors, &sg, at);
		at += MIB / 512;
	} while (error == 0);
	CHECK(is_full(error));
	check_limit(sectors);
	check_whole(sectors, 512, at);
	sectors_free(sectors);
	check_finish();
}

/* The system has no more: as at the limit, and it goes on when there is some again. */
static void test_no_memory(void **state)
{
	struct sectors *sectors = sectors_new(512, 0);
	struct rlimit old, none;
	uint64_t at = 0;
	int error;

	(void)state;
	if (SANITIZED) {
		sectors_free(sectors);
		skip();
	}
	memset(data, 'a', sizeof(data));
	CHECK_OK(put(sectors, 0, PAGE));
	CHECK_EQ(getrlimit(RLIMIT_AS, &old), 0);
	none = (struct rlimit){.rlim_cur = MIB, .rlim_max = old.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_AS, &none), 0);
	do {
		error = put(sectors, at, MIB);
		at += MIB / 512;
	} while (error == 0 && at < GIB / 512);
	CHECK(is_full(error));
	CHECK(is_full(put(sectors, at, MIB)));
	check_whole(sectors, 512, at);
	CHECK_OK(sectors_drop(sectors, 0, 2 * MIB / 512));
	CHECK_OK(put(sectors, at, MIB));
	CHECK_EQ(setrlimit(RLIMIT_AS, &old), 0);
	CHECK_OK(put(sectors, 0, MIB));
	CHECK_OK(put(sectors, 16 * TIB / 512, MIB));
	sectors_free(sectors);
	check_finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scattered),
		cmocka_unit_test(test_growing),
		cmocka_unit_test(test_huge_ranges),
		cmocka_unit_test(test_tombstone_over_data),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_clearing_at_the_limit),
		cmocka_unit_test(test_populating_at_the_limit),
		cmocka_unit_test(test_no_memory),
	};

	/* Its own memory is in place before anything is measured. */
	memset(data, 'a', sizeof(data));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
