// SPDX-License-Identifier: MIT
/*
 * Who claims a block device. The kernel only says that somebody does; for the most frequent cases
 * one can find out who.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include "backends/blockdev/blockdev.h"

/* Where the device with this number ("8:1") is mounted. */
static bool find_mount(const char *number, char *text, size_t size)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char line[1024], device[32], where[512];
	bool found = false;

	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		if (sscanf(line, "%*d %*d %31s %*s %511s", device, where) == 2 &&
		    strcmp(device, number) == 0) {
			snprintf(text, size, "mounted on %s", where);
			found = true;
		}
	fclose(file);
	return found;
}

/* A device that stands on it, by device-mapper or as a RAID. */
static bool find_holder(const char *sysfs, char *text, size_t size)
{
	char path[400];
	bool found = false;
	DIR *folder;

	snprintf(path, sizeof(path), "%s/holders", sysfs);
	folder = opendir(path);
	if (!folder)
		return false;
	for (struct dirent *entry; !found && (entry = readdir(folder));)
		if (entry->d_name[0] != '.') {
			snprintf(text, size, "used by %s", entry->d_name);
			found = true;
		}
	closedir(folder);
	return found;
}

static bool find_user(const char *sysfs, char *text, size_t size)
{
	char number[32];

	return find_holder(sysfs, text, size) ||
	       (sysfs_line(sysfs, "dev", number, sizeof(number)) && find_mount(number, text, size));
}

bool claim_find(const char *sysfs, char *text, size_t size)
{
	bool found = find_user(sysfs, text, size);
	DIR *folder = found ? NULL : opendir(sysfs);

	if (!folder)
		return found;
	for (struct dirent *entry; !found && (entry = readdir(folder));) {
		char path[400], *user = text;
		int length;

		snprintf(path, sizeof(path), "%s/%s", sysfs, entry->d_name);
		if (entry->d_name[0] == '.' || !sysfs_number(path, "partition"))
			continue;
		length = snprintf(text, size, "partition %s is ", entry->d_name);
		if (length > 0 && (size_t)length < size)
			user += length;
		found = find_user(path, user, size - (size_t)(user - text));
	}
	closedir(folder);
	return found;
}
