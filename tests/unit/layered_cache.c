// SPDX-License-Identifier: MIT
/* Read caches: what is kept, when, and how much at a time. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/layered/layered.h"
#include "backends/list.h"
#include "core/log.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/layers.h"
#include "tests/lib/run.h"
#include "tests/lib/stacks.h"

#define S LAYERS_SECTOR

static char data[64 * S];

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
		layers_settle(&layers);
	}
	CHECK_EQ(layers.bottom.counts[PROBE_READ], 1);
	CHECK_EQ(layers.fakes[1].counts[FAKE_POPULATE], 1);
	same_as_bottom(&layers, 1, 2, 4);
	CHECK_OK(layers_get(&layers, data, 0, 16));
	layers_settle(&layers);
	CHECK_EQ(layers.bottom.counts[PROBE_READ], 3);
	same_as_bottom(&layers, 1, 0, 16);
	CHECK(fake_is(&layers.fakes[0], 0, 16, LAYER_ABSENT));
	CHECK_EQ(layers_state(&layers)->layers[1].populated_bytes, 16 * S);
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
	layers_settle(&layers);
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
	layers_settle(&layers);
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
		layers_settle(&layers);
	}
	CHECK(fake_is(&layers.fakes[1], 0, 64, LAYER_DATA));
	layers_finish(&layers);
}
RUN_IN_TASK(test_alternating_cache)

static struct disk *open_ram(const char *name)
{
	const struct driver *driver = driver_find("ram");
	struct err err = {.text = ""};
	struct disk *disk = disk_open(driver, name, driver_config(driver, NULL, 0, &err),
				      DISK_OPEN_LAYER, NULL, 0, &err);

	CHECK_TEXT(err.text, "");
	return disk;
}

static bool has_state(struct disk *layer, uint64_t sector, enum layer_state state)
{
	struct layer_run run = {.count = 0};

	return CHECK_OK(layer_run(layer, sector, 1, &run)) && run.state == state;
}

/* The same with RAM layers: the cache gets every other sector, the diff others, which are dropped
 * again; all is read, twice. */
static void test_alternating_ram_task(void *argument)
{
	const char *const options[][2] = {{"read_cache", "cache"}};
	struct disk *disks[3] = {open_ram("diff"), open_ram("cache")}, *disk;
	struct err err = {.text = ""};
	struct probe bottom;
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, S);

	(void)argument;
	probe_init(&bottom, S, 64);
	pattern_fill(bottom.data, 64 * S, 3);
	disks[2] = probe_open(&bottom, DISK_OPEN_READ_ONLY, NULL, &err);
	disk = driver_open_on(driver_find("layered"), options, 1, 0, disks, 3, &err);
	CHECK_TEXT(err.text, "");
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 64; i += 2)
			CHECK_OK(disk_read(disk, &sg, i));
		for (unsigned i = 0; i < 64; i += 5)
			CHECK_OK(disk_write(disk, &sg, i, 0));
		task_sleep_ns(NS_PER_S / 20);
		CHECK(has_state(disks[1], 62, LAYER_DATA));
		CHECK(round > 0 || has_state(disks[1], 63, LAYER_ABSENT));
		CHECK_OK(layer_drop(disks[0], 0, 64));
		memset(data, 0xdd, sizeof(data));
		iov.iov_len = sg.len = sizeof(data);
		CHECK_OK(disk_read(disk, &sg, 0));
		CHECK(memcmp(data, bottom.data, sizeof(data)) == 0);
		iov.iov_len = sg.len = S;
	}
	disk_close(disk);
	for (unsigned i = 0; i < 3; i++)
		disk_close(disks[i]);
	probe_destroy(&bottom);
}
RUN_IN_TASK(test_alternating_ram)

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
	layers_settle(&layers);
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
	layers_settle(&layers);
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
	layers_settle(&layers);
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
	CHECK_EQ(layers_state(&layers)->layers[0].skipped_bytes, (64 - POPULATIONS_MAX) * S);
	atomic_store(&layers.fakes[0].hold[FAKE_POPULATE], false);
	layers_settle(&layers);
	CHECK_EQ(layers_state(&layers)->layers[0].populated_bytes, POPULATIONS_MAX * S);
	/* There is room again. */
	CHECK_OK(layers_get(&layers, data, 40, 1));
	layers_settle(&layers);
	CHECK_EQ(layers_state(&layers)->layers[0].populated_bytes, (POPULATIONS_MAX + 1) * S);
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
	layers_settle(&layers);
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
		layers_settle(&layers);
	}
	CHECK_EQ(layers_state(&layers)->layers[0].failed_bytes, 12 * S);
	CHECK_EQ(layers_state(&layers)->layers[0].populated_bytes, 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_cache_below_diff),
		cmocka_unit_test(test_alternating_cache),
		cmocka_unit_test(test_alternating_ram),
		cmocka_unit_test(test_two_caches),
		cmocka_unit_test(test_read_only_cache),
		cmocka_unit_test(test_does_not_delay),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_long_read),
		cmocka_unit_test(test_failure),
		cmocka_unit_test(test_close_waits),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
