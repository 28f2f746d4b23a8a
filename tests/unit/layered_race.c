// SPDX-License-Identifier: MIT
/* Read caches: what is kept is never older than what it would replace. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/layered/layered.h"
#include "core/log.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/layers.h"
#include "tests/lib/run.h"

#define S LAYERS_SECTOR

static char data[64 * S];

/* A top that is a diff and a cache: the write wins, whichever comes first. */
static void test_write_wins_task(void *argument)
{
	struct layers layers;
	char new[2 * S];

	(void)argument;
	layers_init(&layers, 1, 16, true);
	memset(layers.bottom.data, 0x11, 16 * S);
	memset(new, 0x22, sizeof(new));
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0"}))
		return;
	CHECK_OK(layers_get(&layers, data, 0, 8));
	CHECK_OK(layers_put(&layers, new, 3, 2, 0)); /* before the population has begun */
	atomic_store(&layers.fakes[0].hold[FAKE_POPULATE], true);
	fake_wait(&layers.fakes[0], FAKE_POPULATE, 1);
	CHECK_OK(layers_put(&layers, new, 6, 1, 0)); /* while it is under way */
	CHECK_OK(disk_unmap(layers.disk, 0, 1));
	atomic_store(&layers.fakes[0].hold[FAKE_POPULATE], false);
	layers_settle(&layers);
	CHECK_OK(layers_get(&layers, data, 0, 8));
	CHECK_EQ(bytes_differ(data, S, 0), S);
	CHECK_EQ(bytes_differ(data + S, 2 * S, 0x11), 2 * S);
	CHECK_EQ(bytes_differ(data + 3 * S, 2 * S, 0x22), 2 * S);
	CHECK_EQ(bytes_differ(data + 5 * S, S, 0x11), S);
	CHECK_EQ(bytes_differ(data + 6 * S, S, 0x22), S);
	CHECK_EQ(bytes_differ(data + 7 * S, S, 0x11), S);
	layers_finish(&layers);
}
RUN_IN_TASK(test_write_wins)

static const struct layers_options write_cache = {.read_cache = "l0", .write_through = "l0"};

static int put_new(void *argument)
{
	static char new[4 * S];

	memset(new, 0x22, sizeof(new));
	return layers_put(argument, new, 4, 4, 0);
}

static int get_all(void *argument)
{
	static char all[16 * S];

	return layers_get(argument, all, 0, 16);
}

/* A cache that is written through and forgets. What was read before a write ended is not kept after
 * it: the population waits for the write, and is left out. */
static void test_stale_is_left_out_task(void *argument)
{
	struct layers layers;
	struct task_group group = {0};

	(void)argument;
	layers_init(&layers, 2, 16, true);
	if (!layers_open(&layers, &write_cache))
		return;
	layers_forget(&layers);
	atomic_store(&layers.fakes[1].hold[FAKE_WRITE], true);
	task_group_start(&group, put_new, &layers);
	CHECK_EQ(layers.fakes[1].counts[FAKE_WRITE], 1);
	CHECK_OK(layers_get(&layers, data, 7, 4)); /* overlaps */
	CHECK_OK(layers_get(&layers, data, 8, 4)); /* its neighbour */
	fake_wait(&layers.fakes[0], FAKE_POPULATE, 1);
	task_sleep_ns(NS_PER_S / 100);
	CHECK_EQ(layers.fakes[0].counts[FAKE_POPULATE], 1);
	atomic_store(&layers.fakes[1].hold[FAKE_WRITE], false);
	CHECK_OK(task_group_wait(&group));
	layers_settle(&layers);
	CHECK_EQ(layers.fakes[0].counts[FAKE_POPULATE], 1);
	CHECK_EQ(layers_state(&layers)->layers[0].skipped_bytes, 4 * S);
	/* What is read after it is kept. */
	fake_set(&layers.fakes[0], 0, 16, LAYER_ABSENT, NULL);
	CHECK_OK(layers_get(&layers, data, 7, 4));
	layers_settle(&layers);
	CHECK(fake_is(&layers.fakes[0], 7, 4, LAYER_DATA));
	CHECK_EQ((unsigned char)layers.fakes[0].data[7 * S], 0x22);
	layers_finish(&layers);
}
RUN_IN_TASK(test_stale_is_left_out)

/* The read is still under way when the write ends. */
static void test_stale_read_task(void *argument)
{
	struct layers layers;
	struct task_group group = {0};

	(void)argument;
	layers_init(&layers, 2, 16, true);
	if (!layers_open(&layers, &write_cache))
		return;
	atomic_store(&layers.fakes[1].hold[FAKE_READ], true);
	task_group_start(&group, get_all, &layers);
	CHECK_EQ(layers.fakes[1].counts[FAKE_READ], 1);
	CHECK_OK(put_new(&layers));
	atomic_store(&layers.fakes[1].hold[FAKE_READ], false);
	CHECK_OK(task_group_wait(&group));
	layers_settle(&layers);
	CHECK_EQ(layers.fakes[0].counts[FAKE_POPULATE], 0);
	CHECK_EQ(layers_state(&layers)->layers[0].skipped_bytes, 16 * S);
	layers_finish(&layers);
}
RUN_IN_TASK(test_stale_read)

/* A write waits for a population of its range that has begun, and overwrites it. */
static void test_write_after_population_task(void *argument)
{
	struct layers layers;
	struct task_group group = {0};

	(void)argument;
	layers_init(&layers, 2, 16, true);
	if (!layers_open(&layers, &write_cache))
		return;
	atomic_store(&layers.fakes[0].hold[FAKE_POPULATE], true);
	CHECK_OK(layers_get(&layers, data, 0, 8));
	fake_wait(&layers.fakes[0], FAKE_POPULATE, 1);
	task_group_start(&group, put_new, &layers);
	task_sleep_ns(NS_PER_S / 100);
	CHECK_EQ(layers.fakes[1].counts[FAKE_WRITE], 0);
	CHECK_OK(layers_put(&layers, data, 8, 8, 0)); /* others go on */
	atomic_store(&layers.fakes[0].hold[FAKE_POPULATE], false);
	CHECK_OK(task_group_wait(&group));
	layers_settle(&layers);
	CHECK_EQ((unsigned char)layers.fakes[0].data[4 * S], 0x22);
	layers_finish(&layers);
}
RUN_IN_TASK(test_write_after_population)

/* Everybody at once, with caches that forget at any time, and fail now and then. */
#define SHARED_SECTORS 64
static struct layers shared;
static unsigned shared_round;

static void open_shared(void *argument)
{
	(void)argument;
	layers_init(&shared, 3, SHARED_SECTORS, false);
	for (unsigned i = 0; i < 3; i++)
		shared.fakes[i].yields = 6;
	layers_open(&shared,
		    &(struct layers_options){.read_cache = "l0,l1", .write_through = "l0,l1"});
}

static void use_shared(unsigned index, void *argument)
{
	struct random random = {.state = shared_round * 8 + index};
	char *own = malloc(16 * S);

	(void)argument;
	for (unsigned i = 0; i < 60; i++) {
		uint64_t sector = random_below(&random, SHARED_SECTORS - 16);
		uint64_t count = 1 + random_below(&random, 16);
		struct fake_layer *cache = &shared.fakes[random_below(&random, 2)];

		pattern_fill(own, 16 * S, random_next(&random));
		switch (random_below(&random, 8)) {
		case 0:
		case 1:
			CHECK_OK(layers_put(&shared, own, sector, count, 0));
			break;
		case 2:
			CHECK_OK(disk_write_zeroes(shared.disk, sector, count, 0));
			break;
		case 3:
			fake_set(cache, sector, count, LAYER_ABSENT, NULL);
			break;
		case 4:
			atomic_store(&cache->errors[FAKE_WRITE],
				     random_below(&random, 4) ? 0 : error_io(ENOSPC));
			break;
		default:
			CHECK_OK(layers_get(&shared, own, sector, count));
		}
	}
	free(own);
}

/* What the caches have is what is below. */
static void compare_shared(void *argument)
{
	(void)argument;
	layers_settle(&shared);
	for (unsigned i = 0; i < SHARED_SECTORS; i++) {
		const struct fake_layer *lowest = &shared.fakes[2];
		char below[S] = {0};

		if (lowest->states[i] == LAYER_DATA)
			memcpy(below, lowest->data + i * S, S);
		for (unsigned j = 0; j < 2; j++) {
			const struct fake_layer *cache = &shared.fakes[j];

			if (cache->states[i] == LAYER_DATA)
				CHECK(memcmp(cache->data + i * S, below, S) == 0);
			else if (cache->states[i] == LAYER_ZEROES)
				CHECK_EQ(bytes_differ(below, S, 0), S);
		}
	}
}

static void close_shared(void *argument)
{
	(void)argument;
	layers_finish(&shared);
}

static void test_races(void **state)
{
	(void)state;
	run_task(open_shared, NULL);
	for (unsigned i = 0; i < 100; i++) {
		shared_round = i;
		run_tasks(8, use_shared, NULL);
		run_task(compare_shared, NULL);
	}
	run_task(close_shared, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write_wins), cmocka_unit_test(test_stale_is_left_out),
		cmocka_unit_test(test_stale_read), cmocka_unit_test(test_write_after_population),
		cmocka_unit_test(test_races),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
