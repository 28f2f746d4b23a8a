/* SPDX-License-Identifier: MIT */
/* The folder to mount on, before anything is mounted. Not on a worker. */
#ifndef FS_MOUNTPOINT_H
#define FS_MOUNTPOINT_H

#include "core/error.h"

/*
 * The absolute path of the folder @mountpoint, to be freed; NULL with a sentence in @err if it is
 * none. A mount of diskfs there whose daemon has died is removed.
 */
char *mountpoint_resolve(const char *mountpoint, struct err *err);

#endif
