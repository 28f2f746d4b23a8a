// SPDX-License-Identifier: MIT
/* Tasks: starting, switching, waking across workers, stacks and their pool, groups, timers. */
#include "core/task.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "core/buffer.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

/* ---- Starting. ---- */

struct steps {
	char text[16];
	struct task *task;
};

static void note(struct steps *steps, char step)
{
	size_t length = strlen(steps->text);

	if (CHECK(length + 1 < sizeof(steps->text)))
		steps->text[length] = step;
}

static void child_steps(void *argument)
{
	struct steps *steps = argument;

	note(steps, 'b');
	CHECK(task_self() != steps->task);
	steps->task = task_self();
	CHECK(!task_context());
	task_set_context(steps);
	task_suspend();
	CHECK(task_self() == steps->task);
	CHECK(task_context() == steps);
	note(steps, 'd');
}

/* A task runs until it suspends before whoever started it goes on; a wake never runs it at once. */
static void test_start_task(void *argument)
{
	struct steps steps = {.task = task_self()};

	(void)argument;
	task_set_context(&steps);
	note(&steps, 'a');
	CHECK_EQ(task_start(child_steps, &steps), 0);
	CHECK(task_context() == &steps);
	task_wake(steps.task);
	note(&steps, 'c');
	task_yield();
	note(&steps, 'e');
	CHECK_TEXT(steps.text, "abcde");
}
RUN_IN_TASK(test_start)

static void test_outside(void **state)
{
	(void)state;
	assert_null(task_self());
	assert_null(task_context());
	assert_null(worker_self());
	assert_int_equal(worker_index(), 0);
}

/* ---- Switching. ---- */

#define SWITCHES 100000

static void yield_often(unsigned index, void *argument)
{
	atomic_uint *count = argument;
	unsigned own = 0;

	for (unsigned i = 0; i < SWITCHES / 10; i++) {
		CHECK_EQ(worker_index(), index % workers_count());
		task_yield();
		own++;
	}
	atomic_fetch_add(count, own);
}

static void test_switches(void **state)
{
	atomic_uint count = 0;

	(void)state;
	run_tasks(10, yield_often, &count);
	assert_int_equal(count, SWITCHES);
}

/* Two tasks on two workers that wake one another in turn. */
struct ping {
	struct task *_Atomic tasks[2];
	unsigned long turns;
};

static void ping_pong(unsigned index, void *argument)
{
	struct ping *ping = argument;

	/* Nobody wakes the first before it has begun, so that it may yield. */
	atomic_store(&ping->tasks[index], task_self());
	while (index == 0 && !atomic_load(&ping->tasks[1]))
		task_yield();
	for (unsigned long i = 0; i < 20000; i++) {
		/* The count is handed over by the wakes alone. */
		if (i > 0 || index == 1)
			task_suspend();
		CHECK_EQ(ping->turns % 2, index);
		ping->turns++;
		task_wake(atomic_load(&ping->tasks[!index]));
	}
	if (index == 0) /* the last wake has to be waited for too */
		task_suspend();
}

static void test_wake_across_workers(void **state)
{
	struct ping ping = {.turns = 0};

	(void)state;
	run_tasks(2, ping_pong, &ping);
	assert_int_equal(ping.turns, 40000);
}

/* A wake from a thread that is no worker, at any time from before the suspension on. */
struct waker {
	struct task *_Atomic task;
	atomic_bool end;
};

static void *wake_main(void *argument)
{
	struct waker *waker = argument;

	while (!atomic_load(&waker->end)) {
		struct task *task = atomic_exchange(&waker->task, NULL);

		if (task)
			task_wake(task);
	}
	return NULL;
}

static void suspend_often(unsigned index, void *argument)
{
	struct waker *waker = argument;
	struct random random = {.state = index};
	struct task *none = NULL;

	for (unsigned i = 0; i < 2000; i++) {
		while (!atomic_compare_exchange_strong(&waker->task, &none, task_self())) {
			none = NULL;
			task_yield();
		}
		for (uint64_t spin = random_below(&random, 300); spin > 0; spin--)
			atomic_signal_fence(memory_order_seq_cst);
		task_suspend();
	}
}

static void test_wake_before_suspend(void **state)
{
	struct waker waker = {.end = false};
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, wake_main, &waker), 0);
	run_tasks(4, suspend_often, &waker);
	atomic_store(&waker.end, true);
	pthread_join(thread, NULL);
}

/* ---- Stacks. ---- */

#define FRAME 1024

/* Uses the stack down to @depth frames, suspending in each, and finds it as it was. */
static __attribute__((noinline)) unsigned descend(unsigned depth, unsigned seed)
{
	volatile unsigned char frame[FRAME];
	unsigned sum = 0;

	for (unsigned i = 0; i < FRAME; i++)
		frame[i] = (unsigned char)(depth + seed + i);
	if (depth > 0)
		sum = descend(depth - 1, seed);
	task_yield();
	for (unsigned i = 0; i < FRAME; i++)
		sum += frame[i] != (unsigned char)(depth + seed + i);
	return sum;
}

static void use_stack(unsigned index, void *argument)
{
	(void)argument;
	CHECK_EQ(descend(40, index), 0);
}

static void test_deep_stacks(void **state)
{
	(void)state;
	run_tasks(64, use_stack, NULL);
}

/* Goes down until @frame is @left bytes lower; touches every page on the way. */
static __attribute__((noinline)) unsigned overflow(uintptr_t top, size_t left)
{
	volatile unsigned char frame[FRAME];

	frame[left % FRAME] = 1;
	return top - (uintptr_t)frame > left ? 0 : overflow(top, left) + frame[0];
}

static void idle_task(void *argument)
{
	(void)argument;
	task_suspend();
}

/*
 * Just beyond the end of the largest stack (core/task.c), not to the end of all memory. The stacks
 * of later tasks lie below: without a guard, it is theirs that would be written to.
 */
static void overflow_task(void *argument)
{
	volatile unsigned char top = 0;

	(void)argument;
	for (unsigned i = 0; i < 16; i++)
		CHECK_EQ(task_start(idle_task, NULL), 0);
	overflow((uintptr_t)&top, 512 * 1024 + 4096);
	_exit(0);
}

static void test_overflow_ends_the_program(void **state)
{
	const struct rlimit no_core = {0, 0};
	int status;
	pid_t child = fork();

	(void)state;
	if (child == 0) {
		setrlimit(RLIMIT_CORE, &no_core);
		signal(SIGSEGV, SIG_DFL);
		if (setup_1_worker(NULL) < 0)
			_exit(1);
		worker_call(worker_get(0), overflow_task, NULL);
		_exit(1);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
}

/* What a request does: a task, a buffer, children, a suspension. */
static int request_part(void *argument)
{
	(void)argument;
	task_yield();
	return 0;
}

static void request(unsigned index, void *argument)
{
	void *buffer = buffer_get();
	struct task_group group = {0};

	(void)argument;
	if (!CHECK(buffer))
		return;
	memset((char *)buffer + BUFFER_HEADER, (int)index, 512);
	for (unsigned i = 0; i < 4; i++)
		task_group_start(&group, request_part, NULL);
	task_group_wait(&group);
	buffer_put(buffer);
}

struct pool {
	struct worker_numbers before, after;
	size_t heap_before, heap_after;
};

static void request_main(void *argument)
{
	request(0, argument);
}

static void use_pool_task(void *argument)
{
	struct pool *pool = argument;

	for (unsigned i = 0; i < 20000; i++) {
		if (i == 1000) {
			worker_read_numbers(worker_index(), &pool->before);
			pool->heap_before = mallinfo2().uordblks;
		}
		CHECK_EQ(task_start(request_main, NULL), 0);
		if (i % 8 == 0)
			task_sleep_ns(0);
	}
	task_sleep_ns(NS_PER_S / 100);
	worker_read_numbers(worker_index(), &pool->after);
	pool->heap_after = mallinfo2().uordblks;
}

/* Once warm, a request takes nothing from the system. */
static void test_pool_is_reused(void **state)
{
	struct pool pool;

	(void)state;
	run_task(use_pool_task, &pool);
	assert_true(pool.before.stacks > 0);
	assert_true(pool.before.buffer_bytes > 0);
	assert_true(pool.after.stacks <= pool.before.stacks + 8);
	assert_true(pool.after.buffer_bytes <= pool.before.buffer_bytes + 8 * buffer_size());
	assert_int_equal(pool.heap_after, pool.heap_before);
	assert_int_equal(pool.after.tasks, 1);
}

/* ---- Groups. ---- */

struct child {
	unsigned index, delay;
	int error;
	unsigned *ended;
};

static int child_run(void *argument)
{
	const struct child *child = argument;

	for (unsigned i = 0; i < child->delay; i++)
		task_yield();
	++*child->ended;
	return child->error;
}

#define CHILDREN 5

/* Every way in which some of the children fail, and several orders in which they end. */
static void test_group_errors_task(void *argument)
{
	(void)argument;
	for (unsigned failing = 0; failing < 1 << CHILDREN; failing++) {
		for (unsigned order = 0; order < 25; order++) {
			struct task_group group = {0};
			struct child children[CHILDREN];
			unsigned ended = 0;
			int wanted = 0;

			for (unsigned i = 0; i < CHILDREN; i++) {
				bool fails = failing >> i & 1;

				children[i] = (struct child){
					.index = i,
					.delay = (i * (order % 5) + order / 5) % 5,
					.error = fails ? error_io((int)i + 1) : 0,
					.ended = &ended,
				};
				if (fails && !wanted)
					wanted = children[i].error;
				task_group_start(&group, child_run, &children[i]);
			}
			CHECK_EQ(task_group_wait(&group), wanted);
			CHECK_EQ(ended, CHILDREN);
		}
	}
}
RUN_IN_TASK(test_group_errors)

static int group_of_groups(void *argument)
{
	unsigned depth = *(const unsigned *)argument;
	unsigned below = depth - 1;
	struct task_group group = {0};

	if (depth == 0) {
		task_sleep_ns(NS_PER_US);
		return error_io(ENOSPC);
	}
	for (unsigned i = 0; i < 4; i++)
		task_group_start(&group, group_of_groups, &below);
	return task_group_wait(&group);
}

static void test_group_of_groups_task(void *argument)
{
	unsigned depth = 5;

	(void)argument;
	CHECK_EQ(group_of_groups(&depth), error_io(ENOSPC));
}
RUN_IN_TASK(test_group_of_groups)

static void test_empty_group_task(void *argument)
{
	struct task_group group = {0};

	(void)argument;
	CHECK_EQ(task_group_wait(&group), 0);
	CHECK_EQ(task_group_wait(&group), 0);
}
RUN_IN_TASK(test_empty_group)

/* ---- Timers. ---- */

static void sleep_once(unsigned index, void *argument)
{
	uint64_t ns = (index % 50) * NS_PER_US * 100;
	uint64_t begin = now_ns();
	atomic_uint *count = argument;

	task_sleep_ns(ns);
	CHECK(now_ns() - begin >= ns);
	CHECK(now_ns() - begin < 20 * NS_PER_S);
	atomic_fetch_add(count, 1);
}

/* More timers at once than the ring has entries of either sort. (TSan knows only so many fibers.)
 */
#ifdef __SANITIZE_THREAD__
#define SLEEPERS 1000
#else
#define SLEEPERS 10000
#endif

static void test_many_sleepers(void **state)
{
	atomic_uint count = 0;

	(void)state;
	run_tasks(SLEEPERS, sleep_once, &count);
	assert_int_equal(count, SLEEPERS);
}

/* One who sleeps; its wake-up is between the two, which only the clock's readings around the call
 * tell. */
struct dreamer {
	uint64_t ns, earliest, latest;
	struct dream *dream;
};

struct dream {
	unsigned count;
	const struct dreamer *woken[1000]; /* in this order */
};

static int dream_once(void *argument)
{
	struct dreamer *dreamer = argument;

	dreamer->earliest = now_ns() + dreamer->ns;
	task_sleep_ns(dreamer->ns);
	CHECK(now_ns() >= dreamer->earliest);
	dreamer->dream->woken[dreamer->dream->count++] = dreamer;
	return 0;
}

/* Whoever is to wake first does, while others still fall asleep. */
static void test_sleepers_in_order_task(void *argument)
{
	static struct dreamer dreamers[ARRAY_SIZE(((struct dream *)NULL)->woken)];
	static struct dream dream;
	struct task_group group = {0};
	struct random random = {.state = 1};
	uint64_t before = 0;

	(void)argument;
	dream.count = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(dreamers); i++) {
		dreamers[i].ns = random_below(&random, 20000) * NS_PER_US;
		dreamers[i].dream = &dream;
		task_group_start(&group, dream_once, &dreamers[i]);
		dreamers[i].latest = now_ns() + dreamers[i].ns;
		if (i % 100 == 99)
			task_yield();
	}
	task_group_wait(&group);
	CHECK_EQ(dream.count, ARRAY_SIZE(dreamers));
	for (unsigned i = 0; i < dream.count; i++) {
		CHECK(before <= dream.woken[i]->latest);
		before = max_u64(before, dream.woken[i]->earliest);
	}
}
RUN_IN_TASK(test_sleepers_in_order)

int main(void)
{
	const struct CMUnitTest fork_tests[] = {
		cmocka_unit_test(test_overflow_ends_the_program),
		cmocka_unit_test(test_outside),
	};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start),
		cmocka_unit_test(test_switches),
		cmocka_unit_test(test_wake_across_workers),
		cmocka_unit_test(test_wake_before_suspend),
		cmocka_unit_test(test_deep_stacks),
		cmocka_unit_test(test_pool_is_reused),
		cmocka_unit_test(test_group_errors),
		cmocka_unit_test(test_group_of_groups),
		cmocka_unit_test(test_empty_group),
		cmocka_unit_test(test_many_sleepers),
		cmocka_unit_test(test_sleepers_in_order),
	};
	int failed = cmocka_run_group_tests(fork_tests, NULL, NULL);

	return failed + cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
