/* SPDX-License-Identifier: MIT */
/*
 * Running test code in tasks. The functions here are called on the test's own thread and end with
 * check_finish().
 */
#ifndef TESTS_LIB_RUN_H
#define TESTS_LIB_RUN_H

#include "core/util.h"

/* Set-up of a group of cmocka tests with 1, 2 or 4 workers, and the tear-down of each. */
int setup_1_worker(void **state);
int setup_2_workers(void **state);
int setup_4_workers(void **state);
int teardown_workers(void **state);

/* Runs @function(@argument) in a task on worker 0. */
void run_task(void (*function)(void *argument), void *argument);

/*
 * Runs @count tasks at once, task i on worker i % workers_count(): @function(i, @argument). Returns
 * when all have ended.
 */
void run_tasks(unsigned count, void (*function)(unsigned index, void *argument), void *argument);

/* A test that is one task: RUN_IN_TASK(name) defines `static void name(void **state)`, which runs
 * `static void name_task(void *argument)`. */
#define RUN_IN_TASK(name)                      \
	static void name(void **state)         \
	{                                      \
		run_task(name##_task, *state); \
	}

/* A pseudo-random sequence: reproducible, and each task may have its own. */
struct random {
	uint64_t state;
};

uint64_t random_next(struct random *random);
/* 0 .. @bound - 1. */
uint64_t random_below(struct random *random, uint64_t bound);

/* Fills @data with bytes that tell @seed and their place, for any length. */
void pattern_fill(void *data, size_t length, uint64_t seed);
/* The first byte of @data that is not @value; @length where all are. */
size_t bytes_differ(const void *data, size_t length, int value);

#endif
