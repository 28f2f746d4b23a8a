// SPDX-License-Identifier: MIT
#include "backends/sqlite/runs.h"
#include <assert.h>
#include <errno.h>

/* Rows that one runs_find() joins. */
#define FIND_ROWS_MAX 256

/* ---- Rows. ---- */

static int failed(const struct runs_file *file, const struct db *db, int result)
{
	log_limited(file->log_limit, LOG_LEVEL_ERROR, file->node, "cannot read '%s': %s",
		    file->path, db_message(db, result));
	return db_error(result);
}

static int damaged(const struct runs_file *file, int64_t first, const char *why)
{
	log_limited(file->log_limit, LOG_LEVEL_ERROR, file->node,
		    "'%s' is damaged: the run at sector %lld %s", file->path, (long long)first,
		    why);
	return error_medium(EIO, MEDIUM_UNRECOVERED_READ);
}

int runs_cursor_open(struct runs_cursor *cursor, struct db *db, const struct runs_file *file,
		     enum db_statement statement, uint64_t sector, uint64_t count)
{
	const int64_t range[] = {(int64_t)sector, (int64_t)(sector + count)};
	int result;

	*cursor = (struct runs_cursor){
		.db = db,
		.file = file,
		.statement = db_statement(db, statement, range, 2, &result),
		.has_data = statement == DB_READ,
	};
	return cursor->statement ? 0 : failed(file, db, result);
}

void runs_cursor_close(struct runs_cursor *cursor)
{
	sqlite3_reset(cursor->statement);
	cursor->statement = NULL;
}

/* Why the row cannot be; NULL: it can. */
static const char *row_check(const struct runs_cursor *cursor, int64_t first, int64_t count,
			     int64_t bytes)
{
	const struct runs_file *file = cursor->file;
	uint64_t end;

	if (first < 0)
		return "is in front of the disk";
	if (count <= 0)
		return "has no length";
	if (__builtin_add_overflow((uint64_t)first, (uint64_t)count, &end) ||
	    end > file->sector_count)
		return "reaches beyond the end of the disk";
	if ((uint64_t)first < cursor->end)
		return "overlaps the one before";
	if (bytes < 0)
		return NULL;
	if ((uint64_t)first / file->chunk != (end - 1) / file->chunk)
		return "is too long";
	if ((uint64_t)bytes != (uint64_t)count << file->shift)
		return "has not as much data as it is long";
	return NULL;
}

int runs_cursor_next(struct runs_cursor *cursor, struct runs_row *row, bool *found)
{
	sqlite3_stmt *statement = cursor->statement;
	int result = sqlite3_step(statement), type;
	int64_t first, count, bytes = -1;
	const char *why;

	*found = result == SQLITE_ROW;
	if (result == SQLITE_DONE)
		return 0;
	if (result != SQLITE_ROW)
		return failed(cursor->file, cursor->db, result);
	first = sqlite3_column_int64(statement, 0);
	count = sqlite3_column_int64(statement, 1);
	type = sqlite3_column_type(statement, 2);
	if (type != SQLITE_NULL && type != (cursor->has_data ? SQLITE_BLOB : SQLITE_INTEGER))
		return damaged(cursor->file, first, "has data of another type");
	*row = (struct runs_row){.is_data = type != SQLITE_NULL};
	if (row->is_data && cursor->has_data) {
		row->data = sqlite3_column_blob(statement, 2);
		bytes = sqlite3_column_bytes(statement, 2);
		if (!row->data && bytes > 0)
			return error_io(ENOMEM);
	} else if (row->is_data) {
		bytes = sqlite3_column_int64(statement, 2);
	}
	why = row_check(cursor, first, count, bytes);
	if (why)
		return damaged(cursor->file, first, why);
	row->first = (uint64_t)first;
	row->count = (uint64_t)count;
	cursor->end = row->first + row->count;
	return 0;
}

/* ---- Gaps. ---- */

bool gaps_add(struct layer_gaps *gaps, uint64_t sector, uint64_t count)
{
	struct layer_gap *last = gaps->count > 0 ? &gaps->gaps[gaps->count - 1] : NULL;

	if (last && last->sector + last->count == sector) {
		last->count += count;
		return true;
	}
	if (gaps->count == LAYER_GAPS_MAX)
		return false;
	gaps->gaps[gaps->count++] = (struct layer_gap){sector, count};
	return true;
}

/* A read while it goes on. */
struct reading {
	struct runs_cursor cursor;
	const struct sg *sg;
	uint64_t sector, end;
	uint64_t at; /* answered up to here */
	struct layer_gaps *gaps;
};

/* What lies in [reading->at, @to) is absent. False: there is no room to say so. */
static bool note_gap(struct reading *reading, uint64_t to)
{
	to = min_u64(to, reading->end);
	if (to > reading->at && !gaps_add(reading->gaps, reading->at, to - reading->at))
		return false;
	reading->at = max_u64(reading->at, to);
	return true;
}

/* The row reaches into what is left to be answered. */
static void take_row(struct reading *reading, const struct runs_row *row)
{
	unsigned shift = reading->cursor.file->shift;
	uint64_t end = min_u64(row->first + row->count, reading->end);

	if (reading->sg) {
		struct sg part = sg_slice(reading->sg, (reading->at - reading->sector) << shift,
					  (end - reading->at) << shift);

		if (row->is_data)
			sg_copy_from(&part, (const char *)row->data +
						    ((reading->at - row->first) << shift));
		else
			sg_zero(&part);
	}
	reading->at = end;
}

static int read_rows(struct reading *reading)
{
	struct runs_row row;
	bool found;
	int error;

	while (reading->at < reading->end) {
		error = runs_cursor_next(&reading->cursor, &row, &found);
		if (error)
			return error;
		if (!note_gap(reading, found ? row.first : reading->end) || !found)
			break;
		if (row.first + row.count > reading->at)
			take_row(reading, &row);
	}
	return 0;
}

int runs_read(struct db *db, const struct runs_file *file, const struct sg *sg, uint64_t sector,
	      uint64_t count, struct layer_gaps *gaps, uint64_t *answered)
{
	struct reading reading = {
		.sg = sg, .sector = sector, .end = sector + count, .at = sector, .gaps = gaps};
	int error =
		runs_cursor_open(&reading.cursor, db, file, sg ? DB_READ : DB_LOOK, sector, count);

	if (!error)
		error = read_rows(&reading);
	runs_cursor_close(&reading.cursor);
	*answered = reading.at - sector;
	return error;
}

/* ---- One run. ---- */

static enum layer_state row_state(const struct runs_row *row)
{
	return row->is_data ? LAYER_DATA : LAYER_ZEROES;
}

/* Joins rows of one state that touch one another. */
static int find_rows(struct runs_cursor *cursor, uint64_t sector, uint64_t end,
		     struct layer_run *run)
{
	uint64_t at = sector;
	struct runs_row row;
	bool found;

	for (unsigned i = 0; i < FIND_ROWS_MAX && at < end; i++) {
		int error = runs_cursor_next(cursor, &row, &found);

		if (error)
			return error;
		if (found && row.first + row.count <= sector)
			continue; /* in front of it */
		if (at == sector && (!found || row.first > sector)) {
			run->state = LAYER_ABSENT;
			at = found ? min_u64(row.first, end) : end;
			break;
		}
		if (!found || row.first > at || (at > sector && row_state(&row) != run->state))
			break;
		run->state = row_state(&row);
		at = min_u64(row.first + row.count, end);
	}
	run->count = at - sector;
	return 0;
}

int runs_find(struct db *db, const struct runs_file *file, uint64_t sector, uint64_t count,
	      struct layer_run *run)
{
	struct runs_cursor cursor;
	int error = runs_cursor_open(&cursor, db, file, DB_LOOK, sector, count);

	assert(count > 0);
	if (!error)
		error = find_rows(&cursor, sector, sector + count, run);
	runs_cursor_close(&cursor);
	return error;
}
