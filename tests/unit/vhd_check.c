// SPDX-License-Identifier: MIT
/*
 * What the check of a VHD file says of bitmaps and of parents, and what a repair changes. What it says
 * of footers and tables: tests/mount/images.sh.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "core/log.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/vhd.h"
#include "tests/lib/vhd_images.h"

#define IMAGE  "image.vhd"
#define PARENT "parent.vhd"
#define SIZE   ((size_t)3 * 1024 * 1024 + 512)
#define BLOCK  (512U * 1024)

/* ---- Bitmaps. ---- */

/* Of the first of each eight sectors of a block it is the image's; of the last block the disk has only
 * that one, and what is behind it in the file is nobody's. */
static const struct vhd_recipe dirty = {.size = SIZE,
					.block_size = BLOCK,
					.parent_id = 7,
					.parent_relative = PARENT,
					.fill_seed = 1,
					.fill_blocks = 0x53,
					.fill_bits = 0x80,
					.noise_below_bits = true};
#define DIRTY_BLOCKS 3 /* 0, 1, 4, but not 6, the last */

static const struct vhd_recipe parent = {.type = VHD_FIXED, .size = SIZE, .id = 7, .fill_seed = 2};

static uint8_t model[SIZE];

/* What the image is has not changed. */
static void check_content(enum vhd_type type)
{
	struct vhd_rig rig;

	memset(model, 0, sizeof(model));
	if (type == VHD_DIFFERENCING)
		vhd_overlay(&parent, model, sizeof(model));
	vhd_overlay(&dirty, model, sizeof(model));
	if (!vhd_open_rig(&rig, IMAGE, DISK_OPEN_READ_ONLY))
		return;
	vhd_is(&rig, model);
	vhd_close_rig(&rig);
}

static void check_counts(bool repair, unsigned mended, unsigned mendable, unsigned left)
{
	struct vhd_findings findings = vhd_check_file(IMAGE, repair);

	CHECK_EQ(findings.mended, mended);
	CHECK_EQ(findings.mendable, mendable);
	if (!CHECK_EQ(findings.left, left))
		fprintf(stderr, "%s\n", findings.last);
}

static void make(enum vhd_type type, bool noise)
{
	struct vhd_recipe recipe = dirty;

	recipe.type = type;
	recipe.noise_below_bits = noise;
	vhd_make(IMAGE, &recipe);
}

/* Of a dynamic image nobody knows which is right: it is told, and nothing is changed. */
static void test_dynamic_task(void *argument)
{
	size_t length, again;
	uint8_t *before, *after;

	(void)argument;
	make(VHD_DYNAMIC, true);
	before = vhd_load(IMAGE, &length);
	check_counts(false, 0, 0, DIRTY_BLOCKS);
	check_counts(true, 0, 0, DIRTY_BLOCKS);
	CHECK_TEXT(
		vhd_check_file(IMAGE, false).last,
		"in block 4 there are data in 896 sectors that its bitmap does not have, the "
		"first at byte 2097664 of the disk: they read as zeros, but QEMU shows the data");
	after = vhd_load(IMAGE, &again);
	CHECK(length == again && memcmp(before, after, length) == 0);
	free(before);
	free(after);
	check_content(VHD_DYNAMIC);
}

RUN_IN_TASK(test_dynamic)

/* Of a differencing one they are replaced by zeros, and nothing else is. */
static void test_differencing_task(void *argument)
{
	const struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
	size_t length, again;
	uint8_t *clean, *after;
	struct stat stat_of;

	(void)argument;
	vhd_make(PARENT, &parent);
	make(VHD_DIFFERENCING, false);
	clean = vhd_load(IMAGE, &length);
	/* Those that nobody reads are left alone: so the last block is as it will be. */
	make(VHD_DIFFERENCING, true);
	after = vhd_load(IMAGE, &again);
	memcpy(clean + length - VHD_FOOTER_SIZE - BLOCK + VHD_SECTOR,
	       after + length - VHD_FOOTER_SIZE - BLOCK + VHD_SECTOR, BLOCK - VHD_SECTOR);
	free(after);
	CHECK_EQ(utimensat(AT_FDCWD, IMAGE, times, 0), 0);

	check_content(VHD_DIFFERENCING);
	check_counts(false, 0, DIRTY_BLOCKS, 0);
	CHECK_TEXT(vhd_check_file(IMAGE, false).last,
		   "in block 4 there are data in 896 sectors that its bitmap does not have, the "
		   "first at byte 2097664 of the disk: they read as in the parent");
	check_counts(true, DIRTY_BLOCKS, 0, 0);
	check_counts(false, 0, 0, 0);
	check_content(VHD_DIFFERENCING);
	after = vhd_load(IMAGE, &again);
	CHECK(length == again && memcmp(clean, after, length) == 0);
	/* By which its own children know it. */
	CHECK_EQ(stat(IMAGE, &stat_of), 0);
	CHECK_EQ(stat_of.st_mtime, 1000000000);
	free(clean);
	free(after);
	unlink(PARENT);
}

RUN_IN_TASK(test_differencing)

/* Zeros without a bit are how a writer leaves what was never written. */
static void test_zeros_task(void *argument)
{
	(void)argument;
	vhd_make(PARENT, &parent);
	for (int type = VHD_DYNAMIC; type <= VHD_DIFFERENCING; type++) {
		make((enum vhd_type)type, false);
		check_counts(true, 0, 0, 0);
	}
	unlink(PARENT);
}

RUN_IN_TASK(test_zeros)

/* Of many blocks not all are told, but all are mended. */
static void test_many_task(void *argument)
{
	struct vhd_recipe recipe = dirty;

	(void)argument;
	vhd_make(PARENT, &parent);
	recipe.type = VHD_DIFFERENCING;
	recipe.block_size = VHD_BLOCK_SIZE_MIN;
	recipe.fill_blocks = 0xff;
	vhd_make(IMAGE, &recipe);
	check_counts(false, 0, 101, 0);
	CHECK_TEXT(vhd_check_file(IMAGE, false).last,
		   "in 768 blocks in all there are data in 5376 such sectors");
	check_counts(true, 101, 0, 0);
	check_counts(false, 0, 0, 0);
	unlink(PARENT);
}

RUN_IN_TASK(test_many)

/* ---- Whose type nobody knows. ---- */

static void test_conflict_task(void *argument)
{
	struct vhd_footer footer;
	size_t length;
	uint8_t *bytes;
	struct err err;

	(void)argument;
	vhd_make(PARENT, &parent);
	make(VHD_DIFFERENCING, true);
	bytes = vhd_load(IMAGE, &length);
	CHECK_EQ(vhd_footer_decode(&footer, bytes, VHD_FOOTER_SIZE, &err), 0);
	footer.type = VHD_DYNAMIC;
	vhd_footer_encode(&footer, bytes);
	scratch_write(IMAGE, bytes, length);
	check_counts(true, 0, 0, DIRTY_BLOCKS + 1);
	free(bytes);
	bytes = vhd_load(IMAGE, &length);
	CHECK_EQ(vhd_footer_decode(&footer, bytes, VHD_FOOTER_SIZE, &err), 0);
	CHECK_EQ(footer.type, VHD_DYNAMIC);
	free(bytes);
	unlink(PARENT);
}

RUN_IN_TASK(test_conflict)

/* ---- Parents. ---- */

static const struct kin {
	struct vhd_recipe parent, child; /* the parent's name: PARENT */
	const char *parent_path;	 /* NULL: PARENT */
	unsigned left;
	const char *text; /* part of the last finding */
} kins[] = {
	{.parent = {.type = VHD_FIXED, .size = SIZE, .id = 3},
	 .child = {.size = SIZE, .parent_id = 3, .parent_relative = ".\\" PARENT}},
	{.parent = {.type = VHD_DYNAMIC, .size = SIZE, .id = 3},
	 .child = {.size = SIZE, .parent_id = 3, .parent_absolute = "C:\\VMs\\" PARENT}},
	/* The time in the parent's footer. */
	{.parent = {.type = VHD_FIXED, .size = SIZE, .id = 3},
	 .child =
		 {.size = SIZE, .parent_id = 3, .parent_name = PARENT, .parent_time_stamp = 12345}},
	{.parent = {.type = VHD_FIXED, .size = SIZE, .id = 3},
	 .child = {.size = SIZE, .parent_id = 3, .parent_name = PARENT, .parent_time_stamp = 12346},
	 .left = 1,
	 .text = "/parent.vhd', has been changed since the image was made over it"},
	{.parent = {.type = VHD_FIXED, .size = SIZE, .id = 3},
	 .child = {.size = SIZE, .parent_id = 4, .parent_name = PARENT},
	 .left = 1,
	 .text = "/parent.vhd' is not the parent: its unique id is "
		 "03030303030303030303030303030303, not 04040404040404040404040404040404"},
	{.parent = {.type = VHD_FIXED, .size = SIZE, .id = 3},
	 .child = {.size = SIZE, .parent_id = 3, .parent_relative = "gone.vhd"},
	 .left = 1,
	 .text = "its parent is not found: tried 'gone.vhd' (parent = names it)"},
	{.parent = {.type = VHD_FIXED, .size = SIZE, .id = 3},
	 .child = {.size = SIZE, .parent_id = 3},
	 .left = 1,
	 .text = "does not say where its parent is"},
	{.parent = {.type = VHD_FIXED, .size = SIZE - 512, .id = 3},
	 .child = {.size = SIZE, .parent_id = 3, .parent_relative = PARENT},
	 .left = 1,
	 .text = "the disk has 3146240 bytes, but its parent, '"},
	{.parent = {.type = VHD_FIXED, .size = SIZE, .id = 3},
	 .child = {.size = SIZE, .parent_relative = IMAGE},
	 .left = 1,
	 .text = "/image.vhd' says that it is its own parent"},
	/* Another folder is only looked into where a configuration allows it. */
	{.parent = {.type = VHD_FIXED, .size = SIZE, .id = 3},
	 .parent_path = "../" PARENT,
	 .child = {.size = SIZE, .parent_id = 4, .parent_relative = "..\\" PARENT}},
	/* What is no parent is passed by. */
	{.parent = {.type = VHD_FIXED, .size = SIZE, .id = 3},
	 .child =
		 {.size = SIZE, .parent_id = 3, .parent_relative = "noise", .parent_name = PARENT}},
	{.parent = {.type = VHD_FIXED, .size = SIZE, .id = 3},
	 .child = {.size = SIZE, .parent_id = 3, .parent_relative = "noise"},
	 .left = 1,
	 .text = "/noise' is no VHD: it has no footer"},
	/* The chain goes on, and comes back. */
	{.parent = {.type = VHD_DIFFERENCING, .size = SIZE, .id = 3, .parent_relative = IMAGE},
	 .child = {.size = SIZE, .parent_id = 3, .parent_relative = PARENT},
	 .left = 1,
	 .text = "/image.vhd' is its own parent's parent"},
	/* What is wrong with the parent itself is told, and only told. */
	{.parent = {.type = VHD_DYNAMIC,
		    .size = SIZE,
		    .id = 3,
		    .fill_blocks = 1,
		    .fill_seed = 1,
		    .noise_below_bits = true},
	 .child = {.size = SIZE, .parent_id = 3, .parent_relative = PARENT},
	 .left = 1,
	 .text = "in block 0 there are data"},
};

static void test_parents_task(void *argument)
{
	(void)argument;
	scratch_write("noise", "no VHD", 6);
	for (size_t i = 0; i < ARRAY_SIZE(kins); i++) {
		const struct kin *kin = &kins[i];
		const char *path = kin->parent_path ? kin->parent_path : PARENT;
		struct vhd_recipe child = kin->child;
		struct vhd_findings findings;

		check_context("kin %zu", i);
		child.type = VHD_DIFFERENCING;
		vhd_make(path, &kin->parent);
		vhd_make(IMAGE, &child);
		for (unsigned repair = 0; repair < 2; repair++) {
			findings = vhd_check_file(IMAGE, repair);
			CHECK_EQ(findings.mended + findings.mendable, 0);
			if (!CHECK_EQ(findings.left, kin->left))
				fprintf(stderr, "%s\n", findings.last);
		}
		CHECK(!kin->text || strstr(findings.last, kin->text));
		unlink(path);
	}
}

RUN_IN_TASK(test_parents)

/* A parent of which more than nothing could be mended is mended by a check of its own. */
static void test_parent_repair_task(void *argument)
{
	struct vhd_recipe child = {
		.type = VHD_DIFFERENCING, .size = SIZE, .parent_id = 1, .parent_relative = PARENT};
	struct vhd_recipe middle = dirty;

	(void)argument;
	middle.type = VHD_DIFFERENCING;
	middle.id = 1;
	middle.parent_relative = "base.vhd";
	vhd_make("base.vhd", &parent);
	vhd_make(PARENT, &middle);
	vhd_make(IMAGE, &child);
	check_counts(true, 0, DIRTY_BLOCKS, 0);
	CHECK_EQ(vhd_check_file(PARENT, true).mended, DIRTY_BLOCKS);
	check_counts(true, 0, 0, 0);
	unlink("base.vhd");
	unlink(PARENT);
}

RUN_IN_TASK(test_parent_repair)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dynamic),	      cmocka_unit_test(test_differencing),
		cmocka_unit_test(test_zeros),	      cmocka_unit_test(test_many),
		cmocka_unit_test(test_conflict),      cmocka_unit_test(test_parents),
		cmocka_unit_test(test_parent_repair),
	};
	int failed;

	log_set_level(LOG_LEVEL_ERROR);
	scratch_enter();
	failed = mkdir("folder", 0700) != 0 || chdir("folder") != 0;
	if (!failed)
		failed = cmocka_run_group_tests(tests, setup_1_worker, teardown_workers);
	unlink(IMAGE);
	unlink("noise");
	failed |= chdir("..") != 0 || rmdir("folder") != 0;
	scratch_leave();
	return failed;
}
