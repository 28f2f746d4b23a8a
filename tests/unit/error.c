// SPDX-License-Identifier: MIT
/* Errors: identity there and back, the errno of each kind, what is said of them. */
#include "core/error.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* The kinds that carry nothing else. */
static const struct {
	enum error_kind kind;
	int errnum;
	const char *text;
} plain[] = {
	{ERROR_ILLEGAL_BLOCK, ENXIO, "illegal block"},
	{ERROR_INVALID_INPUT, EINVAL, "invalid input"},
	{ERROR_READ_ONLY, EROFS, "read-only"},
	{ERROR_RESERVATION_CONFLICT, EBADE, "reservation conflict"},
	{ERROR_ABORTED, ECANCELED, "aborted"},
	{ERROR_UNSUPPORTED, EOPNOTSUPP, "unsupported"},
};

static void test_plain(void **state)
{
	char text[80];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		int error = error_of(plain[i].kind);

		assert_true(error < 0);
		assert_int_equal(error_kind(error), plain[i].kind);
		assert_int_equal(error_errno(error), 0);
		assert_int_equal(error_to_errno(error), plain[i].errnum);
		assert_string_equal(error_describe(text, error), plain[i].text);
	}
	/* All kinds but none, io and medium. */
	assert_int_equal(ARRAY_SIZE(plain), ERROR_KINDS - 3);
}

static void test_success(void **state)
{
	char text[80];

	(void)state;
	assert_int_equal(error_kind(0), ERROR_NONE);
	assert_int_equal(error_errno(0), 0);
	assert_int_equal(error_to_errno(0), 0);
	assert_string_equal(error_describe(text, 0), "no error");
}

static void test_io(void **state)
{
	(void)state;
	for (int errnum = 1; errnum <= 4095; errnum++) {
		int error = error_io(errnum);

		assert_true(error < 0);
		assert_int_equal(error_kind(error), ERROR_IO);
		assert_int_equal(error_errno(error), errnum);
		assert_int_equal(error_to_errno(error), errnum);
	}
}

static void test_medium(void **state)
{
	static const int errnos[MEDIUM_DETAILS] = {
		[MEDIUM_UNRECOVERED_READ] = EIO,       [MEDIUM_WRITE_FAULT] = EIO,
		[MEDIUM_GUARD_CHECK] = EILSEQ,	       [MEDIUM_APPLICATION_TAG_CHECK] = EILSEQ,
		[MEDIUM_REFERENCE_TAG_CHECK] = EILSEQ,
	};

	(void)state;
	for (unsigned detail = 0; detail < MEDIUM_DETAILS; detail++) {
		for (int errnum = 1; errnum <= 4095; errnum++) {
			int error = error_medium(errnum, (enum medium_detail)detail);

			assert_true(error < 0);
			assert_int_equal(error_kind(error), ERROR_MEDIUM);
			assert_int_equal(error_medium_detail(error), detail);
			assert_int_equal(error_errno(error), errnum);
			assert_int_equal(error_to_errno(error), errnos[detail]);
		}
	}
}

static void test_errno_out_of_range(void **state)
{
	static const int bad[] = {0, -1, -EIO, INT_MIN, 4096, 65536 + ENOSPC, INT_MAX};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(error_io(bad[i]), error_io(EIO));
		assert_int_equal(error_medium(bad[i], MEDIUM_GUARD_CHECK),
				 error_medium(EIO, MEDIUM_GUARD_CHECK));
	}
}

/* No error of any kind is mistaken for another. */
static void test_distinct(void **state)
{
	int errors[16];
	unsigned count = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		errors[count++] = error_of(plain[i].kind);
	for (unsigned detail = 0; detail < MEDIUM_DETAILS; detail++)
		errors[count++] = error_medium(EIO, (enum medium_detail)detail);
	errors[count++] = error_io(EIO);
	errors[count++] = error_io(ENOSPC);
	for (unsigned i = 0; i < count; i++)
		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(errors[i], errors[j]);
}

static void test_describe(void **state)
{
	char text[80];

	(void)state;
	assert_string_equal(error_describe(text, error_io(ENOSPC)), "I/O error (ENOSPC)");
	assert_string_equal(error_describe(text, error_io(4000)), "I/O error (4000)");
	assert_string_equal(error_describe(text, error_medium(EIO, MEDIUM_UNRECOVERED_READ)),
			    "medium error (unrecovered read, EIO)");
	assert_string_equal(error_describe(text, error_medium(4000, MEDIUM_GUARD_CHECK)),
			    "medium error (guard check failed, 4000)");
	/* What is no error of ours, as a negative errno that somebody returned by mistake. */
	assert_string_equal(error_describe(text, INT_MIN + 1), "unknown error -2147483647");
	assert_int_equal(error_to_errno(INT_MIN + 1), EIO);
	assert_int_equal(error_to_errno(7), EIO);
}

static void test_sentences(void **state)
{
	char long_text[2000];
	struct err err;

	(void)state;
	assert_int_equal(err_set_key(&err, "path", "cannot open '%s': %d", "a", 2), -1);
	assert_string_equal(err.key, "path");
	assert_string_equal(err.text, "cannot open 'a': 2");
	/* Its own text may be part of the next. */
	assert_int_equal(err_set(&err, "[vm] %s: %s", err.key, err.text), -1);
	assert_string_equal(err.text, "[vm] path: cannot open 'a': 2");
	assert_string_equal(err.key, "");

	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	err_set_key(&err, long_text, "%s", long_text);
	assert_int_equal(strlen(err.key), sizeof(err.key) - 1);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_success),
		cmocka_unit_test(test_io),
		cmocka_unit_test(test_medium),
		cmocka_unit_test(test_errno_out_of_range),
		cmocka_unit_test(test_distinct),
		cmocka_unit_test(test_describe),
		cmocka_unit_test(test_sentences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
