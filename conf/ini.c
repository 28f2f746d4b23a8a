// SPDX-License-Identifier: MIT
/*
 * The INI reader: a strict scan of the lines in front of iniparser, and a comparison behind it.
 *
 * iniparser parses, but tells nobody when it lower-cases a name, merges repeated sections, keeps
 * the last of repeated keys, splits a section's name at a colon, cuts a value at `;` or `#`, joins
 * a line that ends with a backslash (a comment too) to the next, or skips a key without section. So
 * three steps:
 *
 *   1. read the file once; scan.c refuses everything of the above and leaves sections, keys, lines
 *      and the values that it expects;
 *   2. iniparser parses the bytes that were scanned, from a file in memory, so that a change of the
 *      file meanwhile cannot slip in between. Only what the scan blanked differs: a byte order mark
 *      and the comments behind `[section]`, which iniparser does not understand;
 *   3. the two must agree in every section, key, value and in their number, and iniparser's values
 *      are kept. A disagreement is an error, never a silent loss.
 */
#include "conf/ini.h"

#include <errno.h>
#include <fcntl.h>
#include <iniparser/iniparser.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "conf/scan.h"

#define INI_FILE_MAX (16 * MIB)

void ini_error(FILE *errors, const char *path, unsigned line, const char *section, const char *key,
	       const char *format, ...)
{
	va_list arguments;

	fprintf(errors, "%s:", path);
	if (line)
		fprintf(errors, "%u:", line);
	if (section)
		fprintf(errors, " [%s]%s%s:", section, key ? " " : "", key ? key : "");
	fputc(' ', errors);
	va_start(arguments, format);
	vfprintf(errors, format, arguments);
	va_end(arguments);
	fputc('\n', errors);
}

const struct ini_section *ini_section_find(const struct ini *ini, const char *name)
{
	for (size_t i = 0; i < ini->section_count; i++)
		if (strcmp(ini->sections[i].name, name) == 0)
			return &ini->sections[i];
	return NULL;
}

const struct ini_key *ini_key_find(const struct ini_section *section, const char *name)
{
	for (size_t i = 0; i < section->key_count; i++)
		if (strcmp(section->keys[i].name, name) == 0)
			return &section->keys[i];
	return NULL;
}

void ini_free(struct ini *ini)
{
	if (!ini)
		return;
	for (size_t i = 0; i < ini->section_count; i++) {
		struct ini_section *section = &ini->sections[i];

		for (size_t k = 0; k < section->key_count; k++) {
			free(section->keys[k].name);
			free(section->keys[k].value);
		}
		free(section->keys);
		free(section->name);
	}
	free(ini->sections);
	free(ini->path);
	free(ini);
}

/* ---- The file ---- */

/* Reads until @room bytes are there or the file ends. Returns how many there are, or -1. */
static ssize_t read_all(int fd, char *text, size_t room)
{
	size_t length = 0;

	while (length < room) {
		ssize_t got = read(fd, text + length, room - length);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		length += (size_t)got;
	}
	return (ssize_t)length;
}

/* Says why @path is not read, and returns NULL. */
static char *cannot_read(const char *path, const char *why, FILE *errors)
{
	fprintf(errors, "cannot read '%s': %s\n", path, why);
	return NULL;
}

/* The content of the open file, *length bytes and a NUL. NULL after a line on @errors. */
static char *read_open_file(int fd, const char *path, size_t *length, FILE *errors)
{
	struct stat st;
	ssize_t got;
	char *text;

	if (fstat(fd, &st) < 0)
		return cannot_read(path, strerror(errno), errors);
	if (S_ISDIR(st.st_mode))
		return cannot_read(path, strerror(EISDIR), errors);
	if (!S_ISREG(st.st_mode))
		return cannot_read(path, "it is not a regular file", errors);
	if ((uint64_t)st.st_size > INI_FILE_MAX)
		return cannot_read(path, "it is larger than 16 MiB", errors);
	*length = (size_t)st.st_size;
	text = malloc(*length + 1);
	got = text ? read_all(fd, text, *length + 1) : -1; /* a byte more would be a change */
	if (got >= 0 && (size_t)got == *length) {
		text[*length] = '\0';
		return text;
	}
	cannot_read(path, got < 0 ? strerror(errno) : "it changed meanwhile", errors);
	free(text);
	return NULL;
}

static char *read_file(const char *path, size_t *length, FILE *errors)
{
	/* O_NONBLOCK: a FIFO shall be refused, not waited for. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char *text;

	if (fd < 0)
		return cannot_read(path, strerror(errno), errors);
	text = read_open_file(fd, path, length, errors);
	close(fd);
	return text;
}

/* ---- iniparser ---- */

/* What iniparser complained of first; it can only tell a function without arguments of ours. */
static char parser_message[300];

static int parser_complaint(const char *format, ...) PRINTF_LIKE(1, 2);

static int parser_complaint(const char *format, ...)
{
	va_list arguments;

	if (parser_message[0])
		return 0;
	va_start(arguments, format);
	vsnprintf(parser_message, sizeof(parser_message), format, arguments);
	va_end(arguments);
	for (char *c = parser_message; *c; c++)
		if (*c == '\n')
			*c = ' ';
	return 0;
}

static int write_all(int fd, const char *text, size_t length)
{
	while (length > 0) {
		ssize_t done = write(fd, text, length);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -1;
		text += done;
		length -= (size_t)done;
	}
	return 0;
}

/* Lets iniparser read @text by way of a file in memory. NULL after a line on @errors. */
static dictionary *parse(const char *path, const char *text, size_t length, FILE *errors)
{
	int fd = memfd_create("diskfs.conf", MFD_CLOEXEC);
	dictionary *parsed = NULL;
	char name[40];

	if (fd < 0 || write_all(fd, text, length) < 0) {
		ini_error(errors, path, 0, NULL, NULL, "no copy in memory: %s", strerror(errno));
	} else {
		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		parser_message[0] = '\0';
		iniparser_set_error_callback(parser_complaint);
		parsed = iniparser_load(name);
		iniparser_set_error_callback(NULL);
		if (!parsed)
			ini_error(errors, path, 0, NULL, NULL, "%s",
				  parser_message[0] ? parser_message : strerror(ENOMEM));
	}
	if (fd >= 0)
		close(fd);
	return parsed;
}

/* Takes the value of one key from iniparser, which must be the one that the scan expects. */
static int take_value(const dictionary *parsed, const struct ini_section *section,
		      struct ini_key *key)
{
	const char *value;
	char *name, *copy;

	if (asprintf(&name, "%s:%s", section->name, key->name) < 0)
		return -1;
	value = iniparser_getstring(parsed, name, NULL);
	free(name);
	if (!value || strcmp(value, key->value) != 0)
		return -1;
	copy = strdup(value);
	if (!copy)
		return -1;
	free(key->value);
	key->value = copy;
	return 0;
}

/* Compares the scan with what iniparser found. Returns -1 after a line on @errors. */
static int compare(struct ini *ini, const dictionary *parsed, FILE *errors)
{
	static const char differs[] = "the INI parser reads this differently; write it more simply";
	size_t entries = ini->section_count;

	for (size_t i = 0; i < ini->section_count; i++) {
		struct ini_section *section = &ini->sections[i];

		if (!iniparser_find_entry(parsed, section->name)) {
			ini_error(errors, ini->path, section->line, section->name, NULL, differs);
			return -1;
		}
		for (size_t k = 0; k < section->key_count; k++) {
			struct ini_key *key = &section->keys[k];

			if (take_value(parsed, section, key) < 0) {
				ini_error(errors, ini->path, key->line, section->name, key->name,
					  differs);
				return -1;
			}
		}
		entries += section->key_count;
	}
	if (parsed->n < 0 || (size_t)parsed->n != entries) {
		ini_error(errors, ini->path, 0, NULL, NULL,
			  "the INI parser finds %d entries where there are %zu", parsed->n,
			  entries);
		return -1;
	}
	return 0;
}

struct ini *ini_load(const char *path, FILE *errors)
{
	struct ini *ini = NULL;
	dictionary *parsed;
	size_t length;
	char *text = read_file(path, &length, errors);

	if (text)
		ini = ini_scan(path, text, length, errors);
	if (ini) {
		parsed = parse(path, text, length, errors);
		if (!parsed || compare(ini, parsed, errors) < 0) {
			ini_free(ini);
			ini = NULL;
		}
		iniparser_freedict(parsed);
	}
	free(text);
	return ini;
}
