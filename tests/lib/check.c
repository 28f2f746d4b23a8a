// SPDX-License-Identifier: MIT
#include "tests/lib/check.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* A test that goes wrong often fails many checks; the first ones tell. */
#define SHOWN_MAX 20

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned failed;
static char context[200];

static bool failure(const char *file, int line, const char *format, ...) PRINTF_LIKE(3, 4);

static bool failure(const char *file, int line, const char *format, ...)
{
	va_list arguments;

	pthread_mutex_lock(&mutex);
	if (failed++ < SHOWN_MAX) {
		fprintf(stderr, "%s:%d: %s%s", file, line, context, context[0] ? ": " : "");
		va_start(arguments, format);
		vfprintf(stderr, format, arguments);
		va_end(arguments);
		fputc('\n', stderr);
	}
	pthread_mutex_unlock(&mutex);
	return false;
}

bool check_true(bool held, const char *what, const char *file, int line)
{
	return held || failure(file, line, "does not hold: %s", what);
}

bool check_equal(uint64_t value, uint64_t wanted, const char *what, const char *file, int line)
{
	return value == wanted ||
	       failure(file, line, "%s is %" PRIu64 ", not %" PRIu64, what, value, wanted);
}

bool check_error(int error, enum error_kind wanted, const char *what, const char *file, int line)
{
	char is[80], should[80];

	return error_kind(error) == wanted ||
	       failure(file, line, "%s is '%s', not '%s'", what, error_describe(is, error),
		       error_describe(should, error_of(wanted)));
}

bool check_text(const char *text, const char *wanted, const char *file, int line)
{
	return (text && strcmp(text, wanted) == 0) ||
	       failure(file, line, "the text is\n\t%s\nnot\n\t%s", text ? text : "NULL", wanted);
}

void check_context(const char *format, ...)
{
	va_list arguments;

	pthread_mutex_lock(&mutex);
	va_start(arguments, format);
	vsnprintf(context, sizeof(context), format, arguments);
	va_end(arguments);
	pthread_mutex_unlock(&mutex);
}

void check_finish(void)
{
	unsigned count;

	pthread_mutex_lock(&mutex);
	count = failed;
	failed = 0;
	context[0] = '\0';
	pthread_mutex_unlock(&mutex);
	if (count > 0)
		fail_msg("%u checks failed", count);
}
