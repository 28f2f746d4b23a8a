/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations as a state and the changes of it, by SPC-4 clause 5.13, and nothing else:
 * no locks, no requests, no file. An I_T nexus is a number here.
 *
 * Where the standard ends a command with CHECK CONDITION (ILLEGAL REQUEST) the error is
 * ERROR_INVALID_INPUT. There are no unit attentions: nobody could be told of them.
 *
 * NVMe has the same outcomes, but where it registers: who is registered may do so again with the same
 * key and without naming it, which is a conflict here; who is not cannot unregister, which does
 * nothing here.
 */
#ifndef BACKENDS_PRWRAP_RESERVATIONS_H
#define BACKENDS_PRWRAP_RESERVATIONS_H

#include "core/pr.h"

#define NEXUS_MAX 128U

/* What a nexus wants of the disk. */
enum access {
	ACCESS_READ,  /* reads, and looks where data is */
	ACCESS_WRITE, /* everything else: writes, unmaps, flushes, ejects */
	ACCESSES
};

/* Zeroed: nobody is registered, nothing is reserved. */
struct reservations {
	uint32_t generation;	  /* of registrations; 0 at each start */
	bool persist;		  /* through power loss: APTPL, PTPLS */
	enum pr_type type;	  /* PR_NONE: there is no reservation */
	unsigned holder;	  /* a nexus; 0 for PR_NONE and the all registrants types */
	uint64_t keys[NEXUS_MAX]; /* of each nexus; 0: it is not registered */
};

enum change_kind {
	CHANGE_REGISTER,
	CHANGE_RESERVE,
	CHANGE_RELEASE,
	CHANGE_CLEAR,
	CHANGE_PREEMPT,
};

/* One operation of struct pr_ops (core/pr.h). */
struct change {
	enum change_kind kind;
	uint64_t key;	    /* the nexus's own: the one that it says it has */
	uint64_t other_key; /* register: the new one; preempt: the victim's */
	enum pr_type type;  /* as it came: perhaps none that there is */
	unsigned flags;	    /* enum pr_flags */
};

struct nexus_set {
	bool has[NEXUS_MAX];
};

/*
 * Does @change for @nexus. Adds to @preempted, where that is a preemption, those that it hits; the
 * one that asks may be among them. 0 or an error; after an error @reservations is undefined.
 */
int reservations_change(struct reservations *reservations, unsigned nexus,
			const struct change *change, struct nexus_set *preempted);

bool reservations_allow(const struct reservations *reservations, unsigned nexus,
			enum access access);
bool reservations_holds(const struct reservations *reservations, unsigned nexus);

/* Whether both are the same to whoever comes after a restart. */
bool reservations_equal(const struct reservations *a, const struct reservations *b);

#endif
