// SPDX-License-Identifier: MIT
/* The bitmap of a block: in memory, as in the file, and the way in between; and which are dirty. */
#include "backends/vhd/image.h"
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Bitmaps. ---- */

/* The bits of the file, of which the first is the highest of the first word. */
struct presence {
	_Atomic uint64_t words[1]; /* more of them */
};

#define WORD_BITS 64U

static size_t word_count(const struct vhd_image *image)
{
	return (image->layout.block_sectors + WORD_BITS - 1) / WORD_BITS;
}

static struct presence *presence_of(const struct vhd_image *image, uint32_t block)
{
	return atomic_load_explicit(&image->blocks[block].presence, memory_order_acquire);
}

struct presence *presence_new(const struct vhd_image *image)
{
	return calloc(word_count(image), sizeof(uint64_t));
}

void presence_free(struct presence *presence)
{
	if (presence != PRESENCE_FULL)
		free(presence);
}

/* The bits [first, first + count) of a word. */
static uint64_t word_mask(uint32_t first, uint32_t count)
{
	return (count == WORD_BITS ? UINT64_MAX : ~(UINT64_MAX >> count)) >> first;
}

/* Sectors that the block has in the disk. */
static uint32_t sectors_of(const struct vhd_image *image, uint32_t block)
{
	return vhd_slot_sectors(&image->layout, block) - image->layout.bitmap_sectors;
}

/* How many bits from @first on, at most @limit, are what that one is. */
static uint32_t run_of(const struct presence *presence, uint32_t first, uint32_t limit, bool *valid)
{
	uint32_t end = first + limit, at = first;

	*valid = false;
	while (at < end) {
		uint64_t word = atomic_load_explicit(&presence->words[at / WORD_BITS],
						     memory_order_acquire);
		uint32_t in_word = at % WORD_BITS, left = WORD_BITS - in_word;
		uint64_t rest = word << in_word, other;
		uint32_t same;

		if (at == first)
			*valid = rest >> 63;
		other = *valid ? ~rest : rest;
		same = other ? (uint32_t)__builtin_clzll(other) : WORD_BITS;
		if (same < left)
			return (uint32_t)min_u64(at + same, end) - first;
		at += left;
	}
	return limit;
}

bool presence_run(const struct vhd_image *image, uint32_t block, uint32_t first, uint32_t limit,
		  uint32_t *count)
{
	const struct presence *presence = presence_of(image, block);
	bool valid;

	if (presence == PRESENCE_FULL) {
		*count = limit;
		return true;
	}
	*count = run_of(presence, first, limit, &valid);
	return valid;
}

void presence_set(struct vhd_image *image, uint32_t block, uint32_t first, uint32_t count)
{
	struct presence *presence = presence_of(image, block);
	uint32_t end = first + count;
	bool changed = false;

	if (presence == PRESENCE_FULL)
		return;
	while (first < end) {
		uint32_t in_word = first % WORD_BITS;
		uint32_t part = (uint32_t)min_u64(WORD_BITS - in_word, end - first);
		uint64_t mask = word_mask(in_word, part);
		_Atomic uint64_t *word = &presence->words[first / WORD_BITS];

		if ((atomic_load_explicit(word, memory_order_relaxed) & mask) != mask)
			changed |= (atomic_fetch_or(word, mask) & mask) != mask;
		first += part;
	}
	if (changed)
		block_set_dirty(image, block);
}

bool presence_encode(const struct vhd_image *image, uint32_t block, uint8_t *bytes)
{
	const struct presence *presence = presence_of(image, block);
	size_t length = (size_t)image->layout.bitmap_sectors * VHD_SECTOR;
	uint32_t sectors = sectors_of(image, block);
	bool valid = true;

	if (presence == PRESENCE_FULL) {
		memset(bytes, 0xff, length);
		return true;
	}
	memset(bytes, 0, length);
	for (size_t i = 0; i < word_count(image); i++) {
		uint64_t word =
			htobe64(atomic_load_explicit(&presence->words[i], memory_order_acquire));

		memcpy(bytes + i * sizeof(word), &word, sizeof(word));
	}
	return run_of(presence, 0, sectors, &valid) == sectors && valid;
}

void presence_shrink(struct vhd_image *image, uint32_t block)
{
	uint32_t sectors = sectors_of(image, block), count;
	struct presence *presence;

	if (!block_try_own(image, block))
		return;
	presence = presence_of(image, block);
	if (presence != PRESENCE_UNKNOWN && presence != PRESENCE_FULL &&
	    presence_run(image, block, 0, sectors, &count) && count == sectors) {
		atomic_store(&image->blocks[block].presence, PRESENCE_FULL);
		presence_free(presence);
	}
	block_disown(image, block);
}

/* Reads the bitmap of a block that is owned. */
static int presence_load(struct vhd_image *image, uint32_t block)
{
	size_t length = (size_t)image->layout.bitmap_sectors * VHD_SECTOR;
	uint32_t sectors = sectors_of(image, block);
	struct presence *presence = presence_new(image);
	uint8_t *bytes = malloc(length);
	int error = presence && bytes ? 0 : error_io(ENOMEM);
	bool valid;

	if (!error)
		error = vhd_image_load(image, bytes, block_place(image, block),
				       image->layout.bitmap_sectors);
	for (size_t i = 0; !error && i < word_count(image); i++) {
		uint64_t word;

		memcpy(&word, bytes + i * sizeof(word), sizeof(word));
		atomic_init(&presence->words[i], be64toh(word));
	}
	free(bytes);
	if (error || (run_of(presence, 0, sectors, &valid) == sectors && valid)) {
		presence_free(presence);
		presence = PRESENCE_FULL;
	}
	if (!error)
		atomic_store(&image->blocks[block].presence, presence);
	return error;
}

int block_share_known(struct vhd_image *image, uint32_t block)
{
	int error = 0;

	block_share(image, block);
	if (block_place(image, block) == NO_PLACE || presence_of(image, block) != PRESENCE_UNKNOWN)
		return 0;
	block_unshare(image, block);
	block_own(image, block);
	if (block_place(image, block) != NO_PLACE && presence_of(image, block) == PRESENCE_UNKNOWN)
		error = presence_load(image, block);
	if (error)
		block_disown(image, block);
	else
		block_downgrade(image, block);
	return error;
}

/* ---- Dirty blocks. ---- */

void block_set_dirty(struct vhd_image *image, uint32_t block)
{
	_Atomic uint64_t *word = &image->dirty[block / WORD_BITS];
	uint64_t bit = 1ULL << block % WORD_BITS;

	atomic_fetch_or(word, bit);
}
