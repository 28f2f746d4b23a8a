// SPDX-License-Identifier: MIT
/*
 * New VHD files. A fixed one is a hole and a footer; the others are, in this order, the copy of the
 * footer, the dynamic disk header, an empty block allocation table, the names of the parent, the
 * footer.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include "backends/vhd/commands.h"
#include "backends/vhd/footers.h"

/* What is being made. */
struct plan {
	const struct vhd_options *options;
	struct vhd_footer footer;
	struct vhd_header header; /* not of a fixed disk */
	/* Of a differencing disk: what its locators point at. */
	uint8_t names[2][VHD_LOCATOR_MAX];
};

/* ---- What is wanted. ---- */

static int check_options(const struct vhd_options *options, enum vhd_type type, struct err *err)
{
	if (type == VHD_DIFFERENCING && !options->parent)
		return err_set_key(err, "parent", "is missing: a differencing image stands on one");
	if (type != VHD_DIFFERENCING && options->parent)
		return err_set_key(err, "parent", "is for a differencing image");
	if (options->parent && options->size > 0)
		return err_set_key(err, "size", "a differencing image has that of its parent");
	if (!options->parent && options->size == 0)
		return err_set_key(err, "size", "is missing");
	if (options->size % VHD_SECTOR != 0)
		return err_set_key(err, "size", "is no multiple of 512 bytes");
	if (type != VHD_FIXED && options->preallocate)
		return err_set_key(err, "preallocate", "is for a fixed image");
	return 0;
}

static uint64_t round_size(const struct vhd_options *options)
{
	if (options->round == VHD_ROUND_GEOMETRY)
		return vhd_size_by_geometry(options->size);
	if (options->round == VHD_ROUND_MIB)
		return vhd_size_by_mib(options->size);
	return options->size;
}

/* A random one, "Unique Id"; of version 4 (RFC 9562). */
static int make_id(uint8_t id[static 16], struct err *err)
{
	if (getrandom(id, 16, 0) != 16)
		return err_set(err, "cannot get random bytes: %s", strerror(errno));
	id[6] = (id[6] & 0x0f) | 0x40;
	id[8] = (id[8] & 0x3f) | 0x80;
	return 0;
}

/*
 * Readers decide by the creator whether the size or the geometry counts, which may be less. The
 * name that all of them, QEMU too, take for one that means the size is Windows'.
 */
static int plan_footer(struct plan *plan, enum vhd_type type, uint64_t size, struct err *err)
{
	plan->footer = (struct vhd_footer){
		.data_offset = type == VHD_FIXED ? UINT64_MAX : VHD_FOOTER_SIZE,
		.time_stamp = vhd_time_of(time(NULL)),
		.creator = "win ",
		.creator_version = 0x000a0000,
		.creator_host = "Wi2k",
		.original_size = size,
		.current_size = size,
		.geometry = vhd_geometry_of(size),
		.type = type,
	};
	return make_id(plan->footer.id, err);
}

/* Entries of the table are sector numbers of 32 bits, also if every block has a slot. */
static int plan_header(struct plan *plan, struct err *err)
{
	uint64_t block_size = plan->options->block_size;
	uint64_t blocks = (plan->footer.current_size + block_size - 1) / block_size;
	uint64_t slot = block_size / VHD_SECTOR + vhd_bitmap_sectors((uint32_t)block_size);

	if (blocks > VHD_BLOCKS_MAX || (blocks + 1) * slot > UINT32_MAX)
		return err_set_key(err, "block_size", "is too small for a disk of %llu bytes",
				   (unsigned long long)plan->footer.current_size);
	plan->header = (struct vhd_header){
		.table_offset = VHD_FOOTER_SIZE + VHD_HEADER_SIZE,
		.table_entries = (uint32_t)blocks,
		.block_size = (uint32_t)block_size,
	};
	return 0;
}

/* ---- The parent. ---- */

/* From the folder of @path, behind all links, to @target: with "./" or as many "../" as it takes. */
static char *relative_path(const char *path, const char *target)
{
	char *copy = strdup(path);
	char *folder = copy ? realpath(dirname(copy), NULL) : NULL;
	size_t common = 0, ups = 0;
	char *text, *end;

	free(copy);
	if (!folder)
		return NULL;
	for (size_t i = 0; folder[i] == target[i] || (!folder[i] && target[i] == '/'); i++) {
		if (target[i] == '/')
			common = i;
		if (!folder[i])
			break;
	}
	for (const char *rest = folder + common; *rest; rest++)
		ups += *rest == '/' && rest[1];
	text = malloc(3 * ups + strlen(target + common) + 3);
	end = text;
	if (text && ups == 0)
		end = stpcpy(end, "./");
	for (size_t i = 0; text && i < ups; i++)
		end = stpcpy(end, "../");
	if (text)
		strcpy(end, target + common + 1);
	free(folder);
	return text;
}

/* As Windows writes paths. */
static int put_name(struct plan *plan, unsigned index, uint32_t platform, char *name,
		    struct err *err)
{
	uint64_t sector = VHD_FOOTER_SIZE + VHD_HEADER_SIZE +
			  vhd_table_sectors(plan->header.table_entries) * VHD_SECTOR;
	int length;

	for (char *at = name; *at; at++)
		if (*at == '/')
			*at = '\\';
	length = vhd_text_encode(plan->names[index], VHD_LOCATOR_MAX, name, false);
	if (length <= 0)
		return err_set_key(err, "parent",
				   "its name is no UTF-8, has control characters or is too long");
	if (index > 0)
		sector = plan->header.locators[index - 1].offset +
			 plan->header.locators[index - 1].space * (uint64_t)VHD_SECTOR;
	plan->header.locators[index] = (struct vhd_locator){
		.platform = platform,
		.space = ((uint32_t)length + VHD_SECTOR - 1) / VHD_SECTOR,
		.length = (uint32_t)length,
		.offset = sector,
	};
	return 0;
}

static int plan_names(struct plan *plan, const char *path, struct err *err)
{
	char *absolute = realpath(plan->options->parent, NULL);
	char *relative = absolute ? relative_path(path, absolute) : NULL;
	int result = -1;

	if (!relative) {
		err_set_key(err, "parent", "cannot tell the path of '%s': %s",
			    plan->options->parent, strerror(errno));
	} else {
		const char *name = strrchr(relative, '/') + 1;

		strncpy(plan->header.parent_name, name, sizeof(plan->header.parent_name) - 1);
		result = put_name(plan, 0, VHD_PLATFORM_W2RU, relative, err);
		if (result == 0)
			result = put_name(plan, 1, VHD_PLATFORM_W2KU, absolute, err);
	}
	free(relative);
	free(absolute);
	return result;
}

/* The parent's footer, and when its file was last changed. */
static int read_parent(const struct image_file *file, struct vhd_footer *footer, uint32_t *changed,
		       struct err *err)
{
	struct vhd_footers footers;
	const struct vhd_footer *best;
	struct stat stat;

	if (vhd_footers_read(file, &footers, err) < 0)
		return -1;
	best = vhd_footers_best(&footers);
	if (!best)
		return err_set(err, "'%s' is no VHD: %s", file->path,
			       footers.end_err.text[0] ? footers.end_err.text : "it has no footer");
	if (fstat(file->fd, &stat) < 0)
		return err_set(err, "cannot stat '%s': %s", file->path, strerror(errno));
	*footer = *best;
	*changed = vhd_time_of(stat.st_mtime);
	return 0;
}

static int plan_differencing(struct plan *plan, const char *path, struct err *err)
{
	const char *name = plan->options->parent;
	struct vhd_footer parent = {.type = VHD_FIXED};
	struct image_file file;
	uint32_t changed = 0;
	int result;

	if (image_file_open(&file, name, false, err) < 0)
		return -1;
	result = read_parent(&file, &parent, &changed, err);
	image_file_close(&file);
	if (result < 0 ||
	    plan_footer(plan, VHD_DIFFERENCING, vhd_disk_size(&parent, VHD_SIZE_AUTO), err) < 0 ||
	    plan_header(plan, err) < 0)
		return -1;
	memcpy(plan->header.parent_id, parent.id, sizeof(parent.id));
	plan->header.parent_time_stamp = changed;
	return plan_names(plan, path, err);
}

/* ---- The file. ---- */

static int write_table(struct image_file *file, const struct vhd_header *header, struct err *err)
{
	uint8_t unused[64 * KIB];
	uint64_t at = header->table_offset;
	uint64_t end = at + vhd_table_sectors(header->table_entries) * VHD_SECTOR;

	memset(unused, 0xff, sizeof(unused));
	for (; at < end; at += min_u64(sizeof(unused), end - at))
		if (image_file_write(file, unused, min_u64(sizeof(unused), end - at), at, err) < 0)
			return -1;
	return 0;
}

static int write_names(struct image_file *file, const struct plan *plan, struct err *err)
{
	for (unsigned i = 0; i < ARRAY_SIZE(plan->names); i++) {
		const struct vhd_locator *locator = &plan->header.locators[i];

		if (locator->length > 0 &&
		    image_file_write(file, plan->names[i], locator->space * (size_t)VHD_SECTOR,
				     locator->offset, err) < 0)
			return -1;
	}
	return 0;
}

static int write_tables(struct image_file *file, const struct plan *plan, struct err *err)
{
	uint8_t footer[VHD_FOOTER_SIZE], header[VHD_HEADER_SIZE];

	vhd_footer_encode(&plan->footer, footer);
	vhd_header_encode(&plan->header, header);
	if (image_file_write(file, footer, sizeof(footer), 0, err) < 0 ||
	    image_file_write(file, header, sizeof(header), sizeof(footer), err) < 0 ||
	    write_table(file, &plan->header, err) < 0)
		return -1;
	return write_names(file, plan, err);
}

static int fill(struct image_file *file, const struct image_creation *creation, void *context,
		struct err *err)
{
	const struct plan *plan = context;
	uint64_t size = plan->footer.current_size;
	uint8_t footer[VHD_FOOTER_SIZE];
	int result;

	if (plan->footer.type != VHD_FIXED)
		result = write_tables(file, plan, err);
	else if (plan->options->preallocate)
		result = image_file_allocate(file, size, &creation->progress, err);
	else
		result = image_file_resize(file, size, err);
	if (result < 0)
		return -1;
	vhd_footer_encode(&plan->footer, footer);
	return image_file_write(file, footer, sizeof(footer), file->size, err);
}

int vhd_create(const struct image_creation *creation, struct err *err)
{
	static const enum vhd_type types[] = {[VHD_TYPE_FIXED] = VHD_FIXED,
					      [VHD_TYPE_DYNAMIC] = VHD_DYNAMIC,
					      [VHD_TYPE_DIFFERENCING] = VHD_DIFFERENCING};
	const struct vhd_options *options = creation->options;
	struct plan *plan;
	enum vhd_type type = options->type != VHD_TYPE_AUTO ? types[options->type]
			     : options->parent		    ? VHD_DIFFERENCING
							    : VHD_DYNAMIC;
	int result;

	if (check_options(options, type, err) < 0)
		return -1;
	plan = calloc(1, sizeof(*plan));
	if (!plan)
		return err_set(err, "%s", strerror(ENOMEM));
	plan->options = options;
	if (type == VHD_DIFFERENCING)
		result = plan_differencing(plan, creation->path, err);
	else
		result = plan_footer(plan, type, round_size(options), err);
	if (result == 0 && type == VHD_DYNAMIC)
		result = plan_header(plan, err);
	if (result == 0)
		result = image_file_create(creation, fill, plan, err);
	free(plan);
	return result;
}
