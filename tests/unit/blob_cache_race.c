// SPDX-License-Identifier: MIT
/* The cache of remote objects, used by many tasks on several workers at once: every byte is right,
 * whatever is forgotten, fails, or is read ahead meanwhile. */
#include "backends/blob/cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/remote.h"
#include "tests/lib/run.h"

#define TASKS	32
#define OBJECTS 2
#define SIZE	(6 * MIB + 700)

#ifdef __SANITIZE_THREAD__
#define STEPS 100
#else
#define STEPS 250
#endif

struct race {
	struct blob_client remotes[OBJECTS];
	struct blob_cache_object *objects[OBJECTS];
	uint64_t memory;
	unsigned requests_max;
	bool fails;	/* the middle of each object, at times */
	unsigned steps; /* of each task */
	_Atomic unsigned failed, succeeded;
};

static struct race race;

static void race_open(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < OBJECTS; i++) {
		struct blob_client *remote = &race.remotes[i];

		remote_init(remote, SIZE);
		remote->round_trip_ns = NS_PER_US * 200;
		remote->jitter_ns = NS_PER_S / 1000;
		race.objects[i] = remote_open(remote, race.memory, race.requests_max, 2 * MIB);
	}
}

static bool check_numbers(unsigned i)
{
	struct blob_cache_numbers numbers;

	blob_cache_read_numbers(race.objects[i], &numbers);
	return CHECK(numbers.memory_used <= numbers.memory_limit) &&
	       CHECK(numbers.readahead_useful + numbers.readahead_wasted <= numbers.readahead) &&
	       CHECK(race.remotes[i].under_way_max <= race.requests_max || numbers.past > 0);
}

static void race_close(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < OBJECTS; i++) {
		check_numbers(i);
		blob_cache_close(race.objects[i]);
		CHECK_EQ(race.remotes[i].under_way, 0);
		remote_destroy(&race.remotes[i]);
	}
}

/* Anywhere; some go on where they are. */
static void race_task(unsigned index, void *argument)
{
	struct random random = {.state = index + 99};
	unsigned object = index % OBJECTS;
	uint64_t at = 0;
	bool held = true;

	(void)argument;
	for (unsigned i = 0; held && i < race.steps; i++) {
		struct blob_client *remote = &race.remotes[object];
		size_t length = 1 + random_below(&random, random_below(&random, 8) ? 20000 : MIB);
		int error;

		if (index % 4 != 0 || at >= SIZE)
			at = random_below(&random, SIZE);
		length = min_u64(length, SIZE - at);
		if (race.fails && i % 8 == 0) {
			atomic_store(&remote->fail_first, SIZE / 2);
			atomic_store(&remote->fail_end, i % 16 ? SIZE / 2 + 70000 : 0);
		}
		error = remote_read(race.objects[object], at, length);
		if (error)
			held = CHECK(race.fails) && CHECK_EQ(error, remote->error) &&
			       CHECK(at < SIZE / 2 + 70000 + 4096 && at + length + 4096 > SIZE / 2);
		atomic_fetch_add(error ? &race.failed : &race.succeeded, 1);
		at += length;
	}
}

static void run_race(uint64_t memory, unsigned requests_max, bool fails, unsigned steps)
{
	race.memory = memory;
	race.requests_max = requests_max;
	race.fails = fails;
	race.steps = steps;
	race.failed = race.succeeded = 0;
	run_task(race_open, NULL);
	run_tasks(TASKS, race_task, NULL);
	run_task(race_close, NULL);
	assert_true(race.succeeded > TASKS * steps / 2);
	assert_true(fails == (race.failed > 0));
}

static void all_in_memory(void **state)
{
	(void)state;
	run_race(16 * MIB, 64, false, STEPS);
}

static void much_is_forgotten(void **state)
{
	(void)state;
	run_race(2 * MIB, 64, false, STEPS);
}

static void hardly_any_memory(void **state)
{
	(void)state;
	run_race(80 * KIB, 8, false, STEPS / 4);
}

static void few_requests(void **state)
{
	(void)state;
	run_race(4 * MIB, 1, false, STEPS / 8);
}

static void failures(void **state)
{
	(void)state;
	run_race(4 * MIB, 16, true, STEPS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_in_memory),     cmocka_unit_test(much_is_forgotten),
		cmocka_unit_test(hardly_any_memory), cmocka_unit_test(few_requests),
		cmocka_unit_test(failures),
	};

	return cmocka_run_group_tests_name("blob cache, all at once", tests, setup_4_workers,
					   teardown_workers);
}
