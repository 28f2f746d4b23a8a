// SPDX-License-Identifier: MIT
#include "core/resizable.h"

const char *const resizable_choices[] = {"no", "yes", "shrink", NULL};

int resizable_check(enum resizable resizable, uint64_t from, uint64_t to)
{
	bool may = to < from ? resizable == RESIZABLE_SHRINK : resizable != RESIZABLE_NO;

	return may ? 0 : error_of(ERROR_UNSUPPORTED);
}
