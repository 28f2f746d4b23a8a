// SPDX-License-Identifier: MIT
#include "core/ring.h"
#include <assert.h>
#include <errno.h>
#include <linux/ioctl.h>
#include "core/task.h"
#include "core/worker.h"

/* One system call of one task; on that task's stack. */
struct ring_call {
	struct ring_op op;
	struct task *task;
	int result;
};

static void ring_call_done(struct ring_op *op, int result, unsigned flags)
{
	struct ring_call *call = CONTAINER_OF(op, struct ring_call, op);

	(void)flags;
	call->result = result;
	task_wake(call->task);
}

/* Suspends the task until the prepared @sqe has completed; returns its result. */
static int ring_wait(struct io_uring_sqe *sqe)
{
	struct ring_call call = {.op.done = ring_call_done, .task = task_self()};

	io_uring_sqe_set_data(sqe, &call.op);
	task_suspend();
	return call.result;
}

/* Whether the call is to be made again; -EAGAIN means that the kernel is short of something for the
 * moment. */
static bool ring_again(int result)
{
	if (result == -EAGAIN)
		task_sleep_ns(NS_PER_S / 1000);
	return result == -EINTR || result == -EAGAIN;
}

ssize_t ring_readv(int fd, const struct iovec *iov, unsigned count, uint64_t offset, int rw_flags)
{
	int result;

	assert(count <= RING_IOV_MAX);
	do {
		struct io_uring_sqe *sqe = worker_sqe();

		io_uring_prep_readv2(sqe, fd, iov, count, offset, rw_flags);
		result = ring_wait(sqe);
	} while (ring_again(result));
	return result;
}

ssize_t ring_writev(int fd, const struct iovec *iov, unsigned count, uint64_t offset, int rw_flags)
{
	int result;

	assert(count <= RING_IOV_MAX);
	do {
		struct io_uring_sqe *sqe = worker_sqe();

		io_uring_prep_writev2(sqe, fd, iov, count, offset, rw_flags);
		result = ring_wait(sqe);
	} while (ring_again(result));
	return result;
}

int ring_fdatasync(int fd)
{
	int result;

	do {
		struct io_uring_sqe *sqe = worker_sqe();

		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		result = ring_wait(sqe);
	} while (ring_again(result));
	return result;
}

int ring_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
	int result;

	do {
		struct io_uring_sqe *sqe = worker_sqe();

		io_uring_prep_fallocate(sqe, fd, mode, (off_t)offset, (off_t)length);
		result = ring_wait(sqe);
	} while (ring_again(result));
	return result;
}

/* What linux/blkdev.h calls BLOCK_URING_CMD_DISCARD. */
#define COMMAND_DISCARD _IO(0x12, 0)

int ring_discard(int fd, uint64_t offset, uint64_t length)
{
	int result;

	do {
		struct io_uring_sqe *sqe = worker_sqe();

		io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd, NULL, 0, 0);
		sqe->cmd_op = COMMAND_DISCARD;
		sqe->addr = offset;
		sqe->addr3 = length;
		result = ring_wait(sqe);
	} while (ring_again(result));
	return result;
}
