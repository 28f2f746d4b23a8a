// SPDX-License-Identifier: MIT
#include "tests/lib/vhd_images.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backends/list.h"
#include "tests/lib/check.h"
#include "tests/lib/stacks.h"

static const struct driver *vhd(void)
{
	const struct driver *driver = driver_find("vhd");

	assert(driver);
	return driver;
}

void vhd_create_file(const char *path, const char *const (*options)[2], size_t count)
{
	const struct image_ops *image = vhd()->image;
	struct image_creation creation = {.path = path, .replace = true};
	struct err err = {.text = ""};
	void *values = calloc(1, image->options_size);
	int result = 0;

	assert(values);
	options_init(image->options, values);
	for (size_t i = 0; i < count && result == 0; i++)
		result = option_parse(option_find(image->options, options[i][0]), options[i][1],
				      NULL, values, &err);
	creation.options = values;
	if (result == 0)
		result = image->create(&creation, &err);
	options_free(image->options, values);
	free(values);
	if (result < 0)
		fprintf(stderr, "%s: %s\n", path, err.text);
	assert(result == 0);
}

#define CHUNK 4096 /* on the stack of a task */

void medium_load(struct medium *medium, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char data[CHUNK];
	ssize_t length;

	assert(fd >= 0);
	medium_free(medium);
	while ((length = read(fd, data, sizeof(data))) > 0)
		medium_write(medium, data, (size_t)length, medium->size);
	assert(length == 0);
	close(fd);
}

void medium_save(const struct medium *medium, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char data[CHUNK];

	assert(fd >= 0);
	for (uint64_t at = 0; at < medium->size; at += sizeof(data)) {
		size_t length = min_u64(sizeof(data), medium->size - at);

		medium_read(medium, data, length, at);
		if (write(fd, data, length) != (ssize_t)length)
			abort();
	}
	close(fd);
}

struct disk *vhd_open_on(struct disk *below, struct disk *parent, unsigned open_flags,
			 struct err *err)
{
	static const char *const options[][2] = {{"parent_time", "ignore"}};
	struct disk *disks[] = {below, parent};

	return driver_open_on(vhd(), options, 1, open_flags, disks, parent ? 2 : 1, err);
}

void vhd_count_finding(void *context, const struct image_finding *finding)
{
	struct vhd_findings *findings = context;

	if (finding->is_note)
		return;
	if (finding->is_mended)
		findings->mended++;
	else if (finding->remedy)
		findings->mendable++;
	else
		findings->left++;
	snprintf(findings->last, sizeof(findings->last), "%s", finding->text);
}

struct vhd_findings vhd_check_file(const char *path, bool repair)
{
	struct vhd_findings findings = {.last = ""};
	struct image_check check = {
		.path = path, .repair = repair, .finding = vhd_count_finding, .context = &findings};
	struct err err = {.text = ""};

	if (!CHECK(vhd()->image->check(&check, &err) == IMAGE_CHECKED))
		fprintf(stderr, "%s: %s\n", path, err.text);
	return findings;
}
