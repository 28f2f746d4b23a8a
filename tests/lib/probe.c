// SPDX-License-Identifier: MIT
#include "tests/lib/probe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "core/task.h"
#include "tests/lib/check.h"

/* The largest disk that has data; a larger one reads zeros. */
#define DATA_MAX (64 * MIB)

static struct probe *probe_of(struct disk *disk)
{
	return *(struct probe **)disk->config;
}

bool limits_hold(const struct disk_geometry *geometry, const struct sg *sg)
{
	uint64_t mask = geometry->memory_align > 0 ? geometry->memory_align - 1 : 0;
	uint64_t length_mask = max_u64(max_u64(geometry->length_align, 1) - 1, mask);
	unsigned segments = sg_segments(sg);
	bool held = true;

	held &= CHECK(sg->len > 0 && is_aligned(sg->len, geometry->sector_size));
	held &= CHECK(geometry->max_transfer == 0 || sg->len <= geometry->max_transfer);
	held &= CHECK(geometry->max_segments == 0 || segments <= geometry->max_segments);
	for (size_t at = 0; at < sg->len;) {
		struct sg rest = sg_slice(sg, at, sg->len - at);
		struct iovec iov;
		size_t length;

		sg_iovecs(&rest, &iov, 1, &length);
		at += length;
		held &= CHECK(((uintptr_t)iov.iov_base & mask) == 0);
		/* The last one ends where the request ends. */
		held &= CHECK((length & length_mask) == 0 || at == sg->len);
	}
	return held;
}

/* Notes a call; returns the error that it shall have. */
static int probe_note(struct disk *disk, enum probe_op op, uint64_t sector, uint64_t count,
		      unsigned flags)
{
	struct probe *probe = probe_of(disk);
	int error = 0;

	pthread_mutex_lock(&probe->mutex);
	probe->counts[op]++;
	if (probe->call_count < PROBE_CALLS_MAX)
		probe->calls[probe->call_count++] = (struct probe_call){op, sector, count, flags};
	if (sector < probe->fail[op].end && sector + max_u64(count, 1) > probe->fail[op].first)
		error = probe->fail[op].error;
	pthread_mutex_unlock(&probe->mutex);
	return error;
}

static void probe_wait(const struct probe *probe)
{
	for (unsigned i = 0; i < probe->yields; i++)
		task_yield();
	if (probe->sleep_ns > 0)
		task_sleep_ns(probe->sleep_ns);
	while (atomic_load(&probe->hold))
		task_sleep_ns(NS_PER_US * 100);
}

static int probe_open_disk(struct disk *disk, struct err *err)
{
	struct probe *probe = probe_of(disk);

	if (probe->open_error)
		return err_set_key(err, "probe", "%s", probe->open_error);
	disk->geometry = probe->geometry;
	disk_set_sector_count(disk, probe->sector_count);
	return 0;
}

static void probe_close(struct disk *disk)
{
	probe_note(disk, PROBE_CLOSE, 0, 0, 0);
}

/* Where the sectors lie, or NULL. Checks that they are inside. */
static char *probe_data(struct disk *disk, uint64_t sector, uint64_t bytes)
{
	const struct probe *probe = probe_of(disk);
	uint64_t offset = sector << disk_sector_shift(disk);

	if (!CHECK(bytes > 0 && sector < disk_sector_count(disk) &&
		   bytes <= disk_size(disk) - offset))
		return NULL;
	return probe->data ? probe->data + offset : NULL;
}

static int probe_transfer(struct disk *disk, const struct sg *sg, uint64_t sector, bool is_write)
{
	struct probe *probe = probe_of(disk);

	limits_hold(&probe->geometry, sg);
	probe_wait(probe);

	char *data = probe_data(disk, sector, sg->len);

	if (probe->shared)
		pthread_mutex_lock(&probe->mutex);
	if (is_write && data)
		sg_copy_to(sg, data);
	else if (!is_write && data)
		sg_copy_from(sg, data);
	else if (!is_write)
		sg_zero(sg);
	if (probe->shared)
		pthread_mutex_unlock(&probe->mutex);
	return 0;
}

static int probe_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	uint64_t count = sg->len >> disk_sector_shift(disk);
	int error = probe_note(disk, PROBE_READ, sector, count, 0);

	return error ? error : probe_transfer(disk, sg, sector, false);
}

static int probe_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	uint64_t count = sg->len >> disk_sector_shift(disk);
	int error = probe_note(disk, PROBE_WRITE, sector, count, flags);

	return error ? error : probe_transfer(disk, sg, sector, true);
}

static int probe_flush(struct disk *disk)
{
	int error = probe_note(disk, PROBE_FLUSH, 0, 0, 0);

	if (!error)
		probe_wait(probe_of(disk));
	return error;
}

static int probe_zero(struct disk *disk, uint64_t sector, uint64_t count)
{
	char *data = probe_data(disk, sector, count << disk_sector_shift(disk));

	if (data)
		memset(data, 0, count << disk_sector_shift(disk));
	return 0;
}

static int probe_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	int error = probe_note(disk, PROBE_UNMAP, sector, count, 0);

	return error ? error : probe_zero(disk, sector, count);
}

static int probe_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	int error = probe_note(disk, PROBE_WRITE_ZEROES, sector, count, flags);

	return error ? error : probe_zero(disk, sector, count);
}

static int probe_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	int error = probe_note(disk, PROBE_EXTENT, sector, count, 0);

	if (!error)
		*extent = (struct extent){.kind = EXTENT_HOLE, .count = 1};
	return error;
}

static int probe_allocated(struct disk *disk, uint64_t *bytes)
{
	*bytes = 12345;
	return probe_note(disk, PROBE_ALLOCATED, 0, 0, 0);
}

static int probe_eject(struct disk *disk)
{
	return probe_note(disk, PROBE_EJECT, 0, 0, 0);
}

static void probe_resized(struct disk *disk, struct disk *below)
{
	probe_note(disk, PROBE_RESIZED, 0, 0, 0);
	disk_set_sector_count(disk, disk_sector_count(below));
}

static const struct option probe_options[] = {{.name = NULL}};

static const struct driver probe_driver = {
	.name = "probe",
	.summary = "a disk for tests",
	.options = probe_options,
	.config_size = sizeof(struct probe *),
	.below_max = 1,
	.open = probe_open_disk,
	.close = probe_close,
	.read = probe_read,
	.write = probe_write,
	.flush = probe_flush,
	.unmap = probe_unmap,
	.write_zeroes = probe_write_zeroes,
	.extent = probe_extent,
	.allocated = probe_allocated,
	.eject = probe_eject,
	.below_resized = probe_resized,
};

void probe_init(struct probe *probe, uint32_t sector_size, uint64_t sector_count)
{
	memset(probe, 0, sizeof(*probe));
	probe->driver = probe_driver;
	probe->geometry = (struct disk_geometry){
		.sector_size = sector_size,
		.physical_sector_size = sector_size,
		.fua = true,
		.unmap = UNMAP_ZEROES,
	};
	probe->sector_count = sector_count;
	probe->calls = calloc(PROBE_CALLS_MAX, sizeof(*probe->calls));
	assert(probe->calls);
	if (sector_count <= DATA_MAX / sector_size)
		probe->data = calloc(sector_count, sector_size);
	pthread_mutex_init(&probe->mutex, NULL);
}

void probe_destroy(struct probe *probe)
{
	free(probe->calls);
	free(probe->data);
	pthread_mutex_destroy(&probe->mutex);
}

struct disk *probe_open(struct probe *probe, unsigned flags, struct disk *below, struct err *err)
{
	struct probe **config = malloc(sizeof(struct probe *));

	assert(config);
	*config = probe;
	return disk_open(&probe->driver, "probe", config, flags, &below, below ? 1 : 0, err);
}

void probe_forget(struct probe *probe)
{
	memset(probe->counts, 0, sizeof(probe->counts));
	probe->call_count = 0;
}
