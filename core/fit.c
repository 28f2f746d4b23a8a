// SPDX-License-Identifier: MIT
#include "core/fit.h"
#include <errno.h>
#include "core/buffer.h"
#include "core/task.h"

/* Pieces of one request that are under way at once. */
#define PIECES_MAX 8

/* A part of a request that is no larger than the driver takes. */
struct piece {
	struct disk *disk;
	struct sg sg;
	uint64_t sector;
	unsigned flags;
	bool is_write;
};

static int piece_transfer(const struct piece *piece, const struct sg *sg)
{
	const struct driver *driver = piece->disk->driver;

	return piece->is_write ? driver->write(piece->disk, sg, piece->sector, piece->flags)
			       : driver->read(piece->disk, sg, piece->sector);
}

/* Whether the driver can take the memory of @sg as it is. */
static bool fits_memory(const struct disk_geometry *geometry, const struct sg *sg)
{
	if (geometry->length_align > 1 &&
	    !sg_is_aligned(sg, geometry->memory_align, geometry->length_align))
		return false;
	return geometry->max_segments == 0 || sg_segments(sg) <= geometry->max_segments;
}

static int piece_bounce(const struct piece *piece)
{
	char *buffer = buffer_get();
	struct iovec iov;

	if (!buffer)
		return error_io(ENOMEM);

	struct sg bounce = sg_of(&iov, buffer + BUFFER_HEADER, piece->sg.len);

	if (piece->is_write)
		sg_copy_to(&piece->sg, iov.iov_base);

	int error = piece_transfer(piece, &bounce);

	if (!error && !piece->is_write)
		sg_copy_from(&piece->sg, iov.iov_base);
	buffer_put_touched(buffer, BUFFER_HEADER + piece->sg.len);
	return error;
}

static int piece_run(void *argument)
{
	const struct piece *piece = argument;

	if (fits_memory(&piece->disk->geometry, &piece->sg))
		return piece_transfer(piece, &piece->sg);
	return piece_bounce(piece);
}

/*
 * The size of the pieces that @sg has to be cut into; at least a sector. Memory that fits is cut
 * where its pieces fit too; all else is small enough for a bounce buffer.
 */
static size_t piece_size(const struct disk_geometry *geometry, const struct sg *sg)
{
	uint64_t size = sg->len;

	if (geometry->max_transfer > 0 && size > geometry->max_transfer) {
		size = geometry->max_transfer;
		if (size > geometry->length_align)
			size = align_down(size,
					  max_u64(geometry->length_align, geometry->sector_size));
	}
	if (!fits_memory(geometry, sg))
		size = min_u64(size, BUFFER_PAYLOAD);
	return size;
}

static int fit_transfer(const struct piece *whole)
{
	struct disk *disk = whole->disk;
	size_t size = piece_size(&disk->geometry, &whole->sg);
	size_t done = 0;
	int error = 0;

	while (!error && done < whole->sg.len) {
		struct piece pieces[PIECES_MAX];
		struct task_group group = {0};

		for (unsigned i = 0; i < PIECES_MAX && done < whole->sg.len; i++) {
			size_t length = min_u64(size, whole->sg.len - done);

			pieces[i] = *whole;
			pieces[i].sg = sg_slice(&whole->sg, done, length);
			pieces[i].sector = whole->sector + (done >> disk_sector_shift(disk));
			done += length;
			task_group_start(&group, piece_run, &pieces[i]);
		}
		error = task_group_wait(&group);
	}
	return error;
}

/* The one case that matters for speed: the request is a single piece and goes straight to the
 * driver. */
static int fit_or_transfer(const struct piece *whole)
{
	const struct disk_geometry *geometry = &whole->disk->geometry;

	if ((geometry->max_transfer == 0 || whole->sg.len <= geometry->max_transfer) &&
	    fits_memory(geometry, &whole->sg))
		return piece_transfer(whole, &whole->sg);
	return fit_transfer(whole);
}

int fit_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	if (!disk->driver->read)
		return error_of(ERROR_UNSUPPORTED);
	return fit_or_transfer(&(struct piece){.disk = disk, .sg = *sg, .sector = sector});
}

int fit_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	if (!disk->driver->write)
		return error_of(ERROR_UNSUPPORTED);
	return fit_or_transfer(&(struct piece){
		.disk = disk, .sg = *sg, .sector = sector, .flags = flags, .is_write = true});
}

/* Zeros to write: the same block again and again. A multiple of any sector size
 * (GEOMETRY_SECTOR_MAX). */
static const char zero_block[64 * KIB] __attribute__((aligned(4096)));
#define ZERO_BLOCKS 16

static int write_zero_blocks(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	unsigned shift = disk_sector_shift(disk);
	struct iovec iov[ZERO_BLOCKS];

	for (unsigned i = 0; i < ZERO_BLOCKS; i++)
		iov[i] = (struct iovec){.iov_base = (void *)(uintptr_t)zero_block,
					.iov_len = sizeof(zero_block)};
	while (count > 0) {
		uint64_t sectors = min_u64(count, ZERO_BLOCKS * sizeof(zero_block) >> shift);
		struct sg sg = {.iov = iov, .len = sectors << shift};
		int error = fit_write(disk, &sg, sector, flags);

		if (error)
			return error;
		sector += sectors;
		count -= sectors;
		/* A long run must not keep the worker from its other tasks. */
		if (count > 0)
			task_yield();
	}
	return 0;
}

int fit_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	const struct driver *driver = disk->driver;
	int error = error_of(ERROR_UNSUPPORTED);

	if (driver->write_zeroes)
		error = driver->write_zeroes(disk, sector, count, flags);
	else if ((flags & DISK_MAY_UNMAP) && !(flags & DISK_FUA) && driver->unmap &&
		 disk->geometry.unmap == UNMAP_ZEROES)
		error = driver->unmap(disk, sector, count);
	if (error_kind(error) == ERROR_UNSUPPORTED)
		error = write_zero_blocks(disk, sector, count, flags & DISK_FUA);
	return error;
}
