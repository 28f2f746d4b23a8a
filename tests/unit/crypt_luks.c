// SPDX-License-Identifier: MIT
/*
 * LUKS volumes, made by libcryptsetup: what opens and what does not, and headers that are damaged
 * in every place. Either such a disk opens, or there is one clear sentence; nothing else happens.
 */
#include <errno.h>
#include <fcntl.h>
#include <libcryptsetup.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/crypt/xts.h"
#include "backends/list.h"
#include "core/bytes.h"
#include "core/log.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/stacks.h"

#define PASSPHRASE "correct horse"
#define DISK_SIZE  (18 * MIB)
#define SMALL_SIZE (3 * MIB)

#define HEADER_2   16384 /* bytes of a header of LUKS2, of which the second copy comes next */
#define CHECKSUM_2 448	 /* where its checksum is, of 64 bytes, of which SHA-256 fills half */

/* ---- Volumes. ---- */

struct kind {
	const char *type, *cipher, *mode;
	size_t key_size;
	uint32_t sector_size;
	size_t data_alignment; /* in units of 512 bytes */
	bool small;	       /* LUKS2: few key slots, so that the data begins after 1 MiB */
};

static const struct kind luks1 = {CRYPT_LUKS1, "aes", "xts-plain64", 64, 512, 0, false};
static const struct kind luks2 = {CRYPT_LUKS2, "aes", "xts-plain64", 64, 512, 0, false};
static const struct kind luks2_4096 = {CRYPT_LUKS2, "aes", "xts-plain64", 64, 4096, 0, false};
static const struct kind luks2_small = {CRYPT_LUKS2, "aes", "xts-plain64", 64, 512, 0, true};

/* Writes a file of DISK_SIZE with the header of a volume of this key, and one key slot. */
static void volume_make(const char *name, const struct kind *kind, const char *key)
{
	struct crypt_pbkdf_type pbkdf = {.type = CRYPT_KDF_PBKDF2,
					 .hash = "sha256",
					 .iterations = 1000,
					 .flags = CRYPT_PBKDF_NO_BENCHMARK};
	struct crypt_params_luks1 params1 = {.hash = "sha256",
					     .data_alignment = kind->data_alignment};
	struct crypt_params_luks2 params2 = {.pbkdf = &pbkdf, .sector_size = kind->sector_size};
	bool is_1 = strcmp(kind->type, CRYPT_LUKS1) == 0;
	struct crypt_device *device;

	scratch_write(name, "", 0);
	assert_int_equal(truncate(name, DISK_SIZE), 0);
	assert_int_equal(crypt_init(&device, name), 0);
	assert_int_equal(crypt_set_pbkdf_type(device, &pbkdf), 0);
	if (kind->small)
		assert_int_equal(crypt_set_metadata_size(device, HEADER_2, 512 * KIB), 0);
	assert_int_equal(crypt_format(device, kind->type, kind->cipher, kind->mode, NULL, key,
				      kind->key_size, is_1 ? (void *)&params1 : (void *)&params2),
			 0);
	assert_int_equal(crypt_keyslot_add_by_volume_key(device, 0, key, kind->key_size, PASSPHRASE,
							 strlen(PASSPHRASE)),
			 0);
	crypt_free(device);
}

/* ---- Disks. ---- */

struct opened {
	const char *path, *sector_size;
	const char *option, *file; /* which of the two files, and its name */
	unsigned flags;
	struct disk *below, *disk;
	struct err err;
};

static void open_task(void *argument)
{
	struct opened *opened = argument;
	const char *const file[][2] = {{"path", opened->path},
				       {"sector_size", opened->sector_size}};
	const char *const crypt[][2] = {{"format", "luks"}, {opened->option, opened->file}};

	opened->err = (struct err){.text = ""};
	opened->below =
		driver_open(driver_find("file"), file, 2, opened->flags, NULL, &opened->err);
	CHECK_TEXT(opened->err.text, "");
	opened->disk = opened->below ? driver_open(driver_find("crypt"), crypt, 2, opened->flags,
						   opened->below, &opened->err)
				     : NULL;
}

static void close_task(void *argument)
{
	struct opened *opened = argument;

	disk_close(opened->disk);
	disk_close(opened->below);
}

static struct opened opened_of(const char *path)
{
	return (struct opened){
		.path = path, .sector_size = "512", .option = "passphrase_file", .file = "pass"};
}

static void setup_files(void)
{
	scratch_enter();
	scratch_write("pass", PASSPHRASE "\nanother line\n", strlen(PASSPHRASE) + 14);
	scratch_write("exact", PASSPHRASE, strlen(PASSPHRASE));
}

/* ---- What opens. ---- */

/* The disk is the volume's data, as the cipher encrypts it, and all in front of it stays. */
static void use_task(void *argument)
{
	struct opened *opened = argument;
	struct disk *disk = opened->disk;
	uint64_t offset = disk_size(opened->below) - disk_size(disk);
	static char data[64 * KIB], back[64 * KIB];

	pattern_fill(data, sizeof(data), offset);
	CHECK_OK(disk_write_bytes(disk, data, sizeof(data), 4096, 0));
	CHECK_OK(disk_read_bytes(disk, back, sizeof(back), 4096));
	CHECK(memcmp(data, back, sizeof(data)) == 0);
	CHECK_OK(disk_flush(disk));
}

static void check_data(const struct kind *kind, const char *key, uint64_t offset)
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

static void check_volume(const struct kind *kind, const char *sector_size, uint64_t offset)
{
	struct opened opened = opened_of("disk");
	char key[64], *before, *after;

	check_context("%s of %u, %zu bytes of key, on sectors of %s", kind->type, kind->sector_size,
		      kind->key_size, sector_size);
	pattern_fill(key, sizeof(key), 9);
	volume_make("disk", kind, key);
	before = file_read("disk", offset);
	opened.sector_size = sector_size;
	run_task(open_task, &opened);
	CHECK_TEXT(opened.err.text, "");
	if (opened.disk) {
		CHECK_EQ(disk_size(opened.disk), DISK_SIZE - offset);
		run_task(use_task, &opened);
	}
	run_task(close_task, &opened);
	check_data(kind, key, offset);
	after = file_read("disk", offset);
	assert_memory_equal(before, after, offset);
	free(before);
	free(after);
}

static void test_volumes(void **state)
{
	const struct kind short_key = {CRYPT_LUKS1, "aes", "xts-plain64", 32, 512, 0, false};
	const struct kind aligned = {CRYPT_LUKS1, "aes", "xts-plain64", 64, 512, 8193, false};

	(void)state;
	setup_files();
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
	struct opened opened = opened_of("disk");
	char key[64];

	(void)state;
	setup_files();
	pattern_fill(key, sizeof(key), 9);
	volume_make("disk", &luks2, key);
	for (unsigned i = 0; i < 2; i++) {
		opened.flags = i == 0 ? DISK_OPEN_READ_ONLY : DISK_OPEN_CHECK;
		run_task(open_task, &opened);
		CHECK_TEXT(opened.err.text, "");
		CHECK(opened.disk && disk_size(opened.disk) == 2 * MIB);
		CHECK(i == 1 || disk_is_read_only(opened.disk));
		run_task(close_task, &opened);
	}
	scratch_leave();
}

/* ---- Headers that are changed. ---- */

/* A disk of SMALL_SIZE, as memory. */
struct image {
	unsigned char *bytes;
	int fd;
};

/* Makes the volume, and cuts it. */
static struct image image_make(const struct kind *kind, const char *key)
{
	struct image image;

	volume_make("disk", kind, key);
	image.fd = open("disk", O_RDWR | O_CLOEXEC);
	assert_int_equal(ftruncate(image.fd, SMALL_SIZE), 0);
	image.bytes = mmap(NULL, SMALL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, image.fd, 0);
	assert_true(image.bytes != MAP_FAILED);
	return image;
}

static void image_close(struct image *image)
{
	munmap(image->bytes, SMALL_SIZE);
	close(image->fd);
}

/* ---- What does not open. ---- */

static void check_refused(struct opened *opened, const char *error)
{
	run_task(open_task, opened);
	CHECK(!opened->disk);
	CHECK_TEXT(opened->err.text, error);
	run_task(close_task, opened);
}

static void test_passphrases(void **state)
{
	static const char refused[] =
		"the passphrase or key file opens no key slot of the LUKS volume on 'file'";
	struct opened opened = opened_of("disk");
	char key[64];

	(void)state;
	setup_files();
	pattern_fill(key, sizeof(key), 9);
	for (unsigned i = 0; i < 2; i++) {
		volume_make("disk", i == 0 ? &luks1 : &luks2, key);
		opened.option = "key_file";
		opened.file = "pass"; /* as a whole, with the other line */
		check_refused(&opened, refused);
		opened.option = "passphrase_file";
		scratch_write("wrong", "correct hors", 12);
		opened.file = "wrong";
		check_refused(&opened, refused);
		scratch_write("wrong", "\n", 1);
		check_refused(&opened, refused);
		opened.option = "key_file";
		opened.file = "exact";
		run_task(open_task, &opened);
		CHECK_TEXT(opened.err.text, "");
		run_task(close_task, &opened);
	}
	scratch_leave();
}

static void test_other_ciphers(void **state)
{
	const struct kind cbc = {CRYPT_LUKS1, "aes", "cbc-essiv:sha256", 32, 512, 0, false};
	struct opened opened = opened_of("disk");
	struct crypt_device *device;
	struct image image;
	char key[64];

	(void)state;
	setup_files();
	pattern_fill(key, sizeof(key), 9);
	volume_make("disk", &cbc, key);
	check_refused(&opened, "the LUKS volume on 'file' is encrypted by aes-cbc-essiv:sha256 "
			       "with a key of 256 bits: only aes-xts-plain64 with 256 or 512 is "
			       "supported");
	image = image_make(&luks1, key);
	memcpy(image.bytes + 8, "twofish", 8);
	image_close(&image);
	check_refused(&opened, "the LUKS volume on 'file' is encrypted by twofish-xts-plain64 with "
			       "a key of 512 bits: only aes-xts-plain64 with 256 or 512 is "
			       "supported");
	volume_make("disk", &luks2, key);
	assert_int_equal(crypt_init(&device, "disk"), 0);
	assert_int_equal(crypt_load(device, CRYPT_LUKS2, NULL), 0);
	assert_int_equal(crypt_keyslot_destroy(device, 0), 0);
	crypt_free(device);
	check_refused(&opened, "the LUKS header of 'file' has no key slots in use");
	scratch_leave();
}

static void test_places(void **state)
{
	const struct kind aligned = {CRYPT_LUKS1, "aes", "xts-plain64", 64, 512, 8193, false};
	struct opened opened = opened_of("disk");
	char key[64];

	(void)state;
	setup_files();
	pattern_fill(key, sizeof(key), 9);
	volume_make("disk", &aligned, key);
	opened.sector_size = "4096";
	check_refused(&opened,
		      "the data of the LUKS volume begins at byte 4194816, inside a sector "
		      "of 'file', which has 4096 bytes");
	opened.sector_size = "512";
	assert_int_equal(truncate("disk", 8193 * 512), 0);
	check_refused(&opened,
		      "the LUKS header of 'file' says that the data begins in sector 8193, "
		      "which is not inside the disk");
	assert_int_equal(truncate("disk", 8194 * 512), 0);
	run_task(open_task, &opened);
	CHECK_TEXT(opened.err.text, "");
	CHECK(opened.disk && disk_size(opened.disk) == 512);
	run_task(close_task, &opened);
	scratch_leave();
}

/* ---- Damaged headers. ---- */

static bool is_printable(const char *text)
{
	while (*text >= ' ' && *text <= '~')
		text++;
	return *text == '\0';
}

/* Opens the damaged disk: it works, or there is one sentence. Returns whether it works. */
static bool check_damage(size_t place, unsigned change)
{
	struct opened opened = opened_of("disk");
	bool works;

	check_context("byte %zu changed by %#x", place, change);
	run_task(open_task, &opened);
	works = opened.disk;
	CHECK(works == !opened.err.text[0]);
	CHECK(is_printable(opened.err.text) && !strstr(opened.err.text, "/proc/"));
	if (opened.disk)
		CHECK(disk_size(opened.disk) > 0 && disk_size(opened.disk) < SMALL_SIZE);
	run_task(close_task, &opened);
	return works;
}

/* Of the bytes of a header one in so many is changed. */
static size_t step(void)
{
	const char *is_long = getenv("LONG");

	return is_long && strcmp(is_long, "1") == 0 ? 1 : 5;
}

/* The header has no checksum. */
static void test_damaged_1(void **state)
{
	unsigned refused = 0;
	struct image image;
	char key[64];

	(void)state;
	setup_files();
	pattern_fill(key, sizeof(key), 9);
	image = image_make(&luks1, key);
	for (size_t place = 0; place < 592; place += step()) {
		image.bytes[place] ^= 0xff;
		refused += !check_damage(place, 0xff);
		image.bytes[place] ^= 0xff;
	}
	/* All but the UUID, unused slots, and what is behind the ends of strings. */
	CHECK(refused > 592 / step() / 4);
	/* The key material of the slot. */
	image.bytes[4096 + 1000] ^= 1;
	CHECK(!check_damage(4096 + 1000, 1));
	image.bytes[4096 + 1000] ^= 1;
	CHECK(check_damage(0, 0));
	image_close(&image);
	scratch_leave();
}

static void checksum_2(unsigned char *header)
{
	unsigned char digest[32];

	memset(header + CHECKSUM_2, 0, 64);
	assert_int_equal(EVP_Digest(header, HEADER_2, digest, NULL, EVP_sha256(), NULL), 1);
	memcpy(header + CHECKSUM_2, digest, sizeof(digest));
}

/* In both copies, first as it happens, then by somebody who knows of checksums. */
static void test_damaged_2(void **state)
{
	unsigned refused = 0, tried = 0;
	struct image image;
	char key[64];

	(void)state;
	setup_files();
	pattern_fill(key, sizeof(key), 9);
	image = image_make(&luks2_small, key);
	CHECK(image.bytes[HEADER_2] == 'S'); /* "SKUL" */
	image.bytes[5000] ^= 1;
	CHECK(check_damage(5000, 1)); /* there is the other copy */
	image.bytes[HEADER_2 + 5000] ^= 1;
	CHECK(!check_damage(5000, 1));
	image.bytes[5000] ^= 1;
	image.bytes[HEADER_2 + 5000] ^= 1;
	for (size_t place = 0; place < 4096 + strlen((char *)image.bytes + 4096); place += step()) {
		if (place >= 512 && place < 4096)
			continue;
		for (unsigned i = 0; i < 2; i++) {
			image.bytes[place + i * HEADER_2] ^= 1;
			checksum_2(image.bytes + i * HEADER_2);
		}
		tried++;
		refused += !check_damage(place, 1);
		for (unsigned i = 0; i < 2; i++) {
			image.bytes[place + i * HEADER_2] ^= 1;
			checksum_2(image.bytes + i * HEADER_2);
		}
	}
	CHECK(refused > tried / 2);
	CHECK(check_damage(0, 0));
	image_close(&image);
	scratch_leave();
}

/* Derivations that would take hours. */
static void test_iterations(void **state)
{
	struct opened opened = opened_of("disk");
	static const size_t places[] = {164, 212}; /* of the digest, of the first key slot */
	struct image image;
	char key[64];

	(void)state;
	setup_files();
	pattern_fill(key, sizeof(key), 9);
	image = image_make(&luks1, key);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		image.bytes[places[i]] ^= 0x80;
		check_refused(&opened, "the LUKS header of 'file' wants more than 100000000 "
				       "iterations for a key: it is taken to be damaged");
		image.bytes[places[i]] ^= 0x80;
	}
	image_close(&image);
	scratch_leave();
}

/* Disks that end early, and such as have no header at all. */
static void test_short(void **state)
{
	static const off_t sizes[] = {512, 1024, 4096, 16384, 20480, 32768, 300000, 2 << 20};
	struct opened opened = opened_of("disk");
	char key[64];

	(void)state;
	setup_files();
	pattern_fill(key, sizeof(key), 9);
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(sizes); i++) {
		volume_make("disk", i % 2 ? &luks1 : &luks2, key);
		assert_int_equal(truncate("disk", sizes[i / 2]), 0);
		CHECK(!check_damage((size_t)sizes[i / 2], 0));
	}
	assert_int_equal(truncate("disk", 0), 0);
	assert_int_equal(truncate("disk", 10 << 20), 0);
	check_refused(&opened, "there is no valid LUKS header on 'file'");
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

		probe_init(&probe, 512, DISK_SIZE / 512);
		memcpy(probe.data, image, DISK_SIZE);
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
	setup_files();
	pattern_fill(key, sizeof(key), 9);
	volume_make("disk", &luks2, key);
	image = file_read("disk", DISK_SIZE);
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
		cmocka_unit_test(test_places),	    cmocka_unit_test(test_damaged_1),
		cmocka_unit_test(test_damaged_2),   cmocka_unit_test(test_iterations),
		cmocka_unit_test(test_short),	    cmocka_unit_test(test_unreadable),
	};

	return cmocka_run_group_tests(tests, setup, teardown_workers);
}
