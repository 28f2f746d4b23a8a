// SPDX-License-Identifier: MIT
/* The driver vhd on files: what it reads, what it makes of damage, and how a file grows. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/list.h"
#include "core/log.h"
#include "tests/lib/check.h"
#include "tests/lib/medium.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/stacks.h"
#include "tests/lib/vhd.h"
#include "tests/lib/vhd_images.h"

#define IMAGE "image.vhd"

/* ---- Reading. ---- */

static const struct vhd_recipe readable[] = {
	{.type = VHD_FIXED, .size = 3 * MIB + 512, .fill_seed = 1},
	{.type = VHD_DYNAMIC, .size = 5 * MIB},
	{.type = VHD_DYNAMIC, .size = 5 * MIB, .fill_seed = 1, .fill_blocks = 5, .fill_bits = 0xff},
	{.type = VHD_DYNAMIC,
	 .size = 3 * MIB + 512 * 7,
	 .block_size = 512 * KIB,
	 .fill_seed = 1,
	 .fill_blocks = 0xb6,
	 .fill_bits = 0xff},
	/* Bitmaps in which not all is set, as XenServer makes them. */
	{.type = VHD_DYNAMIC,
	 .size = 5 * MIB,
	 .fill_seed = 2,
	 .fill_blocks = 7,
	 .fill_bits = 0x3c,
	 .noise_below_bits = true},
	{.type = VHD_DYNAMIC,
	 .size = 20 * MIB + 512 * 3,
	 .block_size = 16 * MIB,
	 .fill_seed = 3,
	 .fill_blocks = 3,
	 .fill_bits = 0x01,
	 .noise_below_bits = true},
	{.type = VHD_DYNAMIC,
	 .size = 100 * KIB + 512,
	 .block_size = 4096,
	 .fill_seed = 4,
	 .fill_blocks = 0xa5,
	 .fill_bits = 0x81,
	 .noise_below_bits = true},
	{.type = VHD_DYNAMIC,
	 .size = 5 * MIB,
	 .fill_seed = 2,
	 .fill_blocks = 7,
	 .noise_below_bits = true},
};

/* Zeros with the image over it. */
static uint8_t *model_of(const struct vhd_recipe *recipe)
{
	uint8_t *model = calloc(1, recipe->size);

	vhd_overlay(recipe, model, recipe->size);
	return model;
}

/* Random pieces, too, and holes only where zeros are. */
static void check_pieces(struct vhd_rig *rig, const uint8_t *model)
{
	struct random random = {.state = 5};
	uint64_t all = disk_sector_count(rig->disk);
	uint8_t *data = malloc(disk_size(rig->disk));

	for (unsigned i = 0; i < 200; i++) {
		uint64_t sector = random_below(&random, all);
		uint64_t count = 1 + random_below(&random, all - sector);
		struct extent extent;

		count = random_below(&random, 3) ? min_u64(count, 100) : count;
		if (!CHECK_OK(vhd_get(rig, data, sector, count)) ||
		    !CHECK(memcmp(data, model + sector * VHD_SECTOR, count * VHD_SECTOR) == 0))
			break;
		CHECK_OK(disk_extent(rig->disk, sector, count, &extent));
		if (extent.kind == EXTENT_HOLE)
			CHECK_EQ(bytes_differ(data, extent.count * VHD_SECTOR, 0),
				 extent.count * VHD_SECTOR);
	}
	free(data);
}

static void test_read_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(readable); i++) {
		uint8_t *model = model_of(&readable[i]);
		struct vhd_rig rig;

		check_context("recipe %zu", i);
		vhd_make(IMAGE, &readable[i]);
		if (vhd_open_rig(&rig, IMAGE, i % 2 ? DISK_OPEN_READ_ONLY : 0)) {
			CHECK_EQ(disk_size(rig.disk), readable[i].size);
			vhd_is(&rig, model);
			check_pieces(&rig, model);
			vhd_close_rig(&rig);
		}
		free(model);
	}
}

RUN_IN_TASK(test_read)

/* What is written into each of them is there, and all else as it was; again after it was closed. */
static void test_write_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(readable); i++) {
		uint8_t *model = model_of(&readable[i]);
		uint64_t all = readable[i].size / VHD_SECTOR;
		struct random random = {.state = i};
		struct vhd_file file;
		struct vhd_rig rig;

		check_context("recipe %zu", i);
		vhd_make(IMAGE, &readable[i]);
		if (!vhd_open_rig(&rig, IMAGE, 0))
			break;
		for (unsigned j = 0; j < 30; j++) {
			uint64_t sector = random_below(&random, all);
			uint64_t count = min_u64(1 + random_below(&random, 50), all - sector);

			pattern_fill(model + sector * VHD_SECTOR, count * VHD_SECTOR, j);
			CHECK_OK(vhd_put(&rig, model + sector * VHD_SECTOR, sector, count));
			if (j % 10 == 0)
				CHECK_OK(disk_flush(rig.disk));
		}
		vhd_is(&rig, model);
		vhd_close_rig(&rig);
		vhd_inspect(IMAGE, &file);
		if (vhd_open_rig(&rig, IMAGE, DISK_OPEN_READ_ONLY)) {
			vhd_is(&rig, model);
			vhd_close_rig(&rig);
		}
		free(model);
	}
}

RUN_IN_TASK(test_write)

/* ---- Footers. ---- */

static const struct vhd_recipe filled = {.type = VHD_DYNAMIC,
					 .size = 5 * MIB,
					 .id = 7,
					 .fill_seed = 1,
					 .fill_blocks = 5,
					 .fill_bits = 0xff};

/* Changes a byte of the file; from its end if @at is negative. */
static void damage(off_t at)
{
	int fd = open(IMAGE, O_RDWR | O_CLOEXEC);
	off_t offset = at < 0 ? lseek(fd, 0, SEEK_END) + at : at;
	uint8_t byte;

	CHECK_EQ(pread(fd, &byte, 1, offset), 1);
	byte ^= 0x10;
	CHECK_EQ(pwrite(fd, &byte, 1, offset), 1);
	close(fd);
}

static void cut(off_t bytes)
{
	int fd = open(IMAGE, O_RDWR | O_CLOEXEC);

	CHECK_EQ(ftruncate(fd, lseek(fd, 0, SEEK_END) - bytes), 0);
	close(fd);
}

/* Reads the image as it is, then opens it for writing, which mends it, and reads it again. */
static void check_mended(uint64_t length)
{
	uint8_t *model = model_of(&filled);
	struct vhd_file file;
	struct vhd_rig rig;

	for (unsigned i = 0; i < 3; i++) {
		if (!vhd_open_rig(&rig, IMAGE, i == 1 ? 0 : DISK_OPEN_READ_ONLY))
			break;
		vhd_is(&rig, model);
		vhd_close_rig(&rig);
	}
	if (vhd_inspect(IMAGE, &file))
		CHECK_EQ(file.length, length);
	free(model);
}

static void test_footers_task(void *argument)
{
	size_t length;

	(void)argument;
	free(vhd_bytes(&filled, &length));

	check_context("footer");
	vhd_make(IMAGE, &filled);
	damage(-100);
	check_mended(length);
	check_context("copy");
	vhd_make(IMAGE, &filled);
	damage(100);
	check_mended(length);
	check_context("no footer");
	vhd_make(IMAGE, &filled);
	cut(512);
	check_mended(length);
	check_context("half a footer");
	vhd_make(IMAGE, &filled);
	cut(100);
	check_mended(length);
	check_context("both");
	vhd_make(IMAGE, &filled);
	damage(100);
	damage(-100);
	vhd_refused(IMAGE, NULL, "", "'image.vhd': at the end: the footer has checksum 0x");
	check_context("cookies");
	vhd_make(IMAGE, &filled);
	damage(0);
	damage(-512);
	vhd_refused(IMAGE, NULL, "", "'image.vhd': at the end: no footer of a VHD");
}

RUN_IN_TASK(test_footers)

/* 511 bytes, of Virtual PC: in a fixed image there is no copy to fall back to. */
static void test_old_footer_task(void *argument)
{
	static const enum vhd_type types[] = {VHD_FIXED, VHD_DYNAMIC};

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		struct vhd_recipe recipe = filled;
		uint8_t *model, *bytes;
		struct vhd_rig rig;
		size_t length;

		recipe.type = types[i];
		model = model_of(&recipe);
		check_context("%s", vhd_type_name(types[i]));
		vhd_make(IMAGE, &recipe);
		cut(1);
		if (!vhd_open_rig(&rig, IMAGE, 0))
			break;
		vhd_is(&rig, model);
		pattern_fill(model + 2 * MIB - 512, 1024, 3); /* the second is in a new block */
		CHECK_OK(vhd_put(&rig, model + 2 * MIB - 512, 4095, 2));
		CHECK_OK(disk_flush(rig.disk));
		vhd_is(&rig, model);
		vhd_close_rig(&rig);
		bytes = vhd_load(IMAGE, &length);
		CHECK_EQ(length % VHD_SECTOR, types[i] == VHD_FIXED ? 511 : 0);
		free(bytes);
		if (vhd_open_rig(&rig, IMAGE, 0)) {
			vhd_is(&rig, model);
			vhd_close_rig(&rig);
		}
		free(model);
	}
}

RUN_IN_TASK(test_old_footer)

/* Where the footer may be what cannot be read, an image is not said to have none. */
static void test_unreadable_footer_task(void *argument)
{
	struct vhd_recipe recipe = filled;
	struct medium medium = {.size = 0};
	struct medium_config config = {.medium = &medium, .tail_fails = true};
	struct err err = {.text = ""};
	struct disk *below;
	uint8_t *bytes;
	size_t length;

	(void)argument;
	recipe.type = VHD_FIXED;
	bytes = vhd_bytes(&recipe, &length);
	medium_write(&medium, bytes, length - 1, 0);
	free(bytes);
	below = medium_open(&config, 0);
	CHECK(!vhd_open_on(below, NULL, 0, &err));
	CHECK_TEXT(err.text, "'medium': cannot read the footer: I/O error (EIO)");
	disk_close(below);
	medium_free(&medium);
}

RUN_IN_TASK(test_unreadable_footer)

/* Changes the footer, at both places or only at the end. */
static void change_footers(void (*change)(struct vhd_footer *footer), bool both)
{
	size_t length;
	uint8_t *bytes = vhd_load(IMAGE, &length);
	struct vhd_footer footer;
	struct err err;

	CHECK_EQ(vhd_footer_decode(&footer, bytes + length - 512, 512, &err), 0);
	change(&footer);
	vhd_footer_encode(&footer, bytes + length - 512);
	if (both)
		vhd_footer_encode(&footer, bytes);
	scratch_write(IMAGE, bytes, length);
	free(bytes);
}

static void save_state(struct vhd_footer *footer)
{
	footer->saved_state = true;
}

static void change_id(struct vhd_footer *footer)
{
	footer->id[3]++;
}

static void enlarge(struct vhd_footer *footer)
{
	footer->current_size += 512;
}

static void move_header(struct vhd_footer *footer)
{
	footer->data_offset = 1ULL << 40;
}

static void misplace_header(struct vhd_footer *footer)
{
	footer->data_offset = 1024;
}

static void enlarge_much(struct vhd_footer *footer)
{
	footer->current_size = 64 * MIB;
}

static void test_refused_task(void *argument)
{
	const struct vhd_recipe fixed = {.type = VHD_FIXED, .size = MIB, .fill_seed = 1};
	char noise[4096];

	(void)argument;
	vhd_make(IMAGE, &filled);
	change_footers(save_state, true);
	vhd_refused(IMAGE, NULL, "",
		    "'image.vhd': the disk has a saved state of the machine that it belongs to");
	vhd_make(IMAGE, &filled);
	change_footers(change_id, false);
	vhd_refused(IMAGE, NULL, "", "the footer and its copy are of two different disks");
	vhd_make(IMAGE, &filled);
	change_footers(move_header, true);
	vhd_refused(IMAGE, NULL, "",
		    "the footer says a dynamic disk header at byte 1099511627776: not in the file");
	vhd_make(IMAGE, &filled);
	change_footers(misplace_header, true);
	vhd_refused(IMAGE, NULL, "", "no dynamic disk header where the footer says");
	vhd_make(IMAGE, &filled);
	change_footers(enlarge_much, true);
	vhd_refused(IMAGE, NULL, "",
		    "the block allocation table has 8 entries for the 32 blocks of the disk");
	vhd_make(IMAGE, &filled);
	damage(512 + 40);
	vhd_refused(IMAGE, NULL, "", "the dynamic disk header has checksum");
	vhd_make(IMAGE, &filled);
	damage(512 + 1024 + 2048); /* the table */
	vhd_refused(IMAGE, NULL, "",
		    "block 0 lies in sectors 268435464 to 268439560, the file ends");
	vhd_make(IMAGE, &fixed);
	change_footers(enlarge, false);
	vhd_refused(IMAGE, NULL, "",
		    "the footer says a size of 1049088 bytes, but the file has only 1048576 before "
		    "it");
	vhd_make(IMAGE, &fixed);
	damage(-3);
	vhd_refused(IMAGE, NULL, "", "at the end: the footer has checksum");
	pattern_fill(noise, sizeof(noise), 1);
	scratch_write(IMAGE, noise, sizeof(noise));
	vhd_refused(IMAGE, NULL, "", "at the end: no footer of a VHD");
	scratch_write(IMAGE, noise, 512);
	vhd_refused(IMAGE, NULL, "", "at the end: no footer of a VHD");
}

RUN_IN_TASK(test_refused)

/* An image of a fixed VHD inside of a fixed VHD, and of a dynamic one. */
static void test_nested_task(void *argument)
{
	size_t inner_length, length;
	uint8_t *inner = vhd_bytes(&filled, &inner_length), *bytes;
	const struct vhd_recipe outer = {.type = VHD_FIXED, .size = inner_length};
	struct vhd_rig rig;

	(void)argument;
	bytes = vhd_bytes(&outer, &length);
	memcpy(bytes, inner, inner_length);
	scratch_write(IMAGE, bytes, length);
	if (vhd_open_rig(&rig, IMAGE, 0)) {
		CHECK_EQ(disk_size(rig.disk), inner_length);
		vhd_is(&rig, inner);
		vhd_close_rig(&rig);
	}
	free(bytes);
	free(inner);
}

RUN_IN_TASK(test_nested)

static void test_sector_size_task(void *argument)
{
	const char *const options[][2] = {{"path", IMAGE}, {"sector_size", "4096"}, {NULL}};
	struct err err = {.text = ""};
	struct disk *file;

	(void)argument;
	vhd_make(IMAGE, &filled);
	file = driver_open(driver_find("file"), options, 3, 0, NULL, &err);
	CHECK(!driver_open(driver_find("vhd"), options + 2, 1, 0, file, &err));
	CHECK_TEXT(err.text, "'image.vhd': the sectors below have 4096 bytes, those of a VHD 512");
	disk_close(file);
}

RUN_IN_TASK(test_sector_size)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_footers),
		cmocka_unit_test(test_old_footer),
		cmocka_unit_test(test_unreadable_footer),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_nested),
		cmocka_unit_test(test_sector_size),
	};
	int failed;

	log_set_level(LOG_LEVEL_ERROR); /* damage is warned of */
	scratch_enter();
	failed = cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
	scratch_leave();
	return failed;
}
