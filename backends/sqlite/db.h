/* SPDX-License-Identifier: MIT */
/*
 * A connection to a layer's file, with its prepared statements. One thread at a time uses it.
 *
 * The file's table is `runs`: one row for each run of sectors in one state. `data` is NULL for
 * zeros. What the rows mean is in runs.h; `meta`, a table of one row, is in format.h.
 *
 * All of it blocks: never on a worker.
 */
#ifndef BACKENDS_SQLITE_DB_H
#define BACKENDS_SQLITE_DB_H

#include <sqlite3.h>
#include "core/error.h"

/* How long one connection waits for another: only checkpoints, and other programs, keep one
 * waiting. */
#define DB_BUSY_MS 2000

enum db_mode {
	DB_WRITER,
	DB_READER, /* beside a writer, in this process or another */
	/* Where nobody writes: takes no lock, and neither makes nor changes a file, whatever a
	 * crash has left beside it. */
	DB_QUIET,
	DB_MEMORY, /* a new database in memory */
};

enum db_statement {
	DB_BEGIN,
	DB_COMMIT,
	DB_ROLLBACK,
	/* first, count, data of the rows that reach into [?1, ?2), in order; the first may end
	 * before. */
	DB_READ,
	/* The same with the length of the data in bytes instead of the data. */
	DB_LOOK,
	DB_FIRST,   /* the first row that begins at ?1 or behind it */
	DB_PUT,	    /* first, count, data */
	DB_DELETE,  /* first */
	DB_SHORTEN, /* first, count, bytes of data: keeps the beginning of a row */
	DB_SPLIT,   /* first, new first, new count, new data from: a new row of another's end */
	DB_META_LOAD,
	DB_META_INSERT,
	DB_META_TOTALS,	 /* runs, data_sectors */
	DB_META_MARKS,	 /* own, dirty */
	DB_META_CONTENT, /* fingerprint */
	DB_STATEMENTS,
};

struct db {
	sqlite3 *handle;
	sqlite3_stmt *statements[DB_STATEMENTS];
};

/* 0, or a result code of SQLite, the handle open to be asked for its message. @path is of no meaning
 * to DB_MEMORY. */
int db_open(struct db *db, const char *path, enum db_mode mode);
/* May be called when nothing is open. 0 or a result code. */
int db_close(struct db *db);

/* An error of core/error.h for a result code of the last call; 0 for what is none. For I/O errors
 * looks at errno: call it before anything else that may change that. */
int db_error(int result);
/* A sentence for the result code of the last call, with the same in mind. */
const char *db_message(const struct db *db, int result);

/* Runs statements without results. 0 or a result code. */
int db_execute(struct db *db, const char *text);

/* The statement with its first @count parameters bound; reset it when done. NULL: *result says
 * why. */
sqlite3_stmt *db_statement(struct db *db, enum db_statement statement, const int64_t *values,
			   unsigned count, int *result);
/* Runs a statement without results. 0 or a result code. */
int db_run(struct db *db, enum db_statement statement, const int64_t *values, unsigned count);

/* Copies the log into the file: SQLITE_CHECKPOINT_PASSIVE, ... 0 or a result code. */
int db_checkpoint(struct db *db, int mode);

/* Ends a transaction that is under way, if any. */
void db_rollback(struct db *db);

#endif
