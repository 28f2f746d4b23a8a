// SPDX-License-Identifier: MIT
/*
 * What is known to be absent from the file of a layer: what is learned, what is not, and how it is
 * told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/sqlite/absence.h"

#define RANGE (MIB / 512) /* sectors */

static struct absence absence;

/* Ten ranges, and a part of one. */
static int begin(void **state)
{
	(void)state;
	return absence_init(&absence, 9, 10 * RANGE + 5);
}

static int end(void **state)
{
	(void)state;
	absence_destroy(&absence);
	return 0;
}

static void check(uint64_t sector, uint64_t count, bool known, uint64_t same)
{
	assert_int_equal(absence_is_known(&absence, sector, &count), known);
	assert_int_equal(count, same);
}

static void test_runs(void **state)
{
	(void)state;
	check(0, 10 * RANGE + 5, false, 10 * RANGE + 5);
	absence_learn(&absence, absence_look(&absence), 3 * RANGE + 7);
	absence_learn(&absence, absence_look(&absence), 4 * RANGE);
	absence_learn(&absence, absence_look(&absence), 10 * RANGE + 4);
	check(0, 10 * RANGE + 5, false, 3 * RANGE);
	check(3 * RANGE - 1, 1, false, 1);
	check(3 * RANGE - 1, 2, false, 1);
	check(3 * RANGE, 1, true, 1);
	check(3 * RANGE + 9, 10 * RANGE, true, 2 * RANGE - 9);
	check(5 * RANGE, 5 * RANGE + 5, false, 5 * RANGE);
	check(10 * RANGE, 5, true, 5);
}

static void test_ranges(void **state)
{
	uint64_t first, count;

	(void)state;
	absence_range(&absence, 3 * RANGE + 7, &first, &count);
	assert_int_equal(first, 3 * RANGE);
	assert_int_equal(count, RANGE);
	absence_range(&absence, 10 * RANGE + 4, &first, &count);
	assert_int_equal(first, 10 * RANGE);
	assert_int_equal(count, 5);
}

static void test_change(void **state)
{
	(void)state;
	absence_all(&absence);
	check(0, 10 * RANGE + 5, true, 10 * RANGE + 5);
	absence_change_begin(&absence);
	absence_change(&absence, 2 * RANGE - 1, 2);
	absence_change(&absence, 10 * RANGE + 4, 1);
	absence_change_end(&absence);
	check(0, 10 * RANGE + 5, true, RANGE);
	check(RANGE, 9 * RANGE + 5, false, 2 * RANGE);
	check(3 * RANGE, 7 * RANGE + 5, true, 7 * RANGE);
	check(10 * RANGE, 5, false, 5);
}

/* What was looked at before or during a commit may be true no more. */
static void test_late(void **state)
{
	uint64_t before = absence_look(&absence), during;

	(void)state;
	absence_change_begin(&absence);
	during = absence_look(&absence);
	absence_learn(&absence, before, 0);
	absence_learn(&absence, during, 0);
	absence_change(&absence, 0, 1);
	absence_learn(&absence, during, 0);
	absence_change_end(&absence);
	absence_learn(&absence, before, 0);
	absence_learn(&absence, during, 0);
	check(0, RANGE, false, RANGE);
	absence_learn(&absence, absence_look(&absence), 0);
	check(0, RANGE, true, RANGE);
}

/* The bits of the largest disk fit into memory, and are cleared in no time. */
static void test_largest(void **state)
{
	struct absence largest;
	uint64_t sectors = INT64_MAX / 512, count = sectors;

	(void)state;
	assert_int_equal(absence_init(&largest, 9, sectors), 0);
	assert_true(largest.range_count <= 1 << 24);
	absence_all(&largest);
	assert_true(absence_is_known(&largest, 0, &count));
	assert_int_equal(count, sectors);
	absence_change_begin(&largest);
	absence_change(&largest, sectors - 1, 1);
	absence_change_end(&largest);
	count = sectors;
	assert_true(absence_is_known(&largest, 0, &count));
	assert_true(count < sectors && count >= sectors - ((uint64_t)1 << largest.shift));
	absence_destroy(&largest);
	/* Sectors as large as there are, of a disk that is smaller than a range. */
	assert_int_equal(absence_init(&largest, 16, 3), 0);
	assert_int_equal(largest.range_count, 1);
	absence_destroy(&largest);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_runs), TEST(test_ranges),  TEST(test_change),
		TEST(test_late), TEST(test_largest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
