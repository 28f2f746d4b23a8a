/* SPDX-License-Identifier: MIT */
/*
 * A small pool of threads for calls that block and that io_uring does not know. Threads are started
 * when needed, at most OFFLOAD_THREADS, and stay until workers_stop().
 */
#ifndef CORE_OFFLOAD_H
#define CORE_OFFLOAD_H

#include "core/util.h"

#define OFFLOAD_THREADS 32

/*
 * Runs @function(@argument) on a thread of the pool and suspends the task until it has returned.
 * The function must not use tasks, locks of core/lock.h or the ring. In a task.
 */
void offload(void (*function)(void *argument), void *argument);

/* Ends the threads; nothing is under way. Called by workers_stop(). */
void offload_stop(void);

#endif
