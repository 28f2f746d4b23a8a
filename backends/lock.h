/* SPDX-License-Identifier: MIT */
/* Locks on image files and devices, against a second user of any kind. */
#ifndef BACKENDS_LOCK_H
#define BACKENDS_LOCK_H

#include <stdbool.h>

/*
 * Locks the file for a writer, which shares it with nobody, or for a reader, which shares it with
 * readers: by QEMU's protocol, which diskfs has in common with it, and by flock, for others
 * (crosvm). The locks last as long as @fd is open. Returns 0, or a positive errno: EAGAIN where the
 * file is in use. May block.
 */
int lock_image(int fd, bool writable);

/* The same by QEMU's protocol alone: flock on a device would keep udev from looking at it. */
int lock_as_qemu(int fd, bool writable);

#endif
