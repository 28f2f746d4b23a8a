/* SPDX-License-Identifier: MIT */
/*
 * What to read ahead of whoever reads sequentially. It only decides; it is told of reads that did
 * not find everything, or found what was read ahead (others need no help), and answers with a range.
 *
 * The end of a read is a *candidate*. A read that begins there, or almost, since requests overtake
 * one another, makes it a *stream*. The window of a stream, how far ahead of it is read, is
 *
 *	as long as the stream, since the beginning: so what is read in vain when it breaks off is
 *	less than what was not, and whoever reads at random gets nothing;
 *
 *	at most its limit, which is doubled as long as that helps. A *round* is as long as the limit;
 *	those in which the reader did not have to wait do not count, since he has enough. If he went
 *	faster by a tenth than ever before, the limit is doubled; if he did not, it is doubled once
 *	more, since rates are uneven, and then goes back. So it ends at two to four times what is on
 *	its way when the link is full (the product of bandwidth and delay), without a guess of
 *	either. From time to time it tries again.
 *
 * Where a stream comes to something that was read ahead, but is gone, the limit is halved: either it
 * was pushed out, or it failed. It is not tried again at once then.
 *
 * Nothing is read ahead that nobody follows: each range comes from a read of the stream. Any thread;
 * a mutex is held for a few hundred instructions.
 */
#ifndef BACKENDS_BLOB_READAHEAD_H
#define BACKENDS_BLOB_READAHEAD_H

#include <pthread.h>
#include "core/util.h"

#define READAHEAD_CANDIDATES 64
#define READAHEAD_STREAMS    16
/* The limit of a new stream: what is on its way at 1 Gbit/s and 30 ms. And the lowest. */
#define READAHEAD_START (4 * MIB)
#define READAHEAD_MIN	(64 * KIB)

/* The end of a read, of bytes [begin, end); begin == end: none. */
struct candidate {
	uint64_t begin, end;
};

enum stream_state {
	STREAM_GROWING,
	STREAM_DOUBTING, /* it was doubled in vain, once */
	STREAM_HOLDING,
};

struct stream {
	uint64_t next;	/* the end of what was read */
	uint64_t ahead; /* of what was read ahead */
	uint64_t run;	/* bytes that were read in all */
	uint64_t limit;
	uint64_t used; /* when, by readahead->time; 0: no stream */

	enum stream_state state;
	uint64_t proven;	      /* the limit to go back to */
	uint64_t round_run, round_ns; /* of its beginning */
	bool round_waited;
	unsigned rounds_held;
	double best; /* bytes a nanosecond */
};

struct readahead {
	pthread_mutex_t mutex;
	uint64_t size; /* of the object */
	uint64_t max;  /* of a window; 0: nothing is read ahead */
	uint64_t time;
	struct candidate candidates[READAHEAD_CANDIDATES];
	unsigned candidate_next;
	struct stream streams[READAHEAD_STREAMS];
};

void readahead_init(struct readahead *readahead, uint64_t size, uint64_t max);
void readahead_destroy(struct readahead *readahead);

/* A read of bytes [begin, end), in the object and not empty. */
struct readahead_note {
	uint64_t begin, end;
	uint64_t missing; /* where the first byte was that had to be asked for; end: none had */
	bool waited;	  /* something was not in memory */
	uint64_t now_ns;
};

struct readahead_range {
	uint64_t begin, end; /* of bytes; empty: nothing */
	uint64_t piece;	     /* bytes to be asked for at once, a multiple of 4 KiB */
};

void readahead_note(struct readahead *readahead, const struct readahead_note *note,
		    struct readahead_range *range);

/* The largest window of all streams. */
uint64_t readahead_window(struct readahead *readahead);

#endif
