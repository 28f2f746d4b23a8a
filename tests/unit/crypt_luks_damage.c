// SPDX-License-Identifier: MIT
/*
 * Headers of LUKS that are damaged, as it happens or by an enemy: either such a disk opens, or there
 * is one clear sentence; nothing else happens, and all in little time and memory.
 */
#include <libcryptsetup.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "core/log.h"
#include "tests/lib/check.h"
#include "tests/lib/luks.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"

/* ---- One damage. ---- */

static bool is_printable(const char *text)
{
	while (*text >= ' ' && *text <= '~')
		text++;
	return *text == '\0';
}

/* Opens the damaged disk: it works, or there is one sentence. Returns whether it works. @format is
 * the damage. */
PRINTF_LIKE(1, 2) static bool check_damage(const char *format, ...)
{
	struct luks_opened opened = luks_opened_of();
	char damage[100];
	va_list arguments;
	bool works;

	va_start(arguments, format);
	vsnprintf(damage, sizeof(damage), format, arguments);
	va_end(arguments);
	check_context("%s", damage);
	run_task(luks_open_task, &opened);
	works = opened.disk;
	CHECK(works == !opened.err.text[0]);
	CHECK(is_printable(opened.err.text) && !strstr(opened.err.text, "/proc/"));
	if (opened.disk)
		CHECK(disk_size(opened.disk) > 0 && disk_size(opened.disk) < LUKS_SMALL_SIZE);
	run_task(luks_close_task, &opened);
	return works;
}

static bool is_long(void)
{
	const char *value = getenv("LONG");

	return value && strcmp(value, "1") == 0;
}

/* Of the bytes of a header one in so many is changed. */
static size_t step(void)
{
	return is_long() ? 1 : 5;
}

/* ---- LUKS1: without a checksum. ---- */

static void test_damaged_1(void **state)
{
	unsigned refused = 0;
	struct luks_image image;
	char key[64];

	(void)state;
	luks_enter();
	pattern_fill(key, sizeof(key), 9);
	image = luks_image_make(&luks1, key);
	for (size_t place = 0; place < 592; place += step()) {
		image.bytes[place] ^= 0xff;
		refused += !check_damage("byte %zu", place);
		image.bytes[place] ^= 0xff;
	}
	/* All but the UUID, unused slots, and what is behind the ends of strings. */
	CHECK(refused > 592 / step() / 4);
	/* The key material of the slot. */
	image.bytes[4096 + 1000] ^= 1;
	CHECK(!check_damage("key material"));
	image.bytes[4096 + 1000] ^= 1;
	CHECK(check_damage("none"));
	luks_image_close(&image);
	scratch_leave();
}

/* ---- LUKS2: with checksums, and text. ---- */

static void checksum_2(unsigned char *header)
{
	unsigned char digest[32];

	memset(header + LUKS2_CHECKSUM, 0, 64);
	assert_int_equal(EVP_Digest(header, LUKS2_HEADER, digest, NULL, EVP_sha256(), NULL), 1);
	memcpy(header + LUKS2_CHECKSUM, digest, sizeof(digest));
}

/* In both copies, first as it happens, then by somebody who knows of checksums. */
static void test_damaged_2(void **state)
{
	unsigned refused = 0, tried = 0;
	struct luks_image image;
	char key[64];

	(void)state;
	luks_enter();
	pattern_fill(key, sizeof(key), 9);
	image = luks_image_make(&luks2_small, key);
	CHECK(image.bytes[LUKS2_HEADER] == 'S'); /* "SKUL" */
	image.bytes[5000] ^= 1;
	CHECK(check_damage("one copy")); /* there is the other copy */
	image.bytes[LUKS2_HEADER + 5000] ^= 1;
	CHECK(!check_damage("both copies"));
	image.bytes[5000] ^= 1;
	image.bytes[LUKS2_HEADER + 5000] ^= 1;
	for (size_t place = 0; place < 4096 + strlen((char *)image.bytes + 4096); place += step()) {
		if (place >= 512 && place < 4096)
			continue;
		for (unsigned i = 0; i < 2; i++) {
			image.bytes[place + i * LUKS2_HEADER] ^= 1;
			checksum_2(image.bytes + i * LUKS2_HEADER);
		}
		tried++;
		refused += !check_damage("byte %zu", place);
		for (unsigned i = 0; i < 2; i++) {
			image.bytes[place + i * LUKS2_HEADER] ^= 1;
			checksum_2(image.bytes + i * LUKS2_HEADER);
		}
	}
	CHECK(refused > tried / 2);
	CHECK(check_damage("none"));
	luks_image_close(&image);
	scratch_leave();
}

/* ---- Headers that ask for too much. ---- */

static const char immodest[] = "the LUKS header of 'file' wants more than 100000000 iterations, "
			       "4096 MiB of memory or 64 threads for a key: it is taken to be "
			       "damaged";

static void test_immodest_1(void **state)
{
	struct luks_opened opened = luks_opened_of();
	static const size_t places[] = {164, 212}; /* of the digest, of the first key slot */
	struct luks_image image;
	char key[64];

	(void)state;
	luks_enter();
	pattern_fill(key, sizeof(key), 9);
	image = luks_image_make(&luks1, key);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		check_context("iterations at byte %zu", places[i]);
		image.bytes[places[i]] ^= 0x80;
		luks_check_refused(&opened, immodest);
		image.bytes[places[i]] ^= 0x80;
	}
	luks_image_close(&image);
	scratch_leave();
}

/* Writes the text of both copies. */
static void text_write(struct luks_image *image, const char *text)
{
	for (unsigned i = 0; i < 2; i++) {
		unsigned char *header = image->bytes + i * LUKS2_HEADER;
		size_t room = LUKS2_HEADER - LUKS2_JSON, length = min_u64(strlen(text), room);

		memset(header + LUKS2_JSON, 0, room);
		memcpy(header + LUKS2_JSON, text, length);
		checksum_2(header);
	}
}

/* Puts another number in the place of the one behind the first @name after the first @object. */
static void text_replace_number(struct luks_image *image, const char *object, const char *name,
				const char *number)
{
	const char *text = (const char *)image->bytes + LUKS2_JSON;
	const char *at = strstr(text, object);
	char changed[LUKS2_HEADER];

	at = at ? strstr(at, name) : NULL;
	assert_non_null(at);
	at += strlen(name);
	snprintf(changed, sizeof(changed), "%.*s%s%s", (int)(at - text), text, number,
		 at + strspn(at, "0123456789"));
	text_write(image, changed);
}

/* Each for itself, where the others are as they were. */
static const struct {
	const struct luks_kind *kind;
	const char *object, *name, *number;
} immodest_numbers[] = {
	{&luks2_small, "\"kdf\"", "\"iterations\":", "100000001"},
	{&luks2_small, "\"digests\"", "\"iterations\":", "100000001"},
	{&luks2_small, "\"digests\"", "\"iterations\":", "4294967295"},
	{&luks2_small, "\"digests\"", "\"iterations\":", "1e30"},
	{&luks2_small, "\"digests\"", "\"iterations\":", "\"4294967295\""},
	{&luks2_small, "\"digests\"", "\"iterations\":", "99999999999999999999"},
	{&luks2_small, "\"area\"", "\"key_size\":", "65"},
	{&luks2_small, "\"area\"", "\"key_size\":", "4294967295"},
	{&luks2_argon2id, "\"kdf\"", "\"time\":", "4000000"},
	{&luks2_argon2id, "\"kdf\"", "\"memory\":", "4194305"},
	{&luks2_argon2id, "\"kdf\"", "\"memory\":", "4294967295"},
	{&luks2_argon2id, "\"kdf\"", "\"cpus\":", "65"},
};

static const char other_key[] = "the LUKS volume on 'file' is encrypted by aes-xts-plain64 with a "
				"key of 17179869176 bits: only aes-xts-plain64 with 256 or 512 is "
				"supported";

static void test_immodest_2(void **state)
{
	struct luks_opened opened = luks_opened_of();
	char key[64];

	(void)state;
	luks_enter();
	pattern_fill(key, sizeof(key), 9);
	for (size_t i = 0; i < ARRAY_SIZE(immodest_numbers); i++) {
		struct luks_image image = luks_image_make(immodest_numbers[i].kind, key);

		check_context("%s, %s%s", immodest_numbers[i].object, immodest_numbers[i].name,
			      immodest_numbers[i].number);
		text_replace_number(&image, immodest_numbers[i].object, immodest_numbers[i].name,
				    immodest_numbers[i].number);
		luks_check_refused(&opened, immodest);
		text_replace_number(&image, "\"keyslots\"", "\"key_size\":", "4294967295");
		luks_check_refused(&opened, other_key);
		luks_image_close(&image);
	}
	scratch_leave();
}

/* ---- Damages at random. ---- */

static void damage_1(struct luks_image *image, struct random *random)
{
	for (uint64_t i = 0; i <= random_below(random, 4); i++) {
		size_t place = random_below(random, 592);

		if (random_below(random, 2))
			image->bytes[place] = (unsigned char)random_next(random);
		else
			memset(image->bytes + place, random_below(random, 2) ? 0xff : 0,
			       random_below(random, 8));
	}
}

/* Iterations that are allowed, but take the test too long. */
static bool is_slow_1(const struct luks_image *image)
{
	for (unsigned i = 0; i <= 8; i++) {
		const unsigned char *at = image->bytes + (i ? 212 + (i - 1) * 48 : 164);

		if (at[0] < 6 && (at[0] || at[1] > 4))
			return true;
	}
	return false;
}

/* Changes the text: a character, a number, or a part that is left out or put somewhere else. */
static void text_damage(char *text, size_t size, struct random *random)
{
	static const char *const numbers[] = {"0",	    "-1",	  "65",
					      "4294967296", "2147483647", "9223372036854775808",
					      "1e9",	    "\"x\"",	  "[]"};
	char old[LUKS2_HEADER];
	size_t length = strlen(text), at = random_below(random, length);
	size_t part = min_u64(random_below(random, 60), length - at);
	size_t to = random_below(random, length);

	memcpy(old, text, length + 1);
	switch (random_below(random, 4)) {
	case 0:
		text[at] = (char)(' ' + random_below(random, '~' - ' '));
		break;
	case 1:
		at += strcspn(old + at, ":");
		at += old[at] == ':';
		snprintf(text + at, size - at, "%s%s", numbers[random_below(random, 9)],
			 old + at + strcspn(old + at, ",}]"));
		break;
	case 2:
		memmove(text + at, old + at + part, length - at - part + 1);
		break;
	default:
		snprintf(text + to, size - to, "%.*s%s", (int)part, old + at, old + to);
	}
}

static void damage_2(struct luks_image *image, struct random *random)
{
	char text[LUKS2_HEADER - LUKS2_JSON];

	memcpy(text, image->bytes + LUKS2_JSON, sizeof(text));
	for (uint64_t i = 0; i <= random_below(random, 2); i++)
		text_damage(text, sizeof(text), random);
	text_write(image, text);
}

static void check_random(const struct luks_kind *kind, unsigned count)
{
	size_t size = 2 * (size_t)LUKS2_HEADER;
	unsigned char *good = malloc(size);
	struct luks_image image;
	char key[64];

	luks_enter();
	pattern_fill(key, sizeof(key), 9);
	image = luks_image_make(kind, key);
	memcpy(good, image.bytes, size);
	for (unsigned i = 0; i < count; i++) {
		struct random random = {.state = i};

		if (kind == &luks1)
			damage_1(&image, &random);
		else
			damage_2(&image, &random);
		if (kind != &luks1 || !is_slow_1(&image))
			check_damage("random, %s, %u", kind->argon2id ? "Argon2" : kind->type, i);
		memcpy(image.bytes, good, size);
	}
	free(good);
	luks_image_close(&image);
	scratch_leave();
}

static void test_random(void **state)
{
	unsigned count = is_long() ? 10000 : 150;

	(void)state;
	check_random(&luks1, count);
	check_random(&luks2_small, count);
	check_random(&luks2_argon2id, count);
}

/* ---- What is missing. ---- */

/* Disks that end early, and such as have no header at all. */
static void test_short(void **state)
{
	static const off_t sizes[] = {512, 1024, 4096, 16384, 20480, 32768, 300000, 2 << 20};
	struct luks_opened opened = luks_opened_of();
	char key[64];

	(void)state;
	luks_enter();
	pattern_fill(key, sizeof(key), 9);
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(sizes); i++) {
		luks_make(i % 2 ? &luks1 : &luks2, key);
		assert_int_equal(truncate("disk", sizes[i / 2]), 0);
		CHECK(!check_damage("%lld bytes", (long long)sizes[i / 2]));
	}
	assert_int_equal(truncate("disk", 0), 0);
	assert_int_equal(truncate("disk", 10 << 20), 0);
	luks_check_refused(&opened, "there is no valid LUKS header on 'file'");
	scratch_leave();
}

static int setup(void **state)
{
	log_set_level(LOG_LEVEL_ERROR);
	crypt_set_log_callback(NULL, NULL, NULL);
	return setup_2_workers(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_damaged_1),  cmocka_unit_test(test_damaged_2),
		cmocka_unit_test(test_immodest_1), cmocka_unit_test(test_immodest_2),
		cmocka_unit_test(test_random),	   cmocka_unit_test(test_short),
	};

	return cmocka_run_group_tests(tests, setup, teardown_workers);
}
