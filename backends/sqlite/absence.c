// SPDX-License-Identifier: MIT
#include "backends/sqlite/absence.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

/* A range is of this size, or larger, so that there are at most RANGES_MAX: 2 MiB of bits. */
#define RANGE_MIN  MIB
#define RANGES_MAX ((uint64_t)1 << 24)

int absence_init(struct absence *absence, unsigned sector_shift, uint64_t sector_count)
{
	unsigned shift = log2_of(RANGE_MIN) - sector_shift;

	while ((sector_count - 1) >> shift >= RANGES_MAX)
		shift++;
	*absence = (struct absence){
		.shift = shift,
		.range_count = ((sector_count - 1) >> shift) + 1,
		.sector_count = sector_count,
	};
	absence->bits = calloc((absence->range_count + 63) / 64, sizeof(*absence->bits));
	if (!absence->bits)
		return -ENOMEM;
	pthread_mutex_init(&absence->guard, NULL);
	return 0;
}

void absence_destroy(struct absence *absence)
{
	if (!absence->bits)
		return;
	pthread_mutex_destroy(&absence->guard);
	free(absence->bits);
	absence->bits = NULL;
}

static uint64_t bit_of(uint64_t range)
{
	return (uint64_t)1 << (range % 64);
}

static bool is_set(struct absence *absence, uint64_t range)
{
	return atomic_load_explicit(&absence->bits[range / 64], memory_order_relaxed) &
	       bit_of(range);
}

void absence_all(struct absence *absence)
{
	for (uint64_t i = 0; i < (absence->range_count + 63) / 64; i++)
		atomic_store_explicit(&absence->bits[i], UINT64_MAX, memory_order_relaxed);
}

bool absence_is_known(struct absence *absence, uint64_t sector, uint64_t *count)
{
	uint64_t range = sector >> absence->shift, last = (sector + *count - 1) >> absence->shift;
	bool known = is_set(absence, range);

	while (range < last) {
		range++;
		if (is_set(absence, range) == known)
			continue;
		*count = (range << absence->shift) - sector;
		break;
	}
	return known;
}

void absence_range(const struct absence *absence, uint64_t sector, uint64_t *first, uint64_t *count)
{
	*first = sector >> absence->shift << absence->shift;
	*count = min_u64((uint64_t)1 << absence->shift, absence->sector_count - *first);
}

uint64_t absence_look(struct absence *absence)
{
	uint64_t generation;

	pthread_mutex_lock(&absence->guard);
	generation = absence->generation;
	pthread_mutex_unlock(&absence->guard);
	return generation;
}

void absence_learn(struct absence *absence, uint64_t look, uint64_t sector)
{
	uint64_t range = sector >> absence->shift;

	pthread_mutex_lock(&absence->guard);
	if (look % 2 == 0 && absence->generation == look)
		atomic_fetch_or_explicit(&absence->bits[range / 64], bit_of(range),
					 memory_order_relaxed);
	pthread_mutex_unlock(&absence->guard);
}

static void next_generation(struct absence *absence)
{
	pthread_mutex_lock(&absence->guard);
	absence->generation++;
	pthread_mutex_unlock(&absence->guard);
}

void absence_change_begin(struct absence *absence)
{
	next_generation(absence);
}

void absence_change(struct absence *absence, uint64_t sector, uint64_t count)
{
	uint64_t last = (sector + count - 1) >> absence->shift;

	for (uint64_t i = sector >> absence->shift; i <= last; i++)
		if (is_set(absence, i))
			atomic_fetch_and_explicit(&absence->bits[i / 64], ~bit_of(i),
						  memory_order_relaxed);
}

void absence_change_end(struct absence *absence)
{
	next_generation(absence);
}
