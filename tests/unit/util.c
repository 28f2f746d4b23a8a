// SPDX-License-Identifier: MIT
/* Small helpers: sizes as text, alignment, powers of two. */
#include "core/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void test_format_size(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 bytes"},		  {512, "512 bytes"},
		{1023, "1023 bytes"},	  {1024, "1 KiB"},
		{1536, "1.5 KiB"},	  {1024 + 102, "1 KiB"},
		{1024 + 103, "1.1 KiB"},  {2047, "1.9 KiB"},
		{MIB - 1, "1023.9 KiB"},  {4 * GIB, "4 GiB"},
		{4 * GIB - 1, "3.9 GiB"}, {(uint64_t)INT64_MAX, "7.9 EiB"},
		{UINT64_MAX, "15.9 EiB"},
	};
	char text[48];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(format_size(text, cases[i].bytes), cases[i].text);
}

static void test_format_id(void **state)
{
	static const uint8_t id[16] = {0, 1, 0x7f, 0x80, 0xff, 0xab, 6,	 7,
				       8, 9, 10,   11,	 12,   13,   14, 15};
	char text[33];

	(void)state;
	assert_string_equal(format_id(text, id), "00017f80ffab060708090a0b0c0d0e0f");
}

/* By the examples of the draft. */
static void test_hash_name(void **state)
{
	(void)state;
	assert_int_equal(hash_name(""), 0xcbf29ce484222325);
	assert_int_equal(hash_name("a"), 0xaf63dc4c8601ec8c);
	assert_int_equal(hash_name("foobar"), 0x85944171f73967e8);
}

static void test_powers(void **state)
{
	(void)state;
	assert_false(is_power_of_two(0));
	for (unsigned shift = 0; shift < 64; shift++) {
		uint64_t power = (uint64_t)1 << shift;

		assert_true(is_power_of_two(power));
		assert_int_equal(log2_of(power), shift);
		assert_true(shift < 2 || !is_power_of_two(power + 1));
		assert_true(shift < 2 || !is_power_of_two(power - 1));
	}
}

static void test_alignment(void **state)
{
	static const struct {
		uint64_t value, align, down, up;
	} cases[] = {
		{0, 512, 0, 0},
		{1, 512, 0, 512},
		{511, 512, 0, 512},
		{512, 512, 512, 512},
		{513, 512, 512, 1024},
		{7, 1, 7, 7},
		{UINT64_MAX - 4096, 4096, UINT64_MAX - 8191, UINT64_MAX - 4095},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(align_down(cases[i].value, cases[i].align), cases[i].down);
		assert_int_equal(align_up(cases[i].value, cases[i].align), cases[i].up);
		assert_int_equal(is_aligned(cases[i].value, cases[i].align),
				 cases[i].down == cases[i].up);
	}
	assert_int_equal(min_u64(1, UINT64_MAX), 1);
	assert_int_equal(max_u64(1, UINT64_MAX), UINT64_MAX);
}

static void test_clock(void **state)
{
	uint64_t last = now_ns();

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t now = now_ns();

		assert_true(now >= last);
		last = now;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_format_size), cmocka_unit_test(test_format_id),
		cmocka_unit_test(test_powers),	    cmocka_unit_test(test_alignment),
		cmocka_unit_test(test_clock),	    cmocka_unit_test(test_hash_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
