// SPDX-License-Identifier: MIT
/* A striped disk that is asked for another size: what its members are asked for, and what becomes
 * of them when one may not, or fails. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/log.h"
#include "core/resizable.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/stripe.h"

#define MEMBERS 3
#define CHUNK	2 /* sectors, "1K" */
#define BEFORE	16
#define MOST	64

/* What the members are, and what they do when they are asked. */
static struct {
	struct stripe stripe;
	unsigned fails; /* the member that does; MEMBERS: none */
	_Atomic unsigned asked;
} set;

static int member_resize(struct disk *disk, uint64_t count)
{
	int error = resizable_check(disk, count);

	atomic_fetch_add(&set.asked, 1);
	for (unsigned i = 0; i < 3; i++)
		task_yield();
	if (set.fails < MEMBERS && disk == set.stripe.members[set.fails])
		return error_io(EFBIG);
	if (!error)
		disk_set_sector_count(disk, count);
	return error;
}

static bool set_open(const enum resizable *resizable, const char *size)
{
	stripe_init(&set.stripe, MEMBERS, MOST);
	set.fails = MEMBERS;
	set.asked = 0;
	for (unsigned i = 0; i < MEMBERS; i++) {
		set.stripe.probes[i].sector_count = BEFORE;
		set.stripe.probes[i].driver.resize = member_resize;
		set.stripe.probes[i].geometry.resizable = resizable[i];
	}
	return stripe_open(&set.stripe, "1K", size);
}

static void check_counts(uint64_t a, uint64_t b, uint64_t c, uint64_t whole)
{
	CHECK_EQ(disk_sector_count(set.stripe.members[0]), a);
	CHECK_EQ(disk_sector_count(set.stripe.members[1]), b);
	CHECK_EQ(disk_sector_count(set.stripe.members[2]), c);
	CHECK_EQ(disk_sector_count(set.stripe.disk), whole);
}

static int resize(uint64_t share)
{
	return disk_resize(set.stripe.disk, share * MEMBERS);
}

static const enum resizable no_yes_shrink[] = {RESIZABLE_NO, RESIZABLE_YES, RESIZABLE_SHRINK};
static const enum resizable all_shrink[] = {RESIZABLE_SHRINK, RESIZABLE_SHRINK, RESIZABLE_SHRINK};
static const enum resizable all_grow[] = {RESIZABLE_YES, RESIZABLE_YES, RESIZABLE_YES};

static void test_sizes_task(void *argument)
{
	(void)argument;
	if (!set_open(all_shrink, NULL))
		return;
	CHECK_OK(resize(24));
	check_counts(24, 24, 24, 72);
	/* One that is larger has enough; but all become as small as they have to. */
	disk_set_sector_count(set.stripe.members[1], 41);
	CHECK_OK(resize(32));
	check_counts(32, 41, 32, 96);
	CHECK_OK(resize(2));
	check_counts(2, 2, 2, 6);
	/* The smallest, with what is no whole chunk. */
	disk_set_sector_count(set.stripe.members[0], 3);
	CHECK_OK(resize(4));
	check_counts(4, 4, 4, 12);
	/* No whole rows. */
	set.asked = 0;
	CHECK_KIND(disk_resize(set.stripe.disk, 12 + 1), ERROR_UNSUPPORTED);
	CHECK_KIND(disk_resize(set.stripe.disk, 12 + CHUNK), ERROR_UNSUPPORTED);
	CHECK_KIND(disk_resize(set.stripe.disk, 12 + MEMBERS), ERROR_UNSUPPORTED);
	CHECK_KIND(disk_resize(set.stripe.disk, 0), ERROR_INVALID_INPUT);
	CHECK_EQ(set.asked, 0);
	check_counts(4, 4, 4, 12);
	stripe_close(&set.stripe);
}
RUN_IN_TASK(test_sizes)

/* The user has said how large it is. */
static void test_option_task(void *argument)
{
	(void)argument;
	if (!set_open(all_shrink, "15K"))
		return;
	CHECK_EQ(set.stripe.disk->geometry.resizable, RESIZABLE_NO);
	CHECK_KIND(resize(12), ERROR_UNSUPPORTED);
	CHECK_KIND(resize(8), ERROR_UNSUPPORTED);
	CHECK_EQ(set.asked, 0);
	check_counts(BEFORE, BEFORE, BEFORE, 30);
	stripe_close(&set.stripe);
}
RUN_IN_TASK(test_option)

/* If one may not, nothing is begun; in every order of those who may this and that. */
static void test_permissions_task(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < 27; i++) {
		enum resizable may[] = {no_yes_shrink[i % 3], no_yes_shrink[i / 3 % 3],
					no_yes_shrink[i / 9]};
		enum resizable least = may[0];

		check_context("members that are %s, %s, %s", resizable_choices[may[0]],
			      resizable_choices[may[1]], resizable_choices[may[2]]);
		for (unsigned j = 1; j < MEMBERS; j++)
			least = may[j] < least ? may[j] : least;
		if (!set_open(may, NULL))
			return;
		CHECK_EQ(set.stripe.disk->geometry.resizable, least);
		CHECK_KIND(resize(20), least == RESIZABLE_NO ? ERROR_UNSUPPORTED : ERROR_NONE);
		CHECK_EQ(set.asked, least == RESIZABLE_NO ? 0 : MEMBERS);
		set.asked = 0;
		CHECK_KIND(resize(8), least == RESIZABLE_SHRINK ? ERROR_NONE : ERROR_UNSUPPORTED);
		CHECK_EQ(set.asked, least == RESIZABLE_SHRINK ? MEMBERS : 0);
		stripe_close(&set.stripe);
	}
	check_context("%s", "");
}
RUN_IN_TASK(test_permissions)

/* Opens a set of which a member fails, and asks it for that size in vain. */
static bool set_open_failing(const enum resizable *resizable, unsigned fails, uint64_t wish)
{
	check_context("member %u fails", fails);
	if (!set_open(resizable, NULL))
		return false;
	set.fails = fails;
	CHECK_EQ(error_errno(resize(wish)), EFBIG);
	return true;
}

/* What grew is small again; or, where it may not be, is larger, and of use at the next try. */
static void test_failed_growth_task(void *argument)
{
	(void)argument;
	for (unsigned fails = 0; fails < MEMBERS; fails++) {
		if (!set_open_failing(all_shrink, fails, 20))
			return;
		check_counts(BEFORE, BEFORE, BEFORE, MEMBERS * BEFORE);
		stripe_close(&set.stripe);

		if (!set_open_failing(all_grow, fails, 20))
			return;
		check_counts(fails > 0 ? 20 : BEFORE, fails > 1 ? 20 : BEFORE, BEFORE,
			     MEMBERS * BEFORE);
		set.fails = MEMBERS;
		CHECK_OK(resize(20));
		check_counts(20, 20, 20, 60);
		stripe_close(&set.stripe);
	}
	check_context("%s", "");
}
RUN_IN_TASK(test_failed_growth)

/* What is cut off is gone, so the disk stays as small as its members have become. */
static void test_failed_cut_task(void *argument)
{
	(void)argument;
	for (unsigned fails = 0; fails < MEMBERS; fails++) {
		if (!set_open_failing(all_shrink, fails, 10))
			return;
		check_counts(fails > 0 ? 10 : BEFORE, fails > 1 ? 10 : BEFORE, BEFORE,
			     MEMBERS * (fails > 0 ? 10 : BEFORE));
		stripe_close(&set.stripe);
	}
	check_context("%s", "");
}
RUN_IN_TASK(test_failed_cut)

/* ---- Several wishes at once. ---- */

static void wishes_open(void *argument)
{
	(void)argument;
	set_open(all_shrink, NULL);
}

static void wishes_task(unsigned index, void *argument)
{
	struct random random = {index};

	(void)argument;
	for (unsigned i = 0; i < 300; i++)
		CHECK_OK(resize((1 + random_below(&random, MOST / CHUNK)) * CHUNK));
}

static void wishes_close(void *argument)
{
	uint64_t count = disk_sector_count(set.stripe.members[0]);

	(void)argument;
	check_counts(count, count, count, MEMBERS * count);
	stripe_close(&set.stripe);
}

static void test_wishes(void **state)
{
	(void)state;
	run_task(wishes_open, NULL);
	run_tasks(4, wishes_task, NULL);
	run_task(wishes_close, NULL);
}

static int setup(void **state)
{
	log_set_level(LOG_LEVEL_ERROR);
	return setup_4_workers(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),	    cmocka_unit_test(test_option),
		cmocka_unit_test(test_permissions), cmocka_unit_test(test_failed_growth),
		cmocka_unit_test(test_failed_cut),  cmocka_unit_test(test_wishes),
	};

	return cmocka_run_group_tests(tests, setup, teardown_workers);
}
