// SPDX-License-Identifier: MIT
#include "tests/lib/stacks.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "backends/list.h"
#include "tests/lib/check.h"
#include "tests/lib/limits.h"
#include "tests/lib/run.h"

#define FILE_FLAGS (STACK_LASTS | STACK_SPARSE)
#define RAM_FLAGS  (STACK_SPARSE | STACK_WHOLE_READS)

/* Of crypt without discards. */
#define FILE_CRYPT_FLAGS (STACK_LASTS | STACK_DENSE)
#define RAM_CRYPT_FLAGS	 (STACK_WHOLE_READS | STACK_DENSE)

/* A path from the folder in which tests/run runs them. */
#define CRYPT_KEY                                 \
	{                                         \
		"key_file", "tests/lib/crypt.key" \
	}

const struct stack stacks[] = {
	{.name = "file", .driver = "file", .place = PLACE_DISK, .flags = FILE_FLAGS},
	{.name = "file in memory", .driver = "file", .place = PLACE_MEMORY, .flags = FILE_FLAGS},
	{.name = "file direct",
	 .driver = "file",
	 .place = PLACE_DISK,
	 .flags = FILE_FLAGS,
	 .options = {{"direct", "yes"}}},
	{.name = "file with a tail",
	 .driver = "file",
	 .place = PLACE_DISK,
	 .flags = FILE_FLAGS,
	 .tail = 300},
	{.name = "file read-only",
	 .driver = "file",
	 .place = PLACE_DISK,
	 .flags = STACK_READ_ONLY | STACK_LASTS},
	{.name = "ram", .driver = "ram", .flags = RAM_FLAGS},
	{.name = "null", .driver = "null", .flags = STACK_DROPS_WRITES},
	{.name = "ram, aligned",
	 .driver = "ram",
	 .flags = RAM_FLAGS,
	 .limits = {{"memory_align", "4096"}, {"fua", "no"}}},
	{.name = "ram, split",
	 .driver = "ram",
	 .flags = RAM_FLAGS,
	 .limits = {{"max_transfer", "8K"}, {"max_segments", "3"}, {"memory_align", "512"}}},
	{.name = "file, one segment",
	 .driver = "file",
	 .place = PLACE_MEMORY,
	 .flags = FILE_FLAGS,
	 .limits = {{"max_segments", "1"}}},
	{.name = "file direct, split",
	 .driver = "file",
	 .place = PLACE_DISK,
	 .flags = FILE_FLAGS,
	 .options = {{"direct", "yes"}},
	 .limits = {{"max_transfer", "20K"}}},
	{.name = "fault on ram", .driver = "ram", .flags = RAM_FLAGS, .fault = true},
	{.name = "fault on file",
	 .driver = "file",
	 .place = PLACE_MEMORY,
	 .flags = FILE_FLAGS,
	 .fault = true},
	{.name = "fault on ram, split",
	 .driver = "ram",
	 .flags = RAM_FLAGS,
	 .fault = true,
	 .limits = {{"max_transfer", "8K"}, {"max_segments", "3"}, {"fua", "no"}}},
	{.name = "fault on file direct",
	 .driver = "file",
	 .place = PLACE_DISK,
	 .flags = FILE_FLAGS,
	 .options = {{"direct", "yes"}},
	 .fault = true},
	{.name = "prwrap on ram", .driver = "ram", .flags = RAM_FLAGS, .port = true},
	{.name = "prwrap on file",
	 .driver = "file",
	 .place = PLACE_MEMORY,
	 .flags = FILE_FLAGS,
	 .port = true},
	{.name = "prwrap on file read-only",
	 .driver = "file",
	 .place = PLACE_DISK,
	 .flags = STACK_READ_ONLY | STACK_LASTS,
	 .port = true},
	{.name = "prwrap on null", .driver = "null", .flags = STACK_DROPS_WRITES, .port = true},
	{.name = "fault on prwrap on file direct, split",
	 .driver = "file",
	 .place = PLACE_DISK,
	 .flags = FILE_FLAGS,
	 .options = {{"direct", "yes"}},
	 .port = true,
	 .fault = true,
	 .limits = {{"max_transfer", "12K"}, {"max_segments", "2"}, {"fua", "no"}}},
	{.name = "crypt on ram", .driver = "ram", .flags = RAM_CRYPT_FLAGS, .crypt = {CRYPT_KEY}},
	{.name = "crypt on file",
	 .driver = "file",
	 .place = PLACE_DISK,
	 .flags = FILE_CRYPT_FLAGS,
	 .crypt = {CRYPT_KEY}},
	{.name = "crypt on file direct",
	 .driver = "file",
	 .place = PLACE_DISK,
	 .flags = FILE_CRYPT_FLAGS,
	 .options = {{"direct", "yes"}},
	 .crypt = {CRYPT_KEY, {"iv", "plain64-512"}}},
	{.name = "crypt with discards on ram",
	 .driver = "ram",
	 .flags = RAM_FLAGS,
	 .crypt = {CRYPT_KEY, {"discard", "pass"}}},
	{.name = "crypt with discards on file",
	 .driver = "file",
	 .place = PLACE_MEMORY,
	 .flags = FILE_FLAGS,
	 .crypt = {CRYPT_KEY, {"discard", "pass"}}},
	{.name = "crypt with discards on null",
	 .driver = "null",
	 .flags = STACK_DROPS_WRITES,
	 .crypt = {CRYPT_KEY, {"discard", "pass"}}},
	{.name = "crypt of 512 bytes on ram, split",
	 .driver = "ram",
	 .flags = RAM_FLAGS,
	 .crypt = {CRYPT_KEY, {"discard", "pass"}, {"sector_size", "512"}},
	 .limits = {{"max_transfer", "20K"}, {"max_segments", "2"}, {"fua", "no"}}},
	{.name = "crypt on fault on ram",
	 .driver = "ram",
	 .flags = RAM_CRYPT_FLAGS,
	 .fault = true,
	 .crypt = {CRYPT_KEY}},
	{.name = "crypt with discards on fault on file",
	 .driver = "file",
	 .place = PLACE_MEMORY,
	 .flags = FILE_FLAGS,
	 .fault = true,
	 .crypt = {CRYPT_KEY, {"discard", "pass"}}},
	{.name = "crypt on fault on prwrap on file direct, split",
	 .driver = "file",
	 .place = PLACE_DISK,
	 .flags = FILE_CRYPT_FLAGS,
	 .options = {{"direct", "yes"}},
	 .port = true,
	 .fault = true,
	 .crypt = {CRYPT_KEY},
	 .limits = {{"max_transfer", "12K"}, {"memory_align", "512"}}},
};

const size_t stacks_count = ARRAY_SIZE(stacks);

struct disk *driver_open(const struct driver *driver, const char *const (*options)[2], size_t count,
			 unsigned flags, struct disk *below, struct err *err)
{
	void *config = calloc(1, max_u64(driver->config_size, 1));

	assert(config);
	options_init(driver->options, config);
	for (size_t i = 0; i < count && options[i][0]; i++) {
		const struct option *option = option_find(driver->options, options[i][0]);

		CHECK(option);
		if (!option || option_parse(option, options[i][1], NULL, config, err) < 0) {
			options_free(driver->options, config);
			free(config);
			return NULL;
		}
	}
	return disk_open(driver, driver->name, config, flags, &below, below ? 1 : 0, err);
}

const char *place_folder(enum stack_place place)
{
	const char *folder = getenv("TMPDIR");

	if (place == PLACE_MEMORY)
		return "/dev/shm";
	return folder && folder[0] ? folder : "/var/tmp";
}

/* Fills a file with the pattern that read-only stacks have. */
static void file_fill(int fd, uint64_t size)
{
	char *data = malloc(size);

	assert(data);
	pattern_fill(data, size, 0);
	CHECK_EQ(pwrite(fd, data, size, 0), size);
	free(data);
}

static bool file_make(struct instance *instance)
{
	const struct stack *stack = instance->stack;
	int fd;

	snprintf(instance->path, sizeof(instance->path), "%s/diskfs-stack.XXXXXX",
		 place_folder(stack->place));
	fd = mkostemp(instance->path, O_CLOEXEC);
	if (!CHECK(fd >= 0))
		return false;
	CHECK_EQ(ftruncate(fd, (off_t)(instance->size + stack->tail)), 0);
	if (stack->flags & STACK_READ_ONLY)
		file_fill(fd, instance->size);
	close(fd);
	return true;
}

/* The options of the base: those of the stack, and those that depend on the instance. */
static struct disk *base_open(const struct instance *instance, struct err *err)
{
	const struct stack *stack = instance->stack;
	const char *options[8][2] = {{NULL}};
	char sector_size[24], size[24];
	unsigned count = 0;

	for (; count < ARRAY_SIZE(stack->options) && stack->options[count][0]; count++)
		memcpy(options[count], stack->options[count], sizeof(options[count]));
	snprintf(sector_size, sizeof(sector_size), "%u", instance->sector_size);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)instance->size);
	options[count][0] = "sector_size";
	options[count++][1] = sector_size;
	options[count][0] = stack->place == PLACE_NONE ? "size" : "path";
	options[count++][1] = stack->place == PLACE_NONE ? size : instance->path;
	return driver_open(driver_find(stack->driver), (const char *const(*)[2])options, count,
			   stack->flags & STACK_READ_ONLY ? DISK_OPEN_READ_ONLY : 0, NULL, err);
}

static void port_add(struct instance *instance, struct err *err)
{
	instance->prwrap = driver_open(driver_find("prwrap"), NULL, 0, 0, instance->disk, err);
	if (instance->prwrap)
		instance->port = driver_open(instance->prwrap->driver->port, NULL, 0, 0,
					     instance->prwrap, err);
	instance->disk = instance->port;
}

bool instance_open(struct instance *instance, const struct stack *stack, uint32_t sector_size,
		   uint64_t size)
{
	bool is_new = !instance->path[0];
	struct err err = {.text = ""};

	instance->stack = stack;
	instance->sector_size = sector_size;
	instance->size = size;
	if (stack->place != PLACE_NONE && !instance->path[0] && !file_make(instance))
		return false;
	instance->base = base_open(instance, &err);
	instance->disk = instance->base;
	if (instance->disk && stack->port)
		port_add(instance, &err);
	if (instance->disk && stack->fault)
		instance->disk = instance->fault =
			driver_open(driver_find("fault"), NULL, 0, 0, instance->disk, &err);
	if (instance->disk && stack->crypt[0][0])
		instance->disk = instance->crypt =
			driver_open(driver_find("crypt"), stack->crypt, ARRAY_SIZE(stack->crypt), 0,
				    instance->disk, &err);
	if (instance->disk && stack->limits[0][0])
		instance->disk = driver_open(&limits_driver, stack->limits,
					     ARRAY_SIZE(stack->limits), 0, instance->disk, &err);
	if (instance->disk && is_new && (stack->flags & STACK_DENSE))
		CHECK_OK(
			disk_write_zeroes(instance->disk, 0, disk_sector_count(instance->disk), 0));
	if (instance->disk)
		return true;
	CHECK_TEXT(err.text, "");
	instance_close(instance);
	return false;
}

void instance_close(struct instance *instance)
{
	if (instance->disk != instance->base && instance->disk != instance->port &&
	    instance->disk != instance->fault && instance->disk != instance->crypt)
		disk_close(instance->disk);
	disk_close(instance->crypt);
	disk_close(instance->fault);
	disk_close(instance->port);
	disk_close(instance->prwrap);
	disk_close(instance->base);
	instance->base = instance->prwrap = instance->port = NULL;
	instance->fault = instance->crypt = instance->disk = NULL;
}

void instance_remove(struct instance *instance)
{
	if (instance->path[0])
		unlink(instance->path);
	instance->path[0] = '\0';
}

bool stack_is_possible(const struct stack *stack, uint32_t sector_size)
{
	struct instance instance = {.stack = stack, .sector_size = sector_size, .size = 65536};
	bool possible;
	int fd;

	if (!stack->options[0][0] || strcmp(stack->options[0][0], "direct") != 0)
		return true;
	if (!file_make(&instance))
		return false;
	/* Whether a sector can be read as it would be. */
	char *buffer = aligned_alloc(4096, 65536);

	fd = open(instance.path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	possible = fd >= 0 && buffer && pread(fd, buffer, sector_size, sector_size) > 0;
	if (fd >= 0)
		close(fd);
	free(buffer);
	instance_remove(&instance);
	return possible;
}
