// SPDX-License-Identifier: MIT
#include "core/stats.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/report.h"
#include "core/worker.h"

int stats_init(struct stats *stats, unsigned workers)
{
	size_t size = workers * sizeof(struct stats_slot);

	stats->slots = aligned_alloc(_Alignof(struct stats_slot), size);
	if (!stats->slots)
		return -ENOMEM;
	memset(stats->slots, 0, size);
	stats->slot_count = workers;
	return 0;
}

void stats_destroy(struct stats *stats)
{
	free(stats->slots);
	stats->slots = NULL;
	stats->slot_count = 0;
}

/* Only the slot's own worker writes, so a load and a store do; atomic only for the sake of readers.
 */
static void counter_add(_Atomic uint64_t *counter, uint64_t value)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + value,
			      memory_order_relaxed);
}

static struct stats_cell *own_cell(struct stats *stats, enum stats_op op)
{
	return &stats->slots[worker_index()].cells[op];
}

uint64_t stats_begin(struct stats *stats, enum stats_op op)
{
	counter_add(&own_cell(stats, op)->started, 1);
	return now_ns();
}

void stats_end(struct stats *stats, enum stats_op op, uint64_t begin_ns, uint64_t bytes, int error)
{
	struct stats_cell *cell = own_cell(stats, op);
	uint64_t ns = now_ns() - begin_ns;
	unsigned bucket = ns == 0 ? 0 : 63 - (unsigned)__builtin_clzll(ns);

	if (bucket >= STATS_BUCKETS)
		bucket = STATS_BUCKETS - 1;
	counter_add(&cell->finished, 1);
	counter_add(&cell->total_ns, ns);
	counter_add(&cell->latency[bucket], 1);
	if (error)
		counter_add(&cell->errors, 1);
	else
		counter_add(&cell->bytes, bytes);
}

static uint64_t counter_read(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void stats_read(const struct stats *stats, enum stats_op op, struct stats_totals *totals)
{
	uint64_t started = 0;

	memset(totals, 0, sizeof(*totals));
	for (unsigned i = 0; i < stats->slot_count; i++) {
		const struct stats_cell *cell = &stats->slots[i].cells[op];

		/* Finished before started, so that the difference is not negative. */
		totals->requests += counter_read(&cell->finished);
		atomic_thread_fence(memory_order_acquire);
		started += counter_read(&cell->started);
		totals->errors += counter_read(&cell->errors);
		totals->bytes += counter_read(&cell->bytes);
		totals->total_ns += counter_read(&cell->total_ns);
		for (unsigned b = 0; b < STATS_BUCKETS; b++)
			totals->latency[b] += counter_read(&cell->latency[b]);
	}
	totals->in_flight = started > totals->requests ? started - totals->requests : 0;
}

uint64_t stats_percentile(const struct stats_totals *totals, unsigned percent)
{
	uint64_t all = 0, seen = 0;

	for (unsigned b = 0; b < STATS_BUCKETS; b++)
		all += totals->latency[b];
	for (unsigned b = 0; b < STATS_BUCKETS; b++) {
		seen += totals->latency[b];
		if (all > 0 && seen * 100 >= all * percent)
			return (uint64_t)2 << b;
	}
	return 0;
}

const char *stats_op_name(enum stats_op op)
{
	static const char *const names[STATS_OPS] = {
		[STATS_READ] = "read",
		[STATS_WRITE] = "write",
		[STATS_FLUSH] = "flush",
		[STATS_UNMAP] = "unmap",
		[STATS_WRITE_ZEROES] = "write_zeroes",
	};

	return names[op];
}

void stats_report_times(const struct stats_totals *totals, struct report *report)
{
	report_u64(report, "mean_ns", totals->requests ? totals->total_ns / totals->requests : 0);
	report_u64(report, "p50_below_ns", stats_percentile(totals, 50));
	report_u64(report, "p99_below_ns", stats_percentile(totals, 99));
	report_object_begin(report, "latency_from_ns");
	for (unsigned b = 0; b < STATS_BUCKETS; b++) {
		char from_ns[24];

		snprintf(from_ns, sizeof(from_ns), "%llu", 1ULL << b);
		if (totals->latency[b] > 0)
			report_u64(report, from_ns, totals->latency[b]);
	}
	report_object_end(report);
}
