// SPDX-License-Identifier: MIT
/*
 * Reads: each sector from the topmost layer that has it.
 *
 * A search begins in one layer with one run of sectors. The layer fills what it has straight into
 * the caller's memory and names the gaps; each gap is a search in the next layer. A single gap goes
 * on in the same task. Several do so at the same time, each in a task of its own: they may end in
 * different layers, and one does not wait for another. What lies beyond the end of any of the
 * layers passed, as of now, is zeros, and so is what the last one does not have.
 *
 * What is read from below a cache is copied to be put into it (populate.c) before the search
 * returns, since the memory is the caller's from then on.
 *
 * A search calls itself once a layer. Layered disks may stand on others, below any number of
 * wrappers, so it looks at the stack that is left, and goes on on a new one in time.
 */
#include <errno.h>
#include "backends/layered/layered.h"
#include "core/task.h"

struct search {
	struct disk *disk;
	unsigned index; /* of the layer */
	struct sg sg;
	uint64_t sector;
	uint64_t end; /* of the smallest of the layers above */
};

static int search_layer(struct search *search);

static struct disk *search_in(const struct search *search)
{
	return search->disk->below[search->index];
}

static uint64_t search_count(const struct search *search)
{
	return search->sg.len >> disk_sector_shift(search_in(search));
}

/* Leaves out the first @count sectors. */
static void search_advance(struct search *search, uint64_t count)
{
	size_t bytes = count << disk_sector_shift(search_in(search));

	search->sg = sg_slice(&search->sg, bytes, search->sg.len - bytes);
	search->sector += count;
}

/* Answers what is beyond the end of this layer. */
static void search_cut(struct search *search)
{
	unsigned shift = disk_sector_shift(search_in(search));
	uint64_t inside = 0;

	search->end = min_u64(search->end, disk_sector_count(search_in(search)));
	if (search->sector < search->end)
		inside = min_u64(search->end - search->sector, search_count(search)) << shift;
	if (inside == search->sg.len)
		return;

	struct sg beyond = sg_slice(&search->sg, inside, search->sg.len - inside);

	sg_zero(&beyond);
	search->sg = sg_slice(&search->sg, 0, inside);
}

/* ---- Gaps. ---- */

static struct search search_of_gap(const struct search *search, const struct layer_gap *gap)
{
	unsigned shift = disk_sector_shift(search_in(search));

	return (struct search){
		.disk = search->disk,
		.index = search->index + 1,
		.sg = sg_slice(&search->sg, (gap->sector - search->sector) << shift,
			       gap->count << shift),
		.sector = gap->sector,
		.end = search->end,
	};
}

/* Reads @gap, which search->index does not have, from below, and keeps it there. */
static int fill_for_cache(const struct search *search, const struct layer_gap *gap)
{
	struct disk *disk = search->disk;
	struct search below = search_of_gap(search, gap);
	struct sg kept = below.sg;
	/* Zeros beyond an end are not kept: what is below may grow. */
	uint64_t end = min_u64(search->end, layers_end(&disk->below[below.index],
						       disk->below_count - below.index));
	struct fetch fetch;
	int error;

	fetch_begin(disk, search->index, &fetch, gap->sector, gap->count);
	error = search_layer(&below);
	if (!error && gap->sector < end) {
		uint64_t count = min_u64(gap->count, end - gap->sector);

		kept.len = count << disk_sector_shift(search_in(search));
		populate(disk, search->index, &kept, gap->sector, &fetch);
	}
	fetch_end(disk, search->index, &fetch);
	return error;
}

static int fill_gap(const struct search *search, const struct layer_gap *gap)
{
	struct search below = search_of_gap(search, gap);

	if (below.index == search->disk->below_count) {
		sg_zero(&below.sg);
		return 0;
	}
	if (layer_is_populated(search->disk, search->index))
		return fill_for_cache(search, gap);
	return search_layer(&below);
}

struct gap_task {
	const struct search *search;
	const struct layer_gap *gap;
};

static int gap_run(void *argument)
{
	const struct gap_task *task = argument;

	return fill_gap(task->search, task->gap);
}

static int fill_gaps(const struct search *search, const struct layer_gaps *gaps)
{
	struct gap_task tasks[LAYER_GAPS_MAX];
	struct task_group group = {0};

	for (unsigned i = 0; i < gaps->count; i++) {
		tasks[i] = (struct gap_task){search, &gaps->gaps[i]};
		task_group_start(&group, gap_run, &tasks[i]);
	}
	return task_group_wait(&group);
}

/* ---- A layer. ---- */

static void count_answer(const struct search *search, const struct layer_gaps *gaps)
{
	struct layered *layered = search->disk->state;
	struct layered_layer *layer = &layered->layers[search->index];
	unsigned shift = disk_sector_shift(search_in(search));
	uint64_t missed = 0;

	for (unsigned i = 0; i < gaps->count; i++)
		missed += gaps->gaps[i].count;
	if (missed > 0)
		atomic_fetch_add_explicit(&layer->miss_bytes, missed << shift,
					  memory_order_relaxed);
	if (gaps->answered > missed)
		atomic_fetch_add_explicit(&layer->hit_bytes, (gaps->answered - missed) << shift,
					  memory_order_relaxed);
}

/* Whether the layer has become smaller under the request that failed: then the rest is zeros. */
static bool has_shrunk(const struct search *search, int error)
{
	return error_kind(error) == ERROR_ILLEGAL_BLOCK &&
	       disk_sector_count(search_in(search)) < search->end;
}

static int search_here(struct search *search)
{
	struct layer_gaps gaps;

	search_cut(search);
	while (search->sg.len > 0) {
		int error = layer_read(search_in(search), &search->sg, search->sector, &gaps);

		if (error && has_shrunk(search, error)) {
			search_cut(search);
			continue;
		}
		if (error)
			return error;
		count_answer(search, &gaps);
		error = gaps.count == 1 ? fill_gap(search, &gaps.gaps[0])
					: fill_gaps(search, &gaps);
		if (error)
			return error;
		search_advance(search, gaps.answered);
	}
	return 0;
}

static int search_task(void *argument)
{
	/* If this is still the same stack then none was to be had. */
	return task_stack_is_low() ? error_io(ENOMEM) : search_here(argument);
}

static int search_layer(struct search *search)
{
	struct task_group group = {0};

	if (!task_stack_is_low())
		return search_here(search);
	task_group_start(&group, search_task, search);
	return task_group_wait(&group);
}

int layered_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	struct search search = {.disk = disk, .sg = *sg, .sector = sector, .end = UINT64_MAX};

	return search_layer(&search);
}

int layered_read_below(struct disk *disk, unsigned index, const struct sg *sg, uint64_t sector)
{
	struct search search = {
		.disk = disk,
		.index = index + 1,
		.sg = *sg,
		.sector = sector,
		.end = layers_end(disk->below, index + 1),
	};

	return search_layer(&search);
}
