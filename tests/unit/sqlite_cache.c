// SPDX-License-Identifier: MIT
/*
 * Caches: how they are called, whose they are, what they forget and what never; after an unclean end
 * a cache that is written through is empty.
 *
 *	SEED=n	replays a run
 *	LONG=1	a longer one
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/sqlite/sqlite.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/sqlite.h"

#define PATH	"layer.diskfs"
#define THROUGH (LAYER_CACHE | LAYER_WRITE_THROUGH)

static uint64_t seed = 1;
static unsigned factor = 1;

/* ---- Names. ---- */

static void check_name(const struct sqlite_base *base, const char *key, const char *name)
{
	struct sqlite_layer layer = {.options = {{"cache_dir", "."}, {key ? "key" : NULL, key}},
				     .below = base->disk,
				     .role = LAYER_CACHE};
	struct sqlite_model model;

	unlink(name);
	model_init(&model, 512, 100, 50);
	for (unsigned i = 0; i < 2; i++) {
		if (!sqlite_begin(&layer))
			break;
		CHECK_EQ(disk_sector_count(layer.disk), 4096);
		CHECK_EQ(layer.disk->geometry.has_id, base->probe.geometry.has_id);
		CHECK(!memcmp(layer.disk->geometry.id, base->probe.geometry.id, 16) ||
		      !base->probe.geometry.has_id);
		if (i == 0)
			model_change(&model, layer.disk, MODEL_POPULATE, 5, 20, 3);
		model_check(&model, layer.disk);
		sqlite_end(&layer);
		CHECK_EQ(access(name, F_OK), 0);
		CHECK_EQ(sqlite_sql(name, "SELECT own OR dirty FROM meta"), 0);
	}
	unlink(name);
	model_free(&model);
}

static void test_names_task(void *argument)
{
	struct sqlite_base base, nameless;
	struct sqlite_layer layer = {.options = {{"cache_dir", "."}}, .role = LAYER_CACHE};

	(void)argument;
	sqlite_base_open(&base, 4096, "0123456789abcdef");
	sqlite_base_open(&nameless, 4096, NULL);
	check_name(&base, NULL, "30313233343536373839616263646566.diskfs");
	check_name(&base, "mine", "mine.diskfs");
	check_name(&nameless, "a b.c", "a b.c.diskfs");
	layer.below = nameless.disk;
	sqlite_refused(&layer, "key", "'probe' has no id that its cache could be called after");
	layer.options[0][1] = "nowhere";
	layer.below = base.disk;
	sqlite_refused(&layer, "path", "cannot create 'nowhere/3031");
	sqlite_base_close(&base);
	sqlite_base_close(&nameless);
}
RUN_IN_TASK(test_names)

/* ---- Its own. ---- */

static struct sqlite_layer with_role(unsigned role)
{
	return (struct sqlite_layer){.options = {{"path", PATH}, {"size", "64M"}}, .role = role};
}

static int64_t is_own(void)
{
	return sqlite_sql(PATH, "SELECT own FROM meta");
}

static int64_t is_dirty(void)
{
	return sqlite_sql(PATH, "SELECT dirty FROM meta");
}

static void test_own_task(void *argument)
{
	struct sqlite_layer diff = with_role(0), cache = with_role(LAYER_CACHE);
	struct sqlite_layer through = with_role(LAYER_WRITE_THROUGH);
	struct sqlite_model model;

	(void)argument;
	model_init(&model, 512, 0, 60);
	sqlite_remove(PATH);
	if (!sqlite_begin(&diff))
		return;
	sqlite_end(&diff);
	CHECK_EQ(is_own(), 1);
	sqlite_refused(&through, "path",
		       "'" PATH "' may hold what is nowhere else, and cannot be written through");
	/* A cache is a copy, however much is populated, until it is written to. */
	sqlite_remove(PATH);
	if (!sqlite_begin(&cache))
		return;
	model_change(&model, cache.disk, MODEL_POPULATE, 0, 20, 1);
	model_change(&model, cache.disk, MODEL_DROP, 10, 5, 1);
	sqlite_again(&cache);
	CHECK(!atomic_load(&sqlite_of(cache.disk)->own));
	sqlite_end(&cache);
	CHECK_EQ(is_own(), 0);
	if (!sqlite_begin(&through))
		return;
	model_check(&model, through.disk);
	model_change(&model, through.disk, MODEL_WRITE, 20, 10, 1);
	sqlite_end(&through);
	CHECK_EQ(is_own(), 0);
	if (!sqlite_begin(&cache))
		return;
	model_check(&model, cache.disk);
	model_change(&model, cache.disk, MODEL_ZERO, 30, 10, 1);
	/* Before it is acknowledged: whatever follows, it is known. */
	CHECK_EQ(sqlite_sql(PATH, "SELECT own FROM meta"), 1);
	sqlite_end(&cache);
	sqlite_refused(&through, "path", "may hold what is nowhere else");
	if (!sqlite_begin(&diff))
		return;
	model_check(&model, diff.disk);
	sqlite_end(&diff);
	model_free(&model);
}
RUN_IN_TASK(test_own)

/* ---- An unclean end. ---- */

static void test_dirty_task(void *argument)
{
	struct sqlite_layer through = with_role(THROUGH), reader = with_role(LAYER_CACHE);
	struct sqlite_model model, empty;

	(void)argument;
	model_init(&model, 512, 0, 60);
	model_init(&empty, 512, 0, 60);
	reader.flags = DISK_OPEN_READ_ONLY;
	sqlite_remove(PATH);
	if (!sqlite_begin(&through))
		return;
	/* From the beginning: what is below is written first. */
	CHECK_EQ(sqlite_sql(PATH, "SELECT dirty FROM meta"), 1);
	model_change(&model, through.disk, MODEL_WRITE, 0, 30, 1);
	sqlite_end(&through);
	CHECK_EQ(is_dirty(), 0);
	if (!sqlite_begin(&through))
		return;
	model_check(&model, through.disk);
	CHECK_EQ(sqlite_sql(PATH, "SELECT dirty FROM meta"), 1);
	sqlite_end(&through);
	CHECK_EQ(is_dirty(), 0);
	/* As a crash leaves it. */
	sqlite_sql(PATH, "UPDATE meta SET dirty = 1");
	if (sqlite_begin(&reader)) {
		model_check(&empty, reader.disk);
		sqlite_end(&reader);
	}
	CHECK_EQ(is_dirty(), 1);
	if (!sqlite_begin(&through))
		return;
	model_check(&empty, through.disk);
	model_change(&empty, through.disk, MODEL_WRITE, 10, 30, 2);
	sqlite_again(&through);
	model_check(&empty, through.disk);
	sqlite_end(&through);
	CHECK_EQ(is_dirty(), 0);
	CHECK_EQ(sqlite_sql(PATH, "SELECT sum(count) FROM runs"), 30);
	model_free(&model);
	model_free(&empty);
}
RUN_IN_TASK(test_dirty)

/* Whatever it is used for then. */
static void test_dirty_cache_task(void *argument)
{
	struct sqlite_layer cache = with_role(LAYER_CACHE);
	struct sqlite_model model;
	struct layer_run run;

	(void)argument;
	model_init(&model, 512, 0, 60);
	sqlite_remove(PATH);
	if (!sqlite_begin(&cache))
		return;
	model_change(&model, cache.disk, MODEL_POPULATE, 0, 30, 1);
	sqlite_end(&cache);
	sqlite_sql(PATH, "UPDATE meta SET dirty = 1");
	if (!sqlite_begin(&cache))
		return;
	CHECK_OK(layer_run(cache.disk, 0, 1000, &run));
	CHECK_EQ(run.count, 1000);
	CHECK_EQ(run.state, LAYER_ABSENT);
	sqlite_end(&cache);
	CHECK_EQ(is_dirty(), 0);
	model_free(&model);
}
RUN_IN_TASK(test_dirty_cache)

/* A crash that leaves a log: the log of the old file must not become one of the new. */
static void test_dirty_log_task(void *argument)
{
	struct sqlite_layer through = with_role(THROUGH);
	struct sqlite_model model, empty;

	(void)argument;
	model_init(&model, 512, 0, 60);
	model_init(&empty, 512, 0, 60);
	sqlite_remove(PATH);
	if (!sqlite_begin(&through))
		return;
	model_change(&model, through.disk, MODEL_WRITE, 0, 60, 1);
	CHECK_OK(disk_flush(through.disk));
	CHECK_EQ(system("cp " PATH " crashed.diskfs && cp " PATH "-wal crashed.diskfs-wal"), 0);
	sqlite_end(&through);
	CHECK_EQ(rename("crashed.diskfs", PATH), 0);
	CHECK_EQ(rename("crashed.diskfs-wal", PATH "-wal"), 0);
	if (!sqlite_begin(&through))
		return;
	model_check(&empty, through.disk);
	model_change(&empty, through.disk, MODEL_WRITE, 7, 9, 1);
	sqlite_again(&through);
	model_check(&empty, through.disk);
	sqlite_end(&through);
	model_free(&model);
	model_free(&empty);
}
RUN_IN_TASK(test_dirty_log)

/* ---- Forgetting. ---- */

#define LIMIT (4 * MIB)
#define PIECE (64 * KIB)

static int piece(struct disk *disk, uint64_t index, bool populate)
{
	char *data = malloc(PIECE);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, PIECE);
	uint64_t sector = index * (PIECE / 512);
	int error;

	pattern_fill(data, PIECE, index);
	error = populate ? layer_populate(disk, &sg, sector) : disk_write(disk, &sg, sector, 0);
	free(data);
	return error;
}

/* Whether it is there, as a whole; what is there is right. */
static bool piece_is_there(struct disk *disk, uint64_t index)
{
	char *data = malloc(PIECE), *wanted = malloc(PIECE);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, PIECE);
	struct layer_gaps gaps;
	bool there;

	CHECK_OK(layer_read(disk, &sg, index * (PIECE / 512), &gaps));
	there = gaps.count == 0;
	pattern_fill(wanted, PIECE, index);
	if (there)
		CHECK(memcmp(data, wanted, PIECE) == 0);
	free(data);
	free(wanted);
	return there;
}

static struct sqlite_layer limited(unsigned role)
{
	return (struct sqlite_layer){.options = {{"path", PATH}, {"size", "1G"}, {"limit", "4M"}},
				     .role = role};
}

/* What is used again and again stays; what was used once goes; it never has more than it may. */
static void check_limit(unsigned role, bool populate)
{
	struct sqlite_layer layer = limited(role);
	unsigned there = 0;
	struct sqlite *sqlite;

	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	sqlite = sqlite_of(layer.disk);
	for (uint64_t i = 0; i < 4; i++)
		CHECK_OK(piece(layer.disk, i, populate));
	for (uint64_t i = 100; i < 500; i++) {
		check_context("role %u, populate %d, piece %" PRIu64, role, populate, i);
		CHECK_OK(piece(layer.disk, i, populate));
		CHECK(piece_is_there(layer.disk, i % 4));
		if (i % 8)
			continue;
		CHECK_OK(disk_flush(layer.disk));
		CHECK(atomic_load(&sqlite->file_data_bytes) <= LIMIT);
	}
	CHECK(atomic_load(&sqlite->cache.evicted_bytes) >= 400 * PIECE - LIMIT);
	CHECK(atomic_load(&sqlite->file_data_bytes) > LIMIT / 2);
	sqlite_again(&layer);
	for (uint64_t i = 100; i < 500; i++)
		there += piece_is_there(layer.disk, i);
	CHECK(there >= 30 && there <= LIMIT / PIECE);
	sqlite_end(&layer);
	CHECK_EQ(sqlite_sql(PATH, "SELECT count(*) FROM runs") -
			 sqlite_sql(PATH, "SELECT runs FROM meta"),
		 0);
	CHECK_EQ(sqlite_sql(PATH, "SELECT sum(length(data)) / 512 FROM runs") -
			 sqlite_sql(PATH, "SELECT data_sectors FROM meta"),
		 0);
	CHECK(sqlite_sql(PATH, "SELECT page_count * 4096 FROM pragma_page_count") <
	      (int64_t)(LIMIT + 2 * MIB));
}

static void test_limit_task(void *argument)
{
	(void)argument;
	check_limit(LAYER_CACHE, true);
	check_limit(THROUGH, true);
	check_limit(THROUGH, false);
	check_limit(LAYER_WRITE_THROUGH, false);
}
RUN_IN_TASK(test_limit)

/* What may be nowhere else is never forgotten: then there is no more room, also for populations. */
static void test_own_is_kept_task(void *argument)
{
	struct sqlite_layer layer = limited(LAYER_CACHE);
	uint64_t taken = 0;
	int error = 0;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	for (; taken < 100 && !error; taken += !error)
		error = piece(layer.disk, taken, taken % 2);
	CHECK_EQ(taken, LIMIT / PIECE);
	CHECK_KIND(error, ERROR_IO);
	CHECK_KIND(piece(layer.disk, 500, true), ERROR_IO);
	CHECK_KIND(piece(layer.disk, 501, false), ERROR_IO);
	for (uint64_t i = 0; i < taken; i += 4)
		CHECK_OK(piece(layer.disk, i, false));
	sqlite_again(&layer);
	for (uint64_t i = 0; i < taken; i++)
		CHECK(piece_is_there(layer.disk, i));
	sqlite_end(&layer);
}
RUN_IN_TASK(test_own_is_kept)

/* ---- Many at once, while it forgets. ---- */

#define TASKS  6
#define RANGES 40
#define STRIDE (512 * KIB / 512) /* sectors from one to the next */
#define WORDS  (512 / sizeof(uint64_t))

/*
 * What is below, as it were: each sector has a version, which only its task changes; the cache has
 * it, or nothing.
 */
struct truth {
	struct sqlite_layer layer;
	uint64_t versions[RANGES * TASKS];
};

static void truth_put(struct truth *truth, unsigned place, bool populate)
{
	uint64_t data[WORDS], sector = place / TASKS * STRIDE + place % TASKS;
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	if (!populate)
		truth->versions[place]++;
	for (unsigned i = 0; i < WORDS; i++)
		data[i] = truth->versions[place];
	CHECK_OK(populate ? layer_populate(truth->layer.disk, &sg, sector)
			  : disk_write(truth->layer.disk, &sg, sector, 0));
}

static bool truth_check(struct truth *truth, unsigned place)
{
	uint64_t data[WORDS], sector = place / TASKS * STRIDE + place % TASKS;
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));
	struct layer_gaps gaps;

	if (!CHECK_OK(layer_read(truth->layer.disk, &sg, sector, &gaps)))
		return false;
	for (unsigned i = 0; i < WORDS && gaps.count == 0; i++)
		if (!CHECK_EQ(data[i], truth->versions[place]))
			return false;
	return true;
}

static void truth_task(unsigned index, void *argument)
{
	struct truth *truth = argument;
	struct random random = {.state = seed * 10 + index};
	bool good = true;

	for (unsigned i = 0; i < 400 * factor && good; i++) {
		unsigned place = (unsigned)random_below(&random, RANGES) * TASKS + index;

		switch (random_below(&random, 6)) {
		case 0:
		case 1:
			truth_put(truth, place, false);
			break;
		case 2:
			truth_put(truth, place, true);
			break;
		case 3:
			if (random_below(&random, 4) == 0)
				CHECK_OK(disk_flush(truth->layer.disk));
			/* Something to be forgotten for. */
			CHECK_OK(
				piece(truth->layer.disk, 8000 + random_below(&random, 4000), true));
			break;
		default:
			good = truth_check(truth, place);
			break;
		}
	}
}

static void truth_begin(void *argument)
{
	sqlite_begin(argument);
}

static void truth_end(void *argument)
{
	struct truth *truth = argument;

	CHECK(atomic_load(&sqlite_of(truth->layer.disk)->cache.evicted_bytes) > 0);
	sqlite_again(&truth->layer);
	for (unsigned i = 0; i < RANGES * TASKS; i++)
		truth_check(truth, i);
	sqlite_end(&truth->layer);
}

static void test_truth(void **state)
{
	static struct truth truth;

	(void)state;
	truth = (struct truth){.layer = limited(THROUGH)};
	truth.layer.options[2][1] = "1M";
	sqlite_remove(PATH);
	run_task(truth_begin, &truth.layer);
	if (truth.layer.disk)
		run_tasks(TASKS, truth_task, &truth);
	run_task(truth_end, &truth);
}

static int enter(void **state)
{
	const char *text = getenv("SEED");

	if (text)
		seed = strtoull(text, NULL, 0);
	if (getenv("LONG") && getenv("LONG")[0])
		factor = 20;
	return scratch_enter_4_workers(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),	    cmocka_unit_test(test_own),
		cmocka_unit_test(test_dirty),	    cmocka_unit_test(test_dirty_cache),
		cmocka_unit_test(test_dirty_log),   cmocka_unit_test(test_limit),
		cmocka_unit_test(test_own_is_kept), cmocka_unit_test(test_truth),
	};

	return cmocka_run_group_tests(tests, enter, scratch_leave_workers);
}
