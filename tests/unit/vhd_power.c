// SPDX-License-Identifier: MIT
/*
 * Power cuts. Several tasks write to a VHD at once, into blocks that they share and into blocks of
 * their own, discard, and flush; all that is done to the image's file is recorded. Then the power is
 * cut after each of these events. What was flushed is there; of the rest
 *
 *	all is there (so it is after a kill), or nothing,
 *	all but one or two are, or only one is,
 *	one is torn, within a sector.
 *
 * From each of these the image is opened. All that a flush had acknowledged has to be there, or what
 * came after it, and each sector has to be one that it has been, never the parent's behind a discard,
 * another block's or one of nobody. Of some of them that is so after more writes, too; and `check`
 * finds nothing but a footer, which it mends.
 *
 *	SEED=n	other changes
 *	LONG=1	more of them, and of each cut more of what may be lost
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/log.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/history.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/vhd_images.h"

#define SECTOR	      512U
#define BLOCK_SECTORS 32U
#define TASKS	      4U
#define SHARED	      (8U * BLOCK_SECTORS) /* sectors of blocks that all tasks write to */
#define OWN	      2U		   /* blocks of each task, which come and go */
#define SECTORS	      (SHARED + TASKS * OWN * BLOCK_SECTORS)
#define GROUP	      4U  /* neighbours that belong to one task */
#define READ	      64U /* sectors of one read */

static uint64_t seed = 1;
static bool is_long;

/* What a sector has been: zeros, the parent's, or data with this stamp. */
enum {
	ZEROS, /* as stamp_of() says */
	PARENT,
	FIRST_STAMP,
};

/* ---- The image, on a medium; on a parent, where it is a differencing one. ---- */

static struct {
	struct medium first; /* as it was in the beginning */
	struct medium parent;
	bool has_parent;
	struct medium_journal journal;
	struct history history;
	uint32_t stamp;
} power;

/* An open one. */
struct open_image {
	struct disk *medium, *disk;
	struct disk *parent_medium, *parent;
};

static bool image_begin(struct open_image *open, const struct medium_config *config, unsigned flags)
{
	struct medium_config parent = {.medium = &power.parent};
	struct err err = {.text = ""};

	*open = (struct open_image){.medium = medium_open(config, flags)};
	if (power.has_parent) {
		open->parent_medium = medium_open(&parent, DISK_OPEN_READ_ONLY);
		open->parent = vhd_open_on(open->parent_medium, NULL, DISK_OPEN_READ_ONLY, &err);
		CHECK_TEXT(err.text, "");
	}
	open->disk = vhd_open_on(open->medium, open->parent, flags, &err);
	return CHECK_TEXT(err.text, "");
}

static void image_end(struct open_image *open)
{
	disk_close(open->disk);
	disk_close(open->medium);
	disk_close(open->parent);
	disk_close(open->parent_medium);
}

/* ---- The changes. ---- */

static struct open_image recorded;

static void change_data(unsigned first, unsigned count, unsigned flags)
{
	struct history_flush *flush = flags & DISK_FUA ? history_flush_begin(&power.history) : NULL;
	char *data = malloc((size_t)count * SECTOR);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, (size_t)count * SECTOR);

	for (unsigned i = first; i < first + count; i++) {
		stamp_fill(data + (size_t)(i - first) * SECTOR, SECTOR, power.stamp, i);
		history_issue(&power.history, i, power.stamp, power.journal.count);
	}
	power.stamp++;
	CHECK_OK(disk_write(recorded.disk, &sg, first, flags));
	for (unsigned i = first; i < first + count; i++) {
		history_acknowledge(&power.history, i);
		if (flush)
			flush->values[i] = power.history.acknowledged[i];
	}
	if (flush)
		history_flush_end(flush, power.journal.count);
	free(data);
}

static void change_zero(unsigned first, unsigned count, bool unmap)
{
	for (unsigned i = first; i < first + count; i++)
		history_issue(&power.history, i, ZEROS, power.journal.count);
	if (unmap)
		CHECK_OK(disk_unmap(recorded.disk, first, count));
	else
		CHECK_OK(disk_write_zeroes(recorded.disk, first, count, 0));
	for (unsigned i = first; i < first + count; i++)
		history_acknowledge(&power.history, i);
}

static void flush_all(void)
{
	struct history_flush *flush = history_flush_begin(&power.history);

	CHECK_OK(disk_flush(recorded.disk));
	history_flush_end(flush, power.journal.count);
}

/* Sectors of this task alone: in a group of its own of a block that is shared, or its own block. */
static void pick(struct random *random, unsigned task, unsigned *first, unsigned *count)
{
	unsigned in_range = GROUP;

	if (random_below(random, 3) > 0) {
		*first = (unsigned)random_below(random, SHARED / GROUP / TASKS) * GROUP * TASKS +
			 task * GROUP;
	} else {
		*first =
			SHARED + (task * OWN + (unsigned)random_below(random, OWN)) * BLOCK_SECTORS;
		in_range = BLOCK_SECTORS;
	}
	if (in_range == BLOCK_SECTORS && random_below(random, 2) == 0) {
		*count = BLOCK_SECTORS;
		return;
	}
	*first += (unsigned)random_below(random, in_range);
	*count = 1 + (unsigned)random_below(random, in_range - *first % in_range);
}

static void change_task(unsigned task, void *argument)
{
	struct random random = {.state = seed * 1000 + task};
	unsigned changes = is_long ? 200 : 60;

	(void)argument;
	for (unsigned i = 0; i < changes; i++) {
		unsigned kind = (unsigned)random_below(&random, 40), first, count;

		pick(&random, task, &first, &count);
		if (kind < 2)
			flush_all();
		else if (kind < 8 || (count == BLOCK_SECTORS && kind < 24))
			change_zero(first, count, kind > 3);
		else
			change_data(first, count, kind == 39 ? DISK_FUA : 0);
		if (random_below(&random, 4) == 0)
			task_yield();
	}
}

static struct random medium_random;
static struct medium recorded_medium;

static void record_begin_task(void *argument)
{
	struct medium_config config = {.medium = &recorded_medium,
				       .journal = &power.journal,
				       .random = &medium_random};

	(void)argument;
	medium_copy(&recorded_medium, &power.first);
	image_begin(&recorded, &config, 0);
}

static void record_end_task(void *argument)
{
	struct history_flush *flush = history_flush_begin(&power.history);

	(void)argument;
	image_end(&recorded);
	history_flush_end(flush, power.journal.count);
	medium_free(&recorded_medium);
}

/* Writes every other group of four sectors of the parent. */
static void fill_parent_task(void *argument)
{
	struct medium_config config = {.medium = &power.parent};
	struct disk *medium = medium_open(&config, 0);
	struct err err = {.text = ""};
	struct disk *disk = vhd_open_on(medium, NULL, 0, &err);
	char data[SECTOR];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	(void)argument;
	CHECK_TEXT(err.text, "");
	for (unsigned i = 0; i < SECTORS; i++) {
		if (i / GROUP % 2 == 0)
			continue;
		stamp_fill(data, sizeof(data), PARENT, i);
		CHECK_OK(disk_write(disk, &sg, i, 0));
		history_begin_as(&power.history, i, PARENT);
	}
	disk_close(disk);
	disk_close(medium);
}

static void record(bool has_parent)
{
	static const char *const dynamic[][2] = {{"size", "256K"}, {"block_size", "16K"}};
	static const char *const differencing[][2] = {{"parent", "parent.vhd"},
						      {"block_size", "16K"}};

	power.has_parent = has_parent;
	power.stamp = FIRST_STAMP;
	medium_random.state = seed;
	history_begin(&power.history, SECTORS, ZEROS);
	vhd_create_file("parent.vhd", dynamic, ARRAY_SIZE(dynamic));
	medium_load(has_parent ? &power.parent : &power.first, "parent.vhd");
	if (has_parent) {
		vhd_create_file("child.vhd", differencing, ARRAY_SIZE(differencing));
		medium_load(&power.first, "child.vhd");
		run_task(fill_parent_task, NULL);
	}
	run_task(record_begin_task, NULL);
	run_tasks(TASKS, change_task, NULL);
	run_task(record_end_task, NULL);
}

/* ---- What is there after a cut. ---- */

/* What becomes of the events that were not flushed. */
enum cut_kind {
	KEEPS_ALL,
	LOSES_ALL,
	LOSES_TWO, /* the same one twice: one */
	KEEPS_ONE,
	TEARS_END, /* of one */
	TEARS_BEGIN,
};

struct cut {
	unsigned events;
	enum cut_kind kind;
	unsigned one, other; /* events */
	uint32_t tear;	     /* bytes of the event that are there, or not */
};

static struct medium base; /* all events before base_events have been done, and are durable */
static unsigned base_events;
static unsigned *durable;

static bool is_change(const struct medium_event *event)
{
	return event->op != MEDIUM_FLUSH;
}

static void replay(struct medium *medium, const struct cut *cut, unsigned index)
{
	const struct medium_event *event = &power.journal.events[index];
	bool is_one = index == cut->one || index == cut->other;
	uint64_t skip = 0, length = event->length;

	if (durable[index] > cut->events && cut->kind == LOSES_ALL)
		return;
	if (durable[index] > cut->events && cut->kind == LOSES_TWO && is_one)
		return;
	if (durable[index] > cut->events && cut->kind == KEEPS_ONE && !is_one)
		return;
	if (is_one && cut->kind == TEARS_END)
		length = cut->tear;
	if (is_one && cut->kind == TEARS_BEGIN) {
		skip = cut->tear;
		length -= skip;
	}
	medium_replay(medium, event, skip, length);
}

static void build(struct medium *medium, const struct cut *cut)
{
	while (base_events < cut->events && durable[base_events] <= cut->events) {
		const struct medium_event *event = &power.journal.events[base_events++];

		medium_replay(&base, event, 0, event->length);
	}
	medium_copy(medium, &base);
	for (unsigned i = base_events; i < cut->events; i++)
		replay(medium, cut, i);
}

/* A sector that is torn: up to some byte one of what it may be, behind it another. */
struct torn {
	const char *data;
	unsigned sector, events;
	size_t at; /* bytes */
};

static bool is_part(const struct torn *torn, uint32_t what, size_t from, size_t to)
{
	char wanted[SECTOR] = {0};

	if (what != ZEROS)
		stamp_fill(wanted, SECTOR, what, torn->sector);
	return memcmp(wanted + from, torn->data + from, to - from) == 0;
}

static bool is_begin(uint32_t what, void *context)
{
	const struct torn *torn = context;

	return is_part(torn, what, 0, torn->at);
}

static bool is_end(uint32_t what, void *context)
{
	const struct torn *torn = context;

	return is_part(torn, what, torn->at, SECTOR);
}

static bool may_be(unsigned sector, const char *data, const struct cut *cut)
{
	int64_t what = stamp_of(data, SECTOR, sector);
	struct torn torn = {data, sector, cut->events, cut->tear % SECTOR};

	if (what >= 0 && history_may_be(&power.history, sector, (uint32_t)what, cut->events))
		return true;
	return (cut->kind == TEARS_BEGIN || cut->kind == TEARS_END) &&
	       history_any(&power.history, sector, cut->events, is_begin, &torn) &&
	       history_any(&power.history, sector, cut->events, is_end, &torn);
}

static bool check_sectors(struct disk *disk, const struct cut *cut)
{
	static char data[READ * SECTOR];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	for (unsigned i = 0; i < SECTORS; i++) {
		const char *sector = data + (size_t)(i % READ) * SECTOR;

		if (i % READ == 0 && !CHECK_OK(disk_read(disk, &sg, i)))
			return false;
		if (CHECK(may_be(i, sector, cut)))
			continue;
		fprintf(stderr, "sector %u has stamp %" PRId64 ", was to have %u at last\n", i,
			stamp_of(sector, SECTOR, i), history_current(&power.history, i));
		return false;
	}
	return true;
}

/* Opens what is there, and looks; true: it was right. */
static bool check_medium(struct medium *medium, const struct cut *cut, unsigned flags)
{
	struct medium_config config = {.medium = medium};
	struct open_image open;
	bool right = image_begin(&open, &config, flags) && check_sectors(open.disk, cut);

	image_end(&open);
	return right;
}

/* Writes into a group of some blocks, as often as not the first sectors in them, and reads them and
 * all else, then and after it has been closed. */
static bool check_more_writes(struct medium *medium, const struct cut *cut, struct random *random)
{
	struct medium_config config = {.medium = medium};
	unsigned sectors[6];
	struct open_image open;
	char data[SECTOR], before[SECTOR];
	struct iovec iov, before_iov;
	struct sg sg = sg_of(&iov, data, SECTOR), before_sg = sg_of(&before_iov, before, SECTOR);
	bool right = image_begin(&open, &config, 0);

	for (unsigned i = 0; right && i < ARRAY_SIZE(sectors); i++) {
		sectors[i] = (unsigned)random_below(random, SECTORS);
		right = CHECK_OK(disk_read(open.disk, &before_sg, sectors[i]));
		stamp_fill(data, SECTOR, UINT32_MAX, sectors[i]);
		right = right && CHECK_OK(disk_write(open.disk, &sg, sectors[i], 0)) &&
			CHECK_OK(disk_flush(open.disk)) &&
			CHECK_OK(disk_read(open.disk, &sg, sectors[i])) &&
			CHECK(stamp_of(data, SECTOR, sectors[i]) == UINT32_MAX);
		/* It becomes what it was, so that all can be compared. */
		right = right && CHECK_OK(disk_write(open.disk, &before_sg, sectors[i], 0)) &&
			check_sectors(open.disk, cut);
	}
	image_end(&open);
	return right && check_medium(medium, cut, DISK_OPEN_READ_ONLY);
}

static bool check_repair(struct medium *medium, const struct cut *cut)
{
	struct vhd_findings findings;

	medium_save(medium, "cut.vhd");
	findings = vhd_check_file("cut.vhd", false);
	if (!CHECK_EQ(findings.left, 0))
		fprintf(stderr, "%s\n", findings.last);
	CHECK_EQ(vhd_check_file("cut.vhd", true).mended, findings.mendable);
	findings = vhd_check_file("cut.vhd", false);
	if (!CHECK_EQ(findings.left + findings.mendable, 0))
		fprintf(stderr, "%s\n", findings.last);
	medium_load(medium, "cut.vhd");
	return check_medium(medium, cut, DISK_OPEN_READ_ONLY);
}

/* ---- All cuts. ---- */

static unsigned cuts, opened_to_write, failed;

static void try_cut(const struct cut *cut, struct random *random)
{
	struct medium medium = {.size = 0};
	unsigned turn = cuts++ % 8;
	bool right;

	check_context("SEED=%" PRIu64 ", cut %d behind %u events, %u and %u, %u bytes", seed,
		      cut->kind, cut->events, cut->one, cut->other, cut->tear);
	build(&medium, cut);
	right = check_medium(&medium, cut, turn % 2 ? 0 : DISK_OPEN_READ_ONLY);
	opened_to_write += turn % 2;
	if (right && turn == 4)
		right = check_repair(&medium, cut);
	if (right && turn >= 6)
		right = check_more_writes(&medium, cut, random);
	failed += !right;
	medium_free(&medium);
}

/* Of what is not durable, @times losses and tears. */
static void try_losses(unsigned events, unsigned times, struct random *random)
{
	static unsigned lost[8192];
	unsigned count = 0;

	for (unsigned i = base_events; i < events && count < ARRAY_SIZE(lost); i++)
		if (durable[i] > events && is_change(&power.journal.events[i]))
			lost[count++] = i;
	for (unsigned i = 0; count > 0 && i < times; i++) {
		static const enum cut_kind kinds[] = {LOSES_TWO, LOSES_TWO, LOSES_TWO,
						      KEEPS_ONE, TEARS_END, TEARS_BEGIN};
		struct cut cut = {
			.events = events,
			.kind = kinds[random_below(random, ARRAY_SIZE(kinds))],
			.one = lost[random_below(random, count)],
			.other = lost[random_below(random, count)],
		};
		uint64_t length = power.journal.events[cut.one].length;

		if (cut.kind != LOSES_TWO || random_below(random, 2) == 0)
			cut.other = cut.one;
		/* In words of eight bytes, which hardware does not tear. */
		if (length >= 16)
			cut.tear = 8 * (uint32_t)(1 + random_below(random, length / 8 - 1));
		else if (cut.kind >= TEARS_END)
			continue;
		try_cut(&cut, random);
	}
}

static void cut_task(void *argument)
{
	struct random random = {.state = seed};
	unsigned count = power.journal.count;

	(void)argument;
	base_events = cuts = opened_to_write = failed = 0;
	medium_copy(&base, &power.first);
	durable = medium_durable(&power.journal);
	for (unsigned events = 0; events <= count && failed < 10; events++) {
		struct cut cut = {.events = events,
				  .kind = KEEPS_ALL,
				  .one = UINT32_MAX,
				  .other = UINT32_MAX};

		try_cut(&cut, &random);
		cut.kind = LOSES_ALL;
		try_cut(&cut, &random);
		try_losses(events, is_long ? 12 : 2, &random);
	}
	free(durable);
}

/* The changes must have been of every sort. */
static void check_changes(void)
{
	unsigned resizes = 0, zeros = 0;

	for (unsigned i = 0; i < power.journal.count; i++) {
		resizes += power.journal.events[i].op == MEDIUM_RESIZE;
		zeros += power.journal.events[i].op == MEDIUM_ZERO;
	}
	assert_true(resizes >= SECTORS / BLOCK_SECTORS / 2);
	assert_true(zeros > 0);
	assert_true(power.history.flush_count > 10);
}

static void power_cuts(bool has_parent)
{
	record(has_parent);
	check_changes();
	run_task(cut_task, NULL);
	print_message("SEED=%" PRIu64 ": %u events, %u flushes, %u cuts, %u opened to write\n",
		      seed, power.journal.count, power.history.flush_count, cuts, opened_to_write);
	medium_journal_free(&power.journal);
	medium_free(&base);
	medium_free(&power.first);
	medium_free(&power.parent);
}

static void test_dynamic(void **state)
{
	(void)state;
	power_cuts(false);
}

static void test_differencing(void **state)
{
	(void)state;
	power_cuts(true);
}

static int enter(void **state)
{
	const char *text = getenv("SEED");

	if (text)
		seed = strtoull(text, NULL, 0);
	is_long = getenv("LONG") && getenv("LONG")[0];
	/* Each cut is one. */
	log_set_level(LOG_LEVEL_ERROR);
	scratch_enter();
	return setup_1_worker(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dynamic),
		cmocka_unit_test(test_differencing),
	};

	return cmocka_run_group_tests(tests, enter, scratch_leave_workers);
}
