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
 * A request and its payload live in one buffer (core/buffer.h): the struct poll_request at its
 * beginning; the message so that the data of a WRITE begins at the page boundary BUFFER_HEADER; the
 * header of the reply just before that boundary.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "core/buffer.h"
#include "core/log.h"
#include "fs/mount.h"
#include "fs/transport.h"
#include "fs/wire.h"

/* Requests that one turn takes, so that the ring's completions are not kept waiting. */
#define TURN_REQUESTS 16

struct poll_request {
	struct request request;
	size_t touched; /* of the buffer, from its beginning */
};

_Static_assert(sizeof(struct poll_request) <= BUFFER_HEADER - WIRE_WRITE_HEADERS,
	       "request and headers share a page");

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
	struct poll_request *polled = CONTAINER_OF(request, struct poll_request, request);
	char *header = (char *)request->payload - WIRE_REPLY_HEADER;
	struct iovec iov = {header, WIRE_REPLY_HEADER + length};

	/* How far a READ came that has failed is not known. */
	polled->touched =
		max_u64(polled->touched, BUFFER_HEADER + (error ? buffer_payload() : length));
	wire_reply_header(header, request, error, length);
	write_reply(request->channel, &iov, 1);
}

static int poll_reply_raw(struct request *request, const struct iovec *iov, int count)
{
	return write_reply(request->channel, iov, count);
}

static void poll_release(struct request *request)
{
	struct poll_request *polled = CONTAINER_OF(request, struct poll_request, request);

	buffer_put_touched(polled, polled->touched);
}

static const struct request_ops poll_ops = {
	.reply = poll_reply,
	.reply_raw = poll_reply_raw,
	.release = poll_release,
};

/* ---- Requests. ---- */

/*
 * ENOMEM, EFAULT: the memory for the buffer cannot be had. The kernel has then failed the request
 * with EIO; the next may fare better. What else fails will fail for ever.
 */
static void read_failed(struct channel *channel, int errnum)
{
	static struct log_limit limit;

	if (errnum == EAGAIN)
		return;
	if (errnum == ENOMEM || errnum == EFAULT) {
		log_limited(&limit, LOG_LEVEL_ERROR, NULL,
			    "a request of the kernel's was lost, its client gets EIO: %s",
			    errnum == ENOMEM ? "out of memory" : strerror(errnum));
		return;
	}
	channel->closed = true;
	mount_closed(channel->mount, errnum);
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
		length = read(channel->fd, message, WIRE_WRITE_HEADERS + buffer_payload());
	while (length < 0 && (errno == EINTR || errno == ENOENT));
	if (length < 0) {
		int errnum = errno;

		read_failed(channel, errnum);
		buffer_put_touched(buffer, errnum == EAGAIN ? 0 : buffer_size());
		return NULL;
	}

	struct poll_request *polled = (struct poll_request *)(void *)buffer;

	*polled = (struct poll_request){
		.request =
			{
				.ops = &poll_ops,
				.channel = channel,
				.mount = channel->mount,
				.message = message,
				.length = (size_t)length,
				.payload = buffer + BUFFER_HEADER,
			},
		.touched = BUFFER_HEADER - WIRE_WRITE_HEADERS + (size_t)length,
	};
	return &polled->request;
}

bool poll_take(struct channel *channel)
{
	if (channel->armed || channel->closed)
		return false;
	for (unsigned taken = 0; taken < TURN_REQUESTS; taken++) {
		struct request *request = request_read(channel);

		if (!request)
			return false;
		if (wire_accept(request)) {
			channel_request(channel, request);
			continue;
		}
		log_error(NULL, "the kernel sent a malformed request of %zu bytes",
			  request->length);
		poll_release(request);
	}
	return true;
}

static void poll_done(struct ring_op *op, int result, unsigned flags)
{
	struct channel *channel = CONTAINER_OF(op, struct channel, poll_op);

	(void)result; /* whatever it says, the next read tells why */
	(void)flags;
	channel->armed = false;
}

void poll_arm(struct channel *channel)
{
	if (channel->armed || channel->closed)
		return;

	struct io_uring_sqe *sqe = worker_sqe();

	channel->poll_op.done = poll_done;
	io_uring_prep_poll_add(sqe, channel->fd, POLLIN | EPOLLEXCLUSIVE);
	io_uring_sqe_set_data(sqe, &channel->poll_op);
	channel->armed = true;
}

static void cancel_done(struct ring_op *op, int result, unsigned flags)
{
	(void)op;
	(void)result;
	(void)flags;
}

void poll_disarm(struct channel *channel)
{
	static struct ring_op cancel = {.done = cancel_done};

	if (!channel->armed)
		return;

	struct io_uring_sqe *sqe = worker_sqe();

	io_uring_prep_poll_remove(sqe, (uint64_t)(uintptr_t)&channel->poll_op);
	io_uring_sqe_set_data(sqe, &cancel);
	while (channel->armed)
		task_sleep_ns(NS_PER_S / 1000);
}
