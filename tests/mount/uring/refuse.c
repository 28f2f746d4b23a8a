// SPDX-License-Identifier: MIT
/*
 * For LD_PRELOAD, by tests/mount/uring.sh: a ring for FUSE that cannot be set up completely.
 *
 *	REFUSE_MEMORY=n	the n-th mapping for several requests, and all after it, fail
 *	REFUSE_QUEUE=q	entries of the kernel's queue q name one that there is not; the kernel refuses
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- Memory. ---- */

/* What one request takes (BUFFER_SIZE of core/buffer.h). */
#define REQUEST_BYTES ((size_t)4096 + 1024 * 1024)

static int is_for_requests(size_t length, int flags)
{
	return (flags & MAP_ANONYMOUS) && (flags & MAP_NORESERVE) && length > REQUEST_BYTES &&
	       length % REQUEST_BYTES == 0;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	static int count;
	const char *first = getenv("REFUSE_MEMORY");

	if (first && is_for_requests(length, flags) && ++count >= atoi(first)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
	__attribute__((alias("mmap")));

/* ---- Entries of the ring. ---- */

#define REGISTER 1
#define NO_QUEUE 65000

/* The number of the queue lies behind two words in the command. */
static void spoil(struct io_uring_sqe *sqe, uint16_t refused)
{
	unsigned char *place = (unsigned char *)sqe->cmd + 16;
	uint16_t queue, no_queue = NO_QUEUE;

	memcpy(&queue, place, sizeof(queue));
	if (sqe->opcode == IORING_OP_URING_CMD && sqe->cmd_op == REGISTER && queue == refused)
		memcpy(place, &no_queue, sizeof(no_queue));
}

/* All that have not been submitted. */
static void spoil_new(struct io_uring *ring)
{
	const char *refused = getenv("REFUSE_QUEUE");
	unsigned shift = ring->flags & IORING_SETUP_SQE128 ? 1 : 0;

	for (unsigned i = ring->sq.sqe_head; refused && i != ring->sq.sqe_tail; i++)
		spoil(&ring->sq.sqes[(i & ring->sq.ring_mask) << shift], (uint16_t)atoi(refused));
}

int io_uring_submit(struct io_uring *ring)
{
	int (*next)(struct io_uring *) = dlsym(RTLD_NEXT, "io_uring_submit");

	spoil_new(ring);
	return next(ring);
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned count)
{
	int (*next)(struct io_uring *, unsigned) = dlsym(RTLD_NEXT, "io_uring_submit_and_wait");

	spoil_new(ring);
	return next(ring, count);
}

int io_uring_submit_and_get_events(struct io_uring *ring)
{
	int (*next)(struct io_uring *) = dlsym(RTLD_NEXT, "io_uring_submit_and_get_events");

	spoil_new(ring);
	return next(ring);
}
