// SPDX-License-Identifier: MIT
#include "backends/image/image_file.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backends/lock.h"

static int find_size(struct image_file *file, struct err *err)
{
	struct stat stat;

	if (fstat(file->fd, &stat) < 0)
		return err_set(err, "cannot stat '%s': %s", file->path, strerror(errno));
	file->size = (uint64_t)stat.st_size;
	file->is_device = S_ISBLK(stat.st_mode);
	file->changed = stat.st_mtim;
	if (S_ISREG(stat.st_mode))
		return 0;
	if (!file->is_device)
		return err_set(err, "'%s' is neither a regular file nor a block device",
			       file->path);
	if (ioctl(file->fd, BLKGETSIZE64, &file->size) < 0)
		return err_set(err, "cannot ask '%s' for its size: %s", file->path,
			       strerror(errno));
	return 0;
}

static int open_unlocked(struct image_file *file, const char *path, int flags, struct err *err)
{
	/* O_NONBLOCK: a FIFO is refused, not waited for. */
	*file = (struct image_file){.path = path,
				    .fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)};
	if (file->fd < 0)
		return err_set(err, "cannot open '%s': %s", path, strerror(errno));
	if (find_size(file, err) == 0)
		return 0;
	image_file_close(file);
	return -1;
}

static int lock(const struct image_file *file, bool writable, struct err *err)
{
	int error = lock_image(file->fd, writable);

	if (error == EAGAIN)
		return err_set(err, "'%s' is in use by another program, perhaps diskfs or QEMU",
			       file->path);
	if (error)
		return err_set(err, "cannot lock '%s': %s", file->path, strerror(error));
	return 0;
}

int image_file_open(struct image_file *file, const char *path, bool writable, struct err *err)
{
	if (open_unlocked(file, path, writable ? O_RDWR : O_RDONLY, err) < 0)
		return -1;
	/* Once it is locked it keeps the size that it has. */
	if (lock(file, writable, err) == 0 && find_size(file, err) == 0)
		return 0;
	image_file_close(file);
	return -1;
}

int image_file_peek(struct image_file *file, const char *path, struct err *err)
{
	return open_unlocked(file, path, O_RDONLY, err);
}

void image_file_close(struct image_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
}

/* ---- Content. ---- */

int image_file_read(const struct image_file *file, void *data, size_t length, uint64_t offset,
		    struct err *err)
{
	size_t done = 0;

	while (done < length) {
		ssize_t result =
			pread(file->fd, (char *)data + done, length - done, (off_t)(offset + done));

		if (result < 0 && errno == EINTR)
			continue;
		if (result <= 0)
			return err_set(err, "cannot read '%s' at byte %llu: %s", file->path,
				       (unsigned long long)(offset + done),
				       result < 0 ? strerror(errno) : "the file ends there");
		done += (size_t)result;
	}
	return 0;
}

int image_file_write(struct image_file *file, const void *data, size_t length, uint64_t offset,
		     struct err *err)
{
	size_t done = 0;

	while (done < length) {
		ssize_t result = pwrite(file->fd, (const char *)data + done, length - done,
					(off_t)(offset + done));

		if (result < 0 && errno == EINTR)
			continue;
		if (result <= 0)
			return err_set(err, "cannot write '%s' at byte %llu: %s", file->path,
				       (unsigned long long)(offset + done),
				       strerror(result < 0 ? errno : EIO));
		done += (size_t)result;
		file->size = max_u64(file->size, offset + done);
	}
	return 0;
}

uint64_t image_file_find_data(const struct image_file *file, uint64_t offset, uint64_t end)
{
	off_t found = lseek(file->fd, (off_t)offset, SEEK_DATA);

	if (found < 0)
		return errno == ENXIO ? end : offset;
	return min_u64((uint64_t)found, end);
}

int image_file_resize(struct image_file *file, uint64_t size, struct err *err)
{
	if (ftruncate(file->fd, (off_t)size) < 0)
		return err_set(err, "cannot give '%s' a size of %llu bytes: %s", file->path,
			       (unsigned long long)size, strerror(errno));
	file->size = size;
	return 0;
}

/* By zeros, where the file system does not know how to set space aside. */
static int write_zeros(struct image_file *file, uint64_t offset, uint64_t end, struct err *err)
{
	static const char zeros[64 * KIB];

	for (; offset < end; offset += min_u64(sizeof(zeros), end - offset))
		if (image_file_write(file, zeros, min_u64(sizeof(zeros), end - offset), offset,
				     err) < 0)
			return -1;
	return 0;
}

#define ALLOCATION_STEP (64 * MIB)

int image_file_allocate(struct image_file *file, uint64_t size,
			const struct image_progress *progress, struct err *err)
{
	bool by_zeros = false;

	for (uint64_t at = 0; at < size;) {
		uint64_t end = at + min_u64(ALLOCATION_STEP, size - at);

		if (!by_zeros && fallocate(file->fd, 0, (off_t)at, (off_t)(end - at)) < 0) {
			if (errno == EINTR)
				continue;
			if (errno != EOPNOTSUPP)
				return err_set(err, "cannot take %llu bytes for '%s': %s",
					       (unsigned long long)size, file->path,
					       strerror(errno));
			by_zeros = true;
		}
		if (by_zeros && write_zeros(file, at, end, err) < 0)
			return -1;
		at = end;
		file->size = max_u64(file->size, end);
		image_show_progress(progress, at, size);
	}
	return 0;
}

int image_file_keep_time(const struct image_file *file, struct err *err)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, file->changed};

	if (futimens(file->fd, times) < 0)
		return err_set(err, "cannot set the time of '%s': %s", file->path, strerror(errno));
	return 0;
}

int image_file_sync(const struct image_file *file, struct err *err)
{
	if (fsync(file->fd) < 0)
		return err_set(err, "cannot sync '%s': %s", file->path, strerror(errno));
	return 0;
}
