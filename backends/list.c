// SPDX-License-Identifier: MIT
#include "backends/list.h"
#include <string.h>

extern const struct driver file_driver, blockdev_driver, ram_driver, null_driver, striped_driver,
	crypt_driver, layered_driver, sqlite_driver, prwrap_driver, fault_driver, delay_driver;

/* clang-format off */
const struct driver *const drivers[] = {
	&file_driver,
	&blockdev_driver,
	&ram_driver,
	&null_driver,
	&striped_driver,
	&crypt_driver,
	&layered_driver,
	&sqlite_driver,
	&prwrap_driver,
	&fault_driver,
	&delay_driver,
	NULL,
};
/* clang-format on */

const struct driver *driver_find(const char *name)
{
	for (const struct driver *const *driver = drivers; *driver; driver++)
		if (strcmp((*driver)->name, name) == 0)
			return *driver;
	return NULL;
}
