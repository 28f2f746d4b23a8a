/* SPDX-License-Identifier: MIT */
/*
 * A driver for tests of the core. It is a disk in memory that can be given any geometry and limits,
 * records what it is asked, fails what it is told to fail, can miss any operation, and can hold its
 * requests. It checks by itself that it is never given a request that violates its limits.
 *
 * A struct probe belongs to the test, and lives longer than its disk. Its fields may be changed
 * before the disk is opened, and the settings also while nothing is under way.
 */
#ifndef TESTS_LIB_PROBE_H
#define TESTS_LIB_PROBE_H

#include <pthread.h>
#include "core/disk.h"

enum probe_op {
	PROBE_READ,
	PROBE_WRITE,
	PROBE_FLUSH,
	PROBE_UNMAP,
	PROBE_WRITE_ZEROES,
	PROBE_EXTENT,
	PROBE_ALLOCATED,
	PROBE_EJECT,
	PROBE_RESIZED,
	PROBE_CLOSE,
	PROBE_OPS
};

/* One call of the driver. */
struct probe_call {
	enum probe_op op;
	uint64_t sector, count;
	unsigned flags;
};

#define PROBE_CALLS_MAX 4096

struct probe {
	/* Settings. */
	struct driver driver; /* an operation set to NULL is missing */
	struct disk_geometry geometry;
	uint64_t sector_count;
	const char *open_error; /* open() fails with this sentence */
	unsigned yields;	/* how often a read or write lets others run before it acts */
	uint64_t sleep_ns;	/* how long it then sleeps */
	bool shared;		/* read and write copy atomically, whatever the worker */
	struct {
		int error;
		uint64_t first, end; /* requests that touch these sectors */
	} fail[PROBE_OPS];
	atomic_bool hold; /* reads, writes and flushes wait */

	/* What it has seen. */
	char *data;
	unsigned counts[PROBE_OPS];
	struct probe_call *calls; /* the first PROBE_CALLS_MAX */
	unsigned call_count;
	pthread_mutex_t mutex;
};

/* A disk that can do everything, without limits. */
void probe_init(struct probe *probe, uint32_t sector_size, uint64_t sector_count);
void probe_destroy(struct probe *probe);

/* In a task. As disk_open(); @below may be NULL. */
struct disk *probe_open(struct probe *probe, unsigned flags, struct disk *below, struct err *err);

/* Forgets what it has seen, but not the data. */
void probe_forget(struct probe *probe);

/* Checks what a driver is promised of @sg: the limits in @geometry. False if they are violated. */
bool limits_hold(const struct disk_geometry *geometry, const struct sg *sg);

#endif
