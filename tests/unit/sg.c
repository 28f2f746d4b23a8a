// SPDX-License-Identifier: MIT
/* Scatter lists: every slice of lists of many shapes, against a flat copy. */
#include "core/sg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/run.h"

#define LISTS_SEGMENTS 7
#define BYTES	       32

/* Lengths of the segments, BYTES in all. */
static const unsigned char lists[][LISTS_SEGMENTS] = {
	{32, 0, 0, 0, 0, 0, 0}, {0, 32, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 32},
	{1, 31, 0, 0, 0, 0, 0}, {31, 1, 0, 0, 0, 0, 0}, {8, 8, 8, 8, 0, 0, 0},
	{8, 0, 8, 0, 8, 0, 8},	{0, 0, 5, 0, 0, 27, 0}, {1, 2, 3, 4, 5, 6, 11},
	{3, 0, 0, 26, 0, 0, 3}, {4, 4, 4, 4, 4, 4, 8},
};

/* A list whose segments lie apart, in reverse order, and its bytes in order. */
struct list {
	char memory[2 * BYTES + LISTS_SEGMENTS];
	struct iovec iov[LISTS_SEGMENTS];
	char flat[BYTES];
};

static void list_make(struct list *list, const unsigned char *lengths)
{
	char *end = list->memory + sizeof(list->memory);
	size_t at = 0;

	memset(list->memory, '#', sizeof(list->memory));
	pattern_fill(list->flat, BYTES, lengths[0]);
	for (unsigned i = 0; i < LISTS_SEGMENTS; i++) {
		end -= lengths[i] + 1;
		list->iov[i] = (struct iovec){.iov_base = end, .iov_len = lengths[i]};
		memcpy(end, list->flat + at, lengths[i]);
		at += lengths[i];
	}
	assert_int_equal(at, BYTES);
}

static struct sg list_sg(const struct list *list)
{
	return (struct sg){.iov = list->iov, .len = BYTES};
}

static void check_part(const struct list *list, size_t offset, size_t len)
{
	struct sg whole = list_sg(list), part = sg_slice(&whole, offset, len);
	char copy[BYTES];
	struct iovec iov[LISTS_SEGMENTS];
	size_t bytes, at = 0;
	unsigned count = sg_iovecs(&part, iov, LISTS_SEGMENTS, &bytes);

	assert_int_equal(part.len, len);
	assert_true(len == 0 || part.skip < part.iov->iov_len);
	sg_copy_to(&part, copy);
	assert_memory_equal(copy, list->flat + offset, len);

	assert_int_equal(bytes, len);
	assert_int_equal(count, sg_segments(&part));
	for (unsigned i = 0; i < count; i++) {
		assert_true(iov[i].iov_len > 0);
		assert_memory_equal(iov[i].iov_base, list->flat + offset + at, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	assert_int_equal(at, len);
}

static void test_every_slice(void **state)
{
	struct list list;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		list_make(&list, lists[i]);
		for (size_t offset = 0; offset <= BYTES; offset++)
			for (size_t len = 0; len <= BYTES - offset; len++)
				check_part(&list, offset, len);
	}
}

static void test_slice_of_slice(void **state)
{
	struct list list;
	char copy[BYTES];

	(void)state;
	list_make(&list, lists[8]);
	for (size_t first = 0; first < BYTES; first++) {
		for (size_t second = 0; second < BYTES - first; second++) {
			struct sg whole = list_sg(&list);
			struct sg part = sg_slice(&whole, first, BYTES - first);
			struct sg last = sg_slice(&part, second, BYTES - first - second);

			sg_copy_to(&last, copy);
			assert_memory_equal(copy, list.flat + first + second, last.len);
		}
	}
}

/* Fewer iovecs than there are segments: the beginning of the list. */
static void test_iovecs_limit(void **state)
{
	struct list list;

	(void)state;
	list_make(&list, lists[8]);
	for (unsigned max = 0; max <= LISTS_SEGMENTS; max++) {
		struct sg sg = list_sg(&list);
		struct iovec iov[LISTS_SEGMENTS + 1] = {{NULL, 0}};
		size_t bytes, wanted = 0;

		assert_int_equal(sg_iovecs(&sg, iov, max, &bytes), max);
		for (unsigned i = 0; i < max; i++)
			wanted += lists[8][i];
		assert_int_equal(bytes, wanted);
		assert_null(iov[max].iov_base);
	}
}

/* Only the bytes of the part change, whatever its place. */
static void check_copy_from(const struct list *list, struct list *changed, size_t offset,
			    size_t len)
{
	struct sg whole = list_sg(changed), part = sg_slice(&whole, offset, len);
	char copy[BYTES], flat[BYTES], data[BYTES];

	memcpy(flat, list->flat, BYTES);
	pattern_fill(data, BYTES, 99);
	memcpy(flat + offset, data, len);
	sg_copy_from(&part, data);
	sg_copy_to(&whole, copy);
	assert_memory_equal(copy, flat, BYTES);

	memset(flat + offset, 0, len);
	sg_zero(&part);
	sg_copy_to(&whole, copy);
	assert_memory_equal(copy, flat, BYTES);

	/* Nothing between the segments has changed either. */
	sg_copy_from(&whole, list->flat);
	assert_memory_equal(changed->memory, list->memory, sizeof(list->memory));
}

static void test_copy_from_and_zero(void **state)
{
	struct list list, changed;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		list_make(&list, lists[i]);
		list_make(&changed, lists[i]);
		for (size_t offset = 0; offset <= BYTES; offset++)
			for (size_t len = 0; len <= BYTES - offset; len++)
				check_copy_from(&list, &changed, offset, len);
	}
}

static void test_alignment(void **state)
{
	static char memory[4096] __attribute__((aligned(512)));
	struct iovec iov[3] = {{memory, 1024}, {memory + 1, 0}, {memory + 2048, 512}};
	struct sg sg = {.iov = iov, .len = 1536};
	struct sg part;

	(void)state;
	assert_true(sg_is_aligned(&sg, 512, 512)); /* the empty segment does not count */
	assert_true(sg_is_aligned(&sg, 1, 1));
	assert_false(sg_is_aligned(&sg, 1024, 1024)); /* the length of the last */
	iov[2].iov_base = memory + 2052;
	assert_false(sg_is_aligned(&sg, 8, 8));
	assert_true(sg_is_aligned(&sg, 4, 4));
	assert_true(sg_is_aligned(&sg, 4, 512));
	assert_false(sg_is_aligned(&sg, 4, 1024));
	part = sg_slice(&sg, 0, 1024);
	assert_true(sg_is_aligned(&part, 1024 / 2, 1024 / 2));
	part = sg_slice(&sg, 4, 1020);
	assert_false(sg_is_aligned(&part, 8, 8));
	assert_true(sg_is_aligned(&part, 4, 4));
	part = sg_slice(&sg, 0, 0);
	assert_true(sg_is_aligned(&part, 512, 512));
}

static void test_one_buffer(void **state)
{
	struct iovec iov;
	char data[8] = "abcdefg", copy[8];
	struct sg sg = sg_of(&iov, data, 8);

	(void)state;
	assert_int_equal(sg.len, 8);
	assert_int_equal(sg_segments(&sg), 1);
	sg_copy_to(&sg, copy);
	assert_memory_equal(copy, data, 8);
	sg = sg_of(&iov, data, 0);
	assert_int_equal(sg_segments(&sg), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_slice),  cmocka_unit_test(test_slice_of_slice),
		cmocka_unit_test(test_iovecs_limit), cmocka_unit_test(test_copy_from_and_zero),
		cmocka_unit_test(test_alignment),    cmocka_unit_test(test_one_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
