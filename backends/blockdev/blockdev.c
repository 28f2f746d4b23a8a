// SPDX-License-Identifier: MIT
/*
 * blockdev: a disk on a block device, whole or a partition.
 *
 * The device is claimed (O_EXCL), so that nobody mounts it, or builds something on it, while it is
 * served, and what is mounted is refused. What it says of itself becomes the geometry. By default
 * requests bypass the page cache: they go to the device as they are, and the core copies what lies
 * in memory where the device cannot reach it.
 *
 * Flush is fdatasync, a flush of the device's cache. FUA is RWF_DSYNC, which the kernel makes of a
 * write that goes past the cache, or of a write and a flush. On a crash of the process nothing that
 * was acknowledged is lost; of the host, what was flushed is there, and of the rest any part may be,
 * by whole sectors of the device.
 *
 * Unmap is a discard, whose effect on the content is the device's affair: it may read as anything
 * afterwards. Zeros are written by the device where it can, and give the space back where they may.
 *
 * Errors keep what the device has said (errors.c). A device that is removed stays an error until
 * the disk is closed: its requests fail, none hangs that the kernel has let go, and the disk keeps
 * its size. One that has become smaller or larger is noticed on errors, and where
 * blockdev_check_size() is called.
 */
#include "backends/blockdev/blockdev.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/cdrom.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include "core/offload.h"
#include "core/report.h"
#include "core/ring.h"

/*
 * Discards and zeros in one call: a device may be slow at them, and nothing can end one before its
 * time. A multiple of any sector size.
 */
#define RANGE_MAX (256 * MIB)

static bool is_worth_trying(atomic_bool *way)
{
	return atomic_load_explicit(way, memory_order_relaxed);
}

static void give_up(atomic_bool *way)
{
	atomic_store_explicit(way, false, memory_order_relaxed);
}

/* ---- Data. ---- */

static int blockdev_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	struct blockdev *blockdev = disk->state;
	uint64_t begin = sector << disk_sector_shift(disk), offset = begin;
	int result = fdio_read(&blockdev->io, sg, &offset);

	return result ? blockdev_failed(disk, "read", offset, begin + sg->len - offset, result) : 0;
}

static int blockdev_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	struct blockdev *blockdev = disk->state;
	uint64_t begin = sector << disk_sector_shift(disk), offset = begin;
	int result = fdio_write(&blockdev->io, sg, &offset, flags & DISK_FUA ? RWF_DSYNC : 0);

	return result ? blockdev_failed(disk, "write", offset, begin + sg->len - offset, result)
		      : 0;
}

static int blockdev_flush(struct disk *disk)
{
	const struct blockdev *blockdev = disk->state;
	int result = fdio_flush(&blockdev->io);

	return result < 0 ? blockdev_failed(disk, "flush", 0, 0, result) : 0;
}

/* ---- Discards and zeros. ---- */

/* A call that blocks, for offload(). */
struct blockdev_call {
	int fd;
	uint64_t range[2]; /* bytes: offset, length */
	int result;
};

static void discard_job(void *argument)
{
	struct blockdev_call *call = argument;

	call->result = ioctl(call->fd, BLKDISCARD, call->range) < 0 ? -errno : 0;
}

static int discard(struct blockdev *blockdev, uint64_t offset, uint64_t length)
{
	struct blockdev_call call = {.fd = blockdev->io.fd, .range = {offset, length}};

	if (is_worth_trying(&blockdev->ring_discard)) {
		int result = ring_discard(call.fd, offset, length);

		if (result != -EINVAL && result != -EOPNOTSUPP)
			return result;
	}
	offload(discard_job, &call);
	/* The kernel does not know the other way. */
	if (call.result == 0)
		give_up(&blockdev->ring_discard);
	return call.result;
}

static int zero(struct blockdev *blockdev, uint64_t offset, uint64_t length, bool may_unmap)
{
	int fd = blockdev->io.fd, result = -EOPNOTSUPP;

	if (may_unmap && is_worth_trying(&blockdev->punch_hole)) {
		uint64_t size;

		result = ring_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
					length);
		if (result == -EOPNOTSUPP)
			give_up(&blockdev->punch_hole);
		/* What is beyond the end it passes by without a word. */
		if (result == 0 && ioctl(fd, BLKGETSIZE64, &size) == 0 && offset + length > size)
			result = -ENOSPC;
	}
	if (result == -EOPNOTSUPP && is_worth_trying(&blockdev->zero_range)) {
		result = ring_fallocate(fd, FALLOC_FL_ZERO_RANGE, offset, length);
		if (result == -EOPNOTSUPP)
			give_up(&blockdev->zero_range);
	}
	return result;
}

static int blockdev_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	uint64_t offset = sector << disk_sector_shift(disk);
	uint64_t length, rest = count << disk_sector_shift(disk);

	for (; rest > 0; offset += length, rest -= length) {
		int result;

		length = min_u64(rest, RANGE_MAX);
		result = discard(disk->state, offset, length);
		/* A device may lose the ability: then its content stays, which is as good. */
		if (result < 0 && result != -EOPNOTSUPP)
			return blockdev_failed(disk, "discard", offset, length, result);
	}
	return 0;
}

static int blockdev_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	uint64_t offset = sector << disk_sector_shift(disk);
	uint64_t length, rest = count << disk_sector_shift(disk);

	for (; rest > 0; offset += length, rest -= length) {
		int result;

		length = min_u64(rest, RANGE_MAX);
		result = zero(disk->state, offset, length, flags & DISK_MAY_UNMAP);
		if (result == -EOPNOTSUPP)
			return error_of(ERROR_UNSUPPORTED);
		if (result < 0)
			return blockdev_failed(disk, "write of zeros", offset, length, result);
	}
	return flags & DISK_FUA ? blockdev_flush(disk) : 0;
}

/* ---- Eject. ---- */

static void eject_job(void *argument)
{
	struct blockdev_call *call = argument;

	/* Whether or not its door was locked. */
	(void)ioctl(call->fd, CDROM_LOCKDOOR, 0);
	call->result = ioctl(call->fd, CDROMEJECT) < 0 ? -errno : 0;
}

static int blockdev_eject(struct disk *disk)
{
	const struct blockdev *blockdev = disk->state;
	struct blockdev_call call = {.fd = blockdev->io.fd};

	if (!blockdev->metadata.removable)
		return error_of(ERROR_UNSUPPORTED);
	offload(eject_job, &call);
	if (call.result == -ENOTTY || call.result == -EINVAL)
		return error_of(ERROR_UNSUPPORTED);
	if (call.result < 0)
		return blockdev_failed(disk, "eject", 0, 0, call.result);
	blockdev_check_size(disk);
	return 0;
}

/* ---- The rest. ---- */

static const char *state_name(const struct blockdev *blockdev)
{
	if (atomic_load(&blockdev->removed))
		return "removed";
	return atomic_load(&blockdev->size) == 0 ? "no medium" : "present";
}

static void blockdev_inspect(struct disk *disk, struct report *report)
{
	const struct blockdev_config *config = disk->config;
	const struct blockdev *blockdev = disk->state;
	const struct blockdev_metadata *metadata = &blockdev->metadata;

	report_string(report, "path", config->path);
	report_format(report, "device", "%u:%u", blockdev->major, blockdev->minor);
	report_string(report, "state", state_name(blockdev));
	report_bool(report, "direct", config->direct);
	report_bool(report, "shared", config->shared);
	report_u64(report, "partition", metadata->partition);
	report_bool(report, "rotational", metadata->rotational);
	report_bool(report, "removable", metadata->removable);
	report_string(report, "identity", metadata->identity);
	report_bool(report, "write_cache", metadata->write_cache);
	report_bool(report, "device_fua", metadata->fua);
	report_bytes(report, "discard_granularity", metadata->discard_granularity);
	report_bytes(report, "discard_max", metadata->discard_max);
	report_bytes(report, "write_zeroes_max", metadata->write_zeroes_max);
	report_u64(report, "memory_align", disk->geometry.memory_align);
	report_bytes(report, "max_transfer", disk->geometry.max_transfer);
	report_u64(report, "max_segments", disk->geometry.max_segments);
	report_u64(report, "unreachable_bytes",
		   atomic_load(&blockdev->size) % metadata->sector_size);
}

static const struct option blockdev_options[] = {
	{.name = "path",
	 .type = OPTION_PATH,
	 .offset = offsetof(struct blockdev_config, path),
	 .flags = OPTION_REQUIRED,
	 .help = "The device, as /dev/nvme0n1 or /dev/disk/by-id/..., whole or a partition"},
	{.name = "direct",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct blockdev_config, direct),
	 .fallback = "yes",
	 .help = "Bypass the host's page cache (O_DIRECT)"},
	{.name = "shared",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct blockdev_config, shared),
	 .fallback = "no",
	 .help = "Open the device even if it is mounted, or others have claimed it, and let others "
		 "do the same. For clusters with reservations, and for whoever knows better"},
	{.name = NULL},
};

const struct driver blockdev_driver = {
	.name = "blockdev",
	.summary = "a block device",
	.options = blockdev_options,
	.config_size = sizeof(struct blockdev_config),
	.state_size = sizeof(struct blockdev),
	.open = blockdev_open,
	.close = blockdev_close,
	.read = blockdev_read,
	.write = blockdev_write,
	.flush = blockdev_flush,
	.unmap = blockdev_unmap,
	.write_zeroes = blockdev_write_zeroes,
	.eject = blockdev_eject,
	.pr = &blockdev_pr_ops,
	.inspect = blockdev_inspect,
};
