// SPDX-License-Identifier: MIT
#include <string.h>
#include "backends/vhd/footers.h"

/* A footer, or what should be one, of @length bytes at @offset. */
static int read_end(const struct image_file *file, struct vhd_footers *footers, uint64_t offset,
		    uint32_t length, struct err *err)
{
	memset(footers->end_bytes, 0, sizeof(footers->end_bytes));
	if (image_file_read(file, footers->end_bytes, length, offset, err) < 0)
		return -1;
	if (!vhd_has_footer_cookie(footers->end_bytes))
		return 0;
	footers->end_offset = offset;
	footers->end_length = length;
	footers->has_end = vhd_footer_decode(&footers->end, footers->end_bytes, length,
					     &footers->end_err) == 0;
	return 0;
}

/*
 * At the end: 512 bytes, or the 511 of old writers, or 512 with less than a sector of something
 * else behind.
 */
static int find_end(const struct image_file *file, struct vhd_footers *footers, struct err *err)
{
	uint64_t whole = align_down(file->size, VHD_SECTOR);

	footers->end_offset = whole;
	if (file->size < VHD_FOOTER_SIZE)
		return 0;
	if (file->size - whole == VHD_OLD_FOOTER_SIZE &&
	    read_end(file, footers, whole, VHD_OLD_FOOTER_SIZE, err) < 0)
		return -1;
	if (footers->end_length > 0)
		return 0;
	return read_end(file, footers, whole - VHD_FOOTER_SIZE, VHD_FOOTER_SIZE, err);
}

int vhd_footers_read(const struct image_file *file, struct vhd_footers *footers, struct err *err)
{
	*footers = (struct vhd_footers){.end_length = 0};
	if (find_end(file, footers, err) < 0)
		return -1;
	if (file->size < VHD_FOOTER_SIZE)
		return 0;
	if (image_file_read(file, footers->copy_bytes, VHD_FOOTER_SIZE, 0, err) < 0)
		return -1;
	/* A fixed disk has none: it is data of the disk there. */
	if (vhd_has_footer_cookie(footers->copy_bytes) && footers->end_offset > 0)
		footers->has_copy = vhd_footer_decode(&footers->copy, footers->copy_bytes,
						      VHD_FOOTER_SIZE, &footers->copy_err) == 0 &&
				    footers->copy.type != VHD_FIXED;
	return 0;
}

const struct vhd_footer *vhd_footers_best(const struct vhd_footers *footers)
{
	if (footers->has_end)
		return &footers->end;
	return footers->has_copy ? &footers->copy : NULL;
}

bool vhd_footers_conflict(const struct vhd_footers *footers)
{
	const struct vhd_footer *end = &footers->end, *copy = &footers->copy;

	return footers->has_end && footers->has_copy &&
	       (end->type != copy->type || end->current_size != copy->current_size ||
		end->data_offset != copy->data_offset ||
		memcmp(end->id, copy->id, sizeof(end->id)) != 0);
}
