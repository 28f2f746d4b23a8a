// SPDX-License-Identifier: MIT
/*
 * From a batch to rows. First what was dropped leaves the file, then data and zeros go in. Mostly
 * that is one transaction. One that grows large is committed on the way, so that neither it nor the
 * log grows without bound: sectors do not depend on one another, and the batch stays readable until
 * all is done, whatever is in the file already.
 *
 * The log: once it is long, a checkpoint copies it into the file on a thread of its own (commit.c),
 * beside the commits. With the next commit after that the rest follows, and the log starts anew.
 * When it is very long all the same, commits wait for that.
 */
#include <errno.h>
#include <string.h>
#include "backends/sqlite/sqlite.h"

#define PAGE_SIZE      4096
#define FRAME_SIZE     (PAGE_SIZE + 24) /* of the log */
#define WAL_SOFT       (32 * MIB)
#define WAL_HARD       (4 * WAL_SOFT)
#define WORK_MAX       (16 * MIB) /* of one transaction */
#define RESTART_MS     20	  /* that a commit waits for readers, so that the log starts anew */
#define RESTART_MAX_MS 2000

/* ---- Transactions. ---- */

static int failed(struct sqlite *sqlite, const struct db *db, const char *what, int result)
{
	log_limited(&sqlite->log_limit, LOG_LEVEL_ERROR, sqlite->file.node, "cannot %s '%s': %s",
		    what, sqlite->path, db_message(db, result));
	return db_error(result);
}

/* Lets the log start anew, if that does not take longer than @wait_ms. */
static int restart_wal(struct sqlite *sqlite, int wait_ms)
{
	struct db *db = &sqlite->writer.db;
	int result;

	sqlite3_busy_timeout(db->handle, wait_ms);
	result = db_checkpoint(db, SQLITE_CHECKPOINT_RESTART);
	sqlite3_busy_timeout(db->handle, DB_BUSY_MS);
	if (result == SQLITE_OK) {
		atomic_store(&sqlite->committer.restart, false);
		atomic_fetch_add(&sqlite->committer.checkpoints, 1);
	}
	/* Somebody reads what is in it, or another checkpoint is under way. */
	if (result == SQLITE_OK || (result & 0xff) == SQLITE_BUSY)
		return 0;
	return failed(sqlite, db, "copy the log into", result);
}

static int begin(struct sqlite *sqlite)
{
	struct committer *committer = &sqlite->committer;
	int error = 0, result;

	if (atomic_load(&committer->wal_bytes) >= committer->wal_hard)
		error = restart_wal(sqlite, RESTART_MAX_MS);
	else if (atomic_load(&committer->restart))
		restart_wal(sqlite, RESTART_MS); /* it has failed again when it has to be */
	if (error)
		return error;
	sqlite->writer.work = 0;
	result = db_run(&sqlite->writer.db, DB_BEGIN, NULL, 0);
	return result == SQLITE_OK ? 0 : failed(sqlite, &sqlite->writer.db, "write", result);
}

static void totals_committed(struct sqlite *sqlite)
{
	const struct runs_totals *totals = &sqlite->writer.totals;

	sqlite->meta.totals = *totals;
	atomic_store(&sqlite->file_runs, totals->runs);
	atomic_store(&sqlite->file_data_bytes, totals->data_sectors << sqlite->file.shift);
}

static int commit(struct sqlite *sqlite)
{
	const struct runs_totals *totals = &sqlite->writer.totals;
	struct db *db = &sqlite->writer.db;
	int result = SQLITE_OK;

	if (memcmp(totals, &sqlite->meta.totals, sizeof(*totals)) != 0)
		result = db_run(
			db, DB_META_TOTALS,
			(const int64_t[]){(int64_t)totals->runs, (int64_t)totals->data_sectors}, 2);
	if (result == SQLITE_OK)
		result = db_run(db, DB_COMMIT, NULL, 0);
	if (result != SQLITE_OK)
		return failed(sqlite, db, "write", result);
	totals_committed(sqlite);
	atomic_fetch_add(&sqlite->committer.commits, 1);
	return 0;
}

static void rollback(struct sqlite *sqlite)
{
	db_rollback(&sqlite->writer.db);
	sqlite->writer.totals = sqlite->meta.totals;
}

/* Between two rows: ends a transaction that has become large, and begins the next. */
static int go_on(struct sqlite *sqlite)
{
	int error;

	if (sqlite->writer.work < WORK_MAX)
		return 0;
	error = commit(sqlite);
	return error ? error : begin(sqlite);
}

/* ---- The batch. ---- */

typedef int step_fn(struct runs_writer *writer, uint64_t from, uint64_t to, uint64_t *reached);

static int apply_steps(struct sqlite *sqlite, step_fn *step, uint64_t from, uint64_t to)
{
	int error = 0;

	while (!error && from < to) {
		error = step(&sqlite->writer, from, to, &from);
		if (!error)
			error = go_on(sqlite);
	}
	return error;
}

static int apply_dropped(struct sqlite *sqlite, const struct batch *batch,
			 const struct layer_gap *change)
{
	uint64_t at = change->sector, end = change->sector + change->count;
	int error = 0;

	while (!error && at < end) {
		uint64_t count = end - at;
		bool dropped = batch_is_dropped(batch, at, &count);

		if (dropped)
			error = apply_steps(sqlite, runs_clear, at, at + count);
		at += count;
	}
	return error;
}

/* A chunk at a time. The batch does not change any more: what was found is still there. */
static int apply_data(struct sqlite *sqlite, const struct batch *batch, uint64_t at, uint64_t end)
{
	struct layer_gaps gaps;
	int error = 0;

	while (!error && at < end) {
		uint64_t chunk = sqlite->file.chunk;
		uint64_t count = min_u64(chunk - at % chunk, end - at);
		struct iovec iov;
		struct sg sg = sg_of(&iov, sqlite->chunk_buffer, count << sqlite->file.shift);

		batch_read(batch, &sg, sqlite->file.shift, at, count, &gaps);
		if (gaps.count > 0)
			return error_io(EIO);
		error = runs_put(&sqlite->writer, at, count, sqlite->chunk_buffer);
		if (!error)
			error = go_on(sqlite);
		at += count;
	}
	return error;
}

static int apply_sectors(struct sqlite *sqlite, const struct batch *batch,
			 const struct layer_gap *change)
{
	uint64_t at = change->sector, end = change->sector + change->count;
	struct layer_run run;
	int error = 0;

	for (; !error && at < end; at += run.count) {
		sectors_run(batch->sectors, at, end - at, &run);
		if (run.state == LAYER_DATA)
			error = apply_data(sqlite, batch, at, at + run.count);
		else if (run.state == LAYER_ZEROES)
			error = apply_steps(sqlite, runs_zero, at, at + run.count);
	}
	return error;
}

static int apply_changes(struct sqlite *sqlite, const struct batch *batch)
{
	int error = begin(sqlite);

	for (unsigned i = 0; i < batch->change_count && batch->dropped && !error; i++)
		error = apply_dropped(sqlite, batch, &batch->changes[i]);
	if (!error)
		error = cache_evict(sqlite, batch->data_bytes);
	for (unsigned i = 0; i < batch->change_count && !error; i++)
		error = apply_sectors(sqlite, batch, &batch->changes[i]);
	if (!error)
		error = commit(sqlite);
	if (error)
		rollback(sqlite);
	return error;
}

int apply_batch(struct sqlite *sqlite, struct batch *batch)
{
	int error;

	batch_join_changes(batch);
	absence_change_begin(&sqlite->absence);
	for (unsigned i = 0; i < batch->change_count; i++)
		absence_change(&sqlite->absence, batch->changes[i].sector, batch->changes[i].count);
	error = apply_changes(sqlite, batch);
	absence_change_end(&sqlite->absence);
	return error;
}

int apply_marks(struct sqlite *sqlite, bool own, bool dirty)
{
	int error = begin(sqlite), result;

	if (error)
		return error;
	result = db_run(&sqlite->writer.db, DB_META_MARKS, (const int64_t[]){own, dirty}, 2);
	error = result == SQLITE_OK ? commit(sqlite)
				    : failed(sqlite, &sqlite->writer.db, "write", result);
	if (error)
		rollback(sqlite);
	return error;
}

static int put_fingerprint(struct db *db, const uint8_t *fingerprint)
{
	int result;
	sqlite3_stmt *statement = db_statement(db, DB_META_CONTENT, NULL, 0, &result);

	if (!statement)
		return result;
	result = sqlite3_bind_blob(statement, 1, fingerprint, FINGERPRINT_SIZE, SQLITE_STATIC);
	if (result == SQLITE_OK)
		result = sqlite3_step(statement);
	sqlite3_reset(statement);
	sqlite3_clear_bindings(statement);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}

int apply_fingerprint(struct sqlite *sqlite, const uint8_t fingerprint[FINGERPRINT_SIZE])
{
	int error = begin(sqlite), result;

	if (error)
		return error;
	result = put_fingerprint(&sqlite->writer.db, fingerprint);
	error = result == SQLITE_OK ? commit(sqlite)
				    : failed(sqlite, &sqlite->writer.db, "write", result);
	if (error)
		rollback(sqlite);
	return error;
}

/* ---- The log. ---- */

static int wal_hook(void *argument, sqlite3 *handle, const char *name, int pages)
{
	struct committer *committer = argument;

	(void)handle;
	(void)name;
	atomic_store(&committer->wal_bytes, (uint64_t)pages * FRAME_SIZE);
	return SQLITE_OK;
}

void apply_init(struct sqlite *sqlite)
{
	sqlite->committer.wal_soft = WAL_SOFT;
	sqlite->committer.wal_hard = WAL_HARD;
	sqlite->writer.file = &sqlite->file;
	sqlite->writer.totals = sqlite->meta.totals;
	totals_committed(sqlite);
	sqlite3_wal_hook(sqlite->writer.db.handle, wal_hook, &sqlite->committer);
}

bool apply_wants_checkpoint(const struct sqlite *sqlite)
{
	return atomic_load(&sqlite->committer.wal_bytes) >= sqlite->committer.wal_soft &&
	       !atomic_load(&sqlite->committer.restart);
}

int apply_checkpoint(struct sqlite *sqlite)
{
	struct db *db = &sqlite->checkpointer;
	int result = SQLITE_OK;

	if (!db->handle)
		result = db_open(db, sqlite->path, DB_WRITER);
	if (result == SQLITE_OK)
		result = db_checkpoint(db, SQLITE_CHECKPOINT_PASSIVE);
	if (result != SQLITE_OK && (result & 0xff) != SQLITE_BUSY) {
		int error = failed(sqlite, db, "copy the log into", result);

		db_close(db);
		return error;
	}
	atomic_fetch_add(&sqlite->committer.checkpoints, 1);
	return 0;
}
