// SPDX-License-Identifier: MIT
/*
 * Flush: what is in memory reaches the file, in an order that a power failure may end anywhere.
 *
 *	1. What is dirty is noted: places, and copies of bitmaps. All that those bits and slots stand
 *	   for has been written to the file by then. Slots that the table does not name yet get their
 *	   bitmaps.
 *	2. The disk below is flushed: all of that is durable.
 *	3. The other bitmaps, the table and the footer are written. Until they are durable any part of
 *	   them may be in the file: a block that the table does not name, or a sector whose bit is
 *	   unset, is as it was before.
 *	4. The disk below is flushed again. Slots that the table does not name any more are free.
 *
 * Where nothing is dirty there are only 1 and 2. One flush at a time: those who come meanwhile share
 * the next. What could not be written stays dirty.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backends/vhd/image.h"
#include "core/task.h"

#define WORD_BITS	  64U
#define ENTRIES_IN_SECTOR (VHD_SECTOR / sizeof(uint32_t))

/* Bitmaps that are written at once. */
#define WRITES_MAX 16

/* A dirty block, as it was in step 1. */
struct note {
	struct vhd_image *image;
	uint32_t block, place;
	bool full;
	bool is_new;	 /* the table does not name the slot */
	uint8_t *bitmap; /* unless full, or without a place */
};

struct notes {
	struct note *notes; /* by number of the block */
	uint32_t count, room;
	struct slots leaving;
};

/* ---- Step 1. ---- */

static struct note *notes_add(struct notes *notes)
{
	if (notes->count == notes->room) {
		uint32_t room = notes->room ? 2 * notes->room : 16;
		struct note *more = realloc(notes->notes, room * sizeof(*more));

		if (!more)
			return NULL;
		notes->notes = more;
		notes->room = room;
	}
	return &notes->notes[notes->count];
}

/* Notes a block, whatever the error it remains the caller's to make it dirty again. */
static int note_block(struct vhd_image *image, struct notes *notes, uint32_t block)
{
	struct note *note = notes_add(notes);
	int error;

	if (!note)
		return error_io(ENOMEM);
	*note = (struct note){.image = image, .block = block};
	error = block_share_known(image, block);
	if (error)
		return error;
	note->place = block_place(image, block);
	note->is_new = image->table[block] != htobe32(note->place);
	if (note->place != NO_PLACE) {
		note->bitmap = malloc((size_t)image->layout.bitmap_sectors * VHD_SECTOR);
		if (note->bitmap)
			note->full = presence_encode(image, block, note->bitmap);
		else
			error = error_io(ENOMEM);
	}
	block_unshare(image, block);
	if (error)
		return error;
	if (note->full) {
		free(note->bitmap);
		note->bitmap = NULL;
	}
	notes->count++;
	return 0;
}

static int note_dirty(struct vhd_image *image, struct notes *notes)
{
	uint32_t words = (image->layout.blocks + WORD_BITS - 1) / WORD_BITS;

	/* First: what is leaving here is in no note, and in no table that we write. */
	notes->leaving = space_leaving(image);
	for (uint32_t i = 0; i < words; i++) {
		uint64_t bits = 0;

		if (atomic_load_explicit(&image->dirty[i], memory_order_relaxed))
			bits = atomic_exchange(&image->dirty[i], 0);
		while (bits) {
			unsigned bit = (unsigned)__builtin_ctzll(bits);
			int error = note_block(image, notes, i * WORD_BITS + bit);

			if (error) {
				atomic_fetch_or(&image->dirty[i], bits);
				return error;
			}
			bits &= bits - 1;
		}
	}
	return 0;
}

/* ---- Steps 1 and 3. ---- */

static int write_bitmap(void *argument)
{
	const struct note *note = argument;
	const struct vhd_image *image = note->image;

	return vhd_image_store(image, note->full ? image->ones : note->bitmap, note->place,
			       image->layout.bitmap_sectors);
}

/* Of new slots, or of all others. */
static int write_bitmaps(const struct notes *notes, bool is_new)
{
	uint32_t next = 0;
	int error = 0;

	while (!error && next < notes->count) {
		struct task_group group = {0};

		for (unsigned i = 0; i < WRITES_MAX && next < notes->count; next++) {
			const struct note *note = &notes->notes[next];

			if (note->place == NO_PLACE || note->is_new != is_new)
				continue;
			task_group_start(&group, write_bitmap, &notes->notes[next]);
			i++;
		}
		error = task_group_wait(&group);
	}
	return error;
}

/* Writes the sectors of the table that have changed, neighbours in one go. */
static int write_table(struct vhd_image *image, const struct notes *notes)
{
	uint32_t i = 0;
	int error = 0;

	while (!error && i < notes->count) {
		uint32_t first = notes->notes[i].block / ENTRIES_IN_SECTOR, end = first;

		for (; i < notes->count; i++) {
			const struct note *note = &notes->notes[i];
			uint32_t sector = note->block / ENTRIES_IN_SECTOR;

			if (sector > end)
				break;
			image->table[note->block] =
				htobe32(note->place == NO_PLACE ? VHD_NO_BLOCK : note->place);
			end = sector + 1;
		}
		error = vhd_image_store(image, &image->table[first * ENTRIES_IN_SECTOR],
					image->layout.table_sector + first, end - first);
	}
	return error;
}

static int write_footer(struct vhd_image *image, uint64_t sector)
{
	image->commit.footer_sector = 0; /* until it is durable */
	return vhd_image_store(image, image->footer_bytes, sector, 1);
}

/* ---- All of it. ---- */

static int write_notes(struct vhd_image *image, const struct notes *notes)
{
	uint64_t footer = space_footer_sector(image);
	bool footer_moves = footer != image->commit.footer_sector;
	int error = write_bitmaps(notes, true);

	if (!error)
		error = disk_flush(image->below);
	if (error || (notes->count == 0 && !footer_moves))
		return error;
	error = write_bitmaps(notes, false);
	if (!error)
		error = write_table(image, notes);
	if (!error && footer_moves)
		error = write_footer(image, footer);
	if (!error)
		error = disk_flush(image->below);
	if (!error)
		image->commit.footer_sector = footer;
	return error;
}

/* Gives back what free slots take; whoever gets one zeroes it in any case. */
static void punch(struct vhd_image *image, const struct slots *slots)
{
	for (uint32_t i = 0; i < slots->count; i++)
		(void)disk_unmap(image->below, slots->places[i], slot_length(image));
}

static int commit(struct vhd_image *image)
{
	struct notes notes = {.notes = NULL};
	int error = note_dirty(image, &notes);

	if (!error)
		error = write_notes(image, &notes);
	for (uint32_t i = 0; i < notes.count; i++) {
		const struct note *note = &notes.notes[i];

		if (error)
			block_set_dirty(image, note->block);
		else if (note->full)
			presence_shrink(image, note->block);
		free(note->bitmap);
	}
	if (error) {
		space_return(image, &notes.leaving);
	} else {
		punch(image, &notes.leaving);
		space_release(image, &notes.leaving);
	}
	free(notes.notes);
	free(notes.leaving.places);
	return error;
}

int vhd_image_flush(struct vhd_image *image)
{
	struct commit *flush = &image->commit;
	uint64_t ticket, last;
	int error;

	if (vhd_image_is_fixed(image))
		return disk_flush(image->below);
	ticket = atomic_fetch_add(&flush->asked, 1) + 1;
	task_mutex_lock(&flush->mutex);
	if (flush->served < ticket) {
		last = atomic_load(&flush->asked);
		flush->answer = commit(image);
		flush->served = last;
	}
	error = flush->answer;
	task_mutex_unlock(&flush->mutex);
	return error;
}
