// SPDX-License-Identifier: MIT
/*
 * The size of the file. Whoever makes the file longer makes the disk larger: that is seen by a look
 * now and then (core/watch.h), and when somebody asks for the file's attributes. Whoever makes it
 * shorter destroys part of a disk, and file.c says what becomes of it.
 *
 * Made smaller by resize() the disk ends at the new end first, so that nothing more begins beyond
 * it; then what is under way there is waited for, since a late write would make the file longer
 * again; and only then the file is cut.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backends/file/file.h"
#include "core/offload.h"

/* For what is under way beyond the new end of a disk. */
#define PATIENCE_NS (10 * NS_PER_S)

static uint64_t sectors_of(const struct disk *disk, uint64_t bytes)
{
	return bytes >> disk_sector_shift(disk);
}

struct file_sizing {
	const struct file *file;
	off_t size; /* to set, or found */
	int errnum;
};

static void ask_job(void *argument)
{
	struct file_sizing *sizing = argument;
	struct stat stat;

	if (fstat(sizing->file->io.fd, &stat) < 0)
		sizing->errnum = errno;
	else
		sizing->size = stat.st_size;
}

static void set_job(void *argument)
{
	struct file_sizing *sizing = argument;

	if (ftruncate(sizing->file->io.fd, sizing->size) < 0)
		sizing->errnum = errno;
}

static void size_store(struct file *file, uint64_t bytes)
{
	atomic_store(&file->size, bytes);
	atomic_fetch_add(&file->sizes, 1);
}

/* ---- What others do. ---- */

bool file_size_differs(struct disk *disk)
{
	const struct file *file = disk->state;
	struct stat stat;

	/* Whoever has the file itself may make it longer by mistake, see file_raw_file(). */
	if (atomic_load(&file->is_shared) || fstat(file->io.fd, &stat) < 0)
		return false;
	return (uint64_t)stat.st_size != atomic_load(&file->size) && !atomic_load(&file->truncated);
}

/* With resize_mutex. */
static void size_follow(struct disk *disk)
{
	struct file *file = disk->state;
	struct file_sizing sizing = {.file = file};

	offload(ask_job, &sizing);
	if (sizing.errnum || atomic_load(&file->truncated))
		return;
	if ((uint64_t)sizing.size < atomic_load(&file->size)) {
		file_truncated(disk, (uint64_t)sizing.size);
		return;
	}
	size_store(file, (uint64_t)sizing.size);
	disk_set_sector_count(disk, sectors_of(disk, (uint64_t)sizing.size));
}

void file_check_size(struct disk *disk)
{
	struct file *file = disk->state;

	task_mutex_lock(&file->resize_mutex);
	if (!atomic_load(&file->is_shared))
		size_follow(disk);
	task_mutex_unlock(&file->resize_mutex);
}

/* ---- What is asked of us. ---- */

/* Sets the size of the file. */
static int size_set(struct disk *disk, uint64_t bytes)
{
	const struct file_config *config = disk->config;
	struct file *file = disk->state;
	struct file_sizing sizing = {.file = file, .size = (off_t)bytes};

	offload(set_job, &sizing);
	if (!sizing.errnum)
		return 0;
	log_error(disk->name, "cannot resize '%s' to %llu bytes: %s", config->path,
		  (unsigned long long)bytes, strerror(sizing.errnum));
	return error_io(sizing.errnum);
}

static int grow(struct disk *disk, uint64_t count)
{
	struct file *file = disk->state;
	uint64_t bytes = count << disk_sector_shift(disk);
	int error = size_set(disk, bytes);

	if (error)
		return error;
	size_store(file, bytes);
	disk_set_sector_count(disk, count);
	return 0;
}

static int shrink(struct disk *disk, uint64_t count)
{
	uint64_t bytes = count << disk_sector_shift(disk), before = disk_sector_count(disk);
	struct file *file = disk->state;
	uint64_t bytes_before = atomic_load(&file->size);
	int error = 0;

	disk_set_sector_count(disk, count);
	if (!disk_drain_beyond(disk, count, PATIENCE_NS))
		error = error_io(EBUSY);
	/* Before the file: who looks meanwhile must not find it too short. */
	if (!error) {
		size_store(file, bytes);
		error = size_set(disk, bytes);
	}
	if (error) {
		size_store(file, bytes_before);
		disk_set_sector_count(disk, before);
	}
	return error;
}

int file_resize(struct disk *disk, uint64_t count)
{
	const struct file_config *config = disk->config;
	struct file *file = disk->state;
	int error;

	if (config->resizable == RESIZABLE_NO && !(disk->open_flags & DISK_OPEN_RESIZE))
		return error_of(ERROR_UNSUPPORTED);
	task_mutex_lock(&file->resize_mutex);
	/* What somebody has just added is no longer to be cut off unasked. */
	if (!atomic_load(&file->is_shared))
		size_follow(disk);
	error = resizable_check(disk, count);
	if (!error && atomic_load(&file->truncated))
		error = error_io(EIO);
	if (!error && count != disk_sector_count(disk))
		error = count > disk_sector_count(disk) ? grow(disk, count) : shrink(disk, count);
	task_mutex_unlock(&file->resize_mutex);
	return error;
}
