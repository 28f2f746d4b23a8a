/* SPDX-License-Identifier: MIT */
/*
 * The memory that drivers may take, all together, to keep what they have read from afar: one budget
 * for the whole mount, which whoever mounts sets and whoever keeps something asks for.
 */
#ifndef CORE_CACHE_MEMORY_H
#define CORE_CACHE_MEMORY_H

#include "core/util.h"

/* Unless it is set. */
#define CACHE_MEMORY_DEFAULT (256 * MIB)

/* Bytes; 0: nothing is kept. While no disk is open. */
void cache_memory_set(uint64_t bytes);

uint64_t cache_memory(void);

#endif
