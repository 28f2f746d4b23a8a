// SPDX-License-Identifier: MIT
#include "backends/blob/counters.h"
#include <stdio.h>
#include <string.h>

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
	histogram_add(&counters->times[CLIENT_FIRST_BYTE], exchange->first_byte_ns);
	histogram_add(&counters->times[CLIENT_WHOLE], exchange->total_ns);
}

void counters_error(struct counters *counters, const char *text, bool failed)
{
	add(failed ? &counters->failures : &counters->retries, 1);
	pthread_mutex_lock(&counters->mutex);
	snprintf(counters->last_error, sizeof(counters->last_error), "%s", text);
	counters->last_error_time = time(NULL);
	pthread_mutex_unlock(&counters->mutex);
}

void counters_read(const struct counters *counters, struct client_numbers *numbers)
{
	for (unsigned i = 0; i < EXCHANGE_OUTCOMES; i++)
		numbers->outcomes[i] = get(&counters->outcomes[i]);
	numbers->retries = get(&counters->retries);
	numbers->failures = get(&counters->failures);
	numbers->bytes = get(&counters->bytes);
}

void counters_read_times(const struct counters *counters, enum client_time time,
			 struct stats_totals *totals)
{
	const struct histogram *histogram = &counters->times[time];

	*totals = (struct stats_totals){
		.requests = get(&histogram->count),
		.total_ns = get(&histogram->total_ns),
	};
	for (unsigned b = 0; b < STATS_BUCKETS; b++)
		totals->latency[b] = get(&histogram->latency[b]);
}

bool counters_last_error(struct counters *counters, char text[static LAST_ERROR_MAX], time_t *when)
{
	pthread_mutex_lock(&counters->mutex);
	memcpy(text, counters->last_error, LAST_ERROR_MAX);
	*when = counters->last_error_time;
	pthread_mutex_unlock(&counters->mutex);
	return text[0] != '\0';
}
