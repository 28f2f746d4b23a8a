// SPDX-License-Identifier: MIT
/*
 * The thread waits in epoll for its sockets, as libcurl asks by its callbacks
 * (curl_multi_socket_action: what happens on one connection costs the same however many there are),
 * until libcurl's next timeout, and for an eventfd that says that a transfer was queued.
 *
 * A transfer is queued, then active (in the multi handle), then finished; whoever queued it may be
 * gone from the moment in which its task is woken. The queue is under the mutex; all else is the
 * thread's own, but for flags and numbers.
 *
 * The thread goes to sleep only after it has set `sleeping` and then found `calls` to be what it was
 * before it last looked for something to do; whoever calls counts, and writes to the eventfd only
 * where it then finds `sleeping` set.
 *
 * Why a thread, and not the workers' rings: a multi handle for each worker, driven by its ring, was
 * built and measured beside it. On a link of 20 ms it did the same (4 KiB random reads at depth 32:
 * 0.91 to 0.95 of the ideal rate, as the thread's 0.91 to 0.94; a program of plain sockets, which
 * does nothing else, has 0.93 to 0.94), and over loopback, too (27 kIOPS), for 0.7 to 1.0 of the
 * CPU. But it holds its worker: turns of it took up to 3 ms with http, 11 ms with TLS (hand-shakes),
 * and 22 ms where libcurl reads the system's certificates, and meanwhile none of the disks on that
 * worker is served. Besides, one set of connections serves all workers, which HTTP/2 needs most. Two
 * threads for an object gain 0.01 on the link, and lose 3 to 10 % over loopback.
 *
 * A request takes 6.5 system calls of the thread and its wake-ups. Four of them are libcurl's way (it
 * takes the socket out of epoll and puts it back, and polls it twice); half of the thread's time is
 * libcurl's own and malloc's, spread over everything.
 *
 * Each transfer has an easy handle of its own, which costs a microsecond. One that is used again
 * keeps, before libcurl 8.1, a pointer to the last header of its last response, freed, and writes
 * there when the next response begins with a folded line.
 */
#include "backends/blob/engine.h"
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/task.h"
#include "core/thread.h"

#define NO_DEADLINE UINT64_MAX
#define EVENTS_MAX  64

/*
 * How long what was sent may stay unacknowledged until the kernel gives a connection up. On a path
 * that has died without a word all requests of HTTP/2 wait on one connection, and those to come are
 * put there, too, as long as it seems to be alive; left alone the kernel would try for a quarter of
 * an hour.
 */
#define UNACKNOWLEDGED_MAX_MS 15000

struct engine {
	pthread_t thread;
	unsigned limit;
	int epoll_fd, event_fd; /* -1: none */

	pthread_mutex_t mutex;
	struct transfer *first, **tail;
	atomic_bool stopping, aborting, sleeping;
	atomic_uint calls;

	/* The thread's own. */
	CURLM *multi;
	uint64_t deadline_ns;	       /* of libcurl's next timeout */
	CURL **active;		       /* handles, of which there are at most @limit */
	_Atomic unsigned active_count; /* written by the thread only */

	/* For engine_read_numbers(). */
	_Atomic unsigned waiting, connections;
	_Atomic uint64_t connected;
};

/* ---- What libcurl asks for. ---- */

static int on_socket(CURL *handle, curl_socket_t fd, int what, void *argument, void *known)
{
	struct engine *engine = argument;
	struct epoll_event event = {.data.fd = fd};

	(void)handle;
	if (what == CURL_POLL_REMOVE) {
		epoll_ctl(engine->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;
	/* Without memory for it the transfer ends by its timeout. An error that is returned here
	 * would be the end of all of them. */
	if (epoll_ctl(engine->epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) == 0)
		curl_multi_assign(engine->multi, fd, engine);
	return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *argument)
{
	struct engine *engine = argument;

	(void)multi;
	engine->deadline_ns =
		timeout_ms < 0 ? NO_DEADLINE : now_ns() + (uint64_t)timeout_ms * (NS_PER_S / 1000);
	return 0;
}

/* Connections are counted, and not handed down to programs that libraries start. */
static curl_socket_t on_open(void *argument, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct engine *engine = argument;
	int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	unsigned limit_ms = UNACKNOWLEDGED_MAX_MS;

	(void)purpose;
	if (fd < 0)
		return CURL_SOCKET_BAD;
	/* Without it, it takes longer. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof(limit_ms));
	atomic_fetch_add(&engine->connections, 1);
	atomic_fetch_add(&engine->connected, 1);
	return fd;
}

static int on_close(void *argument, curl_socket_t fd)
{
	struct engine *engine = argument;

	atomic_fetch_sub(&engine->connections, 1);
	return close(fd);
}

/* ---- Transfers. ---- */

static void transfer_end(struct transfer *transfer, CURL *handle, CURLcode result)
{
	struct task *task = transfer->task;

	transfer->finish(transfer, handle, result);
	curl_easy_cleanup(handle);
	task_wake(task);
}

static CURLcode transfer_set_up(struct engine *engine, struct transfer *transfer, CURL *handle)
{
	CURLcode result = transfer->prepare(transfer, handle);

	if (curl_easy_setopt(handle, CURLOPT_PRIVATE, transfer) != CURLE_OK ||
	    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L) != CURLE_OK ||
	    curl_easy_setopt(handle, CURLOPT_OPENSOCKETFUNCTION, on_open) != CURLE_OK ||
	    curl_easy_setopt(handle, CURLOPT_OPENSOCKETDATA, engine) != CURLE_OK ||
	    curl_easy_setopt(handle, CURLOPT_CLOSESOCKETFUNCTION, on_close) != CURLE_OK ||
	    curl_easy_setopt(handle, CURLOPT_CLOSESOCKETDATA, engine) != CURLE_OK)
		return CURLE_OUT_OF_MEMORY;
	if (result == CURLE_OK && curl_multi_add_handle(engine->multi, handle) != CURLM_OK)
		result = CURLE_OUT_OF_MEMORY;
	return result;
}

static void transfer_begin(struct engine *engine, struct transfer *transfer)
{
	CURL *handle = curl_easy_init();
	CURLcode result = CURLE_OUT_OF_MEMORY;

	if (handle)
		result = transfer_set_up(engine, transfer, handle);
	if (result == CURLE_OK) {
		transfer->place = atomic_fetch_add(&engine->active_count, 1);
		engine->active[transfer->place] = handle;
	} else {
		transfer_end(transfer, handle, result);
	}
}

static struct transfer *transfer_of(CURL *handle)
{
	void *transfer = NULL;

	curl_easy_getinfo(handle, CURLINFO_PRIVATE, &transfer);
	return transfer;
}

/* Ends an active transfer. */
static void transfer_leave(struct engine *engine, CURL *handle, CURLcode result)
{
	struct transfer *transfer = transfer_of(handle);
	unsigned last = atomic_fetch_sub(&engine->active_count, 1) - 1;

	curl_multi_remove_handle(engine->multi, handle);
	engine->active[transfer->place] = engine->active[last];
	transfer_of(engine->active[last])->place = transfer->place;
	transfer_end(transfer, handle, result);
}

/* Takes the next transfer off the queue, if there is one. */
static struct transfer *queue_take(struct engine *engine)
{
	struct transfer *transfer;

	pthread_mutex_lock(&engine->mutex);
	transfer = engine->first;
	if (transfer) {
		engine->first = transfer->next;
		atomic_fetch_sub(&engine->waiting, 1);
	}
	pthread_mutex_unlock(&engine->mutex);
	return transfer;
}

static void begin_queued(struct engine *engine)
{
	struct transfer *transfer;

	while (atomic_load(&engine->waiting) > 0 &&
	       atomic_load(&engine->active_count) < engine->limit &&
	       (transfer = queue_take(engine)))
		transfer_begin(engine, transfer);
}

static void end_finished(struct engine *engine)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(engine->multi, &left))) {
		CURL *handle = message->easy_handle;
		CURLcode result = message->data.result;

		/* The message is gone with the handle. */
		transfer_leave(engine, handle, result);
	}
}

static void abort_all(struct engine *engine)
{
	struct transfer *transfer;
	unsigned count;

	while ((count = atomic_load(&engine->active_count)) > 0)
		transfer_leave(engine, engine->active[count - 1], CURLE_ABORTED_BY_CALLBACK);
	while ((transfer = queue_take(engine)))
		transfer_end(transfer, NULL, CURLE_ABORTED_BY_CALLBACK);
}

/* ---- The thread. ---- */

/* Milliseconds until the deadline, rounded up; -1: none. */
static int wait_ms(const struct engine *engine)
{
	uint64_t now = now_ns(), ns_per_ms = NS_PER_S / 1000;

	if (engine->deadline_ns == NO_DEADLINE)
		return -1;
	if (engine->deadline_ns <= now)
		return 0;
	return (int)min_u64((engine->deadline_ns - now + ns_per_ms - 1) / ns_per_ms, INT32_MAX);
}

static void take_event(struct engine *engine, const struct epoll_event *event)
{
	int flags = 0, running;
	uint64_t value;

	if (event->data.fd == engine->event_fd) {
		if (read(engine->event_fd, &value, sizeof(value)) < 0)
			assert(errno == EAGAIN);
		return;
	}
	if (event->events & EPOLLIN)
		flags |= CURL_CSELECT_IN;
	if (event->events & EPOLLOUT)
		flags |= CURL_CSELECT_OUT;
	if (event->events & (EPOLLERR | EPOLLHUP))
		flags |= CURL_CSELECT_ERR;
	curl_multi_socket_action(engine->multi, event->data.fd, flags, &running);
}

/* As epoll_wait(); at once where somebody has called since there were @calls. */
static int wait_for_events(struct engine *engine, struct epoll_event *events, unsigned calls)
{
	int count;

	atomic_store(&engine->sleeping, true);
	count = epoll_wait(engine->epoll_fd, events, EVENTS_MAX,
			   atomic_load(&engine->calls) == calls ? wait_ms(engine) : 0);
	atomic_store(&engine->sleeping, false);
	return count;
}

/* Hands over what has finished, begins what is queued, and does what is due; what has been begun is
 * due at once. */
static void catch_up(struct engine *engine)
{
	int running;

	for (;;) {
		end_finished(engine);
		begin_queued(engine);
		if (engine->deadline_ns > now_ns())
			return;
		engine->deadline_ns = NO_DEADLINE;
		curl_multi_socket_action(engine->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
}

static void *engine_main(void *argument)
{
	struct engine *engine = argument;
	struct epoll_event events[EVENTS_MAX];

	for (;;) {
		/* Before it looks at anything that somebody calls for. */
		unsigned calls = atomic_load(&engine->calls);
		int count;

		if (atomic_load(&engine->stopping))
			break;
		if (atomic_load(&engine->aborting))
			abort_all(engine);
		catch_up(engine);
		count = wait_for_events(engine, events, calls);
		for (int i = 0; i < count; i++)
			take_event(engine, &events[i]);
	}
	assert(atomic_load(&engine->active_count) == 0);
	return NULL;
}

static void call(struct engine *engine)
{
	uint64_t one = 1;

	atomic_fetch_add(&engine->calls, 1);
	if (!atomic_exchange(&engine->sleeping, false))
		return;
	/* It fails only where the thread has been woken 2^64 times and has not come. */
	if (write(engine->event_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

void engine_run(struct engine *engine, struct transfer *transfer)
{
	transfer->task = task_self();
	transfer->next = NULL;
	pthread_mutex_lock(&engine->mutex);
	if (!engine->first)
		engine->tail = &engine->first;
	*engine->tail = transfer;
	engine->tail = &transfer->next;
	atomic_fetch_add(&engine->waiting, 1);
	pthread_mutex_unlock(&engine->mutex);
	call(engine);
	task_suspend();
}

void engine_read_numbers(struct engine *engine, struct engine_numbers *numbers)
{
	*numbers = (struct engine_numbers){
		.active = atomic_load(&engine->active_count),
		.waiting = atomic_load(&engine->waiting),
		.connections = atomic_load(&engine->connections),
		.connected = atomic_load(&engine->connected),
	};
}

/* ---- Life. ---- */

static CURLcode global_result;

static void global_init(void)
{
	global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void engine_free(struct engine *engine)
{
	curl_multi_cleanup(engine->multi);
	if (engine->epoll_fd >= 0)
		close(engine->epoll_fd);
	if (engine->event_fd >= 0)
		close(engine->event_fd);
	pthread_mutex_destroy(&engine->mutex);
	free(engine->active);
	free(engine);
}

static int set_up_multi(struct engine *engine)
{
	CURLM *multi = engine->multi;

	if (curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket) != CURLM_OK ||
	    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, engine) != CURLM_OK ||
	    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer) != CURLM_OK ||
	    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, engine) != CURLM_OK ||
	    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)engine->limit) != CURLM_OK ||
	    curl_multi_setopt(multi, CURLMOPT_MAX_CONCURRENT_STREAMS, (long)engine->limit) !=
		    CURLM_OK)
		return -1;
	return 0;
}

static int set_up(struct engine *engine, struct err *err)
{
	struct epoll_event event = {.events = EPOLLIN};

	engine->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	engine->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	event.data.fd = engine->event_fd;
	if (engine->epoll_fd < 0 || engine->event_fd < 0 ||
	    epoll_ctl(engine->epoll_fd, EPOLL_CTL_ADD, engine->event_fd, &event) < 0)
		return err_set(err, "cannot wait for events: %s", strerror(errno));
	engine->multi = curl_multi_init();
	engine->active = calloc(engine->limit, sizeof(CURL *));
	if (!engine->multi || !engine->active || set_up_multi(engine) < 0)
		return err_set(err, "%s", strerror(ENOMEM));
	return 0;
}

struct engine *engine_start(unsigned limit, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct engine *engine = calloc(1, sizeof(*engine));
	int error = 0;

	pthread_once(&once, global_init);
	if (!engine || global_result != CURLE_OK) {
		err_set(err, "cannot start libcurl: %s",
			engine ? curl_easy_strerror(global_result) : strerror(ENOMEM));
		free(engine);
		return NULL;
	}
	*engine = (struct engine){.limit = limit, .deadline_ns = NO_DEADLINE};
	pthread_mutex_init(&engine->mutex, NULL);
	if (set_up(engine, err) < 0) {
		engine_free(engine);
		return NULL;
	}
	error = thread_start(&engine->thread, "diskfs-blob", engine_main, engine);
	if (error) {
		err_set(err, "cannot start a thread: %s", strerror(error));
		engine_free(engine);
		return NULL;
	}
	return engine;
}

void engine_abort(struct engine *engine)
{
	atomic_store(&engine->aborting, true);
	call(engine);
}

void engine_stop(struct engine *engine)
{
	if (!engine)
		return;
	atomic_store(&engine->stopping, true);
	call(engine);
	pthread_join(engine->thread, NULL);
	engine_free(engine);
}
