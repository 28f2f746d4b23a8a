/* SPDX-License-Identifier: MIT */
/* Threads of the core. */
#ifndef CORE_THREAD_H
#define CORE_THREAD_H

#include <pthread.h>

/*
 * Starts a thread with @name (at most 15 bytes), on which no signal arrives but those that its own
 * faults raise: signals to the process are the main thread's. Returns 0 or a positive errno.
 */
int thread_start(pthread_t *thread, const char *name, void *(*function)(void *argument),
		 void *argument);

#endif
