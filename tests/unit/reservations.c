// SPDX-License-Identifier: MIT
/*
 * Persistent reservations as SPC-4 has them (and SBC-3, and NVMe where it agrees), through the
 * ports of a prwrap: who may do what, and what every operation comes to. The tables here are written
 * from the standards' tables.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/share.h"

#define SECTOR 512
#define COUNT  64

/* ---- Who may do what. ---- */

/* Whether reads and writes are allowed (A) or conflict (C), of the one who has made the
 * reservation, of another registrant, and of one who is not registered. */
static const struct {
	enum pr_type type;
	const char *holder, *registered, *unregistered;
} rights[] = {
	{PR_NONE, "AA", "AA", "AA"},
	{PR_WRITE_EXCLUSIVE, "AA", "AC", "AC"},
	{PR_EXCLUSIVE_ACCESS, "AA", "CC", "CC"},
	{PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY, "AA", "AA", "AC"},
	{PR_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY, "AA", "AA", "CC"},
	{PR_WRITE_EXCLUSIVE_ALL_REGISTRANTS, "AA", "AA", "AC"},
	{PR_EXCLUSIVE_ACCESS_ALL_REGISTRANTS, "AA", "AA", "CC"},
};

static int try_read(struct disk *disk)
{
	char data[SECTOR];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	return disk_read(disk, &sg, 3);
}

static int try_extent(struct disk *disk)
{
	struct extent extent;

	return disk_extent(disk, 3, 1, &extent);
}

static int try_write(struct disk *disk)
{
	char data[SECTOR] = {0};
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	return disk_write(disk, &sg, 3, 0);
}

static int try_write_fua(struct disk *disk)
{
	char data[SECTOR] = {0};
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	return disk_write(disk, &sg, 3, DISK_FUA);
}

static int try_write_zeroes(struct disk *disk)
{
	return disk_write_zeroes(disk, 3, 1, 0);
}

static int try_unmap(struct disk *disk)
{
	return disk_unmap(disk, 3, 1);
}

static int try_allocated(struct disk *disk)
{
	uint64_t bytes;

	return disk_allocated(disk, &bytes);
}

/* SBC-3: GET LBA STATUS is as READ; SYNCHRONIZE CACHE, UNMAP, WRITE SAME as WRITE; READ CAPACITY is
 * always allowed. SPC-4: START STOP UNIT that stops is as WRITE. NVMe has Flush among the writes. */
static const struct {
	const char *name;
	char as; /* r, w, or - */
	int (*try)(struct disk *disk);
} operations[] = {
	{"read", 'r', try_read},
	{"extent", 'r', try_extent},
	{"write", 'w', try_write},
	{"write with FUA", 'w', try_write_fua},
	{"write-zeroes", 'w', try_write_zeroes},
	{"unmap", 'w', try_unmap},
	{"flush", 'w', disk_flush},
	{"eject", 'w', disk_eject},
	{"allocated", '-', try_allocated},
};

static void check_rights(struct share *share, struct disk *port, const char *wanted)
{
	for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
		bool conflicts = operations[i].as != '-' && wanted[operations[i].as == 'w'] == 'C';

		check_context("%s: %s", port->name, operations[i].name);
		probe_forget(&share->probe);
		CHECK_KIND(operations[i].try(port),
			   conflicts ? ERROR_RESERVATION_CONFLICT : ERROR_NONE);
		CHECK_EQ(share->probe.call_count, conflicts ? 0 : 1);
	}
}

static void test_rights_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(rights); i++) {
		struct share share;
		struct disk **ports = share.ports;

		check_context("%s", share_types[rights[i].type]);
		if (!share_open(&share, COUNT, NULL))
			return;
		CHECK_OK(disk_pr(ports[0])->reg(ports[0], 0, 0xa, 0));
		CHECK_OK(disk_pr(ports[1])->reg(ports[1], 0, 0xb, 0));
		if (rights[i].type != PR_NONE)
			CHECK_OK(disk_pr(ports[0])->reserve(ports[0], 0xa, rights[i].type));
		check_rights(&share, ports[0], rights[i].holder);
		check_rights(&share, ports[1], rights[i].registered);
		check_rights(&share, ports[2], rights[i].unregistered);
		/* The disk itself is nobody's: the daemon flushes it at the end. */
		CHECK_OK(disk_flush(share.disk));
		share_close(&share);
	}
}
RUN_IN_TASK(test_rights)

/* ---- What operations come to. ---- */

/*
 * Steps, separated by "; ", each PORT OPERATION ARGUMENTS = OUTCOME, where keys are hexadecimal:
 *
 *	reg OWN NEW, ign OWN NEW (ignores the own one), res OWN TYPE, rel OWN TYPE, clr OWN,
 *	pre OWN VICTIM TYPE, abt OWN VICTIM TYPE (preempt and abort)
 *
 * Then the state: the generation, the keys of the ports that are registered, and the reservation
 * with those who hold it.
 */
static const struct {
	const char *steps, *state;
} cases[] = {
	/* REGISTER (table 67). */
	{"a reg 0 0 = ok", "0 - none"},
	{"a reg 0 1 = ok", "1 a1 none"},
	{"a reg 5 1 = conflict", "0 - none"},
	{"a reg 5 0 = conflict", "0 - none"},
	{"a reg 0 1 = ok; a reg 2 3 = conflict", "1 a1 none"},
	{"a reg 0 1 = ok; a reg 0 3 = conflict", "1 a1 none"},
	{"a reg 0 1 = ok; a reg 2 0 = conflict", "1 a1 none"},
	{"a reg 0 1 = ok; a reg 1 0 = ok", "2 - none"},
	{"a reg 0 1 = ok; a reg 1 3 = ok", "2 a3 none"},
	{"a reg 0 1 = ok; a reg 1 1 = ok", "2 a1 none"},
	{"a reg 0 1 = ok; b reg 0 1 = ok; a reg 1 0 = ok", "3 b1 none"},
	{"a reg 0 ffffffffffffffff = ok", "1 affffffffffffffff none"},
	/* REGISTER AND IGNORE EXISTING KEY (table 68). */
	{"a ign 0 0 = ok", "0 - none"},
	{"a ign 5 0 = ok", "0 - none"},
	{"a ign 5 1 = ok", "1 a1 none"},
	{"a ign 0 1 = ok; a ign 7 2 = ok", "2 a2 none"},
	{"a ign 0 1 = ok; a ign 7 0 = ok", "2 - none"},
	/* Registrations do not care for reservations, nor change them. */
	{"a reg 0 1 = ok; a res 1 EA = ok; b reg 0 2 = ok; a reg 1 3 = ok", "3 a3 b2 EA a"},
	{"a reg 0 1 = ok; a res 1 WEAR = ok; b reg 0 2 = ok", "2 a1 b2 WEAR ab"},
	/* Everybody else has to be registered, and to know the own key. */
	{"a res 0 WE = conflict; a res 1 WE = conflict", "0 - none"},
	{"a rel 0 WE = conflict; a clr 0 = conflict; a pre 0 0 WE = conflict", "0 - none"},
	{"a reg 0 1 = ok; a res 2 WE = conflict; a res 0 WE = conflict", "1 a1 none"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; b res 1 WE = conflict", "2 a1 b2 none"},
	{"a reg 0 1 = ok; a res 1 WE = ok; a rel 2 WE = conflict; a clr 2 = conflict; "
	 "a pre 2 1 EA = conflict; b clr 1 = conflict; b pre 1 1 EA = conflict",
	 "1 a1 WE a"},
	/* RESERVE: the same again is nothing, all else conflicts; the generation stays. */
	{"a reg 0 1 = ok; a res 1 WE = ok; a res 1 WE = ok", "1 a1 WE a"},
	{"a reg 0 1 = ok; a res 1 WE = ok; a res 1 EA = conflict", "1 a1 WE a"},
	{"a reg 0 1 = ok; a res 1 EARO = ok; a res 1 WERO = conflict", "1 a1 EARO a"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WE = ok; b res 2 WE = conflict; "
	 "b res 2 EA = conflict",
	 "2 a1 b2 WE a"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WERO = ok; b res 2 WERO = conflict",
	 "2 a1 b2 WERO a"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 EAAR = ok; b res 2 EAAR = ok", "2 a1 b2 EAAR ab"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 EAAR = ok; b res 2 WEAR = conflict; "
	 "a res 1 WE = conflict",
	 "2 a1 b2 EAAR ab"},
	{"a reg 0 1 = ok; a res 1 none = invalid; a res 1 7 = invalid", "1 a1 none"},
	/* RELEASE: by a holder, of what it holds; of anybody else it is nothing. */
	{"a reg 0 1 = ok; a rel 1 WE = ok", "1 a1 none"},
	{"a reg 0 1 = ok; a res 1 WE = ok; a rel 1 WE = ok", "1 a1 none"},
	{"a reg 0 1 = ok; a res 1 WE = ok; a rel 1 EA = invalid", "1 a1 WE a"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WE = ok; b rel 2 WE = ok; b rel 2 EA = ok",
	 "2 a1 b2 WE a"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 EARO = ok; b rel 2 EARO = ok", "2 a1 b2 EARO a"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WEAR = ok; b rel 2 WEAR = ok", "2 a1 b2 none"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WEAR = ok; b rel 2 EAAR = invalid",
	 "2 a1 b2 WEAR ab"},
	{"a reg 0 1 = ok; a res 1 WE = ok; a rel 1 none = invalid; a rel 1 9 = invalid",
	 "1 a1 WE a"},
	{"a reg 0 1 = ok; a res 1 WE = ok; a rel 1 WE = ok; a res 1 EA = ok", "1 a1 EA a"},
	/* Unregistering (table 71): with the holder goes the reservation. */
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WE = ok; a reg 1 0 = ok", "3 b2 none"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 EA = ok; a ign 0 0 = ok", "3 b2 none"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WERO = ok; a reg 1 0 = ok", "3 b2 none"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 EARO = ok; a reg 1 0 = ok", "3 b2 none"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WE = ok; b reg 2 0 = ok", "3 a1 WE a"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 EARO = ok; b reg 2 0 = ok", "3 a1 EARO a"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WEAR = ok; a reg 1 0 = ok", "3 b2 WEAR b"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 EAAR = ok; a reg 1 0 = ok; b reg 2 0 = ok",
	 "4 - none"},
	/* CLEAR. */
	{"a reg 0 1 = ok; a clr 1 = ok", "2 - none"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 EA = ok; b clr 2 = ok", "3 - none"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WEAR = ok; b clr 2 = ok; a clr 1 = conflict",
	 "3 - none"},
	/* PREEMPT (table 72): the holder's key takes the reservation over. */
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WE = ok; b pre 2 1 EA = ok", "3 b2 EA b"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WE = ok; b abt 2 1 WERO = ok", "3 b2 WERO b"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WERO = ok; b pre 2 1 EAAR = ok", "3 b2 EAAR b"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; c reg 0 1 = ok; a res 1 EA = ok; b pre 2 1 EA = ok",
	 "4 b2 EA b"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; c reg 0 3 = ok; a res 1 WERO = ok; b pre 2 1 WERO = ok",
	 "4 b2 c3 WERO b"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WE = ok; b pre 2 1 none = invalid; "
	 "b pre 2 1 7 = invalid",
	 "2 a1 b2 WE a"},
	/* ... also from somebody with the same key, who stays. */
	{"a reg 0 1 = ok; b reg 0 1 = ok; a res 1 WE = ok; b pre 1 1 EA = ok", "3 b1 EA b"},
	/* ... or from oneself, to change the type. */
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WE = ok; a pre 1 1 EARO = ok", "3 a1 b2 EARO a"},
	{"a reg 0 1 = ok; a res 1 WE = ok; a abt 1 1 WEAR = ok", "2 a1 WEAR a"},
	/* ... another key only removes registrations, and the type is ignored. */
	{"a reg 0 1 = ok; b reg 0 2 = ok; c reg 0 3 = ok; a res 1 WE = ok; b pre 2 3 EA = ok",
	 "4 a1 b2 WE a"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; c reg 0 2 = ok; a res 1 WE = ok; a pre 1 2 none = ok",
	 "4 a1 WE a"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a pre 1 2 9 = ok", "3 a1 none"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WE = ok; b pre 2 2 WE = ok", "3 a1 WE a"},
	{"a reg 0 1 = ok; a pre 1 1 WE = ok", "2 - none"},
	/* ... one that nobody has conflicts. */
	{"a reg 0 1 = ok; a pre 1 7 WE = conflict; a abt 1 7 WE = conflict", "1 a1 none"},
	{"a reg 0 1 = ok; a res 1 EAAR = ok; a pre 1 7 WE = conflict", "1 a1 EAAR a"},
	{"a reg 0 1 = ok; a pre 1 0 WE = conflict", "1 a1 none"},
	/* ... 0 means all registrants, where they hold the reservation. */
	{"a reg 0 1 = ok; a res 1 WE = ok; a pre 1 0 WE = invalid", "1 a1 WE a"},
	{"a reg 0 1 = ok; a res 1 EARO = ok; a abt 1 0 EARO = invalid", "1 a1 EARO a"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; c reg 0 3 = ok; a res 1 WEAR = ok; b pre 2 0 EA = ok",
	 "4 b2 EA b"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 EAAR = ok; b abt 2 0 EAAR = ok", "3 b2 EAAR b"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WEAR = ok; b pre 2 0 none = invalid",
	 "2 a1 b2 WEAR ab"},
	/* ... and their keys only remove registrations there. */
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 WEAR = ok; b pre 2 1 EA = ok", "3 b2 WEAR b"},
	{"a reg 0 1 = ok; a res 1 WEAR = ok; a pre 1 1 EA = ok", "2 - none"},
	{"a reg 0 1 = ok; b reg 0 2 = ok; a res 1 EAAR = ok; a pre 1 1 EA = ok", "3 b2 EAAR b"},
};

static enum error_kind outcome_of(const char *word)
{
	static const struct {
		const char *word;
		enum error_kind kind;
	} words[] = {
		{"ok", ERROR_NONE},
		{"conflict", ERROR_RESERVATION_CONFLICT},
		{"invalid", ERROR_INVALID_INPUT},
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(word, words[i].word) == 0)
			return words[i].kind;
	CHECK_TEXT(word, "an outcome");
	return ERROR_KINDS;
}

/* A number that is no type is handed on. */
static enum pr_type type_of(const char *word)
{
	for (unsigned type = 0; type < PR_TYPES; type++)
		if (strcmp(word, share_types[type]) == 0)
			return (enum pr_type)type;
	return (enum pr_type)strtoul(word, NULL, 0);
}

static int do_operation(struct disk *port, const char *operation, char *const words[3])
{
	const struct pr_ops *pr = disk_pr(port);
	uint64_t own = strtoull(words[0], NULL, 16);
	uint64_t other = strtoull(words[1], NULL, 16);

	if (strcmp(operation, "reg") == 0)
		return pr->reg(port, own, other, 0);
	if (strcmp(operation, "ign") == 0)
		return pr->reg(port, own, other, PR_IGNORE_KEY);
	if (strcmp(operation, "res") == 0)
		return pr->reserve(port, own, type_of(words[1]));
	if (strcmp(operation, "rel") == 0)
		return pr->release(port, own, type_of(words[1]));
	if (strcmp(operation, "clr") == 0)
		return pr->clear(port, own);
	if (strcmp(operation, "pre") == 0)
		return pr->preempt(port, own, other, type_of(words[2]), 0);
	CHECK_TEXT(operation, "abt");
	return pr->preempt(port, own, other, type_of(words[2]), PR_ABORT);
}

static void do_step(struct share *share, char *step)
{
	char *words[5] = {NULL}, none[] = "", *rest = step;
	char *outcome = strstr(step, " = ");
	unsigned count = 0;

	if (!CHECK(outcome))
		return;
	*outcome = '\0';
	while (count < ARRAY_SIZE(words) && (words[count] = strsep(&rest, " ")))
		count++;
	for (; count < ARRAY_SIZE(words); count++)
		words[count] = none;
	CHECK_KIND(do_operation(share->ports[words[0][0] - 'a'], words[1], words + 2),
		   outcome_of(outcome + 3));
}

static void test_operations_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char steps[400], state[200] = "", *rest = steps, *end;
		struct share share;

		if (!share_open(&share, COUNT, NULL))
			return;
		snprintf(steps, sizeof(steps), "%s", cases[i].steps);
		while (rest) {
			end = strstr(rest, "; ");
			if (end)
				*end = '\0';
			check_context("%s, at '%s'", cases[i].steps, rest);
			do_step(&share, rest);
			rest = end ? end + 2 : NULL;
		}
		check_context("%s", cases[i].steps);
		share_describe(&share, state);
		CHECK_TEXT(state, cases[i].state);
		share_close(&share);
	}
}
RUN_IN_TASK(test_operations)

/* ---- The rest of the interface. ---- */

static void test_capabilities_task(void *argument)
{
	struct pr_capabilities capabilities;
	struct share share;

	(void)argument;
	if (!share_open(&share, COUNT, NULL))
		return;
	CHECK(!disk_pr(share.disk)); /* it is the ports' */
	disk_pr(share.ports[0])->capabilities(share.ports[0], &capabilities);
	CHECK_EQ(capabilities.types, 0x7e);
	CHECK(!capabilities.persist_through_power_loss);
	share_close(&share);
}
RUN_IN_TASK(test_capabilities)

static void test_flags_task(void *argument)
{
	struct share share;
	struct disk *port;
	const struct pr_ops *pr;

	(void)argument;
	if (!share_open(&share, COUNT, NULL))
		return;
	port = share.ports[0];
	pr = disk_pr(port);
	CHECK_KIND(pr->reg(port, 0, 1, PR_SET_PTPL), ERROR_UNSUPPORTED);
	CHECK_KIND(pr->reg(port, 0, 1, PR_SET_PTPL | PR_CLEAR_PTPL), ERROR_UNSUPPORTED);
	CHECK_KIND(pr->reg(port, 0, 1, PR_ABORT), ERROR_INVALID_INPUT);
	CHECK_KIND(pr->reg(port, 0, 1, 1 << 7), ERROR_INVALID_INPUT);
	CHECK_OK(pr->reg(port, 0, 1, PR_CLEAR_PTPL));
	CHECK_KIND(pr->preempt(port, 1, 1, PR_WRITE_EXCLUSIVE, PR_IGNORE_KEY), ERROR_INVALID_INPUT);
	share_close(&share);
}
RUN_IN_TASK(test_flags)

/* A report with less room than there are registrants tells how many there are. */
static void test_short_report_task(void *argument)
{
	struct pr_registrant registrants[SHARE_PORTS] = {0};
	struct share share;

	(void)argument;
	if (!share_open(&share, COUNT, NULL))
		return;
	for (unsigned i = 0; i < SHARE_PORTS; i++)
		CHECK_OK(disk_pr(share.ports[i])->reg(share.ports[i], 0, 10 + i, 0));
	for (unsigned capacity = 0; capacity <= SHARE_PORTS; capacity++) {
		struct pr_report report = {.registrants = registrants, .capacity = capacity};

		memset(registrants, 0, sizeof(registrants));
		CHECK_OK(disk_pr(share.ports[0])->report(share.ports[0], &report));
		CHECK_EQ(report.count, SHARE_PORTS);
		for (unsigned i = 0; i < SHARE_PORTS; i++)
			CHECK_EQ(registrants[i].key, i < capacity ? 10 + i : 0);
	}
	share_close(&share);
}
RUN_IN_TASK(test_short_report)

static void test_generation_task(void *argument)
{
	struct share share;
	struct pr_report report = {.capacity = 0};

	(void)argument;
	if (!share_open(&share, COUNT, NULL))
		return;
	for (unsigned i = 1; i <= 1000; i++)
		CHECK_OK(disk_pr(share.ports[0])->reg(share.ports[0], 0, i, PR_IGNORE_KEY));
	CHECK_OK(disk_pr(share.ports[1])->report(share.ports[1], &report));
	CHECK_EQ(report.generation, 1000);
	share_close(&share);
}
RUN_IN_TASK(test_generation)

static void test_type_names(void **state)
{
	(void)state;
	for (unsigned type = 0; type < PR_TYPES; type++)
		CHECK_EQ(pr_type_find(pr_type_name((enum pr_type)type)), type);
	CHECK_EQ(pr_type_find("write-exclusiv"), PR_TYPES);
	CHECK_EQ(pr_type_find(""), PR_TYPES);
	check_finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rights),	     cmocka_unit_test(test_operations),
		cmocka_unit_test(test_capabilities), cmocka_unit_test(test_flags),
		cmocka_unit_test(test_short_report), cmocka_unit_test(test_generation),
		cmocka_unit_test(test_type_names),
	};

	return cmocka_run_group_tests(tests, setup_1_worker, teardown_workers);
}
