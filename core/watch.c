// SPDX-License-Identifier: MIT
/*
 * The thread walks the list of watches with `mutex` held, and lets go of it around each look, which
 * may block; what it looks at next stands in `cursor`, so that watches may come and go meanwhile. A
 * look that finds something sends a task to a worker, which does the check.
 *
 * The thread begins with the first watch and stays for the life of the process, asleep while there
 * are none. Where a look never returns (a file system that does not answer), no other size is
 * noticed until it does.
 */
#include "core/watch.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "core/log.h"
#include "core/task.h"
#include "core/thread.h"
#include "core/uevent.h"

#define INTERVAL_NS    (WATCH_INTERVAL_S * NS_PER_S)
#define REMOVE_LOOK_NS (NS_PER_S / 1000)

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct watch *watches;
static struct watch *cursor; /* the next to be looked at */
static int wake_fd = -1;     /* while the thread runs; never closed */
static int uevent_fd = -1;   /* likewise; once a device is watched */
static bool uevents_tried;

/* ---- Checks. ---- */

static void thread_wake(void)
{
	uint64_t one = 1;

	while (write(wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void check_main(void *argument)
{
	struct watch *watch = argument;
	bool again;

	watch->check(watch->disk);
	pthread_mutex_lock(&mutex);
	watch->is_checking = false;
	again = watch->due;
	pthread_mutex_unlock(&mutex);
	if (again)
		thread_wake();
}

static void deliver_check(struct inbox_item *item)
{
	struct watch *watch = CONTAINER_OF(item, struct watch, item);

	if (task_start(check_main, watch) == 0)
		return;
	/* No memory for a task: the next round may have more luck. */
	pthread_mutex_lock(&mutex);
	watch->is_checking = false;
	watch->due = true;
	pthread_mutex_unlock(&mutex);
}

/* ---- The thread. ---- */

/* With the mutex held, which it lets go for the look. */
static void watch_look(struct watch *watch)
{
	bool due = watch->due;

	if (watch->is_checking)
		return;
	watch->due = false;
	if (!due) {
		watch->is_looking = true;
		pthread_mutex_unlock(&mutex);
		due = watch->has_changed(watch->disk);
		pthread_mutex_lock(&mutex);
		watch->is_looking = false;
	}
	if (!due || !watch->link) /* removed meanwhile */
		return;
	watch->is_checking = true;
	watch->item.deliver = deliver_check;
	worker_deliver(worker_get(0), &watch->item);
}

/* Looks at those that are due, or at all; returns whether there are any. */
static bool watches_walk(bool all)
{
	bool any;

	pthread_mutex_lock(&mutex);
	cursor = watches;
	while (cursor) {
		struct watch *watch = cursor;

		cursor = watch->next;
		if (all || watch->due)
			watch_look(watch);
	}
	any = watches;
	pthread_mutex_unlock(&mutex);
	return any;
}

/* Those of @device are due; of all devices if @all. */
static void device_due(dev_t device, bool all)
{
	pthread_mutex_lock(&mutex);
	for (struct watch *watch = watches; watch; watch = watch->next)
		if (watch->device != 0 && (all || watch->device == device))
			watch->due = true;
	pthread_mutex_unlock(&mutex);
}

static void take_uevents(int fd)
{
	dev_t device;
	int result;

	while ((result = uevent_read(fd, &device)) >= 0 || result == -ENOBUFS)
		if (result != 0)
			device_due(device, result < 0);
}

static void *watch_main(void *argument)
{
	uint64_t next_ns = now_ns() + INTERVAL_NS;
	bool any = true;

	(void)argument;
	for (;;) {
		struct pollfd fds[] = {
			{.fd = wake_fd, .events = POLLIN},
			{.fd = __atomic_load_n(&uevent_fd, __ATOMIC_ACQUIRE), .events = POLLIN},
		};
		uint64_t count, now = now_ns();
		uint64_t wait_ms = now < next_ns ? (next_ns - now) * 1000 / NS_PER_S + 1 : 0;

		if (poll(fds, 2, any ? (int)wait_ms : -1) < 0 && errno != EINTR)
			log_error(NULL, "cannot wait for events: %s", strerror(errno));
		if (fds[0].revents && read(wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			log_error(NULL, "eventfd: %s", strerror(errno));
		if (fds[1].revents)
			take_uevents(fds[1].fd);

		now = now_ns();
		any = watches_walk(now >= next_ns);
		if (now >= next_ns)
			next_ns = now + INTERVAL_NS;
	}
	return NULL;
}

/* With the mutex held. 0 or a negative errno. */
static int thread_begin(void)
{
	pthread_t thread;
	int error;

	if (wake_fd >= 0)
		return 0;
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wake_fd < 0)
		return -errno;
	error = thread_start(&thread, "diskfs-watch", watch_main, NULL);
	if (error == 0) {
		pthread_detach(thread);
		return 0;
	}
	close(wake_fd);
	wake_fd = -1;
	return -error;
}

/* With the mutex held. */
static void uevents_begin(void)
{
	if (uevents_tried)
		return;
	uevents_tried = true;

	int fd = uevent_open();

	if (fd < 0)
		log_info(NULL, "no events of block devices (%s): sizes are looked at every %d s",
			 strerror(-fd), WATCH_INTERVAL_S);
	else
		__atomic_store_n(&uevent_fd, fd, __ATOMIC_RELEASE);
}

/* ---- Watches. ---- */

int watch_add(struct watch *watch)
{
	int error;

	pthread_mutex_lock(&mutex);
	error = thread_begin();
	if (!error) {
		if (watch->device != 0)
			uevents_begin();
		watch->next = watches;
		watch->link = &watches;
		if (watches)
			watches->link = &watch->next;
		watches = watch;
	}
	pthread_mutex_unlock(&mutex);
	if (!error)
		thread_wake();
	return error;
}

/* Whether nobody uses it any more. */
static bool watch_unlink(struct watch *watch)
{
	bool is_free;

	pthread_mutex_lock(&mutex);
	if (watch->link) {
		if (cursor == watch)
			cursor = watch->next;
		*watch->link = watch->next;
		if (watch->next)
			watch->next->link = watch->link;
		watch->link = NULL;
	}
	is_free = !watch->is_looking && !watch->is_checking;
	pthread_mutex_unlock(&mutex);
	return is_free;
}

void watch_remove(struct watch *watch)
{
	while (!watch_unlink(watch))
		task_sleep_ns(REMOVE_LOOK_NS);
}

void watch_soon(struct watch *watch)
{
	pthread_mutex_lock(&mutex);
	watch->due = true;
	pthread_mutex_unlock(&mutex);
	thread_wake();
}
