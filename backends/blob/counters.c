// SPDX-License-Identifier: MIT
#include "backends/blob/counters.h"
#include <stdio.h>
#include "core/report.h"

void counters_init(struct counters *counters)
{
	pthread_mutex_init(&counters->mutex, NULL);
}

void counters_destroy(struct counters *counters)
{
	pthread_mutex_destroy(&counters->mutex);
}

static void add(_Atomic uint64_t *counter, uint64_t value)
{
	atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void histogram_add(struct histogram *histogram, uint64_t ns)
{
	unsigned bucket = ns > 1 ? 63U - (unsigned)__builtin_clzll(ns) : 0;

	add(&histogram->count, 1);
	add(&histogram->total_ns, ns);
	add(&histogram->latency[min_u64(bucket, STATS_BUCKETS - 1)], 1);
}

void counters_add(struct counters *counters, const struct exchange *exchange, uint64_t bytes)
{
	add(&counters->outcomes[exchange->outcome], 1);
	add(&counters->bytes, bytes);
	if (exchange->outcome != EXCHANGE_DONE)
		return;
	histogram_add(&counters->first_byte, exchange->first_byte_ns);
	histogram_add(&counters->total, exchange->total_ns);
}

void counters_error(struct counters *counters, const char *text, bool failed)
{
	add(failed ? &counters->failures : &counters->retries, 1);
	pthread_mutex_lock(&counters->mutex);
	snprintf(counters->last_error, sizeof(counters->last_error), "%s", text);
	counters->last_error_time = time(NULL);
	pthread_mutex_unlock(&counters->mutex);
}

static void inspect_histogram(const struct histogram *histogram, const char *name,
			      struct report *report)
{
	struct stats_totals totals = {.requests = get(&histogram->count)};

	if (totals.requests == 0)
		return;
	report_object_begin(report, name);
	for (unsigned b = 0; b < STATS_BUCKETS; b++)
		totals.latency[b] = get(&histogram->latency[b]);
	report_u64(report, "mean_ns", get(&histogram->total_ns) / totals.requests);
	report_u64(report, "p50_below_ns", stats_percentile(&totals, 50));
	report_u64(report, "p99_below_ns", stats_percentile(&totals, 99));
	report_object_begin(report, "latency_from_ns");
	for (unsigned b = 0; b < STATS_BUCKETS; b++) {
		char from_ns[24];

		snprintf(from_ns, sizeof(from_ns), "%llu", 1ULL << b);
		if (totals.latency[b] > 0)
			report_u64(report, from_ns, totals.latency[b]);
	}
	report_object_end(report);
	report_object_end(report);
}

static void inspect_last_error(struct counters *counters, struct report *report)
{
	char text[sizeof(counters->last_error)], date[40];
	struct tm tm;
	time_t when;

	pthread_mutex_lock(&counters->mutex);
	snprintf(text, sizeof(text), "%s", counters->last_error);
	when = counters->last_error_time;
	pthread_mutex_unlock(&counters->mutex);
	if (!text[0])
		return;
	gmtime_r(&when, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &tm);
	report_string(report, "last_error", text);
	report_string(report, "last_error_time", date);
}

void counters_inspect(struct counters *counters, struct report *report)
{
	static const char *const names[EXCHANGE_OUTCOMES] = {
		[EXCHANGE_DONE] = "succeeded",	  [EXCHANGE_REDIRECT] = "redirected",
		[EXCHANGE_AGAIN] = "interrupted", [EXCHANGE_REFUSED] = "refused",
		[EXCHANGE_CHANGED] = "changed",
	};

	report_object_begin(report, "requests_sent");
	for (unsigned i = 0; i < EXCHANGE_OUTCOMES; i++)
		report_u64(report, names[i], get(&counters->outcomes[i]));
	report_object_end(report);
	report_u64(report, "retries", get(&counters->retries));
	report_u64(report, "failures", get(&counters->failures));
	report_bytes(report, "bytes_received", get(&counters->bytes));
	inspect_histogram(&counters->first_byte, "first_byte", report);
	inspect_histogram(&counters->total, "whole_request", report);
	inspect_last_error(counters, report);
}
