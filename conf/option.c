// SPDX-License-Identifier: MIT
/*
 * Declared options: from the text of a value to the field of a struct.
 *
 * Parsing is strict: the whole text is the value or there is an error, and no number overflows,
 * wraps or is clamped. A value that is refused leaves the old one in place. Bounds are shown in the
 * units in which a user writes them. A text of blanks only is no value for any type.
 */
#include "conf/option.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define EIB (GIB * GIB)

struct unit {
	const char *suffix;
	uint64_t factor;
};

/* Each from small to large, which option_format() relies on. */
static const struct unit size_units[] = {
	{"", 1},	 {"K", KIB},	  {"M", MIB},	   {"G", GIB},
	{"T", GIB *KIB}, {"P", GIB *MIB}, {"E", GIB *GIB}, {NULL, 0},
};
static const struct unit duration_units[] = {
	{"ns", 1}, {"us", NS_PER_US}, {"ms", NS_PER_US * 1000}, {"s", NS_PER_S}, {NULL, 0},
};

static void *value_of(const struct option *option, void *values)
{
	return (char *)values + option->offset;
}

static void list_free(struct string_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct string_list){0};
}

static int no_memory(const struct option *option, struct err *err)
{
	return err_set_key(err, option->name, "%s", strerror(ENOMEM));
}

/* ---- Numbers ---- */

const char *option_format(char text[static 32], const struct option *option, uint64_t number)
{
	const struct unit *units = NULL, *unit;

	if (option->type == OPTION_SIZE)
		units = size_units;
	if (option->type == OPTION_DURATION)
		units = duration_units;
	if (!units) {
		snprintf(text, 32, option->type == OPTION_OCTAL ? "%#" PRIo64 : "%" PRIu64, number);
		return text;
	}
	if (units == size_units && (number + 1) % EIB == 0) {
		snprintf(text, 32, "just below %" PRIu64 "E", number / EIB + 1);
		return text;
	}
	unit = units;
	while (number > 0 && unit[1].suffix && number % unit[1].factor == 0)
		unit++;
	snprintf(text, 32, "%" PRIu64 "%s", number / unit->factor, unit->suffix);
	return text;
}

static int out_of_range(const struct option *option, const char *text, struct err *err)
{
	char min[32], max[32];

	option_format(min, option, option->min);
	if (option->max == 0)
		return err_set_key(err, option->name,
				   "'%s' is out of range: it must be at least %s", text, min);
	return err_set_key(err, option->name, "'%s' is out of range: it must be %s to %s", text,
			   min, option_format(max, option, option->max));
}

static int store_number(const struct option *option, const char *text, uint64_t number,
			void *values, struct err *err)
{
	if (number < option->min || (option->max != 0 && number > option->max))
		return out_of_range(option, text, err);
	if ((option->flags & OPTION_POWER_OF_TWO) && number != 0 && !is_power_of_two(number))
		return err_set_key(err, option->name, "'%s' is no power of two", text);
	*(uint64_t *)value_of(option, values) = number;
	return 0;
}

/* A number that no uint64_t holds. */
static int too_large(const struct option *option, const char *text, struct err *err)
{
	if (option->max != 0)
		return out_of_range(option, text, err);
	return err_set_key(err, option->name, "'%s' is too large", text);
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return 16;
}

/*
 * Reads the digits that @text begins with. Returns what follows them: @text itself if there are
 * none. *number is UINT64_MAX and *overflow is true where they are too many.
 */
static const char *read_digits(const char *text, unsigned base, uint64_t *number, bool *overflow)
{
	*number = 0;
	*overflow = false;
	for (; digit_value(*text) < (int)base; text++) {
		if (__builtin_mul_overflow(*number, (uint64_t)base, number) ||
		    __builtin_add_overflow(*number, (uint64_t)digit_value(*text), number))
			*overflow = true;
	}
	if (*overflow)
		*number = UINT64_MAX;
	return text;
}

static int parse_u64(const struct option *option, const char *text, void *values, struct err *err)
{
	bool hexadecimal = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	const char *digits = hexadecimal ? text + 2 : text, *end;
	uint64_t number;
	bool overflow;

	end = read_digits(digits, hexadecimal ? 16 : 10, &number, &overflow);
	if (end == digits || *end)
		return err_set_key(err, option->name,
				   "'%s' is no number: write digits, or 0x and hexadecimal ones",
				   text);
	if (overflow)
		return too_large(option, text, err);
	return store_number(option, text, number, values, err);
}

static int parse_octal(const struct option *option, const char *text, void *values, struct err *err)
{
	uint64_t number;
	bool overflow;
	const char *end = read_digits(text, 8, &number, &overflow);

	if (end == text || *end)
		return err_set_key(err, option->name, "'%s' is no octal mode: write one like 0640",
				   text);
	if (overflow)
		return too_large(option, text, err);
	return store_number(option, text, number, values, err);
}

/* The unit called @suffix in any case; "K" is "KiB" too where @binary. NULL: none. */
static const struct unit *unit_find(const struct unit *units, const char *suffix, bool binary)
{
	for (const struct unit *unit = units; unit->suffix; unit++) {
		size_t length = strlen(unit->suffix);

		if (strncasecmp(suffix, unit->suffix, length) != 0)
			continue;
		if (!suffix[length] || (binary && length && strcasecmp(suffix + length, "iB") == 0))
			return unit;
	}
	return NULL;
}

static int parse_size(const struct option *option, const char *text, void *values, struct err *err)
{
	uint64_t number;
	bool overflow;
	const char *end = read_digits(text, 10, &number, &overflow);
	const struct unit *unit = unit_find(size_units, end + strspn(end, " "), true);

	if (end == text || !unit)
		return err_set_key(
			err, option->name,
			"'%s' is no size: write a number of bytes, or one with K, M, G or T", text);
	if (overflow || __builtin_mul_overflow(number, unit->factor, &number))
		return too_large(option, text, err);
	return store_number(option, text, number, values, err);
}

static int parse_duration(const struct option *option, const char *text, void *values,
			  struct err *err)
{
	uint64_t number;
	bool overflow;
	const char *end = read_digits(text, 10, &number, &overflow);
	const struct unit *unit = unit_find(duration_units, end + strspn(end, " "), false);

	if (strcmp(text, "0") == 0)
		unit = duration_units; /* zero is the same in all */
	if (end == text || !unit)
		return err_set_key(err, option->name,
				   "'%s' is no duration: write a number with ns, us, ms or s",
				   text);
	if (overflow || __builtin_mul_overflow(number, unit->factor, &number))
		return too_large(option, text, err);
	return store_number(option, text, number, values, err);
}

/* ---- Words ---- */

static int parse_bool(const struct option *option, const char *text, void *values, struct err *err)
{
	static const char *const words[][2] = {
		{"no", "yes"}, {"off", "on"}, {"false", "true"}, {"0", "1"}};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		for (unsigned truth = 0; truth < 2; truth++) {
			if (strcasecmp(text, words[i][truth]) == 0) {
				*(bool *)value_of(option, values) = truth;
				return 0;
			}
		}
	}
	return err_set_key(err, option->name, "'%s' is neither yes nor no", text);
}

/* "a, b or c" */
static void format_choices(char *text, size_t size, const char *const *choices)
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; choices[i] && used < size; i++) {
		const char *before = i == 0 ? "" : choices[i + 1] ? ", " : " or ";
		int length = snprintf(text + used, size - used, "%s%s", before, choices[i]);

		used += length > 0 ? (size_t)length : 0;
	}
}

static int parse_enum(const struct option *option, const char *text, void *values, struct err *err)
{
	const char *nearest;
	char choices[300];

	for (int i = 0; option->choices[i]; i++) {
		if (strcmp(option->choices[i], text) == 0) {
			*(int *)value_of(option, values) = i;
			return 0;
		}
	}
	format_choices(choices, sizeof(choices), option->choices);
	nearest = name_suggest(option->choices, text);
	if (nearest)
		return err_set_key(err, option->name, "'%s' is none of %s (did you mean '%s'?)",
				   text, choices, nearest);
	return err_set_key(err, option->name, "'%s' is none of %s", text, choices);
}

static int store_string(const struct option *option, char *text, void *values, struct err *err)
{
	char **value = value_of(option, values);

	if (!text)
		return no_memory(option, err);
	free(*value);
	*value = text;
	return 0;
}

static int parse_path(const struct option *option, const char *text, const char *base_dir,
		      void *values, struct err *err)
{
	char *path;

	if (text[0] == '/' || !base_dir)
		return store_string(option, strdup(text), values, err);
	if (asprintf(&path, "%s/%s", strcmp(base_dir, "/") == 0 ? "" : base_dir, text) < 0)
		path = NULL;
	return store_string(option, path, values, err);
}

/* ---- Lists ---- */

/* Adds the @length bytes at @text, less the blanks around them, to a list that has room. */
static int list_add(struct string_list *list, const struct option *option, const char *text,
		    size_t length, struct err *err)
{
	char *item;

	while (length > 0 && isspace((unsigned char)*text)) {
		text++;
		length--;
	}
	while (length > 0 && isspace((unsigned char)text[length - 1]))
		length--;
	if (length == 0)
		return err_set_key(err, option->name,
				   "a name is missing before, after or between the commas");
	item = strndup(text, length);
	if (!item)
		return no_memory(option, err);
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(list->items[i], item) == 0) {
			err_set_key(err, option->name, "'%s' is named twice", item);
			free(item);
			return -1;
		}
	}
	list->items[list->count++] = item;
	return 0;
}

static int parse_list(const struct option *option, const char *text, void *values, struct err *err)
{
	struct string_list *value = value_of(option, values), list = {0};
	size_t commas = 0;

	for (const char *c = text; *c; c++)
		commas += *c == ',';
	list.items = calloc(commas + 1, sizeof(*list.items));
	if (!list.items)
		return no_memory(option, err);
	for (const char *item = text; item;) {
		size_t length = strcspn(item, ",");

		if (list_add(&list, option, item, length, err) < 0) {
			list_free(&list);
			return -1;
		}
		item = item[length] ? item + length + 1 : NULL;
	}
	list_free(value);
	*value = list;
	return 0;
}

/* ---- Tables ---- */

int option_parse(const struct option *option, const char *text, const char *base_dir, void *values,
		 struct err *err)
{
	if (!text[strspn(text, " \t")])
		return err_set_key(err, option->name, "has no value");
	switch (option->type) {
	case OPTION_BOOL:
		return parse_bool(option, text, values, err);
	case OPTION_U64:
		return parse_u64(option, text, values, err);
	case OPTION_SIZE:
		return parse_size(option, text, values, err);
	case OPTION_DURATION:
		return parse_duration(option, text, values, err);
	case OPTION_ENUM:
		return parse_enum(option, text, values, err);
	case OPTION_OCTAL:
		return parse_octal(option, text, values, err);
	case OPTION_STRING:
		return store_string(option, strdup(text), values, err);
	case OPTION_PATH:
		return parse_path(option, text, base_dir, values, err);
	case OPTION_LIST:
		return parse_list(option, text, values, err);
	}
	return err_set_key(err, option->name, "is declared with an unknown type");
}

static void value_clear(const struct option *option, void *values)
{
	switch (option->type) {
	case OPTION_BOOL:
		*(bool *)value_of(option, values) = false;
		break;
	case OPTION_ENUM:
		*(int *)value_of(option, values) = 0;
		break;
	case OPTION_STRING:
	case OPTION_PATH:
		*(char **)value_of(option, values) = NULL;
		break;
	case OPTION_LIST:
		*(struct string_list *)value_of(option, values) = (struct string_list){0};
		break;
	case OPTION_U64:
	case OPTION_SIZE:
	case OPTION_DURATION:
	case OPTION_OCTAL:
		*(uint64_t *)value_of(option, values) = 0;
		break;
	}
}

void options_init(const struct option *table, void *values)
{
	struct err err = {0};

	for (const struct option *option = table; option->name; option++) {
		value_clear(option, values);
		if (option->fallback &&
		    option_parse(option, option->fallback, NULL, values, &err)) {
			fprintf(stderr, "diskfs: default of option '%s': %s\n", option->name,
				err.text);
			abort();
		}
	}
}

void options_free(const struct option *table, void *values)
{
	for (const struct option *option = table; option->name; option++) {
		if (option->type == OPTION_STRING || option->type == OPTION_PATH) {
			char **value = value_of(option, values);

			free(*value);
			*value = NULL;
		}
		if (option->type == OPTION_LIST)
			list_free(value_of(option, values));
	}
}

const struct option *option_find(const struct option *table, const char *name)
{
	for (const struct option *option = table; option->name; option++)
		if (strcmp(option->name, name) == 0)
			return option;
	return NULL;
}

/* ---- Help ---- */

static void print_type(const struct option *option, FILE *out)
{
	static const char *const names[] = {
		[OPTION_BOOL] = "yes or no",
		[OPTION_U64] = "number",
		[OPTION_SIZE] = "size",
		[OPTION_DURATION] = "duration",
		[OPTION_ENUM] = "one of ",
		[OPTION_OCTAL] = "octal mode",
		[OPTION_STRING] = "text",
		[OPTION_PATH] = "path",
		[OPTION_LIST] = "names separated by commas",
	};
	char text[300];

	fputs(names[option->type], out);
	if (option->type == OPTION_ENUM) {
		format_choices(text, sizeof(text), option->choices);
		fputs(text, out);
	}
	if (option->flags & OPTION_POWER_OF_TWO)
		fputs(", a power of two", out);
	if (option->max != 0)
		fprintf(out, ", %s", option_format(text, option, option->min));
	else if (option->min != 0)
		fprintf(out, ", at least %s", option_format(text, option, option->min));
	if (option->max != 0)
		fprintf(out, " to %s", option_format(text, option, option->max));
}

/* Prints @text indented and broken at blanks, so that no line is wider than a terminal. */
static void print_wrapped(const char *text, FILE *out)
{
	const int indent = 6, width = 80;
	int column = 0;

	while (*text) {
		int length = (int)strcspn(text, " ");

		if (column > 0 && column + 1 + length > width) {
			fputc('\n', out);
			column = 0;
		}
		column += fprintf(out, "%*s%.*s", column ? 1 : indent, "", length, text);
		text += length;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

void options_help(const struct option *table, FILE *out)
{
	for (const struct option *option = table; option->name; option++) {
		fprintf(out, "  %s: ", option->name);
		print_type(option, out);
		if (option->flags & OPTION_REQUIRED)
			fputs("; required", out);
		else if (option->fallback)
			fprintf(out, "; default %s", option->fallback);
		fputc('\n', out);
		if (option->help)
			print_wrapped(option->help, out);
	}
}
