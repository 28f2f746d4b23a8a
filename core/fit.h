/* SPDX-License-Identifier: MIT */
/*
 * Makes any valid request fit any driver: splits what is larger than the driver takes, bounces what
 * is misaligned or too scattered for it, writes zeros where it has no better way. Between disk.c
 * and the drivers; for core/ only.
 *
 * In a task; the request has been checked against the disk, and is not of length 0.
 */
#ifndef CORE_FIT_H
#define CORE_FIT_H

#include "core/disk.h"

int fit_read(struct disk *disk, const struct sg *sg, uint64_t sector);
/* DISK_FUA only where the driver respects it. */
int fit_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags);
/* By the driver's own way, by unmap, or by writing. */
int fit_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags);

#endif
