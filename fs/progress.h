/* SPDX-License-Identifier: MIT */
/*
 * A bar on stderr for work that takes longer than a second, where stderr is a terminal. Whoever
 * works tells as often as he likes; the bar is drawn a few times a second.
 */
#ifndef FS_PROGRESS_H
#define FS_PROGRESS_H

#include "core/util.h"

struct progress {
	bool is_wanted; /* stderr is a terminal */
	bool is_shown;
	uint64_t next_ns; /* when it is drawn again */
};

void progress_begin(struct progress *progress);
/* @context is the struct progress; bytes. The type of progress callbacks in core/. */
void progress_show(void *context, uint64_t done, uint64_t total);
/* Leaves the line, so that something else can be printed; progress_show() may be called again. */
void progress_end(struct progress *progress);

#endif
