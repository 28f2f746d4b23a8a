// SPDX-License-Identifier: MIT
/*
 * Where the parent of a differencing image may be, from what the image says of it: parent locators
 * for Windows, first the relative ones, then the absolute, and the name of the parent in the header.
 *
 * A relative path counts from the image's folder. An absolute one of another machine is tried as it
 * is, without the letter of the drive; and since images move together, its last part is tried in the
 * image's folder.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backends/vhd/vhd.h"

const char *disk_path(const struct disk *disk)
{
	const struct option *option;

	while (disk->below_count == 1)
		disk = disk->below[0];
	option = option_find(disk->driver->options, "path");
	if (!option || option->type != OPTION_PATH)
		return NULL;
	return *(char *const *)(const void *)((const char *)disk->config + option->offset);
}

/* The length of the folder in a path, with the slash. */
static size_t folder_length(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) + 1 : 0;
}

/* Takes @path, which may be NULL. */
static int add(struct candidates *candidates, char *path, struct err *err)
{
	if (!path)
		return err_set(err, "%s", strerror(ENOMEM));
	for (unsigned i = 0; i < candidates->count; i++) {
		if (strcmp(candidates->paths[i], path) != 0)
			continue;
		free(path);
		return 0;
	}
	candidates->paths[candidates->count++] = path;
	return 0;
}

/* @name, as seen from the folder of @path. */
static int add_beside(struct candidates *candidates, const char *path, const char *name,
		      struct err *err)
{
	char *beside;

	if (asprintf(&beside, "%.*s%s", (int)folder_length(path), path, name) < 0)
		beside = NULL;
	return add(candidates, beside, err);
}

/* Makes a path of Windows one of ours; returns where it begins, behind the drive. */
static char *convert(char *path)
{
	for (char *at = path; *at; at++)
		if (*at == '\\')
			*at = '/';
	return path[0] && path[1] == ':' ? path + 2 : path;
}

/* Reads the text of a locator into @text; false: it is none that we could use. */
static bool read_locator(const struct vhd_image *image, const struct vhd_locator *locator,
			 char text[static VHD_TEXT_ROOM(VHD_LOCATOR_MAX / 2)])
{
	uint8_t bytes[VHD_LOCATOR_MAX + 2 * VHD_SECTOR];
	uint64_t first = locator->offset / VHD_SECTOR, in_sector = locator->offset % VHD_SECTOR;
	uint64_t count = (in_sector + locator->length + VHD_SECTOR - 1) / VHD_SECTOR;

	if (locator->length == 0 || locator->length > VHD_LOCATOR_MAX ||
	    vhd_image_load(image, bytes, first, count) < 0)
		return false;
	return vhd_text_decode(text, bytes + in_sector, locator->length, false) == 0 && text[0];
}

static int add_relative(struct candidates *candidates, const char *path, char *text,
			struct err *err)
{
	const char *relative = convert(text);

	return relative[0] == '/' ? 0 : add_beside(candidates, path, relative, err);
}

static int add_absolute(struct candidates *candidates, const char *path, char *text,
			struct err *err)
{
	const char *absolute = convert(text);
	int result = 0;

	if (absolute[0] == '/')
		result = add(candidates, strdup(absolute), err);
	if (result < 0)
		return -1;
	return add_beside(candidates, path, absolute + folder_length(absolute), err);
}

static int add_locators(const struct vhd_image *image, const char *path, uint32_t platform,
			struct candidates *candidates, struct err *err)
{
	char text[VHD_TEXT_ROOM(VHD_LOCATOR_MAX / 2)];
	int result = 0;

	for (unsigned i = 0; i < VHD_LOCATORS && result == 0; i++) {
		const struct vhd_locator *locator = &image->header.locators[i];

		if (locator->platform != platform || !read_locator(image, locator, text))
			continue;
		if (platform == VHD_PLATFORM_W2RU)
			result = add_relative(candidates, path, text, err);
		else
			result = add_absolute(candidates, path, text, err);
	}
	return result;
}

static int add_name(const struct vhd_image *image, const char *path, struct candidates *candidates,
		    struct err *err)
{
	char text[sizeof(image->header.parent_name)];
	const char *name;

	memcpy(text, image->header.parent_name, sizeof(text));
	name = convert(text);
	name += folder_length(name);
	return name[0] ? add_beside(candidates, path, name, err) : 0;
}

int candidates_find(const struct vhd_image *image, const char *path, struct candidates *candidates,
		    struct err *err)
{
	*candidates = (struct candidates){.count = 0};
	if (add_locators(image, path, VHD_PLATFORM_W2RU, candidates, err) < 0 ||
	    add_locators(image, path, VHD_PLATFORM_W2KU, candidates, err) < 0 ||
	    add_name(image, path, candidates, err) < 0) {
		candidates_free(candidates);
		return -1;
	}
	return 0;
}

void candidates_free(struct candidates *candidates)
{
	for (unsigned i = 0; i < candidates->count; i++)
		free(candidates->paths[i]);
	candidates->count = 0;
}
