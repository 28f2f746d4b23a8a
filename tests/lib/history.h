/* SPDX-License-Identifier: MIT */
/*
 * What each of some sectors has been, and which flushes there were: so that a test of power cuts can
 * ask of a sector whether it may be what it is. The moments are counts of events of whatever records
 * what is written below.
 *
 * The changes of one sector come one after the other.
 */
#ifndef TESTS_LIB_HISTORY_H
#define TESTS_LIB_HISTORY_H

#include "core/util.h"

/* What @length bytes of a sector hold that has a stamp, from 1 on: they tell it and their place. */
void stamp_fill(void *data, size_t length, uint32_t stamp, unsigned sector);
/* The stamp that is in the sector; 0: zeros; -1: neither, it is torn, or another's. */
int64_t stamp_of(const void *data, size_t length, unsigned sector);

#define HISTORY_SECTORS	    1024
#define HISTORY_VALUES_MAX  512 /* of one sector */
#define HISTORY_FLUSHES_MAX 1024

struct history_value {
	uint32_t what;	 /* the test's own */
	unsigned issued; /* events that there were when it was asked for */
};

struct history_flush {
	unsigned ended;			  /* events that there were; UINT32_MAX: it has not */
	uint16_t values[HISTORY_SECTORS]; /* of each sector, the last value when it began */
};

struct history {
	unsigned sectors;
	struct history_value values[HISTORY_SECTORS][HISTORY_VALUES_MAX];
	uint16_t counts[HISTORY_SECTORS];
	uint16_t acknowledged[HISTORY_SECTORS]; /* the index of a value */
	struct history_flush flushes[HISTORY_FLUSHES_MAX];
	unsigned flush_count;
	/* What the flushes have made durable behind so many events: */
	unsigned floor_events;
	uint16_t floors[HISTORY_SECTORS];
};

/* All sectors are @what, durably, and nothing has happened. */
void history_begin(struct history *history, unsigned sectors, uint32_t what);
/* Another beginning, for one sector. */
void history_begin_as(struct history *history, unsigned sector, uint32_t what);

/* The sector is to become @what; it has. */
void history_issue(struct history *history, unsigned sector, uint32_t what, unsigned events);
void history_acknowledge(struct history *history, unsigned sector);

/* The last that it was to become. */
uint32_t history_current(const struct history *history, unsigned sector);

/* A flush; several may be under way. */
struct history_flush *history_flush_begin(struct history *history);
void history_flush_end(struct history_flush *flush, unsigned events);

/* Whether the sector may be @what after a cut behind @events events. */
bool history_may_be(struct history *history, unsigned sector, uint32_t what, unsigned events);
/* Calls @function for all that it may be, until it returns true. */
bool history_any(struct history *history, unsigned sector, unsigned events,
		 bool (*function)(uint32_t what, void *context), void *context);

#endif
