// SPDX-License-Identifier: MIT
/*
 * Writes to an image: to the slots of the blocks that they touch, which are allocated where there are
 * none. The file hears of new slots and valid sectors with the next flush.
 */
#include <errno.h>
#include "backends/vhd/image.h"
#include "core/task.h"

/* Gives a block that is owned a slot. Of a dynamic image all of it is valid: it is zeros. */
static int allocate(struct vhd_image *image, uint32_t block)
{
	struct presence *presence = PRESENCE_FULL;
	uint32_t place;
	int error;

	if (image->footer.type == VHD_DIFFERENCING)
		presence = presence_new(image);
	if (!presence)
		return error_io(ENOMEM);
	error = space_get(image, &place);
	if (error) {
		presence_free(presence);
		return error;
	}
	atomic_store(&image->blocks[block].presence, presence);
	atomic_store(&image->blocks[block].place, place);
	atomic_fetch_add(&image->allocated, 1);
	block_set_dirty(image, block);
	return 0;
}

int block_share_allocated(struct vhd_image *image, uint32_t block)
{
	int error = block_share_known(image, block);

	if (error || block_place(image, block) != NO_PLACE)
		return error;
	block_unshare(image, block);
	block_own(image, block);
	if (block_place(image, block) == NO_PLACE)
		error = allocate(image, block);
	if (error) {
		block_disown(image, block);
		return error;
	}
	block_downgrade(image, block);
	return 0;
}

void block_give_up(struct vhd_image *image, uint32_t block)
{
	struct presence *presence;
	uint32_t place;

	block_own(image, block);
	place = block_place(image, block);
	if (place != NO_PLACE) {
		presence = atomic_exchange(&image->blocks[block].presence, PRESENCE_UNKNOWN);
		atomic_store(&image->blocks[block].place, NO_PLACE);
		atomic_fetch_sub(&image->allocated, 1);
		block_set_dirty(image, block);
		space_put(image, place);
		presence_free(presence);
	}
	block_disown(image, block);
}

/* ---- Writes. ---- */

/* What of a write is in one block. */
struct piece {
	struct vhd_image *image;
	uint32_t block, first; /* sectors */
	struct sg sg;
};

static int piece_write(void *argument)
{
	const struct piece *piece = argument;
	struct vhd_image *image = piece->image;
	int error = block_share_allocated(image, piece->block);

	if (error)
		return error;
	error = disk_write(image->below, &piece->sg,
			   (uint64_t)block_place(image, piece->block) +
				   image->layout.bitmap_sectors + piece->first,
			   0);
	if (!error)
		presence_set(image, piece->block, piece->first,
			     (uint32_t)(piece->sg.len / VHD_SECTOR));
	block_unshare(image, piece->block);
	return error;
}

/* Takes what is in the first block off @rest. */
static struct piece piece_take(struct vhd_image *image, struct sg *rest, uint64_t sector)
{
	uint32_t mask = image->layout.block_sectors - 1, first = (uint32_t)sector & mask;
	uint64_t room = (uint64_t)(image->layout.block_sectors - first) * VHD_SECTOR;

	return (struct piece){
		.image = image,
		.block = (uint32_t)(sector >> image->block_shift),
		.first = first,
		.sg = sg_take(rest, min_u64(room, rest->len)),
	};
}

#define PIECES_MAX 8

int vhd_image_write(struct vhd_image *image, const struct sg *sg, uint64_t sector, unsigned flags)
{
	struct piece pieces[PIECES_MAX];
	struct sg rest = *sg;
	int error = 0;

	if (vhd_image_is_fixed(image))
		return disk_write(image->below, sg, sector, flags);
	pieces[0] = piece_take(image, &rest, sector);
	if (rest.len == 0)
		return piece_write(&pieces[0]);
	rest = *sg;
	while (!error && rest.len > 0) {
		struct task_group group = {0};

		for (unsigned i = 0; i < PIECES_MAX && rest.len > 0; i++) {
			pieces[i] = piece_take(image, &rest, sector);
			sector += pieces[i].sg.len / VHD_SECTOR;
			task_group_start(&group, piece_write, &pieces[i]);
		}
		error = task_group_wait(&group);
	}
	return error;
}
