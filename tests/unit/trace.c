// SPDX-License-Identifier: MIT
/* Requests that last are shown with the node that holds them, those that are over are not. */
#include "core/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>
#include "core/task.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"

#define SECTOR 512

/* A probe on each worker, with one read held in it. */
struct held {
	struct probe probes[2];
	struct disk *disks[2];
	pthread_t thread;
};

static void hold_one(unsigned index, void *argument)
{
	struct held *held = argument;
	char data[3 * SECTOR];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));
	struct err err;

	probe_init(&held->probes[index], SECTOR, 16);
	held->disks[index] = probe_open(&held->probes[index], 0, NULL, &err);
	atomic_store(&held->probes[index].hold, true);
	CHECK_EQ(disk_read(held->disks[index], &sg, 4 + index), 0);
	disk_close(held->disks[index]);
	probe_destroy(&held->probes[index]);
}

static void *hold_both(void *argument)
{
	run_tasks(2, hold_one, argument);
	return NULL;
}

static void wait_for(unsigned count, struct slow_requests *slow)
{
	for (int i = 0; i < 5000; i++) {
		assert_int_equal(trace_slow_requests(0, slow), 0);
		if (slow->count == count)
			return;
		usleep(1000);
	}
	fail_msg("%u requests are shown, not %u", slow->count, count);
}

static void test_slow_requests(void **state)
{
	struct held held = {.thread = 0};
	struct slow_requests slow;
	unsigned seen = 0;

	(void)state;
	assert_int_equal(pthread_create(&held.thread, NULL, hold_both, &held), 0);
	wait_for(2, &slow);
	for (unsigned i = 0; i < 2; i++) {
		const struct slow_request *request = &slow.requests[i];

		assert_int_equal(request->op, STATS_READ);
		assert_int_equal(request->length, 3 * SECTOR);
		assert_int_equal(request->offset, (4 + request->worker) * SECTOR);
		assert_string_equal(request->node, held.disks[request->worker]->name);
		seen |= 1U << request->worker;
	}
	assert_int_equal(seen, 3);
	assert_int_equal(slow.silent_workers, 0);
	/* None of them is that old. */
	assert_int_equal(trace_slow_requests(3600 * NS_PER_S, &slow), 0);
	assert_int_equal(slow.count, 0);
	for (unsigned i = 0; i < 2; i++)
		atomic_store(&held.probes[i].hold, false);
	pthread_join(held.thread, NULL);
	wait_for(0, &slow);
}

static void block_task(void *argument)
{
	usleep(*(useconds_t *)argument);
}

static void *block_worker(void *argument)
{
	worker_call(worker_get(0), block_task, argument);
	return NULL;
}

/* A worker that is stuck is told apart, and does not hold up who asks. */
static void test_silent_worker(void **state)
{
	useconds_t us = 1000000;
	struct slow_requests slow;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, block_worker, &us), 0);
	usleep(100000);
	assert_int_equal(trace_slow_requests(0, &slow), 0);
	assert_int_equal(slow.silent_workers, 1);
	pthread_join(thread, NULL);
	assert_int_equal(trace_slow_requests(0, &slow), 0);
	assert_int_equal(slow.silent_workers, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_slow_requests, setup_2_workers,
						teardown_workers),
		cmocka_unit_test_setup_teardown(test_silent_worker, setup_2_workers,
						teardown_workers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
