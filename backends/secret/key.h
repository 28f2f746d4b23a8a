/* SPDX-License-Identifier: MIT */
/* Files with keys and passphrases, read into secrets. Blocking, not in a task. */
#ifndef BACKENDS_SECRET_KEY_H
#define BACKENDS_SECRET_KEY_H

#include "backends/secret/secret.h"
#include "core/error.h"

/* The most bytes of a file with a key or a passphrase. */
#define KEY_FILE_MAX ((size_t)64 * 1024)

/* Bytes in a secret, in which there is room for another KEY_ROOM bytes. */
#define KEY_ROOM 64

struct key {
	struct secret secret;
	unsigned char *data;
	size_t length;
};

/*
 * Reads all of the file at @path, which option @option names, into @key. Warns, under the name of
 * @node, of a file that others can read. Returns 0, or -1 with a sentence in @err.
 */
int key_read(struct key *key, const char *path, const char *option, const char *node,
	     struct err *err);

/* Cuts @key at the end of its first line: what somebody would have typed. */
void key_keep_line(struct key *key);

/*
 * Leaves a key of exactly @size bytes in @key, which is such a key already, or that in hexadecimal
 * digits, perhaps with an end of line. Returns 0, or -1 with a sentence in @err.
 */
int key_decode(struct key *key, size_t size, const char *path, struct err *err);

/* Wipes it; may be called twice. */
void key_destroy(struct key *key);

#endif
