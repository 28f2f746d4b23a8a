// SPDX-License-Identifier: MIT
/*
 * Many at once on one layer of the driver sqlite: what readers find beside commits, what becomes of
 * populations, drops and large writes, who shares a commit.
 *
 *	SEED=n	replays a run
 *	LONG=1	longer ones
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
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

/* ---- Many at once. ---- */

#define TASKS	   12
#define OWN	   24 /* sectors of each */
#define SHARED_MIB 4

struct crowd {
	struct sqlite_layer layer;
	uint64_t rounds;
};

/*
 * Each task has every twelfth sector, so that all share chunks and rows. Each knows exactly what its
 * own are.
 */
static void crowd_task(unsigned index, void *argument)
{
	struct crowd *crowd = argument;
	struct disk *disk = crowd->layer.disk;
	struct random random = {.state = seed * 100 + index};
	struct sqlite_model models[OWN];
	bool good = true;

	for (unsigned i = 0; i < OWN; i++)
		model_init(&models[i], 512, i * TASKS + index, 1);
	for (uint64_t i = 0; i < crowd->rounds && good; i++) {
		struct sqlite_model *model = &models[random_below(&random, OWN)];

		good = model_change(model, disk, (enum model_op)random_below(&random, MODEL_OPS), 0,
				    1, random_next(&random));
		if (random_below(&random, 10) == 0)
			good = good && CHECK_OK(disk_flush(disk));
		good = good && model_check(&models[random_below(&random, OWN)], disk);
	}
	for (unsigned i = 0; i < OWN; i++) {
		good = good && model_check(&models[i], disk);
		model_free(&models[i]);
	}
}

static void begin_task(void *argument)
{
	sqlite_begin(argument);
}

static void end_task(void *argument)
{
	sqlite_end(argument);
}

static void test_crowd(void **state)
{
	struct crowd crowd = {
		.layer = {.options = {{"path", PATH}, {"size", "4M"}}, .role = LAYER_CACHE},
		.rounds = 150 * factor,
	};

	(void)state;
	sqlite_remove(PATH);
	run_task(begin_task, &crowd.layer);
	if (crowd.layer.disk)
		run_tasks(TASKS, crowd_task, &crowd);
	run_task(end_task, &crowd.layer);
}

/* ---- Readers beside commits. ---- */

#define READERS	    6
#define STAMPS	    8 /* sectors, one in each of several chunks */
#define STAMP_EVERY 40

struct race {
	struct sqlite_layer layer;
	_Atomic uint64_t acknowledged[STAMPS];
	_Atomic uint64_t drops[STAMPS]; /* that have begun; odd while it may be absent */
	bool with_populations;		/* of zeros: older than any other value */
	atomic_bool done;
};

static int put_stamp(struct disk *disk, unsigned stamp, uint64_t value)
{
	uint64_t data[64];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
		data[i] = value;
	return disk_write(disk, &sg, (uint64_t)stamp * STAMP_EVERY, 0);
}

/* What is read is never older than what was acknowledged before, never torn, and only absent while
 * it was dropped. */
static void race_read(struct race *race, unsigned stamp)
{
	uint64_t data[64] = {0}, least = atomic_load(&race->acknowledged[stamp]);
	uint64_t drops = atomic_load(&race->drops[stamp]);
	bool dropped;
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));
	struct layer_gaps gaps;

	CHECK_OK(layer_read(race->layer.disk, &sg, (uint64_t)stamp * STAMP_EVERY, &gaps));
	dropped = drops % 2 || atomic_load(&race->drops[stamp]) != drops;
	if (least == 0 || (dropped && (gaps.count > 0 || race->with_populations)))
		return;
	CHECK_EQ(gaps.count, 0);
	CHECK(data[0] >= least);
	for (unsigned i = 1; i < ARRAY_SIZE(data); i++)
		if (!CHECK_EQ(data[i], data[0]))
			break;
}

static void race_write(struct race *race, struct random *random, uint64_t value)
{
	unsigned stamp = (unsigned)random_below(random, STAMPS);
	bool drops = random_below(random, 4) == 0;

	if (!CHECK_OK(put_stamp(race->layer.disk, stamp, value)))
		return;
	atomic_store(&race->acknowledged[stamp], value);
	if (drops) {
		atomic_fetch_add(&race->drops[stamp], 1);
		CHECK_OK(layer_drop(race->layer.disk, (uint64_t)stamp * STAMP_EVERY, 1));
		if (random_below(random, 2))
			CHECK_OK(disk_flush(race->layer.disk));
		CHECK_OK(put_stamp(race->layer.disk, stamp, value));
		atomic_fetch_add(&race->drops[stamp], 1);
	}
	if (random_below(random, 3) == 0)
		CHECK_OK(disk_flush(race->layer.disk));
}

static void race_task(unsigned index, void *argument)
{
	struct race *race = argument;
	struct random random = {.state = seed * 50 + index};

	if (index > 0) {
		while (!atomic_load(&race->done)) {
			race_read(race, (unsigned)random_below(&random, STAMPS));
			task_yield();
		}
		return;
	}
	for (uint64_t i = 1; i <= 600 * factor; i++)
		race_write(race, &random, i);
	atomic_store(&race->done, true);
}

static void test_race(void **state)
{
	struct race race = {.layer = {.options = {{"path", PATH}, {"size", "4M"}}}};

	(void)state;
	sqlite_remove(PATH);
	run_task(begin_task, &race.layer);
	if (race.layer.disk)
		run_tasks(READERS + 1, race_task, &race);
	run_task(end_task, &race.layer);
}

/* A population never replaces what was written, whenever that was committed. */
static void populate_task(unsigned index, void *argument)
{
	struct race *race = argument;
	struct random random = {.state = seed * 70 + index};
	char old[512];
	struct iovec iov;
	struct sg sg = sg_of(&iov, old, sizeof(old));

	if (index % 2 == 0) {
		race_task(index, argument);
		return;
	}
	memset(old, 0, sizeof(old));
	while (!atomic_load(&race->done)) {
		unsigned stamp = (unsigned)random_below(&random, STAMPS);
		int error = layer_populate(race->layer.disk, &sg, (uint64_t)stamp * STAMP_EVERY);

		CHECK(!error || error_errno(error) == EBUSY);
		task_yield();
	}
}

static void test_populate_race(void **state)
{
	struct race race = {
		.layer = {.options = {{"path", PATH}, {"size", "4M"}}, .role = LAYER_CACHE},
		.with_populations = true,
	};

	(void)state;
	sqlite_remove(PATH);
	run_task(begin_task, &race.layer);
	if (race.layer.disk)
		run_tasks(READERS + 1, populate_task, &race);
	run_task(end_task, &race.layer);
}

/* A batch is committed as a whole, also what is being written into it when it is sealed. */
#define LARGE MIB

static void large_task(unsigned index, void *argument)
{
	struct race *race = argument;
	char *data = malloc(LARGE), *back = malloc(LARGE);
	struct iovec iov;

	while (index >= 3 && !atomic_load(&race->done)) {
		CHECK_OK(disk_flush(race->layer.disk));
		task_yield();
	}
	for (unsigned i = 0; i < 12 * factor && index < 3; i++) {
		struct sg sg = sg_of(&iov, data, LARGE);

		pattern_fill(data, LARGE, i);
		CHECK_OK(disk_write(race->layer.disk, &sg, index * (LARGE / 512), 0));
		CHECK_OK(disk_flush(race->layer.disk));
		sg = sg_of(&iov, back, LARGE);
		CHECK_OK(disk_read(race->layer.disk, &sg, index * (LARGE / 512)));
		CHECK(memcmp(data, back, LARGE) == 0);
	}
	atomic_store(&race->done, true);
	free(data);
	free(back);
}

static void test_large(void **state)
{
	struct race race = {.layer = {.options = {{"path", PATH}, {"size", "4M"}}}};

	(void)state;
	sqlite_remove(PATH);
	run_task(begin_task, &race.layer);
	if (race.layer.disk)
		run_tasks(6, large_task, &race);
	run_task(end_task, &race.layer);
}

/* Concurrent flushes share commits. */
static void flush_task(unsigned index, void *argument)
{
	struct sqlite_layer *layer = argument;
	struct sqlite_model model;

	model_init(&model, 512, index, 1);
	for (unsigned i = 0; i < 20; i++) {
		model_change(&model, layer->disk, MODEL_WRITE, 0, 1, i);
		CHECK_OK(disk_flush(layer->disk));
	}
	model_check(&model, layer->disk);
	model_free(&model);
}

static void test_shared_flush(void **state)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "1M"}}};

	(void)state;
	sqlite_remove(PATH);
	run_task(begin_task, &layer);
	if (layer.disk) {
		run_tasks(32, flush_task, &layer);
		CHECK(atomic_load(&sqlite_of(layer.disk)->committer.commits) < 32 * 20 / 2);
	}
	run_task(end_task, &layer);
}

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
		cmocka_unit_test(test_crowd),	      cmocka_unit_test(test_race),
		cmocka_unit_test(test_populate_race), cmocka_unit_test(test_large),
		cmocka_unit_test(test_shared_flush),
	};

	return cmocka_run_group_tests(tests, enter, scratch_leave_workers);
}
