/* SPDX-License-Identifier: MIT */
/*
 * What disk.c shares with layer.c and resize.c: the validation of a disk, the checks of a request,
 * what stands around every request to a driver, the end of waiting. For core/ only.
 */
#ifndef CORE_DISK_PRIVATE_H
#define CORE_DISK_PRIVATE_H

#include "core/disk.h"
#include "core/trace.h"

/* Once the driver has filled geometry and size: validates them, and makes the disk usable. */
int disk_ready(struct disk *disk, struct err *err);

/* 0, or the error that the request has. */
int disk_check_range(const struct disk *disk, uint64_t sector, uint64_t count);
int disk_check_transfer(const struct disk *disk, const struct sg *sg, uint64_t sector);
int disk_check_change(const struct disk *disk, unsigned flags, unsigned known_flags);

/* Around every request to a driver: it is counted, timed, and can be seen while it lasts. */
void request_begin(struct trace *request, struct disk *disk, enum stats_op op, uint64_t sector,
		   uint64_t count);
/* Returns @error. */
int request_end(struct trace *request, struct disk *disk, int error);

/* Lets everybody go who waits for a resize, and waits until the last has gone. In a task. */
void resize_end(struct disk *disk);

/*
 * How often the size of any disk has changed so far; and what a disk does that has just been put on
 * top of others and may have missed such a change while it opened. In a task.
 */
uint64_t resize_changes(void);
void resize_catch_up(struct disk *disk);

#endif
