// SPDX-License-Identifier: MIT
#include "tests/lib/vhd_fuzz.h"

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "backends/list.h"
#include "backends/vhd/format.h"
#include "core/image.h"
#include "tests/lib/medium.h"
#include "tests/lib/vhd_images.h"

#define BLOCK_SIZE 4096U
#define BLOCKS	   8U
#define DISK_SIZE  (BLOCKS * BLOCK_SIZE)
#define SLOT_SIZE  (VHD_SECTOR + BLOCK_SIZE)
#define TABLE_AT   (VHD_FOOTER_SIZE + VHD_HEADER_SIZE)
#define LOCATOR_AT (TABLE_AT + VHD_SECTOR)
#define SLOTS_AT   (LOCATOR_AT + VHD_SECTOR)

/* @why it does not, if that is known. */
static void must_why(bool held, const char *what, const char *why)
{
	if (held)
		return;
	fprintf(stderr, "it does not hold that %s: %s\n", what, why);
	abort();
}

static void must(bool held, const char *what)
{
	must_why(held, what, "");
}

/* ---- Seeds. ---- */

static const uint8_t parent_id[16] = "the parent's id";

static struct vhd_footer seed_footer(enum vhd_type type)
{
	struct vhd_footer footer = {
		.data_offset = type == VHD_FIXED ? UINT64_MAX : VHD_FOOTER_SIZE,
		.creator = "win ",
		.creator_host = "Wi2k",
		.original_size = DISK_SIZE,
		.current_size = DISK_SIZE,
		.geometry = vhd_geometry_of(DISK_SIZE),
		.type = type,
	};

	memcpy(footer.id, parent_id, sizeof(footer.id));
	footer.id[15] = type == VHD_DIFFERENCING;
	return footer;
}

static size_t seed_fixed(uint8_t *data, size_t footer_size)
{
	struct vhd_footer footer = seed_footer(VHD_FIXED);

	pattern_fill(data, DISK_SIZE, 1);
	vhd_footer_encode(&footer, data + DISK_SIZE);
	return DISK_SIZE + footer_size;
}

/* The blocks of @used have slots, in descending order; every third sector of them is valid, or
 * all. */
static size_t seed_blocks(uint8_t *data, enum vhd_type type, unsigned used, bool full)
{
	struct vhd_footer footer = seed_footer(type);
	struct vhd_header header = {.table_offset = TABLE_AT,
				    .table_entries = BLOCKS,
				    .block_size = BLOCK_SIZE};
	size_t end = SLOTS_AT;

	memset(data + TABLE_AT, 0xff, VHD_SECTOR);
	for (unsigned i = BLOCKS; i-- > 0;) {
		uint32_t entry = htobe32((uint32_t)(end / VHD_SECTOR));

		if (!(used & 1U << i))
			continue;
		memcpy(data + TABLE_AT + i * sizeof(entry), &entry, sizeof(entry));
		memset(data + end, 0, VHD_SECTOR);
		data[end] = full ? 0xff : 0x92;
		pattern_fill(data + end + VHD_SECTOR, BLOCK_SIZE, i);
		end += SLOT_SIZE;
	}
	if (type == VHD_DIFFERENCING) {
		memcpy(header.parent_id, parent_id, sizeof(parent_id));
		strcpy(header.parent_name, "parent.vhd");
		header.locators[0] = (struct vhd_locator){.platform = VHD_PLATFORM_W2RU,
							  .space = 1,
							  .offset = LOCATOR_AT};
		header.locators[0].length = (uint32_t)vhd_text_encode(data + LOCATOR_AT, VHD_SECTOR,
								      ".\\parent.vhd", false);
	}
	vhd_footer_encode(&footer, data);
	vhd_header_encode(&header, data + VHD_FOOTER_SIZE);
	vhd_footer_encode(&footer, data + end);
	return end + VHD_FOOTER_SIZE;
}

/* The last block has but a sector in the disk, and a slot as short, with others behind it. */
static size_t seed_cut(uint8_t *data)
{
	size_t length = seed_blocks(data, VHD_DYNAMIC, 0x1f, true);
	size_t behind = SLOTS_AT + SLOT_SIZE, cut = SLOT_SIZE - 2 * VHD_SECTOR;
	uint64_t size = htobe64(4 * BLOCK_SIZE + VHD_SECTOR);
	uint32_t entry;

	memmove(data + behind - cut, data + behind, length - behind);
	length -= cut;
	for (size_t at = TABLE_AT; at < TABLE_AT + 4 * sizeof(entry); at += sizeof(entry)) {
		memcpy(&entry, data + at, sizeof(entry));
		entry = htobe32(be32toh(entry) - (uint32_t)(cut / VHD_SECTOR));
		memcpy(data + at, &entry, sizeof(entry));
	}
	memcpy(data + 48, &size, sizeof(size));
	memcpy(data + length - VHD_FOOTER_SIZE + 48, &size, sizeof(size));
	vhd_sign(data, length);
	return length;
}

size_t vhd_seed(unsigned index, uint8_t data[static VHD_FUZZ_SIZE_MAX])
{
	memset(data, 0, VHD_FUZZ_SIZE_MAX);
	switch (index) {
	case 0:
		return seed_blocks(data, VHD_DYNAMIC, 0, true);
	case 1:
		return seed_blocks(data, VHD_DYNAMIC, 0xa5, true);
	case 2:
		return seed_blocks(data, VHD_DYNAMIC, 0xff, false);
	case 3:
		return seed_blocks(data, VHD_DIFFERENCING, 0x3c, false);
	case 4:
		return seed_cut(data);
	case 5:
		return seed_fixed(data, VHD_FOOTER_SIZE);
	default:
		return seed_fixed(data, VHD_OLD_FOOTER_SIZE);
	}
}

/* ---- Mutations. ---- */

#define FOOTER_CHECKSUM 64U
#define HEADER_CHECKSUM 36U

static void sign(uint8_t *data, size_t size, uint64_t at, size_t length, size_t field)
{
	uint32_t sum;

	if (at > size || size - at < length)
		return;
	sum = htobe32(vhd_checksum(data + at, length, field));
	memcpy(data + at + field, &sum, sizeof(sum));
}

void vhd_sign(uint8_t *data, size_t size)
{
	uint64_t header = VHD_FOOTER_SIZE;

	if (size >= VHD_FOOTER_SIZE) {
		memcpy(&header, data + 16, sizeof(header));
		header = be64toh(header);
	}
	sign(data, size, header, VHD_HEADER_SIZE, HEADER_CHECKSUM);
	sign(data, size, 0, VHD_FOOTER_SIZE, FOOTER_CHECKSUM);
	if (size >= VHD_FOOTER_SIZE)
		sign(data, size, size - VHD_FOOTER_SIZE, VHD_FOOTER_SIZE, FOOTER_CHECKSUM);
}

/* A number that is likely to be wrong somewhere. */
static uint64_t odd_number(struct random *random)
{
	uint64_t power = 1ULL << random_below(random, 64);

	switch (random_below(random, 5)) {
	case 0:
		return power;
	case 1:
		return power - 1;
	case 2:
		return UINT64_MAX - random_below(random, 4);
	case 3:
		return random_below(random, 64) * VHD_SECTOR;
	default:
		return random_below(random, 256);
	}
}

static void change_number(uint8_t *data, size_t size, struct random *random)
{
	size_t width = (size_t)1 << random_below(random, 4);
	uint64_t number = htobe64(odd_number(random) << (64 - 8 * width));
	/* Mostly in what is no data. */
	size_t range = random_below(random, 4) > 0 ? min_u64(size, SLOTS_AT) : size;
	size_t at;

	if (range < width)
		return;
	at = random_below(random, range - width + 1);
	if (random_below(random, 4) > 0)
		at -= at % width;
	memcpy(data + at, &number, width);
}

/* One of the numbers that say where things are. */
static void change_field(uint8_t *data, size_t size, struct random *random)
{
	static const struct {
		uint16_t at, width;
	} fields[] = {{16, 8},	{40, 8},   {48, 8},   {56, 4},	 {60, 4},
		      {84, 1},	{528, 8},  {540, 4},  {544, 4},	 {552, 4},
		      {568, 4}, {1088, 4}, {1092, 4}, {1096, 4}, {1104, 8}};
	unsigned index = (unsigned)random_below(random, ARRAY_SIZE(fields));
	size_t at = fields[index].at, width = fields[index].width;
	uint64_t number = htobe64(odd_number(random) << (64 - 8 * width));

	if (at < VHD_FOOTER_SIZE && size >= VHD_FOOTER_SIZE && random_below(random, 2))
		memcpy(data + size - VHD_FOOTER_SIZE + at, &number, width);
	if (at + width <= size)
		memcpy(data + at, &number, width);
}

/* An entry of the table that is nearly right. */
static void change_entry(uint8_t *data, size_t size, struct random *random)
{
	uint32_t entry = htobe32((uint32_t)random_below(random, size / VHD_SECTOR + 8));
	size_t at = TABLE_AT + sizeof(entry) * random_below(random, BLOCKS);

	if (at + sizeof(entry) <= size)
		memcpy(data + at, &entry, sizeof(entry));
}

/* Takes a piece out, or doubles one. */
static size_t change_length(uint8_t *data, size_t size, size_t max, struct random *random)
{
	size_t at = random_below(random, size + 1), length = random_below(random, size - at + 1);

	if (random_below(random, 2))
		length = min_u64(length, random_below(random, 3) * VHD_SECTOR);
	if (random_below(random, 2)) {
		memmove(data + at, data + at + length, size - at - length);
		return size - length;
	}
	length = min_u64(length, max - size);
	memmove(data + at + length, data + at, size - at);
	return size + length;
}

size_t vhd_mutate(uint8_t *data, size_t size, size_t max, struct random *random)
{
	unsigned changes = 1 + (unsigned)random_below(random, 4);

	for (unsigned i = 0; i < changes; i++) {
		unsigned kind = (unsigned)random_below(random, 16);

		if (kind < 6)
			change_field(data, size, random);
		else if (kind < 10)
			change_entry(data, size, random);
		else if (kind < 13)
			change_number(data, size, random);
		else if (kind < 14)
			size = change_length(data, size, max, random);
		else if (size > 0)
			data[random_below(random, size)] ^=
				(uint8_t)(1U << random_below(random, 8));
	}
	if (random_below(random, 4) > 0)
		vhd_sign(data, size);
	return size;
}

/* ---- What is done to each. ---- */

#define READ_MAX   ((size_t)8192)
#define GROWTH_MAX (512 * MIB)

/* An open one, with a parent if it wants one. */
struct open_image {
	struct medium parent;
	struct disk *medium, *disk, *parent_medium, *parent_disk;
	struct err err; /* why it is not open */
};

static bool open_image(struct open_image *open, struct medium *medium, unsigned flags)
{
	struct medium_config config = {.medium = medium, .size_max = GROWTH_MAX};
	struct medium_config parent = {.medium = &open->parent};
	uint8_t *data = malloc(VHD_FUZZ_SIZE_MAX);
	struct err *err = &open->err;

	must(data, "there is memory");
	*open = (struct open_image){.medium = NULL};
	open->medium = medium_open(&config, flags);
	open->disk = vhd_open_on(open->medium, NULL, flags, err);
	if (!open->disk && strcmp(err->key, "parent") == 0) {
		medium_write(&open->parent, data, vhd_seed(1, data), 0);
		open->parent_medium = medium_open(&parent, DISK_OPEN_READ_ONLY);
		open->parent_disk =
			vhd_open_on(open->parent_medium, NULL, DISK_OPEN_READ_ONLY, err);
		open->disk = vhd_open_on(open->medium, open->parent_disk, flags, err);
	}
	free(data);
	return open->disk;
}

static void close_image(struct open_image *open)
{
	disk_close(open->disk);
	disk_close(open->medium);
	disk_close(open->parent_disk);
	disk_close(open->parent_medium);
	medium_free(&open->parent);
}

/* Reads from all over the disk. A hash of what was there, and of errors. */
static uint64_t read_all(struct disk *disk)
{
	uint64_t count = disk_sector_count(disk), step = max_u64(count / 32, 1);
	uint64_t hash = count;
	char *data = malloc(READ_MAX);

	must(data, "there is memory");
	for (uint64_t at = 0; at < count; at += step) {
		size_t length = min_u64(READ_MAX, (count - at) * VHD_SECTOR);
		struct extent extent;
		struct iovec iov;
		struct sg sg = sg_of(&iov, data, length);
		int error = disk_read(disk, &sg, at);

		hash = random_at(hash, (uint64_t)(unsigned)error);
		for (size_t i = 0; !error && i < length; i += sizeof(hash)) {
			uint64_t word;

			memcpy(&word, data + i, sizeof(word));
			hash = random_at(hash, word);
		}
		if (disk_extent(disk, at, count - at, &extent) == 0)
			must(extent.count > 0 && extent.count <= count - at, "extents are inside");
	}
	free(data);
	return hash;
}

/* What was written is read. */
static void write_some(struct disk *disk, struct random *random)
{
	uint64_t count = disk_sector_count(disk);
	char data[4 * VHD_SECTOR], back[4 * VHD_SECTOR];

	for (unsigned i = 0; i < 12; i++) {
		uint64_t sector = random_below(random, count);
		size_t length = min_u64(1 + random_below(random, 4), count - sector) * VHD_SECTOR;
		struct iovec iov, back_iov;
		struct sg sg = sg_of(&iov, data, length);
		struct sg back_sg = sg_of(&back_iov, back, length);
		unsigned kind = (unsigned)random_below(random, 8);
		int error;

		pattern_fill(data, length, random_next(random));
		if (kind == 0)
			memset(data, 0, length);
		if (kind == 0)
			error = disk_write_zeroes(disk, sector, length / VHD_SECTOR, 0);
		else if (kind == 1)
			error = disk_unmap(disk, sector, min_u64(count - sector, 4096));
		else
			error = disk_write(disk, &sg, sector, 0);
		if (!error && kind != 1 && disk_read(disk, &back_sg, sector) == 0)
			must(memcmp(data, back, length) == 0, "what was written is read");
		if (kind == 2)
			(void)disk_flush(disk);
	}
}

/* Of those the medium knows nothing: they have no files beside it. */
static bool is_about_parent(const char *sentence)
{
	return strstr(sentence, "parent");
}

/* What a check has found: what keeps an image from being opened, and what could be mended. */
struct verdict {
	unsigned left, mendable;
};

static void count_finding(void *context, const struct image_finding *finding)
{
	struct verdict *verdict = context;

	if (finding->is_note || finding->is_mended)
		return;
	verdict->mendable += finding->remedy != NULL;
	/* The driver goes by the bitmaps as they are. */
	verdict->left += !is_about_parent(finding->text) && !strstr(finding->text, "bitmap");
}

/* False: it is no image. */
static bool check_file(const char *path, bool repair, struct verdict *verdict)
{
	struct image_check check = {
		.path = path, .repair = repair, .finding = count_finding, .context = verdict};
	struct err err;

	*verdict = (struct verdict){.left = 0};
	return driver_find("vhd")->image->check(&check, &err) == IMAGE_CHECKED;
}

/* Mends a copy; if that leaves nothing wrong it can be opened, and is what it was. */
static void check_and_mend(const struct medium *medium, const char *refusal, uint64_t hash)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct medium mended = {.size = 0};
	struct open_image open;
	struct verdict verdict;
	char path[64];

	must(fd >= 0, "there is memory");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	medium_save(medium, path);
	if (check_file(path, false, &verdict) && verdict.left == 0)
		must_why(!refusal || is_about_parent(refusal), "what is right can be opened",
			 refusal);
	if (check_file(path, true, &verdict) && verdict.left == 0) {
		must(check_file(path, false, &verdict) && verdict.left + verdict.mendable == 0,
		     "what has been mended is right");
		medium_load(&mended, path);
		must_why(open_image(&open, &mended, DISK_OPEN_READ_ONLY) ||
				 is_about_parent(open.err.text),
			 "what has been mended can be opened", open.err.text);
		if (!refusal)
			must(read_all(open.disk) == hash, "what has been mended is what it was");
		close_image(&open);
		medium_free(&mended);
	}
	close(fd);
}

void vhd_fuzz(const uint8_t *data, size_t size)
{
	struct random random = {.state = size};
	struct medium medium = {.size = 0};
	struct open_image open;
	char *refusal = NULL;
	uint64_t hash = 0;

	for (size_t i = 0; i < size; i += VHD_SECTOR / 4)
		random.state = random_at(random.state, data[i]);
	medium_write(&medium, data, size, 0);
	if (open_image(&open, &medium, DISK_OPEN_READ_ONLY))
		hash = read_all(open.disk);
	else
		refusal = strdup(open.err.text);
	close_image(&open);
	check_and_mend(&medium, refusal, hash);
	if (open_image(&open, &medium, 0)) {
		must(read_all(open.disk) == hash, "opening for writing changes nothing");
		write_some(open.disk, &random);
		hash = read_all(open.disk);
	}
	close_image(&open);
	if (!refusal) {
		must_why(open_image(&open, &medium, DISK_OPEN_READ_ONLY),
			 "what was closed can be opened", open.err.text);
		must(read_all(open.disk) == hash, "what was closed is what is opened");
		close_image(&open);
	}
	free(refusal);
	medium_free(&medium);
}
