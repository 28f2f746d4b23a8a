// SPDX-License-Identifier: MIT
/*
 * Reads. What is pending is in memory, and answered at once. What is left of a request is read from
 * the file on a thread of the pool, by one of READERS_MAX connections, all its pieces in one job.
 *
 * Each look into the file sees all that was committed before it began. The batches are held from
 * before the first look until the last, see pending.h.
 */
#include <errno.h>
#include "backends/sqlite/sqlite.h"
#include "core/offload.h"

/* ---- Connections. ---- */

void readers_init(struct readers *readers)
{
	task_mutex_init(&readers->mutex);
}

void readers_destroy(struct readers *readers)
{
	for (unsigned i = 0; i < readers->count; i++)
		db_close(&readers->readers[i].db);
	task_mutex_destroy(&readers->mutex);
}

/* Waits for a connection; the caller opens it if it is not open. */
static struct reader *reader_get(struct readers *readers)
{
	struct reader *reader;

	task_mutex_lock(&readers->mutex);
	while (!readers->idle && readers->count == READERS_MAX)
		wait_queue_wait(&readers->freed, &readers->mutex);
	reader = readers->idle;
	if (reader)
		readers->idle = reader->next;
	else
		reader = &readers->readers[readers->count++];
	task_mutex_unlock(&readers->mutex);
	return reader;
}

static void reader_put(struct readers *readers, struct reader *reader)
{
	task_mutex_lock(&readers->mutex);
	reader->next = readers->idle;
	readers->idle = reader;
	wait_queue_wake_all(&readers->freed);
	task_mutex_unlock(&readers->mutex);
}

static int reader_open(struct sqlite *sqlite, struct reader *reader)
{
	int result, error;

	if (reader->is_open)
		return 0;
	result = db_open(&reader->db, sqlite->path, sqlite->is_writable ? DB_READER : DB_QUIET);
	reader->is_open = result == SQLITE_OK;
	if (reader->is_open)
		return 0;
	log_limited(&sqlite->log_limit, LOG_LEVEL_ERROR, sqlite->file.node, "cannot open '%s': %s",
		    sqlite->path, db_message(&reader->db, result));
	error = db_error(result);
	db_close(&reader->db);
	return error;
}

/* ---- What a read has to do. ---- */

/* A run of sectors that no batch has. */
struct piece {
	uint64_t sector, count;
	bool absent; /* not to be looked for in the file either */
};

struct plan {
	struct sqlite *sqlite;
	const struct sg *sg; /* of the whole request; NULL: only looks */
	uint64_t sector;     /* of the request */
	struct batches batches;
	struct piece pieces[LAYER_GAPS_MAX];
	unsigned count;
	uint64_t end; /* what lies before is planned */
};

static struct sg plan_part(const struct plan *plan, uint64_t sector, uint64_t count)
{
	unsigned shift = plan->sqlite->file.shift;

	return sg_slice(plan->sg, (sector - plan->sector) << shift, count << shift);
}

/* False: there is no room. Neighbours of one sort become one. */
static bool plan_add(struct plan *plan, uint64_t sector, uint64_t count, bool absent)
{
	struct piece *last = plan->count > 0 ? &plan->pieces[plan->count - 1] : NULL;

	if (last && last->sector + last->count == sector && last->absent == absent)
		last->count += count;
	else if (plan->count == LAYER_GAPS_MAX)
		return false;
	else
		plan->pieces[plan->count++] = (struct piece){sector, count, absent};
	plan->end = sector + count;
	return true;
}

/* What no batch has is in the file, if it is not known to be absent. */
static bool plan_file(struct plan *plan, uint64_t sector, uint64_t count)
{
	uint64_t end = sector + count;
	bool planned = true;

	while (planned && sector < end) {
		bool known;

		count = end - sector;
		known = absence_is_known(&plan->sqlite->absence, sector, &count);
		planned = plan_add(plan, sector, count, known);
		sector += count;
	}
	return planned;
}

static bool plan_range(struct plan *plan, unsigned index, uint64_t sector, uint64_t count);

/* What batch @index does not have is dropped there, or up to the next. */
static bool plan_gap(struct plan *plan, unsigned index, const struct layer_gap *gap)
{
	uint64_t at = gap->sector, end = gap->sector + gap->count;
	bool planned = true;

	while (planned && at < end) {
		uint64_t count = end - at;

		if (batch_is_dropped(plan->batches.batches[index], at, &count))
			planned = plan_add(plan, at, count, true);
		else
			planned = plan_range(plan, index + 1, at, count);
		if (planned)
			at += count;
	}
	return planned;
}

/* Looks into batch @index and those behind it. False: there was no room for all; plan->end says how
 * far it has come. */
static bool plan_range(struct plan *plan, unsigned index, uint64_t sector, uint64_t count)
{
	uint64_t end = sector + count;
	struct layer_gaps gaps;
	struct sg part;

	if (index == plan->batches.count)
		return plan_file(plan, sector, count);
	while (sector < end) {
		if (plan->sg)
			part = plan_part(plan, sector, end - sector);
		batch_read(plan->batches.batches[index], plan->sg ? &part : NULL,
			   plan->sqlite->file.shift, sector, end - sector, &gaps);
		for (unsigned i = 0; i < gaps.count; i++) {
			plan->end = gaps.gaps[i].sector;
			if (!plan_gap(plan, index, &gaps.gaps[i]))
				return false;
		}
		sector += gaps.answered;
		plan->end = sector;
	}
	return true;
}

/* ---- Doing it. ---- */

struct read_job {
	struct plan *plan;
	struct reader *reader;
	struct layer_gaps *gaps;
	uint64_t end; /* answered up to here */
	int error;
};

/* Where the file had nothing: whether that is so in all of the range. */
static void learn(struct sqlite *sqlite, struct reader *reader, uint64_t sector)
{
	uint64_t look = absence_look(&sqlite->absence), first, count;
	struct layer_run run;

	absence_range(&sqlite->absence, sector, &first, &count);
	if (runs_find(&reader->db, &sqlite->file, first, count, &run) == 0 &&
	    run.state == LAYER_ABSENT && run.count == count)
		absence_learn(&sqlite->absence, look, sector);
}

/* A piece of the file, with a connection. */
static int read_file(struct read_job *job, const struct piece *piece, uint64_t *answered)
{
	struct sqlite *sqlite = job->plan->sqlite;
	struct layer_gaps *gaps = job->gaps;
	struct sg part;
	int error;

	if (job->plan->sg)
		part = plan_part(job->plan, piece->sector, piece->count);
	error = runs_read(&job->reader->db, &sqlite->file, job->plan->sg ? &part : NULL,
			  piece->sector, piece->count, gaps, answered);
	if (!error && gaps->count > 0 && gaps->gaps[gaps->count - 1].sector <= piece->sector &&
	    *answered == piece->count)
		learn(sqlite, job->reader, piece->sector);
	return error;
}

/* One piece. False: the list of gaps is full. */
static bool read_piece(struct read_job *job, const struct piece *piece)
{
	struct sqlite *sqlite = job->plan->sqlite;
	uint64_t answered = piece->count;

	job->end = piece->sector;
	if (piece->absent)
		return gaps_add(job->gaps, piece->sector, piece->count);
	job->error = reader_open(sqlite, job->reader);
	if (!job->error)
		job->error = read_file(job, piece, &answered);
	job->end = piece->sector + answered;
	return answered == piece->count;
}

static void read_pieces(void *argument)
{
	struct read_job *job = argument;
	const struct plan *plan = job->plan;

	for (unsigned i = 0; i < plan->count && !job->error; i++)
		if (!read_piece(job, &plan->pieces[i]))
			return;
	job->end = plan->end;
}

static bool needs_file(const struct plan *plan)
{
	for (unsigned i = 0; i < plan->count; i++)
		if (!plan->pieces[i].absent)
			return true;
	return false;
}

/* Answers what is planned; in *end how far that was. */
static int execute(struct plan *plan, struct layer_gaps *gaps, uint64_t *end)
{
	struct readers *readers = &plan->sqlite->readers;
	struct read_job job = {.plan = plan, .gaps = gaps};

	if (needs_file(plan)) {
		job.reader = reader_get(readers);
		offload(read_pieces, &job);
		reader_put(readers, job.reader);
	} else {
		read_pieces(&job);
	}
	*end = job.end;
	return job.error;
}

int sqlite_read_layer(struct disk *disk, const struct sg *sg, uint64_t sector, uint64_t count,
		      struct layer_gaps *gaps, uint64_t *active)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct plan plan = {.sqlite = sqlite, .sg = sg, .sector = sector};
	uint64_t at = sector, end = sector + count;
	bool full = false;
	int error = 0;

	gaps->count = 0;
	if (active)
		*active = 0;
	if (atomic_load(&sqlite->gave_up)) {
		gaps_add(gaps, sector, count);
		gaps->answered = count;
		return 0;
	}
	pending_hold(&sqlite->pending, &plan.batches);
	if (active)
		*active = plan.batches.batches[0]->number;
	while (!error && !full && at < end) {
		plan.count = 0;
		plan.end = at;
		plan_range(&plan, 0, at, end - at);
		error = execute(&plan, gaps, &at);
		full = at < plan.end;
	}
	pending_release(&sqlite->pending, &plan.batches);
	gaps->answered = at - sector;
	return error;
}

/* ---- One run. ---- */

struct run_job {
	struct sqlite *sqlite;
	struct reader *reader;
	uint64_t sector, count;
	struct layer_run *run;
	int error;
};

static void run_job(void *argument)
{
	struct run_job *job = argument;

	job->error = reader_open(job->sqlite, job->reader);
	if (!job->error)
		job->error = runs_find(&job->reader->db, &job->sqlite->file, job->sector,
				       job->count, job->run);
}

/* What of @run, which is absent in the batches, the file says. */
static int run_in_file(struct sqlite *sqlite, uint64_t sector, struct layer_run *run)
{
	struct run_job job = {.sqlite = sqlite, .sector = sector, .run = run};

	if (absence_is_known(&sqlite->absence, sector, &run->count))
		return 0;
	job.count = run->count;
	job.reader = reader_get(&sqlite->readers);
	offload(run_job, &job);
	reader_put(&sqlite->readers, job.reader);
	return job.error;
}

/* What of @run the batches say. False: it is to be looked up in the file. */
static bool run_in_batches(const struct batches *batches, uint64_t sector, struct layer_run *run)
{
	for (unsigned i = 0; i < batches->count; i++) {
		uint64_t count = run->count;

		sectors_run(batches->batches[i]->sectors, sector, count, run);
		if (run->state != LAYER_ABSENT ||
		    batch_is_dropped(batches->batches[i], sector, &run->count))
			return true;
	}
	return false;
}

int sqlite_run(struct disk *disk, uint64_t sector, uint64_t count, struct layer_run *run)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct batches batches;
	int error = 0;

	*run = (struct layer_run){.state = LAYER_ABSENT, .count = count};
	if (atomic_load(&sqlite->gave_up))
		return 0;
	pending_hold(&sqlite->pending, &batches);
	if (!run_in_batches(&batches, sector, run))
		error = run_in_file(sqlite, sector, run);
	pending_release(&sqlite->pending, &batches);
	return error;
}
