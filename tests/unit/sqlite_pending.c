// SPDX-License-Identifier: MIT
/*
 * What is pending of a layer, by itself: what is sealed when, who may enter what, what memory it
 * takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/sqlite/pending.h"
#include "tests/lib/run.h"

static struct pending pending;

static int begin(void **state)
{
	(void)state;
	return pending_init(&pending, 512, MIB);
}

static int end(void **state)
{
	(void)state;
	pending_destroy(&pending);
	return 0;
}

/* Writes while inside. */
static void put(struct batch *batch, uint64_t sector, uint64_t count)
{
	char *data = malloc(count * 512);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count * 512);

	pattern_fill(data, count * 512, sector);
	assert_int_equal(sectors_write(batch->sectors, &sg, sector), 0);
	free(data);
}

static bool write_now(uint64_t sector, uint64_t count)
{
	bool full;
	struct batch *batch = pending_enter(&pending, &full);

	assert_non_null(batch);
	put(batch, sector, count);
	return pending_leave(&pending, batch, sector, count);
}

/* ---- Sealing. ---- */

static void test_numbers(void **state)
{
	(void)state;
	assert_int_equal(pending_newest(&pending), 0);
	assert_int_equal(pending_seal(&pending), 0);
	assert_false(pending_has_sealed(&pending)); /* there was nothing */
	write_now(5, 1);
	assert_int_equal(pending_newest(&pending), 1);
	assert_int_equal(pending_seal(&pending), 0);
	assert_true(pending_has_sealed(&pending));
	assert_int_equal(pending_newest(&pending), 1);
	write_now(6, 1);
	assert_int_equal(pending_newest(&pending), 2);
	assert_int_equal(pending_seal(&pending), 0); /* one at a time */
	assert_int_equal(pending_sealed(&pending)->number, 1);
	pending_committed(&pending);
	assert_false(pending_has_sealed(&pending));
	assert_int_equal(pending_newest(&pending), 2);
}

static atomic_bool complete;

static void *wait_sealed(void *argument)
{
	struct batch *batch = pending_sealed(&pending);

	(void)argument;
	atomic_store(&complete, true);
	return batch;
}

/* Whoever is inside when a batch is sealed is waited for, and his change is in it. */
static void test_sealed_is_complete(void **state)
{
	bool full;
	struct batch *batch = pending_enter(&pending, &full);
	pthread_t thread;
	void *sealed;

	(void)state;
	atomic_store(&complete, false);
	assert_int_equal(pending_newest(&pending), 1);
	assert_int_equal(pending_seal(&pending), 0);
	assert_int_equal(pthread_create(&thread, NULL, wait_sealed, NULL), 0);
	usleep(50000);
	assert_false(atomic_load(&complete));
	put(batch, 77, 3);
	assert_false(pending_leave(&pending, batch, 77, 3));
	assert_int_equal(pthread_join(thread, &sealed), 0);
	assert_ptr_equal(sealed, batch);
	assert_int_equal(batch->change_count, 1);
	assert_int_equal(batch->changes[0].sector, 77);
	pending_committed(&pending);
}

/* A population that has looked before a batch was sealed must look again. */
static void test_enter_same(void **state)
{
	struct batch *batch = pending_enter_same(&pending, 1);

	(void)state;
	assert_non_null(batch);
	pending_leave(&pending, batch, 0, 1);
	assert_null(pending_enter_same(&pending, 2));
	assert_int_equal(pending_seal(&pending), 0);
	assert_null(pending_enter_same(&pending, 1));
	batch = pending_enter_same(&pending, 2);
	assert_non_null(batch);
	pending_leave(&pending, batch, 0, 1);
	pending_committed(&pending);
}

/* Who reads a batch keeps it, also when it has been committed. */
static void test_hold(void **state)
{
	struct batches batches;
	struct layer_run run;

	(void)state;
	write_now(9, 4);
	assert_int_equal(pending_seal(&pending), 0);
	pending_hold(&pending, &batches);
	assert_int_equal(batches.count, 2);
	assert_int_equal(batches.batches[1]->number, 1);
	pending_committed(&pending);
	sectors_run(batches.batches[1]->sectors, 9, 10, &run);
	assert_int_equal(run.state, LAYER_DATA);
	assert_int_equal(run.count, 4);
	pending_release(&pending, &batches);
	pending_hold(&pending, &batches);
	assert_int_equal(batches.count, 1);
	pending_release(&pending, &batches);
}

/* ---- Room. ---- */

static void test_full(void **state)
{
	uint64_t data, memory, sector = 0;
	bool full;

	(void)state;
	while (!write_now(sector, 16))
		sector += 16;
	assert_true(sector * 512 > MIB / 2 && sector * 512 <= MIB);
	assert_true(pending_is_full(&pending));
	assert_null(pending_enter(&pending, &full));
	assert_true(full);
	assert_null(pending_enter_same(&pending, 1));
	pending_bytes(&pending, &data, &memory);
	assert_true(data >= sector * 512 && memory >= MIB && memory < 2 * MIB);
	assert_int_equal(pending_seal(&pending), 0);
	assert_false(pending_is_full(&pending));
	assert_false(write_now(0, 1));
}

/* Also by the number of changes that take no memory otherwise. */
static void test_many_changes(void **state)
{
	unsigned changes = 0;
	struct batch *batch;
	bool full;

	(void)state;
	do {
		batch = pending_enter(&pending, &full);
		assert_non_null(batch);
		assert_int_equal(sectors_zero(batch->sectors, 0, 1 << 20), 0);
		changes++;
	} while (!pending_leave(&pending, batch, (changes % 2) * 1000, 1) && changes < 1000000);
	assert_true(changes <= CHANGES_MAX);
}

/* What follows one another, or is repeated, is one change; sorted and joined at the end. */
static void test_joined(void **state)
{
	static const struct layer_gap changes[] = {{50, 5}, {55, 5}, {52, 1}, {0, 9},  {8, 4},
						   {20, 1}, {40, 9}, {21, 3}, {40, 10}};
	static const struct layer_gap joined[] = {{0, 12}, {20, 4}, {40, 20}};
	struct batch *batch;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(changes); i++)
		write_now(changes[i].sector, changes[i].count);
	assert_int_equal(pending_seal(&pending), 0);
	batch = pending_sealed(&pending);
	assert_true(batch->change_count < ARRAY_SIZE(changes));
	for (unsigned i = 0; i < 2; i++) {
		batch_join_changes(batch);
		assert_int_equal(batch->change_count, ARRAY_SIZE(joined));
		assert_memory_equal(batch->changes, joined, sizeof(joined));
	}
}

/* ---- Drops. ---- */

static void test_drops(void **state)
{
	bool full;
	struct batch *batch = pending_enter(&pending, &full);
	uint64_t count = 100;
	struct layer_gaps gaps;

	(void)state;
	put(batch, 10, 10);
	assert_false(batch_is_dropped(batch, 0, &count));
	assert_int_equal(count, 100);
	assert_int_equal(batch_drop(batch, 15, 20), 0);
	put(batch, 30, 1);
	batch_read(batch, NULL, 9, 10, 40, &gaps);
	assert_int_equal(gaps.answered, 40);
	assert_int_equal(gaps.count, 2);
	assert_int_equal(gaps.gaps[0].sector, 15);
	assert_int_equal(gaps.gaps[0].count, 15);
	assert_int_equal(gaps.gaps[1].sector, 31);
	assert_int_equal(gaps.gaps[1].count, 19);
	count = 19;
	assert_true(batch_is_dropped(batch, 31, &count));
	assert_int_equal(count, 4);
	count = 15;
	assert_false(batch_is_dropped(batch, 35, &count));
	assert_int_equal(count, 15);
	pending_leave(&pending, batch, 10, 40);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_numbers),    TEST(test_sealed_is_complete),
		TEST(test_enter_same), TEST(test_hold),
		TEST(test_full),       TEST(test_many_changes),
		TEST(test_joined),     TEST(test_drops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
