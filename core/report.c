// SPDX-License-Identifier: MIT
/*
 * The text form is "key: value" lines, indented by nesting; an item of a list begins with "- ".
 * Neither form is ever parsed here.
 */
#include "core/report.h"
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

/* Far deeper than any stack of disks. */
#define DEPTH_MAX 1024

struct report {
	enum report_format format;
	FILE *out;
	char *text;
	size_t length;
	unsigned depth;
	bool is_list[DEPTH_MAX];    /* what is open at each depth */
	bool has_values[DEPTH_MAX]; /* whether it has any yet */
};

struct report *report_new(enum report_format format)
{
	struct report *report = calloc(1, sizeof(*report));

	if (!report)
		return NULL;
	report->format = format;
	report->out = open_memstream(&report->text, &report->length);
	if (!report->out) {
		free(report);
		return NULL;
	}
	if (format == REPORT_JSON)
		fputc('{', report->out);
	return report;
}

void json_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c == '"' || *c == '\\')
			fprintf(out, "\\%c", *c);
		else if (*c < 0x20)
			fprintf(out, "\\u%04x", *c);
		else
			fputc(*c, out);
	}
	fputc('"', out);
}

static void indent(struct report *report, unsigned depth)
{
	for (unsigned i = 0; i < depth; i++)
		fputs("  ", report->out);
}

/* Everything in front of a value. */
static void begin_value(struct report *report, const char *key)
{
	bool in_list = report->is_list[report->depth];
	bool first = !report->has_values[report->depth];

	assert(in_list == !key);
	report->has_values[report->depth] = true;
	if (report->format == REPORT_JSON) {
		fputs(first ? "\n" : ",\n", report->out);
		indent(report, report->depth + 1);
		if (key) {
			json_string(report->out, key);
			fputs(": ", report->out);
		}
	} else {
		indent(report, report->depth);
		fprintf(report->out, "%s%s", key ? key : "-", key ? ":" : "");
	}
}

static void nest_begin(struct report *report, const char *key, bool is_list)
{
	begin_value(report, key);
	fputc(report->format == REPORT_TEXT ? '\n' : is_list ? '[' : '{', report->out);
	report->depth++;
	assert(report->depth < DEPTH_MAX);
	report->is_list[report->depth] = is_list;
	report->has_values[report->depth] = false;
}

static void nest_end(struct report *report, bool is_list)
{
	bool empty = !report->has_values[report->depth];

	assert(report->depth > 0 && report->is_list[report->depth] == is_list);
	report->depth--;
	if (report->format == REPORT_TEXT)
		return;
	if (!empty) {
		fputc('\n', report->out);
		indent(report, report->depth + 1);
	}
	fputc(is_list ? ']' : '}', report->out);
}

void report_object_begin(struct report *report, const char *key)
{
	nest_begin(report, key, false);
}

void report_object_end(struct report *report)
{
	nest_end(report, false);
}

void report_list_begin(struct report *report, const char *key)
{
	nest_begin(report, key, true);
}

void report_list_end(struct report *report)
{
	nest_end(report, true);
}

/* A value that is no string: the same text in both forms. */
static void plain_value(struct report *report, const char *key, const char *value)
{
	begin_value(report, key);
	if (report->format == REPORT_JSON)
		fputs(value, report->out);
	else
		fprintf(report->out, " %s\n", value);
}

void report_string(struct report *report, const char *key, const char *value)
{
	begin_value(report, key);
	if (report->format == REPORT_JSON)
		json_string(report->out, value);
	else
		fprintf(report->out, " %s\n", value);
}

void report_format(struct report *report, const char *key, const char *format, ...)
{
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	report_string(report, key, text);
}

void report_u64(struct report *report, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	plain_value(report, key, text);
}

void report_bytes(struct report *report, const char *key, uint64_t bytes)
{
	char text[80], size[48];

	if (report->format == REPORT_TEXT && bytes >= KIB)
		snprintf(text, sizeof(text), "%" PRIu64 " (%s)", bytes, format_size(size, bytes));
	else
		snprintf(text, sizeof(text), "%" PRIu64, bytes);
	plain_value(report, key, text);
}

void report_bool(struct report *report, const char *key, bool value)
{
	if (report->format == REPORT_JSON)
		plain_value(report, key, value ? "true" : "false");
	else
		plain_value(report, key, value ? "yes" : "no");
}

char *report_finish(struct report *report, size_t *length)
{
	assert(report->depth == 0);
	if (report->format == REPORT_JSON)
		fputs("\n}\n", report->out);

	bool failed = ferror(report->out);

	failed |= fclose(report->out) != 0;

	char *text = report->text;

	*length = report->length;
	free(report);
	if (failed) {
		free(text);
		return NULL;
	}
	return text;
}
