/* SPDX-License-Identifier: MIT */
/*
 * The structures of a VHD file, from bytes and to bytes: "Virtual Hard Disk Image Format
 * Specification", version 1.0, of Microsoft; sections are cited by their names there. Numbers are
 * big-endian, a sector has 512 bytes.
 *
 *	fixed		data, footer
 *	dynamic		copy of the footer, dynamic disk header, block allocation table (BAT),
 *			blocks, each behind its bitmap, footer
 *	differencing	the same, and what is not marked in a bitmap is the parent's
 *
 * A *block* is a piece of the disk, of a power of two of bytes. Its *slot* is its place in the file:
 * the bitmap, in whole sectors, a bit for each sector of the block, the highest bit of a byte first,
 * and then the data. An entry of the table is the sector in which a slot begins, or VHD_NO_BLOCK.
 *
 * Pure functions, without I/O, any thread; nothing is believed before it is checked. Those that
 * return int return 0, or -1 with a sentence in @err, which does not name the file.
 */
#ifndef BACKENDS_VHD_FORMAT_H
#define BACKENDS_VHD_FORMAT_H

#include "core/error.h"

#define VHD_SECTOR	    512U
#define VHD_FOOTER_SIZE	    512U
#define VHD_OLD_FOOTER_SIZE 511U /* Virtual PC before 2004: without the last reserved byte */
#define VHD_HEADER_SIZE	    1024U
#define VHD_LOCATORS	    8U
#define VHD_NO_BLOCK	    UINT32_MAX

/* What is refused beyond: a table that would take too much memory, blocks that nobody makes. */
#define VHD_BLOCKS_MAX	   (8U * 1024 * 1024)
#define VHD_BLOCK_SIZE_MIN 4096U
#define VHD_BLOCK_SIZE_MAX (256U * 1024 * 1024)
#define VHD_DEFAULT_BLOCK  (2U * 1024 * 1024)
/* Entries are sector numbers of 32 bits. */
#define VHD_DYNAMIC_SIZE_MAX ((uint64_t)VHD_NO_BLOCK * VHD_SECTOR)

enum vhd_type {
	VHD_FIXED = 2,
	VHD_DYNAMIC = 3,
	VHD_DIFFERENCING = 4,
};

const char *vhd_type_name(enum vhd_type type);

/* "Checksum": the complement of the sum of all @length bytes, without the four at @skip. */
uint32_t vhd_checksum(const void *bytes, size_t length, size_t skip);

/* "Time Stamp": seconds since 2000-01-01 in UTC. Outside of what it can hold, the nearest. */
uint32_t vhd_time_of(int64_t unix_seconds);
int64_t vhd_time_unix(uint32_t time_stamp);

/* ---- "Hard Disk Footer Format". ---- */

struct vhd_geometry {
	uint16_t cylinders;
	uint8_t heads, sectors;
};

struct vhd_footer {
	uint32_t features;
	uint64_t data_offset; /* of the dynamic disk header; UINT64_MAX in a fixed disk */
	uint32_t time_stamp;  /* of creation */
	char creator[5];      /* application, NUL-terminated: "vpc ", "win ", "qemu" */
	uint32_t creator_version;
	char creator_host[5];		      /* "Wi2k", "Mac " */
	uint64_t original_size, current_size; /* bytes */
	struct vhd_geometry geometry;
	enum vhd_type type;
	uint8_t id[16];
	bool saved_state; /* the disk belongs to a suspended machine */
};

/* Whether it begins as a footer does, right or wrong. @bytes: 8 of them. */
bool vhd_has_footer_cookie(const void *bytes);

/* @length is VHD_FOOTER_SIZE or VHD_OLD_FOOTER_SIZE. A saved state is no error here. */
int vhd_footer_decode(struct vhd_footer *footer, const void *bytes, size_t length, struct err *err);
void vhd_footer_encode(const struct vhd_footer *footer, uint8_t bytes[static VHD_FOOTER_SIZE]);

/* "CHS Calculation" of the appendix. */
struct vhd_geometry vhd_geometry_of(uint64_t size);
/* Bytes. */
uint64_t vhd_geometry_size(struct vhd_geometry geometry);

/*
 * The size of a disk of at least @size bytes, for a footer: one that its geometry tells exactly, as
 * Virtual PC wants it (as far as a geometry can: 127 GiB; beyond, whole sectors), or whole MiB, as
 * Azure wants it.
 */
uint64_t vhd_size_by_geometry(uint64_t size);
uint64_t vhd_size_by_mib(uint64_t size);

/* What says how large the disk is. Virtual PC, and QEMU as "qemu", go by the geometry, which may be
 * a little less than the current size; all others by the current size. */
enum vhd_size_rule {
	VHD_SIZE_AUTO,
	VHD_SIZE_CURRENT,
	VHD_SIZE_GEOMETRY,
};

/* Bytes; a multiple of a sector, never more than the current size. */
uint64_t vhd_disk_size(const struct vhd_footer *footer, enum vhd_size_rule rule);

/* ---- "Dynamic Disk Header Format". ---- */

/* Platform codes, "Parent Locator Entry". */
#define VHD_PLATFORM_NONE 0U
#define VHD_PLATFORM_W2RU 0x57327275U /* relative path, UTF-16LE */
#define VHD_PLATFORM_W2KU 0x57326b75U /* absolute path, UTF-16LE */

struct vhd_locator {
	uint32_t platform;
	uint32_t space;	 /* what is set aside for it: sectors or bytes, writers differ */
	uint32_t length; /* bytes */
	uint64_t offset; /* bytes, in the file */
};

/* A name in UTF-8: at most three bytes for each of @units of UTF-16, and a NUL. */
#define VHD_TEXT_ROOM(units) (3U * (units) + 1)
#define VHD_NAME_UNITS	     256U
#define VHD_LOCATOR_MAX	     4096U /* bytes of a path that is believed */

struct vhd_header {
	uint64_t table_offset; /* bytes */
	uint32_t table_entries;
	uint32_t block_size; /* bytes */
	/* Of a differencing disk; zeros else. */
	uint8_t parent_id[16];
	/* "Parent Time Stamp": when the parent was last changed. 0 where the writer did not know. */
	uint32_t parent_time_stamp;
	char parent_name[VHD_TEXT_ROOM(VHD_NAME_UNITS)]; /* UTF-8; empty where it is no text */
	struct vhd_locator locators[VHD_LOCATORS];
};

int vhd_header_decode(struct vhd_header *header, const uint8_t bytes[static VHD_HEADER_SIZE],
		      struct err *err);
/* The parent's name is cut where it is too long. */
void vhd_header_encode(const struct vhd_header *header, uint8_t bytes[static VHD_HEADER_SIZE]);

/* ---- Text. ---- */

/*
 * UTF-16 to UTF-8, until a NUL or @length bytes; @text has VHD_TEXT_ROOM(length / 2). -1: it is no
 * text (half a surrogate pair, an odd length, control characters).
 */
int vhd_text_decode(char *text, const uint8_t *bytes, size_t length, bool big_endian);
/* Back; at most @max bytes. Returns how many there are, or -1: no UTF-8, or too long. */
int vhd_text_encode(uint8_t *bytes, size_t max, const char *text, bool big_endian);

/* ---- Where things are in the file of a dynamic or differencing disk. ---- */

struct vhd_layout {
	uint64_t disk_sectors;
	uint32_t block_sectors, bitmap_sectors;
	uint32_t blocks; /* as many as the disk needs; the table may have more entries */
	uint64_t header_sector;
	uint64_t table_sector, table_sectors;
	/* Where what is behind all slots begins: the footer; where there is none, the file ends. */
	uint64_t end_sector;
	struct vhd_locator locators[VHD_LOCATORS]; /* of a differencing disk */
};

/* Sectors of a bitmap, and of a table. */
uint32_t vhd_bitmap_sectors(uint32_t block_size);
uint64_t vhd_table_sectors(uint32_t entries);

/*
 * Checks footer and header against one another and the file: the table has an entry for every block
 * of the disk of @disk_size bytes, is inside the file and has a place of its own; parent locators
 * are inside the file.
 */
int vhd_layout_of(struct vhd_layout *layout, const struct vhd_footer *footer,
		  const struct vhd_header *header, uint64_t disk_size, uint64_t end_sector,
		  struct err *err);

/* The sector behind all structures that are not slots. */
uint64_t vhd_metadata_end(const struct vhd_layout *layout);

/* Sectors that a block's slot has to have: the last block of the disk may be cut off where the disk
 * ends. */
uint32_t vhd_slot_sectors(const struct vhd_layout *layout, uint32_t block);

/* Whether an entry that is not VHD_NO_BLOCK may be: inside the file, not on other structures. */
int vhd_entry_check(const struct vhd_layout *layout, uint32_t block, uint32_t entry,
		    struct err *err);

/*
 * Checks all entries, in the byte order of the machine, layout->blocks of them: each by itself, and
 * that no slots overlap. Fills @order, of as many elements, with those that are not VHD_NO_BLOCK,
 * in ascending order, and *used with their number. On error both are of no use.
 */
int vhd_table_check(const struct vhd_layout *layout, const uint32_t *entries, uint32_t *order,
		    uint32_t *used, struct err *err);

#endif
