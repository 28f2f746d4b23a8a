// SPDX-License-Identifier: MIT
#include "tests/lib/layers.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backends/layered/layered.h"
#include "backends/list.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/stacks.h"

static struct fake_layer *fake_of(struct disk *disk)
{
	return *(struct fake_layer **)disk->config;
}

static _Atomic uint64_t fake_calls;

/* Notes a call, waits as told; returns the error that it shall have. */
static int fake_note(struct disk *disk, enum fake_op op, uint64_t sector, uint64_t count,
		     unsigned flags, const struct sg *sg)
{
	struct fake_layer *fake = fake_of(disk);
	struct sg rest = sg ? *sg : (struct sg){.len = 0};
	size_t length;
	struct fake_call call = {
		.op = op,
		.sector = sector,
		.count = count,
		.flags = flags,
		.memory = sg_next(&rest, &length),
		.task = task_self(),
		.order = atomic_fetch_add(&fake_calls, 1),
	};
	unsigned number;
	uint64_t yields;

	pthread_mutex_lock(&fake->mutex);
	number = fake->counts[op]++;
	yields = random_at((uint64_t)op, number) % (fake->yields + 1);
	if (fake->call_count < FAKE_CALLS_MAX)
		fake->calls[fake->call_count++] = call;
	pthread_mutex_unlock(&fake->mutex);
	for (; yields > 0; yields--)
		task_yield();
	while (atomic_load(&fake->hold[op]))
		task_sleep_ns(NS_PER_US * 100);
	return number >= fake->errors_after ? atomic_load(&fake->errors[op]) : 0;
}

char *fake_memory(struct fake_layer *fake)
{
	return fake->data;
}

static char *fake_data(struct fake_layer *fake, uint64_t sector)
{
	return fake->data + sector * fake->geometry.sector_size;
}

void fake_set(struct fake_layer *fake, uint64_t sector, uint64_t count, enum layer_state state,
	      const void *data)
{
	uint32_t size = fake->geometry.sector_size;

	pthread_mutex_lock(&fake->mutex);
	memset(fake->states + sector, (int)state, count);
	if (state == LAYER_DATA && data)
		memcpy(fake_data(fake, sector), data, count * size);
	else /* nobody shall see what was there */
		memset(fake_data(fake, sector), 0xee, count * size);
	pthread_mutex_unlock(&fake->mutex);
}

bool fake_is(struct fake_layer *fake, uint64_t sector, uint64_t count, enum layer_state state)
{
	bool held = true;

	pthread_mutex_lock(&fake->mutex);
	for (uint64_t i = sector; i < sector + count; i++)
		held &= fake->states[i] == state;
	pthread_mutex_unlock(&fake->mutex);
	return held;
}

/* ---- The driver. ---- */

static int fake_open(struct disk *disk, struct err *err)
{
	struct fake_layer *fake = fake_of(disk);

	(void)err;
	fake->disk = disk;
	fake->open_flags = disk->open_flags;
	if (disk_is_layer(disk))
		return 0;
	disk->geometry = fake->geometry;
	disk_set_sector_count(disk, fake->sector_count);
	return 0;
}

static void fake_close(struct disk *disk)
{
	fake_of(disk)->disk = NULL;
}

static int fake_attach(struct disk *disk, struct disk *below, unsigned role, struct err *err)
{
	struct fake_layer *fake = fake_of(disk);
	uint64_t count = fake->sector_count;

	fake_note(disk, FAKE_ATTACH, 0, 0, role, NULL);
	if (fake->attach_error)
		return err_set_key(err, "size", "%s", fake->attach_error);
	fake->below = below;
	fake->role = role;
	disk->geometry = fake->geometry;
	if (count == 0 && below)
		count = disk_sector_count(below);
	disk_set_sector_count(disk, count);
	return 0;
}

/* How many sectors from the first are in its state; 0 for none. With the mutex locked. */
static uint64_t run_of(const struct fake_layer *fake, uint64_t sector, uint64_t count)
{
	uint64_t length = 0;

	while (length < count && fake->states[sector + length] == fake->states[sector])
		length++;
	return length;
}

static void fake_answer(struct fake_layer *fake, const struct sg *sg, uint64_t sector,
			struct layer_gaps *gaps)
{
	uint32_t size = fake->geometry.sector_size;
	uint64_t count = sg->len / size, done = 0;

	while (done < count) {
		uint64_t run = run_of(fake, sector + done, count - done);
		struct sg part = sg_slice(sg, done * size, run * size);

		if (fake->states[sector + done] == LAYER_ABSENT) {
			if (gaps->count == LAYER_GAPS_MAX)
				break;
			gaps->gaps[gaps->count++] = (struct layer_gap){sector + done, run};
		} else if (fake->states[sector + done] == LAYER_DATA) {
			sg_copy_from(&part, fake_data(fake, sector + done));
		} else {
			sg_zero(&part);
		}
		done += run;
	}
	gaps->answered = done;
}

static int fake_read_layer(struct disk *disk, const struct sg *sg, uint64_t sector,
			   struct layer_gaps *gaps)
{
	struct fake_layer *fake = fake_of(disk);
	int error = fake_note(disk, FAKE_READ, sector, sg->len >> disk_sector_shift(disk), 0, sg);

	if (error)
		return error;
	if (sector + (sg->len >> disk_sector_shift(disk)) > disk_sector_count(disk))
		return error_of(ERROR_ILLEGAL_BLOCK); /* it has shrunk */
	pthread_mutex_lock(&fake->mutex);
	fake_answer(fake, sg, sector, gaps);
	pthread_mutex_unlock(&fake->mutex);
	return 0;
}

static int fake_take(struct disk *disk, const struct sg *sg, uint64_t sector, bool overwrite)
{
	struct fake_layer *fake = fake_of(disk);
	uint32_t size = fake->geometry.sector_size;

	pthread_mutex_lock(&fake->mutex);
	for (uint64_t i = 0; i < sg->len / size; i++) {
		struct sg part = sg_slice(sg, i * size, size);

		if (!overwrite && fake->states[sector + i] != LAYER_ABSENT)
			continue;
		fake->states[sector + i] = LAYER_DATA;
		sg_copy_to(&part, fake_data(fake, sector + i));
	}
	pthread_mutex_unlock(&fake->mutex);
	return 0;
}

static int fake_populate(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	int error =
		fake_note(disk, FAKE_POPULATE, sector, sg->len >> disk_sector_shift(disk), 0, sg);

	return error ? error : fake_take(disk, sg, sector, false);
}

static int fake_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	int error =
		fake_note(disk, FAKE_WRITE, sector, sg->len >> disk_sector_shift(disk), flags, sg);

	return error ? error : fake_take(disk, sg, sector, true);
}

static int fake_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	int error = fake_note(disk, FAKE_ZEROES, sector, count, flags, NULL);

	if (!error)
		fake_set(fake_of(disk), sector, count, LAYER_ZEROES, NULL);
	return error;
}

static int fake_drop(struct disk *disk, uint64_t sector, uint64_t count)
{
	int error = fake_note(disk, FAKE_DROP, sector, count, 0, NULL);

	if (!error)
		fake_set(fake_of(disk), sector, count, LAYER_ABSENT, NULL);
	return error;
}

static int fake_run(struct disk *disk, uint64_t sector, uint64_t count, struct layer_run *run)
{
	struct fake_layer *fake = fake_of(disk);

	pthread_mutex_lock(&fake->mutex);
	*run = (struct layer_run){
		.state = (enum layer_state)fake->states[sector],
		.count = run_of(fake, sector, count),
	};
	pthread_mutex_unlock(&fake->mutex);
	return 0;
}

static int fake_flush(struct disk *disk)
{
	return fake_note(disk, FAKE_FLUSH, 0, 0, 0, NULL);
}

static const struct option fake_options[] = {{.name = NULL}};

static const struct layer_ops fake_layer_ops = {
	.attach = fake_attach,
	.read = fake_read_layer,
	.populate = fake_populate,
	.drop = fake_drop,
	.run = fake_run,
};

static const struct driver fake_driver = {
	.name = "fake",
	.summary = "a layer for tests",
	.options = fake_options,
	.config_size = sizeof(struct fake_layer *),
	.open = fake_open,
	.close = fake_close,
	.write = fake_write,
	.flush = fake_flush,
	.write_zeroes = fake_write_zeroes,
};

/* ---- Layered disks. ---- */

static void fake_init(struct fake_layer *fake, unsigned index, uint64_t sectors)
{
	snprintf(fake->name, sizeof(fake->name), "l%u", index);
	fake->driver = fake_driver;
	fake->layer_ops = fake_layer_ops;
	fake->driver.layer = &fake->layer_ops;
	fake->geometry = (struct disk_geometry){
		.sector_size = LAYERS_SECTOR,
		.physical_sector_size = LAYERS_SECTOR,
		.fua = true,
		.unmap = UNMAP_ZEROES,
	};
	fake->sector_count = sectors;
	/* Some of them are to be larger, or to grow. */
	fake->room = 2 * sectors;
	fake->states = calloc(fake->room, 1);
	fake->data = malloc(fake->room * LAYERS_SECTOR);
	fake->calls = calloc(FAKE_CALLS_MAX, sizeof(*fake->calls));
	assert(fake->states && fake->data && fake->calls);
	memset(fake->data, 0xee, fake->room * LAYERS_SECTOR);
	pthread_mutex_init(&fake->mutex, NULL);
}

void layers_init(struct layers *layers, unsigned count, uint64_t sectors, bool has_bottom)
{
	assert(count + has_bottom <= LAYERS_OF_TEST);
	memset(layers, 0, sizeof(*layers));
	layers->fakes = calloc(max_u64(count, 1), sizeof(*layers->fakes));
	assert(layers->fakes);
	layers->count = count;
	layers->has_bottom = has_bottom;
	for (unsigned i = 0; i < count; i++)
		fake_init(&layers->fakes[i], i, sectors);
	probe_init(&layers->bottom, LAYERS_SECTOR, sectors);
	layers->bottom.shared = true;
	/* It has holes of one sector everywhere, otherwise. */
	layers->bottom.driver.extent = NULL;
}

void layers_destroy(struct layers *layers)
{
	for (unsigned i = 0; i < layers->count; i++) {
		free(layers->fakes[i].states);
		free(layers->fakes[i].data);
		free(layers->fakes[i].calls);
		pthread_mutex_destroy(&layers->fakes[i].mutex);
	}
	free(layers->fakes);
	probe_destroy(&layers->bottom);
}

struct disk *fake_open_disk(struct fake_layer *fake, unsigned flags, struct err *err)
{
	struct fake_layer **config = malloc(sizeof(*config));

	assert(config);
	*config = fake;
	return disk_open(&fake->driver, fake->name, config, flags, NULL, 0, err);
}

/* Opens the disks below, with the flags that the layered disk wants. */
static bool open_below(struct layers *layers, const struct driver *driver, const void *config,
		       const struct layers_options *options, struct err *err)
{
	unsigned open_flags = options->open_flags;
	const char *names[LAYERS_OF_TEST];
	unsigned count = layers->count + layers->has_bottom;

	for (unsigned i = 0; i < count; i++)
		names[i] = i < layers->count ? layers->fakes[i].name : "probe";
	for (unsigned i = 0; i < count; i++) {
		unsigned flags = driver->below_flags(config, open_flags, names, i) |
				 (open_flags & (DISK_OPEN_CHECK | DISK_OPEN_COMMAND));

		if (options->all_writable)
			flags &= ~(unsigned)DISK_OPEN_READ_ONLY;
		layers->disks[i] = i < layers->count
					   ? fake_open_disk(&layers->fakes[i], flags, err)
					   : probe_open(&layers->bottom, flags, NULL, err);
		if (!layers->disks[i])
			return false;
		layers->disk_count++;
	}
	return true;
}

struct disk *layers_try(struct layers *layers, const struct layers_options *options,
			struct err *err)
{
	const struct driver *driver = driver_find("layered");
	const char *const texts[][2] = {
		{"read_cache", options->read_cache},
		{"write_through", options->write_through},
		{"hydrate", options->hydrate},
	};
	const char *given[ARRAY_SIZE(texts)][2];
	size_t count = 0;
	void *config;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i][1])
			memcpy(given[count++], texts[i], sizeof(texts[i]));
	config = driver_config(driver, (const char *const(*)[2])given, count, err);
	if (!config)
		return NULL;
	if (open_below(layers, driver, config, options, err)) {
		layers->disk = disk_open(driver, "layered", config, options->open_flags,
					 layers->disks, layers->disk_count, err);
	} else {
		options_free(driver->options, config);
		free(config);
	}
	if (!layers->disk)
		layers_close(layers);
	return layers->disk;
}

bool layers_open(struct layers *layers, const struct layers_options *options)
{
	struct err err = {.text = ""};

	if (layers_try(layers, options, &err))
		return true;
	CHECK_TEXT(err.text, "");
	return false;
}

void layers_close(struct layers *layers)
{
	disk_close(layers->disk);
	layers->disk = NULL;
	while (layers->disk_count > 0)
		disk_close(layers->disks[--layers->disk_count]);
}

void layers_finish(struct layers *layers)
{
	layers_close(layers);
	layers_destroy(layers);
}

void layers_forget(struct layers *layers)
{
	for (unsigned i = 0; i < layers->count; i++) {
		memset(layers->fakes[i].counts, 0, sizeof(layers->fakes[i].counts));
		layers->fakes[i].call_count = 0;
	}
	probe_forget(&layers->bottom);
}

int layers_put(struct layers *layers, const void *data, uint64_t sector, uint64_t count,
	       unsigned flags)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, (void *)(uintptr_t)data, count * LAYERS_SECTOR);

	return disk_write(layers->disk, &sg, sector, flags);
}

int layers_get(struct layers *layers, void *data, uint64_t sector, uint64_t count)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count * LAYERS_SECTOR);

	return disk_read(layers->disk, &sg, sector);
}

struct layered *layers_state(struct layers *layers)
{
	return layers->disk->state;
}

void layers_settle(struct layers *layers)
{
	struct populations *populations = &layers_state(layers)->populations;
	unsigned in_flight;

	do {
		task_sleep_ns(NS_PER_US * 200);
		pthread_mutex_lock(&populations->guard);
		in_flight = populations->in_flight;
		pthread_mutex_unlock(&populations->guard);
	} while (in_flight > 0);
}

bool fake_wait(struct fake_layer *fake, enum fake_op op, unsigned count)
{
	uint64_t end = now_ns() + 20 * NS_PER_S;
	unsigned seen;

	do {
		task_sleep_ns(NS_PER_US * 100);
		pthread_mutex_lock(&fake->mutex);
		seen = fake->counts[op];
		pthread_mutex_unlock(&fake->mutex);
	} while (seen < count && now_ns() < end);
	return CHECK(seen >= count);
}

/* What one sector reads as. */
static void model_sector(struct layers *layers, char *to, uint64_t sector)
{
	const struct probe *bottom = &layers->bottom;

	memset(to, 0, LAYERS_SECTOR);
	for (unsigned i = 0; i < layers->count; i++) {
		struct fake_layer *fake = &layers->fakes[i];

		if (sector >= disk_sector_count(fake->disk) || fake->states[sector] == LAYER_ZEROES)
			return;
		if (fake->states[sector] == LAYER_DATA) {
			memcpy(to, fake_data(fake, sector), LAYERS_SECTOR);
			return;
		}
	}
	if (layers->has_bottom && sector < bottom->sector_count)
		memcpy(to, bottom->data + sector * LAYERS_SECTOR, LAYERS_SECTOR);
}

void layers_model(struct layers *layers, char *model, uint64_t sector, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		model_sector(layers, model + i * LAYERS_SECTOR, sector + i);
}
