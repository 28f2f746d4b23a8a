// SPDX-License-Identifier: MIT
/*
 * The chain of a differencing image, for its check: parents are looked for where the driver does, and
 * it is told what the driver would say. One in another folder is left alone, for the image is not
 * trusted: only a configuration can allow that. One that has been changed is checked all the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backends/vhd/check.h"
#include "backends/vhd/lineage.h"

/* The search for the parent of one image. */
struct search {
	const struct vhd_chain_files *files;
	const struct vhd_check *child;
	/* The best that was found. */
	char *path; /* real, owned; NULL: none */
	enum kinship kinship;
	struct vhd_footer footer;
	/* What is wrong with it, or with the first candidate that is there. */
	struct err err;
};

/* ---- Files of the chain. ---- */

/* Takes @path, which may be NULL. */
static int chain_add(struct vhd_chain_files *files, char *path, struct err *err)
{
	char **paths = path ? realloc(files->paths, (files->count + 1) * sizeof(*paths)) : NULL;

	if (!paths) {
		free(path);
		return err_set(err, "%s", strerror(ENOMEM));
	}
	files->paths = paths;
	files->paths[files->count++] = path;
	return 0;
}

int vhd_chain_begin(struct vhd_chain_files *files, const char *path, struct err *err)
{
	char *real = realpath(path, NULL);

	*files = (struct vhd_chain_files){.root = folder_of(path, err)};
	if (!files->root) {
		free(real);
		return -1;
	}
	/* It may be open already and have no name any more. */
	return chain_add(files, real ? real : strdup(path), err);
}

void vhd_chain_free(struct vhd_chain_files *files)
{
	for (unsigned i = 0; i < files->count; i++)
		free(files->paths[i]);
	free(files->paths);
	free(files->root);
}

/* ---- Candidates. ---- */

static int check_loop(const struct vhd_chain_files *files, const char *real, struct err *err)
{
	for (unsigned i = 0; i < files->count; i++) {
		if (strcmp(files->paths[i], real) != 0)
			continue;
		if (i + 1 == files->count)
			return err_set(err, "'%s' says that it is its own parent", real);
		return err_set(err, "'%s' is its own parent's parent", real);
	}
	return 0;
}

/* What the file at @real is to the child, in *kinship and *footer. */
static int look_at(const struct search *search, const char *real, enum kinship *kinship,
		   struct vhd_footer *footer, struct err *err)
{
	const struct vhd_footer *best;
	struct vhd_footers footers;
	struct image_file file;
	uint32_t changed;
	int result;

	if (folder_check(search->files->root, real, err) < 0 ||
	    check_loop(search->files, real, err) < 0 ||
	    image_file_open(&file, real, false, err) < 0)
		return -1;
	changed = vhd_time_of(file.changed.tv_sec);
	result = vhd_footers_read(&file, &footers, err);
	image_file_close(&file);
	if (result < 0)
		return -1;
	best = vhd_footers_best(&footers);
	if (!best)
		return err_set(err, "'%s' is no VHD: %s", real,
			       footers.end_err.text[0] ? footers.end_err.text : "it has no footer");
	*footer = *best;
	*kinship = kinship_of(&search->child->header, best, real, &changed, err);
	return *kinship == KIN_STRANGER ? -1 : 0;
}

static void try_candidate(struct search *search, const char *path)
{
	char *real = realpath(path, NULL);
	struct vhd_footer footer;
	enum kinship kinship = KIN_STRANGER;
	struct err err = {.text = ""};

	if (real && look_at(search, real, &kinship, &footer, &err) == 0 &&
	    (!search->path || kinship == KIN_PARENT)) {
		free(search->path);
		search->path = real;
		search->kinship = kinship;
		search->footer = footer;
		search->err = err;
		return;
	}
	if (real && !search->path && !search->err.text[0])
		search->err = err;
	free(real);
}

static int load(const void *context, void *data, uint64_t sector, uint64_t count)
{
	struct err err;

	return image_file_read(context, data, count * VHD_SECTOR, sector * VHD_SECTOR, &err);
}

/* Fills search->path, or else search->err. */
static int find(struct search *search, struct err *err)
{
	const struct vhd_check *check = search->child;
	const struct vhd_child child = {&check->header, load, &check->file};
	const char *path = search->files->paths[search->files->count - 1];
	struct candidates candidates;

	/* The user's own name for it, from whose folder the driver looks. */
	if (search->files->count == 1)
		path = check->file.path;
	if (candidates_find(&child, path, &candidates, err) < 0)
		return -1;
	for (unsigned i = 0; i < candidates.count; i++)
		if (!search->path || search->kinship != KIN_PARENT)
			try_candidate(search, candidates.paths[i]);
	if (!search->path && !search->err.text[0])
		candidates_missing(&candidates, &search->err);
	candidates_free(&candidates);
	return 0;
}

/* ---- What is told. ---- */

static void tell_missing(const struct vhd_check *child, const struct err *err)
{
	/* That is no fault. */
	if (strcmp(err->key, "parent_folder") == 0)
		vhd_note(child, "%s: it was not looked at", err->text);
	else
		vhd_finding(child, false, NULL, "%s", err->text);
}

/* Writers differ in which of the two sizes they take over. */
static void check_size(const struct vhd_check *child, const struct search *search)
{
	uint64_t own = vhd_disk_size(child->footer, VHD_SIZE_AUTO);
	uint64_t other = vhd_disk_size(&search->footer, VHD_SIZE_AUTO);

	if (own == other || child->footer->current_size == search->footer.current_size)
		return;
	vhd_finding(child, false, NULL, "the disk has %llu bytes, but its parent, '%s', has %llu",
		    (unsigned long long)own, search->path, (unsigned long long)other);
}

int vhd_chain_next(struct vhd_chain_files *files, const struct vhd_check *child, struct err *err)
{
	struct search search = {.files = files, .child = child};

	if (find(&search, err) < 0)
		return -1;
	if (!search.path) {
		tell_missing(child, &search.err);
		return 0;
	}
	if (search.kinship == KIN_CHANGED)
		vhd_finding(child, false, NULL, "%s", search.err.text);
	else
		vhd_note(child, "its parent is '%s'", search.path);
	check_size(child, &search);
	return chain_add(files, search.path, err) < 0 ? -1 : 1;
}
