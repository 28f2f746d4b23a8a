// SPDX-License-Identifier: MIT
/* Hydrate: it fills the cache, at its rate, goes on where it was, ends at once when the disk is
 * closed, and gives up when nothing works. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/layered/layered.h"
#include "core/log.h"
#include "core/report.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/layers.h"
#include "tests/lib/run.h"

#define S LAYERS_SECTOR

static struct hydrate *hydrate_of(struct layers *layers)
{
	return &((struct layered *)layers->disk->state)->hydrate;
}

/* Until it has ended; false, after a failed check, if it does not. */
static bool wait_for_end(struct layers *layers)
{
	uint64_t end = now_ns() + 60 * NS_PER_S;

	while (atomic_load(&hydrate_of(layers)->state) == HYDRATE_RUNNING && now_ns() < end)
		task_sleep_ns(NS_PER_S / 1000);
	return CHECK(atomic_load(&hydrate_of(layers)->state) != HYDRATE_RUNNING);
}

static void test_fills_task(void *argument)
{
	const uint64_t count = 3 * MIB / S + 5;
	struct layers layers;
	struct fake_layer *cache;

	(void)argument;
	layers_init(&layers, 3, count, true);
	cache = &layers.fakes[1];
	pattern_fill(layers.bottom.data, count * S, 1);
	/* What the top has does not matter, what the cache has is passed by, what is between is read. */
	fake_set(&layers.fakes[0], 0, 100, LAYER_ZEROES, NULL);
	fake_set(cache, 200, 100, LAYER_ZEROES, NULL);
	fake_set(&layers.fakes[2], 400, 100, LAYER_DATA, layers.bottom.data);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l1", .hydrate = "1G"}))
		return;
	wait_for_end(&layers);
	CHECK_EQ(hydrate_of(&layers)->state, HYDRATE_DONE);
	CHECK_EQ(hydrate_of(&layers)->done, count * S);
	CHECK_EQ(hydrate_of(&layers)->total, count * S);
	CHECK_EQ(hydrate_of(&layers)->left_out, 0);
	CHECK(fake_is(cache, 200, 100, LAYER_ZEROES));
	CHECK(fake_is(cache, 0, 200, LAYER_DATA) && fake_is(cache, 300, count - 300, LAYER_DATA));
	CHECK(memcmp(cache->data, layers.bottom.data, 200 * S) == 0);
	CHECK(memcmp(cache->data + 400 * S, layers.bottom.data, 100 * S) == 0);
	CHECK(memcmp(cache->data + 500 * S, layers.bottom.data + 500 * S, (count - 500) * S) == 0);
	CHECK_EQ(((struct layered *)layers.disk->state)->layers[1].populated_bytes,
		 (count - 100) * S);
	layers_finish(&layers);
}
RUN_IN_TASK(test_fills)

/* Holes of what is below are passed by. */
static int holes(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	(void)disk;
	*extent = (struct extent){
		.kind = sector < 1000 ? EXTENT_HOLE : EXTENT_DATA,
		.count = sector < 1000 ? min_u64(count, 1000 - sector) : count,
	};
	return 0;
}

static void test_holes_task(void *argument)
{
	struct layers layers;

	(void)argument;
	layers_init(&layers, 1, 2000, true);
	layers.bottom.driver.extent = holes;
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0",
							   .hydrate = "1G",
							   .open_flags = DISK_OPEN_READ_ONLY}))
		return;
	wait_for_end(&layers);
	CHECK_EQ(hydrate_of(&layers)->done, 2000 * S);
	CHECK(fake_is(&layers.fakes[0], 0, 1000, LAYER_ABSENT));
	CHECK(fake_is(&layers.fakes[0], 1000, 1000, LAYER_DATA));
	layers_finish(&layers);
}
RUN_IN_TASK(test_holes)

/* A cache, or what is below it, that is shorter. */
static void test_shorter_task(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < 2; i++) {
		struct layers layers;

		layers_init(&layers, 2, 2000, true);
		layers.fakes[1].sector_count = i ? 1500 : 2000;
		layers.bottom.sector_count = i ? 2000 : 1500;
		if (!layers_open(&layers,
				 &(struct layers_options){.read_cache = "l1", .hydrate = "1G"}))
			return;
		wait_for_end(&layers);
		CHECK_EQ(hydrate_of(&layers)->state, HYDRATE_DONE);
		CHECK_EQ(hydrate_of(&layers)->total, 1500 * S);
		CHECK(fake_is(&layers.fakes[1], 0, 1500, LAYER_DATA));
		CHECK(fake_is(&layers.fakes[1], 1500, 500, LAYER_ABSENT));
		layers_finish(&layers);
	}
}
RUN_IN_TASK(test_shorter)

/* At its rate; and it goes on after a restart, with what is missing. */
static void test_rate_task(void *argument)
{
	const uint64_t count = 2 * MIB / S;
	uint64_t begin, took, kept;
	struct layers layers;

	(void)argument;
	layers_init(&layers, 1, count, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0", .hydrate = "1M"}))
		return;
	task_sleep_ns(NS_PER_S);
	/* What is under way is let finish, and nothing else. */
	begin = now_ns();
	layers_close(&layers);
	took = now_ns() - begin;
	CHECK(took < NS_PER_S / 4);
	for (kept = 0; kept < count && layers.fakes[0].states[kept] == LAYER_DATA;)
		kept++;
	CHECK(kept >= MIB / 4 / S && kept <= (MIB + MIB / 2) / S);

	layers_forget(&layers);
	begin = now_ns();
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0", .hydrate = "4M"}))
		return;
	wait_for_end(&layers);
	took = now_ns() - begin;
	CHECK(took >= (count - kept) * S * NS_PER_S / (4 * MIB) * 9 / 10);
	CHECK(fake_is(&layers.fakes[0], 0, count, LAYER_DATA));
	CHECK_EQ(layers.bottom.calls[0].sector, kept);
	layers_finish(&layers);
}
RUN_IN_TASK(test_rate)

/* A rate of a byte in a second is no reason to wait. */
static void test_slow_close_task(void *argument)
{
	uint64_t begin;
	struct layers layers;

	(void)argument;
	layers_init(&layers, 1, 2000, true);
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0", .hydrate = "1"}))
		return;
	fake_wait(&layers.fakes[0], FAKE_POPULATE, 1);
	begin = now_ns();
	layers_close(&layers);
	CHECK(now_ns() - begin < NS_PER_S / 4);
	CHECK_EQ(layers.fakes[0].counts[FAKE_POPULATE], 1);
	layers_finish(&layers);
}
RUN_IN_TASK(test_slow_close)

/* Not where nothing is to be changed, or a command looks. */
static void test_not_started_task(void *argument)
{
	static const unsigned flags[] = {DISK_OPEN_CHECK, DISK_OPEN_COMMAND};

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		struct layers layers;

		layers_init(&layers, 1, 2000, true);
		if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0",
								   .hydrate = "1G",
								   .open_flags = flags[i]}))
			return;
		task_sleep_ns(NS_PER_S / 50);
		CHECK_EQ(hydrate_of(&layers)->state, HYDRATE_OFF);
		CHECK_EQ(layers.bottom.counts[PROBE_READ], 0);
		layers_finish(&layers);
	}
}
RUN_IN_TASK(test_not_started)

/* A bad place is left out; what fails throughout is given up. */
static void test_failures_task(void *argument)
{
	struct layers layers;
	char *text;
	struct report *report;
	size_t length;

	(void)argument;
	layers_init(&layers, 1, 8 * MIB / S, true);
	layers.bottom.fail[PROBE_READ].error = error_io(EIO);
	layers.bottom.fail[PROBE_READ].first = 3000;
	layers.bottom.fail[PROBE_READ].end = 3001;
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0", .hydrate = "1G"}))
		return;
	wait_for_end(&layers);
	CHECK_EQ(hydrate_of(&layers)->state, HYDRATE_DONE);
	CHECK_EQ(hydrate_of(&layers)->left_out, MIB);
	CHECK(fake_is(&layers.fakes[0], 0, 2048, LAYER_DATA));
	CHECK(fake_is(&layers.fakes[0], 2048, 2048, LAYER_ABSENT));
	CHECK(fake_is(&layers.fakes[0], 4096, 8 * MIB / S - 4096, LAYER_DATA));
	layers_finish(&layers);

	layers_init(&layers, 1, 12 * MIB / S, true);
	atomic_store(&layers.fakes[0].errors[FAKE_POPULATE], error_io(ENOSPC));
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0", .hydrate = "1G"}))
		return;
	wait_for_end(&layers);
	CHECK_EQ(hydrate_of(&layers)->state, HYDRATE_GIVEN_UP);
	CHECK(hydrate_of(&layers)->left_out < 12 * MIB);
	report = report_new(REPORT_TEXT);
	hydrate_inspect(layers.disk, report);
	text = report_finish(report, &length);
	CHECK(strstr(text, "state: given up"));
	CHECK(strstr(text, "rate: 1073741824 (1 GiB)"));
	free(text);
	layers_finish(&layers);
}
RUN_IN_TASK(test_failures)

/* Of a cache that is written through, while it is written. */
static void test_with_writers_task(void *argument)
{
	const uint64_t count = 4 * MIB / S;
	struct layers layers;
	char data[8 * S];

	(void)argument;
	layers_init(&layers, 1, count, true);
	layers.fakes[0].yields = 4;
	if (!layers_open(&layers, &(struct layers_options){.read_cache = "l0",
							   .write_through = "l0",
							   .hydrate = "1G"}))
		return;
	for (uint64_t i = 0; atomic_load(&hydrate_of(&layers)->state) == HYDRATE_RUNNING; i++) {
		pattern_fill(data, sizeof(data), i);
		CHECK_OK(layers_put(&layers, data, i * 37 % (count - 8), 8, 0));
		fake_set(&layers.fakes[0], i * 37 % (count - 8), 8, LAYER_ABSENT, NULL);
	}
	CHECK_EQ(hydrate_of(&layers)->state, HYDRATE_DONE);
	for (uint64_t i = 0; i < count; i++)
		if (layers.fakes[0].states[i] == LAYER_DATA &&
		    !CHECK(memcmp(layers.fakes[0].data + i * S, layers.bottom.data + i * S, S) ==
			   0))
			break;
	layers_finish(&layers);
}
RUN_IN_TASK(test_with_writers)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fills),	   cmocka_unit_test(test_holes),
		cmocka_unit_test(test_shorter),	   cmocka_unit_test(test_rate),
		cmocka_unit_test(test_slow_close), cmocka_unit_test(test_not_started),
		cmocka_unit_test(test_failures),   cmocka_unit_test(test_with_writers),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
