// SPDX-License-Identifier: MIT
/*
 * Settings, as measured with writes of 4 KiB at random places: pages of 4 KiB write the least to
 * the log and take the least time, but for those of 1 KiB, which write a third less and need twice
 * the time to read. `synchronous = FULL` makes each commit durable. Checkpoints are made by
 * commit.c. SQLite would overwrite what is deleted with zeros, as Debian builds it; that is turned
 * off.
 *
 * A file comes from anywhere: no statement of its schema runs (format.c compares it), and no row is
 * larger than it could be.
 */
#include "backends/sqlite/db.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A row of the largest sectors, and a little. */
#define LENGTH_MAX (65536 + 4096)

/* The log is cut to this when it starts anew. */
#define WAL_KEPT "134217728"

#define ROWS_FROM                                                                              \
	" FROM runs WHERE first >= ifnull((SELECT first FROM runs WHERE first <= ?1 ORDER BY " \
	"first DESC LIMIT 1), ?1) AND first < ?2 ORDER BY first"

static const char *const texts[DB_STATEMENTS] = {
	[DB_BEGIN] = "BEGIN IMMEDIATE",
	[DB_COMMIT] = "COMMIT",
	[DB_ROLLBACK] = "ROLLBACK",
	[DB_READ] = "SELECT first, count, data" ROWS_FROM,
	[DB_LOOK] = "SELECT first, count, length(data)" ROWS_FROM,
	[DB_FIRST] = "SELECT first FROM runs WHERE first >= ?1 ORDER BY first LIMIT 1",
	[DB_PUT] = "INSERT OR REPLACE INTO runs VALUES (?1, ?2, ?3)",
	[DB_DELETE] = "DELETE FROM runs WHERE first = ?1",
	[DB_SHORTEN] = "UPDATE runs SET count = ?2, data = substr(data, 1, ?3) WHERE first = ?1",
	[DB_SPLIT] = "INSERT INTO runs SELECT ?2, ?3, substr(data, ?4) FROM runs WHERE first = ?1",
	[DB_META_LOAD] = "SELECT sector_size, sector_count, created, own, dirty, base_size, "
			 "base_id, base_content, runs, data_sectors FROM meta WHERE id = 0",
	[DB_META_INSERT] = "INSERT INTO meta VALUES (0, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
	[DB_META_TOTALS] = "UPDATE meta SET runs = ?1, data_sectors = ?2 WHERE id = 0",
	[DB_META_CONTENT] = "UPDATE meta SET base_content = ?1 WHERE id = 0",
	[DB_META_MARKS] = "UPDATE meta SET own = ?1, dirty = ?2 WHERE id = 0",
};

/* ---- Opening. ---- */

/* The path as a URI that says the file never changes; to be freed, NULL: no memory. */
static char *immutable_uri(const char *path)
{
	static const char prefix[] = "file:", suffix[] = "?immutable=1";
	char *uri = malloc(sizeof(prefix) + 3 * strlen(path) + sizeof(suffix)), *to = uri;

	if (!uri)
		return NULL;
	to += sprintf(to, "%s", prefix);
	for (; *path; path++)
		to += sprintf(to, strchr("?#%", *path) ? "%%%02x" : "%c", *path);
	sprintf(to, "%s", suffix);
	return uri;
}

/* Whether there is a log that has to be read as well: one with a header. */
static bool has_wal(const char *path)
{
	struct stat stat_buffer;
	char *wal;
	bool found;

	if (asprintf(&wal, "%s-wal", path) < 0)
		return true;
	found = stat(wal, &stat_buffer) == 0 && stat_buffer.st_size >= 32;
	free(wal);
	return found;
}

/*
 * Without a log: as a file that does not change. With one: with an index of the log in memory, which
 * SQLite makes where no other connection is allowed, and without locks, which it would need to be
 * allowed to write for.
 */
static int open_quiet(struct db *db, const char *path)
{
	int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, result;
	char *uri;

	if (has_wal(path)) {
		result = sqlite3_open_v2(path, &db->handle, flags, "unix-none");
		return result ? result : db_execute(db, "PRAGMA locking_mode = EXCLUSIVE");
	}
	uri = immutable_uri(path);
	if (!uri)
		return SQLITE_NOMEM;
	result = sqlite3_open_v2(uri, &db->handle, flags | SQLITE_OPEN_URI, NULL);
	free(uri);
	return result;
}

static int open_handle(struct db *db, const char *path, enum db_mode mode)
{
	switch (mode) {
	case DB_WRITER:
		return sqlite3_open_v2(path, &db->handle,
				       SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	case DB_READER:
		return sqlite3_open_v2(path, &db->handle,
				       SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
	case DB_QUIET:
		return open_quiet(db, path);
	case DB_MEMORY:
		break;
	}
	return sqlite3_open_v2(":memory:", &db->handle,
			       SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			       NULL);
}

static int configure(struct db *db, enum db_mode mode)
{
	int result = SQLITE_OK;

	sqlite3_extended_result_codes(db->handle, 1);
	sqlite3_busy_timeout(db->handle, DB_BUSY_MS);
	sqlite3_limit(db->handle, SQLITE_LIMIT_LENGTH, LENGTH_MAX);
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
	if (mode == DB_WRITER)
		result = db_execute(db, "PRAGMA secure_delete = OFF; PRAGMA synchronous = FULL; "
					"PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -8192; "
					"PRAGMA journal_size_limit = " WAL_KEPT "; "
					"PRAGMA max_page_count = 4294967294");
	return result ? result
		      : db_execute(db, "PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON");
}

int db_open(struct db *db, const char *path, enum db_mode mode)
{
	int result;

	*db = (struct db){.handle = NULL};
	errno = 0;
	result = open_handle(db, path, mode);
	return result ? result : configure(db, mode);
}

int db_close(struct db *db)
{
	int result;

	for (unsigned i = 0; i < DB_STATEMENTS; i++)
		sqlite3_finalize(db->statements[i]);
	result = sqlite3_close(db->handle);
	*db = (struct db){.handle = NULL};
	return result;
}

/* ---- Errors. ---- */

/*
 * Of the system, beneath what SQLite calls an I/O error. sqlite3_system_errno() does not know those
 * of a commit; but what the last system call has left is still there, as db_statement() has cleared
 * it. A file that is looked for in vain is none.
 */
static int io_errno(int result)
{
	bool opens = (result & 0xff) == SQLITE_CANTOPEN;

	if (result == SQLITE_IOERR_NOMEM)
		return ENOMEM;
	return errno > 0 && (opens || errno != ENOENT) ? errno : EIO;
}

int db_error(int result)
{
	switch (result & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_FULL:
		return error_io(ENOSPC);
	case SQLITE_NOMEM:
		return error_io(ENOMEM);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return error_io(EBUSY);
	case SQLITE_READONLY:
		return error_io(EROFS);
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return error_io(EACCES);
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		return error_io(io_errno(result));
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_MISMATCH:
	case SQLITE_TOOBIG:
		return error_medium(EIO, MEDIUM_UNRECOVERED_READ);
	default:
		return error_io(EIO);
	}
}

const char *db_message(const struct db *db, int result)
{
	int kind = result & 0xff;

	if (kind == SQLITE_IOERR || kind == SQLITE_CANTOPEN)
		return strerror(io_errno(result));
	/* The handle's own text says more, where it is about this result. */
	return db->handle && sqlite3_extended_errcode(db->handle) == result
		       ? sqlite3_errmsg(db->handle)
		       : sqlite3_errstr(result);
}

/* ---- Statements. ---- */

int db_execute(struct db *db, const char *text)
{
	return sqlite3_exec(db->handle, text, NULL, NULL, NULL);
}

sqlite3_stmt *db_statement(struct db *db, enum db_statement statement, const int64_t *values,
			   unsigned count, int *result)
{
	sqlite3_stmt **prepared = &db->statements[statement];

	*result = SQLITE_OK;
	errno = 0;
	if (!*prepared)
		*result = sqlite3_prepare_v3(db->handle, texts[statement], -1,
					     SQLITE_PREPARE_PERSISTENT, prepared, NULL);
	for (unsigned i = 0; i < count && *result == SQLITE_OK; i++)
		*result = sqlite3_bind_int64(*prepared, (int)i + 1, values[i]);
	return *result == SQLITE_OK ? *prepared : NULL;
}

int db_run(struct db *db, enum db_statement statement, const int64_t *values, unsigned count)
{
	int result;
	sqlite3_stmt *prepared = db_statement(db, statement, values, count, &result);

	if (!prepared)
		return result;
	result = sqlite3_step(prepared);
	sqlite3_reset(prepared);
	return result == SQLITE_DONE ? SQLITE_OK : result == SQLITE_ROW ? SQLITE_ERROR : result;
}

int db_checkpoint(struct db *db, int mode)
{
	errno = 0;
	return sqlite3_wal_checkpoint_v2(db->handle, "main", mode, NULL, NULL);
}

void db_rollback(struct db *db)
{
	/* Some errors have rolled back already. What it says if it fails was said before. */
	if (!sqlite3_get_autocommit(db->handle))
		db_run(db, DB_ROLLBACK, NULL, 0);
}
