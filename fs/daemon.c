// SPDX-License-Identifier: MIT
#include "fs/daemon.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "core/log.h"

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

/* In the parent; does not return. */
static void wait_for_child(pid_t child, int fd)
{
	char byte;
	ssize_t count;
	int status = 0;

	do
		count = read(fd, &byte, 1);
	while (count < 0 && errno == EINTR);
	if (count == 1)
		_exit(EXIT_SUCCESS);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : EXIT_FAILURE);
}

int daemon_fork(void)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;

	pid_t child = fork();

	if (child < 0) {
		int saved = errno;

		close(fds[0]);
		close(fds[1]);
		errno = saved;
		return -1;
	}
	if (child > 0) {
		close(fds[1]);
		wait_for_child(child, fds[0]);
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
