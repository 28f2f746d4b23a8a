/* SPDX-License-Identifier: MIT */
/*
 * Commands that go to the device past the block layer, for what no ioctl of the block layer tells:
 * SCSI by SG_IO, NVMe by its passthrough. They need CAP_SYS_RAWIO or CAP_SYS_ADMIN. May block.
 */
#ifndef BACKENDS_BLOCKDEV_COMMANDS_H
#define BACKENDS_BLOCKDEV_COMMANDS_H

#include "core/util.h"

enum scsi_pr_in_action {
	SCSI_READ_KEYS = 0,
	SCSI_READ_RESERVATION = 1,
	SCSI_REPORT_CAPABILITIES = 2,
};

/*
 * PERSISTENT RESERVE IN. @data is zeroed, and filled as far as the device answers. 0, or a negative
 * errno: -EOPNOTSUPP where the device is no SCSI device, or has no such command.
 */
int scsi_pr_in(int fd, enum scsi_pr_in_action action, void *data, uint16_t length);

/* The namespace that the device is; 0: it is no NVMe device. */
uint32_t nvme_namespace(int fd);

#define NVME_PAGE 4096

/* Fills @data. 0, a negative errno, or a positive status of NVMe, without the bits that are no part
 * of its code. */
int nvme_identify_controller(int fd, unsigned char data[static NVME_PAGE]);
int nvme_identify_namespace(int fd, uint32_t nsid, unsigned char data[static NVME_PAGE]);
/* The ioctl of the kernel cannot do this: it would register the key 0. */
int nvme_unregister(int fd, uint32_t nsid, uint64_t key, bool ignore_key);
/* @length is a multiple of 4. @extended: with host identifiers of 16 bytes. */
int nvme_reservation_report(int fd, uint32_t nsid, bool extended, void *data, uint32_t length);

/* "Host Identifier Inconsistent Format": the other sort of report is to be asked for. */
#define NVME_STATUS_HOST_ID_FORMAT 0x18

#endif
