// SPDX-License-Identifier: MIT
/*
 * Writes, zeros, flushes: along the *write path*, the layers from the top that are written through
 * and the one below them. Mostly that is the top alone.
 *
 * Several layers are written one after another, the lowest first: so an upper one never has what is
 * not below it, and a reader who finds something there finds it again when the upper layer forgets
 * it. Each change has its range to itself, so that changes that overlap leave all the layers with
 * the same content, in whatever order they come.
 *
 * Where a layer fails, the range is dropped from all that are written through above it, and from
 * itself if it is one. If it was the lowest, the error is the request's. If not, all of the write
 * is below, where it is looked for from now on, and the request has succeeded: a cache that is full
 * is no reason to refuse a write. If the range cannot be dropped, the layers may differ: then the
 * request fails, in any case, and the log says so.
 *
 * To make zeros, a layer is told that it has zeros there (a tombstone), so that nothing from below
 * shines through. Beyond the end of what is below nothing could, and the sectors are dropped.
 */
#include "backends/layered/layered.h"
#include "core/task.h"

enum unmap_behaviour unmap_merge(enum unmap_behaviour upper, enum unmap_behaviour layer,
				 bool written_through)
{
	if (upper == UNMAP_ZEROES && layer == UNMAP_ZEROES)
		return UNMAP_ZEROES;
	/* What is not sure to be zeros would differ from layer to layer, and come and go. */
	if (written_through || upper == UNMAP_IGNORED || layer == UNMAP_IGNORED)
		return UNMAP_IGNORED;
	return UNMAP_UNSPECIFIED;
}

enum change_kind {
	CHANGE_WRITE,
	CHANGE_ZEROES,
	CHANGE_UNMAP,
};

struct change {
	enum change_kind kind;
	const struct sg *sg; /* of a write */
	uint64_t sector, count;
	unsigned flags;
};

/* ---- One layer. ---- */

/* The end of what may be seen through layer @index. */
static uint64_t end_below(const struct disk *disk, unsigned index)
{
	return index + 1 < disk->below_count ? layers_end(disk->below, index + 2) : 0;
}

/* Zeros in a layer; no data is kept of them, whatever the flags. */
static int zero_layer(struct disk *disk, unsigned index, const struct change *change)
{
	struct disk *layer = disk->below[index];
	uint64_t end = change->sector + change->count;
	uint64_t cut = max_u64(change->sector, min_u64(end_below(disk, index), end));
	int error = disk_write_zeroes(layer, change->sector, cut - change->sector,
				      change->flags | DISK_MAY_UNMAP);

	if (error || cut == end)
		return error;
	error = layer_drop(layer, cut, end - cut);
	return !error && (change->flags & DISK_FUA) ? disk_flush(layer) : error;
}

static int change_layer(struct disk *disk, unsigned index, const struct change *change)
{
	struct disk *layer = disk->below[index];

	if (change->kind == CHANGE_WRITE)
		return disk_write(layer, change->sg, change->sector, change->flags);
	if (disk_is_layer(layer))
		return zero_layer(disk, index, change);
	return change->kind == CHANGE_UNMAP
		       ? disk_unmap(layer, change->sector, change->count)
		       : disk_write_zeroes(layer, change->sector, change->count, change->flags);
}

/* ---- Several. ---- */

/* Layers 0 .. @last have nothing of the range afterwards. */
static int forget(struct disk *disk, unsigned last, const struct change *change)
{
	int result = 0;

	for (unsigned i = 0; i <= last; i++) {
		struct disk *layer = disk->below[i];
		int error = layer_drop(layer, change->sector, change->count);

		if (!error && (change->flags & DISK_FUA))
			error = disk_flush(layer);
		if (!result)
			result = error;
	}
	return result;
}

/* After layer @index has failed with @error. Returns what the request is to end with. */
static int recover(struct disk *disk, unsigned index, const struct change *change, int error)
{
	struct layered *layered = disk->state;
	bool is_lowest = index == layered->write_layers - 1;
	const char *name = disk->below[index]->name;
	char text[80];

	if (forget(disk, is_lowest ? index - 1 : index, change)) {
		log_limited(&layered->warnings, LOG_LEVEL_ERROR, disk->name,
			    "after an error of '%s' (%s) the layers above may differ from it in "
			    "%llu sectors from %llu",
			    name, error_describe(text, error), (unsigned long long)change->count,
			    (unsigned long long)change->sector);
		return error;
	}
	if (is_lowest)
		return error;
	log_limited(&layered->warnings, LOG_LEVEL_WARNING, disk->name,
		    "'%s' cannot keep what was written: %s", name, error_describe(text, error));
	atomic_fetch_add_explicit(&layered->layers[index].failed_bytes,
				  change->count << disk_sector_shift(disk), memory_order_relaxed);
	return 0;
}

static int change_several(struct disk *disk, const struct change *change)
{
	struct layered *layered = disk->state;
	struct range range;
	int error = 0;

	range_lock_hold(&layered->write_lock, &range, change->sector,
			change->sector + change->count, RANGE_EXCLUSIVE);
	for (unsigned i = layered->write_layers; i-- > 0;) {
		error = change_layer(disk, i, change);
		if (error) {
			error = recover(disk, i, change, error);
			break;
		}
	}
	fetches_stale(disk, change->sector, change->count);
	range_lock_release(&layered->write_lock, &range);
	return error;
}

static int change_layers(struct disk *disk, const struct change *change)
{
	return layered_writes_several(disk->state) ? change_several(disk, change)
						   : change_layer(disk, 0, change);
}

int layered_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	return change_layers(disk, &(struct change){
					   .kind = CHANGE_WRITE,
					   .sg = sg,
					   .sector = sector,
					   .count = sg->len >> disk_sector_shift(disk),
					   .flags = flags,
				   });
}

int layered_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	return change_layers(
		disk, &(struct change){.kind = CHANGE_UNMAP, .sector = sector, .count = count});
}

int layered_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	return change_layers(disk, &(struct change){
					   .kind = CHANGE_ZEROES,
					   .sector = sector,
					   .count = count,
					   .flags = flags,
				   });
}

/* ---- Flush. ---- */

static int flush_layer(void *argument)
{
	return disk_flush(argument);
}

struct cache_flush {
	struct disk *disk;
	unsigned index;
};

/* What a cache holds is below, too: losing it is no loss. */
static int flush_cache(void *argument)
{
	const struct cache_flush *flush = argument;
	struct layered *layered = flush->disk->state;
	struct disk *cache = flush->disk->below[flush->index];
	int error = disk_flush(cache);
	char text[80];

	if (error)
		log_limited(&layered->warnings, LOG_LEVEL_WARNING, flush->disk->name,
			    "the read cache '%s' cannot be flushed: %s", cache->name,
			    error_describe(text, error));
	return 0;
}

/* Every layer of the write path, and every cache, at the same time. */
static int flush_several(struct disk *disk)
{
	struct layered *layered = disk->state;
	struct cache_flush caches[LAYERS_MAX];
	struct task_group group = {0};

	for (unsigned i = 0; i < disk->below_count; i++) {
		caches[i] = (struct cache_flush){disk, i};
		if (i < layered->write_layers)
			task_group_start(&group, flush_layer, disk->below[i]);
		else if (layered->layers[i].read_cache)
			task_group_start(&group, flush_cache, &caches[i]);
	}
	return task_group_wait(&group);
}

int layered_flush(struct disk *disk)
{
	const struct layered *layered = disk->state;

	if (layered_writes_several(layered) || layered->caches_below)
		return flush_several(disk);
	return disk_flush(disk->below[0]);
}
