/* SPDX-License-Identifier: MIT */
/*
 * The rules of the fault driver.
 *
 * Rules are separated by commas, each is words separated by blanks:
 *
 *	OPERATION[+OPERATION...] ACTION [CONDITION...]
 *
 *	operation  read, write, flush, unmap, zeroes, any
 *	action     error[=KIND]   fail, without asking the disk below
 *	           tear[=BYTES]   write only the first BYTES (default: half), then fail with EIO
 *	           short[=BYTES]  do only the first BYTES (default: half), and say that all is done
 *	           drop           do nothing, and say that it is done; reads give zeros
 *	           delay=TIME     wait, then go on
 *	           hang           wait until the rules are changed
 *	condition  range=A-B      requests that touch the bytes from A up to B; never a flush
 *	           after=N        spare the first N requests that match
 *	           count=N        hit only N times
 *	           chance=P       hit P percent of those that match; `seed` starts the generator
 *
 * KIND is an errno (EIO, ENOSPC ...) or medium-read, medium-write, illegal-block, invalid-input,
 * read-only, conflict, aborted, unsupported.
 */
#ifndef BACKENDS_FAULT_RULES_H
#define BACKENDS_FAULT_RULES_H

#include "core/error.h"
#include "core/stats.h"

#define RULES_MAX 32

enum action {
	ACTION_NONE,
	ACTION_ERROR,
	ACTION_TEAR,
	ACTION_SHORT,
	ACTION_DROP,
	ACTION_DELAY,
	ACTION_HANG,
};

struct rule {
	char text[160];	     /* as given */
	unsigned operations; /* bits (1 << enum stats_op) */
	enum action action;
	int error;	     /* ACTION_ERROR */
	uint64_t bytes;	     /* ACTION_TEAR, ACTION_SHORT; UINT64_MAX: half */
	uint64_t delay_ns;   /* ACTION_DELAY */
	uint64_t start, end; /* bytes */
	bool has_range;
	uint64_t after;
	uint64_t count; /* UINT64_MAX: no limit */
	double chance;	/* percent */
	uint64_t matched, hits;
};

struct rules {
	struct rule rules[RULES_MAX];
	unsigned count;
};

/*
 * Fills @rules from @text; NULL, or nothing but blanks, are no rules. Returns 0, or -1 with
 * err->key "rules" and a sentence.
 */
int rules_parse(const char *text, struct rules *rules, struct err *err);

#endif
