// SPDX-License-Identifier: MIT
#include "backends/prwrap/state_text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER	   "diskfs reservations "
#define VERSION	   "1"
#define CHECKSUM   "checksum 0x"

#define WHAT_TO_DO "remove it to start without reservations"

/* ---- Names. ---- */

static unsigned nexus_names_find(const struct nexus_names *names, const char *name)
{
	unsigned i = 0;

	while (i < names->count && strcmp(names->names[i], name) != 0)
		i++;
	return i;
}

unsigned nexus_names_add(struct nexus_names *names, const char *name)
{
	unsigned found = nexus_names_find(names, name);

	if (found < names->count || found == NEXUS_MAX)
		return found;
	names->names[found] = strdup(name);
	if (!names->names[found])
		return NEXUS_MAX;
	return names->count++;
}

void nexus_names_free(struct nexus_names *names)
{
	for (unsigned i = 0; i < names->count; i++)
		free(names->names[i]);
	names->count = 0;
}

/* ---- Writing. ---- */

static uint32_t crc32(const char *data, size_t length)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < length; i++) {
		crc ^= (unsigned char)data[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

static void write_state(const struct reservations *reservations, const struct nexus_names *names,
			FILE *out)
{
	fprintf(out, HEADER VERSION "\npersist %s\n", reservations->persist ? "yes" : "no");
	if (!reservations->persist)
		return;
	for (unsigned i = 0; i < names->count; i++)
		if (reservations->keys[i])
			fprintf(out, "registrant 0x%016" PRIx64 " %s\n", reservations->keys[i],
				names->names[i]);
	if (reservations->type == PR_NONE)
		return;
	fprintf(out, "reservation %s", pr_type_name(reservations->type));
	if (!pr_type_is_all_registrants(reservations->type))
		fprintf(out, " %s", names->names[reservations->holder]);
	fputc('\n', out);
}

char *state_text(const struct reservations *reservations, const struct nexus_names *names,
		 size_t *length)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, length);
	bool failed;

	if (!out)
		return NULL;
	write_state(reservations, names, out);
	failed = fflush(out) != 0;
	if (!failed)
		fprintf(out, CHECKSUM "%08" PRIx32 "\n", crc32(text, *length));
	failed |= ferror(out) != 0;
	failed |= fclose(out) != 0;
	if (failed) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- Reading. ---- */

struct parser {
	const char *path;
	unsigned line; /* that is being looked at, from 1 */
	struct reservations *reservations;
	struct nexus_names *names;
	struct err *err;
};

static int fault(const struct parser *parser, const char *what)
{
	return err_set_key(parser->err, "state_file", "'%s': line %u: %s (" WHAT_TO_DO ")",
			   parser->path, parser->line, what);
}

/* Behind @prefix in @line, or NULL. */
static const char *after(const char *line, const char *prefix)
{
	size_t length = strlen(prefix);

	return strncmp(line, prefix, length) == 0 ? line + length : NULL;
}

/* @digits lower-case hexadecimal digits, and then @end. */
static bool parse_hex(const char *text, unsigned digits, char end, uint64_t *value)
{
	*value = 0;
	for (unsigned i = 0; i < digits; i++) {
		const char *all = "0123456789abcdef";
		const char *digit = text[i] ? strchr(all, text[i]) : NULL;

		if (!digit)
			return false;
		*value = *value << 4 | (uint64_t)(digit - all);
	}
	return text[digits] == end;
}

static int parse_registrant(const struct parser *parser, const char *text)
{
	const char *hex = after(text, "0x");
	unsigned before = parser->names->count, nexus;
	uint64_t key;

	if (!hex || !parse_hex(hex, 16, ' ', &key) || key == 0)
		return fault(parser, "a registrant has no valid key");
	text = hex + 17;
	if (!*text || strlen(text) > NEXUS_NAME_MAX)
		return fault(parser, "a registrant has no valid name");
	nexus = nexus_names_add(parser->names, text);
	if (nexus == NEXUS_MAX)
		return fault(parser, "there are too many registrants");
	if (nexus < before)
		return fault(parser, "a registrant is repeated");
	parser->reservations->keys[nexus] = key;
	return 0;
}

static int parse_reservation(const struct parser *parser, const char *text)
{
	struct reservations *reservations = parser->reservations;
	size_t length = strcspn(text, " ");
	char type[64];

	snprintf(type, sizeof(type), "%.*s", (int)min_u64(length, sizeof(type) - 1), text);
	text += length;
	reservations->type = pr_type_find(type);
	if (reservations->type == PR_NONE || reservations->type == PR_TYPES)
		return fault(parser, "the reservation has no valid type");
	if (pr_type_is_all_registrants(reservations->type))
		return *text || parser->names->count == 0
			       ? fault(parser, "the reservation has no valid holder")
			       : 0;
	reservations->holder = nexus_names_find(parser->names, *text ? text + 1 : text);
	if (reservations->holder == parser->names->count)
		return fault(parser, "the reservation has no valid holder");
	return 0;
}

/* A line behind the first. */
static int parse_line(const struct parser *parser, const char *line)
{
	struct reservations *reservations = parser->reservations;
	const char *text;

	if (parser->line == 2) {
		reservations->persist = strcmp(line, "persist yes") == 0;
		return reservations->persist || strcmp(line, "persist no") == 0
			       ? 0
			       : fault(parser, "it must be 'persist yes' or 'persist no'");
	}
	if (!reservations->persist || reservations->type != PR_NONE)
		return fault(parser, "nothing may follow here");
	text = after(line, "registrant ");
	if (text)
		return parse_registrant(parser, text);
	text = after(line, "reservation ");
	return text ? parse_reservation(parser, text) : fault(parser, "its first word is unknown");
}

/* Looks whether the last of @count lines is the checksum of those before it. */
static int check_sum(struct parser *parser, const char *text, const char *last, unsigned count)
{
	const char *hex = after(last, CHECKSUM);
	uint64_t stored;

	parser->line = count;
	if (!hex || !parse_hex(hex, 8, '\0', &stored))
		return fault(parser, "the last line is no checksum: the file is damaged");
	if (stored != crc32(text, (size_t)(last - text)))
		return fault(parser, "the checksum does not match: the file is damaged");
	return 0;
}

/* The first line ends at @end. */
static int check_first(const struct parser *parser, const char *text, const char *end)
{
	const char *version = after(text, HEADER);

	if (!version)
		return fault(parser, "it does not begin with '" HEADER "': it is damaged, or no "
				     "state file");
	return end - version == (ptrdiff_t)strlen(VERSION) && after(version, VERSION)
		       ? 0
		       : fault(parser, "its version is not " VERSION ": it is damaged, or of a "
				       "later diskfs");
}

/* @text ends with a newline; the newlines become ends of strings once the checksum is checked. */
static int parse_lines(struct parser *parser, char *text, size_t length)
{
	char *last = text + length - 1, *line = strchr(text, '\n') + 1;
	unsigned count = 1;

	if (check_first(parser, text, line - 1) < 0)
		return -1;
	for (const char *at = text; at < text + length - 1; at++)
		count += *at == '\n';
	*last = '\0';
	while (last > text && last[-1] != '\n')
		last--;
	if (check_sum(parser, text, last, count) < 0)
		return -1;
	for (parser->line = 2; parser->line < count; parser->line++) {
		char *end = strchr(line, '\n');

		*end = '\0';
		if (parse_line(parser, line) < 0)
			return -1;
		line = end + 1;
	}
	return count > 2 ? 0 : fault(parser, "it is too short");
}

int state_parse(const char *text, size_t length, const char *path,
		struct reservations *reservations, struct nexus_names *names, struct err *err)
{
	struct parser parser = {
		.path = path, .line = 1, .reservations = reservations, .names = names, .err = err};
	char *copy;
	int result;

	if (length == 0)
		return fault(&parser, "the file is empty");
	if (length > STATE_TEXT_MAX)
		return fault(&parser, "the file is too long to be a state file");
	if (memchr(text, '\0', length))
		return fault(&parser, "the file has bytes that are no text");
	if (text[length - 1] != '\n')
		return fault(&parser, "the file does not end with a newline: it is cut off");
	copy = strndup(text, length);
	if (!copy)
		return err_set(err, "out of memory");
	result = parse_lines(&parser, copy, length);
	free(copy);
	return result;
}
