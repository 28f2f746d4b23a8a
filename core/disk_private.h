/* SPDX-License-Identifier: MIT */
/*
 * What disk.c shares with layer.c: the validation of a disk, the checks of a request, and what
 * stands around every request to a driver. For core/ only.
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

#endif
