// SPDX-License-Identifier: MIT
/* Readahead of remote objects: who is sequential, how far is read ahead of him, and when it ends. */
#include "backends/blob/readahead.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/remote.h"
#include "tests/lib/run.h"

/* ---- The decision alone, with a clock of the test's own. ---- */

#define SIZE (1 * GIB)
#define MAX  (64 * MIB)

static struct readahead readahead;
static uint64_t clock_ns;

static int setup_decision(void **state)
{
	(void)state;
	clock_ns = NS_PER_S;
	readahead_init(&readahead, SIZE, MAX);
	return 0;
}

static int teardown_decision(void **state)
{
	(void)state;
	readahead_destroy(&readahead);
	return 0;
}

/* A read that finds what was read ahead, or misses all of it; returns how much is read ahead. */
static struct readahead_range note(uint64_t begin, uint64_t length, bool misses)
{
	struct readahead_note read = {
		.begin = begin,
		.end = begin + length,
		.missing = misses ? begin : begin + length,
		.waited = misses,
		.now_ns = clock_ns,
	};
	struct readahead_range range;

	readahead_note(&readahead, &read, &range);
	assert_true(range.begin <= range.end && range.end <= SIZE);
	assert_true(range.begin % 4096 == 0 && range.piece % 4096 == 0);
	return range;
}

/* Whoever reads at random gets nothing, or next to nothing where chance has it. */
static void random_reads(void **state)
{
	struct random random = {.state = 3};
	uint64_t ahead = 0;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		struct readahead_range range =
			note(random_below(&random, SIZE / 4096) * 4096, 4096, true);

		ahead += range.end - range.begin;
	}
	assert_true(ahead < 20000 * 4096 / 50);
}

/* Large ones, too. */
static void large_random_reads(void **state)
{
	struct random random = {.state = 5};
	uint64_t ahead = 0;

	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		struct readahead_range range =
			note(random_below(&random, SIZE / MIB) * MIB, MIB, true);

		ahead += range.end - range.begin;
	}
	assert_true(ahead < 5000 * MIB / 4);
}

/* Backwards, and in large steps, is not sequential. */
static void other_patterns(void **state)
{
	uint64_t ahead = 0;

	(void)state;
	for (uint64_t i = 0; i < 1000; i++) {
		struct readahead_range range = note(i * MIB, 4096, true);

		ahead += range.end - range.begin;
		range = note(SIZE - (i + 1) * 4096, 4096, true);
		ahead += range.end - range.begin;
	}
	assert_int_equal(ahead, 0);
}

/* From the second read on, what lies behind it, as far as it has come, without gaps. */
static void sequential_reads(void **state)
{
	uint64_t ahead = 0, length = 16 * KIB;

	(void)state;
	for (uint64_t at = 0; at < 8 * MIB; at += length) {
		struct readahead_range range = note(at, length, at >= ahead);

		if (at == 0)
			assert_int_equal(range.end, 0);
		if (range.begin < range.end) {
			assert_int_equal(range.begin, ahead > 0 ? ahead : at + length);
			assert_true(range.end - (at + length) <= at + length);
			ahead = range.end;
		}
		if (at > 0)
			assert_true(ahead > at + length);
	}
}

/* Up to the end of the object, and not beyond. */
static void end_of_object(void **state)
{
	uint64_t ahead = 0, length = 64 * KIB;

	(void)state;
	for (uint64_t at = SIZE - 4 * MIB; at < SIZE; at += length) {
		struct readahead_range range = note(at, length, at >= ahead);

		if (range.begin < range.end)
			ahead = range.end;
	}
	assert_int_equal(ahead, SIZE);
}

/* Reads that overtake one another, and many readers at once, with others between them. */
static void many_readers(void **state)
{
	struct random random = {.state = 8};
	uint64_t at[8], ahead[8] = {0}, useful = 0, length = 32 * KIB;

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		at[i] = i * 100 * MIB;
	for (unsigned turn = 0; turn < 2000; turn++) {
		unsigned i = (unsigned)random_below(&random, 8);

		/* Two at a time, the second first. */
		for (unsigned swap = 0; swap < 2; swap++) {
			uint64_t begin = at[i] + (1 - swap) * length;
			struct readahead_range range = note(begin, length, begin >= ahead[i]);

			if (begin + length <= ahead[i])
				useful++;
			if (range.begin < range.end)
				ahead[i] = range.end;
		}
		at[i] += 2 * length;
		note(random_below(&random, SIZE / 4096) * 4096, 4096, true);
	}
	assert_true(useful > 2 * 2000 * 9 / 10);
}

/*
 * A reader of a link with this rate and delay who is never faster than the window lets him be: what
 * he reads takes as long as the link takes for it, or a round trip for each window. Returns the
 * window that it stays at: the smallest in the last quarter of the way, since it is tried now and
 * then whether a larger one is better.
 */
static uint64_t follow(uint64_t rate, uint64_t delay_ns, uint64_t bytes)
{
	uint64_t ahead = 0, length = 128 * KIB, least = UINT64_MAX;

	for (uint64_t at = 0; at < bytes; at += length) {
		struct readahead_range range = note(at, length, at >= ahead);
		uint64_t window = max_u64(readahead_window(&readahead), length);

		if (range.begin < range.end)
			ahead = range.end;
		clock_ns += max_u64(length * NS_PER_S / rate, length * delay_ns / window);
		/* He finds what was read ahead, but always has to wait for it. */
		readahead.streams[0].round_waited = true;
		if (at >= bytes / 4 * 3)
			least = min_u64(least, window);
	}
	return least;
}

static void window_follows_the_link(void **state)
{
	static const uint64_t products[] = {2500 * KIB, 5 * MIB, 11 * MIB};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(products); i++) {
		uint64_t window;

		readahead_destroy(&readahead);
		readahead_init(&readahead, SIZE, MAX);
		window = follow(products[i] * 50, NS_PER_S / 50, 512 * MIB);
		assert_true(window >= products[i]);
		assert_true(window <= 5 * products[i]);
	}
}

/* What becomes faster later is noticed, and what was tried in vain is taken back. */
static void window_changes(void **state)
{
	uint64_t window;

	(void)state;
	window = follow(50 * MIB, NS_PER_S / 100, 900 * MIB);
	assert_true(window <= 2 * READAHEAD_START);
	readahead.streams[0].next = readahead.streams[0].ahead = 0;
	window = follow(1600 * MIB, NS_PER_S / 100, 900 * MIB);
	assert_true(window >= 16 * MIB);
}

/* Who does not have to wait has enough. */
static void no_more_than_needed(void **state)
{
	(void)state;
	for (uint64_t at = 0; at < 256 * MIB; at += 128 * KIB)
		note(at, 128 * KIB, at == 0);
	assert_int_equal(readahead_window(&readahead), READAHEAD_START);
}

/* What was read ahead is gone: it was too much. */
static void halved_by_loss(void **state)
{
	uint64_t window;

	(void)state;
	window = follow(GIB, NS_PER_S / 100, 300 * MIB);
	assert_true(window >= 8 * MIB);
	note(300 * MIB, 128 * KIB, true);
	assert_int_equal(readahead_window(&readahead), window / 2);
	for (unsigned i = 1; i < 20; i++)
		note(300 * MIB + i * 128 * KIB, 128 * KIB, true);
	assert_int_equal(readahead_window(&readahead), READAHEAD_MIN);
}

static void switched_off(void **state)
{
	(void)state;
	readahead_destroy(&readahead);
	readahead_init(&readahead, SIZE, 0);
	for (uint64_t at = 0; at < 4 * MIB; at += 128 * KIB)
		assert_int_equal(note(at, 128 * KIB, true).end, 0);
}

/* ---- With a remote object. ---- */

#define REMOTE_SIZE (64 * MIB)

static struct blob_client remote;

static struct blob_cache_object *open_remote(uint64_t memory, uint64_t readahead_max)
{
	remote_init(&remote, REMOTE_SIZE);
	remote.round_trip_ns = NS_PER_S / 50;
	return remote_open(&remote, memory, 64, readahead_max);
}

static struct blob_cache_numbers close_remote(struct blob_cache_object *object)
{
	struct blob_cache_numbers numbers;

	blob_cache_read_numbers(object, &numbers);
	blob_cache_close(object);
	remote_destroy(&remote);
	return numbers;
}

/* Reads from @begin to @end, a piece after the other; returns how long that takes. */
static uint64_t read_through(struct blob_cache_object *object, uint64_t begin, uint64_t end,
			     size_t length)
{
	uint64_t start = now_ns();

	for (uint64_t at = begin; at < end; at += length)
		if (!remote_check(object, at, length))
			break;
	return now_ns() - start;
}

/* A single reader that asks for a piece at a time gets what the link has. Each byte is asked for
 * once. */
static void speed_task(void *argument)
{
	struct blob_cache_object *object = open_remote(128 * MIB, 16 * MIB);
	struct blob_cache_numbers numbers;
	uint64_t ns;

	(void)argument;
	remote.rate = 50 * MIB;
	ns = read_through(object, 0, REMOTE_SIZE, 128 * KIB);
	/* Without readahead it would be 512 round trips, and 11 seconds in all. */
	CHECK(ns < NS_PER_S * 5 / 2);
	CHECK_EQ(remote.bytes, REMOTE_SIZE);
	numbers = close_remote(object);
	CHECK_EQ(numbers.readahead_useful, numbers.readahead);
	CHECK_EQ(numbers.readahead_wasted, 0);
	CHECK(numbers.readahead > REMOTE_SIZE * 9 / 10);
	CHECK(numbers.hits + numbers.misses == REMOTE_SIZE / (128 * KIB));
}
RUN_IN_TASK(speed)

/* A failure of what was read ahead is nobody's but his who comes there. */
static void failed_readahead_task(void *argument)
{
	struct blob_cache_object *object = open_remote(128 * MIB, 16 * MIB);

	(void)argument;
	remote.round_trip_ns = NS_PER_S / 1000;
	remote.fail_first = 8 * MIB;
	remote.fail_end = 8 * MIB + 1;
	read_through(object, 0, 8 * MIB, 64 * KIB);
	CHECK_EQ(remote_read(object, 8 * MIB, 64 * KIB), remote.error);
	read_through(object, 8 * MIB + 64 * KIB, 12 * MIB, 64 * KIB);
	remote.fail_end = 0;
	read_through(object, 8 * MIB, 16 * MIB, 64 * KIB);
	close_remote(object);
}
RUN_IN_TASK(failed_readahead)

/* What is read ahead stays within the memory, and goes on over what is there already. */
static void over_what_is_there_task(void *argument)
{
	struct blob_cache_object *object = open_remote(128 * MIB, 16 * MIB);
	uint64_t misses;

	(void)argument;
	remote.round_trip_ns = NS_PER_S / 1000;
	for (uint64_t at = 0; at < REMOTE_SIZE; at += 2 * MIB)
		remote_check(object, at + MIB, MIB);
	remote_forget(&remote);
	/* To the end, so that nothing is read ahead that nobody asks for. */
	read_through(object, 0, REMOTE_SIZE, 128 * KIB);
	CHECK_EQ(remote.bytes, REMOTE_SIZE / 2);
	misses = close_remote(object).misses;
	CHECK(misses < REMOTE_SIZE / (128 * KIB) * 3 / 4);
}
RUN_IN_TASK(over_what_is_there)

/* Readers of many places, in a memory that is too small for windows of all of them. */
static void small_memory_task(void *argument)
{
	struct blob_cache_object *object = open_remote(4 * MIB, 16 * MIB);
	struct blob_cache_numbers numbers;

	(void)argument;
	remote.round_trip_ns = 0;
	for (uint64_t at = 0; at < 4 * MIB; at += 128 * KIB)
		for (unsigned reader = 0; reader < 12; reader++)
			remote_check(object, reader * 5 * MIB + at, 128 * KIB);
	numbers = close_remote(object);
	CHECK(numbers.memory_used <= 4 * MIB);
	CHECK(numbers.window <= 512 * KIB);
	CHECK(numbers.readahead_wasted < numbers.readahead / 4);
}
RUN_IN_TASK(small_memory)

int main(void)
{
#define DECISION(name) cmocka_unit_test_setup_teardown(name, setup_decision, teardown_decision)
	const struct CMUnitTest decisions[] = {
		DECISION(random_reads),
		DECISION(large_random_reads),
		DECISION(other_patterns),
		DECISION(sequential_reads),
		DECISION(end_of_object),
		DECISION(many_readers),
		DECISION(window_follows_the_link),
		DECISION(window_changes),
		DECISION(no_more_than_needed),
		DECISION(halved_by_loss),
		DECISION(switched_off),
	};
	const struct CMUnitTest remotes[] = {
		cmocka_unit_test(speed),
		cmocka_unit_test(failed_readahead),
		cmocka_unit_test(over_what_is_there),
		cmocka_unit_test(small_memory),
	};

	return cmocka_run_group_tests_name("readahead", decisions, NULL, NULL) +
	       cmocka_run_group_tests_name("readahead of a remote", remotes, setup_2_workers,
					   teardown_workers);
}
