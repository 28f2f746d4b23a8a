// SPDX-License-Identifier: MIT
/*
 * A request by bytes covers whole sectors, except perhaps the first and the last: those two are the
 * *edges*. They pass through a bounce buffer; what lies between goes straight from or to the
 * caller's memory.
 *
 * A write with an edge holds its sectors exclusively from the read to the write; a write without,
 * shared. So no write is between the two halves of a read-modify-write, and writes of whole sectors
 * do not hinder one another.
 */
#include "core/bytes.h"
#include <errno.h>
#include <string.h>
#include "core/buffer.h"

/* A byte range of a disk as sectors: [first, first + count), and how far it stays inside them. */
struct span {
	uint64_t first, count;
	size_t before; /* bytes of the first sector in front of the range */
	size_t after;  /* bytes of the last sector behind it */
};

static int span_of(const struct disk *disk, uint64_t offset, uint64_t length, struct span *span)
{
	unsigned shift = disk_sector_shift(disk);
	uint64_t mask = disk_sector_size(disk) - 1;
	uint64_t end;

	if (__builtin_add_overflow(offset, length, &end) || end > disk_size(disk))
		return error_of(ERROR_ILLEGAL_BLOCK);
	span->first = offset >> shift;
	span->count = ((end + mask) >> shift) - span->first;
	span->before = offset & mask;
	span->after = (-end) & mask;
	return 0;
}

static bool span_is_whole(const struct span *span)
{
	return span->before == 0 && span->after == 0;
}

/*
 * The sectors of a span in memory: [head edge][caller's data][tail edge], empty parts left out. A
 * span of one sector has only a head. The edges lie in @bounce, of two sectors.
 */
struct edges {
	struct iovec iov[3];
	struct sg sg;
	char *head, *tail;	   /* a sector of bounce memory each, or NULL */
	size_t head_len, tail_len; /* bytes of the range in each */
};

static void edges_of(const struct disk *disk, const struct span *span, char *data, size_t length,
		     char *bounce, struct edges *edges)
{
	size_t sector = disk_sector_size(disk);
	unsigned parts = 0;

	memset(edges, 0, sizeof(*edges));
	if (span->before > 0 || (span->count == 1 && span->after > 0)) {
		edges->head = bounce;
		edges->head_len = min_u64(sector - span->before, length);
		edges->iov[parts++] = (struct iovec){edges->head, sector};
	}
	if (span->after > 0 && !(edges->head && span->count == 1)) {
		edges->tail = bounce + sector;
		edges->tail_len = sector - span->after;
	}

	size_t middle = length - edges->head_len - edges->tail_len;

	if (middle > 0)
		edges->iov[parts++] = (struct iovec){data + edges->head_len, middle};
	if (edges->tail)
		edges->iov[parts++] = (struct iovec){edges->tail, sector};
	edges->sg = (struct sg){.iov = edges->iov, .len = span->count << disk_sector_shift(disk)};
}

int disk_read_bytes(struct disk *disk, void *data, size_t length, uint64_t offset)
{
	struct span span;
	struct edges edges;
	struct iovec iov;
	int error = span_of(disk, offset, length, &span);

	if (error || length == 0)
		return error;
	if (span_is_whole(&span)) {
		struct sg sg = sg_of(&iov, data, length);

		return disk_read(disk, &sg, span.first);
	}

	char *buffer = buffer_get();

	if (!buffer)
		return error_io(ENOMEM);
	edges_of(disk, &span, data, length, buffer + BUFFER_HEADER, &edges);
	error = disk_read(disk, &edges.sg, span.first);
	if (!error && edges.head)
		memcpy(data, edges.head + span.before, edges.head_len);
	if (!error && edges.tail)
		memcpy((char *)data + length - edges.tail_len, edges.tail, edges.tail_len);
	buffer_put_touched(buffer, BUFFER_HEADER + 2 * (size_t)disk_sector_size(disk));
	return error;
}

static int edge_read(struct disk *disk, char *edge, uint64_t sector)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, edge, disk_sector_size(disk));

	return edge ? disk_read(disk, &sg, sector) : 0;
}

/* Read, modify, write; the span is held exclusively. */
static int write_edges(struct disk *disk, const struct span *span, const char *data, size_t length,
		       unsigned flags)
{
	char *buffer = buffer_get();
	struct edges edges;

	if (!buffer)
		return error_io(ENOMEM);
	/* Only written from; the iovec just cannot say so. */
	edges_of(disk, span, (char *)(uintptr_t)data, length, buffer + BUFFER_HEADER, &edges);

	int error = edge_read(disk, edges.head, span->first);

	if (!error)
		error = edge_read(disk, edges.tail, span->first + span->count - 1);
	if (!error && edges.head)
		memcpy(edges.head + span->before, data, edges.head_len);
	if (!error && edges.tail)
		memcpy(edges.tail, data + length - edges.tail_len, edges.tail_len);
	if (!error)
		error = disk_write(disk, &edges.sg, span->first, flags);
	buffer_put_touched(buffer, BUFFER_HEADER + 2 * (size_t)disk_sector_size(disk));
	return error;
}

static int write_whole(struct disk *disk, const struct span *span, const char *data, size_t length,
		       unsigned flags)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, (char *)(uintptr_t)data, length);

	return disk_write(disk, &sg, span->first, flags);
}

/* Before any edge is read, and for requests of length 0 too. */
static int check_writable(const struct disk *disk)
{
	return disk_is_read_only(disk) ? error_of(ERROR_READ_ONLY) : 0;
}

int disk_write_bytes(struct disk *disk, const void *data, size_t length, uint64_t offset,
		     unsigned flags)
{
	struct range_lock *lock = disk->core.byte_lock;
	struct span span;
	struct range range;
	int error = check_writable(disk);

	if (!error)
		error = span_of(disk, offset, length, &span);
	if (error || length == 0)
		return error;

	bool whole = span_is_whole(&span);

	range_lock_hold(lock, &range, span.first, span.first + span.count,
			whole ? RANGE_SHARED : RANGE_EXCLUSIVE);
	error = whole ? write_whole(disk, &span, data, length, flags)
		      : write_edges(disk, &span, data, length, flags);
	range_lock_release(lock, &range);
	return error;
}

/* Zeros in a part of one sector. */
static int zero_edge(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
	static const char zeros[GEOMETRY_SECTOR_MAX];

	return disk_write_bytes(disk, zeros, length, offset, flags & DISK_FUA);
}

static int zero_whole(struct disk *disk, uint64_t first, uint64_t count, unsigned flags)
{
	struct range range;

	range_lock_hold(disk->core.byte_lock, &range, first, first + count, RANGE_SHARED);

	int error = disk_write_zeroes(disk, first, count, flags);

	range_lock_release(disk->core.byte_lock, &range);
	return error;
}

int disk_zero_bytes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
	uint64_t sector_size = disk_sector_size(disk);
	unsigned shift = disk_sector_shift(disk);
	struct span span;
	int error = check_writable(disk);

	if (!error)
		error = span_of(disk, offset, length, &span);
	if (error || length == 0)
		return error;

	uint64_t end = offset + length;
	uint64_t whole = align_up(offset, sector_size);
	uint64_t whole_end = align_down(end, sector_size);

	if (whole >= whole_end) {
		/* Two edges at most, with no whole sector between them. */
		uint64_t cut = min_u64(whole, end);

		error = zero_edge(disk, offset, cut - offset, flags);
		return error ? error : zero_edge(disk, cut, end - cut, flags);
	}
	error = zero_edge(disk, offset, whole - offset, flags);
	if (!error)
		error = zero_whole(disk, whole >> shift, (whole_end - whole) >> shift, flags);
	if (!error)
		error = zero_edge(disk, whole_end, end - whole_end, flags);
	return error;
}
