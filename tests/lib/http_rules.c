// SPDX-License-Identifier: MIT
/* The rules of the HTTP server for tests: from text to struct http_rule. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/lib/http_private.h"

enum word_type {
	WORD_TEXT,   /* char[room] */
	WORD_NUMBER, /* unsigned */
	WORD_BYTES,  /* uint64_t */
	WORD_PAIR,   /* two unsigned: "N,M" */
	WORD_RANGE,  /* two uint64_t: "A-B" */
	WORD_FLAG,   /* bool */
	WORD_END,    /* enum http_end, by the word itself */
};

struct word {
	const char *name;
	enum word_type type;
	size_t offset, room;
	size_t given;	   /* of a bool that says that the word was there; 0: none */
	enum http_end end; /* of WORD_END */
};

#define AT(member) offsetof(struct http_rule, member)
#define TEXT(member)                             \
	.type = WORD_TEXT, .offset = AT(member), \
	.room = sizeof(((const struct http_rule *)NULL)->member)
#define VALUE(kind, member) .type = WORD_##kind, .offset = AT(member)
#define ENDS(how)	    .type = WORD_END, .end = HTTP_##how

static const struct word words[] = {
	{.name = "path", TEXT(path)},
	{.name = "method", TEXT(method)},
	{.name = "range", VALUE(RANGE, first), .given = AT(ranged)},
	{.name = "skip", VALUE(NUMBER, skip)},
	{.name = "times", VALUE(NUMBER, times), .given = AT(limited)},
	{.name = "chance", VALUE(NUMBER, chance)},
	{.name = "delay", VALUE(NUMBER, delay_ms)},
	{.name = "status", VALUE(NUMBER, status)},
	{.name = "location", TEXT(location)},
	{.name = "header", TEXT(header)},
	{.name = "headers", VALUE(NUMBER, headers)},
	{.name = "etag", TEXT(etag)},
	{.name = "length", TEXT(length)},
	{.name = "content-range", TEXT(content_range)},
	{.name = "content-encoding", TEXT(content_encoding)},
	{.name = "unconditional", VALUE(FLAG, unconditional)},
	{.name = "full", VALUE(FLAG, full)},
	{.name = "chunked", VALUE(FLAG, chunked)},
	{.name = "folded", VALUE(FLAG, folded)},
	{.name = "multipart", VALUE(FLAG, multipart)},
	{.name = "mangle", VALUE(NUMBER, mangle)},
	{.name = "body", VALUE(BYTES, body), .given = AT(cut)},
	{.name = "more", VALUE(BYTES, more)},
	{.name = "drip", VALUE(PAIR, drip_bytes)},
	{.name = "interim", VALUE(NUMBER, interim)},
	{.name = "garbage", VALUE(FLAG, garbage)},
	{.name = "silent", VALUE(FLAG, silent)},
	{.name = "close", ENDS(CLOSE)},
	{.name = "reset", ENDS(RESET)},
	{.name = "stall", ENDS(STALL)},
};

/* With %XX as a byte; other % stay. False if there is no room. */
static bool copy_text(char *to, size_t room, const char *from)
{
	size_t length = 0;

	for (; *from; from++) {
		char pair[3] = {0};
		char *end;

		if (length + 1 >= room)
			return false;
		to[length] = *from;
		if (*from == '%' && from[1] && from[2]) {
			unsigned long byte;

			memcpy(pair, from + 1, 2);
			byte = strtoul(pair, &end, 16);
			if (end == pair + 2) {
				to[length] = (char)byte;
				from += 2;
			}
		}
		length++;
	}
	to[length] = '\0';
	return true;
}

static bool number(const char **at, uint64_t max, uint64_t *value)
{
	char *end;

	if (**at < '0' || **at > '9')
		return false;
	errno = 0;
	*value = strtoull(*at, &end, 10);
	*at = end;
	return errno == 0 && *value <= max;
}

/* Two numbers with @divider between them. */
static bool two_numbers(const char *value, char divider, uint64_t max, uint64_t pair[2])
{
	return number(&value, max, &pair[0]) && *value++ == divider &&
	       number(&value, max, &pair[1]) && *value == '\0';
}

static bool set_number(const struct word *word, char *field, const char *value)
{
	uint64_t max = word->type == WORD_NUMBER ? UINT32_MAX : UINT64_MAX, found;
	unsigned small;

	if (!number(&value, max, &found) || *value)
		return false;
	small = (unsigned)found;
	if (word->type == WORD_NUMBER)
		memcpy(field, &small, sizeof(small));
	else
		memcpy(field, &found, sizeof(found));
	return true;
}

static bool set_two(const struct word *word, char *field, const char *value)
{
	bool is_range = word->type == WORD_RANGE;
	uint64_t pair[2];
	unsigned small[2];

	if (!two_numbers(value, is_range ? '-' : ',', is_range ? UINT64_MAX : UINT32_MAX, pair))
		return false;
	small[0] = (unsigned)pair[0];
	small[1] = (unsigned)pair[1];
	if (is_range)
		memcpy(field, pair, sizeof(pair));
	else
		memcpy(field, small, sizeof(small));
	return true;
}

static bool set_field(const struct word *word, struct http_rule *rule, const char *value)
{
	char *field = (char *)rule + word->offset;
	bool yes = true;

	if (word->given)
		memcpy((char *)rule + word->given, &yes, sizeof(yes));
	if (word->type == WORD_FLAG) {
		memcpy(field, &yes, sizeof(yes));
		return !value;
	}
	if (word->type == WORD_END) {
		rule->end = word->end;
		return !value;
	}
	if (!value)
		return false;
	if (word->type == WORD_TEXT)
		return copy_text(field, word->room, value);
	if (word->type == WORD_PAIR || word->type == WORD_RANGE)
		return set_two(word, field, value);
	return set_number(word, field, value);
}

static bool rule_word(struct http_rule *rule, const char *text, size_t length)
{
	char copy[HTTP_WORD_MAX], *value;

	if (length >= sizeof(copy))
		return false;
	memcpy(copy, text, length);
	copy[length] = '\0';
	value = strchr(copy, '=');
	if (value)
		*value++ = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(words[i].name, copy) == 0)
			return set_field(&words[i], rule, value);
	return false;
}

struct http_rule *http_rules_parse(const char *text, unsigned *count, const char **wrong)
{
	struct http_rule *rules = NULL;
	bool begun = false;

	*count = 0;
	*wrong = NULL;
	for (;;) {
		size_t length;

		text += strspn(text, " \t");
		length = strcspn(text, " \t;\n");
		if (length == 0) {
			begun = false;
			if (!*text)
				return rules;
			text++;
			continue;
		}
		if (!begun) {
			struct http_rule *more = realloc(rules, (*count + 1) * sizeof(*rules));

			if (!more)
				abort();
			rules = more;
			memset(&rules[(*count)++], 0, sizeof(*rules));
			begun = true;
		}
		if (!rule_word(&rules[*count - 1], text, length)) {
			*wrong = text;
			*count = 0;
			free(rules);
			return NULL;
		}
		text += length;
	}
}
