// SPDX-License-Identifier: MIT
/* Resize: waiters wake exactly once with the new count, disks above are told and the last word is the
 * last, close ends waiters; what is asked for. (Requests beyond a smaller end: resize_drain.c.) */
#include "core/disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"

/* One who waits for a change of the count, and what it got. */
struct waiter_task {
	struct disk *disk;
	uint64_t known, count;
	unsigned wakes;
};

static int wait_once(void *argument)
{
	struct waiter_task *waiter = argument;

	waiter->count = disk_wait_resize(waiter->disk, waiter->known);
	waiter->wakes++;
	return 0;
}

#define WAITERS 5

static void test_wake_task(void *argument)
{
	struct waiter_task waiters[WAITERS];
	struct task_group group = {0};
	struct probe probe;
	struct err err;

	(void)argument;
	probe_init(&probe, 512, 16);
	struct disk *disk = probe_open(&probe, 0, NULL, &err);

	CHECK_EQ(disk_wait_resize(disk, 15), 16); /* changed already */
	for (unsigned i = 0; i < WAITERS; i++) {
		waiters[i] = (struct waiter_task){.disk = disk, .known = 16};
		task_group_start(&group, wait_once, &waiters[i]);
	}
	disk_set_sector_count(disk, 16); /* no change */
	task_sleep_ns(NS_PER_US);
	for (unsigned i = 0; i < WAITERS; i++)
		CHECK_EQ(waiters[i].wakes, 0);
	disk_set_sector_count(disk, 8);
	task_group_wait(&group);
	for (unsigned i = 0; i < WAITERS; i++) {
		CHECK_EQ(waiters[i].wakes, 1);
		CHECK_EQ(waiters[i].count, 8);
	}
	CHECK_EQ(disk_sector_count(disk), 8);
	CHECK_EQ(disk_size(disk), 8 * 512);
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_wake)

/* A request beyond the new end is refused. */
static void test_range_follows_task(void *argument)
{
	static char data[512];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));
	struct probe probe;
	struct err err;

	(void)argument;
	probe_init(&probe, 512, 16);
	struct disk *disk = probe_open(&probe, 0, NULL, &err);

	CHECK_OK(disk_read(disk, &sg, 15));
	disk_set_sector_count(disk, 8);
	CHECK_KIND(disk_read(disk, &sg, 15), ERROR_ILLEGAL_BLOCK);
	CHECK_KIND(disk_read(disk, &sg, 8), ERROR_ILLEGAL_BLOCK);
	CHECK_OK(disk_read(disk, &sg, 7));
	disk_set_sector_count(disk, 16);
	CHECK_OK(disk_write(disk, &sg, 15, 0));
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_range_follows)

static void test_propagates_task(void *argument)
{
	struct waiter_task waiter;
	struct task_group group = {0};
	struct probe probes[3];
	struct disk *disks[4] = {NULL};
	struct err err;

	(void)argument;
	/* 2 stands on 1 stands on 0; the driver of 3, also on 0, does not follow. */
	for (unsigned i = 0; i < 3; i++) {
		probe_init(&probes[i], 512, 16);
		disks[i] = probe_open(&probes[i], 0, i > 0 ? disks[i - 1] : NULL, &err);
	}
	struct probe fixed;

	probe_init(&fixed, 512, 16);
	fixed.driver.below_resized = NULL;
	disks[3] = probe_open(&fixed, 0, disks[0], &err);

	waiter = (struct waiter_task){.disk = disks[2], .known = 16};
	task_group_start(&group, wait_once, &waiter);
	disk_set_sector_count(disks[0], 24);
	task_group_wait(&group);
	CHECK_EQ(waiter.count, 24);
	CHECK_EQ(disk_sector_count(disks[1]), 24);
	CHECK_EQ(disk_sector_count(disks[2]), 24);
	CHECK_EQ(disk_sector_count(disks[3]), 16);
	CHECK_EQ(probes[1].counts[PROBE_RESIZED], 1);
	CHECK_EQ(probes[2].counts[PROBE_RESIZED], 1);

	/* One that is closed is no longer told. */
	disk_close(disks[3]);
	disk_close(disks[2]);
	disk_set_sector_count(disks[0], 32);
	CHECK_EQ(disk_sector_count(disks[1]), 32);
	CHECK_EQ(probes[1].counts[PROBE_RESIZED], 2);
	CHECK_EQ(probes[2].counts[PROBE_RESIZED], 1);
	disk_close(disks[1]);
	disk_close(disks[0]);
	for (unsigned i = 0; i < 3; i++)
		probe_destroy(&probes[i]);
	probe_destroy(&fixed);
}
RUN_IN_TASK(test_propagates)

static void close_disk(void *argument)
{
	disk_close(argument);
}

static void test_close_ends_waiters_task(void *argument)
{
	struct waiter_task waiters[WAITERS];
	struct task_group group = {0};
	struct probe probe;
	struct err err;

	(void)argument;
	probe_init(&probe, 512, 16);
	struct disk *disk = probe_open(&probe, 0, NULL, &err);

	for (unsigned i = 0; i < WAITERS; i++) {
		waiters[i] = (struct waiter_task){.disk = disk, .known = 16};
		task_group_start(&group, wait_once, &waiters[i]);
	}
	CHECK_EQ(task_start(close_disk, disk), 0);
	task_group_wait(&group);
	for (unsigned i = 0; i < WAITERS; i++) {
		CHECK_EQ(waiters[i].wakes, 1);
		CHECK_EQ(waiters[i].count, 16);
	}
	/* The driver is closed after the last waiter has gone. */
	while (probe.counts[PROBE_CLOSE] == 0)
		task_sleep_ns(NS_PER_US * 100);
	task_sleep_ns(NS_PER_US * 1000);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_close_ends_waiters)

/* Waiters on several workers while the count changes: each change is seen, none twice. */
#define CHANGES 200

static void follow(unsigned index, void *argument)
{
	struct disk *disk = argument;
	uint64_t known = 16;

	if (index == 0) {
		for (uint64_t count = 17; count <= 16 + CHANGES; count++) {
			disk_set_sector_count(disk, count);
			task_yield();
		}
		return;
	}
	while (known < 16 + CHANGES) {
		uint64_t count = disk_wait_resize(disk, known);

		if (!CHECK(count > known))
			return;
		known = count;
	}
}

struct opened {
	struct probe probe;
	struct disk *disk;
};

static void open_task(void *argument)
{
	struct opened *opened = argument;
	struct err err;

	probe_init(&opened->probe, 512, 16);
	opened->disk = probe_open(&opened->probe, 0, NULL, &err);
}

static void close_task(void *argument)
{
	struct opened *opened = argument;

	disk_close(opened->disk);
	probe_destroy(&opened->probe);
}

static void test_across_workers(void **state)
{
	static struct opened opened;

	(void)state;
	run_task(open_task, &opened);
	run_tasks(8, follow, opened.disk);
	run_task(close_task, &opened);
}

/* ---- The last word. ---- */

/* A change of the count is told upwards before the next one is made, whichever worker makes it. */
static void change_at_random(unsigned index, void *argument)
{
	struct disk *disk = argument;
	struct random random = {index + 1};

	for (unsigned i = 0; i < CHANGES; i++) {
		disk_set_sector_count(disk, 1 + random_below(&random, 16));
		if (i % 8 == 0)
			task_yield();
	}
}

struct tower {
	struct opened low, high;
};

static void open_tower(void *argument)
{
	struct tower *tower = argument;
	struct err err;

	open_task(&tower->low);
	probe_init(&tower->high.probe, 512, 16);
	tower->high.disk = probe_open(&tower->high.probe, 0, tower->low.disk, &err);
}

static void close_tower(void *argument)
{
	struct tower *tower = argument;

	CHECK_EQ(disk_sector_count(tower->high.disk), disk_sector_count(tower->low.disk));
	close_task(&tower->high);
	close_task(&tower->low);
}

static void test_last_word(void **state)
{
	static struct tower tower;

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		run_task(open_tower, &tower);
		run_tasks(8, change_at_random, tower.low.disk);
		run_task(close_tower, &tower);
	}
}

/* Disks come and go on top of one that changes: none is told after its end. */
static void come_and_go(unsigned index, void *argument)
{
	struct disk *disk = argument;
	struct opened opened;
	struct err err;

	if (index < 2) {
		change_at_random(index, disk);
		return;
	}
	for (unsigned i = 0; i < CHANGES / 4; i++) {
		probe_init(&opened.probe, 512, 16);
		opened.disk = probe_open(&opened.probe, 0, disk, &err);
		task_yield();
		close_task(&opened);
	}
}

static void test_come_and_go(void **state)
{
	static struct opened opened;

	(void)state;
	run_task(open_task, &opened);
	run_tasks(8, come_and_go, opened.disk);
	run_task(close_task, &opened);
}

/* What changes below while a disk opens is not missed. */
static int open_slowly(struct disk *disk, struct err *err)
{
	(void)err;
	disk_inherit_geometry(disk, disk->below[0]);
	disk_set_sector_count(disk->below[0], 24);
	return 0;
}

static void test_open_meanwhile_task(void *argument)
{
	struct probe low, high;
	struct err err;

	(void)argument;
	probe_init(&low, 512, 16);
	probe_init(&high, 512, 16);
	high.driver.open = open_slowly;

	struct disk *below = probe_open(&low, 0, NULL, &err);
	struct disk *disk = probe_open(&high, 0, below, &err);

	CHECK_EQ(disk_sector_count(disk), 24);
	disk_close(disk);
	disk_close(below);
	probe_destroy(&low);
	probe_destroy(&high);
}
RUN_IN_TASK(test_open_meanwhile)

/* ---- Who is told. ---- */

static void count_call(void *argument)
{
	(*(unsigned *)argument)++;
}

static void test_told_task(void *argument)
{
	unsigned lowest = 0, follows = 0, stays = 0, above_it = 0;
	struct probe probes[4];
	struct disk *disks[4];
	struct err err;

	(void)argument;
	for (unsigned i = 0; i < 4; i++)
		probe_init(&probes[i], 512, 16);
	probes[2].driver.below_resized = NULL;
	disks[0] = probe_open(&probes[0], 0, NULL, &err);
	disks[1] = probe_open(&probes[1], 0, disks[0], &err);
	disks[2] = probe_open(&probes[2], 0, disks[0], &err);
	disks[3] = probe_open(&probes[3], 0, disks[2], &err);
	disk_on_resize(disks[0], count_call, &lowest);
	disk_on_resize(disks[1], count_call, &follows);
	disk_on_resize(disks[2], count_call, &stays);
	disk_on_resize(disks[3], count_call, &above_it);
	disk_set_sector_count(disks[0], 24);
	CHECK(lowest == 1 && follows == 1);
	/* Their size is the same, but not all of what is below shows through as it did. */
	CHECK(stays == 1 && above_it == 1);
	CHECK_EQ(disk_sector_count(disks[3]), 16);
	disk_set_sector_count(disks[0], 24); /* no change */
	CHECK(lowest == 1 && follows == 1 && stays == 1 && above_it == 1);
	disk_set_sector_count(disks[2], 8);
	CHECK(lowest == 1 && follows == 1 && stays == 2 && above_it == 2);
	for (unsigned i = 4; i-- > 0;)
		disk_close(disks[i]);
	for (unsigned i = 0; i < 4; i++)
		probe_destroy(&probes[i]);
}
RUN_IN_TASK(test_told)

/* The file of a format is the format's own affair. */
static void test_own_file_task(void *argument)
{
	struct probe file, format;
	unsigned told = 0;
	struct err err;

	(void)argument;
	probe_init(&file, 512, 16);
	probe_init(&format, 512, 16);
	format.driver.below_resized = NULL;

	struct disk *below = probe_open(&file, DISK_OPEN_RESIZE, NULL, &err);
	struct disk *disk = probe_open(&format, 0, below, &err);

	disk_on_resize(disk, count_call, &told);
	disk_set_sector_count(below, 24);
	CHECK_EQ(told, 0);
	disk_set_sector_count(disk, 24);
	CHECK_EQ(told, 1);
	disk_close(disk);
	disk_close(below);
	probe_destroy(&file);
	probe_destroy(&format);
}
RUN_IN_TASK(test_own_file)

/* ---- To ask for another size. ---- */

static int resize_probe(struct disk *disk, uint64_t count)
{
	disk_set_sector_count(disk, count);
	return 0;
}

static void test_asked_task(void *argument)
{
	struct probe probe;
	struct err err;

	(void)argument;
	probe_init(&probe, 512, 16);

	struct disk *disk = probe_open(&probe, 0, NULL, &err);

	CHECK_KIND(disk_resize(disk, 8), ERROR_UNSUPPORTED);
	CHECK_KIND(disk_resize(disk, 16), ERROR_UNSUPPORTED);
	probe.driver.resize = resize_probe;
	CHECK_OK(disk_resize(disk, 16));
	CHECK_KIND(disk_resize(disk, 0), ERROR_INVALID_INPUT);
	CHECK_KIND(disk_resize(disk, INT64_MAX / 512 + 1), ERROR_INVALID_INPUT);
	CHECK_KIND(disk_resize(disk, UINT64_MAX), ERROR_INVALID_INPUT);
	CHECK_EQ(disk_sector_count(disk), 16);
	CHECK_OK(disk_resize(disk, 8));
	CHECK_EQ(disk_sector_count(disk), 8);
	CHECK_OK(disk_resize(disk, INT64_MAX / 512));
	CHECK_EQ(disk_sector_count(disk), INT64_MAX / 512);
	disk_close(disk);

	disk = probe_open(&probe, DISK_OPEN_READ_ONLY, NULL, &err);
	CHECK_KIND(disk_resize(disk, 8), ERROR_READ_ONLY);
	CHECK_EQ(disk_sector_count(disk), 16);
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_asked)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wake),
		cmocka_unit_test(test_range_follows),
		cmocka_unit_test(test_propagates),
		cmocka_unit_test(test_close_ends_waiters),
		cmocka_unit_test(test_across_workers),
		cmocka_unit_test(test_last_word),
		cmocka_unit_test(test_come_and_go),
		cmocka_unit_test(test_open_meanwhile),
		cmocka_unit_test(test_told),
		cmocka_unit_test(test_own_file),
		cmocka_unit_test(test_asked),
	};

	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
