/* SPDX-License-Identifier: MIT */
/*
 * Contract tests: each is run over every stack of stack_list.c at every sector size, as a test of its
 * own, on a disk that was just opened and holds zeros (or, read-only, pattern_fill(0)).
 */
#ifndef TESTS_LIB_CONTRACT_H
#define TESTS_LIB_CONTRACT_H

#include "tests/lib/stacks.h"

/* The size of each disk: it ends neither with a RAM disk's leaf nor with a large page. */
#define CONTRACT_SIZE (5 * MIB + 12288)

struct contract {
	const char *name;
	/* One of these. */
	void (*in_task)(struct instance *instance);
	void (*on_thread)(struct instance *instance); /* may use run_tasks() */
	unsigned wanted_flags, unwanted_flags;	      /* of stacks that it makes sense for */
};

/* Runs them all; returns what main() shall. */
int contract_run(const char *group, const struct contract *contracts, size_t count);

/* Transfers that have to succeed; in a task. */
bool disk_put(struct disk *disk, const void *data, uint64_t sector, uint64_t count, unsigned flags);
bool disk_get(struct disk *disk, void *data, uint64_t sector, uint64_t count);

/* Checks that @length bytes from byte @offset are @data, or what a disk that drops writes has. */
bool disk_holds(struct instance *instance, const void *data, uint64_t offset, size_t length);
/* Checks that they are zeros. */
bool disk_zeros(struct instance *instance, uint64_t offset, size_t length);

#endif
