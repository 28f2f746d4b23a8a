// SPDX-License-Identifier: MIT
/*
 * A new database is made in memory, so that SQLite leaves nothing beside a file that has not got its
 * name yet. Its image is that of a database without a log; the two bytes that say that it has one
 * are set by hand (SQLite's "Database File Format", 1.3).
 *
 * The new file is locked before it gets its name: nobody can come in between.
 */
#include "backends/sqlite/format.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define APPLICATION_ID 0x646b6673 /* "dkfs" */

#define META_TABLE                                                                        \
	"CREATE TABLE meta(id INTEGER PRIMARY KEY, sector_size INTEGER NOT NULL, "        \
	"sector_count INTEGER NOT NULL, created INTEGER NOT NULL, own INTEGER NOT NULL, " \
	"dirty INTEGER NOT NULL, base_size INTEGER, base_id BLOB, base_content BLOB, "    \
	"runs INTEGER NOT NULL, data_sectors INTEGER NOT NULL)"
#define RUNS_TABLE "CREATE TABLE runs(first INTEGER PRIMARY KEY, count INTEGER NOT NULL, data BLOB)"

/* ---- Making one. ---- */

static int bind_bytes(sqlite3_stmt *statement, int index, bool is_there, const uint8_t *bytes,
		      int length)
{
	return is_there ? sqlite3_bind_blob(statement, index, bytes, length, SQLITE_STATIC)
			: sqlite3_bind_null(statement, index);
}

static int insert_meta(struct db *db, const struct meta *meta)
{
	const int64_t values[] = {meta->sector_size,   (int64_t)meta->sector_count,
				  (int64_t)time(NULL), meta->own,
				  meta->dirty,	       (int64_t)meta->base.size};
	const struct base *base = &meta->base;
	int result;
	sqlite3_stmt *statement =
		db_statement(db, DB_META_INSERT, values, ARRAY_SIZE(values), &result);

	if (!statement)
		return result;
	if (!base->is_there)
		result = sqlite3_bind_null(statement, 6);
	if (result == SQLITE_OK)
		result = bind_bytes(statement, 7, base->has_id, base->id, sizeof(base->id));
	if (result == SQLITE_OK)
		result = bind_bytes(statement, 8, base->has_fingerprint, base->fingerprint,
				    FINGERPRINT_SIZE);
	for (int i = 9; i <= 10 && result == SQLITE_OK; i++)
		result = sqlite3_bind_int64(statement, i, 0);
	if (result == SQLITE_OK)
		result = sqlite3_step(statement) == SQLITE_DONE ? SQLITE_OK
								: sqlite3_reset(statement);
	return result;
}

/* An empty file's bytes, to be freed by sqlite3_free(); NULL: no memory, the one thing to fail. */
static unsigned char *image_of(const struct meta *meta, size_t *length)
{
	unsigned char *image = NULL;
	sqlite3_int64 bytes = 0;
	char pragmas[120];
	struct db db;
	int result = db_open(&db, NULL, DB_MEMORY);

	snprintf(pragmas, sizeof(pragmas),
		 "PRAGMA page_size = 4096; PRAGMA application_id = %d; PRAGMA user_version = %d",
		 APPLICATION_ID, FORMAT_VERSION);
	if (result == SQLITE_OK)
		result = db_execute(&db, pragmas);
	if (result == SQLITE_OK)
		result = db_execute(&db, META_TABLE ";" RUNS_TABLE);
	if (result == SQLITE_OK)
		result = insert_meta(&db, meta);
	if (result == SQLITE_OK)
		image = sqlite3_serialize(db.handle, "main", &bytes, 0);
	db_close(&db);
	if (image)
		image[18] = image[19] = 2; /* written and read by WAL */
	*length = (size_t)bytes;
	return image;
}

static int write_all(int fd, const unsigned char *data, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t put = pwrite(fd, data + done, length - done, (off_t)done);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put < 0 ? -errno : -EIO;
		done += (size_t)put;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

static int write_image(int fd, const struct meta *meta)
{
	size_t length;
	unsigned char *image = image_of(meta, &length);
	int error = image ? write_all(fd, image, length) : -ENOMEM;

	sqlite3_free(image);
	return error;
}

/* Makes the names in the folder of @path durable. */
static int sync_folder(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int error = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	free(copy);
	return error;
}

/* Writes a new file, @temporary, and gives it the name @path. 0 or a negative errno. */
static int make(struct hold *hold, const char *path, char *temporary, const struct meta *meta,
		bool replace)
{
	int fd = mkostemp(temporary, O_CLOEXEC), error;

	if (fd < 0)
		return -errno;
	error = hold_new(hold, fd);
	if (!error)
		error = write_image(fd, meta);
	if (!error && (replace ? rename(temporary, path) : link(temporary, path)) < 0)
		error = -errno;
	if (!replace || error)
		unlink(temporary);
	if (!error)
		error = sync_folder(path);
	if (error)
		hold_release(hold);
	return error;
}

static int make_file(struct hold *hold, const char *path, const struct meta *meta, bool replace,
		     struct err *err)
{
	char *temporary;
	int error;

	if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
		return err_set(err, "%s", strerror(ENOMEM));
	error = make(hold, path, temporary, meta, replace);
	free(temporary);
	if (error == -EEXIST && !replace)
		return error;
	return error ? err_set_key(err, "path", "cannot create '%s': %s", path, strerror(-error))
		     : 0;
}

int format_create(struct hold *hold, const char *path, const struct meta *meta, struct err *err)
{
	return make_file(hold, path, meta, false, err);
}

/* A log of the old database would be taken for one of the new. */
static int check_no_wal(const char *path, struct err *err)
{
	char *wal;
	bool found;

	if (asprintf(&wal, "%s-wal", path) < 0)
		return err_set(err, "%s", strerror(ENOMEM));
	found = access(wal, F_OK) == 0 || errno != ENOENT;
	free(wal);
	return found ? err_set_key(err, "path",
				   "'%s' cannot be emptied: its log is still there, beside it",
				   path)
		     : 0;
}

int format_replace(struct hold *hold, const char *path, const struct meta *meta, struct err *err)
{
	struct hold new;

	if (check_no_wal(path, err) < 0 || make_file(&new, path, meta, true, err) < 0)
		return -1;
	hold_release(hold);
	*hold = new;
	return 0;
}

/* ---- Looking at one. ---- */

static uint32_t get_u32(const unsigned char *bytes)
{
	return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
	       bytes[3];
}

static int check_version(uint32_t application_id, uint32_t version, const char *path,
			 struct err *err)
{
	if (application_id != APPLICATION_ID)
		return err_set_key(err, "path", "'%s' is a SQLite database, but no layer of diskfs",
				   path);
	if (version == 0 || version > FORMAT_VERSION)
		return err_set_key(
			err, "path",
			"'%s' has version %u of the format; this diskfs knows version %u", path,
			version, FORMAT_VERSION);
	return 0;
}

int format_check_header(const struct hold *hold, const char *path, struct err *err)
{
	static const char magic[16] = "SQLite format 3";
	unsigned char header[100];
	struct stat stat;
	ssize_t got;

	if (hold->fd < 0) /* it is ours, and in use */
		return 0;
	if (fstat(hold->fd, &stat) < 0)
		return err_set_key(err, "path", "cannot stat '%s': %s", path, strerror(errno));
	if (!S_ISREG(stat.st_mode))
		return err_set_key(err, "path", "'%s' is no regular file", path);
	if (stat.st_size == 0)
		return err_set_key(err, "path", "'%s' is empty: remove it, to have it created",
				   path);
	got = pread(hold->fd, header, sizeof(header), 0);
	if (got < 0)
		return err_set_key(err, "path", "cannot read '%s': %s", path, strerror(errno));
	if (got < (ssize_t)sizeof(header) || memcmp(header, magic, sizeof(magic)) != 0)
		return err_set_key(err, "path", "'%s' is no SQLite database", path);
	return check_version(get_u32(header + 68), get_u32(header + 60), path, err);
}

static int unreadable(const struct db *db, const char *path, int result, struct err *err)
{
	return err_set_key(err, "path", "cannot read '%s': %s", path, db_message(db, result));
}

/* Calls @row for each row of a query; -1 with a sentence in @err from it, or about the query. */
static int query(struct db *db, const char *path, const char *text,
		 int (*row)(sqlite3_stmt *statement, const char *path, struct err *err),
		 struct err *err)
{
	sqlite3_stmt *statement;
	int result = sqlite3_prepare_v2(db->handle, text, -1, &statement, NULL), error = 0;

	if (result != SQLITE_OK)
		return unreadable(db, path, result, err);
	while (!error && (result = sqlite3_step(statement)) == SQLITE_ROW)
		error = row(statement, path, err);
	if (!error && result != SQLITE_DONE)
		error = unreadable(db, path, result, err);
	sqlite3_finalize(statement);
	return error;
}

static int check_ids(sqlite3_stmt *statement, const char *path, struct err *err)
{
	return check_version((uint32_t)sqlite3_column_int64(statement, 0),
			     (uint32_t)sqlite3_column_int64(statement, 1), path, err);
}

/* A file in another mode would not be as durable, or could not be read while it is written. */
static int check_journal(sqlite3_stmt *statement, const char *path, struct err *err)
{
	const char *mode = (const char *)sqlite3_column_text(statement, 0);

	if (mode && strcmp(mode, "wal") == 0)
		return 0;
	return err_set_key(err, "path", "'%s' cannot have a write-ahead log, but only '%s'", path,
			   mode ? mode : "");
}

/* Anything else than our two tables could make our statements mean something else. */
static int check_schema(sqlite3_stmt *statement, const char *path, struct err *err)
{
	if (sqlite3_column_int64(statement, 0) == 2 && sqlite3_column_int64(statement, 1) == 2)
		return 0;
	return err_set_key(err, "path", "'%s' is damaged: its tables are not those of a layer",
			   path);
}

static int check_database(struct db *db, const char *path, struct err *err)
{
	if (query(db, path,
		  "SELECT application_id, user_version FROM pragma_application_id, "
		  "pragma_user_version",
		  check_ids, err) < 0)
		return -1;
	if (!sqlite3_db_readonly(db->handle, "main") &&
	    query(db, path, "PRAGMA journal_mode = WAL", check_journal, err) < 0)
		return -1;
	return query(db, path,
		     "SELECT count(*), sum(sql IN ('" META_TABLE "', '" RUNS_TABLE
		     "')) FROM sqlite_schema",
		     check_schema, err);
}

/* ---- Meta. ---- */

static uint64_t column_u64(sqlite3_stmt *statement, int column)
{
	return (uint64_t)sqlite3_column_int64(statement, column);
}

/* False: what is there has another length. */
static bool column_bytes(sqlite3_stmt *statement, int column, bool *is_there, uint8_t *bytes,
			 int length)
{
	const void *blob = sqlite3_column_blob(statement, column);

	*is_there = sqlite3_column_type(statement, column) != SQLITE_NULL;
	if (!*is_there)
		return true;
	if (!blob || sqlite3_column_bytes(statement, column) != length)
		return false;
	memcpy(bytes, blob, (size_t)length);
	return true;
}

/* What makes no sense in it; NULL: nothing. */
static const char *meta_from(sqlite3_stmt *statement, struct meta *meta)
{
	uint64_t sector_size = column_u64(statement, 0), own = column_u64(statement, 3),
		 dirty = column_u64(statement, 4);

	*meta = (struct meta){
		.sector_count = column_u64(statement, 1),
		.created = column_u64(statement, 2),
		.base = {.is_there = sqlite3_column_type(statement, 5) != SQLITE_NULL,
			 .size = column_u64(statement, 5)},
		.totals = {column_u64(statement, 8), column_u64(statement, 9)},
	};
	if (!is_power_of_two(sector_size) || sector_size < 512 || sector_size > GEOMETRY_SECTOR_MAX)
		return "sector size";
	meta->sector_size = (uint32_t)sector_size;
	if (meta->sector_count == 0 || meta->sector_count > (uint64_t)INT64_MAX / sector_size)
		return "sector count";
	if (own > 1 || dirty > 1 || (own && dirty))
		return "state";
	meta->own = own;
	meta->dirty = dirty;
	if (meta->base.size > INT64_MAX)
		return "size of the disk below";
	if (!column_bytes(statement, 6, &meta->base.has_id, meta->base.id, sizeof(meta->base.id)))
		return "id of the disk below";
	meta->base.changes = sqlite3_column_type(statement, 7) == SQLITE_BLOB &&
			     sqlite3_column_bytes(statement, 7) == 0;
	if (!meta->base.changes && !column_bytes(statement, 7, &meta->base.has_fingerprint,
						 meta->base.fingerprint, FINGERPRINT_SIZE))
		return "fingerprint of the disk below";
	if (meta->totals.data_sectors > meta->sector_count ||
	    meta->totals.runs > meta->sector_count)
		return "count of what it holds";
	return NULL;
}

int format_load(struct db *db, const char *path, struct meta *meta, struct err *err)
{
	const char *nonsense = NULL;
	sqlite3_stmt *statement;
	int result;

	if (check_database(db, path, err) < 0)
		return -1;
	statement = db_statement(db, DB_META_LOAD, NULL, 0, &result);
	if (!statement)
		return unreadable(db, path, result, err);
	result = sqlite3_step(statement);
	if (result == SQLITE_ROW)
		nonsense = meta_from(statement, meta);
	else if (result == SQLITE_DONE)
		nonsense = "row";
	sqlite3_reset(statement);
	if (result != SQLITE_ROW && result != SQLITE_DONE)
		return unreadable(db, path, result, err);
	if (nonsense)
		return err_set_key(err, "path",
				   "'%s' is damaged: the %s in its table meta makes no sense", path,
				   nonsense);
	return 0;
}

int format_set_content(struct db *db, const uint8_t *fingerprint)
{
	int result;
	sqlite3_stmt *statement = db_statement(db, DB_META_CONTENT, NULL, 0, &result);

	if (!statement)
		return result;
	result = fingerprint ? sqlite3_bind_blob(statement, 1, fingerprint, FINGERPRINT_SIZE,
						 SQLITE_STATIC)
			     : sqlite3_bind_zeroblob(statement, 1, 0);
	if (result == SQLITE_OK)
		result = sqlite3_step(statement);
	sqlite3_reset(statement);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}
