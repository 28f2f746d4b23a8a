// SPDX-License-Identifier: MIT
/*
 * Random operations, by several tasks on two workers, on every stack, against a model in memory.
 *
 *	SEED=n	replays a run (but for the order between the two workers)
 *	OPS=n	operations for each stack and mode, instead of OPS_DEFAULT
 *	LONG=1	OPS_LONG of them
 *
 * Exact: each operation claims its range, so that ranges under way never overlap, and whatever is
 * read must be the model's. Claims of operations by bytes are to the byte, so that neighbours
 * inside a sector do meet.
 *
 * Overlapping: nothing is claimed. Every write fills each of its sectors with one value; a sector
 * must in the end have one value throughout, one that somebody wrote to that sector.
 *
 * Faulty: as exact, but some requests fail, by the rules of a `fault` in the stack. An operation
 * fails only with an error that was injected for what it does; the sectors of a failed write are
 * old or new, each as a whole; nothing else has changed.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "core/bytes.h"
#include "core/log.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/stacks.h"

#define OPS_DEFAULT 2000
#define OPS_LONG    500000 /* of each of two sector sizes: 10^6 for each stack and mode */
#define TASKS	    12
#define SIZE	    (3 * MIB + 12288)
#define LENGTH_MAX  (192 * KIB)

static uint64_t seed, ops = OPS_DEFAULT;

enum mode { EXACT, OVERLAPPING, FAULTY, MODES };

static const char *const mode_names[MODES] = {"exact", "overlapping", "faulty"};

struct claim {
	uint64_t start, end;
	bool by_bytes;
};

/* A stack under test. */
struct world {
	const struct stack *stack;
	uint32_t sector_size;
	enum mode mode;
	char name[120];
	struct instance instance;
	bool is_open;
	atomic_bool stop; /* something has failed: more of it tells nothing */

	atomic_uint faults; /* how many operations have failed, as they should */

	/* Exact, faulty: what is on the disk, and which ranges are somebody's. */
	char *model;
	pthread_mutex_t mutex;
	struct claim claims[TASKS];

	/* Overlapping: for each sector, the set of values that were written to it. */
	_Atomic uint64_t *candidates;
};

/* ---- Operations. ---- */

enum kind {
	READ,
	WRITE,
	WRITE_FUA,
	ZERO,
	ZERO_UNMAP,
	UNMAP,
	FLUSH,
	EXTENT,
	READ_BYTES,
	WRITE_BYTES,
	ZERO_BYTES,
	KINDS
};

static const char *const kind_names[KINDS] = {
	[READ] = "read",
	[WRITE] = "write",
	[WRITE_FUA] = "write with FUA",
	[ZERO] = "write zeroes",
	[ZERO_UNMAP] = "write zeroes, unmapping",
	[UNMAP] = "unmap",
	[FLUSH] = "flush",
	[EXTENT] = "extent",
	[READ_BYTES] = "read bytes",
	[WRITE_BYTES] = "write bytes",
	[ZERO_BYTES] = "zero bytes",
};

struct op {
	enum kind kind;
	uint64_t offset, length; /* bytes */
};

static bool is_by_bytes(const struct op *op)
{
	return op->kind >= READ_BYTES;
}

static bool is_write(const struct op *op)
{
	return op->kind == WRITE || op->kind == WRITE_FUA || op->kind == WRITE_BYTES;
}

static bool is_zero(const struct op *op)
{
	return op->kind == ZERO || op->kind == ZERO_UNMAP || op->kind == UNMAP ||
	       op->kind == ZERO_BYTES;
}

static bool is_read(const struct op *op)
{
	return op->kind == READ || op->kind == READ_BYTES;
}

/* A range inside the disk: mostly short, sometimes long, often where others are. */
static struct op op_random(const struct world *world, struct random *random, unsigned kinds)
{
	uint64_t size = random_below(random, 4) ? disk_size(world->instance.disk) : 128 * KIB;
	uint64_t max = random_below(random, 8) ? 20000 : LENGTH_MAX;
	struct op op = {.kind = (enum kind)random_below(random, kinds)};

	op.offset = random_below(random, size);
	op.length = 1 + random_below(random, min_u64(max, size - op.offset));
	if (op.kind == UNMAP && world->instance.disk->geometry.unmap != UNMAP_ZEROES)
		op.kind = ZERO_UNMAP;
	if ((world->stack->flags & STACK_READ_ONLY) && (is_write(&op) || is_zero(&op)))
		op.kind = is_by_bytes(&op) ? READ_BYTES : READ;
	if (!is_by_bytes(&op)) {
		uint64_t end = align_up(op.offset + op.length, world->sector_size);

		op.offset = align_down(op.offset, world->sector_size);
		op.length = end - op.offset;
	}
	return op;
}

/* A list of random segments over @data. */
static struct sg sg_random(struct random *random, char *data, size_t length, struct iovec *iov,
			   unsigned max)
{
	size_t left = length;

	for (unsigned i = 0; left > 0; i++) {
		size_t part = random_below(random, 3) ? 1 + random_below(random, 9000)
						      : 512 * random_below(random, 20);

		if (i == max - 1 || part > left)
			part = left;
		iov[i] = (struct iovec){data + length - left, part};
		left -= part;
	}
	return (struct sg){.iov = iov, .len = length};
}

/* Nothing but zeros may lie in a hole. */
static int op_extent(struct world *world, uint64_t sector, uint64_t count)
{
	struct extent extent = {.kind = EXTENT_DATA};
	int error = disk_extent(world->instance.disk, sector, count, &extent);

	if (!error && extent.kind == EXTENT_HOLE && world->model) {
		uint64_t length = extent.count * world->sector_size;

		CHECK_EQ(bytes_differ(world->model + sector * world->sector_size, length, 0),
			 length);
	}
	return error;
}

/* Does it, from or to @data. */
static int op_run(struct world *world, struct random *random, const struct op *op, char *data)
{
	struct disk *disk = world->instance.disk;
	uint64_t sector = op->offset / world->sector_size;
	uint64_t count = op->length / world->sector_size;
	struct iovec iov[64];
	struct sg sg;

	switch (op->kind) {
	case READ:
		sg = sg_random(random, data, op->length, iov, ARRAY_SIZE(iov));
		return disk_read(disk, &sg, sector);
	case WRITE:
	case WRITE_FUA:
		sg = sg_random(random, data, op->length, iov, ARRAY_SIZE(iov));
		return disk_write(disk, &sg, sector, op->kind == WRITE_FUA ? DISK_FUA : 0);
	case ZERO:
		return disk_write_zeroes(disk, sector, count, 0);
	case ZERO_UNMAP:
		return disk_write_zeroes(disk, sector, count, DISK_MAY_UNMAP);
	case UNMAP:
		return disk_unmap(disk, sector, count);
	case FLUSH:
		return disk_flush(disk);
	case EXTENT:
		return op_extent(world, sector, count);
	case READ_BYTES:
		return disk_read_bytes(disk, data, op->length, op->offset);
	case WRITE_BYTES:
		return disk_write_bytes(disk, data, op->length, op->offset, 0);
	case ZERO_BYTES:
		return disk_zero_bytes(disk, op->offset, op->length,
				       op->offset % 2 ? DISK_MAY_UNMAP : 0);
	case KINDS:
		break;
	}
	return error_of(ERROR_INVALID_INPUT);
}

/* After a failed check: says what was done, and ends the run. */
static void op_failed(struct world *world, const struct op *op, int error)
{
	char text[80];

	fprintf(stderr, "\t%s of %llu bytes from byte %llu: %s\n", kind_names[op->kind],
		(unsigned long long)op->length, (unsigned long long)op->offset,
		error ? error_describe(text, error) : "no error");
	atomic_store(&world->stop, true);
}

/* ---- Claims. ---- */

/*
 * Two operations by bytes may have a sector in common. One by sectors may not share any: it does
 * not take the lock that guards the others (core/bytes.h).
 */
static bool claims_conflict(const struct world *world, const struct claim *a, const struct claim *b)
{
	uint64_t unit = a->by_bytes && b->by_bytes ? 1 : world->sector_size;

	return align_down(a->start, unit) < align_up(b->end, unit) &&
	       align_down(b->start, unit) < align_up(a->end, unit);
}

/* Whether task @index may have the range of @op now; it has it until it claims something else. */
static bool claim(struct world *world, unsigned index, const struct op *op)
{
	struct claim wanted = {op->offset, op->offset + op->length, is_by_bytes(op)};
	bool free = true;

	pthread_mutex_lock(&world->mutex);
	for (unsigned i = 0; i < TASKS; i++)
		free &= i == index || !claims_conflict(world, &world->claims[i], &wanted);
	world->claims[index] = free ? wanted : (struct claim){.start = 0};
	pthread_mutex_unlock(&world->mutex);
	return free;
}

/* ---- Faulty. ---- */

/* The errors are told apart by the request that they are injected into. */
static const char fault_rules[] =
	"read error=medium-read chance=2, write error=ENOSPC chance=2, write tear chance=2, "
	"write tear=512 chance=1, flush error=ETIMEDOUT chance=10, unmap error=aborted chance=5, "
	"unmap tear chance=5, zeroes error=conflict chance=5, zeroes tear=4K chance=5, "
	"write delay=10us chance=5, read+zeroes+unmap delay=1us chance=5";

#define BIT(op) (1U << STATS_##op)

/* The requests that an operation may be made of. One by bytes also reads and writes what is around
 * it in its sectors. */
static const unsigned requests_of[KINDS] = {
	[READ] = BIT(READ),
	[WRITE] = BIT(WRITE),
	[WRITE_FUA] = BIT(WRITE) | BIT(FLUSH),
	[ZERO] = BIT(WRITE_ZEROES) | BIT(WRITE),
	[ZERO_UNMAP] = BIT(WRITE_ZEROES) | BIT(UNMAP) | BIT(WRITE),
	[UNMAP] = BIT(UNMAP),
	[FLUSH] = BIT(FLUSH),
	[READ_BYTES] = BIT(READ),
	[WRITE_BYTES] = BIT(READ) | BIT(WRITE),
	[ZERO_BYTES] = BIT(WRITE_ZEROES) | BIT(UNMAP) | BIT(READ) | BIT(WRITE),
};

static bool is_injected(enum kind kind, int error)
{
	const struct {
		enum stats_op op;
		int error;
	} injected[] = {
		{STATS_READ, error_medium(EIO, MEDIUM_UNRECOVERED_READ)},
		{STATS_WRITE, error_io(ENOSPC)},
		{STATS_WRITE, error_io(EIO)},
		{STATS_FLUSH, error_io(ETIMEDOUT)},
		{STATS_UNMAP, error_of(ERROR_ABORTED)},
		{STATS_UNMAP, error_io(EIO)},
		{STATS_WRITE_ZEROES, error_of(ERROR_RESERVATION_CONFLICT)},
		{STATS_WRITE_ZEROES, error_io(EIO)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(injected); i++)
		if ((requests_of[kind] >> injected[i].op & 1) && injected[i].error == error)
			return true;
	return false;
}

/*
 * After a failed change to @data: every sector of it is old or new, and the model follows. Only the
 * bytes of the operation are looked at: the others in its sectors may be somebody else's.
 */
static bool follow_failed(struct world *world, const struct op *op, const char *data)
{
	char *now = malloc(op->length), *model = world->model + op->offset;
	bool held = true;
	int error;

	do
		error = disk_read_bytes(world->instance.disk, now, op->length, op->offset);
	while (error && is_injected(READ, error));
	held &= CHECK_OK(error);
	for (uint64_t at = 0; held && at < op->length;) {
		uint64_t to_sector = world->sector_size - (op->offset + at) % world->sector_size;
		size_t part = min_u64(to_sector, op->length - at);

		held = CHECK(memcmp(now + at, model + at, part) == 0 ||
			     memcmp(now + at, data + at, part) == 0);
		at += part;
	}
	memcpy(model, now, op->length);
	free(now);
	return held;
}

/* ---- Exact and faulty. ---- */

/* Does one claimed operation, and compares or follows with the model. */
static void exact_op(struct world *world, struct random *random, const struct op *op, char *data)
{
	bool drops = world->stack->flags & STACK_DROPS_WRITES;
	char *model = world->model + op->offset;
	bool held;
	int error;

	if (is_write(op))
		pattern_fill(data, op->length, random_next(random));
	error = op_run(world, random, op, data);
	held = CHECK(!error || (world->mode == FAULTY && is_injected(op->kind, error)));
	if (error)
		atomic_fetch_add(&world->faults, 1);
	if (is_zero(op))
		memset(data, 0, op->length);
	if (!error && is_read(op))
		held &= CHECK(memcmp(data, model, op->length) == 0);
	else if (!error && !drops && (is_write(op) || is_zero(op)))
		memcpy(model, data, op->length);
	else if (held && error && (is_write(op) || is_zero(op)))
		held = follow_failed(world, op, data);
	if (!held)
		op_failed(world, op, error);
}

static void exact_task(unsigned index, void *argument)
{
	struct world *world = argument;
	struct random random = {.state = seed + index * 1000003};
	char *data = malloc(LENGTH_MAX + 65536);

	for (uint64_t i = 0; i < ops / TASKS && !atomic_load(&world->stop); i++) {
		struct op op = op_random(world, &random, KINDS);

		while (!claim(world, index, &op))
			task_yield();
		exact_op(world, &random, &op, data);
	}
	/* The last claim is given back, for those who still wait. */
	claim(world, index, &(struct op){.kind = READ_BYTES});
	free(data);
}

static void exact_end(void *argument)
{
	struct world *world = argument;
	size_t size = disk_size(world->instance.disk);
	char *data = malloc(size);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, size);

	if (world->mode == FAULTY) {
		/* It really injects: much fewer than one in fifty would be another test. */
		CHECK(atomic_load(&world->stop) || atomic_load(&world->faults) >= ops / 50);
		instance_set_option(&world->instance, "fault", "rules", "");
	}
	CHECK_OK(disk_read(world->instance.disk, &sg, 0));
	CHECK(memcmp(data, world->model, size) == 0);
	free(data);
}

/* ---- Overlapping. ---- */

#define VALUES 64

static void note_candidates(struct world *world, const struct op *op, unsigned value)
{
	uint64_t first = op->offset / world->sector_size;

	for (uint64_t i = 0; i < op->length / world->sector_size; i++)
		atomic_fetch_or(&world->candidates[first + i], (uint64_t)1 << value);
}

static bool check_candidates(struct world *world, const struct op *op, const char *data)
{
	uint32_t size = world->sector_size;
	bool held = true;

	for (uint64_t i = 0; held && i < op->length / size; i++) {
		unsigned char value = (unsigned char)data[i * size];
		uint64_t set = atomic_load(&world->candidates[op->offset / size + i]);

		held = CHECK(value < VALUES) && CHECK(set >> value & 1) &&
		       CHECK_EQ(bytes_differ(data + i * size, size, value), size);
	}
	return held;
}

static void overlapping_task(unsigned index, void *argument)
{
	struct world *world = argument;
	struct random random = {.state = seed + index * 1000003};
	bool whole_reads = world->stack->flags & STACK_WHOLE_READS;
	char *data = malloc(LENGTH_MAX + 65536);

	for (uint64_t i = 0; i < ops / TASKS && !atomic_load(&world->stop); i++) {
		struct op op = op_random(world, &random, READ_BYTES);
		unsigned value = 1 + (unsigned)random_below(&random, VALUES - 1);
		bool held;
		int error;

		if (is_write(&op)) {
			memset(data, (int)value, op.length);
			note_candidates(world, &op, value);
		}
		error = op_run(world, &random, &op, data);
		held = CHECK_OK(error);
		if (op.kind == READ && whole_reads)
			held &= check_candidates(world, &op, data);
		if (!held)
			op_failed(world, &op, error);
	}
	free(data);
}

static void overlapping_end(void *argument)
{
	struct world *world = argument;
	struct op all = {.kind = READ, .length = disk_size(world->instance.disk)};
	char *data = malloc(all.length);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, all.length);

	CHECK_OK(disk_read(world->instance.disk, &sg, 0));
	check_candidates(world, &all, data);
	free(data);
}

/* ---- A world. ---- */

static void world_open(void *argument)
{
	struct world *world = argument;

	world->is_open = instance_open(&world->instance, world->stack, world->sector_size, SIZE);
	if (!world->is_open)
		return;
	if (world->mode == FAULTY)
		instance_set_option(&world->instance, "fault", "rules", fault_rules);
	if (world->mode == OVERLAPPING) {
		uint64_t count = disk_sector_count(world->instance.disk);

		world->candidates = calloc(count, sizeof(*world->candidates));
		for (uint64_t i = 0; i < count; i++)
			world->candidates[i] = 1; /* zeros, of the beginning and later */
		return;
	}
	pthread_mutex_init(&world->mutex, NULL);
	world->model = calloc(1, SIZE);
	if (world->stack->flags & STACK_READ_ONLY)
		pattern_fill(world->model, SIZE, 0);
}

static void world_close(void *argument)
{
	struct world *world = argument;

	if (world->is_open)
		instance_close(&world->instance);
	free(world->model);
	free((void *)(uintptr_t)world->candidates);
}

static void world_run(void **state)
{
	struct world *world = *state;
	const char *obstacle = stack_obstacle(world->stack, world->sector_size);

	if (obstacle) {
		print_message("skipped - %s: %s\n", world->name, obstacle);
		skip();
	}
	run_task(world_open, world);
	check_context("SEED=%llu, %s", (unsigned long long)seed, world->name);
	run_tasks(TASKS, world->mode == OVERLAPPING ? overlapping_task : exact_task, world);
	check_context("SEED=%llu, %s, at the end", (unsigned long long)seed, world->name);
	run_task(world->mode == OVERLAPPING ? overlapping_end : exact_end, world);
}

static int world_teardown(void **state)
{
	struct world *world = *state;

	run_task(world_close, world);
	instance_remove(&world->instance);
	return 0;
}

/* What the environment asks for. */
static void settings_read(void)
{
	const char *seed_text = getenv("SEED"), *ops_text = getenv("OPS"),
		   *is_long = getenv("LONG");

	seed = seed_text ? strtoull(seed_text, NULL, 0)
			 : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid() % 1000;
	if (ops_text)
		ops = strtoull(ops_text, NULL, 0);
	else if (is_long && strcmp(is_long, "1") == 0)
		ops = OPS_LONG;
	print_message("SEED=%llu OPS=%llu\n", (unsigned long long)seed, (unsigned long long)ops);
}

/* Whether a stack can be asked what a mode asks. */
static bool is_for(const struct stack *stack, enum mode mode)
{
	if (mode == FAULTY)
		return stack_has(stack, "fault");
	return mode == EXACT || !(stack->flags & (STACK_READ_ONLY | STACK_DROPS_WRITES));
}

int main(void)
{
	size_t max = stacks_count * 2 * MODES, used = 0;
	struct world *worlds = calloc(max, sizeof(*worlds));
	struct CMUnitTest *tests = calloc(max, sizeof(*tests));
	int failed;

	if (!worlds || !tests)
		return 1;
	settings_read();
	log_set_level(LOG_LEVEL_ERROR); /* warnings belong to some of the stacks */
	for (size_t i = 0; i < max; i++) {
		struct world *world = &worlds[used];

		world->stack = &stacks[i / (2 * MODES)];
		world->sector_size = i % 2 ? 4096 : 512;
		world->mode = (enum mode)(i / 2 % MODES);
		if (!is_for(world->stack, world->mode) ||
		    !stack_takes(world->stack, world->sector_size))
			continue;
		snprintf(world->name, sizeof(world->name), "%s, %u, %s", world->stack->name,
			 world->sector_size, mode_names[world->mode]);
		tests[used++] = (struct CMUnitTest){.name = world->name,
						    .test_func = world_run,
						    .teardown_func = world_teardown,
						    .initial_state = world};
	}
	failed = _cmocka_run_group_tests("model", tests, used, setup_2_workers, teardown_workers);
	free(tests);
	free(worlds);
	return failed;
}
