// SPDX-License-Identifier: MIT
/*
 * A survey goes to every worker's inbox. It is shared by the one who asks and the workers that have
 * not answered yet; whoever lets go last frees it, so a worker that is stuck may answer when nobody
 * listens any more. The other sort, a search, is asked by a task, which waits for every answer.
 */
#include "core/trace.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "core/disk.h"
#include "core/worker_private.h"

#define ANSWER_NS (NS_PER_S / 5)

void trace_push(struct trace *trace)
{
	struct task *task = task_self();

	assert(task);
	trace->outer = task->trace;
	task->trace = trace;
}

void trace_pop(struct trace *trace)
{
	struct task *task = task_self();

	assert(task && task->trace == trace);
	task->trace = trace->outer;
}

/* ---- The survey. ---- */

struct survey;

struct question {
	struct inbox_item item;
	struct survey *survey;
};

struct survey {
	pthread_mutex_t mutex;
	pthread_cond_t answered;
	unsigned waiting; /* workers that have not answered */
	unsigned users;	  /* they, and who asks */
	uint64_t age_ns;
	struct slow_requests slow;
	struct question questions[WORKERS_MAX];
};

/* With the mutex held; lets go of it. */
static void survey_leave(struct survey *survey)
{
	bool last = --survey->users == 0;

	pthread_mutex_unlock(&survey->mutex);
	if (!last)
		return;
	pthread_cond_destroy(&survey->answered);
	pthread_mutex_destroy(&survey->mutex);
	free(survey);
}

static void survey_add(struct survey *survey, const struct worker *worker,
		       const struct trace *trace, uint64_t age_ns)
{
	struct slow_requests *slow = &survey->slow;
	unsigned shift = disk_sector_shift(trace->disk);

	if (slow->count == SLOW_REQUESTS_MAX) {
		slow->more++;
		return;
	}

	struct slow_request *request = &slow->requests[slow->count++];

	*request = (struct slow_request){
		.op = trace->op,
		.offset = trace->sector << shift,
		.length = trace->count << shift,
		.age_ns = age_ns,
		.worker = worker->index,
	};
	snprintf(request->node, sizeof(request->node), "%s", trace->disk->name);
}

/* On the worker that is asked, while none of its tasks runs. */
static void survey_answer(struct inbox_item *item)
{
	struct survey *survey = CONTAINER_OF(item, struct question, item)->survey;
	struct worker *worker = worker_self();
	uint64_t now = now_ns();

	pthread_mutex_lock(&survey->mutex);
	for (const struct task *task = worker->live; task; task = task->live_next)
		if (task->trace && now - task->trace->begin_ns >= survey->age_ns)
			survey_add(survey, worker, task->trace, now - task->trace->begin_ns);
	survey->waiting--;
	pthread_cond_signal(&survey->answered);
	survey_leave(survey);
}

/* With the mutex held. */
static void survey_wait(struct survey *survey)
{
	struct timespec until;
	int result = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)ANSWER_NS;
	until.tv_sec += until.tv_nsec / (long)NS_PER_S;
	until.tv_nsec %= (long)NS_PER_S;
	while (survey->waiting > 0 && result == 0)
		result = pthread_cond_timedwait(&survey->answered, &survey->mutex, &until);
}

int trace_slow_requests(uint64_t age_ns, struct slow_requests *slow)
{
	struct survey *survey = calloc(1, sizeof(*survey));
	unsigned count = workers_count();

	assert(!worker_self());
	if (!survey)
		return -ENOMEM;
	pthread_mutex_init(&survey->mutex, NULL);
	pthread_cond_init(&survey->answered, NULL);
	survey->age_ns = age_ns;
	survey->waiting = count;
	survey->users = count + 1;
	for (unsigned i = 0; i < count; i++) {
		survey->questions[i] =
			(struct question){.item.deliver = survey_answer, .survey = survey};
		worker_deliver(worker_get(i), &survey->questions[i].item);
	}
	pthread_mutex_lock(&survey->mutex);
	survey_wait(survey);
	*slow = survey->slow;
	slow->silent_workers = survey->waiting;
	survey_leave(survey);
	return 0;
}

/* ---- The search. ---- */

struct search_question {
	struct inbox_item item;
	struct search *search;
};

/* On the stack of the task that asks. */
struct search {
	const struct disk *disk;
	uint64_t count, before_ns;
	struct task *asker;
	_Atomic unsigned waiting; /* workers that have not answered */
	atomic_bool found;
	struct search_question questions[WORKERS_MAX];
};

static bool task_reaches(const struct task *task, const struct search *search)
{
	for (const struct trace *trace = task->trace; trace; trace = trace->outer)
		if (trace->disk == search->disk && trace->begin_ns < search->before_ns &&
		    trace->sector + trace->count > search->count)
			return true;
	return false;
}

/* On the worker that is asked, while none of its tasks runs. */
static void search_answer(struct inbox_item *item)
{
	struct search *search = CONTAINER_OF(item, struct search_question, item)->search;

	for (const struct task *task = worker_self()->live; task; task = task->live_next)
		if (task_reaches(task, search))
			atomic_store(&search->found, true);
	/* The asker may be gone once it has been woken. */
	struct task *asker = search->asker;

	if (atomic_fetch_sub(&search->waiting, 1) == 1)
		task_wake(asker);
}

bool trace_reaches(const struct disk *disk, uint64_t count, uint64_t before_ns)
{
	unsigned workers = workers_count();
	struct search search = {.disk = disk,
				.count = count,
				.before_ns = before_ns,
				.asker = task_self(),
				.waiting = workers};

	for (unsigned i = 0; i < workers; i++) {
		search.questions[i] =
			(struct search_question){.item.deliver = search_answer, .search = &search};
		worker_deliver(worker_get(i), &search.questions[i].item);
	}
	task_suspend();
	return search.found;
}
