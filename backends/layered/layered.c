// SPDX-License-Identifier: MIT
/*
 * layered: a disk made of layers (core/layer.h), the topmost first. A sector is what the first
 * layer that has it says; what no layer has is zeros.
 *
 * Writes go to the top, and on to the next as long as a layer is *written through*; those are the
 * write path. A *read cache* keeps what was read from below it. read.c, change.c and populate.c say
 * how; hydrate.c fills a cache in the background.
 *
 * Which layers are what is fixed when the disk is opened. What the disk is follows from them:
 *
 *   size			the top's, as of now; a top without a size of its own follows what is
 *				below it
 *   id				of the topmost layer that has one
 *   physical sector size	the largest of all layers, so that it is the same with a diff on top as
 *				without; what fits the largest fits all, and a diff may be written down
 *   FUA			if all of the write path have it
 *   unmap			of the write path, see unmap_merge()
 *
 * Flush: of the write path and of all caches. A crash leaves what the layers promise, each for
 * itself; one that is written through forgets what it is not sure of.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backends/layered/layered.h"
#include "core/report.h"

/* ---- Roles. ---- */

static bool list_has(const struct string_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->items[i], name) == 0)
			return true;
	return false;
}

/* The disks below that are never written, by whoever writes here, are opened read-only. */
static unsigned layered_below_flags(const void *values, unsigned open_flags,
				    const char *const *names, unsigned index)
{
	const struct layered_config *config = values;
	bool is_written = !(open_flags & DISK_OPEN_READ_ONLY);
	unsigned flags = DISK_OPEN_LAYER;

	for (unsigned i = 0; i < index; i++)
		is_written &= list_has(&config->write_through, names[i]);
	if (list_has(&config->read_cache, names[index]))
		flags |= DISK_OPEN_CACHE;
	else if (!is_written)
		flags |= DISK_OPEN_READ_ONLY;
	if (list_has(&config->write_through, names[index]))
		flags |= DISK_OPEN_WRITE_THROUGH;
	return flags;
}

/* Each name in the value of @key is a disk below. */
static int check_names(const struct disk *disk, const char *key, const struct string_list *list,
		       struct err *err)
{
	const char *names[LAYERS_MAX + 1] = {NULL};

	for (unsigned i = 0; i < disk->below_count; i++)
		names[i] = disk->below[i]->name;
	for (size_t i = 0; i < list->count; i++) {
		const char *name = list->items[i], *nearest = name_suggest(names, name);
		bool found = false;

		for (unsigned j = 0; j < disk->below_count; j++)
			found |= strcmp(names[j], name) == 0;
		if (!found && nearest)
			return err_set_key(err, key,
					   "'%s' is not one of the disks below (did you mean "
					   "'%s'?)",
					   name, nearest);
		if (!found)
			return err_set_key(err, key, "'%s' is not one of the disks below", name);
	}
	return 0;
}

static int set_roles(struct disk *disk, struct err *err)
{
	const struct layered_config *config = disk->config;
	struct layered *layered = disk->state;

	if (check_names(disk, "read_cache", &config->read_cache, err) < 0 ||
	    check_names(disk, "write_through", &config->write_through, err) < 0)
		return -1;
	layered->write_layers = 1;
	for (unsigned i = 0; i < disk->below_count; i++) {
		struct layered_layer *layer = &layered->layers[i];
		bool is_below;

		layer->read_cache = list_has(&config->read_cache, disk->below[i]->name);
		layer->write_through = list_has(&config->write_through, disk->below[i]->name);
		if (layer->write_through && layered->write_layers == i + 1)
			layered->write_layers++;
		is_below = i >= layered->write_layers;
		layered->caches_below |= layer->read_cache && is_below;
		if (layer->write_through || (layer->read_cache && is_below))
			layered->copies |= (uint64_t)1 << i;
	}
	return 0;
}

/* ---- What does not make sense. ---- */

static int check_role(const struct disk *disk, unsigned index, struct err *err)
{
	const struct layered *layered = disk->state;
	const struct layered_layer *layer = &layered->layers[index];
	const struct disk *below = disk->below[index];
	bool is_last = index == disk->below_count - 1;

	if (!disk_is_layer(below) && !is_last)
		return err_set_key(err, "below",
				   "'%s' (driver '%s') has every sector, so nothing below it would "
				   "ever be read: it must be the last",
				   below->name, below->driver->name);
	if (layer->write_through && is_last)
		return err_set_key(err, "write_through",
				   "'%s' is the last layer: there is nothing below it to write to",
				   below->name);
	if (layer->write_through && index + 1 >= layered->write_layers)
		return err_set_key(err, "write_through",
				   "nothing is written to '%s', since '%s' above it is not "
				   "written through",
				   below->name, disk->below[index - 1]->name);
	if (layer->read_cache && is_last)
		return err_set_key(err, "read_cache",
				   "'%s' is the last layer: there is nothing below it to keep",
				   below->name);
	if (layer->read_cache && !below->driver->layer->populate)
		return err_set_key(err, "read_cache", "'%s' (driver '%s') cannot be a read cache",
				   below->name, below->driver->name);
	return 0;
}

static int check_roles(const struct disk *disk, struct err *err)
{
	for (unsigned i = 0; i < disk->below_count; i++)
		if (check_role(disk, i, err) < 0)
			return -1;
	return 0;
}

static int check_attached(const struct disk *disk, struct err *err)
{
	const struct layered *layered = disk->state;
	const struct disk *last = disk->below[disk->below_count - 1];

	for (unsigned i = 0; i < disk->below_count; i++) {
		const struct disk *layer = disk->below[i];
		bool is_written =
			i < layered->write_layers && !(disk->open_flags & DISK_OPEN_READ_ONLY);

		if (disk_sector_size(layer) != disk_sector_size(last))
			return err_set_key(err, "below",
					   "the sectors of '%s' have %u bytes, those of '%s' %u: "
					   "they must be equal",
					   layer->name, disk_sector_size(layer), last->name,
					   disk_sector_size(last));
		if (i < layered->write_layers &&
		    disk_sector_count(layer) < disk_sector_count(disk->below[0]))
			return err_set_key(err, "write_through",
					   "'%s' is smaller than '%s': what is written beyond its "
					   "end would be nowhere",
					   layer->name, disk->below[0]->name);
		if (is_written && disk_is_read_only(layer))
			return err_set_key(err, "below",
					   "'%s' is read-only, but what is written here goes to "
					   "it: set readonly = yes here, or put a layer on top "
					   "of it",
					   layer->name);
	}
	return 0;
}

/* ---- Life. ---- */

static unsigned role_of(const struct layered_layer *layer)
{
	return (layer->read_cache ? LAYER_CACHE : 0) |
	       (layer->write_through ? LAYER_WRITE_THROUGH : 0);
}

/* Bottom-up, so that each finds the one below ready. */
static int attach_layers(struct disk *disk, struct err *err)
{
	const struct layered *layered = disk->state;

	for (unsigned i = disk->below_count; i-- > 0;) {
		struct disk *below = i + 1 < disk->below_count ? disk->below[i + 1] : NULL;
		struct err why = {.key = ""};

		if (layer_attach(disk->below[i], below, role_of(&layered->layers[i]), &why) < 0)
			return err_set_key(err, "below", "'%s' cannot be a layer here: %s%s%s",
					   disk->below[i]->name, why.key, why.key[0] ? ": " : "",
					   why.text);
	}
	return 0;
}

static void fold_geometry(struct disk *disk)
{
	const struct layered *layered = disk->state;
	struct disk_geometry *geometry = &disk->geometry;
	bool written_through = false;

	*geometry = (struct disk_geometry){
		.sector_size = disk_sector_size(disk->below[0]),
		.fua = true,
		.unmap = UNMAP_ZEROES,
	};
	for (unsigned i = 0; i < disk->below_count; i++) {
		const struct disk_geometry *layer = &disk->below[i]->geometry;

		geometry->physical_sector_size = (uint32_t)max_u64(geometry->physical_sector_size,
								   layer->physical_sector_size);
		if (layer->has_id && !geometry->has_id) {
			geometry->has_id = true;
			memcpy(geometry->id, layer->id, sizeof(geometry->id));
		}
		if (i >= layered->write_layers)
			continue;
		written_through |= layered->layers[i].write_through;
		geometry->fua &= layer->fua;
		/* What the top is written through to need only grow with it: see layered_resize(). */
		if (i == 0 || layer->resizable == RESIZABLE_NO)
			geometry->resizable = layer->resizable;
		geometry->unmap = unmap_merge(geometry->unmap, layer->unmap, written_through);
		geometry->optimal_unmap_sectors = (uint32_t)max_u64(geometry->optimal_unmap_sectors,
								    layer->optimal_unmap_sectors);
	}
}

/* A layer may follow the next one down; the disk follows the top. */
static void layered_below_resized(struct disk *disk, struct disk *below)
{
	for (unsigned i = 1; i < disk->below_count; i++) {
		struct disk *layer = disk->below[i - 1];

		if (disk->below[i] == below && disk_is_layer(layer) &&
		    layer->driver->layer->below_resized)
			layer->driver->layer->below_resized(layer, below);
	}
	if (below == disk->below[0])
		disk_set_sector_count(disk, disk_sector_count(below));
}

/* What is written through must not end before the top does, at no time; it may end behind it. */
static int layered_resize(struct disk *disk, uint64_t count)
{
	const struct layered *layered = disk->state;
	int error = 0;

	for (unsigned i = layered->write_layers; i-- > 1 && !error;)
		if (disk_sector_count(disk->below[i]) < count)
			error = disk_resize(disk->below[i], count);
	return error ? error : disk_resize(disk->below[0], count);
}

static int layered_open(struct disk *disk, struct err *err)
{
	struct layered *layered = disk->state;

	layered->layers = aligned_alloc(64, disk->below_count * sizeof(*layered->layers));
	if (!layered->layers)
		return err_set(err, "%s", strerror(ENOMEM));
	memset(layered->layers, 0, disk->below_count * sizeof(*layered->layers));
	range_lock_init(&layered->write_lock);
	populations_init(&layered->populations);
	if (set_roles(disk, err) < 0 || check_roles(disk, err) < 0 ||
	    hydrate_check(disk, err) < 0 || attach_layers(disk, err) < 0 ||
	    check_attached(disk, err) < 0)
		return -1;
	fold_geometry(disk);
	disk_set_sector_count(disk, disk_sector_count(disk->below[0]));
	hydrate_start(disk);
	return 0;
}

/*
 * What caches hold need not last, but it would be a pity: a read-only disk, which is never flushed,
 * may have them, too.
 */
static void flush_caches(struct disk *disk)
{
	for (unsigned i = 0; i < disk->below_count; i++) {
		struct disk *layer = disk->below[i];
		char text[80];
		int error = layer_is_populated(disk, i) ? disk_flush(layer) : 0;

		if (error)
			log_warning(disk->name, "the read cache '%s' cannot be flushed: %s",
				    layer->name, error_describe(text, error));
	}
}

static void layered_close(struct disk *disk)
{
	struct layered *layered = disk->state;

	if (!layered->layers)
		return;
	hydrate_end(disk);
	populations_end(&layered->populations);
	if (disk_sector_count(disk) > 0)
		flush_caches(disk);
	range_lock_destroy(&layered->write_lock);
	free(layered->layers);
}

/* ---- All layers as one. ---- */

/* Runs that one call looks at. */
#define EXTENT_RUNS 64

/* Copies are passed by: a hole is a hole, also where zeros of it are kept. */
static int layered_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	const struct layered *layered = disk->state;
	struct extent found = {.count = 0};

	for (unsigned i = 0; i < EXTENT_RUNS && found.count < count; i++) {
		struct layer_place place;
		enum extent_kind kind;
		int error = layers_find(disk->below, disk->below_count, layered->copies,
					sector + found.count, count - found.count, &place);

		if (error)
			return error;
		kind = place.run.state == LAYER_DATA ? EXTENT_DATA : EXTENT_HOLE;
		if (i > 0 && kind != found.kind)
			break;
		found.kind = kind;
		found.count += place.run.count;
	}
	*extent = found;
	return 0;
}

static int layered_part(struct disk *disk, uint64_t sector, uint64_t count, struct disk_part *part)
{
	struct layer_place place;
	int error = layers_find(disk->below, disk->below_count, 0, sector, count, &place);

	if (error)
		return error;
	part->name = place.index < disk->below_count ? disk->below[place.index]->name : NULL;
	part->extent.kind = place.run.state == LAYER_DATA ? EXTENT_DATA : EXTENT_HOLE;
	part->extent.count = place.run.count;
	return 0;
}

/* Copies of what is below do not count. */
static int layered_allocated(struct disk *disk, uint64_t *bytes)
{
	const struct layered *layered = disk->state;
	uint64_t sum = 0, one;

	for (unsigned i = 0; i < disk->below_count; i++) {
		int error;

		if (layered->copies >> i & 1)
			continue;
		error = disk_allocated(disk->below[i], &one);
		if (error)
			return error;
		sum += one;
	}
	*bytes = sum;
	return 0;
}

static const char *role_name(const struct layered *layered, unsigned index)
{
	const struct layered_layer *layer = &layered->layers[index];

	if (layer->read_cache)
		return layer->write_through ? "read and write cache" : "read cache";
	if (layer->write_through)
		return "write cache";
	return index < layered->write_layers ? "written" : "below";
}

static void layered_inspect(struct disk *disk, struct report *report)
{
	struct layered *layered = disk->state;

	report_list_begin(report, "layers");
	for (unsigned i = 0; i < disk->below_count; i++) {
		const struct layered_layer *layer = &layered->layers[i];

		report_object_begin(report, NULL);
		report_string(report, "layer", disk->below[i]->name);
		report_string(report, "role", role_name(layered, i));
		report_bytes(report, "hit_bytes", layer->hit_bytes);
		report_bytes(report, "miss_bytes", layer->miss_bytes);
		if (layer->read_cache) {
			report_bytes(report, "populated_bytes", layer->populated_bytes);
			report_bytes(report, "skipped_bytes", layer->skipped_bytes);
		}
		if (layer->read_cache || layer->write_through)
			report_bytes(report, "failed_bytes", layer->failed_bytes);
		report_object_end(report);
	}
	report_list_end(report);
	hydrate_inspect(disk, report);
}

static const struct option layered_options[] = {
	{.name = "read_cache",
	 .type = OPTION_LIST,
	 .offset = offsetof(struct layered_config, read_cache),
	 .help = "Those of the disks below that keep what is read from below them"},
	{.name = "write_through",
	 .type = OPTION_LIST,
	 .offset = offsetof(struct layered_config, write_through),
	 .help = "Those of the disks below, from the first on, for which what is written to them "
		 "is written to the next one, too"},
	{.name = "hydrate",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct layered_config, hydrate),
	 .max = INT64_MAX,
	 .fallback = "0",
	 .help = "Bytes a second at which the read cache is filled in the background with all "
		 "that it does not have; 0: it is not"},
	{.name = NULL},
};

const struct driver layered_driver = {
	.name = "layered",
	.summary = "layers, each over the next: diffs, caches",
	.options = layered_options,
	.config_size = sizeof(struct layered_config),
	.state_size = sizeof(struct layered),
	.below_min = 1,
	.below_max = LAYERS_MAX,
	.open = layered_open,
	.close = layered_close,
	.read = layered_read,
	.write = layered_write,
	.flush = layered_flush,
	.unmap = layered_unmap,
	.write_zeroes = layered_write_zeroes,
	.extent = layered_extent,
	.part = layered_part,
	.allocated = layered_allocated,
	.below_resized = layered_below_resized,
	.resize = layered_resize,
	.below_flags = layered_below_flags,
	.inspect = layered_inspect,
};
