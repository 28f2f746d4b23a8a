// SPDX-License-Identifier: MIT
/*
 * For libFuzzer, by `make fuzz`: VHD files (tests/lib/vhd_fuzz.h). With VHD_SEEDS=FOLDER in the
 * environment it only writes the seeds there.
 */
#include <stdio.h>
#include <stdlib.h>
#include "core/log.h"
#include "core/worker.h"
#include "tests/lib/vhd_fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

static void write_seeds(const char *folder)
{
	static uint8_t data[VHD_FUZZ_SIZE_MAX];

	for (unsigned i = 0; i < VHD_SEEDS; i++) {
		size_t size = vhd_seed(i, data);
		char path[4096];
		FILE *out;

		snprintf(path, sizeof(path), "%s/seed%u", folder, i);
		out = fopen(path, "wb");
		if (!out || fwrite(data, 1, size, out) != size || fclose(out) != 0) {
			perror(path);
			exit(EXIT_FAILURE);
		}
	}
	exit(EXIT_SUCCESS);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct err err;

	(void)argc;
	(void)argv;
	if (getenv("VHD_SEEDS"))
		write_seeds(getenv("VHD_SEEDS"));
	log_set_level(LOG_LEVEL_ERROR);
	if (workers_start(1, &err) == 0)
		return 0;
	fprintf(stderr, "%s\n", err.text);
	exit(EXIT_FAILURE);
}

struct input {
	const uint8_t *data;
	size_t size;
};

static void input_task(void *argument)
{
	const struct input *input = argument;

	vhd_fuzz(input->data, input->size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};

	if (size <= VHD_FUZZ_SIZE_MAX)
		worker_call(worker_get(0), input_task, &input);
	return 0;
}

/* By the fuzzer's own means or ours; mostly with checksums that are right. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	struct random random = {.state = seed};

	if (random_below(&random, 2))
		return vhd_mutate(data, size, max, &random);
	size = LLVMFuzzerMutate(data, size, max);
	if (random_below(&random, 4) > 0)
		vhd_sign(data, size);
	return size;
}
