// SPDX-License-Identifier: MIT
#include "backends/sqlite/hold.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file that this process writes to. */
struct written_file {
	dev_t device;
	ino_t inode;
	struct written_file *next;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the list */
static struct written_file *written_files;

/* With the mutex held. */
static bool is_written(const struct stat *stat)
{
	for (const struct written_file *file = written_files; file; file = file->next)
		if (file->device == stat->st_dev && file->inode == stat->st_ino)
			return true;
	return false;
}

static void forget(struct written_file *written)
{
	pthread_mutex_lock(&mutex);
	for (struct written_file **link = &written_files; *link; link = &(*link)->next) {
		if (*link != written)
			continue;
		*link = written->next;
		break;
	}
	pthread_mutex_unlock(&mutex);
	free(written);
}

/* With the mutex held. */
static int remember(struct hold *hold)
{
	struct stat stat;

	if (fstat(hold->fd, &stat) < 0)
		return -errno;
	hold->written = malloc(sizeof(*hold->written));
	if (!hold->written)
		return -ENOMEM;
	*hold->written = (struct written_file){stat.st_dev, stat.st_ino, written_files};
	written_files = hold->written;
	return 0;
}

/* Whether the path still leads to what was locked: it may have been replaced in between. */
static bool leads_to(const char *path, int fd)
{
	struct stat named, opened;

	return stat(path, &named) == 0 && fstat(fd, &opened) == 0 &&
	       named.st_ino == opened.st_ino && named.st_dev == opened.st_dev;
}

/* 0 or a negative errno; -ESTALE: the path leads elsewhere now. */
static int lock(struct hold *hold, const char *path, enum hold_mode mode)
{
	if (flock(hold->fd, (mode == HOLD_WRITE ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK || mode != HOLD_LOOK)
			return -errno;
		hold->is_written = true;
		return 0;
	}
	if (!leads_to(path, hold->fd))
		return -ESTALE;
	return mode == HOLD_WRITE ? remember(hold) : 0;
}

/* With the mutex held. */
static int open_and_lock(struct hold *hold, const char *path, enum hold_mode mode)
{
	int flags = mode == HOLD_WRITE ? O_RDWR : O_RDONLY;
	struct stat stat_buffer;
	int error;

	do {
		*hold = (struct hold){.fd = -1};
		if (stat(path, &stat_buffer) == 0 && is_written(&stat_buffer)) {
			hold->is_written = mode == HOLD_LOOK;
			return hold->is_written ? 0 : -EWOULDBLOCK;
		}
		/* Without waiting for the other end of a FIFO. */
		hold->fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		if (hold->fd < 0)
			return -errno;
		error = lock(hold, path, mode);
		if (error) {
			close(hold->fd);
			hold->fd = -1;
		}
	} while (error == -ESTALE);
	return error;
}

int hold_take(struct hold *hold, const char *path, enum hold_mode mode)
{
	int error;

	pthread_mutex_lock(&mutex);
	error = open_and_lock(hold, path, mode);
	pthread_mutex_unlock(&mutex);
	return error;
}

int hold_new(struct hold *hold, int fd)
{
	int error = 0;

	*hold = (struct hold){.fd = fd};
	pthread_mutex_lock(&mutex);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		error = -errno;
	else
		error = remember(hold);
	pthread_mutex_unlock(&mutex);
	if (error)
		hold_release(hold);
	return error;
}

void hold_release(struct hold *hold)
{
	if (hold->written)
		forget(hold->written);
	if (hold->fd >= 0)
		close(hold->fd);
	*hold = (struct hold){.fd = -1};
}
