/* SPDX-License-Identifier: MIT */
/*
 * Tasks: stackful coroutines. A task is a function with a stack of its own that runs on one worker
 * (core/worker.h) from its first line to its last; where it has to wait it suspends, and the worker
 * serves others meanwhile. Between two suspensions nothing else runs on that worker, but other
 * workers do run: shared state needs locks (core/lock.h).
 *
 * A task must never block its worker: no blocking system call, no pthread wait longer than a short
 * critical section. It waits by ring operations (core/ring.h), task locks, groups, timers, and
 * offload() (core/offload.h).
 *
 * Stacks are of 64 KiB above a guard page and come from a pool of the worker: starting
 * a task allocates nothing once the pool is warm. A stack that overflows ends the program by
 * SIGSEGV, it corrupts nothing.
 */
#ifndef CORE_TASK_H
#define CORE_TASK_H

#include "core/util.h"

struct task;
struct worker;

/* The running task; NULL outside of tasks. */
struct task *task_self(void);

/*
 * Starts a task on the calling worker: it runs at once, until it first suspends or ends; the caller
 * goes on after that. Call on a worker, in a task or not. Fails only when no stack can be had:
 * -ENOMEM, and @function never runs.
 */
int task_start(void (*function)(void *argument), void *argument);

/*
 * Suspends the running task until somebody calls task_wake() on it. Exactly one wake for each
 * suspend, even if it comes before the task has fully suspended. (The building block of locks and
 * ring operations, not for drivers.)
 */
void task_suspend(void);

/* Lets @task go on, on its own worker. Any thread; never runs the task at once. */
void task_wake(struct task *task);

/* Lets the other ready tasks of this worker run first. */
void task_yield(void);

/* Suspends for at least @ns nanoseconds. */
void task_sleep_ns(uint64_t ns);

/* Whether less than half of the running task's stack is left: for what may go deeper than anybody
 * knows, and had better go on in a task of its own then. */
bool task_stack_is_low(void);

/* One pointer of the running task, for whoever started it; NULL in a new task. */
void task_set_context(void *context);
void *task_context(void); /* NULL outside of tasks, too */

/* ---- Groups: children of one task, on its worker, and the wait for all of them. ---- */

/* On the parent's stack. A zeroed group is ready for use. */
struct task_group {
	unsigned pending;
	int error; /* the error of the first child, in order of start, that failed */
	uint64_t error_rank;
	uint64_t started;
	struct task *waiter; /* the parent, while it waits */
};

/*
 * Runs @function(@argument) in a child task. Where no stack can be had it runs it at once in the
 * caller's: slower, never an error. @argument must live until task_group_wait() returns.
 */
void task_group_start(struct task_group *group, int (*function)(void *argument), void *argument);

/* Waits for all children. Returns 0, or the error of the first of them, in the order in which they
 * were started. */
int task_group_wait(struct task_group *group);

#endif
