// SPDX-License-Identifier: MIT
/* How the file of a dynamic VHD grows and what becomes of its blocks; and of errors below, of a crash,
 * of an end of room. */
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
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/stacks.h"
#include "tests/lib/vhd.h"

#define IMAGE	"image.vhd"
#define BLOCK	((size_t)512 * 1024)
#define SECTORS 1024U /* in a block */
#define BLOCKS	8U
#define SIZE	(BLOCKS * BLOCK)

static const struct vhd_recipe empty = {.type = VHD_DYNAMIC, .size = SIZE, .block_size = BLOCK};

static uint8_t model[SIZE];

/* Writes sectors of a block, to the disk and to the model. */
static int put(struct vhd_rig *rig, uint32_t block, uint32_t first, uint32_t count, uint64_t seed)
{
	uint64_t sector = (uint64_t)block * SECTORS + first;
	size_t length = (size_t)count * VHD_SECTOR;
	uint8_t *data = malloc(length);
	int error;

	pattern_fill(data, length, seed);
	error = vhd_put(rig, data, sector, count);
	if (!error)
		memcpy(model + sector * VHD_SECTOR, data, length);
	free(data);
	return error;
}

static bool begin(struct vhd_rig *rig)
{
	memset(model, 0, sizeof(model));
	vhd_make(IMAGE, &empty);
	return vhd_open_rig(rig, IMAGE, 0);
}

/* Closes it, and what is there after that is the model. */
static void end(struct vhd_rig *rig)
{
	vhd_is(rig, model);
	vhd_close_rig(rig);
	if (vhd_open_rig(rig, IMAGE, DISK_OPEN_READ_ONLY)) {
		vhd_is(rig, model);
		vhd_close_rig(rig);
	}
}

/* ---- Growing. ---- */

static void test_grow_task(void *argument)
{
	static const uint32_t order[] = {5, 0, 7, 1};
	struct vhd_file file;
	struct vhd_rig rig;
	uint64_t length;

	(void)argument;
	if (!begin(&rig) || !vhd_inspect(IMAGE, &file))
		return;
	length = file.length;
	for (uint32_t i = 0; i < ARRAY_SIZE(order); i++) {
		CHECK_OK(put(&rig, order[i], 10, 3, i));
		CHECK_OK(disk_flush(rig.disk));
		if (!vhd_inspect(IMAGE, &file))
			break;
		CHECK_EQ(file.used, i + 1);
		/* A slot, and at most what it takes to align its data. */
		CHECK(file.length > length + BLOCK && file.length <= length + BLOCK + 4096 + 512);
		CHECK_EQ((file.entries[order[i]] + 1) % 8, 0);
		length = file.length;
		/* What is there needs no more room. */
		CHECK_OK(put(&rig, order[i], 0, SECTORS, i + 100));
	}
	end(&rig);
	vhd_inspect(IMAGE, &file);
	CHECK_EQ(file.length, length);
}

RUN_IN_TASK(test_grow)

/* The file does not hear of a block before a flush, and then of all of them. */
static void test_flush_task(void *argument)
{
	struct vhd_file file;
	struct vhd_rig rig;
	size_t length;
	uint8_t *bytes;

	(void)argument;
	if (!begin(&rig))
		return;
	for (uint32_t i = 0; i < BLOCKS; i++)
		CHECK_OK(put(&rig, i, i, 1, i));
	bytes = vhd_load(IMAGE, &length);
	CHECK_EQ(bytes_differ(bytes + 3584, BLOCKS * 4, 0xff), BLOCKS * 4); /* the table */
	free(bytes);
	CHECK_OK(disk_flush(rig.disk));
	if (vhd_inspect(IMAGE, &file))
		CHECK_EQ(file.used, BLOCKS);
	end(&rig);
}

RUN_IN_TASK(test_flush)

/* Nobody flushes, but it is closed. */
static void test_close_task(void *argument)
{
	struct vhd_file file;
	struct vhd_rig rig;

	(void)argument;
	if (!begin(&rig))
		return;
	CHECK_OK(put(&rig, 3, 0, 10, 1));
	end(&rig);
	if (vhd_inspect(IMAGE, &file))
		CHECK_EQ(file.used, 1);
}

RUN_IN_TASK(test_close)

/* ---- Giving up. ---- */

static void zero(struct vhd_rig *rig, uint32_t block, uint32_t first, uint32_t count)
{
	uint64_t sector = (uint64_t)block * SECTORS + first;

	CHECK_OK(disk_unmap(rig->disk, sector, count));
	memset(model + sector * VHD_SECTOR, 0, (size_t)count * VHD_SECTOR);
}

static void test_unmap_task(void *argument)
{
	struct vhd_file file, after;
	struct vhd_rig rig;

	(void)argument;
	if (!begin(&rig))
		return;
	for (uint32_t i = 0; i < 4; i++)
		CHECK_OK(put(&rig, i, 0, SECTORS, i));
	zero(&rig, 0, 0, SECTORS - 1); /* not all of it */
	zero(&rig, 1, 0, 2 * SECTORS); /* two blocks */
	zero(&rig, 3, 5, SECTORS);     /* and what is in none */
	zero(&rig, 5, 0, 2 * SECTORS);
	vhd_is(&rig, model);
	CHECK_OK(disk_flush(rig.disk));
	vhd_is(&rig, model);
	if (!vhd_inspect(IMAGE, &file))
		return;
	CHECK_EQ(file.used, 2);
	CHECK(file.entries[0] != VHD_NO_BLOCK && file.entries[3] != VHD_NO_BLOCK);
	/* Their slots are used again, and show nothing of what was there. */
	CHECK_OK(put(&rig, 6, 7, 1, 50));
	CHECK_OK(put(&rig, 2, 8, 1, 51));
	vhd_is(&rig, model);
	end(&rig);
	if (!vhd_inspect(IMAGE, &after))
		return;
	CHECK_EQ(after.used, 4);
	CHECK_EQ(after.length, file.length);
}

RUN_IN_TASK(test_unmap)

/* Slots that are free when the image is opened are found, before, between and behind others. */
static void test_free_slots_task(void *argument)
{
	struct vhd_file file, after;
	struct vhd_rig rig;

	(void)argument;
	if (!begin(&rig))
		return;
	for (uint32_t i = 0; i < 6; i++)
		CHECK_OK(put(&rig, i, 0, SECTORS, i));
	zero(&rig, 0, 0, SECTORS);
	zero(&rig, 2, 0, 2 * SECTORS);
	zero(&rig, 5, 0, SECTORS);
	end(&rig);
	if (!vhd_inspect(IMAGE, &file) || !vhd_open_rig(&rig, IMAGE, 0))
		return;
	CHECK_EQ(file.used, 2);
	for (uint32_t i = 0; i < 4; i++)
		CHECK_OK(put(&rig, i < 2 ? 6 + i : i, i, 1, 100 + i));
	vhd_is(&rig, model);
	end(&rig);
	if (!vhd_inspect(IMAGE, &after))
		return;
	CHECK_EQ(after.used, 6);
	CHECK_EQ(after.length, file.length);
}

RUN_IN_TASK(test_free_slots)

/* XenServer's images have a map between the table and the blocks, which nothing tells of. */
static void test_xen_task(void *argument)
{
	struct vhd_recipe recipe = empty;
	struct vhd_file file;
	struct vhd_rig rig;

	(void)argument;
	recipe.creator = "tap\0";
	recipe.fill_seed = 1;
	recipe.fill_blocks = 0xff;
	recipe.fill_bits = 0xf0;
	recipe.noise_below_bits = true;
	vhd_make(IMAGE, &recipe);
	memset(model, 0, sizeof(model));
	vhd_overlay(&recipe, model, SIZE);
	if (!vhd_open_rig(&rig, IMAGE, 0))
		return;
	zero(&rig, 1, 0, 3 * SECTORS);
	vhd_is(&rig, model);
	end(&rig);
	if (vhd_inspect(IMAGE, &file))
		CHECK_EQ(file.used, BLOCKS);
}

RUN_IN_TASK(test_xen)

/* Geometry says that there are fewer blocks than the table has: those that are not shown stay. */
static void test_hidden_task(void *argument)
{
	static const char *const options[VHD_OPTIONS_MAX][2] = {{"size_from", "geometry"}, {NULL}};
	struct vhd_recipe recipe = empty;
	struct err err = {.text = ""};
	uint64_t shown;
	struct vhd_rig rig;

	(void)argument;
	recipe.size = 4 * BLOCK + 4096; /* of which a geometry has less than four blocks */
	recipe.fill_seed = 1;
	recipe.fill_blocks = 0xf8;
	recipe.fill_bits = 0xff;
	shown = vhd_geometry_size(vhd_geometry_of(recipe.size));
	CHECK(shown <= 4 * BLOCK);
	vhd_make(IMAGE, &recipe);
	memset(model, 0, sizeof(model));
	vhd_overlay(&recipe, model, recipe.size);
	if (!CHECK(vhd_try(&rig, IMAGE, options, 0, &err)))
		return;
	CHECK_EQ(disk_size(rig.disk), shown);
	for (uint32_t i = 0; i < 3; i++)
		CHECK_OK(put(&rig, i, 0, SECTORS, i));
	vhd_is(&rig, model);
	vhd_close_rig(&rig);
	if (!vhd_open_rig(&rig, IMAGE, 0))
		return;
	vhd_is(&rig, model);
	vhd_close_rig(&rig);
}

RUN_IN_TASK(test_hidden)

/* ---- Errors below. ---- */

struct trouble {
	const char *rules;
	enum error_kind write, flush;
};

/* A write to a new block, and a flush. */
static const struct trouble troubles[] = {
	{"write error=EIO count=1", ERROR_IO, ERROR_NONE},
	{"write error=ENOSPC count=1", ERROR_IO, ERROR_NONE},
	{"write tear count=1", ERROR_IO, ERROR_NONE},
	{"flush error=EIO count=1", ERROR_NONE, ERROR_IO},
	{"flush error=EIO count=1 after=1", ERROR_NONE, ERROR_IO},
	{"write error=EIO count=1 after=1", ERROR_NONE, ERROR_IO}, /* bitmap, table, footer */
	{"write error=EIO count=1 after=2", ERROR_NONE, ERROR_IO},
	{"write error=EIO count=1 after=3", ERROR_NONE, ERROR_IO},
	{"write error=ENOSPC count=3 after=1", ERROR_NONE, ERROR_IO},
};

/* It is not acknowledged, and nothing of it is lost but what has failed; later all is well. */
static void test_errors_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(troubles); i++) {
		struct vhd_file file;
		struct vhd_rig rig;

		check_context("%s", troubles[i].rules);
		if (!begin(&rig))
			return;
		CHECK_OK(put(&rig, 1, 0, 8, 1));
		CHECK_OK(disk_flush(rig.disk));
		vhd_fail(&rig, troubles[i].rules);
		CHECK_KIND(put(&rig, 2, 8, 16, 2), troubles[i].write);
		if (troubles[i].write == ERROR_NONE) /* else some of it may be there */
			vhd_is(&rig, model);
		CHECK_KIND(disk_flush(rig.disk), troubles[i].flush);
		if (troubles[i].write == ERROR_NONE)
			vhd_is(&rig, model);
		vhd_fail(&rig, "");
		CHECK_OK(put(&rig, 2, 4, 24, 3));
		CHECK_OK(put(&rig, 3, 0, 1, 4));
		CHECK_OK(disk_flush(rig.disk));
		if (vhd_inspect(IMAGE, &file))
			CHECK_EQ(file.used, 3);
		end(&rig);
	}
}

RUN_IN_TASK(test_errors)

/* A block that cannot be zeroed is not allocated, and another write gets the slot. */
static void test_zero_error_task(void *argument)
{
	struct vhd_file file;
	struct vhd_rig rig;

	(void)argument;
	if (!begin(&rig))
		return;
	CHECK_OK(put(&rig, 1, 0, SECTORS, 1));
	zero(&rig, 1, 0, SECTORS);
	CHECK_OK(disk_flush(rig.disk));
	vhd_fail(&rig, "zeroes error=EIO");
	CHECK_KIND(put(&rig, 2, 0, 1, 2), ERROR_IO);
	vhd_is(&rig, model);
	vhd_fail(&rig, "");
	CHECK_OK(put(&rig, 3, 0, 1, 2));
	vhd_is(&rig, model);
	end(&rig);
	if (vhd_inspect(IMAGE, &file))
		CHECK_EQ(file.used, 1);
}

RUN_IN_TASK(test_zero_error)

/* A bitmap that cannot be read is asked for again by the next request; until then nothing is known of
 * its block, and nothing is guessed. */
static void test_bitmap_error_task(void *argument)
{
	struct vhd_recipe recipe = empty;
	struct vhd_rig rig;
	uint8_t sector[VHD_SECTOR];

	(void)argument;
	recipe.fill_seed = 1;
	recipe.fill_blocks = 0x0f;
	recipe.fill_bits = 0x55;
	recipe.noise_below_bits = true;
	vhd_make(IMAGE, &recipe);
	memset(model, 0, sizeof(model));
	vhd_overlay(&recipe, model, SIZE);
	if (!vhd_open_rig(&rig, IMAGE, 0))
		return;
	vhd_fail(&rig, "read error=EIO count=3");
	CHECK_KIND(vhd_get(&rig, sector, 5, 1), ERROR_IO);
	CHECK_KIND(put(&rig, 0, 5, 1, 1), ERROR_IO);
	CHECK_KIND(disk_unmap(rig.disk, 5, 1), ERROR_IO);
	CHECK_OK(put(&rig, 0, 6, 1, 1));
	zero(&rig, 0, 9, 4);
	vhd_is(&rig, model);
	end(&rig);
}

RUN_IN_TASK(test_bitmap_error)

/* ---- A crash, of which a copy of the file is what is left. ---- */

static void copy_file(const char *to)
{
	size_t length;
	uint8_t *bytes = vhd_load(IMAGE, &length);

	scratch_write(to, bytes, length);
	free(bytes);
}

static void test_crash_task(void *argument)
{
	static uint8_t flushed[SIZE];
	struct vhd_file before, after;
	struct vhd_rig rig, copy;

	(void)argument;
	if (!begin(&rig))
		return;
	CHECK_OK(put(&rig, 1, 0, 8, 1));
	CHECK_OK(disk_flush(rig.disk));
	memcpy(flushed, model, SIZE);
	vhd_inspect(IMAGE, &before);
	for (uint32_t i = 2; i < BLOCKS; i++)
		CHECK_OK(put(&rig, i, 0, SECTORS, i));
	copy_file("copy.vhd");
	/* As it is, and mended: what was not flushed is gone, and its room is there again. */
	for (unsigned i = 0; i < 2; i++) {
		if (!vhd_open_rig(&copy, "copy.vhd", i == 0 ? DISK_OPEN_READ_ONLY : 0))
			break;
		vhd_is(&copy, flushed);
		vhd_close_rig(&copy);
	}
	if (vhd_inspect("copy.vhd", &after)) {
		CHECK_EQ(after.length, before.length);
		CHECK_EQ(after.used, 1);
	}
	/* Zeros come back where it grows again. */
	if (vhd_open_rig(&copy, "copy.vhd", 0)) {
		CHECK_OK(vhd_put(&copy, flushed + SECTORS * 512, 3 * SECTORS + 1, 1));
		memcpy(flushed + (3 * SECTORS + 1) * 512, flushed + SECTORS * 512, 512);
		vhd_is(&copy, flushed);
		vhd_close_rig(&copy);
	}
	end(&rig);
}

RUN_IN_TASK(test_crash)

/* ---- On what does not grow. ---- */

/* A device with room for @slots blocks more than the image has. */
static struct disk *device_open(size_t slots, struct err *err)
{
	size_t length;
	uint8_t *bytes = vhd_bytes(&empty, &length);
	uint64_t size = align_up(length + slots * (BLOCK + 8192) + 8192, 4096);
	char text[24];
	const char *const options[][2] = {{"size", text}, {NULL}};
	struct disk *disk;
	struct iovec iov;
	struct sg sg;

	snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
	disk = driver_open(driver_find("ram"), options, 2, 0, NULL, err);
	if (disk) {
		uint8_t *all = malloc(size);

		memset(all, 0xdd, size); /* what was there before */
		memcpy(all, bytes, length - 512);
		sg = sg_of(&iov, all, size);
		CHECK_OK(disk_write(disk, &sg, 0, 0));
		free(all);
	}
	free(bytes);
	return disk;
}

static void test_device_task(void *argument)
{
	static const char *const none[][2] = {{NULL}};
	struct err err = {.text = ""};
	struct vhd_rig rig = {.fault = NULL};

	(void)argument;
	memset(model, 0, sizeof(model));
	rig.fault = device_open(3, &err);
	for (unsigned round = 0; round < 2 && CHECK(rig.fault); round++) {
		rig.disk = driver_open(driver_find("vhd"), none, 1, 0, rig.fault, &err);
		if (!CHECK(rig.disk))
			break;
		vhd_is(&rig, model);
		for (uint32_t i = 0; i < 3; i++)
			CHECK_OK(put(&rig, i, i, 5, i + round));
		CHECK_KIND(put(&rig, 4, 0, 1, 1), ERROR_IO);
		CHECK_EQ(error_errno(put(&rig, 4, 0, 1, 1)), ENOSPC);
		vhd_is(&rig, model);
		/* Room that is given back is room for others, after a flush. */
		zero(&rig, 1, 0, SECTORS);
		CHECK_OK(disk_flush(rig.disk));
		CHECK_OK(put(&rig, 4, 9, 1, 1));
		vhd_is(&rig, model);
		zero(&rig, 4, 0, SECTORS);
		disk_close(rig.disk);
		rig.disk = NULL;
	}
	CHECK_TEXT(err.text, "");
	disk_close(rig.fault);
}

RUN_IN_TASK(test_device)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grow),	   cmocka_unit_test(test_flush),
		cmocka_unit_test(test_close),	   cmocka_unit_test(test_unmap),
		cmocka_unit_test(test_free_slots), cmocka_unit_test(test_xen),
		cmocka_unit_test(test_errors),	   cmocka_unit_test(test_zero_error),
		cmocka_unit_test(test_hidden),	   cmocka_unit_test(test_bitmap_error),
		cmocka_unit_test(test_crash),	   cmocka_unit_test(test_device),
	};
	int failed;

	log_set_level(LOG_LEVEL_ERROR); /* damage is warned of */
	scratch_enter();
	failed = cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
	scratch_leave();
	return failed;
}
