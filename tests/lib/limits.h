/* SPDX-License-Identifier: MIT */
/*
 * A driver for tests: stands on one disk, passes everything on, but declares limits of its own, and
 * checks that it is never handed more than they allow.
 */
#ifndef TESTS_LIB_LIMITS_H
#define TESTS_LIB_LIMITS_H

#include "core/disk.h"

/* Options: memory_align, length_align, max_segments, max_transfer; fua = no hides that the disk below has it. */
extern const struct driver limits_driver;

#endif
