/* SPDX-License-Identifier: MIT */
/* Remote objects for the stacks of stacks.h, on a server in the program. */
#ifndef TESTS_LIB_OBJECTS_H
#define TESTS_LIB_OBJECTS_H

#include "core/util.h"

/*
 * The URL of an object of @length bytes, which are pattern_fill(0); in @url, which it returns. Of one
 * that is @ill requests often fail, but not when they are tried again. On the test's own thread or in a
 * task, one at a time.
 */
const char *object_url(uint64_t length, bool ill, char url[static 200]);

/* The same of a VHD of a disk of @size bytes, named as in vhd_recipe_named(), which has this content. */
const char *object_url_of_image(uint64_t size, const char *image, char url[static 200]);

#endif
