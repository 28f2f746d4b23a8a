// SPDX-License-Identifier: MIT
/*
 * Loading a configuration, first part: from sections to nodes with their drivers and options.
 *
 * [diskfs] fills the settings of the mount; every other section is a node. Which options there are
 * is said by three tables: the settings, config_node_options, and the driver's. Keys are taken in
 * the order of the file; what is required is looked for afterwards. graph.c then ties the nodes
 * together. Nothing is opened and no file but the configuration is touched.
 */
#include "conf/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "conf/load.h"

const struct option config_node_options[] = {
	{
		.name = "driver",
		.type = OPTION_STRING,
		.offset = offsetof(struct node_values, driver),
		.flags = OPTION_REQUIRED,
		.help = "What the disk is made of; diskfs --drivers lists them",
	},
	{
		.name = "below",
		.type = OPTION_LIST,
		.offset = offsetof(struct node_values, below),
		.help = "The sections that the disk stands on, the topmost first",
	},
	{
		.name = "file",
		.type = OPTION_LIST,
		.offset = offsetof(struct node_values, files),
		.help = "The name of the image in the mounted folder, for a disk that nothing "
			"stands on. Otherwise it is the name of the section with .img. Some "
			"drivers take several names",
	},
	{
		.name = "readonly",
		.type = OPTION_BOOL,
		.offset = offsetof(struct node_values, read_only),
		.fallback = "no",
		.help = "Refuse every change of the disk. Several disks may then stand on it",
	},
	{
		.name = "passthrough",
		.type = OPTION_BOOL,
		.offset = offsetof(struct node_values, passthrough),
		.fallback = "no",
		.help = "Let the kernel read and write the file of a disk that is nothing but a "
			"raw file. It is as fast as that file then, but nothing is counted, and a "
			"write beyond the end makes the file longer. Needs Linux 6.9 and root",
	},
	{.name = NULL},
};

/* ---- Errors ---- */

void load_error(struct load *load, const struct ini_section *section, const char *key,
		const char *format, ...)
{
	const struct ini_key *given = key ? ini_key_find(section, key) : NULL;
	struct err err = {0};
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(err.text, sizeof(err.text), format, arguments);
	va_end(arguments);
	ini_error(load->errors, load->config->ini->path, given ? given->line : section->line,
		  section->name, key, "%s", err.text);
	load->failed = true;
}

void load_no_memory(struct load *load)
{
	ini_error(load->errors, load->config->ini->path, 0, NULL, NULL, "%s", strerror(ENOMEM));
	load->failed = true;
}

const struct ini_section *load_section(const struct load *load, const struct config_node *node)
{
	return ini_section_find(load->config->ini, node->name);
}

/* ---- Values of a section ---- */

static void report_unknown_key(struct load *load, const struct ini_section *section,
			       const char *key, const struct option *const *tables, size_t count)
{
	const char *nearest = option_suggest(tables, count, key);

	if (nearest)
		load_error(load, section, key, "unknown key '%s' (did you mean '%s'?)", key,
			   nearest);
	else
		load_error(load, section, key, "unknown key '%s'", key);
}

static void parse_key(struct load *load, const struct ini_section *section,
		      const struct option *option, const struct ini_key *key, void *values)
{
	struct err err;

	if (option_parse(option, key->value, load->config->base_dir, values, &err) < 0)
		load_error(load, section, key->name, "%s", err.text);
}

/* Reports each required option of @table that @section does not have; @whose says who needs it. */
static void check_required(struct load *load, const struct ini_section *section,
			   const struct option *table, const char *whose)
{
	for (const struct option *option = table; option->name; option++)
		if ((option->flags & OPTION_REQUIRED) && !ini_key_find(section, option->name))
			load_error(load, section, option->name, "is missing, but %s needs it",
				   whose);
}

static void load_settings(struct load *load, const struct option *table, void *values)
{
	const struct ini_section *section = ini_section_find(load->config->ini, SETTINGS_SECTION);

	if (!section) /* then all settings keep their defaults */
		return;
	for (size_t i = 0; i < section->key_count; i++) {
		const struct ini_key *key = &section->keys[i];
		const struct option *option = option_find(table, key->name);

		if (option)
			parse_key(load, section, option, key, values);
		else
			report_unknown_key(load, section, key->name, &table, 1);
	}
	check_required(load, section, table, "the mount");
}

/* ---- Nodes ---- */

static const struct driver *find_driver(struct load *load, const struct ini_section *section,
					const struct driver *const *drivers, const char *name)
{
	const char **names, *nearest;
	size_t count = 0;

	for (; drivers[count]; count++)
		if (strcmp(drivers[count]->name, name) == 0)
			return drivers[count];
	names = calloc(count + 1, sizeof(*names));
	if (!names) {
		load_no_memory(load);
		return NULL;
	}
	for (size_t i = 0; i < count; i++)
		names[i] = drivers[i]->name;
	nearest = name_suggest(names, name);
	if (nearest)
		load_error(load, section, "driver",
			   "unknown driver '%s' (did you mean '%s'? diskfs --drivers lists all)",
			   name, nearest);
	else
		load_error(load, section, "driver",
			   "unknown driver '%s' (diskfs --drivers lists all)", name);
	free(names);
	return NULL;
}

/* Parses the keys that every node has; those of the driver are left to load_driver_options(). */
static void load_node_options(struct load *load, const struct ini_section *section,
			      struct node_values *values)
{
	for (size_t i = 0; i < section->key_count; i++) {
		const struct ini_key *key = &section->keys[i];
		const struct option *option = option_find(config_node_options, key->name);

		if (option)
			parse_key(load, section, option, key, values);
	}
	if (!ini_key_find(section, "driver"))
		load_error(load, section, "driver",
			   "is missing, but every disk needs one (diskfs --drivers lists all)");
}

/* Parses the keys of the node's driver, and reports those that nobody knows. */
static void load_driver_options(struct load *load, const struct ini_section *section,
				struct config_node *node)
{
	const struct option *tables[] = {config_node_options, node->driver->options};
	char whose[80];

	node->values = calloc(1, node->driver->config_size ? node->driver->config_size : 1);
	if (!node->values) {
		load_no_memory(load);
		return;
	}
	options_init(node->driver->options, node->values);
	for (size_t i = 0; i < section->key_count; i++) {
		const struct ini_key *key = &section->keys[i];
		const struct option *option = option_find(node->driver->options, key->name);

		if (option_find(config_node_options, key->name))
			continue;
		if (option)
			parse_key(load, section, option, key, node->values);
		else
			report_unknown_key(load, section, key->name, tables, ARRAY_SIZE(tables));
	}
	snprintf(whose, sizeof(whose), "driver '%s'", node->driver->name);
	check_required(load, section, node->driver->options, whose);
}

static void load_node(struct load *load, const struct ini_section *section,
		      const struct driver *const *drivers)
{
	struct config_node *node = &load->config->nodes[load->config->node_count];
	struct node_values *values = &load->values[load->config->node_count];

	load->config->node_count++;
	node->name = section->name;
	node->line = section->line;
	options_init(config_node_options, values);
	load_node_options(load, section, values);
	node->read_only = values->read_only;
	node->passthrough = values->passthrough;
	if (values->driver)
		node->driver = find_driver(load, section, drivers, values->driver);
	if (node->driver)
		load_driver_options(load, section, node);
}

static void load_nodes(struct load *load, const struct driver *const *drivers)
{
	struct config *config = load->config;
	size_t sections = config->ini->section_count;

	/* One too many, so that there is something to allocate in any case. */
	config->nodes = calloc(sections + 1, sizeof(*config->nodes));
	load->values = calloc(sections + 1, sizeof(*load->values));
	if (!config->nodes || !load->values) {
		load_no_memory(load);
		return;
	}
	for (size_t i = 0; i < sections; i++)
		if (strcmp(config->ini->sections[i].name, SETTINGS_SECTION) != 0)
			load_node(load, &config->ini->sections[i], drivers);
	if (config->node_count == 0) {
		ini_error(load->errors, config->ini->path, 0, NULL, NULL,
			  "there is no disk: write a [section] with a driver");
		load->failed = true;
	}
}

/* ---- The whole ---- */

/* Makes @path absolute, without a look at links in it. NULL with errno set. */
static char *absolute_path(const char *path)
{
	char *directory, *absolute;

	if (path[0] == '/')
		return strdup(path);
	directory = get_current_dir_name();
	if (!directory || asprintf(&absolute, "%s/%s", directory, path) < 0)
		absolute = NULL;
	free(directory);
	return absolute;
}

/* Sets the path and its folder. Returns -1 with errno set. */
static int set_paths(struct config *config, const char *path)
{
	const char *slash;

	config->path = absolute_path(path);
	if (!config->path)
		return -1;
	slash = strrchr(config->path, '/');
	config->base_dir = slash == config->path
				   ? strdup("/")
				   : strndup(config->path, (size_t)(slash - config->path));
	return config->base_dir ? 0 : -1;
}

/* The phases after the reading of the file. Returns -1 after at least one line of errors. */
static int load_all(struct config *config, const struct driver *const *drivers,
		    const struct option *settings, void *settings_values, FILE *errors)
{
	struct load load = {.config = config, .errors = errors};

	load_settings(&load, settings, settings_values);
	load_nodes(&load, drivers);
	if (!load.failed)
		load_graph(&load);
	for (size_t i = 0; load.values && i < config->node_count; i++)
		options_free(config_node_options, &load.values[i]);
	free(load.values);
	return load.failed ? -1 : 0;
}

struct config *config_load(const char *path, const struct driver *const *drivers,
			   const struct option *settings, void *settings_values, FILE *errors)
{
	struct config *config = calloc(1, sizeof(*config));

	if (!config || set_paths(config, path) < 0) {
		fprintf(errors, "cannot read '%s': %s\n", path, strerror(errno));
		config_free(config);
		return NULL;
	}
	config->ini = ini_load(path, errors);
	if (!config->ini || load_all(config, drivers, settings, settings_values, errors) < 0) {
		config_free(config);
		return NULL;
	}
	return config;
}

void config_free(struct config *config)
{
	if (!config)
		return;
	for (size_t i = 0; i < config->export_count; i++)
		free(config->exports[i].file);
	for (size_t i = 0; i < config->node_count; i++) {
		struct config_node *node = &config->nodes[i];

		if (node->values)
			options_free(node->driver->options, node->values);
		free(node->values);
		free(node->below);
	}
	free(config->exports);
	free(config->order);
	free(config->nodes);
	ini_free(config->ini);
	free(config->base_dir);
	free(config->path);
	free(config);
}
