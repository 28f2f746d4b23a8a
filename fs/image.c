// SPDX-License-Identifier: MIT
#include "fs/image.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "core/bytes.h"
#include "core/task.h"

/* What a program that asks for O_DIRECT has to align to, whatever the sector size: QEMU finds it by
 * EINVAL. */
#define DIRECT_ALIGN 512

static int64_t ns_of(const struct timespec *time)
{
	int64_t ns;

	if (__builtin_mul_overflow((int64_t)time->tv_sec, (int64_t)NS_PER_S, &ns) ||
	    __builtin_add_overflow(ns, (int64_t)time->tv_nsec, &ns))
		return time->tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

static int64_t realtime_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_REALTIME_COARSE, &time);
	return ns_of(&time);
}

/* Rounded down to the second: the nanoseconds are never negative. */
static struct timespec timespec_of(int64_t ns)
{
	int64_t second = (int64_t)NS_PER_S, rest = ns % second;

	return (struct timespec){.tv_sec = (time_t)(ns / second - (rest < 0)),
				 .tv_nsec = (long)(rest < 0 ? rest + second : rest)};
}

void image_init(struct image *image, const char *name, uint64_t node_id, struct disk *disk,
		mode_t mode, uid_t uid, gid_t gid)
{
	int64_t now = realtime_ns();

	*image = (struct image){
		.name = name,
		.node_id = node_id,
		.disk = disk,
		.mode = disk_is_read_only(disk) ? mode & ~(mode_t)0222 : mode,
		.uid = uid,
		.gid = gid,
		.atime = timespec_of(now),
		.ctime = timespec_of(now),
		.mtime_ns = now,
	};
	pthread_mutex_init(&image->mutex, NULL);
}

void image_destroy(struct image *image)
{
	pthread_mutex_destroy(&image->mutex);
}

void image_set_mtime(struct image *image, const struct timespec *time)
{
	atomic_store_explicit(&image->mtime_ns, ns_of(time), memory_order_relaxed);
}

static bool is_misaligned(int flags, uint64_t offset, size_t size)
{
	return (flags & O_DIRECT) && ((offset | size) & (DIRECT_ALIGN - 1));
}

/* Whether a request has failed since the disk ends earlier now than when it was checked: it is to be
 * cut again. */
static bool has_shrunk(const struct image *image, int error, uint64_t end)
{
	return error_kind(error) == ERROR_ILLEGAL_BLOCK && disk_size(image->disk) < end;
}

ssize_t image_read(struct image *image, void *data, size_t size, uint64_t offset, int flags,
		   uint64_t handle)
{
	uint64_t end;
	int error;

	if (is_misaligned(flags, offset, size))
		return -EINVAL;
	do {
		end = disk_size(image->disk);
		/* The kernel believes that the file is longer, and would take no data for zeros. */
		if (offset >= end && image->kernel_has_size && !(handle & IMAGE_HANDLE_DIRECT))
			return -EIO;
		if (offset >= end)
			return 0;
		size = min_u64(size, end - offset);
		error = disk_read_bytes(image->disk, data, size, offset);
	} while (has_shrunk(image, error, end));
	return error ? -error_to_errno(error) : (ssize_t)size;
}

/*
 * Whether a write has to be durable by itself. For an opener that goes through the page cache the
 * kernel follows an O_SYNC write with an fsync; only a direct opener's comes alone.
 */
static bool is_sync_write(int flags, uint64_t handle, bool from_cache)
{
	return (flags & O_DSYNC) && (handle & IMAGE_HANDLE_DIRECT) && !from_cache;
}

static ssize_t write_clipped(struct image *image, const void *data, size_t size, uint64_t offset,
			     int flags, uint64_t handle, bool from_cache)
{
	unsigned disk_flags = is_sync_write(flags, handle, from_cache) ? DISK_FUA : 0;
	uint64_t end;
	int error;

	if (!from_cache && is_misaligned(flags, offset, size))
		return -EINVAL;
	do {
		end = disk_size(image->disk);
		if (offset >= end)
			return size == 0 ? 0 : -ENOSPC;
		size = min_u64(size, end - offset);
		error = disk_write_bytes(image->disk, data, size, offset, disk_flags);
	} while (has_shrunk(image, error, end));
	if (error)
		return -error_to_errno(error);
	atomic_store_explicit(&image->mtime_ns, realtime_ns(), memory_order_relaxed);
	return (ssize_t)size;
}

ssize_t image_write(struct image *image, const void *data, size_t size, uint64_t offset, int flags,
		    uint64_t handle, bool from_cache, pid_t pid)
{
	ssize_t result = write_clipped(image, data, size, offset, flags, handle, from_cache);

	if (result < 0 && !from_cache) {
		pthread_mutex_lock(&image->mutex);
		image->failed_pid = pid;
		image->failed_end = offset + size;
		pthread_mutex_unlock(&image->mutex);
	}
	return result;
}

int image_flush(struct image *image)
{
	return -error_to_errno(disk_flush(image->disk));
}

int image_fallocate(struct image *image, int mode, uint64_t offset, uint64_t length)
{
	uint64_t size = disk_size(image->disk);
	uint64_t end;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	if (__builtin_add_overflow(offset, length, &end))
		return -EFBIG;

	bool zeroes = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);

	/* What would make a file longer cannot be done; what only touches bytes behind the end is
	 * done already. */
	if (end > size && !(zeroes && (mode & FALLOC_FL_KEEP_SIZE)))
		return -ENOSPC;
	if (disk_is_read_only(image->disk))
		return -EROFS;
	if (!zeroes || offset >= size)
		return 0;

	int error = disk_zero_bytes(image->disk, offset, min_u64(length, size - offset),
				    mode & FALLOC_FL_PUNCH_HOLE ? DISK_MAY_UNMAP : 0);

	if (!error)
		atomic_store_explicit(&image->mtime_ns, realtime_ns(), memory_order_relaxed);
	return -error_to_errno(error);
}

off_t image_seek(struct image *image, off_t offset, int whence)
{
	struct disk *disk = image->disk;
	unsigned shift = disk_sector_shift(disk);
	uint64_t count = disk_sector_count(disk);
	enum extent_kind wanted = whence == SEEK_DATA ? EXTENT_DATA : EXTENT_HOLE;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (offset < 0 || (uint64_t)offset >= count << shift)
		return -ENXIO;
	for (uint64_t sector = (uint64_t)offset >> shift; sector < count;) {
		struct extent extent;
		int error = disk_extent(disk, sector, count - sector, &extent);

		if (error)
			return -error_to_errno(error);
		if (extent.kind == wanted)
			return (off_t)max_u64((uint64_t)offset, sector << shift);
		sector += extent.count;
		task_yield(); /* a long walk must not keep the worker from others */
	}
	/* The end of the file is a hole. */
	return whence == SEEK_HOLE ? (off_t)(count << shift) : -ENXIO;
}

int image_stat(struct image *image, struct stat *stat)
{
	uint64_t allocated;
	int error = disk_allocated(image->disk, &allocated);

	if (error)
		return -error_to_errno(error);
	memset(stat, 0, sizeof(*stat));
	stat->st_nlink = 1;
	stat->st_size = (off_t)disk_size(image->disk);
	stat->st_blocks = (blkcnt_t)((allocated + 511) / 512);
	stat->st_blksize = (blksize_t)max_u64(image->disk->geometry.physical_sector_size, 4096);
	stat->st_mtim = timespec_of(atomic_load_explicit(&image->mtime_ns, memory_order_relaxed));
	pthread_mutex_lock(&image->mutex);
	stat->st_mode = S_IFREG | image->mode;
	stat->st_uid = image->uid;
	stat->st_gid = image->gid;
	stat->st_atim = image->atime;
	stat->st_ctim = image->ctime;
	pthread_mutex_unlock(&image->mutex);
	return 0;
}

int image_open(struct image *image, int flags, pid_t pid)
{
	if ((flags & O_ACCMODE) == O_RDONLY)
		return 0;
	if (disk_is_read_only(image->disk))
		return -EROFS;
	pthread_mutex_lock(&image->mutex);
	image->openers[image->next_opener++ % IMAGE_OPENERS] = pid;
	pthread_mutex_unlock(&image->mutex);
	return 0;
}

/*
 * The kernel opens the file first and then, for O_TRUNC, sends a truncation by path that looks like
 * any other. So one truncation to 0 by path is accepted after each open for writing by the same
 * process. (FUSE_ATOMIC_O_TRUNC would tell the two apart, but then the kernel takes the size for 0
 * whatever we say, under everybody else who has the file open.)
 */
static bool is_open_truncation(struct image *image, pid_t pid)
{
	bool found = false;

	pthread_mutex_lock(&image->mutex);
	for (unsigned i = 0; i < IMAGE_OPENERS && !found; i++) {
		if (image->openers[i] != pid)
			continue;
		image->openers[i] = 0;
		found = true;
	}
	pthread_mutex_unlock(&image->mutex);
	return found;
}

/*
 * After a direct write beyond the end of a file, as far as it knows that, has failed, the kernel by
 * itself truncates the file to the size that it believes in, in the name of the writer. That may be
 * an old size: it must not become that of the disk.
 */
static bool is_kernel_truncation(struct image *image, uint64_t size, pid_t pid)
{
	bool found;

	pthread_mutex_lock(&image->mutex);
	found = image->failed_end > size && image->failed_pid == pid;
	if (found)
		image->failed_end = 0;
	pthread_mutex_unlock(&image->mutex);
	return found;
}

int image_truncate(struct image *image, uint64_t size, bool by_path, pid_t pid)
{
	struct disk *disk = image->disk;
	int error;

	if (size == disk_size(disk))
		return 0;
	if (size == 0)
		return by_path && is_open_truncation(image, pid) ? 0 : -EPERM;
	if (!is_aligned(size, disk_sector_size(disk)))
		return -EPERM;
	if (!by_path && is_kernel_truncation(image, size, pid))
		return -EPERM;
	error = disk_resize(disk, size >> disk_sector_shift(disk));
	return error_kind(error) == ERROR_UNSUPPORTED ? -EPERM : -error_to_errno(error);
}
