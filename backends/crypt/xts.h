/* SPDX-License-Identifier: MIT */
/*
 * XTS-AES (IEEE 1619-2007) of data units, by OpenSSL.
 *
 * The tweak of a unit is a number of 64 bits, little-endian, in the first half of its 16 bytes;
 * that of unit u is tweak_first + u * tweak_step.
 */
#ifndef BACKENDS_CRYPT_XTS_H
#define BACKENDS_CRYPT_XTS_H

#include "core/error.h"

#define XTS_KEY_MAX 64

struct xts;

struct xts_settings {
	const unsigned char *key; /* half for the data, half for the tweak; not kept */
	size_t key_size;	  /* bytes: 64 for AES-256, 32 for AES-128 */
	uint32_t unit_size;	  /* bytes, a power of two, at least 512 */
	uint64_t tweak_first, tweak_step;
};

enum xts_direction { XTS_ENCRYPT, XTS_DECRYPT, XTS_DIRECTIONS };

/*
 * Ready for all workers; @node is for messages. Returns NULL with a sentence in @err, also for a
 * key that XTS forbids. The keys derived from the key are kept as secret.h says.
 */
struct xts *xts_open(const struct xts_settings *settings, const char *node, struct err *err);
/* Wipes the keys. NULL is allowed. */
void xts_close(struct xts *xts);

/* Whether the keys are in locked memory. */
bool xts_is_locked(const struct xts *xts);

/*
 * Transforms @length bytes, whole units of which the first is number @unit, from @in to @out, which
 * may be the same. On a worker; never suspends. 0 or an error of core/error.h.
 */
int xts_transform(struct xts *xts, enum xts_direction direction, const void *in, void *out,
		  size_t length, uint64_t unit);

#endif
