// SPDX-License-Identifier: MIT
/*
 * Jobs in order of arrival; a thread is started when a job arrives, no idle one is left for it and
 * there are fewer than OFFLOAD_THREADS. If not even one thread can be started, the job runs on the
 * worker: slow, but not lost.
 */
#include "core/offload.h"
#include <pthread.h>
#include "core/lock.h"
#include "core/task.h"
#include "core/thread.h"

struct job {
	void (*function)(void *argument);
	void *argument;
	struct task *task;
	struct job *next;
};

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t arrived;
	struct job *first, **tail;
	unsigned queued; /* jobs that no thread has taken */
	unsigned idle, count;
	bool stopping;
	pthread_t threads[OFFLOAD_THREADS];
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .arrived = PTHREAD_COND_INITIALIZER};

static void *offload_main(void *argument)
{
	(void)argument;
	pthread_mutex_lock(&pool.mutex);
	for (;;) {
		while (!pool.first && !pool.stopping) {
			pool.idle++;
			pthread_cond_wait(&pool.arrived, &pool.mutex);
			pool.idle--;
		}
		if (!pool.first)
			break;

		struct job *job = pool.first;
		struct task *task = job->task;

		pool.first = job->next;
		pool.queued--;
		pthread_mutex_unlock(&pool.mutex);
		job->function(job->argument);
		task_wake(task); /* the job is on its stack: gone from here on */
		pthread_mutex_lock(&pool.mutex);
	}
	pthread_mutex_unlock(&pool.mutex);
	return NULL;
}

/* With the mutex held. */
static void offload_start_thread(void)
{
	if (thread_start(&pool.threads[pool.count], "diskfs-offload", offload_main, NULL) == 0)
		pool.count++;
}

void offload(void (*function)(void *argument), void *argument)
{
	struct job job = {.function = function, .argument = argument, .task = task_self()};

	pthread_mutex_lock(&pool.mutex);
	/* A thread counts as idle until it has woken up, so it may be meant for an earlier job. */
	if (pool.queued >= pool.idle && pool.count < OFFLOAD_THREADS)
		offload_start_thread();
	if (pool.count == 0) {
		pthread_mutex_unlock(&pool.mutex);
		function(argument);
		return;
	}
	if (!pool.first)
		pool.tail = &pool.first;
	*pool.tail = &job;
	pool.tail = &job.next;
	pool.queued++;
	pthread_cond_signal(&pool.arrived);
	pthread_mutex_unlock(&pool.mutex);
	task_suspend();
}

void offload_stop(void)
{
	pthread_mutex_lock(&pool.mutex);
	pool.stopping = true;
	pthread_cond_broadcast(&pool.arrived);
	pthread_mutex_unlock(&pool.mutex);
	for (unsigned i = 0; i < pool.count; i++)
		pthread_join(pool.threads[i], NULL);
	pool.count = 0;
	pool.stopping = false;
}
