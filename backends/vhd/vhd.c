// SPDX-License-Identifier: MIT
/*
 * vhd: a disk in a VHD file, fixed, dynamic or differencing, on any disk whose bytes are the file's.
 *
 * What a fixed image does is what the disk below does. A dynamic or differencing one grows by blocks
 * (image.h), and reads what it does not have from its parents (chain.c, access.c).
 *
 * Flush: of the file, with its table and bitmaps (commit.c). FUA is a flush, but for a fixed image.
 * A crash, of the process or of the host, loses nothing that was flushed; blocks and sectors that
 * were first written after the last flush may be as they were before, and others any part of either.
 * The file is always one that can be opened.
 *
 * Discards: a whole block is given up where what would shine through is zeros; all else is written
 * with zeros, as holes of the file where that has any.
 */
#include "backends/vhd/vhd.h"
#include <string.h>
#include "backends/vhd/commands.h"
#include "core/report.h"

/* ---- Life. ---- */

/* Puts in front of a sentence about a file which one it is about. */
static int about_file(const struct disk *below, const struct err *why, struct err *err)
{
	const char *path = disk_path(below);

	if (why->key[0])
		return err_set_key(err, why->key, "'%s': %s", path ? path : below->name, why->text);
	return err_set(err, "'%s': %s", path ? path : below->name, why->text);
}

static void set_geometry(struct disk *disk)
{
	const struct vhd *vhd = disk->state;
	const struct disk_geometry *below = &disk->below[0]->geometry;
	struct disk_geometry *geometry = &disk->geometry;
	bool is_fixed = vhd_image_is_fixed(vhd->image);

	*geometry = (struct disk_geometry){
		.sector_size = VHD_SECTOR,
		.physical_sector_size = below->physical_sector_size,
		.read_only = below->read_only,
		.has_id = true,
		/* Of the others a flush has more to do. */
		.fua = is_fixed,
		.unmap = is_fixed ? below->unmap : UNMAP_ZEROES,
		.optimal_unmap_sectors = below->optimal_unmap_sectors,
	};
	memcpy(geometry->id, vhd->image->footer.id, sizeof(geometry->id));
	/* Smaller ranges would give nothing back. */
	if (!is_fixed && below->unmap != UNMAP_ZEROES)
		geometry->optimal_unmap_sectors = vhd->image->layout.block_sectors;
	disk_set_sector_count(disk, vhd->image->sectors);
}

static int vhd_open(struct disk *disk, struct err *err)
{
	const struct vhd_config *config = disk->config;
	struct disk *below = disk->below[0];
	bool writable = !(disk->open_flags & (DISK_OPEN_READ_ONLY | DISK_OPEN_CHECK)) &&
			!disk_is_read_only(below);
	struct vhd *vhd = disk->state;
	struct err why = {.text = ""};

	vhd->image = vhd_image_open(below, disk->name, (enum vhd_size_rule)config->size_from,
				    writable, &why);
	if (!vhd->image || chain_open(disk, &why) < 0)
		return about_file(below, &why, err);
	set_geometry(disk);
	return 0;
}

static void vhd_close(struct disk *disk)
{
	struct vhd *vhd = disk->state;

	chain_close(vhd);
	vhd_image_close(vhd->image);
}

/* The image's file grows; the parent is only read. */
static unsigned vhd_below_flags(const void *config, unsigned open_flags, const char *const *names,
				unsigned index)
{
	(void)config;
	(void)names;
	if (index > 0)
		return DISK_OPEN_READ_ONLY;
	return (open_flags & DISK_OPEN_READ_ONLY) | DISK_OPEN_RESIZE;
}

/* ---- What it is. ---- */

static int vhd_allocated(struct disk *disk, uint64_t *bytes)
{
	const struct vhd *vhd = disk->state;
	uint64_t sum = 0;

	for (unsigned i = 0; i < vhd->depth; i++) {
		uint64_t one;
		int error = disk_allocated(vhd->chain[i]->below, &one);

		if (error)
			return error;
		sum += one;
	}
	*bytes = sum;
	return 0;
}

static void vhd_inspect(struct disk *disk, struct report *report)
{
	const struct vhd *vhd = disk->state;
	struct vhd_image *image = vhd->image;

	report_string(report, "image", vhd_type_name(image->footer.type));
	report_string(report, "creator", image->footer.creator);
	if (!vhd_image_is_fixed(image)) {
		report_bytes(report, "block_size",
			     (uint64_t)image->layout.block_sectors * VHD_SECTOR);
		report_u64(report, "blocks", image->layout.blocks);
		report_u64(report, "allocated_blocks", atomic_load(&image->allocated));
	}
	chain_inspect(vhd, report);
}

static const char *const parent_time_choices[] = {
	[PARENT_TIME_CHECK] = "check",
	[PARENT_TIME_IGNORE] = "ignore",
	NULL,
};

static const char *const size_choices[] = {
	[VHD_SIZE_AUTO] = "auto",
	[VHD_SIZE_CURRENT] = "footer",
	[VHD_SIZE_GEOMETRY] = "geometry",
	NULL,
};

static const struct option vhd_options[] = {
	{.name = "parent",
	 .type = OPTION_PATH,
	 .offset = offsetof(struct vhd_config, parent),
	 .help = "The parent of a differencing image, a VHD file. The default is where the image "
		 "says that it is"},
	{.name = "parent_folder",
	 .type = OPTION_PATH,
	 .offset = offsetof(struct vhd_config, parent_folder),
	 .help = "The folder that parents must be in, at any depth, if parent does not name them. "
		 "The default is that of the image, or that of parent"},
	{.name = "parent_time",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct vhd_config, parent_time),
	 .choices = parent_time_choices,
	 .fallback = "check",
	 .help = "Whether a parent must have the time of its last change that the image has noted"},
	{.name = "size_from",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct vhd_config, size_from),
	 .choices = size_choices,
	 .fallback = "auto",
	 .help = "What says how large the disk is: the size in the footer, or cylinders, heads and "
		 "sectors; auto knows which of them the program went by that made the image"},
	{.name = NULL},
};

const struct driver vhd_driver = {
	.name = "vhd",
	.summary = "a VHD image, fixed, dynamic or differencing",
	.options = vhd_options,
	.config_size = sizeof(struct vhd_config),
	.state_size = sizeof(struct vhd),
	.below_min = 1,
	.below_max = 2,
	.open = vhd_open,
	.close = vhd_close,
	.read = vhd_read,
	.write = vhd_write,
	.flush = vhd_flush,
	.unmap = vhd_unmap,
	.write_zeroes = vhd_write_zeroes,
	.extent = vhd_extent,
	.part = vhd_part,
	.allocated = vhd_allocated,
	.below_flags = vhd_below_flags,
	.image = &vhd_image,
	.inspect = vhd_inspect,
};
