/* SPDX-License-Identifier: MIT */
/*
 * Workers: a thread, its io_uring, its tasks. A turn of a worker runs the ready tasks, asks its
 * source (the kernel's FUSE channel) for new requests, submits what the tasks queued on the ring
 * and collects what completed; when there is nothing to do it sleeps in the ring, at most until the
 * first of its sleeping tasks is to be woken. Everything that a request needs happens on the worker
 * where it arrived.
 *
 * The workers of the process are one fixed set: workers_start() ... workers_stop().
 */
#ifndef CORE_WORKER_H
#define CORE_WORKER_H

#include <liburing.h>
#include "core/error.h"
#include "core/task.h"

struct worker;

/* The most workers that may be started. */
#define WORKERS_MAX 64

/*
 * Starts @count workers (1..WORKERS_MAX). Returns 0, or -1 with a sentence in @err, and then none
 * is running. Signals are blocked on workers.
 */
int workers_start(unsigned count, struct err *err);

/* Waits until no task is left on any worker, then ends them. The sources must have been removed.
 * Not on a worker. */
void workers_stop(void);

unsigned workers_count(void);
struct worker *worker_get(unsigned index);

/* The worker that the caller runs on, or NULL; its index, 0 .. workers_count() - 1 (0 where there
 * is none). */
struct worker *worker_self(void);
unsigned worker_index(void);

/* Runs @function(@argument) in a task on @worker, and waits until it has ended. Not on a worker. */
void worker_call(struct worker *worker, void (*function)(void *argument), void *argument);

/* Something that another thread hands to a worker: a task to wake, a call, a request. */
struct inbox_item {
	struct inbox_item *next;
	void (*deliver)(struct inbox_item *item); /* on the worker, outside of tasks */
};

/* Hands @item to @worker and wakes it. The item must stay until it is delivered. Any thread. */
void worker_deliver(struct worker *worker, struct inbox_item *item);

/*
 * A source of requests, asked by its worker. Set and removed (NULL) by the worker's own tasks.
 *
 * turn: starts tasks for requests that have arrived, a bounded number of them, without blocking;
 * true if there may be more. arm: called before the worker sleeps: queues on the ring whatever will
 * wake it for new requests.
 */
struct worker_source {
	bool (*turn)(struct worker_source *source);
	void (*arm)(struct worker_source *source);
};

void worker_set_source(struct worker_source *source);

/* An entry of the ring under way; its done() is called on the worker, outside of tasks, when it
 * completes. */
struct ring_op {
	void (*done)(struct ring_op *op, int result, unsigned flags);
};

/*
 * A free entry of the worker's ring, to be prepared and then given its struct ring_op by
 * io_uring_sqe_set_data(). It is submitted at the end of the turn. Never NULL. On a worker.
 */
struct io_uring_sqe *worker_sqe(void);

/* Completions on the ring of worker @index that this turn has still to handle: how far it is behind.
 * Any thread. */
unsigned worker_backlog(unsigned index);

/* Whether an entry has room for the command of IORING_OP_URING_CMD, on every worker. */
bool workers_take_commands(void);

/* Numbers of a worker for `.status`. Any thread. */
struct worker_numbers {
	uint64_t turns, sleeps; /* of the loop */
	unsigned tasks, stacks; /* running or suspended; allocated, idle ones included */
	uint64_t buffer_bytes;	/* of the buffers, idle ones included */
};

void worker_read_numbers(unsigned index, struct worker_numbers *numbers);

#endif
