/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the blockdev driver share: blockdev.c is the driver, open.c its open and close,
 * metadata.c what the device says of itself, claim.c who else uses it, errors.c what its errors
 * mean, and whether it is still there, reservations.c its reservations, which registrants.c reads.
 */
#ifndef BACKENDS_BLOCKDEV_BLOCKDEV_H
#define BACKENDS_BLOCKDEV_BLOCKDEV_H

#include "backends/blockdev/metadata.h"
#include "backends/blockdev/reservations.h"
#include "backends/fdio.h"
#include "core/disk.h"
#include "core/log.h"
#include "core/watch.h"

struct blockdev_config {
	char *path;
	bool direct;
	bool shared;
};

struct blockdev {
	struct fdio io;
	struct blockdev_metadata metadata; /* as found at open; the size may change */
	unsigned major, minor;
	char sysfs[48];		      /* the folder of the device; "" where there is none */
	atomic_bool removed;	      /* the device is gone for good */
	atomic_bool punch_hole;	      /* worth trying: zeros that give the space back */
	atomic_bool zero_range;	      /* worth trying: zeros */
	atomic_bool ring_discard;     /* worth trying: discards by the ring */
	_Atomic uint64_t size;	      /* bytes, as last found */
	struct task_mutex size_mutex; /* of those who look at it */
	struct watch watch;
	struct reservations_of_device reservations;
	struct log_limit log_limit;
};

/* As struct driver says. */
int blockdev_open(struct disk *disk, struct err *err);
void blockdev_close(struct disk *disk);

/*
 * Looks at the size of the device, and whether it is still there; tells the disk its sector count.
 * For whoever is told, or has reason to believe, that it has changed. In a task.
 */
void blockdev_check_size(struct disk *disk);
/* Whether there is reason to believe so, as struct watch says. */
bool blockdev_has_changed(struct disk *disk);

/*
 * The error of a request that failed: logs it, with its sectors. @result is a negative errno, or
 * FDIO_END. @length is 0 where it was about no place. In a task.
 */
int blockdev_failed(struct disk *disk, const char *what, uint64_t offset, uint64_t length,
		    int result);

/* What the kernel's @errnum (positive) of a request means, if the sectors are inside the device. */
int blockdev_error(int errnum, bool is_write);

/*
 * Who keeps the device with this folder of sysfs, or a part of it, to himself: "mounted on /srv",
 * "used by dm-0". False: not to be found out. May block.
 */
bool claim_find(const char *sysfs, char *text, size_t size);

#endif
