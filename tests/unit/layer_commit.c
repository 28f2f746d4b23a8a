// SPDX-License-Identifier: MIT
/* Committing a layer: all of it arrives, in an order that a power cut cannot harm; whatever fails,
 * the whole shows the same, and the next run does the rest. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/commit.h"
#include "core/log.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/layers.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/sqlite.h"

#define S	LAYERS_SECTOR
#define SECTORS ((uint64_t)40 * MIB / S)

/* What a diff holds at random, and a lower layer with data of its own. */
static void fill(struct layers *layers, uint64_t seed)
{
	struct random random = {.state = seed};
	uint64_t count, max = layers->fakes[0].sector_count;
	char *data = malloc(3000 * S);

	for (uint64_t at = 0; at < max; at += count) {
		count = min_u64(1 + random_below(&random, random_below(&random, 5) ? 40 : 3000),
				max - at);
		pattern_fill(data, count * S, random_next(&random));
		fake_set(&layers->fakes[0], at, count, (enum layer_state)random_below(&random, 3),
			 data);
	}
	free(data);
	pattern_fill(fake_memory(&layers->fakes[layers->count - 1]), max * S, seed);
}

static const struct layers_options writable = {.all_writable = true};

static uint64_t told_done, told_total;

static void told(void *context, uint64_t done, uint64_t total)
{
	*(unsigned *)context += 1;
	CHECK(done >= told_done && done <= total);
	told_done = done;
	told_total = total;
}

static int commit_to(struct layers *layers, unsigned to, struct err *err)
{
	static unsigned calls;
	struct commit commit = {
		.layer = layers->disks[0],
		.below = layers->disks[to],
		.between = &layers->disks[1],
		.between_count = to - 1,
		.progress = told,
		.context = &calls,
	};

	told_done = 0;
	return commit_run(&commit, err);
}

static char *read_all(struct layers *layers)
{
	char *all = malloc(disk_size(layers->disk));

	CHECK_OK(layers_get(layers, all, 0, disk_sector_count(layers->disk)));
	return all;
}

/* The order number of the last call of @op; 0: none. */
static uint64_t last_of(const struct fake_layer *fake, enum fake_op op)
{
	uint64_t order = 0;

	for (unsigned i = 0; i < fake->call_count; i++)
		if (fake->calls[i].op == op)
			order = fake->calls[i].order;
	return order;
}

/* Every drop of the upper has a flush of the lower before it that is behind all writes which it
 * covers. */
static void check_order(const struct fake_layer *upper, const struct fake_layer *lower)
{
	for (unsigned i = 0; i < upper->call_count; i++) {
		const struct fake_call *drop = &upper->calls[i];
		uint64_t written = 0, flushed = 0;

		if (drop->op != FAKE_DROP)
			continue;
		for (unsigned j = 0; j < lower->call_count; j++) {
			const struct fake_call *call = &lower->calls[j];

			if (call->order > drop->order)
				break;
			if (call->op == FAKE_FLUSH)
				flushed = call->order;
			else if (call->op != FAKE_READ &&
				 call->sector < drop->sector + drop->count &&
				 drop->sector < call->sector + call->count)
				written = call->order;
		}
		CHECK(written == 0 || written < flushed);
	}
	CHECK(last_of(upper, FAKE_FLUSH) > last_of(upper, FAKE_DROP));
}

static void test_all_arrives_task(void *argument)
{
	struct layers layers;
	struct err err = {.text = ""};
	char *before, *after;

	(void)argument;
	for (uint64_t seed = 0; seed < 3; seed++) {
		layers_init(&layers, 2, SECTORS, false);
		fill(&layers, seed);
		fake_set(&layers.fakes[1], 0, SECTORS, LAYER_DATA, fake_memory(&layers.fakes[1]));
		if (!layers_open(&layers, &writable))
			return;
		before = read_all(&layers);
		layers_forget(&layers);
		CHECK_EQ(commit_to(&layers, 1, &err), 0);
		CHECK_TEXT(err.text, "");
		CHECK(told_total > 0 && told_done == told_total);
		CHECK(fake_is(&layers.fakes[0], 0, SECTORS, LAYER_ABSENT));
		check_order(&layers.fakes[0], &layers.fakes[1]);
		after = read_all(&layers);
		CHECK(memcmp(before, after, SECTORS * S) == 0);
		/* Nothing more to do. */
		layers_forget(&layers);
		CHECK_EQ(commit_to(&layers, 1, &err), 0);
		CHECK_EQ(told_total, 0);
		CHECK_EQ(layers.fakes[1].counts[FAKE_WRITE], 0);
		free(before);
		free(after);
		layers_finish(&layers);
	}
}
RUN_IN_TASK(test_all_arrives)

/* A cache between forgets what has changed, and nothing else, and not later than the layer. */
static void test_cache_between_task(void *argument)
{
	struct layers layers;
	struct err err = {.text = ""};
	char *before, *after;

	(void)argument;
	layers_init(&layers, 3, SECTORS, false);
	fill(&layers, 5);
	fake_set(&layers.fakes[2], 0, SECTORS, LAYER_DATA, fake_memory(&layers.fakes[2]));
	fake_set(&layers.fakes[1], 0, SECTORS, LAYER_DATA, fake_memory(&layers.fakes[2]));
	fake_set(&layers.fakes[0], 5000, 100, LAYER_ABSENT, NULL);
	if (!layers_open(&layers,
			 &(struct layers_options){.read_cache = "l1", .all_writable = true}))
		return;
	before = read_all(&layers);
	layers_forget(&layers);
	CHECK_EQ(commit_to(&layers, 2, &err), 0);
	CHECK(fake_is(&layers.fakes[1], 5000, 100, LAYER_DATA));
	CHECK_EQ(layers.fakes[1].counts[FAKE_WRITE], 0);
	CHECK(layers.fakes[1].counts[FAKE_DROP] > 0);
	check_order(&layers.fakes[0], &layers.fakes[1]);
	check_order(&layers.fakes[0], &layers.fakes[2]);
	after = read_all(&layers);
	CHECK(memcmp(before, after, SECTORS * S) == 0);
	free(before);
	free(after);
	layers_finish(&layers);
}
RUN_IN_TASK(test_cache_between)

/* Whatever fails, and whenever: the error tells what, nothing is lost, and the next run ends it. */
static void test_failures_task(void *argument)
{
	static const struct {
		unsigned layer;
		enum fake_op op;
		const char *text;
	} cases[] = {
		{0, FAKE_READ, "cannot read 'l0': I/O error (EIO)"},
		{1, FAKE_WRITE, "cannot write 'l1': I/O error (EIO)"},
		{1, FAKE_ZEROES, "cannot write 'l1': I/O error (EIO)"},
		{1, FAKE_FLUSH, "cannot flush 'l1': I/O error (EIO)"},
		{0, FAKE_DROP, "cannot drop from 'l0': I/O error (EIO)"},
		{0, FAKE_FLUSH, "cannot flush 'l0': I/O error (EIO)"},
	};
	struct layers layers;
	struct err err;
	char *before, *after;

	(void)argument;
	layers_init(&layers, 2, SECTORS / 4, false);
	if (!layers_open(&layers, &writable))
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		for (unsigned after_calls = 0; after_calls < 4; after_calls++) {
			struct fake_layer *fake = &layers.fakes[cases[i].layer];

			check_context("case %u, after %u", i, after_calls);
			fill(&layers, i);
			before = read_all(&layers);
			layers_forget(&layers);
			fake->errors_after = after_calls;
			atomic_store(&fake->errors[cases[i].op], error_io(EIO));
			if (commit_to(&layers, 1, &err) < 0)
				CHECK_TEXT(err.text, cases[i].text);
			else
				CHECK(after_calls > 0);
			atomic_store(&fake->errors[cases[i].op], 0);
			after = read_all(&layers);
			CHECK(memcmp(before, after, SECTORS / 4 * S) == 0);
			free(after);
			CHECK_EQ(commit_to(&layers, 1, &err), 0);
			CHECK(fake_is(&layers.fakes[0], 0, SECTORS / 4, LAYER_ABSENT));
			after = read_all(&layers);
			CHECK(memcmp(before, after, SECTORS / 4 * S) == 0);
			free(after);
			free(before);
		}
	}
	check_context(" ");
	layers_finish(&layers);
}
RUN_IN_TASK(test_failures)

/* Data that has no place below is refused before anything is changed; zeros have one. */
static void test_smaller_task(void *argument)
{
	struct layers layers;
	struct err err = {.text = ""};
	char data[S];

	(void)argument;
	layers_init(&layers, 2, 64, false);
	layers.fakes[1].sector_count = 40;
	if (!layers_open(&layers, &writable))
		return;
	memset(data, 0x11, sizeof(data));
	fake_set(&layers.fakes[0], 3, 1, LAYER_DATA, data);
	fake_set(&layers.fakes[0], 40, 1, LAYER_DATA, data);
	layers_forget(&layers);
	CHECK_EQ(commit_to(&layers, 1, &err), -1);
	CHECK_TEXT(err.text, "'l0' has data beyond byte 20480, where 'l1' ends: it would be lost");
	CHECK_EQ(layers.fakes[0].call_count + layers.fakes[1].call_count, 0);
	fake_set(&layers.fakes[0], 36, 10, LAYER_ZEROES, NULL);
	fake_set(&layers.fakes[0], 50, 10, LAYER_ZEROES, NULL);
	CHECK_EQ(commit_to(&layers, 1, &err), 0);
	CHECK(fake_is(&layers.fakes[0], 0, 64, LAYER_ABSENT));
	CHECK(fake_is(&layers.fakes[1], 3, 1, LAYER_DATA));
	CHECK(fake_is(&layers.fakes[1], 36, 4, LAYER_ZEROES));
	CHECK(fake_is(&layers.fakes[1], 40, 24, LAYER_ABSENT));
	layers_finish(&layers);
}
RUN_IN_TASK(test_smaller)

/* Nor would it be seen beyond the end of a cache between. */
static void test_smaller_cache_task(void *argument)
{
	struct layers layers;
	struct err err = {.text = ""};

	(void)argument;
	layers_init(&layers, 3, 64, false);
	layers.fakes[1].sector_count = 40;
	if (!layers_open(&layers,
			 &(struct layers_options){.read_cache = "l1", .all_writable = true}))
		return;
	fake_set(&layers.fakes[0], 40, 1, LAYER_DATA, NULL);
	CHECK_EQ(commit_to(&layers, 2, &err), -1);
	CHECK_TEXT(err.text, "'l0' has data beyond byte 20480, where 'l1' ends: it would be lost");
	layers_finish(&layers);
}
RUN_IN_TASK(test_smaller_cache)

/* A layer that remembers what is below it is told before the first change, and after the last. */
static struct {
	struct layers *layers;
	unsigned begun, ended;
	int error;
} noted;

static int note_changes(struct disk *disk, struct disk *below, bool begin)
{
	struct fake_layer *fakes = noted.layers->fakes;

	CHECK(disk == noted.layers->disks[0] && below == noted.layers->disks[1]);
	if (begin && noted.begun++ == 0)
		CHECK_EQ(fakes[1].counts[FAKE_WRITE], 0);
	if (!begin) {
		noted.ended++;
		CHECK(last_of(&fakes[0], FAKE_FLUSH) > last_of(&fakes[0], FAKE_DROP));
	}
	return noted.error;
}

static void test_told_task(void *argument)
{
	struct layers layers;
	struct err err = {.text = ""};

	(void)argument;
	layers_init(&layers, 2, 64, false);
	noted.layers = &layers;
	layers.fakes[0].layer_ops.below_changes = note_changes;
	if (!layers_open(&layers, &writable))
		return;
	fake_set(&layers.fakes[0], 3, 1, LAYER_DATA, NULL);
	noted.error = error_io(EROFS);
	CHECK_EQ(commit_to(&layers, 1, &err), -1);
	CHECK_TEXT(err.text, "cannot write to 'l0': I/O error (EROFS)");
	CHECK(noted.begun == 1 && noted.ended == 0);
	CHECK_EQ(layers.fakes[1].counts[FAKE_WRITE], 0);
	noted.error = 0;
	CHECK_EQ(commit_to(&layers, 1, &err), 0);
	CHECK(noted.begun == 2 && noted.ended == 1);
	layers_finish(&layers);
}
RUN_IN_TASK(test_told)

/* ---- A layer in a file, which remembers the content of what it was made over. ---- */

#define PATH "layer.diskfs"

static struct sqlite_layer over_content(struct disk *below)
{
	return (struct sqlite_layer){.options = {{"path", PATH}, {"base_check", "content"}},
				     .below = below};
}

static int commit_layer(struct sqlite_layer *layer, struct err *err)
{
	const struct commit commit = {.layer = layer->disk, .below = layer->below};

	return commit_run(&commit, err);
}

static void test_remembered_content_task(void *argument)
{
	struct probe probe;
	struct err err = {.text = ""};
	struct disk *below;
	struct sqlite_layer layer;
	char data[S];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	(void)argument;
	probe_init(&probe, S, 1000);
	below = probe_open(&probe, 0, NULL, &err);
	layer = over_content(below);
	if (!sqlite_begin(&layer))
		return;
	memset(data, 0x55, sizeof(data));
	for (unsigned i = 0; i < 10; i++)
		CHECK_OK(disk_write(layer.disk, &sg, i * 100, 0));
	/* A commit that does not get far: some of it is below, and still in the layer. */
	probe.fail[PROBE_WRITE].error = error_io(EIO);
	probe.fail[PROBE_WRITE].first = 400;
	probe.fail[PROBE_WRITE].end = 401;
	CHECK_EQ(commit_layer(&layer, &err), -1);
	CHECK_TEXT(err.text, "cannot write 'probe': I/O error (EIO)");
	CHECK_EQ(probe.data[0], 0x55);
	CHECK(sqlite_again(&layer));
	/* The next one ends it, and what it has made of the disk below is what counts. */
	memset(&probe.fail[PROBE_WRITE], 0, sizeof(probe.fail[PROBE_WRITE]));
	CHECK_EQ(commit_layer(&layer, &err), 0);
	CHECK_EQ(probe.data[900 * S], 0x55);
	CHECK(sqlite_again(&layer));
	sqlite_end(&layer);
	probe.data[5] ^= 1;
	sqlite_refused(&layer, "base_check", "was made over another content than 'probe' has");
	probe.data[5] ^= 1;
	if (sqlite_begin(&layer))
		sqlite_end(&layer);
	disk_close(below);
	probe_destroy(&probe);
}

static void test_remembered_content(void **state)
{
	(void)state;
	scratch_enter();
	worker_call(worker_get(0), test_remembered_content_task, NULL);
	scratch_leave();
	check_finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_arrives),	   cmocka_unit_test(test_cache_between),
		cmocka_unit_test(test_failures),	   cmocka_unit_test(test_smaller),
		cmocka_unit_test(test_smaller_cache),	   cmocka_unit_test(test_told),
		cmocka_unit_test(test_remembered_content),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
