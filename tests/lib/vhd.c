// SPDX-License-Identifier: MIT
#include "tests/lib/vhd.h"

#include <assert.h>
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/util.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

#define SPARE_ENTRIES 5
#define LOCATOR_ROOM  1024
#define PAGE	      4096

/* Where things are; bytes. */
struct place {
	uint32_t block_size, blocks;
	uint64_t header, locators, table, data, slot, length;
};

static uint32_t block_size_of(const struct vhd_recipe *recipe)
{
	return recipe->block_size ? recipe->block_size : VHD_DEFAULT_BLOCK;
}

static bool block_is_filled(const struct vhd_recipe *recipe, uint32_t block)
{
	return recipe->fill_blocks >> (block % 8) & 1;
}

static struct place place_of(const struct vhd_recipe *recipe)
{
	struct place place = {.block_size = block_size_of(recipe)};
	uint64_t filled = 0;

	place.blocks = (uint32_t)((recipe->size + place.block_size - 1) / place.block_size);
	for (uint32_t i = 0; i < place.blocks; i++)
		filled += block_is_filled(recipe, i);
	place.header = VHD_FOOTER_SIZE;
	place.locators = place.header + VHD_HEADER_SIZE;
	place.table = place.locators + 2 * LOCATOR_ROOM;
	place.data = place.table + vhd_table_sectors(place.blocks + SPARE_ENTRIES) * VHD_SECTOR;
	place.slot = (uint64_t)vhd_bitmap_sectors(place.block_size) * VHD_SECTOR + place.block_size;
	place.length = place.data + filled * place.slot + VHD_FOOTER_SIZE;
	return place;
}

static struct vhd_footer footer_of(const struct vhd_recipe *recipe)
{
	struct vhd_footer footer = {
		.data_offset = recipe->type == VHD_FIXED ? UINT64_MAX : VHD_FOOTER_SIZE,
		.time_stamp = 12345,
		.creator_host = "Wi2k",
		.original_size = recipe->size,
		.current_size = recipe->size,
		.geometry = vhd_geometry_of(recipe->size),
		.type = recipe->type,
	};

	memcpy(footer.creator, recipe->creator ? recipe->creator : "test", 4);
	memset(footer.id, recipe->id, sizeof(footer.id));
	return footer;
}

static void put_locator(struct vhd_header *header, unsigned index, uint32_t platform,
			const char *text, const struct place *place, uint8_t *bytes)
{
	uint64_t offset = place->locators + index * LOCATOR_ROOM;
	int length;

	if (!text)
		return;
	length = vhd_text_encode(bytes + offset, LOCATOR_ROOM, text, false);
	assert(length > 0);
	header->locators[index] = (struct vhd_locator){.platform = platform,
						       .space = LOCATOR_ROOM,
						       .length = (uint32_t)length,
						       .offset = offset};
}

static void put_header(const struct vhd_recipe *recipe, const struct place *place, uint8_t *bytes)
{
	struct vhd_header header = {
		.table_offset = place->table,
		.table_entries = place->blocks + SPARE_ENTRIES,
		.block_size = place->block_size,
		.parent_time_stamp = recipe->parent_time_stamp,
	};

	if (recipe->type == VHD_DIFFERENCING) {
		memset(header.parent_id, recipe->parent_id, sizeof(header.parent_id));
		put_locator(&header, 0, VHD_PLATFORM_W2KU, recipe->parent_absolute, place, bytes);
		put_locator(&header, 1, VHD_PLATFORM_W2RU, recipe->parent_relative, place, bytes);
		if (recipe->parent_name)
			snprintf(header.parent_name, sizeof(header.parent_name), "%s",
				 recipe->parent_name);
	}
	vhd_header_encode(&header, bytes + place->header);
}

/* The data of a block, all of it. */
static void block_data(const struct vhd_recipe *recipe, uint32_t block, uint8_t *data)
{
	uint32_t block_size = block_size_of(recipe);
	uint64_t at = (uint64_t)block * block_size;
	size_t part = min_u64(block_size, recipe->size - at);

	if (!recipe->data) {
		pattern_fill(data, block_size, recipe->fill_seed * 1000 + block);
		return;
	}
	memcpy(data, recipe->data + at, part);
	memset(data + part, 0, block_size - part);
}

struct vhd_recipe vhd_recipe_named(const char *name, uint64_t size)
{
	return (struct vhd_recipe){
		.type = strncmp(name, "fixed", 5) == 0 ? VHD_FIXED : VHD_DYNAMIC,
		.size = size,
		.block_size = (uint32_t)strtoul(strchr(name, '-') + 1, NULL, 10) * 1024,
		.id = 1,
	};
}

static bool sector_is_valid(const struct vhd_recipe *recipe, uint32_t sector)
{
	return recipe->fill_bits >> (7 - sector % 8) & 1;
}

static void put_blocks(const struct vhd_recipe *recipe, const struct place *place, uint8_t *bytes)
{
	size_t bitmap = place->slot - place->block_size;
	uint64_t at = place->data;

	for (uint32_t i = 0; i < place->blocks + SPARE_ENTRIES; i++) {
		uint32_t entry = VHD_NO_BLOCK;

		if (i < place->blocks && block_is_filled(recipe, i)) {
			entry = (uint32_t)(at / VHD_SECTOR);
			memset(bytes + at, recipe->fill_bits, bitmap);
			block_data(recipe, i, bytes + at + bitmap);
			for (uint32_t s = 0; s < place->block_size / VHD_SECTOR; s++)
				if (!sector_is_valid(recipe, s))
					memset(bytes + at + bitmap + s * VHD_SECTOR,
					       recipe->noise_below_bits ? 0xcc : 0, VHD_SECTOR);
			at += place->slot;
		}
		entry = htobe32(entry);
		memcpy(bytes + place->table + i * sizeof(entry), &entry, sizeof(entry));
	}
}

uint8_t *vhd_bytes(const struct vhd_recipe *recipe, size_t *length)
{
	struct vhd_footer footer = footer_of(recipe);
	struct place place = place_of(recipe);
	uint8_t *bytes;

	if (recipe->type == VHD_FIXED)
		place.length = recipe->size + VHD_FOOTER_SIZE;
	*length = place.length;
	bytes = calloc(1, place.length);
	assert(bytes);
	vhd_footer_encode(&footer, bytes + place.length - VHD_FOOTER_SIZE);
	if (recipe->type == VHD_FIXED) {
		vhd_overlay(recipe, bytes, recipe->size);
		return bytes;
	}
	vhd_footer_encode(&footer, bytes);
	put_header(recipe, &place, bytes);
	put_blocks(recipe, &place, bytes);
	return bytes;
}

void vhd_make(const char *path, const struct vhd_recipe *recipe)
{
	size_t length;
	uint8_t *bytes = vhd_bytes(recipe, &length);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, (off_t)length), 0);
	/* Sparse, as what makes images does it. */
	for (size_t at = 0; at < length; at += PAGE) {
		size_t part = min_u64(PAGE, length - at);

		if (bytes_differ(bytes + at, part, 0) < part)
			CHECK_EQ(pwrite(fd, bytes + at, part, (off_t)at), part);
	}
	close(fd);
	free(bytes);
}

void vhd_overlay(const struct vhd_recipe *recipe, uint8_t *disk, size_t size)
{
	uint32_t block_size = block_size_of(recipe);
	uint8_t *data = malloc(block_size);
	uint64_t end = min_u64(size, recipe->size);

	assert(data);
	for (uint32_t i = 0; (uint64_t)i * block_size < end; i++) {
		uint64_t first = (uint64_t)i * block_size;

		if (recipe->type == VHD_FIXED ? !recipe->fill_seed && !recipe->data
					      : !block_is_filled(recipe, i))
			continue;
		block_data(recipe, i, data);
		for (uint32_t s = 0; s < block_size / VHD_SECTOR; s++) {
			uint64_t at = first + (uint64_t)s * VHD_SECTOR;

			if (at < end && (recipe->type == VHD_FIXED || sector_is_valid(recipe, s)))
				memcpy(disk + at, data + s * VHD_SECTOR, VHD_SECTOR);
		}
	}
	free(data);
}

static void chain_path(char name[static 256], const char *path, unsigned index)
{
	if (index == 0)
		snprintf(name, 256, "%s", path);
	else
		snprintf(name, 256, "%s-%u", path, index);
}

void vhd_make_chain(const char *path, uint64_t size, uint32_t block_size, unsigned depth,
		    uint64_t seed)
{
	for (unsigned i = depth; i-- > 0;) {
		char name[256], parent[256];
		struct vhd_recipe recipe = {
			.type = i + 1 < depth ? VHD_DIFFERENCING
				: seed	      ? VHD_FIXED
					      : VHD_DYNAMIC,
			.size = size,
			.block_size = block_size,
			.id = (uint8_t)(i + 1),
			.parent_id = (uint8_t)(i + 2),
		};

		chain_path(name, path, i);
		chain_path(parent, path, i + 1);
		recipe.parent_relative = strrchr(parent, '/') ? strrchr(parent, '/') + 1 : parent;
		if (seed && i > 0) {
			recipe.fill_seed = seed + i;
			recipe.fill_blocks = 0x55;
			recipe.fill_bits = 0xf0;
			recipe.noise_below_bits = true;
		}
		vhd_make(name, &recipe);
	}
}

void vhd_remove_chain(const char *path, unsigned depth)
{
	for (unsigned i = 0; i < depth; i++) {
		char name[256];

		chain_path(name, path, i);
		unlink(name);
	}
}
