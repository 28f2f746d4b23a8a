// SPDX-License-Identifier: MIT
/*
 * Every lock is a small state under a pthread mutex that is held for a few instructions, never
 * across a suspension. Whoever has to wait queues itself, lets go of the mutex and suspends; a
 * wake-up that comes before it has suspended is delivered by its worker only afterwards
 * (core/task.h).
 */
#include "core/lock.h"
#include <assert.h>
#include "core/task.h"

/* ---- Wait queues. ---- */

static void wait_queue_push(struct wait_queue *queue, struct waiter *waiter)
{
	waiter->task = task_self();
	waiter->next = NULL;
	if (!queue->tail)
		queue->tail = &queue->first;
	*queue->tail = waiter;
	queue->tail = &waiter->next;
}

static struct task *wait_queue_pop(struct wait_queue *queue)
{
	struct waiter *waiter = queue->first;

	if (!waiter)
		return NULL;
	queue->first = waiter->next;
	if (!queue->first)
		queue->tail = &queue->first;
	return waiter->task;
}

void wait_queue_wait(struct wait_queue *queue, struct task_mutex *mutex)
{
	struct waiter waiter;

	wait_queue_push(queue, &waiter);
	task_mutex_unlock(mutex);
	task_suspend();
	task_mutex_lock(mutex);
}

void wait_queue_wake_all(struct wait_queue *queue)
{
	struct task *task;

	while ((task = wait_queue_pop(queue)))
		task_wake(task);
}

/* ---- Mutex. ---- */

void task_mutex_init(struct task_mutex *mutex)
{
	*mutex = (struct task_mutex){.locked = false};
	pthread_mutex_init(&mutex->guard, NULL);
}

void task_mutex_destroy(struct task_mutex *mutex)
{
	assert(!mutex->locked);
	pthread_mutex_destroy(&mutex->guard);
}

void task_mutex_lock(struct task_mutex *mutex)
{
	struct waiter waiter;

	pthread_mutex_lock(&mutex->guard);
	if (!mutex->locked) {
		mutex->locked = true;
		pthread_mutex_unlock(&mutex->guard);
		return;
	}
	wait_queue_push(&mutex->waiters, &waiter);
	pthread_mutex_unlock(&mutex->guard);
	task_suspend(); /* until the unlock that hands it to us, still locked */
}

void task_mutex_unlock(struct task_mutex *mutex)
{
	pthread_mutex_lock(&mutex->guard);
	assert(mutex->locked);

	struct task *next = wait_queue_pop(&mutex->waiters);

	if (!next)
		mutex->locked = false;
	pthread_mutex_unlock(&mutex->guard);
	if (next)
		task_wake(next);
}

/* ---- Range lock. ---- */

void range_lock_init(struct range_lock *lock)
{
	*lock = (struct range_lock){.held = NULL};
	pthread_mutex_init(&lock->guard, NULL);
}

void range_lock_destroy(struct range_lock *lock)
{
	assert(!lock->held && !lock->waiting);
	pthread_mutex_destroy(&lock->guard);
}

static bool range_conflicts(const struct range *a, const struct range *b)
{
	return (a->mode == RANGE_EXCLUSIVE || b->mode == RANGE_EXCLUSIVE) && a->start < b->end &&
	       b->start < a->end;
}

/* Whether @range may be held now: nothing that it conflicts with is held, or waits before it. */
static bool range_is_free(const struct range_lock *lock, const struct range *range)
{
	for (const struct range *other = lock->held; other; other = other->next)
		if (range_conflicts(range, other))
			return false;
	for (const struct range *other = lock->waiting; other && other != range;
	     other = other->next)
		if (range_conflicts(range, other))
			return false;
	return true;
}

static void range_hold(struct range_lock *lock, struct range *range)
{
	range->held = true;
	range->next = lock->held;
	range->link = &lock->held;
	if (range->next)
		range->next->link = &range->next;
	lock->held = range;
}

void range_lock_hold(struct range_lock *lock, struct range *range, uint64_t start, uint64_t end,
		     enum range_mode mode)
{
	assert(start < end);
	*range = (struct range){.start = start, .end = end, .mode = mode, .task = task_self()};

	pthread_mutex_lock(&lock->guard);
	if (mode == RANGE_EXCLUSIVE)
		lock->exclusive++;
	/* Shared ranges only ever conflict with exclusive ones. */
	if (lock->exclusive == 0 || range_is_free(lock, range)) {
		range_hold(lock, range);
		pthread_mutex_unlock(&lock->guard);
		return;
	}
	if (!lock->waiting_tail)
		lock->waiting_tail = &lock->waiting;
	*lock->waiting_tail = range;
	lock->waiting_tail = &range->next;
	pthread_mutex_unlock(&lock->guard);
	task_suspend(); /* until a release has made the range held */
}

/* Moves every waiting range that has become free to the held ones, in order of arrival. */
static void range_grant(struct range_lock *lock)
{
	struct range **link = &lock->waiting;

	while (*link) {
		struct range *range = *link;

		if (!range_is_free(lock, range)) {
			link = &range->next;
			continue;
		}
		*link = range->next;

		/* Read first: once woken, the waiter's stack is its own again. */
		struct task *task = range->task;

		range_hold(lock, range);
		task_wake(task);
	}
	lock->waiting_tail = link;
}

void range_lock_release(struct range_lock *lock, struct range *range)
{
	pthread_mutex_lock(&lock->guard);
	assert(range->held);
	*range->link = range->next;
	if (range->next)
		range->next->link = range->link;
	if (range->mode == RANGE_EXCLUSIVE)
		lock->exclusive--;
	if (lock->waiting)
		range_grant(lock);
	pthread_mutex_unlock(&lock->guard);
}
