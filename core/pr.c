// SPDX-License-Identifier: MIT
#include "core/pr.h"
#include <string.h>

static const char *const names[PR_TYPES] = {
	[PR_NONE] = "none",
	[PR_WRITE_EXCLUSIVE] = "write-exclusive",
	[PR_EXCLUSIVE_ACCESS] = "exclusive-access",
	[PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY] = "write-exclusive-registrants-only",
	[PR_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY] = "exclusive-access-registrants-only",
	[PR_WRITE_EXCLUSIVE_ALL_REGISTRANTS] = "write-exclusive-all-registrants",
	[PR_EXCLUSIVE_ACCESS_ALL_REGISTRANTS] = "exclusive-access-all-registrants",
};

const char *pr_type_name(enum pr_type type)
{
	return names[type];
}

enum pr_type pr_type_find(const char *name)
{
	unsigned type = 0;

	while (type < PR_TYPES && strcmp(names[type], name) != 0)
		type++;
	return (enum pr_type)type;
}
