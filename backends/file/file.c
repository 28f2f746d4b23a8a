// SPDX-License-Identifier: MIT
/*
 * file: a disk in a raw file.
 *
 * The file's bytes are the disk's. A file whose size is no multiple of the sector size is served
 * without its last, incomplete sector, which nobody can reach; a warning and `.status` say so. The
 * disk follows a file that grows, and may be resized if the user says so (resize.c).
 *
 * How it waits: see backends/fdio.h. With direct = yes the page cache is bypassed and everything
 * goes to the ring.
 *
 * Flush is fdatasync. FUA is RWF_DSYNC. On a crash of the host, what was flushed is there, and of
 * the rest any part may be, to the granularity of the file system. On a crash of the process alone
 * nothing that was acknowledged is lost.
 *
 * Concurrent requests: writes of whole sectors are whole in the end, but a buffered read that runs
 * while a sector is being written may see a part of each, as the page cache lets it.
 *
 * Where somebody truncates the file, reads behind its end are I/O errors, never zeros, and so are
 * writes and flushes from then on.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include "backends/file/file.h"
#include "core/buffer.h"
#include "core/offload.h"
#include "core/report.h"
#include "core/ring.h"

/* ---- Data. ---- */

/* @result is a negative errno. */
static int file_failed(struct disk *disk, const char *what, uint64_t offset, ssize_t result)
{
	struct file *file = disk->state;

	log_limited(&file->log_limit, LOG_LEVEL_ERROR, disk->name, "%s at byte %llu: %s", what,
		    (unsigned long long)offset, strerror((int)-result));
	return error_io((int)-result);
}

/* The file ends where it did not: a hole there would be a lie. Remembered, see file_is_truncated().
 */
int file_truncated(struct disk *disk, uint64_t offset)
{
	const struct file_config *config = disk->config;
	struct file *file = disk->state;

	atomic_store_explicit(&file->truncated, true, memory_order_relaxed);
	log_limited(&file->log_limit, LOG_LEVEL_ERROR, disk->name,
		    "byte %llu: '%s' has been truncated, and what was behind its end is lost; the "
		    "disk takes "
		    "no more writes",
		    (unsigned long long)offset, config->path);
	return error_io(EIO);
}

/*
 * Asked before each write: one behind the end would make the file grow again, with zeros for what
 * was lost, and nobody would ever know. Where the size has to be asked for, only what reads have
 * found is known.
 */
static bool file_is_truncated(const struct file *file)
{
	unsigned sizes;
	bool is_short;

	if (atomic_load_explicit(&file->truncated, memory_order_relaxed))
		return true;
	if (!file->size_is_cheap)
		return false;
	/* Not while it is being resized. */
	do {
		sizes = atomic_load(&file->sizes);

		off_t size = (off_t)atomic_load(&file->size);

		is_short = lseek(file->io.fd, 0, SEEK_END) < size;
	} while (is_short && atomic_load(&file->sizes) != sizes);
	return is_short;
}

static int file_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	struct file *file = disk->state;
	uint64_t offset = sector << disk_sector_shift(disk);
	int result = fdio_read(&file->io, sg, &offset);

	if (result == FDIO_END)
		return file_truncated(disk, offset);
	return result < 0 ? file_failed(disk, "read", offset, result) : 0;
}

static int file_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	struct file *file = disk->state;
	uint64_t offset = sector << disk_sector_shift(disk);
	int result;

	if (file_is_truncated(file))
		return file_truncated(disk, offset);
	result = fdio_write(&file->io, sg, &offset, flags & DISK_FUA ? RWF_DSYNC : 0);
	return result < 0 ? file_failed(disk, "write", offset, result) : 0;
}

static int file_flush(struct disk *disk)
{
	struct file *file = disk->state;
	int result;

	if (file_is_truncated(file)) /* what has been acknowledged is not all there */
		return file_truncated(disk, 0);
	result = fdio_flush(&file->io);
	return result < 0 ? file_failed(disk, "flush", 0, result) : 0;
}

/* ---- Holes. ---- */

static int file_fallocate(struct disk *disk, int mode, uint64_t sector, uint64_t count)
{
	struct file *file = disk->state;
	unsigned shift = disk_sector_shift(disk);
	int result = ring_fallocate(file->io.fd, mode | FALLOC_FL_KEEP_SIZE, sector << shift,
				    count << shift);

	if (result == -EOPNOTSUPP)
		return error_of(ERROR_UNSUPPORTED);
	return result < 0 ? file_failed(disk, "fallocate", sector << shift, result) : 0;
}

static int file_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	return file_fallocate(disk, FALLOC_FL_PUNCH_HOLE, sector, count);
}

static int file_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	struct file *file = disk->state;
	int error = error_of(ERROR_UNSUPPORTED);

	if ((flags & DISK_MAY_UNMAP) && disk->geometry.unmap == UNMAP_ZEROES)
		error = file_unmap(disk, sector, count);
	if (error_kind(error) == ERROR_UNSUPPORTED &&
	    atomic_load_explicit(&file->zero_range, memory_order_relaxed)) {
		error = file_fallocate(disk, FALLOC_FL_ZERO_RANGE, sector, count);
		if (error_kind(error) == ERROR_UNSUPPORTED)
			atomic_store_explicit(&file->zero_range, false, memory_order_relaxed);
	}
	return error || !(flags & DISK_FUA) ? error : file_flush(disk);
}

/* lseek() and fstat() may wait for the file system, and the ring has no lseek. */
struct file_query {
	const struct file *file;
	uint64_t offset;
	off_t data, hole; /* of SEEK_DATA, SEEK_HOLE; negative: -errno */
	struct stat stat;
	int stat_errno;
};

static void file_query_stat(void *argument)
{
	struct file_query *query = argument;

	if (fstat(query->file->io.fd, &query->stat) < 0)
		query->stat_errno = errno;
}

static void file_query_extent(void *argument)
{
	struct file_query *query = argument;

	file_query_stat(query);
	query->data = lseek(query->file->io.fd, (off_t)query->offset, SEEK_DATA);
	if (query->data < 0)
		query->data = -errno;
	query->hole = lseek(query->file->io.fd, (off_t)query->offset, SEEK_HOLE);
	if (query->hole < 0)
		query->hole = -errno;
}

static int file_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	unsigned shift = disk_sector_shift(disk);
	uint64_t offset = sector << shift;
	struct file_query query = {.file = disk->state, .offset = offset};
	const struct file *file = disk->state;
	uint64_t end = count; /* of the run, in sectors from its start */
	unsigned sizes;

	do {
		sizes = atomic_load(&file->sizes);
		if (sector >= disk_sector_count(disk))
			return error_of(ERROR_ILLEGAL_BLOCK); /* it has become smaller */
		query.stat_errno = 0;
		offload(file_query_extent, &query);
	} while (atomic_load(&file->sizes) != sizes);
	if (query.data == -ENXIO) { /* no more data */
		/* What somebody has cut off is no hole: a copy would take it for zeros. */
		if (query.stat_errno || query.stat.st_size < (off_t)(offset + (1ULL << shift)))
			return file_truncated(disk, offset);
		end = ((uint64_t)query.stat.st_size - offset) >> shift;
		*extent = (struct extent){.kind = EXTENT_HOLE, .count = min_u64(end, count)};
		return 0;
	}
	/* A sector that is partly data is data. */
	if (query.data > 0 && ((uint64_t)query.data - offset) >> shift > 0) {
		extent->kind = EXTENT_HOLE;
		end = ((uint64_t)query.data - offset) >> shift;
	} else {
		extent->kind = EXTENT_DATA;
		if (query.data == (off_t)offset && query.hole > query.data)
			end = ((uint64_t)query.hole - offset + disk_sector_size(disk) - 1) >> shift;
		else if (query.data > (off_t)offset)
			end = 1; /* the sector in which the data begins */
	}
	extent->count = min_u64(end, count);
	return 0;
}

static int file_allocated(struct disk *disk, uint64_t *bytes)
{
	struct file *file = disk->state;
	struct file_query query = {.file = file};

	offload(file_query_stat, &query);
	if (query.stat_errno)
		return error_io(query.stat_errno);
	if ((uint64_t)query.stat.st_size > atomic_load(&file->size) && file->watch.disk)
		watch_soon(&file->watch);
	*bytes = (uint64_t)query.stat.st_blocks * 512;
	return 0;
}

/*
 * The file, where its bytes are the disk's from the first to the last. Whoever has it may write
 * beyond its end, by mistake: the disk then no longer follows a file that grows.
 */
static int file_raw_file(struct disk *disk, struct err *err)
{
	struct file *file = disk->state;

	if (atomic_load(&file->size) != disk_size(disk))
		return err_set(err, "the last sector of its file is incomplete");
	atomic_store(&file->is_shared, true);
	return file->io.fd;
}

/* The last, incomplete sector. With direct I/O it has to be asked for as a whole one, too. */
static int file_tail(struct disk *disk, void *data, size_t *length)
{
	struct file *file = disk->state;
	size_t wanted = atomic_load(&file->size) % disk_sector_size(disk);
	struct iovec iov = {.iov_base = buffer_get(), .iov_len = disk_sector_size(disk)};
	ssize_t result;

	if (!iov.iov_base)
		return error_io(ENOMEM);
	result = wanted ? ring_readv(file->io.fd, &iov, 1, disk_size(disk), 0) : 0;
	*length = result > 0 ? min_u64((uint64_t)result, wanted) : 0;
	memcpy(data, iov.iov_base, *length);
	buffer_put(iov.iov_base);
	return result < 0 ? file_failed(disk, "read", disk_size(disk), (int)result) : 0;
}

static void file_inspect(struct disk *disk, struct report *report)
{
	const struct file_config *config = disk->config;
	const struct file *file = disk->state;

	report_string(report, "path", config->path);
	report_bool(report, "direct", config->direct);
	report_string(report, "resizable", resizable_choices[config->resizable]);
	report_bool(report, "in_memory", file->io.in_memory);
	report_bool(report, "truncated", atomic_load(&file->truncated));
	report_u64(report, "unreachable_bytes", atomic_load(&file->size) % config->sector_size);
}

static const struct option file_options[] = {
	{.name = "path",
	 .type = OPTION_PATH,
	 .offset = offsetof(struct file_config, path),
	 .flags = OPTION_REQUIRED,
	 .help = "The raw file"},
	{.name = "size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct file_config, size),
	 .min = 512,
	 .max = INT64_MAX,
	 .help = "Where the file does not exist, it is created, sparse, with this size. Where it "
		 "does, it must have this size, unless it is resizable"},
	RESIZABLE_OPTION(struct file_config, resizable),
	{.name = "direct",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct file_config, direct),
	 .fallback = "no",
	 .help = "Bypass the host's page cache (O_DIRECT)"},
	{.name = "lock",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct file_config, lock),
	 .fallback = "yes",
	 .help = "Lock the file against a second user: another diskfs, QEMU (by its own protocol), "
		 "whoever uses flock. Several may use it read-only"},
	{.name = "sector_size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct file_config, sector_size),
	 .flags = OPTION_POWER_OF_TWO,
	 .min = 512,
	 .max = GEOMETRY_SECTOR_MAX,
	 .fallback = "512",
	 .help = "Logical sector size in bytes. An incomplete sector at the end of the file cannot "
		 "be reached"},
	{.name = "physical_sector_size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct file_config, physical_sector_size),
	 .flags = OPTION_POWER_OF_TWO,
	 .min = 512,
	 .max = GEOMETRY_SECTOR_MAX,
	 .help = "Physical sector size in bytes, at least sector_size. The default is the block "
		 "size "
		 "of the file system, at most 4096"},
	{.name = NULL},
};

const struct driver file_driver = {
	.name = "file",
	.summary = "a raw file",
	.options = file_options,
	.config_size = sizeof(struct file_config),
	.state_size = sizeof(struct file),
	.open = file_open,
	.close = file_close,
	.read = file_read,
	.write = file_write,
	.flush = file_flush,
	.unmap = file_unmap,
	.write_zeroes = file_write_zeroes,
	.extent = file_extent,
	.allocated = file_allocated,
	.raw_file = file_raw_file,
	.image = &raw_image,
	.tail = file_tail,
	.resize = file_resize,
	.inspect = file_inspect,
};
