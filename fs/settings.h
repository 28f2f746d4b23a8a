/* SPDX-License-Identifier: MIT */
/* The settings of a mount: the [diskfs] section of the configuration, which `-o` overrides. */
#ifndef FS_SETTINGS_H
#define FS_SETTINGS_H

#include <sys/types.h>
#include "conf/option.h"

enum cache_policy {
	CACHE_NONE,
	CACHE_WRITETHROUGH,
	CACHE_WRITEBACK,
};

enum transport {
	TRANSPORT_AUTO,
	TRANSPORT_POLL,
	TRANSPORT_URING,
};

struct settings {
	uint64_t workers;      /* 0: as many as CPUs */
	int transport;	       /* enum transport */
	uint64_t ring_memory;  /* bytes */
	uint64_t max_request;  /* bytes */
	int cache;	       /* enum cache_policy */
	uint64_t cache_memory; /* bytes */
	char *user, *group;
	uint64_t mode;
	bool allow_other;
	int log_level; /* enum log_level */
	/* From user and group, by settings_resolve(). */
	uid_t uid;
	gid_t gid;
};

extern const struct option settings_options[];

/*
 * Works out what depends on the system: owner, number of workers. Returns 0, or -1 with err->key
 * set.
 */
int settings_resolve(struct settings *settings, struct err *err);

const char *cache_policy_name(int policy);

#endif
