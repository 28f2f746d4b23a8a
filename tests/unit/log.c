// SPDX-License-Identifier: MIT
/* The log: form, levels, the limit on floods, readers that do not read, whole lines from several threads. */
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/run.h"

static int saved_stderr = -1, log_file = -1;
static char text[256 * 1024];

/* Everything on stderr goes to a file from here on. */
static int capture(void **state)
{
	char path[] = "/dev/shm/diskfs-log.XXXXXX";

	(void)state;
	log_file = mkstemp(path);
	unlink(path);
	saved_stderr = dup(STDERR_FILENO);
	dup2(log_file, STDERR_FILENO);
	return log_file < 0 || saved_stderr < 0 ? -1 : 0;
}

static int release(void **state)
{
	(void)state;
	if (saved_stderr < 0)
		return 0;
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(log_file);
	saved_stderr = -1;
	log_set_level(LOG_LEVEL_INFO);
	return 0;
}

/* What was written so far. */
static const char *written(void)
{
	ssize_t length = pread(log_file, text, sizeof(text) - 1, 0);

	text[length > 0 ? length : 0] = '\0';
	return text;
}

static void test_form(void **state)
{
	(void)state;
	log_error(NULL, "no %s", "node");
	log_warning("vm1", "%d%%", 50);
	log_info("vm1", "i");
	assert_string_equal(written(), "diskfs: error: no node\n"
				       "diskfs: warning: [vm1] 50%\n"
				       "diskfs: info: [vm1] i\n");
}

static void test_levels(void **state)
{
	struct log_limit limit = {0};

	(void)state;
	log_debug(NULL, "not by default");
	log_set_level(LOG_LEVEL_WARNING);
	log_info(NULL, "not now");
	log_limited(&limit, LOG_LEVEL_INFO, NULL, "nor this");
	log_warning(NULL, "but this");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug(NULL, "and this");
	assert_string_equal(written(), "diskfs: warning: but this\ndiskfs: debug: and this\n");
}

static void test_errno_is_kept(void **state)
{
	int null = open("/dev/full", O_WRONLY | O_CLOEXEC);

	(void)state;
	errno = ENXIO;
	log_error(NULL, "x");
	assert_int_equal(errno, ENXIO);
	dup2(null, STDERR_FILENO); /* where every write fails */
	log_error(NULL, "x");
	assert_int_equal(errno, ENXIO);
	close(null);
}

/* Nobody reads: whoever logs goes on, and later the reader learns how much is missing. */
static void test_full_pipe(void **state)
{
	int pipe_fds[2];
	ssize_t length;

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	dup2(pipe_fds[1], STDERR_FILENO);
	alarm(30);
	for (unsigned i = 0; i < 5000; i++)
		log_error("n", "one of the lines that fill the pipe");
	alarm(0);
	length = read(pipe_fds[0], text, sizeof(text) - 1);
	assert_true(length > 0);
	text[length] = '\0';

	unsigned there = 0, lost;

	for (const char *at = text; (at = strchr(at, '\n')); at++)
		there++;
	log_error("n", "after");
	length = read(pipe_fds[0], text, sizeof(text) - 1);
	assert_true(length > 0);
	text[length] = '\0';
	assert_int_equal(sscanf(text, "diskfs: warning: %u messages", &lost), 1);
	assert_int_equal(there + lost, 5000);
	assert_non_null(strstr(text, " could not be written\ndiskfs: error: [n] after\n"));
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static unsigned count_lines(const char *of)
{
	unsigned count = 0;

	for (const char *at = written(); (at = strstr(at, of)); at += strlen(of))
		count++;
	return count;
}

static void test_flood(void **state)
{
	struct log_limit limit = {0}, other = {0};

	(void)state;
	for (unsigned i = 0; i < 1000; i++)
		log_limited(&limit, LOG_LEVEL_ERROR, "n", "flood");
	assert_int_equal(count_lines("[n] flood\n"), LOG_BURST);
	log_limited(&other, LOG_LEVEL_ERROR, "n", "other");
	assert_int_equal(count_lines("[n] other\n"), 1);

	/* As if the interval were over. */
	atomic_store(&limit.window_start_ns, now_ns() - (LOG_INTERVAL_S + 1) * NS_PER_S);
	log_limited(&limit, LOG_LEVEL_ERROR, "n", "flood");
	assert_int_equal(count_lines("[n] flood\n"), LOG_BURST + 1);
	assert_non_null(strstr(written(), "diskfs: error: [n] 990 messages like the following were "
					  "left out\ndiskfs: error: [n] flood\n"));
}

static void test_long_message(void **state)
{
	char message[5000];
	const char *line;

	(void)state;
	memset(message, 'm', sizeof(message) - 1);
	message[sizeof(message) - 1] = '\0';
	log_error("node", "%s", message);
	log_error(message, "after");
	log_error(NULL, "last");
	line = written();
	/* Cut, but each a line of its own. */
	assert_int_equal(count_lines("\n"), 3);
	assert_non_null(strstr(line, "\ndiskfs: error: last\n"));
}

static void log_many(unsigned index, void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < 200; i++)
		log_error("worker", "%u-%u of the lines that must not mix", index, i);
}

static void test_threads(void **state)
{
	(void)state;
	setup_4_workers(NULL);
	run_tasks(4, log_many, NULL);
	teardown_workers(NULL);
	assert_int_equal(count_lines(" of the lines that must not mix\ndiskfs: error: [worker] "),
			 4 * 200 - 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, capture, release)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_full_pipe),	  TEST(test_form),  TEST(test_levels),
		TEST(test_errno_is_kept), TEST(test_flood), TEST(test_long_message),
		TEST(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
