// SPDX-License-Identifier: MIT
/*
 * Many tasks on four workers at the same blocks of a VHD: writes that allocate, zeros, discards that
 * give blocks up, flushes, reads.
 *
 *	SEED=n	replays a run (but for the order between the workers)
 *
 * Each sector belongs to one task, which knows what is in it; neighbours belong to others, so that
 * blocks and bytes of bitmaps are everybody's. Whoever reads finds in each sector what its owner
 * wrote there at some time, whole, or zeros, or the parent's: never what was in a slot before, nor
 * what belongs elsewhere. The slots begin full of something else.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "core/log.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/vhd.h"

#define IMAGE	"race.vhd"
#define TASKS	24U
#define ROUNDS	150U
#define BLOCK	((uint32_t)16 * 1024)
#define SECTORS (TASKS * 32U) /* of the disk: 24 blocks of 32 */
#define SIZE	((size_t)SECTORS * VHD_SECTOR)

static uint64_t seed;

/* A sector says whose it is, and which version. Version 0 is what was there first. */
struct stamp {
	uint32_t sector, version;
};

static struct world {
	struct vhd_rig rig;
	bool has_parent;
	uint32_t versions[SECTORS]; /* the owner's; 0: what was there first, or zeros */
	bool zeros[SECTORS];
} world;

static void stamp_fill(uint8_t *data, uint32_t sector, uint32_t version)
{
	for (size_t i = 0; i < VHD_SECTOR; i += sizeof(struct stamp)) {
		struct stamp stamp = {.sector = sector, .version = version};

		memcpy(data + i, &stamp, sizeof(stamp));
	}
}

static void first_fill(uint8_t *disk)
{
	for (uint32_t i = 0; i < SECTORS; i++)
		if (world.has_parent)
			stamp_fill(disk + (size_t)i * VHD_SECTOR, i, 0);
		else
			memset(disk + (size_t)i * VHD_SECTOR, 0, VHD_SECTOR);
}

static bool is_zero(const uint8_t *data)
{
	return bytes_differ(data, VHD_SECTOR, 0) == VHD_SECTOR;
}

/* It is the sector's own, of one version throughout, or zeros. Zeros with an index of 0 and a
 * version of 0 are the first sector's. */
static bool is_possible(const uint8_t *data, uint32_t sector)
{
	uint8_t whole[VHD_SECTOR];
	struct stamp stamp;

	if (is_zero(data))
		return true;
	memcpy(&stamp, data, sizeof(stamp));
	stamp_fill(whole, sector, stamp.version);
	return memcmp(data, whole, VHD_SECTOR) == 0 && (stamp.version > 0 || world.has_parent);
}

static bool is_mine(const uint8_t *data, uint32_t sector)
{
	uint8_t whole[VHD_SECTOR] = {0};

	if (!world.zeros[sector])
		stamp_fill(whole, sector, world.versions[sector]);
	return memcmp(data, whole, VHD_SECTOR) == 0;
}

static void look(struct random *random, uint8_t *data)
{
	uint32_t sector = (uint32_t)random_below(random, SECTORS);
	uint32_t count = (uint32_t)min_u64(1 + random_below(random, 80), SECTORS - sector);

	CHECK_OK(vhd_get(&world.rig, data, sector, count));
	for (uint32_t i = 0; i < count; i++)
		if (!CHECK(is_possible(data + (size_t)i * VHD_SECTOR, sector + i)))
			break;
}

static void write_mine(uint32_t sector, uint8_t *data)
{
	world.versions[sector]++;
	world.zeros[sector] = false;
	stamp_fill(data, sector, world.versions[sector]);
	CHECK_OK(vhd_put(&world.rig, data, sector, 1));
}

/* One task: its sectors are index, index + TASKS, ... */
static void work(unsigned index, void *argument)
{
	struct random random = {.state = seed + index};
	uint8_t *data = malloc((size_t)80 * VHD_SECTOR);

	(void)argument;
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t sector = index + TASKS * (uint32_t)random_below(&random, SECTORS / TASKS);

		switch (random_below(&random, 8)) {
		case 0:
			CHECK_OK(disk_flush(world.rig.disk));
			break;
		case 1:
			CHECK_OK(disk_unmap(world.rig.disk, sector, 1));
			world.zeros[sector] = true;
			break;
		case 2:
		case 3:
			look(&random, data);
			break;
		default:
			write_mine(sector, data);
		}
		CHECK_OK(vhd_get(&world.rig, data, sector, 1));
		if (!CHECK(is_mine(data, sector)))
			break;
	}
	free(data);
}

static void open_world(void *argument)
{
	struct vhd_recipe base = {.type = VHD_DYNAMIC, .size = SIZE, .block_size = BLOCK, .id = 1};
	struct vhd_recipe child = {.type = VHD_DIFFERENCING,
				   .size = SIZE,
				   .block_size = BLOCK,
				   .id = 2,
				   .parent_id = 1,
				   .parent_relative = "base"};
	uint8_t *disk = malloc(SIZE);

	world = (struct world){.has_parent = argument != NULL};
	first_fill(disk);
	for (uint32_t i = 0; i < SECTORS; i++)
		world.zeros[i] = !world.has_parent;
	vhd_make(world.has_parent ? "base" : IMAGE, &base);
	if (world.has_parent) {
		CHECK(vhd_open_rig(&world.rig, "base", 0));
		CHECK_OK(vhd_put(&world.rig, disk, 0, SECTORS));
		vhd_close_rig(&world.rig);
		vhd_make(IMAGE, &child);
	}
	CHECK(vhd_open_rig(&world.rig, IMAGE, 0));
	free(disk);
}

static void check_all(void)
{
	uint8_t *disk = malloc(SIZE);

	CHECK_OK(vhd_get(&world.rig, disk, 0, SECTORS));
	for (uint32_t i = 0; i < SECTORS; i++)
		if (!CHECK(is_mine(disk + (size_t)i * VHD_SECTOR, i)))
			break;
	free(disk);
}

static void close_world(void *argument)
{
	struct vhd_file file;

	(void)argument;
	check_all();
	vhd_close_rig(&world.rig);
	vhd_inspect(IMAGE, &file);
	if (vhd_open_rig(&world.rig, IMAGE, DISK_OPEN_READ_ONLY)) {
		check_all();
		vhd_close_rig(&world.rig);
	}
}

static void run_own_sectors(bool has_parent)
{
	check_context("SEED=%llu", (unsigned long long)seed);
	run_task(open_world, has_parent ? &world : NULL);
	run_tasks(TASKS, work, NULL);
	run_task(close_world, NULL);
}

static void test_dynamic(void **state)
{
	(void)state;
	run_own_sectors(false);
}

static void test_differencing(void **state)
{
	(void)state;
	run_own_sectors(true);
}

/* ---- Whole blocks: each is filled, given up and filled again, by one task. ---- */

static void turn_over(unsigned index, void *argument)
{
	uint8_t *data = malloc(BLOCK);
	uint32_t first = index * (BLOCK / VHD_SECTOR), sectors = BLOCK / VHD_SECTOR;
	struct random random = {.state = seed * 3 + index};

	(void)argument;
	for (uint32_t i = 1; i < ROUNDS / 2; i++) {
		uint32_t sector = (uint32_t)random_below(&random, sectors);

		/* A slot that is new shows one sector and no more. */
		stamp_fill(data, first + sector, i);
		CHECK_OK(vhd_put(&world.rig, data, first + sector, 1));
		CHECK_OK(vhd_get(&world.rig, data, first, sectors));
		for (uint32_t s = 0; s < sectors; s++)
			CHECK(s == sector || is_zero(data + (size_t)s * VHD_SECTOR));
		for (uint32_t s = 0; s < sectors; s++)
			stamp_fill(data + (size_t)s * VHD_SECTOR, first + s, i);
		CHECK_OK(vhd_put(&world.rig, data, first, sectors));
		if (random_below(&random, 3) == 0)
			CHECK_OK(disk_flush(world.rig.disk));
		CHECK_OK(vhd_get(&world.rig, data, first, sectors));
		for (uint32_t s = 0; s < sectors; s++)
			CHECK(!is_zero(data + (size_t)s * VHD_SECTOR) &&
			      is_possible(data + (size_t)s * VHD_SECTOR, first + s));
		CHECK_OK(disk_unmap(world.rig.disk, first, sectors));
		CHECK_OK(vhd_get(&world.rig, data, first, sectors));
		CHECK_EQ(bytes_differ(data, BLOCK, 0), BLOCK);
	}
	free(data);
}

static void test_turn_over(void **state)
{
	(void)state;
	check_context("SEED=%llu", (unsigned long long)seed);
	run_task(open_world, NULL);
	run_tasks(SECTORS / (BLOCK / VHD_SECTOR), turn_over, NULL);
	run_task(close_world, NULL);
}

/* ---- Two writers of one new block. ---- */

#define PAIRS 40U

/* Both write half of each block, at the same time; whoever comes later finds both halves. */
static void write_half(unsigned index, void *argument)
{
	uint32_t sectors = BLOCK / VHD_SECTOR, half = sectors / 2;
	uint8_t *data = malloc(BLOCK);

	(void)argument;
	for (uint32_t block = 0; block < SECTORS / sectors; block++) {
		uint32_t first = block * sectors + (index % 2) * half;

		for (uint32_t s = 0; s < half; s++)
			stamp_fill(data + (size_t)s * VHD_SECTOR, first + s, 1);
		CHECK_OK(vhd_put(&world.rig, data, first, half));
		CHECK_OK(vhd_get(&world.rig, data, block * sectors, sectors));
		for (uint32_t s = 0; s < sectors; s++)
			CHECK(is_possible(data + (size_t)s * VHD_SECTOR, block * sectors + s));
	}
	free(data);
}

static void mark_written(void *argument)
{
	(void)argument;
	for (uint32_t i = 0; i < SECTORS; i++) {
		world.versions[i] = 1;
		world.zeros[i] = false;
	}
}

static void test_halves(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PAIRS; i++) {
		run_task(open_world, i % 2 ? &world : NULL);
		run_tasks(8, write_half, NULL);
		run_task(mark_written, NULL);
		run_task(close_world, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dynamic),
		cmocka_unit_test(test_differencing),
		cmocka_unit_test(test_turn_over),
		cmocka_unit_test(test_halves),
	};
	const char *text = getenv("SEED");
	int failed;

	seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
	print_message("SEED=%llu\n", (unsigned long long)seed);
	log_set_level(LOG_LEVEL_ERROR);
	scratch_enter();
	failed = cmocka_run_group_tests(tests, setup_4_workers, teardown_workers);
	scratch_leave();
	return failed;
}
