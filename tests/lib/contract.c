// SPDX-License-Identifier: MIT
#include "tests/lib/contract.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/log.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

/* One contract on one stack. */
struct trial {
	const struct contract *contract;
	const struct stack *stack;
	uint32_t sector_size;
	char name[120];
	struct instance instance;
	bool is_open;
};

static void trial_open(void *argument)
{
	struct trial *trial = argument;

	trial->is_open =
		instance_open(&trial->instance, trial->stack, trial->sector_size, CONTRACT_SIZE);
}

static void trial_task(void *argument)
{
	struct trial *trial = argument;

	trial->contract->in_task(&trial->instance);
}

static void trial_close(void *argument)
{
	struct trial *trial = argument;

	instance_close(&trial->instance);
}

static void trial_run(void **state)
{
	struct trial *trial = *state;
	const char *obstacle = stack_obstacle(trial->stack, trial->sector_size);

	if (obstacle) {
		print_message("skipped - %s: %s\n", trial->name, obstacle);
		skip();
	}
	check_context("%s", trial->name);
	run_task(trial_open, trial);
	check_context("%s", trial->name);
	if (trial->contract->in_task)
		run_task(trial_task, trial);
	else
		trial->contract->on_thread(&trial->instance);
}

static int trial_teardown(void **state)
{
	struct trial *trial = *state;

	if (trial->is_open)
		run_task(trial_close, trial);
	instance_remove(&trial->instance);
	return 0;
}

static bool trial_makes_sense(const struct contract *contract, const struct stack *stack)
{
	return (stack->flags & contract->wanted_flags) == contract->wanted_flags &&
	       (stack->flags & contract->unwanted_flags) == 0;
}

int contract_run(const char *group, const struct contract *contracts, size_t count)
{
	static const uint32_t sector_sizes[] = {512, 4096};
	size_t max = count * stacks_count * ARRAY_SIZE(sector_sizes), used = 0;
	struct trial *trials = calloc(max, sizeof(*trials));
	struct CMUnitTest *tests = calloc(max, sizeof(*tests));
	int failed;

	if (!trials || !tests)
		return 1;
	for (size_t i = 0; i < max; i++) {
		struct trial *trial = &trials[used];

		trial->contract = &contracts[i % count];
		trial->stack = &stacks[i / count % stacks_count];
		trial->sector_size = sector_sizes[i / count / stacks_count];
		if (!trial_makes_sense(trial->contract, trial->stack) ||
		    !stack_takes(trial->stack, trial->sector_size))
			continue;
		snprintf(trial->name, sizeof(trial->name), "%s, %u: %s", trial->stack->name,
			 trial->sector_size, trial->contract->name);
		tests[used++] = (struct CMUnitTest){.name = trial->name,
						    .test_func = trial_run,
						    .teardown_func = trial_teardown,
						    .initial_state = trial};
	}
	log_set_level(LOG_LEVEL_ERROR); /* warnings belong to some of the stacks */
	failed = _cmocka_run_group_tests(group, tests, used, setup_2_workers, teardown_workers);
	free(tests);
	free(trials);
	return failed;
}

bool disk_put(struct disk *disk, const void *data, uint64_t sector, uint64_t count, unsigned flags)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, (void *)(uintptr_t)data, count << disk_sector_shift(disk));

	return CHECK_OK(disk_write(disk, &sg, sector, flags));
}

bool disk_get(struct disk *disk, void *data, uint64_t sector, uint64_t count)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count << disk_sector_shift(disk));

	return CHECK_OK(disk_read(disk, &sg, sector));
}

/* The whole sectors around a range of bytes; *skip is where the range begins in them. */
static char *read_around(struct disk *disk, uint64_t offset, size_t length, size_t *skip)
{
	uint64_t size = disk_sector_size(disk);
	uint64_t start = align_down(offset, size), end = align_up(offset + length, size);
	char *data = malloc(end - start);

	*skip = offset - start;
	if (data && disk_get(disk, data, start / size, (end - start) / size))
		return data;
	free(data);
	return NULL;
}

bool disk_holds(struct instance *instance, const void *data, uint64_t offset, size_t length)
{
	size_t skip;
	char *is;
	bool held;

	if (instance->stack->flags & STACK_DROPS_WRITES)
		return disk_zeros(instance, offset, length);
	if (length == 0)
		return true;
	is = read_around(instance->disk, offset, length, &skip);
	held = is && CHECK(memcmp(is + skip, data, length) == 0);
	free(is);
	return held;
}

bool disk_zeros(struct instance *instance, uint64_t offset, size_t length)
{
	size_t skip;
	char *is;
	bool held;

	if (length == 0)
		return true;
	is = read_around(instance->disk, offset, length, &skip);
	held = is && CHECK_EQ(bytes_differ(is + skip, length, 0), length);
	free(is);
	return held;
}
