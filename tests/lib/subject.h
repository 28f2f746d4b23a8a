/* SPDX-License-Identifier: MIT */
/* For tests of the client of remote objects: one that is to be tried, of an object on a server in the
 * program, over HTTP/1.1. */
#ifndef TESTS_LIB_SUBJECT_H
#define TESTS_LIB_SUBJECT_H

#include "backends/blob/client.h"
#include "tests/lib/http.h"

#define SUBJECT_LENGTH ((size_t)1024 * 1024)
#define SUBJECT_ETAG   "\"one\""

/* The object is at /o. */
extern struct http_server *subject_server;
extern const struct http_object subject_object;
extern char subject_content[SUBJECT_LENGTH];

/* Of a group of tests: the server, and 4 workers. */
int subject_set_up(void **state);
int subject_tear_down(void **state);

/* A client, with timeouts for tests. What follows is called in a task. */
struct subject {
	char url[200];
	struct credentials credentials;
	struct client_options options;
	struct blob_client *client;
	struct err err;
};

/* Of the object at @path; options may then be changed. */
void subject_init(struct subject *subject, const char *path);
/* Opens it, without rules; false, and a check fails, where that does not succeed. The caller closes the
 * client. */
bool subject_open(struct subject *subject);
/* Both, of the object. */
bool subject_ready(struct subject *subject);

/* From now on the server follows these (http.h). */
void subject_rules(const char *rules);
/* How many requests it has had. */
unsigned subject_requests(void);

/* Reads into @data, which is all ones before. */
int subject_get(struct subject *subject, void *data, uint64_t offset, size_t length);
/* Checks a read's bytes. */
bool subject_is_right(struct subject *subject, uint64_t offset, size_t length);
/* Checks the error of a read, and that it has left nothing wrong behind. */
bool subject_fails(struct subject *subject, uint64_t offset, size_t length);

#endif
