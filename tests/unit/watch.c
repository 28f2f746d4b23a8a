// SPDX-License-Identifier: MIT
/* Watches: looks at an interval, checks where there is something, none after the end. */
#include "core/watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include "core/disk.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

/* Something that may change, and what came of it. */
struct watched {
	struct watch watch;
	struct disk disk; /* nothing but what the watch hands on */
	atomic_bool has_changed;
	atomic_uint looks, checks, inside;
	uint64_t check_ns; /* how long a check takes */
};

static struct watched *watched_of(struct disk *disk)
{
	return CONTAINER_OF(disk, struct watched, disk);
}

static bool look(struct disk *disk)
{
	struct watched *watched = watched_of(disk);

	atomic_fetch_add(&watched->looks, 1);
	return atomic_load(&watched->has_changed);
}

static void check(struct disk *disk)
{
	struct watched *watched = watched_of(disk);

	CHECK(task_self());
	CHECK_EQ(atomic_fetch_add(&watched->inside, 1), 0);
	if (watched->check_ns > 0)
		task_sleep_ns(watched->check_ns);
	atomic_store(&watched->has_changed, false);
	atomic_fetch_add(&watched->checks, 1);
	atomic_fetch_sub(&watched->inside, 1);
}

static void watched_begin(struct watched *watched)
{
	watched->watch =
		(struct watch){.disk = &watched->disk, .has_changed = look, .check = check};
	CHECK_EQ(watch_add(&watched->watch), 0);
}

/* Whether *@counter comes to @least within @wait_ns. */
static bool comes_to(atomic_uint *counter, unsigned least, uint64_t wait_ns)
{
	uint64_t begin_ns = now_ns();

	while (atomic_load(counter) < least && now_ns() - begin_ns < wait_ns)
		task_sleep_ns(NS_PER_S / 1000);
	return atomic_load(counter) >= least;
}

static void test_interval_task(void *argument)
{
	struct watched watched = {.check_ns = 0}, quiet = {.check_ns = 0};

	(void)argument;
	watched_begin(&watched);
	watched_begin(&quiet);
	CHECK(comes_to(&watched.looks, 1, 10 * NS_PER_S));
	CHECK_EQ(watched.checks, 0);
	atomic_store(&watched.has_changed, true);
	CHECK(comes_to(&watched.checks, 1, 10 * NS_PER_S));
	CHECK(comes_to(&watched.looks, 3, 10 * NS_PER_S));
	CHECK_EQ(watched.checks, 1);
	CHECK(quiet.looks > 0);
	CHECK_EQ(quiet.checks, 0);
	watch_remove(&watched.watch);
	watch_remove(&quiet.watch);
}
RUN_IN_TASK(test_interval)

/* At once when asked, and once more where that is asked for during a check. */
static void test_soon_task(void *argument)
{
	struct watched watched = {.check_ns = NS_PER_S / 10};
	uint64_t begin_ns = now_ns();

	(void)argument;
	watched_begin(&watched);
	watch_soon(&watched.watch);
	CHECK(comes_to(&watched.inside, 1, 10 * NS_PER_S));
	watch_soon(&watched.watch);
	CHECK(comes_to(&watched.checks, 2, 10 * NS_PER_S));
	CHECK(now_ns() - begin_ns < 3 * NS_PER_S);
	watch_remove(&watched.watch);
}
RUN_IN_TASK(test_soon)

static void test_remove_task(void *argument)
{
	struct watched watched = {.check_ns = NS_PER_S / 20}, never = {.check_ns = 0};

	(void)argument;
	watch_remove(&never.watch); /* has not been added */
	watched_begin(&watched);
	watch_soon(&watched.watch);
	CHECK(comes_to(&watched.inside, 1, 10 * NS_PER_S));
	watch_remove(&watched.watch);
	CHECK_EQ(watched.inside, 0);
	watch_remove(&watched.watch); /* once more */
	watched.looks = watched.checks = 0;
	task_sleep_ns(NS_PER_S / 10);
	CHECK_EQ(watched.looks + watched.checks, 0);
}
RUN_IN_TASK(test_remove)

/* Many that come and go, on several workers. */
static void come_and_go(unsigned index, void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < 200; i++) {
		struct watched watched = {.check_ns = i % 3 == 0 ? NS_PER_US * 50 : 0};

		watched_begin(&watched);
		watch_soon(&watched.watch);
		if (i % 2 == 0)
			comes_to(&watched.checks, 1, 10 * NS_PER_S);
		else if (index % 2 == 0)
			task_yield();
		watch_remove(&watched.watch);
		CHECK_EQ(watched.inside, 0);
	}
}

static void test_come_and_go(void **state)
{
	(void)state;
	run_tasks(8, come_and_go, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_interval),
		cmocka_unit_test(test_soon),
		cmocka_unit_test(test_remove),
		cmocka_unit_test(test_come_and_go),
	};

	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
