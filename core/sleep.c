// SPDX-License-Identifier: MIT
/*
 * Sleeping tasks. Each worker keeps its own in a pairing heap (Fredman, Sedgewick, Sleator, Tarjan,
 * "The pairing heap: a new form of self-adjusting heap") by the time to wake, whose nodes are on
 * the sleepers' stacks. So a sleep takes no system call and no allocation, however many there are:
 * the worker wakes those whose time has come once a turn, and waits in its ring no longer than
 * until the next one's.
 *
 * Only the worker's own thread touches its heap.
 */
#include "core/task.h"
#include "core/worker_private.h"

/* A sleeping task. No child wakes before its parent. */
struct sleeper {
	uint64_t wake_ns; /* by now_ns() */
	struct task *task;
	struct sleeper *child; /* the first */
	struct sleeper *next;  /* sibling */
};

/* Makes one heap of two, each a root without siblings, or NULL. */
static struct sleeper *heap_merge(struct sleeper *a, struct sleeper *b)
{
	if (!a || !b)
		return a ? a : b;
	if (b->wake_ns < a->wake_ns) {
		struct sleeper *earlier = b;

		b = a;
		a = earlier;
	}
	b->next = a->child;
	a->child = b;
	return a;
}

/* What remains of the heap without its root: the children merged in pairs, then the pairs into one,
 * which is what keeps the heap flat. */
static struct sleeper *heap_without(const struct sleeper *root)
{
	struct sleeper *pairs = NULL, *heap = NULL;

	for (struct sleeper *first = root->child, *rest; first; first = rest) {
		struct sleeper *second = first->next;

		rest = second ? second->next : NULL;
		first->next = NULL;
		if (second)
			second->next = NULL;
		first = heap_merge(first, second);
		first->next = pairs;
		pairs = first;
	}
	while (pairs) {
		struct sleeper *next = pairs->next;

		pairs->next = NULL;
		heap = heap_merge(heap, pairs);
		pairs = next;
	}
	return heap;
}

void task_sleep_ns(uint64_t ns)
{
	struct sleeper sleeper = {.task = task_self()};
	struct worker *worker = worker_self();

	if (__builtin_add_overflow(now_ns(), ns, &sleeper.wake_ns))
		sleeper.wake_ns = UINT64_MAX;
	worker->sleepers = heap_merge(worker->sleepers, &sleeper);
	task_suspend();
}

void sleepers_wake(struct worker *worker)
{
	uint64_t now = worker->sleepers ? now_ns() : 0;

	while (worker->sleepers && worker->sleepers->wake_ns <= now) {
		struct sleeper *first = worker->sleepers;

		worker->sleepers = heap_without(first);
		task_wake(first->task);
	}
}

bool sleepers_wait(const struct worker *worker, struct __kernel_timespec *wait)
{
	uint64_t now = worker->sleepers ? now_ns() : 0, ns = 0;

	if (!worker->sleepers)
		return false;
	if (worker->sleepers->wake_ns > now)
		ns = worker->sleepers->wake_ns - now;
	wait->tv_sec = (int64_t)(ns / NS_PER_S);
	wait->tv_nsec = (long long)(ns % NS_PER_S);
	return true;
}
