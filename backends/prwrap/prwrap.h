/* SPDX-License-Identifier: MIT */
/*
 * prwrap: one disk that several initiators share, and fence one another from, by persistent
 * reservations. The disk of the node (prwrap.c) keeps the reservations and hands everything on,
 * since it is nobody's; each of its ports (port.c) is one I_T nexus, known by its name, and hands
 * on what the reservations let it. Where the disk below has reservations of its own, those are used
 * and none are kept here.
 *
 * A request is let through, and counted as under way, in one step under `mutex`; a change takes
 * effect under it, too, and does not return before every request has ended that it would not let
 * through any more, or aborts. So after a successful preemption nothing of its victim reaches the
 * disk. Whatever a request has done when it is aborted, its sender is told so, by ERROR_ABORTED.
 *
 * Changes come one at a time (change_mutex). Each is worked out on a copy, written to the state
 * file where it has to survive, and only then takes effect: what somebody was told has been kept.
 */
#ifndef BACKENDS_PRWRAP_PRWRAP_H
#define BACKENDS_PRWRAP_PRWRAP_H

#include <pthread.h>
#include "backends/prwrap/reservations.h"
#include "backends/prwrap/state_file.h"
#include "backends/prwrap/state_text.h"
#include "core/disk.h"

struct prwrap_config {
	char *state_file;
};

struct nexus {
	/* Requests under way, by the phase that they began in; a change that aborts them begins the
	 * other, and waits until the old one is empty. */
	unsigned phase;
	unsigned in_flight[2][ACCESSES];
};

struct prwrap {
	/* Constant once the ports are open. */
	struct nexus_names names; /* of the nexuses; also those that have no port now */
	unsigned ports;
	bool locks_made;
	struct state_file state_file;
	bool is_lasting; /* there is a state file */

	pthread_mutex_t mutex; /* held for a few instructions, never across a suspension */
	struct reservations reservations; /* changed with both mutexes, read with one of them */
	struct nexus nexuses[NEXUS_MAX];
	bool draining; /* a change waits for requests to end */
	/* A write of the state file has failed: it may hold what has not come about. Guarded by
	 * change_mutex. */
	bool is_unsaved;

	struct task_mutex change_mutex;
	struct task_mutex drain_mutex;
	struct wait_queue drained;
};

/* A request of a nexus, from pass to leave. */
struct passage {
	unsigned nexus;
	enum access access;
	unsigned phase;
};

/* 0, or an error, and then the request has not begun. Any thread. */
int prwrap_pass(struct prwrap *prwrap, unsigned nexus, enum access access, struct passage *passage);
/* Ends the request, which has come to @error; returns what its sender is to be told. In a task. */
int prwrap_leave(struct prwrap *prwrap, const struct passage *passage, int error);

/* Does @change for @nexus; in a task. 0 or an error, and then nothing has changed. */
int prwrap_change(struct prwrap *prwrap, unsigned nexus, const struct change *change);

/* The disk below @disk, one of prwrap, if it has reservations of its own; else NULL. */
struct disk *prwrap_reserved_below(const struct disk *disk);

extern const struct driver prwrap_port_driver;

#endif
