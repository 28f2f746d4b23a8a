// SPDX-License-Identifier: MIT
/* Making requests fit: splitting, bouncing, FUA, zeros. The probe checks that its limits hold. */
#include "core/disk.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/buffer.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"

/* ---- Limits. ---- */

struct limits {
	uint32_t memory_align, max_segments;
	uint64_t max_transfer;
	uint32_t length_align;
};

static const struct limits all_limits[] = {
	{0, 0, 0, 0},
	{0, 1, 0, 0},
	{0, 7, 0, 0},
	{0, 0, 4096, 0},
	{0, 0, 3 * 4096, 0},
	{4, 0, 0, 0},
	{512, 0, 0, 0},
	{4096, 0, 0, 0},
	{512, 3, 8192, 0},
	{4096, 1, 4096, 0},
	{4096, 64, 128 * 1024, 0},
	{4096, 0, BUFFER_PAYLOAD - 4096, 0},
	/* Larger than a bounce buffer, and no multiple of it. */
	{4096, 0, BUFFER_PAYLOAD + 4096, 0},
	{0, 1, BUFFER_PAYLOAD + 12288, 0},
	/* 512-byte sectors only: pieces that begin between the driver's units of memory. */
	{4096, 0, BUFFER_PAYLOAD + 512, 0},
	/* Memory may begin nearly anywhere, but only whole sectors follow one another. */
	{4, 0, 0, 512},
	{4, 3, 8192, 4096},
	{0, 0, 0, 4096},
	{4096, 0, 512, 0},
	{4096, 2, 4096 + 512, 0},
};

/* How a request's memory is cut: lengths that repeat, 0 ends; and where it begins in its page. */
struct shape {
	size_t lengths[6];
	size_t begin, gap;
};

static const struct shape shapes[] = {
	{{SIZE_MAX}, 0, 0},			 /* one segment */
	{{SIZE_MAX}, 1, 0},			 /* at an odd address */
	{{4096}, 0, 4096},			 /* pages apart */
	{{512}, 512, 512},			 /* sectors apart */
	{{1, 2, 4093, 511, 513}, 3, 1},		 /* anything */
	{{100000, 24}, 8, 8},			 /* units of 8 */
	{{64 * 1024, 4096, 12288, 512}, 0, 512}, /* sectors, larger */
};

#define SEGMENTS_MAX 16384
#define REQUEST_MAX  ((size_t)4 * 1024 * 1024 + 12288)

/* Memory for requests of any shape. */
struct arena {
	char *memory;
	struct iovec *iov;
};

static struct sg arena_sg(struct arena *arena, const struct shape *shape, size_t length)
{
	char *at = arena->memory + shape->begin;
	size_t left = length;

	for (unsigned i = 0, j = 0; left > 0; i++, j++) {
		if (j == ARRAY_SIZE(shape->lengths) || shape->lengths[j] == 0)
			j = 0;

		size_t part = min_u64(left, shape->lengths[j]);

		if (i == SEGMENTS_MAX - 1)
			part = left;
		arena->iov[i] = (struct iovec){at, part};
		at += part + shape->gap;
		left -= part;
	}
	return (struct sg){.iov = arena->iov, .len = length};
}

static const size_t request_sizes[] = {
	4096, 8192, 5 * 4096, 100 * 4096, BUFFER_PAYLOAD, BUFFER_PAYLOAD + 4096, REQUEST_MAX,
};

/* Writes @flat by a scattered list, and reads it back by another. */
static void check_request(struct disk *disk, struct probe *probe, struct arena *arena,
			  const char *flat, char *back, size_t length, const struct shape *shape)
{
	unsigned shift = disk_sector_shift(disk);
	struct sg sg = arena_sg(arena, shape, length);

	sg_copy_from(&sg, flat);
	CHECK_OK(disk_write(disk, &sg, 3, 0));
	CHECK(memcmp(probe->data + ((size_t)3 << shift), flat, length) == 0);
	/* A neighbour on either side. */
	CHECK_EQ(bytes_differ(probe->data, (size_t)3 << shift, 0x5a), (size_t)3 << shift);
	CHECK_EQ(bytes_differ(probe->data + ((size_t)3 << shift) + length, (size_t)1 << shift,
			      0x5a),
		 (size_t)1 << shift);

	sg_zero(&sg);
	CHECK_OK(disk_read(disk, &sg, 3));
	sg_copy_to(&sg, back);
	CHECK(memcmp(back, flat, length) == 0);
	memset(probe->data + ((size_t)3 << shift), 0x5a, length);
}

static void check_limits(const struct limits *limits, uint32_t sector_size, struct arena *arena,
			 const char *flat, char *back)
{
	struct probe probe;
	struct err err;

	probe_init(&probe, sector_size, (REQUEST_MAX >> log2_of(sector_size)) + 8);
	probe.geometry.memory_align = limits->memory_align;
	probe.geometry.length_align = limits->length_align;
	probe.geometry.max_segments = limits->max_segments;
	probe.geometry.max_transfer = limits->max_transfer;
	memset(probe.data, 0x5a, probe.sector_count * sector_size);
	struct disk *disk = probe_open(&probe, 0, NULL, &err);

	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(request_sizes); j++) {
			/* Small pieces of large requests are no more than many. */
			if (request_sizes[j] > BUFFER_PAYLOAD && limits->max_transfer > 0 &&
			    limits->max_transfer < 16384)
				continue;
			check_context("sector %u, align %u and %u, segments %u, transfer %llu, "
				      "shape %zu, size %zu",
				      sector_size, limits->memory_align, limits->length_align,
				      limits->max_segments,
				      (unsigned long long)limits->max_transfer, i,
				      request_sizes[j]);
			check_request(disk, &probe, arena, flat, back, request_sizes[j],
				      &shapes[i]);
		}
	}
	disk_close(disk);
	probe_destroy(&probe);
}

static void test_limits_task(void *argument)
{
	struct arena arena = {
		.memory = aligned_alloc(4096, 4 * REQUEST_MAX + SEGMENTS_MAX * 4096),
		.iov = calloc(SEGMENTS_MAX, sizeof(struct iovec)),
	};
	char *flat = malloc(REQUEST_MAX), *back = malloc(REQUEST_MAX);

	(void)argument;
	pattern_fill(flat, REQUEST_MAX, 1);
	for (size_t i = 0; i < ARRAY_SIZE(all_limits); i++) {
		check_limits(&all_limits[i], 512, &arena, flat, back);
		if (is_aligned(all_limits[i].max_transfer, 4096))
			check_limits(&all_limits[i], 4096, &arena, flat, back);
	}
	free(flat);
	free(back);
	free(arena.iov);
	free(arena.memory);
}
RUN_IN_TASK(test_limits)

/* ---- One probe of 64 sectors, opened with some change. ---- */

#define COUNT 64

static int transfer(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags, bool write)
{
	static char data[COUNT * 512];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count * 512);

	return write ? disk_write(disk, &sg, sector, flags) : disk_read(disk, &sg, sector);
}

static void check_call(const struct probe *probe, unsigned index, enum probe_op op, uint64_t sector,
		       uint64_t count, unsigned flags)
{
	const struct probe_call *call = &probe->calls[index];

	if (!CHECK(index < probe->call_count))
		return;
	CHECK_EQ(call->op, op);
	CHECK_EQ(call->sector, sector);
	CHECK_EQ(call->count, count);
	CHECK_EQ(call->flags, flags);
}

static void test_pieces_task(void *argument)
{
	struct probe probe;
	struct err err;

	(void)argument;
	probe_init(&probe, 512, COUNT);
	probe.geometry.max_transfer = 3 * 512;
	struct disk *disk = probe_open(&probe, 0, NULL, &err);

	CHECK_OK(transfer(disk, 5, 8, DISK_FUA, true));
	CHECK_EQ(probe.call_count, 3);
	check_call(&probe, 0, PROBE_WRITE, 5, 3, DISK_FUA);
	check_call(&probe, 1, PROBE_WRITE, 8, 3, DISK_FUA);
	check_call(&probe, 2, PROBE_WRITE, 11, 2, DISK_FUA);
	probe_forget(&probe);
	CHECK_OK(transfer(disk, 5, 3, 0, false));
	CHECK_EQ(probe.call_count, 1);
	check_call(&probe, 0, PROBE_READ, 5, 3, 0);
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_pieces)

/* Of several errors, that of the lowest address; whatever failed first in time. */
static void test_first_error_task(void *argument)
{
	struct probe probe;
	struct err err;

	(void)argument;
	probe_init(&probe, 512, COUNT);
	probe.geometry.max_transfer = 512;
	probe.yields = 2;
	struct disk *disk = probe_open(&probe, 0, NULL, &err);

	for (uint64_t at = 0; at < 20; at++) {
		probe.fail[PROBE_WRITE] = (typeof(probe.fail[0])){error_io(ENOSPC), at, COUNT};
		CHECK_EQ(transfer(disk, 0, 20, 0, true), error_io(ENOSPC));
		/* The rest is not begun: at most the pieces that were under way with it. */
		CHECK(probe.counts[PROBE_WRITE] <= align_down(at, 8) + 8);
		probe_forget(&probe);
	}
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_first_error)

/* ---- FUA. ---- */

static void test_fua_is_passed_task(void *argument)
{
	struct probe probe;
	struct err err;

	(void)argument;
	probe_init(&probe, 512, COUNT);
	struct disk *disk = probe_open(&probe, 0, NULL, &err);

	CHECK_OK(transfer(disk, 1, 2, DISK_FUA, true));
	CHECK_OK(transfer(disk, 1, 2, 0, true));
	CHECK_OK(disk_write_zeroes(disk, 1, 2, DISK_FUA | DISK_MAY_UNMAP));
	CHECK_EQ(probe.call_count, 3);
	check_call(&probe, 0, PROBE_WRITE, 1, 2, DISK_FUA);
	check_call(&probe, 1, PROBE_WRITE, 1, 2, 0);
	check_call(&probe, 2, PROBE_WRITE_ZEROES, 1, 2, DISK_FUA | DISK_MAY_UNMAP);
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_fua_is_passed)

static void test_fua_is_emulated_task(void *argument)
{
	struct probe probe;
	struct err err;

	(void)argument;
	probe_init(&probe, 512, COUNT);
	probe.geometry.fua = false;
	probe.geometry.max_transfer = 512;
	struct disk *disk = probe_open(&probe, 0, NULL, &err);

	/* Once, after all the pieces. */
	CHECK_OK(transfer(disk, 1, 3, DISK_FUA, true));
	CHECK_EQ(probe.call_count, 4);
	for (unsigned i = 0; i < 3; i++)
		check_call(&probe, i, PROBE_WRITE, 1 + i, 1, 0);
	check_call(&probe, 3, PROBE_FLUSH, 0, 0, 0);
	probe_forget(&probe);

	CHECK_OK(transfer(disk, 1, 1, 0, true));
	CHECK_OK(transfer(disk, 1, 0, DISK_FUA, true));
	CHECK_EQ(probe.counts[PROBE_FLUSH], 0);
	probe_forget(&probe);

	CHECK_OK(disk_write_zeroes(disk, 1, 2, DISK_FUA));
	CHECK_EQ(probe.call_count, 2);
	check_call(&probe, 0, PROBE_WRITE_ZEROES, 1, 2, 0);
	check_call(&probe, 1, PROBE_FLUSH, 0, 0, 0);
	probe_forget(&probe);

	/* A write that fails is not flushed; a flush that fails, fails the write. */
	probe.fail[PROBE_WRITE] = (typeof(probe.fail[0])){error_io(EIO), 0, 1};
	CHECK_EQ(transfer(disk, 0, 1, DISK_FUA, true), error_io(EIO));
	CHECK_EQ(probe.counts[PROBE_FLUSH], 0);
	probe.fail[PROBE_FLUSH] = (typeof(probe.fail[0])){error_io(ENOSPC), 0, 1};
	CHECK_EQ(transfer(disk, 1, 1, DISK_FUA, true), error_io(ENOSPC));
	disk_close(disk);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_fua_is_emulated)

/* ---- Zeros. ---- */

struct zero_case {
	const char *name;
	bool has_write_zeroes, has_unmap, fua;
	enum unmap_behaviour unmap;
	int write_zeroes_error, unmap_error;
	unsigned flags;
	enum probe_op ends_with; /* what at last zeroed the sectors */
	int error;
	unsigned write_flags;
};

#define NO	 (-1) /* stands for ERROR_UNSUPPORTED, which is no constant */
#define WZ	 PROBE_WRITE_ZEROES
#define UN	 PROBE_UNMAP
#define WR	 PROBE_WRITE
#define MAY	 DISK_MAY_UNMAP
#define FUA	 DISK_FUA
#define ZEROES	 UNMAP_ZEROES
#define ANYTHING UNMAP_UNSPECIFIED

static const struct zero_case zero_cases[] = {
	{"own way", true, true, true, ZEROES, 0, 0, 0, WZ, 0, 0},
	{"own way, may unmap", true, true, true, ZEROES, 0, 0, MAY, WZ, 0, 0},
	{"own way refused", true, true, true, ZEROES, NO, 0, 0, WR, 0, 0},
	{"own way refused, FUA", true, true, true, ZEROES, NO, 0, FUA, WR, 0, FUA},
	{"own way failed", true, true, true, ZEROES, -5, 0, 0, WZ, -5, 0},
	{"unmap", false, true, true, ZEROES, 0, 0, MAY, UN, 0, 0},
	{"unmap not welcome", false, true, true, ZEROES, 0, 0, 0, WR, 0, 0},
	{"unmap not sure", false, true, true, ANYTHING, 0, 0, MAY, WR, 0, 0},
	{"unmap ignored", false, true, true, UNMAP_IGNORED, 0, 0, MAY, WR, 0, 0},
	{"unmap missing", false, false, true, ZEROES, 0, 0, MAY, WR, 0, 0},
	{"unmap refused", false, true, true, ZEROES, 0, NO, MAY, WR, 0, 0},
	{"unmap failed", false, true, true, ZEROES, 0, -5, MAY, UN, -5, 0},
	{"unmap is no FUA", false, true, true, ZEROES, 0, 0, MAY | FUA, WR, 0, FUA},
	{"unmap, then flush", false, true, false, ZEROES, 0, 0, MAY | FUA, UN, 0, 0},
};

static int zero_error(int error)
{
	return error == NO ? error_of(ERROR_UNSUPPORTED) : error ? error_io(-error) : 0;
}

static void check_zero_case(const struct zero_case *c)
{
	struct probe probe;
	struct err err;
	unsigned last = c->fua || !(c->flags & DISK_FUA) ? 1 : 2;

	check_context("%s", c->name);
	probe_init(&probe, 512, COUNT);
	if (!c->has_write_zeroes)
		probe.driver.write_zeroes = NULL;
	if (!c->has_unmap)
		probe.driver.unmap = NULL;
	probe.geometry.fua = c->fua;
	probe.geometry.unmap = c->unmap;
	probe.fail[WZ] = (typeof(probe.fail[0])){zero_error(c->write_zeroes_error), 0, COUNT};
	probe.fail[UN] = (typeof(probe.fail[0])){zero_error(c->unmap_error), 0, COUNT};
	memset(probe.data, 0x5a, COUNT * 512);
	struct disk *disk = probe_open(&probe, 0, NULL, &err);

	CHECK_EQ(disk_write_zeroes(disk, 10, 20, c->flags), zero_error(c->error));
	CHECK_EQ(probe.counts[PROBE_FLUSH], last - 1);
	check_call(&probe, probe.call_count - last, c->ends_with, 10, 20,
		   c->ends_with == WZ ? c->flags : c->write_flags);
	CHECK_EQ(bytes_differ(probe.data, 10 * 512, 0x5a), 10 * 512);
	CHECK_EQ(bytes_differ(probe.data + 10 * 512, 20 * 512, c->error ? 0x5a : 0), 20 * 512);
	CHECK_EQ(bytes_differ(probe.data + 30 * 512, 34 * 512, 0x5a), 34 * 512);
	disk_close(disk);
	probe_destroy(&probe);
}

static void test_zeroes_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(zero_cases); i++)
		check_zero_case(&zero_cases[i]);
}
RUN_IN_TASK(test_zeroes)

/* Many more zeros than one write holds, under limits, at every sector size. */
static void test_long_zeroes_task(void *argument)
{
	(void)argument;
	for (uint32_t size = 512; size <= GEOMETRY_SECTOR_MAX; size *= 2) {
		uint64_t count = 5 * MIB / size + 3;
		struct probe probe;
		struct err err;

		check_context("sector size %u", size);
		probe_init(&probe, size, count + 2);
		probe.driver.write_zeroes = NULL;
		probe.geometry.max_segments = 3;
		probe.geometry.memory_align = 512;
		memset(probe.data, 0x5a, (count + 2) * size);
		struct disk *disk = probe_open(&probe, 0, NULL, &err);

		CHECK_OK(disk_write_zeroes(disk, 1, count, 0));
		CHECK_EQ(bytes_differ(probe.data, size, 0x5a), size);
		CHECK_EQ(bytes_differ(probe.data + size, count * size, 0), count * size);
		CHECK_EQ(bytes_differ(probe.data + (count + 1) * size, size, 0x5a), size);
		probe.fail[PROBE_WRITE] = (typeof(probe.fail[0])){error_io(EIO), count, count + 1};
		CHECK_EQ(disk_write_zeroes(disk, 1, count, 0), error_io(EIO));
		disk_close(disk);
		probe_destroy(&probe);
	}
}
RUN_IN_TASK(test_long_zeroes)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_first_error),	cmocka_unit_test(test_fua_is_passed),
		cmocka_unit_test(test_fua_is_emulated), cmocka_unit_test(test_zeroes),
		cmocka_unit_test(test_long_zeroes),
	};

	return cmocka_run_group_tests(tests, setup_1_worker, teardown_workers);
}
