// SPDX-License-Identifier: MIT
#include "core/log.h"
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <syslog.h>
#include <unistd.h>

static _Atomic enum log_level log_level = LOG_LEVEL_INFO;
static _Atomic enum log_target log_target = LOG_TO_STDERR;

void log_set_level(enum log_level level)
{
	atomic_store(&log_level, level);
}

void log_set_target(enum log_target target)
{
	if (target == LOG_TO_SYSLOG)
		openlog("diskfs", LOG_PID, LOG_DAEMON);
	atomic_store(&log_target, target);
}

static void log_vwrite(enum log_level level, const char *node, const char *format,
		       va_list arguments) __attribute__((format(printf, 3, 0)));

/* One write of one whole line, so that lines of several threads do not mix. */
static void log_vwrite(enum log_level level, const char *node, const char *format,
		       va_list arguments)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
	int saved_errno = errno;
	char message[1024], line[1200];

	vsnprintf(message, sizeof(message), format, arguments);
	if (atomic_load(&log_target) == LOG_TO_SYSLOG) {
		syslog(priorities[level], "%s%s%s%s", node ? "[" : "", node ? node : "",
		       node ? "] " : "", message);
	} else {
		int length = snprintf(line, sizeof(line), "diskfs: %s: %s%s%s%s\n", names[level],
				      node ? "[" : "", node ? node : "", node ? "] " : "", message);

		if (length >= (int)sizeof(line)) /* cut, but still a line */
			line[sizeof(line) - 2] = '\n';
		/* A closed or full stderr must not stop the daemon: there is nowhere else to
		 * complain. */
		if (length > 0 &&
		    write(STDERR_FILENO, line, min_u64((uint64_t)length, sizeof(line) - 1)) < 0)
			errno = saved_errno;
	}
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
