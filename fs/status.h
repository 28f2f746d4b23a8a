/* SPDX-License-Identifier: MIT */
/*
 * The status files of the root: `.status`, `.status.json`, `.metrics`. Their text is made at open,
 * so that one reader sees one state, and kept until the file is closed.
 */
#ifndef FS_STATUS_H
#define FS_STATUS_H

#include <pthread.h>
#include <sys/types.h>
#include "core/util.h"

struct mount;

enum status_file { STATUS_TEXT, STATUS_JSON, STATUS_METRICS, STATUS_FILES };

/* The texts that are open now. */
struct status_files {
	pthread_mutex_t mutex;
	struct status_text *open;
	uint64_t next_handle;
};

void status_files_init(struct status_files *files);
void status_files_destroy(struct status_files *files);

const char *status_file_name(enum status_file file);

/* Makes the text; 0 and its handle, or a negative errno. In a task. */
int status_open(struct mount *mount, enum status_file file, uint64_t *handle);
/* A part of the text into @data; bytes, 0 at its end; -ESTALE for a handle that is not open here.
 */
ssize_t status_read(struct mount *mount, uint64_t handle, void *data, size_t size, uint64_t offset);
void status_close(struct mount *mount, uint64_t handle);

/* The stack of one image as JSON, to be freed; NULL: no memory. In a task. */
struct image;
char *status_inspect(struct image *image, size_t *length);

/* The metrics of all images as Prometheus text, to be freed; NULL: no memory. (metrics.c) Any
 * thread. */
char *metrics_text(struct mount *mount, size_t *length);

#endif
