/* SPDX-License-Identifier: MIT */
/*
 * Checks for code that runs in tasks and on other threads. cmocka's own assertions jump out of the
 * test, which nobody can do from the stack of a task. A check that fails here is printed and
 * counted, and the code goes on; check_finish(), on the test's own thread, fails the test then.
 *
 * All of them return whether the check held, so that a function can stop where it makes no sense to
 * go on.
 */
#ifndef TESTS_LIB_CHECK_H
#define TESTS_LIB_CHECK_H

#include "core/error.h"
#include "core/util.h"

#define CHECK(condition) check_true(condition, #condition, __FILE__, __LINE__)
#define CHECK_EQ(value, wanted) \
	check_equal((uint64_t)(value), (uint64_t)(wanted), #value, __FILE__, __LINE__)
/* That an error is of this kind: CHECK_KIND(disk_read(...), ERROR_ILLEGAL_BLOCK). */
#define CHECK_KIND(error, kind)	 check_error(error, kind, #error, __FILE__, __LINE__)
#define CHECK_OK(error)		 CHECK_KIND(error, ERROR_NONE)
#define CHECK_TEXT(text, wanted) check_text(text, wanted, __FILE__, __LINE__)

bool check_true(bool held, const char *what, const char *file, int line);
bool check_equal(uint64_t value, uint64_t wanted, const char *what, const char *file, int line);
bool check_error(int error, enum error_kind wanted, const char *what, const char *file, int line);
bool check_text(const char *text, const char *wanted, const char *file, int line);

/* What is printed with every check that fails from here on: the case of a table, a seed. */
void check_context(const char *format, ...) PRINTF_LIKE(1, 2);

/* Fails the running test if any check has failed since the last call. On the test's own thread. */
void check_finish(void);

#endif
