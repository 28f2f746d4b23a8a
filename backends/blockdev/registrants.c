// SPDX-License-Identifier: MIT
/*
 * Who is registered with a device, and who has reserved it: three ways to ask.
 *
 * What a device answers is not believed before its lengths have been checked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include "backends/blockdev/commands.h"
#include "backends/blockdev/reservations.h"
#include "core/pr_abi.h"

/* The keys and the reservation are asked for one after the other: so often, until nothing has
 * changed in between. */
#define ATTEMPTS 10

/* More than any device has. The kernel takes no more either. */
#define REGISTRANTS_MAX 65536U

static uint16_t get_be16(const unsigned char *data)
{
	return (uint16_t)(data[0] << 8 | data[1]);
}

static uint32_t get_be32(const unsigned char *data)
{
	return (uint32_t)get_be16(data) << 16 | get_be16(data + 2);
}

static uint64_t get_be64(const unsigned char *data)
{
	return (uint64_t)get_be32(data) << 32 | get_be32(data + 4);
}

static uint16_t get_le16(const unsigned char *data)
{
	return (uint16_t)(data[0] | data[1] << 8);
}

static uint32_t get_le32(const unsigned char *data)
{
	return get_le16(data) | (uint32_t)get_le16(data + 2) << 16;
}

static uint64_t get_le64(const unsigned char *data)
{
	return get_le32(data) | (uint64_t)get_le32(data + 4) << 32;
}

/* Adds one; beyond the capacity it only counts. */
static void add(struct pr_report *report, const struct pr_registrant *registrant)
{
	if (report->count < report->capacity)
		report->registrants[report->count] = *registrant;
	report->count++;
}

/* Adds one that is known by its key alone. Whoever has the same key cannot be told apart. */
static void add_key(struct pr_report *report, uint64_t key, uint64_t holder_key)
{
	bool holds = pr_type_is_all_registrants(report->type) ||
		     (report->type != PR_NONE && key == holder_key);

	add(report, &(struct pr_registrant){.key = key, .holds_reservation = holds});
}

/* ---- By the kernel. ---- */

static int ask_kernel(int fd, const struct reservations_of_device *device, uint64_t *keys,
		      uint32_t room, struct pr_report *report)
{
	struct pr_abi_read_reservation reservation = {0};
	struct pr_abi_read_keys answer;
	unsigned attempts = 0;

	do {
		answer = (struct pr_abi_read_keys){.num_keys = room, .keys_ptr = (uintptr_t)keys};

		int result = ioctl(fd, PR_ABI_READ_KEYS, &answer);

		if (result == 0)
			result = ioctl(fd, PR_ABI_READ_RESERVATION, &reservation);
		if (result != 0)
			return result < 0 ? -errno : result;
	} while (answer.generation != reservation.generation && ++attempts < ATTEMPTS);
	if (answer.num_keys > REGISTRANTS_MAX || reservation.type >= PR_TYPES)
		return -EPROTO;
	report->generation = answer.generation;
	report->type = (enum pr_type)reservation.type;
	/* It tells nobody, but has asked for it. */
	report->persist_through_power_loss = device->persist;
	report->count = 0;
	for (uint32_t i = 0; i < answer.num_keys; i++)
		add_key(report, i < room ? keys[i] : 0, reservation.key);
	return 0;
}

static int read_by_kernel(int fd, const struct reservations_of_device *device,
			  struct pr_report *report)
{
	/* Not every driver takes 0. */
	uint32_t room = (uint32_t)max_u64(min_u64(report->capacity, REGISTRANTS_MAX), 1);
	uint64_t *keys = calloc(room, sizeof(*keys));
	int result = keys ? ask_kernel(fd, device, keys, room, report) : -ENOMEM;

	free(keys);
	return result;
}

/* ---- By SCSI. ---- */

enum pr_type pr_type_of_scsi(unsigned type)
{
	static const enum pr_type types[] = {
		[1] = PR_WRITE_EXCLUSIVE,
		[3] = PR_EXCLUSIVE_ACCESS,
		[5] = PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
		[6] = PR_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
		[7] = PR_WRITE_EXCLUSIVE_ALL_REGISTRANTS,
		[8] = PR_EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
	};

	return type < ARRAY_SIZE(types) && types[type] != PR_NONE ? types[type] : PR_TYPES;
}

/* Both answers begin with the generation and their length behind these 8 bytes. */
#define SCSI_HEADER	 8U
#define SCSI_RESERVATION 16U
#define SCSI_MAX	 65528U

int registrants_parse_scsi(const unsigned char *keys, uint32_t keys_length,
			   const unsigned char *reservation, uint32_t reservation_length,
			   struct pr_report *report, uint32_t *needed)
{
	uint64_t holder = 0;
	uint32_t length;

	if (keys_length < SCSI_HEADER || reservation_length < SCSI_HEADER)
		return -EPROTO;
	report->generation = get_be32(keys);
	report->type = PR_NONE;
	report->count = 0;
	if (get_be32(reservation + 4) > 0) {
		if (reservation_length < SCSI_HEADER + SCSI_RESERVATION ||
		    get_be32(reservation + 4) < SCSI_RESERVATION)
			return -EPROTO;
		holder = get_be64(reservation + 8);
		report->type = pr_type_of_scsi(reservation[21] & 0x0f);
		if (report->type == PR_TYPES)
			return -EPROTO;
	}
	length = get_be32(keys + 4);
	if (length % 8 != 0 || length > SCSI_MAX - SCSI_HEADER)
		return -EPROTO;
	*needed = SCSI_HEADER + length;
	if (*needed > keys_length)
		return -EMSGSIZE;
	for (uint32_t at = SCSI_HEADER; at < *needed; at += 8)
		add_key(report, get_be64(keys + at), holder);
	return 0;
}

/* Asks for both, in one state of the device. */
static int ask_scsi(int fd, unsigned char *keys, uint32_t keys_length,
		    unsigned char reservation[static SCSI_HEADER + SCSI_RESERVATION])
{
	int result;

	for (unsigned i = 0; i < ATTEMPTS; i++) {
		result = scsi_pr_in(fd, SCSI_READ_KEYS, keys, (uint16_t)keys_length);
		if (result == 0)
			result = scsi_pr_in(fd, SCSI_READ_RESERVATION, reservation,
					    SCSI_HEADER + SCSI_RESERVATION);
		if (result || get_be32(keys) == get_be32(reservation))
			break;
	}
	return result;
}

static int read_by_scsi(int fd, const struct reservations_of_device *device,
			struct pr_report *report)
{
	unsigned char reservation[SCSI_HEADER + SCSI_RESERVATION], capabilities[8];
	uint32_t length = 1024;
	int result;

	(void)device;
	do {
		unsigned char *keys = malloc(length);
		uint32_t needed = 0;

		if (!keys)
			return -ENOMEM;
		result = ask_scsi(fd, keys, length, reservation);
		if (result == 0)
			result = registrants_parse_scsi(keys, length, reservation,
							sizeof(reservation), report, &needed);
		free(keys);
		length = needed;
	} while (result == -EMSGSIZE);
	if (result)
		return result;
	report->persist_through_power_loss =
		scsi_pr_in(fd, SCSI_REPORT_CAPABILITIES, capabilities, sizeof(capabilities)) == 0 &&
		(capabilities[3] & 1); /* PTPL_A */
	return 0;
}

/* ---- By NVMe. ---- */

#define NVME_HEADER	     24U
#define NVME_HEADER_EXTENDED 64U
#define NVME_ENTRY	     24U
#define NVME_ENTRY_EXTENDED  64U

int registrants_parse_nvme(const unsigned char *data, uint32_t length, bool extended,
			   struct pr_report *report, uint32_t *needed)
{
	uint32_t header = extended ? NVME_HEADER_EXTENDED : NVME_HEADER;
	uint32_t entry = extended ? NVME_ENTRY_EXTENDED : NVME_ENTRY;
	uint32_t count;

	if (length < header || data[4] >= PR_TYPES)
		return -EPROTO;
	report->generation = get_le32(data);
	report->type = (enum pr_type)data[4];
	report->persist_through_power_loss = data[9] & 1;
	report->count = 0;
	count = get_le16(data + 5);
	*needed = header + count * entry;
	if (*needed > length)
		return -EMSGSIZE;
	for (uint32_t i = 0; i < count; i++) {
		const unsigned char *from = data + header + i * entry;
		struct pr_registrant registrant = {
			.controller_id = get_le16(from),
			.holds_reservation = from[2] & 1,
			.key = get_le64(from + (extended ? 8 : 16)),
		};

		memcpy(registrant.host_id, from + (extended ? 16 : 8), extended ? 16 : 8);
		add(report, &registrant);
	}
	return 0;
}

static int read_by_nvme(int fd, const struct reservations_of_device *device,
			struct pr_report *report)
{
	uint32_t length = NVME_PAGE;
	bool extended = true;
	int result;

	do {
		unsigned char *data = aligned_alloc(NVME_PAGE, length);
		uint32_t needed = length;

		if (!data)
			return -ENOMEM;
		result = nvme_reservation_report(fd, device->nsid, extended, data, length);
		if (result == NVME_STATUS_HOST_ID_FORMAT && extended) {
			extended = false;
			result = -EMSGSIZE;
		} else if (result == 0) {
			result = registrants_parse_nvme(data, length, extended, report, &needed);
		}
		free(data);
		length = (uint32_t)align_up(needed, NVME_PAGE);
	} while (result == -EMSGSIZE);
	return result;
}

int registrants_read(int fd, const struct reservations_of_device *device, struct pr_report *report)
{
	int result = read_by_kernel(fd, device, report);

	if (result != -ENOTTY && result != -EINVAL && result != -EOPNOTSUPP)
		return result;
	if (device->way == RESERVATIONS_BY_NVME)
		return read_by_nvme(fd, device, report);
	if (device->way == RESERVATIONS_BY_SCSI)
		return read_by_scsi(fd, device, report);
	return result;
}
