/* SPDX-License-Identifier: MIT */
/*
 * The kernel's wire format. wire.c is the one file that knows it.
 */
#ifndef FS_WIRE_H
#define FS_WIRE_H

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

/*
 * A reply that libfuse made, on its way out: adds what this libfuse is too old to name, and notes
 * what INIT agreed. @iov is the whole reply.
 */
void wire_complete_reply(struct request *request, const struct iovec *iov, int count);

/* The names of the INIT flags that matter here and both sides have, for `.status`; separated by
 * spaces. */
const char *wire_init_flags(char text[static 200], const struct init_outcome *init);

#endif
