// SPDX-License-Identifier: MIT
/*
 * The end of a mount. By umount: every channel has been told by the kernel, and nothing is left to
 * do. By a signal: dirty pages are written back and the mount is detached; programs that still have
 * files open are served until none has asked for anything for a moment; requests that are under way
 * end, and so does what the kernel is being told of new sizes.
 *
 * All that may take PATIENCE_S seconds, or until a second signal. What has not ended by then never
 * may: a disk below is stuck. It is then given up, loudly; the end of the process aborts the
 * kernel's connection and with it whoever waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "core/log.h"
#include "core/thread.h"
#include "fs/mount.h"

#define PATIENCE_S 30
#define QUIET_MS   200
#define MOMENT_NS  NS_PER_S

struct ending {
	struct mount *mount;
	int signal_fd;
	uint64_t deadline_ns; /* 0: none yet */
	bool hurried;	      /* a second signal has come */
};

static bool is_over(const struct ending *ending)
{
	return ending->hurried || now_ns() > ending->deadline_ns;
}

static void take_signal(struct ending *ending)
{
	struct signalfd_siginfo info;

	if (read(ending->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	log_info(NULL, "ending by signal %u", info.ssi_signo);
	ending->hurried = ending->deadline_ns != 0;
	if (!ending->hurried)
		ending->deadline_ns = now_ns() + PATIENCE_S * NS_PER_S;
}

/* Waits for the kernel's end of the mount, a signal, or @timeout_ms (-1: for ever). True: the mount
 * has ended. */
static bool wait_closed(struct ending *ending, int timeout_ms)
{
	struct pollfd fds[] = {
		{.fd = ending->mount->event_fd, .events = POLLIN},
		{.fd = ending->signal_fd, .events = POLLIN},
	};
	int count;

	do
		count = poll(fds, 2, timeout_ms);
	while (count < 0 && errno == EINTR);
	if (count > 0 && fds[1].revents)
		take_signal(ending);
	return count > 0 && fds[0].revents;
}

static unsigned requests_in_flight(const struct mount *mount)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < workers_count(); i++)
		sum += atomic_load(&mount->channels[i].in_flight);
	return sum;
}

static uint64_t requests_served(const struct mount *mount)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < workers_count(); i++)
		sum += atomic_load(&mount->channels[i].requests);
	return sum;
}

/* The kernel's dirty pages come to the workers as writes; their errors have reached those who will
 * ask by fsync. */
static void write_back(const struct mount *mount)
{
	int fd = open(mount->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (syncfs(fd) < 0)
		log_error(NULL, "cannot write back the page cache: %s", strerror(errno));
	close(fd);
}

/* On a thread of its own, since both wait for as long as a disk is stuck. */
static void *detach_main(void *argument)
{
	struct mount *mount = argument;

	write_back(mount);
	fuse_session_unmount(mount->session);
	return NULL;
}

/* True once the mount is detached. */
static bool detach(struct ending *ending)
{
	pthread_t thread;

	if (thread_start(&thread, "diskfs-unmount", detach_main, ending->mount) != 0) {
		detach_main(ending->mount);
		return true;
	}
	/* What is not stuck gets a moment, even when the patience is over. */
	for (uint64_t over_ns = 0; pthread_tryjoin_np(thread, NULL) != 0;) {
		if (is_over(ending) && over_ns == 0)
			over_ns = now_ns();
		if (over_ns != 0 && now_ns() - over_ns > MOMENT_NS) {
			pthread_detach(thread);
			return false;
		}
		wait_closed(ending, 1);
	}
	return true;
}

/* Serves those who still have files open, until the mount has ended or they pause. */
static void serve_the_rest(struct ending *ending)
{
	uint64_t served = requests_served(ending->mount), before;

	do {
		before = served;
		if (wait_closed(ending, QUIET_MS))
			return;
		served = requests_served(ending->mount);
	} while (!is_over(ending) && (served != before || requests_in_flight(ending->mount) > 0));
}

/* True once the kernel is not being told of anything any more, which wants its requests served. */
static bool end_followers(struct ending *ending)
{
	uint64_t moment_ns = now_ns() + MOMENT_NS;

	followers_end(ending->mount);
	while (followers_running(ending->mount) > 0) {
		if (is_over(ending) && now_ns() > moment_ns)
			return false;
		wait_closed(ending, 1);
		usleep(1000); /* see drain() */
	}
	return true;
}

/* True once no request is under way. No new ones come: those that are not stuck end in a moment,
 * which they get even when the patience is over. */
static bool drain(struct ending *ending)
{
	uint64_t moment_ns = now_ns() + MOMENT_NS;

	while (requests_in_flight(ending->mount) > 0) {
		if (is_over(ending) && now_ns() > moment_ns)
			return false;
		wait_closed(ending, 1);
		usleep(1000); /* the mount may have ended, and then the wait is none */
	}
	return true;
}

bool mount_run(struct mount *mount, const sigset_t *signals)
{
	struct ending ending = {
		.mount = mount,
		.signal_fd = signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK),
	};
	bool ended = false, clean = true;

	while (!ended && ending.deadline_ns == 0)
		ended = wait_closed(&ending, -1);
	if (ended)
		ending.deadline_ns = now_ns() + PATIENCE_S * NS_PER_S;
	else
		clean = detach(&ending);
	if (clean && !ended)
		serve_the_rest(&ending);
	clean = end_followers(&ending) && clean;
	mount_stop_channels(mount);
	clean = clean && drain(&ending);
	if (clean)
		mount_disconnect(mount);
	else
		log_error(NULL, "%u requests do not end: giving up on them",
			  requests_in_flight(mount));
	close(ending.signal_fd);
	return clean;
}
