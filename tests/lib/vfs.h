/* SPDX-License-Identifier: MIT */
/*
 * What SQLite writes, recorded, and made to fail: a VFS that stands in front of SQLite's own as the
 * default one. Only files of databases and of their write-ahead logs are looked at.
 *
 * Any thread; settings may be changed at any time.
 */
#ifndef TESTS_LIB_VFS_H
#define TESTS_LIB_VFS_H

#include "core/util.h"

enum vfs_file { VFS_DATABASE, VFS_WAL, VFS_FILES };

enum vfs_op {
	VFS_WRITE,
	VFS_TRUNCATE,
	VFS_SYNC, /* has begun */
	VFS_SYNCED,
	VFS_DELETE,
	VFS_OPS
};

/* One thing that was done to a file. */
struct vfs_event {
	enum vfs_op op;
	enum vfs_file file;
	uint64_t offset; /* of a write; of a truncation, the new length */
	uint32_t length;
	unsigned began;	     /* of VFS_SYNCED: the event VFS_SYNC of it */
	unsigned char *data; /* of a write */
};

/* Makes it the default, for as long as the process lives. */
void vfs_install(void);

/* ---- Recording. ---- */

/* Forgets what was recorded, and records from the next file on that is opened. */
void vfs_record(void);
void vfs_record_end(void);

/* How many events there are so far. */
unsigned vfs_count(void);
/* Once nothing is recorded any more. */
const struct vfs_event *vfs_event(unsigned index);
/* What was in the database's file when it was opened. */
const unsigned char *vfs_image(size_t *length);

/* ---- Failing. ---- */

struct vfs_fault {
	enum vfs_op op; /* VFS_WRITE, VFS_SYNC or VFS_TRUNCATE */
	unsigned files; /* a bit each of enum vfs_file */
	unsigned after; /* how many of them still succeed */
	unsigned times; /* how many then fail; 0: all */
	int errnum;	/* 0: none of them fails */
};

/* Replaces what was set before. */
void vfs_fail(const struct vfs_fault *fault);
/* How many have failed since. */
unsigned vfs_failed(void);

#endif
