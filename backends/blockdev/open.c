// SPDX-License-Identifier: MIT
/*
 * Opens the device, claims it, refuses what cannot be served as a disk, and makes a geometry of what
 * it says of itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include "backends/blockdev/blockdev.h"
#include "backends/lock.h"
#include "core/offload.h"

/* ---- The descriptor. ---- */

/* The sentence for a device that does not open. */
static int open_failed(struct disk *disk, int errnum, struct err *err)
{
	const struct blockdev_config *config = disk->config;
	const struct blockdev *blockdev = disk->state;
	char who[300];

	if (errnum == EBUSY)
		return err_set_key(err, "path", "'%s' is in use: %s%s", config->path,
				   claim_find(blockdev->sysfs, who, sizeof(who))
					   ? who
					   : "another program has claimed it for itself",
				   config->shared ? "" : " (shared = yes opens it all the same)");
	if ((errnum == EACCES || errnum == EROFS || errnum == EPERM) &&
	    sysfs_number(blockdev->sysfs, "ro"))
		return err_set_key(err, "path", "'%s' is read-only: set readonly = yes",
				   config->path);
	return err_set_key(err, "path", "cannot open '%s': %s", config->path, strerror(errnum));
}

/* Nothing but a block device is ever opened: that might wait, or do something. */
static int find_device(struct disk *disk, struct err *err)
{
	const struct blockdev_config *config = disk->config;
	struct blockdev *blockdev = disk->state;
	struct stat stat_buffer;

	if (stat(config->path, &stat_buffer) < 0)
		return err_set_key(err, "path", "cannot open '%s': %s", config->path,
				   strerror(errno));
	if (!S_ISBLK(stat_buffer.st_mode))
		return err_set_key(err, "path", "'%s' is no block device%s", config->path,
				   S_ISREG(stat_buffer.st_mode) ? ": driver = file serves files"
								: "");
	blockdev->major = major(stat_buffer.st_rdev);
	blockdev->minor = minor(stat_buffer.st_rdev);
	snprintf(blockdev->sysfs, sizeof(blockdev->sysfs), "/sys/dev/block/%u:%u", blockdev->major,
		 blockdev->minor);
	return 0;
}

static int open_device(struct disk *disk, struct err *err)
{
	const struct blockdev_config *config = disk->config;
	struct blockdev *blockdev = disk->state;
	bool check = disk->open_flags & DISK_OPEN_CHECK;
	bool read_only = check || (disk->open_flags & DISK_OPEN_READ_ONLY);
	int flags = (read_only ? O_RDONLY : O_RDWR) | (config->direct ? O_DIRECT : 0) |
		    (config->shared || check ? 0 : O_EXCL) | O_CLOEXEC;

	if (find_device(disk, err) < 0)
		return -1;
	blockdev->io.fd = open(config->path, flags);
	return blockdev->io.fd < 0 ? open_failed(disk, errno, err) : 0;
}

/* QEMU claims no device, but it locks those that it uses. */
static int lock_device(struct disk *disk, struct err *err)
{
	const struct blockdev_config *config = disk->config;
	const struct blockdev *blockdev = disk->state;
	int error;

	if (config->shared || (disk->open_flags & DISK_OPEN_CHECK))
		return 0;
	error = lock_as_qemu(blockdev->io.fd, !(disk->open_flags & DISK_OPEN_READ_ONLY));
	if (error == EAGAIN)
		return err_set_key(err, "path",
				   "'%s' is in use by another program, perhaps QEMU (shared = yes "
				   "opens it all the same)",
				   config->path);
	if (error)
		return err_set_key(err, "path", "cannot lock '%s': %s", config->path,
				   strerror(error));
	return 0;
}

/* ---- What it is. ---- */

/* Refuses what would not be served correctly. */
static int check_device(struct disk *disk, struct err *err)
{
	const struct blockdev_config *config = disk->config;
	const struct blockdev *blockdev = disk->state;
	const struct blockdev_metadata *metadata = &blockdev->metadata;

	if (metadata->is_zoned)
		return err_set_key(
			err, "path",
			"'%s' is a zoned device: its zones are written from the beginning "
			"to the end, which no user of a disk does",
			config->path);
	if (metadata->size == 0)
		return err_set_key(err, "path",
				   "'%s' has no medium, or nothing stands behind it: its size is 0",
				   config->path);
	if (metadata->size < metadata->sector_size)
		return err_set_key(err, "path", "'%s' is smaller than one sector of %u bytes",
				   config->path, metadata->sector_size);
	/* As the opening for writing would have said. */
	if (metadata->read_only && !(disk->open_flags & DISK_OPEN_READ_ONLY))
		return err_set_key(err, "path", "'%s' is read-only: set readonly = yes",
				   config->path);
	return 0;
}

static void fill_geometry(struct disk *disk)
{
	const struct blockdev_config *config = disk->config;
	const struct blockdev *blockdev = disk->state;
	const struct blockdev_metadata *metadata = &blockdev->metadata;
	struct disk_geometry *geometry = &disk->geometry;
	bool writable = !(disk->open_flags & (DISK_OPEN_READ_ONLY | DISK_OPEN_CHECK));

	geometry->sector_size = metadata->sector_size;
	geometry->physical_sector_size = metadata->physical_sector_size;
	/* Where the device has no such writes, the kernel flushes after them. */
	geometry->fua = true;
	geometry->has_id = metadata_id(metadata, geometry->id);
	/* No device has to give zeros after a discard, and the kernel tells of none whether it
	 * does. */
	geometry->unmap = writable && metadata->discard_max > 0 ? UNMAP_UNSPECIFIED : UNMAP_IGNORED;
	geometry->optimal_unmap_sectors =
		(uint32_t)min_u64(max_u64(metadata->discard_granularity / metadata->sector_size, 1),
				  UINT32_MAX);
	geometry->max_transfer = align_down(metadata->max_transfer, metadata->sector_size);
	/* What is more scattered is copied once, instead of cut into several calls. */
	geometry->max_segments = metadata->max_segments > 0
					 ? (uint32_t)min_u64(metadata->max_segments, FDIO_SEGMENTS)
					 : FDIO_SEGMENTS;
	if (!config->direct)
		return;
	/* Linux before 6.0 wants of memory what it wants of offsets. */
	geometry->memory_align = metadata->dma_align > 0
					 ? metadata->dma_align
					 : (uint32_t)min_u64(metadata->sector_size, 4096);
	geometry->length_align = metadata->sector_size;
}

/* All of it that may block. */
static int open_blocking(struct disk *disk, struct err *err)
{
	const struct blockdev_config *config = disk->config;
	struct blockdev *blockdev = disk->state;
	struct err reason;

	if (open_device(disk, err) < 0 || lock_device(disk, err) < 0)
		return -1;
	if (metadata_ask(blockdev->io.fd, &blockdev->metadata, &reason) < 0)
		return err_set_key(err, "path", "'%s' %s", config->path, reason.text);
	if (!metadata_read(blockdev->sysfs, &blockdev->metadata))
		blockdev->sysfs[0] = '\0';
	if (check_device(disk, err) < 0)
		return -1;
	fill_geometry(disk);
	disk->has_no_pr =
		(disk->open_flags & DISK_OPEN_CHECK) ||
		!reservations_find(blockdev->io.fd, &blockdev->metadata, &blockdev->reservations);
	if (blockdev->metadata.size % blockdev->metadata.sector_size != 0)
		log_warning(disk->name,
			    "the last %llu bytes of '%s' are no whole sector and cannot be reached",
			    (unsigned long long)(blockdev->metadata.size %
						 blockdev->metadata.sector_size),
			    config->path);
	return 0;
}

struct opening {
	struct disk *disk;
	struct err *err;
	int result;
};

static void open_job(void *argument)
{
	struct opening *opening = argument;

	opening->result = open_blocking(opening->disk, opening->err);
}

static int watch_size(struct disk *disk, struct err *err)
{
	struct blockdev *blockdev = disk->state;
	int error;

	if (disk->open_flags & (DISK_OPEN_CHECK | DISK_OPEN_COMMAND))
		return 0;
	blockdev->watch = (struct watch){
		.disk = disk,
		.device = makedev(blockdev->major, blockdev->minor),
		.has_changed = blockdev_has_changed,
		.check = blockdev_check_size,
	};
	error = watch_add(&blockdev->watch);
	return error ? err_set(err, "cannot watch its size: %s", strerror(-error)) : 0;
}

int blockdev_open(struct disk *disk, struct err *err)
{
	const struct blockdev_config *config = disk->config;
	struct blockdev *blockdev = disk->state;
	struct opening opening = {.disk = disk, .err = err};

	blockdev->io.fd = -1;
	blockdev->io.nowait_read = blockdev->io.nowait_write = !config->direct;
	blockdev->punch_hole = blockdev->zero_range = blockdev->ring_discard = true;
	task_mutex_init(&blockdev->size_mutex);
	offload(open_job, &opening);
	if (opening.result < 0)
		return -1;
	atomic_store(&blockdev->size, blockdev->metadata.size);
	disk_set_sector_count(disk, blockdev->metadata.size / blockdev->metadata.sector_size);
	return watch_size(disk, err);
}

void blockdev_close(struct disk *disk)
{
	struct blockdev *blockdev = disk->state;

	watch_remove(&blockdev->watch);
	fdio_close(&blockdev->io);
	task_mutex_destroy(&blockdev->size_mutex);
}
