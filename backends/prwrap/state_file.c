// SPDX-License-Identifier: MIT
/*
 * A new content is written to PATH.new, and then renamed. PATH.new is locked before it is written,
 * so that the lock goes with it; one that was left by a crash is overwritten.
 *
 * A lock is of use only if the path still leads to what was locked: another may have renamed its
 * own file there between our open and our lock. So whoever has locked looks again.
 */
#include "backends/prwrap/state_file.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static bool leads_to(const char *path, int fd)
{
	struct stat named, opened;

	return stat(path, &named) == 0 && fstat(fd, &opened) == 0 &&
	       named.st_ino == opened.st_ino && named.st_dev == opened.st_dev;
}

/* The descriptor, or a negative errno: -EWOULDBLOCK, somebody else has it. */
static int open_locked(const char *path, int flags)
{
	for (;;) {
		int fd = open(path, flags | O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);

		if (fd < 0)
			return -errno;

		int error = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;

		if (!error && leads_to(path, fd))
			return fd;
		close(fd);
		if (error)
			return error;
	}
}

/* ---- Reading. ---- */

static int read_all(int fd, char *text, size_t length)
{
	size_t done = 0;

	while (done < length) {
		ssize_t got = pread(fd, text + done, length - done, (off_t)done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO; /* it has become shorter */
		done += (size_t)got;
	}
	return 0;
}

static int state_file_read(int fd, const char *path, size_t max, char **text, size_t *length,
			   struct err *err)
{
	struct stat stat;
	int error;

	if (fstat(fd, &stat) < 0)
		return err_set_key(err, "state_file", "cannot stat '%s': %s", path,
				   strerror(errno));
	if (!S_ISREG(stat.st_mode))
		return err_set_key(err, "state_file", "'%s' is no regular file", path);
	if ((uint64_t)stat.st_size > max)
		return err_set_key(err, "state_file", "'%s' is no state file: it has %lld bytes",
				   path, (long long)stat.st_size);
	*length = (size_t)stat.st_size;
	*text = malloc(*length + 1);
	if (!*text)
		return err_set(err, "out of memory");
	error = read_all(fd, *text, *length);
	if (error)
		return err_set_key(err, "state_file", "cannot read '%s': %s", path,
				   strerror(-error));
	return 0;
}

int state_file_open(struct state_file *file, const char *path, bool check, size_t max, char **text,
		    size_t *length, struct err *err)
{
	int fd = check ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
		       : open_locked(path, 0);
	int result;

	if (check && fd < 0)
		fd = -errno;
	*file = (struct state_file){.path = path, .fd = fd < 0 ? -1 : fd};
	*text = NULL;
	if (fd == -ENOENT)
		return 0;
	if (fd == -EWOULDBLOCK)
		return err_set_key(err, "state_file", "'%s' is in use by another disk", path);
	if (fd < 0)
		return err_set_key(err, "state_file", "cannot open '%s': %s", path, strerror(-fd));
	result = state_file_read(fd, path, max, text, length, err);
	if (result < 0 || check)
		state_file_close(file);
	if (result < 0) {
		free(*text);
		*text = NULL;
	}
	return result;
}

/* ---- Writing. ---- */

static int write_all(int fd, const char *text, size_t length)
{
	size_t done = 0;

	if (ftruncate(fd, 0) < 0)
		return -errno;
	while (done < length) {
		ssize_t put = pwrite(fd, text + done, length - done, (off_t)done);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put < 0 ? -errno : -EIO;
		done += (size_t)put;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* Makes the names in the folder of @path durable. */
static int sync_folder(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int error = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	free(copy);
	return error;
}

/* Writes @text to @temporary and gives it the name of the file. */
static int replace(struct state_file *file, const char *temporary, const char *text, size_t length)
{
	int fd = open_locked(temporary, O_CREAT);
	int error;

	if (fd < 0)
		return fd;
	/* Where there was no file, another may have come first. */
	error = file->fd < 0 && access(file->path, F_OK) == 0 ? -EWOULDBLOCK
							      : write_all(fd, text, length);
	if (!error && rename(temporary, file->path) < 0)
		error = -errno;
	if (error) {
		unlink(temporary);
		close(fd);
		return error;
	}
	if (file->fd >= 0)
		close(file->fd);
	file->fd = fd;
	return sync_folder(file->path);
}

int state_file_write(struct state_file *file, const char *text, size_t length)
{
	char *temporary;
	int error;

	if (asprintf(&temporary, "%s.new", file->path) < 0)
		return -ENOMEM;
	error = replace(file, temporary, text, length);
	free(temporary);
	return error;
}

void state_file_close(struct state_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
}
