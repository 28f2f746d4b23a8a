// SPDX-License-Identifier: MIT
/* Where things are in the file of a dynamic or differencing disk, and that they do not overlap. */
#include <stdlib.h>
#include <string.h>
#include "backends/vhd/format.h"

/* A run of sectors that one of the structures takes. */
struct region {
	const char *what;
	uint64_t first, end;
};

/* The copy of the footer, header, table, and what locators point at. */
#define REGIONS_MAX (3 + VHD_LOCATORS)

uint32_t vhd_bitmap_sectors(uint32_t block_size)
{
	uint32_t bits_in_sector = VHD_SECTOR * 8;

	return (block_size / VHD_SECTOR + bits_in_sector - 1) / bits_in_sector;
}

uint64_t vhd_table_sectors(uint32_t entries)
{
	return ((uint64_t)entries * sizeof(uint32_t) + VHD_SECTOR - 1) / VHD_SECTOR;
}

static unsigned list_regions(const struct vhd_layout *layout, struct region *regions)
{
	unsigned count = 0;

	regions[count++] = (struct region){"the copy of the footer", 0, 1};
	regions[count++] = (struct region){"the dynamic disk header", layout->header_sector,
					   layout->header_sector + VHD_HEADER_SIZE / VHD_SECTOR};
	regions[count++] = (struct region){"the block allocation table", layout->table_sector,
					   layout->table_sector + layout->table_sectors};
	for (unsigned i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *locator = &layout->locators[i];

		if (locator->platform == VHD_PLATFORM_NONE || locator->length == 0)
			continue;
		regions[count++] = (struct region){"a parent locator", locator->offset / VHD_SECTOR,
						   (locator->offset + locator->length + VHD_SECTOR -
						    1) / VHD_SECTOR};
	}
	return count;
}

static bool overlap(const struct region *a, uint64_t first, uint64_t end)
{
	return a->first < end && first < a->end;
}

/* Header and table, which other structures must not be on. */
static int check_regions(const struct vhd_layout *layout, struct err *err)
{
	struct region regions[REGIONS_MAX];
	unsigned count = list_regions(layout, regions);

	for (unsigned i = 0; i < count; i++) {
		if (regions[i].end > layout->end_sector)
			return err_set(err, "%s ends in sector %llu, the file in sector %llu",
				       regions[i].what, (unsigned long long)regions[i].end,
				       (unsigned long long)layout->end_sector);
		for (unsigned j = 0; j < i && j < 3; j++)
			if (overlap(&regions[j], regions[i].first, regions[i].end))
				return err_set(err, "%s and %s overlap", regions[j].what,
					       regions[i].what);
	}
	return 0;
}

static int check_locators(const struct vhd_header *header, struct err *err)
{
	for (unsigned i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *locator = &header->locators[i];

		if (locator->platform != VHD_PLATFORM_NONE && locator->length > 0 &&
		    locator->offset > INT64_MAX)
			return err_set(err, "parent locator %u lies at byte %llu, beyond any file",
				       i, (unsigned long long)locator->offset);
	}
	return 0;
}

static int check_table_size(const struct vhd_header *header, uint64_t disk_size, struct err *err)
{
	uint64_t blocks = disk_size / header->block_size + (disk_size % header->block_size != 0);

	if (disk_size > VHD_DYNAMIC_SIZE_MAX)
		return err_set(err,
			       "the disk has %llu bytes, more than the %llu that a table of 32-bit "
			       "sector numbers can hold",
			       (unsigned long long)disk_size,
			       (unsigned long long)VHD_DYNAMIC_SIZE_MAX);
	if (blocks > VHD_BLOCKS_MAX)
		return err_set(err, "the disk has %llu blocks, more than %u",
			       (unsigned long long)blocks, VHD_BLOCKS_MAX);
	if (header->table_entries < blocks)
		return err_set(err,
			       "the block allocation table has %u entries for the %llu blocks of "
			       "the disk",
			       header->table_entries, (unsigned long long)blocks);
	return 0;
}

int vhd_layout_of(struct vhd_layout *layout, const struct vhd_footer *footer,
		  const struct vhd_header *header, uint64_t disk_size, uint64_t end_sector,
		  struct err *err)
{
	if (footer->data_offset % VHD_SECTOR != 0 || footer->data_offset > INT64_MAX)
		return err_set(err, "the footer says a dynamic disk header at byte %llu",
			       (unsigned long long)footer->data_offset);
	if (header->table_offset % VHD_SECTOR != 0 || header->table_offset > INT64_MAX)
		return err_set(err,
			       "the dynamic disk header says a block allocation table at byte %llu",
			       (unsigned long long)header->table_offset);
	if (check_table_size(header, disk_size, err) < 0)
		return -1;
	*layout = (struct vhd_layout){
		.disk_sectors = disk_size / VHD_SECTOR,
		.block_sectors = header->block_size / VHD_SECTOR,
		.bitmap_sectors = vhd_bitmap_sectors(header->block_size),
		.blocks = (uint32_t)((disk_size + header->block_size - 1) / header->block_size),
		.header_sector = footer->data_offset / VHD_SECTOR,
		.table_sector = header->table_offset / VHD_SECTOR,
		.table_sectors = vhd_table_sectors(header->table_entries),
		.end_sector = end_sector,
	};
	if (footer->type == VHD_DIFFERENCING) {
		if (check_locators(header, err) < 0)
			return -1;
		memcpy(layout->locators, header->locators, sizeof(layout->locators));
	}
	return check_regions(layout, err);
}

uint64_t vhd_metadata_end(const struct vhd_layout *layout)
{
	struct region regions[REGIONS_MAX];
	unsigned count = list_regions(layout, regions);
	uint64_t end = 0;

	for (unsigned i = 0; i < count; i++)
		end = max_u64(end, regions[i].end);
	return end;
}

uint32_t vhd_slot_sectors(const struct vhd_layout *layout, uint32_t block)
{
	uint64_t first = (uint64_t)block * layout->block_sectors;

	return layout->bitmap_sectors +
	       (uint32_t)min_u64(layout->block_sectors, layout->disk_sectors - first);
}

int vhd_entry_check(const struct vhd_layout *layout, uint32_t block, uint32_t entry,
		    struct err *err)
{
	uint64_t end = (uint64_t)entry + vhd_slot_sectors(layout, block);
	struct region regions[REGIONS_MAX];
	unsigned count = list_regions(layout, regions);

	if (end > layout->end_sector)
		return err_set(err, "block %u lies in sectors %u to %llu, the file ends in %llu",
			       block, entry, (unsigned long long)end - 1,
			       (unsigned long long)layout->end_sector);
	for (unsigned i = 0; i < count; i++)
		if (overlap(&regions[i], entry, end))
			return err_set(err, "block %u, in sectors %u to %llu, lies on %s", block,
				       entry, (unsigned long long)end - 1, regions[i].what);
	return 0;
}

/* The block that has @entry, other than @not; there is one. */
static uint32_t block_of(const uint32_t *entries, uint32_t blocks, uint32_t entry, uint32_t not )
{
	uint32_t block = 0;

	while (block + 1 < blocks && (entries[block] != entry || block == not ))
		block++;
	return block;
}

static int compare(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return left < right ? -1 : left > right;
}

/* @order is sorted. Only the last block of the disk may have a shorter slot. */
static int check_overlaps(const struct vhd_layout *layout, const uint32_t *entries,
			  const uint32_t *order, uint32_t used, struct err *err)
{
	uint32_t last = layout->blocks - 1;

	for (uint32_t i = 1; i < used; i++) {
		uint32_t before = order[i - 1], distance = order[i] - before;
		uint32_t length = layout->bitmap_sectors + layout->block_sectors;
		uint32_t first, second;

		if (before == entries[last] && distance > 0)
			length = vhd_slot_sectors(layout, last);
		if (distance >= length)
			continue;
		first = block_of(entries, layout->blocks, before, layout->blocks);
		second = block_of(entries, layout->blocks, order[i], first);
		return err_set(err, "blocks %u and %u overlap, in sectors %u and %u", first, second,
			       before, order[i]);
	}
	return 0;
}

int vhd_table_check(const struct vhd_layout *layout, const uint32_t *entries, uint32_t *order,
		    uint32_t *used, struct err *err)
{
	*used = 0;
	for (uint32_t block = 0; block < layout->blocks; block++) {
		if (entries[block] == VHD_NO_BLOCK)
			continue;
		if (vhd_entry_check(layout, block, entries[block], err) < 0)
			return -1;
		order[(*used)++] = entries[block];
	}
	qsort(order, *used, sizeof(*order), compare);
	return check_overlaps(layout, entries, order, *used, err);
}
