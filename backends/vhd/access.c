// SPDX-License-Identifier: MIT
/*
 * Requests to a chain of images.
 *
 * A read goes down the chain until an image has the sector. What lies beyond the end of an image is
 * zeros, whatever is below it, and so is what the last has not. While data is read, the lock of its
 * block is held, so that the slot is not given to another block meanwhile.
 *
 * To give up a block, or not to write zeros where nothing is, is only right where what would shine
 * through reads as zeros: in a dynamic image always, else where the parent has a hole.
 */
#include "backends/vhd/vhd.h"
#include "core/task.h"

/* A run of sectors in one place. */
struct found {
	struct vhd_image *image; /* NULL: nowhere, it reads as zeros */
	uint64_t file_sector;
	uint64_t count;
	uint32_t block;
	bool shared; /* we share the block */
};

/* Blocks without a slot that are counted in one go. */
#define EMPTY_MAX 65536U

/* How many sectors from @sector on, at most @count, are in blocks without a slot. */
static uint64_t empty_run(const struct vhd_image *image, uint64_t sector, uint64_t count)
{
	uint64_t block = sector >> image->block_shift;
	uint64_t last = min_u64((sector + count - 1) >> image->block_shift, block + EMPTY_MAX);

	while (block <= last && block_place(image, (uint32_t)block) == NO_PLACE)
		block++;
	return block > last ? min_u64(count, (block << image->block_shift) - sector)
			    : (block << image->block_shift) - sector;
}

/* 1: the image has *found; 0: it has not, of found->count sectors; or an error. */
static int search_image(struct vhd_image *image, uint64_t sector, struct found *found)
{
	uint32_t block, first, count;
	int error;

	if (vhd_image_is_fixed(image)) {
		found->image = image;
		found->file_sector = sector;
		return 1;
	}
	block = (uint32_t)(sector >> image->block_shift);
	first = (uint32_t)sector & (image->layout.block_sectors - 1);
	if (block_place(image, block) == NO_PLACE) {
		uint64_t run = empty_run(image, sector, found->count);

		if (run > 0) {
			found->count = run;
			return 0;
		}
	}
	error = block_share_known(image, block);
	if (error)
		return error;
	count = (uint32_t)min_u64(found->count, image->layout.block_sectors - first);
	if (block_place(image, block) == NO_PLACE ||
	    !presence_run(image, block, first, count, &count)) {
		block_unshare(image, block);
		found->count = count;
		return 0;
	}
	found->image = image;
	found->count = count;
	found->file_sector =
		(uint64_t)block_place(image, block) + image->layout.bitmap_sectors + first;
	found->block = block;
	found->shared = true;
	return 1;
}

/*
 * Where sectors from @sector on are, as seen by image number @index, for at most @count. To be left
 * by found_leave(). 0 or an error.
 */
static int search(const struct vhd *vhd, unsigned index, uint64_t sector, uint64_t count,
		  struct found *found)
{
	*found = (struct found){.count = count};
	for (; index < vhd->depth; index++) {
		struct vhd_image *image = vhd->chain[index];
		int result;

		if (sector >= image->sectors)
			return 0;
		found->count = min_u64(found->count, image->sectors - sector);
		result = search_image(image, sector, found);
		if (result != 0)
			return result < 0 ? result : 0;
	}
	return 0;
}

static void found_leave(const struct found *found)
{
	if (found->shared)
		block_unshare(found->image, found->block);
}

/* ---- Reads. ---- */

static int found_read(const struct found *found, const struct sg *sg)
{
	if (found->image)
		return disk_read(found->image->below, sg, found->file_sector);
	sg_zero(sg);
	return 0;
}

struct piece {
	const struct vhd *vhd;
	struct sg sg;
	uint64_t sector;
};

static int piece_read(void *argument)
{
	const struct piece *piece = argument;
	struct sg rest = piece->sg;
	uint64_t sector = piece->sector;
	int error = 0;

	while (!error && rest.len > 0) {
		struct found found;
		struct sg sg;

		error = search(piece->vhd, 0, sector, rest.len / VHD_SECTOR, &found);
		if (error)
			break;
		sg = sg_take(&rest, found.count * VHD_SECTOR);
		error = found_read(&found, &sg);
		found_leave(&found);
		sector += found.count;
	}
	return error;
}

/* Runs of one request that are read at the same time. */
#define PIECES_MAX 16

/* Cuts a read where another place begins, as it is now; each piece looks for itself again. */
static int read_pieces(const struct vhd *vhd, const struct sg *sg, uint64_t sector)
{
	struct piece pieces[PIECES_MAX];
	struct sg rest = *sg;
	int error = 0;

	while (!error && rest.len > 0) {
		struct task_group group = {0};
		int failed;

		for (unsigned i = 0; i < PIECES_MAX && rest.len > 0; i++) {
			struct found found;

			error = search(vhd, 0, sector, rest.len / VHD_SECTOR, &found);
			if (error)
				break;
			found_leave(&found);
			pieces[i] = (struct piece){
				.vhd = vhd,
				.sg = sg_take(&rest, found.count * VHD_SECTOR),
				.sector = sector,
			};
			sector += found.count;
			task_group_start(&group, piece_read, &pieces[i]);
		}
		failed = task_group_wait(&group);
		error = failed ? failed : error;
	}
	return error;
}

int vhd_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	const struct vhd *vhd = disk->state;
	uint64_t count = sg->len / VHD_SECTOR;
	struct found found;
	int error = search(vhd, 0, sector, count, &found);

	if (error)
		return error;
	if (found.count == count)
		error = found_read(&found, sg);
	found_leave(&found);
	return error || found.count == count ? error : read_pieces(vhd, sg, sector);
}

/* ---- Writes. ---- */

int vhd_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	const struct vhd *vhd = disk->state;

	return vhd_image_write(vhd->image, sg, sector, flags);
}

int vhd_flush(struct disk *disk)
{
	const struct vhd *vhd = disk->state;

	return vhd_image_flush(vhd->image);
}

/* ---- Zeros. ---- */

/* Whether data in the file reads as zeros because it takes no space: 1 or 0, or an error; in *count
 * for how many sectors. */
static int is_hole(const struct found *found, uint64_t *count)
{
	struct extent extent;
	int error;

	*count = found->count;
	if (!found->image)
		return 1;
	error = disk_extent(found->image->below, found->file_sector, found->count, &extent);
	if (error)
		return error;
	*count = extent.count;
	return extent.kind == EXTENT_HOLE;
}

/* Whether it is sure that what is below the first image reads as zeros: 1 or 0, or an error. */
static int is_zero_below(const struct vhd *vhd, uint64_t sector, uint64_t count)
{
	while (count > 0) {
		struct found found;
		uint64_t run;
		int result = search(vhd, 1, sector, count, &found);

		if (result)
			return result;
		result = is_hole(&found, &run);
		found_leave(&found);
		if (result <= 0)
			return result;
		sector += run;
		count -= run;
	}
	return 1;
}

/* Writes zeros into sectors of a block; one of a dynamic image that has no slot has them. */
static int zero_slot(struct vhd_image *image, uint32_t block, uint32_t first, uint32_t count,
		     bool must_have, unsigned flags)
{
	int error =
		must_have ? block_share_allocated(image, block) : block_share_known(image, block);
	uint32_t place;

	if (error)
		return error;
	place = block_place(image, block);
	if (place != NO_PLACE) {
		error = disk_write_zeroes(image->below,
					  (uint64_t)place + image->layout.bitmap_sectors + first,
					  count, flags & DISK_MAY_UNMAP);
		if (!error)
			presence_set(image, block, first, count);
	}
	block_unshare(image, block);
	return error;
}

/* Makes zeros of @count sectors, from sector @first of a block on. */
static int zero_in_block(const struct vhd *vhd, uint32_t block, uint32_t first, uint32_t count,
			 unsigned flags)
{
	struct vhd_image *image = vhd->image;
	uint64_t sector = ((uint64_t)block << image->block_shift) + first;
	bool is_whole = first == 0 && count == block_sectors(image, block);
	int shines = is_zero_below(vhd, sector, count);

	if (shines < 0)
		return shines;
	if (shines && block_place(image, block) == NO_PLACE)
		return 0;
	if (shines && is_whole && image->may_free && (flags & DISK_MAY_UNMAP)) {
		block_give_up(image, block);
		return 0;
	}
	return zero_slot(image, block, first, count, !shines, flags);
}

/* A block without a slot is no work: many of them are passed before others have their turn. */
#define BLOCKS_IN_TURN 1024U

static int zero_blocks(const struct vhd *vhd, uint64_t sector, uint64_t count, unsigned flags)
{
	const struct vhd_image *image = vhd->image;
	unsigned passed = 0;
	int error = 0;

	while (!error && count > 0) {
		uint32_t block = (uint32_t)(sector >> image->block_shift);
		uint32_t first = (uint32_t)sector & (image->layout.block_sectors - 1);
		uint32_t part = (uint32_t)min_u64(count, image->layout.block_sectors - first);

		error = zero_in_block(vhd, block, first, part, flags);
		sector += part;
		count -= part;
		if (++passed % BLOCKS_IN_TURN == 0)
			task_yield();
	}
	return error;
}

int vhd_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	const struct vhd *vhd = disk->state;

	if (vhd_image_is_fixed(vhd->image))
		return disk_write_zeroes(vhd->image->below, sector, count, flags);
	return zero_blocks(vhd, sector, count, flags);
}

int vhd_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	const struct vhd *vhd = disk->state;

	if (vhd_image_is_fixed(vhd->image))
		return disk_unmap(vhd->image->below, sector, count);
	return zero_blocks(vhd, sector, count, DISK_MAY_UNMAP);
}

/* ---- What is where. ---- */

/* The run of one kind that begins at @sector; in *image who has it, or NULL. */
static int find_extent(const struct disk *disk, uint64_t sector, uint64_t count,
		       struct extent *extent, const struct vhd_image **image)
{
	const struct vhd *vhd = disk->state;
	struct found found;
	int result = search(vhd, 0, sector, count, &found);

	if (result)
		return result;
	result = is_hole(&found, &found.count);
	found_leave(&found);
	if (result < 0)
		return result;
	*extent = (struct extent){.kind = result ? EXTENT_HOLE : EXTENT_DATA, .count = found.count};
	*image = found.image;
	return 0;
}

int vhd_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	const struct vhd_image *image;

	return find_extent(disk, sector, count, extent, &image);
}

/* By the names of the images' files. */
int vhd_part(struct disk *disk, uint64_t sector, uint64_t count, struct disk_part *part)
{
	const struct vhd_image *image = NULL;
	int error = find_extent(disk, sector, count, &part->extent, &image);

	part->name = image ? disk_path(image->below) : NULL;
	if (image && !part->name)
		part->name = image->below->name;
	return error;
}
