// SPDX-License-Identifier: MIT
/* What changes a layered disk: where writes go, tombstones and drops, layers that are written
 * through and fail, writers that overlap, flushes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/log.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/layers.h"
#include "tests/lib/run.h"

#define S LAYERS_SECTOR

static char data[64 * S];

/* The calls of a fake, but for reads: "w0+4 z8+2f d3+1" (f: with FUA). */
static bool calls_are(const struct fake_layer *fake, const char *wanted)
{
	static const char letters[FAKE_OPS] = {'a', 'r', 'w', 'z', 'p', 'd', 'f'};
	char text[400] = "";
	size_t used = 0;

	for (unsigned i = 0; i < fake->call_count && used < sizeof(text) - 40; i++) {
		const struct fake_call *call = &fake->calls[i];

		if (call->op == FAKE_READ)
			continue;
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%c", used ? " " : "",
					 letters[call->op]);
		if (call->op != FAKE_FLUSH)
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%llu+%llu%s",
						 (unsigned long long)call->sector,
						 (unsigned long long)call->count,
						 call->flags & DISK_FUA ? "f" : "");
	}
	return CHECK_TEXT(text, wanted);
}

/* ---- Where it goes. ---- */

static void test_write_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 3, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l1"}))
		return;
	layers_forget(&layers);
	CHECK_OK(layers_put(&layers, data, 3, 4, 0));
	CHECK_OK(layers_put(&layers, data, 0, 16, DISK_FUA));
	CHECK_OK(disk_write_zeroes(layers.disk, 1, 2, DISK_FUA));
	calls_are(&layers.fakes[0], "w3+4 w0+16f z1+2f");
	calls_are(&layers.fakes[1], "");
	calls_are(&layers.fakes[2], "");
	CHECK_EQ(layers.bottom.call_count, 0);
	layers_finish(&layers);
}
RUN_IN_TASK(test_write)

/* Written through two layers to the third, the lowest first; the cache below has no part in it. */
static void test_write_through_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 4, 16, true);
	if (!layers_open(&layers,
			 &(struct layers_options){.read_cache = "l3", .write_through = "l0,l1"}))
		return;
	layers_forget(&layers);
	memset(data, 0x12, sizeof(data));
	CHECK_OK(layers_put(&layers, data, 3, 4, DISK_FUA));
	CHECK_OK(disk_write_zeroes(layers.disk, 4, 1, 0));
	CHECK_OK(disk_unmap(layers.disk, 5, 1));
	for (unsigned i = 0; i < 3; i++) {
		calls_are(&layers.fakes[i], "w3+4f z4+1 z5+1");
		CHECK(fake_is(&layers.fakes[i], 3, 1, LAYER_DATA));
		CHECK(fake_is(&layers.fakes[i], 4, 2, LAYER_ZEROES));
	}
	calls_are(&layers.fakes[3], "");
	CHECK_EQ(layers.bottom.call_count, 0);
	layers_finish(&layers);
}
RUN_IN_TASK(test_write_through)

static int put_one(void *argument)
{
	return layers_put(argument, data, 0, 1, 0);
}

/* What is in an upper layer is below already. */
static void test_lowest_first_task(void *argument)
{
	struct layers layers;
	struct task_group group = {0};

	(void)argument;
	layers_init(&layers, 2, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.write_through = "l0,l1"}))
		return;
	layers_forget(&layers);
	atomic_store(&layers.bottom.hold, true);
	atomic_store(&layers.fakes[1].hold[FAKE_WRITE], true);
	task_group_start(&group, put_one, &layers);
	CHECK_EQ(layers.bottom.counts[PROBE_WRITE], 1);
	CHECK_EQ(layers.fakes[1].counts[FAKE_WRITE], 0);
	atomic_store(&layers.bottom.hold, false);
	fake_wait(&layers.fakes[1], FAKE_WRITE, 1);
	CHECK_EQ(layers.fakes[0].counts[FAKE_WRITE], 0);
	atomic_store(&layers.fakes[1].hold[FAKE_WRITE], false);
	CHECK_OK(task_group_wait(&group));
	CHECK_EQ(layers.fakes[0].counts[FAKE_WRITE], 1);
	layers_finish(&layers);
}
RUN_IN_TASK(test_lowest_first)

/* FUA of a path that does not respect it as a whole: written, then all of it is flushed. */
static void test_fua_emulated_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 1, 16, true);
	layers.bottom.geometry.fua = false;
	if (!layers_open(&layers, &(struct layers_options){.write_through = "l0"}))
		return;
	layers_forget(&layers);
	CHECK_OK(layers_put(&layers, data, 3, 4, DISK_FUA));
	calls_are(&layers.fakes[0], "w3+4 f");
	CHECK_EQ(layers.bottom.counts[PROBE_FLUSH], 1);
	layers_finish(&layers);
}
RUN_IN_TASK(test_fua_emulated)

/* ---- Tombstones. ---- */

/* Zeros hide what is below; where nothing is, the sectors are dropped; a range is split. */
static void test_tombstones_task(void *argument)
{
	static const struct {
		uint64_t sector, count;
		const char *calls;
	} cases[] = {
		{0, 4, "z0+4"},	  {8, 4, "z8+2 d10+2"},	  {9, 1, "z9+1"},
		{10, 1, "d10+1"}, {0, 16, "z0+10 d10+6"}, {12, 4, "d12+4"},
	};
	struct layers layers;

	(void)argument;
	layers_init(&layers, 2, 16, true);
	layers.fakes[1].sector_count = 10;
	layers.bottom.sector_count = 14;
	memset(layers.bottom.data, 0x77, 14 * S);
	if (!layers_open(&layers, &(struct layers_options){NULL}))
		return;
	memset(data, 0x11, sizeof(data));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (unsigned way = 0; way < 4; way++) {
			const unsigned flags = way == 1 ? DISK_MAY_UNMAP : 0;

			CHECK_OK(layers_put(&layers, data, 0, 16, 0));
			layers_forget(&layers);
			if (way == 3)
				CHECK_OK(disk_unmap(layers.disk, cases[i].sector, cases[i].count));
			else
				CHECK_OK(disk_write_zeroes(layers.disk, cases[i].sector,
							   cases[i].count, flags));
			calls_are(&layers.fakes[0], cases[i].calls);
			CHECK_OK(layers_get(&layers, data, cases[i].sector, cases[i].count));
			CHECK_EQ(bytes_differ(data, cases[i].count * S, 0), cases[i].count * S);
			memset(data, 0x11, sizeof(data));
		}
	}
	layers_forget(&layers);
	/* A drop knows no FUA. */
	CHECK_OK(disk_write_zeroes(layers.disk, 8, 4, DISK_FUA));
	calls_are(&layers.fakes[0], "z8+2f d10+2 f");
	layers_finish(&layers);
}
RUN_IN_TASK(test_tombstones)

/* Alone, a layer has nothing below it. */
static void test_alone_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 1, 16, false);
	if (!layers_open(&layers, &(struct layers_options){NULL}))
		return;
	layers_forget(&layers);
	CHECK_OK(layers_put(&layers, data, 0, 16, 0));
	CHECK_OK(disk_unmap(layers.disk, 4, 4));
	calls_are(&layers.fakes[0], "w0+16 d4+4");
	CHECK(fake_is(&layers.fakes[0], 4, 4, LAYER_ABSENT));
	layers_finish(&layers);
}
RUN_IN_TASK(test_alone)

/* A disk alone does it all in its own way. */
static void test_disk_alone_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 0, 16, true);
	if (!layers_open(&layers, &(struct layers_options){NULL}))
		return;
	layers_forget(&layers);
	CHECK_OK(layers_put(&layers, data, 0, 16, DISK_FUA));
	CHECK_OK(disk_unmap(layers.disk, 4, 4));
	CHECK_OK(disk_write_zeroes(layers.disk, 8, 2, DISK_MAY_UNMAP));
	CHECK_OK(disk_flush(layers.disk));
	CHECK_EQ(layers.bottom.calls[0].flags, DISK_FUA);
	CHECK_EQ(layers.bottom.counts[PROBE_UNMAP], 1);
	CHECK_EQ(layers.bottom.counts[PROBE_WRITE_ZEROES], 1);
	CHECK_EQ(layers.bottom.calls[2].flags, DISK_MAY_UNMAP);
	CHECK_EQ(layers.bottom.counts[PROBE_FLUSH], 1);
	layers_finish(&layers);
}
RUN_IN_TASK(test_disk_alone)

/* ---- Failures of what is written through. ---- */

enum kind { WRITE, ZEROES, UNMAP, KINDS };

static int change(struct layers *layers, enum kind kind, uint64_t sector, uint64_t count,
		  unsigned flags)
{
	if (kind == WRITE)
		return layers_put(layers, data, sector, count, flags);
	return kind == ZEROES ? disk_write_zeroes(layers->disk, sector, count, flags)
			      : disk_unmap(layers->disk, sector, count);
}

/* The lowest fails: none above has what it might not have. */
static void test_lowest_fails_task(void *argument)
{
	(void)argument;
	for (enum kind kind = WRITE; kind < KINDS; kind++) {
		struct layers layers;
		const int error = error_medium(ENODATA, MEDIUM_WRITE_FAULT);

		layers_init(&layers, 2, 16, true);
		if (!layers_open(&layers, &(struct layers_options){.write_through = "l0,l1"}))
			return;
		memset(data, 0x11, sizeof(data));
		CHECK_OK(layers_put(&layers, data, 0, 16, 0));
		layers_forget(&layers);
		layers.bottom.fail[PROBE_WRITE].error = error;
		layers.bottom.fail[PROBE_WRITE].end = 16;
		layers.bottom.fail[PROBE_UNMAP] = layers.bottom.fail[PROBE_WRITE];
		layers.bottom.fail[PROBE_WRITE_ZEROES] = layers.bottom.fail[PROBE_WRITE];
		CHECK_EQ(change(&layers, kind, 4, 4, 0), error);
		for (unsigned i = 0; i < 2; i++) {
			calls_are(&layers.fakes[i], "d4+4");
			CHECK(fake_is(&layers.fakes[i], 0, 4, LAYER_DATA));
			CHECK(fake_is(&layers.fakes[i], 4, 4, LAYER_ABSENT));
			CHECK(fake_is(&layers.fakes[i], 8, 8, LAYER_DATA));
		}
		CHECK_OK(layers_get(&layers, data, 4, 4));
		CHECK_EQ(bytes_differ(data, 4 * S, 0x11), 4 * S);
		layers_finish(&layers);
	}
}
RUN_IN_TASK(test_lowest_fails)

/* An upper one fails: it forgets the range, and so do those above it, which have it from before;
 * all is below, so the write has succeeded. */
static void test_upper_fails_task(void *argument)
{
	(void)argument;
	for (enum kind kind = WRITE; kind < KINDS; kind++) {
		unsigned flags = kind == UNMAP ? 0 : DISK_FUA;
		struct layers layers;

		layers_init(&layers, 3, 16, true);
		if (!layers_open(&layers, &(struct layers_options){.write_through = "l0,l1,l2"}))
			return;
		memset(data, 0x11, sizeof(data));
		CHECK_OK(layers_put(&layers, data, 0, 16, 0));
		layers_forget(&layers);
		atomic_store(&layers.fakes[1].errors[FAKE_WRITE], error_io(ENOSPC));
		atomic_store(&layers.fakes[1].errors[FAKE_ZEROES], error_io(ENOSPC));
		memset(data, 0x22, sizeof(data));
		CHECK_OK(change(&layers, kind, 4, 4, flags));
		calls_are(&layers.fakes[0], flags ? "d4+4 f" : "d4+4");
		CHECK(fake_is(&layers.fakes[0], 4, 4, LAYER_ABSENT));
		CHECK(fake_is(&layers.fakes[1], 4, 4, LAYER_ABSENT));
		CHECK(fake_is(&layers.fakes[2], 4, 4, kind == WRITE ? LAYER_DATA : LAYER_ZEROES));
		CHECK_OK(layers_get(&layers, data, 4, 4));
		CHECK_EQ(bytes_differ(data, 4 * S, kind == WRITE ? 0x22 : 0), 4 * S);
		layers_finish(&layers);
	}
}
RUN_IN_TASK(test_upper_fails)

/* What cannot be dropped either is an error, the first one. */
static void test_drop_fails_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 2, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.write_through = "l0,l1"}))
		return;
	atomic_store(&layers.fakes[0].errors[FAKE_DROP], error_io(EIO));
	atomic_store(&layers.fakes[1].errors[FAKE_WRITE], error_io(ENOSPC));
	layers_forget(&layers);
	CHECK_EQ(layers_put(&layers, data, 4, 4, 0), error_io(ENOSPC));
	/* The others are dropped all the same. */
	calls_are(&layers.fakes[1], "w4+4 d4+4");
	layers.bottom.fail[PROBE_WRITE].error = error_of(ERROR_RESERVATION_CONFLICT);
	layers.bottom.fail[PROBE_WRITE].end = 16;
	CHECK_EQ(layers_put(&layers, data, 4, 4, 0), error_of(ERROR_RESERVATION_CONFLICT));
	layers_finish(&layers);
}
RUN_IN_TASK(test_drop_fails)

/* A single layer that fails is left as it is. */
static void test_top_fails_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 1, 16, true);
	if (!layers_open(&layers, &(struct layers_options){NULL}))
		return;
	layers_forget(&layers);
	atomic_store(&layers.fakes[0].errors[FAKE_WRITE], error_io(ENOSPC));
	atomic_store(&layers.fakes[0].errors[FAKE_ZEROES], error_io(EDQUOT));
	CHECK_EQ(layers_put(&layers, data, 4, 4, 0), error_io(ENOSPC));
	CHECK_EQ(disk_unmap(layers.disk, 4, 4), error_io(EDQUOT));
	calls_are(&layers.fakes[0], "w4+4 z4+4");
	layers_finish(&layers);
}
RUN_IN_TASK(test_top_fails)

/* ---- Writers that overlap. ---- */

static struct layers shared;

static void open_shared(void *argument)
{
	(void)argument;
	layers_init(&shared, 3, 32, false);
	for (unsigned i = 0; i < 3; i++)
		shared.fakes[i].yields = 5;
	layers_open(&shared, &(struct layers_options){.write_through = "l0,l1"});
}

/* Each writes its own value, over the others. */
static void overlap(unsigned index, void *argument)
{
	struct random random = {.state = index};
	char own[8 * S];

	(void)argument;
	for (unsigned i = 0; i < 40; i++) {
		uint64_t sector = random_below(&random, 25);
		uint64_t count = 1 + random_below(&random, 7);

		memset(own, (int)(index * 16 + i % 16), sizeof(own));
		if (i % 7 == 0)
			CHECK_OK(disk_unmap(shared.disk, sector, count));
		else
			CHECK_OK(layers_put(&shared, own, sector, count, 0));
	}
}

/* All layers have the same in the end; the lowest has zeros as absent sectors. */
static void compare_shared(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < 32; i++) {
		const struct fake_layer *lowest = &shared.fakes[2];
		unsigned state = lowest->states[i] ? lowest->states[i] : LAYER_ZEROES;

		for (unsigned j = 0; j < 2; j++) {
			const struct fake_layer *fake = &shared.fakes[j];

			/* Or never written. */
			if (fake->states[i] == LAYER_ABSENT && state == LAYER_ZEROES)
				continue;
			CHECK_EQ(fake->states[i], state);
			if (state == LAYER_DATA)
				CHECK(memcmp(fake->data + i * S, lowest->data + i * S, S) == 0);
		}
	}
	layers_finish(&shared);
}

static void test_overlapping(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		run_task(open_shared, NULL);
		run_tasks(8, overlap, NULL);
		run_task(compare_shared, NULL);
	}
}

/* ---- Flush. ---- */

static int flush_all(void *argument)
{
	return disk_flush(((struct layers *)argument)->disk);
}

/* The write path and the caches, at the same time, and no other layer. */
static void test_flush_task(void *argument)
{
	struct layers layers;
	struct task_group group = {0};

	(void)argument;
	layers_init(&layers, 5, 16, true);
	if (!layers_open(&layers,
			 &(struct layers_options){.read_cache = "l3", .write_through = "l0,l1"}))
		return;
	layers_forget(&layers);
	for (unsigned i = 0; i < 5; i++)
		atomic_store(&layers.fakes[i].hold[FAKE_FLUSH], true);
	task_group_start(&group, flush_all, &layers);
	for (unsigned i = 0; i < 5; i++)
		calls_are(&layers.fakes[i], i == 4 ? "" : "f");
	for (unsigned i = 0; i < 5; i++)
		atomic_store(&layers.fakes[i].hold[FAKE_FLUSH], false);
	CHECK_OK(task_group_wait(&group));
	CHECK_EQ(layers.bottom.call_count, 0);

	atomic_store(&layers.fakes[3].errors[FAKE_FLUSH], error_io(EIO)); /* a warning */
	CHECK_OK(disk_flush(layers.disk));
	atomic_store(&layers.fakes[2].errors[FAKE_FLUSH], error_io(ENOSPC));
	CHECK_EQ(disk_flush(layers.disk), error_io(ENOSPC));
	layers_finish(&layers);
}
RUN_IN_TASK(test_flush)

static void test_flush_of_top_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 2, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0"}))
		return;
	layers_forget(&layers);
	atomic_store(&layers.fakes[0].errors[FAKE_FLUSH], error_io(EIO));
	CHECK_EQ(disk_flush(layers.disk), error_io(EIO));
	calls_are(&layers.fakes[0], "f");
	calls_are(&layers.fakes[1], "");
	layers_finish(&layers);
}
RUN_IN_TASK(test_flush_of_top)

/* A read-only disk is not flushed; what its caches got is, when it is closed. */
static void test_flush_of_caches_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 1, 16, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0",
							   .open_flags = DISK_OPEN_READ_ONLY}))
		return;
	layers_forget(&layers);
	CHECK_KIND(layers_put(&layers, data, 0, 1, 0), ERROR_READ_ONLY);
	CHECK_OK(disk_flush(layers.disk));
	calls_are(&layers.fakes[0], "");
	layers_close(&layers);
	calls_are(&layers.fakes[0], "f");
	layers_finish(&layers);
}
RUN_IN_TASK(test_flush_of_caches)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write),		cmocka_unit_test(test_write_through),
		cmocka_unit_test(test_lowest_first),	cmocka_unit_test(test_fua_emulated),
		cmocka_unit_test(test_tombstones),	cmocka_unit_test(test_alone),
		cmocka_unit_test(test_disk_alone),	cmocka_unit_test(test_lowest_fails),
		cmocka_unit_test(test_upper_fails),	cmocka_unit_test(test_drop_fails),
		cmocka_unit_test(test_top_fails),	cmocka_unit_test(test_overlapping),
		cmocka_unit_test(test_flush),		cmocka_unit_test(test_flush_of_top),
		cmocka_unit_test(test_flush_of_caches),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
