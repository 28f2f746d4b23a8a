// SPDX-License-Identifier: MIT
/* What a layered disk is: every refusal, the roles of its layers, and what follows from them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/layered/layered.h"
#include "backends/list.h"
#include "tests/lib/check.h"
#include "tests/lib/layers.h"
#include "tests/lib/run.h"

/* ---- Refusals. ---- */

/* Layers of a refusal, changed by @spoil. */
struct refusal {
	unsigned count;
	bool has_bottom;
	struct layers_options options;
	void (*spoil)(struct layers *layers);
	const char *key, *text;
};

static void no_populate(struct layers *layers)
{
	layers->fakes[1].layer_ops.populate = NULL;
}

static void other_sectors(struct layers *layers)
{
	layers->bottom.geometry.sector_size = 4096;
	layers->bottom.geometry.physical_sector_size = 4096;
}

static void other_sectors_between(struct layers *layers)
{
	layers->fakes[1].geometry.sector_size = 1024;
	layers->fakes[1].geometry.physical_sector_size = 4096;
}

static void read_only_top(struct layers *layers)
{
	layers->fakes[0].geometry.read_only = true;
}

static void read_only_bottom(struct layers *layers)
{
	layers->bottom.geometry.read_only = true;
}

static void small_bottom(struct layers *layers)
{
	layers->bottom.sector_count = 15;
}

static void small_second(struct layers *layers)
{
	layers->fakes[1].sector_count = 15;
}

/* Layers that are no layers. */
static void disk_on_top(struct layers *layers)
{
	layers->fakes[0].driver.layer = NULL;
	layers->fakes[0].geometry = layers->bottom.geometry;
}

static const struct refusal refusals[] = {
	{2, true, {.read_cache = "l7"}, NULL, "read_cache", "'l7' is not one of the disks below"},
	{2,
	 true,
	 {.write_through = "l0, prob"},
	 NULL,
	 "write_through",
	 "'prob' is not one of the disks below (did you mean 'probe'?)"},
	{2,
	 true,
	 {.read_cache = "something"},
	 NULL,
	 "read_cache",
	 "'something' is not one of the disks below"},
	{1,
	 true,
	 {.write_through = "l0,probe"},
	 NULL,
	 "write_through",
	 "'probe' is the last layer: there is nothing below it to write to"},
	{1,
	 false,
	 {.write_through = "l0"},
	 NULL,
	 "write_through",
	 "'l0' is the last layer: there is nothing below it to write to"},
	{2,
	 true,
	 {.write_through = "l1"},
	 NULL,
	 "write_through",
	 "nothing is written to 'l1', since 'l0' above it is not written through"},
	{4,
	 true,
	 {.write_through = "l0,l1,l3"},
	 NULL,
	 "write_through",
	 "nothing is written to 'l3', since 'l2' above it is not written through"},
	{1,
	 true,
	 {.read_cache = "probe"},
	 NULL,
	 "read_cache",
	 "'probe' is the last layer: there is nothing below it to keep"},
	{2,
	 false,
	 {.read_cache = "l1"},
	 NULL,
	 "read_cache",
	 "'l1' is the last layer: there is nothing below it to keep"},
	{2,
	 true,
	 {.read_cache = "l1"},
	 no_populate,
	 "read_cache",
	 "'l1' (driver 'fake') cannot be a read cache"},
	{2,
	 true,
	 {NULL},
	 disk_on_top,
	 "below",
	 "'l0' (driver 'fake') has every sector, so nothing below it would ever be read: it must "
	 "be the last"},
	{2,
	 true,
	 {NULL},
	 other_sectors,
	 "below",
	 "the sectors of 'l0' have 512 bytes, those of 'probe' 4096: they must be equal"},
	{2,
	 true,
	 {NULL},
	 other_sectors_between,
	 "below",
	 "the sectors of 'l1' have 1024 bytes, those of 'probe' 512: they must be equal"},
	{1,
	 true,
	 {NULL},
	 read_only_top,
	 "below",
	 "'l0' is read-only, but what is written here goes to it: set readonly = yes here, or put "
	 "a layer on top of it"},
	{1,
	 true,
	 {.write_through = "l0"},
	 read_only_bottom,
	 "below",
	 "'probe' is read-only, but what is written here goes to it: set readonly = yes here, or "
	 "put a layer on top of it"},
	{0,
	 true,
	 {NULL},
	 read_only_bottom,
	 "below",
	 "'probe' is read-only, but what is written here goes to it: set readonly = yes here, or "
	 "put a layer on top of it"},
	{1,
	 true,
	 {.write_through = "l0"},
	 small_bottom,
	 "write_through",
	 "'probe' is smaller than 'l0': what is written beyond its end would be nowhere"},
	{2,
	 true,
	 {.write_through = "l0,l1"},
	 small_second,
	 "write_through",
	 "'l1' is smaller than 'l0': what is written beyond its end would be nowhere"},
	{1,
	 true,
	 {.hydrate = "1M"},
	 NULL,
	 "hydrate",
	 "fills one read cache, but read_cache names 0"},
	{2,
	 true,
	 {.hydrate = "1M", .read_cache = "l0,l1"},
	 NULL,
	 "hydrate",
	 "fills one read cache, but read_cache names 2"},
};

static void test_refusals_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		const struct refusal *refusal = &refusals[i];
		struct layers layers;
		struct err err = {.text = ""};

		check_context("refusal %zu", i);
		layers_init(&layers, refusal->count, 16, refusal->has_bottom);
		if (refusal->spoil)
			refusal->spoil(&layers);
		CHECK(!layers_try(&layers, &refusal->options, &err));
		CHECK_TEXT(err.key, refusal->key);
		CHECK_TEXT(err.text, refusal->text);
		layers_finish(&layers);
	}
	check_context(" ");
}
RUN_IN_TASK(test_refusals)

/* Where nothing is written, read-only layers and short ones are fine. */
static void test_read_only_task(void *argument)
{
	struct layers layers;
	const struct layers_options options = {.read_cache = "l1",
					       .open_flags = DISK_OPEN_READ_ONLY};

	(void)argument;
	layers_init(&layers, 2, 16, true);
	read_only_top(&layers);
	read_only_bottom(&layers);
	small_bottom(&layers);
	if (layers_open(&layers, &options))
		CHECK(disk_is_read_only(layers.disk));
	layers_finish(&layers);
}
RUN_IN_TASK(test_read_only)

/* ---- How the disks below are opened. ---- */

static unsigned flags_of(const char *name, const char *read_cache, const char *write_through,
			 char wanted)
{
	return DISK_OPEN_LAYER | (wanted == 'r' ? DISK_OPEN_READ_ONLY : 0) |
	       (read_cache && strstr(read_cache, name) ? DISK_OPEN_CACHE : 0) |
	       (write_through && strstr(write_through, name) ? DISK_OPEN_WRITE_THROUGH : 0);
}

static void test_flags(void **state)
{
	static const struct {
		const char *read_cache, *write_through;
		unsigned open_flags;
		const char *wanted; /* of each of four disks: w, or r for read-only */
	} cases[] = {
		{NULL, NULL, 0, "wrrr"},
		{"c", NULL, 0, "wrwr"},
		{"a", NULL, 0, "wrrr"},
		{NULL, "a", 0, "wwrr"},
		{"d", "a,b", 0, "wwww"},
		{NULL, "a,b,c", 0, "wwww"},
		{NULL, "b", 0, "wrrr"},
		{NULL, "a", DISK_OPEN_READ_ONLY, "rrrr"},
		{"b", "a", DISK_OPEN_READ_ONLY, "rwrr"},
		{"a,c", NULL, DISK_OPEN_CHECK, "wrwr"},
	};
	static const char *const names[] = {"a", "b", "c", "d"};
	const struct driver *driver = driver_find("layered");

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct layered_config config = {.hydrate = 0};
		struct err err;

		check_context("case %zu", i);
		if (cases[i].read_cache)
			CHECK_EQ(option_parse(option_find(driver->options, "read_cache"),
					      cases[i].read_cache, NULL, &config, &err),
				 0);
		if (cases[i].write_through)
			CHECK_EQ(option_parse(option_find(driver->options, "write_through"),
					      cases[i].write_through, NULL, &config, &err),
				 0);
		for (unsigned j = 0; j < 4; j++)
			CHECK_EQ(driver->below_flags(&config, cases[i].open_flags, names, j),
				 flags_of(names[j], cases[i].read_cache, cases[i].write_through,
					  cases[i].wanted[j]));
		options_free(driver->options, &config);
	}
	check_context(" ");
	check_finish();
}

static void test_roles_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 3, 16, true);
	if (layers_open(&layers, &(struct layers_options){.read_cache = "l1,l2",
							  .write_through = "l0,l1"})) {
		CHECK_EQ(layers.fakes[0].role, LAYER_WRITE_THROUGH);
		CHECK_EQ(layers.fakes[1].role, LAYER_WRITE_THROUGH | LAYER_CACHE);
		CHECK_EQ(layers.fakes[2].role, LAYER_CACHE);
		CHECK_EQ(layers.fakes[2].open_flags, DISK_OPEN_LAYER | DISK_OPEN_CACHE);
		CHECK_EQ(layers.bottom.geometry.read_only, false);
		CHECK(disk_is_read_only(layers.disks[3]));
	}
	layers_finish(&layers);
}
RUN_IN_TASK(test_roles)

/* ---- What follows from the layers. ---- */

/* All of 3 * 3 * 2. */
static void test_unmap_merge(void **state)
{
#define Z UNMAP_ZEROES
#define U UNMAP_UNSPECIFIED
#define I UNMAP_IGNORED
	static const struct {
		enum unmap_behaviour upper, layer;
		bool written_through;
		enum unmap_behaviour wanted;
	} cases[] = {
		{Z, Z, false, Z}, {Z, U, false, U}, {Z, I, false, I}, {U, Z, false, U},
		{U, U, false, U}, {U, I, false, I}, {I, Z, false, I}, {I, U, false, I},
		{I, I, false, I}, {Z, Z, true, Z},  {Z, U, true, I},  {Z, I, true, I},
		{U, Z, true, I},  {U, U, true, I},  {U, I, true, I},  {I, Z, true, I},
		{I, U, true, I},  {I, I, true, I},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		check_context("case %zu", i);
		CHECK_EQ(unmap_merge(cases[i].upper, cases[i].layer, cases[i].written_through),
			 cases[i].wanted);
	}
	check_context(" ");
	check_finish();
}

/* The same by disks: of a layer and a disk below, written through or not. */
static void test_unmap_of_disks_task(void *argument)
{
	static const struct {
		enum unmap_behaviour layer, disk;
		const char *write_through;
		enum unmap_behaviour wanted;
	} cases[] = {
		{Z, Z, NULL, Z}, {Z, U, NULL, Z}, {Z, I, NULL, Z}, {U, Z, NULL, U}, {U, U, NULL, U},
		{U, I, NULL, U}, {I, Z, NULL, I}, {I, U, NULL, I}, {I, I, NULL, I}, {Z, Z, "l0", Z},
		{Z, U, "l0", I}, {Z, I, "l0", I}, {U, Z, "l0", I}, {U, U, "l0", I}, {U, I, "l0", I},
		{I, Z, "l0", I}, {I, U, "l0", I}, {I, I, "l0", I},
	};
#undef Z
#undef U
#undef I

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct layers layers;

		check_context("case %zu", i);
		layers_init(&layers, 1, 16, true);
		layers.fakes[0].geometry.unmap = cases[i].layer;
		layers.bottom.geometry.unmap = cases[i].disk;
		if (layers_open(&layers, &(struct layers_options){
						 .write_through = cases[i].write_through})) {
			CHECK_EQ(layers.disk->geometry.unmap, cases[i].wanted);
			layers_forget(&layers);
			CHECK_OK(disk_unmap(layers.disk, 0, 4));
			CHECK_EQ(layers.fakes[0].counts[FAKE_ZEROES],
				 cases[i].wanted != UNMAP_IGNORED);
		}
		layers_finish(&layers);
	}
	check_context(" ");
}
RUN_IN_TASK(test_unmap_of_disks)

static void test_geometry_task(void *argument)
{
	struct layers layers;
	const struct disk_geometry *geometry;

	(void)argument;
	layers_init(&layers, 3, 16, true);
	layers.fakes[0].sector_count = 18;
	layers.fakes[0].geometry.optimal_unmap_sectors = 2;
	layers.fakes[1].geometry.optimal_unmap_sectors = 4;
	layers.fakes[1].geometry.has_id = true;
	memset(layers.fakes[1].geometry.id, 0x11, 16);
	layers.fakes[1].sector_count = 20;
	layers.fakes[2].geometry.optimal_unmap_sectors = 8;
	layers.fakes[2].geometry.physical_sector_size = 4096;
	layers.fakes[2].geometry.fua = false;
	layers.bottom.geometry.has_id = true;
	layers.bottom.geometry.optimal_unmap_sectors = 16;
	layers.bottom.geometry.memory_align = 4096;
	if (layers_open(&layers, &(struct layers_options){.write_through = "l0"})) {
		geometry = &layers.disk->geometry;
		CHECK_EQ(geometry->sector_size, 512);
		CHECK_EQ(geometry->physical_sector_size, 4096);
		CHECK(geometry->has_id);
		CHECK_EQ(geometry->id[15], 0x11);
		CHECK(geometry->fua);
		CHECK_EQ(geometry->optimal_unmap_sectors, 4);
		CHECK_EQ(geometry->memory_align, 1);
		CHECK_EQ(disk_sector_count(layers.disk), 18);
		CHECK(!disk_is_read_only(layers.disk));
		CHECK(!disk_pr(layers.disk));
		CHECK_KIND(disk_eject(layers.disk), ERROR_UNSUPPORTED);
	}
	layers_close(&layers);
	layers.fakes[1].geometry.fua = false;
	if (layers_open(&layers, &(struct layers_options){.write_through = "l0"}))
		CHECK(!layers.disk->geometry.fua);
	layers_finish(&layers);
}
RUN_IN_TASK(test_geometry)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals),    cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_flags),	    cmocka_unit_test(test_roles),
		cmocka_unit_test(test_unmap_merge), cmocka_unit_test(test_unmap_of_disks),
		cmocka_unit_test(test_geometry),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
