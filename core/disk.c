// SPDX-License-Identifier: MIT
/*
 * What stands in front of every driver: validation at open, the checks and the counting of every
 * request, FUA emulation. The size is in resize.c.
 */
#include "core/disk.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/disk_private.h"
#include "core/fit.h"
#include "core/report.h"
#include "core/task.h"
#include "core/trace.h"
#include "core/worker.h"

/* ---- Open and close. ---- */

static int geometry_validate(struct disk *disk, struct err *err)
{
	struct disk_geometry *geometry = &disk->geometry;
	uint64_t max_count;

	if (!is_power_of_two(geometry->sector_size) || geometry->sector_size < 512 ||
	    geometry->sector_size > GEOMETRY_SECTOR_MAX)
		return err_set(err, "invalid sector size %u: must be a power of two, 512 to %u",
			       geometry->sector_size, GEOMETRY_SECTOR_MAX);
	if (!is_power_of_two(geometry->physical_sector_size) ||
	    geometry->physical_sector_size < geometry->sector_size)
		return err_set(err,
			       "invalid physical sector size %u: must be a power of two, at least "
			       "the sector size of %u",
			       geometry->physical_sector_size, geometry->sector_size);
	max_count = (uint64_t)INT64_MAX / geometry->sector_size;
	if (disk_sector_count(disk) > max_count)
		return err_set(err, "too large: more than %llu sectors of %u bytes",
			       (unsigned long long)max_count, geometry->sector_size);
	if (geometry->memory_align == 0)
		geometry->memory_align = 1;
	if (geometry->length_align < geometry->memory_align)
		geometry->length_align = geometry->memory_align;
	if (geometry->optimal_unmap_sectors == 0)
		geometry->optimal_unmap_sectors = 1;
	assert(is_power_of_two(geometry->memory_align) && geometry->memory_align <= 4096);
	assert(is_power_of_two(geometry->length_align));
	assert(is_aligned(geometry->max_transfer, geometry->sector_size));
	return 0;
}

int disk_ready(struct disk *disk, struct err *err)
{
	if (geometry_validate(disk, err) < 0)
		return -1;
	if (disk->open_flags & DISK_OPEN_READ_ONLY)
		disk->geometry.read_only = true;
	disk->core.sector_shift = log2_of(disk->geometry.sector_size);
	return 0;
}

static void disk_free(struct disk *disk)
{
	if (!disk)
		return;
	range_lock_destroy(&disk->core.own_byte_lock);
	task_mutex_destroy(&disk->core.resize_mutex);
	task_mutex_destroy(&disk->core.count_mutex);
	task_mutex_destroy(&disk->core.attach_mutex);
	stats_destroy(&disk->core.stats);
	options_free(disk->driver->options, disk->config);
	free(disk->config);
	free(disk->state);
	free(disk->below);
	free(disk->core.above);
	free((void *)(uintptr_t)disk->name);
	free(disk);
}

/* Takes @config unless it returns NULL. */
static struct disk *disk_new(const struct driver *driver, const char *name, void *config,
			     unsigned below_count)
{
	struct disk *disk = calloc(1, sizeof(*disk));

	if (!disk)
		return NULL;
	disk->driver = driver;
	disk->config = config;
	disk->name = strdup(name);
	disk->state = calloc(1, max_u64(driver->state_size, 1));
	disk->below = calloc(max_u64(below_count, 1), sizeof(*disk->below));
	task_mutex_init(&disk->core.resize_mutex);
	task_mutex_init(&disk->core.count_mutex);
	task_mutex_init(&disk->core.attach_mutex);
	range_lock_init(&disk->core.own_byte_lock);
	if (!disk->name || !disk->state || !disk->below ||
	    stats_init(&disk->core.stats, workers_count()) < 0) {
		disk->config = NULL;
		disk_free(disk);
		return NULL;
	}
	return disk;
}

static bool is_port(const struct disk *disk)
{
	return disk->below_count == 1 && disk->below[0]->driver->port == disk->driver;
}

static int above_add(struct disk *below, struct disk *disk)
{
	struct disk **above =
		realloc(below->core.above, (below->core.above_count + 1) * sizeof(struct disk *));

	if (!above)
		return -ENOMEM;
	above[below->core.above_count++] = disk;
	below->core.above = above;
	return 0;
}

/* Notes in each disk below that @disk stands on it; not while it tells those that do of a resize. */
static int disk_attach(struct disk *disk)
{
	int error = 0;

	for (unsigned i = 0; i < disk->below_count && !error; i++) {
		struct disk *below = disk->below[i];

		task_mutex_lock(&below->core.count_mutex);
		error = above_add(below, disk);
		task_mutex_unlock(&below->core.count_mutex);
	}
	return error;
}

static void disk_detach(struct disk *disk)
{
	for (unsigned i = 0; i < disk->below_count; i++) {
		struct disk *below = disk->below[i];
		unsigned kept = 0;

		task_mutex_lock(&below->core.count_mutex);
		for (unsigned j = 0; j < below->core.above_count; j++)
			if (below->core.above[j] != disk)
				below->core.above[kept++] = below->core.above[j];
		below->core.above_count = kept;
		task_mutex_unlock(&below->core.count_mutex);
	}
}

struct disk *disk_open(const struct driver *driver, const char *name, void *config,
		       unsigned open_flags, struct disk *const *below, unsigned below_count,
		       struct err *err)
{
	struct disk *disk = disk_new(driver, name, config, below_count);

	if (!disk) {
		options_free(driver->options, config);
		free(config);
		err_set(err, "out of memory");
		return NULL;
	}
	disk->open_flags = open_flags;
	disk->below_count = below_count;
	for (unsigned i = 0; i < below_count; i++)
		disk->below[i] = below[i];
	disk->core.byte_lock = is_port(disk) ? below[0]->core.byte_lock : &disk->core.own_byte_lock;
	/* A layer is ready once it is attached. */
	bool is_layer = driver->layer && (open_flags & DISK_OPEN_LAYER);
	uint64_t changes = resize_changes();

	if (driver->open(disk, err) < 0 || (!is_layer && disk_ready(disk, err) < 0)) {
		driver->close(disk);
		disk_free(disk);
		return NULL;
	}
	if (disk_attach(disk) < 0) {
		disk_close(disk);
		err_set(err, "out of memory");
		return NULL;
	}
	if (resize_changes() != changes)
		resize_catch_up(disk);
	return disk;
}

void disk_close(struct disk *disk)
{
	if (!disk)
		return;
	assert(disk->core.above_count == 0);
	resize_end(disk);
	disk_detach(disk);
	disk->driver->close(disk);
	disk_free(disk);
}

/* ---- Properties. ---- */

uint64_t disk_sector_count(const struct disk *disk)
{
	return atomic_load_explicit(&disk->core.sector_count, memory_order_acquire);
}

uint64_t disk_size(const struct disk *disk)
{
	return disk_sector_count(disk) * disk->geometry.sector_size;
}

const char *unmap_behaviour_name(enum unmap_behaviour behaviour)
{
	static const char *const names[] = {
		[UNMAP_IGNORED] = "ignored",
		[UNMAP_UNSPECIFIED] = "unspecified",
		[UNMAP_ZEROES] = "zeroes",
	};

	return names[behaviour];
}

int disk_raw_file(struct disk *disk, struct err *err)
{
	if (disk->driver->raw_file)
		return disk->driver->raw_file(disk, err);
	return err_set(err, "driver '%s' is more than a raw file", disk->driver->name);
}

const struct pr_ops *disk_pr(const struct disk *disk)
{
	return disk->has_no_pr ? NULL : disk->driver->pr;
}

/* ---- Requests. ---- */

int disk_check_range(const struct disk *disk, uint64_t sector, uint64_t count)
{
	uint64_t end;

	/* The count is at most INT64_MAX bytes, so what passes is representable in bytes too. */
	if (__builtin_add_overflow(sector, count, &end) || end > disk_sector_count(disk))
		return error_of(ERROR_ILLEGAL_BLOCK);
	return 0;
}

int disk_check_transfer(const struct disk *disk, const struct sg *sg, uint64_t sector)
{
	if (!is_aligned(sg->len, disk->geometry.sector_size))
		return error_of(ERROR_INVALID_INPUT);
	return disk_check_range(disk, sector, sg->len >> disk_sector_shift(disk));
}

int disk_check_change(const struct disk *disk, unsigned flags, unsigned known_flags)
{
	if (disk->geometry.read_only)
		return error_of(ERROR_READ_ONLY);
	return flags & ~known_flags ? error_of(ERROR_INVALID_INPUT) : 0;
}

void request_begin(struct trace *request, struct disk *disk, enum stats_op op, uint64_t sector,
		   uint64_t count)
{
	*request = (struct trace){.disk = disk, .op = op, .sector = sector, .count = count};
	request->begin_ns = stats_begin(&disk->core.stats, op);
	trace_push(request);
}

int request_end(struct trace *request, struct disk *disk, int error)
{
	trace_pop(request);
	stats_end(&disk->core.stats, request->op, request->begin_ns,
		  request->count << disk_sector_shift(disk), error);
	return error;
}

int disk_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	int error = disk_check_transfer(disk, sg, sector);
	struct trace request;

	if (error || sg->len == 0)
		return error;
	request_begin(&request, disk, STATS_READ, sector, sg->len >> disk_sector_shift(disk));
	return request_end(&request, disk, fit_read(disk, sg, sector));
}

/* What of @flags the driver is given: FUA only if it means something to it. */
static unsigned driver_flags(const struct disk *disk, unsigned flags)
{
	return disk->geometry.fua ? flags : flags & ~(unsigned)DISK_FUA;
}

/* The other half of FUA, for a driver that does not respect it. */
static int flush_for_fua(struct disk *disk, unsigned flags)
{
	return (flags & DISK_FUA) && !disk->geometry.fua ? disk_flush(disk) : 0;
}

int disk_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	int error = disk_check_change(disk, flags, DISK_FUA);
	struct trace request;

	if (!error)
		error = disk_check_transfer(disk, sg, sector);
	if (error || sg->len == 0)
		return error;
	request_begin(&request, disk, STATS_WRITE, sector, sg->len >> disk_sector_shift(disk));
	error = fit_write(disk, sg, sector, driver_flags(disk, flags));
	request_end(&request, disk, error);
	return error ? error : flush_for_fua(disk, flags);
}

int disk_flush(struct disk *disk)
{
	struct trace request;

	if (disk->geometry.read_only)
		return 0;
	if (!disk->driver->flush)
		return error_of(ERROR_UNSUPPORTED);
	request_begin(&request, disk, STATS_FLUSH, 0, 0);
	return request_end(&request, disk, disk->driver->flush(disk));
}

int disk_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	int error = disk_check_change(disk, 0, 0);
	struct trace request;

	if (!error)
		error = disk_check_range(disk, sector, count);
	if (error || count == 0 || disk->geometry.unmap == UNMAP_IGNORED)
		return error;
	if (!disk->driver->unmap)
		return error_of(ERROR_UNSUPPORTED);
	request_begin(&request, disk, STATS_UNMAP, sector, count);
	return request_end(&request, disk, disk->driver->unmap(disk, sector, count));
}

int disk_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	int error = disk_check_change(disk, flags, DISK_FUA | DISK_MAY_UNMAP);
	struct trace request;

	if (!error)
		error = disk_check_range(disk, sector, count);
	if (error || count == 0)
		return error;
	request_begin(&request, disk, STATS_WRITE_ZEROES, sector, count);
	error = fit_write_zeroes(disk, sector, count, driver_flags(disk, flags));
	request_end(&request, disk, error);
	return error ? error : flush_for_fua(disk, flags);
}

int disk_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	struct extent found = {.kind = EXTENT_DATA, .count = count};
	int error =
		count == 0 ? error_of(ERROR_INVALID_INPUT) : disk_check_range(disk, sector, count);

	if (!error && disk->driver->extent)
		error = disk->driver->extent(disk, sector, count, &found);
	if (error)
		return error;
	assert(found.count > 0 && found.count <= count);
	*extent = found;
	return 0;
}

int disk_part(struct disk *disk, uint64_t sector, uint64_t count, struct disk_part *part)
{
	if (!disk->driver->part)
		return error_of(ERROR_UNSUPPORTED);
	return disk->driver->part(disk, sector, count, part);
}

int disk_allocated(struct disk *disk, uint64_t *bytes)
{
	if (disk->driver->allocated)
		return disk->driver->allocated(disk, bytes);
	*bytes = disk_size(disk);
	return 0;
}

int disk_eject(struct disk *disk)
{
	return disk->driver->eject ? disk->driver->eject(disk) : error_of(ERROR_UNSUPPORTED);
}

int disk_tail(struct disk *disk, void *data, size_t *length)
{
	*length = 0;
	return disk->driver->tail ? disk->driver->tail(disk, data, length) : 0;
}

static bool option_is_live(const struct disk *disk, const char *name)
{
	const struct option *option = option_find(disk->driver->options, name);

	return option && (option->flags & OPTION_LIVE);
}

int disk_set_option(struct disk *disk, const char *name, const char *value, struct err *err)
{
	if (!option_is_live(disk, name))
		return err_set_key(err, name, "cannot be changed while mounted");
	return disk->driver->set_option(disk, name, value, err);
}

char *disk_get_option(struct disk *disk, const char *name)
{
	return option_is_live(disk, name) ? disk->driver->get_option(disk, name) : NULL;
}

void disk_inherit_geometry(struct disk *disk, const struct disk *below)
{
	disk->geometry = below->geometry;
	/* Whatever is handed down is made to fit there. */
	disk->geometry.memory_align = 0;
	disk->geometry.length_align = 0;
	disk->geometry.max_segments = 0;
	disk->geometry.max_transfer = 0;
	/* Either emulated below, or not needed. */
	disk->geometry.fua = true;
	disk_set_sector_count(disk, disk_sector_count(below));
}

/* ---- Inspection. ---- */

static void inspect_operation(struct disk *disk, enum stats_op op, struct report *report)
{
	struct stats_totals totals;

	stats_read(&disk->core.stats, op, &totals);
	if (totals.requests == 0 && totals.in_flight == 0)
		return;
	report_object_begin(report, stats_op_name(op));
	report_u64(report, "requests", totals.requests);
	report_bytes(report, "bytes", totals.bytes);
	report_u64(report, "errors", totals.errors);
	report_u64(report, "in_flight", totals.in_flight);
	stats_report_times(&totals, report);
	report_object_end(report);
}

static void inspect_geometry(struct disk *disk, struct report *report)
{
	const struct disk_geometry *geometry = &disk->geometry;
	char id[33];

	report_bytes(report, "size", disk_size(disk));
	report_u64(report, "sector_count", disk_sector_count(disk));
	report_u64(report, "sector_size", geometry->sector_size);
	report_u64(report, "physical_sector_size", geometry->physical_sector_size);
	report_bool(report, "read_only", geometry->read_only);
	report_bool(report, "fua", geometry->fua);
	report_string(report, "unmap", unmap_behaviour_name(geometry->unmap));
	report_u64(report, "optimal_unmap_sectors", geometry->optimal_unmap_sectors);
	report_bool(report, "pr", disk_pr(disk) != NULL);
	if (geometry->has_id)
		report_string(report, "disk_id", format_id(id, geometry->id));
}

void disk_inspect(struct disk *disk, struct report *report)
{
	report_string(report, "node", disk->name);
	report_string(report, "type", disk->driver->name);
	inspect_geometry(disk, report);
	if (disk->driver->inspect)
		disk->driver->inspect(disk, report);
	report_object_begin(report, "operations");
	for (unsigned op = 0; op < STATS_OPS; op++)
		inspect_operation(disk, op, report);
	report_object_end(report);
	if (disk->below_count == 0)
		return;
	report_list_begin(report, "below");
	for (unsigned i = 0; i < disk->below_count; i++) {
		report_object_begin(report, NULL);
		disk_inspect(disk->below[i], report);
		report_object_end(report);
	}
	report_list_end(report);
}
