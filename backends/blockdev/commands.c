// SPDX-License-Identifier: MIT
#include "backends/blockdev/commands.h"
#include <endian.h>
#include <errno.h>
#include <linux/nvme_ioctl.h>
#include <scsi/sg.h>
#include <string.h>
#include <sys/ioctl.h>

/* ---- SCSI (SPC-4). ---- */

#define PERSISTENT_RESERVE_IN	    0x5e
#define SCSI_TIMEOUT_MS		    30000
#define STATUS_CHECK_CONDITION	    0x02
#define SENSE_ILLEGAL_REQUEST	    0x05
#define SENSE_UNIT_ATTENTION	    0x06
#define STATUS_RESERVATION_CONFLICT 0x18
#define ATTENTIONS_MAX		    10

/* The sense key of fixed or descriptor format; 0 where there is none. */
static unsigned sense_key(const unsigned char *sense, unsigned length)
{
	if (length < 4)
		return 0;
	return (sense[0] & 0x7f) >= 0x72 ? sense[1] & 0x0f : sense[2] & 0x0f;
}

static int scsi_try(int fd, enum scsi_pr_in_action action, void *data, uint16_t length)
{
	unsigned char sense[32] = {0};
	unsigned char command[10] = {PERSISTENT_RESERVE_IN, (unsigned char)action};
	struct sg_io_hdr header = {
		.interface_id = 'S',
		.dxfer_direction = SG_DXFER_FROM_DEV,
		.cmd_len = sizeof(command),
		.mx_sb_len = sizeof(sense),
		.dxfer_len = length,
		.dxferp = data,
		.cmdp = command,
		.sbp = sense,
		.timeout = SCSI_TIMEOUT_MS,
	};
	unsigned key;

	command[7] = (unsigned char)(length >> 8);
	command[8] = (unsigned char)length;
	memset(data, 0, length);
	if (ioctl(fd, SG_IO, &header) < 0)
		return errno == ENOTTY || errno == EINVAL ? -EOPNOTSUPP : -errno;
	if ((header.info & SG_INFO_OK_MASK) == SG_INFO_OK)
		return 0;
	if (header.status == STATUS_RESERVATION_CONFLICT)
		return -EBADE;
	key = header.status == STATUS_CHECK_CONDITION ? sense_key(sense, header.sb_len_wr) : 0;
	if (key == SENSE_UNIT_ATTENTION)
		return -EAGAIN;
	return key == SENSE_ILLEGAL_REQUEST ? -EOPNOTSUPP : -EIO;
}

int scsi_pr_in(int fd, enum scsi_pr_in_action action, void *data, uint16_t length)
{
	int result = -EAGAIN;

	/* "Registrations preempted" and the like are news that each command may have to hear
	 * first. */
	for (unsigned i = 0; i < ATTENTIONS_MAX && result == -EAGAIN; i++)
		result = scsi_try(fd, action, data, length);
	return result == -EAGAIN ? -EIO : result;
}

/* ---- NVMe (base specification 1.4). ---- */

#define NVME_IDENTIFY		  0x06 /* of the admin queue */
#define NVME_RESERVATION_REGISTER 0x0d
#define NVME_RESERVATION_REPORT	  0x0e

#define REGISTER_UNREGISTER	  1U
#define REGISTER_IGNORE_KEY	  (1U << 3)

/* Status code and its type; above them are bits about repeating the command. */
#define NVME_STATUS_MASK 0x7ff

uint32_t nvme_namespace(int fd)
{
	int nsid = ioctl(fd, NVME_IOCTL_ID);

	return nsid > 0 ? (uint32_t)nsid : 0;
}

static int nvme_command(int fd, unsigned long request, struct nvme_passthru_cmd *command)
{
	int result = ioctl(fd, request, command);

	return result < 0 ? -errno : result & NVME_STATUS_MASK;
}

static int nvme_identify(int fd, uint32_t nsid, uint32_t structure,
			 unsigned char data[static NVME_PAGE])
{
	struct nvme_passthru_cmd command = {
		.opcode = NVME_IDENTIFY,
		.nsid = nsid,
		.addr = (uintptr_t)data,
		.data_len = NVME_PAGE,
		.cdw10 = structure,
	};

	memset(data, 0, NVME_PAGE);
	return nvme_command(fd, NVME_IOCTL_ADMIN_CMD, &command);
}

int nvme_identify_controller(int fd, unsigned char data[static NVME_PAGE])
{
	return nvme_identify(fd, 0, 1, data);
}

int nvme_identify_namespace(int fd, uint32_t nsid, unsigned char data[static NVME_PAGE])
{
	return nvme_identify(fd, nsid, 0, data);
}

int nvme_unregister(int fd, uint32_t nsid, uint64_t key, bool ignore_key)
{
	uint64_t data[2] = {htole64(key), 0}; /* the current key, and the new one */
	struct nvme_passthru_cmd command = {
		.opcode = NVME_RESERVATION_REGISTER,
		.nsid = nsid,
		.addr = (uintptr_t)data,
		.data_len = sizeof(data),
		.cdw10 = REGISTER_UNREGISTER | (ignore_key ? REGISTER_IGNORE_KEY : 0),
	};

	return nvme_command(fd, NVME_IOCTL_IO_CMD, &command);
}

int nvme_reservation_report(int fd, uint32_t nsid, bool extended, void *data, uint32_t length)
{
	struct nvme_passthru_cmd command = {
		.opcode = NVME_RESERVATION_REPORT,
		.nsid = nsid,
		.addr = (uintptr_t)data,
		.data_len = length,
		.cdw10 = length / 4 - 1,
		.cdw11 = extended,
	};

	memset(data, 0, length);
	return nvme_command(fd, NVME_IOCTL_IO_CMD, &command);
}
