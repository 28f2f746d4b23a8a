/* SPDX-License-Identifier: MIT */
/*
 * The disk: what every driver offers, and what everything above a disk may ask of it.
 *
 * A disk is a run of sectors. Its driver implements the operations for well-formed requests; the
 * core (disk.c, fit.c) stands in front of every driver, wrapper or leaf, and enforces what is the
 * same for all:
 *
 *   - geometry is validated when the disk is opened; only the sector count may change later;
 *   - a request outside the disk, or not of whole sectors, never reaches a driver;
 *   - neither does a change of a read-only disk, nor a request of length 0 (it succeeds);
 *   - what is larger or more scattered than the driver takes, or misaligned in memory, is cut
 *     or bounced;
 *   - FUA on a driver that does not respect it becomes write + flush;
 *   - unmap on a disk that ignores it succeeds without the driver;
 *   - every request is counted, and its latency, per node and operation.
 *
 * An operation that a driver does not name is refused with ERROR_UNSUPPORTED (extents: "all is
 * data"; write-zeroes: the core writes zeros): nothing is passed below silently.
 *
 * Calling context: all operations, of the core and of drivers, run in a task on a worker
 * (core/task.h) and may suspend it. They may run concurrently with one another, on several workers,
 * on the same disk and overlapping sectors; the order of overlapping requests in flight is
 * undefined, as on any disk. A write is acknowledged when reads see it; it is durable when a later
 * flush succeeds, or at once with DISK_FUA.
 */
#ifndef CORE_DISK_H
#define CORE_DISK_H

#include <stdatomic.h>
#include "conf/option.h"
#include "core/error.h"
#include "core/lock.h"
#include "core/sg.h"
#include "core/stats.h"
#include "core/util.h"

struct disk;
struct image_ops;
struct layer_ops;
struct pr_ops;
struct report;

enum unmap_behaviour {
	UNMAP_IGNORED,	   /* no effect: the content stays */
	UNMAP_UNSPECIFIED, /* the content may change, not necessarily to zeros */
	UNMAP_ZEROES,	   /* unmapped sectors read as zeros, every one of them */
};

enum disk_flags {
	DISK_FUA = 1 << 0,	 /* write, write-zeroes: durable before it completes */
	DISK_MAY_UNMAP = 1 << 1, /* write-zeroes: giving the space back is welcome */
};

enum extent_kind {
	EXTENT_DATA, /* holds data, or is not known to be a hole */
	EXTENT_HOLE, /* takes no space and reads as zeros */
};

/* A run of sectors of one kind; never empty. */
struct extent {
	enum extent_kind kind;
	uint64_t count; /* sectors, from the start that was asked for */
};

/* What may be made of a disk's size by those who use it, see disk_resize(). */
enum resizable {
	RESIZABLE_NO,
	RESIZABLE_YES,	  /* may be made larger */
	RESIZABLE_SHRINK, /* smaller, too */
};

/* The largest sector that a disk may have. */
#define GEOMETRY_SECTOR_MAX 65536U

/*
 * What a disk is. The driver's open() fills it; after validation by the core it is constant.
 * 0 in a limit means that there is none.
 */
struct disk_geometry {
	uint32_t sector_size;	       /* bytes, a power of two, 512 .. GEOMETRY_SECTOR_MAX */
	uint32_t physical_sector_size; /* bytes, a power of two, at least sector_size */
	bool read_only;
	bool fua; /* DISK_FUA reaches stable storage */
	bool has_id;
	uint8_t id[16];
	enum unmap_behaviour unmap;
	uint32_t optimal_unmap_sectors; /* at least 1; 0 is taken as 1 */
	enum resizable resizable;	/* as far as can be said beforehand */
	uint32_t memory_align; /* of each segment's address, bytes, a power of two, <= 4096 */
	/* Of the length of each segment but the last, bytes, a power of two, at least memory_align;
	 * less than that is taken as memory_align. */
	uint32_t length_align;
	uint32_t max_segments; /* of one read or write */
	uint64_t max_transfer; /* bytes of one read or write, a multiple of sector_size */
};

/* How a disk is opened; a driver's open() finds it in disk->open_flags. */
enum disk_open_flags {
	/* The node says readonly = yes, or the disk above never writes to it. */
	DISK_OPEN_READ_ONLY = 1 << 0,
	/* Change nothing: look, fill the geometry, open nothing for writing. */
	DISK_OPEN_CHECK = 1 << 1,
	/* A layered disk will stand on it (core/layer.h): with it, as what. */
	DISK_OPEN_LAYER = 1 << 2,
	DISK_OPEN_CACHE = 1 << 3,
	DISK_OPEN_WRITE_THROUGH = 1 << 4,
	/* By a command, for a moment: start nothing in the background. */
	DISK_OPEN_COMMAND = 1 << 5,
	/* The disk above is alone on it, and may resize it as it likes: the file of a format grows,
	 * whatever a user may do to the disk. */
	DISK_OPEN_RESIZE = 1 << 6,
};

/* A run of sectors that one part of a disk has, of one kind. */
struct disk_part {
	const char *name; /* of the part, valid as long as the disk is open; NULL: none has it */
	struct extent extent;
};

/*
 * A number that a driver keeps of each of its disks, beside what the core counts, for `.metrics`: a
 * counter, a gauge, or a histogram of times. Those of the same name follow one another, and have the
 * same type and help.
 */
enum metric_type {
	METRIC_COUNTER,
	METRIC_GAUGE,
	METRIC_LATENCY,
};

struct disk_metric {
	/* As Prometheus wants it, "diskfs_blob_retries_total"; NULL ends a table. */
	const char *name;
	const char *help;  /* a sentence */
	const char *label; /* besides image and node: "outcome=\"failed\""; or NULL */
	enum metric_type type;
	size_t which; /* for the functions */
	/* Any thread; must not block. The second is for METRIC_LATENCY, the first for all else. */
	uint64_t (*value)(struct disk *disk, size_t which);
	void (*latency)(struct disk *disk, size_t which, struct stats_totals *totals);
};

/*
 * A driver: one constant struct at the end of its file. No function may be called on a disk whose
 * open() failed, but close(), which copes with the half-built; open() may therefore just return.
 */
struct driver {
	const char *name;    /* as in `driver = name` */
	const char *summary; /* one line for --drivers */
	const struct option *options;
	size_t config_size; /* of the struct that the options fill: disk->config */
	size_t state_size;  /* of the zeroed struct that the core allocates: disk->state; 0: none */
	unsigned below_min, below_max; /* how many disks it stands on */
	bool is_volatile;	       /* what is written to it is gone when it is closed */

	/*
	 * Opens the disk: fills disk->geometry and calls disk_set_sector_count(). In a task; it is
	 * cold and may block. The disks below are open. Returns 0, or -1 with a sentence in @err.
	 */
	int (*open)(struct disk *disk, struct err *err);
	/* Releases everything. Nothing is in flight, and what had to be durable was flushed. In a
	 * task; may block. */
	void (*close)(struct disk *disk);

	/*
	 * 0 or an error (core/error.h), all or nothing for the caller. The core guarantees: whole
	 * sectors inside the disk (as of the check: the disk may shrink meanwhile), not 0 of them,
	 * within the geometry's limits.
	 */
	int (*read)(struct disk *disk, const struct sg *sg, uint64_t sector);
	int (*write)(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags);
	/* Makes every write that had completed when it was called durable. Not called on a
	 * read-only disk. */
	int (*flush)(struct disk *disk);
	/* Does what geometry.unmap says. Not called where that is UNMAP_IGNORED. */
	int (*unmap)(struct disk *disk, uint64_t sector, uint64_t count);
	/*
	 * The sectors read as zeros afterwards. NULL: the core unmaps (DISK_MAY_UNMAP on
	 * UNMAP_ZEROES), else writes; it writes as well after ERROR_UNSUPPORTED.
	 */
	int (*write_zeroes)(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags);
	/* The extent that begins at @sector, cut at @count sectors at the latest. NULL: all is
	 * data. */
	int (*extent)(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent);
	/* Where the disk is made of parts that lie over one another: which of them has the run that
	 * begins at @sector, cut as extents are, for people to see. NULL: it is not. */
	int (*part)(struct disk *disk, uint64_t sector, uint64_t count, struct disk_part *part);
	/* Bytes of storage that the disk takes now; cheap. NULL: all of its size. */
	int (*allocated)(struct disk *disk, uint64_t *bytes);
	int (*eject)(struct disk *disk);
	/*
	 * A descriptor, open as long as the disk, whose bytes are the disk's, each at its place, so
	 * that somebody may go there past the driver; or -1 with the reason in @err. NULL: never.
	 */
	int (*raw_file)(struct disk *disk, struct err *err);
	/*
	 * Where the storage of the disk has bytes beyond the last whole sector: reads them, all of
	 * them in *length, less than a sector, into @data, which has room for one. NULL: there are
	 * none.
	 */
	int (*tail)(struct disk *disk, void *data, size_t *length);
	/*
	 * @below, one of those below, has another sector count now: recompute ours by the driver's
	 * rule. NULL: ours stays. The changes of one come one after another, those of several at the
	 * same time.
	 */
	void (*below_resized)(struct disk *disk, struct disk *below);
	/*
	 * Gives the disk @count sectors, more or fewer than now, and says so by
	 * disk_set_sector_count(); a wrapper by resizing what is below. What a leaf adds reads as
	 * zeros; what is cut off is lost. Whether that may be, one way or both, is for the user to
	 * say in the leaf's options: ERROR_UNSUPPORTED, it may not. Several may come at once. NULL:
	 * never.
	 */
	int (*resize)(struct disk *disk, uint64_t count);
	/* Persistent reservations (core/pr.h); NULL: none. A disk may lack them: has_no_pr. */
	const struct pr_ops *pr;
	const struct layer_ops
		*layer; /* presence of sectors (core/layer.h); NULL: it has them all */
	/*
	 * What of enum disk_open_flags the disk below, number @index of those called @names, is to be
	 * opened with, besides those of its own node. @config is the driver's, @open_flags are those
	 * of the disk itself. NULL: DISK_OPEN_READ_ONLY and DISK_OPEN_RESIZE where the disk is.
	 */
	unsigned (*below_flags)(const void *config, unsigned open_flags, const char *const *names,
				unsigned index);
	/*
	 * Each file under which a disk of this driver is exported is a *port*: a disk of its own, of
	 * the driver given here, which has no options, stands on the disk, and is called like the
	 * file. NULL: the disk itself is exported, as one file.
	 */
	const struct driver *port;
	const struct image_ops *image; /* the format of its files (core/image.h); NULL: none */

	/*
	 * Options flagged OPTION_LIVE, while requests run: changes one (0, or -1 with a sentence in
	 * @err), tells its value now (to be freed; NULL: no memory). In a task.
	 */
	int (*set_option)(struct disk *disk, const char *name, const char *value, struct err *err);
	char *(*get_option)(struct disk *disk, const char *name);

	/* Adds the driver's own fields; any thread, must not block. NULL: none. */
	void (*inspect)(struct disk *disk, struct report *report);
	const struct disk_metric *metrics; /* NULL: none */
};

/* One open disk. Drivers read the first part; what is in `core` belongs to the core. */
struct disk {
	const struct driver *driver;
	const char *name; /* of the node, for messages; owned by the core */
	void *config;	  /* the driver's options; owned by the core */
	void *state;	  /* the driver's own; owned by the core */
	unsigned open_flags;
	bool has_no_pr; /* open() found that this one lacks the reservations of its driver */
	struct disk **below;
	unsigned below_count;
	struct disk_geometry geometry;
	struct {
		unsigned sector_shift;
		_Atomic uint64_t sector_count;
		struct disk **above; /* the disks that stand on this one */
		unsigned above_count;
		struct task_mutex attach_mutex; /* of a layer: one attach() at a time */
		/* Held while a new count is told to those above, and while those change: so the last
		 * that they hear is the last. */
		struct task_mutex count_mutex;
		void (*_Atomic resized)(void *argument); /* of disk_on_resize() */
		void *resized_argument;
		struct task_mutex resize_mutex;
		struct wait_queue resize_waiters;
		unsigned resize_waiting;
		bool closing;
		struct range_lock own_byte_lock;
		/* Of bytes.c: sub-sector writes against all others. Ports of a disk share its. */
		struct range_lock *byte_lock;
		struct stats stats;
	} core;
};

/* ---- Life. In a task. ---- */

/*
 * Opens a disk of @driver on top of @below (which must stay open longer; @below_count is within the
 * driver's bounds). Takes @config, allocated by malloc and filled by the driver's options, in every
 * case. Validates what the driver says of itself. Returns the disk, or NULL with a sentence in
 * @err.
 */
struct disk *disk_open(const struct driver *driver, const char *name, void *config,
		       unsigned open_flags, struct disk *const *below, unsigned below_count,
		       struct err *err);

/* Ends waiters for a resize, closes, releases. NULL is allowed. Nothing else may be in flight. */
void disk_close(struct disk *disk);

/* ---- Properties. Any thread. ---- */

uint64_t disk_sector_count(const struct disk *disk);
uint64_t disk_size(const struct disk *disk); /* bytes */

static inline uint32_t disk_sector_size(const struct disk *disk)
{
	return disk->geometry.sector_size;
}

static inline unsigned disk_sector_shift(const struct disk *disk)
{
	return disk->core.sector_shift;
}

static inline bool disk_is_read_only(const struct disk *disk)
{
	return disk->geometry.read_only;
}

const char *unmap_behaviour_name(enum unmap_behaviour behaviour);

/* The reservations of the disk, or NULL. */
const struct pr_ops *disk_pr(const struct disk *disk);

/* Adds what the disk is, its driver's fields, its counters, and the disks below, as fields of
 * @report. */
void disk_inspect(struct disk *disk, struct report *report);

/* The file that is the disk, see struct driver; or -1 with the reason in @err. Any thread. */
int disk_raw_file(struct disk *disk, struct err *err);

/* ---- Operations. In a task; 0 or an error of core/error.h. ---- */

int disk_read(struct disk *disk, const struct sg *sg, uint64_t sector);
int disk_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags);
int disk_flush(struct disk *disk);
int disk_unmap(struct disk *disk, uint64_t sector, uint64_t count);
int disk_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags);
/* @count is at least 1 and inside the disk. On error *extent is untouched. */
int disk_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent);
/* ERROR_UNSUPPORTED: it has no parts. As for disk_extent(). */
int disk_part(struct disk *disk, uint64_t sector, uint64_t count, struct disk_part *part);
int disk_allocated(struct disk *disk, uint64_t *bytes);
int disk_eject(struct disk *disk);
/* What is beyond the last whole sector, in *length bytes, mostly none; @data has room for a sector.
 */
int disk_tail(struct disk *disk, void *data, size_t *length);
/* Makes the disk larger or smaller, at least 1 sector, if its driver does that; ERROR_UNSUPPORTED:
 * not this disk, or not this way. */
int disk_resize(struct disk *disk, uint64_t count);

/*
 * An option of the disk that is flagged OPTION_LIVE: -1 with a sentence in @err where there is no
 * such option, or the value is wrong; NULL where there is none or no memory. In a task.
 */
int disk_set_option(struct disk *disk, const char *name, const char *value, struct err *err);
char *disk_get_option(struct disk *disk, const char *name);

/* Waits until the sector count is not @known, and returns it; returns @known when the disk is
 * closed meanwhile. */
uint64_t disk_wait_resize(struct disk *disk, uint64_t known);

/*
 * From now on @function(@argument) is called whenever the sector count of the disk, or of one below
 * it, has changed, by the task that changed it; it must not wait, nor change a count. Once for each
 * disk; @argument must be good until the disk is closed.
 */
void disk_on_resize(struct disk *disk, void (*function)(void *argument), void *argument);

/*
 * Waits until no read or change is under way that reaches beyond the first @count sectors. Once the
 * sector count is @count no new one begins; so whoever makes a disk smaller lets those end that
 * were checked before. False: some still are after @patience_ns, the disk may be stuck.
 */
bool disk_drain_beyond(struct disk *disk, uint64_t count, uint64_t patience_ns);

/* The same of those that have begun before this call, however many come after them. */
bool disk_drain_old(struct disk *disk, uint64_t count, uint64_t patience_ns);

/* ---- For drivers. ---- */

/*
 * Says how many sectors the disk has; in open(), and later whenever it changes (in a task; wakes
 * those who wait for a resize, and tells the disks above, one change after another). The count must
 * be representable: count * sector_size <= INT64_MAX.
 */
void disk_set_sector_count(struct disk *disk, uint64_t count);

/*
 * For the open() of a wrapper that changes nothing about what is below: takes over its geometry and
 * size. What the core does for the disk below (limits, FUA) it need not do twice.
 */
void disk_inherit_geometry(struct disk *disk, const struct disk *below);

#endif
