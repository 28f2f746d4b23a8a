// SPDX-License-Identifier: MIT
/*
 * A daemon that was killed leaves its mount behind: every access to it is ENOTCONN, even a look at
 * the folder, so it is found in the table of mounts. Only a mount of diskfs is removed, and lazily:
 * programs may still hold files of it, which fail for ever in any case.
 */
#include "fs/mountpoint.h"
#include <errno.h>
#include <libgen.h>
#include <mntent.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include "core/log.h"

/* The absolute path of what cannot be looked at itself: by way of the folder that it is in. */
static char *resolve_by_parent(const char *path)
{
	char *folder_copy = strdup(path), *name_copy = strdup(path);
	char *folder = folder_copy ? realpath(dirname(folder_copy), NULL) : NULL;
	char *resolved = NULL;

	if (folder && name_copy &&
	    asprintf(&resolved, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder,
		     basename(name_copy)) < 0)
		resolved = NULL;
	free(folder);
	free(name_copy);
	free(folder_copy);
	return resolved;
}

static bool is_diskfs_mount(const char *path)
{
	FILE *mounts = setmntent("/proc/self/mounts", "r");
	const struct mntent *entry;
	bool found = false;

	if (!mounts)
		return false;
	/* The last one counts: mounts may lie on top of one another. */
	while ((entry = getmntent(mounts)))
		if (strcmp(entry->mnt_dir, path) == 0)
			found = strcmp(entry->mnt_type, "fuse.diskfs") == 0;
	endmntent(mounts);
	return found;
}

static int unmount_lazily(const char *path)
{
	/* posix_spawn() changes none of them; it only cannot say so. */
	const char *const arguments[] = {"fusermount3", "-u", "-z", "-q", path, NULL};
	pid_t child;
	int status;

	if (geteuid() == 0)
		return umount2(path, MNT_DETACH);
	if (posix_spawnp(&child, arguments[0], NULL, NULL, (char *const *)(uintptr_t)arguments,
			 environ) != 0)
		return -1;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/*
 * Asks the mount that may be there; not by lstat(), since the kernel may remember what that says.
 * ECONNABORTED: it has just died, which with io_uring takes the kernel a moment after the end of
 * the process; a request of that moment waits for it.
 */
static bool is_dead(const char *mountpoint)
{
	struct statfs statfs_buffer;

	return statfs(mountpoint, &statfs_buffer) < 0 &&
	       (errno == ENOTCONN || errno == ECONNABORTED);
}

/* True if a dead mount was there, and is gone. */
static bool remove_dead_mount(const char *mountpoint)
{
	char *path = resolve_by_parent(mountpoint);
	bool removed = path && is_diskfs_mount(path) && unmount_lazily(path) == 0;

	if (removed)
		log_warning(NULL, "removed the mount of a diskfs that has died on '%s'", path);
	free(path);
	return removed;
}

char *mountpoint_resolve(const char *mountpoint, struct err *err)
{
	struct stat stat;
	char *resolved = NULL;

	if (is_dead(mountpoint))
		remove_dead_mount(mountpoint);
	if (lstat(mountpoint, &stat) == 0)
		resolved = realpath(mountpoint, NULL);
	if (!resolved || lstat(resolved, &stat) < 0)
		err_set(err, "cannot mount on '%s': %s%s", mountpoint, strerror(errno),
			errno == ENOTCONN ? " (a file system has died here: umount it first)" : "");
	else if (!S_ISDIR(stat.st_mode))
		err_set(err, "cannot mount on '%s': it is no folder", mountpoint);
	else
		return resolved;
	free(resolved);
	return NULL;
}
