// SPDX-License-Identifier: MIT
/*
 * Bitmaps that do not tell what is in their blocks. A sector whose bit is not set was never written:
 * it is the parent's, in a dynamic image zeros. Its place in the file is zeros then, or at least
 * nobody's. A bitmap is *dirty* if the place of such a sector holds something else: a write was
 * interrupted between data and bitmap, the writer keeps no bitmaps, or the file was not zeros where
 * it grew (logical volumes).
 *
 * In a differencing image those data are nobody's, whoever made it: without its bitmaps there is no
 * telling what is the parent's, so every program goes by them, and only what is broken shows the
 * data (libvhdi, of the neighbours of a valid sector; QEMU, which does not know parents). They are
 * replaced by zeros, which changes nothing of the disk.
 *
 * In a dynamic image programs disagree: by the specification it is zeros, but QEMU takes all of a
 * block for valid, and whatever it writes into a block makes it so for all others; 7-Zip takes the image
 * for damaged. To clear the data may destroy what the user has; to set the bit may uncover what was
 * never his. Nor would it help to know who made the image: others have written to it since. So it is
 * told, and left alone.
 *
 * What is not questioned: a bit that is not set over zeros, for both ways of reading give zeros, and
 * so writers leave it that follow the specification; a bit that is set; bits beyond the end of the
 * disk or of the block, which nobody reads.
 */
#include <stdlib.h>
#include <string.h>
#include "backends/vhd/check.h"

#define CHUNK (64 * KIB)

/* Of what looks at blocks: not 0, and not -1, an error. */
#define UNREADABLE 1

/* A bitmap, and what of its block is not as it says. */
struct block_check {
	const struct vhd_slot *slot;
	uint8_t *bitmap;
	uint8_t *data;	       /* CHUNK */
	uint32_t dirty, first; /* sectors of the block: how many, and the first of them */
};

/* What is told, once it is durable. */
struct dirty_blocks {
	struct {
		uint32_t block, sectors, first;
	} told[VHD_TOLD_MAX];
	uint64_t blocks, sectors;
};

static bool is_valid(const uint8_t *bitmap, uint32_t sector)
{
	return bitmap[sector / 8] & 0x80 >> sector % 8;
}

/* What of it is dirty is zeros afterwards, in the file as well if @mend. @first: of the block. */
static int check_chunk(struct vhd_check *check, struct block_check *block, uint32_t first,
		       uint32_t count, bool mend, struct err *err)
{
	uint64_t offset = vhd_slot_data(&check->layout, block->slot, first);
	uint32_t before = block->dirty;

	if (image_file_read(&check->file, block->data, count * (size_t)VHD_SECTOR, offset, err) < 0)
		return UNREADABLE;
	for (uint32_t i = 0; i < count; i++) {
		if (is_zeros(block->data + i * (size_t)VHD_SECTOR, VHD_SECTOR))
			continue;
		if (block->dirty++ == 0)
			block->first = first + i;
	}
	if (!mend || block->dirty == before)
		return 0;
	memset(block->data, 0, count * (size_t)VHD_SECTOR);
	return image_file_write(&check->file, block->data, count * (size_t)VHD_SECTOR, offset, err);
}

/* Sectors of a block that are not valid, all of them. What is in a hole of the file is passed. */
static int check_run(struct vhd_check *check, struct block_check *block, uint32_t first,
		     uint32_t end, bool mend, struct err *err)
{
	uint64_t data = vhd_slot_data(&check->layout, block->slot, 0);
	int result = 0;

	while (first < end && result == 0) {
		uint64_t at =
			image_file_find_data(&check->file, data + first * (uint64_t)VHD_SECTOR,
					     data + end * (uint64_t)VHD_SECTOR);
		uint32_t count;

		first = (uint32_t)((at - data) / VHD_SECTOR);
		count = (uint32_t)min_u64(end - first, CHUNK / VHD_SECTOR);
		if (count > 0)
			result = check_chunk(check, block, first, count, mend, err);
		first += count;
	}
	return result;
}

static int check_block(struct vhd_check *check, struct block_check *block, bool mend,
		       struct err *err)
{
	const struct vhd_layout *layout = &check->layout;
	uint32_t sectors = vhd_slot_sectors(layout, block->slot->block) - layout->bitmap_sectors;
	uint32_t end;
	int result = 0;

	block->dirty = 0;
	if (image_file_read(&check->file, block->bitmap,
			    layout->bitmap_sectors * (size_t)VHD_SECTOR,
			    block->slot->sector * (uint64_t)VHD_SECTOR, err) < 0)
		return UNREADABLE;
	for (uint32_t first = 0; first < sectors && result == 0; first = end) {
		bool valid = is_valid(block->bitmap, first);

		for (end = first + 1; end < sectors; end++)
			if (is_valid(block->bitmap, end) != valid)
				break;
		if (!valid)
			result = check_run(check, block, first, end, mend, err);
	}
	return result;
}

static int check_blocks(struct vhd_check *check, struct dirty_blocks *dirty, bool mend,
			struct err *err)
{
	struct block_check block = {
		.bitmap = malloc(check->layout.bitmap_sectors * (size_t)VHD_SECTOR),
		.data = malloc(CHUNK),
	};
	int result = 0;

	if (!block.bitmap || !block.data)
		result = err_set(err, "'%s': no memory", check->file.path);
	for (uint32_t i = 0; i < check->slot_count && result == 0; i++) {
		block.slot = &check->slots[i];
		result = check_block(check, &block, mend, err);
		image_show_progress(&check->job->progress, i + 1, check->slot_count);
		if (block.dirty == 0)
			continue;
		if (dirty->blocks < VHD_TOLD_MAX) {
			dirty->told[dirty->blocks].block = block.slot->block;
			dirty->told[dirty->blocks].sectors = block.dirty;
			dirty->told[dirty->blocks].first = block.first;
		}
		dirty->blocks++;
		dirty->sectors += block.dirty;
	}
	free(block.bitmap);
	free(block.data);
	return result;
}

static void tell(struct vhd_check *check, const struct dirty_blocks *dirty, bool can_mend)
{
	bool is_mended = can_mend && check->repair;
	const char *remedy = can_mend ? "the data are replaced by zeros" : NULL;
	const char *meaning = check->footer->type == VHD_DIFFERENCING
				      ? "read as in the parent"
				      : "read as zeros, but QEMU shows the data";

	for (uint64_t i = 0; i < dirty->blocks && i < VHD_TOLD_MAX; i++) {
		uint64_t first = dirty->told[i].block * (uint64_t)check->layout.block_sectors +
				 dirty->told[i].first;

		vhd_finding(check, is_mended, remedy,
			    "in block %u there are data in %u sectors that its bitmap does not "
			    "have, the first at byte %llu of the disk: they %s",
			    dirty->told[i].block, dirty->told[i].sectors,
			    (unsigned long long)first * VHD_SECTOR, meaning);
	}
	if (dirty->blocks > VHD_TOLD_MAX)
		vhd_finding(check, is_mended, remedy,
			    "in %llu blocks in all there are data in %llu such sectors",
			    (unsigned long long)dirty->blocks, (unsigned long long)dirty->sectors);
}

int vhd_check_bitmaps(struct vhd_check *check, struct err *err)
{
	/* Whose type counts, where there are two footers, nobody knows. */
	bool can_mend =
		check->footer->type == VHD_DIFFERENCING && !vhd_footers_conflict(&check->footers);
	bool mend = can_mend && check->repair;
	struct dirty_blocks *dirty = calloc(1, sizeof(*dirty));
	int result;

	if (!dirty)
		return err_set(err, "'%s': no memory", check->file.path);
	result = check_blocks(check, dirty, mend, err);
	if (result == UNREADABLE) {
		vhd_finding(check, false, NULL, "not all bitmaps could be looked at: %s",
			    err->text);
		result = 0;
	}
	if (result == 0 && mend && dirty->blocks > 0)
		result = vhd_mended(check, err);
	if (result == 0)
		tell(check, dirty, can_mend);
	free(dirty);
	return result;
}
