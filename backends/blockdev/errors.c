// SPDX-License-Identifier: MIT
/*
 * What errors of a block device mean.
 *
 * The kernel's block layer turns what a device has said into an errno, one for each sort of failure
 * (blk_status_t); here it becomes that sort again. Some look alike: a device that was removed, and
 * one that has shrunk, both end where they did not, so on every error the device is looked at first.
 */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "backends/blockdev/blockdev.h"
#include "core/offload.h"

int blockdev_error(int errnum, bool is_write)
{
	switch (errnum) {
	case ENODATA:	/* the medium failed */
	case EREMOTEIO: /* the device refuses for good */
		return error_medium(errnum,
				    is_write ? MEDIUM_WRITE_FAULT : MEDIUM_UNRECOVERED_READ);
	case EILSEQ: /* protection information; the kernel does not tell which */
		return error_medium(errnum, MEDIUM_GUARD_CHECK);
	case EBADE:
		return error_of(ERROR_RESERVATION_CONFLICT);
	case EROFS:
		return error_of(ERROR_READ_ONLY);
	case EOPNOTSUPP:
		return error_of(ERROR_UNSUPPORTED);
	default: /* ENOSPC of a thin device, ETIMEDOUT, ENOLINK, EIO ... */
		return error_io(errnum);
	}
}

/* ---- Whether it is still there, and how large. ---- */

struct look {
	const struct blockdev *blockdev;
	bool removed;
	bool has_size;
	uint64_t size;
};

static void look_at(void *argument)
{
	struct look *look = argument;
	const struct blockdev *blockdev = look->blockdev;

	look->has_size = ioctl(blockdev->io.fd, BLKGETSIZE64, &look->size) == 0;
	/* As long as it is open here, no other device gets its number. */
	look->removed = blockdev->sysfs[0] && access(blockdev->sysfs, F_OK) < 0 && errno == ENOENT;
}

bool blockdev_has_changed(struct disk *disk)
{
	const struct blockdev *blockdev = disk->state;
	struct look look = {.blockdev = blockdev};

	if (atomic_load(&blockdev->removed))
		return false;
	look_at(&look);
	return look.removed || (look.has_size && look.size != atomic_load(&blockdev->size));
}

void blockdev_check_size(struct disk *disk)
{
	const struct blockdev_config *config = disk->config;
	struct blockdev *blockdev = disk->state;
	struct look look = {.blockdev = blockdev};

	/* One after another, so that the last word is the newest. */
	task_mutex_lock(&blockdev->size_mutex);
	if (!atomic_load(&blockdev->removed))
		offload(look_at, &look);
	if (look.removed) {
		atomic_store(&blockdev->removed, true);
		log_error(disk->name, "'%s' has been removed", config->path);
	} else if (look.has_size) {
		atomic_store(&blockdev->size, look.size);
		/* Without a medium, or on the way to its removal. What the disk was is still worth
		 * knowing: it keeps its size. */
		if (look.size > 0)
			disk_set_sector_count(disk, look.size >> disk_sector_shift(disk));
	}
	task_mutex_unlock(&blockdev->size_mutex);
}

/* ---- Errors of requests. ---- */

static int error_found(struct disk *disk, uint64_t end, int result, bool is_write)
{
	struct blockdev *blockdev = disk->state;

	if (atomic_load(&blockdev->removed))
		return error_io(ENODEV);
	if (atomic_load(&blockdev->size) == 0)
		return error_io(blockdev->metadata.removable ? ENOMEDIUM : ENODEV);
	if (end > atomic_load(&blockdev->size))
		return error_of(ERROR_ILLEGAL_BLOCK);
	return blockdev_error(result == FDIO_END ? EIO : -result, is_write);
}

int blockdev_failed(struct disk *disk, const char *what, uint64_t offset, uint64_t length,
		    int result)
{
	struct blockdev *blockdev = disk->state;
	unsigned shift = disk_sector_shift(disk);
	char text[80];
	int error;

	blockdev_check_size(disk);
	error = error_found(disk, length ? offset + length : 0, result, strcmp(what, "read") != 0);
	error_describe(text, error);
	if (length)
		log_limited(&blockdev->log_limit, LOG_LEVEL_ERROR, disk->name,
			    "%s of %llu sectors at LBA %llu: %s", what,
			    (unsigned long long)(length >> shift),
			    (unsigned long long)(offset >> shift), text);
	else
		log_limited(&blockdev->log_limit, LOG_LEVEL_ERROR, disk->name, "%s: %s", what,
			    text);
	return error;
}
