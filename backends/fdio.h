/* SPDX-License-Identifier: MIT */
/*
 * Reads and writes of a descriptor whose bytes are a disk's, each at its place: a raw file, a block
 * device. A driver embeds a struct fdio, and gives errors their meaning.
 *
 * How it waits: everything goes through the worker's ring, except what will not wait. Where the
 * bytes live in memory (tmpfs), every call is made at once. Elsewhere a call through the page cache
 * is first tried with RWF_NOWAIT, which the cache answers in the same call, and goes to the ring
 * only for what is not cached. What bypasses the page cache always goes to the ring.
 *
 * Concurrent calls are independent of one another; the struct changes only in what is worth trying.
 */
#ifndef BACKENDS_FDIO_H
#define BACKENDS_FDIO_H

#include <stdatomic.h>
#include "core/sg.h"

/* Segments handed to the kernel in one call; a longer list takes several. */
#define FDIO_SEGMENTS 64

struct fdio {
	int fd;				       /* -1: none */
	bool in_memory;			       /* never waits for a device */
	atomic_bool nowait_read, nowait_write; /* worth trying RWF_NOWAIT */
};

/* What is there ends before the request does; no errno. */
#define FDIO_END 1

/*
 * Transfers all of @sg from or to byte *offset. 0, a negative errno, or, of reads, FDIO_END; then
 * *offset has advanced to the call that failed. @rw_flags are RWF_*. In a task.
 */
int fdio_read(struct fdio *fdio, const struct sg *sg, uint64_t *offset);
int fdio_write(struct fdio *fdio, const struct sg *sg, uint64_t *offset, int rw_flags);

/* Makes what has been written durable: 0 or a negative errno. In a task. */
int fdio_flush(const struct fdio *fdio);

/* Closes it if it is open. */
void fdio_close(struct fdio *fdio);

#endif
