/* SPDX-License-Identifier: MIT */
/*
 * What the files of the driver `layered` share: layered.c (options, opening, what it is), read.c,
 * change.c (writes, zeros, flush), populate.c (caches), hydrate.c. Private to them.
 */
#ifndef BACKENDS_LAYERED_H
#define BACKENDS_LAYERED_H

#include <pthread.h>
#include "core/layer.h"
#include "core/log.h"

/* The most layers of one disk: as many as a uint64_t has bits. */
#define LAYERS_MAX 64

struct layered_config {
	struct string_list read_cache, write_through;
	uint64_t hydrate; /* bytes a second; 0: off */
};

/* One layer, as number i of the disks below. Cache lines are not shared with the next. */
struct layered_layer {
	bool read_cache;
	bool write_through;
	/* For `.status`. */
	_Atomic uint64_t hit_bytes, miss_bytes;
	_Atomic uint64_t populated_bytes, skipped_bytes, failed_bytes;
} __attribute__((aligned(64)));

/*
 * A read of what is below a cache, or a population with what it has found; it is known to the
 * writers that could make it stale. On its owner's stack or in its buffer, where it does not move.
 */
struct fetch {
	uint64_t first, end; /* sectors */
	bool stale;	     /* something of it was written meanwhile */
	struct fetch *next, **link;
};

/* Populations that are under way on one disk, each with a buffer. */
#define POPULATIONS_MAX 32

struct populations {
	pthread_mutex_t guard;
	unsigned in_flight;
	struct fetch *fetches; /* see fetch_begin() */
};

enum hydrate_state {
	HYDRATE_OFF,
	HYDRATE_RUNNING,
	HYDRATE_DONE,
	HYDRATE_GIVEN_UP,
	HYDRATE_STOPPED,
};

/* Written by its task; the numbers are read by `.status`. */
struct hydrate {
	unsigned index; /* of the cache */
	atomic_int state;
	atomic_bool stop;
	_Atomic uint64_t done, total; /* bytes */
	_Atomic uint64_t left_out;    /* bytes that could not be read or kept */
};

struct layered {
	struct layered_layer *layers; /* as many as disks below */
	/* How many layers, from the top, take writes: those that are written through, and one more. */
	unsigned write_layers;
	bool caches_below; /* a cache is below those */
	uint64_t copies;   /* a bit for each layer that holds nothing but copies of what is below */
	/* Where there are several: a change has its range to itself, against other changes and
	 * populations. */
	struct range_lock write_lock;
	struct populations populations;
	struct hydrate hydrate;
	struct log_limit warnings;
};

static inline bool layered_writes_several(const struct layered *layered)
{
	return layered->write_layers > 1;
}

/* read.c */
int layered_read(struct disk *disk, const struct sg *sg, uint64_t sector);
/* Reads what is below layer @index, as if those above had nothing; the sectors are inside them. */
int layered_read_below(struct disk *disk, unsigned index, const struct sg *sg, uint64_t sector);

/* change.c */
int layered_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags);
int layered_unmap(struct disk *disk, uint64_t sector, uint64_t count);
int layered_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags);
int layered_flush(struct disk *disk);

/* How unmap behaves on two layers, the upper of which behaves as @upper: @written_through says
 * whether that one, or any above it, or this one, is written through. */
enum unmap_behaviour unmap_merge(enum unmap_behaviour upper, enum unmap_behaviour layer,
				 bool written_through);

/* populate.c */
void populations_init(struct populations *populations);
/* Waits for those that are under way. */
void populations_end(struct populations *populations);

/* Whether what is read from below layer @index is kept in it. */
bool layer_is_populated(const struct disk *disk, unsigned index);

/*
 * Around a read of what is below a cache. fetch_end() without a change between the two: what was
 * read is still what is below; else fetch->stale is set.
 */
void fetch_begin(struct disk *disk, unsigned index, struct fetch *fetch, uint64_t sector,
		 uint64_t count);
void fetch_end(struct disk *disk, unsigned index, struct fetch *fetch);

/* Puts a copy of @sg, which was read within @fetch, into the cache @index: later, in the
 * background, or not at all where too many are under way. Before fetch_end(). */
void populate(struct disk *disk, unsigned index, const struct sg *sg, uint64_t sector,
	      const struct fetch *fetch);
/* The same at once; 0 or the error. */
int populate_now(struct disk *disk, unsigned index, const struct sg *sg, uint64_t sector,
		 const struct fetch *fetch);

/* At the end of a change of several layers, with its range locked: no fetch that began before may
 * be kept. */
void fetches_stale(struct disk *disk, uint64_t sector, uint64_t count);

/* hydrate.c */
/* Whether it makes sense, in open(). 0, or -1 with a sentence in @err. */
int hydrate_check(struct disk *disk, struct err *err);
/* Starts it, at the end of open(), where it is wanted. */
void hydrate_start(struct disk *disk);
/* Ends it, within a moment. */
void hydrate_end(struct disk *disk);
void hydrate_inspect(struct disk *disk, struct report *report);

#endif
