/* SPDX-License-Identifier: MIT */
/*
 * What worker.c, task.c, sleep.c, ring.c and buffer.c share: the struct worker and the tasks' side of it.
 * For core/ only.
 */
#ifndef CORE_WORKER_PRIVATE_H
#define CORE_WORKER_PRIVATE_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include "core/worker.h"

/* Lives at the top of its own stack. */
struct task {
	struct worker *worker;
	struct task *next; /* in the ready queue, or in the pool */
	struct inbox_item inbox_item;
	void (*function)(void *argument);
	void *argument;
	void *user_context;
	struct trace *trace;		     /* the innermost request to a disk (core/trace.h) */
	struct task *live_next, **live_link; /* of the worker's tasks that have not ended */
	sigjmp_buf context;		     /* of the task, while it does not run */
	sigjmp_buf caller;		     /* of whoever entered it, while it runs */
	bool begun;			     /* its stack has been entered before */
	bool ended;
	void *mapping; /* guard page, stack, this struct */
	void *stack;
	/* For the sanitizers and valgrind, which want to know of every stack and switch. */
	void *fake_stack, *caller_fake_stack;
	const void *caller_stack;
	size_t caller_stack_size;
	void *fiber, *caller_fiber;
	unsigned valgrind_id;
};

struct task_queue {
	struct task *first, *last;
};

struct buffer_pool {
	struct buffer_note *first, *last; /* of the idle buffers */
	uint64_t bytes;			  /* of memory that they hold */
};

struct worker {
	unsigned index;
	pthread_t thread;
	struct io_uring ring;
	struct worker_source *source;

	/* Tasks: only this worker's thread touches these. */
	struct task *current;
	struct task_queue ready;
	struct task *live;	  /* all that have not ended */
	struct sleeper *sleepers; /* the one to wake first */
	struct task *idle_stacks;
	unsigned idle_stack_count;
	struct buffer_pool buffers;

	/* The inbox: other threads push, and wake the worker by event_fd where it sleeps. */
	_Atomic(struct inbox_item *) inbox;
	atomic_bool sleeping;
	atomic_bool stopping;
	struct inbox_item stop_item;
	int event_fd;
	uint64_t event_value;
	struct ring_op event_op;

	/* Numbers for `.status`; written by this worker only. */
	_Atomic uint64_t turns, sleeps, buffer_bytes;
	_Atomic unsigned task_count, stack_count;
	_Atomic unsigned backlog; /* completions of this turn that have not been handled yet */
};

/* Runs the tasks that are ready now; those that become ready meanwhile wait for the next turn. */
void tasks_run_ready(struct worker *worker);
/* Frees the idle stacks, at the end of the worker. */
void tasks_free_idle(struct worker *worker);

/* Makes the tasks ready whose sleep is over. */
void sleepers_wake(struct worker *worker);
/* Whether anybody sleeps, and how long until the first is to be woken. */
bool sleepers_wait(const struct worker *worker, struct __kernel_timespec *wait);

/* Frees the idle buffers, at the end of the worker. */
void buffers_free_idle(struct worker *worker);

#endif
