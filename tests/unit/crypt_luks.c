// SPDX-License-Identifier: MIT
/* LUKS volumes, made by libcryptsetup: what opens, and what does not. */
#include <errno.h>
#include <fcntl.h>
#include <libcryptsetup.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/crypt/xts.h"
#include "backends/list.h"
#include "core/bytes.h"
#include "core/log.h"
#include "tests/lib/check.h"
#include "tests/lib/luks.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/stacks.h"

/* ---- What opens. ---- */

/* The disk is the volume's data, as the cipher encrypts it, and all in front of it stays. */
static void use_task(void *argument)
{
	struct luks_opened *opened = argument;
	struct disk *disk = opened->disk;
	uint64_t offset = disk_size(opened->below) - disk_size(disk);
	static char data[64 * KIB], back[64 * KIB];

	pattern_fill(data, sizeof(data), offset);
	CHECK_OK(disk_write_bytes(disk, data, sizeof(data), 4096, 0));
	CHECK_OK(disk_read_bytes(disk, back, sizeof(back), 4096));
	CHECK(memcmp(data, back, sizeof(data)) == 0);
	CHECK_OK(disk_flush(disk));
}

static void check_data(const struct luks_kind *kind, const char *key, uint64_t offset)
{
	static char data[64 * KIB], wanted[64 * KIB], is[64 * KIB];
	uint32_t unit = kind->sector_size;
	struct xts_settings settings = {.key = (const unsigned char *)key,
					.key_size = kind->key_size,
					.unit_size = unit,
					.tweak_step = unit / 512};
	struct err err = {.text = ""};
	struct xts *xts = xts_open(&settings, "test", &err);
	int fd = open("disk", O_RDONLY | O_CLOEXEC);

	assert_non_null(xts);
	pattern_fill(data, sizeof(data), offset);
	assert_int_equal(xts_transform(xts, XTS_ENCRYPT, data, wanted, sizeof(data), 4096 / unit),
			 0);
	assert_int_equal(pread(fd, is, sizeof(is), (off_t)offset + 4096), sizeof(is));
	assert_memory_equal(is, wanted, sizeof(is));
	close(fd);
	xts_close(xts);
}

static char *file_read(const char *name, size_t length)
{
	char *content = malloc(length);
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	assert_non_null(content);
	assert_int_equal(pread(fd, content, length, 0), length);
	close(fd);
	return content;
}

static void check_volume(const struct luks_kind *kind, const char *sector_size, uint64_t offset)
{
	struct luks_opened opened = luks_opened_of();
	char key[64], *before, *after;

	check_context("%s of %u, %zu bytes of key, on sectors of %s", kind->type, kind->sector_size,
		      kind->key_size, sector_size);
	pattern_fill(key, sizeof(key), 9);
	luks_make(kind, key);
	before = file_read("disk", offset);
	opened.sector_size = sector_size;
	run_task(luks_open_task, &opened);
	CHECK_TEXT(opened.err.text, "");
	if (opened.disk) {
		CHECK_EQ(disk_size(opened.disk), LUKS_DISK_SIZE - offset);
		run_task(use_task, &opened);
	}
	run_task(luks_close_task, &opened);
	check_data(kind, key, offset);
	after = file_read("disk", offset);
	assert_memory_equal(before, after, offset);
	free(before);
	free(after);
}

static void test_volumes(void **state)
{
	const struct luks_kind short_key = {CRYPT_LUKS1, "aes", "xts-plain64", 32,
					    512,	 0,	false,	       false};
	const struct luks_kind aligned = {CRYPT_LUKS1, "aes", "xts-plain64", 64,
					  512,	       8193,  false,	     false};

	(void)state;
	luks_enter();
	check_volume(&luks1, "512", 2 * MIB);
	check_volume(&luks1, "4096", 2 * MIB);
	check_volume(&short_key, "512", 2 * MIB);
	check_volume(&aligned, "512", 8193 * 512);
	check_volume(&luks2, "512", 16 * MIB);
	check_volume(&luks2, "4096", 16 * MIB);
	check_volume(&luks2_4096, "512", 16 * MIB);
	check_volume(&luks2_4096, "4096", 16 * MIB);
	scratch_leave();
}

static void test_read_only(void **state)
{
	struct luks_opened opened = luks_opened_of();
	char key[64];

	(void)state;
	luks_enter();
	pattern_fill(key, sizeof(key), 9);
	luks_make(&luks2, key);
	for (unsigned i = 0; i < 2; i++) {
		opened.flags = i == 0 ? DISK_OPEN_READ_ONLY : DISK_OPEN_CHECK;
		run_task(luks_open_task, &opened);
		CHECK_TEXT(opened.err.text, "");
		CHECK(opened.disk && disk_size(opened.disk) == 2 * MIB);
		CHECK(i == 1 || disk_is_read_only(opened.disk));
		run_task(luks_close_task, &opened);
	}
	scratch_leave();
}

/* ---- What does not open. ---- */

static void test_passphrases(void **state)
{
	static const char refused[] =
		"the passphrase or key file opens no key slot of the LUKS volume on 'file'";
	struct luks_opened opened = luks_opened_of();
	char key[64];

	(void)state;
	luks_enter();
	pattern_fill(key, sizeof(key), 9);
	for (unsigned i = 0; i < 2; i++) {
		luks_make(i == 0 ? &luks1 : &luks2, key);
		opened.option = "key_file";
		opened.file = "pass"; /* as a whole, with the other line */
		luks_check_refused(&opened, refused);
		opened.option = "passphrase_file";
		scratch_write("wrong", "correct hors", 12);
		opened.file = "wrong";
		luks_check_refused(&opened, refused);
		scratch_write("wrong", "\n", 1);
		luks_check_refused(&opened, refused);
		opened.option = "key_file";
		opened.file = "exact";
		run_task(luks_open_task, &opened);
		CHECK_TEXT(opened.err.text, "");
		run_task(luks_close_task, &opened);
	}
	scratch_leave();
}

static void test_other_ciphers(void **state)
{
	const struct luks_kind cbc = {CRYPT_LUKS1, "aes", "cbc-essiv:sha256", 32, 512, 0,
				      false,	   false};
	struct luks_opened opened = luks_opened_of();
	struct crypt_device *device;
	struct luks_image image;
	char key[64];

	(void)state;
	luks_enter();
	pattern_fill(key, sizeof(key), 9);
	luks_make(&cbc, key);
	luks_check_refused(&opened,
			   "the LUKS volume on 'file' is encrypted by aes-cbc-essiv:sha256 "
			   "with a key of 256 bits: only aes-xts-plain64 with 256 or 512 is "
			   "supported");
	image = luks_image_make(&luks1, key);
	memcpy(image.bytes + 8, "twofish", 8);
	luks_image_close(&image);
	luks_check_refused(&opened,
			   "the LUKS volume on 'file' is encrypted by twofish-xts-plain64 with "
			   "a key of 512 bits: only aes-xts-plain64 with 256 or 512 is "
			   "supported");
	luks_make(&luks2, key);
	assert_int_equal(crypt_init(&device, "disk"), 0);
	assert_int_equal(crypt_load(device, CRYPT_LUKS2, NULL), 0);
	assert_int_equal(crypt_keyslot_destroy(device, 0), 0);
	crypt_free(device);
	luks_check_refused(&opened, "the LUKS header of 'file' has no key slots in use");
	scratch_leave();
}

static void test_places(void **state)
{
	const struct luks_kind aligned = {CRYPT_LUKS1, "aes", "xts-plain64", 64,
					  512,	       8193,  false,	     false};
	struct luks_opened opened = luks_opened_of();
	char key[64];

	(void)state;
	luks_enter();
	pattern_fill(key, sizeof(key), 9);
	luks_make(&aligned, key);
	opened.sector_size = "4096";
	luks_check_refused(&opened,
			   "the data of the LUKS volume begins at byte 4194816, inside a sector "
			   "of 'file', which has 4096 bytes");
	opened.sector_size = "512";
	assert_int_equal(truncate("disk", 8193 * 512), 0);
	luks_check_refused(&opened,
			   "the LUKS header of 'file' says that the data begins in sector 8193, "
			   "which is not inside the disk");
	assert_int_equal(truncate("disk", 8194 * 512), 0);
	run_task(luks_open_task, &opened);
	CHECK_TEXT(opened.err.text, "");
	CHECK(opened.disk && disk_size(opened.disk) == 512);
	run_task(luks_close_task, &opened);
	scratch_leave();
}

/* A header that cannot be read, at its beginning or among the key slots. */
static void unreadable_task(void *argument)
{
	static const char *const options[][2] = {{"format", "luks"}, {"passphrase_file", "pass"}};
	static const uint64_t places[] = {0, 16383, 16384, 32000};
	char *image = argument;
	struct probe probe;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		struct err err = {.text = ""};
		struct disk *below;

		probe_init(&probe, 512, LUKS_DISK_SIZE / 512);
		memcpy(probe.data, image, LUKS_DISK_SIZE);
		probe.fail[PROBE_READ].error = error_medium(EIO, MEDIUM_UNRECOVERED_READ);
		probe.fail[PROBE_READ].first = places[i];
		probe.fail[PROBE_READ].end = places[i] + 1;
		below = probe_open(&probe, 0, NULL, &err);
		CHECK(!driver_open(driver_find("crypt"), options, 2, 0, below, &err));
		CHECK_TEXT(err.text,
			   "cannot read the LUKS header of 'probe': medium error (unrecovered "
			   "read, EIO)");
		CHECK_EQ(probe.counts[PROBE_WRITE], 0);
		disk_close(below);
		probe_destroy(&probe);
	}
}

static void test_unreadable(void **state)
{
	char key[64], *image;

	(void)state;
	luks_enter();
	pattern_fill(key, sizeof(key), 9);
	luks_make(&luks2, key);
	image = file_read("disk", LUKS_DISK_SIZE);
	run_task(unreadable_task, image);
	free(image);
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
		cmocka_unit_test(test_volumes),	    cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_passphrases), cmocka_unit_test(test_other_ciphers),
		cmocka_unit_test(test_places),	    cmocka_unit_test(test_unreadable),
	};

	return cmocka_run_group_tests(tests, setup, teardown_workers);
}
