// SPDX-License-Identifier: MIT
/* The fault driver: what its rules say really happens to the disk below, and nothing else. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/list.h"
#include "core/report.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"
#include "tests/lib/stacks.h"

#define SECTOR 512
#define COUNT  64
#define OLD    'o'
#define NEW    'n'

/* ---- A fault over a probe that holds OLD. ---- */

struct pair {
	struct probe probe;
	struct disk *below, *disk;
};

static bool pair_open(struct pair *pair, const char *rules, const char *seed)
{
	const char *const options[][2] = {{"seed", seed}, {*rules ? "rules" : NULL, rules}};
	struct err err = {.text = ""};

	probe_init(&pair->probe, SECTOR, COUNT);
	memset(pair->probe.data, OLD, (size_t)SECTOR * COUNT);
	pair->below = probe_open(&pair->probe, 0, NULL, &err);
	pair->disk = driver_open(driver_find("fault"), options, ARRAY_SIZE(options), 0, pair->below,
				 &err);
	return CHECK_TEXT(err.text, "") && CHECK(pair->disk);
}

static void pair_close(struct pair *pair)
{
	disk_close(pair->disk);
	disk_close(pair->below);
	probe_destroy(&pair->probe);
}

static int put(struct disk *disk, uint64_t sector, uint64_t count)
{
	static char data[COUNT * SECTOR];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count * SECTOR);

	memset(data, NEW, sizeof(data));
	return disk_write(disk, &sg, sector, 0);
}

static int get(struct disk *disk, char *data, uint64_t sector, uint64_t count)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count * SECTOR);

	return disk_read(disk, &sg, sector);
}

static int get_one(struct disk *disk, uint64_t sector)
{
	char data[SECTOR];

	return get(disk, data, sector, 1);
}

/* Does @op on @count sectors; a read goes nowhere. */
static int ask(struct disk *disk, enum stats_op op, uint64_t sector, uint64_t count)
{
	static char data[COUNT * SECTOR];

	switch (op) {
	case STATS_READ:
		return get(disk, data, sector, count);
	case STATS_WRITE:
		return put(disk, sector, count);
	case STATS_FLUSH:
		return disk_flush(disk);
	case STATS_UNMAP:
		return disk_unmap(disk, sector, count);
	case STATS_WRITE_ZEROES:
		return disk_write_zeroes(disk, sector, count, 0);
	case STATS_OPS:
		break;
	}
	return error_of(ERROR_INVALID_INPUT);
}

/* The sectors [sector, sector + count) hold @value, and all others OLD. */
static void check_below(const struct pair *pair, uint64_t sector, uint64_t count, int value)
{
	const char *data = pair->probe.data;
	uint64_t end = sector + count;

	CHECK_EQ(bytes_differ(data, sector * SECTOR, OLD), sector * SECTOR);
	CHECK_EQ(bytes_differ(data + sector * SECTOR, count * SECTOR, value), count * SECTOR);
	CHECK_EQ(bytes_differ(data + end * SECTOR, (COUNT - end) * SECTOR, OLD),
		 (COUNT - end) * SECTOR);
}

static bool set_rules(struct disk *disk, const char *rules)
{
	struct err err = {.text = ""};

	return CHECK_EQ(disk_set_option(disk, "rules", rules, &err), 0) && CHECK_TEXT(err.text, "");
}

static char *inspect(struct disk *disk)
{
	struct report *report = report_new(REPORT_TEXT);
	size_t length;

	disk_inspect(disk, report);
	return report_finish(report, &length);
}

/* That `.status` says that @rule has hit @hits times. */
static void check_hits(struct disk *disk, const char *rule, unsigned hits)
{
	char *text = inspect(disk), wanted[256];

	snprintf(wanted, sizeof(wanted), "rule: %s\n    hits: %u\n", rule, hits);
	if (!CHECK(text && strstr(text, wanted)))
		fprintf(stderr, "wanted '%s' in:\n%s", wanted, text);
	free(text);
}

/* ---- Errors. ---- */

static void test_kinds_task(void *argument)
{
	const struct {
		const char *name;
		int error;
	} kinds[] = {
		{"error", error_io(EIO)},
		{"error=EIO", error_io(EIO)},
		{"error=ENOSPC", error_io(ENOSPC)},
		{"error=ETIMEDOUT", error_io(ETIMEDOUT)},
		{"error=medium-read", error_medium(EIO, MEDIUM_UNRECOVERED_READ)},
		{"error=medium-write", error_medium(EIO, MEDIUM_WRITE_FAULT)},
		{"error=illegal-block", error_of(ERROR_ILLEGAL_BLOCK)},
		{"error=invalid-input", error_of(ERROR_INVALID_INPUT)},
		{"error=read-only", error_of(ERROR_READ_ONLY)},
		{"error=conflict", error_of(ERROR_RESERVATION_CONFLICT)},
		{"error=aborted", error_of(ERROR_ABORTED)},
		{"error=unsupported", error_of(ERROR_UNSUPPORTED)},
	};
	char rules[64];
	struct pair pair;

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		snprintf(rules, sizeof(rules), "any %s", kinds[i].name);
		if (!pair_open(&pair, rules, "1"))
			return;
		for (unsigned op = 0; op < STATS_OPS; op++) {
			check_context("%s of '%s'", stats_op_name((enum stats_op)op), rules);
			CHECK_EQ(ask(pair.disk, (enum stats_op)op, 3, 4), kinds[i].error);
		}
		check_below(&pair, 0, 0, 0);
		CHECK_EQ(pair.probe.call_count, 0); /* without asking the disk below */
		pair_close(&pair);
	}
}
RUN_IN_TASK(test_kinds)

/* Each operation is hit by its own name, and no other is. */
static void test_operations_task(void *argument)
{
	static const char *const names[STATS_OPS] = {
		[STATS_READ] = "read",	 [STATS_WRITE] = "write",	  [STATS_FLUSH] = "flush",
		[STATS_UNMAP] = "unmap", [STATS_WRITE_ZEROES] = "zeroes",
	};
	char rules[64];
	struct pair pair;

	(void)argument;
	for (unsigned named = 0; named < STATS_OPS; named++) {
		snprintf(rules, sizeof(rules), "%s error", names[named]);
		if (!pair_open(&pair, rules, "1"))
			return;
		for (unsigned op = 0; op < STATS_OPS; op++) {
			check_context("%s of '%s'", stats_op_name((enum stats_op)op), rules);
			CHECK_EQ(ask(pair.disk, (enum stats_op)op, 0, 8),
				 op == named ? error_io(EIO) : 0);
		}
		CHECK_EQ(pair.probe.call_count, STATS_OPS - 1);
		check_hits(pair.disk, rules, 1);
		pair_close(&pair);
	}
}
RUN_IN_TASK(test_operations)

/* ---- Parts. ---- */

static const struct {
	const char *rule;
	uint64_t done; /* of 9 sectors */
	bool fails;
} part_cases[] = {
	{"tear", 4, true},	 {"tear=0", 0, true},	 {"tear=511", 0, true},
	{"tear=512", 1, true},	 {"tear=4K", 8, true},	 {"tear=1G", 9, true},
	{"short", 4, false},	 {"short=0", 0, false},	 {"short=1023", 1, false},
	{"short=4K", 8, false},	 {"short=1G", 9, false}, {"drop", 0, false},
	{"delay=1us", 9, false},
};

/* A part is done, and the rest of what is below stays as it was. */
static void check_part(enum stats_op op, size_t i)
{
	char rules[64];
	struct pair pair;

	snprintf(rules, sizeof(rules), "any %s", part_cases[i].rule);
	check_context("%s of '%s'", stats_op_name(op), rules);
	if (!pair_open(&pair, rules, "1"))
		return;
	CHECK_EQ(ask(pair.disk, op, 5, 9), part_cases[i].fails ? error_io(EIO) : 0);
	check_below(&pair, 5, part_cases[i].done, op == STATS_WRITE ? NEW : 0);
	check_hits(pair.disk, rules, 1);
	pair_close(&pair);
}

static void test_parts_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(part_cases); i++) {
		check_part(STATS_WRITE, i);
		check_part(STATS_UNMAP, i);
		check_part(STATS_WRITE_ZEROES, i);
	}
}
RUN_IN_TASK(test_parts)

/* What a read leaves out are zeros. */
static void test_parts_of_reads_task(void *argument)
{
	char data[9 * SECTOR], rules[64];
	struct pair pair;

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(part_cases); i++) {
		size_t done = part_cases[i].done * SECTOR;

		snprintf(rules, sizeof(rules), "read %s", part_cases[i].rule);
		check_context("'%s'", rules);
		if (!pair_open(&pair, rules, "1"))
			return;
		memset(data, 'x', sizeof(data));
		CHECK_EQ(get(pair.disk, data, 5, 9), part_cases[i].fails ? error_io(EIO) : 0);
		CHECK_EQ(bytes_differ(data, done, OLD), done);
		CHECK_EQ(bytes_differ(data + done, sizeof(data) - done, 0), sizeof(data) - done);
		check_below(&pair, 0, 0, 0);
		pair_close(&pair);
	}
}
RUN_IN_TASK(test_parts_of_reads)

static void test_flush_task(void *argument)
{
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, "flush drop count=1, flush tear count=1", "1"))
		return;
	CHECK_OK(disk_flush(pair.disk));
	CHECK_EQ(pair.probe.counts[PROBE_FLUSH], 0); /* dropped */
	CHECK_EQ(disk_flush(pair.disk), error_io(EIO));
	CHECK_OK(disk_flush(pair.disk));
	CHECK_EQ(pair.probe.counts[PROBE_FLUSH], 2);
	/* What fails below fails above. */
	pair.probe.fail[PROBE_FLUSH] = (typeof(pair.probe.fail[0])){error_io(ENOSPC), 0, 1};
	CHECK_EQ(disk_flush(pair.disk), error_io(ENOSPC));
	pair_close(&pair);
}
RUN_IN_TASK(test_flush)

/* ---- Waits. ---- */

static void test_delay_task(void *argument)
{
	const char *rules = "read delay=30ms, read delay=20ms, read error=ENOSPC";
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, rules, "1"))
		return;

	uint64_t begin = now_ns();

	/* All that match are waited for, then the first of the others decides. */
	CHECK_EQ(get_one(pair.disk, 0), error_io(ENOSPC));
	CHECK(now_ns() - begin >= 50 * 1000 * NS_PER_US);
	begin = now_ns();
	CHECK_OK(put(pair.disk, 0, 1));
	CHECK(now_ns() - begin < 50 * 1000 * NS_PER_US);
	pair_close(&pair);
}
RUN_IN_TASK(test_delay)

struct hung {
	struct disk *disk;
	enum stats_op op;
	int error;
	bool ended;
};

static int hung_run(void *argument)
{
	struct hung *hung = argument;

	hung->error = ask(hung->disk, hung->op, 0, 4);
	hung->ended = true;
	return 0;
}

/* All five wait; other rules let them go, and say how. */
static void test_hang_task(void *argument)
{
	struct hung hung[STATS_OPS];
	struct task_group group = {0};
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, "any hang", "1"))
		return;
	for (unsigned op = 0; op < STATS_OPS; op++) {
		hung[op] = (struct hung){.disk = pair.disk, .op = (enum stats_op)op};
		task_group_start(&group, hung_run, &hung[op]);
	}
	task_sleep_ns(5 * 1000 * NS_PER_US);
	for (unsigned op = 0; op < STATS_OPS; op++)
		CHECK(!hung[op].ended);
	CHECK_EQ(pair.probe.call_count, 0);
	check_hits(pair.disk, "any hang", STATS_OPS);
	set_rules(pair.disk, "any hang range=0-1K"); /* only the flush goes on */
	task_sleep_ns(5 * 1000 * NS_PER_US);
	for (unsigned op = 0; op < STATS_OPS; op++)
		CHECK_EQ(hung[op].ended, op == STATS_FLUSH);
	set_rules(pair.disk, "write error=ENOSPC");
	task_group_wait(&group);
	for (unsigned op = 0; op < STATS_OPS; op++)
		CHECK_EQ(hung[op].error, op == STATS_WRITE ? error_io(ENOSPC) : 0);
	pair_close(&pair);
}
RUN_IN_TASK(test_hang)

/* ---- Conditions. ---- */

static void test_range_task(void *argument)
{
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, "any error range=4K-6K", "1")) /* sectors 8 to 11 */
		return;
	for (uint64_t sector = 0; sector < 20; sector++) {
		check_context("sector %u", (unsigned)sector);
		CHECK_EQ(!get_one(pair.disk, sector), sector < 8 || sector > 11);
	}
	CHECK_OK(put(pair.disk, 0, 8));
	CHECK_OK(put(pair.disk, 12, 52));
	CHECK_KIND(put(pair.disk, 7, 2), ERROR_IO);
	CHECK_KIND(put(pair.disk, 11, 2), ERROR_IO);
	CHECK_KIND(put(pair.disk, 0, COUNT), ERROR_IO);
	CHECK_OK(disk_flush(pair.disk)); /* never */
	check_hits(pair.disk, "any error range=4K-6K", 7);
	/* A part of a sector is touched with the whole of it. */
	set_rules(pair.disk, "read error range=100-101");
	CHECK_KIND(get_one(pair.disk, 0), ERROR_IO);
	CHECK_OK(get_one(pair.disk, 1));
	pair_close(&pair);
}
RUN_IN_TASK(test_range)

static void test_after_and_count_task(void *argument)
{
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, "read error after=3 count=2 range=0-1K, read error=ENOSPC after=9",
		       "1"))
		return;
	for (unsigned i = 0; i < 12; i++) {
		int wanted = i == 3 || i == 4 ? error_io(EIO) : 0;

		/* Those that the first rule decides, the second does not see. */
		check_context("read %u", i);
		CHECK_EQ(get_one(pair.disk, i % 2), i >= 11 ? error_io(ENOSPC) : wanted);
		CHECK_OK(put(pair.disk, 0, 1));
	}
	check_hits(pair.disk, "read error after=3 count=2 range=0-1K", 2);
	/* The same rules again begin again. */
	set_rules(pair.disk, "read error after=1 count=1");
	CHECK_OK(get_one(pair.disk, 0));
	CHECK_KIND(get_one(pair.disk, 0), ERROR_IO);
	CHECK_OK(get_one(pair.disk, 0));
	pair_close(&pair);
}
RUN_IN_TASK(test_after_and_count)

#define DRAWS 2000

/* Which of the reads fail. */
static unsigned draw(const char *rules, const char *seed, char hits[DRAWS])
{
	struct pair pair;
	unsigned sum = 0;

	if (!pair_open(&pair, rules, seed))
		return 0;
	for (unsigned i = 0; i < DRAWS; i++) {
		hits[i] = get_one(pair.disk, i % COUNT) != 0;
		sum += (unsigned)hits[i];
	}
	pair_close(&pair);
	return sum;
}

static void test_chance_task(void *argument)
{
	char first[DRAWS], second[DRAWS];
	unsigned hits;

	(void)argument;
	/* Six standard deviations around 400. */
	hits = draw("read error chance=20", "7", first);
	CHECK(hits > 292 && hits < 508);
	CHECK_EQ(draw("read error chance=20%", "7", second), hits);
	CHECK(memcmp(first, second, DRAWS) == 0);
	draw("read error chance=20", "8", second);
	CHECK(memcmp(first, second, DRAWS) != 0);
	CHECK_EQ(draw("read error chance=0", "7", first), 0);
	CHECK_EQ(draw("read error chance=100", "7", first), DRAWS);
	CHECK_EQ(draw("read error chance=50 count=10", "7", first), 10);
	CHECK(draw("read error chance=1", "0", first) > 0);
}
RUN_IN_TASK(test_chance)

/* ---- From several workers. ---- */

struct crowd {
	struct pair pair;
	atomic_uint failures;
};

static void crowd_open(void *argument)
{
	struct crowd *crowd = argument;

	pair_open(&crowd->pair, "read error count=100", "1");
}

static void crowd_task(unsigned index, void *argument)
{
	struct crowd *crowd = argument;

	for (unsigned i = 0; i < 100; i++)
		if (get_one(crowd->pair.disk, index) != 0)
			atomic_fetch_add(&crowd->failures, 1);
}

static void crowd_close(void *argument)
{
	struct crowd *crowd = argument;

	check_hits(crowd->pair.disk, "read error count=100", 100);
	pair_close(&crowd->pair);
}

static void test_crowd(void **state)
{
	struct crowd crowd = {.failures = 0};

	(void)state;
	run_task(crowd_open, &crowd);
	run_tasks(16, crowd_task, &crowd);
	CHECK_EQ(atomic_load(&crowd.failures), 100);
	run_task(crowd_close, &crowd);
}

/* ---- The rest of a wrapper. ---- */

static void test_live_rules_task(void *argument)
{
	struct err err = {.text = ""};
	struct pair pair;
	char *text;

	(void)argument;
	if (!pair_open(&pair, "", "1"))
		return;
	text = disk_get_option(pair.disk, "rules");
	CHECK_TEXT(text, "");
	free(text);
	set_rules(pair.disk, " read error=ENOSPC,  write tear=1K count=1");
	text = disk_get_option(pair.disk, "rules");
	CHECK_TEXT(text, "read error=ENOSPC, write tear=1K count=1");
	free(text);
	CHECK_EQ(get_one(pair.disk, 0), error_io(ENOSPC));
	/* Wrong rules leave the old ones, and their hits. */
	CHECK_EQ(disk_set_option(pair.disk, "rules", "read", &err), -1);
	CHECK_TEXT(err.text, "the rule 'read' has no action");
	check_hits(pair.disk, "read error=ENOSPC", 1);
	CHECK_EQ(disk_set_option(pair.disk, "seed", "2", &err), -1);
	pair_close(&pair);
}
RUN_IN_TASK(test_live_rules)

static void test_wrong_rules_at_open_task(void *argument)
{
	const char *const options[][2] = {{"rules", "read"}};
	struct err err = {.text = ""};
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, "", "1"))
		return;
	CHECK(!driver_open(driver_find("fault"), options, 1, 0, pair.below, &err));
	CHECK_TEXT(err.text, "the rule 'read' has no action");
	CHECK_TEXT(err.key, "rules");
	pair_close(&pair);
}
RUN_IN_TASK(test_wrong_rules_at_open)

static void test_passes_on_task(void *argument)
{
	struct extent extent = {.kind = EXTENT_DATA};
	uint64_t bytes = 0;
	struct pair pair;

	(void)argument;
	if (!pair_open(&pair, "", "1"))
		return;
	CHECK_EQ(disk_sector_count(pair.disk), COUNT);
	CHECK(pair.disk->geometry.fua && pair.disk->geometry.unmap == UNMAP_ZEROES);
	CHECK_OK(disk_extent(pair.disk, 1, 4, &extent));
	CHECK(extent.kind == EXTENT_HOLE && extent.count == 1);
	CHECK_OK(disk_allocated(pair.disk, &bytes));
	CHECK_EQ(bytes, 12345);
	CHECK_OK(disk_eject(pair.disk));
	CHECK_OK(put(pair.disk, 2, 3));
	CHECK_OK(disk_write_zeroes(pair.disk, 4, 1, DISK_FUA | DISK_MAY_UNMAP));
	CHECK_EQ(pair.probe.calls[pair.probe.call_count - 1].flags, DISK_FUA | DISK_MAY_UNMAP);
	disk_set_sector_count(pair.below, COUNT / 2);
	CHECK_EQ(disk_sector_count(pair.disk), COUNT / 2);
	pair_close(&pair);
}
RUN_IN_TASK(test_passes_on)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_operations),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_parts_of_reads),
		cmocka_unit_test(test_flush),
		cmocka_unit_test(test_delay),
		cmocka_unit_test(test_hang),
		cmocka_unit_test(test_range),
		cmocka_unit_test(test_after_and_count),
		cmocka_unit_test(test_chance),
		cmocka_unit_test(test_crowd),
		cmocka_unit_test(test_live_rules),
		cmocka_unit_test(test_wrong_rules_at_open),
		cmocka_unit_test(test_passes_on),
	};

	return cmocka_run_group_tests_name("fault", tests, setup_2_workers, teardown_workers);
}
