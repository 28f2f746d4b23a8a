// SPDX-License-Identifier: MIT
/* The requests of the driver striped: where every sector lies, which requests the members get, when,
 * and what becomes of their errors. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/stripe.h"

static char everything[64 * STRIPE_SECTOR];

/* ---- Where everything lies, against the plainest way to say it: sector by sector. ---- */

static const struct stripe_shape shapes[] = {
	{1, 1, 9},  {1, 4, 11}, {2, 1, 9}, {2, 3, 10}, {2, 8, 19}, {3, 1, 7}, {3, 2, 7},
	{3, 5, 16}, {4, 3, 9},	{5, 1, 5}, {5, 7, 7},  {7, 1, 4},  {7, 2, 5}, {7, 3, 6},
};

/* The sectors of the disk are on the members as @model says. */
static bool check_members(const struct stripe *stripe, const struct stripe_shape *shape,
			  const char *model)
{
	for (uint64_t sector = 0; sector < disk_sector_count(stripe->disk); sector++) {
		unsigned member;
		uint64_t at;

		stripe_place(shape, sector, &member, &at);
		if (!CHECK(memcmp(model + sector * STRIPE_SECTOR,
				  stripe->probes[member].data + at * STRIPE_SECTOR,
				  STRIPE_SECTOR) == 0))
			return false;
	}
	return true;
}

/* Memory in segments of @part bytes; the last takes the rest. */
static struct sg cut(struct iovec *iov, char *data, size_t length, size_t part)
{
	struct sg sg = {.iov = iov, .len = length};

	while (length > 0) {
		size_t now = min_u64(part, length);

		*iov++ = (struct iovec){data, now};
		data += now;
		length -= now;
	}
	return sg;
}

#define SWEEP_MAX 64 /* sectors */

static bool sweep_one(struct stripe *stripe, const struct stripe_shape *shape, char *model,
		      uint64_t sector, uint64_t count)
{
	static char data[SWEEP_MAX * STRIPE_SECTOR];
	static struct iovec iov[SWEEP_MAX * STRIPE_SECTOR];
	static const size_t parts[] = {SIZE_MAX, 512, 700, 513, 3000, 100};
	size_t length = count * STRIPE_SECTOR;
	struct sg sg = cut(iov, data, length, parts[(sector + count) % ARRAY_SIZE(parts)]);
	unsigned fua = count % 2 ? DISK_FUA : 0;
	bool held;

	check_context("%u members, chunks of %llu, %llu sectors from %llu", shape->members,
		      (unsigned long long)shape->chunk, (unsigned long long)count,
		      (unsigned long long)sector);
	pattern_fill(data, length, sector * 1000 + count);
	stripe_forget(stripe);
	held = CHECK_OK(disk_write(stripe->disk, &sg, sector, fua)) &&
	       stripe_check_calls(stripe, shape, PROBE_WRITE, sector, count, fua);
	memcpy(model + sector * STRIPE_SECTOR, data, length);
	memset(data, 0, length);
	stripe_forget(stripe);
	held = held && CHECK_OK(disk_read(stripe->disk, &sg, sector)) &&
	       stripe_check_calls(stripe, shape, PROBE_READ, sector, count, 0) &&
	       CHECK(memcmp(model + sector * STRIPE_SECTOR, data, length) == 0);
	return held && check_members(stripe, shape, model);
}

/* Unmap and zeros, too, are one range for each member. */
static bool sweep_zeros(struct stripe *stripe, const struct stripe_shape *shape, char *model,
			uint64_t sector, uint64_t count)
{
	unsigned flags = count % 2 ? DISK_MAY_UNMAP | DISK_FUA : 0;
	bool held;

	stripe_forget(stripe);
	if (count % 3 == 0)
		held = CHECK_OK(disk_unmap(stripe->disk, sector, count)) &&
		       stripe_check_calls(stripe, shape, PROBE_UNMAP, sector, count, 0);
	else
		held = CHECK_OK(disk_write_zeroes(stripe->disk, sector, count, flags)) &&
		       stripe_check_calls(stripe, shape, PROBE_WRITE_ZEROES, sector, count, flags);
	memset(model + sector * STRIPE_SECTOR, 0, count * STRIPE_SECTOR);
	return held && check_members(stripe, shape, model);
}

/* Every range of a disk. */
static void sweep(const struct stripe_shape *shape, const char *size, uint64_t wanted_count)
{
	static char model[SWEEP_MAX * STRIPE_SECTOR];
	char chunk_size[24];
	struct stripe stripe;
	bool held;

	memset(model, 0, sizeof(model));
	snprintf(chunk_size, sizeof(chunk_size), "%llu",
		 (unsigned long long)shape->chunk * STRIPE_SECTOR);
	stripe_init(&stripe, shape->members, shape->sectors);
	held = stripe_open(&stripe, chunk_size, size) &&
	       CHECK_EQ(disk_sector_count(stripe.disk), wanted_count) &&
	       CHECK(wanted_count <= SWEEP_MAX);
	for (uint64_t sector = 0; held && sector < wanted_count; sector++)
		for (uint64_t count = 1; held && count <= wanted_count - sector; count++)
			held = sweep_one(&stripe, shape, model, sector, count) &&
			       ((sector + count) % 4 > 0 ||
				sweep_zeros(&stripe, shape, model, sector, count));
	stripe_close(&stripe);
}

static void test_sweep_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		sweep(&shapes[i], NULL,
		      shapes[i].sectors / shapes[i].chunk * shapes[i].chunk * shapes[i].members);
}
RUN_IN_TASK(test_sweep)

/* A size that is no whole row, nor a whole chunk. */
static void test_sweep_with_size_task(void *argument)
{
	static const struct {
		struct stripe_shape shape;
		const char *size;
		uint64_t count;
	} cases[] = {
		{{3, 2, 6}, "8704", 17}, {{3, 2, 6}, "512", 1},	 {{2, 5, 10}, "7K", 14},
		{{2, 5, 10}, "10K", 20}, {{4, 1, 4}, "3584", 7}, {{1, 4, 11}, "3K", 6},
	};

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		sweep(&cases[i].shape, cases[i].size, cases[i].count);
}
RUN_IN_TASK(test_sweep_with_size)

/* ---- Many segments, many chunks. ---- */

#define LARGE (4 * MIB)

/* Whatever the memory and however small the chunks, what comes back is what went. */
static void test_scattered_task(void *argument)
{
	static const size_t parts[] = {SIZE_MAX, 65536, 4096, 513, 512, 100, 7};
	static const char *const chunks[] = {"512", "1536", "4K", "128K"};
	char *data = malloc(LARGE), *back = malloc(LARGE);
	struct iovec *iov = calloc(LARGE / 7 + 1, sizeof(*iov));
	struct stripe stripe;

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(parts) * ARRAY_SIZE(chunks); i++) {
		size_t part = parts[i / ARRAY_SIZE(chunks)], length = LARGE - 3 * STRIPE_SECTOR;
		const char *chunk = chunks[i % ARRAY_SIZE(chunks)];
		struct sg sg = cut(iov, data, length, part);

		check_context("chunks of %s, segments of %zu bytes", chunk, part);
		stripe_init(&stripe, 3, LARGE / STRIPE_SECTOR);
		if (!stripe_open(&stripe, chunk, NULL))
			break;
		pattern_fill(data, LARGE, i);
		CHECK_OK(disk_write(stripe.disk, &sg, 1, 0));
		CHECK_OK(stripe_get(&stripe, back, 1, length / STRIPE_SECTOR));
		CHECK(memcmp(data, back, length) == 0);
		memset(data, 0, length);
		CHECK_OK(disk_read(stripe.disk, &sg, 1));
		CHECK(memcmp(data, back, length) == 0);
		stripe_close(&stripe);
	}
	free(iov);
	free(back);
	free(data);
}
RUN_IN_TASK(test_scattered)

/* ---- At the same time. ---- */

struct request {
	struct stripe *stripe;
	enum stats_op op;
	int error;
	bool ended;
};

static int request_run(void *argument)
{
	struct request *request = argument;

	if (request->op == STATS_FLUSH)
		request->error = disk_flush(request->stripe->disk);
	else if (request->op == STATS_READ)
		request->error = stripe_get(request->stripe, everything, 1, 40);
	else
		request->error = stripe_put(request->stripe, everything, 1, 40, 0);
	request->ended = true;
	return 0;
}

static void hold(struct stripe *stripe, bool held)
{
	for (unsigned i = 0; i < stripe->count; i++)
		atomic_store(&stripe->probes[i].hold, held);
}

/* All members have their request while none has answered. */
static void test_concurrent_task(void *argument)
{
	static const enum stats_op ops[] = {STATS_READ, STATS_WRITE, STATS_FLUSH};
	static const enum probe_op probe_ops[] = {PROBE_READ, PROBE_WRITE, PROBE_FLUSH};
	struct stripe stripe;

	(void)argument;
	stripe_init(&stripe, 4, 16);
	if (!stripe_open(&stripe, "1K", NULL))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		struct request request = {.stripe = &stripe, .op = ops[i]};
		struct task_group group = {0};

		stripe_forget(&stripe);
		hold(&stripe, true);
		task_group_start(&group, request_run, &request);
		for (unsigned member = 0; member < stripe.count; member++)
			CHECK_EQ(stripe.probes[member].counts[probe_ops[i]], 1);
		task_sleep_ns(NS_PER_US * 1000);
		CHECK(!request.ended);
		hold(&stripe, false);
		task_group_wait(&group);
		CHECK_OK(request.error);
	}
	stripe_close(&stripe);
}
RUN_IN_TASK(test_concurrent)

/* A request that ends early with an error waits for the others all the same. */
static void test_all_are_waited_for_task(void *argument)
{
	struct request request = {.op = STATS_WRITE};
	struct task_group group = {0};
	struct stripe stripe;

	(void)argument;
	stripe_init(&stripe, 4, 16);
	if (!stripe_open(&stripe, "1K", NULL))
		return;
	request.stripe = &stripe;
	memset(everything, 'w', sizeof(everything));
	stripe.probes[1].fail[PROBE_WRITE] =
		(typeof(stripe.probes[1].fail[0])){error_io(ENOSPC), 0, 16};
	hold(&stripe, true);
	task_group_start(&group, request_run, &request);
	task_sleep_ns(NS_PER_US * 1000);
	CHECK(!request.ended);
	hold(&stripe, false);
	task_group_wait(&group);
	CHECK_EQ(request.error, error_io(ENOSPC));
	for (unsigned i = 0; i < stripe.count; i++)
		CHECK_EQ(stripe.probes[i].data[4 * STRIPE_SECTOR], i == 1 ? 0 : 'w');
	stripe_close(&stripe);
}
RUN_IN_TASK(test_all_are_waited_for)

/* ---- Errors. ---- */

/* Members that fail, how late, and whose error it is for a request that begins on member 2. */
static const struct {
	bool fails[4];
	unsigned yields[4];
	unsigned wins;
} error_cases[] = {
	{{1, 0, 0, 0}, {0, 0, 0, 0}, 0}, {{0, 1, 0, 0}, {0, 0, 0, 0}, 1},
	{{0, 0, 1, 0}, {0, 0, 0, 0}, 2}, {{1, 1, 1, 1}, {0, 0, 0, 0}, 2},
	{{1, 1, 1, 1}, {0, 0, 9, 0}, 2}, {{1, 1, 0, 1}, {0, 3, 5, 9}, 3},
	{{1, 1, 0, 0}, {9, 0, 0, 0}, 0}, {{0, 1, 0, 1}, {0, 0, 0, 9}, 3},
};

/* As long as it waits, a probe has not failed yet. */
static int late_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	const struct probe *probe = *(struct probe **)disk->config;

	(void)sg;
	(void)sector;
	(void)flags;
	for (unsigned i = 0; i < probe->yields; i++)
		task_yield();
	return probe->fail[PROBE_WRITE].error;
}

static void test_errors_task(void *argument)
{
	const int errors[] = {error_of(ERROR_RESERVATION_CONFLICT), error_io(ENOSPC),
			      error_medium(EIO, MEDIUM_WRITE_FAULT), error_of(ERROR_ABORTED)};
	struct stripe stripe;

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(error_cases); i++) {
		check_context("case %zu", i);
		stripe_init(&stripe, 4, 16);
		for (unsigned member = 0; member < 4; member++) {
			struct probe *probe = &stripe.probes[member];

			probe->driver.write = late_write;
			probe->yields = error_cases[i].yields[member];
			if (error_cases[i].fails[member])
				probe->fail[PROBE_WRITE].error = errors[member];
		}
		if (stripe_open(&stripe, "1K", NULL))
			CHECK_EQ(stripe_put(&stripe, everything, 5, 40, 0),
				 errors[error_cases[i].wins]);
		stripe_close(&stripe);
	}
}
RUN_IN_TASK(test_errors)

/* The errors of all else keep their identity, too; every member is flushed. */
static void test_errors_of_the_others_task(void *argument)
{
	static char data[64 * STRIPE_SECTOR];
	struct extent extent;
	uint64_t bytes;
	struct stripe stripe;

	(void)argument;
	stripe_init(&stripe, 4, 16);
	if (!stripe_open(&stripe, "1K", NULL))
		return;
	for (unsigned op = 0; op < PROBE_OPS; op++)
		stripe.probes[1].fail[op] =
			(typeof(stripe.probes[1].fail[0])){error_io(ETIMEDOUT + (int)op), 0, 16};
	CHECK_EQ(stripe_get(&stripe, data, 0, 64), error_io(ETIMEDOUT + PROBE_READ));
	CHECK_EQ(stripe_get(&stripe, data, 2, 2), error_io(ETIMEDOUT + PROBE_READ));
	CHECK_OK(stripe_get(&stripe, data, 0, 2));
	CHECK_EQ(disk_unmap(stripe.disk, 0, 64), error_io(ETIMEDOUT + PROBE_UNMAP));
	CHECK_EQ(disk_write_zeroes(stripe.disk, 0, 64, 0),
		 error_io(ETIMEDOUT + PROBE_WRITE_ZEROES));
	CHECK_EQ(disk_flush(stripe.disk), error_io(ETIMEDOUT + PROBE_FLUSH));
	CHECK_EQ(disk_extent(stripe.disk, 2, 4, &extent), error_io(ETIMEDOUT + PROBE_EXTENT));
	CHECK_EQ(disk_allocated(stripe.disk, &bytes), error_io(ETIMEDOUT + PROBE_ALLOCATED));
	CHECK_EQ(disk_eject(stripe.disk), error_io(ETIMEDOUT + PROBE_EJECT));
	for (unsigned i = 0; i < stripe.count; i++) {
		CHECK_EQ(stripe.probes[i].counts[PROBE_FLUSH], 1);
		CHECK_EQ(stripe.probes[i].counts[PROBE_EJECT], 1);
	}
	stripe.probes[1].fail[PROBE_ALLOCATED].error = 0;
	CHECK_OK(disk_allocated(stripe.disk, &bytes));
	CHECK_EQ(bytes, 4 * 12345);
	stripe_close(&stripe);
}
RUN_IN_TASK(test_errors_of_the_others)

/* ---- Extents. ---- */

/* Says the truth about the probe's data: sectors of zeros are holes. */
static int true_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	struct probe *probe = *(struct probe **)disk->config;
	uint64_t length = 0;
	bool is_hole = false, hole;

	probe->counts[PROBE_EXTENT]++;
	for (; length < count; length++) {
		const char *data = probe->data + (sector + length) * STRIPE_SECTOR;

		hole = bytes_differ(data, STRIPE_SECTOR, 0) == STRIPE_SECTOR;
		if (length == 0)
			is_hole = hole;
		if (hole != is_hole)
			break;
	}
	*extent = (struct extent){is_hole ? EXTENT_HOLE : EXTENT_DATA, length};
	return 0;
}

/* From any sector, for any count, the extent is the longest run there is. */
static void check_extents(struct stripe *stripe, const bool *is_data)
{
	uint64_t all = disk_sector_count(stripe->disk);
	struct extent extent;

	for (uint64_t sector = 0; sector < all; sector++) {
		for (uint64_t count = 1; count <= all - sector; count++) {
			uint64_t length = 1;

			while (length < count && is_data[sector + length] == is_data[sector])
				length++;
			if (!CHECK_OK(disk_extent(stripe->disk, sector, count, &extent)) ||
			    !CHECK_EQ(extent.count, length) ||
			    !CHECK_EQ(extent.kind, is_data[sector] ? EXTENT_DATA : EXTENT_HOLE))
				return;
		}
	}
}

static void test_extents_task(void *argument)
{
	bool is_data[36] = {false};
	struct random random = {.state = 4};
	struct stripe stripe;

	(void)argument;
	stripe_init(&stripe, 3, 12);
	for (unsigned i = 0; i < stripe.count; i++)
		stripe.probes[i].driver.extent = true_extent;
	if (!stripe_open(&stripe, "1536", NULL))
		return;
	memset(everything, 'x', sizeof(everything));
	check_extents(&stripe, is_data);
	for (unsigned i = 0; i < 40; i++) {
		uint64_t sector = random_below(&random, 36);
		uint64_t count = 1 + random_below(&random, min_u64(36 - sector, 12));

		if (i % 2)
			CHECK_OK(disk_unmap(stripe.disk, sector, count));
		else
			CHECK_OK(stripe_put(&stripe, everything, sector, count, 0));
		memset(is_data + sector, i % 2 == 0, count);
		check_context("step %u", i);
		check_extents(&stripe, is_data);
	}
	/* A long run takes no more questions than there are members. */
	CHECK_OK(disk_unmap(stripe.disk, 0, 36));
	stripe_forget(&stripe);
	check_context("one run");
	struct extent extent;

	CHECK_OK(disk_extent(stripe.disk, 1, 35, &extent));
	CHECK_EQ(extent.count, 35);
	CHECK_EQ(stripe_calls(&stripe, PROBE_EXTENT), 3);
	stripe_close(&stripe);
}
RUN_IN_TASK(test_extents)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sweep),
		cmocka_unit_test(test_sweep_with_size),
		cmocka_unit_test(test_scattered),
		cmocka_unit_test(test_concurrent),
		cmocka_unit_test(test_all_are_waited_for),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_errors_of_the_others),
		cmocka_unit_test(test_extents),
	};

	return cmocka_run_group_tests(tests, setup_4_workers, teardown_workers);
}
