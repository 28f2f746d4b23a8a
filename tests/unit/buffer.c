// SPDX-License-Identifier: MIT
/* The pool of buffers: what is kept, and how much memory that takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "core/buffer.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

#define PAGE  4096
#define MANY  (4 * BUFFERS_IDLE_MAX)
#define LIMIT (BUFFERS_IDLE_MAX * (buffer_size() + PAGE))

/* Each test on a worker whose pool is empty. */
static uint64_t mapped(void)
{
	struct worker_numbers numbers;

	worker_read_numbers(worker_index(), &numbers);
	return numbers.buffer_bytes;
}

/* Of the buffers, and of the page behind each, what is in memory. */
static uint64_t resident(void *const *buffers, unsigned count)
{
	static unsigned char pages[65536];
	size_t length = buffer_size() + PAGE;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < count; i++) {
		/* An error: it is not mapped any more. */
		if (!CHECK(length / PAGE <= sizeof(pages)) ||
		    mincore(buffers[i], length, pages) < 0)
			continue;
		for (size_t page = 0; page < length / PAGE; page++)
			bytes += (pages[page] & 1) * PAGE;
	}
	return bytes;
}

static void get_all(void **buffers, unsigned count, size_t touched)
{
	for (unsigned i = 0; i < count; i++) {
		buffers[i] = buffer_get();
		if (!CHECK(buffers[i]))
			abort();
		memset(buffers[i], (int)i, touched);
	}
}

static void put_all(void *const *buffers, unsigned count, size_t touched)
{
	for (unsigned i = 0; i < count; i++)
		buffer_put_touched(buffers[i], touched);
}

static void test_content_task(void *argument)
{
	char *buffers[MANY];

	(void)argument;
	get_all((void **)buffers, MANY, BUFFER_HEADER);
	for (unsigned i = 0; i < MANY; i++) {
		CHECK(is_aligned((uintptr_t)buffers[i], PAGE));
		buffers[i][buffer_size() - 1] = (char)i;
	}
	CHECK_EQ(mapped(), MANY * buffer_size());
	for (unsigned i = 0; i < MANY; i++) {
		CHECK_EQ(bytes_differ(buffers[i], BUFFER_HEADER, (int)(i & 0xff)), BUFFER_HEADER);
		CHECK_EQ(buffers[i][buffer_size() - 1], (char)i);
		buffer_put(buffers[i]);
	}
}

/* Many that hold little stay as they are: nothing is mapped, unmapped or given back. */
static void test_small_task(void *argument)
{
	void *buffers[MANY];
	size_t touched = BUFFER_HEADER + 4096;

	(void)argument;
	for (unsigned round = 0; round < 3; round++) {
		get_all(buffers, MANY, touched);
		CHECK_EQ(mapped(), MANY * buffer_size());
		put_all(buffers, MANY, touched);
		CHECK_EQ(mapped(), MANY * buffer_size());
		CHECK_EQ(resident(buffers, MANY), MANY * (touched + PAGE));
	}
}

/* Many that hold much stay, but not all of their memory; those that have it are used first. */
static void test_large_task(void *argument)
{
	void *buffers[MANY], *warm[8];

	(void)argument;
	for (unsigned round = 0; round < 3; round++) {
		get_all(buffers, MANY, buffer_size());
		put_all(buffers, MANY, buffer_size());
		CHECK_EQ(mapped(), MANY * buffer_size());
		CHECK(resident(buffers, MANY) <= LIMIT);
		CHECK(resident(buffers, MANY) > LIMIT / 2);
	}
	get_all(warm, ARRAY_SIZE(warm), 0);
	CHECK_EQ(resident(warm, ARRAY_SIZE(warm)), ARRAY_SIZE(warm) * (buffer_size() + PAGE));
	put_all(warm, ARRAY_SIZE(warm), 0);
}

/* How far a buffer was touched is not forgotten when it is next used for less. */
static void test_large_then_small_task(void *argument)
{
	void *buffers[MANY];
	uint64_t before;

	(void)argument;
	get_all(buffers, MANY, buffer_size());
	put_all(buffers, MANY, buffer_size());
	for (unsigned round = 0; round < 3; round++) {
		get_all(buffers, MANY, 2 * PAGE);
		put_all(buffers, MANY, 2 * PAGE);
		CHECK(resident(buffers, MANY) <= LIMIT);
	}
	/* By then all have what they need. */
	before = resident(buffers, MANY);
	get_all(buffers, MANY, 0);
	CHECK_EQ(resident(buffers, MANY), before);
	put_all(buffers, MANY, 0);
	CHECK_EQ(resident(buffers, MANY), before);
}

/* The pages behind them count, too: so many buffers at once do not all stay. */
static void test_too_many_task(void *argument)
{
	unsigned count = (unsigned)(LIMIT / PAGE) + 100;
	void **buffers = calloc(count, sizeof(*buffers));

	(void)argument;
	get_all(buffers, count, 0);
	put_all(buffers, count, 0);
	CHECK_EQ(mapped(), LIMIT / PAGE * buffer_size());
	free(buffers);
}

static void in_new_worker(void (*task)(void *argument))
{
	void *state = NULL;

	assert_int_equal(setup_1_worker(&state), 0);
	worker_call(worker_get(0), task, NULL);
	assert_int_equal(teardown_workers(&state), 0);
	check_finish();
}

#define IN_NEW_WORKER(name)                 \
	static void name(void **state)      \
	{                                   \
		(void)state;                \
		in_new_worker(name##_task); \
	}

IN_NEW_WORKER(test_content)
IN_NEW_WORKER(test_small)
IN_NEW_WORKER(test_large)
IN_NEW_WORKER(test_large_then_small)
IN_NEW_WORKER(test_too_many)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_content),	 cmocka_unit_test(test_small),
		cmocka_unit_test(test_large),	 cmocka_unit_test(test_large_then_small),
		cmocka_unit_test(test_too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
