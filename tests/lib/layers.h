/* SPDX-License-Identifier: MIT */
/*
 * A layer for tests of `layered`, and layered disks made of some of them. A fake layer keeps its
 * sectors in plain memory with a state for each; it records what it is asked, fails what it is told
 * to fail, and can hold its operations.
 *
 * A struct fake_layer belongs to the test, and lives longer than its disk. Settings may be changed
 * before it is opened, and errors and holds at any time.
 */
#ifndef TESTS_LIB_LAYERS_H
#define TESTS_LIB_LAYERS_H

#include "core/layer.h"
#include "tests/lib/probe.h"

enum fake_op {
	FAKE_ATTACH,
	FAKE_READ,
	FAKE_WRITE,
	FAKE_ZEROES,
	FAKE_POPULATE,
	FAKE_DROP,
	FAKE_FLUSH,
	FAKE_OPS
};

struct fake_call {
	enum fake_op op;
	uint64_t sector, count;
	unsigned flags;
	const void *memory; /* where the data of the first sector is, or goes to */
	const struct task *task;
	uint64_t order; /* among the calls of all fakes */
};

#define FAKE_CALLS_MAX 1024

struct fake_layer {
	/* Settings. */
	char name[16];
	struct driver driver;
	struct layer_ops layer_ops;
	struct disk_geometry geometry;
	uint64_t sector_count; /* 0: that of the disk below */
	const char *attach_error;
	_Atomic int errors[FAKE_OPS];
	unsigned errors_after;	    /* so many calls of the same operation come first */
	atomic_bool hold[FAKE_OPS]; /* after the call has been noted, before it acts */
	unsigned yields; /* how often, at most, each operation lets others run before it acts */

	/* What it has seen. */
	struct disk *disk;
	struct disk *below; /* attached to */
	unsigned role, open_flags;
	unsigned counts[FAKE_OPS];
	struct fake_call *calls; /* the first FAKE_CALLS_MAX */
	unsigned call_count;
	unsigned char *states; /* enum layer_state, of each sector */
	char *data;
	uint64_t room; /* sectors that there is memory for */
	pthread_mutex_t mutex;
};

#define LAYERS_OF_TEST 64

/* A layered disk on fakes, called l0, l1, ..., and, if wanted, a probe below them, called probe. */
struct layers {
	unsigned count; /* of the fakes */
	bool has_bottom;
	struct fake_layer *fakes;
	struct probe bottom;
	struct disk *disks[LAYERS_OF_TEST];
	unsigned disk_count;
	struct disk *disk;
};

#define LAYERS_SECTOR 512

/* Disks of @sectors each, which may still be changed before they are opened. */
void layers_init(struct layers *layers, unsigned count, uint64_t sectors, bool has_bottom);
void layers_destroy(struct layers *layers);

/* Options of the layered disk; a value of NULL is none. */
struct layers_options {
	const char *read_cache, *write_through, *hydrate;
	unsigned open_flags;
	bool all_writable; /* none is opened read-only because nobody writes to it */
};

/* Opens all of it, as conf/ would; NULL with a sentence in @err. In a task, as all that follows. */
struct disk *layers_try(struct layers *layers, const struct layers_options *options,
			struct err *err);
/* The same, which has to succeed. */
bool layers_open(struct layers *layers, const struct layers_options *options);
void layers_close(struct layers *layers);
/* Closes all of it, and frees what it is made of. */
void layers_finish(struct layers *layers);

/* Forgets what they have seen. */
void layers_forget(struct layers *layers);

/* A fake alone, as a disk above wants it. */
struct disk *fake_open_disk(struct fake_layer *fake, unsigned flags, struct err *err);

/* Changes a fake's sectors past all layers; @data may be NULL for states without. */
void fake_set(struct fake_layer *fake, uint64_t sector, uint64_t count, enum layer_state state,
	      const void *data);
/* Its sectors, whatever their state. */
char *fake_memory(struct fake_layer *fake);
bool fake_is(struct fake_layer *fake, uint64_t sector, uint64_t count, enum layer_state state);

/* Requests to the layered disk; they return its error. */
int layers_put(struct layers *layers, const void *data, uint64_t sector, uint64_t count,
	       unsigned flags);
int layers_get(struct layers *layers, void *data, uint64_t sector, uint64_t count);

/* The state of the layered disk. */
struct layered *layers_state(struct layers *layers);
/* Waits until no population is under way. */
void layers_settle(struct layers *layers);

/* Waits until a fake has seen @count calls of @op. False, after a failed check, if it takes too
 * long. */
bool fake_wait(struct fake_layer *fake, enum fake_op op, unsigned count);

/* What a list of layers holds, by the definition. @model has room for the sectors. */
void layers_model(struct layers *layers, char *model, uint64_t sector, uint64_t count);

#endif
