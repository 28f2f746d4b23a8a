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
#include "tests/lib/objects.h"
#include "tests/lib/run.h"
#include "tests/lib/vhd.h"

/* ---- The text of a stack. ---- */

#define WORD_MAX  48
#define WORDS_MAX 6
#define VALUE_MAX 200

struct setting {
	char key[WORD_MAX], value[VALUE_MAX];
};

/* One disk of a stack. */
struct node {
	char driver[WORD_MAX];
	char name[WORD_MAX];
	struct setting options[WORDS_MAX];
	unsigned option_count;
	enum stack_place place;
	unsigned tail;
	bool noise;
	char image[WORD_MAX]; /* TYPE-BLOCKSIZE: what the file or object holds is a VHD */
	bool ill;
	bool port;
	bool partition;
	struct node *below[INSTANCE_DISKS_MAX];
	unsigned below_count;
};

struct tree {
	struct node nodes[INSTANCE_DISKS_MAX]; /* the first is the top */
	unsigned count;
};

static void node_option(struct node *node, const char *key, const char *value)
{
	assert(node->option_count < WORDS_MAX);

	struct setting *option = &node->options[node->option_count++];

	snprintf(option->key, sizeof(option->key), "%s", key);
	snprintf(option->value, sizeof(option->value), "%s", value);
}

static void node_word(struct node *node, char *word)
{
	char *value = strchr(word, '=');

	if (!node->driver[0]) {
		memcpy(node->driver, word, WORD_MAX);
		memcpy(node->name, word, WORD_MAX);
	} else if (strncmp(word, "as=", 3) == 0)
		snprintf(node->name, WORD_MAX, "%s", value + 1);
	else if (strcmp(word, "noise") == 0)
		node->noise = true;
	else if (strcmp(word, "ill") == 0)
		node->ill = true;
	else if (strcmp(word, "memory") == 0)
		node->place = PLACE_MEMORY;
	else if (strcmp(word, "port") == 0)
		node->port = true;
	else if (strncmp(word, "image=", 6) == 0)
		snprintf(node->image, WORD_MAX, "%s", value + 1);
	else if (strcmp(word, "partition") == 0)
		node->partition = true;
	else if (strncmp(word, "tail=", 5) == 0)
		node->tail = (unsigned)strtoul(value + 1, NULL, 10);
	else {
		assert(value);
		*value = '\0';
		for (char *plus = value + 1; (plus = strchr(plus, '+'));)
			*plus = ',';
		node_option(node, word, value + 1);
	}
}

static struct node *tree_parse(struct tree *tree, const char **at)
{
	assert(tree->count < ARRAY_SIZE(tree->nodes));

	struct node *node = &tree->nodes[tree->count++];
	char word[WORD_MAX];
	int length;

	while (sscanf(*at, " %47[a-zA-Z0-9_=+./-]%n", word, &length) == 1) {
		*at += length;
		node_word(node, word);
	}
	*at += strspn(*at, " ");
	if (**at != '(')
		return node;
	do {
		++*at;
		node->below[node->below_count++] = tree_parse(tree, at);
	} while (**at == ',');
	assert(**at == ')');
	++*at;
	return node;
}

static struct tree *tree_of(const struct stack *stack)
{
	struct tree *tree = calloc(1, sizeof(*tree));
	const char *at = stack->text;

	assert(tree);
	tree_parse(tree, &at);
	assert(*at == '\0');
	return tree;
}

bool stack_has(const struct stack *stack, const char *name)
{
	struct tree *tree = tree_of(stack);
	bool found = false;

	for (unsigned i = 0; i < tree->count; i++)
		found |= strcmp(tree->nodes[i].driver, name) == 0;
	free(tree);
	return found;
}

/* ---- Files. ---- */

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

/* What SQLite puts beside a file, and the parents of a VHD. */
static const char *const beside[] = {"", "-wal", "-shm", "-journal", "-1", "-2"};

#define CHAIN_DEPTH 3

/* Makes a VHD of the file at @path. */
static void image_make(const char *path, const struct node *node, uint64_t size)
{
	bool is_deep = strncmp(node->image, "differencing", 12) == 0;
	struct vhd_recipe recipe = vhd_recipe_named(node->image, size);

	if (is_deep)
		vhd_make_chain(path, size, recipe.block_size, CHAIN_DEPTH, node->noise ? 77 : 0);
	else
		vhd_make(path, &recipe);
}

static void file_remove(const char *path)
{
	char name[220];

	for (size_t i = 0; i < ARRAY_SIZE(beside); i++) {
		snprintf(name, sizeof(name), "%s%s", path, beside[i]);
		unlink(name);
	}
}

static bool file_make(const struct instance *instance, const struct node *node, uint64_t size,
		      char path[static 200])
{
	int fd;

	snprintf(path, 200, "%s/diskfs-stack.XXXXXX", place_folder(node->place));
	fd = mkostemp(path, O_CLOEXEC);
	if (!CHECK(fd >= 0))
		return false;
	CHECK_EQ(ftruncate(fd, (off_t)(size + node->tail)), 0);
	if (node->image[0])
		image_make(path, node, size);
	else if (node->noise || (instance->stack->flags & STACK_READ_ONLY))
		file_fill(fd, size);
	close(fd);
	return true;
}

/* ---- Block devices. ---- */

static bool is_device(const struct node *node)
{
	return strcmp(node->driver, "blockdev") == 0;
}

/* Makes a loop device of file number @index of the instance. */
static bool device_make(struct instance *instance, const struct node *node, unsigned index)
{
	unsigned flags = (node->partition ? LOOP_PARTITION : 0U) |
			 (instance->stack->flags & STACK_READ_ONLY ? LOOP_READ_ONLY : 0U);
	const char *missing = loop_open(&instance->loops[index], instance->paths[index],
					instance->sector_size, flags);

	return CHECK_TEXT(missing ? missing : "", "");
}

/* ---- Opening. ---- */

void *driver_config(const struct driver *driver, const char *const (*options)[2], size_t count,
		    struct err *err)
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
	return config;
}

struct disk *driver_open_on(const struct driver *driver, const char *const (*options)[2],
			    size_t count, unsigned flags, struct disk *const *below,
			    unsigned below_count, struct err *err)
{
	void *config = driver_config(driver, options, count, err);

	return config ? disk_open(driver, driver->name, config, flags, below, below_count, err)
		      : NULL;
}

struct disk *driver_open(const struct driver *driver, const char *const (*options)[2], size_t count,
			 unsigned flags, struct disk *below, struct err *err)
{
	return driver_open_on(driver, options, count, flags, &below, below ? 1 : 0, err);
}

static const struct driver *driver_named(const char *name)
{
	const struct driver *driver =
		strcmp(name, limits_driver.name) == 0 ? &limits_driver : driver_find(name);

	assert(driver);
	return driver;
}

/* How large each disk below has to be for one of @size bytes: whole chunks, where there are. */
static uint64_t size_below(const struct driver *driver, const struct node *node, uint64_t size)
{
	const struct option *found = option_find(driver->options, "chunk_size");
	const char *text = found ? found->fallback : NULL;
	uint64_t chunk, row;
	struct option option;
	struct err err;

	if (!found)
		return size;
	for (unsigned i = 0; i < node->option_count; i++)
		if (strcmp(node->options[i].key, found->name) == 0)
			text = node->options[i].value;
	option = *found;
	option.offset = 0;
	CHECK_EQ(option_parse(&option, text, NULL, &chunk, &err), 0);
	row = chunk * node->below_count;
	return (size + row - 1) / row * chunk;
}

/* Adds what depends on the instance to the options of the text. */
static bool add_options(struct instance *instance, const struct driver *driver, struct node *node,
			uint64_t size)
{
	bool has_path = option_find(driver->options, "path");
	bool is_file = has_path && !driver->layer;
	/* All whole chunks of what is below: the same without being said, and can be resized. */
	bool is_sum = size_below(driver, node, size) * node->below_count == size;
	char text[24], url[200], *path;

	if (option_find(driver->options, "sector_size") && node->below_count == 0) {
		snprintf(text, sizeof(text), "%u", instance->sector_size);
		node_option(node, "sector_size", text);
	}
	if (option_find(driver->options, "size") && !is_file && !is_sum) {
		snprintf(text, sizeof(text), "%llu",
			 (unsigned long long)align_down(size, instance->sector_size));
		node_option(node, "size", text);
	}
	if (option_find(driver->options, "url"))
		node_option(node, "url",
			    node->image[0] ? object_url_of_image(size, node->image, url)
					   : object_url(size + node->tail, node->ill, url));
	assert(!has_path || instance->file_count < INSTANCE_FILES_MAX);
	path = instance->paths[instance->file_count];
	if (!has_path || path[0])
		return true;
	if (node->partition)
		size += 2 * LOOP_PARTITION_MARGIN;
	if (!file_make(instance, node, size, path))
		return false;
	if (is_device(node))
		return device_make(instance, node, instance->file_count);
	/* A layer makes its file itself. */
	if (!is_file)
		file_remove(path);
	return true;
}

static struct disk *instance_add(struct instance *instance, struct disk *disk)
{
	assert(instance->disk_count < INSTANCE_DISKS_MAX);
	if (disk)
		instance->disks[instance->disk_count++] = disk;
	return disk;
}

/* The options of a node, as they are now. */
static void *node_config(const struct node *node, const struct driver *driver, struct err *err)
{
	const char *options[WORDS_MAX][2];

	for (unsigned i = 0; i < node->option_count; i++) {
		options[i][0] = node->options[i].key;
		options[i][1] = node->options[i].value;
	}
	return driver_config(driver, (const char *const(*)[2])options, node->option_count, err);
}

/* What a node that is opened with @flags wants of the one below it, number @index; as in conf/. */
static unsigned flags_below(const struct node *node, const struct driver *driver, unsigned flags,
			    unsigned index)
{
	const char *names[INSTANCE_DISKS_MAX];
	struct err err;
	void *config;

	if (!driver->below_flags)
		return flags & (DISK_OPEN_READ_ONLY | DISK_OPEN_RESIZE);
	for (unsigned i = 0; i < node->below_count; i++)
		names[i] = node->below[i]->name;
	config = node_config(node, driver, &err);
	assert(config);
	flags = driver->below_flags(config, flags, names, index);
	options_free(driver->options, config);
	free(config);
	return flags;
}

/* Opens a disk on those below it, which are open. */
static struct disk *node_open_on(struct instance *instance, struct node *node, unsigned flags,
				 struct disk *const *below, struct err *err)
{
	const struct driver *driver = driver_named(node->driver);
	struct disk *disk;
	void *config;

	if (option_find(driver->options, "path")) {
		unsigned index = instance->file_count++;

		node_option(node, "path",
			    is_device(node) ? instance->loops[index].path : instance->paths[index]);
	}
	config = node_config(node, driver, err);
	if (!config)
		return NULL;
	disk = disk_open(driver, node->name, config, flags, below, node->below_count, err);
	return instance_add(instance, disk);
}

static struct disk *node_open(struct instance *instance, struct node *node, uint64_t size,
			      unsigned flags, struct err *err)
{
	const struct driver *driver = driver_named(node->driver);
	uint64_t below_size = size_below(driver, node, size);
	struct disk *below[INSTANCE_DISKS_MAX] = {NULL}, *disk;

	for (unsigned i = 0; i < node->below_count; i++) {
		below[i] = node_open(instance, node->below[i], below_size,
				     flags_below(node, driver, flags, i), err);
		if (!below[i])
			return NULL;
	}
	if (!add_options(instance, driver, node, size))
		return NULL;
	disk = node_open_on(instance, node, flags, below, err);
	if (disk && node->port)
		disk = instance_add(instance, driver_open(driver->port, NULL, 0, 0, disk, err));
	return disk;
}

/* Whether it begins with anything but zeros. */
static bool is_noisy(const struct instance *instance, const struct tree *tree)
{
	bool noisy = instance->stack->flags & STACK_DENSE;

	for (unsigned i = 0; i < tree->count; i++)
		noisy |= tree->nodes[i].noise ||
			 option_find(driver_named(tree->nodes[i].driver)->options, "url");
	return noisy;
}

bool instance_open(struct instance *instance, const struct stack *stack, uint32_t sector_size,
		   uint64_t size)
{
	struct tree *tree = tree_of(stack);
	bool is_new = !instance->paths[0][0];
	struct err err = {.text = ""};

	instance->stack = stack;
	instance->sector_size = sector_size;
	instance->size = size;
	instance->file_count = 0;
	instance->disk = node_open(instance, &tree->nodes[0], size,
				   stack->flags & STACK_READ_ONLY ? DISK_OPEN_READ_ONLY : 0, &err);
	if (instance->disk && is_new && !(stack->flags & STACK_READ_ONLY) &&
	    is_noisy(instance, tree))
		CHECK_OK(disk_write_zeroes(instance->disk, 0, disk_sector_count(instance->disk),
					   DISK_MAY_UNMAP));
	free(tree);
	if (instance->disk)
		return true;
	CHECK_TEXT(err.text, "");
	instance_close(instance);
	return false;
}

void instance_close(struct instance *instance)
{
	while (instance->disk_count > 0)
		disk_close(instance->disks[--instance->disk_count]);
	instance->disk = NULL;
}

void instance_remove(struct instance *instance)
{
	for (unsigned i = 0; i < INSTANCE_FILES_MAX; i++) {
		loop_close(&instance->loops[i]);
		if (instance->paths[i][0])
			file_remove(instance->paths[i]);
		instance->paths[i][0] = '\0';
	}
}

void instance_set_option(struct instance *instance, const char *driver, const char *name,
			 const char *value)
{
	struct err err = {.text = ""};

	for (unsigned i = 0; i < instance->disk_count; i++) {
		if (strcmp(instance->disks[i]->driver->name, driver) != 0)
			continue;
		CHECK_EQ(disk_set_option(instance->disks[i], name, value, &err), 0);
		CHECK_TEXT(err.text, "");
	}
}

bool stack_takes(const struct stack *stack, uint32_t sector_size)
{
	return sector_size == 512 || !(stack->flags & STACK_512);
}

/* A file of 4 MiB in PLACE_DISK, whose name goes to @path. */
static bool obstacle_file(char path[static 200])
{
	const struct stack stack = {.flags = 0};
	const struct instance instance = {.stack = &stack};
	const struct node node = {.place = PLACE_DISK};

	return file_make(&instance, &node, 4 * MIB, path);
}

/* Whether a sector can be read as it would be. */
static const char *direct_obstacle(uint32_t sector_size)
{
	char path[200], *buffer;
	bool possible;
	int fd;

	if (!obstacle_file(path))
		return "no file";
	buffer = aligned_alloc(4096, 65536);
	fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	possible = fd >= 0 && buffer && pread(fd, buffer, sector_size, sector_size) > 0;
	if (fd >= 0)
		close(fd);
	free(buffer);
	unlink(path);
	return possible ? NULL : "no direct I/O here";
}

static const char *find_device_obstacle(uint32_t sector_size, bool partition)
{
	const char *missing;
	struct loop loop;
	char path[200];

	if (!obstacle_file(path))
		return "no file";
	missing = loop_open(&loop, path, sector_size, partition ? LOOP_PARTITION : 0);
	if (!missing)
		loop_close(&loop);
	unlink(path);
	return missing;
}

/* Loop devices take their time: each sort of them is tried once. */
static const char *device_obstacle(uint32_t sector_size, bool partition)
{
	static const char *found[2][2];
	const char **known = &found[sector_size > 512][partition];

	if (!*known) {
		*known = find_device_obstacle(sector_size, partition);
		if (!*known)
			*known = "";
	}
	return **known ? *known : NULL;
}

const char *stack_obstacle(const struct stack *stack, uint32_t sector_size)
{
	const char *obstacle = NULL;

	if (strstr(stack->text, "direct=yes"))
		obstacle = direct_obstacle(sector_size);
	if (!obstacle && stack_has(stack, "blockdev"))
		obstacle = device_obstacle(sector_size, strstr(stack->text, "partition"));
	return obstacle;
}
