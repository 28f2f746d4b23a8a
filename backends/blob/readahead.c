// SPDX-License-Identifier: MIT
#include "backends/blob/readahead.h"
#include <string.h>

/* The most that a read may be away from where it was expected. */
#define NEAR_MAX (128 * KIB)
/* What is faster by that is faster. */
#define FASTER 1.1
/* Rounds in which the reader waits before it tries again. */
#define ROUNDS_HELD_MAX 16
#define PIECE_MIN	(128 * KIB)
#define PIECE_MAX	MIB
/* How many pieces a window has. */
#define PIECES 8
#define BLOCK  ((uint64_t)4096)

void readahead_init(struct readahead *readahead, uint64_t size, uint64_t max)
{
	*readahead = (struct readahead){.size = size, .max = align_down(max, BLOCK)};
	pthread_mutex_init(&readahead->mutex, NULL);
}

void readahead_destroy(struct readahead *readahead)
{
	pthread_mutex_destroy(&readahead->mutex);
}

/* ---- Whose read it is. ---- */

static bool is_near(uint64_t a, uint64_t b, uint64_t distance)
{
	return a < b ? b - a <= distance : a - b <= distance;
}

static uint64_t near_of(const struct readahead_note *note)
{
	return min_u64(note->end - note->begin, NEAR_MAX);
}

static uint64_t window_of(const struct stream *stream)
{
	return align_down(min_u64(stream->run, stream->limit), BLOCK);
}

/* Whether the read may be the stream's: about where it is, or in what was read ahead of it. */
static bool belongs(const struct stream *stream, const struct readahead_note *note)
{
	uint64_t near = near_of(note);

	if (stream->used == 0)
		return false;
	if (note->begin < stream->next)
		return stream->next - note->begin <= max_u64(window_of(stream), near);
	return note->begin <= max_u64(stream->ahead, stream->next) + near;
}

/* One that it continues exactly comes first. */
static struct stream *find_stream(struct readahead *readahead, const struct readahead_note *note)
{
	struct stream *found = NULL;

	for (unsigned i = 0; i < READAHEAD_STREAMS; i++) {
		struct stream *stream = &readahead->streams[i];

		if (stream->used > 0 && stream->next == note->begin)
			return stream;
		if (!found && belongs(stream, note))
			found = stream;
	}
	return found;
}

static struct candidate *find_candidate(struct readahead *readahead,
					const struct readahead_note *note)
{
	uint64_t near = near_of(note);

	for (unsigned i = 0; i < READAHEAD_CANDIDATES; i++) {
		struct candidate *candidate = &readahead->candidates[i];

		if (candidate->begin < candidate->end && note->end > candidate->end &&
		    is_near(candidate->end, note->begin, near))
			return candidate;
	}
	return NULL;
}

static void add_candidate(struct readahead *readahead, const struct readahead_note *note)
{
	readahead->candidates[readahead->candidate_next] =
		(struct candidate){.begin = note->begin, .end = note->end};
	readahead->candidate_next = (readahead->candidate_next + 1) % READAHEAD_CANDIDATES;
}

/* In the place of the one that was not used for the longest time. */
static struct stream *new_stream(struct readahead *readahead, struct candidate *candidate,
				 uint64_t now)
{
	struct stream *stream = &readahead->streams[0];

	for (unsigned i = 1; i < READAHEAD_STREAMS; i++)
		if (readahead->streams[i].used < stream->used)
			stream = &readahead->streams[i];
	*stream = (struct stream){
		.next = candidate->end,
		.run = candidate->end - candidate->begin,
		.limit = min_u64(READAHEAD_START, readahead->max),
		.proven = min_u64(READAHEAD_START, readahead->max),
		.round_ns = now,
	};
	*candidate = (struct candidate){0};
	return stream;
}

/* ---- Its limit. ---- */

static void set_limit(const struct readahead *readahead, struct stream *stream, uint64_t limit)
{
	stream->limit = min_u64(max_u64(limit, READAHEAD_MIN), readahead->max);
}

static void begin_round(struct stream *stream, uint64_t now)
{
	stream->round_run = stream->run;
	stream->round_ns = now;
	stream->round_waited = false;
}

static void hold(struct stream *stream)
{
	stream->state = STREAM_HOLDING;
	stream->rounds_held = 0;
}

/* In which the reader had to wait. */
static void end_round(const struct readahead *readahead, struct stream *stream, uint64_t now)
{
	uint64_t ns = max_u64(now - stream->round_ns, 1);
	double rate = (double)(stream->run - stream->round_run) / (double)ns;
	bool faster = rate >= stream->best * FASTER;

	if (stream->state == STREAM_HOLDING) {
		if (++stream->rounds_held < ROUNDS_HELD_MAX)
			return;
		stream->state = STREAM_GROWING;
		stream->best = rate;
	} else if (faster) {
		stream->state = STREAM_GROWING;
		stream->best = rate;
		stream->proven = min_u64(stream->limit * 2, readahead->max);
	} else if (stream->state == STREAM_GROWING) {
		stream->state = STREAM_DOUBTING;
	} else {
		hold(stream);
		stream->limit = stream->proven;
		return;
	}
	set_limit(readahead, stream, stream->limit * 2);
}

static void halve(const struct readahead *readahead, struct stream *stream, uint64_t now)
{
	set_limit(readahead, stream, stream->limit / 2);
	stream->proven = stream->limit;
	hold(stream);
	begin_round(stream, now);
}

/* ---- The whole. ---- */

static void advance(const struct readahead *readahead, struct stream *stream,
		    const struct readahead_note *note)
{
	if (note->missing >= stream->next && note->missing < min_u64(note->end, stream->ahead))
		halve(readahead, stream, note->now_ns);
	stream->round_waited |= note->waited;
	if (note->end > stream->next) {
		stream->run += note->end - max_u64(note->begin, stream->next);
		stream->next = note->end;
	}
	/* Until it is as long as its limit, the limit is not what it has to do with. */
	if (stream->run <= stream->limit) {
		begin_round(stream, note->now_ns);
	} else if (stream->run - stream->round_run >= stream->limit) {
		if (stream->round_waited)
			end_round(readahead, stream, note->now_ns);
		begin_round(stream, note->now_ns);
	}
}

/* What is to be read ahead of the stream now. Small pieces wait until they are worth a request. */
static void plan(const struct readahead *readahead, struct stream *stream,
		 struct readahead_range *range)
{
	uint64_t window = window_of(stream);
	uint64_t begin = align_up(max_u64(stream->ahead, stream->next), BLOCK);
	uint64_t end = min_u64(align_up(stream->next, BLOCK) + window, readahead->size);

	range->piece = align_down(min_u64(max_u64(window / PIECES, PIECE_MIN), PIECE_MAX), BLOCK);
	if (begin >= end)
		return;
	if (end < readahead->size && end - begin < min_u64(range->piece, window / 2))
		return;
	range->begin = begin;
	range->end = end;
	stream->ahead = end;
}

void readahead_note(struct readahead *readahead, const struct readahead_note *note,
		    struct readahead_range *range)
{
	struct candidate *candidate;
	struct stream *stream;

	*range = (struct readahead_range){0};
	if (readahead->max == 0)
		return;
	pthread_mutex_lock(&readahead->mutex);
	stream = find_stream(readahead, note);
	if (!stream) {
		candidate = find_candidate(readahead, note);
		if (candidate)
			stream = new_stream(readahead, candidate, note->now_ns);
		else
			add_candidate(readahead, note);
	}
	if (stream) {
		stream->used = ++readahead->time;
		advance(readahead, stream, note);
		plan(readahead, stream, range);
	}
	pthread_mutex_unlock(&readahead->mutex);
}

uint64_t readahead_window(struct readahead *readahead)
{
	uint64_t window = 0;

	pthread_mutex_lock(&readahead->mutex);
	for (unsigned i = 0; i < READAHEAD_STREAMS; i++)
		if (readahead->streams[i].used > 0)
			window = max_u64(window, window_of(&readahead->streams[i]));
	pthread_mutex_unlock(&readahead->mutex);
	return window;
}
