/* SPDX-License-Identifier: MIT */
/* What the user typed. */
#ifndef FS_COMMAND_LINE_H
#define FS_COMMAND_LINE_H

#include <stdbool.h>
#include <stdio.h>

enum mode {
	MODE_MOUNT,
	MODE_CHECK,
	MODE_MAP,
	MODE_COMMIT,
	MODE_CREATE,
	MODE_CHECK_IMAGE,
	MODE_HELP,
	MODE_DRIVERS,
	MODE_VERSION,
};

struct command_line {
	enum mode mode;
	bool foreground;
	bool json;
	bool force, repair;
	char *options;	  /* of all -o, joined by commas, to be freed; NULL: none */
	char **arguments; /* of main(), ends with NULL */
	int argument_count;
};

/* Fills the zeroed @line. False: the command line is wrong, and the user has been told. */
bool command_line_parse(int argc, char **argv, struct command_line *line);

void command_line_usage(FILE *out);

#endif
