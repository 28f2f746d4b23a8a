// SPDX-License-Identifier: MIT
/* Reads of a layered disk: against a model, which layers are asked for what and when, layers of
 * different sizes, errors, and how deep it may go. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/list.h"
#include "core/log.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/layers.h"
#include "tests/lib/run.h"
#include "tests/lib/stacks.h"

#define S LAYERS_SECTOR

/* ---- Against a model. ---- */

#define MODEL_SECTORS 300

/* Every layer gets sectors of all states at random, in runs. */
static void fill_at_random(struct layers *layers, struct random *random)
{
	char data[16 * S];

	pattern_fill(layers->bottom.data, layers->bottom.sector_count * S, random_next(random));
	for (unsigned i = 0; i < layers->count; i++) {
		struct fake_layer *fake = &layers->fakes[i];
		uint64_t count;

		for (uint64_t at = 0; at < fake->sector_count; at += count) {
			count = 1 + random_below(random, random_below(random, 4) ? 3 : 16);
			count = min_u64(count, fake->sector_count - at);
			pattern_fill(data, sizeof(data), random_next(random));
			/* Mostly absent, so that the lower layers have their turn. */
			fake_set(fake, at, count,
				 (enum layer_state)max_u64(random_below(random, 7), 4) - 4, data);
		}
	}
}

/* Cut into segments of any length. */
static struct sg cut_at_random(struct random *random, char *data, size_t length, struct iovec *iov,
			       unsigned max)
{
	size_t left = length;

	for (unsigned i = 0; left > 0; i++) {
		size_t part = 1 + random_below(random, 3000);

		if (i == max - 1 || part > left)
			part = left;
		iov[i] = (struct iovec){data + length - left, part};
		left -= part;
	}
	return (struct sg){.iov = iov, .len = length};
}

static bool read_and_compare(struct layers *layers, struct random *random)
{
	static char data[MODEL_SECTORS * S], model[MODEL_SECTORS * S];
	uint64_t sector = random_below(random, disk_sector_count(layers->disk));
	uint64_t count = 1 + random_below(random, disk_sector_count(layers->disk) - sector);
	struct iovec iov[32];
	struct sg sg = cut_at_random(random, data, count * S, iov, ARRAY_SIZE(iov));

	memset(data, 0xdd, sizeof(data));
	layers_model(layers, model, sector, count);
	return CHECK_OK(disk_read(layers->disk, &sg, sector)) &&
	       CHECK(memcmp(data, model, count * S) == 0) &&
	       CHECK_EQ(bytes_differ(data + count * S, sizeof(data) - count * S, 0xdd),
			sizeof(data) - count * S);
}

/* Some of them are caches, which changes the layers, but never what is read. */
static void check_model(uint64_t seed, unsigned count, bool has_bottom, const char *caches)
{
	struct random random = {.state = seed};
	struct layers layers;
	bool held = true;

	check_context("seed %llu, %u layers, caches %s", (unsigned long long)seed, count,
		      caches ? caches : "none");
	layers_init(&layers, count, MODEL_SECTORS, has_bottom);
	for (unsigned i = 0; i < count; i++)
		if (random_below(&random, 2))
			layers.fakes[i].sector_count = 150 + random_below(&random, 150);
	if (random_below(&random, 2))
		layers.bottom.sector_count = 150 + random_below(&random, 150);
	layers.fakes[count / 2].yields = (unsigned)random_below(&random, 3);
	fill_at_random(&layers, &random);
	held = layers_open(&layers, &(struct layers_options){.read_cache = caches});
	for (unsigned i = 0; held && i < 100; i++)
		held = read_and_compare(&layers, &random);
	layers_finish(&layers);
}

static void test_model_task(void *argument)
{
	static const char *const caches[] = {NULL, "l0", "l1", "l2,l3", "l0,l1,l2,l3"};

	(void)argument;
	for (uint64_t seed = 0; seed < 40; seed++) {
		check_model(seed, 5, true, caches[seed % ARRAY_SIZE(caches)]);
		check_model(seed, 5, false, caches[seed % ARRAY_SIZE(caches)]);
		check_model(seed, 1, true, seed % 2 ? "l0" : NULL);
	}
	check_context(" ");
}
RUN_IN_TASK(test_model)

/* Readers of everything on all workers, while caches fill under them. */
static struct layers shared;
static char shared_model[MODEL_SECTORS * S];

static void open_shared(void *argument)
{
	struct random random = {.state = 7};

	(void)argument;
	layers_init(&shared, 4, MODEL_SECTORS, true);
	fill_at_random(&shared, &random);
	layers_open(&shared, &(struct layers_options){.read_cache = "l1,l2,l3"});
	layers_model(&shared, shared_model, 0, MODEL_SECTORS);
}

static void read_shared(unsigned index, void *argument)
{
	struct random random = {.state = index};
	char *data = malloc(MODEL_SECTORS * S);

	(void)argument;
	for (unsigned i = 0; i < 200; i++) {
		uint64_t sector = random_below(&random, MODEL_SECTORS);
		uint64_t count = 1 + random_below(&random, MODEL_SECTORS - sector);

		CHECK_OK(layers_get(&shared, data, sector, count));
		if (!CHECK(memcmp(data, shared_model + sector * S, count * S) == 0))
			break;
	}
	free(data);
}

static void close_shared(void *argument)
{
	(void)argument;
	layers_finish(&shared);
}

static void test_many_readers(void **state)
{
	(void)state;
	run_task(open_shared, NULL);
	run_tasks(12, read_shared, NULL);
	run_task(close_shared, NULL);
}

/* ---- Who is asked. ---- */

static bool was_read(const struct fake_layer *fake, unsigned call, uint64_t sector, uint64_t count)
{
	return CHECK(call < fake->call_count) && CHECK_EQ(fake->calls[call].op, FAKE_READ) &&
	       CHECK_EQ(fake->calls[call].sector, sector) &&
	       CHECK_EQ(fake->calls[call].count, count);
}

/* The lower ones only for what is missing; straight into the caller's memory; and without a task of
 * its own where there is one gap. */
static void test_only_what_is_missing_task(void *argument)
{
	struct layers layers;
	char data[16 * S];

	(void)argument;
	layers_init(&layers, 3, 16, false);
	if (!layers_open(&layers, &(struct layers_options){NULL}))
		return;
	fake_set(&layers.fakes[0], 0, 4, LAYER_ZEROES, NULL);
	fake_set(&layers.fakes[1], 10, 2, LAYER_ZEROES, NULL);
	layers_forget(&layers);
	CHECK_OK(layers_get(&layers, data, 0, 4));
	CHECK_EQ(layers.fakes[0].counts[FAKE_READ], 1);
	CHECK_EQ(layers.fakes[1].counts[FAKE_READ], 0);
	CHECK_OK(layers_get(&layers, data, 2, 8));
	was_read(&layers.fakes[0], 1, 2, 8);
	was_read(&layers.fakes[1], 0, 4, 6);
	was_read(&layers.fakes[2], 0, 4, 6);
	CHECK_EQ(layers.fakes[2].call_count, 1);
	CHECK(layers.fakes[1].calls[0].memory == data + 2 * S);
	CHECK(layers.fakes[2].calls[0].memory == data + 2 * S);
	CHECK(layers.fakes[1].calls[0].task == task_self());
	CHECK(layers.fakes[2].calls[0].task == task_self());

	layers_forget(&layers);
	CHECK_OK(layers_get(&layers, data, 0, 16));
	was_read(&layers.fakes[1], 0, 4, 12);
	was_read(&layers.fakes[2], 0, 4, 6);
	was_read(&layers.fakes[2], 1, 12, 4);
	CHECK(layers.fakes[2].calls[0].memory == data + 4 * S);
	CHECK(layers.fakes[2].calls[1].memory == data + 12 * S);
	CHECK(layers.fakes[1].calls[0].task == task_self());
	CHECK(layers.fakes[2].calls[0].task != task_self());
	layers_finish(&layers);
}
RUN_IN_TASK(test_only_what_is_missing)

static int get_all(void *argument)
{
	static char data[512 * S];
	struct layers *layers = argument;

	return layers_get(layers, data, 0, disk_sector_count(layers->disk));
}

/* All gaps of a run are under way at once, in whichever layers. */
static void test_gaps_at_once_task(void *argument)
{
	struct layers layers;
	struct task_group group = {0};

	(void)argument;
	layers_init(&layers, 3, 16, true);
	if (!layers_open(&layers, &(struct layers_options){NULL}))
		return;
	for (unsigned i = 1; i < 16; i += 2)
		fake_set(&layers.fakes[0], i, 1, LAYER_ZEROES, NULL);
	fake_set(&layers.fakes[1], 0, 6, LAYER_ZEROES, NULL); /* of 8 gaps 5 go on */
	atomic_store(&layers.fakes[2].hold[FAKE_READ], true);
	layers_forget(&layers);
	task_group_start(&group, get_all, &layers);
	CHECK_EQ(layers.fakes[1].counts[FAKE_READ], 8);
	CHECK_EQ(layers.fakes[2].counts[FAKE_READ], 5);
	CHECK_EQ(layers.bottom.counts[PROBE_READ], 0);
	atomic_store(&layers.fakes[2].hold[FAKE_READ], false);
	CHECK_OK(task_group_wait(&group));
	CHECK_EQ(layers.bottom.counts[PROBE_READ], 5);
	layers_finish(&layers);
}
RUN_IN_TASK(test_gaps_at_once)

/* More gaps than a list has room for. */
static void test_many_gaps_task(void *argument)
{
	struct layers layers;
	static char data[512 * S], model[512 * S];

	(void)argument;
	layers_init(&layers, 2, 512, true);
	pattern_fill(layers.bottom.data, 512 * S, 3);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l1"}))
		return;
	for (unsigned i = 0; i < 512; i += 2)
		fake_set(&layers.fakes[0], i, 1, LAYER_ZEROES, NULL);
	layers_model(&layers, model, 0, 512);
	for (unsigned i = 0; i < 2; i++) {
		CHECK_OK(layers_get(&layers, data, 0, 512));
		CHECK(memcmp(data, model, sizeof(data)) == 0);
	}
	layers_finish(&layers);
}
RUN_IN_TASK(test_many_gaps)

/* ---- Layers of different sizes. ---- */

/* The read that begins beyond the end of a shorter layer, by one sector and by more. */
static void test_beyond_a_shorter_layer_task(void *argument)
{
	struct layers layers;
	char data[16 * S], model[16 * S];

	(void)argument;
	layers_init(&layers, 1, 16, true);
	layers.bottom.sector_count = 10;
	memset(layers.bottom.data, 0x77, 16 * S);
	if (!layers_open(&layers, &(struct layers_options){NULL}))
		return;
	for (uint64_t sector = 0; sector < 16; sector++) {
		for (uint64_t count = 1; count <= 16 - sector; count++) {
			memset(data, 0xdd, sizeof(data));
			layers_model(&layers, model, sector, count);
			CHECK_OK(layers_get(&layers, data, sector, count));
			CHECK(memcmp(data, model, count * S) == 0);
		}
	}
	CHECK_OK(layers_get(&layers, data, 11, 5));
	CHECK_EQ(bytes_differ(data, 5 * S, 0), 5 * S);
	layers_finish(&layers);
}
RUN_IN_TASK(test_beyond_a_shorter_layer)

/* Zeros beyond the end of the cache and of what is below it are neither asked for nor kept. */
static void test_shorter_cache_task(void *argument)
{
	struct layers layers;
	char data[16 * S], model[16 * S];

	(void)argument;
	for (unsigned cache = 8; cache <= 12; cache++) {
		layers_init(&layers, 2, 16, true);
		layers.fakes[1].sector_count = cache;
		layers.bottom.sector_count = 10;
		memset(layers.bottom.data, 0x77, 16 * S);
		if (!layers_open(&layers, &(struct layers_options){.read_cache = "l1"}))
			return;
		layers_model(&layers, model, 0, 16);
		for (uint64_t sector = 0; sector < 16; sector++) {
			CHECK_OK(layers_get(&layers, data, sector, 16 - sector));
			CHECK(memcmp(data, model + sector * S, (16 - sector) * S) == 0);
		}
		fake_wait(&layers.fakes[1], FAKE_POPULATE, 1);
		task_sleep_ns(NS_PER_S / 100);
		CHECK(fake_is(&layers.fakes[1], 0, min_u64(cache, 10), LAYER_DATA));
		CHECK(fake_is(&layers.fakes[1], 10, 22, LAYER_ABSENT));
		layers_finish(&layers);
	}
}
RUN_IN_TASK(test_shorter_cache)

/* ---- Errors. ---- */

static void test_errors_task(void *argument)
{
	struct layers layers;
	char data[16 * S];

	(void)argument;
	layers_init(&layers, 2, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l1"}))
		return;
	fake_set(&layers.fakes[0], 8, 8, LAYER_ZEROES, NULL);
	atomic_store(&layers.fakes[0].errors[FAKE_READ], error_of(ERROR_ABORTED));
	CHECK_EQ(layers_get(&layers, data, 0, 4), error_of(ERROR_ABORTED));
	atomic_store(&layers.fakes[0].errors[FAKE_READ], 0);
	atomic_store(&layers.fakes[1].errors[FAKE_READ], error_io(ETIMEDOUT));
	CHECK_EQ(layers_get(&layers, data, 0, 16), error_io(ETIMEDOUT));
	CHECK_OK(layers_get(&layers, data, 8, 8));
	atomic_store(&layers.fakes[1].errors[FAKE_READ], 0);
	layers.bottom.fail[PROBE_READ].error = error_medium(EIO, MEDIUM_UNRECOVERED_READ);
	layers.bottom.fail[PROBE_READ].first = 3;
	layers.bottom.fail[PROBE_READ].end = 4;
	CHECK_EQ(layers_get(&layers, data, 0, 16), error_medium(EIO, MEDIUM_UNRECOVERED_READ));
	/* Nothing of it is kept. */
	CHECK_OK(layers_get(&layers, data, 4, 1));
	fake_wait(&layers.fakes[1], FAKE_POPULATE, 1);
	task_sleep_ns(NS_PER_S / 100);
	CHECK_EQ(layers.fakes[1].counts[FAKE_POPULATE], 1);
	CHECK(fake_is(&layers.fakes[1], 0, 4, LAYER_ABSENT));
	CHECK(fake_is(&layers.fakes[1], 4, 1, LAYER_DATA));
	layers_finish(&layers);
}
RUN_IN_TASK(test_errors)

/* Of several gaps the first that fails, by its place. */
static void test_first_error_task(void *argument)
{
	struct layers layers;
	char data[16 * S];

	(void)argument;
	layers_init(&layers, 2, 16, true);
	if (!layers_open(&layers, &(struct layers_options){NULL}))
		return;
	fake_set(&layers.fakes[0], 4, 1, LAYER_ZEROES, NULL);
	fake_set(&layers.fakes[0], 9, 1, LAYER_ZEROES, NULL);
	fake_set(&layers.fakes[1], 0, 4, LAYER_ZEROES, NULL);
	layers.bottom.fail[PROBE_READ].error = error_io(ENOLINK);
	layers.bottom.fail[PROBE_READ].end = 16;
	layers.bottom.sleep_ns = NS_PER_S / 1000;
	CHECK_EQ(layers_get(&layers, data, 0, 16), error_io(ENOLINK));
	CHECK_OK(layers_get(&layers, data, 0, 5));
	layers_finish(&layers);
}
RUN_IN_TASK(test_first_error)

/* ---- As deep as can be. ---- */

/* Each layer has one sector, its own: one gap that goes on from layer to layer. */
static void test_most_layers_task(void *argument)
{
	static char data[64 * S], model[64 * S];
	static struct layers layers;

	(void)argument;
	for (unsigned way = 0; way < 2; way++) {
		layers_init(&layers, 63, 64, true);
		pattern_fill(layers.bottom.data, sizeof(data), 1);
		for (unsigned i = 0; i < 63; i++) {
			pattern_fill(data, S, i);
			fake_set(&layers.fakes[i], way ? (i * 37) % 64 : i, 1, LAYER_DATA, data);
		}
		if (!layers_open(&layers,
				 &(struct layers_options){.read_cache = way ? "l7,l20,l60" : NULL}))
			return;
		layers_model(&layers, model, 0, 64);
		CHECK_OK(layers_get(&layers, data, 0, 64));
		CHECK(memcmp(data, model, sizeof(data)) == 0);
		layers_finish(&layers);
	}
}
RUN_IN_TASK(test_most_layers)

/* Layered disks on layered disks, each with a diff of one sector, and wrappers between them, all
 * that a configuration allows. */
static void test_deepest_stack_task(void *argument)
{
	static char data[64 * S], model[64 * S];
	static struct layers layers[32];
	const char *const none[][2] = {{NULL, NULL}};
	struct disk *disks[64], *below = NULL;
	struct err err = {.text = ""};
	unsigned depth = 0;

	(void)argument;
	for (unsigned i = 0; i < 32; i++) {
		struct disk *two[2];

		layers_init(&layers[i], 1, 64, false);
		pattern_fill(model + i * S, S, i);
		fake_set(&layers[i].fakes[0], i, 1, LAYER_DATA, model + i * S);
		two[0] = fake_open_disk(&layers[i].fakes[0], DISK_OPEN_LAYER, &err);
		two[1] = below;
		if (!CHECK(two[0]))
			return;
		disks[depth] = driver_open_on(driver_find("layered"), none, 0, 0, two,
					      below ? 2 : 1, &err);
		if (!CHECK(disks[depth]))
			return;
		layers[i].disks[0] = two[0];
		below = disks[depth++];
		disks[depth] = driver_open(driver_find(i % 2 ? "delay" : "fault"), none, 0, 0,
					   below, &err);
		if (!CHECK(disks[depth]))
			return;
		below = disks[depth++];
	}
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	CHECK_OK(disk_read(below, &sg, 0));
	CHECK(memcmp(data, model, sizeof(data)) == 0);
	while (depth > 0)
		disk_close(disks[--depth]);
	for (unsigned i = 0; i < 32; i++) {
		disk_close(layers[i].disks[0]);
		layers_destroy(&layers[i]);
	}
}
RUN_IN_TASK(test_deepest_stack)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_many_readers),
		cmocka_unit_test(test_only_what_is_missing),
		cmocka_unit_test(test_gaps_at_once),
		cmocka_unit_test(test_many_gaps),
		cmocka_unit_test(test_beyond_a_shorter_layer),
		cmocka_unit_test(test_shorter_cache),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_first_error),
		cmocka_unit_test(test_most_layers),
		cmocka_unit_test(test_deepest_stack),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
