// SPDX-License-Identifier: MIT
/* What the driver striped makes of the sizes and abilities of its members, and of wrong ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/stripe.h"

static char everything[64 * STRIPE_SECTOR];

/* ---- What members can do. ---- */

static void test_unmap_behaviour_task(void *argument)
{
	static const struct {
		enum unmap_behaviour members[3], wanted;
	} cases[] = {
		{{UNMAP_ZEROES, UNMAP_ZEROES, UNMAP_ZEROES}, UNMAP_ZEROES},
		{{UNMAP_IGNORED, UNMAP_IGNORED, UNMAP_IGNORED}, UNMAP_IGNORED},
		{{UNMAP_UNSPECIFIED, UNMAP_UNSPECIFIED, UNMAP_UNSPECIFIED}, UNMAP_UNSPECIFIED},
		{{UNMAP_ZEROES, UNMAP_IGNORED, UNMAP_ZEROES}, UNMAP_UNSPECIFIED},
		{{UNMAP_IGNORED, UNMAP_ZEROES, UNMAP_ZEROES}, UNMAP_UNSPECIFIED},
		{{UNMAP_IGNORED, UNMAP_IGNORED, UNMAP_UNSPECIFIED}, UNMAP_UNSPECIFIED},
		{{UNMAP_UNSPECIFIED, UNMAP_ZEROES, UNMAP_ZEROES}, UNMAP_UNSPECIFIED},
	};
	struct stripe stripe;

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned asked = 0;

		check_context("case %zu", i);
		stripe_init(&stripe, 3, 16);
		for (unsigned member = 0; member < 3; member++) {
			stripe.probes[member].geometry.unmap = cases[i].members[member];
			asked += cases[i].members[member] != UNMAP_IGNORED;
		}
		if (!stripe_open(&stripe, "1K", NULL))
			return;
		CHECK_EQ(stripe.disk->geometry.unmap, cases[i].wanted);
		/* Those that ignore it are no obstacle. */
		CHECK_OK(disk_unmap(stripe.disk, 0, 48));
		CHECK_EQ(stripe_calls(&stripe, PROBE_UNMAP), asked);
		/* And zeros are zeros whatever it does. */
		memset(everything, 'x', sizeof(everything));
		CHECK_OK(stripe_put(&stripe, everything, 0, 48, 0));
		CHECK_OK(disk_write_zeroes(stripe.disk, 0, 48, DISK_MAY_UNMAP));
		CHECK_OK(stripe_get(&stripe, everything, 0, 48));
		CHECK_EQ(bytes_differ(everything, 48 * STRIPE_SECTOR, 0), 48 * STRIPE_SECTOR);
		stripe_close(&stripe);
	}
}
RUN_IN_TASK(test_unmap_behaviour)

/* In sectors: what of each member, the chunk, and what it makes for the disk of two members. */
static void test_optimal_unmap_task(void *argument)
{
	static const struct {
		uint32_t members[2];
		const char *chunk_size;
		uint32_t wanted;
	} cases[] = {
		{{0, 0}, "1K", 1},
		{{8, 8}, "128K", 8},
		{{256, 8}, "128K", 256},
		{{512, 8}, "128K", 1024},
		{{8, 8}, "1K", 16},
		{{8, 8}, "1536", 48},
		{{1, 6}, "4608", 36},
		{{UINT32_MAX, 1}, "1K", UINT32_MAX},
		{{1U << 31, 1}, "512", UINT32_MAX},
	};
	struct stripe stripe;

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		check_context("case %zu", i);
		stripe_init(&stripe, 2, 2048);
		for (unsigned member = 0; member < 2; member++)
			stripe.probes[member].geometry.optimal_unmap_sectors =
				cases[i].members[member];
		if (stripe_open(&stripe, cases[i].chunk_size, NULL))
			CHECK_EQ(stripe.disk->geometry.optimal_unmap_sectors, cases[i].wanted);
		stripe_close(&stripe);
	}
}
RUN_IN_TASK(test_optimal_unmap)

static void test_abilities_task(void *argument)
{
	struct stripe stripe;

	(void)argument;
	stripe_init(&stripe, 3, 16);
	stripe.probes[0].geometry.has_id = true;
	stripe.probes[1].geometry.physical_sector_size = 4096;
	stripe.probes[1].geometry.memory_align = 512;
	stripe.probes[2].geometry.max_segments = 1;
	stripe.probes[2].geometry.max_transfer = 1024;
	stripe.probes[2].geometry.fua = false;
	if (!stripe_open(&stripe, "1K", NULL))
		return;
	CHECK_EQ(stripe.disk->geometry.sector_size, STRIPE_SECTOR);
	CHECK_EQ(stripe.disk->geometry.physical_sector_size, 4096);
	CHECK(!stripe.disk->geometry.has_id);
	CHECK(!stripe.disk->geometry.read_only);
	CHECK(!disk_pr(stripe.disk));
	/* FUA is respected: only the member that cannot is flushed, and only if it was written. */
	CHECK(stripe.disk->geometry.fua);
	CHECK_OK(stripe_put(&stripe, everything, 0, 4, DISK_FUA));
	CHECK_EQ(stripe_calls(&stripe, PROBE_FLUSH), 0);
	CHECK_OK(stripe_put(&stripe, everything, 0, 48, DISK_FUA));
	CHECK_EQ(stripe_calls(&stripe, PROBE_FLUSH), 1);
	CHECK_EQ(stripe.probes[2].counts[PROBE_FLUSH], 1);
	/* Memory that the members cannot take as it is (the probes check that). */
	CHECK_OK(stripe_put(&stripe, everything + 1, 1, 47, 0));
	CHECK_OK(stripe_get(&stripe, everything + 3, 1, 47));
	stripe_close(&stripe);

	stripe_init(&stripe, 3, 16);
	stripe.probes[1].geometry.read_only = true;
	if (stripe_open(&stripe, "1K", NULL))
		CHECK_KIND(stripe_put(&stripe, everything, 0, 1, 0), ERROR_READ_ONLY);
	CHECK(disk_is_read_only(stripe.disk));
	CHECK_OK(disk_flush(stripe.disk));
	stripe_close(&stripe);
}
RUN_IN_TASK(test_abilities)

/* ---- Geometry. ---- */

struct open_case {
	uint64_t sectors[2];
	uint32_t sector_sizes[2];
	const char *chunk_size, *size;
	uint64_t count;		/* of the disk */
	const char *key, *text; /* text NULL: it opens */
};

static const struct open_case open_cases[] = {
	{{64, 64}, {512, 512}, "1K", NULL, 128, "", NULL},
	{{65, 65}, {512, 512}, "1K", NULL, 128, "", NULL}, /* a part of a chunk is left over */
	{{64, 64}, {512, 512}, "32K", NULL, 128, "", NULL},
	{{127, 127}, {512, 512}, "32K", NULL, 128, "", NULL},
	{{64, 64}, {512, 512}, "10752", NULL, 126, "", NULL}, /* 21 sectors, no power of two */
	{{64, 64}, {4096, 4096}, "4K", "8K", 2, "", NULL},
	{{64, 100}, {512, 512}, "1K", "64K", 128, "", NULL},
	{{64, 64},
	 {512, 4096},
	 "4K",
	 NULL,
	 0,
	 "below",
	 "the sectors of 'probe' have 4096 bytes, those of 'probe' 512: they must be equal"},
	{{64, 65},
	 {512, 512},
	 "1K",
	 NULL,
	 0,
	 "below",
	 "'probe' has 33280 bytes, 'probe' 32768: they must be equal, or size must say how large "
	 "the disk is to be"},
	{{64, 64},
	 {512, 512},
	 "33K",
	 NULL,
	 0,
	 "below",
	 "'probe' has 32768 bytes, less than a chunk of 33792"},
	{{64, 10},
	 {512, 512},
	 "16K",
	 "1K",
	 0,
	 "below",
	 "'probe' has 5120 bytes, less than a chunk of 16384"},
	{{0, 0},
	 {512, 512},
	 "1K",
	 NULL,
	 0,
	 "below",
	 "'probe' has 0 bytes, less than a chunk of 1024"},
	{{64, 64},
	 {512, 512},
	 "1000",
	 NULL,
	 0,
	 "chunk_size",
	 "1000 is no multiple of the sector size of 512"},
	{{64, 64},
	 {4096, 4096},
	 "1K",
	 NULL,
	 0,
	 "chunk_size",
	 "1024 is no multiple of the sector size of 4096"},
	{{64, 64},
	 {512, 512},
	 "1K",
	 "1000",
	 0,
	 "size",
	 "1000 is no multiple of the sector size of 512"},
	{{64, 64},
	 {512, 512},
	 "1K",
	 "66048",
	 0,
	 "size",
	 "more than the 65536 bytes of the members' whole chunks"},
	{{65, 65},
	 {512, 512},
	 "1K",
	 "66048",
	 0,
	 "size",
	 "more than the 65536 bytes of the members' whole chunks"},
	{{64, 100},
	 {512, 512},
	 "1K",
	 "66048",
	 0,
	 "size",
	 "more than the 65536 bytes of the members' whole chunks"},
	{{64, 64}, {512, 512}, "0", NULL, 0, "chunk_size", "'0' is out of range"},
	{{64, 64}, {512, 512}, "511", NULL, 0, "chunk_size", "'511' is out of range"},
	{{64, 64}, {512, 512}, "x", NULL, 0, "chunk_size", "'x' is no size"},
	{{64, 64}, {512, 512}, "1K", "0", 0, "size", "'0' is out of range"},
	{{INT64_MAX / 512, INT64_MAX / 512},
	 {512, 512},
	 "1K",
	 NULL,
	 0,
	 "below",
	 "together larger than a disk can be"},
	{{INT64_MAX / 512, INT64_MAX / 512},
	 {512, 512},
	 "1K",
	 "1M",
	 0,
	 "below",
	 "together larger than a disk can be"},
	{{64, 64},
	 {512, 512},
	 "9223372036854775296",
	 NULL,
	 0,
	 "below",
	 "'probe' has 32768 bytes, less than a chunk of 9223372036854775296"},
};

static void check_open(const struct open_case *c)
{
	struct err err = {.text = ""};
	struct stripe stripe;

	memset(&stripe, 0, sizeof(stripe));
	stripe.count = 2;
	for (unsigned i = 0; i < 2; i++)
		probe_init(&stripe.probes[i], c->sector_sizes[i], c->sectors[i]);
	stripe_try(&stripe, c->chunk_size, c->size, &err);
	if (!c->text && CHECK_TEXT(err.text, "") && CHECK(stripe.disk))
		CHECK_EQ(disk_sector_count(stripe.disk), c->count);
	if (c->text) {
		CHECK(!stripe.disk);
		CHECK_TEXT(err.key, c->key);
		err.text[min_u64(strlen(c->text), sizeof(err.text) - 1)] = '\0';
		CHECK_TEXT(err.text, c->text);
	}
	stripe_close(&stripe);
}

static void test_open_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(open_cases); i++) {
		check_context("case %zu", i);
		check_open(&open_cases[i]);
	}
}
RUN_IN_TASK(test_open)

/* The last sector of the largest disk, and a request over all of it. */
static void test_huge_task(void *argument)
{
	static char data[8 * STRIPE_SECTOR];
	uint64_t sectors = ((uint64_t)1 << 52), all = 3 * sectors;
	const struct stripe_shape shape = {3, sectors / 2, sectors};
	struct stripe stripe;

	(void)argument;
	stripe_init(&stripe, 3, sectors);
	if (!stripe_open(&stripe, "1152921504606846976", NULL)) /* 2^51 sectors */
		return;
	CHECK_EQ(disk_sector_count(stripe.disk), all);
	CHECK_OK(stripe_get(&stripe, data, all - 8, 8));
	CHECK(stripe_check_calls(&stripe, &shape, PROBE_READ, all - 8, 8, 0));
	stripe_forget(&stripe);
	CHECK_OK(stripe_get(&stripe, data, sectors / 2 - 4, 8)); /* over the end of a chunk */
	CHECK(stripe_check_calls(&stripe, &shape, PROBE_READ, sectors / 2 - 4, 8, 0));
	stripe_forget(&stripe);
	for (unsigned i = 0; i < 3; i++)
		stripe.probes[i].driver.unmap = NULL;
	CHECK_KIND(disk_unmap(stripe.disk, 0, all), ERROR_UNSUPPORTED);
	stripe_close(&stripe);
}
RUN_IN_TASK(test_huge)

/* ---- Resize. ---- */

static void test_resize_task(void *argument)
{
	static const struct {
		unsigned member;
		uint64_t sectors, wanted, wanted_with_size;
	} steps[] = {
		{0, 32, 48, 40}, /* one has grown: the others do not let it */
		{1, 32, 48, 40}, {2, 24, 72, 40}, {2, 32, 96, 40}, {1, 31, 90, 40}, {1, 12, 36, 36},
		{0, 4, 12, 12},	 {0, 1, 0, 0},	  {0, 40, 36, 36}, {1, 40, 96, 40},
	};

	(void)argument;
	for (unsigned with_size = 0; with_size < 2; with_size++) {
		static char data[STRIPE_SECTOR];
		struct stripe stripe;

		stripe_init(&stripe, 3, 64);
		for (unsigned i = 0; i < 3; i++)
			stripe.probes[i].sector_count = 16;
		if (!stripe_open(&stripe, "1K", with_size ? "20K" : NULL))
			return;
		for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
			uint64_t wanted = with_size ? steps[i].wanted_with_size : steps[i].wanted;

			check_context("with%s size, step %zu", with_size ? "" : "out", i);
			disk_set_sector_count(stripe.members[steps[i].member], steps[i].sectors);
			CHECK_EQ(disk_sector_count(stripe.disk), wanted);
			CHECK_KIND(stripe_get(&stripe, data, wanted, 1), ERROR_ILLEGAL_BLOCK);
			if (wanted > 0)
				CHECK_OK(stripe_get(&stripe, data, wanted - 1, 1));
		}
		stripe_close(&stripe);
	}
}
RUN_IN_TASK(test_resize)

/* All members grow at once, each on a worker of its own. */
#define GROWN 1000

static void growing_open(void *argument)
{
	struct stripe *stripe = argument;

	stripe_init(stripe, 4, GROWN);
	for (unsigned i = 0; i < 4; i++)
		stripe->probes[i].sector_count = 1;
	stripe_open(stripe, "512", NULL);
}

static void growing_task(unsigned index, void *argument)
{
	struct stripe *stripe = argument;

	for (uint64_t sectors = 2; sectors <= GROWN; sectors++)
		disk_set_sector_count(stripe->members[index], sectors);
}

static void growing_close(void *argument)
{
	struct stripe *stripe = argument;

	CHECK_EQ(disk_sector_count(stripe->disk), 4 * GROWN);
	stripe_close(stripe);
}

static void test_growing(void **state)
{
	static struct stripe stripe;

	(void)state;
	run_task(growing_open, &stripe);
	run_tasks(4, growing_task, &stripe);
	run_task(growing_close, &stripe);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unmap_behaviour),
		cmocka_unit_test(test_optimal_unmap),
		cmocka_unit_test(test_abilities),
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_huge),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_growing),
	};

	return cmocka_run_group_tests(tests, setup_4_workers, teardown_workers);
}
