// SPDX-License-Identifier: MIT
#include "backends/fdio.h"
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>
#include "core/ring.h"

/* What a call that will not wait gave: a count, or a negative errno; -EAGAIN: the ring has to do
 * it. */
static ssize_t read_now(struct fdio *fdio, const struct iovec *iov, unsigned count, uint64_t offset)
{
	ssize_t result = -1;

	errno = EAGAIN;
	if (fdio->in_memory && count == 1) /* the cheaper call */
		result = pread(fdio->fd, iov->iov_base, iov->iov_len, (off_t)offset);
	else if (fdio->in_memory)
		result = preadv(fdio->fd, iov, (int)count, (off_t)offset);
	else if (atomic_load_explicit(&fdio->nowait_read, memory_order_relaxed))
		result = preadv2(fdio->fd, iov, (int)count, (off_t)offset, RWF_NOWAIT);
	if (result < 0 && errno == EOPNOTSUPP)
		atomic_store_explicit(&fdio->nowait_read, false, memory_order_relaxed);
	return result >= 0 ? result : errno == EOPNOTSUPP ? -EAGAIN : -errno;
}

static ssize_t write_now(struct fdio *fdio, const struct iovec *iov, unsigned count,
			 uint64_t offset, int rw_flags)
{
	ssize_t result = -1;

	errno = EAGAIN;
	if (fdio->in_memory && count == 1 && rw_flags == 0)
		result = pwrite(fdio->fd, iov->iov_base, iov->iov_len, (off_t)offset);
	else if (fdio->in_memory)
		result = pwritev2(fdio->fd, iov, (int)count, (off_t)offset, rw_flags);
	else if (rw_flags == 0 && atomic_load_explicit(&fdio->nowait_write, memory_order_relaxed))
		result = pwritev2(fdio->fd, iov, (int)count, (off_t)offset, RWF_NOWAIT);
	if (result < 0 && errno == EOPNOTSUPP)
		atomic_store_explicit(&fdio->nowait_write, false, memory_order_relaxed);
	return result >= 0 ? result : errno == EOPNOTSUPP ? -EAGAIN : -errno;
}

int fdio_read(struct fdio *fdio, const struct sg *sg, uint64_t *offset)
{
	struct sg rest = *sg;

	while (rest.len > 0) {
		struct iovec iov[FDIO_SEGMENTS];
		size_t bytes;
		unsigned count = sg_iovecs(&rest, iov, FDIO_SEGMENTS, &bytes);
		ssize_t result = read_now(fdio, iov, count, *offset);

		if (result == -EAGAIN || result == -EINTR)
			result = ring_readv(fdio->fd, iov, count, *offset, 0);
		if (result <= 0)
			return result == 0 ? FDIO_END : (int)result;
		rest = sg_slice(&rest, (size_t)result, rest.len - (size_t)result);
		*offset += (size_t)result;
	}
	return 0;
}

int fdio_write(struct fdio *fdio, const struct sg *sg, uint64_t *offset, int rw_flags)
{
	struct sg rest = *sg;

	while (rest.len > 0) {
		struct iovec iov[FDIO_SEGMENTS];
		size_t bytes;
		unsigned count = sg_iovecs(&rest, iov, FDIO_SEGMENTS, &bytes);
		ssize_t result = write_now(fdio, iov, count, *offset, rw_flags);

		if (result == -EAGAIN || result == -EINTR)
			result = ring_writev(fdio->fd, iov, count, *offset, rw_flags);
		if (result <= 0) /* 0: not a byte, and no reason given */
			return result == 0 ? -EIO : (int)result;
		rest = sg_slice(&rest, (size_t)result, rest.len - (size_t)result);
		*offset += (size_t)result;
	}
	return 0;
}

int fdio_flush(const struct fdio *fdio)
{
	/* In memory it has nothing to do, and need not go round by another thread. */
	if (fdio->in_memory)
		return fdatasync(fdio->fd) < 0 ? -errno : 0;
	return ring_fdatasync(fdio->fd);
}

void fdio_close(struct fdio *fdio)
{
	if (fdio->fd >= 0)
		close(fdio->fd);
	fdio->fd = -1;
}
