// SPDX-License-Identifier: MIT
#include "core/buffer.h"
#include <assert.h>
#include <sys/mman.h>
#include "core/worker_private.h"

static size_t payload = BUFFER_PAYLOAD;

void buffers_set_payload(size_t bytes)
{
	assert(bytes >= BUFFER_PAYLOAD);
	payload = bytes;
}

size_t buffer_payload(void)
{
	return payload;
}

size_t buffer_size(void)
{
	return BUFFER_HEADER + payload;
}

static void buffer_count(struct worker *worker, int64_t bytes)
{
	uint64_t now = atomic_load_explicit(&worker->buffer_bytes, memory_order_relaxed);

	atomic_store_explicit(&worker->buffer_bytes, now + (uint64_t)bytes, memory_order_relaxed);
}

void *buffer_get(void)
{
	struct worker *worker = worker_self();
	void **buffer = worker->buffers.first;

	if (buffer) {
		worker->buffers.first = *buffer;
		worker->buffers.idle--;
		return buffer;
	}
	buffer = mmap(NULL, buffer_size(), PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (buffer == MAP_FAILED)
		return NULL;
	buffer_count(worker, (int64_t)buffer_size());
	return buffer;
}

static void buffer_free(struct worker *worker, void *buffer)
{
	munmap(buffer, buffer_size());
	buffer_count(worker, -(int64_t)buffer_size());
}

void buffer_put(void *buffer)
{
	struct worker *worker = worker_self();
	void **link = buffer;

	if (worker->buffers.idle >= BUFFERS_IDLE_MAX) {
		buffer_free(worker, buffer);
		return;
	}
	*link = worker->buffers.first;
	worker->buffers.first = link;
	worker->buffers.idle++;
}

void buffers_free_idle(struct worker *worker)
{
	while (worker->buffers.first) {
		void **buffer = worker->buffers.first;

		worker->buffers.first = *buffer;
		buffer_free(worker, buffer);
	}
	worker->buffers.idle = 0;
}
