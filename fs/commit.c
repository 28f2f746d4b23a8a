// SPDX-License-Identifier: MIT
/*
 * diskfs commit: moves what a layer holds down into the disk below it (core/commit.h).
 *
 * Everything that can be known from the configuration is checked before anything is opened. Then
 * the layered disk is opened as for a mount, but for the two disks that are changed: those are
 * opened for writing, whatever the disks above them want. That nobody else uses them is seen to by
 * their locks.
 */
#include <stdio.h>
#include <stdlib.h>
#include "core/commit.h"
#include "fs/offline.h"
#include "fs/progress.h"

/* What goes where. */
struct plan {
	struct config_node *layered; /* the disk that is made of layers */
	unsigned from, to;	     /* layers of it */
};

static struct config_node *plan_from(const struct plan *plan)
{
	return plan->layered->below[plan->from];
}

static struct config_node *plan_to(const struct plan *plan)
{
	return plan->layered->below[plan->to];
}

/* Of layer @index, as part of a disk that is written. -1 without memory. */
static int role_flags(const struct plan *plan, unsigned index)
{
	return config_below_flags(plan->layered, 0, index);
}

/* Whether layer @index is a cache, and nothing else. */
static bool is_mere_cache(const struct plan *plan, unsigned index)
{
	bool is_written = true;

	for (unsigned i = 0; i < index; i++)
		is_written &=
			role_flags(plan, i) > 0 && (role_flags(plan, i) & DISK_OPEN_WRITE_THROUGH);
	return !is_written && role_flags(plan, index) > 0 &&
	       (role_flags(plan, index) & DISK_OPEN_CACHE);
}

/* Finds the disk in whose list [node] is, and where. */
static bool find_layered(const struct config *config, const struct config_node *node,
			 struct plan *plan)
{
	for (size_t i = 0; i < config->node_count; i++) {
		struct config_node *above = &config->nodes[i];

		for (unsigned j = 0; j < above->below_count; j++) {
			if (above->below[j] != node || !config_takes_layers(above))
				continue;
			*plan = (struct plan){.layered = above, .from = j};
			return true;
		}
	}
	return false;
}

/* What is written to [node], or to a disk that it stands on, does not last. */
static const struct config_node *find_volatile(const struct config_node *node)
{
	if (node->driver->is_volatile)
		return node;
	for (unsigned i = 0; i < node->below_count; i++) {
		const struct config_node *found = find_volatile(node->below[i]);

		if (found)
			return found;
	}
	return NULL;
}

/* ---- What can be seen before anything is opened. ---- */

static int plan_source(const struct offline *offline, struct config_node *node, struct plan *plan)
{
	const struct config_node *from;

	if (config_takes_layers(node))
		*plan = (struct plan){.layered = node, .from = 0};
	else if (!node->driver->layer || !find_layered(offline->config, node, plan))
		return offline_refuse(
			offline, node,
			"is neither a layer of another disk nor made of layers: there "
			"is nothing to commit");
	from = plan_from(plan);
	if (!from->driver->layer)
		return offline_refuse(offline, from,
				      "has every sector, and is no layer that could "
				      "be committed");
	if (from->above_count > 1)
		return offline_refuse(offline, from,
				      "several disks stand on it: it cannot be "
				      "committed");
	if (from->read_only)
		return offline_refuse(offline, from,
				      "is readonly = yes, but what is committed is "
				      "dropped from it");
	if (from->driver->is_volatile)
		return offline_refuse(offline, from,
				      "is in memory only: there is nothing in it that could be "
				      "committed, except for the diskfs that has it mounted");
	if (plan->from + 1 == plan->layered->below_count)
		return offline_refuse(offline, from,
				      "is the last layer of [%s]: nothing is below it",
				      plan->layered->name);
	if (role_flags(plan, plan->from) & DISK_OPEN_WRITE_THROUGH)
		return offline_refuse(offline, from,
				      "is written through: what it holds is below "
				      "already");
	if (is_mere_cache(plan, plan->from))
		return offline_refuse(offline, from, "is a read cache: what it holds is below");
	return 0;
}

static int plan_target(const struct offline *offline, struct plan *plan)
{
	const struct config_node *to, *lost;

	plan->to = plan->from + 1;
	while (plan->to + 1 < plan->layered->below_count && is_mere_cache(plan, plan->to)) {
		if (plan_to(plan)->read_only)
			return offline_refuse(
				offline, plan_to(plan),
				"is a read cache with readonly = yes, which would keep "
				"what is replaced below it");
		plan->to++;
	}
	to = plan_to(plan);
	if (to->above_count > 1)
		return offline_refuse(offline, to,
				      "several disks stand on it: the others would "
				      "change with it");
	if (to->read_only)
		return offline_refuse(offline, to,
				      "is readonly = yes, but it would have to be "
				      "written");
	lost = find_volatile(to);
	if (lost)
		return offline_refuse(offline, lost,
				      "keeps nothing: what is committed to it would "
				      "be lost");
	return 0;
}

/* ---- The work. ---- */

/* The disks are open. */
static int commit_disks(const struct offline *offline, const struct plan *plan)
{
	struct progress progress;
	struct disk *const *layers = plan->layered->disk->below;
	struct commit commit = {
		.layer = layers[plan->from],
		.below = layers[plan->to],
		.between = &layers[plan->from + 1],
		.between_count = plan->to - plan->from - 1,
		.progress = progress_show,
		.context = &progress,
	};
	struct err err;
	int result;

	if (disk_is_read_only(commit.below))
		return offline_refuse(offline, plan_to(plan),
				      "is read-only, but it would have to be "
				      "written");
	progress_begin(&progress);
	result = commit_run(&commit, &err);
	progress_end(&progress);
	return result == 0 ? 0 : offline_refuse(offline, plan_from(plan), "%s", err.text);
}

int commit_command(struct offline *offline)
{
	struct config_node *node = offline_node(offline);
	struct plan plan;
	int result;

	if (!node || plan_source(offline, node, &plan) < 0 || plan_target(offline, &plan) < 0)
		return -1;
	for (unsigned i = plan.from; i <= plan.to; i++)
		plan.layered->below[i]->keep_writable = true;
	if (config_open_node(offline->config, plan.layered, DISK_OPEN_COMMAND, stderr) < 0)
		return -1;
	result = commit_disks(offline, &plan);
	config_close(offline->config);
	return result;
}
