// SPDX-License-Identifier: MIT
#include "fs/command_line.h"
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void command_line_usage(FILE *out)
{
	fputs("usage: diskfs [-f] [-o OPTIONS] CONFIG MOUNTPOINT\n"
	      "       diskfs --check CONFIG\n"
	      "       diskfs map [--json] CONFIG NODE\n"
	      "       diskfs commit CONFIG NODE\n"
	      "       diskfs create [--force] FORMAT FILE [KEY=VALUE...]\n"
	      "       diskfs check [--repair] FILE\n"
	      "       diskfs --help [DRIVER | create] | --drivers | --version\n",
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
	} commands[] = {{"map", MODE_MAP},
			{"commit", MODE_COMMIT},
			{"create", MODE_CREATE},
			{"check", MODE_CHECK_IMAGE}};

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

static bool is_command(enum mode mode)
{
	return mode == MODE_MAP || mode == MODE_COMMIT || mode == MODE_CREATE ||
	       mode == MODE_CHECK_IMAGE;
}

/* The values of long options that are no modes. */
enum {
	OPTION_JSON = 1000,
	OPTION_FORCE,
	OPTION_REPAIR,
};

static bool take_options(int argc, char **argv, struct command_line *line)
{
	static const struct option long_options[] = {
		{"check", no_argument, NULL, MODE_CHECK},
		{"help", no_argument, NULL, MODE_HELP},
		{"drivers", no_argument, NULL, MODE_DRIVERS},
		{"version", no_argument, NULL, MODE_VERSION},
		{"json", no_argument, NULL, OPTION_JSON},
		{"force", no_argument, NULL, OPTION_FORCE},
		{"repair", no_argument, NULL, OPTION_REPAIR},
		{NULL, 0, NULL, 0},
	};
	bool right = true;
	int option;

	while ((option = getopt_long(argc, argv, "fho:V", long_options, NULL)) != -1) {
		if (option == '?')
			right = false;
		else if (option == 'f')
			line->foreground = true;
		else if (option == 'h')
			line->mode = MODE_HELP;
		else if (option == 'V')
			line->mode = MODE_VERSION;
		else if (option == OPTION_JSON)
			line->json = true;
		else if (option == OPTION_FORCE)
			line->force = true;
		else if (option == OPTION_REPAIR)
			line->repair = true;
		else if (option != 'o')
			line->mode = (enum mode)option;
		else if (add_options(line, optarg) < 0)
			right = false;
	}
	return right;
}

/* Whether options that belong to one command stand at another. */
static const char *find_stray(const struct command_line *line)
{
	if (line->json && line->mode != MODE_MAP)
		return "--json is for map";
	if (line->force && line->mode != MODE_CREATE)
		return "--force is for create";
	if (line->repair && line->mode != MODE_CHECK_IMAGE)
		return "--repair is for check";
	if (is_command(line->mode) && (line->foreground || line->options))
		return "-f and -o are for a mount";
	return NULL;
}

/* False: it is wrong, and why has been said. */
static bool parse(int argc, char **argv, struct command_line *line)
{
	/* How many arguments each mode takes. */
	static const struct {
		int min, max;
	} arguments[] = {
		[MODE_MOUNT] = {2, 2},	[MODE_CHECK] = {1, 1},	      [MODE_MAP] = {2, 2},
		[MODE_COMMIT] = {2, 2}, [MODE_CREATE] = {2, INT_MAX}, [MODE_CHECK_IMAGE] = {1, 1},
		[MODE_HELP] = {0, 1},	[MODE_DRIVERS] = {0, 0},      [MODE_VERSION] = {0, 0},
	};
	bool right = take_options(argc, argv, line);
	const char *stray;

	optind += take_command(argv[optind], line);
	if (!right)
		return false;
	stray = find_stray(line);
	if (stray)
		return complain(stray);
	line->argument_count = argc - optind;
	if (line->argument_count < arguments[line->mode].min ||
	    line->argument_count > arguments[line->mode].max)
		return complain("wrong number of arguments");
	line->arguments = argv + optind;
	return true;
}

bool command_line_parse(int argc, char **argv, struct command_line *line)
{
	bool right = parse(argc, argv, line);

	if (!right)
		command_line_usage(stderr);
	return right;
}
