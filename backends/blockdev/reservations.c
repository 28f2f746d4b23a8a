// SPDX-License-Identifier: MIT
/*
 * Reservations: whether a device has them, and their changes.
 *
 * The kernel asks every device to let them persist through a loss of power, and has no way not to;
 * so that cannot be switched off here.
 */
#include "backends/blockdev/reservations.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include "backends/blockdev/blockdev.h"
#include "backends/blockdev/commands.h"
#include "core/offload.h"
#include "core/pr_abi.h"

#define ALL_TYPES (((1U << PR_TYPES) - 1) & ~(1U << PR_NONE))

/* ---- What the device can. ---- */

static bool find_nvme(int fd, struct reservations_of_device *found)
{
	unsigned char *data = aligned_alloc(NVME_PAGE, NVME_PAGE);
	unsigned capabilities = 0;

	found->nsid = nvme_namespace(fd);
	/* ONCS, bit 5; then RESCAP, whose bits are those of our types. */
	if (data && found->nsid > 0 && nvme_identify_controller(fd, data) == 0 &&
	    (data[520] & 1 << 5) && nvme_identify_namespace(fd, found->nsid, data) == 0)
		capabilities = data[31];
	free(data);
	found->way = RESERVATIONS_BY_NVME;
	found->types = capabilities & ALL_TYPES;
	found->persist = capabilities & 1;
	return found->types;
}

/* What REPORT CAPABILITIES says of types, if it says anything. */
static unsigned scsi_types(const unsigned char answer[static 8])
{
	static const unsigned char scsi_numbers[] = {1, 3, 5, 6, 7, 8};
	unsigned mask = answer[4] | (unsigned)answer[5] << 8, types = 0;

	if (!(answer[3] & 0x80)) /* TMV: the mask is valid */
		return ALL_TYPES;
	for (size_t i = 0; i < ARRAY_SIZE(scsi_numbers); i++)
		if (mask & 1U << scsi_numbers[i])
			types |= 1U << pr_type_of_scsi(scsi_numbers[i]);
	return types;
}

static bool find_scsi(int fd, struct reservations_of_device *found)
{
	unsigned char answer[8];

	found->way = RESERVATIONS_BY_SCSI;
	if (scsi_pr_in(fd, SCSI_REPORT_CAPABILITIES, answer, sizeof(answer)) == 0) {
		found->types = scsi_types(answer);
		found->persist = answer[2] & 1; /* PTPL_C */
		return found->types;
	}
	/* That one is optional. */
	if (scsi_pr_in(fd, SCSI_READ_KEYS, answer, sizeof(answer)) != 0)
		return false;
	found->types = ALL_TYPES;
	return true;
}

/* Others, device-mapper above all, which passes them on. */
static bool find_other(int fd, struct reservations_of_device *found)
{
	struct pr_report report = {0};

	*found = (struct reservations_of_device){.types = ALL_TYPES};
	return registrants_read(fd, found, &report) == 0;
}

bool reservations_find(int fd, const struct blockdev_metadata *metadata,
		       struct reservations_of_device *found)
{
	*found = (struct reservations_of_device){0};
	/* Those of the whole device concern all of its partitions: the kernel refuses. */
	if (metadata->partition)
		return false;
	return find_nvme(fd, found) || find_scsi(fd, found) || find_other(fd, found);
}

/* ---- Errors. ---- */

/*
 * Since Linux 6.3 a status is of enum pr_status, before it was that of the device: of SCSI with the
 * host's byte above it, of NVMe with bits about repeating the command.
 */
#define STATUS_CONFLICT	     0x18 /* of SCSI, and of enum pr_status */
#define STATUS_NVME_CONFLICT 0x083
#define STATUS_NVME_MASK     0x7ff
#define STATUS_CHECK	     0x02 /* SCSI: an error of the request, mostly; NVMe: an invalid field */
#define STATUS_PATH	     0xff0000 /* the way to the device has failed */

int reservations_error(int result, bool is_release)
{
	if (result == 0)
		return 0;
	if (result == -ENOTTY || result == -EOPNOTSUPP)
		return error_of(ERROR_UNSUPPORTED);
	if (result == -EINVAL)
		return error_of(ERROR_INVALID_INPUT);
	if (result < 0)
		return blockdev_error(-result, true);
	if (result & STATUS_PATH)
		return error_io(ENOLINK);
	if ((result & 0xff) == STATUS_CONFLICT ||
	    (result & STATUS_NVME_MASK) == STATUS_NVME_CONFLICT)
		return error_of(ERROR_RESERVATION_CONFLICT);
	/* By the holder, of another type than it holds: that is all that can be wrong with it. */
	if ((result & 0xff) == STATUS_CHECK && is_release)
		return error_of(ERROR_INVALID_INPUT);
	return error_io(EIO);
}

/* ---- Changes. ---- */

struct change {
	int fd;
	unsigned long request;
	void *argument;
	uint32_t nsid; /* an NVMe device: unregister by a command of ours instead */
	int result;
};

static void change_job(void *argument)
{
	struct change *change = argument;
	const struct pr_abi_registration *registration = change->argument;

	if (change->nsid) {
		change->result = nvme_unregister(change->fd, change->nsid, registration->old_key,
						 registration->flags & PR_ABI_IGNORE_KEY);
		return;
	}
	change->result = ioctl(change->fd, change->request, change->argument);
	if (change->result < 0)
		change->result = -errno;
}

static int change_run(struct disk *disk, struct change *change)
{
	struct blockdev *blockdev = disk->state;
	char text[80];
	int error;

	change->fd = blockdev->io.fd;
	offload(change_job, change);
	error = reservations_error(change->result, change->request == PR_ABI_RELEASE);
	/* Conflicts are what reservations are for. */
	if (error_kind(error) == ERROR_IO || error_kind(error) == ERROR_MEDIUM)
		log_limited(&blockdev->log_limit, LOG_LEVEL_ERROR, disk->name,
			    "reservation: %s (status %d)", error_describe(text, error),
			    change->result);
	return error;
}

static int change(struct disk *disk, unsigned long request, void *argument)
{
	return change_run(disk, &(struct change){.request = request, .argument = argument});
}

static void pr_capabilities(struct disk *disk, struct pr_capabilities *capabilities)
{
	const struct blockdev *blockdev = disk->state;

	*capabilities = (struct pr_capabilities){
		.types = blockdev->reservations.types,
		.persist_through_power_loss = blockdev->reservations.persist,
	};
}

/*
 * NVMe has three registrations where SCSI has one: of who is not registered, of who is, and the end
 * of it. The kernel takes one without a current key as the first, any other as the second.
 */
static int register_nvme(struct disk *disk, struct pr_abi_registration *argument)
{
	const struct blockdev *blockdev = disk->state;
	bool ignore_key = argument->flags & PR_ABI_IGNORE_KEY;
	int error;

	if (argument->new_key == 0) {
		error = change_run(disk, &(struct change){.request = PR_ABI_REGISTER,
							  .argument = argument,
							  .nsid = blockdev->reservations.nsid});
		/* Whoever is not registered has got what it wants. */
		return ignore_key && error_kind(error) == ERROR_RESERVATION_CONFLICT ? 0 : error;
	}
	if (ignore_key)
		argument->old_key = 0;
	error = change(disk, PR_ABI_REGISTER, argument);
	if (!ignore_key || error_kind(error) != ERROR_RESERVATION_CONFLICT)
		return error;
	argument->old_key = argument->new_key; /* any, but 0 */
	return change(disk, PR_ABI_REGISTER, argument);
}

static int pr_register(struct disk *disk, uint64_t current_key, uint64_t new_key, unsigned flags)
{
	const struct blockdev *blockdev = disk->state;
	struct pr_abi_registration argument = {
		.old_key = current_key,
		.new_key = new_key,
		.flags = flags & PR_IGNORE_KEY ? PR_ABI_IGNORE_KEY : 0,
	};

	if ((flags & PR_CLEAR_PTPL) || ((flags & PR_SET_PTPL) && !blockdev->reservations.persist))
		return error_of(ERROR_UNSUPPORTED);
	if (blockdev->reservations.way == RESERVATIONS_BY_NVME)
		return register_nvme(disk, &argument);
	return change(disk, PR_ABI_REGISTER, &argument);
}

static int change_reservation(struct disk *disk, unsigned long request, uint64_t key,
			      enum pr_type type)
{
	struct pr_abi_reservation argument = {.key = key, .type = type};

	if (type <= PR_NONE || type >= PR_TYPES)
		return error_of(ERROR_INVALID_INPUT);
	return change(disk, request, &argument);
}

static int pr_reserve(struct disk *disk, uint64_t key, enum pr_type type)
{
	return change_reservation(disk, PR_ABI_RESERVE, key, type);
}

static int pr_release(struct disk *disk, uint64_t key, enum pr_type type)
{
	return change_reservation(disk, PR_ABI_RELEASE, key, type);
}

static int pr_clear(struct disk *disk, uint64_t key)
{
	struct pr_abi_clear argument = {.key = key};

	return change(disk, PR_ABI_CLEAR, &argument);
}

static int pr_preempt(struct disk *disk, uint64_t key, uint64_t victim_key, enum pr_type type,
		      unsigned flags)
{
	/* The kernel's names are misleading: the old key is the caller's. */
	struct pr_abi_preempt argument = {.old_key = key, .new_key = victim_key, .type = type};

	if (type <= PR_NONE || type >= PR_TYPES)
		return error_of(ERROR_INVALID_INPUT);
	return change(disk, flags & PR_ABORT ? PR_ABI_PREEMPT_ABORT : PR_ABI_PREEMPT, &argument);
}

/* ---- Reports. ---- */

struct reading {
	const struct blockdev *blockdev;
	struct pr_report *report;
	int result;
};

static void report_job(void *argument)
{
	struct reading *reading = argument;

	reading->result = registrants_read(reading->blockdev->io.fd,
					   &reading->blockdev->reservations, reading->report);
}

static int pr_report(struct disk *disk, struct pr_report *report)
{
	struct reading reading = {.blockdev = disk->state, .report = report};

	offload(report_job, &reading);
	return reservations_error(reading.result, false);
}

const struct pr_ops blockdev_pr_ops = {
	.capabilities = pr_capabilities,
	.report = pr_report,
	.reg = pr_register,
	.reserve = pr_reserve,
	.release = pr_release,
	.clear = pr_clear,
	.preempt = pr_preempt,
};
