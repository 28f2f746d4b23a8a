// SPDX-License-Identifier: MIT
/* Differencing images: where parents are found, which are refused, and what a chain holds. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/list.h"
#include "core/log.h"
#include "core/report.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/stacks.h"
#include "tests/lib/vhd.h"

#define CHILD "child.vhd"
#define SIZE  ((size_t)3 * 1024 * 1024 + 1024)
#define BLOCK (512U * 1024)

static uint8_t model[2 * SIZE];

/* ---- What a chain holds. ---- */

/* From the lowest up; the relative name of each parent is "1", "2", ... */
static const struct chain {
	unsigned depth;
	struct vhd_recipe recipes[4];
} chains[] = {
	{2,
	 {{.type = VHD_FIXED, .size = SIZE, .fill_seed = 1},
	  {.size = SIZE,
	   .block_size = BLOCK,
	   .fill_seed = 2,
	   .fill_blocks = 0x2d,
	   .fill_bits = 0x1c}}},
	{3,
	 {{.type = VHD_DYNAMIC, .size = SIZE, .fill_seed = 1, .fill_blocks = 1, .fill_bits = 0xf1},
	  {.size = SIZE,
	   .block_size = BLOCK,
	   .fill_seed = 2,
	   .fill_blocks = 0x55,
	   .fill_bits = 0x0f},
	  {.size = SIZE, .fill_seed = 3, .fill_blocks = 3, .fill_bits = 0x80}}},
	/* Larger and smaller than what they stand on: what is beyond an end is zeros for all above. */
	{4,
	 {{.type = VHD_FIXED, .size = SIZE + MIB, .fill_seed = 1},
	  {.size = SIZE - MIB,
	   .block_size = BLOCK,
	   .fill_seed = 2,
	   .fill_blocks = 2,
	   .fill_bits = 0xff},
	  {.size = SIZE + MIB, .fill_seed = 3, .fill_blocks = 1, .fill_bits = 0x42},
	  {.size = SIZE,
	   .block_size = 4096,
	   .fill_seed = 4,
	   .fill_blocks = 0x11,
	   .fill_bits = 0xaa}}},
	{2,
	 {{.type = VHD_FIXED, .size = MIB, .fill_seed = 1},
	  {.size = SIZE, .block_size = 16 * MIB}}},
};

/* Makes the files and the model, which is of the uppermost; returns its size. */
static size_t make_chain(const struct chain *chain)
{
	static char names[4][16];
	size_t size = 0;

	memset(model, 0, sizeof(model));
	for (unsigned i = 0; i < chain->depth; i++) {
		struct vhd_recipe recipe = chain->recipes[i];

		snprintf(names[i], sizeof(names[i]), "%u", i);
		recipe.type = recipe.type ? recipe.type : VHD_DIFFERENCING;
		recipe.id = (uint8_t)(i + 1);
		recipe.parent_id = (uint8_t)i;
		recipe.parent_relative = i > 0 ? names[i - 1] : NULL;
		recipe.noise_below_bits = true;
		vhd_make(i + 1 == chain->depth ? CHILD : names[i], &recipe);
		/* What is beyond its end, nobody sees from above. */
		memset(model + recipe.size, 0, sizeof(model) - recipe.size);
		vhd_overlay(&recipe, model, recipe.size);
		size = recipe.size;
	}
	return size;
}

/* Random writes, zeros and unmaps, of the disk and the model. */
static void change(struct vhd_rig *rig, size_t size, uint64_t seed)
{
	struct random random = {.state = seed};
	uint64_t all = size / VHD_SECTOR;

	for (unsigned i = 0; i < 60; i++) {
		uint64_t sector = random_below(&random, all);
		uint64_t count = 1 + random_below(&random, random_below(&random, 4) ? 30 : 3000);
		uint8_t *at = model + sector * VHD_SECTOR;

		count = min_u64(count, all - sector);
		switch (random_below(&random, 4)) {
		case 0:
			CHECK_OK(disk_unmap(rig->disk, sector, count));
			memset(at, 0, count * VHD_SECTOR);
			break;
		case 1:
			CHECK_OK(disk_write_zeroes(rig->disk, sector, count, 0));
			memset(at, 0, count * VHD_SECTOR);
			break;
		default:
			pattern_fill(at, count * VHD_SECTOR, i);
			CHECK_OK(vhd_put(rig, at, sector, count));
		}
		if (i % 16 == 0 && !vhd_is(rig, model))
			return;
	}
}

static void test_content_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(chains); i++) {
		size_t size = make_chain(&chains[i]), length, again;
		uint8_t *parent = vhd_load("0", &length), *after;
		struct vhd_rig rig;

		check_context("chain %zu", i);
		for (unsigned round = 0; round < 3; round++) {
			if (!vhd_open_rig(&rig, CHILD, 0))
				return;
			CHECK_EQ(disk_size(rig.disk), size);
			vhd_is(&rig, model);
			change(&rig, size, i * 10 + round);
			vhd_is(&rig, model);
			/* All of it at once: nothing of a parent comes back. */
			if (round == 1) {
				CHECK_OK(disk_unmap(rig.disk, 0, size / VHD_SECTOR));
				memset(model, 0, sizeof(model));
				vhd_is(&rig, model);
			}
			vhd_close_rig(&rig);
		}
		after = vhd_load("0", &again);
		CHECK(again == length && memcmp(parent, after, length) == 0);
		free(parent);
		free(after);
	}
}

RUN_IN_TASK(test_content)

/* A block over a hole of the parent is given up, one over its data is not. */
static void test_give_up_task(void *argument)
{
	const struct vhd_recipe base = {.type = VHD_DYNAMIC,
					.size = SIZE,
					.block_size = BLOCK,
					.id = 1,
					.fill_seed = 1,
					.fill_blocks = 1,
					.fill_bits = 0x10};
	const struct vhd_recipe child = {.type = VHD_DIFFERENCING,
					 .size = SIZE,
					 .block_size = BLOCK,
					 .parent_id = 1,
					 .parent_relative = "base",
					 .fill_seed = 2,
					 .fill_blocks = 3,
					 .fill_bits = 0xff};
	struct vhd_file file;
	struct vhd_rig rig;

	(void)argument;
	vhd_make("base", &base);
	vhd_make(CHILD, &child);
	memset(model, 0, sizeof(model));
	vhd_overlay(&child, model, SIZE);
	if (!vhd_open_rig(&rig, CHILD, 0))
		return;
	vhd_is(&rig, model);
	memset(model, 0, sizeof(model));
	CHECK_OK(disk_unmap(rig.disk, 0, SIZE / VHD_SECTOR));
	vhd_is(&rig, model);
	vhd_close_rig(&rig);
	if (vhd_inspect(CHILD, &file)) {
		CHECK_EQ(file.used, 1);
		CHECK(file.entries[0] != VHD_NO_BLOCK);
	}
}

RUN_IN_TASK(test_give_up)

/* ---- Where parents are. ---- */

static void make_pair(const char *parent, const struct vhd_recipe *where)
{
	struct vhd_recipe base = {.type = VHD_FIXED, .size = SIZE, .id = 9, .fill_seed = 1};
	struct vhd_recipe child = *where;

	child.type = VHD_DIFFERENCING;
	child.size = SIZE;
	child.parent_id = child.parent_id ? child.parent_id : 9;
	vhd_make(parent, &base);
	vhd_make("images/" CHILD, &child);
}

static const struct location {
	const char *parent; /* where it is */
	struct vhd_recipe where;
	const char *option, *value;
	const char *key, *error; /* NULL: it is found */
} locations[] = {
	{.parent = "images/base.vhd", .where = {.parent_relative = "base.vhd"}},
	{.parent = "images/base.vhd", .where = {.parent_relative = ".\\base.vhd"}},
	{.parent = "images/base.vhd", .where = {.parent_name = "base.vhd"}},
	{.parent = "images/base.vhd", .where = {.parent_name = "D:\\old\\base.vhd"}},
	{.parent = "images/base.vhd", .where = {.parent_absolute = "C:\\VMs\\base.vhd"}},
	{.parent = "images/base.vhd", .where = {.parent_absolute = "\\\\server\\share\\base.vhd"}},
	{.parent = "images/sub/b\xc3\xa4se.vhd",
	 .where = {.parent_relative = ".\\sub\\b\xc3\xa4se.vhd"}},
	{.parent = "images/base.vhd",
	 .where = {.parent_relative = "gone.vhd",
		   .parent_absolute = "C:\\VMs\\gone too.vhd",
		   .parent_name = "base.vhd"}},
	/* What is relative comes first; what is no parent is passed by if another is one. */
	{.parent = "images/base.vhd",
	 .where = {.parent_relative = "other.vhd", .parent_absolute = "C:\\base.vhd"}},
	{.parent = "base.vhd",
	 .where = {.parent_relative = "..\\base.vhd"},
	 .key = "parent_folder",
	 .error = "/base.vhd', which is outside of '"},
	{.parent = "base.vhd",
	 .where = {.parent_relative = "..\\base.vhd"},
	 .option = "parent_folder",
	 .value = "."},
	{.parent = "base.vhd",
	 .where = {.parent_relative = "gone.vhd"},
	 .option = "parent",
	 .value = "base.vhd"},
	{.parent = "base.vhd",
	 .where = {.parent_name = NULL},
	 .option = "parent",
	 .value = "base.vhd"},
	{.parent = "base.vhd",
	 .where = {.parent_relative = "link.vhd"},
	 .key = "parent_folder",
	 .error = "/base.vhd', which is outside of '"},
	{.parent = "base.vhd",
	 .where = {.parent_relative = "gone.vhd", .parent_absolute = "C:\\x\\gone2.vhd"},
	 .key = "parent",
	 .error = "its parent is not found: tried 'images/gone.vhd', '/x/gone2.vhd', "
		  "'images/gone2.vhd' (parent = names it)"},
	{.parent = "base.vhd",
	 .where = {.parent_name = NULL},
	 .key = "parent",
	 .error = "a differencing image that does not say where its parent is (parent = names it)"},
	{.parent = "base.vhd",
	 .where = {.parent_name = NULL},
	 .option = "parent",
	 .value = "gone.vhd",
	 .key = "parent",
	 .error = "cannot open 'gone.vhd': No such file or directory"},
	{.parent = "images/base.vhd",
	 .where = {.parent_relative = "other.vhd"},
	 .key = "",
	 .error = "other.vhd' is not the parent: its unique id is "
		  "33333333333333333333333333333333, not "
		  "09090909090909090909090909090909"},
	{.parent = "images/base.vhd",
	 .where = {.parent_relative = "base.vhd", .parent_id = 8},
	 .option = "parent",
	 .value = "images/base.vhd",
	 .key = "",
	 .error = "is not the parent: its unique id is"},
	{.parent = "images/base.vhd",
	 .where = {.parent_relative = "child.vhd"},
	 .key = "",
	 .error = "child.vhd' says that it is its own parent"},
	{.parent = "images/base.vhd",
	 .where = {.parent_relative = "noise.vhd"},
	 .key = "",
	 .error = "noise.vhd': at the end: no footer of a VHD"},
};

static void make_folders(void)
{
	const struct vhd_recipe other = {.type = VHD_FIXED, .size = MIB, .id = 0x33};
	char noise[1024] = "no VHD";

	CHECK_EQ(mkdir("images", 0700), 0);
	CHECK_EQ(mkdir("images/sub", 0700), 0);
	vhd_make("images/other.vhd", &other);
	scratch_write("images/noise.vhd", noise, sizeof(noise));
	CHECK_EQ(symlink("../base.vhd", "images/link.vhd"), 0);
}

static void remove_folders(void)
{
	static const char *const names[] = {"images/other.vhd", "images/noise.vhd",
					    "images/link.vhd", "images/" CHILD};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlink(names[i]);
	CHECK_EQ(rmdir("images/sub"), 0);
	CHECK_EQ(rmdir("images"), 0);
}

static void test_locations_task(void *argument)
{
	const struct vhd_recipe base = {.type = VHD_FIXED, .size = SIZE, .fill_seed = 1};

	(void)argument;
	make_folders();
	memset(model, 0, sizeof(model));
	vhd_overlay(&base, model, SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(locations); i++) {
		const struct location *location = &locations[i];
		const char *const options[VHD_OPTIONS_MAX][2] = {
			{location->option, location->value}, {NULL}};
		struct err err = {.text = ""};
		struct vhd_rig rig;

		check_context("location %zu", i);
		make_pair(location->parent, &location->where);
		if (location->error) {
			vhd_refused("images/" CHILD, options, location->key, location->error);
		} else if (CHECK(vhd_try(&rig, "images/" CHILD, options, 0, &err))) {
			vhd_is(&rig, model);
			vhd_close_rig(&rig);
		}
		CHECK_TEXT(err.text, "");
		unlink(location->parent);
	}
	remove_folders();
}

RUN_IN_TASK(test_locations)

/* ---- Whether it is the one. ---- */

#define NOTED ((uint32_t)700000000)

static const struct {
	uint32_t noted;	  /* in the child */
	int64_t modified; /* the parent, seconds since 2000 */
	bool ignore, found;
} times[] = {
	{NOTED, NOTED, false, true},	{NOTED, NOTED + 1, false, false},
	{NOTED, NOTED + 1, true, true}, {0, NOTED, false, true}, /* not known */
	{12345, NOTED, false, true}, /* that of the parent's own footer */
};

static void test_times_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		const struct vhd_recipe base = {.type = VHD_FIXED, .size = MIB, .id = 9};
		const struct vhd_recipe child = {.type = VHD_DIFFERENCING,
						 .size = MIB,
						 .parent_id = 9,
						 .parent_time_stamp = times[i].noted,
						 .parent_relative = "base"};
		const struct timespec modified = {.tv_sec = vhd_time_unix(0) + times[i].modified};
		const struct timespec both[2] = {modified, modified};
		const char *const options[VHD_OPTIONS_MAX][2] = {
			{times[i].ignore ? "parent_time" : NULL, "ignore"}, {NULL}};
		struct err err = {.text = ""};
		struct vhd_rig rig;

		check_context("time %zu", i);
		vhd_make("base", &base);
		vhd_make(CHILD, &child);
		CHECK_EQ(utimensat(AT_FDCWD, "base", both, 0), 0);
		if (!times[i].found)
			vhd_refused(CHILD, options, "parent_time",
				    "has been changed since the image was made over it");
		else if (CHECK(vhd_try(&rig, CHILD, options, 0, &err)))
			vhd_close_rig(&rig);
		CHECK_TEXT(err.text, "");
	}
}

RUN_IN_TASK(test_times)

/* A grandparent that is the child's parent again. */
static void test_cycle_task(void *argument)
{
	const struct vhd_recipe one = {.type = VHD_DIFFERENCING,
				       .size = MIB,
				       .id = 1,
				       .parent_id = 2,
				       .parent_relative = "two"};
	const struct vhd_recipe two = {.type = VHD_DIFFERENCING,
				       .size = MIB,
				       .id = 2,
				       .parent_id = 1,
				       .parent_relative = "one"};
	const struct vhd_recipe top = {.type = VHD_DIFFERENCING,
				       .size = MIB,
				       .id = 3,
				       .parent_id = 1,
				       .parent_relative = "one"};

	(void)argument;
	vhd_make("one", &one);
	vhd_make("two", &two);
	vhd_make(CHILD, &top);
	vhd_refused(CHILD, NULL, "", "/one' is its own parent's parent");
	vhd_refused("one", NULL, "", "/one' says that it is its own parent");
}

RUN_IN_TASK(test_cycle)

#define DEEP 150U

static void test_deep_task(void *argument)
{
	struct vhd_rig rig;
	uint8_t *zeros = calloc(1, 256 * KIB);

	(void)argument;
	vhd_make_chain("deep", 256 * KIB, 4096, DEEP, 0);
	if (vhd_open_rig(&rig, "deep", 0)) {
		vhd_is(&rig, zeros);
		pattern_fill(zeros, 3 * KIB, 1);
		CHECK_OK(vhd_put(&rig, zeros, 0, 6));
		vhd_is(&rig, zeros);
		vhd_close_rig(&rig);
	}
	vhd_remove_chain("deep", DEEP);
	free(zeros);
}

RUN_IN_TASK(test_deep)

/* ---- Shared parents. ---- */

/* How many descriptors of this process have a file of that name. */
static unsigned open_count(const char *name)
{
	DIR *folder = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned count = 0;

	while ((entry = readdir(folder))) {
		char target[512];
		ssize_t length =
			readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);

		target[length > 0 ? length : 0] = '\0';
		count += strcmp(strrchr(target, '/') ? strrchr(target, '/') + 1 : "", name) == 0;
	}
	closedir(folder);
	return count;
}

/* What `.status` tells of the parents. */
static void check_inspection(struct disk *disk)
{
	struct report *report = report_new(REPORT_JSON);
	size_t length;
	char *text;

	disk_inspect(disk, report);
	text = report_finish(report, &length);
	CHECK(text && strstr(text, "differencing"));
	CHECK(text && strstr(text, "/shared-middle\""));
	CHECK(text && strstr(text, "/shared-base\""));
	free(text);
}

static void test_shared_task(void *argument)
{
	static const char *const children[] = {"child-a", "child-b", "child-c"};
	struct vhd_recipe base = {.type = VHD_FIXED, .size = MIB, .id = 1, .fill_seed = 1};
	struct vhd_recipe middle = {.type = VHD_DIFFERENCING,
				    .size = MIB,
				    .id = 2,
				    .parent_id = 1,
				    .parent_relative = "shared-base"};
	struct vhd_recipe child = {.type = VHD_DIFFERENCING,
				   .size = MIB,
				   .id = 3,
				   .parent_id = 2,
				   .parent_relative = "shared-middle"};
	struct vhd_rig rigs[3];

	(void)argument;
	memset(model, 0, sizeof(model));
	vhd_overlay(&base, model, MIB);
	vhd_make("shared-base", &base);
	vhd_make("shared-middle", &middle);
	for (size_t i = 0; i < 3; i++) {
		vhd_make(children[i], &child);
		vhd_open_rig(&rigs[i], children[i], 0);
	}
	CHECK_EQ(open_count("shared-base"), 1);
	CHECK_EQ(open_count("shared-middle"), 1);
	check_inspection(rigs[1].disk);
	/* Nobody who writes to a parent gets in. */
	vhd_refused("shared-middle", NULL, "path", "is in use by another program");
	CHECK_OK(vhd_put(&rigs[0], model + 4096, 0, 100));
	vhd_is(&rigs[1], model);
	vhd_close_rig(&rigs[0]);
	vhd_is(&rigs[1], model);
	vhd_close_rig(&rigs[1]);
	CHECK_EQ(open_count("shared-base"), 1);
	vhd_is(&rigs[2], model);
	vhd_close_rig(&rigs[2]);
	CHECK_EQ(open_count("shared-base"), 0);
	CHECK_EQ(open_count("shared-middle"), 0);
}

RUN_IN_TASK(test_shared)

/* A parent that is a disk of its own, below the child's as number 1. */
static void test_named_below_task(void *argument)
{
	const struct vhd_recipe base = {.type = VHD_DYNAMIC,
					.size = MIB,
					.id = 1,
					.fill_seed = 1,
					.fill_blocks = 1,
					.fill_bits = 0x77};
	struct vhd_recipe child = {.type = VHD_DIFFERENCING, .size = MIB, .id = 2, .parent_id = 1};
	static const char *const none[][2] = {{NULL}};
	struct err err = {.text = ""};
	struct vhd_rig parent, file, rig;
	struct disk *below[2];

	(void)argument;
	memset(model, 0, sizeof(model));
	vhd_overlay(&base, model, MIB);
	vhd_make("base", &base);
	vhd_make(CHILD, &child);
	vhd_open_rig(&parent, "base", DISK_OPEN_READ_ONLY);
	CHECK(!vhd_try(&file, CHILD, NULL, 0, &err)); /* it does not say where */
	CHECK(vhd_try(&file, "base", NULL, DISK_OPEN_READ_ONLY, &err));
	vhd_close_rig(&file);

	const char *const path[][2] = {{"path", CHILD}, {NULL}};

	below[0] = driver_open(driver_find("file"), path, 2, DISK_OPEN_RESIZE, NULL, &err);
	below[1] = parent.disk;
	rig = (struct vhd_rig){
		.disk = driver_open_on(driver_find("vhd"), none, 1, 0, below, 2, &err)};
	if (CHECK(rig.disk)) {
		vhd_is(&rig, model);
		pattern_fill(model + 7 * 512, 512, 3);
		CHECK_OK(vhd_put(&rig, model + 7 * 512, 7, 1));
		vhd_is(&rig, model);
		disk_close(rig.disk);
	}
	below[1] = parent.file; /* no VHD */
	CHECK(!driver_open_on(driver_find("vhd"), none, 1, 0, below, 2, &err));
	CHECK_TEXT(err.text,
		   "'child.vhd': 'file' is to be the parent: that must be a disk of driver "
		   "'vhd'");
	disk_close(below[0]);
	vhd_close_rig(&parent);

	vhd_make(CHILD, &base);
	const char *const options[VHD_OPTIONS_MAX][2] = {{"parent", "base"}, {NULL}};

	vhd_refused(CHILD, options, "parent", "a dynamic image has no parent");
}

RUN_IN_TASK(test_named_below)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_content),	  cmocka_unit_test(test_give_up),
		cmocka_unit_test(test_locations), cmocka_unit_test(test_times),
		cmocka_unit_test(test_cycle),	  cmocka_unit_test(test_deep),
		cmocka_unit_test(test_shared),	  cmocka_unit_test(test_named_below),
	};
	int failed;

	log_set_level(LOG_LEVEL_ERROR);
	scratch_enter();
	failed = cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
	scratch_leave();
	return failed;
}
