// SPDX-License-Identifier: MIT
/*
 * What the pool knows of a buffer is in a page behind it, since all of the buffer is its user's:
 * above all how far it was ever touched. From that follows how much memory the idle buffers hold.
 * One that would be too much gives its memory back, but for that page, and stays at the end of the
 * list, behind those that still have theirs. So is there a system call only for what was large.
 */
#include "core/buffer.h"
#include <assert.h>
#include <sys/mman.h>
#include "core/worker_private.h"

#define PAGE	    ((size_t)4096)
#define HELD_LITTLE ((size_t)64 * 1024)

/* In the page behind each buffer. */
struct buffer_note {
	struct buffer_note *next; /* of the idle ones */
	size_t touched;		  /* bytes from the buffer's beginning that may be in memory */
};

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

static struct buffer_note *note_of(void *buffer)
{
	return (struct buffer_note *)(void *)((char *)buffer + buffer_size());
}

static void *buffer_of(struct buffer_note *note)
{
	return (char *)note - buffer_size();
}

/* What the idle buffer holds. */
static uint64_t held_bytes(const struct buffer_note *note)
{
	return note->touched + PAGE;
}

/*
 * What idle buffers may hold, with one that holds @bytes. Those that hold much leave a quarter of it
 * to those that hold little: else many little ones that come after them would have to give up
 * theirs, again and again.
 */
static uint64_t held_max(uint64_t bytes)
{
	uint64_t max = (uint64_t)BUFFERS_IDLE_MAX * (buffer_size() + PAGE);

	return bytes > HELD_LITTLE ? max - max / 4 : max;
}

/* ---- Memory. ---- */

static void buffer_count(struct worker *worker, int64_t bytes)
{
	uint64_t now = atomic_load_explicit(&worker->buffer_bytes, memory_order_relaxed);

	atomic_store_explicit(&worker->buffer_bytes, now + (uint64_t)bytes, memory_order_relaxed);
}

static void *buffer_new(struct worker *worker)
{
	void *buffer = mmap(NULL, buffer_size() + PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (buffer == MAP_FAILED)
		return NULL;
	buffer_count(worker, (int64_t)buffer_size());
	return buffer;
}

static void buffer_free(struct worker *worker, void *buffer)
{
	munmap(buffer, buffer_size() + PAGE);
	buffer_count(worker, -(int64_t)buffer_size());
}

/* ---- The idle ones. ---- */

void *buffer_get(void)
{
	struct worker *worker = worker_self();
	struct buffer_pool *idle = &worker->buffers;
	struct buffer_note *note = idle->first;

	if (!note)
		return buffer_new(worker);
	idle->first = note->next;
	if (!idle->first)
		idle->last = NULL;
	idle->bytes -= held_bytes(note);
	return buffer_of(note);
}

static void push(struct buffer_pool *idle, struct buffer_note *note)
{
	note->next = idle->first;
	idle->first = note;
	if (!idle->last)
		idle->last = note;
}

static void append(struct buffer_pool *idle, struct buffer_note *note)
{
	note->next = NULL;
	if (idle->last)
		idle->last->next = note;
	else
		idle->first = note;
	idle->last = note;
}

static bool fits(const struct buffer_pool *idle, const struct buffer_note *note)
{
	return idle->bytes + held_bytes(note) <= held_max(held_bytes(note));
}

void buffer_put_touched(void *buffer, size_t touched)
{
	struct worker *worker = worker_self();
	struct buffer_pool *idle = &worker->buffers;
	struct buffer_note *note = note_of(buffer);
	bool is_warm;

	note->touched = max_u64(note->touched, align_up(touched, PAGE));
	is_warm = fits(idle, note);
	if (!is_warm && madvise(buffer, note->touched, MADV_DONTNEED) == 0)
		note->touched = 0;
	if (!fits(idle, note)) {
		buffer_free(worker, buffer);
		return;
	}
	if (is_warm)
		push(idle, note);
	else
		append(idle, note);
	idle->bytes += held_bytes(note);
}

void buffer_put(void *buffer)
{
	buffer_put_touched(buffer, buffer_size());
}

void buffers_free_idle(struct worker *worker)
{
	struct buffer_note *note = worker->buffers.first;

	while (note) {
		struct buffer_note *next = note->next;

		buffer_free(worker, buffer_of(note));
		note = next;
	}
	worker->buffers = (struct buffer_pool){.first = NULL};
}
