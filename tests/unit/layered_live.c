// SPDX-License-Identifier: MIT
/* What a layered disk says of itself while its layers change: size, extents, space, .status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/log.h"
#include "core/report.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/layers.h"
#include "tests/lib/run.h"

/* ---- Its size. ---- */

static void test_resize_task(void *argument)
{
	struct layers layers;
	char data[24 * LAYERS_SECTOR], wanted[24 * LAYERS_SECTOR];

	(void)argument;
	layers_init(&layers, 2, 16, true);
	pattern_fill(layers.bottom.data, 16 * LAYERS_SECTOR, 1);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l1"}))
		return;
	memset(wanted, 0, sizeof(wanted));
	memcpy(wanted, layers.bottom.data, 16 * LAYERS_SECTOR);

	/* The top grows: what is beyond the end of the others is zeros. */
	disk_set_sector_count(layers.disks[0], 24);
	CHECK_EQ(disk_sector_count(layers.disk), 24);
	CHECK_OK(layers_get(&layers, data, 0, 24));
	CHECK(memcmp(data, wanted, sizeof(data)) == 0);
	CHECK_OK(layers_put(&layers, wanted, 20, 4, 0));
	CHECK_OK(layers_get(&layers, data, 20, 4));
	CHECK(memcmp(data, wanted, 4 * LAYERS_SECTOR) == 0);

	/* It shrinks, below the others; theirs is not seen any more, nor is that of others ours. */
	disk_set_sector_count(layers.disks[0], 8);
	CHECK_EQ(disk_sector_count(layers.disk), 8);
	CHECK_KIND(layers_get(&layers, data, 8, 1), ERROR_ILLEGAL_BLOCK);
	disk_set_sector_count(layers.disks[1], 4);
	CHECK_EQ(disk_sector_count(layers.disk), 8);
	memset(wanted + 4 * LAYERS_SECTOR, 0, 4 * LAYERS_SECTOR);
	CHECK_OK(layers_get(&layers, data, 0, 8));
	CHECK(memcmp(data, wanted, 8 * LAYERS_SECTOR) == 0);
	disk_set_sector_count(layers.disks[1], 0);
	CHECK_OK(layers_get(&layers, data, 0, 8));
	CHECK_EQ(bytes_differ(data, 8 * LAYERS_SECTOR, 0), 8 * LAYERS_SECTOR);
	layers_finish(&layers);
}
RUN_IN_TASK(test_resize)

/* A layer that shrinks while it is asked. */
static void shrink(struct layers *layers)
{
	task_sleep_ns(NS_PER_S / 100);
	disk_set_sector_count(layers->disks[1], 4);
	atomic_store(&layers->fakes[1].hold[FAKE_READ], false);
}

static int read_all(void *argument)
{
	static char data[16 * LAYERS_SECTOR];

	int error = layers_get(argument, data, 0, 16);

	CHECK_EQ(bytes_differ(data, 4 * LAYERS_SECTOR, 0x55), 4 * LAYERS_SECTOR);
	CHECK_EQ(bytes_differ(data + 4 * LAYERS_SECTOR, 12 * LAYERS_SECTOR, 0), 12 * LAYERS_SECTOR);
	return error;
}

static void test_shrinks_meanwhile_task(void *argument)
{
	struct layers layers;
	struct task_group group = {0};

	(void)argument;
	layers_init(&layers, 2, 16, true);
	memset(layers.bottom.data, 0x55, 16 * LAYERS_SECTOR);
	if (!layers_open(&layers, &(struct layers_options){NULL}))
		return;
	atomic_store(&layers.fakes[1].hold[FAKE_READ], true);
	task_group_start(&group, read_all, &layers);
	shrink(&layers);
	CHECK_OK(task_group_wait(&group));
	layers_finish(&layers);
}
RUN_IN_TASK(test_shrinks_meanwhile)

/* ---- Extents. ---- */

static bool check_extent(struct disk *disk, uint64_t sector, uint64_t count, enum extent_kind kind,
			 uint64_t found)
{
	struct extent extent = {.count = 0};

	return CHECK_OK(disk_extent(disk, sector, count, &extent)) && CHECK_EQ(extent.kind, kind) &&
	       CHECK_EQ(extent.count, found);
}

static void test_extents_task(void *argument)
{
	struct layers layers;
	uint64_t bytes;

	(void)argument;
	layers_init(&layers, 3, 4096, false);
	if (!layers_open(&layers, &(struct layers_options){NULL}))
		return;
	fake_set(&layers.fakes[0], 4, 4, LAYER_ZEROES, NULL);
	fake_set(&layers.fakes[0], 8, 4, LAYER_DATA, NULL);
	fake_set(&layers.fakes[1], 4, 4, LAYER_DATA, NULL); /* behind zeros */
	fake_set(&layers.fakes[1], 12, 2, LAYER_DATA, NULL);
	fake_set(&layers.fakes[2], 14, 2, LAYER_DATA, NULL);
	check_extent(layers.disk, 0, 4096, EXTENT_HOLE, 8);
	check_extent(layers.disk, 8, 4088, EXTENT_DATA, 8);
	check_extent(layers.disk, 9, 2, EXTENT_DATA, 2);
	check_extent(layers.disk, 16, 4080, EXTENT_HOLE, 4080);
	/* What one call looks at is bounded. */
	for (uint64_t i = 1000; i < 3000; i++)
		fake_set(&layers.fakes[i % 3], i, 1, LAYER_DATA, NULL);
	check_extent(layers.disk, 1000, 3000, EXTENT_DATA, 64);
	/* None of them says what it takes. */
	CHECK_OK(disk_allocated(layers.disk, &bytes));
	CHECK_EQ(bytes, 3 * 4096 * LAYERS_SECTOR);
	layers_finish(&layers);
}
RUN_IN_TASK(test_extents)

/* Copies do not count as space. */
static void test_allocated_task(void *argument)
{
	struct layers layers;
	uint64_t bytes;

	(void)argument;
	layers_init(&layers, 2, 16, true);
	if (!layers_open(&layers,
			 &(struct layers_options){.read_cache = "l1", .write_through = "l0"}))
		return;
	/* l1 is a read cache, but what is written ends there. */
	CHECK_OK(disk_allocated(layers.disk, &bytes));
	CHECK_EQ(bytes, 16 * LAYERS_SECTOR + 12345);
	layers_close(&layers);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l1"}))
		return;
	CHECK_OK(disk_allocated(layers.disk, &bytes));
	CHECK_EQ(bytes, 16 * LAYERS_SECTOR + 12345);
	layers_close(&layers);
	if (!layers_open(&layers, &(struct layers_options){.write_through = "l0,l1"}))
		return;
	CHECK_OK(disk_allocated(layers.disk, &bytes));
	CHECK_EQ(bytes, 12345);
	layers_finish(&layers);
}
RUN_IN_TASK(test_allocated)

/* ---- What .status says. ---- */

static const char inspected[] = "layers:\n"
				"  -\n"
				"    layer: l0\n"
				"    role: read and write cache\n"
				"    hit_bytes: 0\n"
				"    miss_bytes: 4096 (4 KiB)\n"
				"    populated_bytes: 4096 (4 KiB)\n"
				"    skipped_bytes: 0\n"
				"    failed_bytes: 0\n"
				"  -\n"
				"    layer: l1\n"
				"    role: written\n"
				"    hit_bytes: 1024 (1 KiB)\n"
				"    miss_bytes: 3072 (3 KiB)\n"
				"  -\n"
				"    layer: l2\n"
				"    role: read cache\n"
				"    hit_bytes: 0\n"
				"    miss_bytes: 3072 (3 KiB)\n"
				"    populated_bytes: 3072 (3 KiB)\n"
				"    skipped_bytes: 0\n"
				"    failed_bytes: 0\n"
				"  -\n"
				"    layer: probe\n"
				"    role: below\n"
				"    hit_bytes: 3072 (3 KiB)\n"
				"    miss_bytes: 0\n";

static void test_inspect_task(void *argument)
{
	struct layers layers;
	char data[8 * LAYERS_SECTOR], *text;
	struct report *report;
	size_t length;

	(void)argument;
	layers_init(&layers, 3, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0,l2",
							   .write_through = "l0",
							   .hydrate = NULL}))
		return;
	fake_set(&layers.fakes[1], 2, 2, LAYER_DATA, NULL);
	CHECK_OK(layers_get(&layers, data, 0, 8));
	fake_wait(&layers.fakes[2], FAKE_POPULATE, 2);
	fake_wait(&layers.fakes[0], FAKE_POPULATE, 1);
	task_sleep_ns(NS_PER_S / 100);
	report = report_new(REPORT_TEXT);
	layers.disk->driver->inspect(layers.disk, report);
	text = report_finish(report, &length);
	CHECK_TEXT(text, inspected);
	free(text);
	layers_finish(&layers);
}
RUN_IN_TASK(test_inspect)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resize),	cmocka_unit_test(test_shrinks_meanwhile),
		cmocka_unit_test(test_extents), cmocka_unit_test(test_allocated),
		cmocka_unit_test(test_inspect),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
