// SPDX-License-Identifier: MIT
/*
 * The locks of blocks.
 *
 * All blocks of the same *bucket* have one lock. Whoever shares it counts itself among those of its
 * worker, so that workers do not write to the same memory, and then looks whether somebody owns the
 * bucket; whoever wants to own it says so, and then looks whether anybody is counted. So at least one
 * of two who meet sees the other. Who shares gives way; who owns waits for those who were there
 * before.
 *
 * Those who wait, for whichever lock of an image, wait in one queue, and look again whenever one of
 * their reasons may be gone: only where blocks are allocated or given up, and where bitmaps are read,
 * anybody waits at all.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "backends/vhd/image.h"
#include "core/worker.h"

#define BUCKETS 1024U

/* Of one worker. */
struct counts {
	_Atomic uint32_t shares[BUCKETS];
} __attribute__((aligned(64)));

struct locks {
	atomic_bool owned[BUCKETS];
	struct task_mutex wait_mutex;
	struct wait_queue waiting;
	_Atomic unsigned waiters;
	struct counts counts[]; /* of each worker */
};

static size_t bucket_of(uint32_t block)
{
	return block % BUCKETS;
}

struct locks *locks_new(void)
{
	size_t size = sizeof(struct locks) + workers_count() * sizeof(struct counts);
	struct locks *locks = aligned_alloc(64, align_up(size, 64));

	if (!locks)
		return NULL;
	memset(locks, 0, size);
	task_mutex_init(&locks->wait_mutex);
	return locks;
}

void locks_free(struct locks *locks)
{
	if (!locks)
		return;
	task_mutex_destroy(&locks->wait_mutex);
	free(locks);
}

/* ---- Waiting. ---- */

/* Wakes those who wait. A waiter counts itself before it looks at the lock, so either we see it, or
 * it sees what has just been done. */
static void changed(struct locks *locks)
{
	if (atomic_load(&locks->waiters) == 0)
		return;
	task_mutex_lock(&locks->wait_mutex);
	wait_queue_wake_all(&locks->waiting);
	task_mutex_unlock(&locks->wait_mutex);
}

static void wait_until(struct locks *locks, size_t bucket,
		       bool (*condition)(struct locks *locks, size_t bucket))
{
	if (condition(locks, bucket))
		return;
	atomic_fetch_add(&locks->waiters, 1);
	task_mutex_lock(&locks->wait_mutex);
	while (!condition(locks, bucket))
		wait_queue_wait(&locks->waiting, &locks->wait_mutex);
	task_mutex_unlock(&locks->wait_mutex);
	atomic_fetch_sub(&locks->waiters, 1);
}

static bool is_free(struct locks *locks, size_t bucket)
{
	return !atomic_load(&locks->owned[bucket]);
}

static bool try_claim(struct locks *locks, size_t bucket)
{
	return !atomic_exchange(&locks->owned[bucket], true);
}

/* Whether nobody shares it any more, of a bucket that is claimed. */
static bool is_left(struct locks *locks, size_t bucket)
{
	for (unsigned i = 0; i < workers_count(); i++)
		if (atomic_load(&locks->counts[i].shares[bucket]) > 0)
			return false;
	return true;
}

/* ---- Sharing. ---- */

/* A task stays on its worker. */
static _Atomic uint32_t *count_of(struct locks *locks, size_t bucket)
{
	return &locks->counts[worker_index()].shares[bucket];
}

static void leave(struct locks *locks, size_t bucket)
{
	uint32_t before = atomic_fetch_sub(count_of(locks, bucket), 1);

	assert(before > 0);
	(void)before;
	if (!is_free(locks, bucket))
		changed(locks);
}

void block_share(struct vhd_image *image, uint32_t block)
{
	struct locks *locks = image->locks;
	size_t bucket = bucket_of(block);

	for (;;) {
		atomic_fetch_add(count_of(locks, bucket), 1);
		if (is_free(locks, bucket))
			return;
		leave(locks, bucket);
		wait_until(locks, bucket, is_free);
	}
}

void block_unshare(struct vhd_image *image, uint32_t block)
{
	leave(image->locks, bucket_of(block));
}

/* ---- Owning. ---- */

void block_own(struct vhd_image *image, uint32_t block)
{
	wait_until(image->locks, bucket_of(block), try_claim);
	wait_until(image->locks, bucket_of(block), is_left);
}

void block_disown(struct vhd_image *image, uint32_t block)
{
	atomic_store(&image->locks->owned[bucket_of(block)], false);
	changed(image->locks);
}

void block_downgrade(struct vhd_image *image, uint32_t block)
{
	atomic_fetch_add(count_of(image->locks, bucket_of(block)), 1);
	block_disown(image, block);
}

bool block_try_own(struct vhd_image *image, uint32_t block)
{
	size_t bucket = bucket_of(block);

	if (!try_claim(image->locks, bucket))
		return false;
	if (is_left(image->locks, bucket))
		return true;
	block_disown(image, block);
	return false;
}
