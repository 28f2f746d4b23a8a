// SPDX-License-Identifier: MIT
#include "tests/lib/sqlite.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "backends/list.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/stacks.h"

/* ---- Opening. ---- */

struct disk *sqlite_try(struct sqlite_layer *layer, struct err *err)
{
	unsigned count = 0;

	while (count < SQLITE_OPTIONS_MAX && layer->options[count][0])
		count++;
	*err = (struct err){.text = ""};
	layer->disk = driver_open(driver_find("sqlite"), layer->options, count,
				  layer->flags | (layer->alone ? 0 : DISK_OPEN_LAYER), NULL, err);
	if (layer->disk && !layer->alone &&
	    layer_attach(layer->disk, layer->below, layer->role, err) < 0)
		sqlite_end(layer);
	return layer->disk;
}

bool sqlite_begin(struct sqlite_layer *layer)
{
	struct err err;

	if (sqlite_try(layer, &err))
		return true;
	CHECK_TEXT(err.text, "");
	return false;
}

void sqlite_end(struct sqlite_layer *layer)
{
	disk_close(layer->disk);
	layer->disk = NULL;
}

bool sqlite_again(struct sqlite_layer *layer)
{
	sqlite_end(layer);
	return sqlite_begin(layer);
}

void sqlite_refused(struct sqlite_layer *layer, const char *key, const char *text)
{
	struct err err;

	if (!CHECK(!sqlite_try(layer, &err)))
		sqlite_end(layer);
	CHECK_TEXT(err.key, key);
	if (!strstr(err.text, text))
		CHECK_TEXT(err.text, text);
}

void sqlite_remove(const char *path)
{
	static const char *const ends[] = {"", "-wal", "-shm"};
	char name[200];

	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
		snprintf(name, sizeof(name), "%s%s", path, ends[i]);
		unlink(name);
	}
}

struct disk *sqlite_base_open(struct sqlite_base *base, uint64_t sectors, const char *id)
{
	struct err err;

	probe_init(&base->probe, 512, sectors);
	base->probe.geometry.has_id = id != NULL;
	base->probe.geometry.read_only = true; /* as below a diff */
	for (unsigned i = 0; id && i < 16; i++)
		base->probe.geometry.id[i] = (uint8_t)id[i % strlen(id)];
	base->disk = probe_open(&base->probe, 0, NULL, &err);
	CHECK(base->disk);
	return base->disk;
}

void sqlite_base_close(struct sqlite_base *base)
{
	disk_close(base->disk);
	probe_destroy(&base->probe);
}

int64_t sqlite_sql(const char *path, const char *text)
{
	sqlite3_stmt *statement = NULL;
	int64_t value = -1;
	sqlite3 *handle;
	const char *rest = text;
	int result = sqlite3_open_v2(path, &handle, SQLITE_OPEN_READWRITE, NULL);

	while (result == SQLITE_OK && *rest) {
		result = sqlite3_prepare_v2(handle, rest, -1, &statement, &rest);
		if (result == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
			value = sqlite3_column_int64(statement, 0);
		if (result == SQLITE_OK)
			result = sqlite3_finalize(statement);
	}
	if (!CHECK_EQ(result, SQLITE_OK))
		fprintf(stderr, "%s: %s\n", text, sqlite3_errmsg(handle));
	CHECK_EQ(sqlite3_close(handle), SQLITE_OK);
	return value;
}

/* ---- The model. ---- */

void model_init(struct sqlite_model *model, uint32_t size, uint64_t first, uint64_t count)
{
	*model = (struct sqlite_model){
		.size = size,
		.first = first,
		.count = count,
		.states = calloc(count, 1),
		.data = calloc(count, size),
	};
}

void model_free(struct sqlite_model *model)
{
	free(model->states);
	free(model->data);
}

static char *sector_data(const struct sqlite_model *model, uint64_t sector)
{
	return model->data + sector * model->size;
}

static void set_sector(struct sqlite_model *model, enum model_op op, uint64_t sector,
		       const char *data)
{
	static const uint8_t states[] = {
		[MODEL_WRITE] = LAYER_DATA,
		[MODEL_POPULATE] = LAYER_DATA,
		[MODEL_ZERO] = LAYER_ZEROES,
		[MODEL_DROP] = LAYER_ABSENT,
	};

	if (op == MODEL_POPULATE && model->states[sector] != LAYER_ABSENT)
		return;
	model->states[sector] = states[op];
	if (states[op] == LAYER_DATA)
		memcpy(sector_data(model, sector), data, model->size);
	else
		memset(sector_data(model, sector), 0, model->size);
}

bool model_change(struct sqlite_model *model, struct disk *disk, enum model_op op, uint64_t sector,
		  uint64_t count, uint64_t seed)
{
	char *data = malloc(count * model->size);
	uint64_t at = model->first + sector;
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count * model->size);
	int error = 0;

	pattern_fill(data, sg.len, seed);
	if (op == MODEL_WRITE)
		error = disk_write(disk, &sg, at, 0);
	else if (op == MODEL_POPULATE)
		error = layer_populate(disk, &sg, at);
	else if (op == MODEL_ZERO)
		error = disk_write_zeroes(disk, at, count, 0);
	else
		error = layer_drop(disk, at, count);
	for (uint64_t i = 0; i < count && !error; i++)
		set_sector(model, op, sector + i, data + i * model->size);
	free(data);
	return CHECK_OK(error);
}

#define UNTOUCHED 0x5c

/* One sector that was read, and is no gap or is one. */
static bool check_sector(const struct sqlite_model *model, uint64_t sector, const char *data,
			 bool is_gap)
{
	if (!CHECK_EQ(is_gap, model->states[sector] == LAYER_ABSENT))
		return false;
	if (is_gap)
		return CHECK_EQ(bytes_differ(data, model->size, UNTOUCHED), model->size);
	return CHECK(memcmp(data, sector_data(model, sector), model->size) == 0);
}

static bool check_answer(const struct sqlite_model *model, uint64_t sector, const char *data,
			 const struct layer_gaps *gaps)
{
	unsigned gap = 0;

	for (uint64_t i = 0; i < gaps->answered; i++) {
		uint64_t at = model->first + sector + i;
		bool is_gap;

		while (gap < gaps->count && at >= gaps->gaps[gap].sector + gaps->gaps[gap].count)
			gap++;
		is_gap = gap < gaps->count && at >= gaps->gaps[gap].sector;
		if (!check_sector(model, sector + i, data + i * model->size, is_gap)) {
			fprintf(stderr, "sector %llu\n", (unsigned long long)at);
			return false;
		}
	}
	for (unsigned i = 1; i < gaps->count; i++)
		if (!CHECK(gaps->gaps[i - 1].sector + gaps->gaps[i - 1].count <
			   gaps->gaps[i].sector))
			return false;
	return true;
}

bool model_check_read(const struct sqlite_model *model, struct disk *disk, uint64_t sector,
		      uint64_t count)
{
	char *data = malloc(count * model->size);
	bool good = true;

	while (good && count > 0) {
		struct layer_gaps gaps;
		struct iovec iov;
		struct sg sg = sg_of(&iov, data, count * model->size);

		memset(data, UNTOUCHED, sg.len);
		good = CHECK_OK(layer_read(disk, &sg, model->first + sector, &gaps)) &&
		       check_answer(model, sector, data, &gaps);
		sector += gaps.answered;
		count -= gaps.answered;
	}
	free(data);
	return good;
}

/* Data that is nothing but zeros may have become zeros. */
static bool state_agrees(const struct sqlite_model *model, uint64_t sector, enum layer_state state)
{
	if (model->states[sector] == LAYER_DATA && state == LAYER_ZEROES)
		return bytes_differ(sector_data(model, sector), model->size, 0) == model->size;
	return model->states[sector] == state;
}

bool model_check_runs(const struct sqlite_model *model, struct disk *disk, uint64_t sector,
		      uint64_t count)
{
	uint64_t end = sector + count;

	while (sector < end) {
		struct layer_run run;

		if (!CHECK_OK(layer_run(disk, model->first + sector, end - sector, &run)))
			return false;
		for (uint64_t i = 0; i < run.count; i++)
			if (!CHECK(state_agrees(model, sector + i, run.state)))
				return false;
		sector += run.count;
	}
	return true;
}

bool model_check(const struct sqlite_model *model, struct disk *disk)
{
	return model_check_read(model, disk, 0, model->count) &&
	       model_check_runs(model, disk, 0, model->count);
}
