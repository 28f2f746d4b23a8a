// SPDX-License-Identifier: MIT
/*
 * Opening an image: footers, header and table are read, checked, and, where it is opened for
 * writing, mended.
 *
 * The footer at the end counts; where it is damaged or missing, its copy. The end that a crash has
 * left is found by the footer: if it is in its place, what lies before it without being in use is
 * room for blocks; if not, the file had grown, or was just growing, and is cut behind the last slot.
 */
#include "backends/vhd/image.h"
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BITS 64U

/* ---- I/O of the file. ---- */

int vhd_image_load(const struct vhd_image *image, void *data, uint64_t sector, uint64_t count)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count * VHD_SECTOR);

	return disk_read(image->below, &sg, sector);
}

int vhd_image_store(const struct vhd_image *image, const void *data, uint64_t sector,
		    uint64_t count)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, (void *)(uintptr_t)data, count * VHD_SECTOR);

	return disk_write(image->below, &sg, sector, 0);
}

static int load_failed(const char *what, int error, struct err *err)
{
	char text[80];

	return err_set(err, "cannot read %s: %s", what, error_describe(text, error));
}

static int load(const struct vhd_image *image, void *data, uint64_t sector, uint64_t count,
		const char *what, struct err *err)
{
	int error = vhd_image_load(image, data, sector, count);

	return error ? load_failed(what, error, err) : 0;
}

/* ---- Footers. ---- */

/* What was found where a footer should be. */
struct found {
	bool good;
	struct err err; /* unless good */
	struct vhd_footer footer;
	uint8_t bytes[VHD_FOOTER_SIZE];
};

/* The footer at the end of the file, and in *end_sector where it begins. */
static int find_footer(struct vhd_image *image, struct found *found, uint64_t *end_sector,
		       struct err *err)
{
	uint64_t sectors = disk_sector_count(image->below);
	uint8_t tail[VHD_FOOTER_SIZE] = {0};
	size_t length = 0;
	int error = disk_tail(image->below, tail, &length);

	if (error)
		return load_failed("the footer", error, err);
	if (length == VHD_OLD_FOOTER_SIZE &&
	    vhd_footer_decode(&found->footer, tail, length, &found->err) == 0) {
		memcpy(found->bytes, tail, sizeof(tail));
		found->good = true;
		*end_sector = sectors;
		return 0;
	}
	if (load(image, found->bytes, sectors - 1, 1, "the footer", err) < 0)
		return -1;
	found->good =
		vhd_footer_decode(&found->footer, found->bytes, VHD_FOOTER_SIZE, &found->err) == 0;
	*end_sector = found->good ? sectors - 1 : sectors;
	return 0;
}

/* The copy, which a fixed disk does not have: whatever is there then is data. */
static int find_copy(struct vhd_image *image, struct found *found, struct err *err)
{
	if (load(image, found->bytes, 0, 1, "the copy of the footer", err) < 0)
		return -1;
	found->good =
		vhd_footer_decode(&found->footer, found->bytes, VHD_FOOTER_SIZE, &found->err) == 0;
	if (found->good && found->footer.type == VHD_FIXED) {
		found->good = false;
		err_set(&found->err, "no copy of a footer");
	}
	return 0;
}

/* What is found out about a file before it is an image. */
struct opening {
	struct found end, copy;
	uint64_t end_sector;
	enum vhd_size_rule rule;
};

static int read_footers(struct vhd_image *image, struct opening *opening, struct err *err)
{
	const struct found *used = &opening->end;

	if (find_footer(image, &opening->end, &opening->end_sector, err) < 0 ||
	    find_copy(image, &opening->copy, err) < 0)
		return -1;
	if (!opening->end.good && !opening->copy.good) {
		bool is_fixed = vhd_has_footer_cookie(opening->end.bytes) ||
				!vhd_has_footer_cookie(opening->copy.bytes);

		return err_set(err, "at the end: %s%s%s", opening->end.err.text,
			       is_fixed ? "" : "; in the copy: ",
			       is_fixed ? "" : opening->copy.err.text);
	}
	if (opening->end.good && opening->copy.good && opening->end.footer.type != VHD_FIXED &&
	    memcmp(opening->end.footer.id, opening->copy.footer.id, sizeof(used->footer.id)) != 0)
		return err_set(err, "the footer and its copy are of two different disks");
	if (!opening->end.good) {
		used = &opening->copy;
		log_warning(image->node, "at the end: %s; the copy at the beginning is used",
			    opening->end.err.text);
	}
	image->footer = used->footer;
	memcpy(image->footer_bytes, used->bytes, sizeof(image->footer_bytes));
	if (image->footer.saved_state)
		return err_set(err, "the disk has a saved state of the machine that it belongs to: "
				    "to change it would break that");
	return 0;
}

/* ---- The table. ---- */

/* The table is for all that the footer says, also where less of it is shown. */
static int read_header(struct vhd_image *image, const struct opening *opening, struct err *err)
{
	uint64_t sectors = disk_sector_count(image->below);
	uint64_t offset = image->footer.data_offset;
	uint8_t bytes[VHD_HEADER_SIZE];

	if (offset % VHD_SECTOR != 0 || offset / VHD_SECTOR >= sectors ||
	    sectors - offset / VHD_SECTOR < VHD_HEADER_SIZE / VHD_SECTOR)
		return err_set(err,
			       "the footer says a dynamic disk header at byte %llu: not in the "
			       "file",
			       (unsigned long long)offset);
	if (load(image, bytes, offset / VHD_SECTOR, VHD_HEADER_SIZE / VHD_SECTOR,
		 "the dynamic disk header", err) < 0 ||
	    vhd_header_decode(&image->header, bytes, err) < 0)
		return -1;
	return vhd_layout_of(&image->layout, &image->footer, &image->header,
			     image->footer.current_size, opening->end_sector, err);
}

static int make_tables(struct vhd_image *image, uint64_t sectors, struct err *err)
{
	uint32_t blocks = image->layout.blocks;

	image->table = malloc(sectors * VHD_SECTOR);
	image->blocks = calloc(blocks, sizeof(*image->blocks));
	image->dirty = calloc((blocks + WORD_BITS - 1) / WORD_BITS, sizeof(*image->dirty));
	image->locks = locks_new();
	image->ones = malloc((size_t)image->layout.bitmap_sectors * VHD_SECTOR);
	if (!image->table || !image->blocks || !image->dirty || !image->locks || !image->ones)
		return err_set(err, "no memory for a table of %u blocks", blocks);
	memset(image->ones, 0xff, (size_t)image->layout.bitmap_sectors * VHD_SECTOR);
	return 0;
}

/* Fills @order with the slots that are in use, in ascending order. */
static int check_table(struct vhd_image *image, uint32_t *order, uint32_t *used, struct err *err)
{
	uint32_t blocks = image->layout.blocks;
	uint32_t *entries = malloc(blocks * sizeof(*entries));
	int result;

	if (!entries)
		return err_set(err, "no memory for a table of %u blocks", blocks);
	for (uint32_t i = 0; i < blocks; i++)
		entries[i] = be32toh(image->table[i]);
	result = vhd_table_check(&image->layout, entries, order, used, err);
	for (uint32_t i = 0; result == 0 && i < blocks; i++)
		if (entries[i] != VHD_NO_BLOCK)
			atomic_init(&image->blocks[i].place, entries[i]);
	atomic_init(&image->allocated, *used);
	free(entries);
	return result;
}

/* ---- Mending. ---- */

static int mend_failed(int error, struct err *err)
{
	char text[80];

	return err_set(err, "cannot mend what a crash has left: %s", error_describe(text, error));
}

static int mend_copy(struct vhd_image *image, const struct opening *opening, struct err *err)
{
	int error;

	if (opening->copy.good)
		return 0;
	log_warning(image->node, "the copy of the footer is damaged, and written anew: %s",
		    opening->copy.err.text);
	error = vhd_image_store(image, image->footer_bytes, 0, 1);
	if (!error)
		error = disk_flush(image->below);
	return error ? mend_failed(error, err) : 0;
}

/* Puts the footer behind what is in use, and cuts off what is behind it. Where that cannot be the
 * footer stands in the last sector. */
static int mend_end(struct vhd_image *image, uint64_t end, struct err *err)
{
	int error = disk_resize(image->below, end + 1);

	if (error_kind(error) == ERROR_UNSUPPORTED && disk_sector_count(image->below) > end)
		error = 0;
	if (!error) {
		uint64_t last = disk_sector_count(image->below) - 1;

		error = vhd_image_store(image, image->footer_bytes, last, 1);
		image->commit.footer_sector = last;
	}
	if (!error)
		error = disk_flush(image->below);
	return error ? mend_failed(error, err) : 0;
}

/* Where the last slot ends. */
static uint64_t slots_end(const struct vhd_image *image, const uint32_t *order, uint32_t used)
{
	uint64_t end = vhd_metadata_end(&image->layout);

	if (used > 0)
		end = max_u64(end, order[used - 1] + slot_length(image));
	return end;
}

/* Whether entries behind those of the disk are in use, as far as they have been read: then the slots
 * that nothing is known of need not be free. */
static bool has_more_blocks(const struct vhd_image *image)
{
	uint64_t entries = vhd_table_sectors(image->layout.blocks) * VHD_SECTOR / sizeof(uint32_t);

	for (uint64_t i = image->layout.blocks; i < entries && i < image->header.table_entries; i++)
		if (be32toh(image->table[i]) != VHD_NO_BLOCK)
			return true;
	return false;
}

static int make_writable(struct vhd_image *image, const struct opening *opening,
			 const uint32_t *order, uint32_t used, struct err *err)
{
	uint64_t end = opening->end_sector;

	/* XenServer has a second map of its blocks, of which the specification knows nothing. */
	image->may_free = strcmp(image->footer.creator, "tap") != 0 && !has_more_blocks(image);
	image->commit.footer_sector = end;
	if (mend_copy(image, opening, err) < 0)
		return -1;
	if (!opening->end.good) {
		if (image->may_free)
			end = slots_end(image, order, used);
		if (mend_end(image, end, err) < 0)
			return -1;
	}
	space_init(image, order, used, end);
	return 0;
}

/* ---- Opening and closing. ---- */

static int open_blocks(struct vhd_image *image, const struct opening *opening, struct err *err)
{
	uint64_t table_sectors;
	uint32_t *order, used;
	int result;

	if (read_header(image, opening, err) < 0)
		return -1;
	image->block_shift = log2_of(image->layout.block_sectors);
	table_sectors = vhd_table_sectors(image->layout.blocks);
	if (make_tables(image, table_sectors, err) < 0 ||
	    load(image, image->table, image->layout.table_sector, table_sectors,
		 "the block allocation table", err) < 0)
		return -1;
	order = malloc(image->layout.blocks * sizeof(*order));
	if (!order)
		return err_set(err, "no memory for a table of %u blocks", image->layout.blocks);
	result = check_table(image, order, &used, err);
	if (result == 0 && image->writable)
		result = make_writable(image, opening, order, used, err);
	free(order);
	return result;
}

static int open_file(struct vhd_image *image, struct opening *opening, struct err *err)
{
	uint64_t size;

	if (disk_sector_size(image->below) != VHD_SECTOR)
		return err_set(err, "the sectors below have %u bytes, those of a VHD 512",
			       disk_sector_size(image->below));
	if (disk_sector_count(image->below) == 0)
		return err_set(err, "the file is empty");
	if (read_footers(image, opening, err) < 0)
		return -1;
	size = vhd_disk_size(&image->footer, opening->rule);
	image->sectors = size / VHD_SECTOR;
	if (image->footer.type != VHD_FIXED)
		return open_blocks(image, opening, err);
	if (image->sectors > opening->end_sector)
		return err_set(err,
			       "the footer says a size of %llu bytes, but the file has only %llu "
			       "before it",
			       (unsigned long long)size,
			       (unsigned long long)(opening->end_sector * VHD_SECTOR));
	return 0;
}

struct vhd_image *vhd_image_open(struct disk *below, const char *node, enum vhd_size_rule rule,
				 bool writable, struct err *err)
{
	struct vhd_image *image = calloc(1, sizeof(*image));
	struct opening *opening = calloc(1, sizeof(*opening));

	if (!image || !opening) {
		free(image);
		free(opening);
		err_set(err, "%s", strerror(ENOMEM));
		return NULL;
	}
	image->below = below;
	image->node = node;
	image->writable = writable;
	task_mutex_init(&image->space.mutex);
	task_mutex_init(&image->commit.mutex);
	opening->rule = rule;
	if (open_file(image, opening, err) < 0) {
		image->writable = false;
		vhd_image_close(image);
		image = NULL;
	}
	free(opening);
	return image;
}

void vhd_image_close(struct vhd_image *image)
{
	char text[80];
	int error;

	if (!image)
		return;
	error = image->writable ? vhd_image_flush(image) : 0;
	if (error)
		log_error(image->node, "what was written since the last flush may be lost: %s",
			  error_describe(text, error));
	for (uint32_t i = 0; image->blocks && i < image->layout.blocks; i++)
		presence_free(image->blocks[i].presence);
	space_destroy(image);
	task_mutex_destroy(&image->commit.mutex);
	task_mutex_destroy(&image->space.mutex);
	locks_free(image->locks);
	free(image->ones);
	free(image->dirty);
	free(image->table);
	free(image->blocks);
	free(image);
}
