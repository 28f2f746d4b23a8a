// SPDX-License-Identifier: MIT
/*
 * ram: a RAM disk, or a layer (core/layer.h) in memory. Sparse: memory is taken for what is written
 * and given back by unmap; sectors/sectors.h is where it all is, and locks it.
 *
 * Alone, what is unmapped or zeroed is dropped: it reads as zeros, as all that was never written.
 * As a layer it becomes zeros that hide what is below. Likewise, when the size changes while
 * mounted, what is beyond a smaller end is dropped, and what a larger one adds reads as zeros
 * whatever is below. (A write that was under way when the disk shrank may still arrive beyond the
 * end; so what is added is cleared once more.) A layer that has its size from the disk below also
 * follows it; what is added then shows what is below, as all of it did that was not written.
 *
 * Flush: nothing to do. Nothing survives the process.
 */
#include <errno.h>
#include <string.h>
#include "backends/sectors/sectors.h"
#include "core/log.h"
#include "core/report.h"
#include "core/resizable.h"
#include "core/task.h"

#define PAGE_SIZE ((uint64_t)4096)

struct ram_config {
	uint64_t size, sector_size, limit;
	int resizable;
};

struct ram {
	struct sectors *sectors; /* NULL: a layer that is not attached yet */
	struct task_mutex resize_mutex;
	struct disk *followed; /* the disk below a layer that has its size from it; else NULL */
	bool mutex_made;
	struct log_limit full;
};

static struct sectors *sectors_of(const struct disk *disk)
{
	return ((const struct ram *)disk->state)->sectors;
}

static bool is_layer(const struct disk *disk)
{
	return disk->open_flags & DISK_OPEN_LAYER;
}

/* ---- Requests. ---- */

/* Hands on @error; says in the log why there is no memory, and what helps. */
static int tell(struct disk *disk, int error)
{
	const struct ram_config *config = disk->config;
	struct ram *ram = disk->state;
	char used[48], limit[48];
	struct sectors_memory memory;

	if (!error)
		return 0;
	sectors_memory(ram->sectors, &memory);
	format_size(used, memory.data + memory.index);
	if (config->limit > 0)
		log_limited(&ram->full, LOG_LEVEL_ERROR, disk->name,
			    "no memory to write to: %s are in use, and the option limit allows %s",
			    used, format_size(limit, config->limit));
	else
		log_limited(&ram->full, LOG_LEVEL_ERROR, disk->name,
			    "no memory to write to: %s are in use, and the system gives no more",
			    used);
	return error;
}

static int ram_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	unsigned shift = disk_sector_shift(disk);
	struct sg rest = *sg;

	while (rest.len > 0) {
		struct layer_gaps gaps;

		sectors_read(sectors_of(disk), &rest, sector, &gaps);
		for (unsigned i = 0; i < gaps.count; i++) {
			struct sg gap = sg_slice(&rest, (gaps.gaps[i].sector - sector) << shift,
						 gaps.gaps[i].count << shift);

			sg_zero(&gap);
		}
		sector += gaps.answered;
		sg_take(&rest, gaps.answered << shift);
	}
	return 0;
}

static int ram_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	(void)flags; /* as durable as it will ever be */
	return tell(disk, sectors_write(sectors_of(disk), sg, sector));
}

static int ram_flush(struct disk *disk)
{
	(void)disk;
	return 0;
}

static int clear(struct disk *disk, uint64_t sector, uint64_t count, enum layer_state state)
{
	struct sectors_clear clear = {.sector = sector, .count = count, .state = state};
	int result;

	/* What is dropped may be gigabytes: the worker's other tasks have their turns. */
	while ((result = sectors_clear_some(sectors_of(disk), &clear)) > 0)
		task_yield();
	return tell(disk, result);
}

/* What is to be of sectors that shall read as zeros. */
static enum layer_state zero_state(const struct disk *disk)
{
	return is_layer(disk) ? LAYER_ZEROES : LAYER_ABSENT;
}

static int ram_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	return clear(disk, sector, count, zero_state(disk));
}

/* To unmap is the one way to zero: real zeros would only take memory. */
static int ram_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	(void)flags;
	return ram_unmap(disk, sector, count);
}

static int ram_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	struct layer_run run;

	sectors_run(sectors_of(disk), sector, count, &run);
	*extent = (struct extent){
		.kind = run.state == LAYER_DATA ? EXTENT_DATA : EXTENT_HOLE,
		.count = run.count,
	};
	return 0;
}

static int ram_allocated(struct disk *disk, uint64_t *bytes)
{
	struct sectors_memory memory;

	sectors_memory(sectors_of(disk), &memory);
	*bytes = memory.data;
	return 0;
}

/* ---- Life. ---- */

/* The disk is as the options say, or else as @below, which may be NULL. */
static int ram_begin(struct disk *disk, const struct disk *below, struct err *err)
{
	const struct ram_config *config = disk->config;
	struct disk_geometry *geometry = &disk->geometry;
	struct ram *ram = disk->state;
	uint64_t sector_size = config->sector_size, size = config->size;

	if (sector_size == 0)
		sector_size = below ? disk_sector_size(below) : 512;
	if (size == 0 && !below)
		return err_set_key(err, "size", "is missing, but %s needs it",
				   is_layer(disk) ? "a last layer" : "driver 'ram'");
	if (size == 0)
		size = disk_size(below);
	if (size % sector_size != 0)
		return err_set_key(err, "size", "must be a multiple of the sector size of %llu",
				   (unsigned long long)sector_size);
	ram->sectors = sectors_new((uint32_t)sector_size, config->limit);
	if (!ram->sectors)
		return err_set(err, "%s", strerror(ENOMEM));
	*geometry = (struct disk_geometry){
		.sector_size = (uint32_t)sector_size,
		.physical_sector_size = (uint32_t)sector_size,
		.fua = true,
		.unmap = UNMAP_ZEROES,
		.optimal_unmap_sectors = (uint32_t)max_u64(PAGE_SIZE / sector_size, 1),
		.resizable = (enum resizable)config->resizable,
	};
	disk_set_sector_count(disk, size / sector_size);
	return 0;
}

static int ram_open(struct disk *disk, struct err *err)
{
	struct ram *ram = disk->state;

	task_mutex_init(&ram->resize_mutex);
	ram->mutex_made = true;
	return is_layer(disk) ? 0 : ram_begin(disk, NULL, err);
}

static void ram_close(struct disk *disk)
{
	struct ram *ram = disk->state;

	sectors_free(ram->sectors);
	if (ram->mutex_made)
		task_mutex_destroy(&ram->resize_mutex);
}

/* ---- Its size. ---- */

/* With resize_mutex. What is added is in state @added. */
static int resize(struct disk *disk, uint64_t count, enum layer_state added)
{
	uint64_t old = disk_sector_count(disk);
	int error = count > old ? clear(disk, old, count - old, added) : 0;

	if (error)
		return error;
	disk_set_sector_count(disk, count);
	return count < old ? clear(disk, count, old - count, LAYER_ABSENT) : 0;
}

/* Somebody wants it so, and not as the disk below is. */
static int resize_own(struct disk *disk, uint64_t count)
{
	struct ram *ram = disk->state;
	int error;

	task_mutex_lock(&ram->resize_mutex);
	ram->followed = NULL;
	error = resize(disk, count, zero_state(disk));
	task_mutex_unlock(&ram->resize_mutex);
	return error;
}

static int ram_resize(struct disk *disk, uint64_t count)
{
	int error = resizable_check(disk, count);

	return error ? error : resize_own(disk, count);
}

static void ram_below_resized(struct disk *disk, struct disk *below)
{
	struct ram *ram = disk->state;
	int error = 0;

	task_mutex_lock(&ram->resize_mutex);
	if (ram->followed == below)
		error = resize(disk, disk_sector_count(below), LAYER_ABSENT);
	task_mutex_unlock(&ram->resize_mutex);
	if (error)
		log_warning(disk->name, "no memory to follow the new size of '%s'", below->name);
}

/* ---- As a layer. ---- */

static int ram_attach(struct disk *disk, struct disk *below, unsigned role, struct err *err)
{
	const struct ram_config *config = disk->config;
	struct ram *ram = disk->state;

	(void)role; /* it begins empty, so it can be anything */
	/* Another disk that stands on it finds it as it is. */
	if (sectors_of(disk))
		return 0;
	ram->followed = config->size == 0 ? below : NULL;
	return ram_begin(disk, below, err);
}

static int ram_layer_read(struct disk *disk, const struct sg *sg, uint64_t sector,
			  struct layer_gaps *gaps)
{
	sectors_read(sectors_of(disk), sg, sector, gaps);
	return 0;
}

static int ram_populate(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	return tell(disk, sectors_populate(sectors_of(disk), sg, sector));
}

static int ram_drop(struct disk *disk, uint64_t sector, uint64_t count)
{
	return clear(disk, sector, count, LAYER_ABSENT);
}

static int ram_run(struct disk *disk, uint64_t sector, uint64_t count, struct layer_run *run)
{
	sectors_run(sectors_of(disk), sector, count, run);
	return 0;
}

static const struct layer_ops ram_layer = {
	.attach = ram_attach,
	.read = ram_layer_read,
	.populate = ram_populate,
	.drop = ram_drop,
	.run = ram_run,
	.below_resized = ram_below_resized,
};

/* ---- Options that may change, and what is told. ---- */

static int ram_set_option(struct disk *disk, const char *name, const char *text, struct err *err)
{
	uint32_t sector_size = disk_sector_size(disk);
	struct ram_config parsed;

	if (option_parse(option_find(disk->driver->options, name), text, NULL, &parsed, err) < 0)
		return -1;
	if (parsed.size % sector_size != 0)
		return err_set_key(err, name, "must be a multiple of the sector size of %u",
				   sector_size);
	if (disk_is_read_only(disk))
		return err_set_key(err, name, "cannot be changed: the disk is read-only");
	if (resize_own(disk, parsed.size / sector_size))
		return err_set(err, "no memory to change the size of the disk");
	return 0;
}

static char *ram_get_option(struct disk *disk, const char *name)
{
	char text[32];

	return strdup(
		option_format(text, option_find(disk->driver->options, name), disk_size(disk)));
}

static void ram_inspect(struct disk *disk, struct report *report)
{
	const struct ram_config *config = disk->config;
	struct sectors *sectors = sectors_of(disk);
	struct sectors_present present;
	struct sectors_memory memory;

	if (!sectors)
		return;
	sectors_memory(sectors, &memory);
	report_bytes(report, "memory", memory.data);
	report_bytes(report, "index_memory", memory.index);
	if (config->limit > 0)
		report_bytes(report, "limit", config->limit);
	report_string(report, "resizable", resizable_choices[config->resizable]);
	if (!is_layer(disk))
		return;
	sectors_present(sectors, &present);
	report_bytes(report, "data", present.data << disk_sector_shift(disk));
	report_bytes(report, "zeroes", present.zeroes << disk_sector_shift(disk));
}

static const struct option ram_options[] = {
	{.name = "size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct ram_config, size),
	 .flags = OPTION_LIVE,
	 .min = 512,
	 .max = INT64_MAX,
	 .help = "Size of the disk, a multiple of the sector size. Memory is only taken for what "
		 "is written. The default, where it is a layer, is the size of the disk below, "
		 "which "
		 "it follows"},
	RESIZABLE_OPTION(struct ram_config, resizable),
	{.name = "sector_size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct ram_config, sector_size),
	 .flags = OPTION_POWER_OF_TWO,
	 .min = 512,
	 .max = GEOMETRY_SECTOR_MAX,
	 .help = "Logical and physical sector size in bytes. The default is 512 or, where it is a "
		 "layer, that of the disk below"},
	{.name = "limit",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct ram_config, limit),
	 .min = MIB,
	 .help = "How much memory it may take, a few per cent of which are for finding the rest; "
		 "writes fail then (ENOSPC). The default is all that the system gives"},
	{.name = NULL},
};

const struct driver ram_driver = {
	.name = "ram",
	.summary = "a RAM disk, or a layer in memory: sparse, lost at the end",
	.options = ram_options,
	.config_size = sizeof(struct ram_config),
	.state_size = sizeof(struct ram),
	.is_volatile = true,
	.open = ram_open,
	.close = ram_close,
	.read = ram_read,
	.write = ram_write,
	.flush = ram_flush,
	.unmap = ram_unmap,
	.write_zeroes = ram_write_zeroes,
	.extent = ram_extent,
	.allocated = ram_allocated,
	.resize = ram_resize,
	.layer = &ram_layer,
	.set_option = ram_set_option,
	.get_option = ram_get_option,
	.inspect = ram_inspect,
};
