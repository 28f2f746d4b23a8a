/* SPDX-License-Identifier: MIT */
/*
 * Leaving the terminal, with a handshake: the command that the user typed ends when the mount
 * answers, with status 0, or when it never will, with the status of the process that failed, whose
 * messages have gone to the terminal. A signal that ends the command before that ends the daemon.
 */
#ifndef FS_DAEMON_H
#define FS_DAEMON_H

/* Makes sure that descriptors 0, 1 and 2 are open, so that no other file ever takes their place. */
void daemon_open_standard_files(void);

/*
 * Forks. Returns in the child only; the parent waits for daemon_ready() or for the child's end, and
 * exits. Before any thread is started. Returns -1 with errno set when there is no child.
 */
int daemon_fork(void);

/* In the child: lets the parent exit with 0, and lets go of the terminal: from here on the log goes
 * to syslog. */
void daemon_ready(void);

#endif
