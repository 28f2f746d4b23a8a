/* SPDX-License-Identifier: MIT */
/*
 * The kernel's wire format. wire.c is the one file that knows it.
 */
#ifndef FS_WIRE_H
#define FS_WIRE_H

#include <liburing.h>
#include <sys/ioctl.h>
#include "fs/channel.h"

/* Sizes that a transport has to know: the headers in front of the data of a WRITE, and of a reply's
 * data. */
#define WIRE_WRITE_HEADERS 80
#define WIRE_REPLY_HEADER  16

/* Makes a fresh descriptor of /dev/fuse another one of the mount whose descriptor is given. */
#define WIRE_IOC_CLONE _IOR(229, 0, uint32_t)

/* Fills request->unique from the message. False: this is no message at all. */
bool wire_accept(struct request *request);

/* Writes the header of a reply of @length bytes of data. */
void wire_reply_header(void *header, const struct request *request, int error, size_t length);

/* The error of a reply's header. */
int wire_reply_error(const void *header);

/* ---- FUSE over io_uring: headers and data come apart. ---- */

/* Bytes of an entry's headers; and of the longest message that is put together in front of its
 * data. */
#define WIRE_URING_HEADERS 288
#define WIRE_URING_MESSAGE (40 + 128)

/*
 * Puts the message of the request in @headers together in front of request->payload, where its data
 * already are, and fills the request's message, length and unique. False: this is no message.
 */
bool wire_uring_accept(struct request *request, const void *headers);
/* Bytes of data that the request in @headers brings or wants; for estimates, nothing is checked. */
size_t wire_uring_data(const void *headers);

/* Puts a reply with the first @length bytes of the payload into @headers. */
void wire_uring_reply(void *headers, const struct request *request, int error, size_t length);

/* Prepares the command that hands an entry to queue @queue (@iov: its headers and its payload), or
 * the reply to request @unique. */
void wire_uring_register(struct io_uring_sqe *sqe, int fd, const struct iovec iov[static 2],
			 uint16_t queue);
void wire_uring_commit(struct io_uring_sqe *sqe, int fd, uint16_t queue, uint64_t unique);

/*
 * A reply that libfuse made, on its way out: adds what this libfuse is too old to name, and notes
 * what INIT agreed. @iov is the whole reply. True: it answers INIT.
 */
bool wire_complete_reply(struct request *request, const struct iovec *iov, int count);

/*
 * Makes the open file @fd known to the kernel's side of the mount of @fuse_fd, as one that it may
 * read and write by itself. Returns its number there, more than 0 and good until the end of the
 * connection, or a negative errno.
 */
int wire_backing_open(int fuse_fd, int fd);

/*
 * Notifications about node @node_id, written to the kernel's descriptor @fuse_fd: its attributes
 * are to be asked for again; so is its data from byte @offset on, whose pages are dropped once they
 * have been written back; byte @offset, which @value is, goes into the kernel's cache, and the file is
 * at least as long. And one about a name in the folder @folder_id: it is to be looked up again, and a
 * file that nobody uses otherwise is forgotten. 0 or a negative errno: -ENOENT, the kernel does not
 * know the node or the name. Never on a worker, but for the first: the next two wait for pages that
 * are being read or written, the last for those who look up names.
 */
int wire_notify_expired(int fuse_fd, uint64_t node_id);
int wire_notify_dropped(int fuse_fd, uint64_t node_id, uint64_t offset);
int wire_notify_byte(int fuse_fd, uint64_t node_id, uint64_t offset, uint8_t value);
int wire_notify_name(int fuse_fd, uint64_t folder_id, const char *name);

/* Whether passthrough was agreed; whether requests were agreed to come over io_uring. */
bool wire_passthrough(const struct init_outcome *init);
bool wire_over_io_uring(const struct init_outcome *init);

/* The names of the INIT flags that matter here and both sides have, for `.status`; separated by
 * spaces. */
const char *wire_init_flags(char text[static 200], const struct init_outcome *init);

#endif
