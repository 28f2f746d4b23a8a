/* SPDX-License-Identifier: MIT */
/*
 * Who may use a layer's file: one diskfs that writes to it, or several that only read it. The lock
 * is a flock() on the file itself, from before SQLite opens it until after SQLite has closed it.
 *
 * SQLite's own locks are of the sort that the process loses when it closes *any* descriptor of the
 * file. So a process that writes to a file never opens it a second time: the files that are written
 * to are known by their inodes, for the whole process.
 *
 * All of it blocks: never on a worker.
 */
#ifndef BACKENDS_SQLITE_HOLD_H
#define BACKENDS_SQLITE_HOLD_H

#include <sys/types.h>
#include "core/util.h"

enum hold_mode {
	HOLD_WRITE, /* nobody else */
	HOLD_READ,  /* nobody who writes */
	HOLD_LOOK,  /* takes no lock that keeps others away for longer than it looks */
};

struct hold {
	int fd;		 /* -1: none */
	bool is_written; /* HOLD_LOOK: somebody has it open for writing, by SQLite's own locks */
	struct written_file *written; /* HOLD_WRITE */
};

/* 0 or a negative errno; -EWOULDBLOCK: it is in use by somebody who excludes this use. */
int hold_take(struct hold *hold, const char *path, enum hold_mode mode);

/* The same for a file that the caller has just made, and that nobody else knows: takes @fd, in any
 * case. */
int hold_new(struct hold *hold, int fd);

/* May be called when nothing is held. */
void hold_release(struct hold *hold);

#endif
