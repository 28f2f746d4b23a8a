// SPDX-License-Identifier: MIT
/* Read caches: what is kept, when, how much at a time, and that it is never older than what it
 * would replace. */
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

static struct layered_layer *layer_of(struct layers *layers, unsigned index)
{
	return &((struct layered *)layers->disk->state)->layers[index];
}

/* Until no population is under way. */
static void settle(struct layers *layers)
{
	struct populations *populations = &((struct layered *)layers->disk->state)->populations;
	unsigned in_flight;

	do {
		task_sleep_ns(NS_PER_US * 200);
		pthread_mutex_lock(&populations->guard);
		in_flight = populations->in_flight;
		pthread_mutex_unlock(&populations->guard);
	} while (in_flight > 0);
}

/* What a layer has of @sector is what lies below it. */
static bool same_as_bottom(struct layers *layers, unsigned index, uint64_t sector, uint64_t count)
{
	const struct fake_layer *fake = &layers->fakes[index];

	return CHECK(fake_is(&layers->fakes[index], sector, count, LAYER_DATA)) &&
	       CHECK(memcmp(fake->data + sector * S, layers->bottom.data + sector * S, count * S) ==
		     0);
}

/* ---- What is kept. ---- */

static void test_kept_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 2, 16, true);
	pattern_fill(layers.bottom.data, 16 * S, 1);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l1"}))
		return;
	layers_forget(&layers);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_OK(layers_get(&layers, data, 2, 4));
		CHECK(memcmp(data, layers.bottom.data + 2 * S, 4 * S) == 0);
		settle(&layers);
	}
	CHECK_EQ(layers.bottom.counts[PROBE_READ], 1);
	CHECK_EQ(layers.fakes[1].counts[FAKE_POPULATE], 1);
	same_as_bottom(&layers, 1, 2, 4);
	CHECK_OK(layers_get(&layers, data, 0, 16));
	settle(&layers);
	CHECK_EQ(layers.bottom.counts[PROBE_READ], 3);
	same_as_bottom(&layers, 1, 0, 16);
	CHECK(fake_is(&layers.fakes[0], 0, 16, LAYER_ABSENT));
	CHECK_EQ(layer_of(&layers, 1)->populated_bytes, 16 * S);
	layers_finish(&layers);
}
RUN_IN_TASK(test_kept)

/*
 * A cache below a diff that splits the request: the first part of it is missing in the cache, later
 * ones are not. All are to be what they are below.
 */
static void test_cache_below_diff_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 2, 16, true);
	pattern_fill(layers.bottom.data, 16 * S, 1);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l1"}))
		return;
	CHECK_OK(layers_get(&layers, data, 9, 4));
	settle(&layers);
	fake_set(&layers.fakes[0], 7, 1, LAYER_DATA, layers.bottom.data + 7 * S);
	memset(data, 0xdd, sizeof(data));
	CHECK_OK(layers_get(&layers, data, 4, 12));
	CHECK(memcmp(data, layers.bottom.data + 4 * S, 12 * S) == 0);
	layers_finish(&layers);
}
RUN_IN_TASK(test_cache_below_diff)

/* A cache that has every other sector, below a diff that has none; all is read, twice. */
static void test_alternating_cache_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 2, 64, true);
	pattern_fill(layers.bottom.data, 64 * S, 2);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l1"}))
		return;
	for (unsigned i = 0; i < 64; i += 2)
		CHECK_OK(layers_get(&layers, data, i, 1));
	settle(&layers);
	CHECK(fake_is(&layers.fakes[1], 2, 1, LAYER_DATA));
	CHECK(fake_is(&layers.fakes[1], 3, 1, LAYER_ABSENT));
	for (unsigned round = 0; round < 2; round++) {
		/* What the diff has splits every run; then it is gone. */
		for (unsigned i = 0; i < 64; i += 5)
			fake_set(&layers.fakes[0], i, 1, round ? LAYER_ABSENT : LAYER_DATA,
				 layers.bottom.data + i * S);
		memset(data, 0xdd, sizeof(data));
		CHECK_OK(layers_get(&layers, data, 0, 64));
		CHECK(memcmp(data, layers.bottom.data, 64 * S) == 0);
		settle(&layers);
	}
	CHECK(fake_is(&layers.fakes[1], 0, 64, LAYER_DATA));
	layers_finish(&layers);
}
RUN_IN_TASK(test_alternating_cache)

/* Two caches, one below the other, get what each does not have. */
static void test_two_caches_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 3, 16, true);
	pattern_fill(layers.bottom.data, 16 * S, 1);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0,l2"}))
		return;
	fake_set(&layers.fakes[2], 4, 2, LAYER_DATA, layers.bottom.data + 4 * S);
	fake_set(&layers.fakes[1], 8, 2, LAYER_DATA, layers.bottom.data + 8 * S);
	CHECK_OK(layers_get(&layers, data, 0, 16));
	CHECK(memcmp(data, layers.bottom.data, 16 * S) == 0);
	settle(&layers);
	same_as_bottom(&layers, 0, 0, 16);
	same_as_bottom(&layers, 2, 0, 8);
	CHECK(fake_is(&layers.fakes[2], 8, 2, LAYER_ABSENT));
	same_as_bottom(&layers, 2, 10, 6);
	CHECK_EQ(layers.fakes[1].counts[FAKE_POPULATE], 0);
	layers_finish(&layers);
}
RUN_IN_TASK(test_two_caches)

/* One that its node says is read-only is read, and left as it is. */
static void test_read_only_cache_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 1, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0",
							   .open_flags = DISK_OPEN_READ_ONLY |
									 DISK_OPEN_CHECK}))
		return;
	CHECK_OK(layers_get(&layers, data, 0, 16));
	settle(&layers);
	CHECK_EQ(layers.fakes[0].counts[FAKE_POPULATE], 0);
	layers_finish(&layers);
}
RUN_IN_TASK(test_read_only_cache)

/* ---- When, and how many. ---- */

/* Nobody waits for it, and the memory that was read into is the reader's again. */
static void test_does_not_delay_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 1, 16, true);
	pattern_fill(layers.bottom.data, 16 * S, 1);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0"}))
		return;
	atomic_store(&layers.fakes[0].hold[FAKE_POPULATE], true);
	CHECK_OK(layers_get(&layers, data, 0, 8));
	/* It has not even begun. */
	CHECK_EQ(layers.fakes[0].counts[FAKE_POPULATE], 0);
	memset(data, 0xdd, sizeof(data));
	fake_wait(&layers.fakes[0], FAKE_POPULATE, 1);
	CHECK_OK(layers_get(&layers, data, 0, 8));
	CHECK(memcmp(data, layers.bottom.data, 8 * S) == 0);
	CHECK_EQ(layers.bottom.counts[PROBE_READ], 2);
	atomic_store(&layers.fakes[0].hold[FAKE_POPULATE], false);
	settle(&layers);
	same_as_bottom(&layers, 0, 0, 8);
	layers_finish(&layers);
}
RUN_IN_TASK(test_does_not_delay)

static void test_bounded_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 1, 64, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0"}))
		return;
	atomic_store(&layers.fakes[0].hold[FAKE_POPULATE], true);
	for (unsigned i = 0; i < 64; i++)
		CHECK_OK(layers_get(&layers, data, i, 1));
	task_sleep_ns(NS_PER_S / 100);
	CHECK_EQ(layers.fakes[0].counts[FAKE_POPULATE], POPULATIONS_MAX);
	CHECK_EQ(layer_of(&layers, 0)->skipped_bytes, (64 - POPULATIONS_MAX) * S);
	atomic_store(&layers.fakes[0].hold[FAKE_POPULATE], false);
	settle(&layers);
	CHECK_EQ(layer_of(&layers, 0)->populated_bytes, POPULATIONS_MAX * S);
	/* There is room again. */
	CHECK_OK(layers_get(&layers, data, 40, 1));
	settle(&layers);
	CHECK_EQ(layer_of(&layers, 0)->populated_bytes, (POPULATIONS_MAX + 1) * S);
	layers_finish(&layers);
}
RUN_IN_TASK(test_bounded)

/* What is longer than a buffer is kept in pieces. */
static void test_long_read_task(void *argument)
{
	const uint64_t count = (2 * MIB + 5 * S) / S;
	struct layers layers;
	char *all = malloc(count * S);

	(void)argument;
	layers_init(&layers, 1, count, true);
	pattern_fill(layers.bottom.data, count * S, 1);
	if (!all || !layers_open(&layers, &(struct layers_options){.read_cache = "l0"}))
		return;
	CHECK_OK(layers_get(&layers, all, 0, count));
	settle(&layers);
	CHECK_EQ(layers.fakes[0].counts[FAKE_POPULATE], 3);
	same_as_bottom(&layers, 0, 0, count);
	layers_finish(&layers);
	free(all);
}
RUN_IN_TASK(test_long_read)

static void test_failure_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 1, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0"}))
		return;
	atomic_store(&layers.fakes[0].errors[FAKE_POPULATE], error_io(ENOSPC));
	for (unsigned i = 0; i < 3; i++) {
		CHECK_OK(layers_get(&layers, data, 0, 4));
		settle(&layers);
	}
	CHECK_EQ(layer_of(&layers, 0)->failed_bytes, 12 * S);
	CHECK_EQ(layer_of(&layers, 0)->populated_bytes, 0);
	layers_finish(&layers);
}
RUN_IN_TASK(test_failure)

static int close_it(void *argument)
{
	layers_close(argument);
	return 0;
}

static void test_close_waits_task(void *argument)
{
	struct layers layers;
	struct task_group group = {0};

	(void)argument;
	layers_init(&layers, 1, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0"}))
		return;
	atomic_store(&layers.fakes[0].hold[FAKE_POPULATE], true);
	CHECK_OK(layers_get(&layers, data, 0, 4));
	CHECK_OK(layers_get(&layers, data, 8, 4));
	task_group_start(&group, close_it, &layers);
	task_sleep_ns(NS_PER_S / 50);
	CHECK(layers.fakes[0].disk);
	CHECK_EQ(group.pending, 1);
	atomic_store(&layers.fakes[0].hold[FAKE_POPULATE], false);
	task_group_wait(&group);
	CHECK(!layers.fakes[0].disk);
	same_as_bottom(&layers, 0, 0, 4);
	same_as_bottom(&layers, 0, 8, 4);
	layers_finish(&layers);
}
RUN_IN_TASK(test_close_waits)

/* ---- Never older over newer. ---- */

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
	settle(&layers);
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
	settle(&layers);
	CHECK_EQ(layers.fakes[0].counts[FAKE_POPULATE], 1);
	CHECK_EQ(layer_of(&layers, 0)->skipped_bytes, 4 * S);
	/* What is read after it is kept. */
	fake_set(&layers.fakes[0], 0, 16, LAYER_ABSENT, NULL);
	CHECK_OK(layers_get(&layers, data, 7, 4));
	settle(&layers);
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
	settle(&layers);
	CHECK_EQ(layers.fakes[0].counts[FAKE_POPULATE], 0);
	CHECK_EQ(layer_of(&layers, 0)->skipped_bytes, 16 * S);
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
	settle(&layers);
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
	settle(&shared);
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
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_cache_below_diff),
		cmocka_unit_test(test_alternating_cache),
		cmocka_unit_test(test_two_caches),
		cmocka_unit_test(test_read_only_cache),
		cmocka_unit_test(test_does_not_delay),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_long_read),
		cmocka_unit_test(test_failure),
		cmocka_unit_test(test_close_waits),
		cmocka_unit_test(test_write_wins),
		cmocka_unit_test(test_stale_is_left_out),
		cmocka_unit_test(test_stale_read),
		cmocka_unit_test(test_write_after_population),
		cmocka_unit_test(test_races),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
