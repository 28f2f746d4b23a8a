// SPDX-License-Identifier: MIT
#include "backends/sqlite/base.h"
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include "core/buffer.h"
#include "core/layer.h"

/* What a fingerprint reads: 4 MiB of however large a disk. A part of the format. */
#define FINGERPRINT_BLOCKS ((uint64_t)64)
#define FINGERPRINT_BLOCK  ((uint64_t)65536)

/* ---- The option. ---- */

static const struct {
	const char *name;
	unsigned check;
} names[] = {
	{"size", BASE_SIZE},
	{"id", BASE_ID},
	{"content", BASE_CONTENT},
	{"none", 0},
};

int base_parse_checks(const struct string_list *list, unsigned *checks, struct err *err)
{
	*checks = 0;
	for (size_t i = 0; i < list->count; i++) {
		size_t j = 0;

		while (j < ARRAY_SIZE(names) && strcmp(names[j].name, list->items[i]) != 0)
			j++;
		if (j == ARRAY_SIZE(names))
			return err_set_key(err, "base_check",
					   "'%s' is nothing to check: there are size, id and "
					   "content, or none",
					   list->items[i]);
		if (names[j].check == 0 && list->count > 1)
			return err_set_key(err, "base_check", "none stands alone");
		*checks |= names[j].check;
	}
	return 0;
}

/* ---- What there is. ---- */

/* The beginning of block @index of a disk of @size bytes; the last ends with the disk. */
static uint64_t block_offset(uint64_t size, uint64_t index)
{
	uint64_t last = size - FINGERPRINT_BLOCK, step = last / (FINGERPRINT_BLOCKS - 1);

	return index == FINGERPRINT_BLOCKS - 1 ? last : align_down(step * index, FINGERPRINT_BLOCK);
}

static int hash_range(struct disk *below, EVP_MD_CTX *context, char *buffer, uint64_t offset,
		      uint64_t length, struct err *err)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, buffer, length);
	int error = disk_read(below, &sg, offset >> disk_sector_shift(below));
	char text[80];

	if (error)
		return err_set_key(err, "base_check", "cannot read '%s' at byte %llu: %s",
				   below->name, (unsigned long long)offset,
				   error_describe(text, error));
	if (EVP_DigestUpdate(context, buffer, length) != 1)
		return err_set_key(err, "base_check", "SHA-256 fails");
	return 0;
}

/* A disk that is hardly larger than what would be read of it is read as a whole. */
static int hash_blocks(struct disk *below, EVP_MD_CTX *context, char *buffer, struct err *err)
{
	uint64_t size = disk_size(below), offset;
	bool whole = size <= FINGERPRINT_BLOCKS * FINGERPRINT_BLOCK;
	uint64_t blocks =
		whole ? (size + FINGERPRINT_BLOCK - 1) / FINGERPRINT_BLOCK : FINGERPRINT_BLOCKS;

	for (uint64_t i = 0; i < blocks; i++) {
		offset = whole ? i * FINGERPRINT_BLOCK : block_offset(size, i);
		if (hash_range(below, context, buffer, offset,
			       min_u64(FINGERPRINT_BLOCK, size - offset), err) < 0)
			return -1;
	}
	return 0;
}

static int fingerprint(struct disk *below, uint8_t digest[FINGERPRINT_SIZE], struct err *err)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	char *buffer = buffer_get();
	uint64_t size = disk_size(below);
	uint8_t size_bytes[8];
	int result = -1;

	for (unsigned i = 0; i < sizeof(size_bytes); i++)
		size_bytes[i] = (uint8_t)(size >> (8 * i));
	if (!context || !buffer)
		err_set(err, "%s", strerror(ENOMEM));
	else if (EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1 ||
		 EVP_DigestUpdate(context, size_bytes, sizeof(size_bytes)) != 1)
		err_set_key(err, "base_check", "there is no SHA-256");
	else
		result = hash_blocks(below, context, buffer, err);
	if (result == 0 && EVP_DigestFinal_ex(context, digest, NULL) != 1)
		result = err_set_key(err, "base_check", "SHA-256 fails");
	if (buffer)
		buffer_put(buffer);
	EVP_MD_CTX_free(context);
	return result;
}

int base_of(struct disk *below, unsigned checks, struct base *base, struct err *err)
{
	*base = (struct base){.is_there = below != NULL};
	if (!below)
		return 0;
	base->size = disk_size(below);
	base->has_id = below->geometry.has_id;
	memcpy(base->id, below->geometry.id, sizeof(base->id));
	if (!(checks & BASE_CONTENT))
		return 0;
	/* What it shows alone is not what it shows in its stack, and a cache changes with every read. */
	if (disk_is_layer(below) && (below->open_flags & DISK_OPEN_LAYER))
		return err_set_key(
			err, "base_check",
			"'%s' is a layer itself, whose content cannot be checked without "
			"what is below it",
			below->name);
	if (fingerprint(below, base->fingerprint, err) < 0)
		return -1;
	base->has_fingerprint = true;
	return 0;
}

/* ---- Comparing. ---- */

#define HINT "; it is no layer of this disk (base_check says what is compared)"

static int compare_ids(const struct base *stored, const struct base *now, const char *path,
		       const char *below, struct err *err)
{
	char stored_id[33], now_id[33];

	if (!stored->has_id || (now->has_id && memcmp(stored->id, now->id, sizeof(now->id)) == 0))
		return 0;
	return err_set_key(err, "base_check",
			   "'%s' was made over the disk with the id %s, and '%s' has %s%s" HINT,
			   path, format_id(stored_id, stored->id), below,
			   now->has_id ? "the id " : "no id",
			   now->has_id ? format_id(now_id, now->id) : "");
}

static int compare_content(const struct base *stored, const struct base *now, const char *path,
			   const char *below, struct err *err)
{
	if (stored->changes)
		return 0;
	if (!stored->has_fingerprint)
		return err_set_key(err, "base_check",
				   "'%s' was made without base_check = content, so the content of "
				   "'%s' cannot be checked",
				   path, below);
	if (memcmp(stored->fingerprint, now->fingerprint, FINGERPRINT_SIZE) == 0)
		return 0;
	return err_set_key(err, "base_check",
			   "'%s' was made over another content than '%s' has" HINT, path, below);
}

int base_compare(const struct base *stored, const struct base *now, unsigned checks,
		 const char *path, const char *below, struct err *err)
{
	if (checks == 0)
		return 0;
	if (!stored->is_there && now->is_there)
		return err_set_key(
			err, "base_check",
			"'%s' was made with nothing below it, and now stands on '%s'" HINT, path,
			below);
	if (stored->is_there && !now->is_there)
		return err_set_key(err, "base_check",
				   "'%s' was made over a disk of %llu bytes, and now stands on "
				   "nothing (base_check says what is compared)",
				   path, (unsigned long long)stored->size);
	if (!now->is_there)
		return 0;
	if ((checks & BASE_SIZE) && stored->size != now->size)
		return err_set_key(
			err, "base_check",
			"'%s' was made over a disk of %llu bytes, and '%s' has %llu" HINT, path,
			(unsigned long long)stored->size, below, (unsigned long long)now->size);
	if ((checks & BASE_ID) && compare_ids(stored, now, path, below, err) < 0)
		return -1;
	return checks & BASE_CONTENT ? compare_content(stored, now, path, below, err) : 0;
}
