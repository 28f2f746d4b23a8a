// SPDX-License-Identifier: MIT
/*
 * Where keys are in memory: while a disk is open, only where no core dump looks; once it is closed,
 * nowhere. The test searches its own memory, so it must not have what it searches for: keys and
 * passphrases are made, written to files and compared a byte at a time.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/crypt/secret.h"
#include "backends/list.h"
#include "core/log.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/stacks.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* ---- A secret that is never in memory as it is. ---- */

#define MASK   0xa5
#define LENGTH 64
#define PIECE  16 /* what is searched for: any of the secret's pieces of that length */

struct masked {
	volatile unsigned char bytes[LENGTH];
};

static void masked_make(struct masked *masked)
{
	unsigned char bytes[LENGTH];

	/* Anything at random is as good with the mask as without. */
	assert_int_equal(getrandom(bytes, sizeof(bytes), 0), sizeof(bytes));
	for (unsigned i = 0; i < LENGTH; i++)
		masked->bytes[i] = bytes[i];
}

static void masked_write(const struct masked *masked, const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	for (unsigned i = 0; i < LENGTH; i++) {
		unsigned char byte = masked->bytes[i] ^ MASK;

		assert_int_equal(write(fd, &byte, 1), 1);
	}
	close(fd);
}

/* ---- The search. ---- */

struct region {
	const unsigned char *start, *end;
	bool readable, dumped, locked;
};

#define REGIONS_MAX 20000

static struct region regions[REGIONS_MAX];
static unsigned region_count;

/* The flags of a mapping in /proc/self/smaps are two letters each. */
static bool has_flag(const char *flags, const char *flag)
{
	return strstr(flags, flag) != NULL;
}

static void regions_read(void)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	char line[4096];
	struct region region = {.start = NULL};

	assert_non_null(maps);
	region_count = 0;
	while (fgets(line, sizeof(line), maps)) {
		unsigned long start, end;
		char permissions[5];

		if (sscanf(line, "%lx-%lx %4s", &start, &end, permissions) == 3) {
			region = (struct region){.start = (const unsigned char *)start,
						 .end = (const unsigned char *)end,
						 .readable = permissions[0] == 'r' &&
							     !strstr(line, "[vv")};
		} else if (strncmp(line, "VmFlags:", 8) == 0) {
			region.dumped = !has_flag(line, " dd");
			region.locked = has_flag(line, " lo");
			assert_true(region_count < REGIONS_MAX);
			regions[region_count++] = region;
		}
	}
	fclose(maps);
}

static const struct region *region_of(const void *pointer)
{
	for (unsigned i = 0; i < region_count; i++)
		if ((const unsigned char *)pointer >= regions[i].start &&
		    (const unsigned char *)pointer < regions[i].end)
			return &regions[i];
	return NULL;
}

#define UNCHECKED __attribute__((no_sanitize("address", "thread", "undefined"), noinline))

UNCHECKED static bool is_piece(const struct masked *masked, unsigned piece, const unsigned char *at)
{
	for (unsigned i = 0; i < PIECE; i++)
		if ((at[i] ^ MASK) != masked->bytes[piece * PIECE + i])
			return false;
	return true;
}

UNCHECKED static unsigned search_region(const struct masked *masked, const struct region *region)
{
	unsigned found = 0;

	for (const unsigned char *at = region->start; at + PIECE <= region->end; at++)
		for (unsigned piece = 0; piece < LENGTH / PIECE; piece++)
			found += is_piece(masked, piece, at);
	return found;
}

/* How often pieces of the secret are in memory: in all, and where core dumps look. */
static unsigned search(const struct masked *masked, unsigned *dumped)
{
	unsigned all = 0;

	*dumped = 0;
	regions_read();
	for (unsigned i = 0; i < region_count; i++) {
		const struct region *region = &regions[i];

		/* Nothing but the shadows of sanitizers is so large. */
		if (!region->readable || region->end - region->start > (ptrdiff_t)GIB)
			continue;

		unsigned found = search_region(masked, region);

		all += found;
		*dumped += region->dumped ? found : 0;
		if (found > 0 && region->dumped)
			fprintf(stderr, "%u pieces in %p-%p\n", found, (const void *)region->start,
				(const void *)region->end);
	}
	return all;
}

/* That it would be found. */
static void test_search(void **state)
{
	struct masked masked;
	unsigned dumped;
	unsigned char *copy = malloc(LENGTH);

	(void)state;
	masked_make(&masked);
	assert_int_equal(search(&masked, &dumped), 0);
	for (unsigned i = 0; i < PIECE; i++)
		copy[i + 5] = masked.bytes[PIECE + i] ^ MASK;
	assert_int_equal(search(&masked, &dumped), 1);
	assert_int_equal(dumped, 1);
	free(copy);
}

/* ---- Secrets. ---- */

static void test_secret(void **state)
{
	struct secret secret;
	const struct region *region;
	unsigned char *first, *second;

	(void)state;
	assert_int_equal(secret_init(&secret, 5000, "test"), 0);
	assert_int_equal(secret.size, 8192);
	first = secret_take(&secret, 100);
	second = secret_take(&secret, 8000);
	assert_true(first && second);
	assert_true(second >= first + 100 && (uintptr_t)second % 64 == 0);
	assert_null(secret_take(&secret, 65));
	assert_true(secret_contains(&secret, first) && secret_contains(&secret, second + 7999));
	assert_false(secret_contains(&secret, &secret));
	memset(first, 7, 100);
	regions_read();
	region = region_of(first);
	assert_true(region && !region->dumped);
#ifndef SANITIZED /* which do not let memory be locked */
	assert_true(region && region->locked == secret.locked);
#endif

	pid_t child = fork();
	int status;

	if (child == 0)
		_exit((int)bytes_differ(first, 100, 0) != 100);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(bytes_differ(first, 100, 7), 100);
	secret_destroy(&secret);
	secret_destroy(&secret);
	assert_null(secret.memory);
}

/* ---- Disks. ---- */

struct opened {
	const char *options[3][2];
	const char *path;
	struct disk *below, *disk;
};

/* Opens a crypt, and uses it. */
static void open_task(void *argument)
{
	struct opened *opened = argument;
	const char *const file[][2] = {{"path", opened->path}};
	struct err err = {.text = ""};
	static char data[64 * KIB];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	opened->below = driver_open(driver_find("file"), file, 1, 0, NULL, &err);
	if (CHECK(opened->below))
		opened->disk =
			driver_open(driver_find("crypt"), (const char *const(*)[2])opened->options,
				    ARRAY_SIZE(opened->options), 0, opened->below, &err);
	CHECK_TEXT(err.text, "");
	if (!opened->disk)
		return;
	CHECK_OK(disk_write(opened->disk, &sg, 1, 0));
	CHECK_OK(disk_read(opened->disk, &sg, 0));
	CHECK_OK(disk_flush(opened->disk));
}

static void close_task(void *argument)
{
	struct opened *opened = argument;

	disk_close(opened->disk);
	disk_close(opened->below);
}

/* The key is in memory while the disk is open, but not in what is dumped; then it is gone. */
static void check_disk(struct opened *opened, const struct masked *key,
		       const struct masked *passphrase)
{
	unsigned dumped;

	run_task(open_task, opened);
	assert_true(search(key, &dumped) >= 4);
	assert_int_equal(dumped, 0);
	if (passphrase) {
		assert_int_equal(search(passphrase, &dumped), 0);
		assert_int_equal(dumped, 0);
	}
	run_task(close_task, opened);
	assert_int_equal(search(key, &dumped), 0);
}

static void test_raw(void **state)
{
	struct opened opened = {.options = {{"key_file", "key"}}, .path = "disk"};
	struct masked key;

	(void)state;
	scratch_enter();
	masked_make(&key);
	masked_write(&key, "key");
	scratch_write("disk", "", 0);
	assert_int_equal(truncate("disk", 1 << 20), 0);
	check_disk(&opened, &key, NULL);
	scratch_leave();
}

/* A key that is refused leaves nothing behind either. */
static void refused_task(void *argument)
{
	const char *const file[][2] = {{"path", "disk"}};
	const char *const crypt[][2] = {{"key_file", "key"}};
	struct err err = {.text = ""};
	struct disk *below = driver_open(driver_find("file"), file, 1, 0, NULL, &err);

	(void)argument;
	CHECK(!driver_open(driver_find("crypt"), crypt, 1, 0, below, &err));
	CHECK_TEXT(err.text, "'key' has 65 bytes: a key is 64 bytes, or 128 hexadecimal digits");
	disk_close(below);
}

static void test_refused(void **state)
{
	struct masked key;
	unsigned dumped;
	FILE *file;

	(void)state;
	scratch_enter();
	masked_make(&key);
	masked_write(&key, "key");
	file = fopen("key", "ae");
	fputc('\n', file);
	fclose(file);
	scratch_write("disk", "", 0);
	assert_int_equal(truncate("disk", 1 << 20), 0);
	run_task(refused_task, NULL);
	assert_int_equal(search(&key, &dumped), 0);
	scratch_leave();
}

/* Another process, so that what formats the volume leaves nothing here. */
static void luks_format(const char *type)
{
	char command[256];

	snprintf(command, sizeof(command),
		 "PATH=$PATH:/usr/sbin cryptsetup luksFormat -q --type %s --volume-key-file key "
		 "--key-size 512 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 disk pass",
		 type);
	assert_int_equal(system(command), 0);
}

static void check_luks(const char *type)
{
	struct opened opened = {.options = {{"format", "luks"}, {"key_file", "pass"}},
				.path = "disk"};
	struct masked key, passphrase;

	scratch_enter();
	masked_make(&key);
	masked_make(&passphrase);
	masked_write(&key, "key");
	masked_write(&passphrase, "pass");
	scratch_write("disk", "", 0);
	assert_int_equal(truncate("disk", 20 << 20), 0);
	luks_format(type);
	check_disk(&opened, &key, &passphrase);
	scratch_leave();
}

static void test_luks1(void **state)
{
	(void)state;
	check_luks("luks1");
}

static void test_luks2(void **state)
{
	(void)state;
	check_luks("luks2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_search), cmocka_unit_test(test_secret),
		cmocka_unit_test(test_raw),    cmocka_unit_test(test_refused),
		cmocka_unit_test(test_luks1),  cmocka_unit_test(test_luks2),
	};

	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
