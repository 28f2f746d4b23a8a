// SPDX-License-Identifier: MIT
/* The VHD format, as its driver announces it to the commands. */
#include "backends/vhd/commands.h"
#include "backends/vhd/format.h"

static const char *const types[] = {"auto", "fixed", "dynamic", "differencing", NULL};
static const char *const rounds[] = {"none", "geometry", "mib", NULL};

static const struct option vhd_create_options[] = {
	{.name = "type",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct vhd_options, type),
	 .choices = types,
	 .fallback = "auto",
	 .help = "fixed: all of the disk's bytes. dynamic: a block takes space when it is first "
		 "written. differencing: what was never written is the parent's. auto: "
		 "differencing where there is a parent, else dynamic"},
	{.name = "size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct vhd_options, size),
	 .min = VHD_SECTOR,
	 .max = 2040 * GIB,
	 .help = "Of the disk, a multiple of 512 bytes. A differencing image has its parent's"},
	{.name = "round",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct vhd_options, round),
	 .choices = rounds,
	 .fallback = "none",
	 .help = "Makes the size larger, up to the next that a geometry of cylinders, heads and "
		 "sectors gives (geometry: for Virtual PC), or to whole MiB (mib: for Azure)"},
	{.name = "block_size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct vhd_options, block_size),
	 .flags = OPTION_POWER_OF_TWO,
	 .min = VHD_BLOCK_SIZE_MIN,
	 .max = VHD_BLOCK_SIZE_MAX,
	 .fallback = "2M",
	 .help = "Of dynamic and differencing images. Other programs may know only 512K and 2M"},
	{.name = "parent",
	 .type = OPTION_PATH,
	 .offset = offsetof(struct vhd_options, parent),
	 .help = "The VHD that a differencing image stands on; it must not change any more"},
	{.name = "preallocate",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct vhd_options, preallocate),
	 .fallback = "no",
	 .help = "Take all of the space of a fixed image now, else it is a hole"},
	{.name = NULL},
};

const struct image_ops vhd_image = {
	.name = "vhd",
	.summary = "Microsoft's Virtual Hard Disk: fixed, dynamic or differencing",
	.options = vhd_create_options,
	.options_size = sizeof(struct vhd_options),
	.create = vhd_create,
	.check = vhd_check,
};
