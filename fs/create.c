// SPDX-License-Identifier: MIT
/* diskfs create: makes an image file of one of the formats that drivers announce. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "fs/image_commands.h"
#include "fs/progress.h"

static const struct image_ops *find_format(const struct driver *const *drivers, const char *name)
{
	for (; *drivers; drivers++)
		if ((*drivers)->image && strcmp((*drivers)->image->name, name) == 0)
			return (*drivers)->image;
	return NULL;
}

static int refuse_format(const struct driver *const *drivers, const char *name)
{
	fprintf(stderr, "diskfs: there is no format '%s': there are", name);
	for (const char *comma = ""; *drivers; drivers++) {
		if (!(*drivers)->image)
			continue;
		fprintf(stderr, "%s %s", comma, (*drivers)->image->name);
		comma = ",";
	}
	fputc('\n', stderr);
	return EXIT_FAILURE;
}

static int refuse_key(const struct image_ops *image, const char *key, struct err *err)
{
	const char *near = option_suggest(&image->options, 1, key);

	return err_set(err, "'%s' is no option of the format %s%s%s%s", key, image->name,
		       near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

/* Takes one KEY=VALUE; @taken has a mark for each option that was given. */
static int take_option(const struct image_ops *image, const char *text, bool *taken, void *values,
		       struct err *err)
{
	const char *equals = strchr(text, '=');
	const struct option *option;
	char key[64];

	if (!equals)
		return err_set(err, "'%s' is not KEY=VALUE", text);
	snprintf(key, sizeof(key), "%.*s", (int)min_u64((uint64_t)(equals - text), 63), text);
	option = option_find(image->options, key);
	if (!option)
		return refuse_key(image, key, err);
	if (taken[option - image->options])
		return err_set_key(err, key, "is given twice");
	taken[option - image->options] = true;
	return option_parse(option, equals + 1, NULL, values, err);
}

static int take_options(const struct image_ops *image, char *const *texts, int count, void *values,
			struct err *err)
{
	bool taken[32] = {false};
	size_t options = 0;

	while (image->options[options].name)
		options++;
	if (options > ARRAY_SIZE(taken))
		abort();
	for (int i = 0; i < count; i++)
		if (take_option(image, texts[i], taken, values, err) < 0)
			return -1;
	for (size_t i = 0; i < options; i++)
		if ((image->options[i].flags & OPTION_REQUIRED) && !taken[i])
			return err_set_key(err, image->options[i].name, "is missing");
	return 0;
}

static int create(const struct image_ops *image, const char *path, bool replace, void *values,
		  struct err *err)
{
	struct progress progress;
	struct image_creation creation = {.path = path, .replace = replace, .options = values};
	int result;

	/* A limit on the size of files is an error of a call. */
	signal(SIGXFSZ, SIG_IGN);
	progress_begin(&progress);
	creation.progress = (struct image_progress){progress_show, &progress};
	result = image->create(&creation, err);
	progress_end(&progress);
	return result;
}

int create_image(const struct driver *const *drivers, char *const *arguments, int option_count,
		 bool replace)
{
	const struct image_ops *image = find_format(drivers, arguments[0]);
	struct err err = {.key = ""};
	void *values;
	int result = -1;

	if (!image)
		return refuse_format(drivers, arguments[0]);
	values = calloc(1, image->options_size);
	if (!values) {
		err_set(&err, "out of memory");
	} else {
		options_init(image->options, values);
		if (take_options(image, arguments + 2, option_count, values, &err) == 0)
			result = create(image, arguments[1], replace, values, &err);
		options_free(image->options, values);
		free(values);
	}
	if (result < 0)
		fprintf(stderr, "diskfs: %s%s%s\n", err.key, *err.key ? ": " : "", err.text);
	return result == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

void create_help(const struct driver *const *drivers)
{
	fputs("usage: diskfs create [--force] FORMAT FILE [KEY=VALUE...]\n"
	      "\n"
	      "Makes an image file; --force replaces one that is there. Formats, and what can be "
	      "said "
	      "of each:\n",
	      stdout);
	for (; *drivers; drivers++) {
		const struct image_ops *image = (*drivers)->image;

		if (!image)
			continue;
		printf("\n%s: %s\n\n", image->name, image->summary);
		options_help(image->options, stdout);
	}
}
