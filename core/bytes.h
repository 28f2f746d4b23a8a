/* SPDX-License-Identifier: MIT */
/*
 * Access to a disk by bytes, for a file interface: any offset and length inside the disk.
 *
 * Sectors that are only partly written are read, changed and written under a range lock, which
 * every write through this interface takes, so that a sub-sector write is never torn against, and
 * never undoes, a neighbour's. All writers of a disk must therefore come through here, or all must
 * write whole sectors.
 *
 * In a task; 0 or an error of core/error.h. A range outside the disk is ERROR_ILLEGAL_BLOCK:
 * clipping is the caller's.
 */
#ifndef CORE_BYTES_H
#define CORE_BYTES_H

#include "core/disk.h"

int disk_read_bytes(struct disk *disk, void *data, size_t length, uint64_t offset);
int disk_write_bytes(struct disk *disk, const void *data, size_t length, uint64_t offset,
		     unsigned flags);

/*
 * The bytes read as zeros afterwards, to the byte. DISK_MAY_UNMAP: whole sectors are unmapped where
 * that is sure to give zeros.
 */
int disk_zero_bytes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags);

#endif
