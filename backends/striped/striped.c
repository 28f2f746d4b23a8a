// SPDX-License-Identifier: MIT
/*
 * striped: RAID 0. The disk is cut into chunks; chunk i lies on member i % n, as that member's
 * chunk i / n.
 *
 * Whatever range of the disk a request has, what of it lies on one member is one range there. So a
 * request becomes at most one request to each member, whose scatter list is picked from the chunks'
 * memory: no data is copied. These run at the same time, and all are waited for. The first error in
 * the order of the disk's addresses is the request's, unchanged; since a member answers for its
 * whole range, its error counts from where that range begins. A request inside one chunk goes
 * straight to its member.
 *
 * What members cannot take (large, scattered or misaligned requests, FUA) the core makes fit in
 * front of each. The limits that the disk itself has bound the scatter lists of one request.
 *
 * Flush: of all members. A crash may leave a write that crosses chunks done on some members and not
 * on others, to the granularity of each.
 */
#include "backends/striped/striped.h"
#include <assert.h>
#include <errno.h>
#include "core/buffer.h"
#include "core/report.h"
#include "core/task.h"

/* Of one request. */
#define SEGMENTS_MAX 1024
#define CHUNKS_MAX   1024

/* ---- Where things lie. ---- */

/* How many sectors of member @index lie below sector @sector of the disk. */
static uint64_t member_sectors(const struct disk *disk, uint64_t sector, unsigned index)
{
	const struct striped *striped = disk->state;
	uint64_t number = sector / striped->chunk;
	uint64_t row = number / disk->below_count, column = number % disk->below_count;
	uint64_t in_row = 0;

	if (index < column)
		in_row = striped->chunk;
	else if (index == column)
		in_row = sector % striped->chunk;
	return row * striped->chunk + in_row;
}

/* The sector of the disk that is sector @sector of member @index. */
static uint64_t sector_of_member(const struct disk *disk, uint64_t sector, unsigned index)
{
	const struct striped *striped = disk->state;
	uint64_t row = sector / striped->chunk;

	return (row * disk->below_count + index) * striped->chunk + sector % striped->chunk;
}

/* ---- Requests. ---- */

/* What of a request lies on one member. */
struct piece {
	struct disk *member;
	uint64_t sector, count; /* of the member */
	unsigned flags;
	struct sg sg; /* of a read or write */
};

/* The storage of a request that touches several members: too much for a stack. */
struct pieces {
	struct piece pieces[STRIPED_MEMBERS_MAX];
	unsigned segments; /* of iov, in use */
	/* Every segment of the request, and one more where a chunk ends inside of one. */
	struct iovec iov[SEGMENTS_MAX + CHUNKS_MAX];
};

_Static_assert(sizeof(struct pieces) <= BUFFER_HEADER + BUFFER_PAYLOAD, "fits a buffer");

static int piece_read(void *argument)
{
	const struct piece *piece = argument;

	return disk_read(piece->member, &piece->sg, piece->sector);
}

static int piece_write(void *argument)
{
	const struct piece *piece = argument;

	return disk_write(piece->member, &piece->sg, piece->sector, piece->flags);
}

static int piece_unmap(void *argument)
{
	const struct piece *piece = argument;

	return disk_unmap(piece->member, piece->sector, piece->count);
}

static int piece_write_zeroes(void *argument)
{
	const struct piece *piece = argument;

	return disk_write_zeroes(piece->member, piece->sector, piece->count, piece->flags);
}

/* The piece of [@sector, @sector + @count) that lies on member @index. */
static struct piece piece_of(const struct disk *disk, unsigned index, uint64_t sector,
			     uint64_t count, unsigned flags)
{
	uint64_t first = member_sectors(disk, sector, index);

	return (struct piece){
		.member = disk->below[index],
		.sector = first,
		.count = member_sectors(disk, sector + count, index) - first,
		.flags = flags,
	};
}

/* The memory of one member: @length bytes of @sg, and then a chunk of every row. */
static struct sg pick_segments(const struct disk *disk, struct pieces *pieces, struct sg sg,
			       size_t length)
{
	const struct striped *striped = disk->state;
	size_t chunk = striped->chunk << disk_sector_shift(disk);
	size_t others = (disk->below_count - 1) * chunk;
	struct sg picked = {.iov = &pieces->iov[pieces->segments]};

	while (sg.len > 0) {
		struct sg part = sg_slice(&sg, 0, min_u64(length, sg.len));
		size_t bytes, skip = min_u64(length + others, sg.len);

		pieces->segments +=
			sg_iovecs(&part, &pieces->iov[pieces->segments],
				  (unsigned)ARRAY_SIZE(pieces->iov) - pieces->segments, &bytes);
		assert(bytes == part.len);
		picked.len += bytes;
		sg = sg_slice(&sg, skip, sg.len - skip);
		length = chunk;
	}
	return picked;
}

/* Gives the pieces of a request, which begins in sector @sector, their memory. */
static void cut_segments(const struct disk *disk, struct pieces *pieces, unsigned count,
			 const struct sg *sg, uint64_t sector)
{
	const struct striped *striped = disk->state;
	unsigned shift = disk_sector_shift(disk);
	size_t offset = 0, length = (striped->chunk - sector % striped->chunk) << shift;

	pieces->segments = 0;
	for (unsigned i = 0; i < count; i++) {
		pieces->pieces[i].sg =
			pick_segments(disk, pieces, sg_slice(sg, offset, sg->len - offset), length);
		offset += length;
		length = striped->chunk << shift;
	}
}

/* Does a request that crosses chunks; @sg is NULL where there is no data. */
static int stripe_many(struct disk *disk, const struct sg *sg, uint64_t sector, uint64_t count,
		       unsigned flags, int (*function)(void *piece))
{
	const struct striped *striped = disk->state;
	uint64_t first = sector / striped->chunk, last = (sector + count - 1) / striped->chunk;
	unsigned touched = (unsigned)min_u64(last - first + 1, disk->below_count);
	struct pieces *pieces = buffer_get();
	struct task_group group = {0};
	int error;

	if (!pieces)
		return error_io(ENOMEM);
	for (unsigned i = 0; i < touched; i++)
		pieces->pieces[i] = piece_of(disk, (unsigned)((first + i) % disk->below_count),
					     sector, count, flags);
	if (sg)
		cut_segments(disk, pieces, touched, sg, sector);
	for (unsigned i = 0; i < touched; i++)
		task_group_start(&group, function, &pieces->pieces[i]);
	error = task_group_wait(&group);
	buffer_put_touched(pieces, sizeof(*pieces));
	return error;
}

static int stripe(struct disk *disk, const struct sg *sg, uint64_t sector, uint64_t count,
		  unsigned flags, int (*function)(void *piece))
{
	const struct striped *striped = disk->state;
	uint64_t number = sector / striped->chunk, in_chunk = sector % striped->chunk;

	if (disk->below_count > 1 && count > striped->chunk - in_chunk)
		return stripe_many(disk, sg, sector, count, flags, function);

	struct piece piece = {
		.member = disk->below[number % disk->below_count],
		.sector = number / disk->below_count * striped->chunk + in_chunk,
		.count = count,
		.flags = flags,
	};

	if (sg)
		piece.sg = *sg;
	return function(&piece);
}

static int striped_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	return stripe(disk, sg, sector, sg->len >> disk_sector_shift(disk), 0, piece_read);
}

static int striped_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	return stripe(disk, sg, sector, sg->len >> disk_sector_shift(disk), flags, piece_write);
}

static int striped_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	return stripe(disk, NULL, sector, count, 0, piece_unmap);
}

static int striped_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	return stripe(disk, NULL, sector, count, flags, piece_write_zeroes);
}

static int member_flush(void *argument)
{
	return disk_flush(argument);
}

static int striped_flush(struct disk *disk)
{
	struct task_group group = {0};

	for (unsigned i = 0; i < disk->below_count; i++)
		task_group_start(&group, member_flush, disk->below[i]);
	return task_group_wait(&group);
}

/* ---- All members as one. ---- */

/*
 * The run ends where the first of the members' runs ends. Each member is asked once, for what of it
 * lies in the run that is left, so a long hole over many chunks costs no more than a short one.
 */
static int striped_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	const struct striped *striped = disk->state;
	uint64_t number = sector / striped->chunk, begin = sector, end = sector + count;
	struct extent found = {.kind = EXTENT_DATA};

	for (unsigned i = 0; i < disk->below_count && begin < end; i++) {
		unsigned index = (unsigned)((number + i) % disk->below_count);
		struct piece piece = piece_of(disk, index, begin, end - begin, 0);
		enum extent_kind kind = found.kind;
		int error = disk_extent(piece.member, piece.sector, piece.count, &found);

		if (error)
			return error;
		if (i > 0 && found.kind != kind) {
			found.kind = kind;
			end = begin;
		} else if (found.count < piece.count) {
			end = sector_of_member(disk, piece.sector + found.count, index);
		}
		begin = (number + i + 1) * striped->chunk;
	}
	*extent = (struct extent){.kind = found.kind, .count = end - sector};
	return 0;
}

static int striped_allocated(struct disk *disk, uint64_t *bytes)
{
	uint64_t sum = 0, member;

	for (unsigned i = 0; i < disk->below_count; i++) {
		int error = disk_allocated(disk->below[i], &member);

		if (error)
			return error;
		sum += member;
	}
	*bytes = sum;
	return 0;
}

static int striped_eject(struct disk *disk)
{
	int result = 0;

	for (unsigned i = 0; i < disk->below_count; i++) {
		int error = disk_eject(disk->below[i]);

		if (!result)
			result = error;
	}
	return result;
}

/* ---- Life. ---- */

static int check_sector_sizes(const struct disk *disk, struct err *err)
{
	const struct disk *first = disk->below[0];

	for (unsigned i = 1; i < disk->below_count; i++) {
		const struct disk *member = disk->below[i];

		if (disk_sector_size(member) != disk_sector_size(first))
			return err_set_key(err, "below",
					   "the sectors of '%s' have %u bytes, those of '%s' %u: "
					   "they must be equal",
					   member->name, disk_sector_size(member), first->name,
					   disk_sector_size(first));
	}
	return 0;
}

/* Members of different sizes are likely to be a mistake, unless it is said how much is wanted. */
static int check_member_sizes(const struct disk *disk, struct err *err)
{
	const struct striped_config *config = disk->config;
	const struct disk *first = disk->below[0];

	for (unsigned i = 0; i < disk->below_count; i++) {
		const struct disk *member = disk->below[i];

		if (config->size == 0 && disk_sector_count(member) != disk_sector_count(first))
			return err_set_key(err, "below",
					   "'%s' has %llu bytes, '%s' %llu: they must be equal, or "
					   "size must say how large the disk is to be",
					   member->name, (unsigned long long)disk_size(member),
					   first->name, (unsigned long long)disk_size(first));
		if (disk_size(member) < config->chunk_size)
			return err_set_key(err, "below",
					   "'%s' has %llu bytes, less than a chunk of %llu",
					   member->name, (unsigned long long)disk_size(member),
					   (unsigned long long)config->chunk_size);
	}
	return 0;
}

static int check_multiple(const char *key, uint64_t bytes, uint32_t sector_size, struct err *err)
{
	if (bytes % sector_size == 0)
		return 0;
	return err_set_key(err, key, "%llu is no multiple of the sector size of %u",
			   (unsigned long long)bytes, sector_size);
}

static int set_size(struct disk *disk, struct err *err)
{
	const struct striped_config *config = disk->config;
	struct striped *striped = disk->state;
	uint32_t sector_size = disk->geometry.sector_size;
	uint64_t count = striped_members_count(disk);

	striped->max = (uint64_t)INT64_MAX / sector_size;
	if (count > striped->max)
		return err_set_key(err, "below", "together larger than a disk can be");
	if (config->size / sector_size > count)
		return err_set_key(err, "size",
				   "more than the %llu bytes of the members' whole chunks",
				   (unsigned long long)(count * sector_size));
	if (config->size > 0)
		striped->max = config->size / sector_size;
	disk_set_sector_count(disk, min_u64(count, striped->max));
	return 0;
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
	while (b > 0) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/*
 * The least range of the disk, in sectors, whose unmap gives back all that it covers if it begins
 * at a multiple of its length, where a member needs ranges of @member sectors: the same where it
 * divides a chunk, else whole rows that make whole ranges of the member.
 */
static uint32_t unmap_unit(const struct disk *disk, uint32_t member)
{
	uint64_t chunk = ((const struct striped *)disk->state)->chunk, rows;

	if (chunk % member == 0)
		return member;
	/* What its type cannot tell is told as the most that it can. */
	rows = min_u64(chunk / greatest_common_divisor(chunk, member), UINT32_MAX) * member;
	return (uint32_t)min_u64(min_u64(rows, UINT32_MAX) * disk->below_count, UINT32_MAX);
}

/* What is true of the whole: the weakest of the members, where they differ. */
static void fold_geometry(struct disk *disk)
{
	const struct striped_config *config = disk->config;
	struct disk_geometry *geometry = &disk->geometry;

	*geometry = (struct disk_geometry){
		.sector_size = disk_sector_size(disk->below[0]),
		.unmap = disk->below[0]->geometry.unmap,
		/* A member that does not respect it is flushed behind its piece. */
		.fua = true,
		.resizable = config->size > 0 ? RESIZABLE_NO : RESIZABLE_SHRINK,
		.max_segments = SEGMENTS_MAX,
		.max_transfer = min_u64(config->chunk_size, GIB) * CHUNKS_MAX,
	};
	for (unsigned i = 0; i < disk->below_count; i++) {
		const struct disk_geometry *member = &disk->below[i]->geometry;

		geometry->physical_sector_size = (uint32_t)max_u64(geometry->physical_sector_size,
								   member->physical_sector_size);
		geometry->read_only |= member->read_only;
		if (member->resizable < geometry->resizable)
			geometry->resizable = member->resizable;
		if (member->unmap != geometry->unmap)
			geometry->unmap = UNMAP_UNSPECIFIED;
		geometry->optimal_unmap_sectors =
			(uint32_t)max_u64(geometry->optimal_unmap_sectors,
					  unmap_unit(disk, member->optimal_unmap_sectors));
	}
}

static int striped_open(struct disk *disk, struct err *err)
{
	const struct striped_config *config = disk->config;
	struct striped *striped = disk->state;
	uint32_t sector_size = disk_sector_size(disk->below[0]);

	if (check_sector_sizes(disk, err) < 0 ||
	    check_multiple("chunk_size", config->chunk_size, sector_size, err) < 0 ||
	    check_multiple("size", config->size, sector_size, err) < 0 ||
	    check_member_sizes(disk, err) < 0)
		return -1;
	striped->chunk = config->chunk_size / sector_size;
	task_mutex_init(&striped->wish_mutex);
	task_mutex_init(&striped->count_mutex);
	striped->mutexes_made = true;
	fold_geometry(disk);
	return set_size(disk, err);
}

static void striped_close(struct disk *disk)
{
	struct striped *striped = disk->state;

	if (!striped->mutexes_made)
		return;
	task_mutex_destroy(&striped->wish_mutex);
	task_mutex_destroy(&striped->count_mutex);
}

static void striped_inspect(struct disk *disk, struct report *report)
{
	const struct striped_config *config = disk->config;

	report_u64(report, "members", disk->below_count);
	report_bytes(report, "chunk_size", config->chunk_size);
}

static const struct option striped_options[] = {
	{.name = "chunk_size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct striped_config, chunk_size),
	 .min = 512,
	 .max = INT64_MAX,
	 .fallback = "128K",
	 .help = "How much lies on one disk before the next has its turn, a multiple of the sector "
		 "size"},
	{.name = "size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct striped_config, size),
	 .min = 512,
	 .max = INT64_MAX,
	 .help = "Size of the disk, a multiple of the sector size. The default is all whole chunks "
		 "of the disks below, which must be of equal size then"},
	{.name = NULL},
};

const struct driver striped_driver = {
	.name = "striped",
	.summary = "stripes over several disks (RAID 0)",
	.options = striped_options,
	.config_size = sizeof(struct striped_config),
	.state_size = sizeof(struct striped),
	.below_min = 1,
	.below_max = STRIPED_MEMBERS_MAX,
	.open = striped_open,
	.close = striped_close,
	.read = striped_read,
	.write = striped_write,
	.flush = striped_flush,
	.unmap = striped_unmap,
	.write_zeroes = striped_write_zeroes,
	.extent = striped_extent,
	.allocated = striped_allocated,
	.eject = striped_eject,
	.below_resized = striped_below_resized,
	.resize = striped_resize,
	.inspect = striped_inspect,
};
