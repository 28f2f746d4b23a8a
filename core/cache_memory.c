// SPDX-License-Identifier: MIT
#include "core/cache_memory.h"

static uint64_t memory = CACHE_MEMORY_DEFAULT;

void cache_memory_set(uint64_t bytes)
{
	memory = bytes;
}

uint64_t cache_memory(void)
{
	return memory;
}
