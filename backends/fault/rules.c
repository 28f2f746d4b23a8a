// SPDX-License-Identifier: MIT
#include "backends/fault/rules.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "conf/option.h"

/* @text as a value of @type: 0 or -1. */
static int parse_number(const char *text, enum option_type type, uint64_t *value, struct err *err)
{
	const struct option option = {.name = "rules", .type = type};

	return option_parse(&option, text, NULL, value, err);
}

static int parse_operations(char *text, struct rule *rule, struct err *err)
{
	static const struct {
		const char *name;
		unsigned operations;
	} names[] = {
		{"read", 1U << STATS_READ},	      {"write", 1U << STATS_WRITE},
		{"flush", 1U << STATS_FLUSH},	      {"unmap", 1U << STATS_UNMAP},
		{"zeroes", 1U << STATS_WRITE_ZEROES}, {"any", (1U << STATS_OPS) - 1},
	};
	char *name;

	while ((name = strsep(&text, "+"))) {
		size_t i = 0;

		while (i < ARRAY_SIZE(names) && strcmp(names[i].name, name) != 0)
			i++;
		if (i == ARRAY_SIZE(names))
			return err_set_key(err, "rules",
					   "'%s' is no operation: write read, write, flush, unmap, "
					   "zeroes or any, joined by +",
					   name);
		rule->operations |= names[i].operations;
	}
	return 0;
}

static int parse_kind(const char *text, struct rule *rule, struct err *err)
{
	const struct {
		const char *name;
		int error;
	} kinds[] = {
		{"medium-read", error_medium(EIO, MEDIUM_UNRECOVERED_READ)},
		{"medium-write", error_medium(EIO, MEDIUM_WRITE_FAULT)},
		{"illegal-block", error_of(ERROR_ILLEGAL_BLOCK)},
		{"invalid-input", error_of(ERROR_INVALID_INPUT)},
		{"read-only", error_of(ERROR_READ_ONLY)},
		{"conflict", error_of(ERROR_RESERVATION_CONFLICT)},
		{"aborted", error_of(ERROR_ABORTED)},
		{"unsupported", error_of(ERROR_UNSUPPORTED)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (strcmp(kinds[i].name, text) != 0)
			continue;
		rule->error = kinds[i].error;
		return 0;
	}
	for (int errnum = 1; errnum < 256; errnum++) {
		const char *name = strerrorname_np(errnum);

		if (!name || strcmp(name, text) != 0)
			continue;
		rule->error = error_io(errnum);
		return 0;
	}
	return err_set_key(err, "rules", "'%s' is no kind of error", text);
}

static int parse_action(char *word, struct rule *rule, struct err *err)
{
	const char *name = strsep(&word, "=");

	if (strcmp(name, "error") == 0) {
		rule->action = ACTION_ERROR;
		return parse_kind(word ? word : "EIO", rule, err);
	}
	if (strcmp(name, "tear") == 0 || strcmp(name, "short") == 0) {
		rule->action = *name == 't' ? ACTION_TEAR : ACTION_SHORT;
		rule->bytes = UINT64_MAX;
		return word ? parse_number(word, OPTION_SIZE, &rule->bytes, err) : 0;
	}
	if (strcmp(name, "delay") == 0 && word) {
		rule->action = ACTION_DELAY;
		return parse_number(word, OPTION_DURATION, &rule->delay_ns, err);
	}
	if (!word && (strcmp(name, "drop") == 0 || strcmp(name, "hang") == 0)) {
		rule->action = *name == 'd' ? ACTION_DROP : ACTION_HANG;
		return 0;
	}
	return err_set_key(err, "rules",
			   "'%s' is no action: write error[=KIND], tear[=BYTES], short[=BYTES], "
			   "drop, delay=TIME or hang",
			   name);
}

static int parse_range(char *text, struct rule *rule, struct err *err)
{
	const char *start = strsep(&text, "-");

	if (!text)
		return err_set_key(err, "rules", "'range=%s' has no end: write range=A-B", start);
	if (parse_number(start, OPTION_SIZE, &rule->start, err) < 0 ||
	    parse_number(text, OPTION_SIZE, &rule->end, err) < 0)
		return -1;
	if (rule->start >= rule->end)
		return err_set_key(err, "rules", "'range=%s-%s' is empty", start, text);
	rule->has_range = true;
	return 0;
}

static int parse_chance(const char *text, struct rule *rule, struct err *err)
{
	char *end;

	rule->chance = strtod(text, &end);
	if (end != text && strcmp(end, "%") == 0)
		end++;
	if (end == text || *end || !(rule->chance >= 0 && rule->chance <= 100))
		return err_set_key(err, "rules", "'%s' is no chance: write 0 to 100 percent", text);
	return 0;
}

static int parse_condition(char *word, struct rule *rule, struct err *err)
{
	const char *name = strsep(&word, "=");

	if (word && strcmp(name, "range") == 0)
		return parse_range(word, rule, err);
	if (word && strcmp(name, "after") == 0)
		return parse_number(word, OPTION_U64, &rule->after, err);
	if (word && strcmp(name, "count") == 0)
		return parse_number(word, OPTION_U64, &rule->count, err);
	if (word && strcmp(name, "chance") == 0)
		return parse_chance(word, rule, err);
	return err_set_key(err, "rules",
			   "'%s' is no condition: write range=A-B, after=N, count=N or chance=P",
			   name);
}

static int parse_rule(const char *text, struct rule *rule, struct err *err)
{
	char words[sizeof(rule->text)];
	char *rest = words;
	char *word;
	unsigned position = 0;
	int result = 0;

	*rule = (struct rule){.count = UINT64_MAX, .chance = 100};
	if (strlen(text) >= sizeof(words))
		return err_set_key(err, "rules", "a rule is longer than %zu bytes",
				   sizeof(words) - 1);
	strcpy(rule->text, text);
	strcpy(words, text);
	while (result == 0 && (word = strsep(&rest, " \t"))) {
		if (!*word)
			continue;
		if (position == 0)
			result = parse_operations(word, rule, err);
		else if (position == 1)
			result = parse_action(word, rule, err);
		else
			result = parse_condition(word, rule, err);
		position++;
	}
	if (result == 0 && rule->action == ACTION_NONE)
		return err_set_key(err, "rules", "the rule '%s' has no action", text);
	return result;
}

int rules_parse(const char *text, struct rules *rules, struct err *err)
{
	char *copy = strdup(text ? text : "");
	char *rest = copy;
	char *item;
	int result = 0;

	rules->count = 0;
	if (!copy)
		return err_set(err, "out of memory");
	while (result == 0 && (item = strsep(&rest, ","))) {
		item += strspn(item, " \t");
		if (!*item)
			continue;
		if (rules->count == RULES_MAX)
			result = err_set_key(err, "rules", "more than %d rules", RULES_MAX);
		else
			result = parse_rule(item, &rules->rules[rules->count++], err);
	}
	free(copy);
	return result;
}
