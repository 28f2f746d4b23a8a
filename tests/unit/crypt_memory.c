// SPDX-License-Identifier: MIT
/*
 * Where keys are in memory: while a disk is open, only where it is locked and no core dump looks;
 * once it is closed, nowhere. That is so for all that gives the key away: the key and the round keys
 * that AES expands it to, the passphrase, the key that it opens a key slot with, and the round keys
 * of that.
 *
 * The test searches its own memory (tests/lib/search.h), so it must not have what it searches for.
 * What has to be derived, another process derives: this program, called with other arguments.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* AES_set_encrypt_key() */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <openssl/aes.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/crypt/confine.h"
#include "backends/secret/secret.h"
#include "backends/list.h"
#include "core/log.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/probe.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/search.h"
#include "tests/lib/stacks.h"

#define LENGTH 64 /* of a key, and of a passphrase */

/* ---- Deriving, in another process. ---- */

/* What the other process makes, in a file. */
struct derived {
	struct search key;	  /* and its round keys */
	struct search passphrase; /* the same of what the passphrase gives */
};

static void file_read(const char *name, void *content, size_t length, off_t at)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || pread(fd, content, length, at) != (ssize_t)length)
		exit(EXIT_FAILURE);
	close(fd);
}

/* As the words of the processor, and as bytes: some implementations swap them. */
static void add_round_keys(struct search *search, const AES_KEY *schedule)
{
	size_t length = 16 * ((size_t)schedule->rounds + 1);
	uint32_t swapped[60];

	for (size_t i = 0; i < length / 4; i++)
		swapped[i] = ntohl(schedule->rd_key[i]);
	search_add(search, schedule->rd_key, length);
	search_add(search, swapped, length);
}

static void add_key(struct search *search, const unsigned char *key)
{
	AES_KEY schedule;

	search_add(search, key, LENGTH);
	for (unsigned half = 0; half < 2; half++) {
		AES_set_encrypt_key(key + half * LENGTH / 2, LENGTH / 2 * 8, &schedule);
		add_round_keys(search, &schedule);
		AES_set_decrypt_key(key + half * LENGTH / 2, LENGTH / 2 * 8, &schedule);
		add_round_keys(search, &schedule);
	}
}

/* Of a key slot. */
struct derivation {
	bool is_argon2id;
	unsigned iterations, memory_kib, lanes;
	unsigned char salt[64];
	size_t salt_length;
};

static void read_luks1(struct derivation *derivation)
{
	uint32_t iterations;

	file_read("disk", &iterations, sizeof(iterations), 212);
	file_read("disk", derivation->salt, 32, 216);
	derivation->salt_length = 32;
	derivation->iterations = ntohl(iterations);
}

/* The number or string behind the first @name in the JSON @text. */
static const char *json_find(const char *text, const char *name)
{
	const char *found = strstr(text, name);

	return found ? found + strlen(name) : "";
}

/* JSON hides the slashes of base64. */
static size_t base64_decode(const char *text, unsigned char *bytes)
{
	unsigned char plain[128];
	int length = 0, padding = 0;

	for (; *text && *text != '"' && length < (int)sizeof(plain); text++) {
		if (*text != '\\')
			plain[length++] = (unsigned char)*text;
		padding += *text == '=';
	}
	length = EVP_DecodeBlock(bytes, plain, length);
	return length > padding ? (size_t)(length - padding) : 0;
}

static void read_luks2(struct derivation *derivation)
{
	static char text[12 * KIB + 1];

	file_read("disk", text, sizeof(text) - 1, 4096);
	text[sizeof(text) - 1] = '\0';
	derivation->is_argon2id = strstr(text, "\"argon2id\"");
	derivation->salt_length = base64_decode(json_find(text, "\"salt\":\""), derivation->salt);
	derivation->iterations = (unsigned)atoi(
		json_find(text, derivation->is_argon2id ? "\"time\":" : "\"iterations\":"));
	derivation->memory_kib = (unsigned)atoi(json_find(text, "\"memory\":"));
	derivation->lanes = (unsigned)atoi(json_find(text, "\"cpus\":"));
}

/* Of libargon2, which libcryptsetup may bring along. */
typedef int argon2_function(uint32_t time, uint32_t memory, uint32_t lanes, const void *password,
			    size_t password_length, const void *salt, size_t salt_length, void *key,
			    size_t key_length);

static bool derive_slot_key(const struct derivation *derivation, const unsigned char *passphrase,
			    unsigned char *key)
{
	argon2_function *argon2 = (argon2_function *)dlsym(RTLD_DEFAULT, "argon2id_hash_raw");

	if (!derivation->is_argon2id)
		return PKCS5_PBKDF2_HMAC((const char *)passphrase, LENGTH, derivation->salt,
					 (int)derivation->salt_length, (int)derivation->iterations,
					 EVP_sha256(), LENGTH, key) == 1;
	if (!argon2) {
		fprintf(stderr, "without libargon2 the key of the key slot is not searched for\n");
		return false;
	}
	return argon2(derivation->iterations, derivation->memory_kib, derivation->lanes, passphrase,
		      LENGTH, derivation->salt, derivation->salt_length, key, LENGTH) == 0;
}

/* The other process: reads the files, and leaves all that is derived from them, masked. */
static int derive_main(const char *type)
{
	static struct derived derived;
	struct derivation derivation = {.iterations = 0};
	unsigned char key[LENGTH], passphrase[LENGTH];

	file_read("key", key, LENGTH, 0);
	add_key(&derived.key, key);
	if (strcmp(type, "raw") != 0) {
		if (strcmp(type, "luks1") == 0)
			read_luks1(&derivation);
		else
			read_luks2(&derivation);
		file_read("pass", passphrase, LENGTH, 0);
		search_add(&derived.passphrase, passphrase, LENGTH);
		if (derive_slot_key(&derivation, passphrase, key))
			add_key(&derived.passphrase, key);
	}
	scratch_write("derived", &derived, sizeof(derived));
	return EXIT_SUCCESS;
}

/* The same for the test. */
static void derive(const char *type, struct derived *derived)
{
	char program[4096], command[4200];
	ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);

	assert_true(length > 0);
	program[length] = '\0';
	snprintf(command, sizeof(command), "'%s' derive %s", program, type);
	assert_int_equal(system(command), 0);
	file_read("derived", derived, sizeof(*derived), 0);
}

/* ---- The search. ---- */

/* That it would be found. */
static void test_search(void **state)
{
	struct search search = {.count = 0};
	struct search_found found;
	unsigned char *copy = malloc(LENGTH);

	(void)state;
	scratch_enter();
	search_add_random(&search, LENGTH, "key");
	assert_int_equal(search_memory(&search).all, 0);
	search_copy(&search, copy + 5, 2);
	found = search_memory(&search);
	assert_int_equal(found.all, 2);
	assert_int_equal(found.dumped, 2);
	assert_int_equal(found.unlocked, 2);
	free(copy);
	scratch_leave();
}

/* ---- Secrets. ---- */

static void test_secret(void **state)
{
	struct secret secret;
	struct search_mapping mapping;
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
	mapping = search_mapping_of(first);
	assert_true(mapping.start && !mapping.dumped);
#ifndef SANITIZED /* which do not let memory be locked */
	assert_true(mapping.locked == secret.locked);
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

/* Whether secrets are locked: sanitizers do not let memory be locked, nor may everybody. */
static bool may_lock(void)
{
	struct secret secret;
	bool locked;

	assert_int_equal(secret_init(&secret, 1, "test"), 0);
	locked = search_mapping_of(secret.memory).locked;
	secret_destroy(&secret);
	return locked;
}

/* ---- Code that leaves copies. ---- */

#define HELPERS 3

struct leaving {
	struct search search;
	struct search_mapping stack;
	unsigned filter; /* of core dumps */
	pthread_barrier_t barrier;
};

static unsigned dump_filter(void)
{
	FILE *file = fopen("/proc/self/coredump_filter", "re");
	unsigned filter = 0;

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%x", &filter), 1);
	fclose(file);
	return filter;
}

/* Deep enough that nothing else comes there. */
UNCHECKED static void leave_on_stack(struct leaving *leaving)
{
	unsigned char copy[8 * KIB];

	search_copy(&leaving->search, copy, LENGTH / SEARCH_WORD);
}

static void *helper_main(void *argument)
{
	struct leaving *leaving = argument;

	pthread_barrier_wait(&leaving->barrier); /* each has a stack of its own */
	leave_on_stack(leaving);
	return NULL;
}

static void leave_copies(void *argument)
{
	struct leaving *leaving = argument;
	pthread_t helpers[HELPERS];

	leave_on_stack(leaving);
	leaving->stack = search_mapping_of(helpers);
	leaving->filter = dump_filter();
	pthread_barrier_init(&leaving->barrier, NULL, HELPERS);
	for (unsigned i = 0; i < HELPERS; i++)
		CHECK_EQ(pthread_create(&helpers[i], NULL, helper_main, leaving), 0);
	for (unsigned i = 0; i < HELPERS; i++)
		CHECK_EQ(pthread_join(helpers[i], NULL), 0);
	pthread_barrier_destroy(&leaving->barrier);
}

static void *leave_main(void *argument)
{
	leave_copies(argument);
	return NULL;
}

/* What threads leave is found; where they are confined it is not, and what was there has gone, too. */
static void test_confine(void **state)
{
	static struct leaving leaving;
	unsigned filter = dump_filter();
	pthread_t thread;

	(void)state;
	scratch_enter();
	search_add_random(&leaving.search, LENGTH, "key");
	assert_int_equal(pthread_create(&thread, NULL, leave_main, &leaving), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(leaving.stack.dumped && !leaving.stack.locked);
	assert_int_equal(leaving.filter, filter);
	assert_true(search_memory(&leaving.search).all >= (1 + HELPERS) * LENGTH / SEARCH_WORD);

	assert_int_equal(confine(leave_copies, &leaving, "test"), 0);
	assert_true(leaving.stack.start && !leaving.stack.dumped);
	assert_true(leaving.stack.locked == may_lock());
	assert_int_equal(leaving.filter, filter & ~3U);
	assert_int_equal(search_memory(&leaving.search).all, 0);
	assert_int_equal(dump_filter(), filter);
	check_finish();
	scratch_leave();
}

static void set_flag(void *argument)
{
	*(bool *)argument = true;
}

/* Without address space for a stack nothing is called, and core dumps are as they were. */
static void test_confine_without_memory(void **state)
{
	struct rlimit before, none;
	unsigned filter = dump_filter();
	bool called = false;
	int error;

	(void)state;
#ifdef SANITIZED
	skip(); /* they need memory themselves */
#endif
	assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
	error = confine(set_flag, &called, "test");
	assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
	assert_true(error > 0);
	assert_false(called);
	assert_int_equal(dump_filter(), filter);
	assert_int_equal(confine(set_flag, &called, "test"), 0);
	assert_true(called);
}

/* ---- Disks. ---- */

struct opened {
	const char *options[3][2];
	struct disk *below, *disk;
};

/* Opens a crypt, and uses it. */
static void open_task(void *argument)
{
	struct opened *opened = argument;
	const char *const file[][2] = {{"path", "disk"}};
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

static void make_disk(void)
{
	scratch_write("disk", "", 0);
	assert_int_equal(truncate("disk", 20 << 20), 0);
}

/* The key is in memory while the disk is open, but locked and not dumped; then it is gone. */
static void check_disk(const char *type, struct opened *opened)
{
	static struct derived derived;
	struct search_found found;

	derive(type, &derived);
	run_task(open_task, opened);
	found = search_memory(&derived.key);
	assert_true(found.all >= LENGTH / SEARCH_WORD);
	assert_int_equal(found.dumped, 0);
	assert_true(found.unlocked == 0 || !may_lock());
	assert_int_equal(search_memory(&derived.passphrase).all, 0);
	run_task(close_task, opened);
	assert_int_equal(search_memory(&derived.key).all, 0);
	assert_int_equal(search_memory(&derived.passphrase).all, 0);
}

static void test_raw(void **state)
{
	struct opened opened = {.options = {{"key_file", "key"}}};
	struct search key = {.count = 0};

	(void)state;
	scratch_enter();
	search_add_random(&key, LENGTH, "key");
	make_disk();
	check_disk("raw", &opened);
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
	struct search key = {.count = 0};
	FILE *file;

	(void)state;
	scratch_enter();
	search_add_random(&key, LENGTH, "key");
	file = fopen("key", "ae");
	fputc('\n', file);
	fclose(file);
	make_disk();
	run_task(refused_task, NULL);
	assert_int_equal(search_memory(&key).all, 0);
	scratch_leave();
}

/* ---- LUKS volumes. ---- */

/* Another process, so that what formats the volume leaves nothing here. */
static void luks_format(const char *type, const char *pbkdf)
{
	struct search random = {.count = 0};
	char command[400];

	search_add_random(&random, LENGTH, "key");
	search_add_random(&random, LENGTH, "pass");
	make_disk();
	snprintf(command, sizeof(command),
		 "PATH=$PATH:/usr/sbin cryptsetup luksFormat -q --type %s --volume-key-file key "
		 "--key-size 512 --pbkdf %s disk pass",
		 type, pbkdf);
	assert_int_equal(system(command), 0);
}

#define PBKDF2	 "pbkdf2 --pbkdf-force-iterations 1000"
#define ARGON2ID "argon2id --pbkdf-force-iterations 4 --pbkdf-memory 1024 --pbkdf-parallel "

static const struct {
	const char *type, *pbkdf;
} volumes[] = {
	{"luks1", PBKDF2},
	{"luks2", PBKDF2},
	{"luks2", ARGON2ID "1"},
	{"luks2", ARGON2ID "4"},
};

static void test_luks(void **state)
{
	struct opened opened = {.options = {{"format", "luks"}, {"key_file", "pass"}}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(volumes); i++) {
		check_context("%s, %s", volumes[i].type, volumes[i].pbkdf);
		scratch_enter();
		luks_format(volumes[i].type, volumes[i].pbkdf);
		check_disk(volumes[i].type, &opened);
		scratch_leave();
	}
}

/* A passphrase that opens nothing leaves nothing either. */
static void wrong_task(void *argument)
{
	const char *const file[][2] = {{"path", "disk"}};
	const char *const crypt[][2] = {{"format", "luks"}, {"key_file", "pass"}};
	struct err err = {.text = ""};
	struct disk *below = driver_open(driver_find("file"), file, 1, 0, NULL, &err);

	(void)argument;
	CHECK(!driver_open(driver_find("crypt"), crypt, 2, 0, below, &err));
	CHECK(strstr(err.text, "opens no key slot"));
	disk_close(below);
}

static void test_wrong_passphrase(void **state)
{
	static struct derived derived;
	struct search other = {.count = 0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(volumes); i++) {
		check_context("%s, %s", volumes[i].type, volumes[i].pbkdf);
		scratch_enter();
		luks_format(volumes[i].type, volumes[i].pbkdf);
		search_add_random(&other, LENGTH, "pass");
		derive(volumes[i].type, &derived);
		run_task(wrong_task, NULL);
		assert_int_equal(search_memory(&derived.passphrase).all, 0);
		scratch_leave();
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_search),	cmocka_unit_test(test_secret),
		cmocka_unit_test(test_confine), cmocka_unit_test(test_confine_without_memory),
		cmocka_unit_test(test_raw),	cmocka_unit_test(test_refused),
		cmocka_unit_test(test_luks),	cmocka_unit_test(test_wrong_passphrase),
	};

	if (argc == 3 && strcmp(argv[1], "derive") == 0)
		return derive_main(argv[2]);
	return cmocka_run_group_tests(tests, setup_2_workers, teardown_workers);
}
