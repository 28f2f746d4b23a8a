/* SPDX-License-Identifier: MIT */
/*
 * The stacks of disks that the conformance and model tests run over: every driver, on what it can
 * stand on, alone and behind limits. A new driver adds its lines to the table in
 * stack_list.c.
 */
#ifndef TESTS_LIB_STACKS_H
#define TESTS_LIB_STACKS_H

#include "core/disk.h"
#include "tests/lib/loop.h"

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
	/* All is data, and nobody knows what unmap leaves behind. */
	STACK_OPAQUE = 1 << 6,
	STACK_512 = 1 << 7, /* has sectors of 512 bytes, and no others */
};

/* Where the files of a stack lie. */
enum stack_place {
	PLACE_DISK,   /* $TMPDIR, or /var/tmp */
	PLACE_MEMORY, /* /dev/shm */
};

struct stack {
	const char *name;
	/*
	 * DRIVER [KEY=VALUE ...] [(STACK, ...)], as in "striped chunk_size=64K (ram, delay (file))".
	 * Drivers are those of diskfs, and `limits` of limits.h. Sizes, sector sizes and paths are
	 * added. What only `file` has: the word "memory" for a file in PLACE_MEMORY, "noise" for one
	 * that is full of it, which is written over with zeros when the stack is first opened, and
	 * tail=N for N bytes beyond its last sector, image=TYPE-KIB for a VHD of that type and block
	 * size (differencing: with parents beside it, which are full of noise if it says so).
	 * `blockdev` stands on a loop device of such a file, or with the word "partition" on a
	 * partition of one. `blob` stands on an object of a server in the program, full of noise, with
	 * a tail or an image (fixed or dynamic) as well; the word "ill" is for one whose requests often fail the first time. The word
	 * "port" stands for a port on top of the
	 * disk. as=NAME gives a disk another name than its driver's, for those who name the disks
	 * below; a list of names is NAME+NAME.
	 */
	const char *text;
	unsigned flags;
};

extern const struct stack stacks[];
extern const size_t stacks_count;

#define INSTANCE_DISKS_MAX 16
#define INSTANCE_FILES_MAX 8

/* A stack while it is in use; zeroed before it is first opened. */
struct instance {
	const struct stack *stack;
	uint32_t sector_size;
	uint64_t size; /* bytes */
	char paths[INSTANCE_FILES_MAX][200];
	struct loop loops[INSTANCE_FILES_MAX];	/* of those that are block devices */
	unsigned file_count;			/* paths, in the order of the text */
	struct disk *disks[INSTANCE_DISKS_MAX]; /* each behind those that it stands on */
	unsigned disk_count;
	struct disk *disk; /* the top of the stack */
};

/* The options of a disk of @driver, as disk_open() takes them. NULL with a sentence in @err. */
void *driver_config(const struct driver *driver, const char *const (*options)[2], size_t count,
		    struct err *err);

/*
 * Opens a disk of @driver with @options, whose keys end with NULL; in a task. @below may be NULL.
 * NULL with a sentence in @err.
 */
struct disk *driver_open(const struct driver *driver, const char *const (*options)[2], size_t count,
			 unsigned flags, struct disk *below, struct err *err);
/* The same on @below_count disks. */
struct disk *driver_open_on(const struct driver *driver, const char *const (*options)[2],
			    size_t count, unsigned flags, struct disk *const *below,
			    unsigned below_count, struct err *err);

/*
 * Opens @stack with a disk of @size bytes. Its files are made, of zeros and sparse or, where it is
 * read-only, of pattern_fill(0), if the instance has none. False, after a failed check, if it
 * cannot be opened. In a task.
 */
bool instance_open(struct instance *instance, const struct stack *stack, uint32_t sector_size,
		   uint64_t size);
/* Closes it; the files stay, so that it can be opened again. In a task. */
void instance_close(struct instance *instance);
/* Removes the files. */
void instance_remove(struct instance *instance);

/* Whether the stack has a disk of the driver @name. */
bool stack_has(const struct stack *stack, const char *name);
/* Changes an option of all disks of @driver. In a task. */
void instance_set_option(struct instance *instance, const char *driver, const char *name,
			 const char *value);

/* Whether it is a stack that can have such sectors. */
bool stack_takes(const struct stack *stack, uint32_t sector_size);

/* NULL, or why this stack cannot be had here: direct I/O depends on the file system, loop devices
 * need root. */
const char *stack_obstacle(const struct stack *stack, uint32_t sector_size);

/* The folder of a place, without a slash at its end. */
const char *place_folder(enum stack_place place);

#endif
