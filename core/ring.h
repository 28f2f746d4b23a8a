/* SPDX-License-Identifier: MIT */
/*
 * System calls for tasks: each is queued on the worker's io_uring, suspends the task until it has
 * completed, and returns what the system call would have, with a negative errno in place of -1.
 * Short counts are the caller's to loop over; EINTR and EAGAIN do not reach it.
 */
#ifndef CORE_RING_H
#define CORE_RING_H

#include <sys/uio.h>
#include "core/util.h"

/* @rw_flags are RWF_*. At most RING_IOV_MAX iovecs. */
#define RING_IOV_MAX 1024

ssize_t ring_readv(int fd, const struct iovec *iov, unsigned count, uint64_t offset, int rw_flags);
ssize_t ring_writev(int fd, const struct iovec *iov, unsigned count, uint64_t offset, int rw_flags);
int ring_fdatasync(int fd);
int ring_fallocate(int fd, int mode, uint64_t offset, uint64_t length);
/*
 * As ioctl(BLKDISCARD) of a block device, but asynchronous (Linux 6.12); -EINVAL or -EOPNOTSUPP also
 * where the kernel does not know it.
 */
int ring_discard(int fd, uint64_t offset, uint64_t length);

#endif
