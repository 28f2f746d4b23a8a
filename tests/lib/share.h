/* SPDX-License-Identifier: MIT */
/*
 * A disk that several initiators share: a prwrap on a probe, with ports "a", "b", ... All in a
 * task.
 */
#ifndef TESTS_LIB_SHARE_H
#define TESTS_LIB_SHARE_H

#include "core/pr.h"
#include "tests/lib/probe.h"

#define SHARE_PORTS 4

struct share {
	struct probe probe;
	struct disk *below, *disk, *ports[SHARE_PORTS];
};

/* A port of @disk, called @name; NULL with a sentence in @err. */
struct disk *port_open(struct disk *disk, const char *name, struct err *err);

/* @state_file may be NULL. False after a failed check. */
bool share_open(struct share *share, uint64_t sector_count, const char *state_file);
/* Closes all but the probe's struct. */
void share_close(struct share *share);

/* Operations of struct pr_ops by port number. */
int share_register(struct share *share, unsigned port, uint64_t key, uint64_t new_key,
		   unsigned flags);
int share_reserve(struct share *share, unsigned port, uint64_t key, enum pr_type type);
int share_preempt(struct share *share, unsigned port, uint64_t key, uint64_t victim_key,
		  enum pr_type type, unsigned flags);

/*
 * The reservations as every port reports them, on one line: the generation, the keys of the ports
 * that are registered, and the reservation with those who hold it: "2 a1 b2 WE a". What nobody has
 * is "-" or "none".
 */
void share_describe(struct share *share, char text[static 200]);

/* "none", "WE", "EA", "WERO", "EARO", "WEAR", "EAAR". */
extern const char *const share_types[PR_TYPES];

#endif
