// SPDX-License-Identifier: MIT
/*
 * What stands in front of the layers' own operations, as disk.c does in front of all drivers'.
 *
 * Layers have no limits of transfers: what reaches one of them need not be made fit (core/fit.h).
 */
#include "core/layer.h"
#include <assert.h>
#include "core/disk_private.h"

int layer_attach(struct disk *disk, struct disk *below, unsigned role, struct err *err)
{
	const struct disk_geometry *geometry = &disk->geometry;
	int result;

	if (!disk_is_layer(disk))
		return 0;
	assert(disk->open_flags & DISK_OPEN_LAYER);
	/* Several disks that stand on it may be opened at the same time. */
	task_mutex_lock(&disk->core.attach_mutex);
	result = disk->driver->layer->attach(disk, below, role, err);
	if (result == 0)
		result = disk_ready(disk, err);
	task_mutex_unlock(&disk->core.attach_mutex);
	assert(result < 0 || (geometry->memory_align == 1 && geometry->max_segments == 0 &&
			      geometry->max_transfer == 0));
	return result;
}

int layer_read(struct disk *disk, const struct sg *sg, uint64_t sector, struct layer_gaps *gaps)
{
	uint64_t count = sg->len >> disk_sector_shift(disk);
	struct trace request;
	int error;

	gaps->count = 0;
	gaps->answered = count;
	if (!disk_is_layer(disk))
		return disk_read(disk, sg, sector);
	error = disk_check_transfer(disk, sg, sector);
	if (error || count == 0)
		return error;
	request_begin(&request, disk, STATS_READ, sector, count);
	error = disk->driver->layer->read(disk, sg, sector, gaps);
	assert(error || (gaps->count <= LAYER_GAPS_MAX && gaps->answered > 0 &&
			 (gaps->answered == count ||
			  (gaps->answered < count && gaps->count == LAYER_GAPS_MAX))));
	return request_end(&request, disk, error);
}

int layer_run(struct disk *disk, uint64_t sector, uint64_t count, struct layer_run *run)
{
	struct layer_run found = {.state = LAYER_DATA, .count = count};
	int error =
		count == 0 ? error_of(ERROR_INVALID_INPUT) : disk_check_range(disk, sector, count);

	if (!error && disk_is_layer(disk))
		error = disk->driver->layer->run(disk, sector, count, &found);
	if (error)
		return error;
	assert(found.count > 0 && found.count <= count);
	*run = found;
	return 0;
}

int layer_populate(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	uint64_t count = sg->len >> disk_sector_shift(disk);
	struct trace request;
	int error = disk_check_transfer(disk, sg, sector);

	if (disk->open_flags & (DISK_OPEN_READ_ONLY | DISK_OPEN_CHECK))
		return error_of(ERROR_READ_ONLY);
	if (error || count == 0)
		return error;
	request_begin(&request, disk, STATS_WRITE, sector, count);
	return request_end(&request, disk, disk->driver->layer->populate(disk, sg, sector));
}

int layer_drop(struct disk *disk, uint64_t sector, uint64_t count)
{
	struct trace request;
	int error = disk_check_change(disk, 0, 0);

	if (!error)
		error = disk_check_range(disk, sector, count);
	if (error || count == 0)
		return error;
	request_begin(&request, disk, STATS_UNMAP, sector, count);
	return request_end(&request, disk, disk->driver->layer->drop(disk, sector, count));
}

/* ---- Lists of layers. ---- */

uint64_t layers_end(struct disk *const *layers, unsigned count)
{
	uint64_t end = UINT64_MAX;

	for (unsigned i = 0; i < count; i++)
		end = min_u64(end, disk_sector_count(layers[i]));
	return end;
}

/* The last layer: what it does not have is zeros, whether it is a layer or a disk with holes. */
static int run_of_last(struct disk *disk, uint64_t sector, uint64_t count, struct layer_run *run)
{
	struct extent extent;
	int error;

	if (disk_is_layer(disk))
		return layer_run(disk, sector, count, run);
	error = disk_extent(disk, sector, count, &extent);
	if (!error)
		*run = (struct layer_run){
			.state = extent.kind == EXTENT_DATA ? LAYER_DATA : LAYER_ZEROES,
			.count = extent.count,
		};
	return error;
}

/* As layer_run(), for layer @index of a list. */
static int run_in_list(struct disk *const *layers, unsigned layer_count, uint64_t skip,
		       unsigned index, uint64_t sector, uint64_t count, struct layer_run *run)
{
	if (index == layer_count - 1)
		return run_of_last(layers[index], sector, count, run);
	if (index >= 64 || !(skip >> index & 1))
		return layer_run(layers[index], sector, count, run);
	*run = (struct layer_run){.state = LAYER_ABSENT, .count = count};
	return 0;
}

int layers_find(struct disk *const *layers, unsigned layer_count, uint64_t skip, uint64_t sector,
		uint64_t count, struct layer_place *place)
{
	struct layer_run run = {.state = LAYER_ABSENT, .count = count};
	unsigned index;

	for (index = 0; index < layer_count; index++) {
		uint64_t end = disk_sector_count(layers[index]);
		int error;

		if (sector >= end) {
			index = layer_count;
			break;
		}
		run.count = min_u64(run.count, end - sector);
		error = run_in_list(layers, layer_count, skip, index, sector, run.count, &run);
		if (error)
			return error;
		if (run.state != LAYER_ABSENT)
			break;
	}
	if (run.state == LAYER_ABSENT)
		run.state = LAYER_ZEROES;
	*place = (struct layer_place){.index = index, .run = run};
	return 0;
}
