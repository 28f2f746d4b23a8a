// SPDX-License-Identifier: MIT
#include "fs/command_line.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void command_line_usage(FILE *out)
{
	fputs("usage: diskfs [-f] [-o OPTIONS] CONFIG MOUNTPOINT\n"
	      "       diskfs --check CONFIG\n"
	      "       diskfs map [--json] CONFIG NODE\n"
	      "       diskfs commit CONFIG NODE\n"
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

static bool complain(const char *what)
{
	fprintf(stderr, "diskfs: %s\n", what);
	return false;
}

/* A command that is a word stands where CONFIG would be. (A configuration of that name can be given
 * as ./map.) Returns how many arguments it takes away. */
static int take_command(const char *word, struct command_line *line)
{
	static const struct {
		const char *word;
		enum mode mode;
	} commands[] = {{"map", MODE_MAP}, {"commit", MODE_COMMIT}};

	if (!word || line->mode != MODE_MOUNT)
		return 0;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(word, commands[i].word) != 0)
			continue;
		line->mode = commands[i].mode;
		return 1;
	}
	return 0;
}

/* The values of long options that are no modes. */
#define OPTION_JSON 1000

static bool take_options(int argc, char **argv, struct command_line *line)
{
	static const struct option long_options[] = {
		{"check", no_argument, NULL, MODE_CHECK},
		{"help", no_argument, NULL, MODE_HELP},
		{"drivers", no_argument, NULL, MODE_DRIVERS},
		{"version", no_argument, NULL, MODE_VERSION},
		{"json", no_argument, NULL, OPTION_JSON},
		{NULL, 0, NULL, 0},
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
		else if (option == OPTION_JSON)
			line->json = true;
		else if (option != 'o')
			line->mode = (enum mode)option;
		else if (add_options(line, optarg) < 0)
			return false;
	}
	return true;
}

/* False: it is wrong, and why has been said. */
static bool parse(int argc, char **argv, struct command_line *line)
{
	/* How many arguments each mode takes. */
	static const struct {
		int min, max;
	} arguments[] = {
		[MODE_MOUNT] = {2, 2},	 [MODE_CHECK] = {1, 1}, [MODE_MAP] = {2, 2},
		[MODE_COMMIT] = {2, 2},	 [MODE_HELP] = {0, 1},	[MODE_DRIVERS] = {0, 0},
		[MODE_VERSION] = {0, 0},
	};
	bool is_command;

	if (!take_options(argc, argv, line))
		return false;
	optind += take_command(argv[optind], line);
	is_command = line->mode == MODE_MAP || line->mode == MODE_COMMIT;
	if (line->json && line->mode != MODE_MAP)
		return complain("--json is for map");
	if (is_command && (line->foreground || line->options))
		return complain("-f and -o are for a mount");
	line->argument_count = argc - optind;
	if (line->argument_count < arguments[line->mode].min ||
	    line->argument_count > arguments[line->mode].max)
		return complain("wrong number of arguments");
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
