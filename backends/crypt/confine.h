/* SPDX-License-Identifier: MIT */
/* Calls of libraries that handle keys, and leave copies of them where they worked. */
#ifndef BACKENDS_CRYPT_CONFINE_H
#define BACKENDS_CRYPT_CONFINE_H

/*
 * Runs @function(@argument) on a thread of its own and waits for its end: then neither its stack is
 * left, nor that of any thread that it has started and joined. Meanwhile a core dump of the process
 * has no memory but that of files. What the function leaves in allocated memory, or in static, is
 * not found. @node is for messages.
 *
 * Blocking, not in a task; one at a time in the whole process. Returns 0, or a positive errno, and
 * then the function has not been called.
 */
int confine(void (*function)(void *argument), void *argument, const char *node);

#endif
