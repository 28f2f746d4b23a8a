/* SPDX-License-Identifier: MIT */
/*
 * The way to the kernel. Each worker has a channel: a source of requests (core/worker.h) and the
 * way of their replies. A channel always has a descriptor of /dev/fuse (poll.c); where the kernel
 * agrees, requests come through the worker's ring as well (uring.c), and then the descriptor brings
 * only what the kernel sends no other way: FORGET, INTERRUPT, the end of the mount.
 *
 * Of the kernel's side of a mount, a process holds only what is in struct kernel_link: file
 * descriptors, and what INIT agreed. Node ids and file handles are numbers that mean the same to
 * any process with the same configuration. So a successor could be handed this struct and go on
 * serving.
 */
#ifndef FS_CHANNEL_H
#define FS_CHANNEL_H

#include "core/worker.h"
#include "fs/request.h"

/* What INIT agreed with the kernel. */
struct init_outcome {
	uint32_t minor;	    /* of protocol 7 */
	uint64_t flags;	    /* FUSE_* of INIT that both sides have, both words */
	uint32_t max_write; /* bytes */
};

struct kernel_link {
	int fds[WORKERS_MAX]; /* one for each worker */
	unsigned fd_count;
	struct init_outcome init; /* written once, before any other request is served */
};

struct uring;

struct channel {
	struct worker_source source;
	struct mount *mount;
	struct uring *uring; /* its entries; NULL: poll alone */
	struct ring_op poll_op;
	int fd;
	bool armed;  /* a poll is under way: nothing is read until it fires */
	bool closed; /* the kernel has ended the mount */
	bool stopped;
	bool uring_started;
	/* See channel.c. */
	bool spinning;
	uint64_t requests_seen;
	uint64_t last_request_ns;
	/* Written by its worker only. */
	_Atomic uint64_t requests;
	_Atomic unsigned in_flight;
};

/*
 * Duplicates the session's descriptor @session_fd for @count workers: clones where the kernel can,
 * so that each worker has a queue of its own for replies. Returns 0, or a negative errno, and then
 * there are none.
 */
int kernel_link_open(struct kernel_link *link, int session_fd, unsigned count);
/* Closes what is open. Closing the last descriptor of a mount aborts its connection. */
void kernel_link_close(struct kernel_link *link);

/*
 * Begins to serve on the calling worker; lets requests come through the ring (after INIT has agreed
 * to it, on every worker, or the kernel sends nothing any more); ends serving. In a task. The
 * channel must outlive the worker: entries of the ring stay with the kernel until its end, and what
 * arrives there after the stop is refused.
 */
void channel_start(struct channel *channel, struct mount *mount, int fd);
void channel_start_uring(struct channel *channel);
void channel_stop(struct channel *channel);

#endif
