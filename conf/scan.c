// SPDX-License-Identifier: MIT
/*
 * The grammar of a configuration, line by line:
 *
 *	[name]			a section
 *	key = value		a value runs to the end of the line, or to a comment
 *	key = "value"		or is quoted, by " or ', and may then hold ; # and the other quote
 *	; comment  # comment	on a line of its own, or behind any of these after a blank
 *
 * Names are of a-z 0-9 - _ and . and begin with a letter or digit; blanks around names and values
 * do not count. A line ends with LF or CR LF, has at most LINE_MAX_LENGTH bytes and is UTF-8. A
 * byte order mark in front is skipped.
 *
 * Whatever is doubtful is refused, with the line and what to write instead: see ini.c for why. The
 * scan goes on after an error, to report all of them, but ends after ERRORS_MAX: then the file is
 * no configuration at all.
 */
#include "conf/scan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_LENGTH ((size_t)1000) /* iniparser's limit is 1024 */
#define NAME_MAX_LENGTH ((size_t)100)
#define ENTRIES_MAX	10000 /* sections and keys: iniparser takes time in proportion to n^2 */
#define ERRORS_MAX	20

static const char blanks[] = " \t";

struct scan {
	struct ini *ini;
	struct ini_section *section; /* the last one; NULL before the first */
	FILE *errors;
	unsigned line;
	unsigned entries;
	unsigned error_count;
};

static void scan_error(struct scan *scan, const char *key, const char *format, ...)
	PRINTF_LIKE(3, 4);

static void scan_error(struct scan *scan, const char *key, const char *format, ...)
{
	va_list arguments;
	char text[2 * LINE_MAX_LENGTH];

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	ini_error(scan->errors, scan->ini->path, scan->line,
		  scan->section ? scan->section->name : NULL, scan->section ? key : NULL, "%s",
		  text);
	scan->error_count++;
}

/* Reports that memory ran out, and ends the scan. */
static void scan_no_memory(struct scan *scan)
{
	scan_error(scan, NULL, "%s", strerror(ENOMEM));
	scan->error_count = ERRORS_MAX;
}

/* ---- Bytes ---- */

/* The bytes that follow the first of a UTF-8 sequence; -1: it cannot be the first of one. */
static int utf8_following(unsigned char first)
{
	if (first < 0x80)
		return 0;
	if (first >= 0xc2 && first <= 0xdf)
		return 1;
	if (first >= 0xe0 && first <= 0xef)
		return 2;
	if (first >= 0xf0 && first <= 0xf4)
		return 3;
	return -1;
}

/*
 * The length of the UTF-8 sequence at @text, of which @length bytes are there; 0 if it is none, or
 * longer than need be, a surrogate or beyond Unicode.
 */
static size_t utf8_length(const char *text, size_t length)
{
	unsigned char first = (unsigned char)text[0], second;
	int following = utf8_following(first);

	if (following < 0 || (size_t)following >= length)
		return 0;
	for (int i = 1; i <= following; i++)
		if (((unsigned char)text[i] & 0xc0) != 0x80)
			return 0;
	second = following > 0 ? (unsigned char)text[1] : 0;
	if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
	    (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f))
		return 0;
	return (size_t)following + 1;
}

/* Whether the character at @text, @length bytes of valid UTF-8, is a control character. */
static bool is_control(const char *text, size_t length)
{
	unsigned char first = (unsigned char)text[0];

	if (length == 1)
		return (first < 0x20 && first != '\t') || first == 0x7f;
	return first == 0xc2 && (unsigned char)text[1] < 0xa0;
}

/* Whether a line may be looked at: nothing in it would garble a message or the parser. */
static bool check_bytes(struct scan *scan, const char *line, size_t length)
{
	if (length > LINE_MAX_LENGTH) {
		scan_error(scan, NULL, "the line is longer than %zu bytes", LINE_MAX_LENGTH);
		return false;
	}
	for (size_t i = 0, step; i < length; i += step) {
		step = utf8_length(line + i, length - i);
		if (step == 0) {
			scan_error(scan, NULL, "column %zu: this is not UTF-8", i + 1);
			return false;
		}
		if (is_control(line + i, step)) {
			scan_error(scan, NULL, "column %zu: control characters are not allowed",
				   i + 1);
			return false;
		}
	}
	while (length > 0 && strchr(blanks, line[length - 1]))
		length--;
	if (length > 0 && line[length - 1] == '\\') {
		scan_error(scan, NULL,
			   "the line ends with a backslash; values cannot go on in the next line");
		return false;
	}
	return true;
}

/* Cuts the blanks at the end of @text and returns it without those in front. */
static char *trim(char *text)
{
	size_t length;

	text += strspn(text, blanks);
	length = strlen(text);
	while (length > 0 && strchr(blanks, text[length - 1]))
		length--;
	text[length] = '\0';
	return text;
}

static bool is_comment(char c)
{
	return c == ';' || c == '#';
}

/* ---- Names ---- */

static bool is_lower_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* What is wrong with the name of a section or key; NULL: nothing. */
static const char *name_fault(const char *name, bool of_section)
{
	bool upper = false, strange = false;

	for (const char *c = name; *c; c++) {
		if (*c >= 'A' && *c <= 'Z')
			upper = true;
		else if (!is_lower_or_digit(*c) && (c == name || !strchr("-_.", *c)))
			strange = true;
	}
	if (!*name)
		return "the name is missing";
	if (strange)
		return "a name is of a-z, 0-9, '-', '_' and '.', and begins with a letter or digit";
	if (strlen(name) > NAME_MAX_LENGTH)
		return "the name is longer than 100 bytes";
	if (upper)
		return of_section
			       ? "write the name in lower case (`file =` gives an image any name)"
			       : "write the name in lower case";
	return NULL;
}

/* ---- Sections and keys ---- */

/* Makes room for one more behind the @count items of @array. Returns NULL where there is none. */
static void *grow(void *array, size_t count, size_t item_size)
{
	if (count & (count - 1))
		return array; /* room is always a power of two */
	return reallocarray(array, count ? 2 * count : 1, item_size);
}

/* Counts a section or key to be added; false: there are too many. */
static bool count_entry(struct scan *scan)
{
	if (scan->entries++ < ENTRIES_MAX)
		return true;
	scan_error(scan, NULL, "more than %d sections and keys", ENTRIES_MAX);
	scan->error_count = ERRORS_MAX;
	return false;
}

/* Begins the section @name, even if it is refused, so that its keys are looked at. */
static void add_section(struct scan *scan, const char *name)
{
	struct ini *ini = scan->ini;
	struct ini_section *sections;
	char *copy;

	sections = grow(ini->sections, ini->section_count, sizeof(*sections));
	if (sections)
		ini->sections = sections;
	copy = strdup(name);
	if (!sections || !copy) {
		free(copy);
		scan_no_memory(scan);
		return;
	}
	scan->section = &sections[ini->section_count++];
	*scan->section = (struct ini_section){.name = copy, .line = scan->line};
}

/*
 * @text is a copy, that may be changed, of the line that begins with '[' at @original; there, what
 * follows the name is blanked for the parser's sake.
 */
static void scan_section(struct scan *scan, char *text, char *original)
{
	const struct ini_section *same;
	char *end = strchr(text, ']'), *rest, *name;
	const char *fault;
	unsigned same_line;

	if (!end) {
		scan_error(scan, NULL, "'[' without ']'");
		return;
	}
	rest = end + 1 + strspn(end + 1, blanks);
	memset(original + (end + 1 - text), ' ', strlen(end + 1));
	*end = '\0';
	name = trim(text + 1);
	same = ini_section_find(scan->ini, name);
	same_line = same ? same->line : 0;
	fault = name_fault(name, true);
	if (!count_entry(scan))
		return;
	add_section(scan, name);
	if (*rest && !is_comment(*rest))
		scan_error(scan, NULL, "text behind the ']'");
	if (fault)
		scan_error(scan, NULL, "%s", fault);
	else if (same_line)
		scan_error(scan, NULL, "the section is repeated; the first is in line %u",
			   same_line);
}

/* Returns the value in @text without quotes and comment, or NULL after an error. */
static char *scan_value(struct scan *scan, const char *key, char *text)
{
	char *c;

	text += strspn(text, blanks);
	if (*text == '"' || *text == '\'') {
		char *end = strchr(text + 1, *text), *rest;

		if (!end) {
			scan_error(scan, key, "the closing quote is missing");
			return NULL;
		}
		rest = end + 1 + strspn(end + 1, blanks);
		if (*rest && !is_comment(*rest)) {
			scan_error(scan, key, "text behind the closing quote");
			return NULL;
		}
		*end = '\0';
		return text + 1;
	}
	for (c = text; *c; c++) {
		if (*c == '"' || *c == '\'') {
			scan_error(scan, key,
				   "a quote inside a value: put the whole value into "
				   "quotes of the other kind");
			return NULL;
		}
		if (!is_comment(*c))
			continue;
		if (c > text && !strchr(blanks, c[-1])) {
			scan_error(scan, key,
				   "'%c' in a value: put the value into quotes, or a "
				   "blank in front of a comment",
				   *c);
			return NULL;
		}
		*c = '\0';
		break;
	}
	return trim(text);
}

static void add_key(struct scan *scan, const char *name, const char *value)
{
	struct ini_section *section = scan->section;
	struct ini_key *keys, key = {.line = scan->line};

	keys = grow(section->keys, section->key_count, sizeof(*keys));
	if (keys)
		section->keys = keys;
	key.name = strdup(name);
	key.value = strdup(value);
	if (!keys || !key.name || !key.value) {
		free(key.name);
		free(key.value);
		scan_no_memory(scan);
		return;
	}
	keys[section->key_count++] = key;
}

/* @text is a copy, that may be changed, of a line that is neither empty, comment nor section. */
static void scan_key(struct scan *scan, char *text)
{
	const struct ini_key *same;
	char *equals = strchr(text, '='), *name, *value;
	const char *fault;

	if (!equals) {
		scan_error(scan, NULL, "no '=' in '%s': write key = value", trim(text));
		return;
	}
	*equals = '\0';
	name = trim(text);
	if (!scan->section) {
		scan_error(scan, NULL, "'%s' stands before the first [section]", name);
		return;
	}
	fault = name_fault(name, false);
	same = ini_key_find(scan->section, name);
	if (fault)
		scan_error(scan, *name ? name : NULL, "%s", fault);
	else if (same)
		scan_error(scan, name, "is repeated; the first is in line %u", same->line);
	value = scan_value(scan, name, equals + 1);
	if (value && count_entry(scan))
		add_key(scan, name, value);
}

/* ---- Lines ---- */

static void scan_line(struct scan *scan, char *line, size_t length)
{
	char copy[LINE_MAX_LENGTH + 1];
	size_t indent;

	if (length > 0 && line[length - 1] == '\r')
		length--;
	if (!check_bytes(scan, line, length))
		return;
	memcpy(copy, line, length);
	copy[length] = '\0';
	indent = strspn(copy, blanks);
	if (copy[indent] == '\0' || is_comment(copy[indent]))
		return;
	if (copy[indent] == '[')
		scan_section(scan, copy + indent, line + indent);
	else
		scan_key(scan, copy + indent);
}

static void scan_lines(struct scan *scan, char *text, size_t length)
{
	static const char byte_order_mark[] = "\xef\xbb\xbf";
	char *end = text + length;

	if (strncmp(text, byte_order_mark, 3) == 0) {
		memset(text, ' ', 3);
		text += 3;
	}
	while (text < end && scan->error_count < ERRORS_MAX) {
		char *newline = memchr(text, '\n', (size_t)(end - text));
		char *line_end = newline ? newline : end;

		scan->line++;
		scan_line(scan, text, (size_t)(line_end - text));
		text = newline ? newline + 1 : end;
	}
}

struct ini *ini_scan(const char *path, char *text, size_t length, FILE *errors)
{
	struct scan scan = {.errors = errors};

	scan.ini = calloc(1, sizeof(*scan.ini));
	if (scan.ini)
		scan.ini->path = strdup(path);
	if (!scan.ini || !scan.ini->path) {
		ini_error(errors, path, 0, NULL, NULL, "%s", strerror(ENOMEM));
		ini_free(scan.ini);
		return NULL;
	}
	scan_lines(&scan, text, length);
	if (scan.error_count == 0)
		return scan.ini;
	ini_free(scan.ini);
	return NULL;
}
