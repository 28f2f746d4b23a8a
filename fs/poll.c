// SPDX-License-Identifier: MIT
/*
 * The poll transport: works with every kernel. A worker reads requests from its non-blocking
 * descriptor of /dev/fuse until there are none, and before it sleeps it queues a one-shot poll of
 * the descriptor on its ring.
 *
 * One-shot and exclusive, rather than multishot: all descriptors of a mount share one wait queue in
 * the kernel, and a multishot poll stays in it while its worker is busy. Every request would then
 * wake every worker, or, exclusively, always the first one, however busy it is. Armed only for
 * sleep, exactly the sleeping workers are in the queue, and a request wakes one of them.
 *
 * Nothing is ever read from the descriptor through the ring: on a blocking descriptor that could
 * sleep in io_uring_enter.
 *
 * A worker does not sleep at once. To be woken costs many times what a small request does, and at a
 * depth of one it is most of the time that a request takes. So a worker whose requests come less
 * than SPIN_GAP_NS apart looks again for SPIN_NS, yielding its processor to whoever wants it, and
 * sleeps when nothing has come. A worker with little to do never spins, one that runs dry spins
 * once.
 *
 * A request and its payload live in one buffer (core/buffer.h): the struct request at its
 * beginning; the message so that the data of a WRITE begins at the page boundary BUFFER_HEADER; the
 * header of the reply just before that boundary.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "core/buffer.h"
#include "core/log.h"
#include "fs/channel.h"
#include "fs/mount.h"
#include "fs/wire.h"

/* Requests that one turn takes, so that the ring's completions are not kept waiting. */
#define TURN_REQUESTS 16

#define SPIN_NS	      (25 * NS_PER_US)
#define SPIN_GAP_NS   (50 * NS_PER_US)

_Static_assert(sizeof(struct request) <= BUFFER_HEADER - WIRE_WRITE_HEADERS,
	       "request and headers share a page");

/* ---- Descriptors. ---- */

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

/* A descriptor of the same mount with a reply queue of its own; where that cannot be had, a
 * duplicate serves. */
static int clone_fd(int session_fd)
{
	uint32_t source = (uint32_t)session_fd;
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0 && ioctl(fd, WIRE_IOC_CLONE, &source) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	fd = fcntl(session_fd, F_DUPFD_CLOEXEC, 3);
	return fd < 0 ? -errno : fd;
}

int kernel_link_open(struct kernel_link *link, int session_fd, unsigned count)
{
	int error = 0;

	for (link->fd_count = 0; !error && link->fd_count < count; link->fd_count++) {
		int fd = clone_fd(session_fd);

		if (fd < 0) {
			error = fd;
			break;
		}
		link->fds[link->fd_count] = fd;
		error = set_nonblocking(fd);
	}
	if (error)
		kernel_link_close(link);
	return error;
}

void kernel_link_close(struct kernel_link *link)
{
	while (link->fd_count > 0)
		close(link->fds[--link->fd_count]);
}

/* ---- Replies. ---- */

static struct log_limit reply_limit;

/* Writes a whole reply; returns 0 or a negative errno. */
static int write_reply(struct channel *channel, const struct iovec *iov, int count)
{
	ssize_t result;

	/* write() is the cheaper call. */
	do
		result = count == 1 ? write(channel->fd, iov->iov_base, iov->iov_len)
				    : writev(channel->fd, iov, count);
	while (result < 0 && errno == EINTR);
	/* ENODEV: the mount has gone, and nobody waits. */
	if (result >= 0 || errno == ENODEV)
		return 0;

	int error = -errno;

	/* ENOENT: the client has been killed; libfuse's caller may want to know. */
	if (error != -ENOENT)
		log_limited(&reply_limit, LOG_LEVEL_ERROR, NULL, "cannot reply to the kernel: %s",
			    strerror(-error));
	return error;
}

static void poll_reply(struct request *request, int error, size_t length)
{
	char *header = (char *)request->payload - WIRE_REPLY_HEADER;
	struct iovec iov = {header, WIRE_REPLY_HEADER + length};

	wire_reply_header(header, request, error, length);
	write_reply(request->channel, &iov, 1);
}

static int poll_reply_raw(struct request *request, const struct iovec *iov, int count)
{
	return write_reply(request->channel, iov, count);
}

static const struct request_ops poll_ops = {
	.reply = poll_reply,
	.reply_raw = poll_reply_raw,
};

/* ---- Requests. ---- */

static void request_main(void *argument)
{
	struct request *request = argument;
	struct channel *channel = request->channel;

	task_set_context(request);
	request_serve(request);
	atomic_fetch_sub_explicit(&channel->in_flight, 1, memory_order_relaxed);
	buffer_put(request);
}

static void request_start(struct channel *channel, struct request *request)
{
	if (!wire_accept(request)) {
		log_error(NULL, "the kernel sent a malformed request of %zu bytes",
			  request->length);
		buffer_put(request);
		return;
	}
	atomic_fetch_add_explicit(&channel->in_flight, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&channel->requests, 1, memory_order_relaxed);
	if (task_start(request_main, request) == 0)
		return;
	poll_reply(request, -ENOMEM, 0);
	atomic_fetch_sub_explicit(&channel->in_flight, 1, memory_order_relaxed);
	buffer_put(request);
}

/* Reads one request into a fresh buffer; NULL: there is none now. */
static struct request *request_read(struct channel *channel)
{
	char *buffer = buffer_get();

	/* Without memory requests wait in the kernel; the poll would fire at once, so this retries.
	 */
	if (!buffer)
		return NULL;

	char *message = buffer + BUFFER_HEADER - WIRE_WRITE_HEADERS;
	ssize_t length;

	/* ENOENT: the request was taken back while it was being read. */
	do
		length = read(channel->fd, message, WIRE_WRITE_HEADERS + BUFFER_PAYLOAD);
	while (length < 0 && (errno == EINTR || errno == ENOENT));
	if (length <= 0) {
		if (errno != EAGAIN) {
			channel->closed = true;
			mount_closed(channel->mount, errno);
		}
		buffer_put(buffer);
		return NULL;
	}

	struct request *request = (struct request *)(void *)buffer;

	*request = (struct request){
		.ops = &poll_ops,
		.channel = channel,
		.mount = channel->mount,
		.message = message,
		.length = (size_t)length,
		.payload = buffer + BUFFER_HEADER,
	};
	return request;
}

/* Whether to look again rather than sleep, after a turn that has taken @taken requests and found no
 * more. */
static bool poll_spin(struct channel *channel, unsigned taken)
{
	uint64_t now = now_ns();
	uint64_t gap_ns = now - channel->last_request_ns;

	if (taken > 0) {
		if (gap_ns < SPIN_GAP_NS)
			channel->spinning = true;
		channel->last_request_ns = now;
	} else if (gap_ns > SPIN_NS) {
		channel->spinning = false;
	} else {
		sched_yield();
	}
	return channel->spinning;
}

static bool poll_turn(struct worker_source *source)
{
	struct channel *channel = CONTAINER_OF(source, struct channel, source);
	unsigned taken = 0;

	if (channel->armed || channel->closed)
		return false;
	while (taken < TURN_REQUESTS) {
		struct request *request = request_read(channel);

		if (!request)
			break;
		request_start(channel, request);
		taken++;
	}
	return poll_spin(channel, taken) || taken == TURN_REQUESTS;
}

static void poll_done(struct ring_op *op, int result, unsigned flags)
{
	struct channel *channel = CONTAINER_OF(op, struct channel, poll_op);

	(void)result; /* whatever it says, the next read tells why */
	(void)flags;
	channel->armed = false;
}

static void poll_arm(struct worker_source *source)
{
	struct channel *channel = CONTAINER_OF(source, struct channel, source);

	if (channel->armed || channel->closed)
		return;

	struct io_uring_sqe *sqe = worker_sqe();

	io_uring_prep_poll_add(sqe, channel->fd, POLLIN | EPOLLEXCLUSIVE);
	io_uring_sqe_set_data(sqe, &channel->poll_op);
	channel->armed = true;
}

void channel_start(struct channel *channel, struct mount *mount, int fd)
{
	channel->source = (struct worker_source){.turn = poll_turn, .arm = poll_arm};
	channel->poll_op.done = poll_done;
	channel->mount = mount;
	channel->fd = fd;
	worker_set_source(&channel->source);
}

static void cancel_done(struct ring_op *op, int result, unsigned flags)
{
	(void)op;
	(void)result;
	(void)flags;
}

/* Cancels the poll and waits for its end, since it refers to the channel. */
void channel_stop(struct channel *channel)
{
	static struct ring_op cancel = {.done = cancel_done};

	worker_set_source(NULL);
	if (!channel->armed)
		return;

	struct io_uring_sqe *sqe = worker_sqe();

	io_uring_prep_poll_remove(sqe, (uint64_t)(uintptr_t)&channel->poll_op);
	io_uring_sqe_set_data(sqe, &cancel);
	while (channel->armed)
		task_sleep_ns(NS_PER_S / 1000);
}
