// SPDX-License-Identifier: MIT
/*
 * sqlite: a layer in a file, which is there again after a restart: a diff, or a cache. Alone it is a
 * sparse disk.
 *
 * A change is acknowledged once it is in memory (pending.h). It goes into the file, a SQLite
 * database (format.h, runs.h), in batches (commit.c, apply.c), off the workers. Reads look into
 * memory first, then into the file (read.c). As much may be pending as two batches hold; then
 * writers wait.
 *
 * Flush: everything acknowledged before is committed to the database, whose log is synced with each
 * commit. A crash, of the process or the machine, at any moment loses nothing that was flushed, and
 * leaves every sector as it once was, never torn; what was not flushed may be there or not, each
 * sector by itself. Errors are kept until the commit succeeds, and nothing that was acknowledged is
 * let go before.
 *
 * A layer is *its own*, or a mere copy of what is below it. It is its own from its first write that
 * is not written through as well; that is durable before the write is acknowledged. A copy may
 * forget whatever it likes: with a limit, what was not used for long (cache.c); after an unclean end
 * all of it, where it was written through, since what is below may be older or newer then. What is
 * its own never forgets; with a limit, its writes get ENOSPC.
 *
 * Where it is written through, all is below as well, durable when what is below is: so its own
 * errors are no reason to fail a flush. What matters is that it takes drops, in memory if need be;
 * if it cannot even do that, it *gives up*: it has nothing any more, until it is opened again and
 * emptied.
 */
#include <errno.h>
#include <string.h>
#include "backends/sqlite/sqlite.h"
#include "core/report.h"

/* The most of one request that enters a batch at once. */
#define CHANGE_MAX MIB

/* Runs that one extent() joins. */
#define EXTENT_RUNS 64

/* How often a population begins again because the batch was sealed meanwhile. */
#define POPULATE_TRIES 16

/* ---- Reading. ---- */

static int sqlite_layer_read(struct disk *disk, const struct sg *sg, uint64_t sector,
			     struct layer_gaps *gaps)
{
	uint64_t count = sg->len >> disk_sector_shift(disk);

	cache_use(&sqlite_of(disk)->cache, sector, count);
	return sqlite_read_layer(disk, sg, sector, count, gaps, NULL);
}

/* Alone, what is absent is zeros. */
static int sqlite_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	unsigned shift = disk_sector_shift(disk);
	struct layer_gaps gaps;
	size_t done = 0;

	while (done < sg->len) {
		struct sg rest = sg_slice(sg, done, sg->len - done);
		uint64_t at = sector + (done >> shift);
		int error = sqlite_layer_read(disk, &rest, at, &gaps);

		if (error)
			return error;
		for (unsigned i = 0; i < gaps.count; i++) {
			struct sg gap = sg_slice(&rest, (gaps.gaps[i].sector - at) << shift,
						 gaps.gaps[i].count << shift);

			sg_zero(&gap);
		}
		done += gaps.answered << shift;
	}
	return 0;
}

static int sqlite_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	struct extent found = {.count = 0};

	for (unsigned i = 0; i < EXTENT_RUNS && found.count < count; i++) {
		struct layer_run run;
		enum extent_kind kind;
		int error = sqlite_run(disk, sector + found.count, count - found.count, &run);

		if (error)
			return error;
		kind = run.state == LAYER_DATA ? EXTENT_DATA : EXTENT_HOLE;
		if (i > 0 && kind != found.kind)
			break;
		found.kind = kind;
		found.count += run.count;
	}
	*extent = found;
	return 0;
}

static int sqlite_allocated(struct disk *disk, uint64_t *bytes)
{
	struct sqlite *sqlite = sqlite_of(disk);
	uint64_t data, memory;

	pending_bytes(&sqlite->pending, &data, &memory);
	*bytes = data + atomic_load(&sqlite->file_data_bytes);
	return 0;
}

/* ---- Changes. ---- */

enum change_kind {
	CHANGE_DATA,
	CHANGE_ZEROES,
	CHANGE_DROP,
};

struct change {
	enum change_kind kind;
	const struct sg *sg; /* of data */
	uint64_t sector, count;
};

static int change_batch(struct batch *batch, const struct change *change)
{
	switch (change->kind) {
	case CHANGE_DATA:
		return sectors_write(batch->sectors, change->sg, change->sector);
	case CHANGE_ZEROES:
		return sectors_zero(batch->sectors, change->sector, change->count);
	case CHANGE_DROP:
		break;
	}
	return batch_drop(batch, change->sector, change->count);
}

/* Enters the active batch with one change. */
static int change_now(struct disk *disk, const struct change *change)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct batch *batch;
	bool full;
	int error;

	while (!(batch = pending_enter(&sqlite->pending, &full))) {
		error = full ? commit_make_room(disk) : error_io(ENOMEM);
		if (error)
			return error;
	}
	error = change_batch(batch, change);
	full = pending_leave(&sqlite->pending, batch, change->sector, change->count);
	commit_later(disk, full);
	return error;
}

static int change(struct disk *disk, const struct change *change)
{
	struct sqlite *sqlite = sqlite_of(disk);
	int error = atomic_load(&sqlite->gave_up) ? error_io(EIO) : commit_check(disk);

	if (!error && !atomic_load(&sqlite->own) && !(sqlite->role & LAYER_WRITE_THROUGH))
		error = commit_own(disk);
	return error ? error : change_now(disk, change);
}

/* A drop makes nothing its own, and is taken in memory while the file cannot be written. */
static int drop(struct disk *disk, uint64_t sector, uint64_t count)
{
	struct sqlite *sqlite = sqlite_of(disk);
	const struct change all = {.kind = CHANGE_DROP, .sector = sector, .count = count};
	char text[80];
	int error = atomic_load(&sqlite->gave_up) ? 0 : change_now(disk, &all);

	if (!error || !(sqlite->role & LAYER_WRITE_THROUGH))
		return error;
	if (!atomic_exchange(&sqlite->gave_up, true))
		log_error(disk->name,
			  "'%s' cannot be kept up to date, and is not used any more: %s",
			  sqlite->path, error_describe(text, error));
	return 0;
}

/* ---- A limit of what is no cache. ---- */

/* Bytes of data that there are, or may be once all is committed. */
static uint64_t quota_used(struct sqlite *sqlite)
{
	uint64_t data, memory;

	/* In this order, so that what is committed in between is counted twice, not never. */
	pending_bytes(&sqlite->pending, &data, &memory);
	return data + atomic_load(&sqlite->file_data_bytes) + atomic_load(&sqlite->quota_reserved);
}

/* Bytes by which there is more data once the sectors are written. */
static int quota_needed(struct disk *disk, uint64_t sector, uint64_t count, uint64_t *bytes)
{
	struct layer_run run;

	*bytes = 0;
	for (uint64_t at = sector; at < sector + count; at += run.count) {
		int error = sqlite_run(disk, at, sector + count - at, &run);

		if (error)
			return error;
		if (run.state != LAYER_DATA)
			*bytes += run.count << disk_sector_shift(disk);
	}
	return 0;
}

/* Near the limit, one at a time: commits what is pending, to know exactly what there is. */
static int change_near_limit(struct disk *disk, const struct change *data)
{
	const struct sqlite_config *config = disk->config;
	struct sqlite *sqlite = sqlite_of(disk);
	uint64_t needed;
	int error;

	task_mutex_lock(&sqlite->quota_mutex);
	error = commit_all(disk);
	if (!error)
		error = quota_needed(disk, data->sector, data->count, &needed);
	if (!error && needed > 0 && quota_used(sqlite) + needed > config->limit)
		error = error_io(ENOSPC);
	if (!error)
		error = change(disk, data);
	task_mutex_unlock(&sqlite->quota_mutex);
	return error;
}

static int change_within_limit(struct disk *disk, const struct change *data)
{
	const struct sqlite_config *config = disk->config;
	struct sqlite *sqlite = sqlite_of(disk);
	uint64_t bytes = data->count << disk_sector_shift(disk);
	bool fits;
	int error = 0;

	atomic_fetch_add(&sqlite->quota_reserved, bytes);
	fits = quota_used(sqlite) <= config->limit;
	if (fits)
		error = change(disk, data);
	atomic_fetch_sub(&sqlite->quota_reserved, bytes);
	return fits ? error : change_near_limit(disk, data);
}

/* ---- Operations. ---- */

static int sqlite_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	const struct sqlite_config *config = disk->config;
	struct sqlite *sqlite = sqlite_of(disk);
	bool limited = config->limit > 0 && !(sqlite->role & LAYER_WRITE_THROUGH);

	(void)flags; /* FUA is made by the core */
	for (size_t done = 0; done < sg->len;) {
		size_t length = min_u64(sg->len - done, CHANGE_MAX);
		struct sg part = sg_slice(sg, done, length);
		struct change data = {
			.kind = CHANGE_DATA,
			.sg = &part,
			.sector = sector + (done >> disk_sector_shift(disk)),
			.count = length >> disk_sector_shift(disk),
		};
		int error = limited ? change_within_limit(disk, &data) : change(disk, &data);

		if (error)
			return error;
		cache_use(&sqlite->cache, data.sector, data.count);
		done += length;
	}
	return 0;
}

/* Alone, nothing shines through what is absent. */
static int sqlite_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	const struct change zeroes = {.kind = CHANGE_ZEROES, .sector = sector, .count = count};
	int error;

	(void)flags;
	if (!sqlite_of(disk)->is_alone)
		return change(disk, &zeroes);
	error = commit_check(disk);
	return error ? error : drop(disk, sector, count);
}

static int sqlite_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	return sqlite_write_zeroes(disk, sector, count, 0);
}

static int sqlite_flush(struct disk *disk)
{
	int error = commit_all(disk);

	/* It has been logged. */
	return sqlite_of(disk)->role & LAYER_WRITE_THROUGH ? 0 : error;
}

/*
 * What is absent is looked for first, without keeping anybody from anything, and then populated, if
 * the batch is still the same: whatever was written since is in it, and wins.
 */
static int populate_absent(struct disk *disk, const struct sg *sg, uint64_t sector,
			   uint64_t *answered)
{
	struct sqlite *sqlite = sqlite_of(disk);
	unsigned shift = disk_sector_shift(disk);
	uint64_t count = sg->len >> shift, number;
	struct layer_gaps gaps;
	struct batch *batch;
	int error = sqlite_read_layer(disk, NULL, sector, count, &gaps, &number);

	*answered = 0;
	if (error)
		return error;
	batch = gaps.count > 0 ? pending_enter_same(&sqlite->pending, number) : NULL;
	if (gaps.count > 0 && !batch)
		return commit_make_room(disk);
	for (unsigned i = 0; i < gaps.count && !error; i++) {
		struct sg part = sg_slice(sg, (gaps.gaps[i].sector - sector) << shift,
					  gaps.gaps[i].count << shift);

		error = sectors_populate(batch->sectors, &part, gaps.gaps[i].sector);
	}
	if (batch)
		commit_later(disk, pending_leave(&sqlite->pending, batch, sector, gaps.answered));
	*answered = gaps.answered;
	return error;
}

/* What is its own has the room first. */
static bool has_room_for_copies(struct disk *disk, size_t bytes)
{
	const struct sqlite_config *config = disk->config;
	struct sqlite *sqlite = sqlite_of(disk);

	return config->limit == 0 || !atomic_load(&sqlite->own) ||
	       quota_used(sqlite) + bytes <= config->limit;
}

static int sqlite_populate(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	unsigned shift = disk_sector_shift(disk), tries = 0;
	int error = atomic_load(&sqlite_of(disk)->gave_up) ? error_io(EIO) : commit_check(disk);

	if (!error && !has_room_for_copies(disk, sg->len))
		error = error_io(ENOSPC);

	for (size_t done = 0; done < sg->len && !error;) {
		struct sg part = sg_slice(sg, done, min_u64(sg->len - done, CHANGE_MAX));
		uint64_t answered;

		error = populate_absent(disk, &part, sector + (done >> shift), &answered);
		if (!error && answered == 0 && ++tries == POPULATE_TRIES)
			error = error_io(EBUSY);
		done += answered << shift;
	}
	return error;
}

/* ---- What it is. ---- */

static void inspect_cache(struct disk *disk, struct report *report)
{
	const struct sqlite_config *config = disk->config;
	struct sqlite *sqlite = sqlite_of(disk);

	report_bool(report, "own", atomic_load(&sqlite->own));
	if (atomic_load(&sqlite->gave_up))
		report_bool(report, "gave_up", true);
	if (config->limit > 0)
		report_bytes(report, "limit", config->limit);
	if (sqlite->cache.uses)
		report_bytes(report, "evicted_bytes", atomic_load(&sqlite->cache.evicted_bytes));
}

static void sqlite_inspect(struct disk *disk, struct report *report)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct committer *committer = &sqlite->committer;
	uint64_t data, memory;
	char text[80];

	if (!sqlite->is_attached)
		return;
	report_string(report, "path", sqlite->path);
	report_u64(report, "format", FORMAT_VERSION);
	report_u64(report, "runs", atomic_load(&sqlite->file_runs));
	report_bytes(report, "data_bytes", atomic_load(&sqlite->file_data_bytes));
	pending_bytes(&sqlite->pending, &data, &memory);
	report_bytes(report, "pending_bytes", data);
	report_bytes(report, "pending_memory", memory);
	report_u64(report, "commits", atomic_load(&committer->commits));
	report_u64(report, "checkpoints", atomic_load(&committer->checkpoints));
	report_bytes(report, "wal_bytes", atomic_load(&committer->wal_bytes));
	if (atomic_load(&committer->error))
		report_string(report, "error",
			      error_describe(text, atomic_load(&committer->error)));
	inspect_cache(disk, report);
}

/* What is below changes by what is committed there: what it was before counts no more, and what it
 * is then is looked at in the end. */
static int sqlite_below_changes(struct disk *disk, struct disk *below, bool begin)
{
	struct base *base = &sqlite_of(disk)->meta.base;
	struct err err;

	if (!base->has_fingerprint || disk_is_layer(below))
		return 0;
	if (begin) {
		memcpy(base->fingerprint, base_any_content, FINGERPRINT_SIZE);
	} else if (base_fingerprint(below, base->fingerprint, &err) < 0) {
		log_error(disk->name, "%s", err.text);
		return error_io(EIO);
	}
	return commit_fingerprint(disk, base->fingerprint);
}

static const struct layer_ops sqlite_layer = {
	.attach = sqlite_attach,
	.read = sqlite_layer_read,
	.populate = sqlite_populate,
	.drop = drop,
	.run = sqlite_run,
	.below_changes = sqlite_below_changes,
};

static const struct option sqlite_options[] = {
	{.name = "path",
	 .type = OPTION_PATH,
	 .offset = offsetof(struct sqlite_config, path),
	 .help = "The file, a SQLite database. It is created if it does not exist"},
	{.name = "size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct sqlite_config, size),
	 .min = 512,
	 .max = INT64_MAX,
	 .help = "Size of the disk where the file is created, a multiple of the sector size; the "
		 "default is that of the disk below. An existing file must have it"},
	{.name = "sector_size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct sqlite_config, sector_size),
	 .flags = OPTION_POWER_OF_TWO,
	 .min = 512,
	 .max = GEOMETRY_SECTOR_MAX,
	 .help = "Logical and physical sector size in bytes where the file is created; the default "
		 "is that of the disk below, or 512. An existing file must have it"},
	{.name = "cache_dir",
	 .type = OPTION_PATH,
	 .offset = offsetof(struct sqlite_config, cache_dir),
	 .help = "Instead of path: the folder of the file, which is called after the disk below, "
		 "so that it finds its cache again"},
	{.name = "key",
	 .type = OPTION_STRING,
	 .offset = offsetof(struct sqlite_config, key),
	 .help = "The name of the file in cache_dir, without its end '.diskfs'. The default is the "
		 "id of the disk below"},
	{.name = "limit",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct sqlite_config, limit),
	 .min = MIB,
	 .max = INT64_MAX,
	 .help = "The most data that it keeps. A cache forgets what was not used for long; to all "
		 "else writes fail beyond it"},
	{.name = "base_check",
	 .type = OPTION_LIST,
	 .offset = offsetof(struct sqlite_config, base_check),
	 .fallback = "size, id",
	 .help = "What the disk below must have in common with the one over which the file was "
		 "made: size, id, content (a fingerprint of samples, taken when the file is "
		 "created), or none"},
	{.name = NULL},
};

const struct driver sqlite_driver = {
	.name = "sqlite",
	.summary = "a layer in a file: a diff, or a cache",
	.options = sqlite_options,
	.config_size = sizeof(struct sqlite_config),
	.state_size = sizeof(struct sqlite),
	.open = sqlite_open,
	.close = sqlite_close,
	.read = sqlite_read,
	.write = sqlite_write,
	.flush = sqlite_flush,
	.unmap = sqlite_unmap,
	.write_zeroes = sqlite_write_zeroes,
	.extent = sqlite_extent,
	.allocated = sqlite_allocated,
	.layer = &sqlite_layer,
	.inspect = sqlite_inspect,
};
