/* SPDX-License-Identifier: MIT */
/*
 * Declared options. Whoever has settings (a driver, the mount, every node) declares them in one
 * table of struct option; that table is the parser, the validation, the defaults, `--help` and the
 * manual's list.
 *
 * Values land in a plain struct of the owner's: option @offset says where, option @type says as
 * which C type (enum option_type). Parsing is strict: blanks alone are no value, numbers neither
 * overflow nor are they clamped.
 *
 * core/ may include this header, since a driver's struct points at its table.
 */
#ifndef CONF_OPTION_H
#define CONF_OPTION_H

#include <stdio.h>
#include "core/error.h"

enum option_type {
	OPTION_BOOL,	 /* bool: yes/no, on/off, true/false, 1/0 */
	OPTION_U64,	 /* uint64_t: decimal, or hexadecimal with 0x */
	OPTION_SIZE,	 /* uint64_t, bytes: decimal, with K, M, G, T, P, E or KiB, MiB ... */
	OPTION_DURATION, /* uint64_t, nanoseconds: decimal, with ns, us, ms or s; or 0 */
	OPTION_ENUM,	 /* int: the index into @choices */
	OPTION_OCTAL,	 /* uint64_t: octal, for a file mode */
	OPTION_STRING,	 /* char *, owned: any text; NULL where not given and without default */
	OPTION_PATH,	 /* char *, owned: a relative one counts from the configuration's folder */
	OPTION_LIST,	 /* struct string_list: names separated by commas, none empty or repeated */
};

enum option_flags {
	OPTION_REQUIRED = 1 << 0,
	OPTION_LIVE = 1 << 2,	      /* may be changed while mounted, by an extended attribute */
	OPTION_POWER_OF_TWO = 1 << 1, /* for U64 and SIZE; 0 passes where min allows it */
};

struct string_list {
	char **items; /* owned, as is each item */
	size_t count;
};

struct option {
	const char *name; /* lower case; NULL ends a table */
	enum option_type type;
	size_t offset;	      /* of the value in the owner's struct */
	unsigned flags;	      /* enum option_flags */
	uint64_t min, max;    /* numbers only, as stored; max 0 means no upper bound */
	const char *fallback; /* the default, as a user would write it; NULL: zero, NULL or empty */
	const char *const *choices; /* OPTION_ENUM: NULL-terminated */
	const char *help;	    /* one or two sentences, without a final stop */
};

/* Fills @values from the defaults of @table. A default that does not parse is a defect and aborts.
 */
void options_init(const struct option *table, void *values);

/*
 * Parses @text as the value of option @option into @values, replacing what was there. @base_dir is
 * the folder that relative paths count from (NULL: the working directory). Returns 0, or -1 with
 * err->key and err->text set ("'12x' is no size: write a number of bytes, or one with K, M, G or
 * T"); the old value stays then.
 */
int option_parse(const struct option *option, const char *text, const char *base_dir, void *values,
		 struct err *err);

/*
 * Writes @number as the value of a numeric option would stand in a configuration: exactly, in the
 * largest unit that fits ("1500us"). The largest size of all, 2^63 - 1, is "just below 8E". Returns
 * @text.
 */
const char *option_format(char text[static 32], const struct option *option, uint64_t number);

/* Releases the strings and lists of @values; may be called twice. */
void options_free(const struct option *table, void *values);

/* The option called @name, or NULL. */
const struct option *option_find(const struct option *table, const char *name);

/*
 * The name nearest to @name among the options of the @count @tables, or NULL where none is near
 * enough to be what the user meant (edit distance at most 2, and less than half of the name; a swap
 * of neighbours counts once, case does not count).
 */
const char *option_suggest(const struct option *const *tables, size_t count, const char *name);

/* The same rule for any NULL-terminated list of names. */
const char *name_suggest(const char *const *names, const char *name);

/* Prints one paragraph an option: name, type with range or choices, default or "required", help. */
void options_help(const struct option *table, FILE *out);

#endif
