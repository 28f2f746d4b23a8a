// SPDX-License-Identifier: MIT
#include "core/log.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

/*
 * A message that would have to wait is dropped: for a pipe that nobody reads, a terminal that is
 * stopped, a syslog daemon that hangs. Its writer is a worker, and with it a part of the mount would
 * wait, perhaps for itself, where the log lies on an image. syslog(3) waits, so it is not used.
 */
#define LINE_MAX_LENGTH 1200

static _Atomic enum log_level log_level = LOG_LEVEL_INFO;
static _Atomic enum log_target log_target = LOG_TO_STDERR;

/* Held while a line is written: what poll() promises is only good for one of them. */
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;
static int syslog_fd = -1;
static unsigned lost; /* messages, since the last one that was written */

void log_set_level(enum log_level level)
{
	atomic_store(&log_level, level);
}

void log_set_target(enum log_target target)
{
	if (target == LOG_TO_SYSLOG)
		tzset(); /* reads a file; not for a worker to do */
	atomic_store(&log_target, target);
}

/* ---- Lines. ---- */

/* Terminals, pipes and sockets say whether they take a line now; files always do. */
static bool write_stderr(const char *line, size_t length)
{
	struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};

	if (poll(&ready, 1, 0) != 1 || !(ready.revents & POLLOUT))
		return false;
	return write(STDERR_FILENO, line, length) >= 0;
}

static bool syslog_connect(void)
{
	const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};

	syslog_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (syslog_fd < 0)
		return false;
	if (connect(syslog_fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return true;
	close(syslog_fd);
	syslog_fd = -1;
	return false;
}

/* The daemon of syslog may be started, and started again, at any time. */
static bool write_syslog(const char *line, size_t length)
{
	if (syslog_fd < 0 && !syslog_connect())
		return false;
	if (send(syslog_fd, line, length, MSG_NOSIGNAL) >= 0)
		return true;
	if (errno == EAGAIN || errno == ENOBUFS)
		return false;
	close(syslog_fd);
	syslog_fd = -1;
	return syslog_connect() && send(syslog_fd, line, length, MSG_NOSIGNAL) >= 0;
}

/* What is in front of the message. */
static void format_head(char *head, size_t size, enum log_level level, bool to_syslog)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
	time_t now = time(NULL);
	char when[32];
	struct tm tm;

	if (!to_syslog) {
		snprintf(head, size, "diskfs: %s: ", names[level]);
		return;
	}
	/* The names of the months are those of the C locale: nothing here sets another. */
	strftime(when, sizeof(when), "%b %e %H:%M:%S", localtime_r(&now, &tm));
	snprintf(head, size, "<%d>%s diskfs[%d]: ", LOG_DAEMON | priorities[level], when,
		 (int)getpid());
}

static bool write_line(enum log_level level, const char *node, const char *message)
{
	bool to_syslog = atomic_load(&log_target) == LOG_TO_SYSLOG;
	char head[80], line[LINE_MAX_LENGTH];

	format_head(head, sizeof(head), level, to_syslog);

	int formatted =
		snprintf(line, sizeof(line), "%s%s%s%s%s%s", head, node ? "[" : "",
			 node ? node : "", node ? "] " : "", message, to_syslog ? "" : "\n");
	size_t length = formatted < 0 ? 0 : min_u64((uint64_t)formatted, sizeof(line) - 1);

	if (to_syslog)
		return write_syslog(line, length);
	if (length == sizeof(line) - 1)
		line[length - 1] = '\n'; /* cut, but still a line */
	return write_stderr(line, length);
}

static void log_vwrite(enum log_level level, const char *node, const char *format,
		       va_list arguments) __attribute__((format(printf, 3, 0)));

/* One write of one whole line, so that lines of several threads do not mix. */
static void log_vwrite(enum log_level level, const char *node, const char *format,
		       va_list arguments)
{
	int saved_errno = errno;
	char message[1024], about_lost[80];

	vsnprintf(message, sizeof(message), format, arguments);
	pthread_mutex_lock(&log_mutex);
	snprintf(about_lost, sizeof(about_lost), "%u messages before this one could not be written",
		 lost);
	if (lost > 0 && write_line(LOG_LEVEL_WARNING, NULL, about_lost))
		lost = 0;
	if (lost > 0 || !write_line(level, node, message))
		lost++;
	pthread_mutex_unlock(&log_mutex);
	errno = saved_errno;
}

void log_write(enum log_level level, const char *node, const char *format, ...)
{
	va_list arguments;

	if (level > atomic_load(&log_level))
		return;
	va_start(arguments, format);
	log_vwrite(level, node, format, arguments);
	va_end(arguments);
}

void log_limited(struct log_limit *limit, enum log_level level, const char *node,
		 const char *format, ...)
{
	uint64_t now = now_ns();
	uint64_t start = atomic_load(&limit->window_start_ns);
	va_list arguments;

	if (level > atomic_load(&log_level))
		return;
	if (now - start > LOG_INTERVAL_S * NS_PER_S &&
	    atomic_compare_exchange_strong(&limit->window_start_ns, &start, now)) {
		unsigned suppressed = atomic_exchange(&limit->suppressed, 0);

		atomic_store(&limit->passed, 0);
		if (suppressed > 0)
			log_write(level, node, "%u messages like the following were left out",
				  suppressed);
	}
	if (atomic_fetch_add(&limit->passed, 1) >= LOG_BURST) {
		atomic_fetch_add(&limit->suppressed, 1);
		return;
	}
	va_start(arguments, format);
	log_vwrite(level, node, format, arguments);
	va_end(arguments);
}
