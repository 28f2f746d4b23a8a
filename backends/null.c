// SPDX-License-Identifier: MIT
/*
 * null: reads zeros, drops writes. For benchmarks: what remains is the cost of everything above the
 * driver.
 */
#include "core/disk.h"

struct null_config {
	uint64_t size;
	uint64_t sector_size;
};

static int null_open(struct disk *disk, struct err *err)
{
	const struct null_config *config = disk->config;

	if (config->size % config->sector_size != 0)
		return err_set_key(err, "size", "must be a multiple of the sector size of %llu",
				   (unsigned long long)config->sector_size);
	disk->geometry.sector_size = (uint32_t)config->sector_size;
	disk->geometry.physical_sector_size = (uint32_t)config->sector_size;
	disk->geometry.fua = true;
	disk->geometry.unmap = UNMAP_ZEROES;
	disk_set_sector_count(disk, config->size / config->sector_size);
	return 0;
}

static void null_close(struct disk *disk)
{
	(void)disk;
}

static int null_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	(void)disk;
	(void)sector;
	sg_zero(sg);
	return 0;
}

static int null_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	(void)disk;
	(void)sg;
	(void)sector;
	(void)flags;
	return 0;
}

static int null_flush(struct disk *disk)
{
	(void)disk;
	return 0;
}

static int null_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	(void)disk;
	(void)sector;
	(void)count;
	return 0;
}

static int null_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	(void)flags;
	return null_unmap(disk, sector, count);
}

static int null_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	(void)disk;
	(void)sector;
	*extent = (struct extent){.kind = EXTENT_HOLE, .count = count};
	return 0;
}

static int null_allocated(struct disk *disk, uint64_t *bytes)
{
	(void)disk;
	*bytes = 0;
	return 0;
}

static const struct option null_options[] = {
	{.name = "size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct null_config, size),
	 .min = 512,
	 .max = INT64_MAX,
	 .fallback = "1G",
	 .help = "Size of the disk, a multiple of the sector size"},
	{.name = "sector_size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct null_config, sector_size),
	 .flags = OPTION_POWER_OF_TWO,
	 .min = 512,
	 .max = GEOMETRY_SECTOR_MAX,
	 .fallback = "512",
	 .help = "Logical and physical sector size in bytes"},
	{.name = NULL},
};

const struct driver null_driver = {
	.name = "null",
	.summary = "reads zeros, drops writes (for benchmarks)",
	.options = null_options,
	.config_size = sizeof(struct null_config),
	.is_volatile = true,
	.open = null_open,
	.close = null_close,
	.read = null_read,
	.write = null_write,
	.flush = null_flush,
	.unmap = null_unmap,
	.write_zeroes = null_write_zeroes,
	.extent = null_extent,
	.allocated = null_allocated,
};
