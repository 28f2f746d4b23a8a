// SPDX-License-Identifier: MIT
#include "tests/lib/limits.h"

#include "tests/lib/probe.h"

struct limits_config {
	uint64_t memory_align, length_align, max_segments, max_transfer;
	bool fua;
};

static int limits_open(struct disk *disk, struct err *err)
{
	const struct limits_config *config = disk->config;

	(void)err;
	disk->geometry = disk->below[0]->geometry;
	disk->geometry.memory_align = (uint32_t)config->memory_align;
	disk->geometry.length_align = (uint32_t)config->length_align;
	disk->geometry.max_segments = (uint32_t)config->max_segments;
	disk->geometry.max_transfer = config->max_transfer;
	disk->geometry.fua &= config->fua;
	disk_set_sector_count(disk, disk_sector_count(disk->below[0]));
	return 0;
}

static void limits_close(struct disk *disk)
{
	(void)disk;
}

static int limits_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	if (!limits_hold(&disk->geometry, sg))
		return error_of(ERROR_INVALID_INPUT);
	return disk_read(disk->below[0], sg, sector);
}

static int limits_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	if (!limits_hold(&disk->geometry, sg))
		return error_of(ERROR_INVALID_INPUT);
	return disk_write(disk->below[0], sg, sector, flags);
}

static int limits_flush(struct disk *disk)
{
	return disk_flush(disk->below[0]);
}

static int limits_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	return disk_unmap(disk->below[0], sector, count);
}

static int limits_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	return disk_extent(disk->below[0], sector, count, extent);
}

static int limits_allocated(struct disk *disk, uint64_t *bytes)
{
	return disk_allocated(disk->below[0], bytes);
}

static int limits_resize(struct disk *disk, uint64_t count)
{
	return disk_resize(disk->below[0], count);
}

static void limits_below_resized(struct disk *disk, struct disk *below)
{
	disk_set_sector_count(disk, disk_sector_count(below));
}

static const struct option limits_options[] = {
	{.name = "memory_align",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct limits_config, memory_align)},
	{.name = "length_align",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct limits_config, length_align)},
	{.name = "max_segments",
	 .type = OPTION_U64,
	 .offset = offsetof(struct limits_config, max_segments)},
	{.name = "max_transfer",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct limits_config, max_transfer)},
	{.name = "fua",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct limits_config, fua),
	 .fallback = "yes"},
	{.name = NULL},
};

/* No write_zeroes: the core has to make do with unmap and write. */
const struct driver limits_driver = {
	.name = "limits",
	.summary = "limits, for tests",
	.options = limits_options,
	.config_size = sizeof(struct limits_config),
	.below_min = 1,
	.below_max = 1,
	.open = limits_open,
	.close = limits_close,
	.read = limits_read,
	.write = limits_write,
	.flush = limits_flush,
	.unmap = limits_unmap,
	.extent = limits_extent,
	.allocated = limits_allocated,
	.resize = limits_resize,
	.below_resized = limits_below_resized,
};
