/* SPDX-License-Identifier: MIT */
/*
 * Counters of a node: requests, bytes, errors, in flight and a latency histogram for each
 * operation, always on.
 *
 * Each worker writes a slot of its own, with plain relaxed stores, so counting costs two clock
 * reads and no shared cache line. Readers, on any thread, add the slots up; what they get is exact
 * once the requests have ended.
 */
#ifndef CORE_STATS_H
#define CORE_STATS_H

#include <stdatomic.h>
#include "core/util.h"

struct report;

enum stats_op { STATS_READ, STATS_WRITE, STATS_FLUSH, STATS_UNMAP, STATS_WRITE_ZEROES, STATS_OPS };

/* Bucket b counts latencies of [2^b, 2^(b+1)) ns; the last also all above: 2^35 ns are 34 s. */
#define STATS_BUCKETS 36

struct stats_cell {
	_Atomic uint64_t started, finished, errors, bytes, total_ns;
	_Atomic uint64_t latency[STATS_BUCKETS];
};

struct stats_slot {
	struct stats_cell cells[STATS_OPS];
} __attribute__((aligned(64)));

struct stats {
	struct stats_slot *slots; /* one for each worker; allocated by stats_init */
	unsigned slot_count;
};

/* The sum of all slots for one operation. in_flight is started minus finished. */
struct stats_totals {
	uint64_t requests, errors, bytes, total_ns, in_flight;
	uint64_t latency[STATS_BUCKETS];
};

/* 0, or -ENOMEM. */
int stats_init(struct stats *stats, unsigned workers);
void stats_destroy(struct stats *stats);

/* On a worker, around a request: @begin_ns is what stats_begin() returned; @error is 0 or an error.
 */
uint64_t stats_begin(struct stats *stats, enum stats_op op);
void stats_end(struct stats *stats, enum stats_op op, uint64_t begin_ns, uint64_t bytes, int error);

/* Any thread. */
void stats_read(const struct stats *stats, enum stats_op op, struct stats_totals *totals);

/* The latency below which @percent of the requests stayed, as the upper bound of its bucket, in ns;
 * 0 for none. */
uint64_t stats_percentile(const struct stats_totals *totals, unsigned percent);

/* Adds the mean, two percentiles and the histogram, in ns, to the object that @report is in. */
void stats_report_times(const struct stats_totals *totals, struct report *report);

/* "read", "write", "flush", "unmap", "write_zeroes". */
const char *stats_op_name(enum stats_op op);

#endif
