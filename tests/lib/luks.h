/* SPDX-License-Identifier: MIT */
/*
 * LUKS volumes for tests, made by libcryptsetup, and crypts on them. Failures end the test by a
 * cmocka assertion, or in tasks are checks that fail.
 */
#ifndef TESTS_LIB_LUKS_H
#define TESTS_LIB_LUKS_H

#include "core/disk.h"

#define LUKS_PASSPHRASE "correct horse"
#define LUKS_DISK_SIZE	(18 * MIB)
#define LUKS_SMALL_SIZE (3 * MIB)

#define LUKS2_HEADER	16384 /* bytes of a header of LUKS2, of which the second copy comes next */
#define LUKS2_JSON	4096  /* where its text begins */
#define LUKS2_CHECKSUM	448   /* where its checksum is, of 64 bytes, of which SHA-256 fills half */

struct luks_kind {
	const char *type, *cipher, *mode;
	size_t key_size;
	uint32_t sector_size;
	size_t data_alignment; /* in units of 512 bytes */
	bool small;	       /* LUKS2: few key slots, so that the data begins after 1 MiB */
	bool argon2id;	       /* of the least costs, instead of PBKDF2 */
};

extern const struct luks_kind luks1, luks2, luks2_4096, luks2_small, luks2_argon2id;

/* Enters a scratch folder (tests/lib/scratch.h) with files "pass", whose first line is the
 * passphrase, and "exact", which is the passphrase. */
void luks_enter(void);

/* Writes the file "disk", of LUKS_DISK_SIZE, with the header of a volume of this key, and one key
 * slot. */
void luks_make(const struct luks_kind *kind, const char *key);

/* A disk of LUKS_SMALL_SIZE, as memory: the same file, cut. */
struct luks_image {
	unsigned char *bytes;
	int fd;
};

struct luks_image luks_image_make(const struct luks_kind *kind, const char *key);
void luks_image_close(struct luks_image *image);

/* ---- Disks. ---- */

struct luks_opened {
	const char *path, *sector_size;
	const char *option, *file; /* which of the two files, and its name */
	unsigned flags;
	struct disk *below, *disk;
	struct err err;
};

/* On the file "disk", with the passphrase, on sectors of 512 bytes. */
struct luks_opened luks_opened_of(void);

/* Tasks for struct luks_opened: opens it, err.text says if that fails; closes what is open. */
void luks_open_task(void *argument);
void luks_close_task(void *argument);

/* That it does not open, and says so with @error. Not in a task. */
void luks_check_refused(struct luks_opened *opened, const char *error);

#endif
