// SPDX-License-Identifier: MIT
#include "fs/daemon.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "core/log.h"
#include "core/util.h"

static int ready_fd = -1; /* the pipe to the waiting parent */

void daemon_open_standard_files(void)
{
	int fd;

	/* open() takes the lowest free number; the first above 2 was not needed. */
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* The signals that end a command. */
static const int end_signals[] = {SIGTERM, SIGINT, SIGHUP};

static pid_t child;
static volatile sig_atomic_t got_signal;

static void pass_signal(int signum)
{
	int saved = errno;

	got_signal = signum;
	kill(child, signum);
	errno = saved;
}

/* A signal that ends the command ends the daemon; the same one again, the command alone. */
static void pass_signals(const sigset_t *mask)
{
	struct sigaction action = {.sa_handler = pass_signal, .sa_flags = (int)SA_RESETHAND};

	for (size_t i = 0; i < ARRAY_SIZE(end_signals); i++)
		sigaction(end_signals[i], &action, NULL);
	sigprocmask(SIG_SETMASK, mask, NULL);
}

/* In the parent; does not return. */
static void wait_for_child(int fd)
{
	char byte;
	ssize_t count;
	int status = 0;

	do
		count = read(fd, &byte, 1);
	while (count < 0 && errno == EINTR);
	if (count == 1 && !got_signal)
		_exit(EXIT_SUCCESS);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (got_signal)
		_exit(128 + got_signal);
	_exit(WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : EXIT_FAILURE);
}

/* fork(), with the end_signals blocked in the parent, which has @mask to restore. */
static pid_t fork_blocked(sigset_t *mask)
{
	sigset_t blocked;
	pid_t pid;
	int saved;

	sigemptyset(&blocked);
	for (size_t i = 0; i < ARRAY_SIZE(end_signals); i++)
		sigaddset(&blocked, end_signals[i]);
	sigprocmask(SIG_BLOCK, &blocked, mask);
	pid = fork();
	saved = errno;
	if (pid <= 0)
		sigprocmask(SIG_SETMASK, mask, NULL);
	errno = saved;
	return pid;
}

int daemon_fork(void)
{
	int fds[2];
	sigset_t mask;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;

	child = fork_blocked(&mask);
	if (child < 0) {
		int saved = errno;

		close(fds[0]);
		close(fds[1]);
		errno = saved;
		return -1;
	}
	if (child > 0) {
		close(fds[1]);
		pass_signals(&mask);
		wait_for_child(fds[0]);
	}
	close(fds[0]);
	ready_fd = fds[1];
	setsid();
	return chdir("/"); /* keep no folder busy */
}

void daemon_ready(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	log_set_target(LOG_TO_SYSLOG);
	for (int fd = 0; null >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
	/* The parent may have been killed; the mount is there all the same. */
	while (write(ready_fd, "", 1) < 0 && errno == EINTR)
		;
	close(ready_fd);
	ready_fd = -1;
}
