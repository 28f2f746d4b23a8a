/* SPDX-License-Identifier: MIT */
/*
 * A tree: a sparse map of cells, from leaves (leaf.h). Cells are counted from the first of the map;
 * leaf @key has those from @key * leaf_cells().
 *
 * Not locked: the caller excludes all others from changes.
 */
#ifndef BACKENDS_SECTORS_TREE_H
#define BACKENDS_SECTORS_TREE_H

#include "backends/sectors/leaf.h"

/* Zeroed, it is an empty map. All its memory is of grid->pool, and goes with that. */
struct tree {
	void *root;	 /* a part */
	unsigned height; /* levels of nodes above the leaves */
	struct cell_counts counts;
};

/* The part that has leaf @key, if only as a piece of a longer run. */
void *tree_find(const struct tree *tree, uint64_t key);

/* The first cell of [first, end) that is not in @state, which is not data; @end: all are. */
uint64_t tree_run_end(const struct grid *grid, const struct tree *tree, uint64_t first,
		      uint64_t end, enum layer_state state);

/* Cells of leaf @key from its cell @first. False, at the limit or without memory: nothing has
 * changed. */
bool tree_write(const struct grid *grid, struct tree *tree, uint64_t key, unsigned first,
		const struct sg *sg);

/* What is left to be cleared; never empty before, and after unless all is done. */
struct tree_clear {
	uint64_t first, end;
	enum layer_state state; /* not data */
};

enum tree_result {
	TREE_DONE,
	TREE_MORE, /* a good part of it is done */
	TREE_FULL, /* at the limit or without memory: some cells have been cleared */
};

enum tree_result tree_clear(const struct grid *grid, struct tree *tree, struct tree_clear *clear);

#endif
