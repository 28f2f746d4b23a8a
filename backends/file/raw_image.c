// SPDX-License-Identifier: MIT
/* raw: the image format that is none. A new image is a hole. */
#include "backends/file/file.h"
#include "backends/image/image_file.h"
#include "core/image.h"

struct raw_options {
	uint64_t size;
	bool preallocate;
};

static int raw_fill(struct image_file *file, const struct image_creation *creation, void *context,
		    struct err *err)
{
	const struct raw_options *options = context;

	if (options->preallocate)
		return image_file_allocate(file, options->size, &creation->progress, err);
	return image_file_resize(file, options->size, err);
}

static int raw_create(const struct image_creation *creation, struct err *err)
{
	struct raw_options options = *(const struct raw_options *)creation->options;

	if (options.size % 512 != 0)
		return err_set_key(err, "size", "is no multiple of 512 bytes");
	return image_file_create(creation, raw_fill, &options, err);
}

static const struct option raw_create_options[] = {
	{.name = "size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct raw_options, size),
	 .flags = OPTION_REQUIRED,
	 .min = 512,
	 .max = INT64_MAX,
	 .help = "Of the disk, a multiple of 512 bytes"},
	{.name = "preallocate",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct raw_options, preallocate),
	 .fallback = "no",
	 .help = "Take all of the space now, else the file is a hole"},
	{.name = NULL},
};

const struct image_ops raw_image = {
	.name = "raw",
	.summary = "the bytes of the disk, nothing else",
	.options = raw_create_options,
	.options_size = sizeof(struct raw_options),
	.create = raw_create,
};
