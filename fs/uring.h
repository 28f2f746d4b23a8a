/* SPDX-License-Identifier: MIT */
/*
 * FUSE over io_uring (Linux 6.14, module parameter enable_uring of fuse): the kernel puts requests
 * into entries that a worker has handed it through its ring, and takes the reply of one and hands
 * out the next by the same command.
 *
 * The kernel has a queue for each possible CPU, and a request goes to the queue of the CPU that its
 * client runs on. Queue q belongs to worker q modulo the number of workers, which shares the work
 * with others that have none.
 */
#ifndef FS_URING_H
#define FS_URING_H

#include "core/error.h"
#include "core/util.h"

struct channel;
struct uring;

/* The kernel's queues: one for each possible CPU. */
unsigned uring_queues(void);

/*
 * Entries for @channel, of worker @index of @workers, @depth for each of its queues: as many
 * requests of one CPU are taken at once. Their memory is only taken as far as it is touched. NULL:
 * out of memory. Any thread.
 */
struct uring *uring_new(struct channel *channel, unsigned index, unsigned workers, unsigned depth);
/* NULL is allowed. After the worker's end: until then the kernel may write to the entries. */
void uring_free(struct uring *uring);

/*
 * Hands all entries to the kernel. On the channel's worker, after each of the mount has been
 * started. The kernel sends nothing before every queue of the mount has an entry. Where it refuses one it sends
 * everything by descriptor instead, which is logged.
 */
void uring_register(struct uring *uring);

/* Bytes of the entries' buffers; requests that have been served through it, and how many of them
 * came from queues of other workers. Any thread. */
uint64_t uring_bytes(const struct uring *uring);
uint64_t uring_requests(const struct uring *uring);
uint64_t uring_shared_requests(const struct uring *uring);

#endif
