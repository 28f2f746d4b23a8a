// SPDX-License-Identifier: MIT
#include "core/resizable.h"

const char *const resizable_choices[] = {"no", "yes", "shrink", NULL};

int resizable_check(const struct disk *disk, uint64_t count)
{
	enum resizable resizable = disk->geometry.resizable;
	bool may = disk->open_flags & DISK_OPEN_RESIZE;

	if (count < disk_sector_count(disk))
		may |= resizable == RESIZABLE_SHRINK;
	else
		may |= resizable != RESIZABLE_NO;
	return may ? 0 : error_of(ERROR_UNSUPPORTED);
}
