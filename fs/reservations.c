// SPDX-License-Identifier: MIT
/*
 * The kernel carries an ioctl's argument by the size and direction in its number, and nothing
 * that the argument points at. All of these travel whole, but for the array of keys that
 * IOC_PR_READ_KEYS points at.
 *
 * Who changes reservations has opened the file for writing: the kernel has checked then that they
 * may. (A block device asks for that, or CAP_SYS_ADMIN, which cannot be seen from here.)
 *
 * No ioctl says whether a registration is to survive a loss of power. Linux asks every device for
 * it; so it is asked for where the disk can do it.
 */
#include "fs/reservations.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/pr.h"
#include "core/pr_abi.h"

/* ---- Changes. ---- */

static int do_register(struct disk *disk, const void *in)
{
	const struct pr_ops *pr = disk_pr(disk);
	struct pr_capabilities capabilities;
	struct pr_abi_registration argument;
	unsigned flags = 0;

	memcpy(&argument, in, sizeof(argument));
	if (argument.flags & ~PR_ABI_IGNORE_KEY)
		return -EOPNOTSUPP;
	pr->capabilities(disk, &capabilities);
	if (argument.flags & PR_ABI_IGNORE_KEY)
		flags |= PR_IGNORE_KEY;
	if (capabilities.persist_through_power_loss)
		flags |= PR_SET_PTPL;
	return -error_to_errno(pr->reg(disk, argument.old_key, argument.new_key, flags));
}

static int do_reserve(struct disk *disk, const void *in)
{
	struct pr_abi_reservation argument;

	memcpy(&argument, in, sizeof(argument));
	if (argument.flags)
		return -EOPNOTSUPP;
	return -error_to_errno(
		disk_pr(disk)->reserve(disk, argument.key, (enum pr_type)argument.type));
}

static int do_release(struct disk *disk, const void *in)
{
	struct pr_abi_reservation argument;

	memcpy(&argument, in, sizeof(argument));
	if (argument.flags)
		return -EOPNOTSUPP;
	return -error_to_errno(
		disk_pr(disk)->release(disk, argument.key, (enum pr_type)argument.type));
}

static int do_preempt(struct disk *disk, const void *in, unsigned flags)
{
	struct pr_abi_preempt argument;

	memcpy(&argument, in, sizeof(argument));
	if (argument.flags)
		return -EOPNOTSUPP;
	return -error_to_errno(disk_pr(disk)->preempt(disk, argument.old_key, argument.new_key,
						      (enum pr_type)argument.type, flags));
}

static int do_clear(struct disk *disk, const void *in)
{
	struct pr_abi_clear argument;

	memcpy(&argument, in, sizeof(argument));
	if (argument.flags)
		return -EOPNOTSUPP;
	return -error_to_errno(disk_pr(disk)->clear(disk, argument.key));
}

/* ---- Reports. ---- */

/* With all registrants, to be freed by the caller. 0 or a negative errno. */
static int get_report(struct disk *disk, struct pr_report *report)
{
	*report = (struct pr_report){.capacity = 16};
	for (;;) {
		struct pr_registrant *larger =
			realloc(report->registrants, report->capacity * sizeof(*larger));
		int error;

		if (!larger) {
			free(report->registrants);
			return -ENOMEM;
		}
		report->registrants = larger;
		error = disk_pr(disk)->report(disk, report);
		if (error) {
			free(report->registrants);
			return -error_to_errno(error);
		}
		if (report->count <= report->capacity)
			return 0;
		report->capacity = report->count;
	}
}

/* The keys cannot travel: only whoever asks for none of them is answered, or if there are none. */
static int read_keys(struct disk *disk, const void *in, void *out, size_t *length)
{
	struct pr_abi_read_keys argument;
	struct pr_report report;
	int error = get_report(disk, &report);

	if (error)
		return error;
	free(report.registrants);
	memcpy(&argument, in, sizeof(argument));
	if (argument.num_keys > 0 && report.count > 0)
		return -EOPNOTSUPP;
	argument.generation = report.generation;
	argument.num_keys = report.count;
	memcpy(out, &argument, sizeof(argument));
	*length = sizeof(argument);
	return 0;
}

static int read_reservation(struct disk *disk, void *out, size_t *length)
{
	struct pr_abi_read_reservation answer = {0};
	struct pr_report report;
	int error = get_report(disk, &report);

	if (error)
		return error;
	answer.generation = report.generation;
	answer.type = report.type;
	/* One that all registrants hold has the key 0 (SPC-4, READ RESERVATION). */
	for (unsigned i = 0; i < report.count && !pr_type_is_all_registrants(report.type); i++)
		if (report.registrants[i].holds_reservation)
			answer.key = report.registrants[i].key;
	free(report.registrants);
	memcpy(out, &answer, sizeof(answer));
	*length = sizeof(answer);
	return 0;
}

/* ---- What is to be done. ---- */

static int change(struct disk *disk, unsigned command, const void *in)
{
	switch (command) {
	case PR_ABI_REGISTER:
		return do_register(disk, in);
	case PR_ABI_RESERVE:
		return do_reserve(disk, in);
	case PR_ABI_RELEASE:
		return do_release(disk, in);
	case PR_ABI_PREEMPT:
		return do_preempt(disk, in, 0);
	case PR_ABI_PREEMPT_ABORT:
		return do_preempt(disk, in, PR_ABORT);
	default:
		return do_clear(disk, in);
	}
}

int reservations_ioctl(struct image *image, uint64_t handle, unsigned command, const void *in,
		       void *out, size_t *length)
{
	struct disk *disk = image->disk;

	_Static_assert(sizeof(struct pr_abi_registration) <= RESERVATIONS_IOCTL_MAX, "too long");
	_Static_assert(sizeof(struct pr_abi_preempt) <= RESERVATIONS_IOCTL_MAX, "too long");
	if (!disk_pr(disk))
		return -ENOTTY;
	switch (command) {
	case PR_ABI_REGISTER:
	case PR_ABI_RESERVE:
	case PR_ABI_RELEASE:
	case PR_ABI_PREEMPT:
	case PR_ABI_PREEMPT_ABORT:
	case PR_ABI_CLEAR:
		return handle & IMAGE_HANDLE_WRITABLE ? change(disk, command, in) : -EPERM;
	case PR_ABI_READ_KEYS:
		return read_keys(disk, in, out, length);
	case PR_ABI_READ_RESERVATION:
		return read_reservation(disk, out, length);
	default:
		return -ENOTTY;
	}
}

/* ---- Texts. ---- */

static void print_keys(const struct pr_report *report, bool holders_only, FILE *out)
{
	const char *separator = "";

	for (unsigned i = 0; i < report->count; i++) {
		if (holders_only && !report->registrants[i].holds_reservation)
			continue;
		fprintf(out, "%s0x%" PRIx64, separator, report->registrants[i].key);
		separator = " ";
	}
}

static void print_field(const struct pr_report *report, enum reservations_field field, FILE *out)
{
	switch (field) {
	case RESERVATIONS_TYPE:
		fputs(pr_type_name(report->type), out);
		break;
	case RESERVATIONS_HOLDERS:
	case RESERVATIONS_KEYS:
		print_keys(report, field == RESERVATIONS_HOLDERS, out);
		break;
	case RESERVATIONS_GENERATION:
		fprintf(out, "%" PRIu32, report->generation);
		break;
	case RESERVATIONS_PERSIST:
		fputs(report->persist_through_power_loss ? "yes" : "no", out);
		break;
	}
}

int reservations_describe(struct image *image, enum reservations_field field, char **text)
{
	struct pr_report report;
	size_t length;
	FILE *out;
	int error = disk_pr(image->disk) ? get_report(image->disk, &report) : -ENODATA;

	if (error)
		return error;
	out = open_memstream(text, &length);
	if (out)
		print_field(&report, field, out);
	free(report.registrants);
	if (out && fclose(out) == 0)
		return 0;
	if (out)
		free(*text);
	*text = NULL;
	return -ENOMEM;
}
