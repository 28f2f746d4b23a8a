// SPDX-License-Identifier: MIT
/*
 * delay: hands everything to the disk below, each request after a wait, so that a slow disk can be
 * had. The classes of requests are those of dm-delay: what reads waits read_delay; what changes
 * (writes, FUA or not, unmap and write-zeroes) waits write_delay; a flush waits flush_delay.
 *
 * A wait is a sleep of the request's task: it holds no thread, and any number of requests wait at
 * the same time. A class without a delay goes straight through.
 *
 * The options may change at any time, so the driver keeps a copy that is read and written
 * atomically, each for itself. Who waits looks at its delay again at least every LOOK_NS.
 *
 * Flush and crash: as the disk below.
 */
#include <stdatomic.h>
#include <string.h>
#include "core/disk.h"
#include "core/report.h"
#include "core/task.h"

/* Within this time requests that wait already follow a change of their delay. */
#define LOOK_NS	  (NS_PER_S / 2)
#define DELAY_MAX (3600 * NS_PER_S)

enum value { READ_DELAY, WRITE_DELAY, FLUSH_DELAY, JITTER, SEED, VALUES };

struct delay_config {
	uint64_t values[VALUES];
};

struct delay {
	_Atomic uint64_t values[VALUES];
	_Atomic uint64_t drawn; /* random numbers since the seed was set */
};

static uint64_t value_now(const struct disk *disk, enum value value)
{
	const struct delay *delay = disk->state;

	return atomic_load_explicit(&delay->values[value], memory_order_relaxed);
}

static uint64_t draw_jitter(struct disk *disk)
{
	struct delay *delay = disk->state;
	uint64_t jitter = value_now(disk, JITTER);

	if (jitter == 0)
		return 0;
	return random_at(value_now(disk, SEED), atomic_fetch_add(&delay->drawn, 1)) % (jitter + 1);
}

static void wait_for(struct disk *disk, enum value class)
{
	uint64_t wanted = value_now(disk, class), begin, jitter, waited = 0;

	if (wanted == 0)
		return;
	begin = now_ns();
	jitter = draw_jitter(disk);
	while (wanted > 0 && waited < wanted + jitter) {
		task_sleep_ns(min_u64(wanted + jitter - waited, LOOK_NS));
		waited = now_ns() - begin;
		wanted = value_now(disk, class);
	}
}

/* ---- Operations. ---- */

static int delay_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	wait_for(disk, READ_DELAY);
	return disk_read(disk->below[0], sg, sector);
}

static int delay_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	wait_for(disk, WRITE_DELAY);
	return disk_write(disk->below[0], sg, sector, flags);
}

static int delay_flush(struct disk *disk)
{
	wait_for(disk, FLUSH_DELAY);
	return disk_flush(disk->below[0]);
}

static int delay_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	wait_for(disk, WRITE_DELAY);
	return disk_unmap(disk->below[0], sector, count);
}

static int delay_write_zeroes(struct disk *disk, uint64_t sector, uint64_t count, unsigned flags)
{
	wait_for(disk, WRITE_DELAY);
	return disk_write_zeroes(disk->below[0], sector, count, flags);
}

static int delay_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	return disk_extent(disk->below[0], sector, count, extent);
}

static int delay_allocated(struct disk *disk, uint64_t *bytes)
{
	return disk_allocated(disk->below[0], bytes);
}

static int delay_tail(struct disk *disk, void *data, size_t *length)
{
	return disk_tail(disk->below[0], data, length);
}

static int delay_eject(struct disk *disk)
{
	return disk_eject(disk->below[0]);
}

static void delay_below_resized(struct disk *disk, struct disk *below)
{
	disk_set_sector_count(disk, disk_sector_count(below));
}

static int delay_resize(struct disk *disk, uint64_t count)
{
	return disk_resize(disk->below[0], count);
}

/* ---- Life and options. ---- */

static void value_set(struct delay *delay, enum value value, uint64_t number)
{
	atomic_store_explicit(&delay->values[value], number, memory_order_relaxed);
	if (value == SEED)
		atomic_store(&delay->drawn, 0);
}

static int delay_open(struct disk *disk, struct err *err)
{
	const struct delay_config *config = disk->config;

	(void)err;
	for (unsigned i = 0; i < VALUES; i++)
		value_set(disk->state, (enum value)i, config->values[i]);
	disk_inherit_geometry(disk, disk->below[0]);
	return 0;
}

static void delay_close(struct disk *disk)
{
	(void)disk;
}

/* Which value an option fills. */
static enum value value_of(const struct option *option)
{
	return (enum value)(option->offset / sizeof(uint64_t));
}

static int delay_set_option(struct disk *disk, const char *name, const char *text, struct err *err)
{
	const struct option *option = option_find(disk->driver->options, name);
	struct delay_config parsed;

	if (option_parse(option, text, NULL, &parsed, err) < 0)
		return -1;
	value_set(disk->state, value_of(option), parsed.values[value_of(option)]);
	return 0;
}

static char *delay_get_option(struct disk *disk, const char *name)
{
	const struct option *option = option_find(disk->driver->options, name);
	char text[32];

	return strdup(option_format(text, option, value_now(disk, value_of(option))));
}

static void delay_inspect(struct disk *disk, struct report *report)
{
	for (const struct option *option = disk->driver->options; option->name; option++) {
		char text[32];

		report_string(report, option->name,
			      option_format(text, option, value_now(disk, value_of(option))));
	}
}

#define DELAY(option_name, value, text)                                                       \
	{                                                                                     \
		.name = (option_name), .type = OPTION_DURATION,                               \
		.offset = offsetof(struct delay_config, values[value]), .flags = OPTION_LIVE, \
		.max = DELAY_MAX, .fallback = "0", .help = (text),                            \
	}

static const struct option delay_options[] = {
	DELAY("read_delay", READ_DELAY, "How long each read waits"),
	DELAY("write_delay", WRITE_DELAY,
	      "How long each write waits, and all else that changes the content"),
	DELAY("flush_delay", FLUSH_DELAY, "How long each flush waits"),
	DELAY("jitter", JITTER,
	      "Makes each wait longer by a random time up to this; where there is none, there is "
	      "no jitter"),
	{.name = "seed",
	 .type = OPTION_U64,
	 .offset = offsetof(struct delay_config, values[SEED]),
	 .flags = OPTION_LIVE,
	 .fallback = "1",
	 .help = "Starts the generator that jitter asks: the same seed and requests, the same "
		 "waits"},
	{.name = NULL},
};

const struct driver delay_driver = {
	.name = "delay",
	.summary = "makes reads, writes and flushes wait",
	.options = delay_options,
	.config_size = sizeof(struct delay_config),
	.state_size = sizeof(struct delay),
	.below_min = 1,
	.below_max = 1,
	.open = delay_open,
	.close = delay_close,
	.read = delay_read,
	.write = delay_write,
	.flush = delay_flush,
	.unmap = delay_unmap,
	.write_zeroes = delay_write_zeroes,
	.extent = delay_extent,
	.allocated = delay_allocated,
	.eject = delay_eject,
	.tail = delay_tail,
	.below_resized = delay_below_resized,
	.resize = delay_resize,
	.set_option = delay_set_option,
	.get_option = delay_get_option,
	.inspect = delay_inspect,
};
