/* SPDX-License-Identifier: MIT */
/* What a client counts. Any thread; what is read while requests run is approximate. */
#ifndef BACKENDS_BLOB_COUNTERS_H
#define BACKENDS_BLOB_COUNTERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include "backends/blob/client.h"

struct histogram {
	_Atomic uint64_t count, total_ns;
	_Atomic uint64_t latency[STATS_BUCKETS];
};

struct counters {
	_Atomic uint64_t outcomes[EXCHANGE_OUTCOMES]; /* of requests */
	_Atomic uint64_t retries, failures;	      /* of reads */
	_Atomic uint64_t bytes;			      /* that arrived and were right */
	struct histogram times[CLIENT_TIMES];
	pthread_mutex_t mutex; /* for the last error */
	char last_error[LAST_ERROR_MAX];
	time_t last_error_time;
};

void counters_init(struct counters *counters);
void counters_destroy(struct counters *counters);

/* A request has ended, with @bytes. */
void counters_add(struct counters *counters, const struct exchange *exchange, uint64_t bytes);
/* One has to be tried again, or (@failed) has failed for good. */
void counters_error(struct counters *counters, const char *text, bool failed);

/* Fills in what of @numbers is counted here. */
void counters_read(const struct counters *counters, struct client_numbers *numbers);
void counters_read_times(const struct counters *counters, enum client_time time,
			 struct stats_totals *totals);

/* As client_last_error(). */
bool counters_last_error(struct counters *counters, char text[static LAST_ERROR_MAX], time_t *when);

#endif
