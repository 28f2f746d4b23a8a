// SPDX-License-Identifier: MIT
/* What the core does in front of layers: attaching, checks, counting, and finding in a list. */
#include "core/layer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/check.h"
#include "tests/lib/layers.h"
#include "tests/lib/run.h"

#define S LAYERS_SECTOR

static char data[64 * S];

static struct sg sectors(struct iovec *iov, uint64_t count)
{
	return sg_of(iov, data, count * S);
}

/* ---- Attaching. ---- */

/* A layer is validated when it is attached, and not before. */
static void test_attach_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 2, 16, true);
	layers.fakes[0].sector_count = 0;
	layers.fakes[1].sector_count = 20;
	if (layers_open(&layers, &(struct layers_options){.read_cache = "l1"})) {
		CHECK(layers.fakes[0].below == layers.disks[1]);
		CHECK(layers.fakes[1].below == layers.disks[2]);
		CHECK_EQ(layers.fakes[0].role, 0);
		CHECK_EQ(layers.fakes[1].role, LAYER_CACHE);
		CHECK_EQ(layers.fakes[0].counts[FAKE_ATTACH], 1);
		CHECK_EQ(disk_sector_count(layers.disks[0]), 20);
		CHECK_EQ(disk_sector_shift(layers.disks[0]), 9);
		CHECK_EQ(layers.disks[0]->geometry.memory_align, 1);
		CHECK(!disk_is_read_only(layers.disks[0]));
		CHECK(disk_is_layer(layers.disks[0]) && !disk_is_layer(layers.disks[2]));
	}
	layers_finish(&layers);
}
RUN_IN_TASK(test_attach)

static void test_attach_refused_task(void *argument)
{
	struct layers layers;
	struct err err;

	(void)argument;
	layers_init(&layers, 1, 16, true);
	layers.fakes[0].attach_error = "made for 3 sectors, not 16";
	CHECK(!layers_try(&layers, &(struct layers_options){NULL}, &err));
	CHECK_TEXT(err.key, "below");
	CHECK_TEXT(err.text, "'l0' cannot be a layer here: size: made for 3 sectors, not 16");
	layers.fakes[0].attach_error = NULL;
	layers.fakes[0].geometry.sector_size = 1000;
	CHECK(!layers_try(&layers, &(struct layers_options){NULL}, &err));
	CHECK_TEXT(err.text, "'l0' cannot be a layer here: invalid sector size 1000: must be a "
			     "power of two, 512 to 65536");
	layers_finish(&layers);
}
RUN_IN_TASK(test_attach_refused)

/* ---- Checks. ---- */

static void test_ranges_task(void *argument)
{
	static const struct {
		uint64_t sector, count;
	} outside[] = {
		{16, 1}, {15, 2}, {0, 17}, {UINT64_MAX, 1}, {UINT64_MAX - 1, 2}, {1ULL << 55, 1},
	};
	struct layers layers;
	struct layer_gaps gaps;
	struct layer_run run;
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, 511);

	(void)argument;
	layers_init(&layers, 1, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0"}))
		return;
	layers_forget(&layers);
	for (unsigned i = 0; i < 2; i++) { /* the layer, and the disk */
		struct disk *disk = layers.disks[i];

		CHECK_KIND(layer_read(disk, &sg, 0, &gaps), ERROR_INVALID_INPUT);
		CHECK_KIND(layer_run(disk, 0, 0, &run), ERROR_INVALID_INPUT);
		for (size_t j = 0; j < ARRAY_SIZE(outside); j++) {
			struct sg some = sectors(&iov, outside[j].count);

			CHECK_KIND(layer_read(disk, &some, outside[j].sector, &gaps),
				   ERROR_ILLEGAL_BLOCK);
			CHECK_KIND(layer_run(disk, outside[j].sector, outside[j].count, &run),
				   ERROR_ILLEGAL_BLOCK);
			if (i == 1)
				continue;
			CHECK_KIND(layer_populate(disk, &some, outside[j].sector),
				   ERROR_ILLEGAL_BLOCK);
			CHECK_KIND(layer_drop(disk, outside[j].sector, outside[j].count),
				   ERROR_ILLEGAL_BLOCK);
		}
	}
	sg = sg_of(&iov, data, 1);
	CHECK_KIND(layer_populate(layers.disks[0], &sg, 0), ERROR_INVALID_INPUT);
	sg = sectors(&iov, 0);
	CHECK_OK(layer_read(layers.disks[0], &sg, 16, &gaps));
	CHECK_OK(layer_populate(layers.disks[0], &sg, 16));
	CHECK_OK(layer_drop(layers.disks[0], 16, 0));
	CHECK_EQ(layers.fakes[0].call_count, 0);
	layers_finish(&layers);
}
RUN_IN_TASK(test_ranges)

/* Neither changed nor populated; but a cache of a disk that is read-only as a whole is populated. */
static void test_read_only_task(void *argument)
{
	struct layers layers;
	struct iovec iov;
	struct sg sg = sectors(&iov, 1);
	struct layer_gaps gaps;

	(void)argument;
	layers_init(&layers, 2, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l1",
							   .open_flags = DISK_OPEN_READ_ONLY}))
		return;
	CHECK(disk_is_read_only(layers.disks[0]) && !disk_is_read_only(layers.disks[1]) &&
	      disk_is_read_only(layers.disks[2]));
	CHECK_KIND(layer_drop(layers.disks[0], 0, 1), ERROR_READ_ONLY);
	CHECK_KIND(layer_populate(layers.disks[0], &sg, 0), ERROR_READ_ONLY);
	CHECK_OK(layer_read(layers.disks[0], &sg, 0, &gaps));
	CHECK_OK(layer_populate(layers.disks[1], &sg, 0));
	layers_finish(&layers);
}
RUN_IN_TASK(test_read_only)

/* ---- Answers. ---- */

static void test_counting_task(void *argument)
{
	struct layers layers;
	struct layer_gaps gaps;
	struct iovec iov;
	struct sg sg = sectors(&iov, 4);
	struct stats_totals totals;
	struct stats *stats;

	(void)argument;
	layers_init(&layers, 1, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0"}))
		return;
	stats = &layers.disks[0]->core.stats;
	fake_set(&layers.fakes[0], 1, 1, LAYER_ZEROES, NULL);
	memset(data, 0x33, sizeof(data));
	CHECK_OK(layer_read(layers.disks[0], &sg, 0, &gaps));
	CHECK_EQ(gaps.count, 2);
	CHECK_EQ(gaps.answered, 4);
	CHECK(gaps.gaps[0].sector == 0 && gaps.gaps[0].count == 1);
	CHECK(gaps.gaps[1].sector == 2 && gaps.gaps[1].count == 2);
	CHECK_EQ(bytes_differ(data, S, 0x33), S);
	CHECK_EQ(bytes_differ(data + S, S, 0), S);
	CHECK_EQ(bytes_differ(data + 2 * S, 2 * S, 0x33), 2 * S);
	CHECK_OK(layer_populate(layers.disks[0], &sg, 0));
	CHECK_OK(layer_drop(layers.disks[0], 0, 3));
	atomic_store(&layers.fakes[0].errors[FAKE_DROP], error_io(ENOSPC));
	CHECK_EQ(layer_drop(layers.disks[0], 0, 3), error_io(ENOSPC));
	stats_read(stats, STATS_READ, &totals);
	CHECK(totals.requests == 1 && totals.bytes == 4 * S && totals.errors == 0);
	stats_read(stats, STATS_WRITE, &totals);
	CHECK(totals.requests == 1 && totals.bytes == 4 * S);
	stats_read(stats, STATS_UNMAP, &totals);
	CHECK(totals.requests == 2 && totals.errors == 1);

	/* A disk has every sector. */
	CHECK_OK(layer_read(layers.disks[1], &sg, 0, &gaps));
	CHECK_EQ(gaps.count, 0);
	CHECK_EQ(gaps.answered, 4);
	CHECK_EQ(bytes_differ(data, 4 * S, 0), 4 * S);
	layers_finish(&layers);
}
RUN_IN_TASK(test_counting)

static bool find(struct layers *layers, uint64_t sector, uint64_t count, unsigned index,
		 enum layer_state state, uint64_t found)
{
	struct layer_place place;

	return CHECK_OK(layers_find(layers->disks, layers->disk_count, 0, sector, count, &place)) &&
	       CHECK_EQ(place.index, index) && CHECK_EQ(place.run.state, state) &&
	       CHECK_EQ(place.run.count, found);
}

static void test_find_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 2, 16, true);
	layers.fakes[1].sector_count = 14;
	layers.bottom.sector_count = 10;
	layers.bottom.driver.extent = NULL;
	if (!layers_open(&layers, &(struct layers_options){NULL}))
		return;
	fake_set(&layers.fakes[0], 2, 3, LAYER_DATA, NULL);
	fake_set(&layers.fakes[1], 4, 2, LAYER_DATA, NULL);
	fake_set(&layers.fakes[1], 12, 1, LAYER_DATA, NULL);
	fake_set(&layers.fakes[0], 15, 1, LAYER_ZEROES, NULL);
	CHECK_EQ(layers_end(layers.disks, 1), 16);
	CHECK_EQ(layers_end(layers.disks, 2), 14);
	CHECK_EQ(layers_end(layers.disks, 3), 10);
	find(&layers, 0, 16, 2, LAYER_DATA, 2);
	find(&layers, 1, 1, 2, LAYER_DATA, 1);
	find(&layers, 2, 14, 0, LAYER_DATA, 3);
	find(&layers, 5, 9, 1, LAYER_DATA, 1);
	find(&layers, 6, 9, 2, LAYER_DATA, 4);
	find(&layers, 10, 6, 3, LAYER_ZEROES, 2); /* beyond the end of the last */
	find(&layers, 12, 4, 1, LAYER_DATA, 1);
	find(&layers, 13, 3, 3, LAYER_ZEROES, 1);
	find(&layers, 14, 2, 3, LAYER_ZEROES, 1); /* beyond the end of the second */
	find(&layers, 15, 1, 0, LAYER_ZEROES, 1);

	struct layer_place place;

	/* Past the first layer, which still ends where it ends. */
	CHECK_OK(layers_find(layers.disks, 3, 1, 2, 14, &place));
	CHECK(place.index == 2 && place.run.state == LAYER_DATA && place.run.count == 2);
	CHECK_OK(layers_find(layers.disks, 3, 3, 2, 14, &place));
	CHECK(place.index == 2 && place.run.state == LAYER_DATA && place.run.count == 8);
	CHECK_OK(layers_find(layers.disks, 3, 3, 12, 4, &place));
	CHECK(place.index == 3 && place.run.state == LAYER_ZEROES && place.run.count == 2);
	layers_finish(&layers);
}
RUN_IN_TASK(test_find)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_attach),	 cmocka_unit_test(test_attach_refused),
		cmocka_unit_test(test_ranges),	 cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_counting), cmocka_unit_test(test_find),
	};

	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
