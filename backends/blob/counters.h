/* SPDX-License-Identifier: MIT */
/* What a client counts, for `.status`. Any thread; what is read while requests run is approximate. */
#ifndef BACKENDS_BLOB_COUNTERS_H
#define BACKENDS_BLOB_COUNTERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include "backends/blob/exchange.h"
#include "core/stats.h"

struct report;

struct histogram {
	_Atomic uint64_t count, total_ns;
	_Atomic uint64_t latency[STATS_BUCKETS];
};

struct counters {
	_Atomic uint64_t outcomes[EXCHANGE_OUTCOMES]; /* of requests */
	_Atomic uint64_t retries, failures;	      /* of reads */
	_Atomic uint64_t bytes;			      /* that arrived and were right */
	struct histogram first_byte, total;
	pthread_mutex_t mutex; /* for the last error */
	char last_error[400];
	time_t last_error_time;
};

void counters_init(struct counters *counters);
void counters_destroy(struct counters *counters);

/* A request has ended, with @bytes. */
void counters_add(struct counters *counters, const struct exchange *exchange, uint64_t bytes);
/* One has to be tried again, or (@failed) has failed for good. */
void counters_error(struct counters *counters, const char *text, bool failed);

void counters_inspect(struct counters *counters, struct report *report);

#endif
