// SPDX-License-Identifier: MIT
/*
 * The buckets are in runs of GROUP_BLOCKS. A group of an object's blocks goes to the run that its
 * hash says, and each block of it to a bucket of its own there: so blocks that follow one another
 * are in few cache lines. Which one is twisted by the hash, or else blocks at the same place of
 * their groups, as whoever reads in large steps asks for, would all share few buckets.
 *
 * What is here beside the blocks' memory is counted, too: the budget is for all of it. Memory is
 * taken from the system when a block is first used, and given back with the last object.
 */
#include "backends/blob/blocks.h"
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "backends/blob/evict.h"
#include "backends/blob/flight.h"
#include "core/cache_memory.h"

#define GROUP_SHIFT  6U
#define GROUP_BLOCKS (1U << GROUP_SHIFT)
#define SHARDS	     64U

/* With its struct, between one and two buckets, and what evict.c needs. */
#define BYTES_PER_BLOCK \
	(CACHE_BLOCK + sizeof(struct block) + 2 * sizeof(uint32_t) + EVICT_BLOCK_BYTES)

/* Blocks that are looked at in one go when an object is closed. */
#define FORGET_STEP 1024U

struct shard {
	_Alignas(64) pthread_rwlock_t lock;
};

struct blocks {
	struct shard shards[SHARDS];
	uint32_t *buckets; /* index of the first block of each, whose chain leads to the others */
	uint64_t run_mask;
	struct block *table; /* from index 1 on */
	char *memory;	     /* of the blocks, from index 1 on */
	uint32_t count;
	uint64_t limit;

	pthread_mutex_t mutex;
	uint32_t fresh; /* the first that was never used; all behind it are free, too */
	uint32_t free;	/* those that were */
	struct evict evict;
	_Atomic uint64_t used;
};

/* ---- Life. ---- */

static pthread_mutex_t mount_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct blocks *mount_blocks;
static unsigned mount_users;

static void locks_init(struct blocks *blocks)
{
	pthread_rwlockattr_t attributes;

	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	for (unsigned i = 0; i < SHARDS; i++)
		pthread_rwlock_init(&blocks->shards[i].lock, &attributes);
	pthread_rwlockattr_destroy(&attributes);
	pthread_mutex_init(&blocks->mutex, NULL);
}

static void blocks_free(struct blocks *blocks)
{
	for (unsigned i = 0; i < SHARDS; i++)
		pthread_rwlock_destroy(&blocks->shards[i].lock);
	pthread_mutex_destroy(&blocks->mutex);
	evict_destroy(&blocks->evict);
	free(blocks->buckets);
	free(blocks->table);
	if (blocks->memory && blocks->memory != MAP_FAILED)
		munmap(blocks->memory, blocks->count * CACHE_BLOCK);
	free(blocks);
}

/* The memory for blocks->count of them. */
static bool blocks_reserve(struct blocks *blocks)
{
	uint64_t runs = 1;

	while (runs * GROUP_BLOCKS < blocks->count)
		runs *= 2;
	blocks->run_mask = runs - 1;
	blocks->buckets = calloc(runs * GROUP_BLOCKS, sizeof(*blocks->buckets));
	blocks->table = calloc((size_t)blocks->count + 1, sizeof(*blocks->table));
	if (blocks->count > 0)
		blocks->memory = mmap(NULL, blocks->count * CACHE_BLOCK, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return blocks->buckets && blocks->table && blocks->memory != MAP_FAILED &&
	       evict_init(&blocks->evict, blocks->table, blocks->count);
}

static struct blocks *blocks_new(uint64_t limit)
{
	struct blocks *blocks = aligned_alloc(_Alignof(struct blocks), sizeof(*blocks));

	if (!blocks)
		return NULL;
	memset(blocks, 0, sizeof(*blocks));
	locks_init(blocks);
	blocks->limit = limit;
	blocks->count = (uint32_t)min_u64(limit / BYTES_PER_BLOCK, INT32_MAX);
	blocks->fresh = 1;
	if (blocks_reserve(blocks))
		return blocks;
	blocks_free(blocks);
	return NULL;
}

struct blocks *blocks_get(void)
{
	struct blocks *blocks;

	pthread_mutex_lock(&mount_mutex);
	if (mount_users == 0)
		mount_blocks = blocks_new(cache_memory());
	blocks = mount_blocks;
	if (blocks)
		mount_users++;
	pthread_mutex_unlock(&mount_mutex);
	return blocks;
}

void blocks_put(struct blocks *blocks)
{
	pthread_mutex_lock(&mount_mutex);
	assert(blocks == mount_blocks && mount_users > 0);
	mount_users--;
	if (mount_users == 0) {
		blocks_free(blocks);
		mount_blocks = NULL;
	}
	pthread_mutex_unlock(&mount_mutex);
}

void blocks_owner_init(struct block_owner *owner)
{
	static _Atomic uint64_t last;

	*owner = (struct block_owner){.id = atomic_fetch_add(&last, 1) + 1};
}

uint64_t blocks_used(const struct blocks *blocks)
{
	return atomic_load_explicit(&blocks->used, memory_order_relaxed) * CACHE_BLOCK;
}

uint64_t blocks_limit(const struct blocks *blocks)
{
	return blocks->limit;
}

char *blocks_memory(const struct blocks *blocks, uint32_t index)
{
	return blocks->memory + (size_t)(index - 1) * CACHE_BLOCK;
}

/* ---- Groups: to find a block. ---- */

struct group {
	pthread_rwlock_t *lock;
	uint32_t *buckets;
	unsigned twist;
	uint64_t end; /* number of the first block beyond it */
};

static struct group group_of(struct blocks *blocks, const struct block_owner *owner,
			     uint64_t number)
{
	uint64_t hash = random_at(owner->id, number >> GROUP_SHIFT);
	uint64_t run = hash & blocks->run_mask;

	return (struct group){
		.lock = &blocks->shards[run % SHARDS].lock,
		.buckets = &blocks->buckets[run << GROUP_SHIFT],
		.twist = (unsigned)(hash >> 58),
		.end = ((number >> GROUP_SHIFT) + 1) << GROUP_SHIFT,
	};
}

static uint32_t *bucket_of(const struct group *group, uint64_t number)
{
	return &group->buckets[((unsigned)number ^ group->twist) % GROUP_BLOCKS];
}

/* With the group's lock. NULL: missing. */
static struct block *find(const struct blocks *blocks, const struct group *group,
			  const struct block_owner *owner, uint64_t number)
{
	uint32_t index = *bucket_of(group, number);

	while (index != BLOCK_NONE) {
		struct block *block = &blocks->table[index];

		if (block->number == number && block->owner == owner)
			return block;
		index = block->chain;
	}
	return NULL;
}

/* Both with the group's lock, exclusive. */
static void chain_insert(const struct blocks *blocks, const struct group *group, uint32_t index)
{
	struct block *block = &blocks->table[index];
	uint32_t *bucket = bucket_of(group, block->number);

	block->chain = *bucket;
	*bucket = index;
}

static void chain_remove(const struct blocks *blocks, const struct group *group, uint32_t index)
{
	uint32_t *link = bucket_of(group, blocks->table[index].number);

	while (*link != index)
		link = &blocks->table[*link].chain;
	*link = blocks->table[index].chain;
}

/* ---- Reading. ---- */

/* Notes the first read of what was read ahead; true where it was. */
static bool touch_marks(struct block *block, struct look *look)
{
	unsigned marks = atomic_load_explicit(&block->marks, memory_order_relaxed);

	/* As a rule there are none, and then nothing is written here. */
	if (marks == 0)
		return false;
	marks = atomic_exchange_explicit(&block->marks, 0, memory_order_relaxed);
	look->notifies |= (marks & BLOCK_NOTIFY) != 0;
	if (!(marks & BLOCK_UNREAD))
		return false;
	look->useful += CACHE_BLOCK;
	return true;
}

static void use(struct block *block)
{
	uint8_t uses = atomic_load_explicit(&block->uses, memory_order_relaxed);

	/* If somebody else counts at the same time, one of the two is lost. */
	if (uses < BLOCK_USES_MAX)
		atomic_store_explicit(&block->uses, (uint8_t)(uses + 1), memory_order_relaxed);
}

void blocks_touch(struct blocks *blocks, uint32_t index, struct look *look)
{
	touch_marks(&blocks->table[index], look);
}

/* The bytes of block @number from @offset on, at most @most. */
static size_t part_of(uint64_t number, uint64_t offset, size_t most)
{
	return min_u64(((number + 1) << CACHE_BLOCK_SHIFT) - offset, most);
}

/* Copies what follows on @block, which is ready. With the group's lock. */
static void look_hit(const struct blocks *blocks, const struct group *group, struct block *block,
		     uint64_t offset, const struct sg *sg, struct look *look)
{
	const struct block_owner *owner = block->owner;
	struct sg rest = *sg;

	while (block && block->state == BLOCK_READY) {
		uint64_t number = block->number;
		size_t part = part_of(number, offset, rest.len);
		struct sg to = sg_take(&rest, part);
		uint32_t index = (uint32_t)(block - blocks->table);

		sg_copy_from(&to, blocks_memory(blocks, index) + offset % CACHE_BLOCK);
		if (!touch_marks(block, look) && offset % CACHE_BLOCK == 0)
			use(block);
		offset += part;
		if (rest.len == 0 || ++number == group->end)
			break;
		block = find(blocks, group, owner, number);
	}
	look->length = sg->len - rest.len;
}

/* How far what follows is like @block, which is loading, or missing if it is NULL. */
static size_t look_beyond(const struct blocks *blocks, const struct group *group,
			  const struct block_owner *owner, const struct block *block,
			  uint64_t offset, size_t most)
{
	const struct fetch *fetch = block ? block->fetch : NULL;
	uint64_t number = offset >> CACHE_BLOCK_SHIFT;
	size_t length = part_of(number, offset, most);

	while (length < most && ++number < group->end) {
		const struct block *next = find(blocks, group, owner, number);

		if (!next != !block)
			break;
		if (next && (next->state != BLOCK_LOADING || next->fetch != fetch))
			break;
		length += min_u64(CACHE_BLOCK, most - length);
	}
	return length;
}

void blocks_look(struct blocks *blocks, const struct block_owner *owner, uint64_t offset,
		 const struct sg *sg, struct look *look)
{
	uint64_t number = offset >> CACHE_BLOCK_SHIFT;
	struct group group = group_of(blocks, owner, number);
	struct block *block;

	*look = (struct look){.found = LOOK_HIT};
	pthread_rwlock_rdlock(group.lock);
	block = find(blocks, &group, owner, number);
	if (block && block->state == BLOCK_READY) {
		look_hit(blocks, &group, block, offset, sg, look);
	} else {
		look->found = block ? LOOK_LOADING : LOOK_MISSING;
		look->length = look_beyond(blocks, &group, owner, block, offset, sg->len);
		/* It cannot go before it has changed its blocks, under this lock. */
		look->fetch = block ? block->fetch : NULL;
		if (look->fetch)
			fetch_hold(look->fetch);
	}
	pthread_rwlock_unlock(group.lock);
}

/* How many blocks from @first on, before @end and in its group, are missing, or are not. With the
 * group's lock. */
static uint64_t run_in_group(const struct blocks *blocks, const struct group *group,
			     const struct block_owner *owner, uint64_t first, uint64_t end,
			     bool missing)
{
	uint64_t number = first;

	for (; number < min_u64(end, group->end); number++) {
		struct block *block = find(blocks, group, owner, number);

		if (!block != missing)
			break;
		if (block && block->state == BLOCK_READY)
			atomic_fetch_or_explicit(&block->marks, BLOCK_NOTIFY, memory_order_relaxed);
	}
	return number - first;
}

static uint64_t run_of(struct blocks *blocks, const struct block_owner *owner, uint64_t first,
		       uint64_t count, bool missing)
{
	uint64_t end = first + count, number = first;
	bool goes_on = true;

	while (goes_on && number < end) {
		struct group group = group_of(blocks, owner, number);

		pthread_rwlock_rdlock(group.lock);
		number += run_in_group(blocks, &group, owner, number, end, missing);
		pthread_rwlock_unlock(group.lock);
		goes_on = number == group.end;
	}
	return number - first;
}

uint64_t blocks_skip(struct blocks *blocks, const struct block_owner *owner, uint64_t first,
		     uint64_t count)
{
	return run_of(blocks, owner, first, count, false);
}

uint64_t blocks_missing(struct blocks *blocks, const struct block_owner *owner, uint64_t first,
			uint64_t count)
{
	return run_of(blocks, owner, first, count, true);
}

/* ---- Blocks that are free. ---- */

static void count_held(struct block_owner *owner, int64_t blocks)
{
	atomic_fetch_add_explicit(&owner->held, (uint64_t)blocks, memory_order_relaxed);
}

/* A block that was in a queue, and is in none any more, is nobody's then. With the mutex. */
static void forget(struct blocks *blocks, uint32_t index)
{
	struct block *block = &blocks->table[index];
	struct group group = group_of(blocks, block->owner, block->number);

	pthread_rwlock_wrlock(group.lock);
	chain_remove(blocks, &group, index);
	block->state = BLOCK_FREE;
	pthread_rwlock_unlock(group.lock);
	if (atomic_load_explicit(&block->marks, memory_order_relaxed) & BLOCK_UNREAD)
		atomic_fetch_add_explicit(&block->owner->wasted, 1, memory_order_relaxed);
	count_held(block->owner, -1);
}

/* Both with the mutex. */
static void free_push(struct blocks *blocks, uint32_t index)
{
	blocks->table[index].link.next = blocks->free;
	blocks->free = index;
	atomic_fetch_sub_explicit(&blocks->used, 1, memory_order_relaxed);
}

static uint32_t free_pop(struct blocks *blocks)
{
	uint32_t index = blocks->free;

	if (index != BLOCK_NONE) {
		blocks->free = blocks->table[index].link.next;
	} else if (blocks->fresh <= blocks->count) {
		index = blocks->fresh++;
	} else {
		index = evict_take(&blocks->evict);
		if (index != BLOCK_NONE)
			forget(blocks, index);
		return index; /* as many are used as before */
	}
	atomic_fetch_add_explicit(&blocks->used, 1, memory_order_relaxed);
	return index;
}

/* Takes up to @count; returns how many there were. */
static unsigned free_get(struct blocks *blocks, uint32_t *indices, unsigned count)
{
	unsigned got = 0;

	pthread_mutex_lock(&blocks->mutex);
	while (got < count) {
		uint32_t index = free_pop(blocks);

		if (index == BLOCK_NONE)
			break;
		indices[got++] = index;
	}
	pthread_mutex_unlock(&blocks->mutex);
	return got;
}

static void free_put(struct blocks *blocks, const uint32_t *indices, unsigned count)
{
	pthread_mutex_lock(&blocks->mutex);
	while (count > 0)
		free_push(blocks, indices[--count]);
	pthread_mutex_unlock(&blocks->mutex);
}

/* Of the blocks [*index, @end) in the table. */
static void forget_step(struct blocks *blocks, const struct block_owner *owner, uint32_t first,
			uint32_t end)
{
	pthread_mutex_lock(&blocks->mutex);
	for (uint32_t index = first; index < end; index++) {
		struct block *block = &blocks->table[index];

		/* In no queue, it is free, or in somebody's hands. */
		if (block->queue == QUEUE_NONE || block->owner != owner)
			continue;
		evict_remove(&blocks->evict, index);
		forget(blocks, index);
		free_push(blocks, index);
	}
	pthread_mutex_unlock(&blocks->mutex);
}

void blocks_forget(struct blocks *blocks, const struct block_owner *owner)
{
	for (uint32_t first = 1; first <= blocks->count && atomic_load(&owner->held) > 0;
	     first += FORGET_STEP)
		forget_step(blocks, owner, first,
			    (uint32_t)min_u64(first + FORGET_STEP, (uint64_t)blocks->count + 1));
	assert(atomic_load(&owner->held) == 0);
}

/* ---- Loading. ---- */

static void block_begin(struct block *block, struct block_owner *owner, uint64_t number,
			struct fetch *fetch)
{
	block->number = number;
	block->owner = owner;
	block->fetch = fetch;
	block->state = BLOCK_LOADING;
	atomic_store_explicit(&block->uses, 0, memory_order_relaxed);
	atomic_store_explicit(&block->marks, 0, memory_order_relaxed);
}

/* Of the blocks from @first on in its group, at most @count. */
static unsigned claim_in_group(struct blocks *blocks, struct block_owner *owner, uint64_t first,
			       unsigned count, struct fetch *fetch, const uint32_t *indices)
{
	struct group group = group_of(blocks, owner, first);
	unsigned most = (unsigned)min_u64(count, group.end - first), done = 0;

	pthread_rwlock_wrlock(group.lock);
	for (; done < most && !find(blocks, &group, owner, first + done); done++) {
		block_begin(&blocks->table[indices[done]], owner, first + done, fetch);
		chain_insert(blocks, &group, indices[done]);
	}
	pthread_rwlock_unlock(group.lock);
	return done;
}

int blocks_claim(struct blocks *blocks, struct block_owner *owner, uint64_t first, unsigned count,
		 struct fetch *fetch, uint32_t *indices)
{
	unsigned got = free_get(blocks, indices, count), done = 0, now;

	if (got == 0)
		return -1;
	do {
		unsigned most =
			(unsigned)min_u64(got - done, GROUP_BLOCKS - (first + done) % GROUP_BLOCKS);

		now = claim_in_group(blocks, owner, first + done, most, fetch, &indices[done]);
		done += now;
		if (now < most)
			break;
	} while (done < got);
	if (done < got)
		free_put(blocks, &indices[done], got - done);
	count_held(owner, done);
	return (int)done;
}

/* How many of the blocks, which follow one another, are in the group of the first. */
static unsigned count_in_group(const struct blocks *blocks, const uint32_t *indices, unsigned count)
{
	uint64_t number = blocks->table[indices[0]].number;

	return (unsigned)min_u64(count, GROUP_BLOCKS - number % GROUP_BLOCKS);
}

void blocks_publish(struct blocks *blocks, const uint32_t *indices, unsigned count, unsigned marks)
{
	for (unsigned part; count > 0; indices += part, count -= part) {
		const struct block *first = &blocks->table[indices[0]];
		struct group group = group_of(blocks, first->owner, first->number);

		part = count_in_group(blocks, indices, count);
		pthread_rwlock_wrlock(group.lock);
		for (unsigned i = 0; i < part; i++) {
			struct block *block = &blocks->table[indices[i]];

			atomic_store_explicit(&block->marks, (uint8_t)marks, memory_order_relaxed);
			block->state = BLOCK_READY;
		}
		pthread_rwlock_unlock(group.lock);
	}
}

void blocks_withdraw(struct blocks *blocks, const uint32_t *indices, unsigned count)
{
	for (unsigned part; count > 0; indices += part, count -= part) {
		const struct block *first = &blocks->table[indices[0]];
		struct group group = group_of(blocks, first->owner, first->number);

		part = count_in_group(blocks, indices, count);
		pthread_rwlock_wrlock(group.lock);
		for (unsigned i = 0; i < part; i++) {
			chain_remove(blocks, &group, indices[i]);
			blocks->table[indices[i]].state = BLOCK_FAILED;
		}
		pthread_rwlock_unlock(group.lock);
	}
}

void blocks_release(struct blocks *blocks, const uint32_t *indices, unsigned count)
{
	pthread_mutex_lock(&blocks->mutex);
	for (unsigned i = 0; i < count; i++) {
		struct block *block = &blocks->table[indices[i]];

		/* What has failed can be found no more: it is the caller's alone. */
		if (block->state == BLOCK_READY) {
			evict_add(&blocks->evict, indices[i]);
			continue;
		}
		block->state = BLOCK_FREE;
		count_held(block->owner, -1);
		free_push(blocks, indices[i]);
	}
	pthread_mutex_unlock(&blocks->mutex);
}
