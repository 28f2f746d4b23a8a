// SPDX-License-Identifier: MIT
/* The structures of a VHD file: what is read is what was written, and what is wrong is refused. */
#include "backends/vhd/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/util.h"

/* ---- Footer. ---- */

static const struct vhd_footer some_footer = {
	.features = 2,
	.data_offset = 512,
	.time_stamp = 0x12345678,
	.creator = "win ",
	.creator_version = 0x000a0000,
	.creator_host = "Wi2k",
	.original_size = 5 * GIB,
	.current_size = 6 * GIB,
	.geometry = {.cylinders = 0x1234, .heads = 16, .sectors = 63},
	.type = VHD_DYNAMIC,
	.id = "0123456789abcde",
};

static void test_footer(void **state)
{
	uint8_t bytes[VHD_FOOTER_SIZE];
	struct vhd_footer back;
	struct err err;

	(void)state;
	vhd_footer_encode(&some_footer, bytes);
	/* "Hard Disk Footer Format": where fields are. */
	assert_memory_equal(bytes, "conectix\0\0\0\2\0\1\0\0", 16);
	assert_memory_equal(bytes + 24, "\x12\x34\x56\x78win \0\x0a\0\0Wi2k", 16);
	assert_memory_equal(bytes + 48, "\0\0\0\1\x80\0\0\0\x12\x34\x10\x3f\0\0\0\3", 16);
	assert_memory_equal(bytes + 68, some_footer.id, 16);
	memset(&back, 0, sizeof(back));
	assert_int_equal(vhd_footer_decode(&back, bytes, sizeof(bytes), &err), 0);
	assert_memory_equal(&back, &some_footer, sizeof(back));
	/* One byte less, of an old one: the last is reserved. */
	assert_int_equal(vhd_footer_decode(&back, bytes, VHD_OLD_FOOTER_SIZE, &err), 0);
	assert_int_equal(vhd_footer_decode(&back, bytes, 510, &err), -1);
	assert_string_equal(err.text, "a footer has 512 or 511 bytes, not 510");
}

/* A byte of a footer that is changed; the checksum is made right again unless the byte is its. */
static const struct {
	size_t at;
	uint8_t value;
	const char *error;
} wrong_footers[] = {
	{0, 'k', "no footer of a VHD"},
	{13, 2, "the footer has version 2.0: only 1 is known"},
	{15, 1, NULL}, /* minor */
	{63, 1,
	 "the footer says disk type 1: 2 (fixed), 3 (dynamic) and 4 (differencing) are known"},
	{63, 5,
	 "the footer says disk type 5: 2 (fixed), 3 (dynamic) and 4 (differencing) are known"},
	{55, 1, "the footer says a size of 6442450945 bytes: no whole number of sectors of 512"},
	{48, 0x80,
	 "the footer says a size of 9223372043297226752 bytes: no whole number of sectors of 512"},
	{84, 1, NULL},
	{511, 1, NULL},
};

static void put_checksum(uint8_t *bytes, size_t length, size_t at)
{
	uint32_t sum = vhd_checksum(bytes, length, at);

	for (int i = 0; i < 4; i++)
		bytes[at + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
}

static void test_wrong_footers(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong_footers); i++) {
		uint8_t bytes[VHD_FOOTER_SIZE];
		struct vhd_footer back;
		struct err err = {.text = ""};

		vhd_footer_encode(&some_footer, bytes);
		bytes[wrong_footers[i].at] = wrong_footers[i].value;
		put_checksum(bytes, sizeof(bytes), 64);
		assert_int_equal(vhd_footer_decode(&back, bytes, sizeof(bytes), &err),
				 wrong_footers[i].error ? -1 : 0);
		assert_string_equal(err.text, wrong_footers[i].error ? wrong_footers[i].error : "");
	}
}

/* Every bit that is wrong is noticed. */
static void test_checksum(void **state)
{
	uint8_t bytes[VHD_FOOTER_SIZE];
	struct vhd_footer back;
	struct err err;

	(void)state;
	vhd_footer_encode(&some_footer, bytes);
	for (size_t i = 0; i < 8 * sizeof(bytes); i++) {
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_int_equal(vhd_footer_decode(&back, bytes, sizeof(bytes), &err), -1);
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	bytes[100] ^= 1;
	assert_int_equal(vhd_footer_decode(&back, bytes, sizeof(bytes), &err), -1);
	assert_non_null(strstr(err.text, "the footer has checksum 0x"));
}

static void test_time(void **state)
{
	(void)state;
	assert_int_equal(vhd_time_of(946684800), 0);
	assert_int_equal(vhd_time_of(946684801), 1);
	assert_int_equal(vhd_time_of(0), 0);
	assert_int_equal(vhd_time_of(INT64_MIN), 0);
	assert_int_equal(vhd_time_of(INT64_MAX), UINT32_MAX);
	assert_int_equal(vhd_time_unix(1), 946684801);
}

/* ---- Sizes. ---- */

/* "CHS Calculation". */
static const struct {
	uint64_t sectors;
	struct vhd_geometry geometry;
} geometries[] = {
	{0, {0, 4, 17}},
	{67, {0, 4, 17}},
	{68, {1, 4, 17}},
	{96 * MIB / 512, {963, 12, 17}},
	{1024 * 16 * 17 - 1, {1023, 16, 17}},
	{1024 * 16 * 17, {561, 16, 31}},
	{504 * MIB / 512, {1024, 16, 63}},
	{10 * GIB / 512, {20805, 16, 63}},
	{(uint64_t)65535 * 16 * 63 - 1, {65534, 16, 63}},
	{(uint64_t)65535 * 16 * 63, {16191, 16, 255}},
	{(uint64_t)65535 * 16 * 255, {65535, 16, 255}},
	{UINT64_MAX / 512, {65535, 16, 255}},
};

static void test_geometry(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(geometries); i++) {
		struct vhd_geometry found = vhd_geometry_of(geometries[i].sectors * 512);

		assert_int_equal(found.cylinders, geometries[i].geometry.cylinders);
		assert_int_equal(found.heads, geometries[i].geometry.heads);
		assert_int_equal(found.sectors, geometries[i].geometry.sectors);
	}
}

/* A size for a footer is one that its geometry gives back, and not much larger than asked for. */
static void test_size_by_geometry(void **state)
{
	(void)state;
	for (uint64_t size = 1; size < 120 * GIB; size += size / 3 + 1) {
		uint64_t rounded = vhd_size_by_geometry(size);

		assert_true(rounded >= size && rounded - size < 2 * MIB);
		assert_int_equal(vhd_geometry_size(vhd_geometry_of(rounded)), rounded);
	}
	assert_int_equal(vhd_size_by_geometry(200 * GIB + 1), 200 * GIB + 512);
	assert_int_equal(vhd_size_by_mib(1), MIB);
	assert_int_equal(vhd_size_by_mib(5 * MIB), 5 * MIB);
}

static const struct {
	const char *creator;
	uint64_t current;
	struct vhd_geometry geometry;
	enum vhd_size_rule rule;
	uint64_t size;
} sizes[] = {
	{"vpc ", 100 * MIB, {963, 12, 17}, VHD_SIZE_AUTO, 963 * 12 * 17 * 512},
	{"qemu", 100 * MIB, {963, 12, 17}, VHD_SIZE_AUTO, 963 * 12 * 17 * 512},
	{"qem2", 100 * MIB, {963, 12, 17}, VHD_SIZE_AUTO, 100 * MIB},
	{"win ", 100 * MIB, {963, 12, 17}, VHD_SIZE_AUTO, 100 * MIB},
	{"vbox", 100 * MIB, {963, 12, 17}, VHD_SIZE_AUTO, 100 * MIB},
	{"win ", 100 * MIB, {963, 12, 17}, VHD_SIZE_GEOMETRY, 963 * 12 * 17 * 512},
	{"vpc ", 100 * MIB, {963, 12, 17}, VHD_SIZE_CURRENT, 100 * MIB},
	/* A geometry that cannot be meant. */
	{"vpc ", 100 * MIB, {0, 0, 0}, VHD_SIZE_AUTO, 100 * MIB},
	{"vpc ", 200 * GIB, {65535, 16, 255}, VHD_SIZE_GEOMETRY, 200 * GIB},
	{"vpc ", MIB, {963, 12, 17}, VHD_SIZE_AUTO, MIB},
};

static void test_disk_size(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct vhd_footer footer = {.current_size = sizes[i].current,
					    .geometry = sizes[i].geometry};

		memcpy(footer.creator, sizes[i].creator, 4);
		assert_int_equal(vhd_disk_size(&footer, sizes[i].rule), sizes[i].size);
	}
}

/* ---- Header. ---- */

static const struct vhd_header some_header = {
	.table_offset = 1536,
	.table_entries = 0x01020304,
	.block_size = 512 * 1024,
	.parent_id = "fedcba987654321",
	.parent_time_stamp = 0xaabbccdd,
	.parent_name = "b\xc3\xa4se.vhd",
	.locators = {[1] = {VHD_PLATFORM_W2RU, 512, 24, 0x1122334455}},
};

static void test_header(void **state)
{
	uint8_t bytes[VHD_HEADER_SIZE];
	struct vhd_header back;
	struct err err;

	(void)state;
	vhd_header_encode(&some_header, bytes);
	/* "Dynamic Disk Header Format". */
	assert_memory_equal(bytes, "cxsparse\xff\xff\xff\xff\xff\xff\xff\xff", 16);
	assert_memory_equal(bytes + 16, "\0\0\0\0\0\0\6\0\0\1\0\0\1\2\3\4\0\x08\0\0", 20);
	assert_memory_equal(bytes + 56, "\xaa\xbb\xcc\xdd\0\0\0\0\0b\0\xe4\0s", 14);
	assert_memory_equal(bytes + 600, "W2ru\0\0\2\0\0\0\0\x18\0\0\0\0\0\0\0\x11\x22\x33\x44\x55",
			    24);
	memset(&back, 0, sizeof(back));
	assert_int_equal(vhd_header_decode(&back, bytes, &err), 0);
	assert_memory_equal(&back, &some_header, sizeof(back));
	for (size_t i = 0; i < 8 * sizeof(bytes); i++) {
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_int_equal(vhd_header_decode(&back, bytes, &err), -1);
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
	}
}

static const struct {
	size_t at;
	uint8_t value;
	const char *error;
} wrong_headers[] = {
	{0, 'X', "no dynamic disk header where the footer says"},
	{25, 3, "the dynamic disk header has version 3.0: only 1 is known"},
	{34, 3,
	 "the dynamic disk header says blocks of 525056 bytes: powers of two from 4096 to "
	 "268435456 are known"},
	{32, 0x80,
	 "the dynamic disk header says blocks of 2148007936 bytes: powers of two from 4096 "
	 "to 268435456 are known"},
	{64, 0xdc, NULL}, /* a name that is no text is none */
};

static void test_wrong_headers(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong_headers); i++) {
		uint8_t bytes[VHD_HEADER_SIZE];
		struct vhd_header back;
		struct err err = {.text = ""};

		vhd_header_encode(&some_header, bytes);
		bytes[wrong_headers[i].at] = wrong_headers[i].value;
		put_checksum(bytes, sizeof(bytes), 36);
		assert_int_equal(vhd_header_decode(&back, bytes, &err),
				 wrong_headers[i].error ? -1 : 0);
		assert_string_equal(err.text, wrong_headers[i].error ? wrong_headers[i].error : "");
	}
}

static void test_long_name(void **state)
{
	struct vhd_header header = some_header, back;
	uint8_t bytes[VHD_HEADER_SIZE];
	struct err err;

	(void)state;
	/* 766 bytes of three each: 255 characters. The last does not fit as a whole. */
	for (size_t i = 0; i + 1 < sizeof(header.parent_name); i++)
		header.parent_name[i] = "\xe2\x82\xac"[i % 3];
	header.parent_name[sizeof(header.parent_name) - 2] = '\0';
	vhd_header_encode(&header, bytes);
	assert_int_equal(vhd_header_decode(&back, bytes, &err), 0);
	assert_int_equal(strlen(back.parent_name), 765);
	assert_memory_equal(back.parent_name, header.parent_name, 765);
}

/* ---- Text. ---- */

static const struct {
	const char *utf8;
	const char *utf16; /* little-endian */
	size_t length;
} texts[] = {
	{"", "", 0},
	{"a.vhd", "a\0.\0v\0h\0d\0", 10},
	{"\xc3\xa4", "\xe4\0", 2},
	{"\xe2\x82\xac", "\xac\x20", 2},
	{"\xf0\x9f\x98\x80", "\x3d\xd8\x00\xde", 4},
	{"\xf4\x8f\xbf\xbf", "\xff\xdb\xff\xdf", 4},
};

static void test_text(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		uint8_t bytes[32], swapped[32];
		char back[VHD_TEXT_ROOM(16)];

		assert_int_equal(vhd_text_encode(bytes, sizeof(bytes), texts[i].utf8, false),
				 (int)texts[i].length);
		assert_memory_equal(bytes, texts[i].utf16, texts[i].length);
		assert_int_equal(vhd_text_decode(back, bytes, texts[i].length, false), 0);
		assert_string_equal(back, texts[i].utf8);
		assert_int_equal(vhd_text_encode(swapped, sizeof(swapped), texts[i].utf8, true),
				 (int)texts[i].length);
		for (size_t j = 0; j < texts[i].length; j++)
			assert_int_equal(swapped[j], bytes[j ^ 1]);
	}
}

static void test_wrong_text(void **state)
{
	static const char *const utf8[] = {"\x80",	   "\xc3",	   "\xc0\xaf",
					   "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
					   "\xff",	   "\n",	   "a\x7f"};
	static const char utf16[][4] = {"\0\xd8", "\0\xdc", "\0\xd8\0\xd8", "\n\0a\0"};
	uint8_t bytes[8];
	char text[VHD_TEXT_ROOM(4)];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(utf8); i++)
		assert_int_equal(vhd_text_encode(bytes, sizeof(bytes), utf8[i], false), -1);
	assert_int_equal(vhd_text_encode(bytes, 6, "abcd", false), -1);
	for (size_t i = 0; i < ARRAY_SIZE(utf16); i++)
		assert_int_equal(vhd_text_decode(text, (const uint8_t *)utf16[i], 4, false), -1);
	assert_int_equal(vhd_text_decode(text, (const uint8_t *)"a\0b", 3, false), -1);
	assert_int_equal(vhd_text_decode(text, (const uint8_t *)"\0\xd8", 2, false), -1);
	/* A NUL ends it. */
	assert_int_equal(vhd_text_decode(text, (const uint8_t *)"a\0\0\0\0\xd8", 6, false), 0);
	assert_string_equal(text, "a");
}

/* ---- Layout. ---- */

/* A disk of five blocks of 512 KiB and a half. */
#define DISK_SIZE  (5 * 512 * KIB + 256 * KIB)
#define SLOT	   1025U /* sectors */
#define END_SECTOR 10000U

static void init_layout(struct vhd_footer *footer, struct vhd_header *header)
{
	*footer = some_footer;
	footer->type = VHD_DIFFERENCING;
	footer->current_size = DISK_SIZE;
	*header = some_header;
	header->table_entries = 7;
	header->locators[1].offset = 4096;
}

static void test_layout(void **state)
{
	struct vhd_layout layout;
	struct vhd_footer footer;
	struct vhd_header header;
	struct err err;

	(void)state;
	init_layout(&footer, &header);
	assert_int_equal(vhd_layout_of(&layout, &footer, &header, DISK_SIZE, END_SECTOR, &err), 0);
	assert_int_equal(layout.blocks, 6);
	assert_int_equal(layout.block_sectors, 1024);
	assert_int_equal(layout.bitmap_sectors, 1);
	assert_int_equal(layout.header_sector, 1);
	assert_int_equal(layout.table_sector, 3);
	assert_int_equal(layout.table_sectors, 1);
	assert_int_equal(vhd_slot_sectors(&layout, 4), SLOT);
	assert_int_equal(vhd_slot_sectors(&layout, 5), 513);
	assert_int_equal(vhd_metadata_end(&layout), 9); /* the locator */
	assert_int_equal(vhd_bitmap_sectors(2 * MIB), 1);
	assert_int_equal(vhd_bitmap_sectors(16 * MIB), 8);
	assert_int_equal(vhd_bitmap_sectors(4096), 1);
}

static void expect_layout(const struct vhd_footer *footer, const struct vhd_header *header,
			  uint64_t size, uint64_t end, const char *error)
{
	struct vhd_layout layout;
	struct err err = {.text = ""};

	assert_int_equal(vhd_layout_of(&layout, footer, header, size, end, &err), error ? -1 : 0);
	assert_string_equal(err.text, error ? error : "");
}

static void test_wrong_layouts(void **state)
{
	struct vhd_footer footer;
	struct vhd_header header, changed;

	(void)state;
	init_layout(&footer, &header);
	changed = header;
	changed.table_entries = 5;
	expect_layout(&footer, &changed, DISK_SIZE, END_SECTOR,
		      "the block allocation table has 5 entries for the 6 blocks of the disk");
	changed = header;
	changed.table_offset = 1537;
	expect_layout(&footer, &changed, DISK_SIZE, END_SECTOR,
		      "the dynamic disk header says a block allocation table at byte 1537");
	changed.table_offset = 1024;
	expect_layout(&footer, &changed, DISK_SIZE, END_SECTOR,
		      "the dynamic disk header and the block allocation table overlap");
	changed.table_offset = 0;
	expect_layout(&footer, &changed, DISK_SIZE, END_SECTOR,
		      "the copy of the footer and the block allocation table overlap");
	changed.table_offset = END_SECTOR * 512;
	expect_layout(&footer, &changed, DISK_SIZE, END_SECTOR,
		      "the block allocation table ends in sector 10001, the file in sector 10000");
	changed = header;
	changed.table_entries = UINT32_MAX;
	expect_layout(
		&footer, &changed, DISK_SIZE, END_SECTOR,
		"the block allocation table ends in sector 33554435, the file in sector 10000");
	changed = header;
	changed.locators[1].offset = 1536;
	expect_layout(&footer, &changed, DISK_SIZE, END_SECTOR,
		      "the block allocation table and a parent locator overlap");
	changed.locators[1].offset = UINT64_MAX;
	expect_layout(&footer, &changed, DISK_SIZE, END_SECTOR,
		      "parent locator 1 lies at byte 18446744073709551615, beyond any file");
	footer.type = VHD_DYNAMIC; /* which has none */
	expect_layout(&footer, &changed, DISK_SIZE, END_SECTOR, NULL);
	changed = header;
	changed.table_entries = UINT32_MAX;
	expect_layout(&footer, &changed, 3 * (uint64_t)1024 * GIB, UINT64_MAX,
		      "the disk has 3298534883328 bytes, more than the 2199023255040 that a table "
		      "of 32-bit sector numbers can hold");
	changed.block_size = 4096;
	expect_layout(&footer, &changed, 64 * GIB, UINT64_MAX,
		      "the disk has 16777216 blocks, more than 8388608");
	footer.data_offset = 1000;
	expect_layout(&footer, &header, DISK_SIZE, END_SECTOR,
		      "the footer says a dynamic disk header at byte 1000");
}

#define NONE VHD_NO_BLOCK

static const struct {
	uint32_t entries[6];
	const char *error;
} tables[] = {
	{{NONE, NONE, NONE, NONE, NONE, NONE}, NULL},
	{{9, NONE, 9 + SLOT, NONE, 9 + 2 * SLOT, 9 + 3 * SLOT}, NULL},
	{{9 + 2 * SLOT, 9 + SLOT, 9, NONE, NONE, NONE}, NULL},
	{{9 + SLOT, 9, NONE, NONE, NONE, 9 + 2 * SLOT}, NULL},
	{{END_SECTOR - SLOT, NONE, NONE, NONE, NONE, NONE}, NULL},
	/* The last is half as long. */
	{{9, NONE, NONE, NONE, 9 + SLOT + 513, 9 + SLOT}, NULL},
	{{NONE, NONE, NONE, NONE, NONE, END_SECTOR - 513}, NULL},
	{{NONE, NONE, NONE, NONE, NONE, END_SECTOR - 512},
	 "block 5 lies in sectors 9488 to 10000, the file ends in 10000"},
	{{NONE, END_SECTOR - SLOT + 1, NONE, NONE, NONE, NONE},
	 "block 1 lies in sectors 8976 to 10000, the file ends in 10000"},
	{{NONE, NONE, NONE - 1, NONE, NONE, NONE},
	 "block 2 lies in sectors 4294967294 to 4294968318, the file ends in 10000"},
	{{0, NONE, NONE, NONE, NONE, NONE},
	 "block 0, in sectors 0 to 1024, lies on the copy of the footer"},
	{{2, NONE, NONE, NONE, NONE, NONE},
	 "block 0, in sectors 2 to 1026, lies on the dynamic disk header"},
	{{NONE, 3, NONE, NONE, NONE, NONE},
	 "block 1, in sectors 3 to 1027, lies on the block allocation table"},
	{{NONE, 8, NONE, NONE, NONE, NONE},
	 "block 1, in sectors 8 to 1032, lies on a parent locator"},
	{{9, 9, NONE, NONE, NONE, NONE}, "blocks 0 and 1 overlap, in sectors 9 and 9"},
	{{NONE, 9 + SLOT - 1, NONE, 9, NONE, NONE},
	 "blocks 3 and 1 overlap, in sectors 9 and 1033"},
	{{NONE, NONE, NONE, 521, NONE, 9}, "blocks 5 and 3 overlap, in sectors 9 and 521"},
	{{NONE, NONE, NONE, NONE, 9, 9}, "blocks 4 and 5 overlap, in sectors 9 and 9"},
};

static void test_tables(void **state)
{
	struct vhd_layout layout;
	struct vhd_footer footer;
	struct vhd_header header;
	struct err err;

	(void)state;
	init_layout(&footer, &header);
	assert_int_equal(vhd_layout_of(&layout, &footer, &header, DISK_SIZE, END_SECTOR, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		uint32_t order[6], used, wanted = 0;
		int result;

		err.text[0] = '\0';
		result = vhd_table_check(&layout, tables[i].entries, order, &used, &err);
		assert_string_equal(err.text, tables[i].error ? tables[i].error : "");
		assert_int_equal(result, tables[i].error ? -1 : 0);
		if (result < 0)
			continue;
		for (size_t j = 0; j < 6; j++)
			wanted += tables[i].entries[j] != NONE;
		assert_int_equal(used, wanted);
		for (uint32_t j = 1; j < used; j++)
			assert_true(order[j - 1] < order[j]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_footer),	      cmocka_unit_test(test_wrong_footers),
		cmocka_unit_test(test_checksum),      cmocka_unit_test(test_time),
		cmocka_unit_test(test_geometry),      cmocka_unit_test(test_size_by_geometry),
		cmocka_unit_test(test_disk_size),     cmocka_unit_test(test_header),
		cmocka_unit_test(test_wrong_headers), cmocka_unit_test(test_long_name),
		cmocka_unit_test(test_text),	      cmocka_unit_test(test_wrong_text),
		cmocka_unit_test(test_layout),	      cmocka_unit_test(test_wrong_layouts),
		cmocka_unit_test(test_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
