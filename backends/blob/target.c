// SPDX-License-Identifier: MIT
#include "backends/blob/target.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define REMEMBERED_NS (60 * NS_PER_S)

struct target {
	atomic_uint holders; /* the memory is one of them */
	uint64_t end_ns;     /* when it is to be forgotten */
	char url[];
};

void target_memory_init(struct target_memory *memory)
{
	pthread_mutex_init(&memory->mutex, NULL);
	memory->target = NULL;
}

void target_memory_destroy(struct target_memory *memory)
{
	target_release(memory->target);
	pthread_mutex_destroy(&memory->mutex);
}

struct target *target_recall(struct target_memory *memory, uint64_t now_ns)
{
	struct target *target;

	pthread_mutex_lock(&memory->mutex);
	target = memory->target;
	if (target && target->end_ns <= now_ns)
		target = NULL;
	if (target)
		atomic_fetch_add(&target->holders, 1);
	pthread_mutex_unlock(&memory->mutex);
	return target;
}

/* Puts @now in place of what is remembered, or of @then only, unless that is NULL. */
static void replace(struct target_memory *memory, const struct target *then, struct target *now)
{
	struct target *old = NULL;

	pthread_mutex_lock(&memory->mutex);
	if (!then || memory->target == then) {
		old = memory->target;
		memory->target = now;
	}
	pthread_mutex_unlock(&memory->mutex);
	target_release(old);
}

void target_remember(struct target_memory *memory, const char *url, bool is_permanent,
		     uint64_t now_ns)
{
	size_t size = strlen(url) + 1;
	struct target *target = malloc(sizeof(*target) + size);

	if (!target)
		return;
	atomic_init(&target->holders, 1);
	target->end_ns = is_permanent ? UINT64_MAX : now_ns + REMEMBERED_NS;
	memcpy(target->url, url, size);
	replace(memory, NULL, target);
}

void target_forget(struct target_memory *memory, const struct target *target)
{
	replace(memory, target, NULL);
}

const char *target_url(const struct target *target)
{
	return target->url;
}

void target_release(struct target *target)
{
	if (target && atomic_fetch_sub(&target->holders, 1) == 1)
		free(target);
}

bool target_is_permanent(unsigned status)
{
	return status == 301 || status == 308;
}
