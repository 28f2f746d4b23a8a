/* SPDX-License-Identifier: MIT */
/*
 * VHD files of which nothing is believed: seeds, what is done to each that a fuzzer has made of them,
 * and how it makes them so that they are not refused for a checksum. All in memory.
 *
 * What must not be ends the program: besides what the sanitizers find, a write that is not read back,
 * an image that `check` finds right and that cannot be opened, or that is another after a repair.
 */
#ifndef TESTS_LIB_VHD_FUZZ_H
#define TESTS_LIB_VHD_FUZZ_H

#include "tests/lib/run.h"

#define VHD_SEEDS	  7
#define VHD_FUZZ_SIZE_MAX ((size_t)128 * 1024)

/* Writes seed number @index, the same always, into @data; returns its length. */
size_t vhd_seed(unsigned index, uint8_t data[static VHD_FUZZ_SIZE_MAX]);

/* Gives the footers and the header the checksums that they should have. */
void vhd_sign(uint8_t *data, size_t size);

/* Changes some bytes, numbers, or pieces of the file. Returns its new length, up to @max. */
size_t vhd_mutate(uint8_t *data, size_t size, size_t max, struct random *random);

/* Opens, reads, checks, mends, writes. In a task. */
void vhd_fuzz(const uint8_t *data, size_t size);

#endif
