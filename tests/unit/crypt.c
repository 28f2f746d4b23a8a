// SPDX-License-Identifier: MIT
/*
 * The crypt driver on raw disks: its options and key files, where on the disk below what lies,
 * lists of segments of any shape, holes, size. What is encrypted to what is crypt_xts.c's to test.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/crypt/xts.h"
#include "backends/list.h"
#include "core/bytes.h"
#include "core/log.h"
#include "core/report.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/stacks.h"

#define BELOW_SIZE (256 * KIB)

/* A crypt over a probe, by the key in the file "key". */
struct pair {
	struct probe probe;
	struct disk *below, *disk;
};

typedef const char *const options_t[4][2];

static bool pair_open(struct pair *pair, uint32_t sector_size, options_t options, struct err *err)
{
	const char *all[5][2] = {{"key_file", "key"}};

	memcpy(all[1], options, sizeof(options_t));
	probe_init(&pair->probe, sector_size, BELOW_SIZE / sector_size);
	pair->below = probe_open(&pair->probe, 0, NULL, err);
	pair->disk = driver_open(driver_find("crypt"), (const char *const(*)[2])all, 5, 0,
				 pair->below, err);
	return pair->disk;
}

static void pair_close(struct pair *pair)
{
	disk_close(pair->disk);
	disk_close(pair->below);
	probe_destroy(&pair->probe);
}

static void key_make(unsigned char key[64])
{
	for (unsigned i = 0; i < 64; i++)
		key[i] = (unsigned char)i;
}

/* ---- Options and key files. ---- */

static const char hex_key[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
			      "202122232425262728292A2B2C2D2E2F303132333435363738393A3B3C3D3E3F";

static const struct {
	const char *begin;
	size_t length; /* with zeros behind the beginning */
	const char *error;
} key_cases[] = {
	{hex_key, 128, ""},
	{hex_key, 64, ""},
	{"", 0, "'key' is empty"},
	{hex_key, 63, "'key' has 63 bytes: a key is 64 bytes, or 128 hexadecimal digits"},
	{hex_key, 65, "'key' has 65 bytes: a key is 64 bytes, or 128 hexadecimal digits"},
	{hex_key, 127, "'key' has 127 bytes: a key is 64 bytes, or 128 hexadecimal digits"},
	{hex_key, 129,
	 "'key' has 129 bytes: a key is 64 bytes, or 128 hexadecimal digits"}, /* ends with NUL */
	{"0x", 128, "'key' is as long as a key of hexadecimal digits, but has other characters"},
	{"", 64, "the halves of the key are equal, which XTS forbids"},
	{"", 65536, "'key' has 65536 bytes: a key is 64 bytes, or 128 hexadecimal digits"},
	{"", 65537, "'key' is longer than 65536 bytes"},
};

static void check_key_file(const char *content, size_t length, const char *error)
{
	struct err err = {.text = ""};
	struct pair pair;

	scratch_write("key", content, length);
	CHECK_EQ(pair_open(&pair, 512, (options_t){{NULL}}, &err), error[0] == '\0');
	CHECK_TEXT(err.text, error);
	pair_close(&pair);
}

static void test_key_files_task(void *argument)
{
	static char content[65537];

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(key_cases); i++) {
		check_context("key file %zu", i);
		memset(content, 0, sizeof(content));
		memcpy(content, key_cases[i].begin, strlen(key_cases[i].begin));
		check_key_file(content, key_cases[i].length, key_cases[i].error);
	}
	snprintf(content, sizeof(content), "%s\n", hex_key);
	check_key_file(content, 129, "");
	snprintf(content, sizeof(content), "%s\r\n", hex_key);
	check_key_file(content, 130, "");
	snprintf(content, sizeof(content), "%s\n\n", hex_key);
	check_key_file(content, 130,
		       "'key' has 130 bytes: a key is 64 bytes, or 128 hexadecimal digits");
}

static const struct {
	options_t options;
	const char *key, *error;
} option_cases[] = {
	{{{"key_file", "nowhere"}}, "key_file", "cannot open 'nowhere': No such file or directory"},
	{{{"key_file", "/"}}, "key_file", "'/' is no regular file"},
	{{{"key_file", "/dev/zero"}}, "key_file", "'/dev/zero' is no regular file"},
	{{{"passphrase_file", "key"}},
	 "passphrase_file",
	 "there are no passphrases with format = raw: did you mean format = luks?"},
	{{{"format", "luks"}, {"passphrase_file", "key"}},
	 "passphrase_file",
	 "format = luks needs a passphrase_file or a key_file, and not both"},
	{{{"format", "luks"}, {"iv", "plain64-512"}},
	 "iv",
	 "with format = luks, the header on the disk says so"},
	{{{"format", "luks"}, {"sector_size", "512"}},
	 "sector_size",
	 "with format = luks, the header on the disk says so"},
};

static void test_options_task(void *argument)
{
	unsigned char key[64];
	struct pair pair;

	(void)argument;
	key_make(key);
	scratch_write("key", key, sizeof(key));
	for (size_t i = 0; i < ARRAY_SIZE(option_cases); i++) {
		struct err err = {.text = ""};

		check_context("options %zu", i);
		CHECK(!pair_open(&pair, 512, option_cases[i].options, &err));
		CHECK_TEXT(err.key, option_cases[i].key);
		CHECK_TEXT(err.text, option_cases[i].error);
		pair_close(&pair);
	}
}

static void test_no_key_task(void *argument)
{
	struct err err = {.text = ""};
	struct probe probe;
	struct disk *below;

	(void)argument;
	probe_init(&probe, 512, 1);
	below = probe_open(&probe, 0, NULL, &err);
	CHECK(!driver_open(driver_find("crypt"), NULL, 0, 0, below, &err));
	CHECK_TEXT(err.text, "format = raw needs a key");
	disk_close(below);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_no_key)

/* ---- What lies where. ---- */

static const struct {
	uint32_t below, sector; /* sizes: of the disk below, of ours */
	options_t options;
	uint32_t unit;
	uint64_t step;
} layouts[] = {
	{512, 512, {{NULL}}, 512, 1},
	{512, 512, {{"iv", "plain64-512"}}, 512, 1},
	{4096, 4096, {{NULL}}, 4096, 1},
	{4096, 4096, {{"iv", "plain64-512"}}, 4096, 8},
	{4096, 4096, {{"sector_size", "512"}}, 512, 1},
	{4096, 4096, {{"sector_size", "1K"}, {"iv", "plain64-512"}}, 1024, 2},
	{512, 4096, {{"sector_size", "4K"}}, 4096, 1},
	{512, 4096, {{"sector_size", "4K"}, {"iv", "plain64-512"}}, 4096, 8},
	{512, 2048, {{"sector_size", "2K"}, {"discard", "pass"}}, 2048, 1},
	{4096, 4096, {{"sector_size", "512"}, {"discard", "pass"}}, 512, 1},
	{16384, 16384, {{NULL}}, 4096, 1},
	{65536, 65536, {{"iv", "plain64-512"}}, 4096, 8},
};

/* A list of segments that lie apart, of lengths up to @longest. */
static struct sg scatter(char *memory, struct iovec *iov, size_t length, size_t longest)
{
	struct random random = {.state = longest};
	unsigned count = 0;

	for (size_t left = length; left > 0;) {
		size_t part = 1 + random_below(&random, longest);

		if (longest % 512 == 0)
			part = align_up(part, 512);
		part = min_u64(left, part);
		iov[count++] = (struct iovec){memory, part};
		memory += part + 3;
		left -= part;
	}
	return (struct sg){.iov = iov, .len = length};
}

/* Memory for one transfer. */
struct transfer {
	char plain[BELOW_SIZE], below[BELOW_SIZE];
	char memory[4 * BELOW_SIZE], before[4 * BELOW_SIZE];
	struct iovec iov[BELOW_SIZE];
};

/*
 * Writes and reads the sectors from @first to the last but one, in segments. What is below is what
 * the cipher gives and nothing else, and what is written stays as it was.
 */
static void check_transfer(struct pair *pair, struct xts *xts, uint32_t unit, uint64_t first,
			   size_t longest)
{
	struct transfer *transfer = calloc(1, sizeof(*transfer));
	uint32_t sector = disk_sector_size(pair->disk);
	size_t from = first * sector, length = BELOW_SIZE - from - sector;
	struct sg sg = scatter(transfer->memory, transfer->iov, length, longest);

	pattern_fill(transfer->plain, length, longest);
	sg_copy_from(&sg, transfer->plain);
	memcpy(transfer->before, transfer->memory, sizeof(transfer->memory));
	memset(pair->probe.data, 0x77, BELOW_SIZE);
	memset(transfer->below, 0x77, BELOW_SIZE);
	CHECK_OK(xts_transform(xts, XTS_ENCRYPT, transfer->plain, transfer->below + from, length,
			       from / unit));

	CHECK_OK(disk_write(pair->disk, &sg, first, DISK_FUA));
	CHECK(memcmp(transfer->memory, transfer->before, sizeof(transfer->memory)) == 0);
	CHECK(memcmp(pair->probe.data, transfer->below, BELOW_SIZE) == 0);

	sg_zero(&sg);
	CHECK_OK(disk_read(pair->disk, &sg, first));
	CHECK(memcmp(transfer->memory, transfer->before, sizeof(transfer->memory)) == 0);
	CHECK(memcmp(pair->probe.data, transfer->below, BELOW_SIZE) == 0);
	free(transfer);
}

static void check_layout(size_t i)
{
	static const size_t longest[] = {1, 512, 700, 4096, 5000, 65536, BELOW_SIZE};
	unsigned char key[64];
	struct xts_settings settings = {.key = key,
					.key_size = 64,
					.unit_size = layouts[i].unit,
					.tweak_step = layouts[i].step};
	struct err err = {.text = ""};
	struct xts *xts;
	struct pair pair;

	check_context("layout %zu", i);
	key_make(key);
	xts = xts_open(&settings, "test", &err);
	if (pair_open(&pair, layouts[i].below, layouts[i].options, &err)) {
		CHECK_EQ(disk_sector_size(pair.disk), layouts[i].sector);
		CHECK_EQ(disk_size(pair.disk), BELOW_SIZE);
		for (size_t j = 0; j < ARRAY_SIZE(longest); j++)
			check_transfer(&pair, xts, layouts[i].unit, j % 2, longest[j]);
	}
	CHECK_TEXT(err.text, "");
	pair_close(&pair);
	xts_close(xts);
}

static void test_layouts_task(void *argument)
{
	unsigned char key[64];

	(void)argument;
	key_make(key);
	scratch_write("key", key, sizeof(key));
	for (size_t i = 0; i < ARRAY_SIZE(layouts); i++)
		check_layout(i);
}

/* ---- Errors from below. ---- */

static void test_errors_task(void *argument)
{
	struct err err = {.text = ""};
	char data[4096] = {0};
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));
	struct pair pair;

	(void)argument;
	scratch_write("key", hex_key, 128);
	if (CHECK(pair_open(&pair, 512, (options_t){{NULL}}, &err))) {
		for (unsigned op = 0; op < PROBE_OPS; op++) {
			pair.probe.fail[op].error = error_medium(EIO, MEDIUM_GUARD_CHECK);
			pair.probe.fail[op].end = UINT64_MAX;
		}
		CHECK_EQ(disk_read(pair.disk, &sg, 3), error_medium(EIO, MEDIUM_GUARD_CHECK));
		CHECK_EQ(disk_write(pair.disk, &sg, 3, 0), error_medium(EIO, MEDIUM_GUARD_CHECK));
		CHECK_EQ(disk_flush(pair.disk), error_medium(EIO, MEDIUM_GUARD_CHECK));
		CHECK_EQ(disk_write_zeroes(pair.disk, 0, 8, DISK_MAY_UNMAP),
			 error_medium(EIO, MEDIUM_GUARD_CHECK));
		CHECK_EQ(pair.probe.counts[PROBE_UNMAP] + pair.probe.counts[PROBE_WRITE_ZEROES], 0);
	}
	pair_close(&pair);
}

/* ---- Holes. ---- */

/* A crypt with sectors of 4096 bytes over smaller ones. */
static void test_holes_task(void *argument)
{
	struct err err = {.text = ""};
	struct extent extent;
	struct pair pair;
	char data[4096];

	(void)argument;
	scratch_write("key", hex_key, 128);
	if (!CHECK(pair_open(&pair, 512, (options_t){{"sector_size", "4K"}, {"discard", "pass"}},
			     &err)))
		return;
	CHECK_EQ(pair.disk->geometry.unmap, UNMAP_ZEROES);
	/* What was never written. */
	CHECK_OK(disk_read_bytes(pair.disk, data, sizeof(data), 8192));
	CHECK_EQ(bytes_differ(data, sizeof(data), 0), sizeof(data));
	/* One unit of zeros among others. */
	for (unsigned i = 0; i < 3; i++)
		CHECK_OK(disk_write_bytes(pair.disk, "xyz", 3, 4096 * i, 0));
	CHECK_OK(disk_unmap(pair.disk, 1, 1));
	CHECK_EQ(pair.probe.counts[PROBE_UNMAP], 1);
	CHECK_EQ(bytes_differ(pair.probe.data + 4096, 4096, 0), 4096);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_OK(disk_read_bytes(pair.disk, data, sizeof(data), 4096 * i));
		CHECK(memcmp(data, i == 1 ? "\0\0\0" : "xyz", 3) == 0);
		CHECK_EQ(bytes_differ(data + 3, sizeof(data) - 3, 0), sizeof(data) - 3);
	}
	/* Zeros that are written are encrypted. */
	CHECK_OK(disk_write_zeroes(pair.disk, 1, 1, 0));
	CHECK(bytes_differ(pair.probe.data + 4096, 4096, 0) < 16);
	CHECK_OK(disk_extent(pair.disk, 0, 4, &extent));
	CHECK(extent.kind == EXTENT_DATA);
	pair_close(&pair);
}

static void test_no_discards_task(void *argument)
{
	struct err err = {.text = ""};
	struct extent extent;
	struct pair pair;
	char data[4096];

	(void)argument;
	scratch_write("key", hex_key, 128);
	if (!CHECK(pair_open(&pair, 512, (options_t){{NULL}}, &err)))
		return;
	CHECK_EQ(pair.disk->geometry.unmap, UNMAP_IGNORED);
	CHECK_OK(disk_write_bytes(pair.disk, "xyz", 3, 0, 0));
	CHECK_OK(disk_unmap(pair.disk, 0, 100));
	CHECK_OK(disk_read_bytes(pair.disk, data, sizeof(data), 0));
	CHECK(memcmp(data, "xyz", 3) == 0);
	CHECK_OK(disk_zero_bytes(pair.disk, 0, 8192, DISK_MAY_UNMAP));
	CHECK_OK(disk_read_bytes(pair.disk, data, sizeof(data), 4096));
	CHECK_EQ(bytes_differ(data, sizeof(data), 0), sizeof(data));
	CHECK(bytes_differ(pair.probe.data, 8192, 0) < 16);
	CHECK_EQ(pair.probe.counts[PROBE_UNMAP] + pair.probe.counts[PROBE_WRITE_ZEROES], 0);
	CHECK_OK(disk_extent(pair.disk, 5, 300, &extent));
	CHECK(extent.kind == EXTENT_DATA && extent.count == 300);
	CHECK_EQ(pair.probe.counts[PROBE_EXTENT], 0);
	pair_close(&pair);
}

/* ---- Size, and what `.status` tells. ---- */

static void test_resize_task(void *argument)
{
	struct err err = {.text = ""};
	struct pair pair;

	(void)argument;
	scratch_write("key", hex_key, 128);
	if (!CHECK(pair_open(&pair, 512, (options_t){{"sector_size", "4K"}}, &err)))
		return;
	CHECK_EQ(disk_sector_count(pair.disk), BELOW_SIZE / 4096);
	disk_set_sector_count(pair.below, 87);
	CHECK_EQ(disk_sector_count(pair.disk), 10);
	disk_set_sector_count(pair.below, 0);
	CHECK_EQ(disk_sector_count(pair.disk), 0);
	disk_set_sector_count(pair.below, 88);
	CHECK_EQ(disk_sector_count(pair.disk), 11);
	pair_close(&pair);
}

static void test_small_task(void *argument)
{
	static const char *const options[][2] = {{"key_file", "key"}, {"sector_size", "4K"}};
	struct err err = {.text = ""};
	struct probe probe;
	struct disk *below;

	(void)argument;
	scratch_write("key", hex_key, 128);
	probe_init(&probe, 512, 7);
	below = probe_open(&probe, 0, NULL, &err);
	CHECK(!driver_open(driver_find("crypt"), options, 2, 0, below, &err));
	CHECK_TEXT(err.text, "'probe' has no room for a sector of 4096 bytes");
	disk_close(below);
	probe_destroy(&probe);
}

static void test_report_task(void *argument)
{
	struct report *report = report_new(REPORT_TEXT);
	struct err err = {.text = ""};
	struct pair pair;
	size_t length;
	char *text;

	(void)argument;
	scratch_write("key", hex_key, 128);
	if (!CHECK(pair_open(&pair, 4096, (options_t){{"iv", "plain64-512"}}, &err)))
		return;
	disk_inspect(pair.disk, report);
	text = report_finish(report, &length);
	CHECK(strstr(text, "format: raw\n"));
	CHECK(strstr(text, "cipher: aes-xts, 512 bits\n"));
	CHECK(strstr(text, "data_unit: 4096\n"));
	CHECK(strstr(text, "iv: plain64-512\n"));
	CHECK(!strstr(text, "000102"));
	free(text);
	pair_close(&pair);
}

#define IN_SCRATCH(name)                       \
	static void name(void **state)         \
	{                                      \
		scratch_enter();               \
		run_task(name##_task, *state); \
		scratch_leave();               \
	}

IN_SCRATCH(test_key_files)
IN_SCRATCH(test_options)
IN_SCRATCH(test_layouts)
IN_SCRATCH(test_errors)
IN_SCRATCH(test_holes)
IN_SCRATCH(test_no_discards)
IN_SCRATCH(test_resize)
IN_SCRATCH(test_small)
IN_SCRATCH(test_report)

static int setup(void **state)
{
	log_set_level(LOG_LEVEL_ERROR); /* key files of tests can be read by others */
	return setup_2_workers(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_key_files),   cmocka_unit_test(test_options),
		cmocka_unit_test(test_no_key),	    cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_errors),	    cmocka_unit_test(test_holes),
		cmocka_unit_test(test_no_discards), cmocka_unit_test(test_resize),
		cmocka_unit_test(test_small),	    cmocka_unit_test(test_report),
	};

	return cmocka_run_group_tests(tests, setup, teardown_workers);
}
