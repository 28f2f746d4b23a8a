// SPDX-License-Identifier: MIT
/*
 * When what is pending goes into the file: when a batch is full, when a flush asks, when nothing has
 * changed for a moment, at the latest AGE_NS after it was written, and at the end.
 *
 * One at a time is `busy` with the connection that writes. Whoever needs a commit and finds nobody
 * busy does it himself, on a thread of the pool; the others wait, and mostly find that theirs has
 * been done with it. Each commit takes all that had come until it began, so concurrent flushes share
 * one. A batch that is full is committed in the background; writers wait only where the next one is
 * full, too.
 *
 * A commit that fails leaves its batch sealed: it stays readable, and is tried again, by every
 * flush, and once a RETRY_NS by a write or by itself. Until it succeeds flushes and writes fail with
 * its error, at once.
 *
 * The mutex is held for a few instructions, never across a commit.
 */
#include <errno.h>
#include "backends/sqlite/sqlite.h"
#include "core/offload.h"
#include "core/task.h"

#define IDLE_NS	 (NS_PER_S / 10)
#define LOOK_NS	 (NS_PER_S / 100) /* whether the disk is being closed */
#define AGE_NS	 NS_PER_S
#define RETRY_NS NS_PER_S

void committer_init(struct committer *committer)
{
	task_mutex_init(&committer->mutex);
}

void committer_destroy(struct committer *committer)
{
	task_mutex_destroy(&committer->mutex);
}

/* ---- Under the mutex. ---- */

static void give(struct committer *committer)
{
	committer->busy = false;
	wait_queue_wake_all(&committer->changed);
}

/* Waits for whoever is busy. His error, if he has failed to commit. */
static int wait_for_other(struct committer *committer)
{
	uint64_t failures = committer->failures;

	wait_queue_wait(&committer->changed, &committer->mutex);
	return committer->failures != failures ? atomic_load(&committer->error) : 0;
}

static void note_result(struct disk *disk, int error)
{
	struct committer *committer = &sqlite_of(disk)->committer;

	if (error) {
		committer->failures++;
		atomic_store(&committer->error_ns, now_ns());
	} else if (atomic_load(&committer->error)) {
		log_info(disk->name, "'%s' can be written again", sqlite_of(disk)->path);
	}
	atomic_store(&committer->error, error);
}

/* ---- One commit. ---- */

struct commit_job {
	struct sqlite *sqlite;
	uint64_t number; /* of the batch; 0: there was none */
	int error;
};

static void commit_job(void *argument)
{
	struct commit_job *job = argument;
	struct batch *batch = pending_sealed(&job->sqlite->pending);

	if (!batch)
		return;
	job->number = batch->number;
	job->error = apply_batch(job->sqlite, batch);
}

static void checkpoint_start(struct disk *disk);

/* Commits the batch that is sealed, or else the active one. Busy, and under the mutex, which is
 * released meanwhile. */
static int commit_once(struct disk *disk)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct committer *committer = &sqlite->committer;
	struct commit_job job = {.sqlite = sqlite};

	task_mutex_unlock(&committer->mutex);
	if (pending_seal(&sqlite->pending) < 0)
		job.error = error_io(ENOMEM);
	else
		offload(commit_job, &job);
	if (!job.error && job.number > 0)
		pending_committed(&sqlite->pending);
	task_mutex_lock(&committer->mutex);
	note_result(disk, job.error);
	if (!job.error && job.number > 0)
		committer->committed = job.number;
	checkpoint_start(disk);
	return job.error;
}

/* Batch @number, and all before it, are in the file. */
static int commit_until(struct disk *disk, uint64_t number)
{
	struct committer *committer = &sqlite_of(disk)->committer;
	int error = 0;

	task_mutex_lock(&committer->mutex);
	while (!error && committer->committed < number) {
		if (committer->busy) {
			error = wait_for_other(committer);
			continue;
		}
		committer->busy = true;
		error = commit_once(disk);
		give(committer);
	}
	if (committer->committed >= number)
		error = 0;
	task_mutex_unlock(&committer->mutex);
	return error;
}

int commit_all(struct disk *disk)
{
	return commit_until(disk, pending_newest(&sqlite_of(disk)->pending));
}

int commit_check(struct disk *disk)
{
	struct committer *committer = &sqlite_of(disk)->committer;
	int error = atomic_load(&committer->error);

	if (!error || now_ns() - atomic_load(&committer->error_ns) < RETRY_NS)
		return error;
	return commit_all(disk);
}

/* ---- In the background. ---- */

/* Under the mutex. */
static void background_end(struct committer *committer)
{
	committer->background--;
	wait_queue_wake_all(&committer->changed);
}

/* What commit_background() has begun. */
static void background_run(void *argument)
{
	struct disk *disk = argument;
	struct committer *committer = &sqlite_of(disk)->committer;

	task_mutex_lock(&committer->mutex);
	commit_once(disk);
	give(committer);
	background_end(committer);
	task_mutex_unlock(&committer->mutex);
}

/*
 * Seals the active batch, so that there is room at once, and commits it in a task of its own. Under
 * the mutex, nobody busy, no batch sealed. 0 or an error.
 */
static int commit_background(struct disk *disk)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct committer *committer = &sqlite->committer;
	int error;

	if (pending_seal(&sqlite->pending) < 0)
		return error_io(ENOMEM);
	committer->busy = true;
	committer->background++;
	if (task_start(background_run, disk) == 0)
		return 0;
	error = commit_once(disk);
	give(committer);
	background_end(committer);
	return error;
}

int commit_make_room(struct disk *disk)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct committer *committer = &sqlite->committer;
	int error = 0;

	task_mutex_lock(&committer->mutex);
	while (!error && pending_is_full(&sqlite->pending)) {
		if (committer->busy) {
			error = wait_for_other(committer);
		} else if (!pending_has_sealed(&sqlite->pending)) {
			error = commit_background(disk);
		} else { /* it has failed before */
			committer->busy = true;
			error = commit_once(disk);
			give(committer);
		}
	}
	task_mutex_unlock(&committer->mutex);
	return error;
}

/* Commits what has not changed for IDLE_NS, or has been waiting for AGE_NS; under the mutex. */
static void watch(struct disk *disk, uint64_t *changes, uint64_t *since_ns)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct committer *committer = &sqlite->committer;
	uint64_t now = now_ns(), seen = pending_changes(&sqlite->pending);
	bool due = seen == *changes || now - *since_ns >= AGE_NS;

	*changes = seen;
	if (!due || committer->busy ||
	    (atomic_load(&committer->error) && now - atomic_load(&committer->error_ns) < RETRY_NS))
		return;
	committer->busy = true;
	commit_once(disk);
	give(committer);
	*since_ns = now_ns();
}

/* Whether there is nothing to watch any more; if so, whoever changes something starts it anew. */
static bool watch_ends(struct sqlite *sqlite)
{
	struct committer *committer = &sqlite->committer;

	if (atomic_load(&committer->closing))
		return true;
	if (pending_newest(&sqlite->pending) > 0)
		return false;
	atomic_store(&committer->watching, false);
	/* A change before this has found somebody watching. */
	return pending_newest(&sqlite->pending) == 0 || atomic_exchange(&committer->watching, true);
}

/* Sleeps for IDLE_NS, unless there is nothing to wait for any more. */
static void watch_sleep(const struct committer *committer)
{
	for (uint64_t end_ns = now_ns() + IDLE_NS;
	     now_ns() < end_ns && !atomic_load(&committer->closing);)
		task_sleep_ns(LOOK_NS);
}

static void watch_run(void *argument)
{
	struct disk *disk = argument;
	struct sqlite *sqlite = sqlite_of(disk);
	struct committer *committer = &sqlite->committer;
	uint64_t changes = 0, since_ns = now_ns();
	bool ends = false;

	while (!ends) {
		watch_sleep(committer);
		task_mutex_lock(&committer->mutex);
		ends = watch_ends(sqlite);
		if (!ends)
			watch(disk, &changes, &since_ns);
		else
			background_end(committer);
		task_mutex_unlock(&committer->mutex);
	}
}

static void watch_start(struct disk *disk)
{
	struct committer *committer = &sqlite_of(disk)->committer;

	if (atomic_load(&committer->watching) || atomic_exchange(&committer->watching, true))
		return;
	task_mutex_lock(&committer->mutex);
	committer->background++;
	if (task_start(watch_run, disk) < 0) {
		/* The next change tries again. */
		atomic_store(&committer->watching, false);
		background_end(committer);
	}
	task_mutex_unlock(&committer->mutex);
}

void commit_later(struct disk *disk, bool full)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct committer *committer = &sqlite->committer;

	watch_start(disk);
	if (!full)
		return;
	task_mutex_lock(&committer->mutex);
	if (!committer->busy && !pending_has_sealed(&sqlite->pending) &&
	    pending_is_full(&sqlite->pending))
		commit_background(disk); /* its error is remembered */
	task_mutex_unlock(&committer->mutex);
}

/* ---- Checkpoints. ---- */

struct checkpoint_job {
	struct sqlite *sqlite;
	int error;
};

static void checkpoint_job(void *argument)
{
	struct checkpoint_job *job = argument;

	job->error = apply_checkpoint(job->sqlite);
}

static void checkpoint_run(void *argument)
{
	struct disk *disk = argument;
	struct sqlite *sqlite = sqlite_of(disk);
	struct committer *committer = &sqlite->committer;
	struct checkpoint_job job = {.sqlite = sqlite};

	offload(checkpoint_job, &job);
	task_mutex_lock(&committer->mutex);
	committer->checkpointing = false;
	/* If it has failed, a commit does it when there is no way round it. */
	if (!job.error)
		atomic_store(&committer->restart, true);
	background_end(committer);
	task_mutex_unlock(&committer->mutex);
}

/* Under the mutex. */
static void checkpoint_start(struct disk *disk)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct committer *committer = &sqlite->committer;

	if (committer->checkpointing || atomic_load(&committer->closing) ||
	    !apply_wants_checkpoint(sqlite))
		return;
	committer->checkpointing = true;
	committer->background++;
	if (task_start(checkpoint_run, disk) < 0) {
		committer->checkpointing = false;
		background_end(committer);
	}
}

/* ---- The rest. ---- */

struct mark_job {
	struct sqlite *sqlite;
	const uint8_t *fingerprint;
	int error;
};

static void own_job(void *argument)
{
	struct mark_job *job = argument;

	job->error = apply_marks(job->sqlite, true, false);
}

int commit_own(struct disk *disk)
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct committer *committer = &sqlite->committer;
	struct mark_job job = {.sqlite = sqlite};

	task_mutex_lock(&committer->mutex);
	while (committer->busy)
		wait_queue_wait(&committer->changed, &committer->mutex);
	if (!atomic_load(&sqlite->own)) {
		committer->busy = true;
		task_mutex_unlock(&committer->mutex);
		offload(own_job, &job);
		task_mutex_lock(&committer->mutex);
		atomic_store(&sqlite->own, !job.error);
		give(committer);
	}
	task_mutex_unlock(&committer->mutex);
	return job.error;
}

static void fingerprint_job(void *argument)
{
	struct mark_job *job = argument;

	job->error = apply_fingerprint(job->sqlite, job->fingerprint);
}

int commit_fingerprint(struct disk *disk, const uint8_t fingerprint[FINGERPRINT_SIZE])
{
	struct sqlite *sqlite = sqlite_of(disk);
	struct committer *committer = &sqlite->committer;
	struct mark_job job = {.sqlite = sqlite, .fingerprint = fingerprint};

	task_mutex_lock(&committer->mutex);
	while (committer->busy)
		wait_queue_wait(&committer->changed, &committer->mutex);
	committer->busy = true;
	task_mutex_unlock(&committer->mutex);
	offload(fingerprint_job, &job);
	task_mutex_lock(&committer->mutex);
	give(committer);
	task_mutex_unlock(&committer->mutex);
	return job.error;
}

void commit_end(struct disk *disk)
{
	struct committer *committer = &sqlite_of(disk)->committer;

	task_mutex_lock(&committer->mutex);
	atomic_store(&committer->closing, true);
	while (committer->background > 0)
		wait_queue_wait(&committer->changed, &committer->mutex);
	task_mutex_unlock(&committer->mutex);
}
