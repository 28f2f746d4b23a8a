/* SPDX-License-Identifier: MIT */
/*
 * The stacks of disks that the conformance and model tests run over: every driver, on what it can
 * stand on, alone and behind limits. A new driver adds its lines to the table in stacks.c.
 */
#ifndef TESTS_LIB_STACKS_H
#define TESTS_LIB_STACKS_H

#include "core/disk.h"

enum stack_flags {
	STACK_DROPS_WRITES = 1 << 0, /* reads zeros whatever was written */
	STACK_READ_ONLY = 1 << 1,
	STACK_LASTS = 1 << 2,  /* the content is there after close and open */
	STACK_SPARSE = 1 << 3, /* unmap gives space back */
	/* A read during a write of the same sector finds it old or new. A file cannot promise that:
	 * the page cache of most file systems lets readers in. */
	STACK_WHOLE_READS = 1 << 4,
	/* All is data, and unmap does nothing; what was never written is noise, so that zeros are
	 * written first. */
	STACK_DENSE = 1 << 5,
};

/* Where the file of a stack lies. */
enum stack_place {
	PLACE_NONE,
	PLACE_DISK,   /* $TMPDIR, or /var/tmp */
	PLACE_MEMORY, /* /dev/shm */
};

struct stack {
	const char *name;
	const char *driver;
	enum stack_place place;
	unsigned flags;
	const char *options[3][2]; /* key, value; besides path, size and sector_size */
	const char *limits[4][2];  /* of a `limits` on top; the first key NULL: none */
	bool port;		   /* a port of a `prwrap` on the base, below the fault */
	bool fault;		   /* a `fault` without rules on the base, below the crypt */
	const char *crypt[3][2];   /* of a `crypt` below the limits; the first key NULL: none */
	unsigned tail;		   /* bytes of the file beyond its last sector */
};

extern const struct stack stacks[];
extern const size_t stacks_count;

/* A stack while it is in use; zeroed before it is first opened. */
struct instance {
	const struct stack *stack;
	uint32_t sector_size;
	uint64_t size;		    /* bytes */
	char path[200];		    /* of the file, or empty */
	struct disk *base;	    /* of the driver under test */
	struct disk *prwrap, *port; /* or NULL */
	struct disk *fault, *crypt; /* or NULL */
	struct disk *disk;	    /* the top of the stack */
};

/*
 * Opens a disk of @driver with @options, whose keys end with NULL; in a task. @below may be NULL.
 * NULL with a sentence in @err.
 */
struct disk *driver_open(const struct driver *driver, const char *const (*options)[2], size_t count,
			 unsigned flags, struct disk *below, struct err *err);

/*
 * Opens @stack with a disk of @size bytes. Its file is made, of zeros and sparse or, where it is
 * read-only, of pattern_fill(0), if the instance has none. False, after a failed check, if it
 * cannot be opened. In a task.
 */
bool instance_open(struct instance *instance, const struct stack *stack, uint32_t sector_size,
		   uint64_t size);
/* Closes it; the file stays, so that it can be opened again. In a task. */
void instance_close(struct instance *instance);
/* Removes the file. */
void instance_remove(struct instance *instance);

/* Whether this stack can be had here: direct I/O depends on the file system. */
bool stack_is_possible(const struct stack *stack, uint32_t sector_size);

/* The folder of a place, without a slash at its end. */
const char *place_folder(enum stack_place place);

#endif
