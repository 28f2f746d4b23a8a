// SPDX-License-Identifier: MIT
#include "backends/sqlite/pending.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Batches. ---- */

static void batch_free(struct batch *batch)
{
	if (!batch)
		return;
	sectors_free(batch->sectors);
	sectors_free(batch->dropped);
	free(batch->changes);
	free(batch);
}

static struct batch *batch_new(const struct pending *pending, uint64_t number)
{
	struct batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return NULL;
	batch->number = number;
	batch->references = 1;
	batch->sectors = sectors_new(pending->sector_size, 0);
	if (!batch->sectors) {
		batch_free(batch);
		return NULL;
	}
	return batch;
}

int pending_init(struct pending *pending, uint32_t sector_size, uint64_t batch_memory)
{
	*pending = (struct pending){.sector_size = sector_size, .batch_memory = batch_memory};
	pending->active = batch_new(pending, 1);
	if (!pending->active)
		return -ENOMEM;
	pthread_mutex_init(&pending->guard, NULL);
	pthread_cond_init(&pending->left, NULL);
	return 0;
}

void pending_destroy(struct pending *pending)
{
	if (!pending->active)
		return;
	batch_free(pending->active);
	batch_free(pending->sealed);
	pthread_cond_destroy(&pending->left);
	pthread_mutex_destroy(&pending->guard);
	pending->active = NULL;
}

/* With the guard held: what is returned is to be freed without it. */
static struct batch *batch_put(struct batch *batch)
{
	return --batch->references == 0 ? batch : NULL;
}

void pending_hold(struct pending *pending, struct batches *batches)
{
	pthread_mutex_lock(&pending->guard);
	batches->batches[0] = pending->active;
	batches->batches[1] = pending->sealed;
	batches->count = pending->sealed ? 2 : 1;
	for (unsigned i = 0; i < batches->count; i++)
		batches->batches[i]->references++;
	pthread_mutex_unlock(&pending->guard);
}

void pending_release(struct pending *pending, struct batches *batches)
{
	struct batch *unused[2];

	pthread_mutex_lock(&pending->guard);
	for (unsigned i = 0; i < batches->count; i++)
		unused[i] = batch_put(batches->batches[i]);
	pthread_mutex_unlock(&pending->guard);
	for (unsigned i = 0; i < batches->count; i++)
		batch_free(unused[i]);
}

/* ---- Changes. ---- */

/* Makes room for the change of each who is inside, with the guard held. False: there is none. */
static bool changes_reserve(struct batch *batch)
{
	unsigned wanted = batch->change_count + batch->writers + 1;
	unsigned room = batch->change_room ? 2 * batch->change_room : 16;
	struct layer_gap *changes;

	if (wanted <= batch->change_room)
		return true;
	while (room < wanted)
		room *= 2;
	changes = realloc(batch->changes, room * sizeof(*changes));
	if (!changes)
		return false;
	batch->changes = changes;
	batch->change_room = room;
	return true;
}

/* With the guard held. */
static bool batch_enter(struct batch *batch)
{
	if (batch->full || !changes_reserve(batch))
		return false;
	batch->writers++;
	return true;
}

struct batch *pending_enter(struct pending *pending, bool *full)
{
	struct batch *batch;

	pthread_mutex_lock(&pending->guard);
	batch = pending->active;
	*full = batch->full;
	if (!batch_enter(batch))
		batch = NULL;
	pthread_mutex_unlock(&pending->guard);
	return batch;
}

struct batch *pending_enter_same(struct pending *pending, uint64_t number)
{
	struct batch *batch;

	pthread_mutex_lock(&pending->guard);
	batch = pending->active;
	if (batch->number != number || !batch_enter(batch))
		batch = NULL;
	pthread_mutex_unlock(&pending->guard);
	return batch;
}

static uint64_t memory_of(struct sectors *sectors, uint64_t *data)
{
	struct sectors_memory memory = {0};

	if (sectors)
		sectors_memory(sectors, &memory);
	*data = memory.data;
	return memory.data + memory.index;
}

/* With the guard held. */
static void batch_note(struct batch *batch, uint64_t sector, uint64_t count)
{
	struct layer_gap *last =
		batch->change_count > 0 ? &batch->changes[batch->change_count - 1] : NULL;

	/* Sequential writes are one change, and so is one that is repeated. */
	if (last && sector >= last->sector && sector <= last->sector + last->count)
		last->count = max_u64(last->count, sector + count - last->sector);
	else
		batch->changes[batch->change_count++] = (struct layer_gap){sector, count};
}

bool pending_leave(struct pending *pending, struct batch *batch, uint64_t sector, uint64_t count)
{
	uint64_t data, dropped_data;
	uint64_t memory = memory_of(batch->sectors, &data);
	bool full;

	memory += memory_of(batch->dropped, &dropped_data);
	pthread_mutex_lock(&pending->guard);
	batch_note(batch, sector, count);
	batch->memory = memory;
	batch->data_bytes = data;
	if (memory >= pending->batch_memory || batch->change_count >= CHANGES_MAX)
		batch->full = true;
	full = batch->full;
	pending->changes++;
	if (--batch->writers == 0)
		pthread_cond_broadcast(&pending->left);
	pthread_mutex_unlock(&pending->guard);
	return full;
}

/* The map of what is dropped; several may want to be the first to make it. */
static struct sectors *dropped_map(struct batch *batch)
{
	struct sectors *map = batch->dropped, *made;

	if (map)
		return map;
	made = sectors_new(512, 0);
	if (!made || atomic_compare_exchange_strong(&batch->dropped, &map, made))
		return made;
	sectors_free(made);
	return map;
}

int batch_drop(struct batch *batch, uint64_t sector, uint64_t count)
{
	struct sectors *dropped = dropped_map(batch);
	int error = dropped ? sectors_zero(dropped, sector, count) : error_io(ENOMEM);

	return error ? error : sectors_drop(batch->sectors, sector, count);
}

/* ---- Reading. ---- */

static void look(struct sectors *sectors, uint64_t sector, uint64_t count, struct layer_gaps *gaps)
{
	struct layer_run run;

	gaps->count = 0;
	for (gaps->answered = 0; gaps->answered < count; gaps->answered += run.count) {
		uint64_t at = sector + gaps->answered;
		struct layer_gap *last = gaps->count > 0 ? &gaps->gaps[gaps->count - 1] : NULL;

		sectors_run(sectors, at, count - gaps->answered, &run);
		if (run.state != LAYER_ABSENT)
			continue;
		if (last && last->sector + last->count == at)
			last->count += run.count;
		else if (gaps->count == LAYER_GAPS_MAX)
			return;
		else
			gaps->gaps[gaps->count++] = (struct layer_gap){at, run.count};
	}
}

void batch_read(const struct batch *batch, const struct sg *sg, unsigned shift, uint64_t sector,
		uint64_t count, struct layer_gaps *gaps)
{
	assert(!sg || sg->len >> shift == count);
	if (sg)
		sectors_read(batch->sectors, sg, sector, gaps);
	else
		look(batch->sectors, sector, count, gaps);
}

bool batch_is_dropped(const struct batch *batch, uint64_t sector, uint64_t *count)
{
	struct sectors *dropped = batch->dropped;
	struct layer_run run;

	if (!dropped)
		return false;
	sectors_run(dropped, sector, *count, &run);
	*count = run.count;
	return run.state != LAYER_ABSENT;
}

/* ---- Committing. ---- */

/* With the guard held. */
static bool has_changes(const struct batch *batch)
{
	return batch->change_count > 0 || batch->writers > 0;
}

int pending_seal(struct pending *pending)
{
	struct batch *fresh = NULL;
	bool wanted;

	pthread_mutex_lock(&pending->guard);
	wanted = !pending->sealed && has_changes(pending->active);
	pthread_mutex_unlock(&pending->guard);
	if (!wanted)
		return 0;
	/* Nobody else seals meanwhile: see commit.c. */
	fresh = batch_new(pending, pending->active->number + 1);
	if (!fresh)
		return -ENOMEM;
	pthread_mutex_lock(&pending->guard);
	pending->sealed = pending->active;
	pending->active = fresh;
	pthread_mutex_unlock(&pending->guard);
	return 0;
}

struct batch *pending_sealed(struct pending *pending)
{
	struct batch *batch;

	pthread_mutex_lock(&pending->guard);
	batch = pending->sealed;
	while (batch && batch->writers > 0)
		pthread_cond_wait(&pending->left, &pending->guard);
	pthread_mutex_unlock(&pending->guard);
	return batch;
}

static int compare_changes(const void *a, const void *b)
{
	const struct layer_gap *left = a, *right = b;

	return left->sector < right->sector ? -1 : left->sector > right->sector;
}

void batch_join_changes(struct batch *batch)
{
	unsigned kept = 0;

	if (batch->change_count > 0)
		qsort(batch->changes, batch->change_count, sizeof(*batch->changes),
		      compare_changes);
	for (unsigned i = 0; i < batch->change_count; i++) {
		const struct layer_gap *change = &batch->changes[i];
		struct layer_gap *last = kept > 0 ? &batch->changes[kept - 1] : NULL;

		if (last && change->sector <= last->sector + last->count)
			last->count =
				max_u64(last->count, change->sector + change->count - last->sector);
		else
			batch->changes[kept++] = *change;
	}
	batch->change_count = kept;
}

void pending_committed(struct pending *pending)
{
	struct batch *unused;

	pthread_mutex_lock(&pending->guard);
	unused = batch_put(pending->sealed);
	pending->sealed = NULL;
	pthread_mutex_unlock(&pending->guard);
	batch_free(unused);
}

uint64_t pending_newest(struct pending *pending)
{
	uint64_t number = 0;

	pthread_mutex_lock(&pending->guard);
	if (has_changes(pending->active))
		number = pending->active->number;
	else if (pending->sealed)
		number = pending->sealed->number;
	pthread_mutex_unlock(&pending->guard);
	return number;
}

bool pending_is_full(struct pending *pending)
{
	bool full;

	pthread_mutex_lock(&pending->guard);
	full = pending->active->full;
	pthread_mutex_unlock(&pending->guard);
	return full;
}

bool pending_has_sealed(struct pending *pending)
{
	bool sealed;

	pthread_mutex_lock(&pending->guard);
	sealed = pending->sealed != NULL;
	pthread_mutex_unlock(&pending->guard);
	return sealed;
}

void pending_bytes(struct pending *pending, uint64_t *data, uint64_t *memory)
{
	pthread_mutex_lock(&pending->guard);
	*data = pending->active->data_bytes;
	*memory = pending->active->memory;
	if (pending->sealed) {
		*data += pending->sealed->data_bytes;
		*memory += pending->sealed->memory;
	}
	pthread_mutex_unlock(&pending->guard);
}

uint64_t pending_changes(struct pending *pending)
{
	uint64_t changes;

	pthread_mutex_lock(&pending->guard);
	changes = pending->changes;
	pthread_mutex_unlock(&pending->guard);
	return changes;
}
