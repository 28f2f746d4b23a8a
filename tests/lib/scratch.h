/* SPDX-License-Identifier: MIT */
/*
 * Scratch files and captured output for tests. A failure here ends the test by a cmocka assertion.
 */
#ifndef TESTS_LIB_SCRATCH_H
#define TESTS_LIB_SCRATCH_H

#include <stdio.h>
#include "core/util.h"

/* Makes an empty folder in memory and makes it the working directory, so that names are short. */
void scratch_enter(void);
/* Removes it with all the files in it. */
void scratch_leave(void);

/* Of a group of tests: in such a folder, with workers (run.h). */
int scratch_enter_4_workers(void **state);
int scratch_leave_workers(void **state);

/* Writes a file of that name into the working directory. */
void scratch_write(const char *name, const void *data, size_t length);

/* A stream that collects what is printed on it. */
struct capture {
	FILE *stream;
	char *text;
	size_t length;
};

void capture_begin(struct capture *capture);
/* Ends it; capture->text is what was printed, until capture_free(). */
const char *capture_end(struct capture *capture);
void capture_free(struct capture *capture);

#endif
