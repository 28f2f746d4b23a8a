/* SPDX-License-Identifier: MIT */
/*
 * Image formats, for the commands that make and check image files. The driver that reads a format
 * announces it (struct driver): what it is called, what can be said of a new image, and the two
 * functions.
 *
 * Both run outside of tasks, and may block. The images are files of this machine; they are locked
 * while they are looked at, so that nobody else uses them.
 */
#ifndef CORE_IMAGE_H
#define CORE_IMAGE_H

#include "conf/option.h"

/* Told from time to time how far the work is, in units of its own. */
struct image_progress {
	void (*show)(void *context, uint64_t done, uint64_t total); /* NULL: nobody wants to know */
	void *context;
};

struct image_creation {
	const char *path;
	bool replace;	     /* a file that is there already */
	const void *options; /* what struct image_ops.options fills */
	struct image_progress progress;
};

/* Something that is wrong with an image, or with one that it stands on. */
struct image_finding {
	const char *path; /* of the file that it is about */
	const char *text; /* a sentence without a stop */
	bool is_note;	  /* nothing is wrong, it is only worth knowing */
	bool is_mended;
	/* How it was mended, or would be; NULL: nothing that is safe could be done. */
	const char *remedy;
};

struct image_check {
	const char *path;
	bool repair; /* mend what can be mended without loss */
	void (*finding)(void *context, const struct image_finding *finding);
	void *context;
	struct image_progress progress;
};

enum image_verdict {
	IMAGE_FAILED = -1, /* it could not be checked, err says why */
	IMAGE_CHECKED,	   /* what was wrong has been told */
	IMAGE_FOREIGN,	   /* it is of another format */
};

struct image_ops {
	const char *name;
	const char *summary; /* one line */
	const struct option *options;
	size_t options_size; /* of the struct that they fill */
	/*
	 * Makes a new image, complete and durable when it returns 0. On -1, with a sentence in @err
	 * (err->key may name an option), there is nothing new, and what was there is as it was.
	 */
	int (*create)(const struct image_creation *creation, struct err *err);
	/*
	 * Tells all that is wrong, by @check->finding, and mends what it may. An interruption leaves
	 * an image in which at worst the same is wrong. NULL: nothing could be wrong.
	 */
	enum image_verdict (*check)(const struct image_check *check, struct err *err);
};

static inline void image_show_progress(const struct image_progress *progress, uint64_t done,
				       uint64_t total)
{
	if (progress->show)
		progress->show(progress->context, done, total);
}

#endif
