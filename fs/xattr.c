// SPDX-License-Identifier: MIT
/*
 * Extended attributes of images. user.diskfs.NAME: what the disk is, one value each, and the whole
 * stack as JSON; read-only. user.diskfs.NODE.OPTION: the options of the nodes of the stack that may
 * be changed while mounted. What a disk does not have (disk_id, reservations) is not listed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/log.h"
#include "core/util.h"
#include "fs/mount.h"
#include "fs/ops.h"
#include "fs/reservations.h"

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

static int get_reservations(struct image *image, struct value *value, enum reservations_field field)
{
	int error = reservations_describe(image, field, &value->allocated);

	if (!error)
		value->length = strlen(value->allocated);
	return error;
}

static int get_pr_type(struct image *image, struct value *value)
{
	return get_reservations(image, value, RESERVATIONS_TYPE);
}

static int get_pr_holders(struct image *image, struct value *value)
{
	return get_reservations(image, value, RESERVATIONS_HOLDERS);
}

static int get_pr_keys(struct image *image, struct value *value)
{
	return get_reservations(image, value, RESERVATIONS_KEYS);
}

static int get_pr_generation(struct image *image, struct value *value)
{
	return get_reservations(image, value, RESERVATIONS_GENERATION);
}

static int get_pr_persist(struct image *image, struct value *value)
{
	return get_reservations(image, value, RESERVATIONS_PERSIST);
}

static bool has_id(const struct image *image)
{
	return image->disk->geometry.has_id;
}

static bool has_reservations(const struct image *image)
{
	return disk_pr(image->disk) != NULL;
}

static int get_inspect(struct image *image, struct value *value)
{
	value->allocated = status_inspect(image, &value->length);
	return value->allocated ? 0 : -ENOMEM;
}

static const struct attribute {
	const char *name;
	int (*get)(struct image *image, struct value *value);
	bool (*is_there)(const struct image *image); /* NULL: always */
} attributes[] = {
	{PREFIX "type", get_type, NULL},
	{PREFIX "sector_size", get_sector_size, NULL},
	{PREFIX "physical_sector_size", get_physical_sector_size, NULL},
	{PREFIX "sector_count", get_sector_count, NULL},
	{PREFIX "disk_id", get_disk_id, has_id},
	{PREFIX "read_only", get_read_only, NULL},
	{PREFIX "fua", get_fua, NULL},
	{PREFIX "unmap", get_unmap, NULL},
	{PREFIX "optimal_unmap_sectors", get_optimal_unmap_sectors, NULL},
	{PREFIX "pr", get_pr, NULL},
	{PREFIX "pr_type", get_pr_type, has_reservations},
	{PREFIX "pr_holders", get_pr_holders, has_reservations},
	{PREFIX "pr_keys", get_pr_keys, has_reservations},
	{PREFIX "pr_generation", get_pr_generation, has_reservations},
	{PREFIX "pr_persist", get_pr_persist, has_reservations},
	{PREFIX "inspect", get_inspect, NULL},
};

static const struct attribute *attribute_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(attributes); i++)
		if (strcmp(attributes[i].name, name) == 0)
			return &attributes[i];
	return NULL;
}

/* ---- Options of nodes. ---- */

static struct disk *node_find(struct disk *disk, const char *name, size_t length)
{
	if (strlen(disk->name) == length && strncmp(disk->name, name, length) == 0)
		return disk;
	for (unsigned i = 0; i < disk->below_count; i++) {
		struct disk *found = node_find(disk->below[i], name, length);

		if (found)
			return found;
	}
	return NULL;
}

/*
 * The disk and option that @name, "user.diskfs.NODE.OPTION", means in the stack of @image; NULL if
 * none. The names of nodes may have dots, those of options have none.
 */
static struct disk *option_node(struct image *image, const char *name, const char **option)
{
	const char *node = name + strlen(PREFIX);
	const char *dot = strrchr(name, '.');

	if (!image || strncmp(name, PREFIX, strlen(PREFIX)) != 0 || dot < node)
		return NULL;
	*option = dot + 1;
	return node_find(image->disk, node, (size_t)(dot - node));
}

static int get_option(struct image *image, const char *name, struct value *value)
{
	const char *option;
	struct disk *disk = option_node(image, name, &option);

	value->allocated = disk ? disk_get_option(disk, option) : NULL;
	if (!value->allocated)
		return -ENODATA;
	value->length = strlen(value->allocated);
	return 0;
}

static void list_options(const struct disk *disk, FILE *out)
{
	for (const struct option *option = disk->driver->options; option->name; option++)
		if (option->flags & OPTION_LIVE)
			fprintf(out, PREFIX "%s.%s%c", disk->name, option->name, '\0');
	for (unsigned i = 0; i < disk->below_count; i++)
		list_options(disk->below[i], out);
}

/* ---- Requests. ---- */

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
	int error;

	if (image && attribute)
		error = attribute->get(image, &value);
	else
		error = get_option(image, name, &value);
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
	char *names = NULL;
	size_t length;
	FILE *out = open_memstream(&names, &length);

	if (!out) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(attributes) && image; i++)
		if (!attributes[i].is_there || attributes[i].is_there(image))
			fprintf(out, "%s%c", attributes[i].name, '\0');
	if (image)
		list_options(image->disk, out);
	if (fclose(out) == 0)
		reply_sized(req, names, length, size);
	else
		fuse_reply_err(req, ENOMEM);
	free(names);
}

/* Why a value is wrong cannot travel with the error number, so the log tells. */
static int set_option(struct image *image, const char *name, const char *data, size_t size)
{
	const char *option;
	struct disk *disk = option_node(image, name, &option);
	char *text = strndup(data, size);
	struct err err;
	int error = 0;

	if (!disk) {
		error = image && attribute_find(name) ? -EPERM : -EOPNOTSUPP;
	} else if (memchr(data, '\0', size)) { /* the rest would be left out silently */
		log_warning(disk->name, "%s: has a NUL byte", option);
		error = -EINVAL;
	} else if (!text) {
		error = -ENOMEM;
	} else if (disk_set_option(disk, option, text, &err) < 0) {
		log_warning(disk->name, "%s: %s", option, err.text);
		error = -EINVAL;
	} else {
		log_info(disk->name, "%s: now '%s'", option, text);
	}
	free(text);
	return error;
}

void fs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags)
{
	struct image *image = image_find(fuse_req_userdata(req), ino);

	(void)flags;
	fuse_reply_err(req, -set_option(image, name, value, size));
}
