// SPDX-License-Identifier: MIT
#include "backends/sqlite/runs.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

/* Rows that one step looks at: what a chunk may have, and the one before. */
#define ROWS_MAX (CHUNK_SECTORS_MAX + 1)

/* About what a row costs, besides its data. */
#define ROW_WORK 512

static int failed(struct runs_writer *writer, int result)
{
	const struct runs_file *file = writer->file;

	if (result == SQLITE_OK)
		return 0;
	log_limited(file->log_limit, LOG_LEVEL_ERROR, file->node, "cannot write '%s': %s",
		    file->path, db_message(&writer->db, result));
	return db_error(result);
}

static int run_statement(struct runs_writer *writer, enum db_statement statement,
			 const int64_t *values, unsigned count)
{
	writer->work += ROW_WORK;
	return failed(writer, db_run(&writer->db, statement, values, count));
}

static uint64_t row_end(const struct runs_row *row)
{
	return row->first + row->count;
}

/*
 * The rows that reach into [@from, @to), at most ROWS_MAX. *all is false where there may be more.
 */
static int load_rows(struct runs_writer *writer, uint64_t from, uint64_t to,
		     struct runs_row rows[ROWS_MAX], unsigned *count, bool *all)
{
	struct runs_cursor cursor;
	bool found = true;
	int error = runs_cursor_open(&cursor, &writer->db, writer->file, DB_LOOK, from, to - from);

	*count = 0;
	while (!error && found && *count < ROWS_MAX) {
		error = runs_cursor_next(&cursor, &rows[*count], &found);
		if (!error && found && row_end(&rows[*count]) > from)
			++*count;
	}
	runs_cursor_close(&cursor);
	*all = !found;
	return error;
}

/* ---- Single rows. ---- */

/* A row that begins where none does, or whose length stays. */
static int put_row(struct runs_writer *writer, uint64_t first, uint64_t count, const void *data)
{
	int result, bytes = (int)(count << writer->file->shift);
	sqlite3_stmt *statement =
		db_statement(&writer->db, DB_PUT, (const int64_t[]){(int64_t)first, (int64_t)count},
			     2, &result);

	if (!statement)
		return failed(writer, result);
	result = data ? sqlite3_bind_blob(statement, 3, data, bytes, SQLITE_STATIC)
		      : sqlite3_bind_null(statement, 3);
	if (result == SQLITE_OK)
		result = sqlite3_step(statement) == SQLITE_DONE ? SQLITE_OK
								: sqlite3_reset(statement);
	sqlite3_reset(statement);
	sqlite3_bind_null(statement, 3);
	writer->work += ROW_WORK + (data ? (uint64_t)bytes : 0);
	return failed(writer, result);
}

/* Takes what lies in [@from, @to) out of a row that reaches into it. */
static int cut_row(struct runs_writer *writer, const struct runs_row *row, uint64_t from,
		   uint64_t to)
{
	unsigned shift = writer->file->shift;
	uint64_t left = row->first < from ? from - row->first : 0;
	uint64_t right = row_end(row) > to ? row_end(row) - to : 0;
	int error = 0;

	if (right > 0) {
		error = run_statement(writer, DB_SPLIT,
				      (const int64_t[]){(int64_t)row->first, (int64_t)to,
							(int64_t)right,
							(int64_t)((to - row->first) << shift) + 1},
				      4);
		if (error)
			return error;
		writer->totals.runs++;
	}
	if (left > 0)
		error = run_statement(writer, DB_SHORTEN,
				      (const int64_t[]){(int64_t)row->first, (int64_t)left,
							(int64_t)(left << shift)},
				      3);
	else
		error = run_statement(writer, DB_DELETE, (const int64_t[]){(int64_t)row->first}, 1);
	if (error)
		return error;
	writer->totals.runs -= left == 0;
	if (row->is_data) {
		writer->totals.data_sectors -= row->count - left - right;
		writer->work += row->count << shift;
	}
	return 0;
}

/* Writes into a row of data in place. */
static int overwrite(struct runs_writer *writer, const struct runs_row *row, uint64_t sector,
		     uint64_t count, const void *data)
{
	unsigned shift = writer->file->shift;
	sqlite3_blob *blob;
	int result, closed;

	if (row->first == sector && row->count == count)
		return put_row(writer, sector, count, data);
	result = sqlite3_blob_open(writer->db.handle, "main", "runs", "data", (int64_t)row->first,
				   1, &blob);
	if (result == SQLITE_OK)
		result = sqlite3_blob_write(blob, data, (int)(count << shift),
					    (int)((sector - row->first) << shift));
	closed = sqlite3_blob_close(blob);
	writer->work += ROW_WORK + (count << shift);
	return failed(writer, result != SQLITE_OK ? result : closed);
}

/* ---- Data. ---- */

static int insert(struct runs_writer *writer, uint64_t sector, uint64_t count, const void *data)
{
	int error = count > 0 ? put_row(writer, sector, count, data) : 0;

	if (!error && count > 0) {
		writer->totals.runs++;
		writer->totals.data_sectors += count;
	}
	return error;
}

/* Whether what is written over these rows would leave a part of one with data. */
static bool data_sticks_out(const struct runs_row *rows, unsigned count, uint64_t from, uint64_t to)
{
	for (unsigned i = 0; i < count; i++)
		if (rows[i].is_data && (rows[i].first < from || row_end(&rows[i]) > to))
			return true;
	return false;
}

static int zero_all(struct runs_writer *writer, uint64_t from, uint64_t to)
{
	int error = 0;

	while (!error && from < to)
		error = runs_zero(writer, from, to, &from);
	return error;
}

/* Overwrites what has data already, makes new rows of the rest. */
static int put_over(struct runs_writer *writer, uint64_t sector, uint64_t count, const char *data,
		    const struct runs_row *rows, unsigned row_count)
{
	unsigned shift = writer->file->shift;
	uint64_t at = sector, end = sector + count;
	int error = 0;

	for (unsigned i = 0; i < row_count && !error; i++) {
		const struct runs_row *row = &rows[i];
		uint64_t first = max_u64(row->first, sector), row_to = min_u64(row_end(row), end);

		if (!row->is_data) {
			error = cut_row(writer, row, sector, end);
			continue;
		}
		error = insert(writer, at, first - at, data + ((at - sector) << shift));
		if (!error)
			error = overwrite(writer, row, first, row_to - first,
					  data + ((first - sector) << shift));
		at = row_to;
	}
	return error ? error : insert(writer, at, end - at, data + ((at - sector) << shift));
}

int runs_put(struct runs_writer *writer, uint64_t sector, uint64_t count, const void *data)
{
	struct runs_row rows[ROWS_MAX];
	unsigned row_count;
	bool all;
	int error;

	assert(count > 0 &&
	       sector / writer->file->chunk == (sector + count - 1) / writer->file->chunk);
	error = load_rows(writer, sector, sector + count, rows, &row_count, &all);
	if (error)
		return error;
	if (is_zeros(data, count << writer->file->shift) &&
	    !data_sticks_out(rows, row_count, sector, sector + count))
		return zero_all(writer, sector, sector + count);
	return put_over(writer, sector, count, data, rows, row_count);
}

/* ---- Zeros, absence. ---- */

int runs_clear(struct runs_writer *writer, uint64_t from, uint64_t to, uint64_t *reached)
{
	struct runs_row rows[ROWS_MAX];
	unsigned count;
	bool all;
	int error = load_rows(writer, from, to, rows, &count, &all);

	for (unsigned i = 0; i < count && !error; i++)
		error = cut_row(writer, &rows[i], from, to);
	*reached = all || error ? to : min_u64(row_end(&rows[count - 1]), to);
	return error;
}

/* A row of zeros that ends at @sector, or reaches beyond it, or begins there; where there is none its
 * count is 0. */
static int zeros_at(struct runs_writer *writer, uint64_t sector, struct runs_row *zeros)
{
	uint64_t from = sector > 0 ? sector - 1 : 0;
	struct runs_cursor cursor;
	struct runs_row row;
	bool found = true;
	int error = runs_cursor_open(&cursor, &writer->db, writer->file, DB_LOOK, from,
				     sector - from + 1);

	zeros->count = 0;
	while (!error && found) {
		error = runs_cursor_next(&cursor, &row, &found);
		if (!error && found && !row.is_data && row_end(&row) >= sector)
			*zeros = row;
	}
	runs_cursor_close(&cursor);
	return error;
}

/* Joins the new zeros with those that they touch, so that many small ones become one row. */
int runs_zero(struct runs_writer *writer, uint64_t from, uint64_t to, uint64_t *reached)
{
	struct runs_row before, behind;
	uint64_t first = from, end;
	int error = zeros_at(writer, from, &before);

	*reached = to;
	if (error || (before.count > 0 && row_end(&before) >= to))
		return error;
	if (before.count > 0) {
		first = before.first;
		from = max_u64(from, row_end(&before));
	}
	error = runs_clear(writer, from, to, reached);
	if (error)
		return error;
	end = *reached;
	error = end < writer->file->sector_count ? zeros_at(writer, end, &behind) : 0;
	if (error)
		return error;
	if (end < writer->file->sector_count && behind.count > 0 && behind.first == end) {
		end = row_end(&behind);
		*reached = max_u64(*reached, min_u64(end, to));
		error = run_statement(writer, DB_DELETE, (const int64_t[]){(int64_t)behind.first},
				      1);
		writer->totals.runs -= !error;
	}
	if (!error)
		error = put_row(writer, first, end - first, NULL);
	writer->totals.runs += !error && before.count == 0;
	return error;
}

static int first_row(struct runs_writer *writer, int64_t from, int64_t *first, bool *found)
{
	int result;
	sqlite3_stmt *statement = db_statement(&writer->db, DB_FIRST, &from, 1, &result);

	*first = 0;
	*found = false;
	if (!statement)
		return failed(writer, result);
	result = sqlite3_step(statement);
	*found = result == SQLITE_ROW;
	*first = *found ? sqlite3_column_int64(statement, 0) : 0;
	sqlite3_reset(statement);
	return *found || result == SQLITE_DONE ? 0 : failed(writer, result);
}

int runs_first(struct runs_writer *writer, uint64_t sector, uint64_t *first, bool *found)
{
	int64_t row;
	int error = first_row(writer, (int64_t)sector, &row, found);

	*first = (uint64_t)row;
	return error;
}

int runs_are_none(struct runs_writer *writer, bool *none)
{
	int64_t row;
	bool found;
	int error = first_row(writer, INT64_MIN, &row, &found);

	*none = !error && !found;
	return error;
}
