// SPDX-License-Identifier: MIT
/*
 * The state file of prwrap: what survives, what each kind of damage comes to, who may have it, and
 * what happens where it cannot be written.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/list.h"
#include "backends/prwrap/state_text.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/share.h"
#include "tests/lib/stacks.h"

#define COUNT 64
#define STATE "pr.state"

/* Written by hand, with the checksum by zlib's crc32(). */
static const char known[] = "diskfs reservations 1\n"
			    "persist yes\n"
			    "registrant 0x00000000000000a1 a\n"
			    "registrant 0xffffffffffffffff c\n"
			    "registrant 0x0000000000000007 no port.img\n"
			    "reservation exclusive-access c\n"
			    "checksum 0x91a50e26\n";

static void read_state(char *text, size_t size, size_t *length)
{
	FILE *in = fopen(STATE, "r");

	*length = in ? fread(text, 1, size - 1, in) : 0;
	text[*length] = '\0';
	if (in)
		fclose(in);
}

static void check_state(const char *wanted)
{
	char text[2000];
	size_t length;

	read_state(text, sizeof(text), &length);
	CHECK_TEXT(text, wanted);
}

/* Opens a prwrap with STATE; what it says where it does not. */
static bool opens(unsigned flags, struct err *err)
{
	static const char *const options[][2] = {{"state_file", STATE}};
	struct disk *below, *disk;
	struct probe probe;

	*err = (struct err){.text = ""};
	probe_init(&probe, 512, COUNT);
	below = probe_open(&probe, 0, NULL, err);
	disk = driver_open(driver_find("prwrap"), options, 1, flags, below, err);
	disk_close(disk);
	disk_close(below);
	probe_destroy(&probe);
	return disk != NULL;
}

/* ---- What survives. ---- */

static void check_survives(enum pr_type type, unsigned flags)
{
	struct share share;
	char before[200], after[200];

	unlink(STATE);
	check_context("%s, %x", share_types[type], flags);
	if (!share_open(&share, COUNT, STATE))
		return;
	CHECK_OK(share_register(&share, 1, 0, 0xb, PR_SET_PTPL));
	CHECK_OK(share_register(&share, 3, 0, UINT64_MAX, 0));
	if (type != PR_NONE)
		CHECK_OK(share_reserve(&share, 3, UINT64_MAX, type));
	CHECK_OK(share_register(&share, 1, 0xb, 0xb, flags));
	share_describe(&share, before);
	share_close(&share);
	if (!share_open(&share, COUNT, STATE))
		return;
	share_describe(&share, after);
	/* The generation begins anew. */
	CHECK_EQ(before[0], '3');
	before[0] = '0';
	CHECK_TEXT(after, flags & PR_CLEAR_PTPL ? "0 - none" : before);
	share_close(&share);
}

static void test_survives_task(void *argument)
{
	(void)argument;
	for (unsigned type = 0; type < PR_TYPES; type++) {
		check_survives((enum pr_type)type, 0);
		check_survives((enum pr_type)type, PR_SET_PTPL);
		check_survives((enum pr_type)type, PR_CLEAR_PTPL);
	}
}
RUN_IN_TASK(test_survives)

static ino_t inode(void)
{
	struct stat stat = {.st_ino = 0};

	CHECK_EQ(lstat(STATE, &stat), 0);
	return stat.st_ino;
}

/* The file follows every change, and is left alone by what changes nothing in it. */
static void test_follows_task(void *argument)
{
	struct share share;
	struct stat stat;
	ino_t before;

	(void)argument;
	unlink(STATE);
	if (!share_open(&share, COUNT, STATE))
		return;
	check_state("diskfs reservations 1\npersist no\nchecksum 0xeb9a2cfc\n");
	before = inode();
	CHECK_OK(share_register(&share, 0, 0, 1, 0)); /* without persistence */
	CHECK_EQ(inode(), before);
	CHECK_OK(share_register(&share, 0, 1, 0xa1, PR_SET_PTPL));
	CHECK(inode() != before);
	CHECK_OK(share_register(&share, 2, 0, UINT64_MAX, 0));
	before = inode();
	CHECK_OK(share_register(&share, 2, UINT64_MAX, UINT64_MAX, PR_SET_PTPL));
	CHECK_KIND(share_reserve(&share, 2, 1, PR_EXCLUSIVE_ACCESS), ERROR_RESERVATION_CONFLICT);
	CHECK_EQ(inode(), before);
	CHECK_OK(share_reserve(&share, 2, UINT64_MAX, PR_EXCLUSIVE_ACCESS));
	check_state("diskfs reservations 1\npersist yes\n"
		    "registrant 0x00000000000000a1 a\nregistrant 0xffffffffffffffff c\n"
		    "reservation exclusive-access c\nchecksum 0x35d016a6\n");
	CHECK_EQ(lstat(STATE, &stat), 0);
	CHECK_EQ(stat.st_mode, S_IFREG | 0600);
	CHECK_OK(share_register(&share, 2, UINT64_MAX, 0, PR_CLEAR_PTPL));
	check_state("diskfs reservations 1\npersist no\nchecksum 0xeb9a2cfc\n");
	CHECK(access(STATE ".new", F_OK) < 0);
	share_close(&share);
}
RUN_IN_TASK(test_follows)

/* Somebody who has no port now keeps what is theirs, also when the file is written anew. */
static void test_known_task(void *argument)
{
	struct share share;
	char text[2000];
	size_t length;

	(void)argument;
	scratch_write(STATE, known, sizeof(known) - 1);
	if (!share_open(&share, COUNT, STATE))
		return;
	CHECK_KIND(disk_flush(share.ports[0]), ERROR_RESERVATION_CONFLICT);
	CHECK_OK(disk_flush(share.ports[2]));
	CHECK_OK(share_register(&share, 1, 0, 0xb, 0));
	read_state(text, sizeof(text), &length);
	CHECK(strstr(text, "registrant 0x0000000000000007 no port.img\n"));
	CHECK(strstr(text, "registrant 0x000000000000000b b\n"));
	CHECK_OK(share_preempt(&share, 1, 0xb, 7, PR_NONE, 0));
	read_state(text, sizeof(text), &length);
	CHECK(!strstr(text, "no port.img"));
	share_close(&share);
}
RUN_IN_TASK(test_known)

/* ---- Damage. ---- */

static void check_refused(const char *text, size_t length, const char *what)
{
	struct err err;

	scratch_write(STATE, text, length);
	if (!CHECK(!opens(0, &err)))
		return;
	CHECK_TEXT(err.key, "state_file");
	/* The file, the place, the reason, and what to do. */
	if (!CHECK(strncmp(err.text, "'" STATE "': line ", strlen("'" STATE "': line ")) == 0) ||
	    !CHECK(strstr(err.text, "(remove it to start without reservations)")) ||
	    !CHECK(strstr(err.text, what)))
		fprintf(stderr, "wanted '%s' in '%s'\n", what, err.text);
}

static void test_damaged_task(void *argument)
{
	char text[sizeof(known) + 100];
	size_t length = sizeof(known) - 1;

	(void)argument;
	for (size_t i = 0; i < length; i++) {
		static const unsigned char flips[] = {0x01, 0x20, 0x80, 0xff};

		for (unsigned j = 0; j < ARRAY_SIZE(flips); j++) {
			check_context("byte %zu by %x", i, flips[j]);
			memcpy(text, known, length);
			text[i] = (char)(text[i] ^ flips[j]);
			check_refused(text, length, "");
		}
		check_context("without byte %zu", i);
		memcpy(text, known, i);
		memcpy(text + i, known + i + 1, length - i - 1);
		check_refused(text, length - 1, "");
		check_context("cut at %zu", i);
		check_refused(known, i, "");
		check_context("zeros from %zu", i);
		memcpy(text, known, i);
		memset(text + i, 0, length - i);
		check_refused(text, length, "");
	}
	check_context("something behind the end");
	snprintf(text, sizeof(text), "%s\n", known);
	check_refused(text, length + 1, "");
	snprintf(text, sizeof(text), "%s%s", known, "checksum 0x00000000\n");
	check_refused(text, strlen(text), "");
}
RUN_IN_TASK(test_damaged)

/* Another way to reckon it than the driver's: by a table of nibbles. */
static uint32_t crc32_of(const char *data, size_t length)
{
	uint32_t table[16], crc = ~0U;

	for (uint32_t i = 0; i < 16; i++) {
		table[i] = i;
		for (unsigned bit = 0; bit < 4; bit++)
			table[i] = table[i] & 1 ? table[i] >> 1 ^ 0xedb88320U : table[i] >> 1;
	}
	for (size_t i = 0; i < length; i++) {
		crc = table[(crc ^ (unsigned char)data[i]) & 15] ^ crc >> 4;
		crc = table[(crc ^ (unsigned char)data[i] >> 4) & 15] ^ crc >> 4;
	}
	return ~crc;
}

#define HEAD  "diskfs reservations 1\npersist yes\n"
#define REG_A "registrant 0x0000000000000001 a\n"

/* With a checksum that is right. */
static const struct {
	const char *text, *what; /* NULL: it is good */
} wrong[] = {
	{HEAD, NULL},
	{HEAD REG_A, NULL},
	{HEAD REG_A "reservation write-exclusive a\n", NULL},
	{HEAD REG_A "reservation write-exclusive-all-registrants\n", NULL},
	{"diskfs reservations 1\npersist no\n", NULL},
	{"", "line 1: it does not begin with 'diskfs reservations '"},
	{"diskfs reservations 1\n", "line 2: it is too short"},
	{"diskfs reservations 2\npersist yes\n", "line 1: its version is not 1"},
	{"diskfs reservations 10\npersist yes\n", "line 1: its version is not 1"},
	{"diskfs reservations \npersist yes\n", "line 1: its version is not 1"},
	{"[diskfs]\n", "line 1: it does not begin with 'diskfs reservations '"},
	{"diskfs reservations 1\npersist maybe\n", "line 2: it must be 'persist yes' or"},
	{"diskfs reservations 1\n" REG_A, "line 2: it must be 'persist yes' or"},
	{"diskfs reservations 1\npersist no\n" REG_A, "line 3: nothing may follow here"},
	{HEAD "\n", "line 3: its first word is unknown"},
	{HEAD "registrants 0x0000000000000001 a\n", "line 3: its first word is unknown"},
	{HEAD "registrant 0x0000000000000000 a\n", "line 3: a registrant has no valid key"},
	{HEAD "registrant 0x000000000000001 a\n", "line 3: a registrant has no valid key"},
	{HEAD "registrant 0x00000000000000001 a\n", "line 3: a registrant has no valid key"},
	{HEAD "registrant 0x000000000000000A a\n", "line 3: a registrant has no valid key"},
	{HEAD "registrant 1 a\n", "line 3: a registrant has no valid key"},
	{HEAD "registrant \n", "line 3: a registrant has no valid key"},
	{HEAD "registrant 0x0000000000000001 \n", "line 3: a registrant has no valid name"},
	{HEAD "registrant 0x0000000000000001\n", "line 3: a registrant has no valid key"},
	{HEAD REG_A REG_A, "line 4: a registrant is repeated"},
	{HEAD REG_A "reservation none\n", "line 4: the reservation has no valid type"},
	{HEAD REG_A "reservation none a\n", "line 4: the reservation has no valid type"},
	{HEAD REG_A "reservation write a\n", "line 4: the reservation has no valid type"},
	{HEAD REG_A "reservation \n", "line 4: the reservation has no valid type"},
	{HEAD REG_A "reservation write-exclusive\n", "line 4: the reservation has no valid holder"},
	{HEAD REG_A "reservation write-exclusive b\n",
	 "line 4: the reservation has no valid holder"},
	{HEAD REG_A "reservation write-exclusive-all-registrants a\n",
	 "line 4: the reservation has no valid holder"},
	{HEAD "reservation write-exclusive-all-registrants\n",
	 "line 3: the reservation has no valid holder"},
	{HEAD "reservation write-exclusive a\n" REG_A, "line 3: the reservation has no valid"},
	{HEAD REG_A "reservation write-exclusive a\nreservation write-exclusive a\n",
	 "line 5: nothing may follow here"},
};

static void test_wrong_task(void *argument)
{
	char text[1000];
	struct err err;

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		check_context("%s", wrong[i].text);
		snprintf(text, sizeof(text), "%schecksum 0x%08" PRIx32 "\n", wrong[i].text,
			 crc32_of(wrong[i].text, strlen(wrong[i].text)));
		if (wrong[i].what) {
			check_refused(text, strlen(text), wrong[i].what);
			continue;
		}
		scratch_write(STATE, text, strlen(text));
		CHECK(opens(0, &err));
		CHECK_TEXT(err.text, "");
	}
	check_context("others");
	check_refused("", 0, "line 1: the file is empty");
	check_refused("x", 1, "line 1: the file does not end with a newline: it is cut off");
	check_refused(HEAD, strlen(HEAD), "line 2: the last line is no checksum");
	check_refused(HEAD "checksum 0x12345678\n", strlen(HEAD) + 20,
		      "line 3: the checksum does not match: the file is damaged");
}
RUN_IN_TASK(test_wrong)

/* As many registrants as there is room for, and one more. */
static void test_many_task(void *argument)
{
	char text[20000];
	struct err err;

	(void)argument;
	for (unsigned count = NEXUS_MAX; count <= NEXUS_MAX + 1; count++) {
		size_t length = (size_t)snprintf(text, sizeof(text), HEAD);

		for (unsigned i = 0; i < count; i++)
			length += (size_t)snprintf(text + length, sizeof(text) - length,
						   "registrant 0x%016x %u.img\n", i + 1, i);
		length += (size_t)snprintf(text + length, sizeof(text) - length,
					   "checksum 0x%08" PRIx32 "\n", crc32_of(text, length));
		if (count > NEXUS_MAX) {
			check_refused(text, length, "line 131: there are too many registrants");
			continue;
		}
		scratch_write(STATE, text, length);
		CHECK(opens(0, &err));
		CHECK_TEXT(err.text, "");
	}
}
RUN_IN_TASK(test_many)

/* ---- Who may have it, and where it cannot be. ---- */

static void check_opens(unsigned flags, const char *wanted)
{
	struct err err;

	CHECK_EQ(opens(flags, &err), !*wanted);
	CHECK_TEXT(err.text, wanted);
}

static void test_locked_task(void *argument)
{
	struct share share;

	(void)argument;
	unlink(STATE);
	if (!share_open(&share, COUNT, STATE))
		return;
	check_opens(0, "'" STATE "' is in use by another disk");
	check_opens(DISK_OPEN_READ_ONLY, "'" STATE "' is in use by another disk");
	check_opens(DISK_OPEN_CHECK, ""); /* only looks */
	/* The lock goes with every new content. */
	for (unsigned i = 1; i < 4; i++) {
		CHECK_OK(share_register(&share, 0, 0, i, PR_IGNORE_KEY | PR_SET_PTPL));
		check_opens(0, "'" STATE "' is in use by another disk");
	}
	/* Also if somebody has taken the file away. */
	unlink(STATE);
	CHECK_OK(share_register(&share, 0, 0, 9, PR_IGNORE_KEY | PR_SET_PTPL));
	check_opens(0, "'" STATE "' is in use by another disk");
	share_close(&share);
	check_opens(0, "");
}
RUN_IN_TASK(test_locked)

static void test_check_changes_nothing_task(void *argument)
{
	(void)argument;
	unlink(STATE);
	check_opens(DISK_OPEN_CHECK, "");
	CHECK(access(STATE, F_OK) < 0);
	scratch_write(STATE, "x", 1);
	check_opens(DISK_OPEN_CHECK, "'" STATE "': line 1: the file does not end with a newline: "
				     "it is cut off (remove it to start without reservations)");
}
RUN_IN_TASK(test_check_changes_nothing)

static void test_no_place_task(void *argument)
{
	static const char *const options[][2] = {{"state_file", "none/" STATE}};
	char *large = calloc(1, 100000);
	struct err err = {.text = ""};
	struct probe probe;
	struct disk *below;

	(void)argument;
	scratch_write(STATE, large, 100000);
	free(large);
	check_opens(0, "'" STATE "' is no state file: it has 100000 bytes");
	unlink(STATE);
	CHECK_EQ(mkfifo(STATE, 0600), 0);
	check_opens(0, "'" STATE "' is no regular file");
	check_opens(DISK_OPEN_CHECK, "'" STATE "' is no regular file");
	unlink(STATE);
	CHECK_EQ(mkdir(STATE, 0700), 0);
	check_opens(0, "cannot open '" STATE "': Is a directory");
	CHECK_EQ(rmdir(STATE), 0);
	probe_init(&probe, 512, COUNT);
	below = probe_open(&probe, 0, NULL, &err);
	CHECK(!driver_open(driver_find("prwrap"), options, 1, 0, below, &err));
	CHECK_TEXT(err.text, "cannot create 'none/" STATE "': No such file or directory");
	disk_close(below);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_no_place)

/* What cannot be kept does not happen. */
static void test_cannot_be_written_task(void *argument)
{
	struct share share;
	char before[200], after[200];
	ino_t inode_before;
	int error;

	(void)argument;
	unlink(STATE);
	if (!share_open(&share, COUNT, STATE))
		return;
	CHECK_OK(share_register(&share, 0, 0, 1, PR_SET_PTPL));
	CHECK_OK(share_register(&share, 1, 0, 2, 0));
	share_describe(&share, before);
	CHECK_EQ(mkdir(STATE ".new", 0700), 0); /* in the way */
	error = share_reserve(&share, 0, 1, PR_EXCLUSIVE_ACCESS);
	CHECK_KIND(error, ERROR_IO);
	CHECK_EQ(error_errno(error), EISDIR);
	CHECK_KIND(share_preempt(&share, 0, 1, 2, PR_NONE, PR_ABORT), ERROR_IO);
	CHECK_KIND(share_register(&share, 0, 1, 0, PR_CLEAR_PTPL), ERROR_IO);
	share_describe(&share, after);
	CHECK_TEXT(after, before);
	CHECK_OK(disk_flush(share.ports[1]));
	check_opens(0, "'" STATE "' is in use by another disk");
	CHECK_EQ(rmdir(STATE ".new"), 0);
	/* Nobody knows what is in the file now, so that also what changes nothing is written. */
	inode_before = inode();
	CHECK_OK(share_register(&share, 0, 1, 1, 0));
	CHECK(inode() != inode_before);
	inode_before = inode();
	CHECK_OK(share_register(&share, 0, 1, 1, 0));
	CHECK_EQ(inode(), inode_before);
	/* What a crash has left behind is no hindrance. */
	scratch_write(STATE ".new", "left behind, and longer than what is to come", 44);
	CHECK_OK(share_reserve(&share, 0, 1, PR_EXCLUSIVE_ACCESS));
	share_close(&share);
	if (!share_open(&share, COUNT, STATE))
		return;
	share_describe(&share, after);
	CHECK_TEXT(after, "0 a1 b2 EA a");
	share_close(&share);
}
RUN_IN_TASK(test_cannot_be_written)

static int enter(void **state)
{
	scratch_enter();
	return setup_1_worker(state);
}

static int leave(void **state)
{
	int result = teardown_workers(state);

	scratch_leave();
	return result;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_survives), cmocka_unit_test(test_follows),
		cmocka_unit_test(test_known),	 cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_wrong),	 cmocka_unit_test(test_many),
		cmocka_unit_test(test_locked),	 cmocka_unit_test(test_check_changes_nothing),
		cmocka_unit_test(test_no_place), cmocka_unit_test(test_cannot_be_written),
	};

	return cmocka_run_group_tests(tests, enter, leave);
}
