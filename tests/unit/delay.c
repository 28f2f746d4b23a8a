// SPDX-License-Identifier: MIT
/*
 * The delay driver: each request waits its own delay and no other, none limits another, and all
 * else is as below. Nothing here says how long a wait may take, only how long it must.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/list.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"
#include "tests/lib/stacks.h"

#define SECTOR 512
#define COUNT  64
#define MS     (1000 * NS_PER_US)

/* ---- A delay over a probe. ---- */

struct pair {
	struct probe probe;
	struct disk *below, *disk;
};

static bool pair_open(struct pair *pair, const char *const (*options)[2], size_t count)
{
	struct err err = {.text = ""};

	probe_init(&pair->probe, SECTOR, COUNT);
	pair->below = probe_open(&pair->probe, 0, NULL, &err);
	pair->disk = driver_open(driver_find("delay"), options, count, 0, pair->below, &err);
	return CHECK_TEXT(err.text, "") && CHECK(pair->disk);
}

static void pair_close(struct pair *pair)
{
	disk_close(pair->disk);
	disk_close(pair->below);
	probe_destroy(&pair->probe);
}

static void set(struct pair *pair, const char *name, const char *value)
{
	struct err err = {.text = ""};

	CHECK_EQ(disk_set_option(pair->disk, name, value, &err), 0);
	CHECK_TEXT(err.text, "");
}

static void check_value(struct pair *pair, const char *name, const char *wanted)
{
	char *text = disk_get_option(pair->disk, name);

	CHECK_TEXT(text, wanted);
	free(text);
}

static int ask(struct disk *disk, enum stats_op op)
{
	static char data[4 * SECTOR];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	switch (op) {
	case STATS_READ:
		return disk_read(disk, &sg, 8);
	case STATS_WRITE:
		return disk_write(disk, &sg, 8, DISK_FUA);
	case STATS_FLUSH:
		return disk_flush(disk);
	case STATS_UNMAP:
		return disk_unmap(disk, 8, 4);
	case STATS_WRITE_ZEROES:
		return disk_write_zeroes(disk, 8, 4, DISK_MAY_UNMAP | DISK_FUA);
	case STATS_OPS:
		break;
	}
	return error_of(ERROR_INVALID_INPUT);
}

/* A request in a task of its own. */
struct request {
	struct disk *disk;
	enum stats_op op;
	uint64_t ns;
	int error;
	bool ended;
};

static int request_run(void *argument)
{
	struct request *request = argument;
	uint64_t begin = now_ns();

	request->error = ask(request->disk, request->op);
	request->ns = now_ns() - begin;
	request->ended = true;
	return 0;
}

/* ---- Waiting. ---- */

/* Which operation each option delays. */
static const struct {
	const char *option;
	bool delays[STATS_OPS];
} classes[] = {
	{"read_delay", {[STATS_READ] = true}},
	{"write_delay", {[STATS_WRITE] = true, [STATS_UNMAP] = true, [STATS_WRITE_ZEROES] = true}},
	{"flush_delay", {[STATS_FLUSH] = true}},
};

/* What is not delayed ends before whoever started it goes on: it never waits for anything. */
static void test_classes_task(void *argument)
{
	struct pair pair;

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
		const char *const options[][2] = {{classes[i].option, "30ms"}, {"jitter", "0"}};

		if (!pair_open(&pair, options, ARRAY_SIZE(options)))
			return;
		for (unsigned op = 0; op < STATS_OPS; op++) {
			struct request request = {.disk = pair.disk, .op = (enum stats_op)op};
			struct task_group group = {0};

			check_context("%s by %s", stats_op_name(request.op), classes[i].option);
			probe_forget(&pair.probe);
			task_group_start(&group, request_run, &request);
			CHECK_EQ(request.ended, !classes[i].delays[op]);
			CHECK_EQ(pair.probe.call_count, !classes[i].delays[op]);
			task_group_wait(&group);
			CHECK_OK(request.error);
			CHECK_EQ(pair.probe.call_count, 1);
			if (classes[i].delays[op])
				CHECK(request.ns >= 30 * MS);
		}
		pair_close(&pair);
	}
}
RUN_IN_TASK(test_classes)

/* Without a delay there is no jitter either. */
static void test_straight_through_task(void *argument)
{
	const char *const options[][2] = {{"jitter", "3600s"}};
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, options, 1))
		return;
	for (unsigned op = 0; op < STATS_OPS; op++) {
		struct request request = {.disk = pair.disk, .op = (enum stats_op)op};
		struct task_group group = {0};

		task_group_start(&group, request_run, &request);
		CHECK(request.ended);
		task_group_wait(&group);
		CHECK_OK(request.error);
	}
	pair_close(&pair);
}
RUN_IN_TASK(test_straight_through)

#define MANY 500

/* They all wait at the same time, and nobody else has to. */
static void test_many_at_once_task(void *argument)
{
	static struct request requests[MANY];
	const char *const options[][2] = {{"read_delay", "100ms"}};
	struct task_group group = {0};
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, options, 1))
		return;
	for (unsigned i = 0; i < MANY; i++) {
		requests[i] = (struct request){.disk = pair.disk, .op = STATS_READ};
		task_group_start(&group, request_run, &requests[i]);
	}
	CHECK_OK(ask(pair.disk, STATS_WRITE));
	CHECK_EQ(pair.probe.call_count, 1);
	task_group_wait(&group);
	for (unsigned i = 0; i < MANY; i++) {
		CHECK_OK(requests[i].error);
		CHECK(requests[i].ns >= 100 * MS);
	}
	CHECK_EQ(pair.probe.counts[PROBE_READ], MANY);
	pair_close(&pair);
}
RUN_IN_TASK(test_many_at_once)

/* ---- Jitter. ---- */

#define DRAWS 40

/* Every wait is at least what the generator says that it is. */
static void check_jitter(struct pair *pair, uint64_t seed)
{
	for (unsigned i = 0; i < DRAWS; i++) {
		uint64_t jitter = random_at(seed, i) % (3 * MS + 1), begin = now_ns();

		CHECK_OK(ask(pair->disk, i % 2 ? STATS_READ : STATS_WRITE));
		CHECK(now_ns() - begin >= MS + jitter);
	}
}

static void test_jitter_task(void *argument)
{
	const char *const options[][2] = {
		{"read_delay", "1ms"}, {"write_delay", "1ms"}, {"jitter", "3ms"}, {"seed", "7"}};
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, options, ARRAY_SIZE(options)))
		return;
	check_context("seed 7");
	check_jitter(&pair, 7);
	check_context("seed 8");
	set(&pair, "seed", "8");
	check_jitter(&pair, 8);
	check_context("seed 8 again");
	set(&pair, "seed", "8");
	check_jitter(&pair, 8);
	pair_close(&pair);
}
RUN_IN_TASK(test_jitter)

/* The published numbers of splitmix64 for this seed. */
static void test_generator(void **state)
{
	static const uint64_t numbers[] = {6457827717110365317U, 3203168211198807973U,
					   9817491932198370423U, 4593380528125082431U,
					   16408922859458223821U};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		assert_true(random_at(1234567, i) == numbers[i]);
}

/* ---- Changes. ---- */

static void test_options_task(void *argument)
{
	const char *const options[][2] = {{"read_delay", "1500us"}, {"flush_delay", "2s"}};
	struct err err = {.text = ""};
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, options, ARRAY_SIZE(options)))
		return;
	check_value(&pair, "read_delay", "1500us");
	check_value(&pair, "write_delay", "0ns");
	check_value(&pair, "flush_delay", "2s");
	check_value(&pair, "jitter", "0ns");
	check_value(&pair, "seed", "1");
	set(&pair, "write_delay", "3ms");
	set(&pair, "seed", "0x10");
	set(&pair, "flush_delay", "0");
	check_value(&pair, "write_delay", "3ms");
	check_value(&pair, "seed", "16");
	check_value(&pair, "flush_delay", "0ns");
	/* A wrong one leaves the old one. */
	CHECK_EQ(disk_set_option(pair.disk, "read_delay", "5", &err), -1);
	CHECK_TEXT(err.key, "read_delay");
	CHECK_EQ(disk_set_option(pair.disk, "read_delay", "3601s", &err), -1);
	CHECK_EQ(disk_set_option(pair.disk, "below", "x", &err), -1);
	check_value(&pair, "read_delay", "1500us");
	pair_close(&pair);
}
RUN_IN_TASK(test_options)

/* Who waits when a delay gets shorter, or goes, does not wait for the old one. */
static void test_change_while_waiting_task(void *argument)
{
	const char *const options[][2] = {{"read_delay", "3600s"}, {"write_delay", "3600s"}};
	struct request requests[3];
	struct task_group group = {0};
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, options, ARRAY_SIZE(options)))
		return;
	for (unsigned i = 0; i < 3; i++) {
		requests[i] =
			(struct request){.disk = pair.disk, .op = i ? STATS_WRITE : STATS_READ};
		task_group_start(&group, request_run, &requests[i]);
	}
	task_sleep_ns(5 * MS);
	CHECK_EQ(pair.probe.call_count, 0);
	set(&pair, "read_delay", "0");
	while (!requests[0].ended)
		task_sleep_ns(MS);
	CHECK_EQ(pair.probe.call_count, 1);
	set(&pair, "write_delay", "10ms");
	task_group_wait(&group);
	CHECK_EQ(pair.probe.counts[PROBE_WRITE], 2);
	pair_close(&pair);
}
RUN_IN_TASK(test_change_while_waiting)

/* ---- From several workers. ---- */

static void crowd_open(void *argument)
{
	const char *const options[][2] = {{"read_delay", "10us"}, {"jitter", "200us"}};

	pair_open(argument, options, ARRAY_SIZE(options));
}

static void crowd_task(unsigned index, void *argument)
{
	static const char *const values[] = {"0", "1us", "100us", "1ms"};
	struct pair *pair = argument;

	for (unsigned i = 0; i < 50; i++) {
		if (index % 4 == 3)
			set(pair, i % 2 ? "read_delay" : "seed", values[i % 2 ? i / 2 % 4 : 0]);
		CHECK_OK(ask(pair->disk, STATS_READ));
	}
}

static void crowd_close(void *argument)
{
	struct pair *pair = argument;

	CHECK_EQ(pair->probe.counts[PROBE_READ], 16 * 50);
	pair_close(pair);
}

static void test_crowd(void **state)
{
	static struct pair pair;

	(void)state;
	run_task(crowd_open, &pair);
	pair.probe.shared = true;
	run_tasks(16, crowd_task, &pair);
	run_task(crowd_close, &pair);
}

/* ---- The rest of a wrapper. ---- */

/* Errors come as they are, also of what does not wait. */
static void test_errors_task(void *argument)
{
	const char *const options[][2] = {{"read_delay", "1us"},
					  {"write_delay", "1us"},
					  {"flush_delay", "1us"}};
	static const enum probe_op probe_ops[STATS_OPS] = {[STATS_READ] = PROBE_READ,
							   [STATS_WRITE] = PROBE_WRITE,
							   [STATS_FLUSH] = PROBE_FLUSH,
							   [STATS_UNMAP] = PROBE_UNMAP,
							   [STATS_WRITE_ZEROES] =
								   PROBE_WRITE_ZEROES};
	struct extent extent;
	uint64_t bytes = 0;
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, options, ARRAY_SIZE(options)))
		return;
	for (unsigned op = 0; op < STATS_OPS; op++) {
		check_context("%s", stats_op_name((enum stats_op)op));
		pair.probe.fail[probe_ops[op]] =
			(typeof(pair.probe.fail[0])){error_medium(EIO, MEDIUM_GUARD_CHECK), 0,
						     COUNT};
		CHECK_EQ(ask(pair.disk, (enum stats_op)op), error_medium(EIO, MEDIUM_GUARD_CHECK));
		CHECK_EQ(pair.probe.counts[probe_ops[op]], 1);
	}
	CHECK_OK(disk_extent(pair.disk, 0, 8, &extent));
	CHECK(extent.kind == EXTENT_HOLE && extent.count == 1);
	CHECK_OK(disk_allocated(pair.disk, &bytes));
	CHECK_EQ(bytes, 12345);
	CHECK_OK(disk_eject(pair.disk));
	CHECK_EQ(pair.probe.counts[PROBE_EJECT], 1);
	pair_close(&pair);
}
RUN_IN_TASK(test_errors)

static void test_below_task(void *argument)
{
	const char *const options[][2] = {{"flush_delay", "30ms"}};
	struct request request = {.op = STATS_WRITE};
	struct task_group group = {0};
	struct pair pair;
	struct err err;

	(void)argument;
	probe_init(&pair.probe, SECTOR, COUNT);
	pair.probe.geometry.physical_sector_size = 4096;
	pair.probe.geometry.unmap = UNMAP_UNSPECIFIED;
	pair.probe.geometry.optimal_unmap_sectors = 16;
	pair.probe.geometry.has_id = true;
	pair.probe.geometry.id[3] = 7;
	pair.probe.geometry.fua = false;
	pair.below = probe_open(&pair.probe, 0, NULL, &err);
	pair.disk = driver_open(driver_find("delay"), options, 1, 0, pair.below, &err);
	if (!CHECK(pair.disk))
		return;
	CHECK_EQ(pair.disk->geometry.physical_sector_size, 4096);
	CHECK_EQ(pair.disk->geometry.unmap, UNMAP_UNSPECIFIED);
	CHECK_EQ(pair.disk->geometry.optimal_unmap_sectors, 16);
	CHECK(pair.disk->geometry.has_id && pair.disk->geometry.id[3] == 7);
	/* FUA of a disk that has none is a flush, below: it is not delayed. */
	request.disk = pair.disk;
	task_group_start(&group, request_run, &request);
	CHECK(request.ended);
	task_group_wait(&group);
	CHECK_OK(request.error);
	CHECK_EQ(pair.probe.counts[PROBE_FLUSH], 1);
	disk_set_sector_count(pair.below, 2 * COUNT);
	CHECK_EQ(disk_sector_count(pair.disk), 2 * COUNT);
	pair_close(&pair);
}
RUN_IN_TASK(test_below)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_straight_through),
		cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_jitter),
		cmocka_unit_test(test_generator),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_change_while_waiting),
		cmocka_unit_test(test_crowd),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_below),
	};

	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
