// SPDX-License-Identifier: MIT
/*
 * The file of a layer: who may use it at the same time, what looking at it leaves behind, how it
 * comes into being.
 */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/sqlite/sqlite.h"
#include "core/task.h"
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

/* ---- Who may use it. ---- */

/* Runs @function in another process; its result is the exit status. */
static int elsewhere(int (*function)(void))
{
	int status = 0;
	pid_t child = fork();

	if (child == 0)
		_exit(function());
	CHECK_EQ(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int try_flock(void)
{
	int fd = open(PATH, O_RDWR);

	return flock(fd, LOCK_SH | LOCK_NB) < 0;
}

/* SQLite's own lock: the bytes are those of its file format. */
static int try_sqlite_lock(void)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0x40000002, .l_len = 510};
	int fd = open(PATH, O_RDWR);

	return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static void test_one_writer_task(void *argument)
{
	struct sqlite_layer layer = plain, second = there, reader = there;
	struct sqlite_model model;

	(void)argument;
	reader.flags = DISK_OPEN_READ_ONLY;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	model_init(&model, 512, 0, 50);
	model_change(&model, layer.disk, MODEL_WRITE, 0, 50, 1);
	CHECK_OK(disk_flush(layer.disk));
	CHECK_EQ(elsewhere(try_flock), 1);
	CHECK_EQ(elsewhere(try_sqlite_lock), 1);
	sqlite_refused(&second, "path", "'" PATH "' is in use by another disk or another diskfs");
	sqlite_refused(&reader, "path", "'" PATH "' is in use by another disk or another diskfs");
	/* Whoever tried has not taken the locks with him. */
	CHECK_EQ(elsewhere(try_flock), 1);
	CHECK_EQ(elsewhere(try_sqlite_lock), 1);
	model_check(&model, layer.disk);
	sqlite_end(&layer);
	CHECK_EQ(elsewhere(try_flock), 0);
	model_free(&model);
}
RUN_IN_TASK(test_one_writer)

static int hold_elsewhere(int *to_child)
{
	int ready[2], quit[2];
	char byte;
	pid_t child;

	CHECK_EQ(pipe(ready), 0);
	CHECK_EQ(pipe(quit), 0);
	child = fork();
	if (child == 0) {
		int fd = open(PATH, O_RDWR);

		close(quit[1]);
		if (flock(fd, LOCK_EX | LOCK_NB) == 0 && write(ready[1], "", 1) == 1)
			(void)!read(quit[0], &byte, 1);
		_exit(0);
	}
	close(ready[1]);
	close(quit[0]);
	CHECK_EQ(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	*to_child = quit[1];
	return child;
}

/* What another diskfs has. */
static void test_in_use_elsewhere_task(void *argument)
{
	struct sqlite_layer layer = there, reader = there, looks = there;
	int to_child;
	pid_t child;

	(void)argument;
	reader.flags = DISK_OPEN_READ_ONLY;
	looks.flags = DISK_OPEN_CHECK;
	make_file();
	child = hold_elsewhere(&to_child);
	sqlite_refused(&layer, "path", "is in use by another disk or another diskfs");
	sqlite_refused(&reader, "path", "is in use by another disk or another diskfs");
	if (sqlite_begin(&looks))
		sqlite_end(&looks);
	close(to_child);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	if (sqlite_begin(&layer))
		sqlite_end(&layer);
}
RUN_IN_TASK(test_in_use_elsewhere)

static void test_readers_share_task(void *argument)
{
	struct sqlite_layer layer = plain, readers[2] = {there, there}, writer = there;
	struct sqlite_model model;
	struct err err;

	(void)argument;
	sqlite_remove(PATH);
	if (!sqlite_begin(&layer))
		return;
	model_init(&model, 512, 0, 50);
	model_change(&model, layer.disk, MODEL_WRITE, 10, 30, 1);
	sqlite_end(&layer);
	for (unsigned i = 0; i < 2; i++) {
		readers[i].flags = DISK_OPEN_READ_ONLY;
		sqlite_begin(&readers[i]);
	}
	sqlite_refused(&writer, "path", "is in use");
	for (unsigned i = 0; i < 2; i++) {
		struct iovec iov;
		char data[512];
		struct sg sg = sg_of(&iov, data, sizeof(data));

		model_check(&model, readers[i].disk);
		CHECK_KIND(disk_write(readers[i].disk, &sg, 0, 0), ERROR_READ_ONLY);
		CHECK_KIND(layer_populate(readers[i].disk, &sg, 0), ERROR_READ_ONLY);
		CHECK_KIND(layer_drop(readers[i].disk, 0, 1), ERROR_READ_ONLY);
		CHECK_OK(disk_flush(readers[i].disk));
	}
	/* A layer below several disks is attached to each of them. */
	CHECK_EQ(layer_attach(readers[0].disk, NULL, 0, &err), 0);
	model_check(&model, readers[0].disk);
	for (unsigned i = 0; i < 2; i++)
		sqlite_end(&readers[i]);
	model_free(&model);
}
RUN_IN_TASK(test_readers_share)

/* ---- Looking leaves nothing behind. ---- */

/* The names and contents of all that is here; but of what is in use only the names: who closes it
 * loses SQLite's locks. */
static uint64_t folder_hash(void)
{
	DIR *folder = opendir(".");
	struct dirent *entry;
	uint64_t sum = 0;

	while ((entry = readdir(folder))) {
		uint64_t hash = hash_name(entry->d_name);
		bool in_use = strncmp(entry->d_name, PATH, strlen(PATH)) == 0;
		FILE *in = in_use ? NULL : fopen(entry->d_name, "r");
		int byte;

		while (in && (byte = fgetc(in)) != EOF)
			hash = (hash ^ (unsigned)byte) * 0x100000001b3;
		if (in)
			fclose(in);
		sum += hash;
	}
	closedir(folder);
	return sum;
}

static void copy(const char *from, const char *to)
{
	char command[100];

	snprintf(command, sizeof(command), "cp %s %s", from, to);
	CHECK_EQ(system(command), 0);
}

/* After a clean end, and after a crash that has left a log, which has the newest of it. */
static void look_at(const struct sqlite_model *model, const char *path)
{
	static const unsigned flags[] = {DISK_OPEN_READ_ONLY, DISK_OPEN_CHECK};

	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
		struct sqlite_layer layer = {.options = {{"path", path}}, .flags = flags[i]};
		uint64_t before = folder_hash();

		if (!sqlite_begin(&layer))
			continue;
		CHECK_EQ(disk_sector_count(layer.disk), SECTORS);
		if (flags[i] == DISK_OPEN_READ_ONLY)
			model_check(model, layer.disk);
		CHECK_EQ(folder_hash(), before);
		sqlite_end(&layer);
		CHECK_EQ(folder_hash(), before);
	}
}

static void test_look_task(void *argument)
{
	struct sqlite_layer layer = plain, looks = plain;
	struct sqlite_model model;
	uint64_t before;

	(void)argument;
	sqlite_remove(PATH);
	looks.flags = DISK_OPEN_CHECK;
	before = folder_hash();
	if (!sqlite_begin(&looks) || !sqlite_begin(&layer))
		return;
	CHECK_EQ(disk_size(looks.disk), 2 * MIB);
	sqlite_end(&looks);
	model_init(&model, 512, 0, 200);
	model_change(&model, layer.disk, MODEL_WRITE, 0, 100, 1);
	CHECK_OK(disk_flush(layer.disk));
	/* As it would be after a crash; the path has what a URI would stumble over. */
	copy(PATH, "'a?b#c%41.diskfs'");
	copy(PATH "-wal", "'a?b#c%41.diskfs-wal'");
	look_at(&model, "a?b#c%41.diskfs");
	/* While it is in use. */
	looks = (struct sqlite_layer){.options = {{"path", PATH}}, .flags = DISK_OPEN_CHECK};
	if (sqlite_begin(&looks))
		sqlite_end(&looks);
	CHECK_EQ(elsewhere(try_sqlite_lock), 1);
	model_change(&model, layer.disk, MODEL_ZERO, 50, 100, 1);
	sqlite_end(&layer);
	unlink("a?b#c%41.diskfs-wal");
	copy(PATH, "'a?b#c%41.diskfs'");
	look_at(&model, "a?b#c%41.diskfs");
	unlink("a?b#c%41.diskfs");
	sqlite_remove(PATH);
	CHECK_EQ(folder_hash(), before);
	model_free(&model);
}
RUN_IN_TASK(test_look)

/* A file that somebody has converted is a layer again. */
static void test_journal_task(void *argument)
{
	struct sqlite_layer layer = there;

	(void)argument;
	make_file();
	sqlite_sql(PATH, "PRAGMA journal_mode = DELETE");
	if (sqlite_begin(&layer))
		sqlite_end(&layer);
	CHECK_EQ(sqlite_sql(PATH, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
}
RUN_IN_TASK(test_journal)

/* ---- Coming into being. ---- */

#define RACERS 8

static atomic_uint opened, refused;

static void race_task(unsigned index, void *argument)
{
	struct sqlite_layer layer = plain;
	struct err err;

	(void)index;
	(void)argument;
	if (!sqlite_try(&layer, &err)) {
		CHECK(strstr(err.text, "is in use by another disk"));
		atomic_fetch_add(&refused, 1);
		return;
	}
	atomic_fetch_add(&opened, 1);
	while (atomic_load(&opened) + atomic_load(&refused) < RACERS)
		task_sleep_ns(NS_PER_S / 1000);
	sqlite_end(&layer);
}

static void check_alone_in_folder(void)
{
	DIR *folder = opendir(".");
	struct dirent *entry;

	while ((entry = readdir(folder)))
		if (entry->d_name[0] != '.')
			CHECK_TEXT(entry->d_name, PATH);
	closedir(folder);
}

static void test_create_race(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		sqlite_remove(PATH);
		atomic_store(&opened, 0);
		atomic_store(&refused, 0);
		run_tasks(RACERS, race_task, NULL);
		assert_int_equal(atomic_load(&opened), 1);
		check_alone_in_folder();
		check_finish();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_writer),    cmocka_unit_test(test_in_use_elsewhere),
		cmocka_unit_test(test_readers_share), cmocka_unit_test(test_look),
		cmocka_unit_test(test_journal),	      cmocka_unit_test(test_create_race),
	};

	return cmocka_run_group_tests(tests, scratch_enter_4_workers, scratch_leave_workers);
}
