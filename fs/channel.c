// SPDX-License-Identifier: MIT
/*
 * What both transports share: descriptors, the start of a request, and the wait for the next one.
 *
 * A worker does not sleep at once. To be woken costs many times what a small request does, and at a
 * depth of one it is most of the time that a request takes. So a worker whose requests come less
 * than SPIN_GAP_NS apart looks again for SPIN_NS, yielding its processor to whoever wants it, and
 * sleeps when nothing has come. A worker with little to do never spins, one that runs dry spins
 * once. With the ring a look costs no system call.
 */
#include "fs/channel.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "fs/mount.h"
#include "fs/transport.h"
#include "fs/uring.h"
#include "fs/wire.h"

#define SPIN_NS	    (60 * NS_PER_US)
#define SPIN_GAP_NS (100 * NS_PER_US)

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

/* ---- Requests. ---- */

static void request_end(struct request *request)
{
	atomic_fetch_sub_explicit(&request->channel->in_flight, 1, memory_order_release);
	request->ops->release(request);
}

static void request_main(void *argument)
{
	struct request *request = argument;

	task_set_context(request);
	request_serve(request);
	request_end(request);
}

void channel_request(struct channel *channel, struct request *request)
{
	atomic_fetch_add_explicit(&channel->in_flight, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&channel->requests, 1, memory_order_relaxed);
	if (task_start(request_main, request) == 0)
		return;
	request->ops->reply(request, -ENOMEM, 0);
	request_end(request);
}

/* ---- The source of the worker. ---- */

/* Whether to look again rather than sleep, after a turn that has found no more requests. */
static bool channel_spin(struct channel *channel)
{
	uint64_t requests = atomic_load_explicit(&channel->requests, memory_order_relaxed);
	uint64_t now = now_ns();
	uint64_t gap_ns = now - channel->last_request_ns;

	if (requests != channel->requests_seen) {
		if (gap_ns < SPIN_GAP_NS)
			channel->spinning = true;
		channel->requests_seen = requests;
		channel->last_request_ns = now;
	} else if (gap_ns > SPIN_NS) {
		channel->spinning = false;
	} else {
		sched_yield();
	}
	return channel->spinning;
}

static bool channel_turn(struct worker_source *source)
{
	struct channel *channel = CONTAINER_OF(source, struct channel, source);
	bool more = poll_take(channel);

	/* Little comes by descriptor then, and to look for it costs a system call. */
	if (channel->uring_started && !more)
		poll_arm(channel);
	return channel_spin(channel) || more;
}

static void channel_arm(struct worker_source *source)
{
	poll_arm(CONTAINER_OF(source, struct channel, source));
}

void channel_start(struct channel *channel, struct mount *mount, int fd)
{
	channel->source = (struct worker_source){.turn = channel_turn, .arm = channel_arm};
	channel->mount = mount;
	channel->fd = fd;
	worker_set_source(&channel->source);
}

void channel_start_uring(struct channel *channel)
{
	channel->uring_started = true;
	uring_register(channel->uring);
}

void channel_stop(struct channel *channel)
{
	worker_set_source(NULL);
	channel->stopped = true;
	poll_disarm(channel);
}
