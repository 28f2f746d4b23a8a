// SPDX-License-Identifier: MIT
#include "tests/lib/medium.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/task.h"
#include "tests/lib/check.h"

#define PAGE   4096U
#define SECTOR 512U

/* ---- Content. ---- */

struct medium_page {
	unsigned users;
	char data[PAGE];
};

static void *must(void *memory)
{
	assert(memory);
	return memory;
}

static void page_put(struct medium_page *page)
{
	if (page && --page->users == 0)
		free(page);
}

/* A page that nobody else has. */
static struct medium_page *page_own(struct medium *medium, size_t index)
{
	struct medium_page *old = medium->pages[index], *page = old;

	if (old && old->users == 1)
		return old;
	page = must(calloc(1, sizeof(*page)));
	page->users = 1;
	if (old)
		memcpy(page->data, old->data, PAGE);
	page_put(old);
	medium->pages[index] = page;
	return page;
}

void medium_free(struct medium *medium)
{
	for (size_t i = 0; i < medium->page_count; i++)
		page_put(medium->pages[i]);
	free(medium->pages);
	*medium = (struct medium){.size = 0};
}

void medium_copy(struct medium *to, const struct medium *from)
{
	medium_free(to);
	*to = *from;
	to->pages = must(malloc((from->page_count + 1) * sizeof(*to->pages)));
	for (size_t i = 0; i < from->page_count; i++) {
		to->pages[i] = from->pages[i];
		if (to->pages[i])
			to->pages[i]->users++;
	}
}

/* What is cut off is gone, also if it becomes longer again. */
void medium_resize(struct medium *medium, uint64_t size)
{
	size_t count = (size + PAGE - 1) / PAGE;

	if (size < medium->size)
		medium_zero(medium, size, min_u64(medium->size, count * PAGE) - size);
	for (size_t i = count; i < medium->page_count; i++)
		page_put(medium->pages[i]);
	if (count != medium->page_count) {
		medium->pages = must(realloc(medium->pages, (count + 1) * sizeof(*medium->pages)));
		for (size_t i = medium->page_count; i < count; i++)
			medium->pages[i] = NULL;
		medium->page_count = count;
	}
	medium->size = size;
}

void medium_write(struct medium *medium, const void *data, size_t length, uint64_t offset)
{
	if (offset + length > medium->size)
		medium_resize(medium, offset + length);
	while (length > 0) {
		size_t in_page = offset % PAGE, part = min_u64(length, PAGE - in_page);

		memcpy(page_own(medium, offset / PAGE)->data + in_page, data, part);
		data = (const char *)data + part;
		offset += part;
		length -= part;
	}
}

void medium_zero(struct medium *medium, uint64_t offset, uint64_t length)
{
	while (length > 0) {
		size_t in_page = offset % PAGE, part = min_u64(length, PAGE - in_page);
		struct medium_page **page = &medium->pages[offset / PAGE];

		if (*page && part == PAGE) {
			page_put(*page);
			*page = NULL;
		} else if (*page) {
			memset(page_own(medium, offset / PAGE)->data + in_page, 0, part);
		}
		offset += part;
		length -= part;
	}
}

void medium_read(const struct medium *medium, void *data, size_t length, uint64_t offset)
{
	while (length > 0) {
		size_t in_page = offset % PAGE, part = min_u64(length, PAGE - in_page);
		const struct medium_page *page =
			offset / PAGE < medium->page_count ? medium->pages[offset / PAGE] : NULL;

		if (page)
			memcpy(data, page->data + in_page, part);
		else
			memset(data, 0, part);
		data = (char *)data + part;
		offset += part;
		length -= part;
	}
}

/* ---- What was done to it. ---- */

/* The number of the event. */
static unsigned record(struct medium_journal *journal, struct medium_event event)
{
	if (journal->count == journal->room) {
		journal->room = 2 * journal->room + 64;
		journal->events =
			must(realloc(journal->events, journal->room * sizeof(*journal->events)));
	}
	journal->events[journal->count] = event;
	return journal->count++;
}

/* Flushes are looked for from each event on: those who wait for one are few. */
unsigned *medium_durable(const struct medium_journal *journal)
{
	unsigned *durable = must(malloc((journal->count + 1) * sizeof(*durable)));

	for (unsigned i = 0; i < journal->count; i++) {
		const struct medium_event *event = &journal->events[i];

		durable[i] = event->is_fua ? event->ended : UINT32_MAX;
		for (unsigned j = i + 1; j < journal->count && durable[i] == UINT32_MAX; j++)
			if (journal->events[j].op == MEDIUM_FLUSH &&
			    journal->events[j].clock >= event->clock)
				durable[i] = j + 1;
	}
	return durable;
}

void medium_journal_free(struct medium_journal *journal)
{
	for (unsigned i = 0; i < journal->count; i++)
		free(journal->events[i].data);
	free(journal->events);
	*journal = (struct medium_journal){.count = 0};
}

void medium_replay(struct medium *medium, const struct medium_event *event, uint64_t skip,
		   uint64_t length)
{
	uint64_t end = event->offset + event->length;

	switch (event->op) {
	case MEDIUM_WRITE:
		if (length > 0)
			medium_write(medium, event->data + skip, length, event->offset + skip);
		break;
	case MEDIUM_ZERO: /* What was never there need not be cleared. */
		if (event->offset < medium->size)
			medium_zero(medium, event->offset,
				    min_u64(end, medium->size) - event->offset);
		break;
	case MEDIUM_RESIZE:
		medium_resize(medium, event->offset);
		break;
	case MEDIUM_FLUSH:
		break;
	}
}

/* ---- The disk. ---- */

static void wait_for_others(struct disk *disk)
{
	const struct medium_config *config = disk->config;

	while (config->random && random_below(config->random, 3) == 0)
		task_yield();
}

/* Does it, and waits a while before and after. */
static void change(struct disk *disk, struct medium_event event)
{
	const struct medium_config *config = disk->config;
	unsigned number = 0;

	wait_for_others(disk);
	medium_replay(config->medium, &event, 0, event.length);
	if (config->journal) {
		event.ended = UINT32_MAX;
		event.clock = UINT64_MAX;
		number = record(config->journal, event);
	} else {
		free(event.data);
	}
	wait_for_others(disk);
	if (config->journal) {
		config->journal->events[number].ended = config->journal->count;
		config->journal->events[number].clock = ++config->journal->clock;
	}
}

static int medium_disk_open(struct disk *disk, struct err *err)
{
	const struct medium_config *config = disk->config;

	(void)err;
	disk->geometry = (struct disk_geometry){
		.sector_size = SECTOR,
		.physical_sector_size = SECTOR,
		.fua = true,
		.unmap = UNMAP_ZEROES,
		.read_only = disk->open_flags & DISK_OPEN_READ_ONLY,
	};
	disk_set_sector_count(disk, config->medium->size / SECTOR);
	return 0;
}

static void medium_disk_close(struct disk *disk)
{
	(void)disk;
}

static int medium_disk_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	const struct medium_config *config = disk->config;
	char *data = must(malloc(sg->len));

	wait_for_others(disk);
	medium_read(config->medium, data, sg->len, sector * SECTOR);
	sg_copy_from(sg, data);
	free(data);
	return 0;
}

static int medium_disk_write(struct disk *disk, const struct sg *sg, uint64_t sector,
			     unsigned flags)
{
	char *data = must(malloc(sg->len));

	sg_copy_to(sg, data);
	change(disk, (struct medium_event){.op = MEDIUM_WRITE,
					   .offset = sector * SECTOR,
					   .length = sg->len,
					   .data = data,
					   .is_fua = flags & DISK_FUA});
	return 0;
}

static int medium_disk_flush(struct disk *disk)
{
	const struct medium_config *config = disk->config;
	uint64_t began = config->journal ? ++config->journal->clock : 0;

	wait_for_others(disk);
	if (config->journal)
		record(config->journal, (struct medium_event){.op = MEDIUM_FLUSH, .clock = began});
	return 0;
}

static int medium_disk_zero(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	change(disk, (struct medium_event){.op = MEDIUM_ZERO,
					   .offset = sector * SECTOR,
					   .length = count * SECTOR,
					   .is_fua = flags & DISK_FUA});
	return 0;
}

static int medium_disk_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	return medium_disk_zero(disk, sector, count, 0);
}

static int medium_disk_resize(struct disk *disk, uint64_t count)
{
	const struct medium_config *config = disk->config;

	if (config->size_max > 0 && count * SECTOR > config->size_max)
		return error_io(ENOSPC);
	change(disk, (struct medium_event){.op = MEDIUM_RESIZE, .offset = count * SECTOR});
	disk_set_sector_count(disk, count);
	return 0;
}

static int medium_disk_tail(struct disk *disk, void *data, size_t *length)
{
	const struct medium_config *config = disk->config;

	if (config->tail_fails)
		return error_io(EIO);
	*length = config->medium->size % SECTOR;
	medium_read(config->medium, data, *length, config->medium->size - *length);
	return 0;
}

static const struct option medium_options[] = {{.name = NULL}};

static const struct driver medium_driver = {
	.name = "medium",
	.summary = "a file in memory, for tests",
	.options = medium_options,
	.config_size = sizeof(struct medium_config),
	.open = medium_disk_open,
	.close = medium_disk_close,
	.read = medium_disk_read,
	.write = medium_disk_write,
	.flush = medium_disk_flush,
	.unmap = medium_disk_unmap,
	.write_zeroes = medium_disk_zero,
	.tail = medium_disk_tail,
	.resize = medium_disk_resize,
};

struct disk *medium_open(const struct medium_config *config, unsigned open_flags)
{
	struct medium_config *copy = must(malloc(sizeof(*copy)));
	struct err err = {.key = ""};
	struct disk *disk;

	*copy = *config;
	disk = disk_open(&medium_driver, "medium", copy, open_flags, NULL, 0, &err);
	if (!disk)
		check_text(err.text, "", __FILE__, __LINE__);
	return disk;
}
