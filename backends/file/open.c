// SPDX-License-Identifier: MIT
/*
 * Opens the backing file, or creates it, refuses what is no disk, locks it, and finds out what its
 * file system can do.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>
#include "backends/file/file.h"
#include "backends/lock.h"
#include "core/offload.h"

/* Makes a sparse file of the configured size; it must not exist. */
static int file_create(struct file *file, const struct file_config *config, int flags,
		       struct err *err)
{
	file->io.fd = open(config->path, flags | O_CREAT | O_EXCL, 0666);
	if (file->io.fd < 0)
		return err_set_key(err, "path", "cannot create '%s': %s", config->path,
				   strerror(errno));
	if (ftruncate(file->io.fd, (off_t)config->size) < 0) {
		err_set_key(err, "size", "cannot give '%s' its size: %s", config->path,
			    strerror(errno));
		unlink(config->path);
		return -1;
	}
	return 0;
}

static int file_open_fd(struct disk *disk, bool *missing, struct err *err)
{
	const struct file_config *config = disk->config;
	struct file *file = disk->state;
	bool to_create = config->size > 0 && !(disk->open_flags & DISK_OPEN_READ_ONLY);
	bool read_only = disk->open_flags & (DISK_OPEN_READ_ONLY | DISK_OPEN_CHECK);
	int flags = (read_only ? O_RDONLY : O_RDWR) | (config->direct ? O_DIRECT : 0) | O_CLOEXEC |
		    O_NOCTTY | O_NONBLOCK; /* so that a FIFO is refused, not waited for */

	*missing = false;
	file->io.fd = open(config->path, flags);
	if (file->io.fd >= 0)
		return 0;
	if (errno == ENOENT && to_create && (disk->open_flags & DISK_OPEN_CHECK)) {
		*missing = true;
		return 0;
	}
	if (errno == ENOENT && to_create)
		return file_create(file, config, flags, err);
	if (errno == EINVAL && config->direct)
		return err_set_key(err, "direct",
				   "the file system of '%s' has no direct I/O: set direct = no",
				   config->path);

	const char *advice = "";

	if (errno == ENOENT && config->size > 0)
		advice = " (what is read-only is not created)";
	else if (errno == ENOENT && !read_only)
		advice = " (size = would create it)";
	return err_set_key(err, "path", "cannot open '%s': %s%s", config->path, strerror(errno),
			   advice);
}

static int file_check_found(const struct file_config *config, const struct stat *stat,
			    struct err *err)
{
	if (!S_ISREG(stat->st_mode))
		return err_set_key(err, "path", "'%s' is no regular file", config->path);
	if (stat->st_size == 0)
		return err_set_key(err, "path",
				   "'%s' is empty: remove it and set size, to have it created",
				   config->path);
	if (config->size > 0 && (uint64_t)stat->st_size != config->size &&
	    config->resizable == RESIZABLE_NO)
		return err_set_key(err, "size",
				   "'%s' has %lld bytes, not %llu: an existing file is not resized",
				   config->path, (long long)stat->st_size,
				   (unsigned long long)config->size);
	if ((uint64_t)stat->st_size < config->sector_size)
		return err_set_key(err, "path", "'%s' is smaller than one sector of %llu bytes",
				   config->path, (unsigned long long)config->sector_size);
	return 0;
}

/* Keeps other users away, as long as the file is open. */
static int file_lock(struct disk *disk, struct err *err)
{
	const struct file_config *config = disk->config;
	const struct file *file = disk->state;
	bool writable = !(disk->open_flags & DISK_OPEN_READ_ONLY);
	int error;

	if (!config->lock || (disk->open_flags & DISK_OPEN_CHECK))
		return 0;
	error = lock_image(file->io.fd, writable);
	if (error == EAGAIN)
		return err_set_key(err, "path",
				   "'%s' is in use by another program, perhaps diskfs or QEMU%s",
				   config->path, writable ? "" : ", that writes to it");
	if (error)
		return err_set_key(err, "lock", "cannot lock '%s': %s (lock = no does without)",
				   config->path, strerror(error));
	return 0;
}

/* Direct I/O: what the file wants of memory and offsets (statx since 6.1; else what serves
 * everywhere). */
static int file_direct_alignment(struct disk *disk, struct err *err)
{
	const struct file_config *config = disk->config;
	const struct file *file = disk->state;
	uint32_t memory = 4096, offset = 512;

#ifdef STATX_DIOALIGN
	struct statx statx_buffer;

	if (statx(file->io.fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &statx_buffer) == 0 &&
	    (statx_buffer.stx_mask & STATX_DIOALIGN) && statx_buffer.stx_dio_offset_align > 0) {
		memory = statx_buffer.stx_dio_mem_align;
		offset = statx_buffer.stx_dio_offset_align;
	}
#endif
	if (offset > config->sector_size)
		return err_set_key(
			err, "direct",
			"direct I/O on '%s' needs sectors of %u bytes: set sector_size = "
			"%u or direct = no",
			config->path, offset, offset);
	/* The lengths of segments add up to offsets, so they have to satisfy both. */
	disk->geometry.memory_align = (uint32_t)min_u64(max_u64(memory, offset), 4096);
	return 0;
}

/* Whether fallocate() knows @mode: asked of nothing, behind the end. */
static bool file_can(const struct file *file, int mode)
{
	return fallocate(file->io.fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)file->size, 1) == 0;
}

/* What is known of the file systems that most people use; of all others nothing is assumed. */
static void file_know_system(struct file *file, __fsword_t type, bool direct)
{
	bool is_memory = type == TMPFS_MAGIC || type == RAMFS_MAGIC;

	file->io.in_memory = is_memory && !direct;
	file->size_is_cheap = is_memory || type == EXT4_SUPER_MAGIC || type == XFS_SUPER_MAGIC ||
			      type == BTRFS_SUPER_MAGIC;
}

/* All of it that may wait for the file system; the number of sectors is told by the caller. */
static int file_open_blocking(struct disk *disk, struct err *err)
{
	const struct file_config *config = disk->config;
	struct file *file = disk->state;
	struct stat stat = {.st_blksize = 4096, .st_size = (off_t)config->size};
	struct statfs statfs;
	bool missing;

	file->io.fd = -1;
	if (file_open_fd(disk, &missing, err) < 0)
		return -1;
	if (!missing && fstat(file->io.fd, &stat) < 0)
		return err_set_key(err, "path", "cannot stat '%s': %s", config->path,
				   strerror(errno));
	if (!missing && file_check_found(config, &stat, err) < 0)
		return -1;
	if (!missing && file_lock(disk, err) < 0)
		return -1;
	if (!missing && config->direct && file_direct_alignment(disk, err) < 0)
		return -1;

	bool writable = !(disk->open_flags & (DISK_OPEN_READ_ONLY | DISK_OPEN_CHECK));

	file->size = (uint64_t)stat.st_size;
	if (!missing && fstatfs(file->io.fd, &statfs) == 0)
		file_know_system(file, statfs.f_type, config->direct);
	file->io.nowait_read = file->io.nowait_write = !config->direct;
	file->zero_range = true;

	struct disk_geometry *geometry = &disk->geometry;
	uint64_t block =
		is_power_of_two((uint64_t)stat.st_blksize) ? (uint64_t)stat.st_blksize : 4096;

	geometry->sector_size = (uint32_t)config->sector_size;
	geometry->physical_sector_size =
		(uint32_t)(config->physical_sector_size > 0
				   ? config->physical_sector_size
				   : max_u64(min_u64(block, 4096), config->sector_size));
	geometry->fua = true;
	geometry->resizable = (enum resizable)config->resizable;
	geometry->unmap =
		writable && file_can(file, FALLOC_FL_PUNCH_HOLE) ? UNMAP_ZEROES : UNMAP_IGNORED;
	geometry->optimal_unmap_sectors =
		(uint32_t)(max_u64(block, config->sector_size) / config->sector_size);
	if (file->size % config->sector_size != 0)
		log_warning(disk->name,
			    "the last %llu bytes of '%s' are no whole sector and cannot be reached",
			    (unsigned long long)(file->size % config->sector_size), config->path);
	return 0;
}

struct file_opening {
	struct disk *disk;
	struct err *err;
	int result;
};

static void file_open_job(void *argument)
{
	struct file_opening *opening = argument;

	opening->result = file_open_blocking(opening->disk, opening->err);
}

/* On another thread, so that many files are opened at once. */
int file_open(struct disk *disk, struct err *err)
{
	struct file *file = disk->state;
	struct file_opening opening = {.disk = disk, .err = err};
	int error;

	offload(file_open_job, &opening);
	if (opening.result < 0)
		return -1;
	task_mutex_init(&file->resize_mutex);
	file->is_ready = true;
	disk_set_sector_count(disk, file->size / disk->geometry.sector_size);
	if (disk->open_flags & (DISK_OPEN_CHECK | DISK_OPEN_COMMAND))
		return 0;
	file->watch = (struct watch){.disk = disk,
				     .has_changed = file_size_differs,
				     .check = file_check_size};
	error = watch_add(&file->watch);
	return error ? err_set(err, "cannot watch its size: %s", strerror(-error)) : 0;
}

void file_close(struct disk *disk)
{
	struct file *file = disk->state;

	watch_remove(&file->watch);
	if (file->is_ready)
		task_mutex_destroy(&file->resize_mutex);
	file->is_ready = false;
	fdio_close(&file->io);
}
