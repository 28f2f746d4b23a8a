// SPDX-License-Identifier: MIT
/*
 * VHD files of which nothing can be believed: seeds, changed at random (tests/lib/vhd_fuzz.h). The
 * same with a compiler that knows where it has not been: `make fuzz`.
 *
 *	SEED=n	other changes
 *	LONG=1	ten times as many
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "core/log.h"
#include "tests/lib/run.h"
#include "tests/lib/vhd_fuzz.h"

static uint64_t seed = 1;
static unsigned rounds = 3000;

static uint8_t data[VHD_FUZZ_SIZE_MAX];

static void seeds_task(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < VHD_SEEDS; i++)
		vhd_fuzz(data, vhd_seed(i, data));
}

static void mutations_task(void *argument)
{
	struct random random = {.state = seed};

	(void)argument;
	for (unsigned i = 0; i < rounds; i++) {
		size_t size = vhd_seed(i % VHD_SEEDS, data);

		vhd_fuzz(data, vhd_mutate(data, size, sizeof(data), &random));
	}
	print_message("SEED=%" PRIu64 ", %u images\n", seed, rounds);
}

RUN_IN_TASK(seeds)
RUN_IN_TASK(mutations)

static int enter(void **state)
{
	const char *text = getenv("SEED");

	if (text)
		seed = strtoull(text, NULL, 0);
	if (getenv("LONG") && getenv("LONG")[0])
		rounds *= 10;
	/* What is mended is told for each. */
	log_set_level(LOG_LEVEL_ERROR);
	return setup_1_worker(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(seeds), cmocka_unit_test(mutations)};

	return cmocka_run_group_tests(tests, enter, teardown_workers);
}
