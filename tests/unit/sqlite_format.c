// SPDX-License-Identifier: MIT
/*
 * The file of a layer: what options and files are refused, with which sentence; what damage comes
 * to; what it is not used over.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/sqlite/sqlite.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/sqlite.h"

#define PATH	"layer.diskfs"
#define SECTORS 4096

/* A file of 2 MiB, of its own, with nothing below. */
static struct sqlite_layer plain = {.options = {{"path", PATH}, {"size", "2M"}}};
/* The same as it is when it is there. */
static struct sqlite_layer there = {.options = {{"path", PATH}}};

static void make_file(void)
{
	struct sqlite_layer layer = plain;

	sqlite_remove(PATH);
	if (sqlite_begin(&layer))
		sqlite_end(&layer);
}

/* ---- Options. ---- */

static const struct {
	struct sqlite_layer layer;
	const char *key, *text;
} bad_options[] = {
	{{.options = {{"size", "1M"}}}, "path", "required, or cache_dir for a cache"},
	{{.options = {{"path", PATH}, {"cache_dir", "."}}}, "cache_dir", "path says already"},
	{{.options = {{"path", PATH}, {"key", "a"}}}, "key", "is for a file in cache_dir"},
	{{.options = {{"cache_dir", "."}, {"size", "1M"}}},
	 "size",
	 "is as large as the disk below"},
	{{.options = {{"cache_dir", "."}, {"key", "a"}}, .alone = true},
	 "cache_dir",
	 "is for layers of a layered disk"},
	{{.options = {{"cache_dir", "."}, {"key", "a"}}},
	 "cache_dir",
	 "there is no disk below to keep a cache of"},
	{{.options = {{"cache_dir", "."}, {"key", ".a"}}}, "key", "is no name of a file"},
	{{.options = {{"cache_dir", "."}, {"key", "a/b"}}}, "key", "is no name of a file"},
	{{.options = {{"cache_dir", "."}, {"key", "../b"}}}, "key", "is no name of a file"},
	{{.options = {{"path", PATH}, {"size", "1M"}, {"base_check", "size, colour"}}},
	 "base_check",
	 "'colour' is nothing to check"},
	{{.options = {{"path", PATH}, {"size", "1M"}, {"base_check", "none, size"}}},
	 "base_check",
	 "none stands alone"},
	{{.options = {{"path", PATH}, {"base_check", "content"}}, .role = LAYER_WRITE_THROUGH},
	 "base_check",
	 "is not always the same"},
	/* What there is not. */
	{{.options = {{"path", PATH}}}, "path", "does not exist (size = would create it)"},
	{{.options = {{"path", PATH}}, .alone = true}, "path", "does not exist"},
	{{.options = {{"path", PATH}, {"size", "1M"}}, .flags = DISK_OPEN_READ_ONLY},
	 "path",
	 "does not exist, and is not created for a disk that is read-only"},
	{{.options = {{"path", PATH}, {"size", "1000"}}}, "size", "1000 is no multiple"},
	{{.options = {{"path", PATH}, {"size", "512"}, {"sector_size", "4K"}}},
	 "size",
	 "512 is no multiple"},
	{{.options = {{"path", "nowhere/" PATH}, {"size", "1M"}}},
	 "path",
	 "cannot create 'nowhere/" PATH "': No such file or directory"},
};

static void test_options_task(void *argument)
{
	(void)argument;
	sqlite_remove(PATH);
	for (unsigned i = 0; i < ARRAY_SIZE(bad_options); i++) {
		struct sqlite_layer layer = bad_options[i].layer;

		check_context("options %u", i);
		sqlite_refused(&layer, bad_options[i].key, bad_options[i].text);
		CHECK(access(PATH, F_OK) < 0);
	}
}
RUN_IN_TASK(test_options)

/* ---- Files. ---- */

static void refused_file(const char *text)
{
	struct sqlite_layer layers[] = {there, there, there};

	layers[1].flags = DISK_OPEN_READ_ONLY;
	layers[2].flags = DISK_OPEN_CHECK;
	for (unsigned i = 0; i < ARRAY_SIZE(layers); i++)
		sqlite_refused(&layers[i], "path", text);
}

static void test_no_layer_task(void *argument)
{
	static char zeros[8192];

	(void)argument;
	sqlite_remove(PATH);
	scratch_write(PATH, "", 0);
	refused_file("'" PATH "' is empty: remove it, to have it created");
	scratch_write(PATH, "SQLite format 3", 16);
	refused_file("'" PATH "' is no SQLite database");
	scratch_write(PATH, zeros, sizeof(zeros));
	refused_file("'" PATH "' is no SQLite database");
	sqlite_remove(PATH);
	CHECK_EQ(mkdir(PATH, 0700), 0);
	sqlite_refused(&(struct sqlite_layer){.options = {{"path", PATH}}}, "path",
		       "cannot open '" PATH "': Is a directory");
	sqlite_refused(&(struct sqlite_layer){.options = {{"path", PATH}},
					      .flags = DISK_OPEN_READ_ONLY},
		       "path", "'" PATH "' is no regular file");
	CHECK_EQ(rmdir(PATH), 0);
	CHECK_EQ(mkfifo(PATH, 0600), 0);
	refused_file("'" PATH "' is no regular file");
	sqlite_remove(PATH);
	CHECK_EQ(symlink("nowhere", PATH), 0);
	sqlite_refused(&(struct sqlite_layer){.options = {{"path", PATH}, {"size", "1M"}}}, "path",
		       "cannot create '" PATH "': File exists");
	make_file();
	sqlite_sql(PATH, "PRAGMA application_id = 7");
	refused_file("'" PATH "' is a SQLite database, but no layer of diskfs");
	make_file();
	sqlite_sql(PATH, "PRAGMA user_version = 2");
	refused_file("'" PATH "' has version 2 of the format; this diskfs knows version 1");
	make_file();
	sqlite_sql(PATH, "PRAGMA user_version = 0");
	refused_file("'" PATH "' has version 0 of the format");
}
RUN_IN_TASK(test_no_layer)

/* What is done to a good file, and what is said of it then. */
static const struct {
	const char *sql, *text;
} damages[] = {
	{"CREATE TABLE more(a)", "its tables are not those of a layer"},
	{"DROP TABLE runs", "its tables are not those of a layer"},
	{"DROP TABLE meta", "its tables are not those of a layer"},
	{"DROP TABLE runs; CREATE TABLE runs(first, count, data)", "not those of a layer"},
	{"DROP TABLE runs; CREATE VIEW runs AS SELECT 1 AS first, 1 AS count, x'00' AS data",
	 "not those of a layer"},
	{"CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END",
	 "not those of a layer"},
	{"DELETE FROM meta", "the row in its table meta makes no sense"},
	{"UPDATE meta SET id = 1", "the row in its table meta makes no sense"},
	{"UPDATE meta SET sector_size = 0", "the sector size in its table meta"},
	{"UPDATE meta SET sector_size = 1000", "the sector size in its table meta"},
	{"UPDATE meta SET sector_size = 256", "the sector size in its table meta"},
	{"UPDATE meta SET sector_size = 131072", "the sector size in its table meta"},
	{"UPDATE meta SET sector_size = -512", "the sector size in its table meta"},
	{"UPDATE meta SET sector_size = 'large'", "the sector size in its table meta"},
	{"UPDATE meta SET sector_count = 0", "the sector count in its table meta"},
	{"UPDATE meta SET sector_count = -1", "the sector count in its table meta"},
	{"UPDATE meta SET sector_count = 1 << 60", "the sector count in its table meta"},
	{"UPDATE meta SET own = 2", "the state in its table meta"},
	{"UPDATE meta SET own = 1, dirty = 1", "the state in its table meta"},
	{"UPDATE meta SET dirty = -1", "the state in its table meta"},
	{"UPDATE meta SET base_size = -5", "the size of the disk below in its table meta"},
	{"UPDATE meta SET base_id = x'00'", "the id of the disk below in its table meta"},
	{"UPDATE meta SET base_id = ''", "the id of the disk below in its table meta"},
	{"UPDATE meta SET base_content = x'0011'", "the fingerprint of the disk below"},
	{"UPDATE meta SET runs = -1", "the count of what it holds in its table meta"},
	{"UPDATE meta SET data_sectors = 4097", "the count of what it holds in its table meta"},
};

static void test_damaged_meta_task(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
		check_context("%s", damages[i].sql);
		make_file();
		sqlite_sql(PATH, damages[i].sql);
		refused_file(damages[i].text);
	}
}
RUN_IN_TASK(test_damaged_meta)

/* Bytes that are wrong anywhere: whatever it comes to, it is no crash, and no wrong data. */
static void test_damaged_bytes_task(void *argument)
{
	struct sqlite_model model;
	struct random random = {.state = 1};

	(void)argument;
	model_init(&model, 512, 0, 200);
	for (unsigned round = 0; round < 300; round++) {
		struct sqlite_layer layer = plain;
		struct err err;
		char byte;
		int fd;
		off_t at;

		check_context("round %u", round);
		sqlite_remove(PATH);
		if (!sqlite_begin(&layer))
			return;
		for (unsigned i = 0; i < 12; i++)
			model_change(&model, layer.disk, MODEL_WRITE, i * 15, 9, 7);
		sqlite_end(&layer);
		fd = open(PATH, O_RDWR | O_CLOEXEC);
		at = (off_t)random_below(&random, round % 2 ? 200 : 12288);
		CHECK_EQ(pread(fd, &byte, 1, at), 1);
		byte = (char)(byte ^ (1 << random_below(&random, 8)));
		CHECK_EQ(pwrite(fd, &byte, 1, at), 1);
		close(fd);
		if (!sqlite_try(&layer, &err)) {
			CHECK(err.text[0]);
			continue;
		}
		for (uint64_t i = 0; i < model.count; i++) {
			char data[512];
			struct iovec iov;
			struct sg sg = sg_of(&iov, data, sizeof(data));
			struct layer_gaps gaps;

			if (layer_read(layer.disk, &sg, i, &gaps) == 0)
				continue;
		}
		disk_flush(layer.disk);
		sqlite_end(&layer);
	}
	model_free(&model);
}
RUN_IN_TASK(test_damaged_bytes)

/* Rows that cannot be, and what reads of sector 100 come to; 0: they are right. */
static const char *const bad_rows[] = {
	"INSERT INTO runs VALUES(100, 0, NULL)",
	"INSERT INTO runs VALUES(100, -3, NULL)",
	"INSERT INTO runs VALUES(100, 1 << 62, NULL)",
	"INSERT INTO runs VALUES(100, 4096, NULL)",
	"INSERT INTO runs VALUES(-5, 200, NULL)",
	"INSERT INTO runs VALUES(100, 1, x'00')",
	"INSERT INTO runs VALUES(100, 1, zeroblob(1024))",
	"INSERT INTO runs VALUES(100, 2, zeroblob(512))",
	"INSERT INTO runs VALUES(96, 33, zeroblob(33 * 512))",
	"INSERT INTO runs VALUES(100, 1, '0123')",
	"INSERT INTO runs VALUES(100, 1, 5)",
	"INSERT INTO runs VALUES(100, 1, printf('%.512c', 'x'))",
	"INSERT INTO runs VALUES(100, 'x', NULL)",
	"INSERT INTO runs VALUES(99, 3, NULL); INSERT INTO runs VALUES(100, 1, zeroblob(512))",
};

static void test_bad_rows_task(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < ARRAY_SIZE(bad_rows); i++) {
		struct sqlite_layer layer = there;
		char data[16 * 512] = "x";
		struct iovec iov;
		struct sg sg = sg_of(&iov, data, sizeof(data));
		struct layer_gaps gaps;

		check_context("%s", bad_rows[i]);
		make_file();
		sqlite_sql(PATH, bad_rows[i]);
		if (!sqlite_begin(&layer))
			continue;
		CHECK_KIND(layer_read(layer.disk, &sg, 96, &gaps), ERROR_MEDIUM);
		CHECK_KIND(disk_read(layer.disk, &sg, 96), ERROR_MEDIUM);
		/* In front of it all is well. */
		if (!strstr(bad_rows[i], "-5")) {
			CHECK_OK(layer_read(layer.disk, &sg, 0, &gaps));
			CHECK_OK(disk_write(layer.disk, &sg, 0, 0));
			CHECK_OK(disk_flush(layer.disk));
		}
		sqlite_end(&layer);
	}
}
RUN_IN_TASK(test_bad_rows)

static void test_sizes_task(void *argument)
{
	struct sqlite_base base;

	(void)argument;
	make_file();
	sqlite_refused(&(struct sqlite_layer){.options = {{"path", PATH}, {"size", "4M"}}}, "size",
		       "'" PATH
		       "' has 2097152 bytes, not 4194304: an existing layer is not resized");
	sqlite_refused(&(struct sqlite_layer){.options = {{"path", PATH}, {"sector_size", "4K"}}},
		       "sector_size", "'" PATH "' has sectors of 512 bytes, not 4096");
	sqlite_remove(PATH);
	sqlite_base_open(&base, SECTORS, NULL);
	sqlite_refused(&(struct sqlite_layer){.options = {{"path", PATH}, {"sector_size", "4K"}},
					      .below = base.disk},
		       "sector_size",
		       "the sectors of '" PATH "' have 4096 bytes, those of 'probe'");
	CHECK(access(PATH, F_OK) < 0);
	sqlite_base_close(&base);
}
RUN_IN_TASK(test_sizes)

/* ---- Over what it was made. ---- */

static struct sqlite_layer over(const struct sqlite_base *base, const char *checks)
{
	return (struct sqlite_layer){.options = {{"path", PATH}, {"base_check", checks}},
				     .below = base ? base->disk : NULL};
}

static void fits(const struct sqlite_base *base, const char *checks)
{
	struct sqlite_layer layer = over(base, checks);

	if (sqlite_begin(&layer))
		sqlite_end(&layer);
}

static void does_not_fit(const struct sqlite_base *base, const char *checks, const char *text)
{
	struct sqlite_layer layers[] = {over(base, checks), over(base, checks), over(base, checks)};

	layers[1].flags = DISK_OPEN_READ_ONLY;
	layers[2].flags = DISK_OPEN_CHECK;
	for (unsigned i = 0; i < ARRAY_SIZE(layers); i++)
		sqlite_refused(&layers[i], "base_check", text);
}

static void test_base_task(void *argument)
{
	struct sqlite_base a, b, larger, without;

	(void)argument;
	sqlite_base_open(&a, SECTORS, "a");
	sqlite_base_open(&b, SECTORS, "b");
	sqlite_base_open(&larger, SECTORS + 8, "a");
	sqlite_base_open(&without, SECTORS, NULL);
	sqlite_remove(PATH);
	fits(&a, "size, id");
	fits(&a, "size, id");
	fits(&b, "size");
	fits(&b, "none");
	fits(&larger, "id");
	fits(NULL, "none");
	does_not_fit(&b, "size, id",
		     "was made over the disk with the id 61616161616161616161616161616161, and "
		     "'probe' has the id 62626262626262626262626262626262; it is no layer of this");
	does_not_fit(&without, "id", "and 'probe' has no id; it is no layer of this disk");
	does_not_fit(&larger, "size, id",
		     "'" PATH "' was made over a disk of 2097152 bytes, and 'probe' has 2101248");
	does_not_fit(NULL, "size",
		     "was made over a disk of 2097152 bytes, and now stands on nothing");
	does_not_fit(&a, "content", "was made without base_check = content");
	sqlite_remove(PATH);
	fits(&without, "size, id");
	fits(&a, "size, id"); /* whether it had an id then cannot be told */
	make_file();
	does_not_fit(&a, "size", "was made with nothing below it, and now stands on 'probe'");
	sqlite_base_close(&a);
	sqlite_base_close(&b);
	sqlite_base_close(&larger);
	sqlite_base_close(&without);
}
RUN_IN_TASK(test_base)

/* Samples see a change of the first and the last block, and reading them costs a bounded time. */
static void test_content_task(void *argument)
{
	static const uint64_t sizes[] = {1, 127, 128, 8192, 8193, 1 << 17};
	struct sqlite_base base;

	(void)argument;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t places[] = {0, sizes[i] * 512 - 1, 70000};

		check_context("a disk of %llu sectors", (unsigned long long)sizes[i]);
		sqlite_base_open(&base, sizes[i], NULL);
		pattern_fill(base.probe.data, sizes[i] * 512, 3);
		sqlite_remove(PATH);
		fits(&base, "content");
		probe_forget(&base.probe);
		fits(&base, "content");
		CHECK(base.probe.counts[PROBE_READ] <= 64);
		for (unsigned j = 0; j < ARRAY_SIZE(places) - (sizes[i] > 8192 || sizes[i] < 200);
		     j++) {
			base.probe.data[places[j]] ^= 1;
			does_not_fit(&base, "size, content",
				     "'" PATH "' was made over another content than 'probe' has");
			fits(&base, "size");
			base.probe.data[places[j]] ^= 1;
		}
		base.probe.fail[PROBE_READ].error = error_io(EIO);
		base.probe.fail[PROBE_READ].end = UINT64_MAX;
		does_not_fit(&base, "content", "cannot read 'probe' at byte 0");
		sqlite_base_close(&base);
	}
}
RUN_IN_TASK(test_content)

/* A layer that is not the lowest knows its content only with the others. */
static void test_content_of_layer_task(void *argument)
{
	struct sqlite_layer below = {.options = {{"path", "below.diskfs"}, {"size", "2M"}}};
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"base_check", "content"}}};

	(void)argument;
	sqlite_remove(PATH);
	unlink("below.diskfs");
	if (!sqlite_begin(&below))
		return;
	layer.below = below.disk;
	sqlite_refused(&layer, "base_check", "'sqlite' is a layer itself, whose content cannot");
	CHECK(access(PATH, F_OK) < 0);
	sqlite_end(&below);
	unlink("below.diskfs");
}
RUN_IN_TASK(test_content_of_layer)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_no_layer),
		cmocka_unit_test(test_damaged_meta),
		cmocka_unit_test(test_damaged_bytes),
		cmocka_unit_test(test_bad_rows),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_base),
		cmocka_unit_test(test_content),
		cmocka_unit_test(test_content_of_layer),
	};

	return cmocka_run_group_tests(tests, scratch_enter_4_workers, scratch_leave_workers);
}
