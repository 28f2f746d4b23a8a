// SPDX-License-Identifier: MIT
#include "tests/lib/stripe.h"

#include <string.h>
#include "backends/list.h"
#include "tests/lib/check.h"
#include "tests/lib/stacks.h"

void stripe_init(struct stripe *stripe, unsigned count, uint64_t sectors)
{
	memset(stripe, 0, sizeof(*stripe));
	stripe->count = count;
	for (unsigned i = 0; i < count; i++)
		probe_init(&stripe->probes[i], STRIPE_SECTOR, sectors);
}

struct disk *stripe_try(struct stripe *stripe, const char *chunk_size, const char *size,
			struct err *err)
{
	const char *const options[][2] = {{"chunk_size", chunk_size}, {size ? "size" : NULL, size}};

	for (unsigned i = 0; i < stripe->count; i++)
		stripe->members[i] = probe_open(&stripe->probes[i], 0, NULL, err);
	stripe->disk = driver_open_on(driver_find("striped"), options, ARRAY_SIZE(options), 0,
				      stripe->members, stripe->count, err);
	return stripe->disk;
}

bool stripe_open(struct stripe *stripe, const char *chunk_size, const char *size)
{
	struct err err = {.text = ""};

	return CHECK(stripe_try(stripe, chunk_size, size, &err)) && CHECK_TEXT(err.text, "");
}

void stripe_forget(struct stripe *stripe)
{
	for (unsigned i = 0; i < stripe->count; i++)
		probe_forget(&stripe->probes[i]);
}

void stripe_close(struct stripe *stripe)
{
	disk_close(stripe->disk);
	for (unsigned i = 0; i < stripe->count; i++) {
		disk_close(stripe->members[i]);
		probe_destroy(&stripe->probes[i]);
	}
}

int stripe_put(struct stripe *stripe, const void *data, uint64_t sector, uint64_t count,
	       unsigned flags)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, (void *)(uintptr_t)data, count * STRIPE_SECTOR);

	return disk_write(stripe->disk, &sg, sector, flags);
}

int stripe_get(struct stripe *stripe, void *data, uint64_t sector, uint64_t count)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count * STRIPE_SECTOR);

	return disk_read(stripe->disk, &sg, sector);
}

unsigned stripe_calls(const struct stripe *stripe, enum probe_op op)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < stripe->count; i++)
		sum += stripe->probes[i].counts[op];
	return sum;
}

void stripe_place(const struct stripe_shape *shape, uint64_t sector, unsigned *member, uint64_t *at)
{
	uint64_t chunk = sector / shape->chunk;

	*member = (unsigned)(chunk % shape->members);
	*at = chunk / shape->members * shape->chunk + sector % shape->chunk;
}

bool stripe_check_calls(const struct stripe *stripe, const struct stripe_shape *shape,
			enum probe_op op, uint64_t sector, uint64_t count, unsigned flags)
{
	uint64_t first[STRIPE_MEMBERS_MAX], counts[STRIPE_MEMBERS_MAX] = {0};
	bool held = true;

	for (uint64_t i = 0; i < count; i++) {
		unsigned member;
		uint64_t at;

		stripe_place(shape, sector + i, &member, &at);
		if (counts[member]++ == 0)
			first[member] = at;
	}
	for (unsigned i = 0; i < stripe->count; i++) {
		const struct probe *probe = &stripe->probes[i];

		held &= CHECK_EQ(probe->call_count, counts[i] > 0);
		if (!held || counts[i] == 0)
			continue;
		held &= CHECK_EQ(probe->calls[0].op, op) &&
			CHECK_EQ(probe->calls[0].sector, first[i]) &&
			CHECK_EQ(probe->calls[0].count, counts[i]) &&
			CHECK_EQ(probe->calls[0].flags, flags);
	}
	return held;
}
