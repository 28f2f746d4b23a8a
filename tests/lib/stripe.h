/* SPDX-License-Identifier: MIT */
/*
 * A disk of the driver striped over probes. All in a task.
 */
#ifndef TESTS_LIB_STRIPE_H
#define TESTS_LIB_STRIPE_H

#include "core/disk.h"
#include "tests/lib/probe.h"

#define STRIPE_SECTOR	   512
#define STRIPE_MEMBERS_MAX 7

struct stripe {
	unsigned count;
	struct probe probes[STRIPE_MEMBERS_MAX];
	struct disk *members[STRIPE_MEMBERS_MAX];
	struct disk *disk;
};

/* Members of @sectors each, which may still be changed before they are opened. */
void stripe_init(struct stripe *stripe, unsigned count, uint64_t sectors);

/* Opens the members and the disk. @size may be NULL. NULL with a sentence in @err. */
struct disk *stripe_try(struct stripe *stripe, const char *chunk_size, const char *size,
			struct err *err);
/* The same, which has to succeed. */
bool stripe_open(struct stripe *stripe, const char *chunk_size, const char *size);
void stripe_close(struct stripe *stripe);

/* Forgets what the members have seen. */
void stripe_forget(struct stripe *stripe);
/* How many calls of @op all the members have seen. */
unsigned stripe_calls(const struct stripe *stripe, enum probe_op op);

/* Requests to the disk; they return its error. */
int stripe_put(struct stripe *stripe, const void *data, uint64_t sector, uint64_t count,
	       unsigned flags);
int stripe_get(struct stripe *stripe, void *data, uint64_t sector, uint64_t count);

/* A shape, and the place of a sector in it, as the manual has it. */
struct stripe_shape {
	unsigned members;
	uint64_t chunk, sectors; /* of each member */
};

void stripe_place(const struct stripe_shape *shape, uint64_t sector, unsigned *member,
		  uint64_t *at);

/* Checks that each member got one request of @op, of just what lies on it, or none if that is
 * nothing. */
bool stripe_check_calls(const struct stripe *stripe, const struct stripe_shape *shape,
			enum probe_op op, uint64_t sector, uint64_t count, unsigned flags);

#endif
