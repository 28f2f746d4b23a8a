/* SPDX-License-Identifier: MIT */
/*
 * Files of images, for what is done to them as a whole: making and checking (core/image.h). Plain
 * blocking calls, outside of tasks.
 */
#ifndef BACKENDS_IMAGE_IMAGE_FILE_H
#define BACKENDS_IMAGE_IMAGE_FILE_H

#include <time.h>
#include "core/image.h"

/* An open file; messages call it by its path. */
struct image_file {
	const char *path;
	int fd;
	uint64_t size;		 /* bytes */
	bool is_device;		 /* its size cannot be changed */
	struct timespec changed; /* as found */
};

/*
 * Opens an existing image, a regular file or a block device, and locks it against other users: all
 * of them if @writable, else those who write. 0, or -1 with a sentence in @err.
 */
int image_file_open(struct image_file *file, const char *path, bool writable, struct err *err);
/* The same without a lock, for a look at something that belongs to somebody else. */
int image_file_peek(struct image_file *file, const char *path, struct err *err);
void image_file_close(struct image_file *file);

/* All of it, or -1 with a sentence in @err. A write may make the file longer. */
int image_file_read(const struct image_file *file, void *data, size_t length, uint64_t offset,
		    struct err *err);
int image_file_write(struct image_file *file, const void *data, size_t length, uint64_t offset,
		     struct err *err);
/* Where, from @offset on and before @end, there may be something else than a hole; @end: nowhere. */
uint64_t image_file_find_data(const struct image_file *file, uint64_t offset, uint64_t end);
/* Makes it shorter, or longer by a hole. Not for block devices. */
int image_file_resize(struct image_file *file, uint64_t size, struct err *err);
/* Takes space for the first @size bytes, which are behind the end: zeros. */
int image_file_allocate(struct image_file *file, uint64_t size,
			const struct image_progress *progress, struct err *err);
/* Gives the file back the time of its last change that it had when it was opened: what was changed is
 * nothing that anybody would call its content. */
int image_file_keep_time(const struct image_file *file, struct err *err);
/* What was written is durable. */
int image_file_sync(const struct image_file *file, struct err *err);

/*
 * Makes a file that appears under its path in one moment, complete and durable, once @fill has
 * written it; where anything fails there is nothing new. A file that is there already stays, and is
 * an error, unless @creation says that it is to be replaced, and nobody uses it.
 *
 * A crash leaves nothing behind either, except on file systems without nameless files (O_TMPFILE),
 * where it may leave "PATH.new.PID".
 */
int image_file_create(const struct image_creation *creation,
		      int (*fill)(struct image_file *file, const struct image_creation *creation,
				  void *context, struct err *err),
		      void *context, struct err *err);

#endif
