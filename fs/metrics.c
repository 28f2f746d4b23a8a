// SPDX-License-Identifier: MIT
/*
 * The counters of all nodes as Prometheus text (exposition format 0.0.4): each metric with its HELP
 * and TYPE line, then a sample for each node and operation. Labels: image, the path of nodes from
 * its top to the node ("vm1/base"), operation.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "core/disk.h"
#include "fs/mount.h"
#include "fs/status.h"

struct metric {
	const char *name, *type, *help;
	void (*sample)(FILE *out, const char *name, const char *labels,
		       const struct stats_totals *totals);
};

static void sample_u64(FILE *out, const char *name, const char *labels, uint64_t value)
{
	fprintf(out, "%s{%s} %" PRIu64 "\n", name, labels, value);
}

static void sample_requests(FILE *out, const char *name, const char *labels,
			    const struct stats_totals *totals)
{
	sample_u64(out, name, labels, totals->requests);
}

static void sample_bytes(FILE *out, const char *name, const char *labels,
			 const struct stats_totals *totals)
{
	sample_u64(out, name, labels, totals->bytes);
}

static void sample_errors(FILE *out, const char *name, const char *labels,
			  const struct stats_totals *totals)
{
	sample_u64(out, name, labels, totals->errors);
}

static void sample_in_flight(FILE *out, const char *name, const char *labels,
			     const struct stats_totals *totals)
{
	sample_u64(out, name, labels, totals->in_flight);
}

/* Every second power of two from 1 us to 17 s: what a graph can show. */
#define BUCKET_FIRST 10
#define BUCKET_STEP  2

static void sample_latency(FILE *out, const char *name, const char *labels,
			   const struct stats_totals *totals)
{
	uint64_t below = 0;

	if (totals->requests == 0) /* a folder may have a thousand disks that do nothing */
		return;
	for (unsigned b = 0; b < STATS_BUCKETS; b++) {
		below += totals->latency[b];
		if (b + 1 >= BUCKET_FIRST && (b + 1 - BUCKET_FIRST) % BUCKET_STEP == 0 &&
		    b + 1 < STATS_BUCKETS)
			fprintf(out, "%s_bucket{%s,le=\"%.9g\"} %" PRIu64 "\n", name, labels,
				(double)((uint64_t)1 << (b + 1)) / (double)NS_PER_S, below);
	}
	fprintf(out, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, labels, below);
	fprintf(out, "%s_sum{%s} %.9f\n", name, labels,
		(double)totals->total_ns / (double)NS_PER_S);
	fprintf(out, "%s_count{%s} %" PRIu64 "\n", name, labels, below);
}

static const struct metric metrics[] = {
	{"diskfs_requests_total", "counter", "Requests that have ended.", sample_requests},
	{"diskfs_bytes_total", "counter", "Bytes of requests that succeeded.", sample_bytes},
	{"diskfs_errors_total", "counter", "Requests that failed.", sample_errors},
	{"diskfs_in_flight", "gauge", "Requests under way.", sample_in_flight},
	{"diskfs_latency_seconds", "histogram", "Time that requests took.", sample_latency},
};

/* The samples of one metric for @disk and all below it. Names of files need escapes, also where a
 * disk is called like its file; names of nodes do not. */
static void sample_disk(FILE *out, const struct metric *metric, const char *image, const char *path,
			struct disk *disk)
{
	for (unsigned op = 0; op < STATS_OPS; op++) {
		struct stats_totals totals;
		char labels[1200];

		stats_read(&disk->core.stats, op, &totals);
		snprintf(labels, sizeof(labels), "image=\"%s\",node=\"%s\",op=\"%s\"", image, path,
			 stats_op_name(op));
		metric->sample(out, metric->name, labels, &totals);
	}
	for (unsigned i = 0; i < disk->below_count; i++) {
		char below[512];

		snprintf(below, sizeof(below), "%s/%s", path, disk->below[i]->name);
		sample_disk(out, metric, image, below, disk->below[i]);
	}
}

/* @name with its backslashes, quotes and newlines escaped, as a label's value wants it. */
static void escape_label(char escaped[static 512], const char *name)
{
	size_t length = 0;

	for (; *name && length + 3 < 512; name++) {
		if (*name == '\\' || *name == '"' || *name == '\n')
			escaped[length++] = '\\';
		escaped[length++] = *name == '\n' ? 'n' : *name;
	}
	escaped[length] = '\0';
}

char *metrics_text(struct mount *mount, size_t *length)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, length);

	if (!out)
		return NULL;
	for (size_t m = 0; m < ARRAY_SIZE(metrics); m++) {
		const struct metric *metric = &metrics[m];

		fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help,
			metric->name, metric->type);
		for (size_t i = 0; i < mount->image_count; i++) {
			char image[512], top[512];

			escape_label(image, mount->images[i].name);
			escape_label(top, mount->images[i].disk->name);
			sample_disk(out, metric, image, top, mount->images[i].disk);
		}
	}
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
