// SPDX-License-Identifier: MIT
#include "tests/lib/luks.h"

#include <fcntl.h>
#include <libcryptsetup.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/list.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/stacks.h"

const struct luks_kind luks1 = {CRYPT_LUKS1, "aes", "xts-plain64", 64, 512, 0, false, false};
const struct luks_kind luks2 = {CRYPT_LUKS2, "aes", "xts-plain64", 64, 512, 0, false, false};
const struct luks_kind luks2_4096 = {CRYPT_LUKS2, "aes", "xts-plain64", 64, 4096, 0, false, false};
const struct luks_kind luks2_small = {CRYPT_LUKS2, "aes", "xts-plain64", 64, 512, 0, true, false};
const struct luks_kind luks2_argon2id = {CRYPT_LUKS2, "aes", "xts-plain64", 64, 512, 0, true, true};

void luks_make(const struct luks_kind *kind, const char *key)
{
	struct crypt_pbkdf_type pbkdf = {.type = CRYPT_KDF_PBKDF2,
					 .hash = "sha256",
					 .iterations = 1000,
					 .flags = CRYPT_PBKDF_NO_BENCHMARK};
	struct crypt_pbkdf_type argon2id = {.type = CRYPT_KDF_ARGON2ID,
					    .hash = "sha256",
					    .iterations = 4,
					    .max_memory_kb = 32,
					    .parallel_threads = 1,
					    .flags = CRYPT_PBKDF_NO_BENCHMARK};
	struct crypt_params_luks1 params1 = {.hash = "sha256",
					     .data_alignment = kind->data_alignment};
	struct crypt_params_luks2 params2 = {.sector_size = kind->sector_size};
	bool is_1 = strcmp(kind->type, CRYPT_LUKS1) == 0;
	struct crypt_device *device;

	if (kind->argon2id)
		pbkdf = argon2id;
	params2.pbkdf = &pbkdf;
	scratch_write("disk", "", 0);
	assert_int_equal(truncate("disk", LUKS_DISK_SIZE), 0);
	assert_int_equal(crypt_init(&device, "disk"), 0);
	assert_int_equal(crypt_set_pbkdf_type(device, &pbkdf), 0);
	if (kind->small)
		assert_int_equal(crypt_set_metadata_size(device, LUKS2_HEADER, 512 * KIB), 0);
	assert_int_equal(crypt_format(device, kind->type, kind->cipher, kind->mode, NULL, key,
				      kind->key_size, is_1 ? (void *)&params1 : (void *)&params2),
			 0);
	assert_int_equal(crypt_keyslot_add_by_volume_key(device, 0, key, kind->key_size,
							 LUKS_PASSPHRASE, strlen(LUKS_PASSPHRASE)),
			 0);
	crypt_free(device);
}

void luks_enter(void)
{
	scratch_enter();
	scratch_write("pass", LUKS_PASSPHRASE "\nanother line\n", strlen(LUKS_PASSPHRASE) + 14);
	scratch_write("exact", LUKS_PASSPHRASE, strlen(LUKS_PASSPHRASE));
}

struct luks_image luks_image_make(const struct luks_kind *kind, const char *key)
{
	struct luks_image image;

	luks_make(kind, key);
	image.fd = open("disk", O_RDWR | O_CLOEXEC);
	assert_int_equal(ftruncate(image.fd, LUKS_SMALL_SIZE), 0);
	image.bytes = mmap(NULL, LUKS_SMALL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, image.fd, 0);
	assert_true(image.bytes != MAP_FAILED);
	return image;
}

void luks_image_close(struct luks_image *image)
{
	munmap(image->bytes, LUKS_SMALL_SIZE);
	close(image->fd);
}

/* ---- Disks. ---- */

void luks_open_task(void *argument)
{
	struct luks_opened *opened = argument;
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

void luks_close_task(void *argument)
{
	struct luks_opened *opened = argument;

	disk_close(opened->disk);
	disk_close(opened->below);
}

struct luks_opened luks_opened_of(void)
{
	return (struct luks_opened){
		.path = "disk", .sector_size = "512", .option = "passphrase_file", .file = "pass"};
}

void luks_check_refused(struct luks_opened *opened, const char *error)
{
	run_task(luks_open_task, opened);
	CHECK(!opened->disk);
	CHECK_TEXT(opened->err.text, error);
	run_task(luks_close_task, opened);
}
