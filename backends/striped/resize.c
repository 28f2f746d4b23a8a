// SPDX-License-Identifier: MIT
/*
 * The size of a striped disk. It follows the members: n times the whole chunks of the smallest, as
 * of now, and no more than the option size says. Where a chunk lies does not depend on the size.
 *
 * Asked for another size, of whole rows of chunks, the disk has every member resized to its share,
 * if all of them may be. One that fails nevertheless ends that. A disk that was to grow keeps its
 * size, and the members before get theirs back, where they may shrink; else they stay larger. One
 * that was to shrink has done so with its first member, if that was not the one, and the rest stay
 * larger: what is cut off cannot be had back.
 */
#include "backends/striped/striped.h"
#include "core/log.h"
#include "core/resizable.h"
#include "core/task.h"

/* What the whole chunks of the smallest member make together. STRIPED_MEMBERS_MAX times a disk of
 * 512-byte sectors, INT64_MAX / 512, does not overflow. */
uint64_t striped_members_count(const struct disk *disk)
{
	const struct striped *striped = disk->state;
	uint64_t smallest = disk_sector_count(disk->below[0]);

	for (unsigned i = 1; i < disk->below_count; i++)
		smallest = min_u64(smallest, disk_sector_count(disk->below[i]));
	return (smallest - smallest % striped->chunk) * disk->below_count;
}

/* Members may change at the same time, on several workers: the last to come has seen them all. */
void striped_below_resized(struct disk *disk, struct disk *below)
{
	struct striped *striped = disk->state;

	(void)below;
	task_mutex_lock(&striped->count_mutex);
	disk_set_sector_count(disk, min_u64(striped_members_count(disk), striped->max));
	task_mutex_unlock(&striped->count_mutex);
}

/* Whether a member needs no change. One that is longer already may stay so when the disk grows. */
static bool has_share(const struct disk *member, uint64_t share, bool grows)
{
	return grows ? disk_sector_count(member) >= share : disk_sector_count(member) <= share;
}

/* What has grown is made as small as it was, where that may be: nobody has written there yet. */
static void put_back(struct disk *disk, unsigned grown, const uint64_t *before)
{
	for (unsigned i = 0; i < grown; i++)
		if (disk_resize(disk->below[i], before[i]))
			log_warning(disk->name,
				    "'%s' is larger than others now, and may not shrink",
				    disk->below[i]->name);
}

/* One member after another; an error ends that. */
static int resize_members(struct disk *disk, uint64_t share, bool grows)
{
	uint64_t before[STRIPED_MEMBERS_MAX];
	int error = 0;

	for (unsigned i = 0; i < disk->below_count && !error; i++) {
		struct disk *member = disk->below[i];

		before[i] = disk_sector_count(member);
		if (!has_share(member, share, grows))
			error = disk_resize(member, share);
		if (error && grows)
			put_back(disk, i, before);
		else if (error && i > 0)
			log_warning(disk->name, "'%s' cannot be made smaller, others have been",
				    member->name);
	}
	return error;
}

/* Whether all members may have their share, as far as can be said beforehand. */
static int check_members(const struct disk *disk, uint64_t share, bool grows)
{
	int error = 0;

	for (unsigned i = 0; i < disk->below_count && !error; i++)
		if (!has_share(disk->below[i], share, grows))
			error = resizable_check(disk->below[i], share);
	return error;
}

/* The disk grows with its last member, and shrinks with its first, as the others soon will. */
int striped_resize(struct disk *disk, uint64_t count)
{
	const struct striped_config *config = disk->config;
	struct striped *striped = disk->state;
	uint64_t share = count / disk->below_count;
	bool grows;
	int error;

	if (config->size > 0 || count % (striped->chunk * disk->below_count) != 0)
		return error_of(ERROR_UNSUPPORTED);
	task_mutex_lock(&striped->wish_mutex);
	grows = count > disk_sector_count(disk);
	error = check_members(disk, share, grows);
	if (!error)
		error = resize_members(disk, share, grows);
	task_mutex_unlock(&striped->wish_mutex);
	return error;
}
