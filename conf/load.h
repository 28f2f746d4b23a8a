/* SPDX-License-Identifier: MIT */
/*
 * A configuration while it is loaded: what config.c (sections to nodes) hands to graph.c (nodes to
 * stacks). Private to conf/.
 */
#ifndef CONF_LOAD_H
#define CONF_LOAD_H

#include "conf/config.h"
#include "conf/ini.h"

/* The section that is no node but the settings of the mount. */
#define SETTINGS_SECTION "diskfs"

/* What config_node_options fill. */
struct node_values {
	char *driver;
	struct string_list below;
	struct string_list files;
	bool read_only;
	bool passthrough;
};

struct load {
	struct config *config;
	struct node_values *values; /* of each node, in the order of config->nodes */
	FILE *errors;
	bool failed; /* there was an error in this phase */
};

/*
 * Reports an error in @section, at the line of its @key if it has that one, else at its own. @key
 * NULL: of the section as a whole.
 */
void load_error(struct load *load, const struct ini_section *section, const char *key,
		const char *format, ...) PRINTF_LIKE(4, 5);
void load_no_memory(struct load *load);

/* The section of @node. */
const struct ini_section *load_section(const struct load *load, const struct config_node *node);

/*
 * Ties the nodes together by their `below` and `file` values: fills below, above_count, order and
 * exports. Sets load->failed after errors.
 */
void load_graph(struct load *load);

#endif
