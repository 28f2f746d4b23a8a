// SPDX-License-Identifier: MIT
#include "fs/status.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "core/offload.h"
#include "core/report.h"
#include "core/trace.h"
#include "core/worker.h"
#include "fs/mount.h"
#include "fs/uring.h"
#include "fs/wire.h"

/* A request that lasts longer is listed by itself. */
#define SLOW_NS NS_PER_S

struct status_text {
	struct status_text *next;
	uint64_t handle;
	char *text;
	size_t length;
};

void status_files_init(struct status_files *files)
{
	pthread_mutex_init(&files->mutex, NULL);
	files->open = NULL;
	files->next_handle = 1;
}

static void text_free(struct status_text *text)
{
	free(text->text);
	free(text);
}

void status_files_destroy(struct status_files *files)
{
	while (files->open) {
		struct status_text *text = files->open;

		files->open = text->next;
		text_free(text);
	}
	pthread_mutex_destroy(&files->mutex);
}

const char *status_file_name(enum status_file file)
{
	static const char *const names[STATUS_FILES] = {
		[STATUS_TEXT] = ".status",
		[STATUS_JSON] = ".status.json",
		[STATUS_METRICS] = ".metrics",
	};

	return names[file];
}

/* ---- The report. ---- */

static void report_workers(struct mount *mount, struct report *report)
{
	report_list_begin(report, "workers");
	for (unsigned i = 0; i < workers_count(); i++) {
		const struct channel *channel = &mount->channels[i];
		struct worker_numbers numbers;

		worker_read_numbers(i, &numbers);
		report_object_begin(report, NULL);
		report_u64(report, "requests",
			   atomic_load_explicit(&channel->requests, memory_order_relaxed));
		report_u64(report, "in_flight",
			   atomic_load_explicit(&channel->in_flight, memory_order_relaxed));
		report_u64(report, "turns", numbers.turns);
		report_u64(report, "sleeps", numbers.sleeps);
		report_u64(report, "tasks", numbers.tasks);
		report_u64(report, "stacks", numbers.stacks);
		report_bytes(report, "buffer_bytes", numbers.buffer_bytes);
		report_object_end(report);
	}
	report_list_end(report);
}

/* Requests that ought to have ended long ago, and the node that each is stuck in. */
static void report_slow(struct report *report)
{
	struct slow_requests *slow = malloc(sizeof(*slow));

	if (!slow || trace_slow_requests(SLOW_NS, slow) < 0) {
		free(slow);
		return;
	}
	report_list_begin(report, "slow_requests");
	for (unsigned i = 0; i < slow->count; i++) {
		const struct slow_request *request = &slow->requests[i];

		report_object_begin(report, NULL);
		report_string(report, "node", request->node);
		report_string(report, "operation", stats_op_name(request->op));
		report_u64(report, "offset", request->offset);
		report_bytes(report, "length", request->length);
		report_u64(report, "age_ms", request->age_ns / (NS_PER_S / 1000));
		report_u64(report, "worker", request->worker);
		report_object_end(report);
	}
	report_list_end(report);
	report_u64(report, "slow_requests_not_shown", slow->more);
	report_u64(report, "silent_workers", slow->silent_workers);
	free(slow);
}

static void report_transport(const struct mount *mount, struct report *report)
{
	uint64_t requests = 0, shared = 0, bytes = 0;

	for (unsigned i = 0; mount->uring_ready && i < mount->channel_count; i++) {
		const struct uring *uring = mount->channels[i].uring;

		requests += uring_requests(uring);
		shared += uring_shared_requests(uring);
		bytes += uring_bytes(uring);
	}
	report_string(report, "transport", requests > 0 ? "uring" : "poll");
	if (requests > 0) {
		report_u64(report, "ring_requests", requests);
		report_u64(report, "ring_requests_shared", shared);
		report_bytes(report, "ring_memory", bytes);
	} else {
		const char *refused = mount->uring_refused;

		report_string(report, "no_ring",
			      refused ? refused : "the kernel has refused its entries");
	}
}

static void report_mount(struct mount *mount, struct report *report)
{
	char started[32], flags[200];
	struct tm tm;

	localtime_r(&mount->started, &tm);
	strftime(started, sizeof(started), "%Y-%m-%d %H:%M:%S %z", &tm);
	report_string(report, "version", DISKFS_VERSION);
	report_string(report, "mountpoint", mount->mountpoint);
	report_string(report, "configuration", mount->config->path);
	report_string(report, "started", started);
	report_u64(report, "uptime_s", (uint64_t)(time(NULL) - mount->started));
	report_string(report, "cache", cache_policy_name(mount->settings->cache));
	report_object_begin(report, "kernel");
	report_transport(mount, report);
	report_format(report, "protocol", "7.%u", mount->link.init.minor);
	report_string(report, "features", wire_init_flags(flags, &mount->link.init));
	report_bytes(report, "max_write", mount->link.init.max_write);
	report_object_end(report);
}

static char *report_text(struct mount *mount, enum report_format format, size_t *length)
{
	struct report *report = report_new(format);

	if (!report)
		return NULL;
	report_mount(mount, report);
	report_workers(mount, report);
	report_slow(report);
	report_object_begin(report, "images");
	for (size_t i = 0; i < mount->image_count; i++) {
		report_object_begin(report, mount->images[i].name);
		if (mount->images[i].passthrough)
			report_string(report, "served_by",
				      "the kernel: passthrough, reads and writes are not counted");
		disk_inspect(mount->images[i].disk, report);
		report_object_end(report);
	}
	report_object_end(report);
	return report_finish(report, length);
}

/* ---- Making texts, on a thread that may take its time: a folder may hold a thousand disks. ----
 */

struct text_job {
	struct mount *mount;
	enum status_file file;
	struct image *image; /* not NULL: of this image alone, as JSON */
	char *text;
	size_t length;
};

static char *image_text(struct image *image, size_t *length)
{
	struct report *report = report_new(REPORT_JSON);

	if (!report)
		return NULL;
	disk_inspect(image->disk, report);
	return report_finish(report, length);
}

static void make_text(void *argument)
{
	struct text_job *job = argument;

	if (job->image)
		job->text = image_text(job->image, &job->length);
	else if (job->file == STATUS_METRICS)
		job->text = metrics_text(job->mount, &job->length);
	else
		job->text = report_text(job->mount,
					job->file == STATUS_JSON ? REPORT_JSON : REPORT_TEXT,
					&job->length);
}

char *status_inspect(struct image *image, size_t *length)
{
	struct text_job job = {.image = image};

	offload(make_text, &job);
	*length = job.length;
	return job.text;
}

/* ---- Open, read, close. ---- */

int status_open(struct mount *mount, enum status_file file, uint64_t *handle)
{
	struct status_files *files = &mount->status;
	struct text_job job = {.mount = mount, .file = file};
	struct status_text *text = calloc(1, sizeof(*text));

	if (!text)
		return -ENOMEM;
	offload(make_text, &job);
	if (!job.text) {
		free(text);
		return -ENOMEM;
	}
	text->text = job.text;
	text->length = job.length;
	pthread_mutex_lock(&files->mutex);
	*handle = text->handle = files->next_handle++;
	text->next = files->open;
	files->open = text;
	pthread_mutex_unlock(&files->mutex);
	return 0;
}

/* The link to the text, or to the NULL at the end. With the mutex held. */
static struct status_text **text_find(struct status_files *files, uint64_t handle)
{
	struct status_text **link = &files->open;

	while (*link && (*link)->handle != handle)
		link = &(*link)->next;
	return link;
}

ssize_t status_read(struct mount *mount, uint64_t handle, void *data, size_t size, uint64_t offset)
{
	struct status_files *files = &mount->status;
	ssize_t result = -ESTALE;

	pthread_mutex_lock(&files->mutex);

	const struct status_text *text = *text_find(files, handle);

	if (text) {
		size = offset < text->length ? min_u64(size, text->length - offset) : 0;
		memcpy(data, text->text + (size > 0 ? offset : 0), size);
		result = (ssize_t)size;
	}
	pthread_mutex_unlock(&files->mutex);
	return result;
}

void status_close(struct mount *mount, uint64_t handle)
{
	struct status_files *files = &mount->status;

	pthread_mutex_lock(&files->mutex);

	struct status_text **link = text_find(files, handle);
	struct status_text *text = *link;

	if (text)
		*link = text->next;
	pthread_mutex_unlock(&files->mutex);
	if (text)
		text_free(text);
}
