/* SPDX-License-Identifier: MIT */
/*
 * Layers: disks that know, of each sector, whether they have it. A `layered` disk stands on a list
 * of them, top first, and reads each sector from the first that has it. Any other disk can be the
 * lowest in the list: it has every sector.
 *
 * Of a layer, each sector is in one of three states:
 *
 *	absent	what lies below shines through; alone, or as the lowest, it reads as zeros;
 *	data	written;
 *	zeros	present without data, a *tombstone*: what lies below is hidden. It takes no memory
 *		or file space for the sector's content.
 *
 * A layer is a driver with a struct layer_ops. As a disk it answers disk_write() (data),
 * disk_write_zeroes() (zeros, whatever the flags), disk_flush() as every disk does. What was opened
 * with DISK_OPEN_LAYER is not ready before layer_attach(): until then its geometry and size may be
 * open, and it is only asked to close.
 *
 * All in a task, as every operation of a disk, on several workers at once; 0 or an error of
 * core/error.h. Each of them is atomic for each sector: a read finds a sector before or after a
 * write, a population or a drop, never a part of both. The core checks ranges, counts and traces
 * (layer_read as a read, layer_populate as a write, layer_drop as an unmap).
 */
#ifndef CORE_LAYER_H
#define CORE_LAYER_H

#include "core/disk.h"

/* How a layer is used, for its attach(). */
enum layer_role {
	LAYER_CACHE = 1 << 0, /* what is read from below is kept in it (read_cache) */
	/*
	 * What is written to it has been written below before (write_through), so that it holds
	 * nothing that would not be found below. It may forget whatever it likes, and must forget
	 * what a crash may have left newer or older than what is below. One that was used without
	 * this role, and may hold what is not below, refuses it.
	 */
	LAYER_WRITE_THROUGH = 1 << 1,
};

/* A run of sectors that a layer was asked for and does not have; never empty. */
struct layer_gap {
	uint64_t sector, count;
};

#define LAYER_GAPS_MAX 32

/* What a read has not found, in ascending order, not touching one another. */
struct layer_gaps {
	struct layer_gap gaps[LAYER_GAPS_MAX];
	unsigned count;
	/* How many sectors from the first have been answered, at least 1: found, or noted as a gap.
	 * Less than was asked for only where the list is full; the rest is asked for again. */
	uint64_t answered;
};

enum layer_state {
	LAYER_ABSENT,
	LAYER_DATA,
	LAYER_ZEROES,
};

/* A run of sectors in one state; never empty. */
struct layer_run {
	enum layer_state state;
	uint64_t count; /* sectors, from the one that was asked for */
};

struct layer_ops {
	/*
	 * Once for each disk that stands on the layer, bottom-up, so that what is below is ready: a
	 * layer that several stand on is read-only. @below is the next disk down, NULL for the
	 * lowest; @role is of enum layer_role. Takes from below what the options left open (sector
	 * size, size), and refuses what does not fit; then fills geometry and sector count as
	 * driver->open() does. May block. 0, or -1 with a sentence in @err.
	 */
	int (*attach)(struct disk *disk, struct disk *below, unsigned role, struct err *err);
	/* Fills the memory of the sectors that it has; that of the others is left as it is. */
	int (*read)(struct disk *disk, const struct sg *sg, uint64_t sector,
		    struct layer_gaps *gaps);
	/* Takes the sectors that are absent at that moment; others keep what they are. NULL: it
	 * cannot be a cache. */
	int (*populate)(struct disk *disk, const struct sg *sg, uint64_t sector);
	/* The sectors are absent afterwards. */
	int (*drop)(struct disk *disk, uint64_t sector, uint64_t count);
	/* The run that begins at @sector, cut at @count sectors at the latest; neighbours may be in
	 * the same state. */
	int (*run)(struct disk *disk, uint64_t sector, uint64_t count, struct layer_run *run);
	/*
	 * What the layer holds is being moved into @below, a disk below it (core/commit.h): @begin,
	 * before anything there is changed, so that a layer that remembers what it was made over
	 * does not refuse it from here on; else when all has been moved. Durable when it returns; it
	 * may be begun again without having ended. NULL: it remembers nothing.
	 */
	int (*below_changes)(struct disk *disk, struct disk *below, bool begin);
	/* @below, the next disk down, has another sector count now. The layer may get another one
	 * itself. NULL: its own is its own. */
	void (*below_resized)(struct disk *disk, struct disk *below);
};

/* Whether the disk is a layer; others have every sector. */
static inline bool disk_is_layer(const struct disk *disk)
{
	return disk->driver->layer != NULL;
}

/* Attaches a layer, and validates what it says of itself; a disk that is none stays as it is. In
 * the open() of the disk above. */
int layer_attach(struct disk *disk, struct disk *below, unsigned role, struct err *err);

/* Of any disk: one that is no layer has every sector. Whole sectors inside the disk; @count is at
 * least 1. On error *run is untouched. */
int layer_read(struct disk *disk, const struct sg *sg, uint64_t sector, struct layer_gaps *gaps);
int layer_run(struct disk *disk, uint64_t sector, uint64_t count, struct layer_run *run);
/* Of layers. A population is no change of the content: a disk that is open read-only as a whole may
 * still have a cache, unless the node itself says readonly = yes. */
int layer_populate(struct disk *disk, const struct sg *sg, uint64_t sector);
int layer_drop(struct disk *disk, uint64_t sector, uint64_t count);

/* ---- Lists of layers, the topmost first, each attached to the next. ---- */

/* The first sector that is beyond the end of any of the @count layers: what a layer has from there
 * on, nobody sees who looks from above all of them. */
uint64_t layers_end(struct disk *const *layers, unsigned count);

/* Where a run of sectors is found. */
struct layer_place {
	unsigned index; /* the layer; the number of layers where none has it: it reads as zeros */
	struct layer_run run; /* LAYER_DATA or LAYER_ZEROES; neighbours may be of the same sort */
};

/*
 * As layer_run() of each; holes of a disk that is no layer are zeros. Layer i is passed by as if it
 * had nothing if bit i of @skip is set: for copies of what is below them. The sectors are inside
 * the first layer.
 */
int layers_find(struct disk *const *layers, unsigned layer_count, uint64_t skip, uint64_t sector,
		uint64_t count, struct layer_place *place);

#endif
