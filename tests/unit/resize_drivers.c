// SPDX-License-Identifier: MIT
/* Resize by drivers: which of them may and do, what is there afterwards, and files and layers that
 * follow. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/list.h"
#include "core/bytes.h"
#include "core/log.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/contract.h"
#include "tests/lib/run.h"
#include "tests/lib/stacks.h"

#define SIZE  (4 * MIB)
#define PIECE ((size_t)64 * 1024)

#define CRYPT "crypt key_file=tests/lib/crypt.key "

static char data[PIECE], back[PIECE];

/* ---- What passes it on. ---- */

static const struct stack resizable[] = {
	{"ram", "ram resizable=shrink", 0},
	{"file", "file resizable=shrink", 0},
	{"file in memory", "file memory resizable=shrink", 0},
	{"file direct", "file direct=yes resizable=shrink", 0},
	{"delay", "delay read_delay=10us (ram resizable=shrink)", 0},
	{"fault", "fault (file resizable=shrink)", 0},
	{"prwrap", "prwrap port (file memory resizable=shrink)", 0},
	{"crypt", CRYPT "(ram resizable=shrink)", STACK_DENSE},
	{"crypt with discards", CRYPT "discard=pass (file memory resizable=shrink)", 0},
	{"layered", "layered (ram resizable=shrink, file noise)", 0},
	{"layered, with a cache",
	 "layered read_cache=c (ram resizable=shrink, ram as=c, file noise)", 0},
	{"layered, written through",
	 "layered write_through=c (ram as=c resizable=shrink, file resizable=yes)", 0},
	{"striped", "striped (ram resizable=shrink, file resizable=shrink)", 0},
	{"striped on crypts",
	 "striped chunk_size=8K (" CRYPT "(ram resizable=shrink), " CRYPT
	 "(file resizable=shrink))",
	 STACK_DENSE},
	{"layered, written through to striped on striped",
	 "layered write_through=c (ram as=c resizable=shrink, striped chunk_size=64K (striped "
	 "chunk_size=4K (file resizable=yes, ram resizable=yes), ram resizable=yes))",
	 0},
	{"all of them", "fault (delay (" CRYPT "(layered (ram resizable=shrink, file noise))))",
	 STACK_DENSE},
};

static bool put(struct disk *disk, uint64_t seed, uint64_t offset)
{
	pattern_fill(data, PIECE, seed);
	return CHECK_OK(disk_write_bytes(disk, data, PIECE, offset, 0));
}

static bool holds(struct disk *disk, uint64_t seed, uint64_t offset)
{
	pattern_fill(data, PIECE, seed);
	return CHECK_OK(disk_read_bytes(disk, back, PIECE, offset)) &&
	       CHECK(memcmp(data, back, PIECE) == 0);
}

/* What has been added is zeros, unless it is deciphered. */
static bool is_new(const struct instance *instance, uint64_t offset)
{
	return CHECK_OK(disk_read_bytes(instance->disk, back, PIECE, offset)) &&
	       ((instance->stack->flags & STACK_DENSE) ||
		CHECK_EQ(bytes_differ(back, PIECE, 0), PIECE));
}

static bool resize(struct disk *disk, uint64_t bytes)
{
	return CHECK_OK(disk_resize(disk, bytes >> disk_sector_shift(disk))) &&
	       CHECK_EQ(disk_size(disk), bytes);
}

static void check_resizable(struct instance *instance)
{
	struct disk *disk = instance->disk;

	put(disk, 1, 0);
	put(disk, 2, SIZE - PIECE);
	resize(disk, 2 * SIZE);
	holds(disk, 1, 0);
	holds(disk, 2, SIZE - PIECE);
	is_new(instance, SIZE);
	is_new(instance, 2 * SIZE - PIECE);
	put(disk, 3, 2 * SIZE - PIECE);
	CHECK_OK(disk_flush(disk));
	holds(disk, 3, 2 * SIZE - PIECE);

	resize(disk, SIZE / 4);
	CHECK_KIND(disk_read_bytes(disk, back, PIECE, SIZE / 4), ERROR_ILLEGAL_BLOCK);
	CHECK_KIND(disk_write_bytes(disk, data, PIECE, SIZE / 4, 0), ERROR_ILLEGAL_BLOCK);
	CHECK_KIND(disk_resize(disk, 0), ERROR_INVALID_INPUT);
	holds(disk, 1, 0);

	/* What was cut off does not come back. */
	resize(disk, 2 * SIZE);
	holds(disk, 1, 0);
	is_new(instance, SIZE / 4);
	is_new(instance, SIZE - PIECE);
	is_new(instance, 2 * SIZE - PIECE);
	CHECK_OK(disk_flush(disk));
}

struct trial {
	struct instance instance;
	const struct stack *stack;
	uint32_t sector_size;
};

static void trial_task(void *argument)
{
	struct trial *trial = argument;

	check_context("%s, %u", trial->stack->name, trial->sector_size);
	if (instance_open(&trial->instance, trial->stack, trial->sector_size, SIZE)) {
		check_resizable(&trial->instance);
		instance_close(&trial->instance);
	}
	check_context("%s", "");
}

static void test_resizable(void **state)
{
	static const uint32_t sector_sizes[] = {512, 4096};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(resizable) * ARRAY_SIZE(sector_sizes); i++) {
		struct trial trial = {.stack = &resizable[i / 2],
				      .sector_size = sector_sizes[i % 2]};

		if (stack_obstacle(trial.stack, trial.sector_size))
			continue;
		run_task(trial_task, &trial);
		instance_remove(&trial.instance);
	}
}

/* ---- What does not. ---- */

static const struct {
	struct stack stack;
	bool grows;
} limited[] = {
	{{"ram", "ram", 0}, false},
	{{"ram, which grows", "ram resizable=yes", 0}, true},
	{{"file", "file", 0}, false},
	{{"file, which grows", "file resizable=yes", 0}, true},
	{{"null", "null", 0}, false},
	{{"sqlite", "sqlite", 0}, false},
	{{"striped, by less than a row", "striped (ram resizable=shrink, ram resizable=shrink)", 0},
	 false},
	{{"striped", "striped chunk_size=2K (file resizable=shrink, ram resizable=yes)", 0}, true},
	{{"striped on what is fixed", "striped chunk_size=2K (ram resizable=shrink, ram)", 0},
	 false},
	{{"delay", "delay (file resizable=yes)", 0}, true},
	{{"fault", "fault (ram)", 0}, false},
	{{"crypt", CRYPT "(ram resizable=yes)", 0}, true},
	{{"layered on what is fixed", "layered (ram, file resizable=shrink)", 0}, false},
	{{"written through to what is fixed",
	  "layered write_through=c (ram as=c resizable=yes, file)", 0},
	 false},
	{{"read-only", "file resizable=shrink", STACK_READ_ONLY}, false},
};

static void check_limited(struct disk *disk, bool grows)
{
	enum error_kind refused = disk_is_read_only(disk) ? ERROR_READ_ONLY : ERROR_UNSUPPORTED;
	uint64_t count = disk_sector_count(disk);

	CHECK_KIND(disk_resize(disk, count - 8), refused);
	CHECK_EQ(disk_sector_count(disk), count);
	CHECK_KIND(disk_resize(disk, count + 8), grows ? ERROR_NONE : refused);
	CHECK_EQ(disk_sector_count(disk), count + (grows ? 8 : 0));
	CHECK_KIND(disk_resize(disk, count - 8), refused);
}

static void test_limited_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(limited); i++) {
		struct instance instance = {.stack = NULL};

		check_context("%s", limited[i].stack.name);
		if (instance_open(&instance, &limited[i].stack, 512, SIZE)) {
			check_limited(instance.disk, limited[i].grows);
			instance_close(&instance);
		}
		instance_remove(&instance);
	}
	check_context("%s", "");
}
RUN_IN_TASK(test_limited)

/* ---- Files. ---- */

static uint64_t file_size(const char *path)
{
	struct stat stat_buffer;

	return CHECK_EQ(stat(path, &stat_buffer), 0) ? (uint64_t)stat_buffer.st_size : 0;
}

/* Waits until the disk has this size: somebody looks once in a while. */
static bool comes_to(struct disk *disk, uint64_t bytes)
{
	for (unsigned i = 0; i < 1000 && disk_size(disk) != bytes; i++)
		task_sleep_ns(NS_PER_S / 100);
	return CHECK_EQ(disk_size(disk), bytes);
}

static void test_file_follows_task(void *argument)
{
	static const struct stack stack = {"file", "delay (file)", 0};
	struct instance instance = {.stack = NULL};
	uint64_t allocated;

	(void)argument;
	if (!instance_open(&instance, &stack, 512, SIZE))
		return;

	const char *path = instance.paths[0];

	put(instance.disk, 1, SIZE - PIECE);
	CHECK_EQ(truncate(path, (off_t)(2 * SIZE + 700)), 0); /* a tail that is no sector */
	comes_to(instance.disk, 2 * SIZE + 512);
	holds(instance.disk, 1, SIZE - PIECE);
	put(instance.disk, 2, 2 * SIZE + 512 - PIECE);
	CHECK_EQ(file_size(path), 2 * SIZE + 700);
	CHECK_EQ(truncate(path, (off_t)(3 * SIZE)), 0);
	CHECK_OK(disk_allocated(instance.disk, &allocated)); /* who asks makes it look at once */
	comes_to(instance.disk, 3 * SIZE);

	/* A file that becomes shorter has lost something: that is no smaller disk. */
	CHECK_EQ(truncate(path, (off_t)SIZE), 0);
	CHECK_KIND(disk_read_bytes(instance.disk, back, PIECE, 2 * SIZE), ERROR_IO);
	CHECK_EQ(truncate(path, (off_t)(4 * SIZE)), 0);
	task_sleep_ns(5 * NS_PER_S / 4);
	CHECK_EQ(disk_size(instance.disk), 3 * SIZE);
	CHECK_KIND(disk_write_bytes(instance.disk, data, PIECE, 0, 0), ERROR_IO);
	instance_close(&instance);
	instance_remove(&instance);
}
RUN_IN_TASK(test_file_follows)

/* The disk has the file's own size, and what it is asked for counts from there. */
static void test_file_both_task(void *argument)
{
	static const struct stack grows = {"file", "file resizable=yes", 0};
	struct instance instance = {.stack = NULL};

	(void)argument;
	if (!instance_open(&instance, &grows, 512, SIZE))
		return;
	CHECK_EQ(truncate(instance.paths[0], (off_t)(3 * SIZE)), 0);
	/* This would cut off what has not been noticed yet. */
	CHECK_KIND(disk_resize(instance.disk, 2 * SIZE / 512), ERROR_UNSUPPORTED);
	CHECK_EQ(disk_size(instance.disk), 3 * SIZE);
	CHECK_EQ(file_size(instance.paths[0]), 3 * SIZE);
	resize(instance.disk, 4 * SIZE);
	CHECK_EQ(file_size(instance.paths[0]), 4 * SIZE);
	/* More than the file system can. */
	CHECK_KIND(disk_resize(instance.disk, INT64_MAX / 512), ERROR_IO);
	CHECK_EQ(disk_size(instance.disk), 4 * SIZE);
	put(instance.disk, 1, 4 * SIZE - PIECE);
	instance_close(&instance);
	instance_remove(&instance);
}
RUN_IN_TASK(test_file_both)

/* ---- Smaller and larger while others write everywhere. ---- */

#define ROUNDS 60

struct load {
	struct instance instance;
	const struct stack *stack;
	atomic_bool is_over;
};

static void load_open(void *argument)
{
	struct load *load = argument;

	instance_open(&load->instance, load->stack, 512, SIZE);
}

static void load_close(void *argument)
{
	struct load *load = argument;

	instance_close(&load->instance);
}

/* The file is as long as the disk, whatever was under way when that became smaller. */
static void resize_rounds(struct load *load)
{
	struct disk *disk = load->instance.disk;

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t bytes = i % 2 == 0 ? SIZE / 4 : SIZE;

		resize(disk, bytes);
		task_sleep_ns(NS_PER_US * 300);
		if (load->instance.file_count > 0)
			CHECK_EQ(file_size(load->instance.paths[0]), bytes);
	}
	atomic_store(&load->is_over, true);
}

/* Any request; 0 or its error. */
static int load_request(struct disk *disk, char *buffer, struct random *random)
{
	uint64_t sector = random_below(random, (SIZE - PIECE) / 512);
	struct extent extent;

	switch (random_below(random, 6)) {
	case 0:
	case 1:
		return disk_read_bytes(disk, buffer, PIECE, sector * 512);
	case 2:
		return disk_extent(disk, sector, 1, &extent);
	case 3:
		return disk_flush(disk);
	default:
		return disk_write_bytes(disk, buffer, PIECE, sector * 512, 0);
	}
}

static void load_task(unsigned index, void *argument)
{
	struct load *load = argument;
	struct random random = {index};
	char *buffer = aligned_alloc(4096, PIECE);

	if (!CHECK(buffer))
		return;
	memset(buffer, (int)index, PIECE);
	if (index == 0)
		resize_rounds(load);
	while (!atomic_load(&load->is_over)) {
		int error = load_request(load->instance.disk, buffer, &random);

		CHECK(!error || error_kind(error) == ERROR_ILLEGAL_BLOCK);
		task_yield();
	}
	free(buffer);
}

static void test_load(void **state)
{
	static const struct stack all[] = {
		{"file", "file resizable=shrink", 0},
		{"file in memory", "file memory resizable=shrink", 0},
		{"file direct", "file direct=yes resizable=shrink", 0},
		{"a wrapper", "delay write_delay=200us (file memory resizable=shrink)", 0},
		{"ram", "ram resizable=shrink", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		struct load load = {.stack = &all[i]};

		if (stack_obstacle(&all[i], 512))
			continue;
		check_context("%s", all[i].name);
		run_task(load_open, &load);
		run_tasks(6, load_task, &load);
		run_task(load_close, &load);
		instance_remove(&load.instance);
	}
	check_context("%s", "");
}

/* ---- Layers. ---- */

/* A layer that has its size from below follows it, two of them likewise; one of its own does not. */
static void test_layers_follow_task(void *argument)
{
	static const struct stack stack = {"base", "file memory resizable=shrink", 0};
	struct instance base = {.stack = NULL};
	struct err err = {.text = ""};

	(void)argument;
	if (!instance_open(&base, &stack, 512, SIZE))
		return;

	struct disk *low = driver_open(driver_find("ram"), NULL, 0, DISK_OPEN_LAYER, NULL, &err);
	struct disk *high = driver_open(driver_find("ram"), NULL, 0, DISK_OPEN_LAYER, NULL, &err);
	struct disk *disk = driver_open_on(driver_find("layered"), NULL, 0, 0,
					   (struct disk *[]){high, low, base.disk}, 3, &err);

	CHECK_TEXT(err.text, "");
	put(disk, 1, 0);
	CHECK_OK(disk_resize(base.disk, 2 * SIZE / 512));
	CHECK_EQ(disk_size(low), 2 * SIZE);
	CHECK_EQ(disk_size(disk), 2 * SIZE);
	holds(disk, 1, 0);
	put(base.disk, 2, 2 * SIZE - PIECE); /* of which nothing is known above */
	holds(disk, 2, 2 * SIZE - PIECE);
	put(disk, 3, SIZE);
	CHECK_OK(disk_resize(base.disk, SIZE / 512));
	CHECK_EQ(disk_size(disk), SIZE);
	CHECK_KIND(disk_read_bytes(disk, back, PIECE, SIZE), ERROR_ILLEGAL_BLOCK);
	/* The layer has forgotten what was beyond its end. */
	CHECK_OK(disk_resize(base.disk, 2 * SIZE / 512));
	CHECK_OK(disk_read_bytes(disk, back, PIECE, SIZE));
	CHECK_EQ(bytes_differ(back, PIECE, 0), PIECE);

	/* Once it has been given a size it keeps that. */
	CHECK_EQ(disk_set_option(high, "size", "1M", &err), 0);
	CHECK_EQ(disk_size(disk), MIB);
	CHECK_OK(disk_resize(base.disk, 3 * SIZE / 512));
	CHECK_EQ(disk_size(low), 3 * SIZE);
	CHECK_EQ(disk_size(disk), MIB);
	disk_close(disk);
	disk_close(high);
	disk_close(low);
	instance_close(&base);
}
RUN_IN_TASK(test_layers_follow)

static int setup(void **state)
{
	log_set_level(LOG_LEVEL_WARNING);
	return setup_2_workers(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resizable),    cmocka_unit_test(test_limited),
		cmocka_unit_test(test_file_follows), cmocka_unit_test(test_file_both),
		cmocka_unit_test(test_load),	     cmocka_unit_test(test_layers_follow),
	};

	return cmocka_run_group_tests(tests, setup, teardown_workers);
}
