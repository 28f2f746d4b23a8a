// SPDX-License-Identifier: MIT
/* Task locks on four workers: exclusion, order, no wake lost. */
#include "core/lock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <cmocka.h>
#include "core/task.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

#define TASKS 32

/* ---- Mutex. ---- */

struct counter {
	struct task_mutex mutex;
	atomic_uint inside;
	unsigned long count; /* guarded by the mutex, and not atomic */
};

static void count_up(unsigned index, void *argument)
{
	struct counter *counter = argument;
	struct random random = {.state = index};

	for (unsigned i = 0; i < 1000; i++) {
		task_mutex_lock(&counter->mutex);
		CHECK_EQ(atomic_fetch_add(&counter->inside, 1), 0);

		unsigned long seen = counter->count;

		if (random_below(&random, 4) == 0)
			task_yield();
		counter->count = seen + 1;
		atomic_fetch_sub(&counter->inside, 1);
		task_mutex_unlock(&counter->mutex);
		if (random_below(&random, 8) == 0)
			task_yield();
	}
}

static void test_mutex_excludes(void **state)
{
	struct counter counter = {.count = 0};

	(void)state;
	task_mutex_init(&counter.mutex);
	run_tasks(TASKS, count_up, &counter);
	assert_int_equal(counter.count, TASKS * 1000);
	task_mutex_destroy(&counter.mutex);
}

/* Tasks that came in a known order, and the order in which they were let in. */
struct queue {
	struct task_mutex mutex;
	struct range_lock ranges;
	unsigned order[TASKS], count;
};

struct arrival {
	struct queue *queue;
	unsigned index;
};

static int mutex_arrive(void *argument)
{
	const struct arrival *arrival = argument;
	struct queue *queue = arrival->queue;

	task_mutex_lock(&queue->mutex);
	queue->order[queue->count++] = arrival->index;
	task_mutex_unlock(&queue->mutex);
	return 0;
}

static void test_mutex_is_fair_task(void *argument)
{
	struct queue queue = {.count = 0};
	struct arrival arrivals[TASKS];
	struct task_group group = {0};

	(void)argument;
	task_mutex_init(&queue.mutex);
	task_mutex_lock(&queue.mutex);
	for (unsigned i = 0; i < TASKS; i++) {
		arrivals[i] = (struct arrival){&queue, i};
		task_group_start(&group, mutex_arrive, &arrivals[i]);
	}
	task_mutex_unlock(&queue.mutex);
	/* Handed to the first that waits: who comes now is the last. */
	task_mutex_lock(&queue.mutex);
	CHECK_EQ(queue.count, TASKS);
	task_mutex_unlock(&queue.mutex);
	task_group_wait(&group);
	for (unsigned i = 0; i < TASKS; i++)
		CHECK_EQ(queue.order[i], i);
	task_mutex_destroy(&queue.mutex);
}
RUN_IN_TASK(test_mutex_is_fair)

/* ---- Wait queue. ---- */

/* A barrier that everybody passes ROUNDS times, made of a mutex and a queue. */
struct barrier {
	struct task_mutex mutex;
	struct wait_queue queue;
	unsigned arrived, round;
};

#define ROUNDS 300

static void barrier_pass(unsigned index, void *argument)
{
	struct barrier *barrier = argument;

	(void)index;
	for (unsigned round = 0; round < ROUNDS; round++) {
		task_mutex_lock(&barrier->mutex);
		CHECK_EQ(barrier->round, round);
		if (++barrier->arrived == TASKS) {
			barrier->arrived = 0;
			barrier->round++;
			wait_queue_wake_all(&barrier->queue);
		} else {
			/* One wake for each wait: never without reason. */
			wait_queue_wait(&barrier->queue, &barrier->mutex);
			CHECK(barrier->round == round + 1);
		}
		task_mutex_unlock(&barrier->mutex);
	}
}

static void test_wait_queue(void **state)
{
	struct barrier barrier = {.round = 0};

	(void)state;
	task_mutex_init(&barrier.mutex);
	run_tasks(TASKS, barrier_pass, &barrier);
	assert_int_equal(barrier.round, ROUNDS);
	assert_null(barrier.queue.first);
	task_mutex_destroy(&barrier.mutex);
}

/* ---- Range lock. ---- */

#define CELLS 64

/* Each cell of the shadow: how many hold it shared, or EXCLUSIVE. */
#define EXCLUSIVE 1000000

struct shadow {
	struct range_lock lock;
	atomic_int cells[CELLS];
	unsigned char plain[CELLS]; /* changed by exclusive holders only */
};

static void shadow_enter(struct shadow *shadow, const struct range *range)
{
	for (uint64_t i = range->start; i < range->end; i++) {
		if (range->mode == RANGE_EXCLUSIVE) {
			CHECK_EQ(atomic_fetch_add(&shadow->cells[i], EXCLUSIVE), 0);
			shadow->plain[i]++;
		} else {
			CHECK(atomic_fetch_add(&shadow->cells[i], 1) < EXCLUSIVE);
		}
	}
}

static void shadow_leave(struct shadow *shadow, const struct range *range)
{
	for (uint64_t i = range->start; i < range->end; i++) {
		if (range->mode == RANGE_EXCLUSIVE)
			CHECK_EQ(atomic_fetch_sub(&shadow->cells[i], EXCLUSIVE), EXCLUSIVE);
		else
			CHECK(atomic_fetch_sub(&shadow->cells[i], 1) < EXCLUSIVE);
	}
}

static void hold_ranges(unsigned index, void *argument)
{
	struct shadow *shadow = argument;
	struct random random = {.state = index};

	for (unsigned i = 0; i < 1000; i++) {
		uint64_t start = random_below(&random, CELLS);
		uint64_t end = start + 1 + random_below(&random, min_u64(CELLS - start, 12));
		enum range_mode mode = random_below(&random, 3) ? RANGE_SHARED : RANGE_EXCLUSIVE;
		struct range range;

		range_lock_hold(&shadow->lock, &range, start, end, mode);
		shadow_enter(shadow, &range);
		for (uint64_t yields = random_below(&random, 3); yields > 0; yields--)
			task_yield();
		shadow_leave(shadow, &range);
		range_lock_release(&shadow->lock, &range);
	}
}

static void test_ranges_exclude(void **state)
{
	struct shadow shadow = {.cells = {0}};

	(void)state;
	range_lock_init(&shadow.lock);
	run_tasks(TASKS, hold_ranges, &shadow);
	assert_int_equal(shadow.lock.exclusive, 0);
	range_lock_destroy(&shadow.lock);
}

/* One that wants a range, and whether it has it. */
struct want {
	struct range_lock *lock;
	struct range range;
	bool held;
	char *order; /* the names of the holders, as they came to hold */
	char name;
};

static int want_run(void *argument)
{
	struct want *want = argument;

	range_lock_hold(want->lock, &want->range, want->range.start, want->range.end,
			want->range.mode);
	want->held = true;
	want->order[strlen(want->order)] = want->name;
	return 0;
}

/*
 * In order of arrival: while `a` holds, `B` (exclusive) waits; `c`, which overlaps B, must not pass
 * it although it agrees with a; `d`, which meets neither, passes. Capitals are exclusive.
 */
static void test_ranges_are_fair_task(void *argument)
{
	struct range_lock lock;
	char order[16] = "";
	struct want wants[] = {
		{&lock, {.start = 0, .end = 10, .mode = RANGE_SHARED}, false, order, 'a'},
		{&lock, {.start = 5, .end = 15, .mode = RANGE_EXCLUSIVE}, false, order, 'B'},
		{&lock, {.start = 8, .end = 20, .mode = RANGE_SHARED}, false, order, 'c'},
		{&lock, {.start = 30, .end = 40, .mode = RANGE_SHARED}, false, order, 'd'},
		{&lock, {.start = 0, .end = 5, .mode = RANGE_SHARED}, false, order, 'e'},
		{&lock, {.start = 15, .end = 35, .mode = RANGE_EXCLUSIVE}, false, order, 'F'},
		{&lock, {.start = 40, .end = 50, .mode = RANGE_EXCLUSIVE}, false, order, 'G'},
	};
	struct task_group group = {0};

	(void)argument;
	range_lock_init(&lock);
	for (size_t i = 0; i < ARRAY_SIZE(wants); i++)
		task_group_start(&group, want_run, &wants[i]);
	CHECK_TEXT(order, "adeG");
	range_lock_release(&lock, &wants[0].range);
	task_yield();
	CHECK_TEXT(order, "adeGB");
	range_lock_release(&lock, &wants[3].range);
	task_yield();
	CHECK_TEXT(order, "adeGB"); /* F waits for c, which came first */
	range_lock_release(&lock, &wants[1].range);
	task_yield();
	CHECK_TEXT(order, "adeGBc");
	range_lock_release(&lock, &wants[2].range);
	task_yield();
	CHECK_TEXT(order, "adeGBcF");
	task_group_wait(&group);
	range_lock_release(&lock, &wants[4].range);
	range_lock_release(&lock, &wants[6].range);
	range_lock_release(&lock, &wants[5].range);
	CHECK(!lock.held && !lock.waiting && lock.exclusive == 0);
	range_lock_destroy(&lock);
}
RUN_IN_TASK(test_ranges_are_fair)

/* Neighbours that only touch do not exclude one another. */
static void test_neighbours_task(void *argument)
{
	struct range_lock lock;
	struct range ranges[8];

	(void)argument;
	range_lock_init(&lock);
	for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++)
		range_lock_hold(&lock, &ranges[i], i, i + 1, RANGE_EXCLUSIVE);
	for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++)
		range_lock_release(&lock, &ranges[(i * 3) % ARRAY_SIZE(ranges)]);
	CHECK(!lock.held);
	range_lock_destroy(&lock);
}
RUN_IN_TASK(test_neighbours)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mutex_excludes),	cmocka_unit_test(test_mutex_is_fair),
		cmocka_unit_test(test_wait_queue),	cmocka_unit_test(test_ranges_exclude),
		cmocka_unit_test(test_ranges_are_fair), cmocka_unit_test(test_neighbours),
	};

	return cmocka_run_group_tests(tests, setup_4_workers, teardown_workers);
}
