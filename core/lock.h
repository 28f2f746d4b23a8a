/* SPDX-License-Identifier: MIT */
/*
 * Locks for tasks, across workers: a wait suspends the task, never its worker. Zeroed memory is an
 * unlocked lock, except for the pthread mutex inside, so each has an init and a destroy. None is
 * recursive.
 *
 * All are fair: first come, first served. Tasks only, but for wait_queue_wake_all().
 */
#ifndef CORE_LOCK_H
#define CORE_LOCK_H

#include <pthread.h>
#include "core/util.h"

struct task;

/* One waiting task; on that task's stack. */
struct waiter {
	struct task *task;
	struct waiter *next;
};

/* Tasks in order of arrival. Guarded by whatever guards the owner. */
struct wait_queue {
	struct waiter *first;
	struct waiter **tail; /* NULL is taken as &first */
};

struct task_mutex {
	pthread_mutex_t guard; /* held for a few instructions only */
	bool locked;
	struct wait_queue waiters;
};

void task_mutex_init(struct task_mutex *mutex);
void task_mutex_destroy(struct task_mutex *mutex);
void task_mutex_lock(struct task_mutex *mutex);
void task_mutex_unlock(struct task_mutex *mutex);

/* With @mutex locked: unlocks it, waits for a wake, locks it again (a condition variable). */
void wait_queue_wait(struct wait_queue *queue, struct task_mutex *mutex);
/* With the queue's mutex locked: wakes all who wait. */
void wait_queue_wake_all(struct wait_queue *queue);

/*
 * A range lock: holders of overlapping ranges exclude one another where at least one of them is
 * exclusive. Shared holders cost O(1) while nobody is exclusive.
 */
enum range_mode {
	RANGE_SHARED,
	RANGE_EXCLUSIVE,
};

/* A held or wanted range; on the holder's stack. */
struct range {
	uint64_t start, end; /* [start, end) */
	enum range_mode mode;
	bool held;
	struct task *task; /* who waits for it */
	struct range *next, **link;
};

struct range_lock {
	pthread_mutex_t guard;
	struct range *held;
	struct range *waiting,
		**waiting_tail; /* in order of arrival; NULL tail is taken as &waiting */
	unsigned exclusive;	/* held or waiting, exclusive ranges */
};

void range_lock_init(struct range_lock *lock);
void range_lock_destroy(struct range_lock *lock);
/* Waits until [start, end) can be held in @mode; @range is the caller's storage until the unlock.
 * start < end. */
void range_lock_hold(struct range_lock *lock, struct range *range, uint64_t start, uint64_t end,
		     enum range_mode mode);
void range_lock_release(struct range_lock *lock, struct range *range);

#endif
