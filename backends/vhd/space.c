// SPDX-License-Identifier: MIT
/*
 * Room for new blocks: slots between those that are in use, which blocks have left or a crash has
 * left behind, and behind them, where the file grows. What is in a slot when it is handed out is
 * zeros: the file grows by zeros, and all others are zeroed then.
 *
 * A slot that a block has left goes through two states, because the table in the file names it until
 * the next flush: `leaving`, then `free`. What it takes is given back in between, where the disk
 * below can.
 *
 * Slots are allocated one at a time: that is what `mutex` is held for, also while the file grows.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backends/vhd/image.h"

/* Data is aligned to pages of 4 KiB where we place it: that is 8 sectors. */
#define DATA_ALIGN 8U

static bool slots_push(struct slots *slots, uint32_t place)
{
	if (slots->count == slots->room) {
		uint32_t room = slots->room ? 2 * slots->room : 64;
		uint32_t *places = realloc(slots->places, room * sizeof(*places));

		if (!places)
			return false;
		slots->places = places;
		slots->room = room;
	}
	slots->places[slots->count++] = place;
	return true;
}

/* Where the first slot can begin from @sector on. */
static uint64_t slot_align(const struct vhd_image *image, uint64_t sector)
{
	uint64_t bitmap = image->layout.bitmap_sectors;

	return align_up(sector + bitmap, DATA_ALIGN) - bitmap;
}

/* Slots in [sector, end), not more than there can be blocks for. */
static void add_gap(struct vhd_image *image, uint64_t sector, uint64_t end)
{
	struct slots *free_slots = &image->space.free;
	uint32_t wanted = image->layout.blocks - atomic_load(&image->allocated);

	for (uint64_t at = slot_align(image, sector);
	     at + slot_length(image) <= end && free_slots->count < wanted;
	     at = slot_align(image, at + slot_length(image)))
		if (!slots_push(free_slots, (uint32_t)at))
			return;
}

void space_init(struct vhd_image *image, const uint32_t *order, uint32_t used, uint64_t end)
{
	/* Locators may lie anywhere: what is before the last of the structures is no gap. */
	uint64_t metadata_end = vhd_metadata_end(&image->layout), from = 0;

	image->space.end = end;
	image->space.zero_from = disk_sector_count(image->below);
	for (uint32_t i = 0; i <= used && image->may_free; i++) {
		uint64_t next = i < used ? order[i] : end;

		if (next > max_u64(from, metadata_end))
			add_gap(image, max_u64(from, metadata_end), next);
		if (next < from)
			image->space.cut_place = order[i - 1];
		from = next + slot_length(image);
	}
}

void space_destroy(struct vhd_image *image)
{
	free(image->space.free.places);
	free(image->space.leaving.places);
}

/* Makes the file longer, by one slot, behind the footer's old place. With the mutex held. */
static int grow(struct vhd_image *image, uint32_t *place)
{
	struct space *space = &image->space;
	uint64_t first = slot_align(image, space->end + 1), end = first + slot_length(image);
	int error = 0;

	if (end > VHD_NO_BLOCK)
		return error_io(EFBIG);
	/* The footer comes behind it. */
	if (end + 1 > disk_sector_count(image->below))
		error = disk_resize(image->below, end + 1);
	if (error_kind(error) == ERROR_UNSUPPORTED)
		return error_io(ENOSPC);
	if (error)
		return error;
	space->end = end;
	*place = (uint32_t)first;
	return 0;
}

int space_get(struct vhd_image *image, uint32_t *place)
{
	struct space *space = &image->space;
	int error = 0;
	bool is_zero;

	task_mutex_lock(&space->mutex);
	if (space->free.count > 0) {
		*place = space->free.places[--space->free.count];
		is_zero = false;
	} else {
		error = grow(image, place);
		is_zero = !error && *place >= space->zero_from;
	}
	task_mutex_unlock(&space->mutex);
	if (error || is_zero)
		return error;
	error = disk_write_zeroes(image->below, *place, slot_length(image), DISK_MAY_UNMAP);
	if (error) {
		struct slots slots = {.places = place, .count = 1};

		space_release(image, &slots);
	}
	return error;
}

void space_put(struct vhd_image *image, uint32_t place)
{
	/* It is no whole slot. What it takes is a gap when the image is opened again. */
	if (place == image->space.cut_place)
		return;
	task_mutex_lock(&image->space.mutex);
	/* Without memory its room is lost until the image is opened again. */
	slots_push(&image->space.leaving, place);
	task_mutex_unlock(&image->space.mutex);
}

struct slots space_leaving(struct vhd_image *image)
{
	struct slots leaving;

	task_mutex_lock(&image->space.mutex);
	leaving = image->space.leaving;
	image->space.leaving = (struct slots){.places = NULL};
	task_mutex_unlock(&image->space.mutex);
	return leaving;
}

static void move(struct vhd_image *image, struct slots *to, const struct slots *slots)
{
	task_mutex_lock(&image->space.mutex);
	for (uint32_t i = 0; i < slots->count; i++)
		slots_push(to, slots->places[i]);
	task_mutex_unlock(&image->space.mutex);
}

void space_return(struct vhd_image *image, const struct slots *slots)
{
	move(image, &image->space.leaving, slots);
}

void space_release(struct vhd_image *image, const struct slots *slots)
{
	move(image, &image->space.free, slots);
}

uint64_t space_footer_sector(struct vhd_image *image)
{
	uint64_t sector;

	task_mutex_lock(&image->space.mutex);
	sector = max_u64(image->space.end, disk_sector_count(image->below) - 1);
	task_mutex_unlock(&image->space.mutex);
	return sector;
}
