// SPDX-License-Identifier: MIT
/*
 * Extended attributes of images: what the disk is, one value each, and the whole stack as JSON. All
 * are read-only. An attribute that a disk has no value for (disk_id) is not listed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/util.h"
#include "fs/mount.h"
#include "fs/ops.h"

#define PREFIX "user.diskfs."

/* A value in the making: text of up to 64 bytes, or allocated. */
struct value {
	char text[64];
	char *allocated;
	size_t length;
};

/* Each fills the value, and returns 0 or a negative errno: -ENODATA where there is none. */
static int value_string(struct value *value, const char *text)
{
	value->length = (size_t)snprintf(value->text, sizeof(value->text), "%s", text);
	return 0;
}

static int value_u64(struct value *value, uint64_t number)
{
	value->length = (size_t)snprintf(value->text, sizeof(value->text), "%" PRIu64, number);
	return 0;
}

static int value_bool(struct value *value, bool yes)
{
	return value_string(value, yes ? "yes" : "no");
}

static int get_type(struct image *image, struct value *value)
{
	return value_string(value, image->disk->driver->name);
}

static int get_sector_size(struct image *image, struct value *value)
{
	return value_u64(value, image->disk->geometry.sector_size);
}

static int get_physical_sector_size(struct image *image, struct value *value)
{
	return value_u64(value, image->disk->geometry.physical_sector_size);
}

static int get_sector_count(struct image *image, struct value *value)
{
	return value_u64(value, disk_sector_count(image->disk));
}

static int get_disk_id(struct image *image, struct value *value)
{
	char id[33];

	if (!image->disk->geometry.has_id)
		return -ENODATA;
	return value_string(value, format_id(id, image->disk->geometry.id));
}

static int get_read_only(struct image *image, struct value *value)
{
	return value_bool(value, image->disk->geometry.read_only);
}

static int get_fua(struct image *image, struct value *value)
{
	return value_bool(value, image->disk->geometry.fua);
}

static int get_unmap(struct image *image, struct value *value)
{
	return value_string(value, unmap_behaviour_name(image->disk->geometry.unmap));
}

static int get_optimal_unmap_sectors(struct image *image, struct value *value)
{
	return value_u64(value, image->disk->geometry.optimal_unmap_sectors);
}

static int get_pr(struct image *image, struct value *value)
{
	return value_bool(value, disk_pr(image->disk) != NULL);
}

static int get_inspect(struct image *image, struct value *value)
{
	value->allocated = status_inspect(image, &value->length);
	return value->allocated ? 0 : -ENOMEM;
}

static const struct attribute {
	const char *name;
	int (*get)(struct image *image, struct value *value);
} attributes[] = {
	{PREFIX "type", get_type},
	{PREFIX "sector_size", get_sector_size},
	{PREFIX "physical_sector_size", get_physical_sector_size},
	{PREFIX "sector_count", get_sector_count},
	{PREFIX "disk_id", get_disk_id},
	{PREFIX "read_only", get_read_only},
	{PREFIX "fua", get_fua},
	{PREFIX "unmap", get_unmap},
	{PREFIX "optimal_unmap_sectors", get_optimal_unmap_sectors},
	{PREFIX "pr", get_pr},
	{PREFIX "inspect", get_inspect},
};

static const struct attribute *attribute_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(attributes); i++)
		if (strcmp(attributes[i].name, name) == 0)
			return &attributes[i];
	return NULL;
}

/* Replies with @data, or with its length where the caller only asks for that. */
static void reply_sized(fuse_req_t req, const char *data, size_t length, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, length);
	else if (length > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, data, length);
}

void fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct image *image = image_find(fuse_req_userdata(req), ino);
	const struct attribute *attribute = attribute_find(name);
	struct value value = {.allocated = NULL};
	int error = image && attribute ? attribute->get(image, &value) : -ENODATA;

	if (error)
		fuse_reply_err(req, -error);
	else
		reply_sized(req, value.allocated ? value.allocated : value.text, value.length,
			    size);
	free(value.allocated);
}

void fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct image *image = image_find(fuse_req_userdata(req), ino);
	char names[ARRAY_SIZE(attributes) * 48];
	size_t length = 0;

	for (size_t i = 0; i < ARRAY_SIZE(attributes) && image; i++) {
		if (attributes[i].get == get_disk_id && !image->disk->geometry.has_id)
			continue;
		length += (size_t)snprintf(names + length, sizeof(names) - length, "%s",
					   attributes[i].name) +
			  1;
	}
	reply_sized(req, names, length, size);
}

void fs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags)
{
	const struct image *image = image_find(fuse_req_userdata(req), ino);

	(void)value;
	(void)size;
	(void)flags;
	fuse_reply_err(req, image && attribute_find(name) ? EPERM : EOPNOTSUPP);
}
