// SPDX-License-Identifier: MIT
/*
 * Ports of a prwrap on four workers: changes of the reservations while requests never cease, and
 * changes at once; writes of single bytes by several ports.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <cmocka.h>
#include "core/bytes.h"
#include "core/task.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/share.h"

#define SECTOR 512
#define COUNT  64

enum { A, B };

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

/* ---- A change while requests never cease. ---- */

struct stream {
	struct share share;
	atomic_bool stop;
	atomic_uint aborted, conflicts, done;
};

static void stream_open(void *argument)
{
	struct stream *stream = argument;

	share_open(&stream->share, COUNT, NULL);
	stream->share.probe.shared = true;
	stream->share.probe.yields = 2;
	CHECK_OK(share_register(&stream->share, A, 0, 1, 0));
	CHECK_OK(share_reserve(&stream->share, A, 1, PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY));
}

static void stream_close(void *argument)
{
	struct stream *stream = argument;

	share_close(&stream->share);
}

/* B reads, which it always may, so that there is always a request in flight; A aborts it. */
static void read_or_abort(unsigned index, void *argument)
{
	struct stream *stream = argument;
	struct share *share = &stream->share;

	while (index > 0 && !atomic_load(&stream->stop)) {
		int error = get(share->ports[B], index);

		if (error_kind(error) == ERROR_ABORTED)
			atomic_fetch_add(&stream->aborted, 1);
		else
			CHECK_OK(error);
	}
	for (unsigned i = 0; index == 0 && i < 200; i++) {
		CHECK_OK(share_register(share, B, 0, 2, 0));
		CHECK_OK(share_preempt(share, A, 1, 2, PR_NONE, PR_ABORT));
		task_yield();
	}
	atomic_store(&stream->stop, true);
}

static void test_readers_do_not_hold_up(void **state)
{
	struct stream stream = {.stop = false};

	(void)state;
	run_task(stream_open, &stream);
	run_tasks(16, read_or_abort, &stream);
	CHECK(atomic_load(&stream.aborted) > 0);
	run_task(stream_close, &stream);
	check_finish();
}

/* Every sector holds @value, and goes on to do so. */
static void check_undisturbed(struct stream *stream, int value)
{
	struct share *share = &stream->share;
	char data[COUNT * SECTOR];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));

	memset(data, value, sizeof(data));
	CHECK_OK(disk_write(share->ports[A], &sg, 0, 0));
	for (unsigned i = 0; i < 4; i++) {
		task_yield();
		CHECK_OK(disk_read(share->ports[A], &sg, 0));
		CHECK_EQ(bytes_differ(data, sizeof(data), value), sizeof(data));
	}
}

/*
 * B writes all the time. A lets it, by a registration that it makes for it, and takes that away
 * again; from then on nothing of B may reach the disk.
 */
static void write_or_fence(unsigned index, void *argument)
{
	struct stream *stream = argument;
	struct share *share = &stream->share;

	while (index > 0 && !atomic_load(&stream->stop)) {
		int error = put(share->ports[B], index, 'b');

		if (error_kind(error) == ERROR_RESERVATION_CONFLICT) {
			atomic_fetch_add(&stream->conflicts, 1);
			task_yield();
		} else if (error_kind(error) == ERROR_ABORTED) {
			atomic_fetch_add(&stream->aborted, 1);
		} else if (CHECK_OK(error)) {
			atomic_fetch_add(&stream->done, 1);
		}
	}
	for (unsigned i = 0; index == 0 && i < 300; i++) {
		CHECK_OK(share_register(share, B, 0, 2, 0));
		task_sleep_ns(NS_PER_US * 50);
		CHECK_OK(share_preempt(share, A, 1, 2, PR_NONE, i % 2 ? PR_ABORT : 0));
		check_undisturbed(stream, (int)(i % 90));
	}
	atomic_store(&stream->stop, true);
}

static void test_fenced_for_good(void **state)
{
	struct stream stream = {.stop = false};

	(void)state;
	run_task(stream_open, &stream);
	run_tasks(16, write_or_fence, &stream);
	CHECK(atomic_load(&stream.done) > 0);
	CHECK(atomic_load(&stream.conflicts) > 0);
	CHECK(atomic_load(&stream.aborted) > 0);
	run_task(stream_close, &stream);
	check_finish();
}

/* Every operation from every port at once: whatever they come to, the state is one that can be. */
static void change_at_random(unsigned index, void *argument)
{
	struct stream *stream = argument;
	struct share *share = &stream->share;
	struct random random = {.state = index};
	unsigned port = index % SHARE_PORTS;
	struct disk *disk = share->ports[port];
	const struct pr_ops *pr = disk_pr(disk);

	for (unsigned i = 0; i < 500; i++) {
		uint64_t key = port + 1, other = random_below(&random, SHARE_PORTS + 1);
		enum pr_type type = (enum pr_type)(1 + random_below(&random, PR_TYPES - 1));

		switch (random_below(&random, 8)) {
		case 0:
			pr->reg(disk, 0, random_below(&random, 3) ? key : 0, PR_IGNORE_KEY);
			break;
		case 1:
			pr->reserve(disk, key, type);
			break;
		case 2:
			pr->release(disk, key, type);
			break;
		case 3:
			pr->preempt(disk, key, other, type, other % 2 ? PR_ABORT : 0);
			break;
		case 4:
			if (random_below(&random, 4) == 0)
				pr->clear(disk, key);
			break;
		case 5:
			get(disk, index);
			break;
		default:
			put(disk, index, (int)i);
			break;
		}
	}
}

static void check_possible(void *argument)
{
	struct stream *stream = argument;
	struct pr_registrant registrants[SHARE_PORTS];
	struct pr_report report = {.registrants = registrants, .capacity = SHARE_PORTS};
	struct disk *disk = stream->share.ports[0];
	unsigned holders = 0;

	CHECK_OK(disk_pr(disk)->report(disk, &report));
	for (unsigned i = 0; i < report.count; i++) {
		CHECK_EQ(registrants[i].key, registrants[i].controller_id);
		holders += registrants[i].holds_reservation;
	}
	if (report.type == PR_NONE)
		CHECK_EQ(holders, 0);
	else if (pr_type_is_all_registrants(report.type))
		CHECK(holders > 0 && holders == report.count);
	else
		CHECK_EQ(holders, 1);
}

static void test_all_at_once(void **state)
{
	struct stream stream = {.stop = false};

	(void)state;
	run_task(stream_open, &stream);
	run_tasks(16, change_at_random, &stream);
	run_task(check_possible, &stream);
	run_task(stream_close, &stream);
}

/* ---- Sub-sector writes of several ports. ---- */

#define WRITES 20

static void write_bytes(unsigned index, void *argument)
{
	struct stream *stream = argument;
	struct disk *disk = stream->share.ports[index % SHARE_PORTS];

	for (unsigned i = 1; i <= WRITES; i++) {
		unsigned char byte = (unsigned char)i, back = 0;

		CHECK_OK(disk_write_bytes(disk, &byte, 1, index, 0));
		CHECK_OK(disk_read_bytes(disk, &back, 1, index));
		CHECK_EQ(back, byte);
	}
}

static void release(void *argument)
{
	struct stream *stream = argument;
	struct disk *disk = stream->share.ports[A];

	CHECK_OK(disk_pr(disk)->clear(disk, 1));
}

/* Each has a byte of its own in the one sector, and nobody undoes another's. */
static void test_bytes(void **state)
{
	struct stream stream = {.stop = false};

	(void)state;
	run_task(stream_open, &stream);
	run_task(release, &stream);
	stream.share.probe.sleep_ns = NS_PER_US * 20; /* between the read and the write */
	run_tasks(16, write_bytes, &stream);
	CHECK_EQ(bytes_differ(stream.share.probe.data, 16, WRITES), 16);
	run_task(stream_close, &stream);
	check_finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readers_do_not_hold_up),
		cmocka_unit_test(test_fenced_for_good),
		cmocka_unit_test(test_all_at_once),
		cmocka_unit_test(test_bytes),
	};

	return cmocka_run_group_tests(tests, setup_4_workers, teardown_workers);
}
