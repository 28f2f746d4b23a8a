/* SPDX-License-Identifier: MIT */
/*
 * What a layer was made over, as its file remembers it, so that it is not used over anything else:
 * size, disk id, and a fingerprint of the content.
 */
#ifndef BACKENDS_SQLITE_BASE_H
#define BACKENDS_SQLITE_BASE_H

#include "core/disk.h"

#define FINGERPRINT_SIZE 32

struct base {
	bool is_there; /* false: the layer is the lowest */
	uint64_t size; /* bytes */
	bool has_id, has_fingerprint;
	/* Its content was being changed on purpose (diskfs commit), so that the fingerprint of before
	 * says nothing; there is a new one once it is used without being written to. */
	bool changes;
	uint8_t id[16];
	uint8_t fingerprint[FINGERPRINT_SIZE];
};

enum base_checks {
	BASE_SIZE = 1 << 0,
	BASE_ID = 1 << 1,
	BASE_CONTENT = 1 << 2,
};

/* The option base_check. 0, or -1 with a sentence in @err. */
int base_parse_checks(const struct string_list *names, unsigned *checks, struct err *err);

/*
 * What there is now; @below may be NULL. The fingerprint, only where @checks has BASE_CONTENT, is
 * the SHA-256 of FINGERPRINT_BLOCKS blocks, evenly spread, and of the size. In a task.
 */
int base_of(struct disk *below, unsigned checks, struct base *base, struct err *err);

/* Whether the file at @path, made over @stored, may be used over @now, the disk called @below. */
int base_compare(const struct base *stored, const struct base *now, unsigned checks,
		 const char *path, const char *below, struct err *err);

#endif
