// SPDX-License-Identifier: MIT
/*
 * ram: a RAM disk. Sparse: memory is taken a page at a time, where data is written, and given back
 * by unmap.
 *
 * The disk is cut into leaves of LEAF_SIZE bytes. A leaf that holds data has a mapping of that
 * size, in which the kernel provides pages as they are touched, and a bit for each page that is
 * *present*. A page that is not present is never read, so that reading a hole takes no memory;
 * unmapping a page drops it from the mapping, so that it is zeros again when it next becomes
 * present. A leaf without pages is freed.
 *
 * A leaf is guarded by the lock of its shard: shared to read, exclusive to write or unmap. So
 * readers run at once, a read sees each sector before or after a write, and a leaf is not freed
 * under a reader. The locks are held for a copy in memory of one leaf at most, never across a
 * suspension. A request of several leaves is not atomic as a whole, as on any disk.
 *
 * Flush: nothing to do. Nothing survives the process.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "core/disk.h"
#include "core/report.h"
#include "core/task.h"

#define PAGE_SIZE  ((uint64_t)4096)
#define LEAF_PAGES ((uint64_t)512)
#define LEAF_SIZE  (LEAF_PAGES * PAGE_SIZE)
#define SHARDS	   64
#define LEAVES_SCAN \
	((uint64_t)65536) /* leaves that one extent() looks at, so that it stays short */

struct ram_config {
	uint64_t size;
	uint64_t sector_size;
};

struct leaf {
	char *data; /* LEAF_SIZE bytes */
	unsigned present_count;
	uint64_t present[LEAF_PAGES / 64];
};

struct ram {
	struct leaf **leaves; /* a sparse mapping; NULL: no page of the leaf is present */
	size_t leaf_count;
	bool locks_made;
	pthread_rwlock_t locks[SHARDS];
	_Atomic uint64_t present_pages;
};

static pthread_rwlock_t *leaf_lock(struct ram *ram, uint64_t index)
{
	return &ram->locks[index % SHARDS];
}

static bool page_is_present(const struct leaf *leaf, uint64_t page)
{
	return leaf->present[page / 64] >> (page % 64) & 1;
}

static int ram_open(struct disk *disk, struct err *err)
{
	const struct ram_config *config = disk->config;
	struct ram *ram = disk->state;

	if (config->size % config->sector_size != 0)
		return err_set_key(err, "size", "must be a multiple of the sector size of %llu",
				   (unsigned long long)config->sector_size);
	ram->leaf_count = (config->size + LEAF_SIZE - 1) / LEAF_SIZE;
	ram->leaves = mmap(NULL, ram->leaf_count * sizeof(*ram->leaves), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ram->leaves == MAP_FAILED) {
		ram->leaves = NULL;
		return err_set_key(err, "size", "no address space for a RAM disk of this size: %s",
				   strerror(errno));
	}
	for (unsigned i = 0; i < SHARDS; i++)
		pthread_rwlock_init(&ram->locks[i], NULL);
	ram->locks_made = true;

	disk->geometry.sector_size = (uint32_t)config->sector_size;
	disk->geometry.physical_sector_size = (uint32_t)config->sector_size;
	disk->geometry.fua = true;
	disk->geometry.unmap = UNMAP_ZEROES;
	disk->geometry.optimal_unmap_sectors = (uint32_t)(PAGE_SIZE / config->sector_size);
	disk_set_sector_count(disk, config->size / config->sector_size);
	return 0;
}

static void leaf_free(struct leaf *leaf)
{
	munmap(leaf->data, LEAF_SIZE);
	free(leaf);
}

static void ram_close(struct disk *disk)
{
	struct ram *ram = disk->state;

	if (!ram->leaves)
		return;
	/* An empty disk of any size has no leaf: then its directory, perhaps terabytes of address
	 * space, is not walked. */
	for (size_t i = 0; i < ram->leaf_count && ram->present_pages > 0; i++) {
		if (!ram->leaves[i])
			continue;
		ram->present_pages -= ram->leaves[i]->present_count;
		leaf_free(ram->leaves[i]);
	}
	munmap(ram->leaves, ram->leaf_count * sizeof(*ram->leaves));
	for (unsigned i = 0; ram->locks_made && i < SHARDS; i++)
		pthread_rwlock_destroy(&ram->locks[i]);
}

/*
 * Calls @visit for each leaf that [offset, offset + length) touches, with the leaf's index, the
 * range inside the leaf and how far the leaf's part is from @offset. Stops at the first error.
 */
struct visit {
	struct ram *ram;
	uint64_t leaf;
	size_t start, length; /* inside the leaf */
	size_t done;
	const struct sg *sg; /* of the whole request; NULL for unmap */
};

static int visit_leaves(struct ram *ram, const struct sg *sg, uint64_t offset, uint64_t length,
			int (*visit_leaf)(const struct visit *visit))
{
	uint64_t done = 0;

	while (done < length) {
		struct visit visit = {
			.ram = ram,
			.leaf = (offset + done) / LEAF_SIZE,
			.start = (offset + done) % LEAF_SIZE,
			.done = done,
			.sg = sg,
		};

		visit.length = min_u64(LEAF_SIZE - visit.start, length - done);

		int error = visit_leaf(&visit);

		if (error)
			return error;
		done += visit.length;
	}
	return 0;
}

static void leaf_copy_out(const struct leaf *leaf, const struct visit *visit)
{
	size_t at = visit->start, end = visit->start + visit->length;

	while (at < end) {
		bool present = leaf && page_is_present(leaf, at / PAGE_SIZE);
		size_t run_end = leaf ? align_down(at, PAGE_SIZE) + PAGE_SIZE : end;

		while (run_end < end && present == page_is_present(leaf, run_end / PAGE_SIZE))
			run_end += PAGE_SIZE;
		run_end = min_u64(run_end, end);

		struct sg part = sg_slice(visit->sg, visit->done + at - visit->start, run_end - at);

		if (present)
			sg_copy_from(&part, leaf->data + at);
		else
			sg_zero(&part);
		at = run_end;
	}
}

static int read_leaf(const struct visit *visit)
{
	pthread_rwlock_t *lock = leaf_lock(visit->ram, visit->leaf);

	pthread_rwlock_rdlock(lock);
	leaf_copy_out(visit->ram->leaves[visit->leaf], visit);
	pthread_rwlock_unlock(lock);
	return 0;
}

static int ram_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	return visit_leaves(disk->state, sg, sector << disk_sector_shift(disk), sg->len, read_leaf);
}

static struct leaf *leaf_new(void)
{
	struct leaf *leaf = calloc(1, sizeof(*leaf));

	if (!leaf)
		return NULL;
	leaf->data = mmap(NULL, LEAF_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (leaf->data == MAP_FAILED) {
		free(leaf);
		return NULL;
	}
	return leaf;
}

static void leaf_mark(struct ram *ram, struct leaf *leaf, uint64_t first, uint64_t end,
		      bool present)
{
	unsigned changed = 0;

	for (uint64_t page = first; page < end; page++) {
		if (page_is_present(leaf, page) == present)
			continue;
		leaf->present[page / 64] ^= (uint64_t)1 << (page % 64);
		changed++;
	}
	leaf->present_count += present ? changed : -changed;
	if (present)
		atomic_fetch_add_explicit(&ram->present_pages, changed, memory_order_relaxed);
	else
		atomic_fetch_sub_explicit(&ram->present_pages, changed, memory_order_relaxed);
}

static int write_leaf(const struct visit *visit)
{
	struct ram *ram = visit->ram;
	pthread_rwlock_t *lock = leaf_lock(ram, visit->leaf);
	struct leaf **leaf = &ram->leaves[visit->leaf];
	struct sg part = sg_slice(visit->sg, visit->done, visit->length);

	pthread_rwlock_wrlock(lock);
	if (!*leaf)
		__atomic_store_n(leaf, leaf_new(), __ATOMIC_RELAXED);
	if (*leaf) {
		leaf_mark(ram, *leaf, visit->start / PAGE_SIZE,
			  (visit->start + visit->length + PAGE_SIZE - 1) / PAGE_SIZE, true);
		sg_copy_to(&part, (*leaf)->data + visit->start);
	}

	int error = *leaf ? 0 : error_io(ENOSPC);

	pthread_rwlock_unlock(lock);
	return error;
}

static int ram_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	(void)flags; /* as durable as it will ever be */
	return visit_leaves(disk->state, sg, sector << disk_sector_shift(disk), sg->len,
			    write_leaf);
}

static int ram_flush(struct disk *disk)
{
	(void)disk;
	return 0;
}

/* Drops the whole pages of [start, end), zeros what is left of pages at its ends. */
static void leaf_drop(struct ram *ram, struct leaf *leaf, size_t start, size_t end)
{
	size_t whole = align_up(start, PAGE_SIZE), whole_end = align_down(end, PAGE_SIZE);

	if (whole > whole_end) {
		if (page_is_present(leaf, start / PAGE_SIZE))
			memset(leaf->data + start, 0, end - start);
		return;
	}
	if (start < whole && page_is_present(leaf, start / PAGE_SIZE))
		memset(leaf->data + start, 0, whole - start);
	if (whole_end < end && page_is_present(leaf, whole_end / PAGE_SIZE))
		memset(leaf->data + whole_end, 0, end - whole_end);
	if (whole == whole_end)
		return;
	/* Only fails for arguments that are wrong, but then the zeros must come all the same. */
	if (madvise(leaf->data + whole, whole_end - whole, MADV_DONTNEED) < 0)
		memset(leaf->data + whole, 0, whole_end - whole);
	leaf_mark(ram, leaf, whole / PAGE_SIZE, whole_end / PAGE_SIZE, false);
}

static int unmap_leaf(const struct visit *visit)
{
	struct ram *ram = visit->ram;
	pthread_rwlock_t *lock = leaf_lock(ram, visit->leaf);
	struct leaf **leaf = &ram->leaves[visit->leaf];

	pthread_rwlock_wrlock(lock);
	if (*leaf) {
		leaf_drop(ram, *leaf, visit->start, visit->start + visit->length);
		if ((*leaf)->present_count == 0) {
			leaf_free(*leaf);
			__atomic_store_n(leaf, NULL, __ATOMIC_RELAXED);
		}
	}
	pthread_rwlock_unlock(lock);
	return 0;
}

static int ram_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	unsigned shift = disk_sector_shift(disk);
	uint64_t offset = sector << shift, end = (sector + count) << shift;

	/* A piece at a time, so that terabytes do not keep the worker from its other tasks. */
	while (offset < end) {
		uint64_t length = min_u64(end - offset, LEAVES_SCAN * LEAF_SIZE);

		visit_leaves(disk->state, NULL, offset, length, unmap_leaf);
		offset += length;
		if (offset < end)
			task_yield();
	}
	return 0;
}

/* To unmap is the one way to zero: real zeros would only take memory. */
static int ram_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	(void)flags;
	return ram_unmap(disk, sector, count);
}

/* How far, from byte @offset, pages of leaf @index are all present or all absent; *present says
 * which. */
static uint64_t leaf_run(struct ram *ram, uint64_t index, uint64_t offset, bool *present)
{
	uint64_t page = offset % LEAF_SIZE / PAGE_SIZE, end = page;

	/* Without the lock: most leaves of a large disk are not there, and only what comes and goes
	 * meanwhile is missed. */
	if (!__atomic_load_n(&ram->leaves[index], __ATOMIC_RELAXED)) {
		*present = false;
		return (index + 1) * LEAF_SIZE;
	}

	pthread_rwlock_rdlock(leaf_lock(ram, index));

	const struct leaf *leaf = ram->leaves[index];

	*present = leaf && page_is_present(leaf, page);
	while (end < LEAF_PAGES && (leaf && page_is_present(leaf, end)) == *present)
		end++;
	pthread_rwlock_unlock(leaf_lock(ram, index));
	return index * LEAF_SIZE + end * PAGE_SIZE;
}

static int ram_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	struct ram *ram = disk->state;
	unsigned shift = disk_sector_shift(disk);
	uint64_t start = sector << shift;
	uint64_t end = start + min_u64(count << shift, LEAVES_SCAN * LEAF_SIZE);
	bool present, next_present;
	uint64_t run_end = leaf_run(ram, start / LEAF_SIZE, start, &present);

	while (run_end < end && run_end % LEAF_SIZE == 0) {
		uint64_t next_end = leaf_run(ram, run_end / LEAF_SIZE, run_end, &next_present);

		if (next_present != present)
			break;
		run_end = next_end;
	}
	*extent = (struct extent){
		.kind = present ? EXTENT_DATA : EXTENT_HOLE,
		.count = (min_u64(run_end, end) - start) >> shift,
	};
	return 0;
}

static uint64_t ram_memory(struct disk *disk)
{
	struct ram *ram = disk->state;

	return atomic_load_explicit(&ram->present_pages, memory_order_relaxed) * PAGE_SIZE;
}

static int ram_allocated(struct disk *disk, uint64_t *bytes)
{
	*bytes = ram_memory(disk);
	return 0;
}

static void ram_inspect(struct disk *disk, struct report *report)
{
	report_bytes(report, "memory", ram_memory(disk));
}

static const struct option ram_options[] = {
	{.name = "size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct ram_config, size),
	 .flags = OPTION_REQUIRED,
	 .min = 512,
	 .max = INT64_MAX,
	 .help = "Size of the disk, a multiple of the sector size. Memory is only taken for what "
		 "is "
		 "written"},
	{.name = "sector_size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct ram_config, sector_size),
	 .flags = OPTION_POWER_OF_TWO,
	 .min = 512,
	 .max = PAGE_SIZE,
	 .fallback = "512",
	 .help = "Logical and physical sector size in bytes"},
	{.name = NULL},
};

const struct driver ram_driver = {
	.name = "ram",
	.summary = "a RAM disk: sparse, lost at the end",
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
	.inspect = ram_inspect,
};
