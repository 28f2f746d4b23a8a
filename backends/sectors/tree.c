// SPDX-License-Identifier: MIT
/*
 * A radix tree of SLOTS-way nodes, as high as the last leaf needs. What is beyond it is absent.
 * Each slot of a node is a part: a run, or a node or leaf below. A node has two sets of slots,
 * those below which there is memory and those that are runs of zeros, and the addresses of the
 * first, in order. It is as large as what is in it, and moves when that changes. As with leaves,
 * one that is all absent or all zeros is never left: so runs are as long as they can be, and
 * clearing a range costs what is in it, not its length.
 */
#include "backends/sectors/tree.h"
#include <assert.h>
#include <string.h>

#define SLOTS	   64U
#define SLOT_SHIFT 6U

/* That one call of tree_clear() works off: leaves and nodes. */
#define CLEAR_BUDGET 64U

struct node {
	uint64_t below, zeroes; /* a bit each slot, never in both */
	void *parts[];
};

static_assert(sizeof(struct node) + SLOTS * sizeof(void *) <= POOL_OBJECT_MAX,
	      "the largest node is an object");

/* ---- Nodes. ---- */

static uint64_t slot_bit(unsigned slot)
{
	return (uint64_t)1 << slot;
}

static unsigned node_rank(const struct node *node, unsigned slot)
{
	return (unsigned)__builtin_popcountll(node->below & (slot_bit(slot) - 1));
}

static unsigned node_count(const struct node *node)
{
	return (unsigned)__builtin_popcountll(node->below);
}

static size_t node_size(unsigned count)
{
	return sizeof(struct node) + count * sizeof(void *);
}

static void *node_get(const struct node *node, unsigned slot)
{
	if (node->below & slot_bit(slot))
		return node->parts[node_rank(node, slot)];
	return node->zeroes & slot_bit(slot) ? MARK_ZEROES : MARK_ABSENT;
}

/* All of it is @mark. */
static struct node *node_new(const struct grid *grid, const void *mark, enum pool_limit limit)
{
	struct node *node = pool_object_get(grid->pool, node_size(1), limit);

	if (node)
		*node = (struct node){.zeroes = mark == MARK_ZEROES ? UINT64_MAX : 0};
	return node;
}

/* Moves the node into an object for @count parts, if that is another. False: no memory. */
static bool node_move(const struct grid *grid, struct node **at, unsigned count,
		      enum pool_limit limit)
{
	struct node *node;

	if (pool_object_size(node_size(count)) == pool_object_capacity(*at))
		return true;
	node = pool_object_get(grid->pool, node_size(count), limit);
	if (!node)
		return false;
	memcpy(node, *at, node_size(node_count(*at)));
	pool_object_put(grid->pool, *at);
	*at = node;
	return true;
}

/* Makes room for one more part than there are. */
static bool node_grow(const struct grid *grid, struct node **at, enum pool_limit limit)
{
	unsigned count = node_count(*at) + 1;

	return pool_object_capacity(*at) >= node_size(count) || node_move(grid, at, count, limit);
}

/* Puts a node or leaf where a run is; there is room for it. */
static void node_insert(struct node *node, unsigned slot, void *part)
{
	unsigned rank = node_rank(node, slot), count = node_count(node);

	memmove(node->parts + rank + 1, node->parts + rank, (count - rank) * sizeof(void *));
	node->parts[rank] = part;
	node->below |= slot_bit(slot);
	node->zeroes &= ~slot_bit(slot);
}

/* Puts a run where a node or leaf was. */
static void node_remove(struct node *node, unsigned slot, const void *mark)
{
	unsigned rank = node_rank(node, slot), count = node_count(node);

	memmove(node->parts + rank, node->parts + rank + 1, (count - rank - 1) * sizeof(void *));
	node->below &= ~slot_bit(slot);
	if (mark == MARK_ZEROES)
		node->zeroes |= slot_bit(slot);
}

/* Makes a node that has become a run one; gives back what another no longer needs. */
static void node_settle(const struct grid *grid, void **part)
{
	struct node *node = *part;

	if (!node->below && (!node->zeroes || node->zeroes == UINT64_MAX)) {
		*part = node->zeroes ? MARK_ZEROES : MARK_ABSENT;
		pool_object_put(grid->pool, node);
	} else {
		/* Without memory it stays where it is. */
		node_move(grid, &node, node_count(node), POOL_WITHIN);
		*part = node;
	}
}

/* ---- Places. ---- */

static unsigned slot_of(uint64_t key, unsigned level)
{
	return (unsigned)(key >> (level - 1) * SLOT_SHIFT) % SLOTS;
}

/* The cells of a part at @level. */
static uint64_t span(const struct grid *grid, unsigned level)
{
	return (uint64_t)leaf_cells(grid) << level * SLOT_SHIFT;
}

static bool is_covered(const struct tree *tree, uint64_t key)
{
	return key >> tree->height * SLOT_SHIFT == 0;
}

/*
 * Goes down towards leaf @key, which is covered, as far as there are nodes. Returns the place of
 * the last part before a run, a leaf if *level is 0; *level tells its own.
 */
static void **descend(struct tree *tree, uint64_t key, unsigned *level)
{
	void **at = &tree->root;

	for (*level = tree->height; *level > 0 && !is_mark(*at); --*level) {
		struct node *node = *at;
		unsigned slot = slot_of(key, *level);

		if (!(node->below & slot_bit(slot)))
			break;
		at = &node->parts[node_rank(node, slot)];
	}
	return at;
}

void *tree_find(const struct tree *tree, uint64_t key)
{
	void *part = tree->root;

	if (!is_covered(tree, key))
		return MARK_ABSENT;
	for (unsigned level = tree->height; level > 0 && !is_mark(part); level--)
		part = node_get(part, slot_of(key, level));
	return part;
}

/* Makes the tree high enough for leaf @key. */
static bool tree_cover(const struct grid *grid, struct tree *tree, uint64_t key)
{
	while (!is_covered(tree, key)) {
		if (tree->root != MARK_ABSENT) {
			struct node *node = node_new(grid, MARK_ABSENT, POOL_WITHIN);

			if (!node)
				return false;
			if (tree->root == MARK_ZEROES)
				node->zeroes = 1;
			else
				node_insert(node, 0, tree->root);
			tree->root = node;
		}
		tree->height++;
	}
	return true;
}

/* ---- Runs. ---- */

static uint64_t leaf_run_end(const struct grid *grid, const struct leaf *leaf, uint64_t first,
			     uint64_t end, enum layer_state state)
{
	unsigned at = (unsigned)first;

	while (at < end && leaf_state(grid, leaf, at, (unsigned)end, &at) == state)
		first = at;
	return first;
}

/* As tree_run_end(), of a part; cells are counted from its first. */
static uint64_t part_run_end(const struct grid *grid, const void *part, unsigned level,
			     uint64_t first, uint64_t end, enum layer_state state)
{
	const struct node *node = part;
	uint64_t size, others;

	if (is_mark(part))
		return mark_state(part) == state ? end : first;
	if (level == 0)
		return leaf_run_end(grid, part, first, end, state);
	size = span(grid, level - 1);
	others = state == LAYER_ZEROES ? ~node->zeroes : node->below | node->zeroes;
	others &= UINT64_MAX << first / size;
	for (; others; others &= others - 1) {
		unsigned slot = (unsigned)__builtin_ctzll(others);
		uint64_t start = slot * size, from = max_u64(first, start), to, found;

		if (start >= end)
			break;
		to = min_u64(end, start + size);
		found = start + part_run_end(grid, node_get(node, slot), level - 1, from - start,
					     to - start, state);
		if (found < to)
			return found;
	}
	return end;
}

uint64_t tree_run_end(const struct grid *grid, const struct tree *tree, uint64_t first,
		      uint64_t end, enum layer_state state)
{
	uint64_t covered = span(grid, tree->height), found = first;

	if (first < covered) {
		uint64_t to = min_u64(end, covered);

		found = part_run_end(grid, tree->root, tree->height, first, to, state);
		if (found < to)
			return found;
	}
	return state == LAYER_ABSENT ? end : found;
}

/* ---- Writing. ---- */

/* Releases the nodes of levels 1 .. @levels that lead to leaf @key alone. */
static void chain_free(const struct grid *grid, void *part, unsigned levels)
{
	for (; levels > 0; levels--) {
		struct node *node = part;

		part = node->parts[0];
		pool_object_put(grid->pool, node);
	}
}

/* Puts @levels nodes above a leaf, that are runs of @mark but for it. NULL: no memory. */
static void *chain_new(const struct grid *grid, void *leaf, uint64_t key, unsigned levels,
		       const void *mark)
{
	void *part = leaf;

	for (unsigned level = 1; level <= levels; level++) {
		struct node *node = node_new(grid, mark, POOL_WITHIN);

		if (!node) {
			chain_free(grid, part, level - 1);
			return NULL;
		}
		node_insert(node, slot_of(key, level), part);
		part = node;
	}
	return part;
}

/* Puts a leaf where there is a run. */
static bool tree_insert(const struct grid *grid, struct tree *tree, uint64_t key, void *leaf)
{
	unsigned level;
	void **at, *part;

	if (!tree_cover(grid, tree, key))
		return false;
	at = descend(tree, key, &level);
	if (is_mark(*at)) { /* the whole tree */
		part = chain_new(grid, leaf, key, level, *at);
		if (part)
			*at = part;
		return part;
	}

	struct node *node = *at;
	unsigned slot = slot_of(key, level);

	if (!node_grow(grid, &node, POOL_WITHIN))
		return false;
	*at = node;
	part = chain_new(grid, leaf, key, level - 1, node_get(node, slot));
	if (part)
		node_insert(node, slot, part);
	return part;
}

/* Where there is no leaf yet. */
static bool tree_write_new(const struct grid *grid, struct tree *tree, uint64_t key, unsigned first,
			   const struct sg *sg)
{
	struct cell_counts counts = {0, 0};
	void *part = tree_find(tree, key);

	if (!leaf_write(grid, &part, first, sg, &counts))
		return false;
	if (!tree_insert(grid, tree, key, part)) {
		leaf_free(grid, part);
		return false;
	}
	tree->counts.data += counts.data;
	tree->counts.zeroes += counts.zeroes;
	return true;
}

bool tree_write(const struct grid *grid, struct tree *tree, uint64_t key, unsigned first,
		const struct sg *sg)
{
	unsigned level = 1;
	void **at = is_covered(tree, key) ? descend(tree, key, &level) : NULL;

	if (level == 0 && !is_mark(*at))
		return leaf_write(grid, at, first, sg, &tree->counts);
	return tree_write_new(grid, tree, key, first, sg);
}

/* ---- Clearing. ---- */

struct clearing {
	const struct grid *grid;
	struct cell_counts *counts;
	struct tree_clear *clear;
	unsigned budget;
};

/* Whether all of a part at @level, from cell @base, is to be cleared. */
static bool is_cleared_whole(const struct clearing *clearing, unsigned level, uint64_t base)
{
	const struct tree_clear *clear = clearing->clear;

	return clear->first <= base && clear->end - base >= span(clearing->grid, level);
}

/* Notes that @cells cells of a run have become another. */
static void count_run(struct clearing *clearing, const void *mark, uint64_t cells)
{
	if (mark == MARK_ZEROES)
		clearing->counts->zeroes -= cells;
	if (clearing->clear->state == LAYER_ZEROES)
		clearing->counts->zeroes += cells;
}

static enum tree_result clear_leaf(struct clearing *clearing, void **part, uint64_t base)
{
	const struct grid *grid = clearing->grid;
	const struct tree_clear *clear = clearing->clear;
	uint64_t from = max_u64(clear->first, base);
	uint64_t to = min_u64(clear->end, base + leaf_cells(grid));

	if (!is_cleared_whole(clearing, 0, base))
		return leaf_clear(grid, part, (unsigned)(from - base), (unsigned)(to - base),
				  clear->state, clearing->counts)
			       ? TREE_DONE
			       : TREE_FULL;
	leaf_count(grid, *part, clearing->counts, -1);
	if (!is_mark(*part))
		leaf_free(grid, *part);
	*part = mark_of(clear->state);
	leaf_count(grid, *part, clearing->counts, 1);
	return TREE_DONE;
}

static enum tree_result clear_part(struct clearing *clearing, void **part, unsigned level,
				   uint64_t base);

/* What of a slot's run lies in the range. */
static enum tree_result clear_run_slot(struct clearing *clearing, void **part, unsigned slot,
				       unsigned level, uint64_t base)
{
	struct node *node = *part;
	void *run = node_get(node, slot);
	enum tree_result result;

	/* Only what is cut needs memory. */
	if (!is_cleared_whole(clearing, level, base)) {
		if (!node_grow(clearing->grid, &node, clear_limit(clearing->clear->state)))
			return TREE_FULL;
		*part = node;
	}
	result = clear_part(clearing, &run, level, base);
	if (!is_mark(run)) {
		node_insert(node, slot, run);
	} else {
		node->zeroes &= ~slot_bit(slot);
		if (run == MARK_ZEROES)
			node->zeroes |= slot_bit(slot);
	}
	return result;
}

static enum tree_result clear_slot(struct clearing *clearing, void **part, unsigned slot,
				   unsigned level, uint64_t base)
{
	struct node *node = *part;
	enum tree_result result;
	void **below;

	if (!(node->below & slot_bit(slot)))
		return clear_run_slot(clearing, part, slot, level, base);
	if (clearing->budget == 0) {
		clearing->clear->first = max_u64(clearing->clear->first, base);
		return TREE_MORE;
	}
	clearing->budget--;
	below = &node->parts[node_rank(node, slot)];
	result = clear_part(clearing, below, level, base);
	if (is_mark(*below))
		node_remove(node, slot, *below);
	return result;
}

/* At @level, from cell @base. */
static enum tree_result clear_part(struct clearing *clearing, void **part, unsigned level,
				   uint64_t base)
{
	const struct tree_clear *clear = clearing->clear;
	uint64_t size = span(clearing->grid, level), end = min_u64(clear->end, base + size);
	enum tree_result result = TREE_DONE;

	if (*part == mark_of(clear->state))
		return TREE_DONE;
	if (level == 0)
		return clear_leaf(clearing, part, base);
	if (is_mark(*part)) {
		struct node *node;

		if (is_cleared_whole(clearing, level, base)) {
			count_run(clearing, *part, size);
			*part = mark_of(clear->state);
			return TREE_DONE;
		}
		node = node_new(clearing->grid, *part, clear_limit(clear->state));
		if (!node)
			return TREE_FULL;
		*part = node;
	}
	size /= SLOTS;
	for (uint64_t at = max_u64(clear->first, base); at < end && result == TREE_DONE;) {
		unsigned slot = (unsigned)((at - base) / size);

		result = clear_slot(clearing, part, slot, level - 1, base + slot * size);
		at = base + (slot + 1) * size;
	}
	node_settle(clearing->grid, part);
	return result;
}

enum tree_result tree_clear(const struct grid *grid, struct tree *tree, struct tree_clear *clear)
{
	struct clearing clearing = {
		.grid = grid,
		.counts = &tree->counts,
		.clear = clear,
		.budget = CLEAR_BUDGET,
	};
	enum tree_result result;

	if (clear->state == LAYER_ABSENT)
		clear->end = min_u64(clear->end, span(grid, tree->height));
	else if (!tree_cover(grid, tree, (clear->end - 1) / leaf_cells(grid)))
		return TREE_FULL;
	if (clear->first >= clear->end)
		return TREE_DONE;
	result = clear_part(&clearing, &tree->root, tree->height, 0);
	if (tree->root == MARK_ABSENT)
		tree->height = 0;
	return result;
}
