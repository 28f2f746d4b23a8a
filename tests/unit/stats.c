// SPDX-License-Identifier: MIT
/* Counters: buckets, sums over workers, what is in flight, percentiles. */
#include "core/stats.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "core/error.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

#define REQUESTS 1000
#define TASKS	 8

static void count_requests(unsigned index, void *argument)
{
	struct stats *stats = argument;

	for (unsigned i = 0; i < REQUESTS; i++) {
		uint64_t begin = stats_begin(stats, STATS_WRITE);

		if (i % 100 == 0)
			task_yield();
		stats_end(stats, STATS_WRITE, begin, 512, i % 10 == 0 ? error_io(EIO) : 0);
	}
	stats_begin(stats, STATS_READ);
	(void)index;
}

/* Nothing is lost, on whichever worker it was counted. */
static void test_sums(void **state)
{
	struct stats stats;
	struct stats_totals totals;
	uint64_t in_buckets = 0;

	(void)state;
	assert_int_equal(stats_init(&stats, 2), 0);
	run_tasks(TASKS, count_requests, &stats);
	stats_read(&stats, STATS_WRITE, &totals);
	assert_int_equal(totals.requests, TASKS * REQUESTS);
	assert_int_equal(totals.errors, TASKS * REQUESTS / 10);
	assert_int_equal(totals.bytes, TASKS * (REQUESTS - REQUESTS / 10) * 512);
	assert_int_equal(totals.in_flight, 0);
	for (unsigned b = 0; b < STATS_BUCKETS; b++)
		in_buckets += totals.latency[b];
	assert_int_equal(in_buckets, TASKS * REQUESTS);

	stats_read(&stats, STATS_READ, &totals);
	assert_int_equal(totals.requests, 0);
	assert_int_equal(totals.in_flight, TASKS);
	stats_read(&stats, STATS_FLUSH, &totals);
	assert_int_equal(totals.in_flight, 0);
	stats_destroy(&stats);
	assert_null(stats.slots);
}

/* A request that took @ns so far, by the clock, is counted in its bucket. */
static void check_bucket(uint64_t ns, unsigned bucket)
{
	struct stats stats;
	struct stats_totals totals;

	assert_int_equal(stats_init(&stats, 1), 0);
	stats_begin(&stats, STATS_FLUSH);
	stats_end(&stats, STATS_FLUSH, now_ns() - ns, 0, 0);
	stats_read(&stats, STATS_FLUSH, &totals);
	assert_int_equal(totals.latency[bucket], 1);
	assert_true(totals.total_ns >= ns);
	assert_int_equal(stats_percentile(&totals, 50), (uint64_t)2 << bucket);
	stats_destroy(&stats);
}

static void test_buckets(void **state)
{
	(void)state;
	/* The middle of a bucket, wide enough for the time that the call itself takes. */
	for (unsigned bucket = 27; bucket < STATS_BUCKETS; bucket++)
		check_bucket((uint64_t)3 << (bucket - 1), bucket);
	check_bucket((uint64_t)1 << 40, STATS_BUCKETS - 1);
	check_bucket((uint64_t)1 << 50, STATS_BUCKETS - 1);
}

static void test_percentiles(void **state)
{
	struct stats_totals totals = {.requests = 0};

	(void)state;
	assert_int_equal(stats_percentile(&totals, 50), 0);
	totals.latency[3] = 98;
	totals.latency[7] = 1;
	totals.latency[20] = 1;
	assert_int_equal(stats_percentile(&totals, 1), 16);
	assert_int_equal(stats_percentile(&totals, 50), 16);
	assert_int_equal(stats_percentile(&totals, 98), 16);
	assert_int_equal(stats_percentile(&totals, 99), 256);
	assert_int_equal(stats_percentile(&totals, 100), 2 << 20);
}

static void test_names(void **state)
{
	static const char *const names[STATS_OPS] = {"read", "write", "flush", "unmap",
						     "write_zeroes"};

	(void)state;
	for (unsigned op = 0; op < STATS_OPS; op++)
		assert_string_equal(stats_op_name((enum stats_op)op), names[op]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sums, setup_2_workers, teardown_workers),
		cmocka_unit_test(test_buckets),
		cmocka_unit_test(test_percentiles),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
