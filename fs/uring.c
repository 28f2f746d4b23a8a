// SPDX-License-Identifier: MIT
/*
 * An entry is a page, and behind it the memory for the data of a request. In the page: struct entry
 * at its beginning, with the headers that the kernel reads and writes; at its end the message, put
 * together from these headers so that it and the data are in one piece, as by descriptor. The data
 * begin at a page boundary, ready for direct I/O, and are neither copied nor moved.
 *
 * An entry belongs to the kernel from its command to the completion of that, and to the worker from
 * there to the next command, which is queued when the request has been served. Entries never change
 * their worker, so that nothing here needs a lock.
 *
 * What finds no entry waits in the kernel, behind requests that may be stuck in a disk: to other
 * disks, or for `.status`. So a queue whose entries are all in use gets more, as long as there is
 * memory. The kernel takes the entry that was last used, so that what a burst has added lies idle
 * afterwards, and memory that was never touched takes none.
 */
#include "fs/uring.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "core/buffer.h"
#include "core/log.h"
#include "fs/mount.h"
#include "fs/transport.h"
#include "fs/wire.h"

/* A queue begins with few entries, and doubles them when all are in use. */
#define ENTRIES_FIRST 4
#define CHUNKS_MAX    12

struct queue {
	uint16_t number; /* the kernel's */
	unsigned entries, busy;
	unsigned chunk_count;
	struct chunk {
		char *memory;
		unsigned entries;
	} chunks[CHUNKS_MAX];
};

struct entry {
	struct request request;
	struct ring_op op;
	struct uring *uring;
	struct queue *queue;
	bool registered; /* the kernel has used it once, so it knows it */
	struct iovec iov[2];
	_Alignas(8) unsigned char headers[WIRE_URING_HEADERS];
};

_Static_assert(sizeof(struct entry) <= BUFFER_HEADER - WIRE_URING_MESSAGE,
	       "entry and message share a page");

struct uring {
	struct channel *channel;
	struct queue *queues;
	unsigned queue_count;
	unsigned entries_max;
	_Atomic unsigned entries; /* of all queues; written by its worker only, as is the next */
	_Atomic uint64_t requests;
};

/* ---- Memory. ---- */

/* How many CPUs a list of the kernel's like "0-3,8" names. */
static unsigned count_cpus(const char *list)
{
	unsigned count = 0, first, last;
	int used;

	while (sscanf(list, "%u%n", &first, &used) == 1) {
		list += used;
		last = first;
		if (sscanf(list, "-%u%n", &last, &used) == 1)
			list += used;
		count += last >= first ? last - first + 1 : 0;
		if (*list++ != ',')
			break;
	}
	return count;
}

unsigned uring_queues(void)
{
	char list[256] = "";
	FILE *file = fopen("/sys/devices/system/cpu/possible", "re");
	long configured = sysconf(_SC_NPROCESSORS_CONF);

	if (file) {
		if (!fgets(list, sizeof(list), file))
			*list = '\0';
		fclose(file);
	}

	unsigned count = count_cpus(list);

	return count > 0 ? count : configured > 0 ? (unsigned)configured : 1;
}

static void entry_done(struct ring_op *op, int result, unsigned flags);

static void entry_init(struct entry *entry, struct uring *uring, struct queue *queue)
{
	entry->op.done = entry_done;
	entry->uring = uring;
	entry->queue = queue;
	entry->iov[0] = (struct iovec){entry->headers, sizeof(entry->headers)};
	entry->iov[1] = (struct iovec){(char *)entry + BUFFER_HEADER, buffer_payload()};
}

static struct entry *chunk_entry(const struct chunk *chunk, unsigned index)
{
	return (struct entry *)(void *)(chunk->memory + index * buffer_size());
}

/* Adds memory for up to @wanted entries; returns it, or NULL where there is none. */
static const struct chunk *queue_add(struct uring *uring, struct queue *queue, unsigned wanted)
{
	unsigned entries = atomic_load_explicit(&uring->entries, memory_order_relaxed);
	struct chunk *chunk = &queue->chunks[queue->chunk_count];

	if (wanted > uring->entries_max - entries)
		wanted = uring->entries_max - entries;
	if (wanted == 0 || queue->chunk_count == CHUNKS_MAX)
		return NULL;
	chunk->memory = mmap(NULL, wanted * buffer_size(), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (chunk->memory == MAP_FAILED)
		return NULL;
	chunk->entries = wanted;
	for (unsigned i = 0; i < wanted; i++)
		entry_init(chunk_entry(chunk, i), uring, queue);
	queue->chunk_count++;
	queue->entries += wanted;
	atomic_store_explicit(&uring->entries, entries + wanted, memory_order_relaxed);
	return chunk;
}

struct uring *uring_new(unsigned index, unsigned workers, uint64_t bytes)
{
	unsigned queues = uring_queues();
	unsigned count = queues > index ? (queues - index + workers - 1) / workers : 0;
	uint64_t for_each = bytes / buffer_size() / queues;
	struct uring *uring = calloc(1, sizeof(*uring));

	if (!uring)
		return NULL;
	uring->queues = calloc(count, sizeof(*uring->queues));
	uring->entries_max = (unsigned)min_u64(for_each * count, UINT32_MAX);
	for (; uring->queues && uring->queue_count < count; uring->queue_count++) {
		struct queue *queue = &uring->queues[uring->queue_count];

		queue->number = (uint16_t)(index + uring->queue_count * workers);
		if (!queue_add(uring, queue, (unsigned)min_u64(for_each, ENTRIES_FIRST)))
			break;
	}
	if (uring->queue_count == count)
		return uring;
	uring_free(uring);
	return NULL;
}

void uring_free(struct uring *uring)
{
	if (!uring)
		return;
	for (unsigned i = 0; i < uring->queue_count; i++) {
		const struct queue *queue = &uring->queues[i];

		for (unsigned j = 0; j < queue->chunk_count; j++)
			munmap(queue->chunks[j].memory, queue->chunks[j].entries * buffer_size());
	}
	free(uring->queues);
	free(uring);
}

uint64_t uring_bytes(const struct uring *uring)
{
	return atomic_load_explicit(&uring->entries, memory_order_relaxed) *
	       (uint64_t)buffer_size();
}

uint64_t uring_requests(const struct uring *uring)
{
	return atomic_load_explicit(&uring->requests, memory_order_relaxed);
}

/* ---- Commands. ---- */

static void entry_register(struct entry *entry)
{
	struct io_uring_sqe *sqe = worker_sqe();

	wire_uring_register(sqe, entry->uring->channel->fd, entry->iov, entry->queue->number);
	io_uring_sqe_set_data(sqe, &entry->op);
}

static void chunk_register(const struct chunk *chunk)
{
	for (unsigned i = 0; i < chunk->entries; i++)
		entry_register(chunk_entry(chunk, i));
}

/* Hands the reply in the entry to the kernel, and with it the entry. */
static void entry_commit(struct entry *entry)
{
	struct io_uring_sqe *sqe = worker_sqe();

	wire_uring_commit(sqe, entry->uring->channel->fd, entry->queue->number,
			  entry->request.unique);
	io_uring_sqe_set_data(sqe, &entry->op);
}

/* ---- Replies. ---- */

static struct entry *entry_of(struct request *request)
{
	return CONTAINER_OF(request, struct entry, request);
}

static void uring_reply(struct request *request, int error, size_t length)
{
	wire_uring_reply(entry_of(request)->headers, request, error, length);
}

/* A whole reply of libfuse's: its data go where the kernel looks for them. */
static int uring_reply_raw(struct request *request, const struct iovec *iov, int count)
{
	char *payload = request->payload;
	size_t length = 0;

	for (int i = 1; i < count; i++) {
		if (iov[i].iov_len > buffer_payload() - length)
			return -EMSGSIZE;
		memmove(payload + length, iov[i].iov_base, iov[i].iov_len);
		length += iov[i].iov_len;
	}
	uring_reply(request, wire_reply_error(iov[0].iov_base), length);
	return 0;
}

static void uring_release(struct request *request)
{
	struct entry *entry = entry_of(request);

	entry->queue->busy--;
	entry_commit(entry);
}

static const struct request_ops uring_ops = {
	.reply = uring_reply,
	.reply_raw = uring_reply_raw,
	.release = uring_release,
};

/* ---- Requests. ---- */

/* One entry less for the kernel: with the last one it gets more of them. */
static void queue_take(struct uring *uring, struct queue *queue)
{
	const struct chunk *chunk;

	if (++queue->busy < queue->entries)
		return;
	chunk = queue_add(uring, queue, queue->entries);
	if (chunk)
		chunk_register(chunk);
}

static void entry_refuse(struct entry *entry, int error)
{
	uring_reply(&entry->request, error, 0);
	uring_release(&entry->request);
}

static void entry_serve(struct entry *entry)
{
	struct uring *uring = entry->uring;
	struct request *request = &entry->request;

	entry->registered = true;
	queue_take(uring, entry->queue);
	atomic_store_explicit(&uring->requests, uring_requests(uring) + 1, memory_order_relaxed);
	*request = (struct request){
		.ops = &uring_ops,
		.channel = uring->channel,
		.mount = uring->channel->mount,
		.payload = (char *)entry + BUFFER_HEADER,
	};

	if (!wire_uring_accept(request, entry->headers)) {
		log_error(NULL, "the kernel sent a malformed request by its ring");
		entry_refuse(entry, -EPROTO);
	} else if (uring->channel->stopped) {
		entry_refuse(entry, -ENOTCONN);
	} else {
		uring_reply(request, -EIO, 0); /* for the case that nobody replies */
		channel_request(uring->channel, request);
	}
}

static bool is_end(int error)
{
	return error == -ENOTCONN || error == -ECONNABORTED || error == -ECANCELED ||
	       error == -ENODEV;
}

/* The kernel gives the entry back: with a request, or with the reason why there will be none. */
static void entry_done(struct ring_op *op, int result, unsigned flags)
{
	static struct log_limit limit;
	struct entry *entry = CONTAINER_OF(op, struct entry, op);

	(void)flags;
	if (result == 0) {
		entry_serve(entry);
	} else if (is_end(result)) {
		return;
	} else if (entry->registered) {
		/* Its request is lost, but the queue must not lose the entry. */
		log_limited(&limit, LOG_LEVEL_ERROR, NULL, "cannot reply to the kernel: %s",
			    strerror(-result));
		entry->registered = false;
		entry_register(entry);
	} else {
		log_limited(&limit, LOG_LEVEL_WARNING, NULL,
			    "the kernel refuses FUSE over io_uring: %s; going on without",
			    strerror(-result));
	}
}

void uring_register(struct uring *uring, struct channel *channel)
{
	uring->channel = channel;
	for (unsigned i = 0; i < uring->queue_count; i++)
		chunk_register(&uring->queues[i].chunks[0]);
}
