// SPDX-License-Identifier: MIT
/*
 * The limit of a layer that is no cache, which may not forget: writes beyond it fail.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/sqlite/sqlite.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/sqlite.h"

#define PATH "layer.diskfs"

static bool is_errno(int error, int errnum)
{
	return CHECK_KIND(error, ERROR_IO) && CHECK_EQ(error_errno(error), errnum);
}

static int put(struct disk *disk, uint64_t offset, size_t length, uint64_t value)
{
	char *data = malloc(length);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, length);
	int error;

	pattern_fill(data, length, value);
	error = disk_write(disk, &sg, offset / 512, 0);
	free(data);
	return error;
}

/* To the sector: what is new counts, what is overwritten does not; zeros make room. */
static void test_limit_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "1G"}, {"limit", "3M"}}};
	struct disk *disk;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	disk = layer.disk;
	for (uint64_t i = 0; i < 3; i++)
		CHECK_OK(put(disk, i * 10 * MIB, i == 2 ? MIB - 512 : MIB, i));
	is_errno(put(disk, 500 * MIB, 1024, 0), ENOSPC);
	CHECK_OK(put(disk, 500 * MIB, 512, 0));
	is_errno(put(disk, 400 * MIB, 512, 0), ENOSPC);
	CHECK_OK(put(disk, 10 * MIB, MIB, 99));
	is_errno(put(disk, 10 * MIB, MIB + 512, 99), ENOSPC);
	CHECK_OK(disk_flush(disk));
	CHECK_OK(disk_write_zeroes(disk, 10 * MIB / 512, 4, 0));
	CHECK_OK(put(disk, 400 * MIB, 2048, 0));
	is_errno(put(disk, 300 * MIB, 512, 0), ENOSPC);
	CHECK_OK(disk_flush(disk));
	CHECK_EQ(atomic_load(&sqlite_of(disk)->file_data_bytes), 3 * MIB);
	sqlite_again(&layer);
	is_errno(put(layer.disk, 300 * MIB, 512, 0), ENOSPC);
	sqlite_end(&layer);
}
RUN_IN_TASK(test_limit)

static void limit_task(unsigned index, void *argument)
{
	struct sqlite_layer *layer = argument;

	for (uint64_t i = 0; i < 64; i++) {
		int error = put(layer->disk, (index * 64 + i) * 64 * KIB, 32 * KIB, index * 64 + i);

		CHECK(!error || error_errno(error) == ENOSPC);
	}
}

static void limit_begin(void *argument)
{
	sqlite_begin(argument);
}

static void limit_end(void *argument)
{
	struct sqlite_layer *layer = argument;

	CHECK_OK(disk_flush(layer->disk));
	CHECK_EQ(atomic_load(&sqlite_of(layer->disk)->file_data_bytes), 4 * MIB);
	sqlite_end(layer);
}

/* Many at once do not get beyond it, and leave no room. */
static void test_limit_of_many(void **state)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "1G"}, {"limit", "4M"}}};

	(void)state;
	sqlite_remove(PATH);
	run_task(limit_begin, &layer);
	if (layer.disk)
		run_tasks(8, limit_task, &layer);
	run_task(limit_end, &layer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_limit_of_many),
	};

	return cmocka_run_group_tests(tests, scratch_enter_4_workers, scratch_leave_workers);
}
