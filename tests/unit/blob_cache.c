// SPDX-License-Identifier: MIT
/* The cache of remote objects: what is asked for, how often, together with what; errors; memory; and
 * the end. */
#include "backends/blob/cache.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/blob/block.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/remote.h"
#include "tests/lib/run.h"

#define SIZE	 (8 * MIB + 1536) /* the last block is a part of one */
#define MEMORY	 (32 * MIB)
#define REQUESTS 64

static struct blob_client remote;

static struct blob_cache_object *begin(uint64_t memory, unsigned requests_max)
{
	remote_init(&remote, SIZE);
	return remote_open(&remote, memory, requests_max, 0);
}

static void end(struct blob_cache_object *object)
{
	blob_cache_close(object);
	CHECK_EQ(remote.under_way, 0);
	remote_destroy(&remote);
}

static struct blob_cache_numbers numbers_of(struct blob_cache_object *object)
{
	struct blob_cache_numbers numbers;

	blob_cache_read_numbers(object, &numbers);
	return numbers;
}

/* That the remote was asked for this as its call number @index. */
static bool check_call(unsigned index, uint64_t offset, uint64_t length)
{
	check_context("call %u", index);
	return CHECK(index < remote.call_count) && CHECK_EQ(remote.calls[index].offset, offset) &&
	       CHECK_EQ(remote.calls[index].length, length);
}

/* ---- What is fetched. ---- */

/* A block for each that is touched, and nothing else, once. */
static void small_reads_task(void *argument)
{
	struct blob_cache_object *object = begin(MEMORY, REQUESTS);

	(void)argument;
	remote_check(object, 5 * CACHE_BLOCK, CACHE_BLOCK);
	check_call(0, 5 * CACHE_BLOCK, CACHE_BLOCK);
	remote_check(object, 5 * CACHE_BLOCK + 512, 1024);
	CHECK_EQ(remote.call_count, 1);
	remote_check(object, 6 * CACHE_BLOCK - 512, 1024);
	check_call(1, 6 * CACHE_BLOCK, CACHE_BLOCK);
	CHECK_EQ(remote.call_count, 2);
	CHECK_EQ(numbers_of(object).hits, 1);
	CHECK_EQ(numbers_of(object).misses, 2);
	CHECK_EQ(numbers_of(object).cached, 1024 + 512);
	CHECK_EQ(numbers_of(object).fetched, CACHE_BLOCK + 512);
	CHECK_EQ(numbers_of(object).held, 2 * CACHE_BLOCK);
	end(object);
}
RUN_IN_TASK(small_reads)

/* Holes in what is in memory are fetched at the same time. */
static void holes_task(void *argument)
{
	struct blob_cache_object *object = begin(MEMORY, REQUESTS);

	(void)argument;
	remote_check(object, 10 * CACHE_BLOCK, CACHE_BLOCK);
	remote_check(object, 20 * CACHE_BLOCK, 2 * CACHE_BLOCK);
	remote_forget(&remote);
	remote_check(object, 100, 40 * CACHE_BLOCK);
	check_call(0, 0, 10 * CACHE_BLOCK);
	check_call(1, 11 * CACHE_BLOCK, 9 * CACHE_BLOCK);
	check_call(2, 22 * CACHE_BLOCK, 19 * CACHE_BLOCK);
	CHECK_EQ(remote.call_count, 3);
	CHECK_EQ(remote.under_way_max, 3);
	end(object);
}
RUN_IN_TASK(holes)

/* More holes than one read waits for at once; and the end of the object. */
static void many_holes_task(void *argument)
{
	struct blob_cache_object *object = begin(MEMORY, REQUESTS);

	(void)argument;
	for (unsigned i = 0; i < 100; i++)
		remote_check(object, (1 + 2 * i) * CACHE_BLOCK, 1);
	remote_check(object, 0, 300 * CACHE_BLOCK);
	remote_forget(&remote);
	remote_check(object, SIZE - 3 * CACHE_BLOCK, 3 * CACHE_BLOCK);
	CHECK_EQ(remote.bytes, 3 * CACHE_BLOCK + SIZE % CACHE_BLOCK);
	remote_check(object, SIZE - 1, 1);
	CHECK_EQ(remote.call_count, 1);
	end(object);
}
RUN_IN_TASK(many_holes)

/* A large read is requests of a bounded size, at the same time. */
static void large_task(void *argument)
{
	struct blob_cache_object *object = begin(MEMORY, REQUESTS);

	(void)argument;
	remote_check(object, 1000, 5 * MIB);
	CHECK_EQ(remote.call_count, 6);
	CHECK_EQ(remote.under_way_max, 6);
	check_call(0, 0, MIB);
	remote_check(object, 0, SIZE);
	CHECK_EQ(remote.bytes, SIZE);
	end(object);
}
RUN_IN_TASK(large)

/* ---- One fetch for all who want the same. ---- */

#define READERS 24

struct joint {
	struct blob_cache_object *object;
	uint64_t offset, step;
	size_t length;
	int errors[READERS];
};

static void joint_read(unsigned index, void *argument)
{
	struct joint *joint = argument;

	joint->errors[index] =
		remote_read(joint->object, joint->offset + index * joint->step, joint->length);
}

static void open_task(void *argument)
{
	*(struct blob_cache_object **)argument = begin(MEMORY, REQUESTS);
	remote.round_trip_ns = NS_PER_S / 5;
}

static void close_task(void *argument)
{
	end(argument);
}

static void one_fetch_for_all(void **state)
{
	struct joint joint = {.offset = 3 * CACHE_BLOCK, .length = 2 * CACHE_BLOCK};

	(void)state;
	run_task(open_task, &joint.object);
	run_tasks(READERS, joint_read, &joint);
	assert_int_equal(remote.call_count, 1);
	assert_int_equal(remote.bytes, 2 * CACHE_BLOCK);
	assert_int_equal(numbers_of(joint.object).joined, (READERS - 1) * 2 * CACHE_BLOCK);
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(joint.errors[i], 0);
	run_task(close_task, joint.object);
}

/* What overlaps is fetched once, and the rest by itself. */
static void overlapping(void **state)
{
	struct joint joint = {.step = CACHE_BLOCK, .length = 8 * CACHE_BLOCK};

	(void)state;
	run_task(open_task, &joint.object);
	run_tasks(READERS, joint_read, &joint);
	assert_int_equal(remote.bytes, (READERS + 7) * CACHE_BLOCK);
	run_task(close_task, joint.object);
}

/* ---- Together what lies side by side. ---- */

struct block_read {
	struct blob_cache_object *object;
	uint64_t block;
};

static int block_read_run(void *argument)
{
	const struct block_read *read = argument;

	return remote_read(read->object, read->block * CACHE_BLOCK, CACHE_BLOCK);
}

/* Reads the blocks, all at once. */
static bool read_blocks(struct blob_cache_object *object, const uint64_t *blocks, unsigned count)
{
	struct block_read reads[32];
	struct task_group group = {0};

	for (unsigned i = 0; i < count; i++) {
		reads[i] = (struct block_read){object, blocks[i]};
		task_group_start(&group, block_read_run, &reads[i]);
	}
	return CHECK_OK(task_group_wait(&group));
}

/* In whatever order they come in the same turn. */
static void coalescing_task(void *argument)
{
	static const uint64_t blocks[] = {7, 4, 5, 100, 6, 3, 101, 200};
	struct blob_cache_object *object = begin(MEMORY, REQUESTS);

	(void)argument;
	read_blocks(object, blocks, ARRAY_SIZE(blocks));
	CHECK_EQ(remote.call_count, 3);
	check_call(0, 3 * CACHE_BLOCK, 5 * CACHE_BLOCK);
	check_call(1, 100 * CACHE_BLOCK, 2 * CACHE_BLOCK);
	check_call(2, 200 * CACHE_BLOCK, CACHE_BLOCK);
	CHECK_EQ(numbers_of(object).coalesced, 5);
	end(object);
}
RUN_IN_TASK(coalescing)

/* While as many requests are under way as may be, what waits is joined. */
static void limit_task(void *argument)
{
	static const uint64_t far[] = {0, 10, 20, 30, 40, 50};
	static const uint64_t near[] = {0, 10, 61, 60, 62, 63, 66, 65, 64, 67};
	struct blob_cache_object *object = begin(MEMORY, 2);

	(void)argument;
	read_blocks(object, far, ARRAY_SIZE(far));
	CHECK_EQ(remote.call_count, 6);
	CHECK_EQ(remote.under_way_max, 2);
	remote_forget(&remote);
	read_blocks(object, near, ARRAY_SIZE(near));
	CHECK_EQ(remote.call_count, 1);
	check_call(0, 60 * CACHE_BLOCK, 8 * CACHE_BLOCK);
	end(object);
}
RUN_IN_TASK(limit)

/* ---- Errors. ---- */

/* The error is that of the remote, of one request, and nothing is kept of it. */
static void errors_task(void *argument)
{
	struct blob_cache_object *object = begin(MEMORY, REQUESTS);

	(void)argument;
	remote.error = error_io(ETIMEDOUT);
	remote.fail_first = 3 * CACHE_BLOCK;
	remote.fail_end = remote.fail_first + 1;
	CHECK_EQ(remote_read(object, 2 * CACHE_BLOCK + 9, 4 * CACHE_BLOCK), remote.error);
	CHECK_EQ(remote.call_count, 1);
	remote_check(object, 2 * CACHE_BLOCK, CACHE_BLOCK);
	CHECK_EQ(remote_read(object, 3 * CACHE_BLOCK, 1), remote.error);
	CHECK_EQ(numbers_of(object).held, CACHE_BLOCK);
	CHECK_EQ(numbers_of(object).failures, 2);
	remote.fail_end = 0;
	remote_check(object, 0, 10 * CACHE_BLOCK);
	CHECK_EQ(numbers_of(object).past, 0);
	end(object);
}
RUN_IN_TASK(errors)

/* Whoever went along in a request that failed because of others is served all the same. */
static void errors_of_others_task(void *argument)
{
	struct blob_cache_object *object = begin(MEMORY, REQUESTS);
	struct block_read reads[] = {{object, 4}, {object, 5}, {object, 6}};
	struct task_group groups[3] = {{0}};

	(void)argument;
	remote.fail_first = 5 * CACHE_BLOCK;
	remote.fail_end = 6 * CACHE_BLOCK;
	for (unsigned i = 0; i < 3; i++)
		task_group_start(&groups[i], block_read_run, &reads[i]);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(task_group_wait(&groups[i]), i == 1 ? remote.error : 0);
	/* One of all, then each of its own. */
	CHECK_EQ(remote.call_count, 4);
	CHECK_EQ(remote.calls[0].length, 3 * CACHE_BLOCK);
	CHECK_EQ(numbers_of(object).past, 3 * CACHE_BLOCK);
	end(object);
}
RUN_IN_TASK(errors_of_others)

/* Of a large read, of which one request fails, the error comes, and it waits for nothing else. */
static void error_in_large_task(void *argument)
{
	struct blob_cache_object *object = begin(MEMORY, REQUESTS);

	(void)argument;
	remote.fail_first = 2 * MIB;
	remote.fail_end = 2 * MIB + 1;
	CHECK_EQ(remote_read(object, 0, 6 * MIB), remote.error);
	CHECK_EQ(remote.call_count, 6);
	remote.fail_end = 0;
	remote_check(object, 0, 6 * MIB);
	end(object);
}
RUN_IN_TASK(error_in_large)

/* ---- Memory. ---- */

static bool memory_is_held(struct blob_cache_object *object)
{
	struct blob_cache_numbers numbers = numbers_of(object);

	return CHECK(numbers.memory_used <= numbers.memory_limit) &&
	       CHECK(numbers.held <= numbers.memory_used);
}

/* Much less than what is read; less than one read; less than a block; nothing. */
static void budgets_task(void *argument)
{
	static const uint64_t budgets[] = {MIB, 100 * KIB, 20 * KIB, 5000, 4096, 0};

	(void)argument;
	for (unsigned i = 0; i < ARRAY_SIZE(budgets); i++) {
		struct blob_cache_object *object = begin(budgets[i], REQUESTS);

		remote.round_trip_ns = 0;
		remote_check(object, 0, SIZE);
		memory_is_held(object);
		for (uint64_t at = 0; at < 2 * MIB; at += 64 * KIB + 512)
			remote_check(object, at, 64 * KIB);
		memory_is_held(object);
		end(object);
	}
}
RUN_IN_TASK(budgets)

/* All that there is may be under way: whoever comes then is served past it. */
static void full_of_flights_task(void *argument)
{
	struct blob_cache_object *object = begin(100 * KIB, REQUESTS);
	struct block_read reads[32];
	struct task_group group = {0};
	struct blob_cache_numbers numbers;

	(void)argument;
	remote.hold = true;
	for (unsigned i = 0; i < 32; i++) {
		reads[i] = (struct block_read){object, i * 3};
		task_group_start(&group, block_read_run, &reads[i]);
	}
	remote_wait(&remote, 32);
	numbers = numbers_of(object);
	CHECK(numbers.memory_used <= 100 * KIB);
	CHECK(numbers.memory_used >= 90 * KIB);
	remote.hold = false;
	CHECK_OK(task_group_wait(&group));
	numbers = numbers_of(object);
	CHECK(numbers.past > 0);
	CHECK_EQ(numbers.fetched + numbers.past, 32 * CACHE_BLOCK);
	end(object);
}
RUN_IN_TASK(full_of_flights)

/* Two objects share one memory, do not see each other, and give all back. */
static void shared_task(void *argument)
{
	static struct blob_client other;
	struct blob_cache_object *object = begin(4 * MIB, REQUESTS), *second;

	(void)argument;
	remote_init(&other, 6 * MIB);
	other.round_trip_ns = remote.round_trip_ns = 0;
	second = remote_open(&other, 4 * MIB, REQUESTS, 0);
	remote_check(object, 0, 3 * MIB);
	remote_check(second, 0, 3 * MIB);
	CHECK_EQ(numbers_of(object).memory_used, numbers_of(object).held + numbers_of(second).held);
	memory_is_held(object);
	CHECK(numbers_of(object).held < 2 * MIB);
	blob_cache_close(second);
	CHECK_EQ(numbers_of(object).memory_used, numbers_of(object).held);
	remote_check(object, 0, 3 * MIB);
	remote_forget(&remote);
	remote_check(object, 0, 3 * MIB);
	CHECK_EQ(remote.call_count, 0);
	remote_destroy(&other);
	end(object);
}
RUN_IN_TASK(shared)

/* What is used again and again stays while much is read once. */
static void scans_task(void *argument)
{
	struct blob_cache_object *object = begin(2 * MIB, REQUESTS);

	(void)argument;
	remote.round_trip_ns = 0;
	for (unsigned i = 0; i < 3; i++)
		remote_check(object, 0, MIB);
	for (uint64_t at = MIB; at + MIB <= SIZE; at += 256 * KIB) {
		remote_check(object, at, 256 * KIB);
		/* As often as it is used while a memory's worth goes by. */
		if (at % MIB == 0)
			remote_check(object, 0, MIB);
	}
	remote_forget(&remote);
	remote_check(object, 0, MIB);
	CHECK_EQ(remote.call_count, 0);
	end(object);
}
RUN_IN_TASK(scans)

/* ---- The end. ---- */

/* What was read ahead is under way when the object is closed. */
static void close_in_flight_task(void *argument)
{
	struct blob_cache_object *object;

	(void)argument;
	remote_init(&remote, SIZE);
	object = remote_open(&remote, MEMORY, 2, 4 * MIB);
	for (uint64_t at = 0; at < 2 * MIB; at += 128 * KIB)
		remote_check(object, at, 128 * KIB);
	remote.round_trip_ns = NS_PER_S / 5;
	for (uint64_t at = 2 * MIB; at < 4 * MIB; at += 128 * KIB)
		remote_check(object, at, 128 * KIB);
	remote_wait(&remote, 1);
	remote_forget(&remote);
	blob_cache_close(object);
	CHECK_EQ(remote.under_way, 0);
	/* What had only been queued is not begun any more. */
	CHECK_EQ(remote.call_count, 0);
	remote_destroy(&remote);
}
RUN_IN_TASK(close_in_flight)

static void close_unused_task(void *argument)
{
	(void)argument;
	end(begin(MEMORY, 1));
	blob_cache_close(NULL);
}
RUN_IN_TASK(close_unused)

int main(void)
{
	const struct CMUnitTest one[] = {
		cmocka_unit_test(small_reads),	   cmocka_unit_test(holes),
		cmocka_unit_test(many_holes),	   cmocka_unit_test(large),
		cmocka_unit_test(coalescing),	   cmocka_unit_test(limit),
		cmocka_unit_test(errors),	   cmocka_unit_test(errors_of_others),
		cmocka_unit_test(error_in_large),  cmocka_unit_test(budgets),
		cmocka_unit_test(full_of_flights), cmocka_unit_test(shared),
		cmocka_unit_test(scans),	   cmocka_unit_test(close_in_flight),
		cmocka_unit_test(close_unused),
	};
	const struct CMUnitTest four[] = {
		cmocka_unit_test(one_fetch_for_all),
		cmocka_unit_test(overlapping),
	};

	return cmocka_run_group_tests_name("blob cache", one, setup_1_worker, teardown_workers) +
	       cmocka_run_group_tests_name("blob cache, several workers", four, setup_4_workers,
					   teardown_workers);
}
