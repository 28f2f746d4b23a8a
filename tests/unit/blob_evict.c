// SPDX-License-Identifier: MIT
/* Which block of the cache is forgotten next. */
#include "backends/blob/evict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/run.h"

#define COUNT 1000

static struct block table[COUNT + 1];
static struct block_owner owner;
static struct evict evict;

static int setup(void **state)
{
	(void)state;
	memset(table, 0, sizeof(table));
	owner.id = 7;
	for (uint32_t i = 1; i <= COUNT; i++)
		table[i] = (struct block){.owner = &owner, .number = i};
	return evict_init(&evict, table, COUNT) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	evict_destroy(&evict);
	return 0;
}

static void use(uint32_t index)
{
	if (table[index].uses < BLOCK_USES_MAX)
		table[index].uses++;
}

static void nothing(void **state)
{
	(void)state;
	assert_int_equal(evict_take(&evict), BLOCK_NONE);
}

/* What nobody has used again goes in the order in which it came. */
static void in_order(void **state)
{
	(void)state;
	for (uint32_t i = 1; i <= COUNT; i++)
		evict_add(&evict, i);
	for (uint32_t i = 1; i <= COUNT; i++)
		assert_int_equal(evict_take(&evict), i);
	assert_int_equal(evict_take(&evict), BLOCK_NONE);
}

/* Each once, whatever was used, and however often. */
static void all_used(void **state)
{
	bool taken[COUNT + 1] = {false};

	(void)state;
	for (uint32_t i = 1; i <= COUNT; i++) {
		table[i].uses = i % (BLOCK_USES_MAX + 1);
		evict_add(&evict, i);
	}
	for (uint32_t i = 1; i <= COUNT; i++) {
		uint32_t index = evict_take(&evict);

		assert_true(index != BLOCK_NONE && !taken[index]);
		assert_int_equal(table[index].queue, QUEUE_NONE);
		taken[index] = true;
	}
	assert_int_equal(evict_take(&evict), BLOCK_NONE);
}

static void removed(void **state)
{
	struct random random = {.state = 2};
	bool queued[COUNT + 1] = {false};
	unsigned count = 0;

	(void)state;
	for (unsigned i = 0; i < 50000; i++) {
		uint32_t index = 1 + (uint32_t)random_below(&random, COUNT);

		if (!queued[index]) {
			table[index].uses = (uint8_t)random_below(&random, 3);
			evict_add(&evict, index);
		} else if (i % 3) {
			evict_remove(&evict, index);
		} else {
			index = evict_take(&evict);
			assert_true(index != BLOCK_NONE && queued[index]);
		}
		count += queued[index] ? -1U : 1U;
		queued[index] = !queued[index];
		assert_int_equal(evict.queues[QUEUE_SMALL].count + evict.queues[QUEUE_MAIN].count,
				 count);
	}
}

/* Puts block @number in the place of the one that goes. */
static uint64_t replace(uint64_t number)
{
	uint32_t index = evict_take(&evict);
	uint64_t gone = table[index].number;

	table[index].number = number;
	table[index].uses = 0;
	table[index].marks = 0;
	evict_add(&evict, index);
	return gone;
}

/* Half of all was used twice; then ten times as much as there is comes by, once. */
static void scan(void **state)
{
	(void)state;
	for (uint32_t i = 1; i <= COUNT; i++)
		evict_add(&evict, i);
	for (uint32_t i = 1; i <= COUNT / 2; i++)
		use(i);
	for (uint64_t i = 0; i < COUNT * 10; i++)
		assert_true(replace(100000 + i) > COUNT / 2);
}

/* What comes back soon stays; what was read ahead in vain leaves no ghost. */
static void ghosts(void **state)
{
	(void)state;
	for (uint32_t i = 1; i <= COUNT; i++)
		evict_add(&evict, i);
	table[2].marks = BLOCK_UNREAD;
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(replace(5000 + i), 1 + i);
	replace(1);
	assert_int_equal(evict.queues[QUEUE_MAIN].count, 1);
	replace(2);
	assert_int_equal(evict.queues[QUEUE_MAIN].count, 1);
	replace(3);
	assert_int_equal(evict.queues[QUEUE_MAIN].count, 2);
	/* It takes too long. */
	for (uint64_t i = 0; i < 3 * COUNT; i++)
		replace(10000 + i);
	replace(5);
	assert_int_equal(evict.queues[QUEUE_MAIN].count, 2);
}

/* ---- Against the best known plain rule, least recently used, where scans disturb. ---- */

#define NUMBERS 100000

struct cache {
	uint32_t place[NUMBERS]; /* of each block, 0: none */
	uint64_t last[NUMBERS];	 /* when it was used */
	unsigned held;
	uint64_t hits;
};

static bool lru_read(struct cache *cache, uint64_t number, uint64_t now)
{
	bool hit = cache->last[number] > 0 && now - cache->last[number] <= COUNT;

	/* What was used within the last COUNT reads is surely there: kinder to it than it is. */
	cache->last[number] = now;
	return hit;
}

static bool evict_read(struct cache *cache, uint64_t number)
{
	uint32_t index = cache->place[number];

	if (index != 0) {
		use(index);
		return true;
	}
	if (cache->held < COUNT) {
		index = ++cache->held;
	} else {
		index = evict_take(&evict);
		cache->place[table[index].number] = 0;
	}
	table[index].number = number;
	table[index].uses = 0;
	cache->place[number] = index;
	evict_add(&evict, index);
	return false;
}

static void better_than_lru(void **state)
{
	struct cache *ours = calloc(1, sizeof(*ours)), *lru = calloc(1, sizeof(*lru));
	struct random random = {.state = 1};
	uint64_t scan_at = 0, hot = 0;

	(void)state;
	for (uint64_t now = 1; now < 300000; now++) {
		bool is_scan = now % 3000 > 1500 && now % 2;
		/* Few are used often, many seldom. */
		uint64_t number = random_below(&random, 1 + random_below(&random, 1200));

		if (is_scan)
			number = 2000 + scan_at++ % (NUMBERS - 2000);
		else
			hot++;
		ours->hits += evict_read(ours, number) && !is_scan;
		lru->hits += lru_read(lru, number, now) && !is_scan;
	}
	assert_true(ours->hits * 100 > hot * 85);
	assert_true(ours->hits > lru->hits);
	free(ours);
	free(lru);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(nothing), TEST(in_order), TEST(all_used),	      TEST(removed),
		TEST(scan),    TEST(ghosts),   TEST(better_than_lru),
	};

	return cmocka_run_group_tests_name("blob evict", tests, NULL, NULL);
}
