/* SPDX-License-Identifier: MIT */
/*
 * Commands on the disks of a configuration, without a mount: `diskfs --check`, map, commit. Each
 * reads the configuration, opens what it needs, does its work in a task, closes, and ends. What is
 * wrong is one sentence on stderr.
 */
#ifndef FS_OFFLINE_H
#define FS_OFFLINE_H

#include <stdbool.h>
#include "conf/config.h"

/* What a command is about. */
struct offline {
	const char *path; /* of the configuration */
	const struct driver *const *drivers;
	const char *node; /* the section that is named, or NULL */
	bool json;
	struct config *config; /* while it runs; no disk is open */
};

/* Runs @command in a task on a worker; it returns 0, or -1 after a sentence on stderr, with all
 * disks closed. Returns the exit status. */
int offline_run(struct offline *offline, int (*command)(struct offline *offline));

/* The named node, or NULL after a sentence on stderr. */
struct config_node *offline_node(const struct offline *offline);

/* Reports what is wrong with a section, with its place in the file; returns -1. */
int offline_refuse(const struct offline *offline, const struct config_node *node,
		   const char *format, ...) PRINTF_LIKE(3, 4);

/* The commands. */
int check_command(struct offline *offline);  /* fs/offline.c */
int map_command(struct offline *offline);    /* fs/map.c */
int commit_command(struct offline *offline); /* fs/commit.c */

#endif
