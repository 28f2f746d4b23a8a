// SPDX-License-Identifier: MIT
/*
 * What is wrong with a VHD file and the chain that it stands on, and what of the file can be mended
 * without loss:
 *
 *	- a footer that is damaged, missing or not at the end, from its copy, and the copy from the
 *	  footer;
 *	- bytes behind the footer;
 *	- dirty bitmaps of a differencing image (check_bitmaps.c).
 *
 * Each repair is durable before the next begins, and leaves the other footer alone. Everything else
 * is only told: a table that points nowhere has lost data, and a guess would lose more. Parents are
 * looked for as the driver does (check_parents.c), and checked, but never changed: other images may
 * stand on them.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backends/vhd/check.h"
#include "backends/vhd/commands.h"

static void PRINTF_LIKE(3, 0) tell(const struct vhd_check *check, struct image_finding finding,
				   const char *format, va_list arguments)
{
	char text[700];

	vsnprintf(text, sizeof(text), format, arguments);
	finding.path = check->file.path;
	finding.text = text;
	check->job->finding(check->job->context, &finding);
}

void vhd_finding(const struct vhd_check *check, bool is_mended, const char *remedy,
		 const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	tell(check, (struct image_finding){.is_mended = is_mended, .remedy = remedy}, format,
	     arguments);
	va_end(arguments);
}

void vhd_note(const struct vhd_check *check, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	tell(check, (struct image_finding){.is_note = true}, format, arguments);
	va_end(arguments);
}

/* ---- Footers. ---- */

int vhd_mended(const struct vhd_check *check, struct err *err)
{
	if (image_file_sync(&check->file, err) < 0)
		return -1;
	return check->file.is_device ? 0 : image_file_keep_time(&check->file, err);
}

/* Writes @bytes as a footer, durably. */
static int mend_footer(struct vhd_check *check, const uint8_t *bytes, uint64_t offset,
		       struct err *err)
{
	if (!check->repair)
		return 0;
	if (image_file_write(&check->file, bytes, VHD_FOOTER_SIZE, offset, err) < 0)
		return -1;
	return vhd_mended(check, err);
}

/* Cuts the file off behind the footer that ends at @end. */
static int mend_end(struct vhd_check *check, uint64_t end, struct err *err)
{
	if (!check->repair || check->file.size == end)
		return 0;
	if (image_file_resize(&check->file, end, err) < 0)
		return -1;
	return vhd_mended(check, err);
}

/* There is a good footer at the end. */
static int check_copy(struct vhd_check *check, struct err *err)
{
	const struct vhd_footers *footers = &check->footers;
	const char *remedy = "the copy is written from the footer";
	uint8_t bytes[VHD_FOOTER_SIZE];

	if (footers->has_copy &&
	    memcmp(footers->end_bytes, footers->copy_bytes, footers->end_length) == 0)
		return 0;
	if (vhd_footers_conflict(footers)) {
		vhd_finding(check, false, NULL,
			    "the footer and its copy at the beginning are of different disks");
		return 0;
	}
	memcpy(bytes, footers->end_bytes, sizeof(bytes));
	if (mend_footer(check, bytes, 0, err) < 0)
		return -1;
	if (footers->has_copy)
		vhd_finding(check, check->repair, remedy,
			    "the copy of the footer at the beginning differs from it");
	else
		vhd_finding(check, check->repair, remedy,
			    "the copy of the footer at the beginning is %s%s",
			    footers->copy_err.text[0] ? "damaged: " : "missing",
			    footers->copy_err.text);
	return 0;
}

/*
 * There is a good copy, but no footer. The new one takes the place of the damaged one, or the last
 * sector of the file where no block has it, or the first behind the last block. Where that is, is
 * only known if the table is right.
 */
static int check_end(struct vhd_check *check, bool table_is_right, struct err *err)
{
	const struct vhd_footers *footers = &check->footers;
	uint64_t whole = align_down(check->file.size, VHD_SECTOR);
	uint64_t place = max_u64(whole - VHD_FOOTER_SIZE, check->used_end);
	bool is_safe = table_is_right;

	if (check->file.is_device)
		return 0;
	if (footers->end_length == VHD_FOOTER_SIZE) {
		place = footers->end_offset;
		is_safe = true;
	}
	if (is_safe && (mend_footer(check, footers->copy_bytes, place, err) < 0 ||
			mend_end(check, place + VHD_FOOTER_SIZE, err) < 0))
		return -1;
	vhd_finding(check, is_safe && check->repair,
		    is_safe ? "the footer is written from its copy" : NULL, "the footer is %s%s",
		    footers->end_length > 0 ? "damaged: " : "missing at the end of the file",
		    footers->end_err.text);
	return 0;
}

static int check_behind(struct vhd_check *check, struct err *err)
{
	const struct vhd_footers *footers = &check->footers;
	uint64_t end = footers->end_offset + footers->end_length;
	uint64_t behind = check->file.size - end;

	if (behind == 0 || check->file.is_device)
		return 0;
	if (mend_end(check, end, err) < 0)
		return -1;
	vhd_finding(check, check->repair, "they are cut off",
		    "the file has %llu bytes behind its footer", (unsigned long long)behind);
	return 0;
}

/* ---- The table. ---- */

static int compare_slots(const void *a, const void *b)
{
	const struct vhd_slot *left = a, *right = b;

	if (left->sector != right->sector)
		return left->sector < right->sector ? -1 : 1;
	return left->block < right->block ? -1 : left->block > right->block;
}

static int read_entries(struct vhd_check *check, uint32_t *entries, struct err *err)
{
	uint64_t at = check->header.table_offset;
	uint64_t rest = (uint64_t)check->layout.blocks * sizeof(*entries);
	char *to = (char *)entries;

	while (rest > 0) {
		size_t length = min_u64(rest, MIB);

		if (image_file_read(&check->file, to, length, at, err) < 0)
			return -1;
		to += length;
		at += length;
		rest -= length;
		image_show_progress(&check->job->progress, at - check->header.table_offset,
				    at - check->header.table_offset + rest);
	}
	return 0;
}

/* Those that have a place of their own become check->slots; the others are told. Returns how many. */
static uint32_t check_entries(struct vhd_check *check, const uint32_t *entries)
{
	uint32_t bad = 0;

	for (uint32_t block = 0; block < check->layout.blocks; block++) {
		uint32_t entry = be32toh(entries[block]);
		struct err err;

		if (entry == VHD_NO_BLOCK)
			continue;
		if (vhd_entry_check(&check->layout, block, entry, &err) == 0)
			check->slots[check->slot_count++] = (struct vhd_slot){entry, block};
		else if (++bad <= VHD_TOLD_MAX)
			vhd_finding(check, false, NULL, "%s", err.text);
	}
	qsort(check->slots, check->slot_count, sizeof(*check->slots), compare_slots);
	return bad;
}

static uint32_t check_overlaps(const struct vhd_check *check)
{
	uint32_t bad = 0;

	for (uint32_t i = 1; i < check->slot_count; i++) {
		const struct vhd_slot *slot = &check->slots[i], *before = slot - 1;
		uint64_t end =
			(uint64_t)before->sector + vhd_slot_sectors(&check->layout, before->block);

		if (end > slot->sector && ++bad <= VHD_TOLD_MAX)
			vhd_finding(check, false, NULL,
				    "blocks %u and %u overlap, in sectors %u and %u", before->block,
				    slot->block, before->sector, slot->sector);
	}
	return bad;
}

/* -1: it could not be read; else how many entries are wrong. */
static int64_t check_table(struct vhd_check *check, struct err *err)
{
	uint32_t *entries = calloc(check->layout.blocks, sizeof(*entries));
	int64_t bad = -1;

	check->slots = calloc(check->layout.blocks, sizeof(*check->slots));
	if (!entries || !check->slots)
		err_set(err, "'%s': %s", check->file.path, strerror(ENOMEM));
	else if (read_entries(check, entries, err) == 0)
		bad = (int64_t)check_entries(check, entries) + check_overlaps(check);
	free(entries);
	if (bad > VHD_TOLD_MAX)
		vhd_finding(check, false, NULL, "%lld blocks in all are wrong", (long long)bad);
	return bad;
}

/* Where the last of the structures ends, in bytes. */
static uint64_t used_end(const struct vhd_check *check)
{
	const struct vhd_layout *layout = &check->layout;
	uint64_t end = max_u64(layout->table_sector + layout->table_sectors,
			       layout->header_sector + VHD_HEADER_SIZE / VHD_SECTOR);

	for (unsigned i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *locator = &layout->locators[i];

		if (locator->platform != VHD_PLATFORM_NONE && locator->length > 0)
			end = max_u64(end, (locator->offset + locator->length + VHD_SECTOR - 1) /
						   VHD_SECTOR);
	}
	for (uint32_t i = 0; i < check->slot_count; i++)
		end = max_u64(end, (uint64_t)check->slots[i].sector +
					   vhd_slot_sectors(layout, check->slots[i].block));
	return end * VHD_SECTOR;
}

/* ---- Dynamic and differencing disks. ---- */

/* What else may be wrong with the structures is told; -1: nothing more can be said. */
static int read_header(struct vhd_check *check)
{
	uint64_t offset = check->footer->data_offset;
	uint64_t end = check->footers.end_length > 0 ? check->footers.end_offset : check->file.size;
	uint64_t disk_size = check->footer->current_size;
	uint8_t bytes[VHD_HEADER_SIZE];
	struct err err;

	if (offset > INT64_MAX || offset + sizeof(bytes) > end)
		err_set(&err, "the footer says a dynamic disk header at byte %llu, beyond the file",
			(unsigned long long)offset);
	else if (image_file_read(&check->file, bytes, sizeof(bytes), offset, &err) == 0 &&
		 vhd_header_decode(&check->header, bytes, &err) == 0 &&
		 vhd_layout_of(&check->layout, check->footer, &check->header, disk_size,
			       end / VHD_SECTOR, &err) == 0)
		return 0;
	vhd_finding(check, false, NULL, "%s", err.text);
	return -1;
}

static int check_tables(struct vhd_check *check, struct err *err)
{
	bool is_right = read_header(check) == 0;

	check->has_header = is_right;
	if (is_right) {
		int64_t bad = check_table(check, err);

		if (bad < 0)
			return -1;
		is_right = bad == 0;
		check->used_end = used_end(check);
		if (is_right && vhd_check_bitmaps(check, err) < 0)
			return -1;
	}
	if (!check->footers.has_end)
		return check_end(check, is_right, err);
	if (check_copy(check, err) < 0)
		return -1;
	return check_behind(check, err);
}

static int check_fixed(struct vhd_check *check, struct err *err)
{
	uint64_t room = check->footers.end_offset;

	if (check->footer->current_size > room)
		vhd_finding(check, false, NULL,
			    "the disk has %llu bytes, but the file only %llu before the footer",
			    (unsigned long long)check->footer->current_size,
			    (unsigned long long)room);
	return check_behind(check, err);
}

/* ---- All of it. ---- */

static int check_all(struct vhd_check *check, struct err *err)
{
	if (check->footer->saved_state)
		vhd_finding(check, false, NULL,
			    "the disk belongs to a suspended machine (saved state)");
	if (check->footer->type == VHD_FIXED)
		return check_fixed(check, err);
	return check_tables(check, err);
}

static enum image_verdict check_file(struct vhd_check *check, struct err *err)
{
	const struct vhd_footers *footers = &check->footers;

	if (vhd_footers_read(&check->file, &check->footers, err) < 0)
		return IMAGE_FAILED;
	check->footer = vhd_footers_best(footers);
	if (check->footer)
		return check_all(check, err) == 0 ? IMAGE_CHECKED : IMAGE_FAILED;
	if (footers->end_length == 0 && !footers->copy_err.text[0])
		return IMAGE_FOREIGN;
	if (footers->end_length > 0)
		vhd_finding(check, false, NULL, "%s", footers->end_err.text);
	else
		vhd_finding(check, false, NULL, "the footer is missing at the end of the file");
	if (footers->copy_err.text[0])
		vhd_finding(check, false, NULL, "its copy at the beginning: %s",
			    footers->copy_err.text);
	return IMAGE_CHECKED;
}

/* The last of @files. *more: it has a parent, which is the last now. */
static enum image_verdict check_last(const struct image_check *job, struct vhd_chain_files *files,
				     bool *more, struct err *err)
{
	bool is_parent = files->count > 1;
	const char *path = is_parent ? files->paths[files->count - 1] : job->path;
	struct vhd_check check = {.job = job, .repair = job->repair && !is_parent};
	enum image_verdict verdict;

	*more = false;
	if (image_file_open(&check.file, path, check.repair, err) < 0)
		return IMAGE_FAILED;
	verdict = check_file(&check, err);
	if (verdict == IMAGE_CHECKED && check.has_header &&
	    check.footer->type == VHD_DIFFERENCING) {
		int result = vhd_chain_next(files, &check, err);

		*more = result > 0;
		verdict = result < 0 ? IMAGE_FAILED : IMAGE_CHECKED;
	}
	image_file_close(&check.file);
	free(check.slots);
	return verdict;
}

enum image_verdict vhd_check(const struct image_check *job, struct err *err)
{
	struct vhd_chain_files files = {.count = 0};
	enum image_verdict verdict = IMAGE_FAILED;
	bool more = vhd_chain_begin(&files, job->path, err) == 0;

	while (more) {
		verdict = check_last(job, &files, &more, err);
		if (verdict == IMAGE_FOREIGN && files.count > 1) {
			err_set(err, "'%s' is no VHD any more", files.paths[files.count - 1]);
			verdict = IMAGE_FAILED;
		}
	}
	vhd_chain_free(&files);
	return verdict;
}
