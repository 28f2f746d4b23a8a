// SPDX-License-Identifier: MIT
/* Workers: start and stop, calls from other threads, sources, the ring and its system calls. */
#include "core/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "core/buffer.h"
#include "core/lock.h"
#include "core/ring.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"

/* ---- Life. ---- */

static void count_task(unsigned index, void *argument)
{
	(void)index;
	task_yield();
	atomic_fetch_add((atomic_uint *)argument, 1);
}

static void test_start_and_stop(void **state)
{
	static const unsigned counts[] = {1, 2, 3, 8, WORKERS_MAX, 1};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		atomic_uint count = 0;
		struct err err;

		assert_int_equal(workers_start(counts[i], &err), 0);
		assert_int_equal(workers_count(), counts[i]);
		run_tasks(2 * counts[i], count_task, &count);
		assert_int_equal(count, 2 * counts[i]);
		workers_stop();
		assert_int_equal(workers_count(), 0);
	}
}

/* Tasks that nobody waits for, and that wake one another from worker to worker. */
struct baton {
	struct task_mutex mutex;
	atomic_uint ended;
};

static void hand_over(void *argument)
{
	struct baton *baton = argument;

	for (unsigned i = 0; i < 20; i++) {
		task_mutex_lock(&baton->mutex);
		task_yield();
		task_mutex_unlock(&baton->mutex);
	}
	atomic_fetch_add(&baton->ended, 1);
}

static void start_hand_over(void *argument)
{
	CHECK_EQ(task_start(hand_over, argument), 0);
}

/* workers_stop() waits for every task, wherever its last wake comes from. */
static void test_stop_waits_for_tasks(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 100; round++) {
		struct baton baton = {.ended = 0};

		task_mutex_init(&baton.mutex);
		assert_int_equal(setup_4_workers(NULL), 0);
		for (unsigned i = 0; i < 8; i++)
			worker_call(worker_get(i % 4), start_hand_over, &baton);
		workers_stop();
		assert_int_equal(baton.ended, 8);
		task_mutex_destroy(&baton.mutex);
	}
	check_finish();
}

static void test_signals_are_blocked_task(void *argument)
{
	sigset_t set;

	(void)argument;
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	CHECK(sigismember(&set, SIGTERM) == 1);
	CHECK(sigismember(&set, SIGINT) == 1);
	CHECK(sigismember(&set, SIGXFSZ) == 1);
}
RUN_IN_TASK(test_signals_are_blocked)

/* ---- Calls. ---- */

struct calls {
	unsigned count[2]; /* by worker: each is only touched there */
};

static void called(void *argument)
{
	struct calls *calls = argument;

	CHECK(worker_self() == worker_get(worker_index()));
	calls->count[worker_index()]++;
}

static void *call_often(void *argument)
{
	for (unsigned i = 0; i < 2000; i++)
		worker_call(worker_get(i % 2), called, argument);
	return NULL;
}

static void test_calls(void **state)
{
	struct calls calls = {.count = {0}};
	pthread_t threads[4];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, call_often, &calls), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	check_finish();
	assert_int_equal(calls.count[0], 4000);
	assert_int_equal(calls.count[1], 4000);
}

struct late_call {
	sem_t go;
	atomic_bool made;
};

static void note_made(void *argument)
{
	atomic_store(&((struct late_call *)argument)->made, true);
}

static void *call_late(void *argument)
{
	struct late_call *call = argument;

	sem_wait(&call->go);
	worker_call(worker_get(0), note_made, call);
	return NULL;
}

/* A call for which no stack can be mapped is made once one can. */
static void test_call_without_memory(void **state)
{
	struct late_call call = {.made = false};
	struct rlimit before, none;
	pthread_t thread;

	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(); /* their run-time libraries end the process if they cannot map */
#endif
	assert_int_equal(setup_1_worker(NULL), 0);
	sem_init(&call.go, 0, 0);
	assert_int_equal(pthread_create(&thread, NULL, call_late, &call), 0);
	getrlimit(RLIMIT_AS, &before);
	none = (struct rlimit){.rlim_cur = 1, .rlim_max = before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
	sem_post(&call.go);
	usleep(50000);

	bool made = atomic_load(&call.made);

	assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
	assert_false(made);
	pthread_join(thread, NULL);
	assert_true(call.made);
	sem_destroy(&call.go);
	workers_stop();
}

/* ---- Sources. ---- */

/* A source that has a few turns' work and then waits for a byte on a pipe. */
struct pipe_source {
	struct worker_source source;
	struct ring_op op;
	struct task *waiter;
	int fds[2];
	char byte;
	unsigned turns, armed, arrived;
	bool is_armed;
};

static void pipe_done(struct ring_op *op, int result, unsigned flags)
{
	struct pipe_source *pipe_source = CONTAINER_OF(op, struct pipe_source, op);

	(void)flags;
	CHECK_EQ(result, 1);
	pipe_source->is_armed = false;
	pipe_source->arrived++;
	task_wake(pipe_source->waiter);
}

static bool pipe_turn(struct worker_source *source)
{
	struct pipe_source *pipe_source = CONTAINER_OF(source, struct pipe_source, source);

	CHECK(!task_self());
	return ++pipe_source->turns < 10;
}

static void pipe_arm(struct worker_source *source)
{
	struct pipe_source *pipe_source = CONTAINER_OF(source, struct pipe_source, source);
	struct io_uring_sqe *sqe;

	CHECK(pipe_source->turns >= 10); /* not while there may be more */
	pipe_source->armed++;
	if (pipe_source->is_armed)
		return;
	pipe_source->is_armed = true;
	sqe = worker_sqe();
	io_uring_prep_read(sqe, pipe_source->fds[0], &pipe_source->byte, 1, 0);
	io_uring_sqe_set_data(sqe, &pipe_source->op);
}

static void *write_later(void *argument)
{
	const struct pipe_source *pipe_source = argument;

	for (unsigned i = 0; i < 3; i++) {
		usleep(2000);
		CHECK_EQ(write(pipe_source->fds[1], "x", 1), 1);
	}
	return NULL;
}

static void test_source_task(void *argument)
{
	struct pipe_source source = {.source = {pipe_turn, pipe_arm},
				     .op.done = pipe_done,
				     .waiter = task_self()};
	pthread_t thread;

	(void)argument;
	CHECK_EQ(pipe(source.fds), 0);
	CHECK_EQ(pthread_create(&thread, NULL, write_later, &source), 0);
	worker_set_source(&source.source);
	for (unsigned i = 0; i < 3; i++)
		task_suspend();
	worker_set_source(NULL);
	pthread_join(thread, NULL);
	CHECK_EQ(source.arrived, 3);
	CHECK(source.armed >= 3);
	CHECK(!source.is_armed);
	close(source.fds[0]);
	close(source.fds[1]);
}
RUN_IN_TASK(test_source)

/* ---- System calls. ---- */

static void test_ring_calls_task(void *argument)
{
	char data[3000], back[3000];
	struct iovec out[3] = {{data, 1000}, {data + 1000, 1}, {data + 1001, 1999}};
	struct iovec in = {back, sizeof(back)};
	int fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	(void)argument;
	pattern_fill(data, sizeof(data), 1);
	CHECK_EQ(ring_writev(fd, out, 3, 4096, 0), sizeof(data));
	CHECK_EQ(ring_writev(fd, out, 3, 8192, RWF_DSYNC), sizeof(data));
	CHECK_EQ(ring_readv(fd, &in, 1, 4096, 0), sizeof(back));
	CHECK(memcmp(data, back, sizeof(data)) == 0);
	CHECK_EQ(ring_readv(fd, &in, 1, 8192 + 2000, 0), 1000); /* to the end of the file */
	CHECK_EQ(ring_readv(fd, &in, 1, 1 << 20, 0), 0);
	CHECK_EQ(ring_fdatasync(fd), 0);
	CHECK_EQ(ring_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
	CHECK_EQ(ring_readv(fd, &in, 1, 4096, 0), sizeof(back));
	CHECK_EQ(bytes_differ(back, sizeof(back), 0), sizeof(back));
	close(fd);
	CHECK(ring_readv(fd, &in, 1, 0, 0) == -EBADF);
	CHECK(ring_writev(fd, out, 3, 0, 0) == -EBADF);
	CHECK(ring_fdatasync(fd) == -EBADF);
	CHECK(ring_fallocate(fd, 0, 0, 1) == -EBADF);
}

static void test_ring_calls(void **state)
{
	scratch_enter();
	run_task(test_ring_calls_task, *state);
	scratch_leave();
}

/* ---- Numbers. ---- */

static void test_numbers_task(void *argument)
{
	struct worker_numbers before, after;

	(void)argument;
	worker_read_numbers(worker_index(), &before);
	CHECK(before.tasks == 1 && before.stacks >= 1);
	task_sleep_ns(NS_PER_S / 1000);
	task_yield();
	worker_read_numbers(worker_index(), &after);
	CHECK(after.turns >= before.turns + 2);
	CHECK(after.sleeps > before.sleeps);
}
RUN_IN_TASK(test_numbers)

int main(void)
{
	const struct CMUnitTest life_tests[] = {
		cmocka_unit_test(test_start_and_stop),
		cmocka_unit_test(test_stop_waits_for_tasks),
		cmocka_unit_test(test_call_without_memory),
	};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_signals_are_blocked),
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_source),
		cmocka_unit_test(test_ring_calls),
		cmocka_unit_test(test_numbers),
	};
	int failed = cmocka_run_group_tests(life_tests, NULL, NULL);

	return failed + cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
