/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations, an optional interface of a disk (SPC-4 clause 5.13; NVMe base
 * specification, reservations). A disk object is one initiator: it registers, reserves and is
 * fenced as one I_T nexus.
 */
#ifndef CORE_PR_H
#define CORE_PR_H

#include "core/util.h"

struct disk;

/* Numbered as in NVMe (RTYPE) and in Linux (enum pr_type). */
enum pr_type {
	PR_NONE = 0,
	PR_WRITE_EXCLUSIVE = 1,
	PR_EXCLUSIVE_ACCESS = 2,
	PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 3,
	PR_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 4,
	PR_WRITE_EXCLUSIVE_ALL_REGISTRANTS = 5,
	PR_EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 6,
	PR_TYPES
};

/* "write-exclusive" ...; PR_NONE is "none". */
const char *pr_type_name(enum pr_type type);
/* The type called @name, or PR_TYPES. */
enum pr_type pr_type_find(const char *name);

/* Whether each registrant of such a reservation holds it, and it belongs to nobody in particular.
 */
static inline bool pr_type_is_all_registrants(enum pr_type type)
{
	return type == PR_WRITE_EXCLUSIVE_ALL_REGISTRANTS ||
	       type == PR_EXCLUSIVE_ACCESS_ALL_REGISTRANTS;
}

/* struct pr_capabilities.types has bit (1 << type) for each type that the disk knows. */
struct pr_capabilities {
	unsigned types;
	bool persist_through_power_loss;
};

struct pr_registrant {
	uint64_t key;
	uint8_t host_id[16];
	uint16_t controller_id;
	bool holds_reservation;
};

/* A snapshot. @registrants is the caller's, of @capacity; @count says how many there are, even if
 * more. */
struct pr_report {
	uint32_t generation;
	enum pr_type type;
	bool persist_through_power_loss;
	struct pr_registrant *registrants;
	unsigned capacity, count;
};

enum pr_flags {
	PR_IGNORE_KEY = 1 << 0, /* register: whatever the current key is */
	PR_SET_PTPL = 1 << 1,	/* register: persist through power loss from now on */
	PR_CLEAR_PTPL = 1 << 2, /* register: no longer */
	PR_ABORT = 1 << 3,	/* preempt: abort the victim's requests too */
};

/*
 * All in a task; 0 or an error of core/error.h. What the state of the reservations does not permit,
 * a wrong key above all, is ERROR_RESERVATION_CONFLICT; arguments that are wrong in themselves, and
 * a release by the holder of another type than it holds, are ERROR_INVALID_INPUT; PR_SET_PTPL
 * without that capability is ERROR_UNSUPPORTED.
 */
struct pr_ops {
	void (*capabilities)(struct disk *disk, struct pr_capabilities *capabilities);
	int (*report)(struct disk *disk, struct pr_report *report);
	/* @new_key 0 unregisters. */
	int (*reg)(struct disk *disk, uint64_t current_key, uint64_t new_key, unsigned flags);
	int (*reserve)(struct disk *disk, uint64_t key, enum pr_type type);
	int (*release)(struct disk *disk, uint64_t key, enum pr_type type);
	int (*clear)(struct disk *disk, uint64_t key);
	int (*preempt)(struct disk *disk, uint64_t key, uint64_t victim_key, enum pr_type type,
		       unsigned flags);
};

#endif
