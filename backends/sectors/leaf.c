// SPDX-License-Identifier: MIT
/*
 * Of each page a leaf knows:
 *
 *	data	it has memory
 *	mixed	its cells are not all in the same state; else they are data if it has memory, zeros
 *		if it is in `zeroes`, absent if it is in none
 *
 * A mixed page may have no memory (zeros and absent); `zeroes` never has a page that is mixed or
 * has memory. Behind the three sets come the addresses of the pages that have memory, then the
 * cells of those that are mixed, both in order. Where the pages follow one another in memory, as
 * most that were written in a row do, the first address is all, with FOLLOW in it: so finding a
 * page mostly takes no more than a cache line. A leaf is as large as what is in it, and moves when
 * that changes: it is unpacked, changed, and packed again. What only overwrites data leaves it as
 * it is.
 *
 * The memory of a cell that is not data holds anything, and is never read.
 */
#include "backends/sectors/leaf.h"
#include <assert.h>
#include <string.h>

/* The cells of a mixed page, a bit each. */
struct page_cells {
	uint8_t data, zeroes;
};

struct leaf {
	uint64_t data, mixed, zeroes; /* a bit each page */
	char *pages[];
};

/* In the first address: the other pages follow it. */
#define FOLLOW ((uintptr_t)1)

/* An unpacked leaf. */
struct open_leaf {
	uint64_t data, mixed, zeroes;
	char *pages[LEAF_PAGES];
	struct page_cells cells[LEAF_PAGES];
};

static_assert(sizeof(struct open_leaf) <= POOL_OBJECT_MAX, "the largest leaf is an object");

/* ---- Sets of pages. ---- */

static uint64_t page_bit(unsigned page)
{
	return (uint64_t)1 << page;
}

/* The pages [first, end). */
static uint64_t page_set(unsigned first, unsigned end)
{
	if (first >= end)
		return 0;
	return UINT64_MAX >> (LEAF_PAGES - (end - first)) << first;
}

static unsigned count_of(uint64_t set)
{
	return (unsigned)__builtin_popcountll(set);
}

/* How many of @set come before @page. */
static unsigned rank_of(uint64_t set, unsigned page)
{
	return count_of(set & (page_bit(page) - 1));
}

static unsigned set_pop(uint64_t *set)
{
	unsigned page = (unsigned)__builtin_ctzll(*set);

	*set &= *set - 1;
	return page;
}

/* ---- Packing. ---- */

static bool pages_follow(const struct leaf *leaf)
{
	return leaf->data && ((uintptr_t)leaf->pages[0] & FOLLOW);
}

/* The page that is number @rank of those that have memory. */
static char *leaf_page(const struct leaf *leaf, unsigned rank)
{
	return pages_follow(leaf) ? leaf->pages[0] - FOLLOW + rank * POOL_PAGE : leaf->pages[rank];
}

static struct page_cells *mixed_cells(const struct leaf *leaf)
{
	unsigned count = pages_follow(leaf) ? 1 : count_of(leaf->data);

	return (struct page_cells *)(uintptr_t)(leaf->pages + count);
}

static void leaf_open(const void *part, struct open_leaf *open)
{
	const struct leaf *leaf = part;
	const struct page_cells *cells;
	uint64_t data, mixed;

	open->data = open->mixed = open->zeroes = 0;
	if (is_mark(part)) {
		open->zeroes = part == MARK_ZEROES ? UINT64_MAX : 0;
		return;
	}
	open->data = data = leaf->data;
	open->mixed = mixed = leaf->mixed;
	open->zeroes = leaf->zeroes;
	for (unsigned rank = 0; data; rank++)
		open->pages[set_pop(&data)] = leaf_page(leaf, rank);
	for (cells = mixed_cells(leaf); mixed; cells++)
		open->cells[set_pop(&mixed)] = *cells;
}

static bool open_pages_follow(const struct open_leaf *open)
{
	uint64_t data = open->data;
	const char *next = data ? open->pages[__builtin_ctzll(data)] : NULL;

	for (; data; next += POOL_PAGE)
		if (open->pages[set_pop(&data)] != next)
			return false;
	return next;
}

static void leaf_fill(struct leaf *leaf, const struct open_leaf *open, bool follow)
{
	uint64_t data = open->data, mixed = open->mixed;
	struct page_cells *cells;

	leaf->data = data;
	leaf->mixed = mixed;
	leaf->zeroes = open->zeroes;
	if (follow)
		leaf->pages[0] = open->pages[set_pop(&data)] + FOLLOW;
	for (char **page = leaf->pages; data && !follow; page++)
		*page = open->pages[set_pop(&data)];
	for (cells = mixed_cells(leaf); mixed; cells++)
		*cells = open->cells[set_pop(&mixed)];
}

/* Makes *part what @open is; false, and nothing has changed: no memory. */
static bool leaf_pack(const struct grid *grid, void **part, const struct open_leaf *open,
		      enum pool_limit limit)
{
	struct leaf *old = is_mark(*part) ? NULL : *part, *leaf = old;
	bool follow = open_pages_follow(open);
	size_t size = sizeof(*leaf) + (follow ? 1 : count_of(open->data)) * sizeof(open->pages[0]) +
		      count_of(open->mixed) * sizeof(open->cells[0]);

	if (!open->data && !open->mixed && (!open->zeroes || open->zeroes == UINT64_MAX)) {
		*part = open->zeroes ? MARK_ZEROES : MARK_ABSENT;
	} else {
		if (!old || pool_object_capacity(old) != pool_object_size(size))
			leaf = pool_object_get(grid->pool, size, limit);
		if (!leaf && old && pool_object_capacity(old) >= size)
			leaf = old;
		if (!leaf)
			return false;
		leaf_fill(leaf, open, follow);
		*part = leaf;
	}
	if (old && *part != old)
		pool_object_put(grid->pool, old);
	return true;
}

void leaf_free(const struct grid *grid, struct leaf *leaf)
{
	unsigned count = count_of(leaf->data);
	char *pages[LEAF_PAGES];

	for (unsigned rank = 0; rank < count; rank++)
		pages[rank] = leaf_page(leaf, rank);
	if (count > 0)
		pool_pages_put(grid->pool, pages, count);
	pool_object_put(grid->pool, leaf);
}

/* ---- States. ---- */

/* All cells of a page. */
static uint8_t all_cells(const struct grid *grid)
{
	return (uint8_t)((1U << (1U << grid->page_shift)) - 1);
}

/* Those of [first, end), of the leaf, that lie in @page. */
static uint8_t cells_in(const struct grid *grid, unsigned page, unsigned first, unsigned end)
{
	unsigned start = page << grid->page_shift;
	unsigned from = first > start ? first - start : 0;
	unsigned to = (unsigned)min_u64(end - start, 1U << grid->page_shift);

	return (uint8_t)(all_cells(grid) & ((1U << to) - (1U << from)));
}

/* Of a mixed page: how its cell @first and those behind it are. */
static enum layer_state cells_state(struct page_cells cells, unsigned first, unsigned *count)
{
	enum layer_state state = LAYER_ABSENT;
	unsigned same = (unsigned)~(cells.data | cells.zeroes);

	if (cells.data >> first & 1) {
		state = LAYER_DATA;
		same = cells.data;
	} else if (cells.zeroes >> first & 1) {
		state = LAYER_ZEROES;
		same = cells.zeroes;
	}
	*count = (unsigned)__builtin_ctz(~(same >> first));
	return state;
}

enum layer_state leaf_state(const struct grid *grid, const struct leaf *leaf, unsigned first,
			    unsigned limit, unsigned *end)
{
	unsigned page = first >> grid->page_shift, start = page << grid->page_shift, count;
	uint64_t same = ~(leaf->data | leaf->mixed | leaf->zeroes);
	enum layer_state state = LAYER_ABSENT;

	if (leaf->mixed & page_bit(page)) {
		state = cells_state(mixed_cells(leaf)[rank_of(leaf->mixed, page)], first - start,
				    &count);
		count = (unsigned)min_u64(count, (1U << grid->page_shift) - (first - start));
		*end = (unsigned)min_u64(limit, first + count);
		return state;
	}
	if (leaf->data & page_bit(page)) {
		state = LAYER_DATA;
		same = leaf->data & ~leaf->mixed;
	} else if (leaf->zeroes & page_bit(page)) {
		state = LAYER_ZEROES;
		same = leaf->zeroes;
	}
	same = ~(same >> page);
	count = same ? (unsigned)__builtin_ctzll(same) : LEAF_PAGES;
	*end = (unsigned)min_u64(limit, start + (count << grid->page_shift));
	return state;
}

void leaf_count(const struct grid *grid, const void *part, struct cell_counts *counts, int sign)
{
	const struct leaf *leaf = part;
	uint64_t data = 0, zeroes = 0;

	if (part == MARK_ZEROES) {
		zeroes = leaf_cells(grid);
	} else if (!is_mark(part)) {
		const struct page_cells *cells = mixed_cells(leaf);

		data = (uint64_t)count_of(leaf->data & ~leaf->mixed) << grid->page_shift;
		zeroes = (uint64_t)count_of(leaf->zeroes) << grid->page_shift;
		for (unsigned i = 0; i < count_of(leaf->mixed); i++) {
			data += count_of(cells[i].data);
			zeroes += count_of(cells[i].zeroes);
		}
	}
	counts->data += sign < 0 ? -data : data;
	counts->zeroes += sign < 0 ? -zeroes : zeroes;
}

static struct page_cells open_cells(const struct grid *grid, const struct open_leaf *open,
				    unsigned page)
{
	struct page_cells cells = {0, 0};

	if (open->mixed & page_bit(page))
		return open->cells[page];
	if (open->data & page_bit(page))
		cells.data = all_cells(grid);
	else if (open->zeroes & page_bit(page))
		cells.zeroes = all_cells(grid);
	return cells;
}

/* The caller sees to the page's memory. */
static void open_set_cells(const struct grid *grid, struct open_leaf *open, unsigned page,
			   struct page_cells cells)
{
	uint64_t bit = page_bit(page);
	uint8_t all = all_cells(grid);

	open->cells[page] = cells;
	open->data &= ~bit;
	open->mixed &= ~bit;
	open->zeroes &= ~bit;
	if (cells.data)
		open->data |= bit;
	if (cells.zeroes == all)
		open->zeroes |= bit;
	else if (cells.data != all && (cells.data || cells.zeroes))
		open->mixed |= bit;
}

/* ---- Copying. ---- */

/* From or to the cells from @first, all of which have memory. */
static void leaf_copy(const struct grid *grid, const struct leaf *leaf, unsigned first,
		      const struct sg *sg, void (*copy)(const struct sg *sg, char *memory))
{
	size_t at = ((size_t)first << (POOL_PAGE_SHIFT - grid->page_shift)) % POOL_PAGE;
	unsigned rank = rank_of(leaf->data, first >> grid->page_shift);
	char *const *page = leaf->pages + rank;
	struct sg rest = *sg;

	if (pages_follow(leaf)) {
		copy(sg, leaf_page(leaf, rank) + at);
		return;
	}
	while (rest.len > 0) {
		char *memory = *page++ + at;
		size_t length = POOL_PAGE - at;
		struct sg now;

		/* Pages that follow one another in memory, too, are one. */
		for (; length < rest.len && *page == memory + length; page++)
			length += POOL_PAGE;
		now = sg_take(&rest, min_u64(length, rest.len));
		copy(&now, memory);
		at = 0;
	}
}

static void copy_out(const struct sg *sg, char *memory)
{
	sg_copy_from(sg, memory);
}

static void copy_in(const struct sg *sg, char *memory)
{
	sg_copy_to(sg, memory);
}

void leaf_read(const struct grid *grid, const struct leaf *leaf, unsigned first,
	       const struct sg *sg)
{
	leaf_copy(grid, leaf, first, sg, copy_out);
}

/* ---- Changes. ---- */

/* A range of cells and the pages that it touches. */
struct range_of {
	unsigned first, end; /* cells */
	uint64_t touched, whole;
};

static struct range_of range_of(const struct grid *grid, unsigned first, unsigned end)
{
	unsigned last = (1U << grid->page_shift) - 1; /* of a page */

	return (struct range_of){
		.first = first,
		.end = end,
		.touched = page_set(first >> grid->page_shift, (end + last) >> grid->page_shift),
		.whole = page_set((first + last) >> grid->page_shift, end >> grid->page_shift),
	};
}

/* Makes the range data; what pages have no memory yet gets that of @fresh. */
static void open_write(const struct grid *grid, struct open_leaf *open,
		       const struct range_of *range, char *const *fresh)
{
	uint64_t needed = range->touched & ~open->data, edges = range->touched & ~range->whole;

	while (needed)
		open->pages[set_pop(&needed)] = *fresh++;
	open->data |= range->whole;
	open->mixed &= ~range->whole;
	open->zeroes &= ~range->whole;
	while (edges) {
		unsigned page = set_pop(&edges);
		uint8_t written = cells_in(grid, page, range->first, range->end);
		struct page_cells cells = open_cells(grid, open, page);

		cells.data |= written;
		cells.zeroes &= (uint8_t)~written;
		open_set_cells(grid, open, page, cells);
	}
}

/* Makes the range of the part data, whatever it holds. */
static bool leaf_make_data(const struct grid *grid, void **part, const struct range_of *range,
			   struct cell_counts *counts)
{
	char *fresh[LEAF_PAGES];
	struct open_leaf open;
	const void *old = *part;
	unsigned needed;

	leaf_open(old, &open);
	needed = count_of(range->touched & ~open.data);
	if (needed > 0 && !pool_pages_get(grid->pool, fresh, needed))
		return false;
	open_write(grid, &open, range, fresh);
	leaf_count(grid, old, counts, -1);
	if (leaf_pack(grid, part, &open, POOL_WITHIN)) {
		leaf_count(grid, *part, counts, 1);
		return true;
	}
	leaf_count(grid, old, counts, 1);
	if (needed > 0)
		pool_pages_put(grid->pool, fresh, needed);
	return false;
}

bool leaf_write(const struct grid *grid, void **part, unsigned first, const struct sg *sg,
		struct cell_counts *counts)
{
	unsigned end = first + (unsigned)(sg->len >> (POOL_PAGE_SHIFT - grid->page_shift));
	struct range_of range = range_of(grid, first, end);
	const struct leaf *leaf = *part;

	if (is_mark(leaf) || (range.touched & (~leaf->data | leaf->mixed)))
		if (!leaf_make_data(grid, part, &range, counts))
			return false;
	leaf_copy(grid, *part, first, sg, copy_in);
	return true;
}

/* Clears the range; returns the pages that lose their memory by that. */
static uint64_t open_clear(const struct grid *grid, struct open_leaf *open,
			   const struct range_of *range, enum layer_state state)
{
	uint64_t had = open->data, edges = range->touched & ~range->whole;

	open->data &= ~range->whole;
	open->mixed &= ~range->whole;
	open->zeroes &= ~range->whole;
	if (state == LAYER_ZEROES)
		open->zeroes |= range->whole;
	while (edges) {
		unsigned page = set_pop(&edges);
		uint8_t cleared = cells_in(grid, page, range->first, range->end);
		struct page_cells cells = open_cells(grid, open, page);

		cells.data &= (uint8_t)~cleared;
		cells.zeroes &= (uint8_t)~cleared;
		if (state == LAYER_ZEROES)
			cells.zeroes |= cleared;
		open_set_cells(grid, open, page, cells);
	}
	return had & ~open->data;
}

bool leaf_clear(const struct grid *grid, void **part, unsigned first, unsigned end,
		enum layer_state state, struct cell_counts *counts)
{
	struct range_of range = range_of(grid, first, end);
	/* Of a page that goes on, the leaf only has to tell the cells apart now. */
	enum pool_limit limit = is_mark(*part) ? clear_limit(state) : POOL_BEYOND;
	struct cell_counts before = {0, 0};
	char *pages[LEAF_PAGES];
	struct open_leaf open;
	unsigned count = 0;
	uint64_t lost;

	leaf_count(grid, *part, &before, 1);
	leaf_open(*part, &open);
	lost = open_clear(grid, &open, &range, state);
	while (lost)
		pages[count++] = open.pages[set_pop(&lost)];
	if (!leaf_pack(grid, part, &open, limit))
		return false;
	if (count > 0)
		pool_pages_put(grid->pool, pages, count);
	leaf_count(grid, *part, counts, 1);
	counts->data -= before.data;
	counts->zeroes -= before.zeroes;
	return true;
}
