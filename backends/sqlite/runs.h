/* SPDX-License-Identifier: MIT */
/*
 * The rows of a layer's file. Each is a run of sectors that are present:
 *
 *	data	as many bytes as its sectors have. It crosses no boundary of a *chunk* (16 KiB, or a
 *		sector where those are larger), so that no row is large: to read 4 KiB of a row costs
 *		the time to read all that is before them, and to write them in place nearly so.
 *	zeros	without data, of any length.
 *
 * Rows do not overlap. What is in no row is absent. What is written over data goes into the row in
 * place; rows are only cut where the state of a sector changes.
 *
 * No row is believed: one that cannot be is an error of the medium, told with its place.
 *
 * All of it blocks: never on a worker. Errors are those of core/error.h.
 */
#ifndef BACKENDS_SQLITE_RUNS_H
#define BACKENDS_SQLITE_RUNS_H

#include "backends/sqlite/db.h"
#include "core/layer.h"
#include "core/log.h"

/* No chunk has more sectors. */
#define CHUNK_SECTORS_MAX 32
#define CHUNK_SIZE	  ((uint64_t)CHUNK_SECTORS_MAX * 512)

/* What all who work on the rows of one file know of it; constant. */
struct runs_file {
	const char *node, *path; /* for messages */
	struct log_limit *log_limit;
	unsigned shift; /* log2 of the sector size */
	uint64_t sector_count;
	uint64_t chunk; /* sectors */
};

/* ---- Reading. Any connection; a snapshot of its own for each call. ---- */

/*
 * As struct layer_ops says of read(), but it adds to @gaps, which may hold some already, and returns
 * in *answered how many sectors from @sector on were answered: less than @count only where the list
 * is full. @sg may be NULL: then it only looks for gaps.
 */
int runs_read(struct db *db, const struct runs_file *file, const struct sg *sg, uint64_t sector,
	      uint64_t count, struct layer_gaps *gaps, uint64_t *answered);

/* As struct layer_ops says of run(). */
int runs_find(struct db *db, const struct runs_file *file, uint64_t sector, uint64_t count,
	      struct layer_run *run);

/* Adds a gap behind the others. False: the list is full. */
bool gaps_add(struct layer_gaps *gaps, uint64_t sector, uint64_t count);

/* ---- Changing. The one connection that writes, in a transaction. ---- */

struct runs_totals {
	uint64_t runs, data_sectors;
};

struct runs_writer {
	struct db db;
	const struct runs_file *file;
	struct runs_totals totals; /* with what the transaction has changed so far */
	uint64_t work;		   /* bytes that were changed in the transaction, roughly */
};

/* Writes @count sectors of one chunk. Nothing but zeros may become a run of zeros. */
int runs_put(struct runs_writer *writer, uint64_t sector, uint64_t count, const void *data);

/*
 * A step towards [@from, @to) being zeros, or absent: of a bounded number of rows. In *reached how
 * far it has come; it is to be called again from there.
 */
int runs_zero(struct runs_writer *writer, uint64_t from, uint64_t to, uint64_t *reached);
int runs_clear(struct runs_writer *writer, uint64_t from, uint64_t to, uint64_t *reached);

/* The sector where the first row at or behind @sector begins; *found is false where there is none. */
int runs_first(struct runs_writer *writer, uint64_t sector, uint64_t *first, bool *found);

/* Whether there is no row at all. */
int runs_are_none(struct runs_writer *writer, bool *none);

/* ---- Between the two. ---- */

struct runs_row {
	uint64_t first, count;
	bool is_data;
	const void *data; /* of DB_READ */
};

/* The rows of DB_READ or DB_LOOK. */
struct runs_cursor {
	struct db *db;
	const struct runs_file *file;
	sqlite3_stmt *statement;
	bool has_data;
	uint64_t end; /* of the row before */
};

int runs_cursor_open(struct runs_cursor *cursor, struct db *db, const struct runs_file *file,
		     enum db_statement statement, uint64_t sector, uint64_t count);
/* The next row, valid until the next call; *found is false at the end. */
int runs_cursor_next(struct runs_cursor *cursor, struct runs_row *row, bool *found);
/* May be called when it is not open. */
void runs_cursor_close(struct runs_cursor *cursor);

#endif
