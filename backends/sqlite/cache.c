// SPDX-License-Identifier: MIT
/*
 * What a cache with a limit forgets. The disk is cut into ranges. Each has a count of uses, in
 * memory only: reads and writes raise it, up to USES_MAX. A hand goes round over the ranges that
 * have rows; where it finds a count it lowers it, where it finds none it forgets the range (CLOCK
 * with counts, after Corbató, "A Paging Experiment with the Multics System"). So what is used stays,
 * about as with LRU, and no read writes anything.
 *
 * Uses that follow one another closely are one: else whatever is read or written once, but piece by
 * piece, would seem to be used often. What is close is measured in what is new in the cache: an
 * *epoch* is a part of the limit.
 *
 * It happens in the transaction that needs the room. What lies in a batch is not forgotten.
 *
 * Only what is below as well may be forgotten: never that of a layer which may hold something of its
 * own.
 */
#include <errno.h>
#include <stdlib.h>
#include "backends/sqlite/sqlite.h"

/* A range is of this size, or larger, so that there are at most RANGES_MAX. */
#define RANGE_MIN  (256 * KIB)
#define RANGES_MAX ((uint64_t)1 << 24)

/* What is kept of a range: uses, and the epoch of the last, as far as there are bits. */
#define USES_MAX   3U
#define EPOCH_MASK 0xfcU
#define EPOCH_STEP 4U

/* Epochs in the time that it takes to fill the cache. */
#define EPOCHS 16

/* Ranges that one search spares because they are used; then it takes what comes. */
#define SPARED_MAX 4096

/* A part of the limit that is made room for at a time, beyond what is needed. */
#define SLACK 64

int cache_init(struct cache *cache, uint64_t limit, unsigned sector_shift, uint64_t sector_count)
{
	unsigned shift = log2_of(RANGE_MIN) - sector_shift;

	while ((sector_count - 1) >> shift >= RANGES_MAX)
		shift++;
	cache->limit = limit;
	cache->shift = shift;
	cache->range_count = ((sector_count - 1) >> shift) + 1;
	cache->uses = calloc(cache->range_count, 1);
	return cache->uses ? 0 : -ENOMEM;
}

void cache_destroy(struct cache *cache)
{
	free(cache->uses);
	cache->uses = NULL;
}

void cache_use(struct cache *cache, uint64_t sector, uint64_t count)
{
	unsigned epoch;

	if (!cache->uses)
		return;
	epoch = atomic_load_explicit(&cache->epoch, memory_order_relaxed) & EPOCH_MASK;
	for (uint64_t i = sector >> cache->shift; i <= (sector + count - 1) >> cache->shift; i++) {
		unsigned use = atomic_load_explicit(&cache->uses[i], memory_order_relaxed);
		unsigned uses = use & USES_MAX;

		if ((use & EPOCH_MASK) == epoch && uses > 0)
			continue;
		/* One that is lost does no harm. */
		atomic_store_explicit(&cache->uses[i],
				      (uint8_t)(epoch | min_u64(uses + 1, USES_MAX)),
				      memory_order_relaxed);
	}
}

/* Whether the range is to be spared this time. */
static bool is_used(struct cache *cache, uint64_t range)
{
	unsigned use = atomic_load_explicit(&cache->uses[range], memory_order_relaxed);

	if ((use & USES_MAX) == 0)
		return false;
	atomic_store_explicit(&cache->uses[range], (uint8_t)(use - 1), memory_order_relaxed);
	return true;
}

/* @bytes more are new in the cache. */
static void count_epoch(struct cache *cache, uint64_t bytes)
{
	cache->fresh += bytes;
	if (cache->fresh < cache->limit / EPOCHS)
		return;
	cache->fresh = 0;
	atomic_fetch_add_explicit(&cache->epoch, EPOCH_STEP, memory_order_relaxed);
}

/* The next range with rows to be forgotten; *found is false where there are no rows. */
static int next_victim(struct sqlite *sqlite, uint64_t *range, bool *found)
{
	struct cache *cache = &sqlite->cache;
	unsigned spared = 0;

	for (;;) {
		uint64_t from = cache->hand << cache->shift, first;
		int error = runs_first(&sqlite->writer, from, &first, found);

		if (error)
			return error;
		if (!*found && cache->hand == 0)
			return 0;
		if (!*found) {
			cache->hand = 0;
			continue;
		}
		*range = first >> cache->shift;
		if (*range >= cache->range_count) {
			*found = false; /* of a damaged file */
			return 0;
		}
		cache->hand = *range + 1;
		if (spared == SPARED_MAX || !is_used(cache, *range))
			return 0;
		spared++;
	}
}

static int forget(struct sqlite *sqlite, uint64_t range)
{
	struct cache *cache = &sqlite->cache;
	uint64_t at = range << cache->shift;
	uint64_t end = min_u64((range + 1) << cache->shift, sqlite->file.sector_count);
	uint64_t before = sqlite->writer.totals.data_sectors;
	int error = 0;

	while (!error && at < end)
		error = runs_clear(&sqlite->writer, at, end, &at);
	if (!error)
		atomic_fetch_add(&cache->evicted_bytes,
				 (before - sqlite->writer.totals.data_sectors)
					 << sqlite->file.shift);
	return error;
}

int cache_evict(struct sqlite *sqlite, uint64_t bytes)
{
	struct cache *cache = &sqlite->cache;
	const uint64_t *data = &sqlite->writer.totals.data_sectors;
	unsigned shift = sqlite->file.shift;
	uint64_t room, range = 0;
	bool found = true;
	int error = 0;

	if (!cache->uses || atomic_load(&sqlite->own))
		return 0;
	count_epoch(cache, bytes);
	if ((*data << shift) + bytes <= cache->limit)
		return 0;
	room = min_u64(bytes + cache->limit / SLACK, cache->limit);
	while (!error && found && (*data << shift) > cache->limit - room) {
		error = next_victim(sqlite, &range, &found);
		if (!error && found)
			error = forget(sqlite, range);
	}
	return error;
}
