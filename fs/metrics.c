// SPDX-License-Identifier: MIT
/*
 * The counters of all nodes as Prometheus text (exposition format 0.0.4): each metric with its HELP
 * and TYPE line, then a sample for each node and operation. Labels: image, the path of nodes from
 * its top to the node ("vm1/base"), operation. Then those that drivers have of their own (struct
 * disk_metric), for each of their nodes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* What is done with each disk; @labels are those of its image and its node. */
struct visitor {
	FILE *out;
	void (*visit)(const struct visitor *visitor, struct disk *disk, const char *labels);
	const void *what; /* is to be told */
};

/* Visits @disk and all below it. Names of files need escapes, also where a disk is called like its
 * file; names of nodes do not. */
static void visit_disk(const struct visitor *visitor, const char *image, const char *path,
		       struct disk *disk)
{
	char labels[1200];

	snprintf(labels, sizeof(labels), "image=\"%s\",node=\"%s\"", image, path);
	visitor->visit(visitor, disk, labels);
	for (unsigned i = 0; i < disk->below_count; i++) {
		char below[512];

		snprintf(below, sizeof(below), "%s/%s", path, disk->below[i]->name);
		visit_disk(visitor, image, below, disk->below[i]);
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

static void visit_all(const struct visitor *visitor, struct mount *mount)
{
	for (size_t i = 0; i < mount->image_count; i++) {
		char image[512], top[512];

		escape_label(image, mount->images[i].name);
		escape_label(top, mount->images[i].disk->name);
		visit_disk(visitor, image, top, mount->images[i].disk);
	}
}

static void print_head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* ---- What the core counts. ---- */

static void visit_operations(const struct visitor *visitor, struct disk *disk, const char *labels)
{
	const struct metric *metric = visitor->what;

	for (unsigned op = 0; op < STATS_OPS; op++) {
		struct stats_totals totals;
		char all[1300];

		stats_read(&disk->core.stats, op, &totals);
		snprintf(all, sizeof(all), "%s,op=\"%s\"", labels, stats_op_name(op));
		metric->sample(visitor->out, metric->name, all, &totals);
	}
}

static void print_metrics(FILE *out, struct mount *mount)
{
	for (size_t i = 0; i < ARRAY_SIZE(metrics); i++) {
		const struct visitor visitor = {out, visit_operations, &metrics[i]};

		print_head(out, metrics[i].name, metrics[i].type, metrics[i].help);
		visit_all(&visitor, mount);
	}
}

/* ---- What drivers count. ---- */

#define DRIVERS_MAX 64

/* Those with metrics, of which there is a disk. */
struct driver_set {
	const struct driver *drivers[DRIVERS_MAX];
	size_t count;
};

static void collect_drivers(struct driver_set *set, const struct disk *disk)
{
	size_t i = 0;

	while (i < set->count && set->drivers[i] != disk->driver)
		i++;
	if (disk->driver->metrics && i == set->count && i < DRIVERS_MAX)
		set->drivers[set->count++] = disk->driver;
	for (i = 0; i < disk->below_count; i++)
		collect_drivers(set, disk->below[i]);
}

/* A metric of a driver. */
struct driver_metric {
	const struct driver *driver;
	const struct disk_metric *metric;
};

static void visit_driver(const struct visitor *visitor, struct disk *disk, const char *labels)
{
	const struct driver_metric *what = visitor->what;
	const struct disk_metric *metric = what->metric;
	struct stats_totals totals = {.requests = 0};
	char all[1300];

	if (disk->driver != what->driver)
		return;
	snprintf(all, sizeof(all), "%s%s%s", labels, metric->label ? "," : "",
		 metric->label ? metric->label : "");
	if (metric->type != METRIC_LATENCY) {
		sample_u64(visitor->out, metric->name, all, metric->value(disk, metric->which));
		return;
	}
	metric->latency(disk, metric->which, &totals);
	sample_latency(visitor->out, metric->name, all, &totals);
}

static void print_driver(FILE *out, struct mount *mount, const struct driver *driver)
{
	static const char *const types[] = {
		[METRIC_COUNTER] = "counter",
		[METRIC_GAUGE] = "gauge",
		[METRIC_LATENCY] = "histogram",
	};
	const char *last = "";

	for (const struct disk_metric *metric = driver->metrics; metric->name; metric++) {
		const struct driver_metric what = {driver, metric};
		const struct visitor visitor = {out, visit_driver, &what};

		if (strcmp(metric->name, last) != 0)
			print_head(out, metric->name, types[metric->type], metric->help);
		last = metric->name;
		visit_all(&visitor, mount);
	}
}

char *metrics_text(struct mount *mount, size_t *length)
{
	struct driver_set set = {.count = 0};
	char *text = NULL;
	FILE *out = open_memstream(&text, length);

	if (!out)
		return NULL;
	print_metrics(out, mount);
	for (size_t i = 0; i < mount->image_count; i++)
		collect_drivers(&set, mount->images[i].disk);
	for (size_t i = 0; i < set.count; i++)
		print_driver(out, mount, set.drivers[i]);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
