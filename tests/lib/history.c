// SPDX-License-Identifier: MIT
#include "tests/lib/history.h"

#include <assert.h>
#include <string.h>
#include "tests/lib/run.h"

void stamp_fill(void *data, size_t length, uint32_t stamp, unsigned sector)
{
	uint32_t words[2] = {stamp, sector};

	for (size_t i = 0; i < length; i += sizeof(words))
		memcpy((char *)data + i, words, sizeof(words));
}

int64_t stamp_of(const void *data, size_t length, unsigned sector)
{
	uint32_t stamp, words[2];

	if (bytes_differ(data, length, 0) == length)
		return 0;
	memcpy(&stamp, data, sizeof(stamp));
	for (size_t i = 0; i < length; i += sizeof(words)) {
		memcpy(words, (const char *)data + i, sizeof(words));
		if (words[0] != stamp || words[1] != sector)
			return -1;
	}
	return stamp > 0 ? (int64_t)stamp : -1;
}

void history_begin(struct history *history, unsigned sectors, uint32_t what)
{
	assert(sectors <= HISTORY_SECTORS);
	memset(history, 0, sizeof(*history));
	history->sectors = sectors;
	history->floor_events = UINT32_MAX;
	for (unsigned i = 0; i < sectors; i++)
		history_issue(history, i, what, 0);
}

void history_begin_as(struct history *history, unsigned sector, uint32_t what)
{
	history->values[sector][0].what = what;
}

void history_issue(struct history *history, unsigned sector, uint32_t what, unsigned events)
{
	assert(sector < history->sectors && history->counts[sector] < HISTORY_VALUES_MAX);
	history->values[sector][history->counts[sector]++] = (struct history_value){what, events};
}

void history_acknowledge(struct history *history, unsigned sector)
{
	history->acknowledged[sector] = (uint16_t)(history->counts[sector] - 1);
}

uint32_t history_current(const struct history *history, unsigned sector)
{
	return history->values[sector][history->counts[sector] - 1U].what;
}

struct history_flush *history_flush_begin(struct history *history)
{
	struct history_flush *flush = &history->flushes[history->flush_count++];

	assert(history->flush_count <= HISTORY_FLUSHES_MAX);
	flush->ended = UINT32_MAX;
	memcpy(flush->values, history->acknowledged, sizeof(flush->values));
	return flush;
}

void history_flush_end(struct history_flush *flush, unsigned events)
{
	flush->ended = events;
}

/* The last value of each that a flush has made durable by then. */
static void find_floors(struct history *history, unsigned events)
{
	memset(history->floors, 0, sizeof(history->floors));
	for (unsigned i = 0; i < history->flush_count; i++) {
		const struct history_flush *flush = &history->flushes[i];

		for (unsigned j = 0; flush->ended <= events && j < history->sectors; j++)
			if (flush->values[j] > history->floors[j])
				history->floors[j] = flush->values[j];
	}
	history->floor_events = events;
}

bool history_any(struct history *history, unsigned sector, unsigned events,
		 bool (*function)(uint32_t what, void *context), void *context)
{
	unsigned first;

	if (history->floor_events != events)
		find_floors(history, events);
	first = history->floors[sector];
	for (unsigned i = first; i < history->counts[sector]; i++) {
		const struct history_value *value = &history->values[sector][i];

		if (i > first && value->issued > events)
			break;
		if (function(value->what, context))
			return true;
	}
	return false;
}

static bool is_what(uint32_t what, void *context)
{
	return what == *(const uint32_t *)context;
}

bool history_may_be(struct history *history, unsigned sector, uint32_t what, unsigned events)
{
	return history_any(history, sector, events, is_what, &what);
}
