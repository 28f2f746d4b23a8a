/* SPDX-License-Identifier: MIT */
/*
 * VHD files for tests, made from a recipe, and what reads of them have to give. They are laid out
 * otherwise than the driver lays out its own: no alignment, tables larger than needed.
 */
#ifndef TESTS_LIB_VHD_H
#define TESTS_LIB_VHD_H

#include "backends/vhd/format.h"
#include "core/disk.h"

/* What is left out is 0 or NULL. */
struct vhd_recipe {
	enum vhd_type type;
	uint64_t size;	     /* bytes; as the footer says */
	uint32_t block_size; /* 0: 2 MiB */
	uint8_t id;	     /* all bytes of the unique id */
	const char *creator; /* NULL: "test", which goes by the footer's size */
	/* Data: in all of a fixed image; else in block i if bit i % 8 of fill_blocks is set, with
	 * fill_bits as each byte of the bitmap. */
	uint64_t fill_seed;
	uint8_t fill_blocks, fill_bits;
	const uint8_t *data;   /* instead of noise: what the disk holds, of `size` bytes */
	bool noise_below_bits; /* what is not valid is full of something else, not of zeros */
	/* Of a differencing image. */
	uint8_t parent_id;
	uint32_t parent_time_stamp;
	const char *parent_relative, *parent_absolute; /* in locators, as they are */
	const char *parent_name;
};

/* Of an image that is named TYPE-KIB, by its type and the size of its blocks; without data. */
struct vhd_recipe vhd_recipe_named(const char *name, uint64_t size);

/* The file's bytes, to be freed. */
uint8_t *vhd_bytes(const struct vhd_recipe *recipe, size_t *length);
/* Writes it to a file; blocks. */
void vhd_make(const char *path, const struct vhd_recipe *recipe);
/* Puts what the image has over @disk, of @size bytes; the rest is its parent's. */
void vhd_overlay(const struct vhd_recipe *recipe, uint8_t *disk, size_t size);

/*
 * Makes files of which the last, at @path, is differencing, and which are @depth deep: @path-1 is
 * its parent, and so on. The lowest is dynamic, or full of @seed and fixed, where that is not 0;
 * those between have some of some blocks, of noise, in this case.
 */
void vhd_make_chain(const char *path, uint64_t size, uint32_t block_size, unsigned depth,
		    uint64_t seed);
void vhd_remove_chain(const char *path, unsigned depth);

/* ---- A disk of the driver, on a fault on a file. In a task. ---- */

#define VHD_OPTIONS_MAX 4

struct vhd_rig {
	struct disk *file, *fault, *disk;
};

/* @options: pairs of key and value, whose keys end with NULL; NULL: none. NULL with a sentence in
 * @err. */
struct disk *vhd_try(struct vhd_rig *rig, const char *path, const char *const (*options)[2],
		     unsigned flags, struct err *err);
/* The same, which has to succeed. */
bool vhd_open_rig(struct vhd_rig *rig, const char *path, unsigned flags);
void vhd_close_rig(struct vhd_rig *rig);
/* Checks that it is refused with a sentence that has @text in it, about option @key. */
void vhd_refused(const char *path, const char *const (*options)[2], const char *key,
		 const char *text);
/* The rules of the fault. */
void vhd_fail(struct vhd_rig *rig, const char *rules);

int vhd_put(struct vhd_rig *rig, const void *data, uint64_t sector, uint64_t count);
int vhd_get(struct vhd_rig *rig, void *data, uint64_t sector, uint64_t count);
/* Checks that all of the disk is as in @model. */
bool vhd_is(struct vhd_rig *rig, const uint8_t *model);

/* ---- The file. Any thread; blocks. ---- */

/* All of it, to be freed. */
uint8_t *vhd_load(const char *path, size_t *length);

/* What a file is, as the format has it: checks that there is nothing wrong with it, footer and copy
 * alike. @entries has room for VHD_ENTRIES_MAX. */
#define VHD_ENTRIES_MAX 64

struct vhd_file {
	struct vhd_footer footer;
	struct vhd_header header;
	struct vhd_layout layout;
	uint64_t length;
	uint32_t entries[VHD_ENTRIES_MAX];
	uint32_t used;
};

bool vhd_inspect(const char *path, struct vhd_file *file);

#endif
