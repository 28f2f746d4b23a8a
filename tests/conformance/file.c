// SPDX-License-Identifier: MIT
/*
 * What is particular to the drivers of files and of memory: what cannot be opened and why, files
 * that are made, change under us, do not fit on their file system or under a limit.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/list.h"
#include "core/log.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/contract.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"

#define OPTIONS_MAX 4

/* ---- What cannot be opened. ---- */

struct open_case {
	const char *driver;
	const char *options[OPTIONS_MAX][2];
	unsigned flags;
	const char *key, *text; /* text NULL: it can */
};

/* In a folder with: `good` of 8192 bytes, `empty`, `small` of 511 bytes, `folder`, `fifo`. */
static const struct open_case open_cases[] = {
	{"file", {{"path", "good"}}, 0, "", NULL},
	{"file", {{"path", "good"}, {"size", "8192"}}, 0, "", NULL},
	{"file", {{"path", "good"}, {"sector_size", "8K"}}, 0, "", NULL},
	{"file",
	 {{"path", "missing"}},
	 0,
	 "path",
	 "cannot open 'missing': No such file or directory (size = would create it)"},
	{"file",
	 {{"path", "missing"}},
	 DISK_OPEN_READ_ONLY,
	 "path",
	 "cannot open 'missing': No such file or directory"},
	{"file",
	 {{"path", "missing"}, {"size", "1M"}},
	 DISK_OPEN_READ_ONLY,
	 "path",
	 "cannot open 'missing': No such file or directory (what is read-only is not created)"},
	{"file",
	 {{"path", "none/missing"}, {"size", "1M"}},
	 0,
	 "path",
	 "cannot create 'none/missing': No such file or directory"},
	{"file",
	 {{"path", "missing"}, {"size", "8K"}},
	 DISK_OPEN_READ_ONLY | DISK_OPEN_CHECK,
	 "path",
	 "cannot open 'missing': No such file or directory (what is read-only is not created)"},
	{"file", {{"path", "folder"}}, 0, "path", "cannot open 'folder': Is a directory"},
	{"file", {{"path", "folder"}}, DISK_OPEN_READ_ONLY, "path", "'folder' is no regular file"},
	{"file", {{"path", "fifo"}}, 0, "path", "'fifo' is no regular file"},
	{"file", {{"path", "fifo"}}, DISK_OPEN_READ_ONLY, "path", "'fifo' is no regular file"},
	{"file", {{"path", "/dev/null"}}, 0, "path", "'/dev/null' is no regular file"},
	{"file",
	 {{"path", "empty"}},
	 0,
	 "path",
	 "'empty' is empty: remove it and set size, to have it created"},
	{"file", {{"path", "small"}}, 0, "path", "'small' is smaller than one sector of 512 bytes"},
	{"file",
	 {{"path", "good"}, {"sector_size", "16K"}},
	 0,
	 "path",
	 "'good' is smaller than one sector of 16384 bytes"},
	{"file",
	 {{"path", "good"}, {"size", "4096"}},
	 0,
	 "size",
	 "'good' has 8192 bytes, not 4096: an existing file is not resized"},
	{"file",
	 {{"path", "good"}, {"sector_size", "4096"}, {"physical_sector_size", "512"}},
	 0,
	 "",
	 "invalid physical sector size 512: must be a power of two, at least the sector size of "
	 "4096"},
	{"ram", {{"size", "1M"}, {"sector_size", "4096"}}, 0, "", NULL},
	{"ram", {{"size", "1000"}}, 0, "size", "must be a multiple of the sector size of 512"},
	{"null", {{"size", "1M"}, {"sector_size", "64K"}}, 0, "", NULL},
	{"null",
	 {{"size", "5000"}, {"sector_size", "4096"}},
	 0,
	 "size",
	 "must be a multiple of the sector size of 4096"},
};

static void test_open_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(open_cases); i++) {
		const struct open_case *c = &open_cases[i];
		struct err err = {.text = ""};
		struct disk *disk = driver_open(driver_find(c->driver), c->options, OPTIONS_MAX,
						c->flags, NULL, &err);

		check_context("case %zu", i);
		CHECK_TEXT(err.text, c->text ? c->text : "");
		CHECK_TEXT(err.key, c->key);
		CHECK(!disk == !!c->text);
		disk_close(disk);
	}
	CHECK(access("missing", F_OK) < 0); /* nothing was made in vain */
}

static void test_open(void **state)
{
	(void)state;
	scratch_enter();
	scratch_write("empty", "", 0);
	scratch_write("small", "", 0);
	scratch_write("good", "", 0);
	assert_int_equal(truncate("small", 511), 0);
	assert_int_equal(truncate("good", 8192), 0);
	assert_int_equal(mkdir("folder", 0700), 0);
	assert_int_equal(mkfifo("fifo", 0600), 0);
	run_task(test_open_task, NULL);
	rmdir("folder");
	scratch_leave();
}

static void test_drivers(void **state)
{
	(void)state;
	assert_null(driver_find("fil"));
	assert_null(driver_find(""));
	for (unsigned i = 0; drivers[i]; i++)
		assert_ptr_equal(driver_find(drivers[i]->name), drivers[i]);
}

/* ---- Files that are made. ---- */

static struct disk *open_file(const char *path, const char *size, unsigned flags)
{
	const char *const options[][2] = {{"path", path}, {size ? "size" : NULL, size}};
	struct err err = {.text = ""};
	struct disk *disk = driver_open(driver_find("file"), options, 2, flags, NULL, &err);

	CHECK_TEXT(err.text, "");
	return disk;
}

static void test_create_task(void *argument)
{
	struct stat stat_buffer;
	struct disk *disk;
	uint64_t bytes;

	(void)argument;
	/* To look is not to make: but it tells what there would be. */
	disk = open_file("new", "3M", DISK_OPEN_CHECK);
	if (CHECK(disk))
		CHECK_EQ(disk_size(disk), 3 * MIB);
	disk_close(disk);
	CHECK(access("new", F_OK) < 0);

	disk = open_file("new", "3M", 0);
	if (CHECK(disk)) {
		CHECK_EQ(disk_size(disk), 3 * MIB);
		CHECK_OK(disk_allocated(disk, &bytes));
		CHECK_EQ(bytes, 0);
	}
	disk_close(disk);
	CHECK_EQ(stat("new", &stat_buffer), 0);
	CHECK_EQ(stat_buffer.st_size, 3 * MIB);
	disk_close(open_file("new", "3M", 0));
	disk_close(open_file("new", NULL, DISK_OPEN_READ_ONLY));
}

static void in_scratch(void (*task)(void *argument))
{
	scratch_enter();
	run_task(task, NULL);
	scratch_leave();
}

static void test_create(void **state)
{
	(void)state;
	in_scratch(test_create_task);
}

/* A file whose last sector is not whole: what is beyond is never touched. */
static void test_tail_task(void *argument)
{
	char data[1024], back[2000];
	struct disk *disk;

	(void)argument;
	pattern_fill(back, sizeof(back), 1);
	scratch_write("tail", back, 2000); /* 3 sectors and 464 bytes */
	disk = open_file("tail", NULL, 0);
	if (!CHECK(disk))
		return;
	CHECK_EQ(disk_sector_count(disk), 3);
	memset(data, 0x11, sizeof(data));
	disk_put(disk, data, 1, 2, 0);
	CHECK_OK(disk_write_zeroes(disk, 0, 3, DISK_MAY_UNMAP));
	disk_close(disk);

	char left[2001];
	int fd = open("tail", O_RDONLY | O_CLOEXEC);

	CHECK_EQ(read(fd, left, sizeof(left)), 2000); /* the size has not changed either */
	close(fd);
	CHECK_EQ(bytes_differ(left, 1536, 0), 1536);
	CHECK(memcmp(left + 1536, back + 1536, 464) == 0);
}

static void test_tail(void **state)
{
	(void)state;
	in_scratch(test_tail_task);
}

/* ---- Files that change under us. ---- */

/* What is gone is an error: neither zeros nor a hole, which a copy would take for zeros. */
static void check_truncated(const char *path)
{
	static char data[65536];
	struct disk *disk = open_file(path, "64K", 0);
	struct extent extent;
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	if (!CHECK(disk))
		return;
	memset(data, 0x22, sizeof(data));
	disk_put(disk, data, 0, 128, 0);
	CHECK_EQ(truncate(path, 10000), 0); /* 19 sectors and 272 bytes */
	CHECK_EQ(disk_read(disk, &sg, 0), error_io(EIO));
	sg = sg_of(&iov, data, 512);
	CHECK_EQ(disk_read(disk, &sg, 19), error_io(EIO));
	CHECK_EQ(disk_read(disk, &sg, 127), error_io(EIO));
	CHECK_OK(disk_read(disk, &sg, 18));
	CHECK_EQ(bytes_differ(data, 512, 0x22), 512);
	CHECK_OK(disk_extent(disk, 0, 128, &extent));
	CHECK(extent.kind == EXTENT_DATA && extent.count <= 20);
	CHECK_EQ(disk_extent(disk, 20, 108, &extent), error_io(EIO));
	CHECK_EQ(disk_extent(disk, 127, 1, &extent), error_io(EIO));
	/* A hole that is cut off ends where the file does. */
	CHECK_EQ(truncate(path, 0), 0);
	CHECK_EQ(truncate(path, 20480), 0);
	CHECK_OK(disk_extent(disk, 8, 120, &extent));
	CHECK(extent.kind == EXTENT_HOLE && extent.count == 32);
	disk_close(disk);
}

static void test_truncated_task(void *argument)
{
	char path[200];

	(void)argument;
	check_truncated("file");
	snprintf(path, sizeof(path), "%s/diskfs-truncated.%d", place_folder(PLACE_DISK), getpid());
	check_truncated(path);
	unlink(path);
}

static void test_truncated(void **state)
{
	(void)state;
	in_scratch(test_truncated_task);
}

/* ---- Where there is no room. ---- */

static void test_full_task(void *argument)
{
	static char data[65536];
	struct disk *disk = open_file("mount/file", "4M", 0);
	uint64_t sector = 0;
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));
	int error = 0;

	(void)argument;
	if (!CHECK(disk))
		return;
	for (; !error && sector < disk_sector_count(disk); sector += 128)
		error = disk_write(disk, &sg, sector, 0);
	CHECK_EQ(error, error_io(ENOSPC));
	CHECK_EQ(error_to_errno(error), ENOSPC);
	/* Space that is given back can be used. */
	CHECK_OK(disk_unmap(disk, 0, 256));
	CHECK_OK(disk_write(disk, &sg, 0, 0));
	disk_close(disk);
}

static void test_full(void **state)
{
	(void)state;
	scratch_enter();
	assert_int_equal(mkdir("mount", 0700), 0);
	if (mount("tmpfs", "mount", "tmpfs", 0, "size=1M") < 0) {
		rmdir("mount");
		scratch_leave();
		print_message("skipped - a full file system: %s\n", strerror(errno));
		skip();
	}
	worker_call(worker_get(0), test_full_task, NULL);
	umount2("mount", MNT_DETACH);
	rmdir("mount");
	scratch_leave();
	check_finish();
}

/* A limit on the size of files is an error of the request, and no signal that ends the daemon. */
static void check_size_limit(const char *path)
{
	static char data[65536];
	const struct rlimit small = {32768, RLIM_INFINITY};
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, 4096);
	struct disk *disk = open_file(path, "64K", 0);

	if (!CHECK(disk))
		return;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
	CHECK_OK(disk_write(disk, &sg, 56, 0));
	CHECK_EQ(disk_write(disk, &sg, 64, 0), error_io(EFBIG));
	CHECK_EQ(disk_write(disk, &sg, 60, DISK_FUA), error_io(EFBIG));
	sg = sg_of(&iov, data, sizeof(data));
	CHECK_EQ(disk_write(disk, &sg, 0, 0), error_io(EFBIG));
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
	CHECK_OK(disk_write(disk, &sg, 0, 0));
	disk_close(disk);
}

static void test_size_limit_task(void *argument)
{
	char path[200];

	(void)argument;
	check_size_limit("file");
	snprintf(path, sizeof(path), "%s/diskfs-limit.%d", place_folder(PLACE_DISK), getpid());
	check_size_limit(path);
	unlink(path);
}

static void test_size_limit(void **state)
{
	struct rlimit limit;

	(void)state;
	getrlimit(RLIMIT_FSIZE, &limit);
	if (limit.rlim_max != RLIM_INFINITY) {
		print_message("skipped - a limit on the size of files: there is one already\n");
		skip();
	}
	in_scratch(test_size_limit_task);
}

/* ---- Memory. ---- */

/* A RAM disk far larger than memory: its ends can be used, and it takes memory for these alone. */
static void test_huge_ram_task(void *argument)
{
	const char *const huge[][2] = {{"size", "1T"}, {NULL, NULL}};
	struct err err = {.text = ""};
	struct disk *disk = driver_open(driver_find("ram"), huge, 1, 0, NULL, &err);
	char data[512], back[512];
	struct extent extent;
	uint64_t last, bytes, at = 0;

	(void)argument;
	if (!CHECK(disk))
		return;
	last = disk_sector_count(disk) - 1;
	pattern_fill(data, sizeof(data), 1);
	disk_put(disk, data, last, 1, 0);
	disk_put(disk, data, 0, 1, 0);
	disk_get(disk, back, last, 1);
	CHECK(memcmp(data, back, 512) == 0);
	CHECK_OK(disk_allocated(disk, &bytes));
	CHECK_EQ(bytes, 8192);
	while (at <= last && CHECK_OK(disk_extent(disk, at, last + 1 - at, &extent))) {
		CHECK(extent.kind == EXTENT_HOLE || at == 0 || at == last);
		at += extent.count;
	}
	disk_close(disk);
}

static void test_huge_ram(void **state)
{
	(void)state;
	run_task(test_huge_ram_task, NULL);
}

static int setup(void **state)
{
	log_set_level(LOG_LEVEL_ERROR);
	return setup_2_workers(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),	   cmocka_unit_test(test_drivers),
		cmocka_unit_test(test_create),	   cmocka_unit_test(test_tail),
		cmocka_unit_test(test_truncated),  cmocka_unit_test(test_full),
		cmocka_unit_test(test_size_limit), cmocka_unit_test(test_huge_ram),
	};

	return cmocka_run_group_tests(tests, setup, teardown_workers);
}
