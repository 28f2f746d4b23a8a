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
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backends/vhd/lineage.h"

/* ---- Folders. ---- */

char *folder_of(const char *path, struct err *err)
{
	char *copy = strdup(path), *real = NULL;

	if (copy)
		real = realpath(dirname(copy), NULL);
	if (!real)
		err_set(err, "cannot find the folder of '%s': %s", path, strerror(errno));
	free(copy);
	return real;
}

int folder_check(const char *root, const char *real, struct err *err)
{
	size_t length = strlen(root);

	if (strcmp(root, "/") == 0 || (strncmp(real, root, length) == 0 && real[length] == '/'))
		return 0;
	return err_set_key(err, "parent_folder",
			   "the image says that its parent is '%s', which is outside of '%s' "
			   "(parent_folder = allows another folder)",
			   real, root);
}

/* ---- Candidates. ---- */

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
static bool read_locator(const struct vhd_child *child, const struct vhd_locator *locator,
			 char text[static VHD_TEXT_ROOM(VHD_LOCATOR_MAX / 2)])
{
	uint8_t bytes[VHD_LOCATOR_MAX + 2 * VHD_SECTOR];
	uint64_t first = locator->offset / VHD_SECTOR, in_sector = locator->offset % VHD_SECTOR;
	uint64_t count = (in_sector + locator->length + VHD_SECTOR - 1) / VHD_SECTOR;

	if (locator->length == 0 || locator->length > VHD_LOCATOR_MAX ||
	    child->load(child->context, bytes, first, count) < 0)
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

static int add_locators(const struct vhd_child *child, const char *path, uint32_t platform,
			struct candidates *candidates, struct err *err)
{
	char text[VHD_TEXT_ROOM(VHD_LOCATOR_MAX / 2)];
	int result = 0;

	for (unsigned i = 0; i < VHD_LOCATORS && result == 0; i++) {
		const struct vhd_locator *locator = &child->header->locators[i];

		if (locator->platform != platform || !read_locator(child, locator, text))
			continue;
		if (platform == VHD_PLATFORM_W2RU)
			result = add_relative(candidates, path, text, err);
		else
			result = add_absolute(candidates, path, text, err);
	}
	return result;
}

static int add_name(const struct vhd_child *child, const char *path, struct candidates *candidates,
		    struct err *err)
{
	char text[sizeof(child->header->parent_name)];
	const char *name;

	memcpy(text, child->header->parent_name, sizeof(text));
	name = convert(text);
	name += folder_length(name);
	return name[0] ? add_beside(candidates, path, name, err) : 0;
}

int candidates_find(const struct vhd_child *child, const char *path, struct candidates *candidates,
		    struct err *err)
{
	*candidates = (struct candidates){.count = 0};
	if (add_locators(child, path, VHD_PLATFORM_W2RU, candidates, err) < 0 ||
	    add_locators(child, path, VHD_PLATFORM_W2KU, candidates, err) < 0 ||
	    add_name(child, path, candidates, err) < 0) {
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

int candidates_missing(const struct candidates *candidates, struct err *err)
{
	char tried[400] = "";
	size_t length = 0;

	for (unsigned i = 0; i < candidates->count && length < sizeof(tried); i++)
		length += (size_t)snprintf(tried + length, sizeof(tried) - length, "%s'%s'",
					   i > 0 ? ", " : "", candidates->paths[i]);
	if (candidates->count == 0)
		return err_set_key(err, "parent",
				   "a differencing image that does not say where its parent is "
				   "(parent = names it)");
	return err_set_key(err, "parent", "its parent is not found: tried %s (parent = names it)",
			   tried);
}
