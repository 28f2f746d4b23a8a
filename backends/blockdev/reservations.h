/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations of block devices. Changes are ioctls of the block layer; so are reports,
 * where the kernel has them (Linux 7.0), else they are commands to the device.
 */
#ifndef BACKENDS_BLOCKDEV_RESERVATIONS_H
#define BACKENDS_BLOCKDEV_RESERVATIONS_H

#include "backends/blockdev/metadata.h"
#include "core/pr.h"

/* How a device is asked for a report if the kernel cannot do it. */
enum reservations_way {
	RESERVATIONS_BY_KERNEL, /* not at all */
	RESERVATIONS_BY_NVME,
	RESERVATIONS_BY_SCSI,
};

struct reservations_of_device {
	enum reservations_way way;
	uint32_t nsid;
	unsigned types; /* as in struct pr_capabilities */
	bool persist;	/* they can persist through a loss of power */
};

/* Whether the device has any; fills *found. May block. */
bool reservations_find(int fd, const struct blockdev_metadata *metadata,
		       struct reservations_of_device *found);

/*
 * The error of an ioctl that changes reservations, which returned @result: a negative errno, or a
 * positive status, whose meaning depends on the age of the kernel and the sort of the device.
 */
int reservations_error(int result, bool is_release);

extern const struct pr_ops blockdev_pr_ops;

/* ---- Reports (registrants.c). ---- */

/* As pr_ops.report. 0, a negative errno, or a positive status of NVMe. May block. */
int registrants_read(int fd, const struct reservations_of_device *device, struct pr_report *report);

/*
 * What the device has answered, @length bytes of it. -EPROTO where that makes no sense, and
 * -EMSGSIZE, with *needed, where the answer is longer.
 */
int registrants_parse_scsi(const unsigned char *keys, uint32_t keys_length,
			   const unsigned char *reservation, uint32_t reservation_length,
			   struct pr_report *report, uint32_t *needed);
int registrants_parse_nvme(const unsigned char *data, uint32_t length, bool extended,
			   struct pr_report *report, uint32_t *needed);

/* The type of a reservation that SCSI numbers so; PR_TYPES: there is none. */
enum pr_type pr_type_of_scsi(unsigned type);

#endif
