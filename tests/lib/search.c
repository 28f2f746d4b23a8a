// SPDX-License-Identifier: MIT
#include "tests/lib/search.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <cmocka.h>

#define MASK 0xa5c3a5c3a5c3a5c3U

/* ---- Words. ---- */

UNCHECKED static uint64_t masked_at(const void *bytes)
{
	return *(const uint64_t __attribute__((aligned(1), may_alias)) *)bytes ^ MASK;
}

void search_add(struct search *search, const void *bytes, size_t length)
{
	assert_int_equal(length % SEARCH_WORD, 0);
	for (size_t at = 0; at < length; at += SEARCH_WORD) {
		assert_true(search->count < SEARCH_WORDS_MAX);
		search->masked[search->count++] = masked_at((const char *)bytes + at);
	}
}

/* A byte at a time, each of which is in memory for a moment. */
static unsigned char byte_of(const struct search *search, size_t at)
{
	volatile const unsigned char *masked = (const unsigned char *)search->masked;

	return masked[at] ^ (unsigned char)(MASK >> at % SEARCH_WORD * 8);
}

void search_add_random(struct search *search, size_t length, const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t begin = search->count * SEARCH_WORD;

	assert_true(fd >= 0);
	assert_true(begin + length <= sizeof(search->masked));
	/* Anything at random is as good with the mask as without. */
	assert_int_equal(getrandom((char *)search->masked + begin, length, 0), length);
	search->count += length / SEARCH_WORD;
	for (size_t at = begin; at < begin + length; at++) {
		unsigned char byte = byte_of(search, at);

		assert_int_equal(write(fd, &byte, 1), 1);
	}
	close(fd);
}

UNCHECKED void search_copy(const struct search *search, unsigned char *copy, size_t count)
{
	volatile unsigned char *to = copy;

	for (size_t at = 0; at < min_u64(count, search->count) * SEARCH_WORD; at++)
		to[at] = byte_of(search, at);
}

/* ---- Mappings. ---- */

#define MAPPINGS_MAX 20000

static struct search_mapping mappings[MAPPINGS_MAX];
static unsigned mapping_count;

/* The flags of a mapping in /proc/self/smaps are two letters each. */
static bool has_flag(const char *flags, const char *flag)
{
	return strstr(flags, flag) != NULL;
}

static void mappings_read(void)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	struct search_mapping mapping = {.start = NULL};
	char line[4096];

	assert_non_null(maps);
	mapping_count = 0;
	while (fgets(line, sizeof(line), maps)) {
		unsigned long start, end;
		char permissions[5];

		if (sscanf(line, "%lx-%lx %4s", &start, &end, permissions) == 3) {
			mapping = (struct search_mapping){.start = (const unsigned char *)start,
							  .end = (const unsigned char *)end,
							  .readable = permissions[0] == 'r' &&
								      !strstr(line, "[vv")};
		} else if (strncmp(line, "VmFlags:", 8) == 0) {
			mapping.dumped = !has_flag(line, " dd");
			mapping.locked = has_flag(line, " lo");
			assert_true(mapping_count < MAPPINGS_MAX);
			mappings[mapping_count++] = mapping;
		}
	}
	fclose(maps);
}

struct search_mapping search_mapping_of(const void *pointer)
{
	const unsigned char *at = pointer;

	mappings_read();
	for (unsigned i = 0; i < mapping_count; i++)
		if (at >= mappings[i].start && at < mappings[i].end)
			return mappings[i];
	return (struct search_mapping){.start = NULL};
}

/* ---- The search. ---- */

/* Whether a masked word may be one of those searched for, by its lowest 16 bits. */
static unsigned char candidates[8192];

static void candidates_fill(const struct search *search)
{
	memset(candidates, 0, sizeof(candidates));
	for (unsigned i = 0; i < search->count; i++) {
		uint64_t word = search->masked[i];

		candidates[(word & 0xffff) / 8] |= (unsigned char)(1 << word % 8);
	}
}

UNCHECKED static bool is_searched(const struct search *search, uint64_t word)
{
	for (unsigned i = 0; i < search->count; i++)
		if (search->masked[i] == word)
			return true;
	return false;
}

UNCHECKED static unsigned search_in(const struct search *search,
				    const struct search_mapping *mapping)
{
	unsigned found = 0;

	for (const unsigned char *at = mapping->start; at + SEARCH_WORD <= mapping->end; at++) {
		uint64_t word = masked_at(at);

		if (candidates[(word & 0xffff) / 8] & 1 << word % 8)
			found += is_searched(search, word);
	}
	return found;
}

struct search_found search_memory(const struct search *search)
{
	struct search_found all = {.all = 0};

	mappings_read();
	candidates_fill(search);
	for (unsigned i = 0; i < mapping_count; i++) {
		const struct search_mapping *mapping = &mappings[i];

		/* Nothing but the shadows of sanitizers is so large. */
		if (!mapping->readable || mapping->end - mapping->start > (ptrdiff_t)GIB)
			continue;

		unsigned found = search_in(search, mapping);

		all.all += found;
		all.dumped += mapping->dumped ? found : 0;
		all.unlocked += mapping->locked ? 0 : found;
		if (found > 0 && mapping->dumped)
			fprintf(stderr, "%u words in %p-%p\n", found, (const void *)mapping->start,
				(const void *)mapping->end);
	}
	return all;
}
