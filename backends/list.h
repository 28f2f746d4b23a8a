/* SPDX-License-Identifier: MIT */
/* The drivers that there are. A new driver adds one line to list.c. */
#ifndef BACKENDS_LIST_H
#define BACKENDS_LIST_H

#include "core/disk.h"

/* In the order in which `--drivers` shows them; ends with NULL. */
extern const struct driver *const drivers[];

/* The driver called @name, or NULL. */
const struct driver *driver_find(const char *name);

#endif
