/* SPDX-License-Identifier: MIT */
/*
 * A layer's file, version 1: a SQLite database in WAL mode, with "dkfs" as application_id and the
 * version as user_version, of two tables: `runs` (runs.h), and `meta`, whose one row says
 *
 *	sector_size, sector_count	what the layer is
 *	created				seconds since 1970
 *	own	it may hold what is nowhere else: it is not a mere cache, and never forgets anything
 *	dirty	it is in use as a cache that is written through, or was until it ended uncleanly
 *	base_size, base_id, base_content	what it was made over (base.h); NULL: nothing, unknown;
 *						a content of no bytes: it changes
 *	runs, data_sectors		how many rows there are, and how many sectors with data
 *
 * A file comes into being as a whole: it is written and made durable under another name, and then
 * gets its own.
 *
 * All of it blocks: never on a worker.
 */
#ifndef BACKENDS_SQLITE_FORMAT_H
#define BACKENDS_SQLITE_FORMAT_H

#include "backends/sqlite/base.h"
#include "backends/sqlite/hold.h"
#include "backends/sqlite/runs.h"

#define FORMAT_VERSION 1

struct meta {
	uint32_t sector_size;
	uint64_t sector_count;
	uint64_t created;
	bool own, dirty;
	struct base base;
	struct runs_totals totals;
};

/*
 * Makes the file @path and takes it for writing. 0; -EEXIST: there is one already, perhaps just made
 * by somebody else; -1 with a sentence in @err.
 */
int format_create(struct hold *hold, const char *path, const struct meta *meta, struct err *err);

/* Makes the file @path anew, in the place of one that is held, and whose database is closed; @hold
 * is of the new one then. 0, or -1 with a sentence in @err: then @hold is as it was. */
int format_replace(struct hold *hold, const char *path, const struct meta *meta, struct err *err);

/* Whether the file that is held looks like one of ours, before SQLite sees it. */
int format_check_header(const struct hold *hold, const char *path, struct err *err);

/* Whether an open database is one of ours, and what its meta says. */
int format_load(struct db *db, const char *path, struct meta *meta, struct err *err);

/* Notes the content that the disk below has now; NULL: it changes. In a transaction of its own. 0 or
 * a result code of SQLite. */
int format_set_content(struct db *db, const uint8_t *fingerprint);

#endif
