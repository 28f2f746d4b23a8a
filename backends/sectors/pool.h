/* SPDX-License-Identifier: MIT */
/*
 * The memory of sectors: pages for their content, and small objects for what finds them, both from
 * large mappings. It counts what it takes, keeps it below a limit, and gives back to the system
 * what is free.
 *
 * Any thread. A mutex is held for a short search or a change of lists.
 */
#ifndef BACKENDS_SECTORS_POOL_H
#define BACKENDS_SECTORS_POOL_H

#include "core/util.h"

#define POOL_PAGE_SHIFT 12U
#define POOL_PAGE	((uint64_t)1 << POOL_PAGE_SHIFT)
#define POOL_OBJECT_MAX 672U /* bytes */

struct pool;

/* Whether the limit holds for what is got. */
enum pool_limit {
	POOL_WITHIN,
	POOL_BEYOND, /* no: for what is needed to give back more */
};

/* @limit: bytes; 0: none. NULL: no memory. */
struct pool *pool_new(uint64_t limit);
/* Ends it, with all that was got from it. NULL is allowed. */
void pool_free(struct pool *pool);

/* All of @count pages, or none: false, at the limit or without memory. They hold anything. */
bool pool_pages_get(struct pool *pool, char **pages, unsigned count);
void pool_pages_put(struct pool *pool, char *const *pages, unsigned count);

/* At least @size bytes, which hold anything, aligned to 8; NULL at the limit or without memory. */
void *pool_object_get(struct pool *pool, size_t size, enum pool_limit limit);
void pool_object_put(struct pool *pool, void *object);
/* How many bytes an object got for @size has. */
size_t pool_object_size(size_t size);
/* How many bytes this one has. */
size_t pool_object_capacity(const void *object);

/* Whether so much is free, but not yet given back, that pool_trim() is worth its while. */
bool pool_wants_trim(struct pool *pool);
/* Gives some of it back. True: there is more. */
bool pool_trim(struct pool *pool);

struct pool_usage {
	uint64_t data;	/* bytes of pages */
	uint64_t other; /* bytes of all else */
};

void pool_usage(struct pool *pool, struct pool_usage *usage);

#endif
