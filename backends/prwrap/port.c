// SPDX-License-Identifier: MIT
/*
 * A port: one file of the disk, one I_T nexus (prwrap.h). It is fenced by the tables of SPC-4 and
 * SBC-3, which those of NVMe agree with: what reads is a read, also to ask where data is (GET LBA
 * STATUS); what changes the disk or its state is a write, also a flush (SYNCHRONIZE CACHE).
 * Sizes, counters and the reservations themselves can always be asked for.
 */
#include <endian.h>
#include <inttypes.h>
#include <string.h>
#include "backends/prwrap/prwrap.h"
#include "core/report.h"

struct port {
	unsigned nexus;
};

static struct prwrap *prwrap_of(const struct disk *disk)
{
	return disk->below[0]->state;
}

static unsigned nexus_of(const struct disk *disk)
{
	const struct port *port = disk->state;

	return port->nexus;
}

/* ---- Operations. ---- */

static int pass(struct disk *disk, enum access access, struct passage *passage)
{
	return prwrap_pass(prwrap_of(disk), nexus_of(disk), access, passage);
}

static int leave(struct disk *disk, const struct passage *passage, int error)
{
	return prwrap_leave(prwrap_of(disk), passage, error);
}

static int port_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	struct passage passage;
	int error = pass(disk, ACCESS_READ, &passage);

	return error ? error : leave(disk, &passage, disk_read(disk->below[0], sg, sector));
}

static int port_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	struct passage passage;
	int error = pass(disk, ACCESS_WRITE, &passage);

	return error ? error : leave(disk, &passage, disk_write(disk->below[0], sg, sector, flags));
}

static int port_flush(struct disk *disk)
{
	struct passage passage;
	int error = pass(disk, ACCESS_WRITE, &passage);

	return error ? error : leave(disk, &passage, disk_flush(disk->below[0]));
}

static int port_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	struct passage passage;
	int error = pass(disk, ACCESS_WRITE, &passage);

	return error ? error : leave(disk, &passage, disk_unmap(disk->below[0], sector, count));
}

static int port_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	struct passage passage;
	int error = pass(disk, ACCESS_WRITE, &passage);

	if (error)
		return error;
	return leave(disk, &passage, disk_write_zeroes(disk->below[0], sector, count, flags));
}

static int port_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	struct passage passage;
	int error = pass(disk, ACCESS_READ, &passage);

	if (error)
		return error;
	return leave(disk, &passage, disk_extent(disk->below[0], sector, count, extent));
}

static int port_eject(struct disk *disk)
{
	struct passage passage;
	int error = pass(disk, ACCESS_WRITE, &passage);

	return error ? error : leave(disk, &passage, disk_eject(disk->below[0]));
}

static int port_allocated(struct disk *disk, uint64_t *bytes)
{
	return disk_allocated(disk->below[0], bytes);
}

static void port_below_resized(struct disk *disk, struct disk *below)
{
	disk_set_sector_count(disk, disk_sector_count(below));
}

static int port_resize(struct disk *disk, uint64_t count)
{
	struct passage passage;
	int error = pass(disk, ACCESS_WRITE, &passage);

	return error ? error : leave(disk, &passage, disk_resize(disk->below[0], count));
}

/* ---- Reservations: ours, or those of the disk below. ---- */

static struct disk *reserved(const struct disk *disk)
{
	return prwrap_reserved_below(disk->below[0]);
}

static void port_capabilities(struct disk *disk, struct pr_capabilities *capabilities)
{
	struct disk *below = reserved(disk);

	if (below) {
		disk_pr(below)->capabilities(below, capabilities);
		return;
	}
	*capabilities = (struct pr_capabilities){
		.types = ((1U << PR_TYPES) - 1) & ~(1U << PR_NONE),
		.persist_through_power_loss = prwrap_of(disk)->is_lasting,
	};
}

/* Who is known by the same name at the next start has the same id then. */
static void describe(const struct prwrap *prwrap, unsigned nexus, struct pr_registrant *registrant)
{
	uint64_t id = htobe64(hash_name(prwrap->names.names[nexus]));

	*registrant = (struct pr_registrant){
		.key = prwrap->reservations.keys[nexus],
		.controller_id = (uint16_t)(nexus + 1),
		.holds_reservation = reservations_holds(&prwrap->reservations, nexus),
	};
	memcpy(registrant->host_id, &id, sizeof(id));
}

static int port_report(struct disk *disk, struct pr_report *report)
{
	struct prwrap *prwrap = prwrap_of(disk);
	struct disk *below = reserved(disk);
	const struct reservations *reservations = &prwrap->reservations;

	if (below)
		return disk_pr(below)->report(below, report);
	report->count = 0;
	pthread_mutex_lock(&prwrap->mutex);
	report->generation = reservations->generation;
	report->type = reservations->type;
	report->persist_through_power_loss = reservations->persist;
	for (unsigned i = 0; i < prwrap->names.count; i++) {
		if (!reservations->keys[i])
			continue;
		if (report->count < report->capacity)
			describe(prwrap, i, &report->registrants[report->count]);
		report->count++;
	}
	pthread_mutex_unlock(&prwrap->mutex);
	return 0;
}

static int change(struct disk *disk, const struct change *change)
{
	return prwrap_change(prwrap_of(disk), nexus_of(disk), change);
}

static int port_register(struct disk *disk, uint64_t current_key, uint64_t new_key, unsigned flags)
{
	struct disk *below = reserved(disk);

	if (below)
		return disk_pr(below)->reg(below, current_key, new_key, flags);
	return change(disk, &(struct change){.kind = CHANGE_REGISTER,
					     .key = current_key,
					     .other_key = new_key,
					     .flags = flags});
}

static int port_reserve(struct disk *disk, uint64_t key, enum pr_type type)
{
	struct disk *below = reserved(disk);

	if (below)
		return disk_pr(below)->reserve(below, key, type);
	return change(disk, &(struct change){.kind = CHANGE_RESERVE, .key = key, .type = type});
}

static int port_release(struct disk *disk, uint64_t key, enum pr_type type)
{
	struct disk *below = reserved(disk);

	if (below)
		return disk_pr(below)->release(below, key, type);
	return change(disk, &(struct change){.kind = CHANGE_RELEASE, .key = key, .type = type});
}

static int port_clear(struct disk *disk, uint64_t key)
{
	struct disk *below = reserved(disk);

	if (below)
		return disk_pr(below)->clear(below, key);
	return change(disk, &(struct change){.kind = CHANGE_CLEAR, .key = key});
}

static int port_preempt(struct disk *disk, uint64_t key, uint64_t victim_key, enum pr_type type,
			unsigned flags)
{
	struct disk *below = reserved(disk);

	if (below)
		return disk_pr(below)->preempt(below, key, victim_key, type, flags);
	return change(disk, &(struct change){.kind = CHANGE_PREEMPT,
					     .key = key,
					     .other_key = victim_key,
					     .type = type,
					     .flags = flags});
}

static const struct pr_ops port_pr_ops = {
	.capabilities = port_capabilities,
	.report = port_report,
	.reg = port_register,
	.reserve = port_reserve,
	.release = port_release,
	.clear = port_clear,
	.preempt = port_preempt,
};

/* ---- Life. ---- */

static int port_open(struct disk *disk, struct err *err)
{
	struct prwrap *prwrap = prwrap_of(disk);
	struct port *port = disk->state;

	if (prwrap->ports > 0 && reserved(disk))
		return err_set_key(err, "file",
				   "'%s': the disk below has reservations of its own, and would "
				   "take several files for one initiator",
				   disk->name);
	port->nexus = nexus_names_add(&prwrap->names, disk->name);
	if (port->nexus == NEXUS_MAX)
		return err_set_key(err, "file",
				   "'%s': one disk knows %u files, those counted that are only in "
				   "its state file",
				   disk->name, NEXUS_MAX);
	prwrap->ports++;
	disk_inherit_geometry(disk, disk->below[0]);
	return 0;
}

/* The nexus stays: it is the disk's. */
static void port_close(struct disk *disk)
{
	(void)disk;
}

static void port_inspect(struct disk *disk, struct report *report)
{
	struct prwrap *prwrap = prwrap_of(disk);
	const struct reservations *reservations = &prwrap->reservations;
	unsigned nexus = nexus_of(disk);
	uint64_t key;
	bool may_read, may_write;

	if (reserved(disk))
		return;
	pthread_mutex_lock(&prwrap->mutex);
	key = reservations->keys[nexus];
	may_read = reservations_allow(reservations, nexus, ACCESS_READ);
	may_write = reservations_allow(reservations, nexus, ACCESS_WRITE);
	pthread_mutex_unlock(&prwrap->mutex);
	if (key)
		report_format(report, "key", "0x%" PRIx64, key);
	else
		report_string(report, "key", "none");
	report_bool(report, "may_read", may_read);
	report_bool(report, "may_write", may_write);
}

static const struct option port_options[] = {{.name = NULL}};

const struct driver prwrap_port_driver = {
	.name = "prwrap-port",
	.summary = "one file of a disk with persistent reservations",
	.options = port_options,
	.state_size = sizeof(struct port),
	.below_min = 1,
	.below_max = 1,
	.open = port_open,
	.close = port_close,
	.read = port_read,
	.write = port_write,
	.flush = port_flush,
	.unmap = port_unmap,
	.write_zeroes = port_write_zeroes,
	.extent = port_extent,
	.allocated = port_allocated,
	.eject = port_eject,
	.below_resized = port_below_resized,
	.resize = port_resize,
	.pr = &port_pr_ops,
	.inspect = port_inspect,
};
