// SPDX-License-Identifier: MIT
/*
 * Memory comes from the system as *arenas*: mappings of ARENA_SIZE, aligned to it, so that an
 * address tells its arena, whose first page describes it. The kernel gives pages as they are
 * touched. A page of an arena is used; or *dirty*: free, but the system has not got it back; or
 * clean: free, and takes no memory. Dirty pages are used first. Arenas are in lists by what they
 * have: a dirty page, only clean ones, or none free.
 *
 * To give pages back costs a system call for each run of them, so dirty ones are collected until
 * there are DIRTY_MAX, and pool_trim() is called by whoever has put some, when it holds no lock. An
 * arena without used and dirty pages is unmapped then, unless it is the last. Huge pages would make
 * this useless: the kernel joins free pages with used ones again. So there are none.
 *
 * Objects are cut from *slabs*: pages that begin with a description. Each size class has a list of
 * the slabs that have room. One without an object is a free page again.
 *
 * What counts, for the limit, is what the system sees: used and dirty pages, and one an arena.
 */
#include "backends/sectors/pool.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ARENA_SIZE  (32 * MIB)
#define ARENA_PAGES ((unsigned)(ARENA_SIZE / POOL_PAGE))
#define ARENA_WORDS (ARENA_PAGES / 64)

#define DIRTY_MAX   256U /* pages */

/* How much is worth a system call, in bytes. */
#define POPULATE_MIN (4 * POOL_PAGE)

/* That one pool_trim() gives back at most, so that it does not last. */
#define TRIM_RUNS  64U
#define TRIM_PAGES 1024U

/* ---- Lists: circular, with a head that is no element. ---- */

struct link {
	struct link *next, *previous;
};

static void list_init(struct link *head)
{
	head->next = head->previous = head;
}

static bool list_is_empty(const struct link *head)
{
	return head->next == head;
}

static void list_remove(struct link *link)
{
	link->previous->next = link->next;
	link->next->previous = link->previous;
	list_init(link);
}

static void list_push(struct link *head, struct link *link)
{
	link->next = head->next;
	link->previous = head;
	head->next->previous = link;
	head->next = link;
}

/* ---- Types. ---- */

enum arena_list {
	ARENAS_DIRTY, /* a page is dirty */
	ARENAS_CLEAN, /* a page is free, none dirty */
	ARENAS_FULL,
	ARENA_LISTS
};

struct arena {
	struct link link;
	enum arena_list list;
	unsigned free_count, dirty_count;
	unsigned first_free; /* a word; those before it have no free page */
	uint64_t free[ARENA_WORDS], dirty[ARENA_WORDS]; /* what is dirty is free */
};

struct slab {
	struct link link; /* of its class; of itself where there is no room */
	unsigned class;
	unsigned used;
	unsigned cut; /* objects that have ever been used: the others are behind them */
	void *free;   /* objects that have been used and are free; each begins with the next */
};

static const unsigned class_sizes[] = {32,  40,	 56,  72,  88,
				       120, 152, 184, 216, 280,
				       336, 400, 504, 576, POOL_OBJECT_MAX};
#define CLASSES ARRAY_SIZE(class_sizes)

struct pool {
	pthread_mutex_t mutex;
	uint64_t limit_pages;
	uint64_t pages;	     /* that the system sees */
	uint64_t data_pages; /* used, by pool_pages_get() */
	uint64_t arena_count;
	_Atomic uint64_t dirty_pages;
	struct link arenas[ARENA_LISTS];
	struct link slabs[CLASSES];
};

static_assert(sizeof(struct arena) <= POOL_PAGE, "an arena's first page describes it");
static_assert(sizeof(struct slab) + 6 * POOL_OBJECT_MAX <= POOL_PAGE, "six of the largest a page");

/* ---- Arenas. With the mutex locked, but for map and unmap. ---- */

static char *map(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* Mostly the next mapping follows the one before, and so is aligned by itself; the kernel merges
 * them then. */
static char *map_aligned(void)
{
	char *memory = map(ARENA_SIZE), *aligned;

	if (!memory || is_aligned((uintptr_t)memory, ARENA_SIZE))
		return memory;
	munmap(memory, ARENA_SIZE);
	memory = map(2 * ARENA_SIZE);
	if (!memory)
		return NULL;
	aligned = memory + (align_up((uintptr_t)memory, ARENA_SIZE) - (uintptr_t)memory);
	if (aligned > memory)
		munmap(memory, (size_t)(aligned - memory));
	munmap(aligned + ARENA_SIZE, (size_t)(memory + ARENA_SIZE - aligned));
	return aligned;
}

static struct arena *arena_of(const void *address)
{
	return (struct arena *)align_down((uintptr_t)address, ARENA_SIZE);
}

static char *arena_page(struct arena *arena, unsigned page)
{
	return (char *)arena + page * POOL_PAGE;
}

static uint64_t dirty_pages(const struct pool *pool)
{
	return atomic_load_explicit(&pool->dirty_pages, memory_order_relaxed);
}

/* It only changes under the mutex, but is read without. */
static void add_dirty(struct pool *pool, struct arena *arena, int count)
{
	arena->dirty_count += (unsigned)count;
	atomic_store_explicit(&pool->dirty_pages, dirty_pages(pool) + (uint64_t)(int64_t)count,
			      memory_order_relaxed);
}

/* Puts it into the list where it belongs. */
static void arena_sort(struct pool *pool, struct arena *arena)
{
	enum arena_list list = arena->dirty_count > 0  ? ARENAS_DIRTY
			       : arena->free_count > 0 ? ARENAS_CLEAN
						       : ARENAS_FULL;

	if (list == arena->list)
		return;
	list_remove(&arena->link);
	list_push(&pool->arenas[list], &arena->link);
	arena->list = list;
}

/* How many pages may be used that are clean now, or dirty. */
static uint64_t pool_room(const struct pool *pool, enum pool_limit limit, bool is_dirty)
{
	uint64_t others = pool->pages - (is_dirty ? dirty_pages(pool) : 0);

	if (pool->limit_pages == 0 || limit == POOL_BEYOND)
		return UINT64_MAX;
	return pool->limit_pages - min_u64(others, pool->limit_pages);
}

static struct arena *arena_new(struct pool *pool, enum pool_limit limit)
{
	struct arena *arena = pool_room(pool, limit, false) > 1 ? (void *)map_aligned() : NULL;

	if (!arena)
		return NULL;
	/* Fails where the kernel has no huge pages. */
	madvise(arena, ARENA_SIZE, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < ARENA_WORDS; i++)
		arena->free[i] = UINT64_MAX;
	arena->free[0] &= ~(uint64_t)1;
	arena->free_count = ARENA_PAGES - 1;
	arena->list = ARENAS_CLEAN;
	list_push(&pool->arenas[ARENAS_CLEAN], &arena->link);
	pool->arena_count++;
	pool->pages++;
	return arena;
}

/* One with a free page. */
static struct arena *arena_get(struct pool *pool, enum pool_limit limit)
{
	for (enum arena_list list = ARENAS_DIRTY; list <= ARENAS_CLEAN; list++)
		if (!list_is_empty(&pool->arenas[list]))
			return CONTAINER_OF(pool->arenas[list].next, struct arena, link);
	return arena_new(pool, limit);
}

/* Uses at most @max pages that follow one another, dirty ones where there are; how many. */
static unsigned arena_take(struct pool *pool, struct arena *arena, enum pool_limit limit,
			   char **pages, unsigned max)
{
	bool is_dirty = arena->dirty_count > 0;
	uint64_t *bits = is_dirty ? arena->dirty : arena->free;
	unsigned word = arena->first_free, first, count = 0;

	max = (unsigned)min_u64(max, pool_room(pool, limit, is_dirty));
	if (max == 0)
		return 0;
	while (bits[word] == 0)
		word++;
	if (!is_dirty)
		arena->first_free = word;
	first = word * 64 + (unsigned)__builtin_ctzll(bits[word]);
	for (unsigned page = first; count < max && page < ARENA_PAGES; page++, count++) {
		uint64_t bit = (uint64_t)1 << page % 64;

		if (!(bits[page / 64] & bit))
			break;
		arena->free[page / 64] &= ~bit;
		arena->dirty[page / 64] &= ~bit;
		pages[count] = arena_page(arena, page);
	}
	arena->free_count -= count;
	if (is_dirty)
		add_dirty(pool, arena, -(int)count);
	else
		pool->pages += count;
	arena_sort(pool, arena);
	return count;
}

static void put_pages(struct pool *pool, char *const *pages, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct arena *arena = arena_of(pages[i]);
		unsigned page = (unsigned)((size_t)(pages[i] - (char *)arena) / POOL_PAGE);
		uint64_t bit = (uint64_t)1 << page % 64;

		assert(!(arena->free[page / 64] & bit));
		arena->free[page / 64] |= bit;
		arena->dirty[page / 64] |= bit;
		arena->first_free = (unsigned)min_u64(arena->first_free, page / 64);
		arena->free_count++;
		add_dirty(pool, arena, 1);
		arena_sort(pool, arena);
	}
}

/* The first *dirty of them are dirty. */
static bool get_pages(struct pool *pool, enum pool_limit limit, char **pages, unsigned count,
		      unsigned *dirty)
{
	unsigned got = 0;

	*dirty = 0;
	while (got < count) {
		struct arena *arena = arena_get(pool, limit);
		bool is_dirty = arena && arena->dirty_count > 0;
		unsigned now = arena ? arena_take(pool, arena, limit, pages + got, count - got) : 0;

		if (now == 0) {
			put_pages(pool, pages, got);
			return false;
		}
		got += now;
		if (is_dirty)
			*dirty = got;
	}
	return true;
}

/* ---- Pages. ---- */

/*
 * Lets the kernel provide clean pages, a long run at a time: that costs less than a fault for each.
 * False: there is no memory. If it cannot do so, pages come when they are touched.
 */
static bool populate(char *const *pages, unsigned count)
{
	for (unsigned first = 0, end; first < count; first = end) {
		size_t length = POOL_PAGE;

		for (end = first + 1; end < count && pages[end] == pages[first] + length; end++)
			length += POOL_PAGE;
		if (length >= POPULATE_MIN &&
		    madvise(pages[first], length, MADV_POPULATE_WRITE) < 0 && errno == ENOMEM)
			return false;
	}
	return true;
}

bool pool_pages_get(struct pool *pool, char **pages, unsigned count)
{
	unsigned dirty;
	bool done;

	pthread_mutex_lock(&pool->mutex);
	done = get_pages(pool, POOL_WITHIN, pages, count, &dirty);
	if (done)
		pool->data_pages += count;
	pthread_mutex_unlock(&pool->mutex);
	if (!done || populate(pages + dirty, count - dirty))
		return done;
	pool_pages_put(pool, pages, count);
	return false;
}

void pool_pages_put(struct pool *pool, char *const *pages, unsigned count)
{

	pthread_mutex_lock(&pool->mutex);
	put_pages(pool, pages, count);
	pool->data_pages -= count;
	pthread_mutex_unlock(&pool->mutex);
}

/* ---- Objects. ---- */

static unsigned class_of(size_t size)
{
	unsigned class = 0;

	assert(size <= POOL_OBJECT_MAX);
	while (class_sizes[class] < size)
		class ++;
	return class;
}

static struct slab *slab_of(const void *object)
{
	return (struct slab *)align_down((uintptr_t)object, POOL_PAGE);
}

size_t pool_object_size(size_t size)
{
	return class_sizes[class_of(size)];
}

size_t pool_object_capacity(const void *object)
{
	return class_sizes[slab_of(object)->class];
}

static bool slab_is_full(const struct slab *slab)
{
	size_t next = sizeof(*slab) + (size_t)(slab->cut + 1) * class_sizes[slab->class];

	return !slab->free && next > POOL_PAGE;
}

/* One with room. */
static struct slab *slab_get(struct pool *pool, unsigned class, enum pool_limit limit)
{
	struct link *list = &pool->slabs[class];
	struct slab *slab;
	unsigned dirty;
	char *page;

	if (!list_is_empty(list))
		return CONTAINER_OF(list->next, struct slab, link);
	if (!get_pages(pool, limit, &page, 1, &dirty))
		return NULL;
	slab = (struct slab *)(void *)page;
	*slab = (struct slab){.class = class};
	list_push(list, &slab->link);
	return slab;
}

static void *slab_take(struct slab *slab)
{
	void *object = slab->free;

	if (object)
		slab->free = *(void **)object;
	else
		object = (char *)slab + sizeof(*slab) +
			 (size_t)slab->cut++ * class_sizes[slab->class];
	slab->used++;
	if (slab_is_full(slab))
		list_remove(&slab->link);
	return object;
}

void *pool_object_get(struct pool *pool, size_t size, enum pool_limit limit)
{
	struct slab *slab;
	void *object;

	pthread_mutex_lock(&pool->mutex);
	slab = slab_get(pool, class_of(size), limit);
	object = slab ? slab_take(slab) : NULL;
	pthread_mutex_unlock(&pool->mutex);
	return object;
}

void pool_object_put(struct pool *pool, void *object)
{
	struct slab *slab = slab_of(object);
	char *page = (char *)slab;

	pthread_mutex_lock(&pool->mutex);
	if (slab_is_full(slab))
		list_push(&pool->slabs[slab->class], &slab->link);
	*(void **)object = slab->free;
	slab->free = object;
	if (--slab->used == 0) {
		list_remove(&slab->link);
		put_pages(pool, &page, 1);
	}
	pthread_mutex_unlock(&pool->mutex);
}

/* ---- What goes back to the system. ---- */

struct run {
	unsigned first, count; /* pages */
};

static bool is_set(const uint64_t *bits, unsigned page)
{
	return bits[page / 64] >> page % 64 & 1;
}

/*
 * The next run of free pages, at most @max, from page @from, that begins and ends with a dirty one;
 * false: there is none. Clean ones inside make it longer at no cost.
 */
static bool find_dirty(const struct arena *arena, unsigned from, unsigned max, struct run *run)
{
	unsigned page = from, end;

	while (page < ARENA_PAGES && !is_set(arena->dirty, page))
		page += arena->dirty[page / 64] >> page % 64 ? 1 : 64 - page % 64;
	if (page >= ARENA_PAGES)
		return false;
	*run = (struct run){.first = page, .count = 1};
	max = (unsigned)min_u64(max, ARENA_PAGES - page);
	for (end = page + 1; end - page < max && is_set(arena->free, end); end++)
		if (is_set(arena->dirty, end))
			run->count = end + 1 - page;
	return true;
}

/* The pages of the run are nobody's while they are given back: neither free nor used. */
static void run_take(struct pool *pool, struct arena *arena, const struct run *run)
{
	unsigned dirty = 0;

	for (unsigned page = run->first; page < run->first + run->count; page++) {
		uint64_t bit = (uint64_t)1 << page % 64;

		dirty += is_set(arena->dirty, page);
		arena->free[page / 64] &= ~bit;
		arena->dirty[page / 64] &= ~bit;
	}
	arena->free_count -= run->count;
	pool->pages -= dirty;
	add_dirty(pool, arena, -(int)dirty);
}

static void run_put(struct arena *arena, const struct run *run)
{
	for (unsigned page = run->first; page < run->first + run->count; page++)
		arena->free[page / 64] |= (uint64_t)1 << page % 64;
	arena->free_count += run->count;
	arena->first_free = (unsigned)min_u64(arena->first_free, run->first / 64);
}

static unsigned take_runs(struct pool *pool, struct arena *arena, struct run *runs)
{
	unsigned count = 0, from = 0, left = TRIM_PAGES;

	while (count < TRIM_RUNS && left > 0 && find_dirty(arena, from, left, &runs[count])) {
		run_take(pool, arena, &runs[count]);
		from = runs[count].first + runs[count].count;
		left -= runs[count].count;
		count++;
	}
	arena_sort(pool, arena);
	return count;
}

bool pool_wants_trim(struct pool *pool)
{
	return dirty_pages(pool) > DIRTY_MAX;
}

bool pool_trim(struct pool *pool)
{
	struct run runs[TRIM_RUNS];
	struct link *dirty = &pool->arenas[ARENAS_DIRTY];
	struct arena *arena;
	unsigned count;
	bool is_empty;

	pthread_mutex_lock(&pool->mutex);
	if (list_is_empty(dirty)) {
		pthread_mutex_unlock(&pool->mutex);
		return false;
	}
	arena = CONTAINER_OF(dirty->next, struct arena, link);
	count = take_runs(pool, arena, runs);
	pthread_mutex_unlock(&pool->mutex);
	/* It only fails for memory that is locked: that stays with us. */
	for (unsigned i = 0; i < count; i++)
		madvise(arena_page(arena, runs[i].first), runs[i].count * POOL_PAGE, MADV_DONTNEED);
	pthread_mutex_lock(&pool->mutex);
	for (unsigned i = 0; i < count; i++)
		run_put(arena, &runs[i]);
	arena_sort(pool, arena);
	is_empty = arena->free_count == ARENA_PAGES - 1 && arena->dirty_count == 0 &&
		   pool->arena_count > 1;
	if (is_empty) {
		list_remove(&arena->link);
		pool->arena_count--;
		pool->pages--;
	}
	pthread_mutex_unlock(&pool->mutex);
	if (is_empty)
		munmap(arena, ARENA_SIZE);
	return dirty_pages(pool) > 0;
}

/* ---- Life. ---- */

struct pool *pool_new(uint64_t limit)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pthread_mutex_init(&pool->mutex, NULL);
	/* A limit of less than a page is still one. */
	pool->limit_pages = limit > 0 ? max_u64(limit / POOL_PAGE, 1) : 0;
	for (unsigned i = 0; i < ARENA_LISTS; i++)
		list_init(&pool->arenas[i]);
	for (unsigned i = 0; i < CLASSES; i++)
		list_init(&pool->slabs[i]);
	return pool;
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	for (unsigned i = 0; i < ARENA_LISTS; i++)
		while (!list_is_empty(&pool->arenas[i])) {
			struct link *link = pool->arenas[i].next;

			list_remove(link);
			munmap(CONTAINER_OF(link, struct arena, link), ARENA_SIZE);
		}
	pthread_mutex_destroy(&pool->mutex);
	free(pool);
}

void pool_usage(struct pool *pool, struct pool_usage *usage)
{
	pthread_mutex_lock(&pool->mutex);
	usage->data = pool->data_pages * POOL_PAGE;
	usage->other = (pool->pages - pool->data_pages) * POOL_PAGE + sizeof(*pool);
	pthread_mutex_unlock(&pool->mutex);
}
