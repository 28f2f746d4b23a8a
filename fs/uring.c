// SPDX-License-Identifier: MIT
/*
 * An entry is a struct entry, with the headers that the kernel reads and writes, and a buffer: a
 * page, and behind it the memory for the data of a request. At the end of the page the message is
 * put together from the headers, so that it and the data are in one piece, as by descriptor. The
 * data begin at a page boundary, ready for direct I/O, and are neither copied nor moved.
 *
 * An entry belongs to the kernel from its command to the completion of that, and to the worker from
 * there to the next command, which is queued when the request has been served. The completion comes
 * to the worker that gave the command. An entry changes its worker only with a request in it, by
 * the inbox of the other, so that nothing here needs a lock.
 *
 * What finds no entry waits in the kernel, behind requests that may be stuck in a disk: to other
 * disks, or for `.status`. The kernel looks at what waits only when a reply comes for the same
 * queue, not when it gets another entry. So each queue has all its entries from the beginning,
 * many of them. The kernel takes the one that was last used, so that few are touched if few are
 * needed, and memory that was never touched takes none.
 */
#include "fs/uring.h"
#include <errno.h>
#include <sched.h>
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

struct entry {
	struct request request;
	struct ring_op op;
	struct inbox_item item; /* on its way to another worker */
	struct uring *uring;	/* of the worker that has it */
	struct uring *home;	/* of the worker that its queue belongs to */
	unsigned window;	/* the last in which it was used away from home */
	uint16_t queue;		/* the kernel's number */
	bool registered;	/* the kernel has used it once, so it knows it */
	struct iovec iov[2];
	_Alignas(8) unsigned char headers[WIRE_URING_HEADERS];
};

_Static_assert(BUFFER_HEADER >= WIRE_URING_MESSAGE, "the message fits in front of the data");

struct uring {
	unsigned index; /* of its worker */
	struct channel *channel;
	struct entry *entries;
	size_t entry_count;
	char *buffers;		   /* one for each entry */
	_Atomic unsigned arriving; /* entries on their way to its worker */
	/* Written by its worker only. */
	_Atomic uint64_t requests, shared_requests;
	_Atomic uint64_t home_ns; /* when its own queues last brought a request */
	/* See "Sharing". */
	unsigned neighbour; /* whom it last thought of */
	unsigned window, window_requests, window_entries;
	unsigned deep; /* windows that requests from other queues are still taken to be many */
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

static void entry_init(struct uring *uring, size_t index, unsigned queue)
{
	struct entry *entry = &uring->entries[index];
	char *data = uring->buffers + index * buffer_size() + BUFFER_HEADER;

	entry->op.done = entry_done;
	entry->uring = uring;
	entry->home = uring;
	entry->queue = (uint16_t)queue;
	entry->iov[0] = (struct iovec){entry->headers, sizeof(entry->headers)};
	entry->iov[1] = (struct iovec){data, buffer_payload()};
}

struct uring *uring_new(struct channel *channel, unsigned index, unsigned workers, unsigned depth)
{
	struct uring *uring = calloc(1, sizeof(*uring));
	unsigned queues = uring_queues();
	size_t at = 0;

	if (!uring)
		return NULL;
	uring->channel = channel;
	uring->index = index;
	uring->window = 1;
	for (unsigned queue = index; queue < queues; queue += workers)
		uring->entry_count += depth;
	if (uring->entry_count == 0) /* more workers than queues */
		return uring;
	uring->entries = calloc(uring->entry_count, sizeof(*uring->entries));
	uring->buffers = mmap(NULL, uring->entry_count * buffer_size(), PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!uring->entries || uring->buffers == MAP_FAILED) {
		uring_free(uring);
		return NULL;
	}
	for (unsigned queue = index; queue < queues; queue += workers)
		for (unsigned i = 0; i < depth; i++)
			entry_init(uring, at++, queue);
	return uring;
}

void uring_free(struct uring *uring)
{
	if (!uring)
		return;
	if (uring->buffers && uring->buffers != MAP_FAILED)
		munmap(uring->buffers, uring->entry_count * buffer_size());
	free(uring->entries);
	free(uring);
}

uint64_t uring_bytes(const struct uring *uring)
{
	return uring->entry_count * (uint64_t)buffer_size();
}

uint64_t uring_requests(const struct uring *uring)
{
	return atomic_load_explicit(&uring->requests, memory_order_relaxed);
}

uint64_t uring_shared_requests(const struct uring *uring)
{
	return atomic_load_explicit(&uring->shared_requests, memory_order_relaxed);
}

/* Adds to a counter that only this worker writes. */
static void count(_Atomic uint64_t *counter, unsigned more)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more,
			      memory_order_relaxed);
}

/* ---- Commands. ---- */

static void entry_register(struct entry *entry)
{
	struct io_uring_sqe *sqe = worker_sqe();

	wire_uring_register(sqe, entry->uring->channel->fd, entry->iov, entry->queue);
	io_uring_sqe_set_data(sqe, &entry->op);
}

/* Hands the reply in the entry to the kernel, and with it the entry. */
static void entry_commit(struct entry *entry)
{
	struct io_uring_sqe *sqe = worker_sqe();

	wire_uring_commit(sqe, entry->uring->channel->fd, entry->queue, entry->request.unique);
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
	entry_commit(entry_of(request));
}

static const struct request_ops uring_ops = {
	.reply = uring_reply,
	.reply_raw = uring_reply_raw,
	.release = uring_release,
};

/* ---- Requests. ---- */

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
	count(&uring->requests, 1);
	count(&uring->shared_requests, uring != entry->home);
	*request = (struct request){
		.ops = &uring_ops,
		.channel = uring->channel,
		.mount = uring->channel->mount,
		.payload = entry->iov[1].iov_base,
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

/*
 * ---- Sharing. ----
 *
 * A request is served on the CPU where its client runs. That is the best place for it, unless the
 * client asks for many at once while another CPU has nothing to do. So a worker that is behind
 * another by SHARE_SMALL requests, or by SHARE_LARGE that carry much data, hands requests to it,
 * with their entries, and those stay there: the kernel wakes that worker for the next requests in
 * them, while the client is still asking. (2 CPUs, one client: at 4 KiB and depth 32, 1.4 times as
 * many requests, two clients: no change. At 1 MiB and depth 4, 1.8 times as many reads, 1.6 writes
 * in one comparison; 0.8 and 1.2 in another, beside other work. Two clients of such: not measured.)
 *
 * It hands an entry back with the next request in it
 *
 *	once its own queues bring requests;
 *	once the client asks for few at a time: a processor that has to be woken for each costs more
 *	than it helps. The kernel takes the entry that was last used, so that few requests at a time
 *	keep few entries busy: in each of DEEP_WINDOWS windows of WINDOW_REQUESTS requests less
 *	than DEEP_SMALL, or of large requests DEEP_LARGE. (Two entries may also take turns, where the
 *	next request comes before the first is back. Large ones may then stay, at a cost that was
 *	not measured; with a third entry asked for, the rate at depth 4 was a quarter lower in a
 *	run some minutes before.)
 */
#define LARGE_BYTES	((size_t)64 * 1024)
#define SHARE_SMALL	8
#define SHARE_LARGE	1
#define QUIET_NS	(20 * NS_PER_S / 1000)
#define WINDOW_REQUESTS 64
#define DEEP_SMALL	3
#define DEEP_LARGE	2
#define DEEP_WINDOWS	8

/* What its worker has still to begin with. */
static unsigned load_of(const struct uring *uring)
{
	return atomic_load_explicit(&uring->arriving, memory_order_relaxed) +
	       worker_backlog(uring->index);
}

/* Whether its own queues bring nothing. */
static bool is_quiet(const struct uring *uring, uint64_t now)
{
	return now - atomic_load_explicit(&uring->home_ns, memory_order_relaxed) > QUIET_NS;
}

/* Whether many requests come at once from other queues; @entry brings one, a @large one or not. */
static bool is_deep(struct uring *uring, struct entry *entry, bool large)
{
	if (entry->window != uring->window) {
		entry->window = uring->window;
		uring->window_entries++;
	}
	if (++uring->window_requests == WINDOW_REQUESTS) {
		if (uring->window_entries >= (large ? DEEP_LARGE : DEEP_SMALL))
			uring->deep = DEEP_WINDOWS;
		else if (uring->deep > 0)
			uring->deep--;
		uring->window_requests = uring->window_entries = 0;
		uring->window++;
	}
	return uring->deep > 0;
}

/* Another worker of the mount, each in turn. */
static struct uring *next_neighbour(struct uring *uring)
{
	do
		uring->neighbour = (uring->neighbour + 1) % workers_count();
	while (uring->neighbour == uring->index && workers_count() > 1);
	return uring->channel->mount->channels[uring->neighbour].uring;
}

/* Who serves the request that the entry has brought. */
static struct uring *entry_place(struct entry *entry)
{
	struct uring *uring = entry->uring, *other;
	bool large = wire_uring_data(entry->headers) >= LARGE_BYTES;
	unsigned share = large ? SHARE_LARGE : SHARE_SMALL;
	uint64_t now = now_ns();

	if (uring != entry->home)
		return is_quiet(uring, now) && is_deep(uring, entry, large) ? uring : entry->home;
	atomic_store_explicit(&uring->home_ns, now, memory_order_relaxed);
	if (load_of(uring) < share)
		return uring;
	other = next_neighbour(uring);
	return is_quiet(other, now) && load_of(other) + share <= load_of(uring) ? other : uring;
}

static void entry_arrived(struct inbox_item *item)
{
	struct entry *entry = CONTAINER_OF(item, struct entry, item);
	struct uring *uring = entry->uring;

	atomic_fetch_sub_explicit(&uring->arriving, 1, memory_order_relaxed);
	entry_serve(entry);
	atomic_fetch_sub_explicit(&uring->channel->in_flight, 1, memory_order_release);
}

/* It counts there before it arrives: for whoever asks for the load, and at the end of the mount. */
static void entry_move(struct entry *entry, struct uring *to)
{
	atomic_fetch_add_explicit(&to->channel->in_flight, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&to->arriving, 1, memory_order_relaxed);
	entry->uring = to;
	entry->item.deliver = entry_arrived;
	worker_deliver(worker_get(to->index), &entry->item);
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
		struct uring *place = entry_place(entry);

		if (place == entry->uring)
			entry_serve(entry);
		else
			entry_move(entry, place);
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
			    "the kernel refuses an entry for FUSE over io_uring: %s",
			    strerror(-result));
	}
}

/*
 * Binds the worker to the CPUs of its queues: a request wakes it on the CPU where its client runs,
 * and so does its reply the client. Left alone, the two end up on CPUs that have to be woken for
 * each other (2 CPUs, 4 KiB: bound 1.3 times as fast at depth 1, 1.7 times with two clients at
 * depth 32, 0.9 times with one).
 */
static void bind_worker(const struct uring *uring)
{
	cpu_set_t allowed, wanted;

	CPU_ZERO(&wanted);
	for (size_t i = 0; i < uring->entry_count; i++)
		CPU_SET(uring->entries[i].queue, &wanted);
	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return;
	CPU_AND(&wanted, &wanted, &allowed);
	/* Where we may not run on any of them we stay where we are. */
	if (CPU_COUNT(&wanted) > 0 && sched_setaffinity(0, sizeof(wanted), &wanted) < 0)
		log_debug(NULL, "cannot bind a worker to its CPUs: %s", strerror(errno));
}

void uring_register(struct uring *uring)
{
	bind_worker(uring);
	for (size_t i = 0; i < uring->entry_count; i++)
		entry_register(&uring->entries[i]);
}
