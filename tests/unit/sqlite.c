// SPDX-License-Identifier: MIT
/*
 * A layer of the driver sqlite against a model: random changes, commits and restarts; how it keeps
 * things; what it is alone.
 *
 *	SEED=n	replays a run
 *	LONG=1	longer ones
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/sqlite/sqlite.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/sqlite.h"

#define PATH "layer.diskfs"

static uint64_t seed = 1;
static unsigned factor = 1; /* how long a test lasts */

/* ---- Random changes. ---- */

/* Windows around the seams: the beginning, many chunks, far away, the end. */
#define WINDOWS 3
#define SIZE	((uint64_t)1 << 40)

struct world {
	struct sqlite_layer layer;
	struct random random;
	struct sqlite_model windows[WINDOWS];
	uint32_t size; /* of a sector */
};

static bool world_open(struct world *world, uint32_t sector_size)
{
	static const uint64_t starts[] = {0, (SIZE / 2) - 3 * CHUNK_SIZE, SIZE};
	static char text[24];
	uint64_t count = max_u64(40, 6 * CHUNK_SIZE / sector_size);

	snprintf(text, sizeof(text), "%u", sector_size);
	*world = (struct world){
		.layer = {.options = {{"path", PATH}, {"size", "1T"}, {"sector_size", text}},
			  .role = LAYER_CACHE},
		.random = {.state = seed * 1000 + sector_size},
		.size = sector_size,
	};
	sqlite_remove(PATH);
	for (unsigned i = 0; i < WINDOWS; i++) {
		uint64_t first = starts[i] / sector_size;

		model_init(&world->windows[i], sector_size,
			   i == WINDOWS - 1 ? first - count : first, count);
	}
	return sqlite_begin(&world->layer);
}

static void world_close(struct world *world)
{
	sqlite_end(&world->layer);
	for (unsigned i = 0; i < WINDOWS; i++)
		model_free(&world->windows[i]);
}

static bool world_check(struct world *world)
{
	for (unsigned i = 0; i < WINDOWS; i++)
		if (!model_check(&world->windows[i], world->layer.disk))
			return false;
	return true;
}

/* All of the disk at once: the windows with it. */
static bool world_clear(struct world *world, bool drop)
{
	struct disk *disk = world->layer.disk;
	int error = drop ? layer_drop(disk, 0, disk_sector_count(disk))
			 : disk_write_zeroes(disk, 0, disk_sector_count(disk), 0);

	for (unsigned i = 0; i < WINDOWS; i++) {
		struct sqlite_model *window = &world->windows[i];

		memset(window->states, drop ? LAYER_ABSENT : LAYER_ZEROES, window->count);
		memset(window->data, 0, window->count * window->size);
	}
	return CHECK_OK(error);
}

static bool world_step(struct world *world)
{
	struct random *random = &world->random;
	struct sqlite_model *window = &world->windows[random_below(random, WINDOWS)];
	uint64_t most = random_below(random, 3) ? 5 : window->count;
	uint64_t sector = random_below(random, window->count);
	uint64_t count = 1 + random_below(random, min_u64(most, window->count - sector));

	switch (random_below(random, 24)) {
	case 0:
	case 1:
		return CHECK_OK(disk_flush(world->layer.disk));
	case 2:
		return random_below(random, 8) || sqlite_again(&world->layer);
	case 3:
		return random_below(random, 8) || world_clear(world, random_below(random, 2));
	case 4:
	case 5:
		return model_check_read(window, world->layer.disk, sector, count);
	case 6:
		return model_check_runs(window, world->layer.disk, sector, count);
	default:
		break;
	}
	return model_change(window, world->layer.disk,
			    (enum model_op)random_below(random, MODEL_OPS), sector, count,
			    random_next(random));
}

static void test_random_task(void *argument)
{
	static const uint32_t sizes[] = {512, 4096, 65536};

	(void)argument;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct world world;
		bool good = world_open(&world, sizes[i]);

		for (unsigned step = 0; step < 1500 * factor && good; step++) {
			check_context("SEED=%" PRIu64 ", sectors of %u, step %u", seed, sizes[i],
				      step);
			good = world_step(&world) && (step % 16 || world_check(&world));
		}
		good = good && world_check(&world) && sqlite_again(&world.layer) &&
		       world_check(&world);
		world_close(&world);
	}
}
RUN_IN_TASK(test_random)

/* ---- How it is kept. ---- */

/* Many pieces: some in the file, some dropped, some pending, over three of them. */
static void test_fragments_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "4M"}}};
	struct sqlite_model model;

	(void)argument;
	sqlite_remove(PATH);
	model_init(&model, 512, 0, 600);
	if (!sqlite_begin(&layer))
		return;
	model_change(&model, layer.disk, MODEL_WRITE, 0, 500, 1);
	CHECK_OK(disk_flush(layer.disk));
	for (unsigned i = 0; i < 600; i += 2)
		model_change(&model, layer.disk, MODEL_DROP, i, 1, 0);
	model_check(&model, layer.disk);
	for (unsigned i = 0; i < 600; i += 3)
		model_change(&model, layer.disk, MODEL_WRITE, i, 1, i);
	model_check(&model, layer.disk);
	for (unsigned i = 0; i < 600; i += 5)
		model_change(&model, layer.disk, MODEL_ZERO, i, 1, i);
	model_check(&model, layer.disk);
	CHECK_OK(disk_flush(layer.disk));
	model_check(&model, layer.disk);
	sqlite_end(&layer);
	model_free(&model);
}
RUN_IN_TASK(test_fragments)

static uint64_t rows(void)
{
	return (uint64_t)sqlite_sql(PATH, "SELECT count(*) FROM runs");
}

/* A discard of 1 TiB is one row, whatever it covers, and however it came about. */
static void test_large_zeros_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "1T"}}};
	struct sqlite_model model;
	uint64_t count;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	count = disk_sector_count(layer.disk);
	model_init(&model, 512, 12345, 3000);
	for (unsigned i = 0; i < 100; i++)
		model_change(&model, layer.disk, MODEL_WRITE, i * 30, 1 + i % 30, i);
	CHECK_OK(disk_flush(layer.disk));
	CHECK_OK(disk_write_zeroes(layer.disk, 0, count, 0));
	memset(model.states, LAYER_ZEROES, model.count);
	memset(model.data, 0, model.count * 512);
	model_check(&model, layer.disk);
	sqlite_end(&layer);
	CHECK_EQ(rows(), 1);
	if (!sqlite_begin(&layer))
		return;
	model_check(&model, layer.disk);
	/* A hole in it, and the hole closed again. */
	model_change(&model, layer.disk, MODEL_WRITE, 7, 1, 5);
	CHECK_OK(disk_flush(layer.disk));
	model_check(&model, layer.disk);
	sqlite_end(&layer);
	CHECK_EQ(rows(), 3);
	if (!sqlite_begin(&layer))
		return;
	model_change(&model, layer.disk, MODEL_ZERO, 7, 1, 0);
	sqlite_end(&layer);
	CHECK_EQ(rows(), 1);
	/* Piece by piece. */
	if (!sqlite_begin(&layer))
		return;
	CHECK_OK(layer_drop(layer.disk, 0, count));
	for (unsigned i = 0; i < 64; i++) {
		CHECK_OK(disk_unmap(layer.disk, count / 64 * (i * 5 % 64), count / 64));
		CHECK_OK(disk_flush(layer.disk));
	}
	sqlite_end(&layer);
	CHECK_EQ(rows(), 1);
	model_free(&model);
}
RUN_IN_TASK(test_large_zeros)

/* Writes into what there is stay in its rows; what is nothing but zeros takes no data. */
static void test_rows_task(void *argument)
{
	struct sqlite_layer layer = {
		.options = {{"path", PATH}, {"size", "1M"}, {"sector_size", "4K"}}};
	struct sqlite_model model;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	model_init(&model, 4096, 0, 256);
	model_change(&model, layer.disk, MODEL_WRITE, 0, 16, 1);
	CHECK_OK(disk_flush(layer.disk));
	for (unsigned i = 0; i < 16; i++)
		model_change(&model, layer.disk, MODEL_WRITE, i, 1, i + 9);
	model_check(&model, layer.disk);
	sqlite_end(&layer);
	CHECK_EQ(rows(), 64 * KIB / CHUNK_SIZE);
	CHECK_EQ(sqlite_sql(PATH, "SELECT runs FROM meta"), 64 * KIB / CHUNK_SIZE);
	CHECK_EQ(sqlite_sql(PATH, "SELECT data_sectors FROM meta"), 16);
	if (!sqlite_begin(&layer))
		return;
	model_check(&model, layer.disk);
	CHECK_OK(disk_flush(layer.disk));
	for (unsigned i = 0; i < 16; i++)
		model_change(&model, layer.disk, MODEL_ZERO, i, 1, 0);
	model_check(&model, layer.disk);
	sqlite_end(&layer);
	CHECK_EQ(rows(), 1);
	CHECK_EQ(sqlite_sql(PATH, "SELECT data_sectors FROM meta"), 0);
	model_free(&model);
}
RUN_IN_TASK(test_rows)

static void test_zero_data_task(void *argument)
{
	static char zeros[256 * 1024];
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "1M"}}};
	struct layer_run run;
	struct iovec iov;
	struct sg sg = sg_of(&iov, zeros, sizeof(zeros));

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	CHECK_OK(disk_write(layer.disk, &sg, 3, 0));
	CHECK_OK(disk_flush(layer.disk));
	CHECK_OK(layer_run(layer.disk, 0, 2048, &run));
	CHECK_EQ(run.state, LAYER_ABSENT);
	CHECK_EQ(run.count, 3);
	CHECK_OK(layer_run(layer.disk, 3, 2045, &run));
	CHECK_EQ(run.state, LAYER_ZEROES);
	CHECK_EQ(run.count, 512);
	sqlite_end(&layer);
	CHECK_EQ(rows(), 1);
}
RUN_IN_TASK(test_zero_data)

/* More than one transaction, more than the log may hold, more than what may be pending. */
static void test_much_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "1G"}}};
	struct sqlite *sqlite;
	size_t length = MIB;
	char *data = malloc(length), *back = malloc(length);
	struct iovec iov;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	sqlite = sqlite_of(layer.disk);
	for (uint64_t i = 0; i < 96; i++) {
		struct sg sg = sg_of(&iov, data, length);
		uint64_t pending, memory;

		pattern_fill(data, length, i % 80);
		CHECK_OK(disk_write(layer.disk, &sg, i % 80 * (length / 512), 0));
		pending_bytes(&sqlite->pending, &pending, &memory);
		CHECK(memory < 20 * MIB);
		CHECK(atomic_load(&sqlite->committer.wal_bytes) < 160 * MIB);
	}
	CHECK_OK(disk_flush(layer.disk));
	CHECK(atomic_load(&sqlite->committer.checkpoints) > 0);
	CHECK_EQ(atomic_load(&sqlite->file_data_bytes), 80 * MIB);
	sqlite_again(&layer);
	for (uint64_t i = 0; i < 80; i++) {
		struct sg sg = sg_of(&iov, back, length);

		pattern_fill(data, length, i);
		CHECK_OK(disk_read(layer.disk, &sg, i * (length / 512)));
		CHECK(memcmp(data, back, length) == 0);
	}
	CHECK_OK(layer_drop(layer.disk, 1, 80 * MIB / 512));
	CHECK_OK(disk_flush(layer.disk));
	CHECK_EQ(atomic_load(&sqlite_of(layer.disk)->file_data_bytes), 512);
	sqlite_end(&layer);
	free(data);
	free(back);
}
RUN_IN_TASK(test_much)

/* What nobody flushes goes into the file all the same. */
static void test_idle_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "1M"}}};
	struct sqlite_model model;
	struct sqlite *sqlite;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	sqlite = sqlite_of(layer.disk);
	model_init(&model, 512, 0, 20);
	for (unsigned round = 1; round <= 3; round++) {
		model_change(&model, layer.disk, MODEL_WRITE, 0, 20, round);
		for (unsigned i = 0; i < 1000 && pending_newest(&sqlite->pending) > 0; i++)
			task_sleep_ns(NS_PER_S / 100);
		CHECK_EQ(atomic_load(&sqlite->committer.commits), round);
		if (round == 2) /* long enough for the watch to end */
			task_sleep_ns(NS_PER_S / 2);
	}
	model_check(&model, layer.disk);
	sqlite_end(&layer);
	model_free(&model);
}
RUN_IN_TASK(test_idle)

/* ---- Alone. ---- */

static void test_alone_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "64M"}}, .alone = true};
	struct sqlite_model model;
	struct extent extent;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	CHECK_EQ(disk_size(layer.disk), 64 * MIB);
	CHECK_EQ(disk_sector_size(layer.disk), 512);
	CHECK_EQ(layer.disk->geometry.physical_sector_size, 512);
	CHECK_EQ(layer.disk->geometry.unmap, UNMAP_ZEROES);
	CHECK(!layer.disk->geometry.fua && !layer.disk->geometry.has_id);
	model_init(&model, 512, 1000, 100);
	model_change(&model, layer.disk, MODEL_WRITE, 0, 100, 1);
	for (unsigned i = 0; i < 2; i++) {
		CHECK_OK(disk_extent(layer.disk, 0, 5000, &extent));
		CHECK_EQ(extent.kind, EXTENT_HOLE);
		CHECK_EQ(extent.count, 1000);
		CHECK_OK(disk_extent(layer.disk, 1000, 4000, &extent));
		CHECK_EQ(extent.kind, EXTENT_DATA);
		CHECK_EQ(extent.count, 100);
		CHECK_OK(disk_flush(layer.disk));
	}
	CHECK_OK(disk_unmap(layer.disk, 0, disk_sector_count(layer.disk)));
	CHECK_OK(disk_extent(layer.disk, 0, 5000, &extent));
	CHECK_EQ(extent.kind, EXTENT_HOLE);
	CHECK_EQ(extent.count, 5000);
	sqlite_end(&layer);
	CHECK_EQ(rows(), 0);
	model_free(&model);
}
RUN_IN_TASK(test_alone)

static int enter(void **state)
{
	const char *text = getenv("SEED");

	if (text)
		seed = strtoull(text, NULL, 0);
	if (getenv("LONG") && getenv("LONG")[0])
		factor = 10;
	return scratch_enter_4_workers(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),	    cmocka_unit_test(test_fragments),
		cmocka_unit_test(test_large_zeros), cmocka_unit_test(test_rows),
		cmocka_unit_test(test_zero_data),   cmocka_unit_test(test_much),
		cmocka_unit_test(test_idle),	    cmocka_unit_test(test_alone),
	};

	return cmocka_run_group_tests(tests, enter, scratch_leave_workers);
}
