/* SPDX-License-Identifier: MIT */
/*
 * A configuration file as sections, keys and values, with the line of each.
 *
 * iniparser is the parser; ini.c is the only file that knows it, and refuses everything that it
 * would swallow, merge, cut or rename. So what a struct ini holds is what the file says:
 *
 *   - section names and keys are unique, in lower case and of plain characters;
 *   - values are complete, without their quotes; they may be empty;
 *   - all text is UTF-8 without control characters.
 *
 * Not thread-safe, since iniparser is not: one file is loaded at a time.
 */
#ifndef CONF_INI_H
#define CONF_INI_H

#include <stdio.h>
#include "core/util.h"

struct ini_key {
	char *name;
	char *value;
	unsigned line;
};

struct ini_section {
	char *name;
	unsigned line;
	struct ini_key *keys; /* in the order of the file, as are the sections */
	size_t key_count;
};

struct ini {
	char *path; /* as given: for messages */
	struct ini_section *sections;
	size_t section_count;
};

/* Reads the file @path. Returns NULL after at least one line on @errors. ini_free() ends it. */
struct ini *ini_load(const char *path, FILE *errors);

/* NULL is allowed. */
void ini_free(struct ini *ini);

/* Each NULL where there is none. */
const struct ini_section *ini_section_find(const struct ini *ini, const char *name);
const struct ini_key *ini_key_find(const struct ini_section *section, const char *name);

/*
 * Prints one line on @errors: "path:line: [section] key: text". Without a @section, a @key (both
 * NULL) or a @line (0) these parts are left out.
 */
void ini_error(FILE *errors, const char *path, unsigned line, const char *section, const char *key,
	       const char *format, ...) PRINTF_LIKE(6, 7);

#endif
