/* SPDX-License-Identifier: MIT */
/*
 * Layers of the driver sqlite for tests: opened and attached as a layered disk does it, over a probe
 * or nothing, and a model of what one holds. All in a task.
 */
#ifndef TESTS_LIB_SQLITE_H
#define TESTS_LIB_SQLITE_H

#include "core/layer.h"
#include "tests/lib/probe.h"

#define SQLITE_OPTIONS_MAX 8

/* What a test's layer is opened with, and what it is then. Zeroed, but for the options. */
struct sqlite_layer {
	const char *options[SQLITE_OPTIONS_MAX][2]; /* key, value; the keys end with NULL */
	unsigned flags; /* enum disk_open_flags, besides DISK_OPEN_LAYER */
	unsigned role;
	struct disk *below; /* the caller's; may be NULL */
	bool alone;	    /* no layer */
	struct disk *disk;
};

/* NULL with a sentence in @err. */
struct disk *sqlite_try(struct sqlite_layer *layer, struct err *err);
/* The same, which has to succeed. */
bool sqlite_begin(struct sqlite_layer *layer);
void sqlite_end(struct sqlite_layer *layer);
/* Both, one after the other. */
bool sqlite_again(struct sqlite_layer *layer);
/* Checks that it is refused with a sentence that has @text in it, about option @key. */
void sqlite_refused(struct sqlite_layer *layer, const char *key, const char *text);

/* Removes the file, and what SQLite may have left beside it. */
void sqlite_remove(const char *path);

/* A disk below, of sectors of 512 bytes. */
struct sqlite_base {
	struct probe probe;
	struct disk *disk;
};

/* @id: the sixteen bytes repeat it; NULL: none. */
struct disk *sqlite_base_open(struct sqlite_base *base, uint64_t sectors, const char *id);
void sqlite_base_close(struct sqlite_base *base);

/* Runs SQL on a file that is not open; what it returns is the first column of the first row, or -1.
 */
int64_t sqlite_sql(const char *path, const char *text);

/* ---- A model of a run of sectors. ---- */

struct sqlite_model {
	uint32_t size; /* bytes of a sector */
	uint64_t first, count;
	uint8_t *states; /* enum layer_state */
	char *data;
};

void model_init(struct sqlite_model *model, uint32_t size, uint64_t first, uint64_t count);
void model_free(struct sqlite_model *model);

/* Each does something to the layer and to the model. Sectors of the model. @seed: of the data. */
enum model_op { MODEL_WRITE, MODEL_ZERO, MODEL_DROP, MODEL_POPULATE, MODEL_OPS };

bool model_change(struct sqlite_model *model, struct disk *disk, enum model_op op, uint64_t sector,
		  uint64_t count, uint64_t seed);

/* Checks by reads that the layer has what the model has in [sector, sector + count); by runs. */
bool model_check_read(const struct sqlite_model *model, struct disk *disk, uint64_t sector,
		      uint64_t count);
bool model_check_runs(const struct sqlite_model *model, struct disk *disk, uint64_t sector,
		      uint64_t count);
bool model_check(const struct sqlite_model *model, struct disk *disk);

#endif
