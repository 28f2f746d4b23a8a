// SPDX-License-Identifier: MIT
/*
 * Switching stacks, portably: makecontext() and setcontext() begin a stack once in its life,
 * sigsetjmp() and siglongjmp(), which make no system call, do every later switch. A task is entered
 * by somebody (the loop of its worker, or a task that starts it) and goes back to just that
 * somebody when it suspends or ends.
 *
 * States of a task: running or entered-and-suspended (`begun`), in the ready queue, in the pool
 * (`ended`). It belongs to one worker for all its life, the pool included, so all of this is
 * without locks; only task_wake() comes from other threads, through the worker's inbox.
 *
 * Each switch is announced to ASan (which stack), and TSan (which fiber); valgrind is told of each
 * stack.
 */

/* siglongjmp() between stacks is what fortified longjmp forbids. */
#undef _FORTIFY_SOURCE

#include "core/task.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include "core/worker_private.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif
#ifdef WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(start, end) 0
#define VALGRIND_STACK_DEREGISTER(id)	    ((void)(id))
#endif

/* Sanitizers make frames several times as large. */
#if defined(WITH_ASAN) || defined(WITH_TSAN)
#define STACK_SIZE ((size_t)512 * 1024)
#else
#define STACK_SIZE ((size_t)64 * 1024)
#endif
#define GUARD_SIZE ((size_t)4096 * 4)

/* Idle stacks that a worker keeps. */
#define IDLE_STACKS_MAX 256

/*
 * ---- Announcing switches. ----
 *
 * Between the sigsetjmp() that remembers a context and the siglongjmp() to the other: TSan keeps
 * the jump buffers of each fiber apart, so each has to be set on the fiber where it is used.
 * Inline, since a function that returned on another fiber than it was called on would upset TSan's
 * stacks.
 */

/* In the caller, before it enters @task. */
static inline __attribute__((always_inline)) void announce_enter(struct task *task)
{
#ifdef WITH_ASAN
	__sanitizer_start_switch_fiber(&task->caller_fake_stack, task->stack, STACK_SIZE);
#endif
#ifdef WITH_TSAN
	task->caller_fiber = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(task->fiber, 0);
#endif
	(void)task;
}

/* In @task, once it is on its stack. */
static void announce_entered(struct task *task)
{
#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(task->fake_stack, &task->caller_stack,
					&task->caller_stack_size);
#endif
	(void)task;
}

/* In @task, before it goes back to its caller. */
static inline __attribute__((always_inline)) void announce_leave(struct task *task)
{
#ifdef WITH_ASAN
	__sanitizer_start_switch_fiber(&task->fake_stack, task->caller_stack,
				       task->caller_stack_size);
#endif
#ifdef WITH_TSAN
	__tsan_switch_to_fiber(task->caller_fiber, 0);
#endif
	(void)task;
}

/* In the caller, once it is back on its stack. */
static void announce_left(struct task *task)
{
#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(task->caller_fake_stack, NULL, NULL);
#endif
	(void)task;
}

/* ---- Stacks. ---- */

static struct task *task_new(struct worker *worker)
{
	size_t size = GUARD_SIZE + STACK_SIZE + sizeof(struct task);
	char *mapping = mmap(NULL, size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

	if (mapping == MAP_FAILED)
		return NULL;
	if (mprotect(mapping, GUARD_SIZE, PROT_NONE) < 0) {
		munmap(mapping, size);
		return NULL;
	}
	struct task *task = (struct task *)(void *)(mapping + GUARD_SIZE + STACK_SIZE);

	task->worker = worker;
	task->mapping = mapping;
	task->stack = mapping + GUARD_SIZE;
	task->valgrind_id =
		(unsigned)VALGRIND_STACK_REGISTER(task->stack, (char *)task->stack + STACK_SIZE);
#ifdef WITH_TSAN
	task->fiber = __tsan_create_fiber(0);
#endif
	atomic_fetch_add_explicit(&worker->stack_count, 1, memory_order_relaxed);
	return task;
}

static void task_free(struct task *task)
{
	atomic_fetch_sub_explicit(&task->worker->stack_count, 1, memory_order_relaxed);
	VALGRIND_STACK_DEREGISTER(task->valgrind_id);
#ifdef WITH_TSAN
	__tsan_destroy_fiber(task->fiber);
#endif
#ifdef WITH_ASAN
	/* The next mapping at this address must not inherit what the frames poisoned. */
	__asan_unpoison_memory_region(task->stack, STACK_SIZE);
#endif
	munmap(task->mapping, GUARD_SIZE + STACK_SIZE + sizeof(struct task));
}

static struct task *task_get(struct worker *worker)
{
	struct task *task = worker->idle_stacks;

	if (!task)
		return task_new(worker);
	worker->idle_stacks = task->next;
	worker->idle_stack_count--;
	return task;
}

static void task_put(struct task *task)
{
	struct worker *worker = task->worker;

	if (worker->idle_stack_count >= IDLE_STACKS_MAX) {
		task_free(task);
		return;
	}
	task->next = worker->idle_stacks;
	worker->idle_stacks = task;
	worker->idle_stack_count++;
}

void tasks_free_idle(struct worker *worker)
{
	while (worker->idle_stacks) {
		struct task *task = worker->idle_stacks;

		worker->idle_stacks = task->next;
		task_free(task);
	}
	worker->idle_stack_count = 0;
}

/* ---- Switching. ---- */

static void task_leave(struct task *task)
{
	if (sigsetjmp(task->context, 0) == 0) {
		announce_leave(task);
		siglongjmp(task->caller, 1);
	}
	announce_entered(task);
}

/* The bottom of every stack: runs one function after another, each time that the task leaves the
 * pool. */
static void task_main(unsigned low, unsigned high)
{
	struct task *task = (struct task *)((uintptr_t)low | (uintptr_t)high << 32);

	announce_entered(task);
	for (;;) {
		task->function(task->argument);
		task->ended = true;
		task_leave(task);
	}
}

/* Never returns, so ASan must not guard its frame: the guards would stay behind on the caller's
 * stack. */
__attribute__((no_sanitize_address)) static void task_begin(struct task *task)
{
	uintptr_t self = (uintptr_t)task;
	ucontext_t context;

	if (getcontext(&context) < 0)
		abort();
	context.uc_stack.ss_sp = task->stack;
	context.uc_stack.ss_size = STACK_SIZE;
	context.uc_link = NULL;
	makecontext(&context, (void (*)(void))task_main, 2, (unsigned)self, (unsigned)(self >> 32));
	task->begun = true;
	setcontext(&context);
	abort();
}

static void task_live(struct task *task)
{
	struct worker *worker = task->worker;

	task->live_next = worker->live;
	task->live_link = &worker->live;
	if (task->live_next)
		task->live_next->live_link = &task->live_next;
	worker->live = task;
	atomic_fetch_add_explicit(&worker->task_count, 1, memory_order_relaxed);
}

static void task_dead(struct task *task)
{
	*task->live_link = task->live_next;
	if (task->live_next)
		task->live_next->live_link = task->live_link;
	atomic_fetch_sub_explicit(&task->worker->task_count, 1, memory_order_relaxed);
	task_put(task);
}

/* Enters @task; returns when it suspends or ends. Then it may be anywhere but here: it must not be
 * touched if it ended. */
static void task_enter(struct task *task)
{
	struct worker *worker = task->worker;
	struct task *outer = worker->current;

	worker->current = task;
	if (sigsetjmp(task->caller, 0) == 0) {
		announce_enter(task);
		if (task->begun)
			siglongjmp(task->context, 1);
		task_begin(task);
	}
	announce_left(task);
	task->worker->current = outer;
	if (task->ended)
		task_dead(task);
}

struct task *task_self(void)
{
	struct worker *worker = worker_self();

	return worker ? worker->current : NULL;
}

int task_start(void (*function)(void *argument), void *argument)
{
	struct worker *worker = worker_self();
	struct task *task = task_get(worker);

	if (!task)
		return -ENOMEM;
	task_live(task);
	task->function = function;
	task->argument = argument;
	task->user_context = NULL;
	task->trace = NULL;
	task->ended = false;
	task_enter(task);
	return 0;
}

void task_suspend(void)
{
	struct task *task = task_self();

	assert(task);
	task_leave(task);
}

bool task_stack_is_low(void)
{
	const struct task *task = task_self();
	const char *here = __builtin_frame_address(0);

	assert(task);
	return (size_t)(here - (const char *)task->stack) < STACK_SIZE / 2;
}

void task_set_context(void *context)
{
	struct task *task = task_self();

	assert(task);
	task->user_context = context;
}

void *task_context(void)
{
	struct task *task = task_self();

	return task ? task->user_context : NULL;
}

/* ---- The ready queue. ---- */

static void task_ready(struct task *task)
{
	struct task_queue *ready = &task->worker->ready;

	task->next = NULL;
	if (ready->first)
		ready->last->next = task;
	else
		ready->first = task;
	ready->last = task;
}

static void deliver_task(struct inbox_item *item)
{
	task_ready(CONTAINER_OF(item, struct task, inbox_item));
}

void task_wake(struct task *task)
{
	if (task->worker == worker_self()) {
		task_ready(task);
		return;
	}
	task->inbox_item.deliver = deliver_task;
	worker_deliver(task->worker, &task->inbox_item);
}

void tasks_run_ready(struct worker *worker)
{
	struct task *task = worker->ready.first;

	worker->ready = (struct task_queue){NULL, NULL};
	while (task) {
		struct task *next = task->next;

		task_enter(task);
		task = next;
	}
}

void task_yield(void)
{
	task_wake(task_self());
	task_suspend();
}

/* ---- Groups. ---- */

struct child {
	struct task_group *group;
	int (*function)(void *argument);
	void *argument;
	uint64_t rank;
};

static void child_run(const struct child *child)
{
	struct task_group *group = child->group;
	int error = child->function(child->argument);

	if (error && (!group->error || child->rank < group->error_rank)) {
		group->error = error;
		group->error_rank = child->rank;
	}
}

static void child_main(void *argument)
{
	/* The original is on the parent's stack, and gone once this task suspends. */
	const struct child child = *(const struct child *)argument;
	struct task_group *group = child.group;

	group->pending++;
	child_run(&child);
	group->pending--;
	if (group->pending == 0 && group->waiter) {
		struct task *waiter = group->waiter;

		group->waiter = NULL;
		task_wake(waiter);
	}
}

void task_group_start(struct task_group *group, int (*function)(void *argument), void *argument)
{
	struct child child = {group, function, argument, group->started++};

	if (task_start(child_main, &child) < 0)
		child_run(&child);
}

int task_group_wait(struct task_group *group)
{
	if (group->pending > 0) {
		group->waiter = task_self();
		task_suspend();
	}
	return group->error;
}
