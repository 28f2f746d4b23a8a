// SPDX-License-Identifier: MIT
/*
 * The loop of a worker, and its inbox.
 *
 * A worker goes to sleep only in io_uring_enter, after it has set `sleeping` and then found its
 * inbox empty; whoever pushes to the inbox and then finds `sleeping` set clears it and writes to
 * event_fd, which the ring always reads. So no item is left behind in the inbox of a worker that
 * sleeps.
 */
#include "core/worker.h"
#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "core/log.h"
#include "core/offload.h"
#include "core/thread.h"
#include "core/worker_private.h"

#define RING_ENTRIES	 256
#define RING_COMPLETIONS 4096

static struct worker *workers[WORKERS_MAX];
static unsigned worker_count;
static _Thread_local struct worker *this_worker;

unsigned workers_count(void)
{
	return worker_count;
}

struct worker *worker_get(unsigned index)
{
	assert(index < worker_count);
	return workers[index];
}

struct worker *worker_self(void)
{
	return this_worker;
}

unsigned worker_index(void)
{
	return this_worker ? this_worker->index : 0;
}

/* A counter that only this worker writes. */
static void count(_Atomic uint64_t *counter)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* ---- The inbox. ---- */

void worker_deliver(struct worker *worker, struct inbox_item *item)
{
	struct inbox_item *first = atomic_load(&worker->inbox);
	uint64_t one = 1;

	do
		item->next = first;
	while (!atomic_compare_exchange_weak(&worker->inbox, &first, item));

	if (!atomic_exchange(&worker->sleeping, false))
		return;
	/* Can only fail if 2^64 - 1 wake-ups are pending, and then the worker is awake. */
	while (write(worker->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void inbox_take(struct worker *worker)
{
	if (!atomic_load_explicit(&worker->inbox, memory_order_relaxed))
		return;

	struct inbox_item *item = atomic_exchange(&worker->inbox, NULL);
	struct inbox_item *in_order = NULL;

	while (item) {
		struct inbox_item *next = item->next;

		item->next = in_order;
		in_order = item;
		item = next;
	}
	while (in_order) {
		struct inbox_item *next = in_order->next;

		in_order->deliver(in_order);
		in_order = next;
	}
}

static void event_arm(struct worker *worker)
{
	struct io_uring_sqe *sqe = worker_sqe();

	io_uring_prep_read(sqe, worker->event_fd, &worker->event_value, sizeof(worker->event_value),
			   0);
	io_uring_sqe_set_data(sqe, &worker->event_op);
}

static void event_done(struct ring_op *op, int result, unsigned flags)
{
	(void)result;
	(void)flags;
	event_arm(CONTAINER_OF(op, struct worker, event_op));
}

/* ---- The ring. ---- */

struct io_uring_sqe *worker_sqe(void)
{
	struct io_uring *ring = &this_worker->ring;
	struct io_uring_sqe *sqe;

	/* A full queue is emptied by submitting it; that fails only while the kernel is short of
	 * something. */
	while (!(sqe = io_uring_get_sqe(ring)))
		io_uring_submit(ring);
	return sqe;
}

static void ring_reap(struct worker *worker)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;

	io_uring_for_each_cqe(&worker->ring, head, cqe)
	{
		struct ring_op *op = io_uring_cqe_get_data(cqe);

		seen++;
		atomic_store_explicit(&worker->backlog, io_uring_cq_ready(&worker->ring) - seen,
				      memory_order_relaxed);
		op->done(op, cqe->res, cqe->flags);
	}
	io_uring_cq_advance(&worker->ring, seen);
}

unsigned worker_backlog(unsigned index)
{
	return atomic_load_explicit(&worker_get(index)->backlog, memory_order_relaxed);
}

/* Submits what is queued and lets the kernel post what has completed, if there is any of either. */
static void ring_submit(struct worker *worker)
{
	struct io_uring *ring = &worker->ring;
	unsigned flags = IO_URING_READ_ONCE(*ring->sq.kflags);

	if (io_uring_sq_ready(ring) > 0 || (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)))
		io_uring_submit_and_get_events(ring);
}

static void ring_sleep(struct worker *worker)
{
	struct __kernel_timespec wait;
	struct io_uring_cqe *cqe;

	if (worker->source)
		worker->source->arm(worker->source);
	atomic_store(&worker->sleeping, true);
	if (!atomic_load(&worker->inbox)) {
		count(&worker->sleeps);
		if (sleepers_wait(worker, &wait))
			io_uring_submit_and_wait_timeout(&worker->ring, &cqe, 1, &wait, NULL);
		else
			io_uring_submit_and_wait(&worker->ring, 1);
	}
	atomic_store(&worker->sleeping, false);
}

static int ring_open(struct io_uring *ring)
{
	/* The first that this kernel knows: 6.1, 5.19, older. */
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128,
		0,
	};
	int result = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
		struct io_uring_params params = {
			.flags = flags[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = RING_COMPLETIONS,
		};

		result = io_uring_queue_init_params(RING_ENTRIES, ring, &params);
		if (result != -EINVAL)
			break;
	}
	/* Linux 5.11: to wait for completions no longer than until the next sleeper wakes. */
	if (result == 0 && !(ring->features & IORING_FEAT_EXT_ARG)) {
		io_uring_queue_exit(ring);
		result = -ENOSYS;
	}
	return result;
}

/* ---- The loop. ---- */

/* Told to stop, and the last task has ended. */
static bool worker_is_done(const struct worker *worker)
{
	return atomic_load_explicit(&worker->stopping, memory_order_relaxed) &&
	       atomic_load_explicit(&worker->task_count, memory_order_relaxed) == 0;
}

static void worker_loop(struct worker *worker)
{
	event_arm(worker);
	while (!worker_is_done(worker)) {
		bool more = false;

		count(&worker->turns);
		inbox_take(worker);
		sleepers_wake(worker);
		tasks_run_ready(worker);
		if (worker->source)
			more = worker->source->turn(worker->source);
		if (more || worker->ready.first || worker_is_done(worker))
			ring_submit(worker);
		else
			ring_sleep(worker);
		ring_reap(worker);
	}
}

/* How a worker tells workers_start() that its ring is there, or is not. */
struct start {
	struct worker *worker;
	sem_t ready;
	int result;
};

static void *worker_main(void *argument)
{
	struct start *start = argument;
	struct worker *worker = start->worker;

	this_worker = worker;
	start->result = ring_open(&worker->ring);
	if (start->result < 0) {
		sem_post(&start->ready);
		return NULL;
	}
	sem_post(&start->ready);
	worker_loop(worker);
	tasks_free_idle(worker);
	buffers_free_idle(worker);
	io_uring_queue_exit(&worker->ring);
	return NULL;
}

static void worker_free(struct worker *worker)
{
	if (worker->event_fd >= 0)
		close(worker->event_fd);
	free(worker);
}

/* Starts one worker; returns 0 or a negative errno, and says in *what which step failed. */
static int worker_start(unsigned index, const char **what)
{
	struct start start = {.worker = calloc(1, sizeof(struct worker))};
	struct worker *worker = start.worker;
	char name[16];
	int result;

	*what = "memory";
	if (!worker)
		return -ENOMEM;
	worker->index = index;
	worker->event_op.done = event_done;
	*what = "eventfd";
	worker->event_fd = eventfd(0, EFD_CLOEXEC);
	if (worker->event_fd < 0) {
		result = -errno;
		worker_free(worker);
		return result;
	}
	*what = "thread";
	sem_init(&start.ready, 0, 0);
	snprintf(name, sizeof(name), "diskfs-%u", index);
	result = -thread_start(&worker->thread, name, worker_main, &start);
	if (result == 0) {
		*what = "io_uring";
		while (sem_wait(&start.ready) < 0)
			;
		result = start.result;
		if (result < 0)
			pthread_join(worker->thread, NULL);
	}
	sem_destroy(&start.ready);
	if (result < 0)
		worker_free(worker);
	else
		workers[index] = worker;
	return result;
}

int workers_start(unsigned count, struct err *err)
{
	const char *what;

	assert(count >= 1 && count <= WORKERS_MAX && worker_count == 0);
	for (unsigned i = 0; i < count; i++) {
		int result = worker_start(i, &what);

		if (result < 0) {
			workers_stop();
			return err_set(err, "cannot start worker %u: %s: %s%s", i, what,
				       strerror(-result),
				       result == -EPERM || result == -ENOSYS
					       ? " (is sysctl kernel.io_uring_disabled set, or "
						 "io_uring forbidden in this container?)"
					       : "");
		}
		worker_count++;
	}
	return 0;
}

/* ---- Calls from other threads. ---- */

struct call {
	struct inbox_item item;
	void (*function)(void *argument);
	void *argument;
	sem_t done;
};

static void call_main(void *argument)
{
	struct call *call = argument;

	call->function(call->argument);
	sem_post(&call->done);
}

static void deliver_call(struct inbox_item *item)
{
	struct call *call = CONTAINER_OF(item, struct call, item);

	/* Without memory for a stack it waits until some task leaves its own, or memory comes. */
	if (task_start(call_main, call) < 0)
		worker_deliver(this_worker, item);
}

void worker_call(struct worker *worker, void (*function)(void *argument), void *argument)
{
	struct call call = {.item.deliver = deliver_call,
			    .function = function,
			    .argument = argument};

	assert(!this_worker);
	sem_init(&call.done, 0, 0);
	worker_deliver(worker, &call.item);
	while (sem_wait(&call.done) < 0)
		;
	sem_destroy(&call.done);
}

static void deliver_stop(struct inbox_item *item)
{
	(void)item;
	atomic_store_explicit(&this_worker->stopping, true, memory_order_relaxed);
}

void workers_stop(void)
{
	assert(!this_worker);
	for (unsigned i = 0; i < worker_count; i++) {
		workers[i]->stop_item.deliver = deliver_stop;
		worker_deliver(workers[i], &workers[i]->stop_item);
	}
	for (unsigned i = 0; i < worker_count; i++)
		pthread_join(workers[i]->thread, NULL);
	offload_stop();
	/* Only now: whoever woke the last task of a worker touches the worker after that task. */
	for (unsigned i = 0; i < worker_count; i++) {
		worker_free(workers[i]);
		workers[i] = NULL;
	}
	worker_count = 0;
}

bool workers_take_commands(void)
{
	for (unsigned i = 0; i < worker_count; i++)
		if (!(workers[i]->ring.flags & IORING_SETUP_SQE128))
			return false;
	return true;
}

void worker_set_source(struct worker_source *source)
{
	this_worker->source = source;
}

void worker_read_numbers(unsigned index, struct worker_numbers *numbers)
{
	struct worker *worker = worker_get(index);

	*numbers = (struct worker_numbers){
		.turns = atomic_load_explicit(&worker->turns, memory_order_relaxed),
		.sleeps = atomic_load_explicit(&worker->sleeps, memory_order_relaxed),
		.tasks = atomic_load_explicit(&worker->task_count, memory_order_relaxed),
		.stacks = atomic_load_explicit(&worker->stack_count, memory_order_relaxed),
		.buffer_bytes = atomic_load_explicit(&worker->buffer_bytes, memory_order_relaxed),
	};
}
