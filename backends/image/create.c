// SPDX-License-Identifier: MIT
/*
 * New image files (image_file_create()). A file without a name is filled and synced, then gets its
 * name, by link() where none may be there, else by rename() over what is; then the folder is synced.
 * Where the file system has no nameless files, it has a name of its own until then.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backends/image/image_file.h"

/* A file that comes into being. */
struct newcomer {
	const char *path;
	char *target; /* @path behind all links, where something is there already */
	char *folder;
	char *interim; /* a name of its own, until it has its final one */
	bool has_interim;
	struct image_file old; /* what is replaced; fd -1: nothing */
	struct image_file file;
};

static int newcomer_failed(const struct newcomer *newcomer, struct err *err)
{
	return err_set(err, "cannot create '%s': %s", newcomer->path, strerror(errno));
}

/* What is to be replaced: a file that nobody uses. It stays locked until it is gone. */
static int open_old(struct newcomer *newcomer, bool replace, struct err *err)
{
	struct stat stat;

	if (lstat(newcomer->path, &stat) < 0)
		return errno == ENOENT ? 0 : newcomer_failed(newcomer, err);
	if (!replace)
		return err_set(err, "'%s' exists already (--force replaces it)", newcomer->path);
	newcomer->target = realpath(newcomer->path, NULL);
	if (!newcomer->target)
		return newcomer_failed(newcomer, err);
	if (lstat(newcomer->target, &stat) < 0)
		return newcomer_failed(newcomer, err);
	if (!S_ISREG(stat.st_mode))
		return err_set(err, "'%s' is no regular file: it cannot be replaced",
			       newcomer->path);
	return image_file_open(&newcomer->old, newcomer->path, true, err);
}

static int find_names(struct newcomer *newcomer, struct err *err)
{
	char *copy;

	if (!newcomer->target)
		newcomer->target = strdup(newcomer->path);
	copy = newcomer->target ? strdup(newcomer->target) : NULL;
	newcomer->folder = copy ? strdup(dirname(copy)) : NULL;
	free(copy);
	if (!newcomer->folder ||
	    asprintf(&newcomer->interim, "%s.new.%ld", newcomer->target, (long)getpid()) < 0) {
		newcomer->interim = NULL;
		return err_set(err, "%s", strerror(ENOMEM));
	}
	return 0;
}

static int open_new(struct newcomer *newcomer, struct err *err)
{
	int fd = open(newcomer->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);

	/* The errors by which file systems and kernels say that they cannot do it. */
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
		fd = open(newcomer->interim, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
		newcomer->has_interim = fd >= 0;
	}
	newcomer->file = (struct image_file){.path = newcomer->path, .fd = fd};
	return fd < 0 ? newcomer_failed(newcomer, err) : 0;
}

static int link_to(const struct newcomer *newcomer, const char *path)
{
	char self[64];

	if (newcomer->has_interim)
		return link(newcomer->interim, path);
	snprintf(self, sizeof(self), "/proc/self/fd/%d", newcomer->file.fd);
	return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
}

static int give_name(struct newcomer *newcomer, struct err *err)
{
	if (newcomer->old.fd < 0) {
		if (link_to(newcomer, newcomer->target) == 0)
			return 0;
		return errno == EEXIST ? err_set(err, "'%s' exists already", newcomer->path)
				       : newcomer_failed(newcomer, err);
	}
	if (!newcomer->has_interim) {
		if (link_to(newcomer, newcomer->interim) < 0)
			return newcomer_failed(newcomer, err);
		newcomer->has_interim = true;
	}
	if (rename(newcomer->interim, newcomer->target) < 0)
		return newcomer_failed(newcomer, err);
	newcomer->has_interim = false;
	return 0;
}

static int sync_folder(const struct newcomer *newcomer, struct err *err)
{
	int fd = open(newcomer->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int result = fd < 0 || fsync(fd) < 0 ? -1 : 0;

	if (result < 0)
		err_set(err, "cannot sync '%s': %s", newcomer->folder, strerror(errno));
	if (fd >= 0)
		close(fd);
	return result;
}

int image_file_create(const struct image_creation *creation,
		      int (*fill)(struct image_file *file, const struct image_creation *creation,
				  void *context, struct err *err),
		      void *context, struct err *err)
{
	struct newcomer newcomer = {.path = creation->path, .old.fd = -1, .file.fd = -1};
	int result = -1;

	if (open_old(&newcomer, creation->replace, err) == 0 && find_names(&newcomer, err) == 0 &&
	    open_new(&newcomer, err) == 0 && fill(&newcomer.file, creation, context, err) == 0 &&
	    image_file_sync(&newcomer.file, err) == 0 && give_name(&newcomer, err) == 0)
		result = sync_folder(&newcomer, err);
	if (newcomer.has_interim)
		unlink(newcomer.interim);
	image_file_close(&newcomer.file);
	image_file_close(&newcomer.old);
	free(newcomer.interim);
	free(newcomer.folder);
	free(newcomer.target);
	return result;
}
