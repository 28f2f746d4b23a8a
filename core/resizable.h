/* SPDX-License-Identifier: MIT */
/*
 * The option `resizable`, which every leaf that can change its size has: whether the users of the
 * image may, by truncate(2). Not without being told to; and since a disk that is made smaller loses
 * what was beyond its end, and tools truncate files as a matter of course, `yes` is not enough for
 * that.
 */
#ifndef CORE_RESIZABLE_H
#define CORE_RESIZABLE_H

#include "core/disk.h"

/* An entry of an option table: the option fills the int @field of @config, a struct. */
#define RESIZABLE_OPTION(config, field)                                                        \
	{                                                                                      \
		.name = "resizable", .type = OPTION_ENUM, .offset = offsetof(config, field),   \
		.choices = resizable_choices, .fallback = "no",                                \
		.help = "Whether truncating the image resizes the disk: yes: it may be made "  \
			"larger; shrink: also smaller, and what is beyond its new end is lost" \
	}

extern const char *const resizable_choices[];

/* 0, or ERROR_UNSUPPORTED where the geometry does not let the disk have @count sectors; the disk
 * above may have it resized in any case, if it has said so (DISK_OPEN_RESIZE). */
int resizable_check(const struct disk *disk, uint64_t count);

#endif
