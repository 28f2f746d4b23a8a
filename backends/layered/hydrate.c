// SPDX-License-Identifier: MIT
/*
 * Hydrate: fills the read cache with what it does not have yet, in the background, at a limited
 * rate.
 *
 * One task walks over the disk once. What the cache has is passed by, as are holes of what is below:
 * there is nothing to keep. The rest is read from below and put into the cache, a piece at a time,
 * each as a request like all others. Nothing is written down about it: what the cache has is how far
 * it is, so it goes on after a restart by itself.
 *
 * A piece that fails is left out, after a pause; many in a row, and it gives up until the next
 * start. It ends within LOOK_NS when the disk is closed.
 */
#include "backends/layered/layered.h"
#include "core/buffer.h"
#include "core/report.h"
#include "core/task.h"

/* How long it sleeps at a time. */
#define LOOK_NS (NS_PER_S / 20)
/* A piece is what the rate allows in a quarter of a second, but between these. */
#define PIECE_MIN    (64 * KIB)
#define PIECE_MAX    BUFFER_PAYLOAD
#define PAUSE_NS     NS_PER_S
#define FAILURES_MAX 8

int hydrate_check(struct disk *disk, struct err *err)
{
	const struct layered_config *config = disk->config;
	struct layered *layered = disk->state;

	if (config->hydrate == 0)
		return 0;
	if (config->read_cache.count != 1)
		return err_set_key(err, "hydrate", "fills one read cache, but read_cache names %zu",
				   config->read_cache.count);
	while (!layered->layers[layered->hydrate.index].read_cache)
		layered->hydrate.index++;
	return 0;
}

static bool is_stopped(struct hydrate *hydrate)
{
	return atomic_load(&hydrate->stop);
}

static void sleep_until(struct hydrate *hydrate, uint64_t due_ns)
{
	uint64_t now = now_ns();

	while (now < due_ns && !is_stopped(hydrate)) {
		task_sleep_ns(min_u64(due_ns - now, LOOK_NS));
		now = now_ns();
	}
}

/* ---- The walk. ---- */

struct walk {
	struct disk *disk;
	char *buffer;
	uint64_t sector;
	unsigned failures; /* in a row */
	uint64_t due_ns;   /* when the next piece may begin */
};

static struct hydrate *hydrate_of(const struct disk *disk)
{
	return &((struct layered *)disk->state)->hydrate;
}

/* What the cache and all that is below it have in common. */
static uint64_t end_of(const struct disk *disk)
{
	unsigned index = hydrate_of(disk)->index;

	return layers_end(&disk->below[index], disk->below_count - index);
}

/*
 * How far there is nothing to be done from @walk->sector on, at least a part of it; 0: a piece is to
 * be read there, of *piece sectors.
 */
static int look(const struct walk *walk, uint64_t *nothing, uint64_t *piece)
{
	struct disk *disk = walk->disk;
	unsigned index = hydrate_of(disk)->index;
	struct disk *const *below = &disk->below[index + 1];
	unsigned below_count = disk->below_count - index - 1;
	uint64_t left = end_of(disk) - walk->sector;
	struct layer_place place = {.index = below_count};
	struct layer_run run;
	int error = layer_run(disk->below[index], walk->sector, left, &run);

	*nothing = run.count;
	if (error || run.state != LAYER_ABSENT)
		return error;
	error = layers_find(below, below_count, 0, walk->sector, run.count, &place);
	*piece = place.run.count;
	*nothing = place.run.state == LAYER_ZEROES ? place.run.count : 0;
	return error;
}

static int fetch_piece(const struct walk *walk, uint64_t count)
{
	struct disk *disk = walk->disk;
	unsigned index = hydrate_of(disk)->index;
	struct iovec iov;
	struct sg sg = sg_of(&iov, walk->buffer + BUFFER_HEADER,
			     count << disk_sector_shift(disk->below[index]));
	struct fetch fetch;
	int error;

	fetch_begin(disk, index, &fetch, walk->sector, count);
	error = layered_read_below(disk, index, &sg, walk->sector);
	if (!error)
		error = populate_now(disk, index, &sg, walk->sector, &fetch);
	fetch_end(disk, index, &fetch);
	return error;
}

/* Takes note of a piece that was tried, and of the time that it may have taken. */
static void piece_done(struct walk *walk, uint64_t bytes, int error)
{
	const struct layered_config *config = walk->disk->config;
	struct hydrate *hydrate = hydrate_of(walk->disk);
	/* Split, so that it does not overflow. */
	uint64_t rate = config->hydrate;
	uint64_t ns = bytes / rate * NS_PER_S +
		      (uint64_t)((double)(bytes % rate) / (double)rate * (double)NS_PER_S);

	walk->failures = error ? walk->failures + 1 : 0;
	if (error)
		atomic_fetch_add(&hydrate->left_out, bytes);
	/* What was late is not made up for. */
	walk->due_ns = max_u64(walk->due_ns, now_ns()) + (error ? PAUSE_NS : ns);
}

static uint64_t piece_max(const struct disk *disk)
{
	const struct layered_config *config = disk->config;
	uint64_t bytes = min_u64(max_u64(config->hydrate / 4, PIECE_MIN), PIECE_MAX);

	/* PIECE_MIN is a multiple of any sector size. */
	return align_down(bytes, PIECE_MIN) >> disk_sector_shift(disk->below[0]);
}

/* One step: passes by what is to be passed by, or fetches a piece. */
static void walk_step(struct walk *walk)
{
	unsigned shift = disk_sector_shift(walk->disk->below[0]);
	uint64_t nothing = 0, piece = 1;
	int error = look(walk, &nothing, &piece);

	if (!error && nothing > 0) {
		walk->sector += nothing;
		/* Runs may be short, and many. */
		task_yield();
		return;
	}
	piece = min_u64(piece, piece_max(walk->disk));
	if (!error)
		error = fetch_piece(walk, piece);
	piece_done(walk, piece << shift, error);
	walk->sector += piece;
	sleep_until(hydrate_of(walk->disk), walk->due_ns);
}

static enum hydrate_state walk_all(struct walk *walk)
{
	struct disk *disk = walk->disk;
	struct hydrate *hydrate = hydrate_of(disk);
	unsigned shift = disk_sector_shift(disk->below[0]);

	while (!is_stopped(hydrate) && walk->failures < FAILURES_MAX) {
		uint64_t end = end_of(disk);

		atomic_store(&hydrate->done, min_u64(walk->sector, end) << shift);
		atomic_store(&hydrate->total, end << shift);
		if (walk->sector >= end)
			return HYDRATE_DONE;
		walk_step(walk);
	}
	return is_stopped(hydrate) ? HYDRATE_STOPPED : HYDRATE_GIVEN_UP;
}

static void hydrate_run(void *argument)
{
	struct walk walk = {.disk = argument};
	struct hydrate *hydrate = hydrate_of(walk.disk);
	enum hydrate_state state = HYDRATE_GIVEN_UP;

	/* Let the disk be opened first. */
	task_yield();
	walk.buffer = buffer_get();
	if (walk.buffer) {
		state = walk_all(&walk);
		buffer_put(walk.buffer);
	}
	if (state == HYDRATE_GIVEN_UP)
		log_warning(walk.disk->name,
			    "'%s' is not filled any further: see the errors in .status",
			    walk.disk->below[hydrate->index]->name);
	atomic_store(&hydrate->state, (int)state);
}

/* ---- Life. ---- */

void hydrate_start(struct disk *disk)
{
	const struct layered_config *config = disk->config;
	struct hydrate *hydrate = hydrate_of(disk);

	if (config->hydrate == 0 || (disk->open_flags & (DISK_OPEN_CHECK | DISK_OPEN_COMMAND)) ||
	    !layer_is_populated(disk, hydrate->index))
		return;
	atomic_store(&hydrate->state, HYDRATE_RUNNING);
	if (task_start(hydrate_run, disk) < 0)
		atomic_store(&hydrate->state, HYDRATE_GIVEN_UP);
}

void hydrate_end(struct disk *disk)
{
	struct hydrate *hydrate = hydrate_of(disk);

	atomic_store(&hydrate->stop, true);
	while (atomic_load(&hydrate->state) == HYDRATE_RUNNING)
		task_sleep_ns(NS_PER_S / 1000);
}

void hydrate_inspect(struct disk *disk, struct report *report)
{
	static const char *const states[] = {
		[HYDRATE_OFF] = "off",	       [HYDRATE_RUNNING] = "running",
		[HYDRATE_DONE] = "done",       [HYDRATE_GIVEN_UP] = "given up",
		[HYDRATE_STOPPED] = "stopped",
	};
	const struct layered_config *config = disk->config;
	struct hydrate *hydrate = hydrate_of(disk);

	if (config->hydrate == 0)
		return;
	report_object_begin(report, "hydrate");
	report_string(report, "state", states[atomic_load(&hydrate->state)]);
	report_bytes(report, "rate", config->hydrate);
	report_bytes(report, "done_bytes", atomic_load(&hydrate->done));
	report_bytes(report, "total_bytes", atomic_load(&hydrate->total));
	report_bytes(report, "left_out_bytes", atomic_load(&hydrate->left_out));
	report_object_end(report);
}
