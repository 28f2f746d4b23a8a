// SPDX-License-Identifier: MIT
/*
 * The size of a disk, the one thing about it that may change while it is open: it changes below,
 * and everybody above is told; or somebody asks for it from above, and the drivers hand the wish
 * down as far as each may.
 *
 * A new count counts from the moment at which it is set: requests are checked against it. Those
 * that were checked before may still be under way beyond a smaller end; the driver says what becomes
 * of them. What is told upwards follows, disk by disk, with count_mutex held from below to above and
 * never the other way round.
 */
#include "core/disk.h"
#include "core/disk_private.h"
#include "core/task.h"
#include "core/trace.h"

#define DRAIN_LOOK_NS (NS_PER_S / 1000)

/* Of the sector counts of all disks, since the program began. */
static _Atomic uint64_t changes;

static void resized_call(struct disk *disk)
{
	void (*resized)(void *argument) = atomic_load(&disk->core.resized);

	if (resized)
		resized(disk->core.resized_argument);
}

/* A disk below has another size, and @disk has not; but another part of it may show through. */
static void change_tell(struct disk *disk)
{
	task_mutex_lock(&disk->core.count_mutex);
	for (unsigned i = 0; i < disk->core.above_count; i++)
		change_tell(disk->core.above[i]);
	resized_call(disk);
	task_mutex_unlock(&disk->core.count_mutex);
}

static void count_tell(struct disk *disk)
{
	task_mutex_lock(&disk->core.resize_mutex);
	wait_queue_wake_all(&disk->core.resize_waiters);
	task_mutex_unlock(&disk->core.resize_mutex);
	for (unsigned i = 0; i < disk->core.above_count; i++) {
		struct disk *above = disk->core.above[i];
		uint64_t before = disk_sector_count(above);

		if (above->driver->below_resized)
			above->driver->below_resized(above, disk);
		/* Of a file that grows with its format, nothing else shows through. */
		if (disk_sector_count(above) == before && !(disk->open_flags & DISK_OPEN_RESIZE))
			change_tell(above);
	}
	resized_call(disk);
}

void disk_set_sector_count(struct disk *disk, uint64_t count)
{
	uint64_t before;

	task_mutex_lock(&disk->core.count_mutex);
	before = atomic_exchange(&disk->core.sector_count, count);
	if (before != 0 && before != count) /* the first one is no change */
		atomic_fetch_add(&changes, 1);
	if (before != count)
		count_tell(disk);
	task_mutex_unlock(&disk->core.count_mutex);
}

uint64_t resize_changes(void)
{
	return atomic_load(&changes);
}

void resize_catch_up(struct disk *disk)
{
	for (unsigned i = 0; i < disk->below_count && disk->driver->below_resized; i++) {
		struct disk *below = disk->below[i];

		task_mutex_lock(&below->core.count_mutex);
		disk->driver->below_resized(disk, below);
		task_mutex_unlock(&below->core.count_mutex);
	}
}

void disk_on_resize(struct disk *disk, void (*function)(void *argument), void *argument)
{
	disk->core.resized_argument = argument;
	atomic_store(&disk->core.resized, function);
}

uint64_t disk_wait_resize(struct disk *disk, uint64_t known)
{
	task_mutex_lock(&disk->core.resize_mutex);
	disk->core.resize_waiting++;
	while (!disk->core.closing && disk_sector_count(disk) == known)
		wait_queue_wait(&disk->core.resize_waiters, &disk->core.resize_mutex);
	disk->core.resize_waiting--;

	uint64_t count = disk->core.closing ? known : disk_sector_count(disk);

	task_mutex_unlock(&disk->core.resize_mutex);
	return count;
}

void resize_end(struct disk *disk)
{
	task_mutex_lock(&disk->core.resize_mutex);
	disk->core.closing = true;
	wait_queue_wake_all(&disk->core.resize_waiters);
	while (disk->core.resize_waiting > 0) {
		task_mutex_unlock(&disk->core.resize_mutex);
		task_sleep_ns(NS_PER_S / 1000);
		task_mutex_lock(&disk->core.resize_mutex);
	}
	task_mutex_unlock(&disk->core.resize_mutex);
}

int disk_resize(struct disk *disk, uint64_t count)
{
	if (!disk->driver->resize)
		return error_of(ERROR_UNSUPPORTED);
	if (disk->geometry.read_only)
		return error_of(ERROR_READ_ONLY);
	if (count == 0 || count > (uint64_t)INT64_MAX >> disk_sector_shift(disk))
		return error_of(ERROR_INVALID_INPUT);
	return count == disk_sector_count(disk) ? 0 : disk->driver->resize(disk, count);
}

static bool drain(struct disk *disk, uint64_t count, uint64_t before_ns, uint64_t patience_ns)
{
	uint64_t begin_ns = now_ns();

	while (trace_reaches(disk, count, before_ns)) {
		if (now_ns() - begin_ns >= patience_ns)
			return false;
		task_sleep_ns(DRAIN_LOOK_NS);
	}
	return true;
}

bool disk_drain_beyond(struct disk *disk, uint64_t count, uint64_t patience_ns)
{
	return drain(disk, count, UINT64_MAX, patience_ns);
}

bool disk_drain_old(struct disk *disk, uint64_t count, uint64_t patience_ns)
{
	return drain(disk, count, now_ns(), patience_ns);
}
