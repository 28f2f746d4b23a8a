// SPDX-License-Identifier: MIT
/*
 * The prwrap driver: a change of the reservations while requests are in flight; ports; reservations
 * of the disk below.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/list.h"
#include "core/report.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/share.h"
#include "tests/lib/stacks.h"

#define SECTOR 512
#define COUNT  64

enum { A, B, C };

static int put(struct disk *disk, uint64_t sector, int value)
{
	char data[SECTOR];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	memset(data, value, sizeof(data));
	return disk_write(disk, &sg, sector, 0);
}

static int get(struct disk *disk, uint64_t sector)
{
	char data[SECTOR];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	return disk_read(disk, &sg, sector);
}

/* ---- A change while a request is in flight. ---- */

enum wait {
	GOES_ON, /* the change does not wait for the request */
	WAITS,	 /* it does, and the request ends as if nothing had happened */
	ABORTS,	 /* ... and the request is told that it was aborted */
};

/* A holds `type`, B is registered as well. A request of `port` is in flight, and then comes the
 * change of A's. */
struct flight {
	const char *name;
	enum pr_type type;
	unsigned port;
	bool is_write;
	int (*change)(struct share *share);
	enum wait wait;
	bool allowed_after; /* whether the same request is let through later */
};

struct in_flight {
	struct share *share;
	const struct flight *flight;
	int error;
	unsigned ended; /* 1: first, 2: second; 0: not yet */
	unsigned *order;
};

static int do_request(void *argument)
{
	struct in_flight *self = argument;
	struct disk *disk = self->share->ports[self->flight->port];

	self->error = self->flight->is_write ? put(disk, 5, 'x') : get(disk, 5);
	self->ended = ++*self->order;
	return 0;
}

static int do_change(void *argument)
{
	struct in_flight *self = argument;

	self->error = self->flight->change(self->share);
	self->ended = ++*self->order;
	return 0;
}

static int preempt(struct share *share)
{
	return share_preempt(share, A, 1, 2, PR_NONE, 0);
}

static int preempt_abort(struct share *share)
{
	return share_preempt(share, A, 1, 2, PR_NONE, PR_ABORT);
}

static int preempt_self(struct share *share)
{
	return share_preempt(share, A, 1, 1, PR_EXCLUSIVE_ACCESS, 0);
}

static int preempt_abort_all(struct share *share)
{
	return share_preempt(share, A, 1, 0, PR_WRITE_EXCLUSIVE, PR_ABORT);
}

static int reserve(struct share *share)
{
	return share_reserve(share, A, 1, PR_EXCLUSIVE_ACCESS);
}

static int unregister(struct share *share)
{
	return share_register(share, B, 2, 0, 0);
}

static int clear(struct share *share)
{
	return disk_pr(share->ports[A])->clear(share->ports[A], 1);
}

static const struct flight flights[] = {
	{"preempted write", PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY, B, true, preempt, WAITS, false},
	{"preempted read", PR_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY, B, false, preempt, WAITS, false},
	{"preempted read that is still allowed", PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY, B, false,
	 preempt, GOES_ON, true},
	{"preempted write without a reservation", PR_NONE, B, true, preempt, GOES_ON, true},
	{"aborted write", PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY, B, true, preempt_abort, ABORTS,
	 false},
	{"aborted read", PR_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY, B, false, preempt_abort, ABORTS,
	 false},
	{"aborted read that is still allowed", PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY, B, false,
	 preempt_abort, ABORTS, true},
	{"aborted write without a reservation", PR_NONE, B, true, preempt_abort, ABORTS, true},
	{"write of another", PR_NONE, C, true, preempt_abort, GOES_ON, true},
	{"write of all registrants", PR_WRITE_EXCLUSIVE_ALL_REGISTRANTS, B, true, preempt_abort_all,
	 ABORTS, false},
	{"own write, all registrants", PR_WRITE_EXCLUSIVE_ALL_REGISTRANTS, A, true,
	 preempt_abort_all, ABORTS, true},
	{"write, and a stricter type", PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY, B, true, preempt_self,
	 WAITS, false},
	{"own write, and a stricter type", PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY, A, true,
	 preempt_self, GOES_ON, true},
	{"read, and a new reservation", PR_NONE, C, false, reserve, WAITS, false},
	{"own read, and a new reservation", PR_NONE, A, false, reserve, GOES_ON, true},
	{"write of one who unregisters", PR_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY, B, true, unregister,
	 WAITS, false},
	{"write, and a clear", PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY, B, true, clear, GOES_ON, true},
};

static void check_flight(struct share *share, const struct flight *flight)
{
	unsigned order = 0;
	struct in_flight request = {.share = share, .flight = flight, .order = &order};
	struct in_flight change = request;
	struct task_group group = {0};
	int again;

	atomic_store(&share->probe.hold, true);
	task_group_start(&group, do_request, &request);
	CHECK_EQ(share->probe.call_count, 1);
	task_group_start(&group, do_change, &change);
	/* The probe looks every 100 us whether it may go on. */
	task_sleep_ns(NS_PER_US * 2000);
	CHECK_EQ(change.ended, flight->wait == GOES_ON);
	CHECK_EQ(request.ended, 0);
	/* What comes now is up to the new state already, whether the change has returned or not. */
	if (!flight->allowed_after)
		CHECK_KIND(flight->is_write ? put(share->ports[flight->port], 6, 'y')
					    : get(share->ports[flight->port], 6),
			   ERROR_RESERVATION_CONFLICT);
	atomic_store(&share->probe.hold, false);
	CHECK_EQ(task_group_wait(&group), 0);
	CHECK_OK(change.error);
	CHECK_KIND(request.error, flight->wait == ABORTS ? ERROR_ABORTED : ERROR_NONE);
	CHECK_EQ(change.ended, flight->wait == GOES_ON ? 1 : 2);
	again = flight->is_write ? put(share->ports[flight->port], 6, 'y')
				 : get(share->ports[flight->port], 6);
	CHECK_KIND(again, flight->allowed_after ? ERROR_NONE : ERROR_RESERVATION_CONFLICT);
}

static void test_in_flight_task(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(flights); i++) {
		struct share share;

		check_context("%s", flights[i].name);
		if (!share_open(&share, COUNT, NULL))
			return;
		CHECK_OK(share_register(&share, A, 0, 1, 0));
		CHECK_OK(share_register(&share, B, 0, 2, 0));
		if (flights[i].type != PR_NONE)
			CHECK_OK(share_reserve(&share, A, 1, flights[i].type));
		check_flight(&share, &flights[i]);
		share_close(&share);
	}
}
RUN_IN_TASK(test_in_flight)

/* ---- Ports. ---- */

static void test_many_ports_task(void *argument)
{
	enum { PORTS_MAX = 128 };
	struct disk *ports[PORTS_MAX + 1];
	struct err err = {.text = ""};
	struct probe probe;
	struct disk *below, *disk;
	char name[16];

	(void)argument;
	probe_init(&probe, SECTOR, COUNT);
	below = probe_open(&probe, 0, NULL, &err);
	disk = driver_open(driver_find("prwrap"), NULL, 0, 0, below, &err);
	for (unsigned i = 0; i <= PORTS_MAX; i++) {
		snprintf(name, sizeof(name), "%u.img", i);
		ports[i] = port_open(disk, name, &err);
		CHECK_EQ(ports[i] != NULL, i < PORTS_MAX);
		if (ports[i])
			CHECK_OK(disk_pr(ports[i])->reg(ports[i], 0, i + 1, 0));
	}
	CHECK_TEXT(err.key, "file");
	CHECK_TEXT(err.text, "'128.img': one disk knows 128 files, those counted that are only in "
			     "its state file");
	CHECK_OK(disk_pr(ports[127])->reserve(ports[127], 128, PR_EXCLUSIVE_ACCESS));
	CHECK_KIND(get(ports[126], 0), ERROR_RESERVATION_CONFLICT);
	CHECK_OK(get(ports[127], 0));
	for (unsigned i = 0; i <= PORTS_MAX; i++)
		disk_close(ports[i]);
	disk_close(disk);
	disk_close(below);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_many_ports)

static char *inspect(struct disk *disk)
{
	struct report *report = report_new(REPORT_TEXT);
	size_t length;

	disk_inspect(disk, report);
	return report_finish(report, &length);
}

static void check_inspected(struct disk *disk, const char *wanted)
{
	char *text = inspect(disk);

	if (!CHECK(text && strstr(text, wanted)))
		fprintf(stderr, "wanted '%s' in:\n%s", wanted, text);
	free(text);
}

static void test_inspect_task(void *argument)
{
	struct share share;

	(void)argument;
	if (!share_open(&share, COUNT, NULL))
		return;
	CHECK_OK(share_register(&share, A, 0, 0x1234, 0));
	CHECK_OK(share_register(&share, B, 0, 0xb, 0));
	CHECK_OK(share_reserve(&share, A, 0x1234, PR_WRITE_EXCLUSIVE));
	check_inspected(share.ports[A], "pr: yes\nkey: 0x1234\nmay_read: yes\nmay_write: yes\n");
	check_inspected(share.ports[B], "pr: yes\nkey: 0xb\nmay_read: yes\nmay_write: no\n");
	check_inspected(share.ports[C], "pr: yes\nkey: none\nmay_read: yes\nmay_write: no\n");
	check_inspected(share.disk, "persist_through_power_loss: no\n"
				    "generation: 2\n"
				    "reservation: write-exclusive\n"
				    "registrants:\n"
				    "  -\n"
				    "    file: a\n"
				    "    key: 0x1234\n"
				    "    holds_reservation: yes\n"
				    "  -\n"
				    "    file: b\n"
				    "    key: 0xb\n"
				    "    holds_reservation: no\n");
	share_close(&share);
}
RUN_IN_TASK(test_inspect)

/* What the ports are, they are by the disk below. */
static void test_geometry_task(void *argument)
{
	struct share share;

	(void)argument;
	if (!share_open(&share, COUNT, NULL))
		return;
	CHECK_EQ(share.ports[A]->geometry.unmap, UNMAP_ZEROES);
	disk_set_sector_count(share.below, COUNT / 2);
	CHECK_EQ(disk_sector_count(share.ports[A]), COUNT / 2);
	CHECK_KIND(get(share.ports[B], COUNT / 2), ERROR_ILLEGAL_BLOCK);
	share_close(&share);
}
RUN_IN_TASK(test_geometry)

/* ---- Reservations of the disk below. ---- */

static struct {
	char text[100]; /* the last call */
} told;

static void below_capabilities(struct disk *disk, struct pr_capabilities *capabilities)
{
	(void)disk;
	*capabilities = (struct pr_capabilities){.types = 0x14, .persist_through_power_loss = true};
}

static int below_report(struct disk *disk, struct pr_report *report)
{
	(void)disk;
	report->generation = 77;
	report->count = 0;
	return 0;
}

static int below_register(struct disk *disk, uint64_t current_key, uint64_t new_key, unsigned flags)
{
	snprintf(told.text, sizeof(told.text), "%s register %d %d %x", disk->name, (int)current_key,
		 (int)new_key, flags);
	return error_of(ERROR_MEDIUM);
}

static int below_reserve(struct disk *disk, uint64_t key, enum pr_type type)
{
	snprintf(told.text, sizeof(told.text), "%s reserve %d %d", disk->name, (int)key, type);
	return 0;
}

static int below_release(struct disk *disk, uint64_t key, enum pr_type type)
{
	snprintf(told.text, sizeof(told.text), "%s release %d %d", disk->name, (int)key, type);
	return 0;
}

static int below_clear(struct disk *disk, uint64_t key)
{
	snprintf(told.text, sizeof(told.text), "%s clear %d", disk->name, (int)key);
	return 0;
}

static int below_preempt(struct disk *disk, uint64_t key, uint64_t victim_key, enum pr_type type,
			 unsigned flags)
{
	snprintf(told.text, sizeof(told.text), "%s preempt %d %d %d %x", disk->name, (int)key,
		 (int)victim_key, type, flags);
	return error_of(ERROR_RESERVATION_CONFLICT);
}

static const struct pr_ops below_ops = {
	.capabilities = below_capabilities,
	.report = below_report,
	.reg = below_register,
	.reserve = below_reserve,
	.release = below_release,
	.clear = below_clear,
	.preempt = below_preempt,
};

static void check_handed_on(struct disk *port)
{
	const struct pr_ops *pr = disk_pr(port);
	struct pr_capabilities capabilities;
	struct pr_report report = {.capacity = 0};

	pr->capabilities(port, &capabilities);
	CHECK_EQ(capabilities.types, 0x14);
	CHECK(capabilities.persist_through_power_loss);
	CHECK_OK(pr->report(port, &report));
	CHECK_EQ(report.generation, 77);
	CHECK_EQ(pr->reg(port, 1, 2, PR_SET_PTPL | PR_IGNORE_KEY), error_of(ERROR_MEDIUM));
	CHECK_TEXT(told.text, "probe register 1 2 3");
	CHECK_OK(pr->reserve(port, 3, PR_EXCLUSIVE_ACCESS));
	CHECK_TEXT(told.text, "probe reserve 3 2");
	/* It is the disk below that fences. */
	CHECK_OK(put(port, 0, 'x'));
	CHECK_OK(pr->release(port, 4, PR_WRITE_EXCLUSIVE_ALL_REGISTRANTS));
	CHECK_TEXT(told.text, "probe release 4 5");
	CHECK_OK(pr->clear(port, 5));
	CHECK_TEXT(told.text, "probe clear 5");
	CHECK_KIND(pr->preempt(port, 6, 7, PR_WRITE_EXCLUSIVE, PR_ABORT),
		   ERROR_RESERVATION_CONFLICT);
	CHECK_TEXT(told.text, "probe preempt 6 7 1 8");
}

static void test_reserved_below_task(void *argument)
{
	static const char *const options[][2] = {{"state_file", "/nowhere"}};
	struct probe probe;
	struct err err = {.text = ""};
	struct disk *below, *disk, *port;

	(void)argument;
	probe_init(&probe, SECTOR, COUNT);
	probe.driver.pr = &below_ops;
	below = probe_open(&probe, 0, NULL, &err);
	disk = driver_open(driver_find("prwrap"), NULL, 0, 0, below, &err);
	port = port_open(disk, "a", &err);
	CHECK_TEXT(err.text, "");
	check_handed_on(port);
	check_inspected(port, "reservations: of the disk below\n");
	/* One disk object is one initiator. */
	CHECK(!port_open(disk, "b", &err));
	CHECK_TEXT(err.key, "file");
	CHECK_TEXT(err.text, "'b': the disk below has reservations of its own, and would take "
			     "several files for one initiator");
	CHECK(!driver_open(driver_find("prwrap"), options, 1, 0, below, &err));
	CHECK_TEXT(err.key, "state_file");
	CHECK_TEXT(err.text, "the disk below has reservations of its own, and keeps them");
	disk_close(port);
	disk_close(disk);
	disk_close(below);
	probe_destroy(&probe);
}
RUN_IN_TASK(test_reserved_below)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_flight),      cmocka_unit_test(test_many_ports),
		cmocka_unit_test(test_inspect),	       cmocka_unit_test(test_geometry),
		cmocka_unit_test(test_reserved_below),
	};

	return cmocka_run_group_tests(tests, setup_1_worker, teardown_workers);
}
