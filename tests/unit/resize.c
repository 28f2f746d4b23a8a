// SPDX-License-Identifier: MIT
/* Resize: waiters wake exactly once with the new count, disks above are told, close ends waiters.
 */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wake),	       cmocka_unit_test(test_range_follows),
		cmocka_unit_test(test_propagates),     cmocka_unit_test(test_close_ends_waiters),
		cmocka_unit_test(test_across_workers),
	};

	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
