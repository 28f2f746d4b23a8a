// SPDX-License-Identifier: MIT
#include "tests/lib/share.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backends/list.h"
#include "tests/lib/check.h"
#include "tests/lib/stacks.h"

#define SECTOR 512

const char *const share_types[PR_TYPES] = {"none", "WE", "EA", "WERO", "EARO", "WEAR", "EAAR"};

struct disk *port_open(struct disk *disk, const char *name, struct err *err)
{
	return disk_open(disk->driver->port, name, calloc(1, 1), disk->open_flags, &disk, 1, err);
}

bool share_open(struct share *share, uint64_t sector_count, const char *state_file)
{
	const char *const options[][2] = {{state_file ? "state_file" : NULL, state_file}};
	struct err err = {.text = ""};

	memset(share->ports, 0, sizeof(share->ports));
	probe_init(&share->probe, SECTOR, sector_count);
	share->below = probe_open(&share->probe, 0, NULL, &err);
	share->disk = driver_open(driver_find("prwrap"), options, ARRAY_SIZE(options), 0,
				  share->below, &err);
	if (!CHECK_TEXT(err.text, ""))
		return false;
	for (unsigned i = 0; i < SHARE_PORTS; i++) {
		char name[2] = {(char)('a' + i), '\0'};

		share->ports[i] = port_open(share->disk, name, &err);
		if (!CHECK_TEXT(err.text, ""))
			return false;
	}
	return true;
}

void share_close(struct share *share)
{
	for (unsigned i = 0; i < SHARE_PORTS; i++)
		disk_close(share->ports[i]);
	disk_close(share->disk);
	disk_close(share->below);
	probe_destroy(&share->probe);
}

int share_register(struct share *share, unsigned port, uint64_t key, uint64_t new_key,
		   unsigned flags)
{
	struct disk *disk = share->ports[port];

	return disk_pr(disk)->reg(disk, key, new_key, flags);
}

int share_reserve(struct share *share, unsigned port, uint64_t key, enum pr_type type)
{
	struct disk *disk = share->ports[port];

	return disk_pr(disk)->reserve(disk, key, type);
}

int share_preempt(struct share *share, unsigned port, uint64_t key, uint64_t victim_key,
		  enum pr_type type, unsigned flags)
{
	struct disk *disk = share->ports[port];

	return disk_pr(disk)->preempt(disk, key, victim_key, type, flags);
}

/* 'a' for the port "a" ..., by its host id, which is the hash of its name. */
static int letter_of(const struct pr_registrant *registrant)
{
	for (int letter = 'a'; letter < 'a' + SHARE_PORTS; letter++) {
		char name[2] = {(char)letter, '\0'};
		uint64_t id = htobe64(hash_name(name));

		if (memcmp(registrant->host_id, &id, sizeof(id)) == 0)
			return letter;
	}
	return '?';
}

static int compare(const void *a, const void *b)
{
	return letter_of(a) - letter_of(b);
}

static void describe(struct disk *port, char text[static 200])
{
	struct pr_registrant registrants[SHARE_PORTS];
	struct pr_report report = {.registrants = registrants, .capacity = SHARE_PORTS};
	FILE *out = fmemopen(text, 200, "w");
	const char *separator = " ";

	CHECK_OK(disk_pr(port)->report(port, &report));
	qsort(registrants, report.count, sizeof(*registrants), compare);
	fprintf(out, "%u", report.generation);
	for (unsigned i = 0; i < report.count; i++)
		fprintf(out, " %c%" PRIx64, letter_of(&registrants[i]), registrants[i].key);
	fprintf(out, "%s %s", report.count == 0 ? " -" : "", share_types[report.type]);
	for (unsigned i = 0; i < report.count; i++) {
		if (!registrants[i].holds_reservation)
			continue;
		fprintf(out, "%s%c", separator, letter_of(&registrants[i]));
		separator = "";
	}
	fclose(out);
}

void share_describe(struct share *share, char text[static 200])
{
	char other[200];

	describe(share->ports[0], text);
	for (unsigned i = 1; i < SHARE_PORTS; i++) {
		describe(share->ports[i], other);
		CHECK_TEXT(other, text);
	}
}
