// SPDX-License-Identifier: MIT
/* The driver ram: what it is alone and as a layer, where its size comes from and when it changes,
 * and what it does without memory. */
#include "core/layer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/list.h"
#include "core/report.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/contract.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"
#include "tests/lib/stacks.h"

#define S 512U

static char data[16 * MIB], back[16 * MIB];

/* ---- Disks. ---- */

struct ram_options {
	const char *size, *sector_size, *limit;
	unsigned flags;
};

/* NULL with a sentence in @err. */
static struct disk *ram_try(const struct ram_options *options, struct err *err)
{
	const char *const values[] = {options->size, options->sector_size, options->limit};
	static const char *const names[] = {"size", "sector_size", "limit"};
	const char *texts[ARRAY_SIZE(names)][2];
	size_t count = 0;

	*err = (struct err){.text = ""};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!values[i])
			continue;
		texts[count][0] = names[i];
		texts[count++][1] = values[i];
	}
	return driver_open(driver_find("ram"), (const char *const(*)[2])texts, count,
			   options->flags, NULL, err);
}

static struct disk *ram_open(const struct ram_options *options)
{
	struct err err;
	struct disk *disk = ram_try(options, &err);

	CHECK_TEXT(err.text, "");
	return disk;
}

/* A layered disk: a ram on a probe that holds 'p' throughout. */
struct diff {
	struct probe probe;
	struct disk *below, *ram, *disk;
};

static bool diff_open(struct diff *diff, const struct ram_options *options, uint64_t sectors)
{
	struct ram_options layer = *options;
	struct err err = {.text = ""};

	probe_init(&diff->probe, S, sectors);
	diff->below = probe_open(&diff->probe, 0, NULL, &err);
	memset(diff->probe.data, 'p', sectors * S);
	layer.flags |= DISK_OPEN_LAYER;
	diff->ram = ram_open(&layer);
	diff->disk = driver_open_on(driver_find("layered"), NULL, 0, 0,
				    (struct disk *[]){diff->ram, diff->below}, 2, &err);
	return CHECK_TEXT(err.text, "") && CHECK(diff->disk);
}

static void diff_close(struct diff *diff)
{
	disk_close(diff->disk);
	disk_close(diff->ram);
	disk_close(diff->below);
	probe_destroy(&diff->probe);
}

/* ---- Content. ---- */

static int put(struct disk *disk, int value, uint64_t sector, uint64_t count)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count << disk_sector_shift(disk));

	memset(data, value, sg.len);
	return disk_write(disk, &sg, sector, 0);
}

/* The sectors hold what @text has a letter for, each throughout; '0' stands for zeros. */
static bool check_content(struct disk *disk, const char *text, int line)
{
	uint32_t size = disk_sector_size(disk);
	uint64_t count = strlen(text);

	check_context("line %d", line);
	if (!disk_get(disk, back, 0, count))
		return false;
	for (uint64_t i = 0; i < count; i++)
		if (!CHECK_EQ(bytes_differ(back + i * size, size, text[i] == '0' ? 0 : text[i]),
			      size))
			return false;
	return true;
}

#define CHECK_CONTENT(disk, text) check_content(disk, text, __LINE__)

static bool check_run(struct disk *disk, uint64_t sector, enum layer_state state, uint64_t count)
{
	struct layer_run run;

	return CHECK_OK(layer_run(disk, sector, disk_sector_count(disk) - sector, &run)) &&
	       CHECK_EQ(run.state, state) && CHECK_EQ(run.count, count);
}

static uint64_t memory(struct disk *disk)
{
	uint64_t bytes = 0;

	CHECK_OK(disk_allocated(disk, &bytes));
	return bytes;
}

static bool resize(struct disk *disk, const char *size)
{
	struct err err = {.text = ""};

	return CHECK_EQ(disk_set_option(disk, "size", size, &err), 0) && CHECK_TEXT(err.text, "");
}

/* ---- Options. ---- */

static const struct {
	struct ram_options options;
	const char *key, *text;
} refused[] = {
	{{.size = NULL}, "size", "is missing, but driver 'ram' needs it"},
	{{.size = "1000"}, "size", "must be a multiple of the sector size of 512"},
	{{.size = "6K", .sector_size = "4K"},
	 "size",
	 "must be a multiple of the sector size of 4096"},
	{{.size = "1M", .sector_size = "128K"},
	 "sector_size",
	 "'128K' is out of range: it must be 512 to 64K"},
	{{.size = "1M", .limit = "4K"}, "limit", "'4K' is out of range: it must be at least 1M"},
};

static void test_refused_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		struct err err;

		check_context("case %zu", i);
		CHECK(!ram_try(&refused[i].options, &err));
		CHECK_TEXT(err.key, refused[i].key);
		CHECK_TEXT(err.text, refused[i].text);
	}
}
RUN_IN_TASK(test_refused)

static void test_alone_task(void *argument)
{
	static const struct {
		const char *text;
		uint32_t size, unmap;
	} sizes[] = {
		{NULL, 512, 8},	   {"512", 512, 8},   {"2048", 2048, 2},
		{"4096", 4096, 1}, {"64K", 65536, 1},
	};

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct disk *disk =
			ram_open(&(struct ram_options){.size = "1M", .sector_size = sizes[i].text});

		check_context("case %zu", i);
		if (!disk)
			continue;
		CHECK_EQ(disk_sector_size(disk), sizes[i].size);
		CHECK_EQ(disk->geometry.physical_sector_size, sizes[i].size);
		CHECK_EQ(disk->geometry.optimal_unmap_sectors, sizes[i].unmap);
		CHECK_EQ(disk->geometry.unmap, UNMAP_ZEROES);
		CHECK(disk->geometry.fua);
		CHECK_EQ(disk_size(disk), MIB);
		disk_close(disk);
	}
}
RUN_IN_TASK(test_alone)

/* ---- As a layer. ---- */

/* What is not said is as below. */
static void test_attach_task(void *argument)
{
	static const struct {
		struct ram_options options;
		uint32_t below_sector_size;
		uint64_t size;
	} cases[] = {
		{{.size = NULL}, 512, 64 * KIB},
		{{.size = NULL}, 4096, 64 * KIB},
		{{.size = "8K"}, 4096, 8 * KIB},
		{{.size = "1M"}, 512, MIB},
		{{.size = "12K", .sector_size = "2048"}, 2048, 12 * KIB},
	};

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ram_options options = cases[i].options;
		uint32_t sector_size = cases[i].below_sector_size;
		struct probe probe;
		struct err err;

		check_context("case %zu", i);
		probe_init(&probe, sector_size, 64 * KIB / sector_size);
		struct disk *below = probe_open(&probe, 0, NULL, &err);

		options.flags = DISK_OPEN_LAYER;
		struct disk *ram = ram_open(&options);

		/* Another disk may stand on it later. */
		for (unsigned j = 0; j < 2; j++)
			CHECK_EQ(layer_attach(ram, below, 0, &err), 0);
		CHECK_EQ(disk_sector_size(ram), sector_size);
		CHECK_EQ(disk_size(ram), cases[i].size);
		CHECK_EQ(ram->geometry.unmap, UNMAP_ZEROES);
		check_run(ram, 0, LAYER_ABSENT, disk_sector_count(ram));
		disk_close(ram);
		disk_close(below);
		probe_destroy(&probe);
	}
}
RUN_IN_TASK(test_attach)

/* The last has nothing below it that would tell. */
static void test_attach_last_task(void *argument)
{
	struct disk *ram = ram_open(&(struct ram_options){.flags = DISK_OPEN_LAYER});
	struct err err;

	(void)argument;
	CHECK(layer_attach(ram, NULL, 0, &err) < 0);
	CHECK_TEXT(err.key, "size");
	CHECK_TEXT(err.text, "is missing, but a last layer needs it");
	disk_close(ram);
	ram = ram_open(&(struct ram_options){.size = "8K", .flags = DISK_OPEN_LAYER});
	CHECK_EQ(layer_attach(ram, NULL, 0, &err), 0);
	CHECK_EQ(disk_sector_count(ram), 16);
	CHECK_EQ(disk_sector_size(ram), 512);
	/* What it does not have are zeros to whoever does not ask. */
	CHECK_CONTENT(ram, "0000000000000000");
	disk_close(ram);
}
RUN_IN_TASK(test_attach_last)

/* All the states, each by what makes it. */
static void test_states_task(void *argument)
{
	struct diff diff;

	(void)argument;
	if (!diff_open(&diff, &(struct ram_options){NULL}, 16))
		return;
	CHECK_CONTENT(diff.disk, "pppppppppppppppp");
	CHECK_OK(put(diff.disk, 'a', 2, 4));
	CHECK_OK(disk_unmap(diff.disk, 4, 4));
	CHECK_OK(disk_write_zeroes(diff.disk, 12, 2, 0));
	CHECK_CONTENT(diff.disk, "ppaa0000pppp00pp");
	check_run(diff.ram, 0, LAYER_ABSENT, 2);
	check_run(diff.ram, 2, LAYER_DATA, 2);
	check_run(diff.ram, 4, LAYER_ZEROES, 4);
	check_run(diff.ram, 8, LAYER_ABSENT, 4);
	check_run(diff.ram, 12, LAYER_ZEROES, 2);
	CHECK_OK(layer_drop(diff.ram, 3, 3));
	CHECK_CONTENT(diff.disk, "ppappp00pppp00pp");
	/* Populating takes no more than what is absent. */
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, 16 * S);

	memset(data, 'c', sg.len);
	CHECK_OK(layer_populate(diff.ram, &sg, 0));
	CHECK_CONTENT(diff.disk, "ccaccc00cccc00cc");
	diff_close(&diff);
}
RUN_IN_TASK(test_states)

/* A tail that was discarded and is written again. */
static void test_rewritten_tail_task(void *argument)
{
	struct diff diff;

	(void)argument;
	if (!diff_open(&diff, &(struct ram_options){NULL}, 16))
		return;
	CHECK_OK(put(diff.disk, 'a', 6, 4));
	CHECK_OK(disk_unmap(diff.disk, 4, 12));
	CHECK_CONTENT(diff.disk, "pppp000000000000");
	CHECK_OK(put(diff.disk, 'b', 8, 2));
	CHECK_OK(put(diff.disk, 'c', 13, 1));
	CHECK_CONTENT(diff.disk, "pppp0000bb000c00");
	diff_close(&diff);
}
RUN_IN_TASK(test_rewritten_tail)

/* ---- Alone: what is zeroed is as if it had never been written. ---- */

static void test_dropped_alone_task(void *argument)
{
	struct disk *disk = ram_open(&(struct ram_options){.size = "16M"});
	struct extent extent;

	(void)argument;
	CHECK_OK(put(disk, 'a', 0, 16 * MIB / S));
	CHECK_EQ(memory(disk), 16 * MIB);
	CHECK_OK(disk_unmap(disk, 8, 16));
	CHECK_OK(disk_write_zeroes(disk, 4 * MIB / S, 12 * MIB / S, DISK_FUA));
	CHECK_EQ(memory(disk), 4 * MIB - 8 * KIB);
	check_run(disk, 8, LAYER_ABSENT, 16);
	check_run(disk, 24, LAYER_DATA, 4 * MIB / S - 24);
	check_run(disk, 4 * MIB / S, LAYER_ABSENT, 12 * MIB / S);
	CHECK_OK(disk_extent(disk, 4 * MIB / S, 12 * MIB / S, &extent));
	CHECK_EQ(extent.kind, EXTENT_HOLE);
	CHECK_EQ(extent.count, 12 * MIB / S);
	CHECK_OK(disk_unmap(disk, 0, 16 * MIB / S));
	CHECK_EQ(memory(disk), 0);
	disk_close(disk);
}
RUN_IN_TASK(test_dropped_alone)

/* ---- Size. ---- */

/* Smaller and larger again, and then a read across what was written since. */
static void test_resize_alone_task(void *argument)
{
	struct disk *disk = ram_open(&(struct ram_options){.size = "8K"});

	(void)argument;
	CHECK_OK(put(disk, 'a', 0, 16));
	resize(disk, "2K");
	CHECK_EQ(disk_sector_count(disk), 4);
	CHECK_CONTENT(disk, "aaaa");
	resize(disk, "8K");
	CHECK_EQ(disk_sector_count(disk), 16);
	CHECK_CONTENT(disk, "aaaa000000000000");
	CHECK_OK(put(disk, 'b', 8, 2));
	CHECK_CONTENT(disk, "aaaa0000bb000000");
	disk_close(disk);
}
RUN_IN_TASK(test_resize_alone)

/* As a layer: neither what was there nor what is below comes back. */
static void test_resize_layer_task(void *argument)
{
	struct diff diff;

	(void)argument;
	if (!diff_open(&diff, &(struct ram_options){NULL}, 16))
		return;
	CHECK_OK(put(diff.disk, 'a', 2, 12));
	resize(diff.ram, "2K");
	CHECK_EQ(disk_sector_count(diff.disk), 4);
	CHECK_CONTENT(diff.disk, "ppaa");
	resize(diff.ram, "8K");
	CHECK_EQ(disk_sector_count(diff.disk), 16);
	CHECK_CONTENT(diff.disk, "ppaa000000000000");
	CHECK_OK(put(diff.disk, 'b', 8, 2));
	CHECK_CONTENT(diff.disk, "ppaa0000bb000000");
	/* Beyond what is below, too. */
	resize(diff.ram, "12K");
	CHECK_CONTENT(diff.disk, "ppaa0000bb00000000000000");
	diff_close(&diff);
}
RUN_IN_TASK(test_resize_layer)

static void test_resize_refused_task(void *argument)
{
	struct disk *disk = ram_open(&(struct ram_options){.size = "8K", .sector_size = "4K"});
	struct disk *fixed =
		ram_open(&(struct ram_options){.size = "8K", .flags = DISK_OPEN_READ_ONLY});
	struct err err;
	char *text;

	(void)argument;
	CHECK(disk_set_option(disk, "size", "6K", &err) < 0);
	CHECK_TEXT(err.text, "must be a multiple of the sector size of 4096");
	CHECK(disk_set_option(disk, "size", "0", &err) < 0);
	CHECK(disk_set_option(disk, "size", "x", &err) < 0);
	CHECK(disk_set_option(disk, "limit", "1M", &err) < 0);
	CHECK(disk_set_option(fixed, "size", "4K", &err) < 0);
	CHECK_TEXT(err.text, "cannot be changed: the disk is read-only");
	CHECK_EQ(disk_size(disk), 8 * KIB);
	CHECK_EQ(disk_size(fixed), 8 * KIB);
	resize(disk, "3M");
	text = disk_get_option(disk, "size");
	CHECK_TEXT(text, "3M");
	free(text);
	disk_close(fixed);
	disk_close(disk);
}
RUN_IN_TASK(test_resize_refused)

/* The size changes while others write: whatever is added in the end is zeros. */
static void resize_or_write(unsigned index, void *argument)
{
	static const char *const sizes[] = {"64K", "1M", "256K", "2M"};
	struct disk *disk = argument;
	static char pieces[8][32 * KIB];
	struct random random = {.state = index};

	for (unsigned i = 0; i < 300; i++) {
		if (index == 0) {
			resize(disk, sizes[i % ARRAY_SIZE(sizes)]);
		} else {
			struct iovec iov;
			struct sg sg = sg_of(&iov, pieces[index], sizeof(pieces[index]));
			int error = disk_write(disk, &sg, random_below(&random, 2 * MIB / S), 0);

			CHECK(error == 0 || error_kind(error) == ERROR_ILLEGAL_BLOCK);
		}
		task_yield();
	}
}

static void open_task(void *argument)
{
	*(struct disk **)argument = ram_open(&(struct ram_options){.size = "2M"});
}

static void finish_task(void *argument)
{
	struct disk *disk = argument;

	resize(disk, "512");
	resize(disk, "2M");
	CHECK_OK(disk_unmap(disk, 0, 1));
	disk_get(disk, back, 0, 2 * MIB / S);
	CHECK_EQ(bytes_differ(back, 2 * MIB, 0), 2 * MIB);
	CHECK_EQ(memory(disk), 0);
	disk_close(disk);
}

static void test_resize_under_way(void **state)
{
	struct disk *disk = NULL;

	(void)state;
	run_task(open_task, &disk);
	run_tasks(8, resize_or_write, disk);
	run_task(finish_task, disk);
}

/* ---- Memory. ---- */

/* What is on stderr while @function runs. */
static void logged(void (*function)(struct disk *disk), struct disk *disk, char text[static 4096])
{
	int file = memfd_create("log", 0), saved = dup(STDERR_FILENO);
	ssize_t length;

	dup2(file, STDERR_FILENO);
	function(disk);
	dup2(saved, STDERR_FILENO);
	length = pread(file, text, 4095, 0);
	text[length > 0 ? length : 0] = '\0';
	close(saved);
	close(file);
}

static void write_all(struct disk *disk)
{
	int error = 0;

	for (uint64_t at = 0; error == 0 && at < 16 * MIB / S; at += 64)
		error = put(disk, 'a', at, 64);
	CHECK_EQ(error, error_io(ENOSPC));
	for (unsigned i = 0; i < 100; i++)
		CHECK_EQ(put(disk, 'b', 8 * MIB / S + 64 * i, 64), error_io(ENOSPC));
}

static void test_limit_task(void *argument)
{
	struct disk *disk = ram_open(&(struct ram_options){.size = "16M", .limit = "4M"});
	char text[4096];
	unsigned lines = 0;

	(void)argument;
	logged(write_all, disk, text);
	/* Each of the first lines tells what is wrong, and which option would help. */
	CHECK(strstr(text, "[ram] no memory to write to: "));
	CHECK(strstr(text, " are in use, and the option limit allows 4 MiB\n"));
	for (const char *at = text; (at = strchr(at, '\n')); at++)
		lines++;
	CHECK(lines <= 10);
	CHECK(memory(disk) <= 4 * MIB && memory(disk) > 3 * MIB);
	CHECK_OK(put(disk, 'b', 0, 2 * MIB / S));
	CHECK_OK(disk_unmap(disk, 0, MIB / S));
	CHECK_OK(put(disk, 'c', 12 * MIB / S, 900 * KIB / S));
	disk_close(disk);
}
RUN_IN_TASK(test_limit)

static bool reports(struct disk *disk, const char *line)
{
	struct report *report = report_new(REPORT_TEXT);
	size_t length;
	char *text;
	bool found;

	disk_inspect(disk, report);
	text = report_finish(report, &length);
	found = text && strstr(text, line);
	if (!found)
		CHECK_TEXT(text, line);
	free(text);
	return found;
}

static void test_inspect_task(void *argument)
{
	struct disk *disk = ram_open(&(struct ram_options){.size = "1M", .limit = "8M"});
	struct diff diff;

	(void)argument;
	put(disk, 'a', 1, 2);
	reports(disk, "memory: 4096 (4 KiB)\n");
	reports(disk, "index_memory: ");
	reports(disk, "limit: 8388608 (8 MiB)\n");
	disk_close(disk);
	if (!diff_open(&diff, &(struct ram_options){NULL}, 64))
		return;
	put(diff.disk, 'a', 5, 10);
	disk_unmap(diff.disk, 8, 50);
	reports(diff.ram, "memory: 4096 (4 KiB)\n");
	reports(diff.ram, "data: 1536 (1.5 KiB)\n");
	reports(diff.ram, "zeroes: 25600 (25 KiB)\n");
	diff_close(&diff);
}
RUN_IN_TASK(test_inspect)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),		 cmocka_unit_test(test_alone),
		cmocka_unit_test(test_attach),		 cmocka_unit_test(test_attach_last),
		cmocka_unit_test(test_states),		 cmocka_unit_test(test_rewritten_tail),
		cmocka_unit_test(test_dropped_alone),	 cmocka_unit_test(test_resize_alone),
		cmocka_unit_test(test_resize_layer),	 cmocka_unit_test(test_resize_refused),
		cmocka_unit_test(test_resize_under_way), cmocka_unit_test(test_limit),
		cmocka_unit_test(test_inspect),
	};

	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
