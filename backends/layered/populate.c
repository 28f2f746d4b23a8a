// SPDX-License-Identifier: MIT
/*
 * Caches: what was read from below is put into them.
 *
 * A population is a copy in a buffer and a task that puts it there; nobody waits for it. At most
 * POPULATIONS_MAX of a disk are under way: beyond that what was read is not kept. One that fails is
 * counted and warned of, and changes nothing else: the cache just does not have it.
 *
 * Never does older data replace newer. A population only takes sectors that the cache does not
 * have, so one that comes after a write loses. That is not enough where the cache may forget what
 * was written, and what is below is written, too: in a cache that is written through. There each
 * read from below, with the population that comes of it, is a *fetch*. A change of several layers
 * locks its range; at its end, with the range still locked, it marks the fetches that overlap as
 * stale. A population locks its range, then looks at the mark. So either it is done before the
 * change begins, which then overwrites it; or it sees the mark; or its read began when the change
 * was complete, and has seen it. Other caches have no fetches: what is below them does not change.
 */
#include <errno.h>
#include "backends/layered/layered.h"
#include "core/buffer.h"
#include "core/task.h"

void populations_init(struct populations *populations)
{
	pthread_mutex_init(&populations->guard, NULL);
}

void populations_end(struct populations *populations)
{
	unsigned in_flight;

	do {
		pthread_mutex_lock(&populations->guard);
		in_flight = populations->in_flight;
		pthread_mutex_unlock(&populations->guard);
		if (in_flight > 0)
			task_sleep_ns(NS_PER_S / 1000);
	} while (in_flight > 0);
	pthread_mutex_destroy(&populations->guard);
}

bool layer_is_populated(const struct disk *disk, unsigned index)
{
	const struct layered *layered = disk->state;

	return layered->layers[index].read_cache &&
	       !(disk->below[index]->open_flags & (DISK_OPEN_READ_ONLY | DISK_OPEN_CHECK));
}

/* ---- Fetches. ---- */

/* Whether what is below the cache may change. */
static bool has_fetches(const struct disk *disk, unsigned index)
{
	const struct layered *layered = disk->state;

	return index + 1 < layered->write_layers;
}

/* With the guard locked. */
static void fetch_link(struct populations *populations, struct fetch *fetch)
{
	fetch->next = populations->fetches;
	fetch->link = &populations->fetches;
	if (fetch->next)
		fetch->next->link = &fetch->next;
	populations->fetches = fetch;
}

void fetch_begin(struct disk *disk, unsigned index, struct fetch *fetch, uint64_t sector,
		 uint64_t count)
{
	struct populations *populations = &((struct layered *)disk->state)->populations;

	*fetch = (struct fetch){.first = sector, .end = sector + count};
	if (!has_fetches(disk, index))
		return;
	pthread_mutex_lock(&populations->guard);
	fetch_link(populations, fetch);
	pthread_mutex_unlock(&populations->guard);
}

void fetch_end(struct disk *disk, unsigned index, struct fetch *fetch)
{
	struct populations *populations = &((struct layered *)disk->state)->populations;

	if (!has_fetches(disk, index))
		return;
	pthread_mutex_lock(&populations->guard);
	*fetch->link = fetch->next;
	if (fetch->next)
		fetch->next->link = fetch->link;
	pthread_mutex_unlock(&populations->guard);
}

void fetches_stale(struct disk *disk, uint64_t sector, uint64_t count)
{
	struct populations *populations = &((struct layered *)disk->state)->populations;

	pthread_mutex_lock(&populations->guard);
	for (struct fetch *fetch = populations->fetches; fetch; fetch = fetch->next)
		if (fetch->first < sector + count && sector < fetch->end)
			fetch->stale = true;
	pthread_mutex_unlock(&populations->guard);
}

static bool fetch_is_stale(struct populations *populations, const struct fetch *fetch)
{
	bool stale;

	pthread_mutex_lock(&populations->guard);
	stale = fetch->stale;
	pthread_mutex_unlock(&populations->guard);
	return stale;
}

/* ---- Populating. ---- */

static void count_skipped(struct disk *disk, unsigned index, uint64_t bytes)
{
	struct layered *layered = disk->state;

	atomic_fetch_add_explicit(&layered->layers[index].skipped_bytes, bytes,
				  memory_order_relaxed);
}

static void count_end(struct disk *disk, unsigned index, uint64_t bytes, int error)
{
	struct layered *layered = disk->state;
	struct layered_layer *layer = &layered->layers[index];
	char text[80];

	atomic_fetch_add_explicit(error ? &layer->failed_bytes : &layer->populated_bytes, bytes,
				  memory_order_relaxed);
	if (error)
		log_limited(&layered->warnings, LOG_LEVEL_WARNING, disk->name,
			    "the read cache '%s' cannot keep what was read: %s",
			    disk->below[index]->name, error_describe(text, error));
}

int populate_now(struct disk *disk, unsigned index, const struct sg *sg, uint64_t sector,
		 const struct fetch *fetch)
{
	struct layered *layered = disk->state;
	struct disk *cache = disk->below[index];
	bool locks = has_fetches(disk, index);
	struct range range;
	int error = 0;

	if (locks)
		range_lock_hold(&layered->write_lock, &range, sector,
				sector + (sg->len >> disk_sector_shift(cache)), RANGE_SHARED);
	if (locks && fetch_is_stale(&layered->populations, fetch)) {
		count_skipped(disk, index, sg->len);
	} else {
		error = layer_populate(cache, sg, sector);
		count_end(disk, index, sg->len, error);
	}
	if (locks)
		range_lock_release(&layered->write_lock, &range);
	return error;
}

/* In the header of its buffer, the data behind it. */
struct population {
	struct disk *disk;
	unsigned index;
	uint64_t sector;
	size_t length;
	struct fetch fetch;
};

_Static_assert(sizeof(struct population) <= BUFFER_HEADER, "fits in front of the data");

/* Counts one more, unless there are too many. */
static bool population_admit(struct populations *populations)
{
	bool admitted;

	pthread_mutex_lock(&populations->guard);
	admitted = populations->in_flight < POPULATIONS_MAX;
	populations->in_flight += admitted;
	pthread_mutex_unlock(&populations->guard);
	return admitted;
}

static void population_leave(struct populations *populations)
{
	pthread_mutex_lock(&populations->guard);
	populations->in_flight--;
	pthread_mutex_unlock(&populations->guard);
}

static void population_end(struct population *population)
{
	struct disk *disk = population->disk;
	struct layered *layered = disk->state;

	fetch_end(disk, population->index, &population->fetch);
	buffer_put(population);
	population_leave(&layered->populations);
}

static void population_run(void *argument)
{
	struct population *population = argument;
	struct iovec iov;
	struct sg sg = sg_of(&iov, (char *)argument + BUFFER_HEADER, population->length);

	/* Whoever has read this answers first. */
	task_yield();
	populate_now(population->disk, population->index, &sg, population->sector,
		     &population->fetch);
	population_end(population);
}

/* Starts one; false where there is no room for it. */
static bool population_start(struct disk *disk, unsigned index, const struct sg *sg,
			     uint64_t sector, const struct fetch *fetch)
{
	struct layered *layered = disk->state;
	struct population *population;
	uint64_t count = sg->len >> disk_sector_shift(disk->below[index]);

	if (!population_admit(&layered->populations))
		return false;
	population = buffer_get();
	if (!population) {
		population_leave(&layered->populations);
		return false;
	}
	*population = (struct population){
		.disk = disk, .index = index, .sector = sector, .length = sg->len};
	sg_copy_to(sg, (char *)population + BUFFER_HEADER);
	/* From here on a change that comes is seen by this one; one that came, by that of the read. */
	fetch_begin(disk, index, &population->fetch, sector, count);
	if (!fetch_is_stale(&layered->populations, fetch) &&
	    task_start(population_run, population) == 0)
		return true;
	population_end(population);
	return false;
}

void populate(struct disk *disk, unsigned index, const struct sg *sg, uint64_t sector,
	      const struct fetch *fetch)
{
	unsigned shift = disk_sector_shift(disk->below[index]);

	for (size_t done = 0; done < sg->len;) {
		size_t length = min_u64(sg->len - done, buffer_payload());
		struct sg part = sg_slice(sg, done, length);

		if (!population_start(disk, index, &part, sector + (done >> shift), fetch))
			count_skipped(disk, index, length);
		done += length;
	}
}
