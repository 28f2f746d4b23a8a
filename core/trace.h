/* SPDX-License-Identifier: MIT */
/*
 * What is every task doing? Each request to a disk leaves a trace, a struct on its own stack, for
 * as long as it lasts; those of a task are linked, the innermost first. So a request that does not
 * end can be shown with the node that holds it, and keeping track costs two stores.
 *
 * The traces of a worker's tasks are only looked at by that worker, between tasks: no lock guards
 * them.
 */
#ifndef CORE_TRACE_H
#define CORE_TRACE_H

#include "core/stats.h"
#include "core/util.h"

struct disk;

struct trace {
	const struct disk *disk;
	enum stats_op op;
	uint64_t sector, count;
	uint64_t begin_ns;
	struct trace *outer; /* of the same task */
};

/* Around a request, in its task; @trace has been filled but for @outer. */
void trace_push(struct trace *trace);
void trace_pop(struct trace *trace);

/* A request that lasts, at the innermost node that its task has reached. */
struct slow_request {
	char node[101];
	enum stats_op op;
	uint64_t offset, length; /* bytes of the disk; a flush has none */
	uint64_t age_ns;
	unsigned worker;
};

/* As many as one look finds. */
#define SLOW_REQUESTS_MAX 64

struct slow_requests {
	struct slow_request requests[SLOW_REQUESTS_MAX];
	unsigned count;
	unsigned more;		 /* that did not fit */
	unsigned silent_workers; /* that did not answer in time: something blocks them */
};

/*
 * Asks all workers for requests older than @age_ns, and waits a moment for their answers. Any
 * thread but a worker. Returns 0 or -ENOMEM.
 */
int trace_slow_requests(uint64_t age_ns, struct slow_requests *slow);

/*
 * Asks all workers, and waits for their answers, whether a request to @disk is under way that began
 * before @before_ns and reaches beyond the first @count sectors. In a task.
 */
bool trace_reaches(const struct disk *disk, uint64_t count, uint64_t before_ns);

#endif
