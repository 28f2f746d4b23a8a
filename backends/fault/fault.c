// SPDX-License-Identifier: MIT
/*
 * fault: hands everything to the disk below, except what its rules say (rules.h). For tests, and
 * for whoever wants to see what a guest does when its disk fails.
 *
 * All rules that match a request wait in turn; the first of the others that matches decides it.
 *
 * The rules and what they have done are guarded by a mutex that is held for a look at them. Whoever
 * hangs waits for `generation` to change, and then looks again.
 *
 * Flush and crash: as the disk below, except what the rules say.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "backends/fault/rules.h"
#include "core/disk.h"
#include "core/report.h"
#include "core/task.h"

struct fault_config {
	char *rules;
	uint64_t seed;
};

struct fault {
	pthread_mutex_t mutex;
	struct rules rules;
	uint64_t drawn; /* random numbers so far */

	struct task_mutex hang_mutex;
	struct wait_queue hanging;
	uint64_t generation;
	bool locks_made;
};

/* ---- Decisions. ---- */

/* What is to happen to one request. */
struct decision {
	enum action action; /* ACTION_NONE: go on to the disk below */
	int error;
	uint64_t bytes;
	uint64_t delay_ns;
	bool hang;
	uint64_t generation;
};

static double random_percent(struct disk *disk)
{
	const struct fault_config *config = disk->config;
	struct fault *fault = disk->state;

	return (double)(random_at(config->seed, fault->drawn++) >> 11) *
	       (100.0 / 9007199254740992.0);
}

static bool rule_applies(struct disk *disk, struct rule *rule, enum stats_op op, uint64_t start,
			 uint64_t end)
{
	if (!(rule->operations >> op & 1))
		return false;
	if (rule->has_range && (end <= rule->start || start >= rule->end))
		return false;
	if (rule->hits >= rule->count || rule->matched++ < rule->after)
		return false;
	return rule->chance >= 100 || random_percent(disk) < rule->chance;
}

static struct decision decide(struct disk *disk, enum stats_op op, uint64_t start, uint64_t end)
{
	struct fault *fault = disk->state;
	struct decision decision = {.action = ACTION_NONE};

	pthread_mutex_lock(&fault->mutex);
	decision.generation = fault->generation;
	for (unsigned i = 0; i < fault->rules.count && decision.action == ACTION_NONE; i++) {
		struct rule *rule = &fault->rules.rules[i];

		if (!rule_applies(disk, rule, op, start, end))
			continue;
		rule->hits++;
		if (rule->action == ACTION_DELAY) {
			decision.delay_ns += rule->delay_ns;
		} else if (rule->action == ACTION_HANG) {
			decision.hang = true;
		} else {
			decision.action = rule->action;
			decision.error = rule->error;
			decision.bytes = rule->bytes;
		}
	}
	pthread_mutex_unlock(&fault->mutex);
	return decision;
}

static void hang(struct fault *fault, uint64_t generation)
{
	task_mutex_lock(&fault->hang_mutex);
	while (fault->generation == generation)
		wait_queue_wait(&fault->hanging, &fault->hang_mutex);
	task_mutex_unlock(&fault->hang_mutex);
}

/* Decides, and waits as the rules say. */
static struct decision suffer(struct disk *disk, enum stats_op op, uint64_t sector, uint64_t count)
{
	unsigned shift = disk_sector_shift(disk);

	for (;;) {
		struct decision decision =
			decide(disk, op, sector << shift, (sector + count) << shift);

		if (decision.delay_ns > 0)
			task_sleep_ns(decision.delay_ns);
		if (!decision.hang)
			return decision;
		hang(disk->state, decision.generation);
	}
}

/* How much of a request of @length bytes is done, in whole sectors. */
static size_t part_of(struct disk *disk, const struct decision *decision, size_t length)
{
	uint64_t bytes = decision->bytes == UINT64_MAX ? length / 2 : decision->bytes;

	return align_down(min_u64(bytes, length), disk_sector_size(disk));
}

/* ---- Operations. ---- */

static int fault_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	struct decision decision =
		suffer(disk, STATS_READ, sector, sg->len >> disk_sector_shift(disk));
	size_t part = decision.action == ACTION_NONE ? sg->len : part_of(disk, &decision, sg->len);
	struct sg done = sg_slice(sg, 0, decision.action == ACTION_DROP ? 0 : part);
	struct sg rest = sg_slice(sg, done.len, sg->len - done.len);

	if (decision.action == ACTION_ERROR)
		return decision.error;

	int error = disk_read(disk->below[0], &done, sector);

	if (error)
		return error;
	sg_zero(&rest);
	return decision.action == ACTION_TEAR ? error_io(EIO) : 0;
}

static int fault_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	struct decision decision =
		suffer(disk, STATS_WRITE, sector, sg->len >> disk_sector_shift(disk));
	struct sg part;
	int error;

	switch (decision.action) {
	case ACTION_ERROR:
		return decision.error;
	case ACTION_DROP:
		return 0;
	case ACTION_TEAR:
	case ACTION_SHORT:
		part = sg_slice(sg, 0, part_of(disk, &decision, sg->len));
		error = disk_write(disk->below[0], &part, sector, flags);
		return error || decision.action == ACTION_SHORT ? error : error_io(EIO);
	case ACTION_NONE:
	case ACTION_DELAY:
	case ACTION_HANG:
		break;
	}
	return disk_write(disk->below[0], sg, sector, flags);
}

/* For operations without data: what the rules leave of [sector, sector + *count). True: there is a
 * result already. */
static bool without_data(struct disk *disk, enum stats_op op, uint64_t sector, uint64_t *count,
			 int *after)
{
	unsigned shift = disk_sector_shift(disk);
	struct decision decision = suffer(disk, op, sector, *count);

	*after = decision.action == ACTION_TEAR ? error_io(EIO) : 0;
	if (decision.action == ACTION_ERROR) {
		*after = decision.error;
		return true;
	}
	if (decision.action == ACTION_TEAR || decision.action == ACTION_SHORT)
		*count = part_of(disk, &decision, *count << shift) >> shift;
	return decision.action == ACTION_DROP;
}

static int fault_flush(struct disk *disk)
{
	uint64_t nothing = 0;
	int after, error;

	if (without_data(disk, STATS_FLUSH, 0, &nothing, &after))
		return after;
	error = disk_flush(disk->below[0]);
	return error ? error : after;
}

static int fault_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	int after, error;

	if (without_data(disk, STATS_UNMAP, sector, &count, &after))
		return after;
	error = disk_unmap(disk->below[0], sector, count);
	return error ? error : after;
}

static int fault_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	int after, error;

	if (without_data(disk, STATS_WRITE_ZEROES, sector, &count, &after))
		return after;
	error = disk_write_zeroes(disk->below[0], sector, count, flags);
	return error ? error : after;
}

static int fault_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	return disk_extent(disk->below[0], sector, count, extent);
}

static int fault_allocated(struct disk *disk, uint64_t *bytes)
{
	return disk_allocated(disk->below[0], bytes);
}

static int fault_tail(struct disk *disk, void *data, size_t *length)
{
	return disk_tail(disk->below[0], data, length);
}

static int fault_eject(struct disk *disk)
{
	return disk_eject(disk->below[0]);
}

static void fault_below_resized(struct disk *disk, struct disk *below)
{
	disk_set_sector_count(disk, disk_sector_count(below));
}

static int fault_resize(struct disk *disk, uint64_t count)
{
	return disk_resize(disk->below[0], count);
}

/* ---- Life. ---- */

static int fault_open(struct disk *disk, struct err *err)
{
	const struct fault_config *config = disk->config;
	struct fault *fault = disk->state;

	if (rules_parse(config->rules, &fault->rules, err) < 0)
		return -1;
	pthread_mutex_init(&fault->mutex, NULL);
	task_mutex_init(&fault->hang_mutex);
	fault->locks_made = true;
	disk_inherit_geometry(disk, disk->below[0]);
	return 0;
}

static void fault_close(struct disk *disk)
{
	struct fault *fault = disk->state;

	if (!fault->locks_made)
		return;
	pthread_mutex_destroy(&fault->mutex);
	task_mutex_destroy(&fault->hang_mutex);
}

static int fault_set_option(struct disk *disk, const char *name, const char *value, struct err *err)
{
	struct fault *fault = disk->state;
	struct rules *rules = malloc(sizeof(*rules));
	int result = rules ? rules_parse(value, rules, err) : err_set(err, "out of memory");

	(void)name; /* there is one */
	if (result == 0) {
		task_mutex_lock(&fault->hang_mutex);
		pthread_mutex_lock(&fault->mutex);
		fault->rules = *rules;
		fault->generation++;
		pthread_mutex_unlock(&fault->mutex);
		wait_queue_wake_all(&fault->hanging);
		task_mutex_unlock(&fault->hang_mutex);
	}
	free(rules);
	return result;
}

static char *fault_get_option(struct disk *disk, const char *name)
{
	struct fault *fault = disk->state;
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	(void)name;
	if (!out)
		return NULL;
	pthread_mutex_lock(&fault->mutex);
	for (unsigned i = 0; i < fault->rules.count; i++)
		fprintf(out, "%s%s", i > 0 ? ", " : "", fault->rules.rules[i].text);
	pthread_mutex_unlock(&fault->mutex);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

static void fault_inspect(struct disk *disk, struct report *report)
{
	struct fault *fault = disk->state;

	report_list_begin(report, "rules");
	pthread_mutex_lock(&fault->mutex);
	for (unsigned i = 0; i < fault->rules.count; i++) {
		report_object_begin(report, NULL);
		report_string(report, "rule", fault->rules.rules[i].text);
		report_u64(report, "hits", fault->rules.rules[i].hits);
		report_object_end(report);
	}
	pthread_mutex_unlock(&fault->mutex);
	report_list_end(report);
}

static const struct option fault_options[] = {
	{.name = "rules",
	 .type = OPTION_STRING,
	 .offset = offsetof(struct fault_config, rules),
	 .flags = OPTION_LIVE,
	 .help = "What goes wrong: rules separated by commas, each OPERATION[+OPERATION...] ACTION "
		 "[CONDITION...]; see diskfs.conf(5). Without rules nothing goes wrong"},
	{.name = "seed",
	 .type = OPTION_U64,
	 .offset = offsetof(struct fault_config, seed),
	 .fallback = "1",
	 .help = "Starts the generator that chance=P asks: the same seed and requests, the same "
		 "faults"},
	{.name = NULL},
};

const struct driver fault_driver = {
	.name = "fault",
	.summary = "fails, delays, tears or drops requests by rules (for tests)",
	.options = fault_options,
	.config_size = sizeof(struct fault_config),
	.state_size = sizeof(struct fault),
	.below_min = 1,
	.below_max = 1,
	.open = fault_open,
	.close = fault_close,
	.read = fault_read,
	.write = fault_write,
	.flush = fault_flush,
	.unmap = fault_unmap,
	.write_zeroes = fault_write_zeroes,
	.extent = fault_extent,
	.allocated = fault_allocated,
	.eject = fault_eject,
	.tail = fault_tail,
	.below_resized = fault_below_resized,
	.resize = fault_resize,
	.set_option = fault_set_option,
	.get_option = fault_get_option,
	.inspect = fault_inspect,
};
