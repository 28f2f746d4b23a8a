// SPDX-License-Identifier: MIT
/*
 * The map is cut into leaves (leaf.h) of 256 KiB, which go round to SHARDS trees (tree.h): leaf i
 * is leaf i / SHARDS of tree i % SHARDS. So whatever follows one another, or is far apart, is
 * mostly in different trees, and a range of the map is one range of each tree.
 *
 * Each tree is guarded by a lock: shared to read, exclusive to change. It is held for a leaf's
 * content, or for a bounded piece of a range that is cleared. A sector lies in one leaf, so whoever
 * reads it finds it before or after a change. Writers are preferred: there may always be a reader.
 * Under these locks comes only the mutex of the pool (pool.h).
 *
 * Presence is counted in cells (leaf.h): sectors, or pages of sectors larger than those. All cells
 * of a sector are always in the same state.
 *
 * Nothing survives the process.
 */
#include "backends/sectors/sectors.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "backends/sectors/tree.h"

#define SHARDS 64U

/* That sectors_run() looks at one by one: leaves, of data. */
#define RUN_LEAVES 1024U

struct shard {
	_Alignas(64) struct tree tree; /* what every request looks at is in one cache line */
	pthread_rwlock_t lock;
};

struct sectors {
	struct shard shards[SHARDS];
	struct grid grid;
	unsigned cell_shift;   /* log2 of a cell's bytes */
	unsigned sector_shift; /* log2 of a sector's cells */
};

/* ---- Life. ---- */

static void lock_init(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attributes;

	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(lock, &attributes);
	pthread_rwlockattr_destroy(&attributes);
}

struct sectors *sectors_new(uint32_t sector_size, uint64_t limit)
{
	struct sectors *sectors = aligned_alloc(_Alignof(struct sectors), sizeof(*sectors));
	/* What is here at once counts, too. */
	uint64_t rest = limit - min_u64(limit, sizeof(*sectors));
	struct pool *pool = pool_new(limit > 0 ? max_u64(rest, 1) : 0);

	assert(is_power_of_two(sector_size) && sector_size >= 512 &&
	       sector_size <= GEOMETRY_SECTOR_MAX);
	if (!sectors || !pool) {
		free(sectors);
		pool_free(pool);
		return NULL;
	}
	sectors->cell_shift = log2_of(min_u64(sector_size, POOL_PAGE));
	sectors->sector_shift = log2_of(sector_size) - sectors->cell_shift;
	sectors->grid = (struct grid){
		.pool = pool,
		.page_shift = log2_of(POOL_PAGE) - sectors->cell_shift,
	};
	for (unsigned i = 0; i < SHARDS; i++) {
		lock_init(&sectors->shards[i].lock);
		sectors->shards[i].tree = (struct tree){.root = MARK_ABSENT};
	}
	return sectors;
}

void sectors_free(struct sectors *sectors)
{
	if (!sectors)
		return;
	/* The trees go with their memory. */
	pool_free(sectors->grid.pool);
	for (unsigned i = 0; i < SHARDS; i++)
		pthread_rwlock_destroy(&sectors->shards[i].lock);
	free(sectors);
}

/* ---- Places. ---- */

/* The leaf of the map that has @cell, and which of its cells that is. */
static uint64_t leaf_of(const struct sectors *sectors, uint64_t cell)
{
	return cell >> leaf_shift(&sectors->grid);
}

static unsigned place_in_leaf(const struct sectors *sectors, uint64_t cell)
{
	return (unsigned)cell & (leaf_cells(&sectors->grid) - 1);
}

/* The cells of the map before @cell that are in this shard: as a cell of the shard, the first that
 * is not before @cell. */
static uint64_t shard_cell(const struct sectors *sectors, unsigned shard, uint64_t cell)
{
	uint64_t leaf = leaf_of(sectors, cell);
	uint64_t before = (leaf + SHARDS - 1 - shard) / SHARDS << leaf_shift(&sectors->grid);

	return leaf % SHARDS == shard ? before + place_in_leaf(sectors, cell) : before;
}

/* The cell of the map that is cell @cell of the shard. */
static uint64_t map_cell(const struct sectors *sectors, unsigned shard, uint64_t cell)
{
	uint64_t leaf = leaf_of(sectors, cell) * SHARDS + shard;

	return (leaf << leaf_shift(&sectors->grid)) + place_in_leaf(sectors, cell);
}

/* A request, cut into pieces of a leaf at most. */
struct walk {
	uint64_t cell, end; /* what is left, of the map */
	struct sg rest;
};

struct piece {
	struct shard *shard;
	uint64_t cell; /* of the map */
	uint64_t key;  /* of the leaf, in the shard's tree */
	unsigned first, end;
	struct sg sg;
};

static struct walk walk_begin(const struct sectors *sectors, const struct sg *sg, uint64_t sector)
{
	uint64_t cell = sector << sectors->sector_shift;

	return (struct walk){
		.cell = cell,
		.end = cell + (sg->len >> sectors->cell_shift),
		.rest = *sg,
	};
}

static bool walk_next(struct sectors *sectors, struct walk *walk, struct piece *piece)
{
	uint64_t leaf = leaf_of(sectors, walk->cell);

	if (walk->cell == walk->end)
		return false;
	piece->shard = &sectors->shards[leaf % SHARDS];
	piece->cell = walk->cell;
	piece->key = leaf / SHARDS;
	piece->first = place_in_leaf(sectors, walk->cell);
	piece->end = (unsigned)min_u64(leaf_cells(&sectors->grid),
				       piece->first + (walk->end - walk->cell));
	piece->sg =
		sg_take(&walk->rest, (size_t)(piece->end - piece->first) << sectors->cell_shift);
	walk->cell += piece->end - piece->first;
	return true;
}

/* ---- Reading. ---- */

/* Of @part, from cell @first of a leaf: the state, and in *end where it may change. */
static enum layer_state part_state(const struct grid *grid, const void *part, unsigned first,
				   unsigned limit, unsigned *end)
{
	if (!is_mark(part))
		return leaf_state(grid, part, first, limit, end);
	*end = limit;
	return mark_state(part);
}

/* Notes @count cells from @cell as absent; false: the list is full. */
static bool gaps_add(const struct sectors *sectors, struct layer_gaps *gaps, uint64_t cell,
		     uint64_t count)
{
	uint64_t sector = cell >> sectors->sector_shift;
	struct layer_gap *last = gaps->count > 0 ? &gaps->gaps[gaps->count - 1] : NULL;

	count >>= sectors->sector_shift;
	if (last && last->sector + last->count == sector) {
		last->count += count;
		return true;
	}
	if (gaps->count == LAYER_GAPS_MAX)
		return false;
	gaps->gaps[gaps->count++] = (struct layer_gap){.sector = sector, .count = count};
	return true;
}

/* Answers the piece from the part where it lies; false: the list is full. */
static bool read_piece(const struct sectors *sectors, const struct piece *piece, const void *part,
		       struct layer_gaps *gaps)
{
	const struct grid *grid = &sectors->grid;
	struct sg rest = piece->sg;
	unsigned end;

	for (unsigned at = piece->first; at < piece->end; at = end) {
		enum layer_state state = part_state(grid, part, at, piece->end, &end);
		struct sg now = sg_take(&rest, (size_t)(end - at) << sectors->cell_shift);

		if (state == LAYER_DATA)
			leaf_read(grid, part, at, &now);
		else if (state == LAYER_ZEROES)
			sg_zero(&now);
		else if (!gaps_add(sectors, gaps, piece->cell + (at - piece->first), end - at))
			return false;
		gaps->answered += (end - at) >> sectors->sector_shift;
	}
	return true;
}

void sectors_read(struct sectors *sectors, const struct sg *sg, uint64_t sector,
		  struct layer_gaps *gaps)
{
	struct walk walk = walk_begin(sectors, sg, sector);
	struct piece piece;
	bool has_room = true;

	gaps->count = 0;
	gaps->answered = 0;
	while (has_room && walk_next(sectors, &walk, &piece)) {
		pthread_rwlock_rdlock(&piece.shard->lock);
		has_room =
			read_piece(sectors, &piece, tree_find(&piece.shard->tree, piece.key), gaps);
		pthread_rwlock_unlock(&piece.shard->lock);
	}
}

/* ---- Writing. ---- */

int sectors_write(struct sectors *sectors, const struct sg *sg, uint64_t sector)
{
	struct walk walk = walk_begin(sectors, sg, sector);
	struct piece piece;
	bool done = true;

	while (done && walk_next(sectors, &walk, &piece)) {
		pthread_rwlock_wrlock(&piece.shard->lock);
		done = tree_write(&sectors->grid, &piece.shard->tree, piece.key, piece.first,
				  &piece.sg);
		pthread_rwlock_unlock(&piece.shard->lock);
	}
	return done ? 0 : error_io(ENOSPC);
}

/* Writes what of the piece is absent, a run at a time. */
static bool populate_piece(const struct sectors *sectors, const struct piece *piece)
{
	struct tree *tree = &piece->shard->tree;
	bool done = true;
	unsigned end;

	for (unsigned at = piece->first; done && at < piece->end; at = end) {
		const void *part = tree_find(tree, piece->key);
		size_t skip = (size_t)(at - piece->first) << sectors->cell_shift;
		struct sg now;

		if (part_state(&sectors->grid, part, at, piece->end, &end) != LAYER_ABSENT)
			continue;
		now = sg_slice(&piece->sg, skip, (size_t)(end - at) << sectors->cell_shift);
		done = tree_write(&sectors->grid, tree, piece->key, at, &now);
	}
	return done;
}

int sectors_populate(struct sectors *sectors, const struct sg *sg, uint64_t sector)
{
	struct walk walk = walk_begin(sectors, sg, sector);
	struct piece piece;
	bool done = true;

	while (done && walk_next(sectors, &walk, &piece)) {
		pthread_rwlock_wrlock(&piece.shard->lock);
		done = populate_piece(sectors, &piece);
		pthread_rwlock_unlock(&piece.shard->lock);
	}
	return done ? 0 : error_io(ENOSPC);
}

/* ---- Clearing. ---- */

int sectors_clear_some(struct sectors *sectors, struct sectors_clear *clear)
{
	uint64_t cell = clear->sector << sectors->sector_shift;
	uint64_t end = (clear->sector + clear->count) << sectors->sector_shift;
	unsigned index = clear->done.shards;
	enum tree_result result = TREE_DONE;

	if (index == SHARDS)
		return pool_trim(sectors->grid.pool);

	struct shard *shard = &sectors->shards[index];
	struct tree_clear part = {
		.first = max_u64(shard_cell(sectors, index, cell), clear->done.cells),
		.end = shard_cell(sectors, index, end),
		.state = clear->state,
	};

	if (part.first < part.end) {
		pthread_rwlock_wrlock(&shard->lock);
		result = tree_clear(&sectors->grid, &shard->tree, &part);
		pthread_rwlock_unlock(&shard->lock);
	}
	if (result == TREE_FULL)
		return error_io(ENOSPC);
	clear->done.cells = result == TREE_MORE ? part.first : 0;
	clear->done.shards += result == TREE_DONE;
	return clear->done.shards < SHARDS || pool_wants_trim(sectors->grid.pool);
}

static int clear_all(struct sectors *sectors, struct sectors_clear clear)
{
	int result;

	do
		result = sectors_clear_some(sectors, &clear);
	while (result > 0);
	return result;
}

int sectors_zero(struct sectors *sectors, uint64_t sector, uint64_t count)
{
	return clear_all(sectors, (struct sectors_clear){
					  .sector = sector,
					  .count = count,
					  .state = LAYER_ZEROES,
				  });
}

int sectors_drop(struct sectors *sectors, uint64_t sector, uint64_t count)
{
	return clear_all(sectors, (struct sectors_clear){
					  .sector = sector,
					  .count = count,
					  .state = LAYER_ABSENT,
				  });
}

/* ---- Runs. ---- */

/* The state at @cell, and in *run_end how far it goes in the same leaf, or to @end. */
static enum layer_state leaf_run(struct sectors *sectors, uint64_t cell, uint64_t end,
				 uint64_t *run_end)
{
	uint64_t leaf = leaf_of(sectors, cell);
	struct shard *shard = &sectors->shards[leaf % SHARDS];
	unsigned first = place_in_leaf(sectors, cell), to, next;
	unsigned limit = (unsigned)min_u64(leaf_cells(&sectors->grid), first + (end - cell));
	enum layer_state state;
	const void *part;

	pthread_rwlock_rdlock(&shard->lock);
	part = tree_find(&shard->tree, leaf / SHARDS);
	state = part_state(&sectors->grid, part, first, limit, &next);
	do
		to = next;
	while (to < limit && part_state(&sectors->grid, part, to, limit, &next) == state);
	pthread_rwlock_unlock(&shard->lock);
	*run_end = cell + (to - first);
	return state;
}

/* How far the cells from @cell are data. */
static uint64_t data_end(struct sectors *sectors, uint64_t cell, uint64_t end)
{
	unsigned leaves = 0;
	uint64_t found;

	while (cell < end && leaves++ < RUN_LEAVES) {
		if (leaf_run(sectors, cell, end, &found) != LAYER_DATA)
			break;
		cell = found;
		if (place_in_leaf(sectors, cell) != 0)
			break;
	}
	return cell;
}

/* How far they are in another state: the nearest end that a tree has. */
static uint64_t same_end(struct sectors *sectors, uint64_t cell, uint64_t end,
			 enum layer_state state)
{
	uint64_t leaf = leaf_of(sectors, cell);

	for (unsigned i = 0; i < SHARDS && leaf + i <= leaf_of(sectors, end - 1); i++) {
		unsigned index = (unsigned)((leaf + i) % SHARDS);
		struct shard *shard = &sectors->shards[index];
		uint64_t first = shard_cell(sectors, index, cell), found;
		uint64_t to = shard_cell(sectors, index, end);

		pthread_rwlock_rdlock(&shard->lock);
		found = tree_run_end(&sectors->grid, &shard->tree, first, to, state);
		pthread_rwlock_unlock(&shard->lock);
		if (found < to)
			end = map_cell(sectors, index, found);
	}
	return end;
}

void sectors_run(struct sectors *sectors, uint64_t sector, uint64_t count, struct layer_run *run)
{
	uint64_t cell = sector << sectors->sector_shift;
	uint64_t limit = (sector + count) << sectors->sector_shift, end;
	enum layer_state state = leaf_run(sectors, cell, limit, &end);

	/* Where it goes on beyond the leaf: as of now, when others may have changed it. */
	if (end < limit && place_in_leaf(sectors, end) == 0)
		end = state == LAYER_DATA ? data_end(sectors, end, limit)
					  : same_end(sectors, end, limit, state);
	*run = (struct layer_run){
		.state = state,
		.count = (end - cell) >> sectors->sector_shift,
	};
}

/* ---- Counts. ---- */

void sectors_memory(const struct sectors *sectors, struct sectors_memory *memory)
{
	struct pool_usage usage;

	pool_usage(sectors->grid.pool, &usage);
	memory->data = usage.data;
	memory->index = usage.other + sizeof(*sectors);
}

void sectors_present(struct sectors *sectors, struct sectors_present *present)
{
	*present = (struct sectors_present){0, 0};
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *shard = &sectors->shards[i];

		pthread_rwlock_rdlock(&shard->lock);
		present->data += shard->tree.counts.data >> sectors->sector_shift;
		present->zeroes += shard->tree.counts.zeroes >> sectors->sector_shift;
		pthread_rwlock_unlock(&shard->lock);
	}
}
