// SPDX-License-Identifier: MIT
/*
 * A file that cannot be written: what was acknowledged stays readable, is tried again, and is lost to
 * nobody; errors keep their identity, and come at once; memory is bounded meanwhile.
 *
 *	SEED=n	replays a run
 *	LONG=1	a longer one
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/sqlite/sqlite.h"
#include "core/task.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/sqlite.h"
#include "tests/lib/vfs.h"

#define PATH	     "layer.diskfs"

#define LOG_AND_FILE (1U << VFS_WAL | 1U << VFS_DATABASE)

static uint64_t seed = 1;
static unsigned factor = 1;

static void break_file(enum vfs_op op, unsigned files, int errnum)
{
	vfs_fail(&(struct vfs_fault){.op = op, .files = files, .errnum = errnum});
}

static void heal(void)
{
	vfs_fail(&(struct vfs_fault){.errnum = 0});
}

static bool is_errno(int error, int errnum)
{
	return CHECK_KIND(error, ERROR_IO) && CHECK_EQ(error_errno(error), errnum);
}

/* A write that is no change of the model. */
static int try_write(struct disk *disk, uint64_t sector)
{
	char data[512] = "lost";
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	return disk_write(disk, &sg, sector, 0);
}

/* ---- One error after the other. ---- */

static const struct {
	enum vfs_op op;
	int errnum;
} errors[] = {
	{VFS_WRITE, ENOSPC}, {VFS_WRITE, EDQUOT}, {VFS_WRITE, EIO},
	{VFS_SYNC, EIO},     {VFS_SYNC, ENOSPC},
};

static void check_one(unsigned index)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "2M"}},
				     .role = LAYER_CACHE};
	int errnum = errors[index].errnum;
	struct sqlite_model model;

	sqlite_remove(PATH);
	model_init(&model, 512, 0, 100);
	if (!sqlite_begin(&layer))
		return;
	model_change(&model, layer.disk, MODEL_WRITE, 0, 50, 1);
	CHECK_OK(disk_flush(layer.disk));
	model_change(&model, layer.disk, MODEL_WRITE, 20, 60, 2);
	model_change(&model, layer.disk, MODEL_DROP, 5, 10, 0);
	model_change(&model, layer.disk, MODEL_ZERO, 70, 20, 0);
	break_file(errors[index].op, 1U << VFS_WAL, errnum);
	is_errno(disk_flush(layer.disk), errnum);
	model_check(&model, layer.disk);
	/* From here on nothing more is taken, but for tries. */
	is_errno(try_write(layer.disk, 3), errnum);
	is_errno(disk_write_zeroes(layer.disk, 3, 1, 0), errnum);
	is_errno(disk_flush(layer.disk), errnum);
	CHECK(vfs_failed() >= 2);
	model_check(&model, layer.disk);
	heal();
	CHECK_OK(disk_flush(layer.disk));
	model_check(&model, layer.disk);
	model_change(&model, layer.disk, MODEL_WRITE, 90, 10, 3);
	if (sqlite_again(&layer)) {
		model_check(&model, layer.disk);
		sqlite_end(&layer);
	}
	model_free(&model);
}

static void test_errors_task(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
		check_context("error %u", i);
		check_one(i);
	}
}
RUN_IN_TASK(test_errors)

/* A write tries again after a while, by itself; so does the layer. */
static void test_retries_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "2M"}}};
	struct sqlite_model model;
	struct sqlite *sqlite;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	sqlite = sqlite_of(layer.disk);
	model_init(&model, 512, 0, 100);
	model_change(&model, layer.disk, MODEL_WRITE, 0, 50, 1);
	break_file(VFS_WRITE, 1U << VFS_WAL, EIO);
	is_errno(disk_flush(layer.disk), EIO);
	heal();
	for (unsigned i = 0; i < 400 && atomic_load(&sqlite->committer.error); i++)
		task_sleep_ns(NS_PER_S / 100);
	CHECK_EQ(atomic_load(&sqlite->committer.error), 0);
	CHECK_EQ(pending_newest(&sqlite->pending), 0);
	model_change(&model, layer.disk, MODEL_WRITE, 50, 50, 1);
	if (sqlite_again(&layer)) {
		model_check(&model, layer.disk);
		sqlite_end(&layer);
	}
	model_free(&model);
}
RUN_IN_TASK(test_retries)

/* What is pending at the end, and cannot be written, is lost, and said to be; the file is sound. */
static void test_end_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "2M"}}};
	struct sqlite_model model;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	model_init(&model, 512, 0, 100);
	model_change(&model, layer.disk, MODEL_WRITE, 0, 50, 1);
	CHECK_OK(disk_flush(layer.disk));
	CHECK_OK(try_write(layer.disk, 60));
	CHECK_OK(try_write(layer.disk, 0));
	break_file(VFS_WRITE, LOG_AND_FILE, ENOSPC);
	sqlite_end(&layer);
	heal();
	if (sqlite_begin(&layer)) {
		model_check(&model, layer.disk);
		sqlite_end(&layer);
	}
	model_free(&model);
}
RUN_IN_TASK(test_end)

/* Memory stays bounded, whatever is written; with room again, all of it is there. */
static void test_bounded_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "256M"}}};
	size_t length = MIB;
	char *data = malloc(length), *back = malloc(length);
	uint64_t taken = 0, pending, memory;
	struct iovec iov;
	int error = 0;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	CHECK_OK(disk_flush(layer.disk));
	break_file(VFS_WRITE, LOG_AND_FILE, ENOSPC);
	for (; taken < 100 && !error; taken += !error) {
		struct sg sg = sg_of(&iov, data, length);

		pattern_fill(data, length, taken);
		error = disk_write(layer.disk, &sg, taken * 2048, 0);
	}
	is_errno(error, ENOSPC);
	CHECK(taken > 2 && taken < 24);
	pending_bytes(&sqlite_of(layer.disk)->pending, &pending, &memory);
	CHECK(memory < 24 * MIB);
	heal();
	CHECK_OK(disk_flush(layer.disk));
	sqlite_again(&layer);
	for (uint64_t i = 0; i < taken; i++) {
		struct sg sg = sg_of(&iov, back, length);

		pattern_fill(data, length, i);
		CHECK_OK(disk_read(layer.disk, &sg, i * 2048));
		CHECK(memcmp(data, back, length) == 0);
	}
	sqlite_end(&layer);
	free(data);
	free(back);
}
RUN_IN_TASK(test_bounded)

/* A log that cannot be copied into the file grows to its bound, and no further. */
static void test_checkpoint_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "64M"}}};
	struct sqlite_model model;
	struct committer *committer;
	int error = 0;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	committer = &sqlite_of(layer.disk)->committer;
	committer->wal_soft = 256 * KIB;
	committer->wal_hard = MIB;
	model_init(&model, 512, 0, 100);
	model_change(&model, layer.disk, MODEL_WRITE, 0, 100, 7);
	CHECK_OK(disk_flush(layer.disk));
	break_file(VFS_WRITE, 1U << VFS_DATABASE, EIO);
	for (unsigned i = 0; i < 2000 && !error; i++) {
		error = try_write(layer.disk, 1000 + i);
		if (!error)
			error = disk_flush(layer.disk);
	}
	is_errno(error, EIO);
	CHECK(atomic_load(&committer->wal_bytes) < 2 * MIB);
	model_check(&model, layer.disk);
	heal();
	CHECK_OK(disk_flush(layer.disk));
	CHECK_OK(try_write(layer.disk, 9000));
	CHECK_OK(disk_flush(layer.disk));
	CHECK(atomic_load(&committer->wal_bytes) < 256 * KIB);
	if (sqlite_again(&layer)) {
		model_check(&model, layer.disk);
		sqlite_end(&layer);
	}
	model_free(&model);
}
RUN_IN_TASK(test_checkpoint)

/* A cache that is to be emptied is not, as long as its log cannot be copied and removed: it would be
 * taken for that of the new file. */
static void test_emptying_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "2M"}},
				     .role = LAYER_CACHE | LAYER_WRITE_THROUGH};
	struct sqlite_model model, empty;

	(void)argument;
	sqlite_remove(PATH);
	model_init(&model, 512, 0, 100);
	model_init(&empty, 512, 0, 100);
	if (!sqlite_begin(&layer))
		return;
	model_change(&model, layer.disk, MODEL_WRITE, 0, 50, 1);
	CHECK_OK(disk_flush(layer.disk));
	CHECK_EQ(system("cp " PATH " crashed.diskfs && cp " PATH "-wal crashed.diskfs-wal"), 0);
	sqlite_end(&layer);
	CHECK_EQ(rename("crashed.diskfs", PATH), 0);
	CHECK_EQ(rename("crashed.diskfs-wal", PATH "-wal"), 0);
	break_file(VFS_WRITE, 1U << VFS_DATABASE, EIO);
	sqlite_refused(&layer, "path",
		       "'" PATH "' cannot be emptied: its log is still there, beside it");
	heal();
	if (sqlite_begin(&layer)) {
		model_check(&empty, layer.disk);
		sqlite_end(&layer);
	}
	model_free(&model);
	model_free(&empty);
}
RUN_IN_TASK(test_emptying)

/* A cache that is written through cannot lose anything: to flush it succeeds, and to drop, even if it
 * has no memory left for that. */
static void test_through_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "1G"}},
				     .role = LAYER_CACHE | LAYER_WRITE_THROUGH};
	struct sqlite_model model, empty;
	struct sqlite *sqlite;
	unsigned drops = 0;

	(void)argument;
	sqlite_remove(PATH);
	model_init(&model, 512, 0, 100);
	model_init(&empty, 512, 0, 100);
	if (!sqlite_begin(&layer))
		return;
	sqlite = sqlite_of(layer.disk);
	model_change(&model, layer.disk, MODEL_WRITE, 0, 50, 1);
	CHECK_OK(disk_flush(layer.disk));
	model_change(&model, layer.disk, MODEL_WRITE, 20, 20, 2);
	break_file(VFS_WRITE, LOG_AND_FILE, ENOSPC);
	CHECK_OK(disk_flush(layer.disk));
	is_errno(try_write(layer.disk, 3), ENOSPC);
	model_change(&model, layer.disk, MODEL_DROP, 3, 30, 0);
	model_check(&model, layer.disk);
	for (; drops < 10 * CHANGES_MAX && !atomic_load(&sqlite->gave_up); drops++)
		if (!CHECK_OK(layer_drop(layer.disk, 200 + drops * 2, 1)))
			break;
	CHECK(drops >= CHANGES_MAX / 2 && drops < 10 * CHANGES_MAX);
	model_check(&empty, layer.disk);
	CHECK(try_write(layer.disk, 3) != 0);
	CHECK_OK(layer_drop(layer.disk, 3, 1));
	CHECK_OK(disk_flush(layer.disk));
	heal();
	sqlite_end(&layer);
	CHECK_EQ(sqlite_sql(PATH, "SELECT dirty FROM meta"), 1);
	if (sqlite_begin(&layer)) {
		model_check(&empty, layer.disk);
		model_change(&empty, layer.disk, MODEL_WRITE, 0, 50, 1);
		sqlite_end(&layer);
	}
	model_free(&model);
	model_free(&empty);
}
RUN_IN_TASK(test_through)

/* ---- Errors at any time. ---- */

#define TASKS 6
#define OWN   16

struct storm {
	struct sqlite_layer layer;
	atomic_uint ended, taken, refused;
};

/* A change that may fail: then it has not happened. */
static void storm_change(struct storm *storm, struct sqlite_model *model, uint64_t value)
{
	struct disk *disk = storm->layer.disk;
	char data[512];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));
	int error;

	pattern_fill(data, sizeof(data), value);
	error = value % 5 ? disk_write(disk, &sg, model->first, 0)
			  : disk_write_zeroes(disk, model->first, 1, 0);
	atomic_fetch_add(error ? &storm->refused : &storm->taken, 1);
	if (error)
		return;
	model->states[0] = value % 5 ? LAYER_DATA : LAYER_ZEROES;
	memset(model->data, 0, sizeof(data));
	if (value % 5)
		memcpy(model->data, data, sizeof(data));
}

static struct sqlite_model storm_models[TASKS][OWN];

static void storm_task(unsigned index, void *argument)
{
	struct storm *storm = argument;
	struct random random = {.state = seed * 30 + index};

	for (unsigned i = 0; i < 200 * factor; i++) {
		struct sqlite_model *model = &storm_models[index][random_below(&random, OWN)];

		storm_change(storm, model, random_next(&random));
		if (random_below(&random, 8) == 0)
			disk_flush(storm->layer.disk);
		if (!model_check_read(model, storm->layer.disk, 0, 1))
			break;
		task_yield();
	}
	atomic_fetch_add(&storm->ended, 1);
}

/* Lets something fail for a few milliseconds, again and again. */
static void weather_task(unsigned index, void *argument)
{
	struct storm *storm = argument;
	struct random random = {.state = seed * 77};

	if (index < TASKS) {
		storm_task(index, argument);
		return;
	}
	while (atomic_load(&storm->ended) < TASKS) {
		unsigned kind = (unsigned)random_below(&random, ARRAY_SIZE(errors));

		vfs_fail(&(struct vfs_fault){
			.op = errors[kind].op,
			.files = 1 + (unsigned)random_below(&random, 3),
			.errnum = errors[kind].errnum,
			.after = (unsigned)random_below(&random, 6),
			.times = 1 + (unsigned)random_below(&random, 3),
		});
		task_sleep_ns(NS_PER_S / 1000 * (1 + random_below(&random, 10)));
		heal();
		/* Whoever waits for the next try need not wait for long. */
		disk_flush(storm->layer.disk);
	}
	heal();
}

static void begin_task(void *argument)
{
	struct storm *storm = argument;

	for (unsigned i = 0; i < TASKS * OWN; i++)
		model_init(&storm_models[i / OWN][i % OWN], 512, i % OWN * TASKS + i / OWN, 1);
	if (!sqlite_begin(&storm->layer))
		return;
	sqlite_of(storm->layer.disk)->committer.wal_soft = 128 * KIB;
	sqlite_of(storm->layer.disk)->committer.wal_hard = 512 * KIB;
}

static void end_task(void *argument)
{
	struct storm *storm = argument;

	CHECK_OK(disk_flush(storm->layer.disk));
	if (!sqlite_again(&storm->layer))
		return;
	for (unsigned i = 0; i < TASKS * OWN; i++) {
		model_check(&storm_models[i / OWN][i % OWN], storm->layer.disk);
		model_free(&storm_models[i / OWN][i % OWN]);
	}
	sqlite_end(&storm->layer);
}

static void test_storm(void **state)
{
	struct storm storm = {.layer = {.options = {{"path", PATH}, {"size", "2M"}}}};

	(void)state;
	sqlite_remove(PATH);
	run_task(begin_task, &storm);
	if (storm.layer.disk)
		run_tasks(TASKS + 1, weather_task, &storm);
	run_task(end_task, &storm);
	print_message("%u changes taken, %u refused\n", storm.taken, storm.refused);
	assert_true(storm.taken > 0 && storm.refused > 0);
	assert_int_equal(sqlite_sql(PATH, "SELECT count(*) FROM pragma_integrity_check WHERE "
					  "integrity_check <> 'ok'"),
			 0);
	assert_int_equal(sqlite_sql(PATH,
				    "SELECT (SELECT count(*) FROM runs) = runs AND "
				    "(SELECT sum(length(data)) FROM runs) / 512 = data_sectors "
				    "FROM meta"),
			 1);
}

/* ---- A file system that is full. ---- */

static void fill_disk(struct sqlite_layer *layer)
{
	size_t length = 64 * KIB;
	char *data = malloc(length), *back = malloc(length);
	struct iovec iov;
	uint64_t flushed = 0;
	int error = 0;

	for (uint64_t i = 0; i < 1000 && !error; i++) {
		struct sg sg = sg_of(&iov, data, length);

		pattern_fill(data, length, i);
		error = disk_write(layer->disk, &sg, i * (length / 512), 0);
		if (!error)
			error = disk_flush(layer->disk);
		flushed += !error;
	}
	is_errno(error, ENOSPC);
	CHECK(flushed > 0);
	sqlite_again(layer);
	for (uint64_t i = 0; i < flushed && layer->disk; i++) {
		struct sg sg = sg_of(&iov, back, length);

		pattern_fill(data, length, i);
		CHECK_OK(disk_read(layer->disk, &sg, i * (length / 512)));
		CHECK(memcmp(data, back, length) == 0);
	}
	free(data);
	free(back);
}

static void test_full_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", "full/" PATH}, {"size", "1G"}}};

	(void)argument;
	if (sqlite_begin(&layer)) {
		fill_disk(&layer);
		sqlite_end(&layer);
	}
	/* No room for a new one. */
	layer.options[0][1] = "full/second.diskfs";
	CHECK_EQ(truncate("full/" PATH, 0), 0);
	CHECK_EQ(system("head -c 4M /dev/zero >full/zeros 2>/dev/null; :"), 0);
	sqlite_refused(&layer, "path",
		       "cannot create 'full/second.diskfs': No space left on device");
	CHECK(access("full/second.diskfs", F_OK) < 0);
}

static void test_full(void **state)
{
	(void)state;
	assert_int_equal(mkdir("full", 0700), 0);
	if (mount("tmpfs", "full", "tmpfs", 0, "size=3M") < 0) {
		assert_int_equal(rmdir("full"), 0);
		skip(); /* no root */
	}
	worker_call(worker_get(0), test_full_task, NULL);
	assert_int_equal(umount("full"), 0);
	assert_int_equal(rmdir("full"), 0);
	check_finish();
}

static int enter(void **state)
{
	const char *text = getenv("SEED");

	if (text)
		seed = strtoull(text, NULL, 0);
	if (getenv("LONG") && getenv("LONG")[0])
		factor = 20;
	vfs_install();
	return scratch_enter_4_workers(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),	   cmocka_unit_test(test_retries),
		cmocka_unit_test(test_end),	   cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_checkpoint), cmocka_unit_test(test_emptying),
		cmocka_unit_test(test_through),	   cmocka_unit_test(test_storm),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, enter, scratch_leave_workers);
}
