// SPDX-License-Identifier: MIT
/*
 * Loading a configuration, second part: from nodes to stacks.
 *
 * Three phases, each only if the ones before found nothing wrong:
 *
 *   1. links: each name in `below` becomes a node, as many as the driver takes, and a node below
 *      several is read-only;
 *   2. order: the nodes bottom-up, which no cycle has, no stack deeper than CONFIG_DEPTH_MAX, and
 *      none of more than CONFIG_STACK_MAX disks, those that are shared counted again and again;
 *   3. exports: nodes that nothing stands on, each under a name of its own.
 */
#include <stdlib.h>
#include <string.h>
#include "conf/load.h"

#define FILE_NAME_MAX 255

/* ---- Links ---- */

struct config_node *config_find(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->node_count; i++)
		if (strcmp(config->nodes[i].name, name) == 0)
			return &config->nodes[i];
	return NULL;
}

static void report_dangling(struct load *load, const struct config_node *node, const char *name)
{
	const struct config *config = load->config;
	const struct ini_section *section = load_section(load, node);
	const char **names = calloc(config->node_count + 1, sizeof(*names)), *nearest;

	if (!names) {
		load_no_memory(load);
		return;
	}
	for (size_t i = 0; i < config->node_count; i++)
		names[i] = config->nodes[i].name;
	nearest = name_suggest(names, name);
	if (strcmp(name, SETTINGS_SECTION) == 0)
		load_error(load, section, "below",
			   "[diskfs] holds the settings of the mount and is no disk");
	else if (nearest)
		load_error(load, section, "below", "there is no section [%s] (did you mean '%s'?)",
			   name, nearest);
	else
		load_error(load, section, "below", "there is no section [%s]", name);
	free(names);
}

static void check_below_count(struct load *load, const struct config_node *node, size_t count)
{
	const struct driver *driver = node->driver;
	const struct ini_section *section = load_section(load, node);

	if (count >= driver->below_min && count <= driver->below_max)
		return;
	if (driver->below_max == 0)
		load_error(load, section, "below", "driver '%s' stands on no other disk",
			   driver->name);
	else if (driver->below_min == driver->below_max)
		load_error(load, section, "below", "driver '%s' takes %u disk%s below, not %zu",
			   driver->name, driver->below_min, driver->below_min == 1 ? "" : "s",
			   count);
	else
		load_error(load, section, "below",
			   "driver '%s' takes %u to %u disks below, not %zu", driver->name,
			   driver->below_min, driver->below_max, count);
}

static void link_node(struct load *load, struct config_node *node, const struct string_list *names)
{
	check_below_count(load, node, names->count);
	node->below = calloc(names->count + 1, sizeof(struct config_node *));
	if (!node->below) {
		load_no_memory(load);
		return;
	}
	for (size_t i = 0; i < names->count; i++) {
		struct config_node *below = config_find(load->config, names->items[i]);

		if (!below) {
			report_dangling(load, node, names->items[i]);
			continue;
		}
		node->below[node->below_count++] = below;
		below->above_count++;
		if (below->above_count > 1 && !below->read_only)
			load_error(load, load_section(load, node), "below",
				   "another disk stands on [%s] already: only a disk with "
				   "readonly = yes can be shared",
				   below->name);
	}
}

static void link_nodes(struct load *load)
{
	struct config *config = load->config;

	for (size_t i = 0; i < config->node_count; i++)
		link_node(load, &config->nodes[i], &load->values[i].below);
}

/* ---- Order ---- */

enum visit {
	VISIT_NOT_YET,
	VISIT_UNDER_WAY, /* on the path */
	VISIT_DONE,	 /* in the order, or found wrong */
};

/* A walk from the top of a stack down. */
struct walk {
	struct load *load;
	unsigned char *visits; /* enum visit, of each node, as are the heights */
	unsigned *heights;     /* the disks in the tallest stack that the node is the top of */
	unsigned *sizes;       /* the disks in the tree that it is the top of, as reports show it */
	size_t ordered;
	struct config_node *path[CONFIG_DEPTH_MAX];
	unsigned depth; /* of the path */
};

/* Reports that the path leads back to its node @first. */
static void report_cycle(struct walk *walk, unsigned first)
{
	struct config_node *node = walk->path[first];
	size_t size = 0;
	char *text = NULL;
	FILE *stream = open_memstream(&text, &size);

	if (!stream) {
		load_no_memory(walk->load);
		return;
	}
	for (unsigned i = first; i < walk->depth; i++)
		fprintf(stream, "%s -> ", walk->path[i]->name);
	fputs(node->name, stream);
	if (fclose(stream) == 0)
		load_error(walk->load, load_section(walk->load, node), "below",
			   "the disk stands on itself: %s", text);
	else
		load_no_memory(walk->load);
	free(text);
}

static void report_depth(struct walk *walk)
{
	struct config_node *top = walk->path[0];

	load_error(walk->load, load_section(walk->load, top), "below",
		   "the stack is more than %d disks deep", CONFIG_DEPTH_MAX);
}

static void report_size(struct walk *walk, const struct config_node *node)
{
	load_error(walk->load, load_section(walk->load, node), "below",
		   "the stack has more than %d disks, where each is counted as often as others "
		   "stand on it",
		   CONFIG_STACK_MAX);
}

/* Visits @node and all below it. Recursive, but not deeper than CONFIG_DEPTH_MAX. */
static void walk_node(struct walk *walk, struct config_node *node)
{
	struct config *config = walk->load->config;
	size_t index = (size_t)(node - config->nodes);
	unsigned height = 0, size = 1;

	if (walk->visits[index] == VISIT_DONE)
		return;
	if (walk->visits[index] == VISIT_UNDER_WAY) {
		unsigned first = 0;

		while (walk->path[first] != node)
			first++;
		report_cycle(walk, first);
		return;
	}
	if (walk->depth == CONFIG_DEPTH_MAX) {
		report_depth(walk);
		return;
	}
	walk->visits[index] = VISIT_UNDER_WAY;
	walk->path[walk->depth++] = node;
	for (unsigned i = 0; i < node->below_count; i++) {
		size_t below = (size_t)(node->below[i] - config->nodes);

		walk_node(walk, node->below[i]);
		height = (unsigned)max_u64(height, walk->heights[below]);
		size = (unsigned)min_u64(size + walk->sizes[below], CONFIG_STACK_MAX + 1);
	}
	if (height == CONFIG_DEPTH_MAX) {
		report_depth(walk);
		height = 0; /* do not report the same again all the way up */
	}
	if (size > CONFIG_STACK_MAX) {
		report_size(walk, node);
		size = 0;
	}
	walk->depth--;
	walk->heights[index] = height + 1;
	walk->sizes[index] = size;
	walk->visits[index] = VISIT_DONE;
	config->order[walk->ordered++] = node;
}

static void order_nodes(struct load *load)
{
	struct config *config = load->config;
	struct walk walk = {.load = load};

	walk.visits = calloc(config->node_count, sizeof(*walk.visits));
	walk.heights = calloc(config->node_count, sizeof(*walk.heights));
	walk.sizes = calloc(config->node_count, sizeof(*walk.sizes));
	config->order = calloc(config->node_count, sizeof(struct config_node *));
	if (walk.visits && walk.heights && walk.sizes && config->order)
		for (size_t i = 0; i < config->node_count; i++)
			walk_node(&walk, &config->nodes[i]);
	else
		load_no_memory(load);
	free(walk.visits);
	free(walk.heights);
	free(walk.sizes);
}

/* ---- Exports ---- */

/* What is wrong with the name of an exported file; NULL: nothing. */
static const char *file_name_fault(const char *name)
{
	if (strchr(name, '/'))
		return "contains a '/'";
	if (name[0] == '.')
		return "begins with a '.'";
	if (strlen(name) > FILE_NAME_MAX)
		return "is longer than 255 bytes";
	return NULL;
}

/* Takes @name, of a file that [node] has as the value of @key. */
static void export_file(struct load *load, struct config_node *node, const char *key, char *name)
{
	struct config *config = load->config;
	const struct ini_section *section = load_section(load, node);
	const char *fault = name ? file_name_fault(name) : NULL;

	if (!name) {
		load_no_memory(load);
		return;
	}
	if (fault)
		load_error(load, section, key, "the name '%s' %s", name, fault);
	for (size_t i = 0; i < config->export_count; i++)
		if (strcmp(config->exports[i].file, name) == 0)
			load_error(load, section, key, "[%s] is exported as '%s' already",
				   config->exports[i].node->name, name);
	config->exports[config->export_count++] =
		(struct config_export){.file = name, .node = node};
}

static void export_node(struct load *load, struct config_node *node,
			const struct string_list *files)
{
	char *name;

	if (files->count > 1 && !node->driver->port)
		load_error(load, load_section(load, node), "file",
			   "a disk of driver '%s' is one file, not %zu (a name has no comma)",
			   node->driver->name, files->count);
	for (size_t i = 0; i < files->count; i++)
		export_file(load, node, "file", strdup(files->items[i]));
	if (files->count == 0)
		export_file(load, node, NULL,
			    asprintf(&name, "%s.img", node->name) < 0 ? NULL : name);
}

static void export_nodes(struct load *load)
{
	struct config *config = load->config;
	size_t count = 0;

	for (size_t i = 0; i < config->node_count; i++)
		count += max_u64(load->values[i].files.count, 1);
	config->exports = calloc(count, sizeof(*config->exports));
	if (!config->exports) {
		load_no_memory(load);
		return;
	}
	for (size_t i = 0; i < config->node_count; i++) {
		struct config_node *node = &config->nodes[i];
		const struct string_list *files = &load->values[i].files;

		if (node->above_count == 0)
			export_node(load, node, files);
		else if (files->count > 0 || node->passthrough)
			load_error(load, load_section(load, node),
				   files->count > 0 ? "file" : "passthrough",
				   "other disks stand on this one, so it is no file in the mount");
	}
}

void load_graph(struct load *load)
{
	link_nodes(load);
	if (!load->failed)
		order_nodes(load);
	if (!load->failed)
		export_nodes(load);
}
