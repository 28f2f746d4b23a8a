// SPDX-License-Identifier: MIT
#include "core/util.h"
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

uint64_t hash_name(const char *name)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 0x100000001b3;
	return hash;
}

uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

const char *format_size(char text[static 48], uint64_t bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned unit = 0;
	uint64_t whole = bytes;

	while (whole >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		whole /= 1024;
		unit++;
	}
	uint64_t scale = (uint64_t)1 << (10 * unit);
	unsigned tenths = (unsigned)((bytes % scale) * 10 / scale);

	if (tenths > 0)
		snprintf(text, 48, "%" PRIu64 ".%u %s", whole, tenths, units[unit]);
	else
		snprintf(text, 48, "%" PRIu64 " %s", whole, units[unit]);
	return text;
}

const char *format_id(char text[static 33], const uint8_t id[static 16])
{
	for (unsigned i = 0; i < 16; i++)
		snprintf(text + 2 * (size_t)i, 3, "%02x", id[i]);
	return text;
}
