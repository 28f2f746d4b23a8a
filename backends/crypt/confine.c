// SPDX-License-Identifier: MIT
/*
 * Two threads, of which the inner calls the function; its stack is a secret. Threads that the
 * function starts have stacks of the C library, which keeps them, as they are, for later threads,
 * as long as all that it keeps is not too much: then it gives back the oldest first. So the outer
 * thread has a stack that is too much by itself; it hardly touches it. When it ends, last of all,
 * every stack that was kept is gone.
 *
 * While the function runs, secrets are also in memory that libraries have allocated, and on those
 * other stacks. None of that can be marked one by one, so the whole process does without its memory
 * in core dumps until it is over. Nothing keeps that memory from being swapped out.
 */
#include "backends/crypt/confine.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "backends/secret/secret.h"

/*
 * Of which libcryptsetup, OpenSSL and Argon2 take 12 KiB, and TSan the most of it. It counts as
 * locked memory.
 */
#define STACK_SIZE ((size_t)1024 * 1024)
#define GUARD_SIZE ((size_t)64 * 1024)

/* glibc keeps 40 MiB of stacks, unless a tunable says otherwise. */
#define OUTER_STACK_SIZE ((size_t)64 * 1024 * 1024)

/* ---- Core dumps. ---- */

#define FILTER_PATH	 "/proc/self/coredump_filter" /* core(5) */
#define FILTER_ANONYMOUS 0x3U			      /* private and shared */

/* Without that file there are no core dumps either. Returns whether it was read. */
static bool filter_read(unsigned long *filter)
{
	int fd = open(FILTER_PATH, O_RDONLY | O_CLOEXEC);
	char text[32] = "", *end = text;

	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) > 0)
		*filter = strtoul(text, &end, 16);
	close(fd);
	return end > text;
}

static void filter_write(unsigned long filter)
{
	int fd = open(FILTER_PATH, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	dprintf(fd, "0x%lx", filter);
	close(fd);
}

/* ---- Threads. ---- */

struct call {
	void (*function)(void *argument);
	void *argument;
	const char *node;
	int error;
};

static int run_thread(const pthread_attr_t *attributes, void *(*function)(void *argument),
		      struct call *call)
{
	pthread_t thread;
	/* It inherits that signals are blocked (core/thread.h). */
	int error = pthread_create(&thread, attributes, function, call);

	return error ? error : pthread_join(thread, NULL);
}

static void *inner_main(void *argument)
{
	const struct call *call = argument;

	call->function(call->argument);
	return NULL;
}

static int stack_open(struct secret *stack, pthread_attr_t *attributes, const char *node)
{
	int error = secret_init(stack, GUARD_SIZE + STACK_SIZE, node);

	if (error)
		return error;
	if (mprotect(stack->memory, GUARD_SIZE, PROT_NONE) < 0)
		return errno;
	return pthread_attr_setstack(attributes, stack->memory + GUARD_SIZE, STACK_SIZE);
}

static void stack_close(struct secret *stack)
{
	/* All of it is wiped: the guard must not stay where it is. */
	if (stack->memory && mprotect(stack->memory, GUARD_SIZE, PROT_READ | PROT_WRITE) < 0)
		abort();
	secret_destroy(stack);
}

static void *outer_main(void *argument)
{
	struct call *call = argument;
	struct secret stack = {.memory = NULL};
	pthread_attr_t attributes;

	call->error = pthread_attr_init(&attributes);
	if (call->error)
		return NULL;
	call->error = stack_open(&stack, &attributes, call->node);
	if (!call->error)
		call->error = run_thread(&attributes, inner_main, call);
	stack_close(&stack);
	pthread_attr_destroy(&attributes);
	return NULL;
}

static int run_threads(struct call *call)
{
	pthread_attr_t attributes;
	int error = pthread_attr_init(&attributes);

	if (error)
		return error;
	error = pthread_attr_setstacksize(&attributes, OUTER_STACK_SIZE);
	if (!error)
		error = run_thread(&attributes, outer_main, call);
	pthread_attr_destroy(&attributes);
	return error ? error : call->error;
}

int confine(void (*function)(void *argument), void *argument, const char *node)
{
	struct call call = {.function = function, .argument = argument, .node = node};
	unsigned long filter = 0;
	bool is_filtered = filter_read(&filter);
	int error;

	if (is_filtered)
		filter_write(filter & ~(unsigned long)FILTER_ANONYMOUS);
	error = run_threads(&call);
	if (is_filtered)
		filter_write(filter);
	return error;
}
