// SPDX-License-Identifier: MIT
/*
 * The disks of a loaded configuration: opened bottom-up, closed top-down, printed as trees.
 *
 * config->order has each node after those below it. A node whose disk is not NULL is open, and so
 * is everything below it; opening stops at the first error and closes what was opened.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "conf/config.h"
#include "conf/ini.h"

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

static int open_node(struct config_node *node, unsigned open_flags, struct err *err)
{
	struct disk **below = calloc(node->below_count + 1, sizeof(*below));
	void *values = node->values;

	if (!below)
		return err_set(err, "%s", strerror(ENOMEM));
	for (unsigned i = 0; i < node->below_count; i++)
		below[i] = node->below[i]->disk;
	if (node->read_only)
		open_flags |= DISK_OPEN_READ_ONLY;
	node->values = NULL;
	node->disk = disk_open(node->driver, node->name, values, open_flags, below,
			       node->below_count, err);
	free(below);
	return node->disk ? 0 : -1;
}

int config_open(struct config *config, unsigned open_flags, FILE *errors)
{
	for (size_t i = 0; i < config->node_count; i++) {
		struct err err = {0};

		if (open_node(config->order[i], open_flags, &err) < 0) {
			config_report(config, config->order[i]->name, &err, errors);
			config_close(config);
			return -1;
		}
	}
	return 0;
}

void config_close(struct config *config)
{
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
		const struct disk *disk = export->node->disk;

		fprintf(out, "%s  %s, %s\n", export->file, format_size(size, disk_size(disk)),
			disk_is_read_only(disk) ? "read-only" : "writable");
		print_node(config, export->node, 1, shown, out);
	}
	free(shown);
}
