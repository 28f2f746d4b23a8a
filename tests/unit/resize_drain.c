// SPDX-License-Identifier: MIT
/* Requests beyond the end of a disk that becomes smaller: to wait for them, and that none is left. */
#include "core/disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"

/* A request that the probe holds. */
struct held {
	struct disk *disk;
	uint64_t sector;
	bool is_write;
	int error;
};

static int request_held(void *argument)
{
	static char data[4 * 512];
	struct held *held = argument;
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	held->error = held->is_write ? disk_write(held->disk, &sg, held->sector, 0)
				     : disk_read(held->disk, &sg, held->sector);
	return 0;
}

static void release_soon(void *argument)
{
	struct probe *probe = argument;

	task_sleep_ns(NS_PER_S / 50);
	atomic_store(&probe->hold, false);
}

static void test_drain_task(void *argument)
{
	struct task_group group = {0};
	struct probe probe, above;
	struct err err;

	(void)argument;
	probe_init(&probe, 512, 16);
	probe_init(&above, 512, 16);

	struct disk *disk = probe_open(&probe, 0, NULL, &err);
	struct disk *other = probe_open(&above, 0, disk, &err);
	struct held requests[] = {{disk, 0, true, 0}, {disk, 6, false, 0}};

	CHECK(disk_drain_beyond(disk, 0, 0));
	atomic_store(&probe.hold, true);
	for (unsigned i = 0; i < ARRAY_SIZE(requests); i++)
		task_group_start(&group, request_held, &requests[i]);
	CHECK(!disk_drain_beyond(disk, 0, 0));
	CHECK(!disk_drain_beyond(disk, 9, NS_PER_S / 100));
	CHECK(disk_drain_beyond(disk, 10, 0));
	CHECK(disk_drain_beyond(other, 0, 0)); /* not its own */
	CHECK(!disk_drain_old(disk, 9, 0));
	CHECK(disk_drain_old(disk, 10, 0));
	CHECK_EQ(task_start(release_soon, &probe), 0);
	CHECK(disk_drain_beyond(disk, 0, 10 * NS_PER_S));
	task_group_wait(&group);
	CHECK_OK(requests[0].error);
	CHECK_OK(requests[1].error);
	disk_close(other);
	disk_close(disk);
	probe_destroy(&probe);
	probe_destroy(&above);
}
RUN_IN_TASK(test_drain)

/* One that is always being asked has no moment without requests; but those of a moment end. */
static int ask_always(void *argument)
{
	struct held *held = argument;

	for (unsigned i = 0; i < 2000 && held->is_write; i++)
		request_held(&(struct held){held->disk, held->sector, false, 0});
	return 0;
}

static void test_drain_old_task(void *argument)
{
	struct task_group group = {0};
	struct probe probe;
	struct err err;

	(void)argument;
	probe_init(&probe, 512, 16);
	probe.sleep_ns = NS_PER_S / 500;

	struct disk *disk = probe_open(&probe, 0, NULL, &err);
	struct held always = {disk, 0, true, 0};

	for (unsigned i = 0; i < 4; i++) {
		task_group_start(&group, ask_always, &always);
		task_sleep_ns(NS_PER_S / 2000);
	}
	CHECK(!disk_drain_beyond(disk, 0, NS_PER_S / 20));
	CHECK(disk_drain_old(disk, 0, 10 * NS_PER_S));
	always.is_write = false;
	task_group_wait(&group);
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_drain_old)

/* On all workers: once the disk is smaller and drained, nothing arrives beyond its end. */
struct cutting {
	struct probe probe;
	struct disk *disk;
	_Atomic uint64_t end; /* that nothing may reach beyond, as the driver sees it */
};

static struct cutting cutting;

static int write_watched(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	(void)flags;
	task_yield();
	task_sleep_ns(NS_PER_US * 20);
	CHECK(sector + (sg->len >> disk_sector_shift(disk)) <= atomic_load(&cutting.end));
	return 0;
}

static void open_cutting(void *argument)
{
	(void)argument;
	probe_init(&cutting.probe, 512, 64);
	cutting.probe.driver.write = write_watched;
	atomic_store(&cutting.end, 64);

	struct err err;

	cutting.disk = probe_open(&cutting.probe, 0, NULL, &err);
}

static void cut_or_write(unsigned index, void *argument)
{
	struct disk *disk = argument;
	struct random random = {index};
	static char data[512];

	for (unsigned i = 0; index == 0 && i < 100; i++) {
		disk_set_sector_count(disk, 8);
		CHECK(disk_drain_beyond(disk, 8, 10 * NS_PER_S));
		atomic_store(&cutting.end, 8);
		task_sleep_ns(NS_PER_US * 100);
		atomic_store(&cutting.end, 64);
		disk_set_sector_count(disk, 64);
		task_sleep_ns(NS_PER_US * 100);
	}
	for (unsigned i = 0; index != 0 && i < 500; i++) {
		struct iovec iov;
		struct sg sg = sg_of(&iov, data, sizeof(data));
		int error = disk_write(disk, &sg, random_below(&random, 64), 0);

		CHECK(!error || error_kind(error) == ERROR_ILLEGAL_BLOCK);
	}
}

static void close_cutting(void *argument)
{
	(void)argument;
	disk_close(cutting.disk);
	probe_destroy(&cutting.probe);
}

static void test_cut(void **state)
{
	(void)state;
	run_task(open_cutting, NULL);
	run_tasks(8, cut_or_write, cutting.disk);
	run_task(close_cutting, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_drain_old),
		cmocka_unit_test(test_cut),
	};

	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
