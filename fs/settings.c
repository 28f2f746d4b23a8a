// SPDX-License-Identifier: MIT
#include "fs/settings.h"
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "core/buffer.h"
#include "core/worker.h"

/* More than this many workers by default has not been seen to help. */
#define WORKERS_DEFAULT_MAX 8

static const char *const cache_choices[] = {"none", "writethrough", "writeback", NULL};
static const char *const transport_choices[] = {"auto", "poll", "uring", NULL};
static const char *const log_choices[] = {"error", "warning", "info", "debug", NULL};

const struct option settings_options[] = {
	{.name = "workers",
	 .type = OPTION_U64,
	 .offset = offsetof(struct settings, workers),
	 .max = WORKERS_MAX,
	 .fallback = "0",
	 .help = "Threads that serve requests; 0 takes one for each CPU, at most 8"},
	{.name = "transport",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct settings, transport),
	 .choices = transport_choices,
	 .fallback = "auto",
	 .help = "How requests come from the kernel: by descriptor, or by io_uring where the "
		 "kernel "
		 "offers that (Linux 6.14, parameter enable_uring of its module fuse) and "
		 "otherwise "
		 "by descriptor"},
	{.name = "ring_memory",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct settings, ring_memory),
	 .max = (uint64_t)1 << 40,
	 .fallback = "0",
	 .help = "The most memory for requests that come by io_uring, of which only as much is "
		 "taken as requests were long; it is divided among the CPUs, and what finds no "
		 "room waits. 0 is room for 1056 requests of each CPU, or 8448 in all"},
	{.name = "max_request",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct settings, max_request),
	 .flags = OPTION_POWER_OF_TWO,
	 .min = BUFFER_PAYLOAD,
	 .max = 64 * MIB,
	 .fallback = "1M",
	 .help = "The largest request that the kernel sends in one piece. More than 1M needs Linux "
		 "6.13, and a larger fs.fuse.max_pages_limit (sysctl) before the mount"},
	{.name = "cache",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct settings, cache),
	 .choices = cache_choices,
	 .fallback = "writethrough",
	 .help = "What the kernel's page cache does for programs that do not ask for O_DIRECT: "
		 "nothing, keep what was read and written, or also collect writes until fsync. "
		 "With "
		 "writeback a write beyond the end of a disk fails as late as that"},
	{.name = "cache_memory",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct settings, cache_memory),
	 .max = (uint64_t)1 << 44,
	 .fallback = "256M",
	 .help = "Memory for what was read of remote disks (driver blob), shared by all of them. 0: "
		 "nothing is kept"},
	{.name = "uid",
	 .type = OPTION_STRING,
	 .offset = offsetof(struct settings, user),
	 .help = "Owner of the files, by name or number. The default is the user of the daemon"},
	{.name = "gid",
	 .type = OPTION_STRING,
	 .offset = offsetof(struct settings, group),
	 .help = "Group of the files, by name or number. The default is the group of the daemon"},
	{.name = "mode",
	 .type = OPTION_OCTAL,
	 .offset = offsetof(struct settings, mode),
	 .max = 0777,
	 .fallback = "0600",
	 .help = "Permissions of the image files; read-only disks lose the write bits"},
	{.name = "allow_other",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct settings, allow_other),
	 .fallback = "no",
	 .help = "Let other users than the one who mounts see the folder, as far as mode lets "
		 "them. "
		 "Needs root, or user_allow_other in /etc/fuse.conf"},
	{.name = "log_level",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct settings, log_level),
	 .choices = log_choices,
	 .fallback = "info",
	 .help = "The least important messages that are logged"},
	{.name = NULL},
};

/* A decimal id, or -1. */
static int64_t parse_id(const char *text)
{
	char *end;

	errno = 0;

	unsigned long long id = strtoull(text, &end, 10);

	if (errno || *end || end == text || *text == '-' || id >= UINT32_MAX)
		return -1;
	return (int64_t)id;
}

static int resolve_owner(struct settings *settings, struct err *err)
{
	settings->uid = getuid();
	settings->gid = getgid();
	if (settings->user) {
		const struct passwd *user = getpwnam(settings->user);
		int64_t id = user ? (int64_t)user->pw_uid : parse_id(settings->user);

		if (id < 0)
			return err_set_key(err, "uid", "there is no user '%s'", settings->user);
		settings->uid = (uid_t)id;
	}
	if (settings->group) {
		const struct group *group = getgrnam(settings->group);
		int64_t id = group ? (int64_t)group->gr_gid : parse_id(settings->group);

		if (id < 0)
			return err_set_key(err, "gid", "there is no group '%s'", settings->group);
		settings->gid = (gid_t)id;
	}
	return 0;
}

/* The largest request that the kernel sends; it tells by how much it may be raised since 6.13. */
static int check_max_request(const struct settings *settings, struct err *err)
{
	unsigned long long pages = 0, page = (unsigned long long)sysconf(_SC_PAGESIZE);
	FILE *file = fopen("/proc/sys/fs/fuse/max_pages_limit", "re");

	if (file) {
		if (fscanf(file, "%llu", &pages) != 1)
			pages = 0;
		fclose(file);
	}
	if (settings->max_request <= max_u64(pages * page, BUFFER_PAYLOAD))
		return 0;
	return err_set_key(err, "max_request",
			   "this kernel sends no more than %llu bytes at once: %s",
			   (unsigned long long)max_u64(pages * page, BUFFER_PAYLOAD),
			   pages > 0 ? "raise the sysctl fs.fuse.max_pages_limit"
				     : "Linux 6.13 can");
}

int settings_resolve(struct settings *settings, struct err *err)
{
	if (settings->workers == 0) {
		long cpus = sysconf(_SC_NPROCESSORS_ONLN);

		settings->workers =
			min_u64(max_u64(cpus > 0 ? (uint64_t)cpus : 1, 1), WORKERS_DEFAULT_MAX);
	}
	if (check_max_request(settings, err) < 0)
		return -1;
	return resolve_owner(settings, err);
}

const char *cache_policy_name(int policy)
{
	return cache_choices[policy];
}
