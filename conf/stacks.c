// SPDX-License-Identifier: MIT
/*
 * The disks of a loaded configuration: opened bottom-up, closed top-down, printed as trees.
 *
 * config->order has each node after those below it. A node whose disk is not NULL is open, and so
 * is everything below it; opening stops after an error and closes what was opened. Ports come last
 * and go first.
 */
#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include "conf/config.h"
#include "conf/ini.h"
#include "core/task.h"

/* Disks that are opened at once. */
#define OPENING_MAX 32

/* ---- Opening and closing ---- */

void config_report(const struct config *config, const char *section, const struct err *err,
		   FILE *errors)
{
	const struct ini_section *found = ini_section_find(config->ini, section);
	const char *name = err->key[0] ? err->key : NULL;
	const struct ini_key *key = found && name ? ini_key_find(found, name) : NULL;
	unsigned line = found ? found->line : 0;

	ini_error(errors, config->ini->path, key ? key->line : line, section, name, "%s",
		  err->text);
}

/* Whether @path, which need not exist, is in @folder, symbolic links resolved. */
static bool path_is_in(const char *path, const char *folder)
{
	size_t length = strlen(folder);
	char *copy = strdup(path);
	char *parent = copy ? realpath(dirname(copy), NULL) : NULL;
	bool inside = parent && strncmp(parent, folder, length) == 0 &&
		      (parent[length] == '/' || parent[length] == '\0');

	free(parent);
	free(copy);
	return inside;
}

int config_check_paths(const struct config *config, const char *folder, FILE *errors)
{
	int result = 0;

	for (size_t i = 0; i < config->node_count; i++) {
		const struct config_node *node = &config->nodes[i];
		const struct option *option = node->driver->options;

		for (; option->name; option++) {
			char *const *path = (void *)((char *)node->values + option->offset);
			struct err err;

			if (option->type != OPTION_PATH || !*path || !path_is_in(*path, folder))
				continue;
			err_set_key(&err, option->name,
				    "'%s' is in the folder that this configuration is mounted on",
				    *path);
			config_report(config, node->name, &err, errors);
			result = -1;
		}
	}
	return result;
}

/* ---- How each disk is opened. ---- */

static int no_memory(FILE *errors)
{
	fprintf(errors, "%s\n", strerror(ENOMEM));
	return -1;
}

int config_below_flags(const struct config_node *node, unsigned open_flags, unsigned index)
{
	const char **names;
	unsigned flags;

	if (!node->driver->below_flags)
		return (int)(open_flags & (DISK_OPEN_READ_ONLY | DISK_OPEN_RESIZE));
	names = calloc(node->below_count, sizeof(*names));
	if (!names)
		return -1;
	for (unsigned i = 0; i < node->below_count; i++)
		names[i] = node->below[i]->name;
	flags = node->driver->below_flags(node->values, open_flags, names, index);
	free(names);
	return (int)flags;
}

bool config_takes_layers(const struct config_node *node)
{
	int flags = node->below_count > 0 ? config_below_flags(node, 0, 0) : 0;

	return flags > 0 && (flags & DISK_OPEN_LAYER);
}

/* A layer is a layer of all that stand on it, or of none. */
static int check_layer(const struct config *config, const struct config_node *node,
		       unsigned layer_users, FILE *errors)
{
	struct err err = {.text = "stands below one disk as a layer, and below another as a disk: "
				  "it can only be one of them"};

	if (!node->driver->layer || layer_users == 0 || layer_users == node->above_count)
		return 0;
	config_report(config, node->name, &err, errors);
	return -1;
}

/* Works out the flags of every node, from the top down. */
static int plan_flags(struct config *config, unsigned open_flags, FILE *errors)
{
	unsigned *layer_users = calloc(config->node_count, sizeof(*layer_users));
	int result = 0;

	if (!layer_users)
		return no_memory(errors);
	for (size_t i = 0; i < config->node_count; i++)
		config->nodes[i].open_flags =
			open_flags | (config->nodes[i].read_only ? DISK_OPEN_READ_ONLY : 0);
	for (size_t i = config->node_count; i-- > 0 && result == 0;) {
		const struct config_node *node = config->order[i];

		result = check_layer(config, node, layer_users[node - config->nodes], errors);
		for (unsigned j = 0; j < node->below_count && result == 0; j++) {
			struct config_node *below = node->below[j];
			int flags = config_below_flags(node, node->open_flags, j);

			if (flags < 0) {
				result = no_memory(errors);
				break;
			}
			layer_users[below - config->nodes] += flags & DISK_OPEN_LAYER ? 1 : 0;
			if (below->keep_writable)
				flags &= ~DISK_OPEN_READ_ONLY;
			below->open_flags |= (unsigned)flags;
		}
	}
	free(layer_users);
	return result;
}

/* ---- One after another. ---- */

/* One node that is being opened. */
struct opening {
	struct config_node *node;
	struct err err;
};

static int open_node(void *argument)
{
	struct opening *opening = argument;
	struct config_node *node = opening->node;
	struct disk **below = calloc(node->below_count + 1, sizeof(*below));
	void *values = node->values;

	if (!below)
		return err_set(&opening->err, "%s", strerror(ENOMEM));
	for (unsigned i = 0; i < node->below_count; i++)
		below[i] = node->below[i]->disk;
	node->values = NULL;
	node->disk = disk_open(node->driver, node->name, values, node->open_flags, below,
			       node->below_count, &opening->err);
	free(below);
	return node->disk ? 0 : -1;
}

/* Opens @count nodes at once, none of which stands on another of them; reports the errors of all.
 */
static int open_batch(const struct config *config, struct opening *batch, size_t count,
		      FILE *errors)
{
	struct task_group group = {0};
	int result;

	for (size_t i = 0; i < count; i++)
		task_group_start(&group, open_node, &batch[i]);
	result = task_group_wait(&group);
	for (size_t i = 0; i < count; i++)
		if (!batch[i].node->disk)
			config_report(config, batch[i].node->name, &batch[i].err, errors);
	return result;
}

/* Whether every disk below @node is open. */
static bool is_ready(const struct config_node *node)
{
	for (unsigned i = 0; i < node->below_count; i++)
		if (!node->below[i]->disk)
			return false;
	return true;
}

/* The wanted ones, in the order of config->order, as many at once as stand on nothing that is not
 * open yet. */
static int open_nodes(struct config *config, FILE *errors)
{
	struct opening *batch = calloc(OPENING_MAX, sizeof(*batch));
	size_t next = 0;
	int result = 0;

	if (!batch)
		return no_memory(errors);
	while (result == 0 && next < config->node_count) {
		size_t count = 0;

		for (; count < OPENING_MAX && next < config->node_count; next++) {
			struct config_node *node = config->order[next];

			if (node->is_wanted && !is_ready(node))
				break;
			if (node->is_wanted)
				batch[count++] = (struct opening){.node = node};
		}
		result = open_batch(config, batch, count, errors);
	}
	free(batch);
	return result;
}

/* Makes the disk of @export a port of its node's. */
static int open_port(struct config_export *export, unsigned open_flags, struct err *err)
{
	struct disk *disk = export->node->disk;
	const struct driver *driver = disk->driver->port;
	void *values = calloc(1, driver->config_size ? driver->config_size : 1);

	if (!values)
		return err_set(err, "%s", strerror(ENOMEM));
	export->disk = disk_open(driver, export->file, values, open_flags, &disk, 1, err);
	return export->disk ? 0 : -1;
}

static int open_exports(struct config *config, unsigned open_flags, FILE *errors)
{
	int result = 0;

	for (size_t i = 0; i < config->export_count; i++) {
		struct config_export *export = &config->exports[i];
		struct err err = {0};

		if (!export->node->driver->port) {
			export->disk = export->node->disk;
		} else if (open_port(export, open_flags, &err) < 0) {
			config_report(config, export->node->name, &err, errors);
			result = -1;
		}
	}
	return result;
}

/* Not deeper than CONFIG_DEPTH_MAX. */
static void want(struct config_node *node)
{
	node->is_wanted = true;
	for (unsigned i = 0; i < node->below_count; i++)
		want(node->below[i]);
}

int config_open_node(struct config *config, struct config_node *node, unsigned open_flags,
		     FILE *errors)
{
	int result = plan_flags(config, open_flags, errors);

	want(node);
	if (result == 0)
		result = open_nodes(config, errors);
	if (result < 0)
		config_close(config);
	return result;
}

int config_open(struct config *config, unsigned open_flags, FILE *errors)
{
	int result = plan_flags(config, open_flags, errors);

	for (size_t i = 0; i < config->node_count; i++)
		config->nodes[i].is_wanted = true;
	if (result == 0)
		result = open_nodes(config, errors);
	if (result == 0)
		result = open_exports(config, open_flags, errors);
	if (result < 0)
		config_close(config);
	return result;
}

void config_close(struct config *config)
{
	for (size_t i = 0; i < config->export_count; i++) {
		struct config_export *export = &config->exports[i];

		if (export->disk != export->node->disk)
			disk_close(export->disk);
		export->disk = NULL;
	}
	for (size_t i = config->node_count; i > 0; i--) {
		struct config_node *node = config->order[i - 1];

		disk_close(node->disk);
		node->disk = NULL;
	}
}

/* ---- Printing ---- */

/*
 * A node that several stand on is printed in full below the first of them only: shared nodes on
 * shared nodes would otherwise double the output with every level. @shown has a flag for each node.
 */
static void print_node(const struct config *config, const struct config_node *node, int depth,
		       bool *shown, FILE *out)
{
	bool *seen = &shown[node - config->nodes];
	uint32_t logical = node->disk->geometry.sector_size;
	uint32_t physical = node->disk->geometry.physical_sector_size;
	char size[48];

	fprintf(out, "%*s%s: ", 2 * depth, "", node->name);
	if (*seen) {
		fputs("see above\n", out);
		return;
	}
	*seen = true;
	fprintf(out, "%s, %s, sector %u", node->driver->name,
		format_size(size, disk_size(node->disk)), logical);
	if (physical != logical)
		fprintf(out, " (physical %u)", physical);
	fputs(disk_is_read_only(node->disk) ? ", read-only\n" : "\n", out);
	for (unsigned i = 0; i < node->below_count; i++)
		print_node(config, node->below[i], depth + 1, shown, out);
}

void config_print(const struct config *config, FILE *out)
{
	bool *shown = calloc(config->node_count, sizeof(*shown));
	char size[48];

	if (!shown) {
		fprintf(out, "%s\n", strerror(ENOMEM));
		return;
	}
	for (size_t i = 0; i < config->export_count; i++) {
		const struct config_export *export = &config->exports[i];
		const struct disk *disk = export->disk;

		fprintf(out, "%s  %s, %s\n", export->file, format_size(size, disk_size(disk)),
			disk_is_read_only(disk) ? "read-only" : "writable");
		print_node(config, export->node, 1, shown, out);
	}
	free(shown);
}
