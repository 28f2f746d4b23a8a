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

/* One node that is being opened. */
struct opening {
	struct config_node *node;
	unsigned open_flags;
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
	if (node->read_only)
		opening->open_flags |= DISK_OPEN_READ_ONLY;
	node->values = NULL;
	node->disk = disk_open(node->driver, node->name, values, opening->open_flags, below,
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

/* In the order of config->order, as many at once as stand on nothing that is not open yet. */
static int open_nodes(struct config *config, unsigned open_flags, FILE *errors)
{
	struct opening *batch = calloc(OPENING_MAX, sizeof(*batch));
	size_t next = 0;
	int result = 0;

	if (!batch) {
		fprintf(errors, "%s\n", strerror(ENOMEM));
		return -1;
	}
	while (result == 0 && next < config->node_count) {
		size_t count = 0;

		while (count < OPENING_MAX && next < config->node_count &&
		       is_ready(config->order[next]))
			batch[count++] = (struct opening){.node = config->order[next++],
							  .open_flags = open_flags};
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

int config_open(struct config *config, unsigned open_flags, FILE *errors)
{
	int result = open_nodes(config, open_flags, errors);

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
