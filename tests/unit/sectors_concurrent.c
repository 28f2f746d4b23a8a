// SPDX-License-Identifier: MIT
/* Sectors in memory, used by many tasks on several workers at once. */
#include "backends/sectors/sectors.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

#define TASKS 12
#define AREA  (3 * MIB + 192 * KIB)
#define BASE  ((uint64_t)1 << 50) /* where the area lies, in bytes */

#ifdef __SANITIZE_THREAD__
#define STEPS 300
#else
#define STEPS 1500
#endif

struct area {
	struct sectors *sectors;
	uint32_t size;	/* of a sector */
	uint64_t count; /* sectors */
	bool may_be_full;
};

static bool check_result(const struct area *area, int error)
{
	return CHECK(error == 0 || (area->may_be_full && error == error_io(ENOSPC)));
}

/* ---- Nobody sees a part of a change. ---- */

#define LENGTH_MAX (320 * KIB)

struct request {
	uint64_t first, count;
	struct iovec iov[2];
	struct sg sg;
};

/* Anywhere in the area, in two segments that meet inside a sector. */
static struct request request_random(const struct area *area, struct random *random, char *buffer)
{
	struct request request = {.first = random_below(random, area->count)};
	uint64_t most = min_u64(area->count - request.first, LENGTH_MAX / area->size);
	size_t length, half;

	request.count = 1 + random_below(random, random_below(random, 4) ? min_u64(most, 9) : most);
	length = request.count * area->size;
	half = random_below(random, length);
	request.iov[0] = (struct iovec){buffer, half};
	request.iov[1] = (struct iovec){buffer + half, length - half};
	request.sg = (struct sg){.len = length};
	request.first += BASE / area->size;
	return request;
}

/* Every sector that was found, or that was not, has one value throughout. */
static bool read_whole(const struct area *area, struct request *request, char *buffer)
{
	struct layer_gaps gaps;
	uint64_t found = 0;
	bool held = true;

	memset(buffer, 0x77, request->sg.len);
	sectors_read(area->sectors, &request->sg, request->first, &gaps);
	for (uint64_t i = 0; held && i < gaps.answered; i++) {
		const char *sector = buffer + i * area->size;

		held = CHECK_EQ(bytes_differ(sector, area->size, sector[0]), area->size);
		found += sector[0] != 0x77;
	}
	for (unsigned i = 0; i < gaps.count; i++)
		found += gaps.gaps[i].count;
	return held && CHECK(gaps.answered > 0) && CHECK_EQ(found, gaps.answered);
}

/* Every value but the one that stands for nothing. */
static void fill(struct request *request, char *buffer, uint64_t value)
{
	memset(buffer, 1 + (int)(value % 0x70), request->sg.len);
}

static void whole_task(unsigned index, void *argument)
{
	const struct area *area = argument;
	struct random random = {.state = index + 17};
	char *buffer = malloc(LENGTH_MAX);
	bool held = true;

	for (unsigned i = 0; held && i < STEPS; i++) {
		struct request request = request_random(area, &random, buffer);
		uint64_t kind = random_below(&random, 10);
		struct layer_run run;

		request.sg.iov = request.iov;
		if (kind < 5)
			held = read_whole(area, &request, buffer);
		fill(&request, buffer, i);
		if (kind == 5 || kind == 6)
			held = check_result(area, sectors_write(area->sectors, &request.sg,
								request.first));
		else if (kind == 7)
			held = check_result(area, sectors_populate(area->sectors, &request.sg,
								   request.first));
		else if (kind == 8)
			held = check_result(area, sectors_zero(area->sectors, request.first,
							       request.count));
		else if (kind == 9)
			held = CHECK_OK(sectors_drop(area->sectors, request.first, request.count));
		sectors_run(area->sectors, request.first, request.count, &run);
		held &= CHECK(run.count > 0 && run.count <= request.count);
		if (i % 16 == 0)
			task_yield();
	}
	free(buffer);
}

static void check_counts(const struct area *area)
{
	struct sectors_present present;
	uint64_t data = 0, zeroes = 0;
	uint64_t sector = BASE / area->size, end = sector + area->count;

	while (sector < end) {
		struct layer_run run;

		sectors_run(area->sectors, sector, end - sector, &run);
		data += run.state == LAYER_DATA ? run.count : 0;
		zeroes += run.state == LAYER_ZEROES ? run.count : 0;
		sector += run.count;
	}
	sectors_present(area->sectors, &present);
	CHECK_EQ(present.data, data);
	CHECK_EQ(present.zeroes, zeroes);
}

static void check_whole(uint32_t size, uint64_t limit)
{
	struct area area = {
		.sectors = sectors_new(size, limit),
		.size = size,
		.count = AREA / size,
		.may_be_full = limit > 0,
	};
	struct sectors_memory memory;

	check_context("sectors of %u bytes, limit %llu", size, (unsigned long long)limit);
	run_tasks(TASKS, whole_task, &area);
	check_counts(&area);
	sectors_memory(area.sectors, &memory);
	CHECK(limit == 0 || memory.data + memory.index <= limit + 128 * KIB);
	CHECK_OK(sectors_drop(area.sectors, BASE / size, area.count));
	check_counts(&area);
	sectors_memory(area.sectors, &memory);
	CHECK_EQ(memory.data, 0);
	sectors_free(area.sectors);
}

static void test_whole_sectors(void **state)
{
	(void)state;
	for (uint32_t size = 512; size <= GEOMETRY_SECTOR_MAX; size *= 2)
		check_whole(size, 0);
	check_finish();
}

static void test_whole_sectors_at_the_limit(void **state)
{
	static const uint32_t sizes[] = {512, 4096, 65536};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		check_whole(sizes[i], MIB + 256 * KIB);
	check_finish();
}

/* ---- What one does, none of the others undoes. ---- */

#define OWN 60 /* sectors of each task, between those of the others */

static bool own_is(const struct area *area, uint64_t sector, char *buffer, enum layer_state state,
		   int value)
{
	struct layer_gaps gaps;
	struct layer_run run;
	struct iovec iov;
	struct sg sg = sg_of(&iov, buffer, area->size);

	sectors_run(area->sectors, sector, 1, &run);
	memset(buffer, 0x77, area->size);
	sectors_read(area->sectors, &sg, sector, &gaps);
	return CHECK_EQ(run.state, state) && CHECK_EQ(run.count, 1) &&
	       CHECK_EQ(gaps.count, state == LAYER_ABSENT ? 1 : 0) &&
	       CHECK_EQ(bytes_differ(buffer, area->size, value), area->size);
}

/* One change of a sector that is in *state and has *value. */
static bool own_step(const struct area *area, struct random *random, uint64_t sector, char *buffer,
		     enum layer_state *state, int *value)
{
	uint64_t kind = random_below(random, 4);
	int fresh = 1 + (int)random_below(random, 0x70);
	struct iovec iov;
	struct sg sg = sg_of(&iov, buffer, area->size);
	int error;

	memset(buffer, fresh, area->size);
	if (kind == 0 || (kind == 1 && *state == LAYER_ABSENT)) {
		*state = LAYER_DATA;
		*value = fresh;
	} else if (kind > 1) {
		*state = kind == 2 ? LAYER_ZEROES : LAYER_ABSENT;
		*value = kind == 2 ? 0 : 0x77;
	}
	if (kind == 0)
		error = sectors_write(area->sectors, &sg, sector);
	else if (kind == 1)
		error = sectors_populate(area->sectors, &sg, sector);
	else
		error = kind == 2 ? sectors_zero(area->sectors, sector, 1)
				  : sectors_drop(area->sectors, sector, 1);
	return CHECK_OK(error);
}

static void own_task(unsigned index, void *argument)
{
	const struct area *area = argument;
	struct random random = {.state = index + 99};
	enum layer_state states[OWN] = {LAYER_ABSENT};
	char *buffer = malloc(area->size);
	int values[OWN];
	bool held = true;

	for (unsigned i = 0; i < OWN; i++)
		values[i] = 0x77;
	for (unsigned i = 0; held && i < STEPS; i++) {
		uint64_t own = random_below(&random, OWN);
		uint64_t sector = BASE / area->size + own * TASKS + index;

		held = own_is(area, sector, buffer, states[own], values[own]) &&
		       own_step(area, &random, sector, buffer, &states[own], &values[own]) &&
		       own_is(area, sector, buffer, states[own], values[own]);
		if (i % 16 == 0)
			task_yield();
	}
	free(buffer);
}

static void test_own_sectors(void **state)
{
	(void)state;
	for (uint32_t size = 512; size <= GEOMETRY_SECTOR_MAX; size *= 2) {
		struct area area = {
			.sectors = sectors_new(size, 0),
			.size = size,
			.count = (uint64_t)OWN * TASKS,
		};

		check_context("sectors of %u bytes", size);
		run_tasks(TASKS, own_task, &area);
		check_counts(&area);
		sectors_free(area.sectors);
	}
	check_finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_sectors),
		cmocka_unit_test(test_whole_sectors_at_the_limit),
		cmocka_unit_test(test_own_sectors),
	};

	return cmocka_run_group_tests(tests, setup_4_workers, teardown_workers);
}
