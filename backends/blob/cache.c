// SPDX-License-Identifier: MIT
/*
 * A read goes over its range once. What is in memory is copied at once, as long as it is found;
 * what is being fetched is joined, and for what is missing fetches are started, all of them before
 * it waits for the first. So a read that finds everything takes a lock for each group of blocks and
 * nothing else. Before it waits, readahead is told.
 *
 * A fetch that fails may have been of more than this read has asked for: somebody else's read, or
 * readahead. Then the error may not be ours, and nobody has tried yet what we want alone: the read
 * fetches its part by itself, past the cache, once. The error of that, or of a request in which
 * there was nothing but what it wants, is the read's. So whatever others do, a read is over after
 * the time of two requests in a row.
 *
 * Nothing survives the process.
 */
#include "backends/blob/cache.h"
#include <stdlib.h>
#include <string.h>
#include "backends/blob/flight.h"
#include "backends/blob/readahead.h"
#include "core/worker.h"

/* Fetches that one read waits for at once; it goes on in another round where it needs more. */
#define WAITS_MAX 16

/* The share of the budget that one window of readahead may take. */
#define READAHEAD_SHARE 8

/* Counters of a worker, which alone writes them. */
struct slot {
	_Alignas(64) _Atomic uint64_t hits;
	_Atomic uint64_t misses, cached, joined, fetched, past, useful;
};

struct blob_cache_object {
	struct blocks *blocks;
	struct flight flight;
	struct readahead readahead;
	struct slot *slots;
	unsigned slot_count;
};

/* ---- Life. ---- */

struct blob_cache_object *blob_cache_open(const struct blob_cache_source *source)
{
	struct blob_cache_object *object = calloc(1, sizeof(*object));
	unsigned workers = workers_count();
	struct slot *slots = aligned_alloc(_Alignof(struct slot), workers * sizeof(*slots));
	struct blocks *blocks = blocks_get();

	if (!object || !slots || !blocks) {
		if (blocks)
			blocks_put(blocks);
		free(slots);
		free(object);
		return NULL;
	}
	memset(slots, 0, workers * sizeof(*slots));
	object->slots = slots;
	object->slot_count = workers;
	object->blocks = blocks;
	flight_init(&object->flight, blocks, source);
	readahead_init(&object->readahead, source->size,
		       min_u64(source->readahead_max, blocks_limit(blocks) / READAHEAD_SHARE));
	return object;
}

void blob_cache_close(struct blob_cache_object *object)
{
	if (!object)
		return;
	flight_end(&object->flight);
	blocks_forget(object->blocks, &object->flight.owner);
	blocks_put(object->blocks);
	readahead_destroy(&object->readahead);
	free(object->slots);
	free(object);
}

/* ---- A read. ---- */

/* A part of a read that is not in memory. */
struct wait {
	struct fetch *fetch; /* held; NULL: it is read past the cache */
	uint64_t offset;
	struct sg sg;
};

struct reading {
	struct blob_cache_object *object;
	uint64_t at; /* what is left */
	struct sg rest;
	struct wait waits[WAITS_MAX];
	unsigned wait_count;
	struct readahead_note note;
	bool notifies;
	uint64_t cached, joined, fetched, past, useful;
};

static struct sg reading_take(struct reading *reading, size_t length)
{
	reading->at += length;
	return sg_take(&reading->rest, length);
}

static void reading_wait(struct reading *reading, struct fetch *fetch, size_t length)
{
	struct wait *wait = &reading->waits[reading->wait_count++];

	wait->fetch = fetch;
	wait->offset = reading->at;
	wait->sg = reading_take(reading, length);
}

/* The bytes of the blocks [first, first + @count) that are left of the read. */
static size_t length_in_blocks(const struct reading *reading, uint64_t first, uint64_t count)
{
	return min_u64(((first + count) << CACHE_BLOCK_SHIFT) - reading->at, reading->rest.len);
}

/* What comes next is missing. */
static void reading_miss(struct reading *reading)
{
	struct flight *flight = &reading->object->flight;
	uint64_t first = reading->at >> CACHE_BLOCK_SHIFT;
	uint64_t end = (reading->note.end + CACHE_BLOCK - 1) >> CACHE_BLOCK_SHIFT;
	uint64_t count = blocks_missing(flight->blocks, &flight->owner, first, end - first);
	uint64_t missing = reading->at;
	struct fetch *fetch = NULL;
	size_t length;

	if (count == 0)
		return;
	switch (flight_start(flight, first, count, FETCH_WANTED, &fetch)) {
	case FLIGHT_THERE:
		return;
	case FLIGHT_STARTED:
		length = length_in_blocks(reading, first, fetch->count);
		reading->fetched += length;
		break;
	case FLIGHT_FULL:
	default:
		length = length_in_blocks(reading, first, count);
		reading->past += length;
		break;
	}
	reading_wait(reading, fetch, length);
	reading->note.missing = min_u64(reading->note.missing, missing);
}

/* Goes on until all is read, or there is too much to wait for. */
static void reading_collect(struct reading *reading)
{
	struct flight *flight = &reading->object->flight;
	struct look look;

	while (reading->rest.len > 0 && reading->wait_count < WAITS_MAX) {
		blocks_look(flight->blocks, &flight->owner, reading->at, &reading->rest, &look);
		switch (look.found) {
		case LOOK_HIT:
			reading->cached += look.length;
			reading->useful += look.useful;
			reading->notifies |= look.notifies;
			reading_take(reading, look.length);
			break;
		case LOOK_LOADING:
			reading->joined += look.length;
			fetch_want(look.fetch);
			reading_wait(reading, look.fetch, look.length);
			break;
		case LOOK_MISSING:
			reading_miss(reading);
			break;
		}
	}
}

/* Waits for one; its fetch is the caller's to release. */
static int wait_end(struct reading *reading, const struct wait *wait)
{
	struct flight *flight = &reading->object->flight;
	struct look look = {.useful = 0};
	int error;

	if (!wait->fetch)
		return flight_read_past(flight, &wait->sg, wait->offset);
	error = fetch_wait(wait->fetch);
	if (!error) {
		fetch_copy(wait->fetch, wait->offset, &wait->sg, &look);
		reading->useful += look.useful;
		return 0;
	}
	if (fetch_asked_within(wait->fetch, reading->note.begin, reading->note.end))
		return error;
	reading->past += wait->sg.len;
	return flight_read_past(flight, &wait->sg, wait->offset);
}

static int reading_wait_all(struct reading *reading)
{
	int error = 0;

	for (unsigned i = 0; i < reading->wait_count; i++) {
		const struct wait *wait = &reading->waits[i];

		/* After an error nobody cares about the rest. */
		if (!error)
			error = wait_end(reading, wait);
		if (wait->fetch)
			fetch_release(wait->fetch);
	}
	reading->wait_count = 0;
	return error;
}

/* ---- Readahead. ---- */

static void read_ahead(struct flight *flight, const struct readahead_range *range)
{
	uint64_t first = range->begin >> CACHE_BLOCK_SHIFT;
	uint64_t end = (range->end + CACHE_BLOCK - 1) >> CACHE_BLOCK_SHIFT;
	enum flight_result result = FLIGHT_STARTED;

	while (result != FLIGHT_FULL) {
		struct fetch *fetch;
		uint64_t count;

		first += blocks_skip(flight->blocks, &flight->owner, first, end - first);
		if (first >= end)
			return;
		count = blocks_missing(flight->blocks, &flight->owner, first, end - first);
		if (count == 0)
			continue;
		result = flight_start(flight, first,
				      min_u64(count, range->piece >> CACHE_BLOCK_SHIFT),
				      FETCH_AHEAD, &fetch);
		if (result == FLIGHT_STARTED) {
			first += fetch->count;
			fetch_release(fetch);
		}
	}
}

static void reading_note(struct reading *reading)
{
	struct blob_cache_object *object = reading->object;
	struct readahead_range range;

	reading->note.waited = reading->wait_count > 0;
	if (!reading->note.waited && !reading->notifies)
		return;
	reading->note.now_ns = now_ns();
	readahead_note(&object->readahead, &reading->note, &range);
	if (range.begin < range.end)
		read_ahead(&object->flight, &range);
}

/* ---- The whole. ---- */

static void count(_Atomic uint64_t *counter, uint64_t value)
{
	if (value > 0)
		atomic_store_explicit(counter,
				      atomic_load_explicit(counter, memory_order_relaxed) + value,
				      memory_order_relaxed);
}

static void reading_count(const struct reading *reading)
{
	struct slot *slot = &reading->object->slots[worker_index()];

	count(reading->note.waited ? &slot->misses : &slot->hits, 1);
	count(&slot->cached, reading->cached);
	count(&slot->joined, reading->joined);
	count(&slot->fetched, reading->fetched);
	count(&slot->past, reading->past);
	count(&slot->useful, reading->useful);
}

int blob_cache_read(struct blob_cache_object *object, const struct sg *sg, uint64_t offset)
{
	struct reading reading;
	int error = 0;

	/* Not all of it: the waits are filled as they are used. */
	reading.object = object;
	reading.at = offset;
	reading.rest = *sg;
	reading.wait_count = 0;
	reading.note = (struct readahead_note){.begin = offset,
					       .end = offset + sg->len,
					       .missing = offset + sg->len};
	reading.notifies = false;
	reading.cached = reading.joined = reading.fetched = reading.past = reading.useful = 0;

	if (sg->len == 0)
		return 0;
	reading_collect(&reading);
	reading_note(&reading);
	error = reading_wait_all(&reading);
	while (!error && reading.rest.len > 0) {
		reading_collect(&reading);
		error = reading_wait_all(&reading);
	}
	reading_count(&reading);
	return error;
}

/* ---- Numbers. ---- */

static uint64_t load(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void blob_cache_read_numbers(struct blob_cache_object *object, struct blob_cache_numbers *numbers)
{
	const struct flight *flight = &object->flight;

	*numbers = (struct blob_cache_numbers){
		.requests = load(&flight->requests),
		.coalesced = load(&flight->coalesced),
		.failures = load(&flight->failures),
		.readahead = load(&flight->ahead_bytes),
		.readahead_wasted = load(&flight->owner.wasted) * CACHE_BLOCK,
		.window = readahead_window(&object->readahead),
		.held = load(&flight->owner.held) * CACHE_BLOCK,
		.memory_used = blocks_used(object->blocks),
		.memory_limit = blocks_limit(object->blocks),
	};
	for (unsigned i = 0; i < object->slot_count; i++) {
		const struct slot *slot = &object->slots[i];

		numbers->hits += load(&slot->hits);
		numbers->misses += load(&slot->misses);
		numbers->cached += load(&slot->cached);
		numbers->joined += load(&slot->joined);
		numbers->fetched += load(&slot->fetched);
		numbers->past += load(&slot->past);
		numbers->readahead_useful += load(&slot->useful);
	}
}

void blob_cache_inspect(struct blob_cache_object *object, struct report *report)
{
	struct blob_cache_numbers numbers;

	blob_cache_read_numbers(object, &numbers);
	report_object_begin(report, "cache");
	report_bytes(report, "memory", numbers.held);
	report_bytes(report, "memory_of_mount", numbers.memory_used);
	report_bytes(report, "memory_limit", numbers.memory_limit);
	report_u64(report, "hits", numbers.hits);
	report_u64(report, "misses", numbers.misses);
	report_bytes(report, "found", numbers.cached);
	report_bytes(report, "joined", numbers.joined);
	report_bytes(report, "fetched", numbers.fetched);
	report_bytes(report, "past", numbers.past);
	report_u64(report, "fetches", numbers.requests);
	report_u64(report, "fetches_coalesced", numbers.coalesced);
	report_u64(report, "fetches_failed", numbers.failures);
	report_object_end(report);
	report_object_begin(report, "readahead");
	report_bytes(report, "window", numbers.window);
	report_bytes(report, "fetched", numbers.readahead);
	report_bytes(report, "useful", numbers.readahead_useful);
	report_bytes(report, "wasted", numbers.readahead_wasted);
	report_object_end(report);
}
