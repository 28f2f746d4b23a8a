/* SPDX-License-Identifier: MIT */
/*
 * An image: one VHD file, on one disk whose bytes are the file's. What the files of the driver
 * share: image.c (open, close), locks.c, blocks.c (bitmaps), space.c (room for new blocks), commit.c
 * (flush), change.c (writes). Private to them.
 *
 * A fixed image is its data. Of the others each block has, in memory:
 *
 *	place		the sector of the file in which its slot begins; NO_PLACE: it has none
 *	presence	which sectors of the slot are valid: PRESENCE_UNKNOWN, not read from the file
 *			yet; PRESENCE_FULL, all; or a bitmap. What is not valid is the parent's, or
 *			zeros in a dynamic image.
 *	lock		held shared by whoever reads or writes in the slot, so that it stays where it
 *			is; exclusively while place or presence are replaced. Blocks may have it in
 *			common. So a task holds at most one in each image, and takes them from the top
 *			of a chain down.
 *
 * Bits of a bitmap are set, after the data has been written, under the shared lock; so a reader
 * finds a sector before or after the first write to it, never what was in the slot before. They are
 * only taken away with the whole block.
 *
 * What is in memory is ahead of the file. A block whose place or bits have changed is *dirty*, and
 * the file learns of it by commit.c. The invariants of the file, whenever the power fails:
 *
 *	- the table names only slots that are inside the file, belong to no other block, and of
 *	  which bitmap and data, zeros where nothing was written, are durable;
 *	- a bit is set only where the data is durable;
 *	- the copy of the footer, the header and the locators do not change.
 *
 * The footer is at the end of the file after every flush. While the file grows it is not: whoever
 * finds it missing takes the copy. A slot that makes the file longer begins behind the old footer.
 */
#ifndef BACKENDS_VHD_IMAGE_H
#define BACKENDS_VHD_IMAGE_H

#include <stdatomic.h>
#include "backends/vhd/format.h"
#include "core/disk.h"
#include "core/log.h"

#define NO_PLACE 0U /* the copy of the footer is there */

struct presence; /* a bitmap in memory */
#define PRESENCE_UNKNOWN ((struct presence *)0)
#define PRESENCE_FULL	 ((struct presence *)1)

struct block {
	_Atomic uint32_t place;
	struct presence *_Atomic presence;
};

/* Slots that no block has. */
struct slots {
	uint32_t *places;
	uint32_t count, room;
};

/* Room for new blocks. */
struct space {
	struct task_mutex mutex;
	/* The sector behind all slots. */
	uint64_t end;
	/* What the file gets from this sector on reads as zeros. */
	uint64_t zero_from;
	/* The place of the disk's last block, where others begin before a whole slot ends; else
	 * NO_PLACE. */
	uint32_t cut_place;
	struct slots free;    /* anything is in them */
	struct slots leaving; /* the file's table may still name them */
};

struct commit {
	struct task_mutex mutex;
	_Atomic uint64_t asked; /* how many flushes have been asked for */
	uint64_t served;	/* all up to this one have their answer: */
	int answer;
	uint64_t footer_sector; /* where a good footer is; 0: nowhere but the copy */
};

struct vhd_image {
	struct disk *below;
	const char *node; /* for messages */
	bool writable;
	/* A block that has been there may be given up. Not where others keep a second map. */
	bool may_free;
	struct vhd_footer footer;
	uint8_t footer_bytes[VHD_FOOTER_SIZE];
	uint64_t sectors; /* of the disk */

	/* Of all but fixed ones. */
	struct vhd_header header;
	struct vhd_layout layout;
	unsigned block_shift; /* log2 of the sectors in a block */
	struct block *blocks;
	uint32_t *table;	 /* what the file's table has, as there */
	_Atomic uint64_t *dirty; /* a bit for each block */
	uint8_t *ones;		 /* a bitmap in which all is valid, as in the file */
	_Atomic uint32_t allocated;
	struct locks *locks; /* of blocks */
	struct space space;
	struct commit commit;
};

/* ---- image.c. All in a task; errors are of core/error.h. ---- */

/*
 * Opens the image on @below, which outlives it, as does @node. @writable: mends in the file what a
 * crash has left. NULL with a sentence in @err.
 */
struct vhd_image *vhd_image_open(struct disk *below, const char *node, enum vhd_size_rule rule,
				 bool writable, struct err *err);
/* Writes what is only in memory; NULL is allowed. */
void vhd_image_close(struct vhd_image *image);

static inline bool vhd_image_is_fixed(const struct vhd_image *image)
{
	return image->footer.type == VHD_FIXED;
}

/* Whole sectors of the file. */
int vhd_image_load(const struct vhd_image *image, void *data, uint64_t sector, uint64_t count);
int vhd_image_store(const struct vhd_image *image, const void *data, uint64_t sector,
		    uint64_t count);

/* ---- locks.c ---- */

struct locks *locks_new(void); /* NULL: no memory */
void locks_free(struct locks *locks);

void block_share(struct vhd_image *image, uint32_t block);
void block_unshare(struct vhd_image *image, uint32_t block);
void block_own(struct vhd_image *image, uint32_t block);
void block_disown(struct vhd_image *image, uint32_t block);
/* From exclusive to shared. */
void block_downgrade(struct vhd_image *image, uint32_t block);
/* Owns it, if that is possible without waiting. */
bool block_try_own(struct vhd_image *image, uint32_t block);

/* ---- blocks.c ---- */

/* Shares the block, with its presence known if it has a place. 0, or an error: then it is not
 * shared. */
int block_share_known(struct vhd_image *image, uint32_t block);

static inline uint32_t block_place(const struct vhd_image *image, uint32_t block)
{
	return atomic_load_explicit(&image->blocks[block].place, memory_order_acquire);
}

/* Sectors that the block has of the disk: the last one may have less than all. */
static inline uint32_t block_sectors(const struct vhd_image *image, uint32_t block)
{
	return vhd_slot_sectors(&image->layout, block) - image->layout.bitmap_sectors;
}

/* Of a block with a place that is shared and known: whether sector @first of it is valid, and in
 * *count for how many sectors, at most @limit, that is so. */
bool presence_run(const struct vhd_image *image, uint32_t block, uint32_t first, uint32_t limit,
		  uint32_t *count);
/* They are valid now. Of the same. */
void presence_set(struct vhd_image *image, uint32_t block, uint32_t first, uint32_t count);

/* A bitmap in which nothing is valid; NULL: no memory. */
struct presence *presence_new(const struct vhd_image *image);
void presence_free(struct presence *presence);
/* Writes it as the file has it, layout.bitmap_sectors. The block is shared and known. Returns
 * whether all is valid. */
bool presence_encode(const struct vhd_image *image, uint32_t block, uint8_t *bytes);
/* Of a block all of whose sectors are valid: forgets the bitmap, if nobody is using it. */
void presence_shrink(struct vhd_image *image, uint32_t block);

void block_set_dirty(struct vhd_image *image, uint32_t block);

/* ---- space.c ---- */

/* Sectors of a slot. */
static inline uint64_t slot_length(const struct vhd_image *image)
{
	return (uint64_t)image->layout.bitmap_sectors + image->layout.block_sectors;
}

/* Finds the room of an image that is being opened: @order, of @used elements, are the slots that
 * blocks have, in ascending order; @end is where the footer is, or belongs. */
void space_init(struct vhd_image *image, const uint32_t *order, uint32_t used, uint64_t end);
void space_destroy(struct vhd_image *image);

/* A slot of zeros; 0, or an error. */
int space_get(struct vhd_image *image, uint32_t *place);
/* No block has it any more, but the file's table may still name it. */
void space_put(struct vhd_image *image, uint32_t place);

/* Takes those that have been put, whose list is the caller's to free then; to be returned (the table
 * may still name them) or released (it does not, durably). */
struct slots space_leaving(struct vhd_image *image);
void space_return(struct vhd_image *image, const struct slots *slots);
void space_release(struct vhd_image *image, const struct slots *slots);

/* The sector that the footer belongs to now: the last of the file. */
uint64_t space_footer_sector(struct vhd_image *image);

/* ---- commit.c ---- */

/* Makes durable all that was written before. */
int vhd_image_flush(struct vhd_image *image);

/* ---- change.c ---- */

/* Shares a block that has a place then, with its presence known. 0, or an error. */
int block_share_allocated(struct vhd_image *image, uint32_t block);
/* The block has nothing afterwards. */
void block_give_up(struct vhd_image *image, uint32_t block);

int vhd_image_write(struct vhd_image *image, const struct sg *sg, uint64_t sector, unsigned flags);

#endif
