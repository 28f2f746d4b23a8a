// SPDX-License-Identifier: MIT
#include "tests/lib/remote.h"

#include <stdlib.h>
#include <string.h>
#include "core/cache_memory.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

/* How long remote_wait() waits, a look each 100 us. */
#define LOOKS_MAX 50000

void remote_init(struct blob_client *remote, uint64_t size)
{
	memset(remote, 0, sizeof(*remote));
	remote->size = size;
	remote->round_trip_ns = NS_PER_S / 1000;
	remote->error = error_io(5);
	pthread_mutex_init(&remote->mutex, NULL);
}

void remote_destroy(struct blob_client *remote)
{
	pthread_mutex_destroy(&remote->mutex);
}

/* Byte @offset of every object is that of the word it is in. */
static uint64_t word_at(uint64_t offset)
{
	return random_at(4711, offset / sizeof(uint64_t));
}

static void content(char *data, uint64_t offset, size_t length)
{
	while (length > 0) {
		uint64_t word = word_at(offset);
		size_t begin = offset % sizeof(word);
		size_t part = min_u64(sizeof(word) - begin, length);

		memcpy(data, (char *)&word + begin, part);
		data += part;
		offset += part;
		length -= part;
	}
}

/* ---- The far side. ---- */

/* Notes a request; returns when its answer is complete. */
static uint64_t remote_note(struct blob_client *remote, uint64_t offset, uint64_t length)
{
	uint64_t now = now_ns(), due = now + remote->round_trip_ns;

	pthread_mutex_lock(&remote->mutex);
	if (remote->call_count < REMOTE_CALLS_MAX)
		remote->calls[remote->call_count] = (struct remote_call){offset, length};
	remote->call_count++;
	remote->bytes += length;
	remote->under_way++;
	if (remote->under_way > remote->under_way_max)
		remote->under_way_max = remote->under_way;
	if (remote->rate > 0) {
		due = max_u64(due, remote->link_free_ns) + length * NS_PER_S / remote->rate;
		remote->link_free_ns = due;
	}
	if (remote->jitter_ns > 0)
		due += random_at(remote->call_count, offset) % remote->jitter_ns;
	pthread_mutex_unlock(&remote->mutex);
	return due;
}

static void answer(uint64_t offset, const struct sg *sg)
{
	struct sg rest = *sg;
	char *segment;
	size_t length;

	while ((segment = sg_next(&rest, &length))) {
		content(segment, offset, length);
		offset += length;
	}
}

static int remote_fetch(struct blob_client *remote, uint64_t offset, const struct sg *sg)
{
	uint64_t due, now;
	bool failed;

	if (!CHECK(sg->len > 0 && offset < remote->size && sg->len <= remote->size - offset))
		return error_of(ERROR_INVALID_INPUT);
	due = remote_note(remote, offset, sg->len);
	now = now_ns();
	if (now < due)
		task_sleep_ns(due - now);
	while (atomic_load(&remote->hold))
		task_sleep_ns(NS_PER_US * 100);
	failed = offset < atomic_load(&remote->fail_end) &&
		 offset + sg->len > atomic_load(&remote->fail_first);
	/* A part of it may have come before it failed. */
	if (failed)
		memset(sg->iov->iov_base, 0xee, min_u64(sg->iov->iov_len, 100));
	else
		answer(offset, sg);
	pthread_mutex_lock(&remote->mutex);
	remote->under_way--;
	pthread_mutex_unlock(&remote->mutex);
	return failed ? remote->error : 0;
}

struct blob_cache_object *remote_open(struct blob_client *remote, uint64_t memory,
				      unsigned requests_max, uint64_t readahead_max)
{
	struct blob_cache_source source = {
		.client = remote,
		.fetch = remote_fetch,
		.size = remote->size,
		.requests_max = requests_max,
		.readahead_max = readahead_max,
	};
	struct blob_cache_object *object;

	cache_memory_set(memory);
	object = blob_cache_open(&source);
	CHECK(object);
	return object;
}

void remote_forget(struct blob_client *remote)
{
	pthread_mutex_lock(&remote->mutex);
	remote->call_count = 0;
	remote->under_way_max = remote->under_way;
	remote->bytes = 0;
	pthread_mutex_unlock(&remote->mutex);
}

bool remote_wait(struct blob_client *remote, unsigned count)
{
	unsigned under_way = 0;

	for (unsigned i = 0; i < LOOKS_MAX && under_way != count; i++) {
		pthread_mutex_lock(&remote->mutex);
		under_way = remote->under_way;
		pthread_mutex_unlock(&remote->mutex);
		if (under_way != count)
			task_sleep_ns(NS_PER_US * 100);
	}
	return CHECK_EQ(under_way, count);
}

/* ---- The near side. ---- */

#define SEGMENTS 5

/* Cuts it where nobody would expect it. */
static struct sg cut(struct iovec iov[SEGMENTS], char *data, size_t length)
{
	struct sg sg = {.iov = iov, .len = length};
	size_t part = length / SEGMENTS | 1;

	for (unsigned i = 0; i < SEGMENTS; i++) {
		size_t now = i + 1 < SEGMENTS ? min_u64(part, length) : length;

		iov[i] = (struct iovec){data, now};
		data += now;
		length -= now;
	}
	return sg;
}

static bool is_right(const char *data, uint64_t offset, size_t length)
{
	char wanted[1024];
	bool held = true;

	for (size_t done = 0; held && done < length; done += sizeof(wanted)) {
		size_t part = min_u64(sizeof(wanted), length - done);

		content(wanted, offset + done, part);
		held = CHECK(memcmp(data + done, wanted, part) == 0);
	}
	return held;
}

int remote_read(struct blob_cache_object *object, uint64_t offset, size_t length)
{
	char *data = malloc(length);
	struct iovec iov[SEGMENTS];
	struct sg sg = cut(iov, data, length);
	int error;

	memset(data, 0x55, length);
	error = blob_cache_read(object, &sg, offset);
	if (!error)
		is_right(data, offset, length);
	free(data);
	return error;
}

bool remote_check(struct blob_cache_object *object, uint64_t offset, size_t length)
{
	check_context("%zu bytes at %llu", length, (unsigned long long)offset);
	return CHECK_OK(remote_read(object, offset, length));
}
