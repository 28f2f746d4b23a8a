/* SPDX-License-Identifier: MIT */
/*
 * Where the redirects of an object have led to, so that not every request has to be redirected
 * again. It is only a place to ask: what comes from there is checked as what comes from elsewhere,
 * and whoever is disappointed there forgets it, and begins at the object's own URL.
 *
 * A target that was reached by permanent redirects alone (301, 308) is remembered until then. Any
 * other is, besides, for a minute at most: it may contain a signature that gets too old, and the one
 * who redirects may want to choose another server.
 */
#ifndef BACKENDS_BLOB_TARGET_H
#define BACKENDS_BLOB_TARGET_H

#include <pthread.h>
#include "core/util.h"

/* Constant, and there for as long as somebody holds it. */
struct target;

struct target_memory {
	pthread_mutex_t mutex;
	struct target *target; /* or NULL */
};

void target_memory_init(struct target_memory *memory);
/* Nobody holds what it has remembered. */
void target_memory_destroy(struct target_memory *memory);

/* All of them any thread; none blocks long. */

/* What is remembered at @now_ns, held for the caller; or NULL. */
struct target *target_recall(struct target_memory *memory, uint64_t now_ns);
/* Remembers @url, and nothing else any more. Where there is no memory, it does not. */
void target_remember(struct target_memory *memory, const char *url, bool is_permanent,
		     uint64_t now_ns);
/* Remembers @target no more; nothing where it is another by now. */
void target_forget(struct target_memory *memory, const struct target *target);

const char *target_url(const struct target *target);
/* NULL is allowed. */
void target_release(struct target *target);

/* Whether redirects of this status are for ever. */
bool target_is_permanent(unsigned status);

#endif
