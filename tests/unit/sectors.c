// SPDX-License-Identifier: MIT
/*
 * Sectors in memory, against a model that is too plain to be wrong: random changes in a few windows
 * that lie anywhere in the largest disk, and of all between them.
 *
 *	SEED=n	replays a run
 */
#include "backends/sectors/sectors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/check.h"
#include "tests/lib/run.h"

#define WINDOWS	      5
#define UNTOUCHED     0x5c /* what a read finds in its memory */
#define SEGMENTS      4
#define LEAF	      (256 * KIB)
#define DISK_MAX_SIZE ((uint64_t)INT64_MAX)

static uint64_t seed = 1;

/* A window is a run of sectors whose content the model keeps. */
struct window {
	uint64_t first; /* sector */
	uint8_t *states;
	char *data;
};

struct world {
	struct sectors *sectors;
	struct random random;
	uint32_t size;	/* bytes of a sector */
	uint64_t count; /* sectors of a window */
	struct window windows[WINDOWS];
	char *buffer; /* of a window's size */
};

/* Around the seams: inside of a leaf, across leaves, across all trees, and at the end of all. */
static const uint64_t window_starts[WINDOWS] = {
	0,
	64 * LEAF - 3 * LEAF,
	((uint64_t)16 << 40) - 2 * LEAF,
	((uint64_t)1 << 60) + 5 * LEAF,
	DISK_MAX_SIZE - 9 * LEAF,
};

static void world_init(struct world *world, uint32_t sector_size)
{
	*world = (struct world){
		.sectors = sectors_new(sector_size, 0),
		.random = {.state = seed * 1000 + sector_size},
		.size = sector_size,
		.count = max_u64(3 * LEAF + 3 * sector_size, 60 * sector_size) / sector_size,
	};
	world->buffer = malloc(world->count * sector_size);
	for (unsigned i = 0; i < WINDOWS; i++) {
		struct window *window = &world->windows[i];

		window->first = window_starts[i] / sector_size;
		window->states = calloc(world->count, 1);
		window->data = calloc(world->count, sector_size);
	}
}

static void world_free(struct world *world)
{
	sectors_free(world->sectors);
	free(world->buffer);
	for (unsigned i = 0; i < WINDOWS; i++) {
		free(world->windows[i].states);
		free(world->windows[i].data);
	}
}

/* A list of random segments over the buffer. */
static struct sg sg_random(struct world *world, size_t length, struct iovec *iov)
{
	size_t done = 0;

	for (unsigned i = 0; i < SEGMENTS; i++) {
		size_t part = i + 1 < SEGMENTS ? random_below(&world->random, length - done + 1)
					       : length - done;

		iov[i] = (struct iovec){world->buffer + done, part};
		done += part;
	}
	return (struct sg){.iov = iov, .len = length};
}

/* A range of a window: mostly short. */
struct range_of {
	struct window *window;
	uint64_t first, count; /* sectors of the window */
};

static struct range_of range_random(struct world *world)
{
	struct random *random = &world->random;
	struct range_of range = {.window = &world->windows[random_below(random, WINDOWS)]};
	uint64_t most = random_below(random, 3) ? 9 : world->count;

	range.first = random_below(random, world->count);
	range.count = 1 + random_below(random, min_u64(most, world->count - range.first));
	return range;
}

/* ---- Looking. ---- */

/* The gaps that a read of the range must find; returns how many sectors it must answer. */
static uint64_t expect_gaps(const struct range_of *range, struct layer_gaps *gaps)
{
	const uint8_t *states = range->window->states + range->first;
	uint64_t at = 0;

	for (gaps->count = 0; at < range->count; at++) {
		struct layer_gap *last = &gaps->gaps[gaps->count - (gaps->count > 0)];

		if (states[at] != LAYER_ABSENT)
			continue;
		if (at > 0 && states[at - 1] == LAYER_ABSENT) {
			last->count++;
			continue;
		}
		if (gaps->count == LAYER_GAPS_MAX)
			break;
		gaps->gaps[gaps->count++] =
			(struct layer_gap){range->window->first + range->first + at, 1};
	}
	return at;
}

static bool check_gaps(const struct layer_gaps *gaps, const struct layer_gaps *wanted)
{
	if (!CHECK_EQ(gaps->count, wanted->count))
		return false;
	for (unsigned i = 0; i < gaps->count; i++)
		if (!CHECK_EQ(gaps->gaps[i].sector, wanted->gaps[i].sector) ||
		    !CHECK_EQ(gaps->gaps[i].count, wanted->gaps[i].count))
			return false;
	return true;
}

/* Reads the range, and again what was not answered. */
static bool check_read(struct world *world, struct range_of range)
{
	struct iovec iov[SEGMENTS];

	while (range.count > 0) {
		struct layer_gaps gaps, wanted;
		uint64_t answered = expect_gaps(&range, &wanted);
		struct sg sg = sg_random(world, range.count * world->size, iov);

		memset(world->buffer, UNTOUCHED, sg.len);
		sectors_read(world->sectors, &sg, range.window->first + range.first, &gaps);
		if (!CHECK_EQ(gaps.answered, answered) || !check_gaps(&gaps, &wanted))
			return false;
		for (uint64_t i = 0; i < answered; i++) {
			const char *got = world->buffer + i * world->size;
			bool is_absent = range.window->states[range.first + i] == LAYER_ABSENT;
			const char *data = range.window->data + (range.first + i) * world->size;

			if (!CHECK(is_absent ? bytes_differ(got, world->size, UNTOUCHED) ==
						       world->size
					     : memcmp(got, data, world->size) == 0))
				return false;
		}
		range.first += answered;
		range.count -= answered;
	}
	return true;
}

/* The runs of the range are the model's; pieces of one state may follow one another. */
static bool check_runs(struct world *world, struct range_of range)
{
	while (range.count > 0) {
		struct layer_run run = {.count = 0};

		sectors_run(world->sectors, range.window->first + range.first, range.count, &run);
		if (!CHECK(run.count > 0 && run.count <= range.count))
			return false;
		for (; run.count > 0; run.count--, range.count--)
			if (!CHECK_EQ(run.state, range.window->states[range.first++]))
				return false;
	}
	return true;
}

static bool check_windows(struct world *world)
{
	struct sectors_present present;
	uint64_t data = 0;
	bool held = true;

	for (unsigned i = 0; held && i < WINDOWS; i++) {
		struct range_of all = {&world->windows[i], 0, world->count};

		held = check_read(world, all) && check_runs(world, all);
		for (uint64_t j = 0; j < world->count; j++)
			data += world->windows[i].states[j] == LAYER_DATA;
	}
	sectors_present(world->sectors, &present);
	return held && CHECK_EQ(present.data, data);
}

/* ---- Changing. ---- */

static bool do_write(struct world *world, const struct range_of *range, bool populate)
{
	struct iovec iov[SEGMENTS];
	struct sg sg = sg_random(world, range->count * world->size, iov);
	uint64_t sector = range->window->first + range->first;

	pattern_fill(world->buffer, sg.len, random_next(&world->random));
	for (uint64_t i = range->first; i < range->first + range->count; i++) {
		if (populate && range->window->states[i] != LAYER_ABSENT)
			continue;
		range->window->states[i] = LAYER_DATA;
		memcpy(range->window->data + i * world->size,
		       world->buffer + (i - range->first) * world->size, world->size);
	}
	return CHECK_OK(populate ? sectors_populate(world->sectors, &sg, sector)
				 : sectors_write(world->sectors, &sg, sector));
}

static void model_clear(struct world *world, const struct range_of *range, enum layer_state state)
{
	memset(range->window->states + range->first, (int)state, range->count);
	memset(range->window->data + range->first * world->size, 0, range->count * world->size);
}

static bool do_clear(struct world *world, const struct range_of *range, enum layer_state state)
{
	uint64_t sector = range->window->first + range->first;

	model_clear(world, range, state);
	return CHECK_OK(state == LAYER_ZEROES ? sectors_zero(world->sectors, sector, range->count)
					      : sectors_drop(world->sectors, sector, range->count));
}

/* From the middle of a window to the middle of another, with all between. */
static bool do_clear_far(struct world *world, enum layer_state state)
{
	uint64_t from = random_below(&world->random, WINDOWS);
	uint64_t to = from + random_below(&world->random, WINDOWS - from);
	struct window *windows = world->windows;
	uint64_t first = random_below(&world->random, world->count);
	uint64_t end = first + random_below(&world->random, world->count - first) + 1;
	struct sectors_clear clear = {
		.sector = windows[from].first + first,
		.count = windows[to].first + end - windows[from].first - first,
		.state = state,
	};
	int result;

	for (uint64_t i = from; i <= to; i++) {
		struct range_of part = {&windows[i], i == from ? first : 0, 0};

		part.count = (i == to ? end : world->count) - part.first;
		model_clear(world, &part, state);
	}
	do
		result = sectors_clear_some(world->sectors, &clear);
	while (result > 0);
	return CHECK_OK(result);
}

static bool step(struct world *world)
{
	struct range_of range = range_random(world);
	uint64_t kind = random_below(&world->random, 100);
	bool held;

	if (kind < 40)
		held = do_write(world, &range, false);
	else if (kind < 60)
		held = do_write(world, &range, true);
	else if (kind < 78)
		held = do_clear(world, &range, LAYER_ZEROES);
	else if (kind < 97)
		held = do_clear(world, &range, LAYER_ABSENT);
	else
		held = do_clear_far(world, kind == 97 ? LAYER_ZEROES : LAYER_ABSENT);
	return held && check_read(world, range) && check_runs(world, range);
}

/* One thread: a sanitizer of threads only makes it slow. */
#ifdef __SANITIZE_THREAD__
#define STEPS 400
#else
#define STEPS 4000
#endif

static void test_random(void **state)
{
	(void)state;
	for (uint32_t size = 512; size <= GEOMETRY_SECTOR_MAX; size *= 2) {
		struct world world;
		bool held = true;

		world_init(&world, size);
		for (unsigned i = 0; held && i < STEPS; i++) {
			check_context("SEED=%llu, sectors of %u bytes, step %u",
				      (unsigned long long)seed, size, i);
			held = step(&world) && (i % 50 > 0 || check_windows(&world));
		}
		world_free(&world);
	}
	check_finish();
}

/* ---- Gaps that do not fit into the list. ---- */

/* Every second sector of many leaves is absent. */
static void test_many_gaps(void **state)
{
	static const uint32_t sizes[] = {512, 1024, 4096, 65536};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct world world;
		struct range_of range = {.count = 1};

		check_context("sectors of %u bytes", sizes[i]);
		world_init(&world, sizes[i]);
		range.window = &world.windows[1];
		for (; range.first < world.count; range.first += 2)
			do_write(&world, &range, false);
		check_windows(&world);
		/* Zeros are no gap. */
		for (range.first = 1; range.first < world.count; range.first += 6)
			do_clear(&world, &range, LAYER_ZEROES);
		check_windows(&world);
		world_free(&world);
	}
	check_finish();
}

/* ---- Runs. ---- */

static bool check_run(struct sectors *sectors, uint64_t sector, uint64_t count,
		      enum layer_state wanted, uint64_t wanted_count)
{
	struct layer_run run = {.count = 0};

	sectors_run(sectors, sector, count, &run);
	return CHECK_EQ(run.state, wanted) && CHECK_EQ(run.count, wanted_count);
}

#define TIB_SECTORS ((uint64_t)1 << 31)

/* However long a run of zeros or of nothing is, it is told at once. */
static void test_long_runs(void **state)
{
	static char data[512];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));
	struct sectors *sectors = sectors_new(512, 0);
	uint64_t all = 16 * TIB_SECTORS, at = 9 * TIB_SECTORS + 12345;

	(void)state;
	check_run(sectors, 3, all, LAYER_ABSENT, all);
	CHECK_OK(sectors_write(sectors, &sg, at));
	check_run(sectors, 0, all, LAYER_ABSENT, at);
	check_run(sectors, at - 1, all, LAYER_ABSENT, 1);
	check_run(sectors, at, all, LAYER_DATA, 1);
	check_run(sectors, at + 1, all, LAYER_ABSENT, all);
	CHECK_OK(sectors_zero(sectors, TIB_SECTORS + 7, all));
	check_run(sectors, 0, all, LAYER_ABSENT, TIB_SECTORS + 7);
	check_run(sectors, TIB_SECTORS + 7, 2 * all, LAYER_ZEROES, all);
	check_run(sectors, TIB_SECTORS + 7, all - 1, LAYER_ZEROES, all - 1);
	CHECK_OK(sectors_write(sectors, &sg, at));
	check_run(sectors, TIB_SECTORS + 7, all, LAYER_ZEROES, at - TIB_SECTORS - 7);
	CHECK_OK(sectors_drop(sectors, at - 100, 101));
	check_run(sectors, TIB_SECTORS + 7, all, LAYER_ZEROES, at - 100 - TIB_SECTORS - 7);
	check_run(sectors, at - 100, all, LAYER_ABSENT, 101);
	check_run(sectors, at + 1, 2 * all, LAYER_ZEROES, all + TIB_SECTORS + 6 - at);
	sectors_free(sectors);
	check_finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_many_gaps),
		cmocka_unit_test(test_long_runs),
	};
	const char *text = getenv("SEED");

	if (text)
		seed = strtoull(text, NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
