/* SPDX-License-Identifier: MIT */
/*
 * A small file that is replaced as a whole: at any moment, also after a crash or a loss of power,
 * its path leads to what was last written, or to what was written before. Who has it open holds a
 * lock (flock) on the file that the path leads to, so nobody else opens it meanwhile.
 *
 * All of it blocks: never on a worker (core/offload.h).
 */
#ifndef BACKENDS_PRWRAP_STATE_FILE_H
#define BACKENDS_PRWRAP_STATE_FILE_H

#include "core/error.h"

struct state_file {
	const char *path; /* the caller's */
	int fd;		  /* of what the path leads to, locked; -1: not open */
};

/*
 * Opens @path and reads it into *text, of *length bytes, to be freed; a file of more than @max
 * bytes is refused. Where there is none, *text becomes NULL, and the file comes into being with the
 * first state_file_write(), for which its folder must be there. @check: only reads, without a lock.
 * -1 with a sentence in @err.
 */
int state_file_open(struct state_file *file, const char *path, bool check, size_t max, char **text,
		    size_t *length, struct err *err);

/*
 * Replaces the content. 0 or a negative errno: then the content is most likely the old one; it is
 * the new one if only the last step failed, which makes the exchange durable.
 */
int state_file_write(struct state_file *file, const char *text, size_t length);

/* May be called when it is not open. */
void state_file_close(struct state_file *file);

#endif
