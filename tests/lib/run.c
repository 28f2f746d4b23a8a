// SPDX-License-Identifier: MIT
#include "tests/lib/run.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/worker.h"
#include "tests/lib/check.h"

static int setup_workers(unsigned count)
{
	struct err err;

	if (workers_start(count, &err) < 0) {
		print_error("%s\n", err.text);
		return -1;
	}
	return 0;
}

int setup_1_worker(void **state)
{
	(void)state;
	return setup_workers(1);
}

int setup_2_workers(void **state)
{
	(void)state;
	return setup_workers(2);
}

int setup_4_workers(void **state)
{
	(void)state;
	return setup_workers(4);
}

int teardown_workers(void **state)
{
	(void)state;
	workers_stop();
	return 0;
}

void run_task(void (*function)(void *argument), void *argument)
{
	worker_call(worker_get(0), function, argument);
	check_finish();
}

/* What all tasks of one run share, and one of them. */
struct fan {
	unsigned count;
	void (*function)(unsigned index, void *argument);
	void *argument;
};

struct blade {
	const struct fan *fan;
	unsigned index;
};

static int blade_run(void *argument)
{
	const struct blade *blade = argument;

	blade->fan->function(blade->index, blade->fan->argument);
	return 0;
}

/* Starts the tasks of one worker and waits for them. */
static void fan_task(void *argument)
{
	const struct fan *fan = argument;
	unsigned workers = workers_count(), started = 0;
	struct blade *blades = calloc(fan->count, sizeof(*blades));
	struct task_group group = {0};

	for (unsigned i = worker_index(); i < fan->count; i += workers) {
		blades[started] = (struct blade){.fan = fan, .index = i};
		task_group_start(&group, blade_run, &blades[started++]);
	}
	task_group_wait(&group);
	free(blades);
}

struct call {
	struct worker *worker;
	struct fan *fan;
	pthread_t thread;
};

static void *call_main(void *argument)
{
	const struct call *call = argument;

	worker_call(call->worker, fan_task, call->fan);
	return NULL;
}

void run_tasks(unsigned count, void (*function)(unsigned index, void *argument), void *argument)
{
	struct fan fan = {.count = count, .function = function, .argument = argument};
	struct call calls[WORKERS_MAX];

	for (unsigned i = 0; i < workers_count(); i++) {
		calls[i] = (struct call){.worker = worker_get(i), .fan = &fan};
		assert_int_equal(pthread_create(&calls[i].thread, NULL, call_main, &calls[i]), 0);
	}
	for (unsigned i = 0; i < workers_count(); i++)
		pthread_join(calls[i].thread, NULL);
	check_finish();
}

/* splitmix64. */
uint64_t random_next(struct random *random)
{
	uint64_t z = random->state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

uint64_t random_below(struct random *random, uint64_t bound)
{
	return random_next(random) % bound;
}

void pattern_fill(void *data, size_t length, uint64_t seed)
{
	struct random random = {.state = seed};
	char *to = data;

	while (length > 0) {
		uint64_t value = random_next(&random);
		size_t part = min_u64(length, sizeof(value));

		memcpy(to, &value, part);
		to += part;
		length -= part;
	}
}

size_t bytes_differ(const void *data, size_t length, int value)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < length; i++)
		if (bytes[i] != value)
			return i;
	return length;
}
