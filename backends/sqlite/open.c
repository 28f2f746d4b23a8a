// SPDX-License-Identifier: MIT
/*
 * Opening, attaching, closing. As a layer it has to know what is below before it can open anything,
 * so all is done in attach(); alone, in open(). What may wait runs on a thread of the pool; only
 * the disk below is read in the task.
 *
 * Nothing is created, emptied or marked before all that is wanted fits together.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "backends/sqlite/sqlite.h"
#include "core/offload.h"

/* When a batch is full; twice as much may be pending. For a cache with a limit less, so that it
 * keeps its limit. */
#define BATCH_MEMORY	 (8 * MIB)
#define BATCHES_IN_LIMIT 8

#define KEY_LENGTH_MAX	 200

/* How often a file may come into being, and be gone again, in the moment in which it is opened. */
#define CREATE_TRIES 16

/* ---- Options. ---- */

static int check_key(const char *key, struct err *err)
{
	if (key[0] == '\0' || key[0] == '.' || strchr(key, '/') || strlen(key) > KEY_LENGTH_MAX)
		return err_set_key(
			err, "key",
			"'%s' is no name of a file in cache_dir: it must not be empty, begin "
			"with '.', contain '/', or have more than %d bytes",
			key, KEY_LENGTH_MAX);
	return 0;
}

static int check_options(const struct disk *disk, struct err *err)
{
	const struct sqlite_config *config = disk->config;

	if (!config->path == !config->cache_dir)
		return err_set_key(err, config->path ? "cache_dir" : "path", "%s",
				   config->path ? "path says already where the file is"
						: "required, or cache_dir for a cache");
	if (config->key && !config->cache_dir)
		return err_set_key(err, "key", "is for a file in cache_dir");
	if (config->key && check_key(config->key, err) < 0)
		return -1;
	if (config->cache_dir && config->size > 0)
		return err_set_key(err, "size",
				   "a cache in cache_dir is as large as the disk below it");
	if (config->cache_dir && !(disk->open_flags & DISK_OPEN_LAYER))
		return err_set_key(err, "cache_dir",
				   "is for layers of a layered disk, where there is one below");
	return 0;
}

/* ---- What is being opened. ---- */

struct opening {
	struct disk *disk;
	struct disk *below; /* NULL: none */
	unsigned role;
	struct err *err;
	bool missing; /* there is no file */
	bool exists;  /* one has come in between */
	int result;
	struct meta meta; /* of the file that there is, or is to be */
};

static bool is_check(const struct opening *opening)
{
	return opening->disk->open_flags & DISK_OPEN_CHECK;
}

/* The name of the file. */
static int set_path(struct opening *opening, struct err *err)
{
	const struct sqlite_config *config = opening->disk->config;
	struct sqlite *sqlite = sqlite_of(opening->disk);
	const struct disk *below = opening->below;
	const char *key = config->key;
	char id[33];
	int length;

	free(sqlite->path);
	sqlite->path = NULL;
	if (config->path) {
		sqlite->path = strdup(config->path);
		return sqlite->path ? 0 : err_set(err, "%s", strerror(ENOMEM));
	}
	if (!below)
		return err_set_key(err, "cache_dir", "there is no disk below to keep a cache of");
	if (!key && !below->geometry.has_id)
		return err_set_key(
			err, "key",
			"'%s' has no id that its cache could be called after: give a key",
			below->name);
	if (!key)
		key = format_id(id, below->geometry.id);
	length = asprintf(&sqlite->path, "%s/%s.diskfs", config->cache_dir, key);
	if (length < 0)
		sqlite->path = NULL;
	return sqlite->path ? 0 : err_set(err, "%s", strerror(ENOMEM));
}

/* ---- Jobs, on a thread of the pool. ---- */

static int open_failed(struct opening *opening, struct db *db, int result)
{
	err_set_key(opening->err, "path", "cannot open '%s': %s", sqlite_of(opening->disk)->path,
		    db_message(db, result));
	db_close(db);
	return -1;
}

/* Opens the database and loads its meta. */
static int open_database(struct opening *opening, struct db *db, enum db_mode mode)
{
	const char *path = sqlite_of(opening->disk)->path;
	int result = db_open(db, path, mode);

	if (result != SQLITE_OK)
		return open_failed(opening, db, result);
	if (format_load(db, path, &opening->meta, opening->err) == 0)
		return 0;
	db_close(db);
	return -1;
}

static int take_hold(struct opening *opening)
{
	struct sqlite *sqlite = sqlite_of(opening->disk);
	enum hold_mode mode = is_check(opening)	    ? HOLD_LOOK
			      : sqlite->is_writable ? HOLD_WRITE
						    : HOLD_READ;
	int error = hold_take(&sqlite->hold, sqlite->path, mode);

	opening->missing = error == -ENOENT;
	if (!error)
		return format_check_header(&sqlite->hold, sqlite->path, opening->err);
	if (opening->missing)
		return 0;
	return err_set_key(opening->err, "path",
			   error == -EWOULDBLOCK
				   ? "'%s' is in use by another disk or another diskfs"
				   : "cannot open '%s': %s",
			   sqlite->path, strerror(-error));
}

static int open_file(struct opening *opening)
{
	struct sqlite *sqlite = sqlite_of(opening->disk);
	struct reader *reader = &sqlite->readers.readers[0];
	struct db look;

	if (take_hold(opening) < 0)
		return -1;
	if (opening->missing)
		return 0;
	if (sqlite->is_writable)
		return open_database(opening, &sqlite->writer.db, DB_WRITER);
	if (!is_check(opening)) {
		sqlite->readers.count = 1;
		sqlite->readers.idle = reader;
		reader->is_open = open_database(opening, &reader->db, DB_QUIET) == 0;
		return reader->is_open ? 0 : -1;
	}
	if (open_database(opening, &look, sqlite->hold.is_written ? DB_READER : DB_QUIET) < 0)
		return -1;
	db_close(&look);
	hold_release(&sqlite->hold);
	return 0;
}

static void open_job(void *argument)
{
	struct opening *opening = argument;

	opening->result = open_file(opening);
}

static void create_job(void *argument)
{
	struct opening *opening = argument;
	struct sqlite *sqlite = sqlite_of(opening->disk);
	int result = format_create(&sqlite->hold, sqlite->path, &opening->meta, opening->err);

	opening->exists = result == -EEXIST;
	opening->result = opening->exists ? 0 : result;
	if (result == 0)
		opening->result = open_database(opening, &sqlite->writer.db, DB_WRITER);
}

/* With a new file in the place of the old one: to delete all rows would take longer the more there
 * are. */
static void empty_job(void *argument)
{
	struct opening *opening = argument;
	struct sqlite *sqlite = sqlite_of(opening->disk);
	struct db *db = &sqlite->writer.db;
	int result = db_close(db);

	opening->meta.dirty = opening->role & LAYER_WRITE_THROUGH;
	opening->meta.totals = (struct runs_totals){0};
	if (result != SQLITE_OK)
		opening->result = open_failed(opening, db, result);
	else
		opening->result =
			format_replace(&sqlite->hold, sqlite->path, &opening->meta, opening->err);
	if (opening->result == 0)
		opening->result = open_database(opening, db, DB_WRITER);
}

/* The first use of what will be written to. */
static void begin_job(void *argument)
{
	struct opening *opening = argument;
	struct sqlite *sqlite = sqlite_of(opening->disk);
	bool none;
	char text[80];
	int error;

	apply_init(sqlite);
	error = runs_are_none(&sqlite->writer, &none);
	if (!error && none)
		absence_all(&sqlite->absence);
	if (!error && (opening->role & LAYER_WRITE_THROUGH) && !opening->meta.dirty)
		error = apply_marks(sqlite, false, true);
	opening->result = error ? err_set_key(opening->err, "path", "cannot use '%s': %s",
					      sqlite->path, error_describe(text, error))
				: 0;
}

/* ---- Whether all fits together. ---- */

static int check_size(uint64_t size, uint32_t sector_size, struct err *err)
{
	if (size % sector_size != 0)
		return err_set_key(err, "size", "%llu is no multiple of the sector size of %u",
				   (unsigned long long)size, sector_size);
	return 0;
}

static int check_sectors_below(const struct opening *opening, struct err *err)
{
	const struct disk *below = opening->below;

	if (below && disk_sector_size(below) != opening->meta.sector_size)
		return err_set_key(
			err, "sector_size",
			"the sectors of '%s' have %u bytes, those of '%s' below %u: they "
			"must be equal",
			sqlite_of(opening->disk)->path, opening->meta.sector_size, below->name,
			disk_sector_size(below));
	return 0;
}

/* What a new file is to be. */
static int plan_file(struct opening *opening, struct err *err)
{
	const struct sqlite_config *config = opening->disk->config;
	const struct sqlite *sqlite = sqlite_of(opening->disk);
	const struct disk *below = opening->below;
	struct meta *meta = &opening->meta;
	uint64_t size = config->size;

	if (!sqlite->is_writable && !is_check(opening))
		return err_set_key(err, "path",
				   "'%s' does not exist, and is not created for a disk that is "
				   "read-only",
				   sqlite->path);
	if (size == 0 && !below)
		return err_set_key(err, "path", "'%s' does not exist (size = would create it)",
				   sqlite->path);
	if (size == 0)
		size = disk_size(below);
	*meta = (struct meta){
		.sector_size = (uint32_t)config->sector_size,
		.own = !(opening->role & (LAYER_CACHE | LAYER_WRITE_THROUGH)),
		.dirty = opening->role & LAYER_WRITE_THROUGH,
	};
	if (meta->sector_size == 0)
		meta->sector_size = below ? disk_sector_size(below) : 512;
	if (check_size(size, meta->sector_size, err) < 0 || check_sectors_below(opening, err) < 0)
		return -1;
	meta->sector_count = size / meta->sector_size;
	if (meta->sector_count == 0)
		return err_set_key(err, "size", "less than one sector of %u bytes",
				   meta->sector_size);
	return base_of(opening->below, sqlite->checks, &meta->base, err);
}

static int check_base(struct opening *opening, struct err *err)
{
	const struct sqlite *sqlite = sqlite_of(opening->disk);
	struct base now;

	if (base_of(opening->below, sqlite->checks, &now, err) < 0)
		return -1;
	return base_compare(&opening->meta.base, &now, sqlite->checks, sqlite->path,
			    opening->below ? opening->below->name : "", err);
}

/* Whether the file that there is may be used as it is to be. */
static int check_file(struct opening *opening, struct err *err)
{
	const struct sqlite_config *config = opening->disk->config;
	const struct sqlite *sqlite = sqlite_of(opening->disk);
	const struct meta *meta = &opening->meta;
	uint64_t size = meta->sector_count * meta->sector_size;

	if (config->sector_size > 0 && config->sector_size != meta->sector_size)
		return err_set_key(err, "sector_size", "'%s' has sectors of %u bytes, not %llu",
				   sqlite->path, meta->sector_size,
				   (unsigned long long)config->sector_size);
	if (config->size > 0 && config->size != size)
		return err_set_key(
			err, "size",
			"'%s' has %llu bytes, not %llu: an existing layer is not resized",
			sqlite->path, (unsigned long long)size, (unsigned long long)config->size);
	if (check_sectors_below(opening, err) < 0)
		return -1;
	if (meta->own && (opening->role & LAYER_WRITE_THROUGH))
		return err_set_key(
			err, "path",
			"'%s' may hold what is nowhere else, and cannot be written through",
			sqlite->path);
	return check_base(opening, err);
}

/* What is below changes with every write. */
static int check_role(const struct opening *opening, struct err *err)
{
	if ((opening->role & LAYER_WRITE_THROUGH) &&
	    (sqlite_of(opening->disk)->checks & BASE_CONTENT))
		return err_set_key(
			err, "base_check",
			"the content below a layer that is written through is not always "
			"the same");
	return 0;
}

/* ---- In use. ---- */

static void set_geometry(const struct opening *opening)
{
	struct disk_geometry *geometry = &opening->disk->geometry;
	const struct disk *below = opening->below;

	*geometry = (struct disk_geometry){
		.sector_size = opening->meta.sector_size,
		.physical_sector_size = opening->meta.sector_size,
		.unmap = UNMAP_ZEROES,
	};
	/* A copy is the same disk. */
	if (below && below->geometry.has_id &&
	    (opening->role & (LAYER_CACHE | LAYER_WRITE_THROUGH))) {
		geometry->has_id = true;
		memcpy(geometry->id, below->geometry.id, sizeof(geometry->id));
	}
	disk_set_sector_count(opening->disk, opening->meta.sector_count);
}

static int make_memory(const struct opening *opening, struct err *err)
{
	const struct sqlite_config *config = opening->disk->config;
	struct sqlite *sqlite = sqlite_of(opening->disk);
	const struct meta *meta = &opening->meta;
	bool forgets = config->limit > 0 && !meta->own &&
		       (opening->role & (LAYER_CACHE | LAYER_WRITE_THROUGH));
	uint64_t batch = config->limit > 0 ? min_u64(BATCH_MEMORY, config->limit / BATCHES_IN_LIMIT)
					   : BATCH_MEMORY;

	sqlite->chunk_buffer = malloc(max_u64(CHUNK_SIZE, meta->sector_size));
	if (!sqlite->chunk_buffer || pending_init(&sqlite->pending, meta->sector_size, batch) < 0 ||
	    absence_init(&sqlite->absence, log2_of(meta->sector_size), meta->sector_count) < 0 ||
	    (forgets && cache_init(&sqlite->cache, config->limit, log2_of(meta->sector_size),
				   meta->sector_count) < 0))
		return err_set(err, "%s", strerror(ENOMEM));
	return 0;
}

static void describe_file(const struct opening *opening)
{
	struct sqlite *sqlite = sqlite_of(opening->disk);
	const struct meta *meta = &opening->meta;

	sqlite->meta = *meta;
	sqlite->file = (struct runs_file){
		.node = opening->disk->name,
		.path = sqlite->path,
		.log_limit = &sqlite->log_limit,
		.shift = log2_of(meta->sector_size),
		.sector_count = meta->sector_count,
		.chunk = max_u64(CHUNK_SIZE, meta->sector_size) / meta->sector_size,
	};
	atomic_store(&sqlite->own, meta->own);
	atomic_store(&sqlite->file_runs, meta->totals.runs);
	atomic_store(&sqlite->file_data_bytes, meta->totals.data_sectors << sqlite->file.shift);
}

/* Runs a job, whose sentence and result are the opening's. */
static int run_job(struct opening *opening, void (*job)(void *argument))
{
	offload(job, opening);
	return opening->result;
}

static int use_file(struct opening *opening, struct err *err)
{
	struct sqlite *sqlite = sqlite_of(opening->disk);
	bool was_dirty = opening->meta.dirty && !opening->missing;

	sqlite->role = opening->role;
	if (was_dirty)
		log_warning(opening->disk->name,
			    "'%s' was not closed, and may differ from what is below: it is %s",
			    sqlite->path, sqlite->is_writable ? "emptied" : "not used");
	if (was_dirty && sqlite->is_writable && run_job(opening, empty_job) < 0)
		return -1;
	describe_file(opening);
	if (make_memory(opening, err) < 0 ||
	    (sqlite->is_writable && run_job(opening, begin_job) < 0))
		return -1;
	if (was_dirty && !sqlite->is_writable)
		absence_all(&sqlite->absence);
	sqlite->is_attached = true;
	return 0;
}

/* Until there is a file, be it ours or one that somebody else has made meanwhile. */
static int open_or_create(struct opening *opening, struct err *err)
{
	for (unsigned i = 0; i < CREATE_TRIES; i++) {
		if (run_job(opening, open_job) < 0)
			return -1;
		if (!opening->missing)
			return check_file(opening, err);
		if (plan_file(opening, err) < 0)
			return -1;
		if (is_check(opening))
			return 0;
		if (run_job(opening, create_job) < 0)
			return -1;
		if (!opening->exists)
			return 0;
	}
	/* A symbolic link that leads nowhere, for instance. */
	return err_set_key(err, "path", "cannot create '%s': %s", sqlite_of(opening->disk)->path,
			   strerror(EEXIST));
}

static int open_over(struct disk *disk, struct disk *below, unsigned role, struct err *err)
{
	struct opening opening = {.disk = disk, .below = below, .role = role, .err = err};

	if (check_role(&opening, err) < 0 || set_path(&opening, err) < 0 ||
	    open_or_create(&opening, err) < 0)
		return -1;
	set_geometry(&opening);
	return is_check(&opening) ? 0 : use_file(&opening, err);
}

int sqlite_open(struct disk *disk, struct err *err)
{
	const struct sqlite_config *config = disk->config;
	struct sqlite *sqlite = sqlite_of(disk);

	sqlite->hold.fd = -1;
	readers_init(&sqlite->readers);
	committer_init(&sqlite->committer);
	task_mutex_init(&sqlite->quota_mutex);
	sqlite->was_opened = true;
	sqlite->is_writable = !(disk->open_flags & (DISK_OPEN_READ_ONLY | DISK_OPEN_CHECK));
	sqlite->is_alone = !(disk->open_flags & DISK_OPEN_LAYER);
	if (check_options(disk, err) < 0 ||
	    base_parse_checks(&config->base_check, &sqlite->checks, err) < 0)
		return -1;
	return sqlite->is_alone ? open_over(disk, NULL, 0, err) : 0;
}

int sqlite_attach(struct disk *disk, struct disk *below, unsigned role, struct err *err)
{
	struct opening again = {.disk = disk, .below = below, .role = role, .err = err};

	if (!sqlite_of(disk)->is_attached)
		return open_over(disk, below, role, err);
	/* Another disk stands on it as well, so nobody writes to it. */
	again.meta = sqlite_of(disk)->meta;
	return check_sectors_below(&again, err) < 0 ? -1 : check_base(&again, err);
}

/* ---- The end. ---- */

struct closing {
	struct sqlite *sqlite;
	int error; /* of the last commit */
};

static void close_job(void *argument)
{
	struct closing *closing = argument;
	struct sqlite *sqlite = closing->sqlite;

	/* If that fails, it is only emptied the next time. */
	if (sqlite->is_attached && sqlite->is_writable && !closing->error &&
	    (sqlite->role & LAYER_WRITE_THROUGH))
		apply_marks(sqlite, false, false);
	readers_destroy(&sqlite->readers);
	db_close(&sqlite->checkpointer);
	db_close(&sqlite->writer.db);
	hold_release(&sqlite->hold);
}

/* The last commit, for what nobody has flushed. */
static int close_commit(struct disk *disk)
{
	struct sqlite *sqlite = sqlite_of(disk);
	uint64_t data, memory;
	int error;
	char text[80];

	if (!sqlite->is_attached || !sqlite->is_writable)
		return 0;
	error = commit_all(disk);
	commit_end(disk);
	pending_bytes(&sqlite->pending, &data, &memory);
	if (error)
		log_error(disk->name,
			  "%llu bytes that were written cannot be put into '%s', and are lost: %s",
			  (unsigned long long)data, sqlite->path, error_describe(text, error));
	return error;
}

void sqlite_close(struct disk *disk)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct closing closing = {.sqlite = sqlite};

	if (!sqlite->was_opened)
		return;
	closing.error = close_commit(disk);
	if (!closing.error && atomic_load(&sqlite->gave_up))
		closing.error = error_io(EIO); /* it stays marked */
	offload(close_job, &closing);
	pending_destroy(&sqlite->pending);
	absence_destroy(&sqlite->absence);
	cache_destroy(&sqlite->cache);
	committer_destroy(&sqlite->committer);
	task_mutex_destroy(&sqlite->quota_mutex);
	free(sqlite->chunk_buffer);
	free(sqlite->path);
}
