// SPDX-License-Identifier: MIT
/* What is told of a remote disk, in `.status` and `.metrics`. */
#include <stdio.h>
#include "backends/blob/blob.h"
#include "core/report.h"

/* ---- .status ---- */

static const char *const outcome_names[EXCHANGE_OUTCOMES] = {
	[EXCHANGE_DONE] = "succeeded",	  [EXCHANGE_REDIRECT] = "redirected",
	[EXCHANGE_AGAIN] = "interrupted", [EXCHANGE_REFUSED] = "refused",
	[EXCHANGE_CHANGED] = "changed",
};

static void inspect_object(struct disk *disk, struct report *report)
{
	const struct blob *blob = disk->state;
	const struct validator *validator = client_validator(blob->client);
	char shown[ETAG_MAX];

	report_string(report, "url", blob->shown);
	report_string(report, "etag", response_show(shown, sizeof(shown), validator->etag));
	report_string(report, "last_modified",
		      response_show(shown, sizeof(shown), validator->last_modified));
	report_u64(report, "unreachable_bytes", blob_unreachable_bytes(disk));
}

static void inspect_requests(struct blob_client *client, struct report *report)
{
	struct client_numbers numbers;

	client_read_numbers(client, &numbers);
	report_u64(report, "requests_active", numbers.active);
	report_u64(report, "requests_waiting", numbers.waiting);
	report_u64(report, "connections", numbers.connections);
	report_u64(report, "connections_made", numbers.connected);
	report_object_begin(report, "requests_sent");
	for (unsigned i = 0; i < EXCHANGE_OUTCOMES; i++)
		report_u64(report, outcome_names[i], numbers.outcomes[i]);
	report_object_end(report);
	report_u64(report, "retries", numbers.retries);
	report_u64(report, "failures", numbers.failures);
	report_bytes(report, "bytes_received", numbers.bytes);
}

static void inspect_times(struct blob_client *client, enum client_time time, const char *name,
			  struct report *report)
{
	struct stats_totals totals;

	client_read_times(client, time, &totals);
	if (totals.requests == 0)
		return;
	report_object_begin(report, name);
	stats_report_times(&totals, report);
	report_object_end(report);
}

static void inspect_last_error(struct blob_client *client, struct report *report)
{
	char text[LAST_ERROR_MAX], date[40];
	struct tm tm;
	time_t when;

	if (!client_last_error(client, text, &when))
		return;
	gmtime_r(&when, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &tm);
	report_string(report, "last_error", text);
	report_string(report, "last_error_time", date);
}

void blob_inspect(struct disk *disk, struct report *report)
{
	const struct blob *blob = disk->state;

	inspect_object(disk, report);
	inspect_requests(blob->client, report);
	inspect_times(blob->client, CLIENT_FIRST_BYTE, "first_byte", report);
	inspect_times(blob->client, CLIENT_WHOLE, "whole_request", report);
	inspect_last_error(blob->client, report);
	blob_cache_inspect(blob->cache, report);
}

/* ---- .metrics: @which is where it stands in the numbers. ---- */

static uint64_t client_metric(struct disk *disk, size_t which)
{
	const struct blob *blob = disk->state;
	struct client_numbers numbers;

	client_read_numbers(blob->client, &numbers);
	return *(const uint64_t *)((const char *)&numbers + which);
}

static uint64_t cache_metric(struct disk *disk, size_t which)
{
	const struct blob *blob = disk->state;
	struct blob_cache_numbers numbers;

	blob_cache_read_numbers(blob->cache, &numbers);
	return *(const uint64_t *)((const char *)&numbers + which);
}

static void time_metric(struct disk *disk, size_t which, struct stats_totals *totals)
{
	const struct blob *blob = disk->state;

	client_read_times(blob->client, (enum client_time)which, totals);
}

#define OUTCOME(index, text)                                                                       \
	{                                                                                          \
		.name = "diskfs_blob_requests_total", .help = "Requests that have been answered.", \
		.label = "outcome=\"" text "\"", .type = METRIC_COUNTER,                           \
		.which = offsetof(struct client_numbers, outcomes[index]), .value = client_metric, \
	}
#define CLIENT(metric, kind, member, text)                                                \
	{                                                                                 \
		.name = "diskfs_blob_" metric, .help = (text), .type = kind,              \
		.which = offsetof(struct client_numbers, member), .value = client_metric, \
	}
#define CACHE(metric, kind, member, text)                                                    \
	{                                                                                    \
		.name = "diskfs_blob_" metric, .help = (text), .type = kind,                 \
		.which = offsetof(struct blob_cache_numbers, member), .value = cache_metric, \
	}
#define TIME(metric, index, text)                                                      \
	{                                                                              \
		.name = "diskfs_blob_" metric, .help = (text), .type = METRIC_LATENCY, \
		.which = index, .latency = time_metric,                                \
	}

const struct disk_metric blob_metrics[] = {
	OUTCOME(EXCHANGE_DONE, "succeeded"),
	OUTCOME(EXCHANGE_REDIRECT, "redirected"),
	OUTCOME(EXCHANGE_AGAIN, "interrupted"),
	OUTCOME(EXCHANGE_REFUSED, "refused"),
	OUTCOME(EXCHANGE_CHANGED, "changed"),
	CLIENT("retries_total", METRIC_COUNTER, retries, "Requests that were tried again."),
	CLIENT("failures_total", METRIC_COUNTER, failures, "Reads that failed for good."),
	CLIENT("received_bytes_total", METRIC_COUNTER, bytes, "Bytes that have arrived."),
	CLIENT("connections", METRIC_GAUGE, connections, "Open connections."),
	CLIENT("connections_total", METRIC_COUNTER, connected, "Connections made, or tried."),
	CLIENT("active", METRIC_GAUGE, active, "Requests under way."),
	CLIENT("waiting", METRIC_GAUGE, waiting, "Requests that wait for their turn."),
	TIME("first_byte_seconds", CLIENT_FIRST_BYTE, "Time until the first byte of an answer."),
	TIME("request_seconds", CLIENT_WHOLE, "Time until the last byte of an answer."),
	CACHE("cache_hits_total", METRIC_COUNTER, hits, "Reads that found all in memory."),
	CACHE("cache_misses_total", METRIC_COUNTER, misses, "Reads that had to wait."),
	CACHE("cache_bytes", METRIC_GAUGE, held, "Memory that holds what was read."),
	CACHE("readahead_bytes_total", METRIC_COUNTER, readahead, "Bytes read ahead."),
	CACHE("readahead_useful_bytes_total", METRIC_COUNTER, readahead_useful,
	      "Bytes read ahead that somebody has read since."),
	CACHE("readahead_wasted_bytes_total", METRIC_COUNTER, readahead_wasted,
	      "Bytes read ahead that were forgotten unread."),
	{.name = NULL},
};
