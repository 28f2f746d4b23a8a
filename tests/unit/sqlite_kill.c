// SPDX-License-Identifier: MIT
/*
 * kill -9 at any moment: a process that changes a layer, flushes it, and keeps account in memory that
 * outlives it, is killed again and again. Each time everything that it had flushed is there, or what
 * it did later, and no sector is torn.
 *
 *	SEED=n	other changes
 *	LONG=1	more kills
 */
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/sqlite/sqlite.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/sqlite.h"

#define PATH		  "layer.diskfs"
#define TASKS		  4
#define OWN		  48 /* sectors of each task, every fourth one */
#define SECTORS		  (TASKS * OWN)
#define WORDS		  (512 / sizeof(uint64_t))
#define ZEROS_AT	  7 /* every so many versions, the sector is zeros */
#define IS_ZEROS(version) ((version) % ZEROS_AT == 0)

/* Versions of each sector: asked for, acknowledged, flushed. */
static struct account {
	_Atomic uint64_t asked[SECTORS], done[SECTORS], flushed[SECTORS];
	_Atomic uint64_t flushes;
} * account;

static uint64_t seed = 1;

static struct sqlite_layer layer = {.options = {{"path", PATH}, {"size", "4M"}}};

/* ---- The process that is killed. ---- */

static void put_version(unsigned sector, uint64_t version)
{
	uint64_t data[WORDS];
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));
	int error;

	for (unsigned i = 0; i < WORDS; i++)
		data[i] = version << 16 | sector;
	atomic_store(&account->asked[sector], version);
	error = IS_ZEROS(version) ? disk_write_zeroes(layer.disk, sector, 1, 0)
				  : disk_write(layer.disk, &sg, sector, 0);
	if (!CHECK_OK(error))
		_exit(1);
	atomic_store(&account->done[sector], version);
}

/* The sectors of a task are its own, so it knows what its flush has to have. */
static void flush_own(unsigned index)
{
	uint64_t versions[OWN];

	for (unsigned i = 0; i < OWN; i++)
		versions[i] = atomic_load(&account->done[i * TASKS + index]);
	if (!CHECK_OK(disk_flush(layer.disk)))
		_exit(1);
	for (unsigned i = 0; i < OWN; i++)
		atomic_store(&account->flushed[i * TASKS + index], versions[i]);
	atomic_fetch_add(&account->flushes, 1);
}

static void victim_task(unsigned index, void *argument)
{
	struct random random = {.state = *(uint64_t *)argument * TASKS + index};

	for (;;) {
		unsigned sector = (unsigned)random_below(&random, OWN) * TASKS + index;

		put_version(sector, atomic_load(&account->asked[sector]) + 1);
		if (random_below(&random, 6) == 0)
			flush_own(index);
	}
}

static void begin_task(void *argument)
{
	(void)argument;
	if (!sqlite_begin(&layer))
		_exit(1);
	/* Often enough that it is killed in the middle of it. */
	sqlite_of(layer.disk)->committer.wal_soft = 64 * KIB;
	sqlite_of(layer.disk)->committer.wal_hard = 512 * KIB;
}

static void victim(uint64_t round)
{
	struct err err;

	if (workers_start(2, &err) < 0)
		_exit(1);
	run_task(begin_task, NULL);
	run_tasks(TASKS, victim_task, &round);
	_exit(1);
}

/* ---- Afterwards. ---- */

static void check_version(unsigned sector)
{
	uint64_t data[WORDS], least = atomic_load(&account->flushed[sector]);
	uint64_t most = atomic_load(&account->asked[sector]), version;
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, sizeof(data));
	struct layer_gaps gaps;

	CHECK_OK(layer_read(layer.disk, &sg, sector, &gaps));
	if (gaps.count > 0) {
		CHECK_EQ(least, 0);
		return;
	}
	version = data[0] >> 16;
	for (unsigned i = 1; i < WORDS; i++)
		if (!CHECK_EQ(data[i], data[0]))
			return;
	if (data[0] != 0) {
		CHECK_EQ(data[0] & 0xffff, sector);
		CHECK(version >= least && version <= most && !IS_ZEROS(version));
	} else { /* one of those that are zeros */
		CHECK(most / ZEROS_AT * ZEROS_AT >= max_u64(least, 1));
	}
}

/* What is there now is flushed: it stays, whatever comes. */
static void check_task(void *argument)
{
	(void)argument;
	if (!sqlite_begin(&layer))
		return;
	for (unsigned i = 0; i < SECTORS; i++) {
		check_version(i);
		put_version(i, atomic_load(&account->asked[i]) + 1);
	}
	for (unsigned i = 0; i < TASKS; i++)
		flush_own(i);
	sqlite_end(&layer);
	CHECK_EQ(sqlite_sql(PATH, "SELECT count(*) FROM pragma_integrity_check WHERE "
				  "integrity_check <> 'ok'"),
		 0);
}

static void kill_one(uint64_t round)
{
	struct random random = {.state = seed * 1000 + round};
	uint64_t flushes = atomic_load(&account->flushes);
	struct err err;
	pid_t child = fork();
	int status;

	if (child == 0)
		victim(seed * 1000 + round);
	/* Once it is at work, and then at any time. */
	for (unsigned i = 0; i < 20000 && atomic_load(&account->flushes) == flushes; i++)
		usleep(1000);
	usleep((useconds_t)random_below(&random, 40000));
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_true(atomic_load(&account->flushes) > flushes);
	assert_int_equal(workers_start(1, &err), 0);
	check_context("SEED=%" PRIu64 ", round %" PRIu64, seed, round);
	run_task(check_task, NULL);
	workers_stop();
}

static void test_kills(void **state)
{
	unsigned rounds = getenv("LONG") && getenv("LONG")[0] ? 400 : 25;

	(void)state;
	for (unsigned i = 0; i < rounds; i++)
		kill_one(i);
}

static int enter(void **state)
{
	const char *text = getenv("SEED");

	(void)state;
	if (text)
		seed = strtoull(text, NULL, 0);
	account = mmap(NULL, sizeof(*account), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	assert_true(account != MAP_FAILED);
	scratch_enter();
	return 0;
}

static int leave(void **state)
{
	(void)state;
	munmap(account, sizeof(*account));
	scratch_leave();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_kills)};

	return cmocka_run_group_tests(tests, enter, leave);
}
