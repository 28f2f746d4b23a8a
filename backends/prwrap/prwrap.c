// SPDX-License-Identifier: MIT
/*
 * The node: its reservations, how they change, and their state file. What each lock guards is said
 * in prwrap.h.
 *
 * Flush and crash: as the disk below. Reservations that persist are in the state file before the
 * change that made them is acknowledged; all others, and the generation, end with the process.
 */
#include "backends/prwrap/prwrap.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "core/offload.h"
#include "core/report.h"

struct disk *prwrap_reserved_below(const struct disk *disk)
{
	return disk_pr(disk->below[0]) ? disk->below[0] : NULL;
}

/* ---- Requests. ---- */

int prwrap_pass(struct prwrap *prwrap, unsigned nexus, enum access access, struct passage *passage)
{
	struct nexus *from = &prwrap->nexuses[nexus];
	bool allowed;

	pthread_mutex_lock(&prwrap->mutex);
	allowed = reservations_allow(&prwrap->reservations, nexus, access);
	if (allowed) {
		*passage = (struct passage){nexus, access, from->phase};
		from->in_flight[from->phase][access]++;
	}
	pthread_mutex_unlock(&prwrap->mutex);
	return allowed ? 0 : error_of(ERROR_RESERVATION_CONFLICT);
}

int prwrap_leave(struct prwrap *prwrap, const struct passage *passage, int error)
{
	struct nexus *from = &prwrap->nexuses[passage->nexus];
	bool aborted, draining;

	pthread_mutex_lock(&prwrap->mutex);
	from->in_flight[passage->phase][passage->access]--;
	aborted = passage->phase != from->phase;
	draining = prwrap->draining;
	pthread_mutex_unlock(&prwrap->mutex);
	if (draining) {
		task_mutex_lock(&prwrap->drain_mutex);
		wait_queue_wake_all(&prwrap->drained);
		task_mutex_unlock(&prwrap->drain_mutex);
	}
	return aborted ? error_of(ERROR_ABORTED) : error;
}

/* Whether a request is under way that was aborted, or that would not be let through now. */
static bool is_drained(struct prwrap *prwrap)
{
	bool drained = true;

	pthread_mutex_lock(&prwrap->mutex);
	for (unsigned i = 0; i < prwrap->names.count; i++) {
		const struct nexus *nexus = &prwrap->nexuses[i];

		for (unsigned access = 0; access < ACCESSES; access++) {
			if (nexus->in_flight[!nexus->phase][access])
				drained = false;
			if (nexus->in_flight[nexus->phase][access] &&
			    !reservations_allow(&prwrap->reservations, i, access))
				drained = false;
		}
	}
	if (drained)
		prwrap->draining = false;
	pthread_mutex_unlock(&prwrap->mutex);
	return drained;
}

/* ---- Changes. ---- */

struct saving {
	struct state_file *file;
	const char *text;
	size_t length;
	int error; /* a negative errno */
};

static void save_job(void *argument)
{
	struct saving *saving = argument;

	saving->error = state_file_write(saving->file, saving->text, saving->length);
}

/* Writes the state file. 0 or a negative errno. */
static int save(struct prwrap *prwrap, const struct reservations *reservations)
{
	struct saving saving = {.file = &prwrap->state_file};
	char *text = state_text(reservations, &prwrap->names, &saving.length);

	if (!text)
		return -ENOMEM;
	saving.text = text;
	offload(save_job, &saving);
	free(text);
	return saving.error;
}

/* Lets @next take effect, and waits for those whom it stops. */
static void take_effect(struct prwrap *prwrap, const struct reservations *next,
			const struct nexus_set *aborted)
{
	pthread_mutex_lock(&prwrap->mutex);
	prwrap->reservations = *next;
	for (unsigned i = 0; i < prwrap->names.count; i++)
		prwrap->nexuses[i].phase ^= aborted->has[i];
	prwrap->draining = true;
	pthread_mutex_unlock(&prwrap->mutex);
	task_mutex_lock(&prwrap->drain_mutex);
	while (!is_drained(prwrap))
		wait_queue_wait(&prwrap->drained, &prwrap->drain_mutex);
	task_mutex_unlock(&prwrap->drain_mutex);
}

static int change_locked(struct prwrap *prwrap, unsigned nexus, const struct change *change)
{
	const struct reservations *now = &prwrap->reservations;
	struct reservations next = *now;
	struct nexus_set preempted = {0};
	int error;

	if ((change->flags & PR_SET_PTPL) && !prwrap->is_lasting)
		return error_of(ERROR_UNSUPPORTED);
	error = reservations_change(&next, nexus, change, &preempted);
	if (error)
		return error;
	if (prwrap->is_unsaved ||
	    ((now->persist || next.persist) && !reservations_equal(now, &next))) {
		int failure = save(prwrap, &next);

		prwrap->is_unsaved = failure != 0;
		if (failure)
			return error_io(-failure);
	}
	if (!(change->flags & PR_ABORT))
		preempted = (struct nexus_set){0};
	take_effect(prwrap, &next, &preempted);
	return 0;
}

int prwrap_change(struct prwrap *prwrap, unsigned nexus, const struct change *change)
{
	int error;

	task_mutex_lock(&prwrap->change_mutex);
	error = change_locked(prwrap, nexus, change);
	task_mutex_unlock(&prwrap->change_mutex);
	return error;
}

/* ---- Operations: of nobody in particular, so nothing is checked. ---- */

static int prwrap_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	return disk_read(disk->below[0], sg, sector);
}

static int prwrap_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	return disk_write(disk->below[0], sg, sector, flags);
}

static int prwrap_flush(struct disk *disk)
{
	return disk_flush(disk->below[0]);
}

static int prwrap_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	return disk_unmap(disk->below[0], sector, count);
}

static int prwrap_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	return disk_write_zeroes(disk->below[0], sector, count, flags);
}

static int prwrap_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	return disk_extent(disk->below[0], sector, count, extent);
}

static int prwrap_allocated(struct disk *disk, uint64_t *bytes)
{
	return disk_allocated(disk->below[0], bytes);
}

static int prwrap_eject(struct disk *disk)
{
	return disk_eject(disk->below[0]);
}

static void prwrap_below_resized(struct disk *disk, struct disk *below)
{
	disk_set_sector_count(disk, disk_sector_count(below));
}

static int prwrap_resize(struct disk *disk, uint64_t count)
{
	return disk_resize(disk->below[0], count);
}

/* ---- Life. ---- */

/* The state file is there, and is what state_text() makes; one that was missing is made. */
static int state_open(struct disk *disk, struct err *err)
{
	const struct prwrap_config *config = disk->config;
	struct prwrap *prwrap = disk->state;
	bool check = disk->open_flags & DISK_OPEN_CHECK;
	char *text = NULL;
	size_t length = 0;
	int result = state_file_open(&prwrap->state_file, config->state_file, check, STATE_TEXT_MAX,
				     &text, &length, err);

	if (result == 0 && text) {
		result = state_parse(text, length, config->state_file, &prwrap->reservations,
				     &prwrap->names, err);
	} else if (result == 0 && !check) {
		text = state_text(&prwrap->reservations, &prwrap->names, &length);
		int error = text ? state_file_write(&prwrap->state_file, text, length) : -ENOMEM;

		if (error)
			result = err_set_key(err, "state_file", "cannot create '%s': %s",
					     config->state_file, strerror(-error));
	}
	free(text);
	return result;
}

struct opening {
	struct disk *disk;
	struct err *err;
	int result;
};

static void open_job(void *argument)
{
	struct opening *opening = argument;

	opening->result = state_open(opening->disk, opening->err);
}

static int prwrap_open(struct disk *disk, struct err *err)
{
	const struct prwrap_config *config = disk->config;
	struct prwrap *prwrap = disk->state;
	struct opening opening = {.disk = disk, .err = err};

	prwrap->state_file.fd = -1;
	if (config->state_file && prwrap_reserved_below(disk))
		return err_set_key(err, "state_file",
				   "the disk below has reservations of its own, and keeps them");
	prwrap->is_lasting = config->state_file;
	if (prwrap->is_lasting)
		offload(open_job, &opening);
	if (opening.result < 0)
		return -1;
	pthread_mutex_init(&prwrap->mutex, NULL);
	task_mutex_init(&prwrap->change_mutex);
	task_mutex_init(&prwrap->drain_mutex);
	prwrap->locks_made = true;
	disk_inherit_geometry(disk, disk->below[0]);
	return 0;
}

static void prwrap_close(struct disk *disk)
{
	struct prwrap *prwrap = disk->state;

	state_file_close(&prwrap->state_file);
	nexus_names_free(&prwrap->names);
	if (!prwrap->locks_made)
		return;
	pthread_mutex_destroy(&prwrap->mutex);
	task_mutex_destroy(&prwrap->change_mutex);
	task_mutex_destroy(&prwrap->drain_mutex);
}

static void inspect_registrants(const struct reservations *reservations,
				const struct prwrap *prwrap, struct report *report)
{
	report_list_begin(report, "registrants");
	for (unsigned i = 0; i < prwrap->names.count; i++) {
		if (!reservations->keys[i])
			continue;
		report_object_begin(report, NULL);
		report_string(report, "file", prwrap->names.names[i]);
		report_format(report, "key", "0x%" PRIx64, reservations->keys[i]);
		report_bool(report, "holds_reservation", reservations_holds(reservations, i));
		report_object_end(report);
	}
	report_list_end(report);
}

static void prwrap_inspect(struct disk *disk, struct report *report)
{
	const struct prwrap_config *config = disk->config;
	struct prwrap *prwrap = disk->state;
	struct reservations reservations;

	if (prwrap_reserved_below(disk)) {
		report_string(report, "reservations", "of the disk below");
		return;
	}
	pthread_mutex_lock(&prwrap->mutex);
	reservations = prwrap->reservations;
	pthread_mutex_unlock(&prwrap->mutex);
	if (prwrap->is_lasting)
		report_string(report, "state_file", config->state_file);
	report_bool(report, "persist_through_power_loss", reservations.persist);
	report_u64(report, "generation", reservations.generation);
	report_string(report, "reservation", pr_type_name(reservations.type));
	inspect_registrants(&reservations, prwrap, report);
}

static const struct option prwrap_options[] = {
	{.name = "state_file",
	 .type = OPTION_PATH,
	 .offset = offsetof(struct prwrap_config, state_file),
	 .help = "A file that keeps registrations and the reservation for the next start. It is "
		 "created if it does not exist. Without it all are forgotten at the end"},
	{.name = NULL},
};

const struct driver prwrap_driver = {
	.name = "prwrap",
	.summary = "persistent reservations: several files of one disk that fence one another",
	.options = prwrap_options,
	.config_size = sizeof(struct prwrap_config),
	.state_size = sizeof(struct prwrap),
	.below_min = 1,
	.below_max = 1,
	.open = prwrap_open,
	.close = prwrap_close,
	.read = prwrap_read,
	.write = prwrap_write,
	.flush = prwrap_flush,
	.unmap = prwrap_unmap,
	.write_zeroes = prwrap_write_zeroes,
	.extent = prwrap_extent,
	.allocated = prwrap_allocated,
	.eject = prwrap_eject,
	.below_resized = prwrap_below_resized,
	.resize = prwrap_resize,
	.port = &prwrap_port_driver,
	.inspect = prwrap_inspect,
};
