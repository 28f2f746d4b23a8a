/* SPDX-License-Identifier: MIT */
/* LUKS1 and LUKS2 headers, by libcryptsetup. */
#ifndef BACKENDS_CRYPT_LUKS_H
#define BACKENDS_CRYPT_LUKS_H

#include "backends/secret/key.h"
#include "backends/crypt/xts.h"
#include "core/disk.h"

/* What a header tells of the data behind it. */
struct luks_volume {
	unsigned version;
	uint64_t data_offset; /* bytes, where the data begins */
	uint32_t unit_size;   /* bytes of a data unit: 512, 1024, 2048 or 4096 */
	uint64_t tweak_first; /* of the first unit, in units of 512 bytes */
	size_t key_size;      /* 32 or 64 */
	unsigned char *key;   /* of XTS_KEY_MAX bytes; the caller's */
};

/*
 * Reads the header on @disk and opens a key slot with @passphrase: fills @volume, whose key the
 * caller points at a secret; that is the only copy of the key then. The disk is only read. @node is
 * for messages. In a task; may take seconds. Returns 0, or -1 with a sentence in @err.
 */
int luks_open(struct disk *disk, const struct key *passphrase, const char *node,
	      struct luks_volume *volume, struct err *err);

#endif
