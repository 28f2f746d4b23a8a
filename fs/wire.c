// SPDX-License-Identifier: MIT
/*
 * READ and WRITE of images take the short path of this file: no allocation, one copy.
 * INTERRUPT is declined for good, since no disk request can be interrupted. All else goes through
 * libfuse, which parses it and calls ops.c; its replies pass through here on their way out.
 *
 * Source: the kernel's include/uapi/linux/fuse.h, as the system has it; names that it may be too
 * old for are defined here.
 */
#include "fs/wire.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "core/buffer.h"
#include "core/log.h"
#include "fs/image.h"
#include "fs/mount.h"

/* Linux 6.6, protocol 7.39: shared mappings of files that are open for direct I/O. */
#define WIRE_DIRECT_IO_ALLOW_MMAP ((uint64_t)1 << 36)
/* Linux 6.2, protocol 7.38. */
#define WIRE_OPEN_PARALLEL_DIRECT_WRITES (1U << 6)
/* Linux 5.17: INIT has a second word of flags. */
#define WIRE_INIT_EXT (1U << 30)
/* Linux 6.9, protocol 7.40. INIT says how many file systems may lie below one another, counting
 * this one: 2 is the kernel's maximum. */
#define WIRE_PASSTHROUGH      ((uint64_t)1 << 37)
#define WIRE_OPEN_PASSTHROUGH (1U << 7)
#define WIRE_STACK_DEPTH      2
#define WIRE_IOC_BACKING_OPEN _IOW(229, 1, struct wire_backing_map)

/* struct fuse_backing_map */
struct wire_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};

/* Linux 6.14, protocol 7.42. */
#define WIRE_OVER_IO_URING	    ((uint64_t)1 << 41)
#define WIRE_URING_REGISTER	    1
#define WIRE_URING_COMMIT_AND_FETCH 2

/* struct fuse_uring_req_header: what an entry's headers are. */
struct wire_uring_headers {
	union {
		struct fuse_in_header in;
		struct fuse_out_header out;
		char bytes[128];
	} in_out;
	char body[128]; /* of the operation: its first argument */
	struct {
		uint64_t flags;
		uint64_t commit_id;
		uint32_t payload_size;
		uint32_t padding;
		uint64_t reserved;
	} entry;
};

/* struct fuse_uring_cmd_req: the command in an entry of the submission queue. */
struct wire_uring_command {
	uint64_t flags;
	uint64_t commit_id;
	uint16_t queue;
	uint8_t padding[6];
};

_Static_assert(WIRE_WRITE_HEADERS == sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in),
	       "the payload of a WRITE must begin where its headers end");
_Static_assert(WIRE_REPLY_HEADER == sizeof(struct fuse_out_header), "reply header");
_Static_assert(WIRE_URING_HEADERS == sizeof(struct wire_uring_headers), "headers of an entry");
_Static_assert(WIRE_URING_MESSAGE == sizeof(struct fuse_in_header) +
					     sizeof(((struct wire_uring_headers *)0)->body),
	       "longest message without data");

bool wire_accept(struct request *request)
{
	const struct fuse_in_header *header = request->message;

	if (request->length < sizeof(*header) || header->len != request->length)
		return false;
	request->unique = header->unique;
	return true;
}

void wire_reply_header(void *header, const struct request *request, int error, size_t length)
{
	struct fuse_out_header *out = header;

	out->len = (uint32_t)(sizeof(*out) + length);
	out->error = error;
	out->unique = request->unique;
}

int wire_reply_error(const void *header)
{
	return ((const struct fuse_out_header *)header)->error;
}

bool wire_uring_accept(struct request *request, const void *headers)
{
	const struct wire_uring_headers *from = headers;
	const struct fuse_in_header *in = &from->in_out.in;
	size_t data = from->entry.payload_size;

	if (data > buffer_payload() || in->len < sizeof(*in) + data ||
	    in->len - sizeof(*in) - data > sizeof(from->body))
		return false;

	size_t body = in->len - sizeof(*in) - data;
	char *message = (char *)request->payload - sizeof(*in) - body;

	memcpy(message, in, sizeof(*in));
	memcpy(message + sizeof(*in), from->body, body);
	request->message = message;
	request->length = in->len;
	request->unique = in->unique;
	return true;
}

size_t wire_uring_data(const void *headers)
{
	const struct wire_uring_headers *from = headers;

	if (from->in_out.in.opcode == FUSE_READ)
		return ((const struct fuse_read_in *)(const void *)from->body)->size;
	return from->entry.payload_size;
}

void wire_uring_reply(void *headers, const struct request *request, int error, size_t length)
{
	struct wire_uring_headers *to = headers;

	wire_reply_header(&to->in_out.out, request, error, length);
	to->entry.payload_size = (uint32_t)length;
}

static void wire_uring_command(struct io_uring_sqe *sqe, const struct wire_uring_command *command)
{
	memcpy(sqe->cmd, command, sizeof(*command));
}

void wire_uring_register(struct io_uring_sqe *sqe, int fd, const struct iovec iov[static 2],
			 uint16_t queue)
{
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd, iov, 2, 0);
	sqe->cmd_op = WIRE_URING_REGISTER;
	wire_uring_command(sqe, &(struct wire_uring_command){.queue = queue});
}

void wire_uring_commit(struct io_uring_sqe *sqe, int fd, uint16_t queue, uint64_t unique)
{
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd, NULL, 0, 0);
	sqe->cmd_op = WIRE_URING_COMMIT_AND_FETCH;
	wire_uring_command(sqe, &(struct wire_uring_command){.commit_id = unique, .queue = queue});
}

/* The body of the message, or NULL where it is shorter than @size. */
static const void *wire_body(const struct request *request, size_t size)
{
	if (request->length < sizeof(struct fuse_in_header) + size)
		return NULL;
	return (const struct fuse_in_header *)request->message + 1;
}

static void reply_error(struct request *request, int error)
{
	request->ops->reply(request, error, 0);
}

static void serve_read(struct request *request, struct image *image)
{
	const struct fuse_read_in *body = wire_body(request, sizeof(*body));
	ssize_t result = -EINVAL;

	if (body && body->size <= buffer_payload())
		result = image_read(image, request->payload, body->size, body->offset,
				    (int)body->flags, body->fh);
	if (result < 0)
		reply_error(request, (int)result);
	else
		request->ops->reply(request, 0, (size_t)result);
}

static void serve_write(struct request *request, struct image *image)
{
	const struct fuse_in_header *header = request->message;
	const struct fuse_write_in *body = wire_body(request, sizeof(*body));
	ssize_t result = -EINVAL;

	if (body && body->size == request->length - WIRE_WRITE_HEADERS) {
		bool from_cache = body->write_flags & FUSE_WRITE_CACHE;

		result = image_write(image, request->payload, body->size, body->offset,
				     (int)body->flags, body->fh, from_cache, (pid_t)header->pid);
	}
	if (result < 0) {
		reply_error(request, (int)result);
		return;
	}

	struct fuse_write_out out = {.size = (uint32_t)result};

	memcpy(request->payload, &out, sizeof(out));
	request->ops->reply(request, 0, sizeof(out));
}

static void serve_by_libfuse(struct request *request)
{
	const struct fuse_buf buffer = {.mem = request->message, .size = request->length};

	fuse_session_process_buf(request->mount->session, &buffer);
}

void request_serve(struct request *request)
{
	const struct fuse_in_header *header = request->message;
	struct image *image;

	switch (header->opcode) {
	case FUSE_INTERRUPT:
		reply_error(request, -ENOSYS); /* the kernel then stops sending them */
		return;
	case FUSE_READ:
		image = image_find(request->mount, header->nodeid);
		if (image)
			serve_read(request, image);
		else
			serve_by_libfuse(request);
		return;
	case FUSE_WRITE:
		image = image_find(request->mount, header->nodeid);
		if (image)
			serve_write(request, image);
		else
			serve_by_libfuse(request);
		return;
	default:
		serve_by_libfuse(request);
	}
}

static void complete_init(struct request *request, struct fuse_init_out *out)
{
	struct init_outcome *init = &request->mount->link.init;
	const struct fuse_init_in *in = wire_body(request, offsetof(struct fuse_init_in, unused));

	if (!in || out->major != FUSE_KERNEL_VERSION)
		return;
	if (in->flags & WIRE_INIT_EXT) {
		uint64_t wanted = WIRE_DIRECT_IO_ALLOW_MMAP |
				  (request->mount->uring_ready ? WIRE_OVER_IO_URING : 0) |
				  (request->mount->passthrough ? WIRE_PASSTHROUGH : 0);

		out->flags |= WIRE_INIT_EXT;
		out->flags2 |= in->flags2 & (uint32_t)(wanted >> 32);
		if (out->flags2 & (uint32_t)(WIRE_PASSTHROUGH >> 32))
			out->unused[0] = WIRE_STACK_DEPTH; /* max_stack_depth since 7.40 */
	}
	/* libfuse 3.14 stops at 1 MiB. The kernel lowers what is more than it allows. */
	if ((out->flags & FUSE_MAX_PAGES) && buffer_payload() > out->max_write) {
		out->max_write = (uint32_t)buffer_payload();
		out->max_pages = (uint16_t)min_u64(buffer_payload() / (size_t)sysconf(_SC_PAGESIZE),
						   UINT16_MAX);
	}
	/* An abort of the connection is told apart from an unmount. */
	out->flags |= in->flags & FUSE_ABORT_ERROR;
	init->minor = in->minor;
	init->flags = out->flags | (uint64_t)out->flags2 << 32;
	init->max_write = out->max_write;
}

/* What libfuse 3.14.0 cannot say. */
static void complete_open(const struct request *request, struct fuse_open_out *out)
{
	const struct fuse_in_header *in = request->message;
	const struct image *image = image_find(request->mount, in->nodeid);

	if (image && image->passthrough) {
		out->open_flags = WIRE_OPEN_PASSTHROUGH;
		out->padding = (uint32_t)image->backing_id; /* backing_id since 7.40 */
	} else if (out->open_flags & FOPEN_DIRECT_IO) {
		/* A kernel that does not know it ignores it. */
		out->open_flags |= WIRE_OPEN_PARALLEL_DIRECT_WRITES;
	}
}

bool wire_complete_reply(struct request *request, const struct iovec *iov, int count)
{
	const struct fuse_in_header *in = request->message;
	const struct fuse_out_header *out = iov[0].iov_base;

	if (count < 2 || iov[0].iov_len != sizeof(*out) || out->error != 0)
		return in->opcode == FUSE_INIT;
	if (in->opcode == FUSE_INIT && iov[1].iov_len == sizeof(struct fuse_init_out)) {
		complete_init(request, iov[1].iov_base);
	} else if (in->opcode == FUSE_OPEN && iov[1].iov_len == sizeof(struct fuse_open_out)) {
		complete_open(request, iov[1].iov_base);
	}
	return in->opcode == FUSE_INIT;
}

int wire_backing_open(int fuse_fd, int fd)
{
	const struct wire_backing_map map = {.fd = fd};
	int id = ioctl(fuse_fd, WIRE_IOC_BACKING_OPEN, &map);

	return id < 0 ? -errno : id;
}

static int write_notification(int fuse_fd, int code, struct iovec *iov, int count)
{
	struct fuse_out_header header = {.len = sizeof(header), .error = code};
	ssize_t result;

	iov[0] = (struct iovec){&header, sizeof(header)};
	for (int i = 1; i < count; i++)
		header.len += (uint32_t)iov[i].iov_len;
	do
		result = writev(fuse_fd, iov, count);
	while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : 0;
}

/* @offset -1: attributes alone. */
static int notify_inval(int fuse_fd, uint64_t node_id, int64_t offset)
{
	struct fuse_notify_inval_inode_out out = {.ino = node_id, .off = offset};
	struct iovec iov[] = {{NULL, 0}, {&out, sizeof(out)}};

	return write_notification(fuse_fd, FUSE_NOTIFY_INVAL_INODE, iov, 2);
}

int wire_notify_expired(int fuse_fd, uint64_t node_id)
{
	return notify_inval(fuse_fd, node_id, -1);
}

int wire_notify_dropped(int fuse_fd, uint64_t node_id, uint64_t offset)
{
	return notify_inval(fuse_fd, node_id, (int64_t)offset);
}

int wire_notify_byte(int fuse_fd, uint64_t node_id, uint64_t offset, uint8_t value)
{
	struct fuse_notify_store_out out = {.nodeid = node_id,
					    .offset = offset,
					    .size = sizeof(value)};
	struct iovec iov[] = {{NULL, 0}, {&out, sizeof(out)}, {&value, sizeof(value)}};

	return write_notification(fuse_fd, FUSE_NOTIFY_STORE, iov, 3);
}

int wire_notify_name(int fuse_fd, uint64_t folder_id, const char *name)
{
	size_t length = strlen(name);
	struct fuse_notify_inval_entry_out out = {.parent = folder_id, .namelen = (uint32_t)length};
	struct iovec iov[] = {{NULL, 0},
			      {&out, sizeof(out)},
			      {(void *)(uintptr_t)name, length + 1}};

	return write_notification(fuse_fd, FUSE_NOTIFY_INVAL_ENTRY, iov, 3);
}

bool wire_passthrough(const struct init_outcome *init)
{
	return init->flags & WIRE_PASSTHROUGH;
}

bool wire_over_io_uring(const struct init_outcome *init)
{
	return init->flags & WIRE_OVER_IO_URING;
}

const char *wire_init_flags(char text[static 200], const struct init_outcome *init)
{
	static const struct {
		uint64_t flag;
		const char *name;
	} flags[] = {
		{FUSE_ASYNC_READ, "async_read"},
		{FUSE_ASYNC_DIO, "async_direct_io"},
		{FUSE_WRITEBACK_CACHE, "writeback_cache"},
		{FUSE_PARALLEL_DIROPS, "parallel_dirops"},
		{FUSE_MAX_PAGES, "max_pages"},
		{WIRE_DIRECT_IO_ALLOW_MMAP, "direct_io_mmap"},
		{WIRE_PASSTHROUGH, "passthrough"},
		{WIRE_OVER_IO_URING, "over_io_uring"},
	};
	size_t length = 0;

	text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (init->flags & flags[i].flag)
			length += (size_t)snprintf(text + length, 200 - length, "%s%s",
						   length ? " " : "", flags[i].name);
	return text;
}
