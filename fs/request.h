/* SPDX-License-Identifier: MIT */
/*
 * A request of the kernel, as the rest of fs/ sees it: whichever transport brought it, here is its
 * message, and this is how it is answered. Each runs in a task of its own, on the worker where it
 * arrived, and its reply leaves from there.
 */
#ifndef FS_REQUEST_H
#define FS_REQUEST_H

#include <sys/uio.h>
#include "core/util.h"

struct channel;
struct mount;
struct request;

/* What a transport does for its requests. In the request's task. */
struct request_ops {
	/* Answers with @error (0, or a negative errno) or the first @length bytes of
	 * request->payload. */
	void (*reply)(struct request *request, int error, size_t length);
	/* Answers with a whole reply of the wire, header included; 0 or a negative errno. */
	int (*reply_raw)(struct request *request, const struct iovec *iov, int count);
	/* The request has been served; it and its memory are the transport's again. */
	void (*release)(struct request *request);
};

struct request {
	const struct request_ops *ops;
	struct channel *channel;
	struct mount *mount;
	void *message; /* header and body, as on the wire */
	size_t length;
	/*
	 * buffer_payload() bytes, at a page boundary: the data of a WRITE arrives here, that of a READ
	 * is put here. It may overlap the message.
	 */
	void *payload;
	uint64_t unique;
};

/* Serves the request: every one gets its reply, or none where the kernel expects none. */
void request_serve(struct request *request);

#endif
