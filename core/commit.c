// SPDX-License-Identifier: MIT
/*
 * In batches: the runs of a range of the layer are written below, all at the same time, a piece
 * each; what is below is flushed; then the range is dropped from the layer. So a drop never gets
 * ahead of what it stands on. That the drops become durable is only waited for at the end: a drop
 * that is lost is done again.
 */
#include "core/commit.h"
#include <assert.h>
#include <errno.h>
#include "core/buffer.h"
#include "core/task.h"

/* Of one batch. */
#define PIECES_MAX 32

/* A run of zeros may be long, and slow where they have to be written. */
#define ZEROES_MAX GIB

struct piece {
	const struct commit *commit;
	enum layer_state state;
	uint64_t sector, count;
	bool is_read; /* only then a failure is that of what is below */
};

static uint64_t bytes_of(const struct commit *commit, uint64_t sectors)
{
	return sectors << disk_sector_shift(commit->layer);
}

static int explain(struct err *err, const char *what, const struct disk *disk, int error)
{
	char text[80];

	return err_set(err, "cannot %s '%s': %s", what, disk->name, error_describe(text, error));
}

/* ---- A look at all of it. ---- */

/* The one that is moved to, or is passed, that ends first: beyond its end nothing would be seen. */
static const struct disk *shortest(const struct commit *commit)
{
	const struct disk *found = commit->below;

	for (unsigned i = 0; i < commit->between_count; i++)
		if (disk_sector_count(commit->between[i]) < disk_sector_count(found))
			found = commit->between[i];
	return found;
}

/* How much there is to do; and whether all of it has a place below. */
static int survey(const struct commit *commit, uint64_t *total, struct err *err)
{
	uint64_t count = disk_sector_count(commit->layer);
	uint64_t end = disk_sector_count(shortest(commit));
	struct layer_run run;

	*total = 0;
	for (uint64_t at = 0; at < count; at += run.count) {
		int error = layer_run(commit->layer, at, count - at, &run);

		if (error)
			return explain(err, "read", commit->layer, error);
		if (run.state == LAYER_DATA && at + run.count > end)
			return err_set(err,
				       "'%s' has data beyond byte %llu, where '%s' ends: it would "
				       "be lost",
				       commit->layer->name,
				       (unsigned long long)bytes_of(commit, end),
				       shortest(commit)->name);
		if (run.state != LAYER_ABSENT)
			*total += bytes_of(commit, run.count);
	}
	return 0;
}

/* ---- A piece. ---- */

static int move_data(struct piece *piece)
{
	const struct commit *commit = piece->commit;
	char *buffer = buffer_get();
	struct layer_gaps gaps;
	struct iovec iov;
	struct sg sg;
	int error;

	if (!buffer)
		return error_io(ENOMEM);
	sg = sg_of(&iov, buffer + BUFFER_HEADER, bytes_of(commit, piece->count));
	error = layer_read(commit->layer, &sg, piece->sector, &gaps);
	/* A layer that is not what it just said must not be believed. */
	if (!error && (gaps.count > 0 || gaps.answered != piece->count))
		error = error_io(ESTALE);
	piece->is_read = !error;
	if (!error)
		error = disk_write(commit->below, &sg, piece->sector, 0);
	buffer_put(buffer);
	return error;
}

/* Beyond the end of what is below everything is zeros. */
static int move_zeroes(struct piece *piece)
{
	struct disk *below = piece->commit->below;
	uint64_t end = min_u64(piece->sector + piece->count, disk_sector_count(below));

	piece->is_read = true;
	return piece->sector < end ? disk_write_zeroes(below, piece->sector, end - piece->sector,
						       DISK_MAY_UNMAP)
				   : 0;
}

static int move_piece(void *argument)
{
	struct piece *piece = argument;

	return piece->state == LAYER_DATA ? move_data(piece) : move_zeroes(piece);
}

/* ---- A batch. ---- */

struct batch {
	struct piece pieces[PIECES_MAX];
	unsigned count;
	uint64_t first, end; /* the sectors that it is about */
	uint64_t bytes;	     /* of data and zeros */
};

/* Finds the next pieces, from batch->first on. */
static int batch_fill(const struct commit *commit, struct batch *batch, struct err *err)
{
	uint64_t count = disk_sector_count(commit->layer);

	batch->count = 0;
	batch->bytes = 0;
	batch->end = batch->first;
	while (batch->count < PIECES_MAX && batch->end < count) {
		struct layer_run run;
		uint64_t max;
		int error = layer_run(commit->layer, batch->end, count - batch->end, &run);

		if (error)
			return explain(err, "read", commit->layer, error);
		if (run.state != LAYER_ABSENT) {
			max = run.state == LAYER_DATA ? BUFFER_PAYLOAD : ZEROES_MAX;
			run.count = min_u64(run.count, max >> disk_sector_shift(commit->layer));
			batch->pieces[batch->count++] =
				(struct piece){commit, run.state, batch->end, run.count, false};
			batch->bytes += bytes_of(commit, run.count);
		}
		batch->end += run.count;
	}
	return 0;
}

/* What the caches have of the pieces is not below any more. */
static int forget_between(const struct commit *commit, const struct batch *batch, struct err *err)
{
	for (unsigned i = 0; i < commit->between_count; i++) {
		struct disk *cache = commit->between[i];
		uint64_t end = disk_sector_count(cache);

		for (unsigned j = 0; j < batch->count; j++) {
			const struct piece *piece = &batch->pieces[j];
			int error = piece->sector < end
					    ? layer_drop(cache, piece->sector,
							 min_u64(piece->count, end - piece->sector))
					    : 0;

			if (error)
				return explain(err, "drop from", cache, error);
		}
	}
	return 0;
}

static int flush_below(const struct commit *commit, struct err *err)
{
	int error = disk_flush(commit->below);

	if (error)
		return explain(err, "flush", commit->below, error);
	for (unsigned i = 0; i < commit->between_count; i++) {
		error = disk_flush(commit->between[i]);
		if (error)
			return explain(err, "flush", commit->between[i], error);
	}
	return 0;
}

static int batch_move(const struct commit *commit, struct batch *batch, struct err *err)
{
	struct task_group group = {0};
	int error;

	for (unsigned i = 0; i < batch->count; i++)
		task_group_start(&group, move_piece, &batch->pieces[i]);
	error = task_group_wait(&group);
	for (unsigned i = 0; error && i < batch->count; i++)
		if (!batch->pieces[i].is_read)
			return explain(err, "read", commit->layer, error);
	if (error)
		return explain(err, "write", commit->below, error);
	if (forget_between(commit, batch, err) < 0 || flush_below(commit, err) < 0)
		return -1;
	error = layer_drop(commit->layer, batch->first, batch->end - batch->first);
	return error ? explain(err, "drop from", commit->layer, error) : 0;
}

/* ---- All. ---- */

static void tell(const struct commit *commit, uint64_t done, uint64_t total)
{
	if (commit->progress)
		commit->progress(commit->context, done, total);
}

static int move_all(const struct commit *commit, uint64_t total, struct err *err)
{
	struct batch batch = {.first = 0};
	uint64_t done = 0;

	tell(commit, 0, total);
	while (batch.first < disk_sector_count(commit->layer)) {
		if (batch_fill(commit, &batch, err) < 0)
			return -1;
		if (batch.count > 0 && batch_move(commit, &batch, err) < 0)
			return -1;
		batch.first = batch.end;
		done += batch.bytes;
		tell(commit, done, total);
	}
	return 0;
}

/* Tells the layer that what is below it changes, or that it has. */
static int note_change(const struct commit *commit, bool begin, struct err *err)
{
	const struct layer_ops *ops = commit->layer->driver->layer;
	int error =
		ops->below_changes ? ops->below_changes(commit->layer, commit->below, begin) : 0;

	return error ? explain(err, "write to", commit->layer, error) : 0;
}

int commit_run(const struct commit *commit, struct err *err)
{
	uint64_t total;
	int error;

	assert(disk_is_layer(commit->layer));
	if (survey(commit, &total, err) < 0)
		return -1;
	if (note_change(commit, true, err) < 0 || move_all(commit, total, err) < 0)
		return -1;
	error = disk_flush(commit->layer);
	if (error)
		return explain(err, "flush", commit->layer, error);
	return note_change(commit, false, err);
}
