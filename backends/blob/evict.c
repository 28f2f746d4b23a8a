// SPDX-License-Identifier: MIT
/*
 * Ghosts are a table of sets of four: a tag, and when it came. One that finds no room in its set
 * takes the place of the oldest; one that is older than ghost_life is none. Both only make the
 * choice a little worse.
 */
#include "backends/blob/evict.h"
#include <assert.h>
#include <stdlib.h>

#define SMALL_SHARE 5 /* one in so many blocks */
#define SET_SIZE    4

/* So many blocks are moved, at most, for one that is forgotten: each was used since it was moved
 * last, so that there are few on average, but all of them may have been. It is a millisecond. */
#define MOVES_MAX 65536

struct ghost {
	uint32_t tag; /* 0: none */
	uint32_t time;
};

bool evict_init(struct evict *evict, struct block *table, uint32_t count)
{
	uint64_t sets = 1;

	/* Between one and two ghosts for each block. */
	while (sets * SET_SIZE < count)
		sets *= 2;
	*evict = (struct evict){
		.table = table,
		.small_target = (uint32_t)max_u64(count / SMALL_SHARE, 1),
		.ghosts = calloc(sets * SET_SIZE, sizeof(struct ghost)),
		.ghost_mask = sets - 1,
		.ghost_life = count,
	};
	return evict->ghosts != NULL;
}

void evict_destroy(struct evict *evict)
{
	free(evict->ghosts);
	evict->ghosts = NULL;
}

/* ---- Queues. ---- */

static void queue_push(struct evict *evict, enum block_queue name, uint32_t index)
{
	struct evict_queue *queue = &evict->queues[name];
	struct block *block = &evict->table[index];

	assert(block->queue == QUEUE_NONE);
	block->queue = (uint8_t)name;
	block->link.previous = BLOCK_NONE;
	block->link.next = queue->newest;
	if (queue->newest != BLOCK_NONE)
		evict->table[queue->newest].link.previous = index;
	else
		queue->oldest = index;
	queue->newest = index;
	queue->count++;
}

void evict_remove(struct evict *evict, uint32_t index)
{
	struct block *block = &evict->table[index];
	struct evict_queue *queue = &evict->queues[block->queue];

	assert(block->queue != QUEUE_NONE);
	if (block->link.previous != BLOCK_NONE)
		evict->table[block->link.previous].link.next = block->link.next;
	else
		queue->newest = block->link.next;
	if (block->link.next != BLOCK_NONE)
		evict->table[block->link.next].link.previous = block->link.previous;
	else
		queue->oldest = block->link.previous;
	queue->count--;
	block->queue = QUEUE_NONE;
}

/* ---- Ghosts. ---- */

static struct ghost *ghost_set(const struct evict *evict, const struct block *block, uint32_t *tag)
{
	uint64_t hash = random_at(~block->owner->id, block->number);

	*tag = (uint32_t)(hash >> 32) | 1;
	return &evict->ghosts[(hash & evict->ghost_mask) * SET_SIZE];
}

static bool ghost_lives(const struct evict *evict, const struct ghost *ghost)
{
	return ghost->tag != 0 && evict->forgotten - ghost->time <= evict->ghost_life;
}

static void ghost_leave(struct evict *evict, const struct block *block)
{
	uint32_t tag;
	struct ghost *set = ghost_set(evict, block, &tag), *place = set;

	for (unsigned i = 0; i < SET_SIZE && ghost_lives(evict, place); i++)
		if (!ghost_lives(evict, &set[i]) ||
		    evict->forgotten - set[i].time > evict->forgotten - place->time)
			place = &set[i];
	*place = (struct ghost){.tag = tag, .time = evict->forgotten++};
}

/* Whether the block has left one; it is gone then. */
static bool ghost_take(struct evict *evict, const struct block *block)
{
	uint32_t tag;
	struct ghost *set = ghost_set(evict, block, &tag);

	for (unsigned i = 0; i < SET_SIZE; i++) {
		if (set[i].tag != tag || !ghost_lives(evict, &set[i]))
			continue;
		set[i].tag = 0;
		return true;
	}
	return false;
}

/* ---- The choice. ---- */

void evict_add(struct evict *evict, uint32_t index)
{
	bool is_back = ghost_take(evict, &evict->table[index]);

	queue_push(evict, is_back ? QUEUE_MAIN : QUEUE_SMALL, index);
}

/* The oldest of the small queue: true if it is to be forgotten, else it has moved on. */
static bool small_is_over(struct evict *evict, uint32_t index)
{
	struct block *block = &evict->table[index];

	evict_remove(evict, index);
	if (atomic_load_explicit(&block->uses, memory_order_relaxed) == 0) {
		/* What nobody has read even once is not missed. */
		if (!(atomic_load_explicit(&block->marks, memory_order_relaxed) & BLOCK_UNREAD))
			ghost_leave(evict, block);
		return true;
	}
	atomic_store_explicit(&block->uses, 0, memory_order_relaxed);
	queue_push(evict, QUEUE_MAIN, index);
	return false;
}

/* The oldest of the main queue, likewise; it goes another round unless @is_last. */
static bool main_is_over(struct evict *evict, uint32_t index, bool is_last)
{
	struct block *block = &evict->table[index];
	uint8_t uses = atomic_load_explicit(&block->uses, memory_order_relaxed);

	evict_remove(evict, index);
	if (uses == 0 || is_last)
		return true;
	atomic_store_explicit(&block->uses, (uint8_t)(uses - 1), memory_order_relaxed);
	queue_push(evict, QUEUE_MAIN, index);
	return false;
}

uint32_t evict_take(struct evict *evict)
{
	const struct evict_queue *small = &evict->queues[QUEUE_SMALL];
	const struct evict_queue *main = &evict->queues[QUEUE_MAIN];

	for (unsigned moves = 0; small->count + main->count > 0; moves++) {
		bool is_enough = moves >= MOVES_MAX;
		bool from_small = small->count >= evict->small_target && !is_enough;
		uint32_t index;

		if (main->count == 0 || (from_small && small->count > 0)) {
			index = small->oldest;
			if (small_is_over(evict, index))
				return index;
		} else {
			index = main->oldest;
			if (main_is_over(evict, index, is_enough))
				return index;
		}
	}
	return BLOCK_NONE;
}
