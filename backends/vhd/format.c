// SPDX-License-Identifier: MIT
#include "backends/vhd/format.h"
#include <endian.h>
#include <string.h>
#include "core/util.h"

#define EPOCH_2000     946684800 /* 2000-01-01 in UTC, in seconds since 1970 */

#define VERSION_1      0x00010000U
#define FEATURES_FIXED 0x00000002U /* a reserved bit that is always set */

/* "CHS Calculation". */
#define CYLINDERS_MAX 65535U
#define HEADS_MAX     16U
#define TRACK_MAX     255U

static const char footer_cookie[8] = "conectix";
static const char header_cookie[8] = "cxsparse";

/* Where fields are, in bytes. */
enum footer_field {
	FOOTER_COOKIE = 0,
	FOOTER_FEATURES = 8,
	FOOTER_VERSION = 12,
	FOOTER_DATA_OFFSET = 16,
	FOOTER_TIME_STAMP = 24,
	FOOTER_CREATOR = 28,
	FOOTER_CREATOR_VERSION = 32,
	FOOTER_CREATOR_HOST = 36,
	FOOTER_ORIGINAL_SIZE = 40,
	FOOTER_CURRENT_SIZE = 48,
	FOOTER_GEOMETRY = 56,
	FOOTER_TYPE = 60,
	FOOTER_CHECKSUM = 64,
	FOOTER_ID = 68,
	FOOTER_SAVED_STATE = 84,
};

enum header_field {
	HEADER_COOKIE = 0,
	HEADER_DATA_OFFSET = 8,
	HEADER_TABLE_OFFSET = 16,
	HEADER_VERSION = 24,
	HEADER_TABLE_ENTRIES = 28,
	HEADER_BLOCK_SIZE = 32,
	HEADER_CHECKSUM = 36,
	HEADER_PARENT_ID = 40,
	HEADER_PARENT_TIME_STAMP = 56,
	HEADER_PARENT_NAME = 64,
	HEADER_LOCATORS = 576,
};

enum locator_field {
	LOCATOR_PLATFORM = 0,
	LOCATOR_SPACE = 4,
	LOCATOR_LENGTH = 8,
	LOCATOR_OFFSET = 16,
	LOCATOR_SIZE = 24,
};

static uint32_t get_32(const uint8_t *bytes, size_t field)
{
	uint32_t value;

	memcpy(&value, bytes + field, sizeof(value));
	return be32toh(value);
}

static uint64_t get_64(const uint8_t *bytes, size_t field)
{
	uint64_t value;

	memcpy(&value, bytes + field, sizeof(value));
	return be64toh(value);
}

static void put_32(uint8_t *bytes, size_t field, uint32_t value)
{
	value = htobe32(value);
	memcpy(bytes + field, &value, sizeof(value));
}

static void put_64(uint8_t *bytes, size_t field, uint64_t value)
{
	value = htobe64(value);
	memcpy(bytes + field, &value, sizeof(value));
}

const char *vhd_type_name(enum vhd_type type)
{
	switch (type) {
	case VHD_FIXED:
		return "fixed";
	case VHD_DYNAMIC:
		return "dynamic";
	case VHD_DIFFERENCING:
		return "differencing";
	}
	return "unknown";
}

uint32_t vhd_checksum(const void *bytes, size_t length, size_t skip)
{
	const uint8_t *byte = bytes;
	uint32_t sum = 0;

	for (size_t i = 0; i < length; i++)
		if (i < skip || i >= skip + sizeof(sum))
			sum += byte[i];
	return ~sum;
}

uint32_t vhd_time_of(int64_t unix_seconds)
{
	if (unix_seconds <= EPOCH_2000)
		return 0;
	return (uint32_t)min_u64((uint64_t)(unix_seconds - EPOCH_2000), UINT32_MAX);
}

int64_t vhd_time_unix(uint32_t time_stamp)
{
	return (int64_t)time_stamp + EPOCH_2000;
}

/* ---- Footer. ---- */

bool vhd_has_footer_cookie(const void *bytes)
{
	return memcmp(bytes, footer_cookie, sizeof(footer_cookie)) == 0;
}

/* What makes the footer one that can be used at all. */
static int footer_check(const uint8_t *bytes, struct err *err)
{
	uint32_t checksum = get_32(bytes, FOOTER_CHECKSUM);
	uint32_t sum = vhd_checksum(bytes, VHD_FOOTER_SIZE, FOOTER_CHECKSUM);
	uint32_t version = get_32(bytes, FOOTER_VERSION);
	uint64_t size = get_64(bytes, FOOTER_CURRENT_SIZE);
	uint32_t type = get_32(bytes, FOOTER_TYPE);

	if (!vhd_has_footer_cookie(bytes))
		return err_set(err, "no footer of a VHD");
	if (checksum != sum)
		return err_set(err, "the footer has checksum 0x%08x, but its bytes give 0x%08x",
			       checksum, sum);
	if (version >> 16 != VERSION_1 >> 16)
		return err_set(err, "the footer has version %u.%u: only 1 is known", version >> 16,
			       version & 0xffff);
	if (type != VHD_FIXED && type != VHD_DYNAMIC && type != VHD_DIFFERENCING)
		return err_set(err,
			       "the footer says disk type %u: 2 (fixed), 3 (dynamic) and 4 "
			       "(differencing) are known",
			       type);
	if (size == 0 || size > INT64_MAX || size % VHD_SECTOR != 0)
		return err_set(err,
			       "the footer says a size of %llu bytes: no whole number of sectors "
			       "of 512",
			       (unsigned long long)size);
	return 0;
}

int vhd_footer_decode(struct vhd_footer *footer, const void *bytes, size_t length, struct err *err)
{
	uint8_t padded[VHD_FOOTER_SIZE] = {0};

	if (length != VHD_FOOTER_SIZE && length != VHD_OLD_FOOTER_SIZE)
		return err_set(err, "a footer has 512 or 511 bytes, not %zu", length);
	memcpy(padded, bytes, length);
	if (footer_check(padded, err) < 0)
		return -1;
	*footer = (struct vhd_footer){
		.features = get_32(padded, FOOTER_FEATURES),
		.data_offset = get_64(padded, FOOTER_DATA_OFFSET),
		.time_stamp = get_32(padded, FOOTER_TIME_STAMP),
		.creator_version = get_32(padded, FOOTER_CREATOR_VERSION),
		.original_size = get_64(padded, FOOTER_ORIGINAL_SIZE),
		.current_size = get_64(padded, FOOTER_CURRENT_SIZE),
		.geometry = {.cylinders = (uint16_t)(get_32(padded, FOOTER_GEOMETRY) >> 16),
			     .heads = padded[FOOTER_GEOMETRY + 2],
			     .sectors = padded[FOOTER_GEOMETRY + 3]},
		.type = (enum vhd_type)get_32(padded, FOOTER_TYPE),
		.saved_state = padded[FOOTER_SAVED_STATE] != 0,
	};
	memcpy(footer->creator, padded + FOOTER_CREATOR, 4);
	memcpy(footer->creator_host, padded + FOOTER_CREATOR_HOST, 4);
	memcpy(footer->id, padded + FOOTER_ID, sizeof(footer->id));
	return 0;
}

void vhd_footer_encode(const struct vhd_footer *footer, uint8_t bytes[static VHD_FOOTER_SIZE])
{
	memset(bytes, 0, VHD_FOOTER_SIZE);
	memcpy(bytes + FOOTER_COOKIE, footer_cookie, sizeof(footer_cookie));
	put_32(bytes, FOOTER_FEATURES, footer->features | FEATURES_FIXED);
	put_32(bytes, FOOTER_VERSION, VERSION_1);
	put_64(bytes, FOOTER_DATA_OFFSET, footer->data_offset);
	put_32(bytes, FOOTER_TIME_STAMP, footer->time_stamp);
	memcpy(bytes + FOOTER_CREATOR, footer->creator, 4);
	put_32(bytes, FOOTER_CREATOR_VERSION, footer->creator_version);
	memcpy(bytes + FOOTER_CREATOR_HOST, footer->creator_host, 4);
	put_64(bytes, FOOTER_ORIGINAL_SIZE, footer->original_size);
	put_64(bytes, FOOTER_CURRENT_SIZE, footer->current_size);
	put_32(bytes, FOOTER_GEOMETRY,
	       (uint32_t)footer->geometry.cylinders << 16 | (uint32_t)footer->geometry.heads << 8 |
		       footer->geometry.sectors);
	put_32(bytes, FOOTER_TYPE, (uint32_t)footer->type);
	memcpy(bytes + FOOTER_ID, footer->id, sizeof(footer->id));
	bytes[FOOTER_SAVED_STATE] = footer->saved_state;
	put_32(bytes, FOOTER_CHECKSUM, vhd_checksum(bytes, VHD_FOOTER_SIZE, FOOTER_CHECKSUM));
}

/* ---- Sizes. ---- */

static struct vhd_geometry geometry_of_sectors(uint64_t total)
{
	uint64_t track = 17, heads, tracks;

	total = min_u64(total, (uint64_t)CYLINDERS_MAX * HEADS_MAX * TRACK_MAX);
	if (total >= (uint64_t)CYLINDERS_MAX * HEADS_MAX * 63) {
		track = TRACK_MAX;
		heads = HEADS_MAX;
		tracks = total / track;
	} else {
		tracks = total / track;
		heads = max_u64((tracks + 1023) / 1024, 4);
		if (tracks >= heads * 1024 || heads > HEADS_MAX) {
			track = 31;
			heads = HEADS_MAX;
			tracks = total / track;
		}
		if (tracks >= heads * 1024) {
			track = 63;
			heads = HEADS_MAX;
			tracks = total / track;
		}
	}
	return (struct vhd_geometry){.cylinders = (uint16_t)(tracks / heads),
				     .heads = (uint8_t)heads,
				     .sectors = (uint8_t)track};
}

struct vhd_geometry vhd_geometry_of(uint64_t size)
{
	return geometry_of_sectors(size / VHD_SECTOR);
}

uint64_t vhd_geometry_size(struct vhd_geometry geometry)
{
	return (uint64_t)geometry.cylinders * geometry.heads * geometry.sectors * VHD_SECTOR;
}

static bool geometry_is_max(struct vhd_geometry geometry)
{
	return geometry.cylinders == CYLINDERS_MAX && geometry.heads == HEADS_MAX &&
	       geometry.sectors == TRACK_MAX;
}

/*
 * The geometry cuts off less than a cylinder, and a larger size may have another number of sectors
 * in a track: the first that is large enough is found by steps of what is missing.
 */
uint64_t vhd_size_by_geometry(uint64_t size)
{
	uint64_t wanted = (size + VHD_SECTOR - 1) / VHD_SECTOR, total = wanted;

	for (;;) {
		struct vhd_geometry geometry = geometry_of_sectors(total);
		uint64_t reached = vhd_geometry_size(geometry) / VHD_SECTOR;

		if (reached >= wanted)
			return reached * VHD_SECTOR;
		if (geometry_is_max(geometry))
			return wanted * VHD_SECTOR;
		total += wanted - reached;
	}
}

uint64_t vhd_size_by_mib(uint64_t size)
{
	return align_up(size, MIB);
}

uint64_t vhd_disk_size(const struct vhd_footer *footer, enum vhd_size_rule rule)
{
	uint64_t size = vhd_geometry_size(footer->geometry);
	bool goes_by_geometry =
		strcmp(footer->creator, "vpc ") == 0 || strcmp(footer->creator, "qemu") == 0;

	if (rule == VHD_SIZE_CURRENT || (rule == VHD_SIZE_AUTO && !goes_by_geometry))
		return footer->current_size;
	/* It says nothing, or no more than that the disk is at least so large. */
	if (size == 0 || geometry_is_max(footer->geometry))
		return footer->current_size;
	return min_u64(size, footer->current_size);
}

/* ---- Dynamic disk header. ---- */

static int header_check(const uint8_t *bytes, struct err *err)
{
	uint32_t checksum = get_32(bytes, HEADER_CHECKSUM);
	uint32_t sum = vhd_checksum(bytes, VHD_HEADER_SIZE, HEADER_CHECKSUM);
	uint32_t version = get_32(bytes, HEADER_VERSION);
	uint32_t block_size = get_32(bytes, HEADER_BLOCK_SIZE);

	if (memcmp(bytes, header_cookie, sizeof(header_cookie)) != 0)
		return err_set(err, "no dynamic disk header where the footer says");
	if (checksum != sum)
		return err_set(err,
			       "the dynamic disk header has checksum 0x%08x, but its bytes give "
			       "0x%08x",
			       checksum, sum);
	if (version >> 16 != VERSION_1 >> 16)
		return err_set(err, "the dynamic disk header has version %u.%u: only 1 is known",
			       version >> 16, version & 0xffff);
	if (!is_power_of_two(block_size) || block_size < VHD_BLOCK_SIZE_MIN ||
	    block_size > VHD_BLOCK_SIZE_MAX)
		return err_set(err,
			       "the dynamic disk header says blocks of %u bytes: powers of two "
			       "from %u to %u are known",
			       block_size, VHD_BLOCK_SIZE_MIN, VHD_BLOCK_SIZE_MAX);
	return 0;
}

int vhd_header_decode(struct vhd_header *header, const uint8_t bytes[static VHD_HEADER_SIZE],
		      struct err *err)
{
	if (header_check(bytes, err) < 0)
		return -1;
	*header = (struct vhd_header){
		.table_offset = get_64(bytes, HEADER_TABLE_OFFSET),
		.table_entries = get_32(bytes, HEADER_TABLE_ENTRIES),
		.block_size = get_32(bytes, HEADER_BLOCK_SIZE),
		.parent_time_stamp = get_32(bytes, HEADER_PARENT_TIME_STAMP),
	};
	memcpy(header->parent_id, bytes + HEADER_PARENT_ID, sizeof(header->parent_id));
	/* A name is of use where locators are not; one that cannot be read is none. */
	if (vhd_text_decode(header->parent_name, bytes + HEADER_PARENT_NAME, 2 * VHD_NAME_UNITS,
			    true) < 0)
		header->parent_name[0] = '\0';
	for (unsigned i = 0; i < VHD_LOCATORS; i++) {
		const uint8_t *at = bytes + HEADER_LOCATORS + i * LOCATOR_SIZE;

		header->locators[i] = (struct vhd_locator){
			.platform = get_32(at, LOCATOR_PLATFORM),
			.space = get_32(at, LOCATOR_SPACE),
			.length = get_32(at, LOCATOR_LENGTH),
			.offset = get_64(at, LOCATOR_OFFSET),
		};
	}
	return 0;
}

/* As much of the name as there is room for; whole characters. */
static void put_name(uint8_t *bytes, const char *name)
{
	char cut[VHD_TEXT_ROOM(VHD_NAME_UNITS)];
	size_t length = strnlen(name, sizeof(cut) - 1);

	memcpy(cut, name, length);
	for (;; length--) {
		cut[length] = '\0';
		memset(bytes, 0, 2 * VHD_NAME_UNITS);
		if (length == 0 || vhd_text_encode(bytes, 2 * VHD_NAME_UNITS, cut, true) >= 0)
			return;
	}
}

void vhd_header_encode(const struct vhd_header *header, uint8_t bytes[static VHD_HEADER_SIZE])
{
	memset(bytes, 0, VHD_HEADER_SIZE);
	memcpy(bytes + HEADER_COOKIE, header_cookie, sizeof(header_cookie));
	put_64(bytes, HEADER_DATA_OFFSET, UINT64_MAX);
	put_64(bytes, HEADER_TABLE_OFFSET, header->table_offset);
	put_32(bytes, HEADER_VERSION, VERSION_1);
	put_32(bytes, HEADER_TABLE_ENTRIES, header->table_entries);
	put_32(bytes, HEADER_BLOCK_SIZE, header->block_size);
	memcpy(bytes + HEADER_PARENT_ID, header->parent_id, sizeof(header->parent_id));
	put_32(bytes, HEADER_PARENT_TIME_STAMP, header->parent_time_stamp);
	put_name(bytes + HEADER_PARENT_NAME, header->parent_name);
	for (unsigned i = 0; i < VHD_LOCATORS; i++) {
		uint8_t *at = bytes + HEADER_LOCATORS + i * LOCATOR_SIZE;

		put_32(at, LOCATOR_PLATFORM, header->locators[i].platform);
		put_32(at, LOCATOR_SPACE, header->locators[i].space);
		put_32(at, LOCATOR_LENGTH, header->locators[i].length);
		put_64(at, LOCATOR_OFFSET, header->locators[i].offset);
	}
	put_32(bytes, HEADER_CHECKSUM, vhd_checksum(bytes, VHD_HEADER_SIZE, HEADER_CHECKSUM));
}
