/* SPDX-License-Identifier: MIT */
/*
 * A report: a tree of named values, written once by whoever knows them and shown as indented text
 * for people or as JSON for programs. `.status`, `.status.json` and the inspect xattr are reports.
 *
 * Objects and lists nest; a value inside an object has a key, inside a list key is NULL. Running
 * out of memory is remembered and reported by report_finish(). One thread at a time.
 */
#ifndef CORE_REPORT_H
#define CORE_REPORT_H

#include <stdio.h>
#include "core/util.h"

enum report_format {
	REPORT_TEXT,
	REPORT_JSON,
};

struct report;

struct report *report_new(enum report_format format); /* NULL: no memory */

void report_object_begin(struct report *report, const char *key);
void report_object_end(struct report *report);
void report_list_begin(struct report *report, const char *key);
void report_list_end(struct report *report);

void report_string(struct report *report, const char *key, const char *value);
void report_format(struct report *report, const char *key, const char *format, ...)
	PRINTF_LIKE(3, 4);
void report_u64(struct report *report, const char *key, uint64_t value);
/* Bytes: JSON has the number, text adds "(4 GiB)". */
void report_bytes(struct report *report, const char *key, uint64_t bytes);
void report_bool(struct report *report, const char *key, bool value);

/* Writes @text as a string of JSON, for whoever makes a list that is no report. */
void json_string(FILE *out, const char *text);

/*
 * Ends the report and frees it; every object was ended. Returns the text, of *length bytes and
 * NUL-terminated, that the caller frees; NULL when memory ran out at any point.
 */
char *report_finish(struct report *report, size_t *length);

#endif
