/* SPDX-License-Identifier: MIT */
/*
 * The log: one line a message, with a level and, for messages of a node, its name. To stderr, and
 * to syslog once the daemon has left its terminal. Any thread; errno is preserved. Nobody waits for
 * whoever reads the log: what finds no room there is lost, and the next message tells how much.
 *
 * Messages of the data path go through log_limited(): a flood of failing requests is shown as its
 * first lines and a count of what was left out.
 */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include "core/util.h"

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

enum log_target {
	LOG_TO_STDERR,
	LOG_TO_SYSLOG,
};

void log_set_level(enum log_level level); /* the default is LOG_LEVEL_INFO */
void log_set_target(enum log_target target);

/* @node is the name of a node, or NULL. */
void log_write(enum log_level level, const char *node, const char *format, ...) PRINTF_LIKE(3, 4);

/* At most LOG_BURST messages in LOG_INTERVAL_S seconds pass one limit; the next that passes tells
 * how many did not. */
#define LOG_BURST      10
#define LOG_INTERVAL_S 5

struct log_limit {
	_Atomic uint64_t window_start_ns;
	_Atomic unsigned passed, suppressed;
};

void log_limited(struct log_limit *limit, enum log_level level, const char *node,
		 const char *format, ...) PRINTF_LIKE(4, 5);

#define log_error(node, ...)   log_write(LOG_LEVEL_ERROR, node, __VA_ARGS__)
#define log_warning(node, ...) log_write(LOG_LEVEL_WARNING, node, __VA_ARGS__)
#define log_info(node, ...)    log_write(LOG_LEVEL_INFO, node, __VA_ARGS__)
#define log_debug(node, ...)   log_write(LOG_LEVEL_DEBUG, node, __VA_ARGS__)

#endif
