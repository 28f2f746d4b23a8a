/* SPDX-License-Identifier: MIT */
/*
 * What the files of the driver `sqlite` share: sqlite.c (options, operations, what it is), open.c
 * (opening, attaching, closing), read.c, commit.c (from memory into the file), cache.c (what a cache
 * forgets). Private to them.
 */
#ifndef BACKENDS_SQLITE_SQLITE_H
#define BACKENDS_SQLITE_SQLITE_H

#include "backends/sqlite/absence.h"
#include "backends/sqlite/format.h"
#include "backends/sqlite/pending.h"
#include "core/layer.h"

struct sqlite_config {
	char *path, *cache_dir, *key;
	uint64_t size, sector_size, limit;
	struct string_list base_check;
};

/* ---- Connections that read: read.c ---- */

#define READERS_MAX 8

struct readers {
	struct task_mutex mutex;
	struct wait_queue freed;
	struct reader *idle; /* the one used last is first */
	unsigned count;
	struct reader {
		struct db db;
		bool is_open;
		struct reader *next;
	} readers[READERS_MAX];
};

/* ---- Commits: commit.c ---- */

struct committer {
	struct task_mutex mutex;
	struct wait_queue changed; /* something below is not what it was */
	bool busy;		   /* somebody uses the connection that writes */
	uint64_t committed;	   /* number of the newest batch in the file */
	uint64_t failures;	   /* commits that have failed */
	unsigned background;	   /* tasks that run on their own */
	bool checkpointing;
	atomic_bool restart; /* most of the log is in the file: let it start anew */
	atomic_bool closing;
	atomic_bool watching; /* the task that commits what nobody asks for is there */
	/* Bytes of the log from which on it is copied into the file, and commits wait for that. */
	uint64_t wal_soft, wal_hard;
	_Atomic int error; /* of the last commit; 0: it went well */
	_Atomic uint64_t error_ns;
	/* For `.status`. */
	_Atomic uint64_t commits, checkpoints;
	_Atomic uint64_t wal_bytes; /* of the log, as of the last commit */
};

/* ---- Caches: cache.c ---- */

struct cache {
	uint64_t limit; /* bytes of data; 0: none */
	unsigned shift; /* log2 of the sectors of a range */
	uint64_t hand;	/* the range that is looked at next */
	uint64_t range_count;
	_Atomic uint8_t *uses; /* of each range, see cache.c; NULL: it does not forget */
	uint64_t fresh;	       /* bytes that were new in this epoch */
	_Atomic unsigned epoch;
	_Atomic uint64_t evicted_bytes;
};

/* ---- One disk. ---- */

struct sqlite {
	bool was_opened;  /* hold, readers and writer are in use */
	bool is_attached; /* all is known, and stays */
	bool is_alone;	  /* no layer of another disk */
	bool is_writable;
	unsigned role;	 /* enum layer_role */
	unsigned checks; /* enum base_checks */
	char *path;
	struct hold hold;
	struct meta meta; /* as of opening, but own and dirty */
	atomic_bool own;  /* see format.h */
	/* A copy that could not be told of what is no copy any more: it has nothing. */
	atomic_bool gave_up;
	struct runs_file file;
	struct log_limit log_limit;
	struct pending pending;
	struct absence absence; /* of the file */
	struct readers readers;
	struct runs_writer writer;
	char *chunk_buffer; /* for whoever uses the writer */
	struct db checkpointer;
	struct committer committer;
	struct cache cache;
	/* Of a diff with a limit: bytes of writes that were let in and are in no batch yet. */
	struct task_mutex quota_mutex;
	_Atomic uint64_t quota_reserved;
	/* As of the last commit. */
	_Atomic uint64_t file_runs, file_data_bytes;
};

static inline struct sqlite *sqlite_of(const struct disk *disk)
{
	return disk->state;
}

/* open.c */
int sqlite_open(struct disk *disk, struct err *err);
void sqlite_close(struct disk *disk);
int sqlite_attach(struct disk *disk, struct disk *below, unsigned role, struct err *err);

/* read.c */
void readers_init(struct readers *readers);
void readers_destroy(struct readers *readers); /* blocks: never on a worker */

/*
 * As struct layer_ops says of read(). @sg may be NULL: then it only looks for gaps. *active, where it
 * is wanted, becomes the number of the batch that was active before anything was looked at.
 */
int sqlite_read_layer(struct disk *disk, const struct sg *sg, uint64_t sector, uint64_t count,
		      struct layer_gaps *gaps, uint64_t *active);
int sqlite_run(struct disk *disk, uint64_t sector, uint64_t count, struct layer_run *run);

/* commit.c */
void committer_init(struct committer *committer);
void committer_destroy(struct committer *committer);

/* Before a change: an error where the last commit has failed, and one more does not do better. */
int commit_check(struct disk *disk);
/* Waits until the active batch is not full. */
int commit_make_room(struct disk *disk);
/* After a change. @full: of pending_leave(). */
void commit_later(struct disk *disk, bool full);
/* All that was acknowledged becomes durable. */
int commit_all(struct disk *disk);
/* The file may hold what is nowhere else, from here on. */
int commit_own(struct disk *disk);
/* The fingerprint of the disk below is this, from here on; durable when it returns. */
int commit_fingerprint(struct disk *disk, const uint8_t fingerprint[FINGERPRINT_SIZE]);
/* Waits for what runs in the background, and lets nothing more begin. */
void commit_end(struct disk *disk);

/* apply.c: a batch becomes rows; blocks: never on a worker. */
int apply_batch(struct sqlite *sqlite, struct batch *batch);
/* Sets the marks of the file in a transaction of its own; the same. */
int apply_marks(struct sqlite *sqlite, bool own, bool dirty);
/* The same for the fingerprint of the disk below. */
int apply_fingerprint(struct sqlite *sqlite, const uint8_t fingerprint[FINGERPRINT_SIZE]);
/* Copies the log into the file, beside commits, on a connection of its own. 0 or an error. */
int apply_checkpoint(struct sqlite *sqlite);
/* Whether the log is long enough for that. */
bool apply_wants_checkpoint(const struct sqlite *sqlite);
/* Takes note of the pages of the log, and of what is in the file; once, at opening. */
void apply_init(struct sqlite *sqlite);

/* cache.c */
/* 0 or -ENOMEM. */
int cache_init(struct cache *cache, uint64_t limit, unsigned sector_shift, uint64_t sector_count);
void cache_destroy(struct cache *cache);
/* Somebody wants what is in the range. Any thread. */
void cache_use(struct cache *cache, uint64_t sector, uint64_t count);
/*
 * Makes room for @bytes more of data, in the transaction that is under way: forgets ranges that
 * nobody has used for long. On the writer's thread.
 */
int cache_evict(struct sqlite *sqlite, uint64_t bytes);

#endif
