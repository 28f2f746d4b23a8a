/* SPDX-License-Identifier: MIT */
/*
 * A leaf: LEAF_PAGES pages that follow one another, and which of their cells are data, zeros or
 * absent. A *cell* is a sector, or a page of a sector that is larger than a page: what is kept
 * apart.
 *
 * A *part* of the map is a pointer: a mark for a run in which all cells are absent, or all are
 * zeros, however long; or what has memory, here a leaf. A leaf in which all cells are absent, or
 * all are zeros, is never left: it becomes the mark.
 *
 * Not locked: that is the caller's, exclusive for what changes a part. Cells are counted from the
 * first of the leaf.
 */
#ifndef BACKENDS_SECTORS_LEAF_H
#define BACKENDS_SECTORS_LEAF_H

#include "backends/sectors/pool.h"
#include "core/layer.h"

#define LEAF_PAGE_SHIFT 6U /* log2 of LEAF_PAGES */
#define LEAF_PAGES	(1U << LEAF_PAGE_SHIFT)

#define MARK_ABSENT	((void *)0)
#define MARK_ZEROES	((void *)1)

static inline bool is_mark(const void *part)
{
	return part == MARK_ABSENT || part == MARK_ZEROES;
}

/* The mark of a state that is not data. */
static inline void *mark_of(enum layer_state state)
{
	return state == LAYER_ZEROES ? MARK_ZEROES : MARK_ABSENT;
}

static inline enum layer_state mark_state(const void *mark)
{
	return mark == MARK_ZEROES ? LAYER_ZEROES : LAYER_ABSENT;
}

/* What a map consists of. */
struct grid {
	struct pool *pool;
	unsigned page_shift; /* log2 of the cells in a page, 0 to 3 */
};

/* log2 of the cells in a leaf. */
static inline unsigned leaf_shift(const struct grid *grid)
{
	return LEAF_PAGE_SHIFT + grid->page_shift;
}

static inline unsigned leaf_cells(const struct grid *grid)
{
	return 1U << leaf_shift(grid);
}

struct leaf;

/* How many cells are present. */
struct cell_counts {
	uint64_t data, zeroes;
};

/* Releases a leaf, with its pages. */
void leaf_free(const struct grid *grid, struct leaf *leaf);

/* Adds what a part of the size of a leaf has to @counts, or, with @sign -1, takes it off. */
void leaf_count(const struct grid *grid, const void *part, struct cell_counts *counts, int sign);

/* The state of cell @first, and in *end where it may change: beyond @first, at most @limit. */
enum layer_state leaf_state(const struct grid *grid, const struct leaf *leaf, unsigned first,
			    unsigned limit, unsigned *end);

/* Copies cells from @first that are all data to @sg. */
void leaf_read(const struct grid *grid, const struct leaf *leaf, unsigned first,
	       const struct sg *sg);

/* Whether the limit holds for what is needed to clear. Tombstones take memory for nothing but
 * themselves; to drop is to give back, and has to work at the limit, too. */
static inline enum pool_limit clear_limit(enum layer_state state)
{
	return state == LAYER_ZEROES ? POOL_WITHIN : POOL_BEYOND;
}

/* Both change *part, which may become another, and follow with @counts. False, at the limit or
 * without memory: nothing has changed. */
bool leaf_write(const struct grid *grid, void **part, unsigned first, const struct sg *sg,
		struct cell_counts *counts);
/* @state is not data. */
bool leaf_clear(const struct grid *grid, void **part, unsigned first, unsigned end,
		enum layer_state state, struct cell_counts *counts);

#endif
