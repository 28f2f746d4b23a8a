// SPDX-License-Identifier: MIT
/* Blocking calls on the pool of threads: all are run, at once as far as there are threads. */
#include "core/offload.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <unistd.h>
#include <cmocka.h>
#include "core/task.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

/* ---- Many jobs. ---- */

struct job {
	unsigned input, output;
	pthread_t thread;
};

static void job_run(void *argument)
{
	struct job *job = argument;

	CHECK(!task_self() && !worker_self());
	job->thread = pthread_self();
	job->output = job->input * 3;
}

static void offload_often(unsigned index, void *argument)
{
	atomic_uint *count = argument;

	for (unsigned i = 0; i < 50; i++) {
		struct job job = {.input = index * 1000 + i};

		offload(job_run, &job);
		CHECK_EQ(job.output, job.input * 3);
		CHECK(!pthread_equal(job.thread, pthread_self()));
		CHECK_EQ(worker_index(), index % workers_count());
		atomic_fetch_add(count, 1);
	}
}

static void test_many(void **state)
{
	atomic_uint count = 0;

	(void)state;
	run_tasks(100, offload_often, &count);
	assert_int_equal(count, 5000);
}

/* ---- At once. ---- */

/* Jobs that only end when all are there, or when the time is over. */
struct meeting {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned wanted, present;
};

static void meet(void *argument)
{
	struct meeting *meeting = argument;
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 5;
	pthread_mutex_lock(&meeting->mutex);
	meeting->present++;
	pthread_cond_broadcast(&meeting->changed);
	while (meeting->present < meeting->wanted)
		if (!CHECK_EQ(pthread_cond_timedwait(&meeting->changed, &meeting->mutex, &end), 0))
			break;
	pthread_mutex_unlock(&meeting->mutex);
}

static void offload_meet(unsigned index, void *argument)
{
	(void)index;
	offload(meet, argument);
}

static void run_meeting(unsigned wanted)
{
	struct meeting meeting = {.mutex = PTHREAD_MUTEX_INITIALIZER,
				  .changed = PTHREAD_COND_INITIALIZER,
				  .wanted = wanted};

	run_tasks(wanted, offload_meet, &meeting);
	assert_int_equal(meeting.present, wanted);
}

/* However many threads are idle when the jobs come. */
static void test_at_once(void **state)
{
	(void)state;
	for (unsigned wanted = 1; wanted <= OFFLOAD_THREADS; wanted++) {
		run_meeting(wanted);
		usleep(20000); /* all idle again */
	}
}

/* ---- The worker goes on meanwhile. ---- */

static void block(void *argument)
{
	const atomic_bool *end = argument;

	for (unsigned i = 0; i < 5000 && !atomic_load(end); i++)
		usleep(1000);
	CHECK(atomic_load(end));
}

static int end_later(void *argument)
{
	for (unsigned i = 0; i < 100; i++)
		task_yield();
	atomic_store((atomic_bool *)argument, true);
	return 0;
}

static void test_worker_goes_on_task(void *argument)
{
	atomic_bool end = false;
	struct task_group group = {0};

	(void)argument;
	task_group_start(&group, end_later, &end);
	offload(block, &end);
	task_group_wait(&group);
}
RUN_IN_TASK(test_worker_goes_on)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_at_once, setup_2_workers, teardown_workers),
		cmocka_unit_test_setup_teardown(test_many, setup_2_workers, teardown_workers),
		cmocka_unit_test_setup_teardown(test_worker_goes_on, setup_1_worker,
						teardown_workers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
