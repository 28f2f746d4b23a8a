/* SPDX-License-Identifier: MIT */
/*
 * A file in memory: what is written to it can be recorded, so that a test can ask what would be there
 * had the power failed at any moment; and a disk on it, for drivers that keep their format in what is
 * below.
 *
 * Not for several threads.
 */
#ifndef TESTS_LIB_MEDIUM_H
#define TESTS_LIB_MEDIUM_H

#include "core/disk.h"
#include "tests/lib/run.h"

struct medium_page;

/* The content. Zeroed, it is empty. */
struct medium {
	uint64_t size; /* bytes */
	struct medium_page **pages;
	size_t page_count;
};

void medium_free(struct medium *medium);
/* Shares its memory, until one of the two is changed. @to is freed before. */
void medium_copy(struct medium *to, const struct medium *from);
/* Makes it longer where it ends before. */
void medium_write(struct medium *medium, const void *data, size_t length, uint64_t offset);
void medium_zero(struct medium *medium, uint64_t offset, uint64_t length);
void medium_resize(struct medium *medium, uint64_t size);
/* Behind the end there are zeros. */
void medium_read(const struct medium *medium, void *data, size_t length, uint64_t offset);

/* ---- What was done to it. ---- */

enum medium_op {
	MEDIUM_WRITE,
	MEDIUM_ZERO,
	MEDIUM_RESIZE,
	MEDIUM_FLUSH, /* has ended well */
};

struct medium_event {
	enum medium_op op;
	uint64_t offset; /* of a resize: the new size */
	uint64_t length;
	char *data;	/* of a write */
	bool is_fua;	/* durable as soon as it has ended */
	unsigned ended; /* how many events there were by then */
	/* Of a flush, which is an event when it has ended, when it began; of the others, when they
	 * ended. What had ended when a flush began is durable with it. */
	uint64_t clock;
};

struct medium_journal {
	struct medium_event *events;
	unsigned count, room;
	uint64_t clock;
};

/* Of each event, how many events there were when it was durable; UINT32_MAX: never. To be freed. */
unsigned *medium_durable(const struct medium_journal *journal);

void medium_journal_free(struct medium_journal *journal);
/* Does to @medium what the event did, but of a write only @length bytes from @skip on. */
void medium_replay(struct medium *medium, const struct medium_event *event, uint64_t skip,
		   uint64_t length);

/* ---- The disk. ---- */

struct medium_config {
	struct medium *medium;
	struct medium_journal *journal; /* NULL: nothing is recorded */
	/* Where it is given, requests wait for others at random. */
	struct random *random;
	uint64_t size_max; /* bytes; beyond, it is full; 0: no limit */
	bool tail_fails;   /* what is beyond the last whole sector cannot be read */
};

/* In a task. NULL, after a failed check, where it cannot be opened. */
struct disk *medium_open(const struct medium_config *config, unsigned open_flags);

#endif
