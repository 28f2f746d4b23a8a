// SPDX-License-Identifier: MIT
/*
 * The parents of a differencing image.
 *
 * A parent that is a disk of the configuration is below ours, as number 1, with its own chain. Else
 * it is a file, which is found by what the image says (locate.c) or by the option `parent`, and
 * opened here, read-only, by the driver for files. Each file is opened once, however many disks have
 * it in their chain: `registry` lists those that are open. Its mutex is held while one is opened.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "backends/list.h"
#include "backends/vhd/lineage.h"
#include "backends/vhd/vhd.h"
#include "core/report.h"

struct parent {
	char *path; /* real */
	struct disk *file;
	struct vhd_image *image;
	unsigned users;
	struct parent *next;
};

static struct {
	struct task_mutex mutex;
	struct parent *first;
} registry = {.mutex.guard = PTHREAD_MUTEX_INITIALIZER};

/* ---- Files. ---- */

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

static void parent_free(struct parent *parent)
{
	vhd_image_close(parent->image);
	disk_close(parent->file);
	free(parent->path);
	free(parent);
}

/* @flags are those of the disk whose parent it is. */
static struct disk *file_open(const char *path, unsigned flags, struct err *err)
{
	const struct driver *driver = driver_find("file");
	void *config = calloc(1, driver->config_size);

	if (!config) {
		err_set(err, "%s", strerror(ENOMEM));
		return NULL;
	}
	options_init(driver->options, config);
	if (option_parse(option_find(driver->options, "path"), path, NULL, config, err) < 0) {
		options_free(driver->options, config);
		free(config);
		return NULL;
	}
	flags = DISK_OPEN_READ_ONLY | (flags & (DISK_OPEN_CHECK | DISK_OPEN_COMMAND));
	return disk_open(driver, path, config, flags, NULL, 0, err);
}

static struct parent *parent_open(const char *path, unsigned flags, struct err *err)
{
	struct parent *parent = calloc(1, sizeof(*parent));
	struct err why = {.text = ""};

	if (!parent || !(parent->path = strdup(path))) {
		free(parent);
		err_set(err, "%s", strerror(ENOMEM));
		return NULL;
	}
	parent->users = 1;
	parent->file = file_open(path, flags, err);
	if (parent->file)
		parent->image =
			vhd_image_open(parent->file, parent->path, VHD_SIZE_AUTO, false, &why);
	if (parent->image)
		return parent;
	if (parent->file)
		err_set(err, "'%s': %s", path, why.text);
	parent_free(parent);
	return NULL;
}

static struct parent *parent_get(const char *path, unsigned flags, struct err *err)
{
	struct parent *parent;

	task_mutex_lock(&registry.mutex);
	parent = registry.first;
	while (parent && strcmp(parent->path, path) != 0)
		parent = parent->next;
	if (parent) {
		parent->users++;
	} else {
		parent = parent_open(path, flags, err);
		if (parent) {
			parent->next = registry.first;
			registry.first = parent;
		}
	}
	task_mutex_unlock(&registry.mutex);
	return parent;
}

static void parent_put(struct parent *parent)
{
	struct parent **link = &registry.first;

	task_mutex_lock(&registry.mutex);
	if (--parent->users == 0) {
		while (*link != parent)
			link = &(*link)->next;
		*link = parent->next;
		parent_free(parent);
	}
	task_mutex_unlock(&registry.mutex);
}

/* ---- Whether it is the one. ---- */

/* @path is of the parent; NULL: it is no file. */
static int check_identity(const struct vhd_image *child, const struct vhd_image *parent,
			  const char *path, int parent_time, struct err *err)
{
	const char *name = path ? path : parent->node;
	bool has_time = false;
	struct stat stat_of;
	uint32_t changed;
	enum kinship kinship;

	if (path && stat(path, &stat_of) == 0) {
		changed = vhd_time_of(stat_of.st_mtime);
		has_time = true;
	}
	kinship =
		kinship_of(&child->header, &parent->footer, name, has_time ? &changed : NULL, err);
	if (kinship == KIN_PARENT || (kinship == KIN_CHANGED && parent_time == PARENT_TIME_IGNORE))
		return 0;
	return -1;
}

/* ---- The chain. ---- */

static int chain_add(struct vhd *vhd, struct vhd_image *image, struct err *err)
{
	struct vhd_image **chain =
		realloc(vhd->chain, (vhd->depth + 1) * sizeof(struct vhd_image *));

	if (!chain)
		return err_set(err, "%s", strerror(ENOMEM));
	vhd->chain = chain;
	vhd->chain[vhd->depth++] = image;
	return 0;
}

/* Takes the parent, in every case. */
static int chain_add_parent(struct vhd *vhd, struct parent *parent, struct err *err)
{
	struct parent **parents =
		realloc(vhd->parents, (vhd->parent_count + 1) * sizeof(struct parent *));

	if (!parents) {
		parent_put(parent);
		return err_set(err, "%s", strerror(ENOMEM));
	}
	vhd->parents = parents;
	vhd->parents[vhd->parent_count++] = parent;
	for (unsigned i = 0; i + 1 < vhd->parent_count; i++)
		if (parents[i] == parent)
			return err_set(err, "'%s' is its own parent's parent", parent->path);
	return chain_add(vhd, parent->image, err);
}

/* The search for the parent of one image. */
struct quest {
	struct disk *disk;
	const struct vhd_image *child;
	const char *root; /* real; it must be in this folder; NULL: anywhere */
	char *own;	  /* the real path of the disk's own image */
	struct parent *parent;
	bool is_there; /* something was, and err says what is wrong with it */
	struct err err;
};

/* Tries the file at @real, a real path. 0: it is the one. */
static int quest_try(struct quest *quest, const char *real, struct err *err)
{
	const struct vhd_config *config = quest->disk->config;
	struct parent *parent;

	if (quest->root && folder_check(quest->root, real, err) < 0)
		return -1;
	if (quest->own && strcmp(real, quest->own) == 0)
		return err_set(err, "'%s' says that it is its own parent", real);
	parent = parent_get(real, quest->disk->open_flags, err);
	if (!parent)
		return -1;
	if (check_identity(quest->child, parent->image, real, config->parent_time, err) < 0) {
		parent_put(parent);
		return -1;
	}
	quest->parent = parent;
	return 0;
}

/* The first error is the one to tell: of the best candidate that was there. */
static void quest_candidate(struct quest *quest, const char *path)
{
	struct err err = {.text = ""};
	char *real = realpath(path, NULL);

	if (real && quest_try(quest, real, &err) < 0 && !quest->is_there) {
		quest->is_there = true;
		quest->err = err;
	}
	free(real);
}

static int load_image(const void *context, void *data, uint64_t sector, uint64_t count)
{
	return vhd_image_load(context, data, sector, count);
}

/* Finds the parent by what the image says, which is at @path. */
static int quest_follow(struct quest *quest, const char *path, struct err *err)
{
	const struct vhd_child child = {&quest->child->header, load_image, quest->child};
	struct candidates candidates;
	int result = 0;

	if (!path)
		return err_set_key(
			err, "parent",
			"a differencing image that is no file, so that its parent cannot "
			"be found: name it by parent =, or as the second of below =");
	if (candidates_find(&child, path, &candidates, err) < 0)
		return -1;
	for (unsigned i = 0; i < candidates.count && !quest->parent; i++)
		quest_candidate(quest, candidates.paths[i]);
	if (!quest->parent && quest->is_there) {
		*err = quest->err;
		result = -1;
	} else if (!quest->parent) {
		result = candidates_missing(&candidates, err);
	}
	candidates_free(&candidates);
	return result;
}

/* Finds the parent as the option says. */
static int quest_named(struct quest *quest, const char *path, struct err *err)
{
	char *real = realpath(path, NULL);
	int result;

	if (!real)
		return err_set_key(err, "parent", "cannot open '%s': %s", path, strerror(errno));
	quest->root = NULL;
	result = quest_try(quest, real, err);
	free(real);
	return result;
}

/* The folder that parents must be in, real. NULL with a sentence in @err. */
static char *parents_root(const struct vhd_config *config, const char *path, struct err *err)
{
	char *root;

	if (!config->parent_folder)
		return folder_of(path, err);
	root = realpath(config->parent_folder, NULL);
	if (!root)
		err_set_key(err, "parent_folder", "'%s': %s", config->parent_folder,
			    strerror(errno));
	return root;
}

/* One parent after the other, until there is none. */
static int follow(struct disk *disk, struct quest *quest, const char *path, struct err *err)
{
	const struct vhd_config *config = disk->config;
	struct vhd *vhd = disk->state;
	const char *named = config->parent, *root = quest->root;

	while (vhd->chain[vhd->depth - 1]->footer.type == VHD_DIFFERENCING) {
		int result;

		quest->child = vhd->chain[vhd->depth - 1];
		quest->root = root;
		quest->parent = NULL;
		quest->is_there = false;
		result = named ? quest_named(quest, named, err) : quest_follow(quest, path, err);
		named = NULL;
		if (result < 0 || chain_add_parent(vhd, quest->parent, err) < 0)
			return -1;
		path = quest->parent->path;
	}
	return 0;
}

static int open_files(struct disk *disk, struct err *err)
{
	const struct vhd_config *config = disk->config;
	const char *path = disk_path(disk->below[0]);
	/* Where a parent is named, the others are beside it. */
	const char *near = config->parent ? config->parent : path;
	struct quest quest = {.disk = disk};
	char *root = near ? parents_root(config, near, err) : NULL;
	int result;

	if (near && !root)
		return -1;
	quest.root = root;
	quest.own = path ? realpath(path, NULL) : NULL;
	result = follow(disk, &quest, path, err);
	free(quest.own);
	free(root);
	return result;
}

/* The parent is a disk of the configuration. */
static int join(struct disk *disk, const struct disk *below, struct err *err)
{
	const struct vhd_config *config = disk->config;
	struct vhd *vhd = disk->state;
	const struct vhd *other = below->state;

	if (below->driver != disk->driver)
		return err_set_key(err, "below",
				   "'%s' is to be the parent: that must be a disk of driver '%s'",
				   below->name, disk->driver->name);
	if (check_identity(vhd->image, other->image, disk_path(below->below[0]),
			   config->parent_time, err) < 0)
		return -1;
	for (unsigned i = 0; i < other->depth; i++)
		if (chain_add(vhd, other->chain[i], err) < 0)
			return -1;
	return 0;
}

int chain_open(struct disk *disk, struct err *err)
{
	const struct vhd_config *config = disk->config;
	struct vhd *vhd = disk->state;
	bool is_differencing = vhd->image->footer.type == VHD_DIFFERENCING;

	if (chain_add(vhd, vhd->image, err) < 0)
		return -1;
	if (!is_differencing && (config->parent || disk->below_count > 1))
		return err_set_key(err, config->parent ? "parent" : "below",
				   "a %s image has no parent",
				   vhd_type_name(vhd->image->footer.type));
	if (config->parent && disk->below_count > 1)
		return err_set_key(err, "parent", "'%s' in below is the parent already",
				   disk->below[1]->name);
	if (!is_differencing)
		return 0;
	return disk->below_count > 1 ? join(disk, disk->below[1], err) : open_files(disk, err);
}

void chain_close(struct vhd *vhd)
{
	for (unsigned i = 0; i < vhd->parent_count; i++)
		parent_put(vhd->parents[i]);
	free(vhd->parents);
	free(vhd->chain);
}

void chain_inspect(const struct vhd *vhd, struct report *report)
{
	if (vhd->parent_count == 0)
		return;
	report_list_begin(report, "parents");
	for (unsigned i = 0; i < vhd->parent_count; i++) {
		const struct parent *parent = vhd->parents[i];
		char id[33];

		report_object_begin(report, NULL);
		report_string(report, "path", parent->path);
		report_string(report, "image", vhd_type_name(parent->image->footer.type));
		report_string(report, "disk_id", format_id(id, parent->image->footer.id));
		report_bytes(report, "size", parent->image->sectors * VHD_SECTOR);
		report_object_end(report);
	}
	report_list_end(report);
}
