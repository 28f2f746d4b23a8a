/* SPDX-License-Identifier: MIT */
/* What the kernel says of its devices (NETLINK_KOBJECT_UEVENT). */
#ifndef CORE_UEVENT_H
#define CORE_UEVENT_H

#include <stddef.h>
#include <sys/types.h>
#include "core/util.h"

/* A non-blocking socket that hears them, or a negative errno. */
int uevent_open(void);

/*
 * Takes one message. 1: it is about block device *@device; 0: it is of no interest; -EAGAIN: there
 * is none; -ENOBUFS: some were lost; or another negative errno.
 */
int uevent_read(int fd, dev_t *device);

/* As uevent_read(), of a message of @length bytes. */
int uevent_parse(const char *message, size_t length, dev_t *device);

#endif
