/* SPDX-License-Identifier: MIT */
/*
 * Memory for keys: locked, so that it is never swapped out; left out of core dumps; zeros in a
 * child of fork(); wiped before it is given back.
 *
 * A struct secret is a mapping of its own, of which pieces are taken one after the other and never
 * given back before all of it. It belongs to one thread at a time.
 */
#ifndef BACKENDS_SECRET_SECRET_H
#define BACKENDS_SECRET_SECRET_H

#include "core/util.h"

/* Zeroed, it is one of no bytes. */
struct secret {
	unsigned char *memory;
	size_t size, used;
	bool locked;
};

/*
 * Makes @secret, of at least @size bytes, all zeros. Memory that may not be locked (RLIMIT_MEMLOCK)
 * is used all the same; a warning, one in the life of the process, says so under the name of
 * @node. Returns 0, or a positive errno.
 */
int secret_init(struct secret *secret, size_t size, const char *node);

/* Wipes it and gives it back; may be called twice. */
void secret_destroy(struct secret *secret);

/* Takes @size bytes, aligned for any use and to cache lines; NULL: there are not so many left. */
void *secret_take(struct secret *secret, size_t size);

bool secret_contains(const struct secret *secret, const void *pointer);

/*
 * From begin to end, what OpenSSL allocates on this thread comes from @secret, and what it frees
 * there is wiped. Whatever it allocates must be freed between a later begin and end, before the
 * secret is destroyed. The task must not suspend in between.
 */
void secret_openssl_begin(struct secret *secret);
void secret_openssl_end(void);

#endif
