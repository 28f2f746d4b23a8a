// SPDX-License-Identifier: MIT
#include "fs/command_line.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

void command_line_usage(FILE *out)
{
	fputs("usage: diskfs [-f] [-o OPTIONS] CONFIG MOUNTPOINT\n"
	      "       diskfs --check CONFIG\n"
	      "       diskfs --help [DRIVER] | --drivers | --version\n",
	      out);
}

/* Adds one -o to the others. */
static int add_options(struct command_line *line, const char *options)
{
	char *joined;

	if (asprintf(&joined, "%s%s%s", line->options ? line->options : "",
		     line->options ? "," : "", options) < 0)
		return -1;
	free(line->options);
	line->options = joined;
	return 0;
}

/* False: it is wrong, and why has been said. */
static bool parse(int argc, char **argv, struct command_line *line)
{
	static const struct option long_options[] = {
		{"check", no_argument, NULL, MODE_CHECK},
		{"help", no_argument, NULL, MODE_HELP},
		{"drivers", no_argument, NULL, MODE_DRIVERS},
		{"version", no_argument, NULL, MODE_VERSION},
		{NULL, 0, NULL, 0},
	};
	/* How many arguments each mode takes. */
	static const struct {
		int min, max;
	} arguments[] = {
		[MODE_MOUNT] = {2, 2},	 [MODE_CHECK] = {1, 1},	  [MODE_HELP] = {0, 1},
		[MODE_DRIVERS] = {0, 0}, [MODE_VERSION] = {0, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "fho:V", long_options, NULL)) != -1) {
		if (option == '?')
			return false;
		if (option == 'f')
			line->foreground = true;
		else if (option == 'h')
			line->mode = MODE_HELP;
		else if (option == 'V')
			line->mode = MODE_VERSION;
		else if (option != 'o')
			line->mode = (enum mode)option;
		else if (add_options(line, optarg) < 0)
			return false;
	}
	line->argument_count = argc - optind;
	if (line->argument_count < arguments[line->mode].min ||
	    line->argument_count > arguments[line->mode].max) {
		fputs("diskfs: wrong number of arguments\n", stderr);
		return false;
	}
	for (int i = 0; i < line->argument_count; i++)
		line->arguments[i] = argv[optind + i];
	return true;
}

bool command_line_parse(int argc, char **argv, struct command_line *line)
{
	bool right = parse(argc, argv, line);

	if (!right)
		command_line_usage(stderr);
	return right;
}
