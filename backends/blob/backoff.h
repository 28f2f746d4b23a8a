/* SPDX-License-Identifier: MIT */
/*
 * How long to wait before another try: exponential backoff with a cap and full jitter, that is, any
 * time up to the bound with the same probability, so that those who failed together spread out.
 */
#ifndef BACKENDS_BLOB_BACKOFF_H
#define BACKENDS_BLOB_BACKOFF_H

#include <stdatomic.h>
#include "core/util.h"

struct backoff {
	uint64_t first_ns, max_ns; /* the bound of the first wait, and of all */
	uint64_t seed;
	_Atomic uint64_t drawn;
};

static inline void backoff_init(struct backoff *backoff, uint64_t first_ns, uint64_t max_ns,
				uint64_t seed)
{
	backoff->first_ns = first_ns;
	backoff->max_ns = max_ns;
	backoff->seed = seed;
	atomic_store(&backoff->drawn, 0);
}

/* The bound of the wait after failure number @failure, the first of which is 0. */
static inline uint64_t backoff_bound(const struct backoff *backoff, unsigned failure)
{
	uint64_t bound = backoff->first_ns;

	while (failure-- > 0 && bound < backoff->max_ns)
		if (__builtin_mul_overflow(bound, 2, &bound))
			return backoff->max_ns;
	return min_u64(bound, backoff->max_ns);
}

/* Draws that wait. Any thread. */
static inline uint64_t backoff_draw(struct backoff *backoff, unsigned failure)
{
	uint64_t bound = backoff_bound(backoff, failure);

	return bound == UINT64_MAX
		       ? bound
		       : random_at(backoff->seed, atomic_fetch_add(&backoff->drawn, 1)) %
				 (bound + 1);
}

/* In ns, as far as they go. */
static inline uint64_t backoff_seconds(uint64_t seconds)
{
	uint64_t ns;

	return __builtin_mul_overflow(seconds, NS_PER_S, &ns) ? UINT64_MAX : ns;
}

#endif
