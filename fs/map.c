// SPDX-License-Identifier: MIT
/*
 * diskfs map: which part of a disk has which range, layer or image of a chain. It opens everything
 * read-only, and looks at what the drivers say of themselves; no data is read.
 */
#include <inttypes.h>
#include <stdio.h>
#include "core/disk.h"
#include "core/report.h"
#include "core/task.h"
#include "fs/offline.h"

/* A range of bytes that is all in one place. */
struct range_line {
	uint64_t offset, length;
	const char *part; /* NULL: in none */
	bool is_data;
};

static void print_text(const struct range_line *line)
{
	printf("%18" PRIu64 " %18" PRIu64 "  %-5s  %s\n", line->offset, line->length,
	       line->is_data ? "data" : "zeros", line->part ? line->part : "-");
}

static void print_json(const struct range_line *line)
{
	printf("%s\n{\"offset\": %" PRIu64 ", \"length\": %" PRIu64, line->offset == 0 ? "" : ",",
	       line->offset, line->length);
	if (line->part) {
		fputs(", \"layer\": ", stdout);
		json_string(stdout, line->part);
	} else {
		fputs(", \"layer\": null", stdout);
	}
	printf(", \"data\": %s}", line->is_data ? "true" : "false");
}

/* Prints @line once what comes next is in another place. */
static void print_line(const struct range_line *line, bool json)
{
	if (line->length > 0)
		(json ? print_json : print_text)(line);
}

static int map_disk(struct disk *disk, bool json)
{
	unsigned shift = disk_sector_shift(disk);
	uint64_t count = disk_sector_count(disk);
	struct range_line line = {.length = 0};
	struct disk_part part;

	for (uint64_t at = 0; at < count; at += part.extent.count) {
		int error = disk_part(disk, at, count - at, &part);
		struct range_line next = {.offset = at << shift};
		char text[80];

		if (error) {
			fprintf(stderr, "diskfs: cannot look at byte %" PRIu64 " of '%s': %s\n",
				at << shift, disk->name, error_describe(text, error));
			return -1;
		}
		next.length = part.extent.count << shift;
		next.is_data = part.extent.kind == EXTENT_DATA;
		next.part = part.name;
		if (line.length > 0 && next.part == line.part && next.is_data == line.is_data) {
			line.length += next.length;
			continue;
		}
		print_line(&line, json);
		line = next;
	}
	print_line(&line, json);
	return 0;
}

/* What a mount keeps in memory is not in this process. */
static void warn_of_volatile(const struct config_node *node)
{
	for (unsigned i = 0; i < node->below_count; i++)
		if (node->below[i]->driver->is_volatile)
			fprintf(stderr,
				"diskfs: [%s] is in memory only: what a mount has in it is not "
				"seen "
				"from here\n",
				node->below[i]->name);
}

int map_command(struct offline *offline)
{
	struct config_node *node = offline_node(offline);
	int result;

	if (!node)
		return -1;
	if (!node->driver->part)
		return offline_refuse(offline, node, "the disk is not made of layers");
	if (config_open_node(offline->config, node, DISK_OPEN_READ_ONLY | DISK_OPEN_COMMAND,
			     stderr) < 0)
		return -1;
	warn_of_volatile(node);
	if (offline->json)
		putchar('[');
	else
		printf("%18s %18s  %-5s  %s\n", "offset", "length", "is", "in");
	result = map_disk(node->disk, offline->json);
	if (offline->json)
		puts("\n]");
	config_close(offline->config);
	return result;
}
