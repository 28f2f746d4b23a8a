/* SPDX-License-Identifier: MIT */
/*
 * Buffers for requests: all of one size, page-aligned, from a pool of the worker. Getting one costs
 * nothing once the pool is warm, and its memory is only taken as far as it is touched.
 *
 * Idle buffers stay, as many as there were at once, but not all of their memory does: at most as
 * much as BUFFERS_IDLE_MAX of them have that are touched from end to end.
 *
 * On a worker; a buffer is put back on the worker where it was got.
 */
#ifndef CORE_BUFFER_H
#define CORE_BUFFER_H

#include "core/util.h"

/* A page for headers, and at least BUFFER_PAYLOAD bytes behind it. */
#define BUFFER_HEADER	 ((size_t)4096)
#define BUFFER_PAYLOAD	 ((size_t)1024 * 1024)
#define BUFFERS_IDLE_MAX 64

/* Sets the bytes behind the header, a multiple of a page, for the life of the process. Before
 * workers_start(). */
void buffers_set_payload(size_t bytes);

size_t buffer_payload(void); /* the bytes behind the header */
size_t buffer_size(void);    /* with it */

void *buffer_get(void); /* NULL: no memory */
void buffer_put(void *buffer);

/* The same for many at once that hold little: since it was got, nothing behind the first @touched
 * bytes of @buffer was touched. */
void buffer_put_touched(void *buffer, size_t touched);

#endif
