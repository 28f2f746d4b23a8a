/* SPDX-License-Identifier: MIT */
/*
 * A configuration: an INI file whose sections are nodes (disks), and the disks made of them.
 *
 * Loading (config.c, graph.c) reads and validates everything that can be known without opening a
 * disk; opening (stacks.c) builds the disks bottom-up. Every error is one line "file:line:
 * [section] key: what is wrong" on the stream that the caller gives; all errors of a phase (lines,
 * values, links, cycles) are reported, not just the first.
 *
 * Options of every node, beside its driver's: driver (required), below, file, readonly,
 * passthrough.
 * A node that nothing stands on is exported as `file`, or as its name with ".img" where it has
 * none; under several names where its driver has ports. A node that several nodes stand on must be
 * read-only.
 */
#ifndef CONF_CONFIG_H
#define CONF_CONFIG_H

#include <stdio.h>
#include "core/disk.h"

/* The deepest stack: requests pass through it on the small stack of a task (core/task.h). */
#define CONFIG_DEPTH_MAX 64

/*
 * The largest stack, counted as reports show it: a disk that several others stand on once for each.
 * Where wrappers branch and meet again that doubles with every few disks, and a small file would
 * describe a report that does not fit into memory.
 */
#define CONFIG_STACK_MAX 16384

struct config_node {
	const char *name;
	unsigned line; /* of the section */
	const struct driver *driver;
	void *values; /* the driver's options, until disk_open() takes them */
	bool read_only;
	bool passthrough;
	struct config_node **below;
	unsigned below_count;
	unsigned above_count;
	bool keep_writable;  /* opened for writing even if the disk above never writes to it */
	unsigned open_flags; /* the disk's; set when it is opened, as is is_wanted */
	bool is_wanted;
	struct disk *disk; /* once open */
};

/* One exported image. */
struct config_export {
	char *file; /* the name in the mounted folder, unique */
	struct config_node *node;
	struct disk *disk; /* once open: the node's, or a port of it (struct driver) */
};

struct config {
	char *path;		   /* absolute, of the file */
	char *base_dir;		   /* its folder */
	struct config_node *nodes; /* in the order of the file */
	size_t node_count;
	struct config_export *exports; /* in the order of the file */
	size_t export_count;
	/* private to conf/ follows */
	struct ini *ini;
	struct config_node **order; /* bottom-up: each node after those below it */
};

/*
 * Reads @path. @drivers is the NULL-terminated list of drivers. @settings is the table of the
 * [diskfs] section, which fills @settings_values (already initialised by options_init). Returns
 * NULL after at least one line on @errors.
 */
struct config *config_load(const char *path, const struct driver *const *drivers,
			   const struct option *settings, void *settings_values, FILE *errors);

/*
 * Refuses a configuration in which a path lies in @folder (absolute), where it is to be mounted: a
 * disk would stand on an image of its own mount. Returns 0, or -1 after a line on @errors for each.
 * Before config_open().
 */
int config_check_paths(const struct config *config, const char *folder, FILE *errors);

/*
 * Opens every disk, with DISK_OPEN_CHECK in @open_flags for --check. In a task (core/task.h).
 * Returns 0, or -1 after a line on @errors; then no disk is open.
 */
int config_open(struct config *config, unsigned open_flags, FILE *errors);

/*
 * Opens only @node, and those that it stands on, and no port; else as config_open(). Whether it is
 * a layer of another disk does not matter.
 */
int config_open_node(struct config *config, struct config_node *node, unsigned open_flags,
		     FILE *errors);

/*
 * What of enum disk_open_flags [node] wants of the disk below it, number @index, if it is opened
 * with @open_flags itself. Before it is opened. -1 without memory.
 */
int config_below_flags(const struct config_node *node, unsigned open_flags, unsigned index);

/* Whether [node] is made of layers (core/layer.h). */
bool config_takes_layers(const struct config_node *node);

/* The node called @name, or NULL. */
struct config_node *config_find(const struct config *config, const char *name);

/* Closes every disk, top-down. In a task. May be called when none is open. */
void config_close(struct config *config);

/* Prints each export and its stack as a tree, with type, size and sector size of each disk. The
 * disks are open. */
void config_print(const struct config *config, FILE *out);

/*
 * Prints on @errors, in the form of all errors of a configuration, one that showed only after the
 * loading, in @section ("diskfs": the settings of the mount): with the line of the key err->key, if
 * the section has that one.
 */
void config_report(const struct config *config, const char *section, const struct err *err,
		   FILE *errors);

/* Frees it; the disks are closed. NULL is allowed. */
void config_free(struct config *config);

/* The options that every node has, for `--help`; the struct they fill is private. */
extern const struct option config_node_options[];

#endif
