// SPDX-License-Identifier: MIT
/*
 * Power cuts. What SQLite writes, cuts off and syncs, while a layer is changed, flushed, committed in
 * the background and copied from the log into the file, is recorded. Then the power is cut after each
 * of these events. What was synced is there; of the rest
 *
 *	all is there (so it is after a kill), or nothing,
 *	all but one is, or only one is,
 *	the last is torn.
 *
 * From each of these the layer is opened. Everything that a flush had acknowledged has to be there,
 * or what came after it; every sector has to be one that it has been, as a whole; and the database
 * has to be sound.
 *
 *	SEED=n	other changes
 *	LONG=1	more of them, and every one that was not synced is left out, not only a sample
 */
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/sqlite/sqlite.h"
#include "tests/lib/check.h"
#include "tests/lib/history.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/sqlite.h"
#include "tests/lib/vfs.h"

#define PATH	   "layer.diskfs"
#define CUT	   "cut.diskfs"
#define SECTOR	   512
#define NEAR	   80 /* sectors at the beginning, of several chunks */
#define FAR	   24 /* far behind */
#define SECTORS	   (NEAR + FAR)
#define FAR_SECTOR ((uint64_t)1 << 30)
#define SAMPLE	   3

static uint64_t seed = 1;
static bool is_long;

/* ---- What was done. ---- */

/* What a sector has been: zeros, absent, or data with this stamp. */
enum {
	ZEROS, /* as stamp_of() says */
	ABSENT,
	FIRST_STAMP,
};

static struct history history;
static uint32_t next_stamp = FIRST_STAMP;

static uint64_t disk_sector(unsigned index)
{
	return index < NEAR ? index : FAR_SECTOR + index - NEAR;
}

/* Nothing else is under way. */
static void note(unsigned index, uint32_t what, unsigned issued)
{
	history_issue(&history, index, what, issued);
	history_acknowledge(&history, index);
}

static void note_flush(void)
{
	history_flush_end(history_flush_begin(&history), vfs_count());
}

/* ---- The changes. ---- */

static void change_data(struct disk *disk, unsigned first, unsigned count, bool populate)
{
	char data[8][SECTOR];
	unsigned issued = vfs_count();
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, (size_t)count * SECTOR);

	for (unsigned i = 0; i < count; i++) {
		stamp_fill(data[i], SECTOR, next_stamp, first + i);
		if (!populate || history_current(&history, first + i) == ABSENT)
			note(first + i, next_stamp, issued);
	}
	next_stamp++;
	if (populate)
		CHECK_OK(layer_populate(disk, &sg, disk_sector(first)));
	else
		CHECK_OK(disk_write(disk, &sg, disk_sector(first), 0));
}

static void change_none(struct disk *disk, unsigned first, unsigned count, uint32_t what)
{
	unsigned issued = vfs_count();

	for (unsigned i = 0; i < count; i++)
		note(first + i, what, issued);
	if (what == ZEROS)
		CHECK_OK(disk_write_zeroes(disk, disk_sector(first), count, 0));
	else
		CHECK_OK(layer_drop(disk, disk_sector(first), count));
}

static void change_all(struct disk *disk, uint32_t what)
{
	unsigned issued = vfs_count();

	for (unsigned i = 0; i < SECTORS; i++)
		note(i, what, issued);
	if (what == ZEROS)
		CHECK_OK(disk_write_zeroes(disk, 0, disk_sector_count(disk), 0));
	else
		CHECK_OK(layer_drop(disk, 0, disk_sector_count(disk)));
}

static void change(struct disk *disk, struct random *random)
{
	unsigned first = (unsigned)random_below(random, SECTORS);
	unsigned end = first < NEAR ? NEAR : SECTORS;
	unsigned count = 1 + (unsigned)random_below(random, min_u64(8, end - first));
	unsigned kind = (unsigned)random_below(random, 40);

	if (kind == 0)
		change_all(disk, random_below(random, 2) ? ZEROS : ABSENT);
	else if (kind < 6)
		change_none(disk, first, count, ZEROS);
	else if (kind < 9)
		change_none(disk, first, count, ABSENT);
	else
		change_data(disk, first, count, kind < 14);
	if (random_below(random, 3) > 0)
		return;
	CHECK_OK(disk_flush(disk));
	note_flush();
}

/* A small log, so that it starts anew several times; small batches, so that some are committed that
 * nobody asks for. */
static void record_task(void *argument)
{
	struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "1T"}},
				     .role = LAYER_CACHE};
	struct random random = {.state = seed};
	unsigned changes = is_long ? 500 : 120;

	(void)argument;
	history_begin(&history, SECTORS, ABSENT);
	/* It comes into being before, and belongs to itself from the first write on. */
	if (!sqlite_begin(&layer))
		return;
	sqlite_end(&layer);
	vfs_record();
	note_flush();
	if (!sqlite_begin(&layer))
		return;
	sqlite_of(layer.disk)->committer.wal_soft = 96 * KIB;
	sqlite_of(layer.disk)->committer.wal_hard = 512 * KIB;
	sqlite_of(layer.disk)->pending.batch_memory = 64 * KIB;
	for (unsigned i = 0; i < changes; i++)
		change(layer.disk, &random);
	CHECK(atomic_load(&sqlite_of(layer.disk)->committer.checkpoints) > 1);
	sqlite_end(&layer);
	note_flush();
	vfs_record_end();
}

/* ---- The files after a cut. ---- */

struct content {
	unsigned char *data;
	size_t length, room;
};

static struct content contents[VFS_FILES];

static void content_resize(struct content *content, size_t length)
{
	if (length > content->room) {
		content->room = 2 * length;
		content->data = realloc(content->data, content->room);
		assert_non_null(content->data);
	}
	if (length > content->length)
		memset(content->data + content->length, 0, length - content->length);
	content->length = length;
}

/* Does what the event did, to @length bytes from @skip on. */
static void replay(const struct vfs_event *event, size_t skip, size_t length)
{
	struct content *content = &contents[event->file];

	if (event->op == VFS_TRUNCATE || event->op == VFS_DELETE)
		content_resize(content, event->op == VFS_DELETE ? 0 : event->offset);
	if (event->op != VFS_WRITE || length == 0)
		return;
	content_resize(content, max_u64(content->length, event->offset + skip + length));
	memcpy(content->data + event->offset + skip, event->data + skip, length);
}

static bool changes_file(const struct vfs_event *event)
{
	return event->op == VFS_WRITE || event->op == VFS_TRUNCATE || event->op == VFS_DELETE;
}

/* For each event, the one with which it is durable. */
static unsigned *durable_with(unsigned count)
{
	unsigned *with = malloc(count * sizeof(*with));

	for (unsigned i = 0; i < count; i++) {
		with[i] = UINT32_MAX;
		for (unsigned j = i + 1; j < count && with[i] == UINT32_MAX; j++) {
			const struct vfs_event *event = vfs_event(j);

			if (event->op == VFS_SYNCED && event->file == vfs_event(i)->file &&
			    event->began > i && vfs_event(i)->op != VFS_DELETE)
				with[i] = j;
		}
	}
	return with;
}

static void write_file(const char *path, const struct content *content)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, content->data, content->length), (ssize_t)content->length);
	close(fd);
}

/* ---- What is there then. ---- */

static void check_sectors(struct disk *disk, unsigned events)
{
	char data[SECTOR];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));
	struct layer_gaps gaps;

	for (unsigned i = 0; i < SECTORS; i++) {
		int64_t what;

		if (!CHECK_OK(layer_read(disk, &sg, disk_sector(i), &gaps)))
			return;
		what = stamp_of(data, SECTOR, i);
		if (gaps.count > 0)
			what = ABSENT;
		if (!CHECK(what >= 0 && history_may_be(&history, i, (uint32_t)what, events)))
			fprintf(stderr, "sector %u is %" PRId64 "\n", i, what);
	}
}

static void check_sound(void)
{
	CHECK_EQ(sqlite_sql(CUT, "SELECT count(*) FROM pragma_integrity_check "
				 "WHERE integrity_check <> 'ok'"),
		 0);
	CHECK_EQ(sqlite_sql(CUT, "SELECT (SELECT count(*) FROM runs) = runs AND "
				 "(SELECT ifnull(sum(length(data)), 0) FROM runs) / 512 = "
				 "data_sectors FROM meta"),
		 1);
}

/* One state of the files. */
static void check_state(unsigned events, bool sound)
{
	struct sqlite_layer layer = {.options = {{"path", CUT}}, .role = LAYER_CACHE};

	write_file(CUT, &contents[VFS_DATABASE]);
	write_file(CUT "-wal", &contents[VFS_WAL]);
	if (sound)
		layer.flags = DISK_OPEN_READ_ONLY;
	if (sqlite_begin(&layer)) {
		check_sectors(layer.disk, events);
		sqlite_end(&layer);
	}
	if (sound)
		check_sound();
}

/* ---- All cuts. ---- */

static unsigned *durable, states;

/* What becomes of the events that were not synced. */
enum cut {
	KEEPS_ALL,
	LOSES_ALL,
	LOSES_ONE,
	KEEPS_ONE,
	TEARS_END, /* of one */
	TEARS_BEGIN,
};

static void replay_cut(const struct vfs_event *event, enum cut cut, bool is_one)
{
	size_t half = event->length / 2 / SECTOR * SECTOR;

	switch (cut) {
	case KEEPS_ALL:
		replay(event, 0, event->length);
		break;
	case LOSES_ALL:
		break;
	case LOSES_ONE:
		if (!is_one)
			replay(event, 0, event->length);
		break;
	case KEEPS_ONE:
		if (is_one)
			replay(event, 0, event->length);
		break;
	case TEARS_END:
		replay(event, 0, is_one ? half : event->length);
		break;
	case TEARS_BEGIN:
		replay(event, is_one ? half : 0, is_one ? event->length - half : event->length);
		break;
	}
}

static void build(unsigned events, enum cut cut, unsigned one)
{
	size_t length;
	const unsigned char *image = vfs_image(&length);

	contents[VFS_DATABASE].length = contents[VFS_WAL].length = 0;
	content_resize(&contents[VFS_DATABASE], length);
	memcpy(contents[VFS_DATABASE].data, image, length);
	for (unsigned i = 0; i < events; i++)
		replay_cut(vfs_event(i), durable[i] < events ? KEEPS_ALL : cut, i == one);
}

static void try_cut(unsigned events, enum cut cut, unsigned one)
{
	check_context("SEED=%" PRIu64 ", cut %d behind %u events, %u", seed, cut, events, one);
	build(events, cut, one);
	check_state(events, cut <= LOSES_ALL && events % 4 == 0);
	states++;
}

/* Of those that are not durable, each, or a sample. */
static void try_singles(unsigned events, struct random *random)
{
	static unsigned lost[16384];
	unsigned count = 0;

	for (unsigned i = 0; i < events; i++)
		if (durable[i] >= events && changes_file(vfs_event(i)) && count < ARRAY_SIZE(lost))
			lost[count++] = i;
	if (count == 0)
		return;
	try_cut(events, TEARS_END, lost[count - 1]);
	try_cut(events, TEARS_BEGIN, lost[count - 1]);
	for (unsigned i = 0; i < (is_long ? count : min_u64(count, SAMPLE)); i++) {
		unsigned one = lost[is_long || count <= SAMPLE ? i : random_below(random, count)];

		try_cut(events, LOSES_ONE, one);
		try_cut(events, KEEPS_ONE, one);
	}
}

static void cut_task(void *argument)
{
	struct random random = {.state = seed};
	unsigned count = vfs_count();

	(void)argument;
	durable = durable_with(count);
	for (unsigned events = 0; events <= count; events++) {
		if (events > 0 && vfs_event(events - 1)->op == VFS_SYNC)
			continue; /* as before */
		try_cut(events, KEEPS_ALL, 0);
		try_cut(events, LOSES_ALL, 0);
		try_singles(events, &random);
	}
	free(durable);
	for (unsigned i = 0; i < VFS_FILES; i++)
		free(contents[i].data);
}

static void test_power_cuts(void **state)
{
	(void)state;
	run_task(record_task, NULL);
	run_task(cut_task, NULL);
	print_message("%u events, %u flushes, %u states\n", vfs_count(), history.flush_count,
		      states);
}

static int enter(void **state)
{
	const char *text = getenv("SEED");

	if (text)
		seed = strtoull(text, NULL, 0);
	is_long = getenv("LONG") && getenv("LONG")[0];
	vfs_install();
	scratch_enter();
	return setup_1_worker(state);
}

static int leave(void **state)
{
	teardown_workers(state);
	vfs_record();
	vfs_record_end();
	scratch_leave();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_power_cuts)};

	return cmocka_run_group_tests(tests, enter, leave);
}
