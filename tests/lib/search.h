/* SPDX-License-Identifier: MIT */
/*
 * Searching the memory of this process for what must not be in it. So the search itself must not
 * have it: it works on *words* of 8 bytes, each masked, and finds them at any address. Failures end
 * the test by a cmocka assertion.
 */
#ifndef TESTS_LIB_SEARCH_H
#define TESTS_LIB_SEARCH_H

#include "core/util.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* For functions that read memory which is not theirs, or whose variables must be on the stack. */
#define UNCHECKED	 __attribute__((no_sanitize("address", "thread", "undefined"), noinline))

#define SEARCH_WORD	 8
#define SEARCH_WORDS_MAX 512

/* Zeroed, there are none. Without padding, so that another process can hand them over. */
struct search {
	uint64_t count;
	uint64_t masked[SEARCH_WORDS_MAX];
};

/* Adds what is in @bytes; @length is a multiple of a word. */
void search_add(struct search *search, const void *bytes, size_t length);

/* Adds @length bytes at random that are nowhere in memory, and writes them to the file @name. */
void search_add_random(struct search *search, size_t length, const char *name);

/* Makes a copy of the first @count words, @count of them or less, at @copy. */
void search_copy(const struct search *search, unsigned char *copy, size_t count);

struct search_found {
	unsigned all;
	unsigned dumped;   /* where core dumps look */
	unsigned unlocked; /* where memory can be swapped out */
};

/* How often words are in memory; says on stderr in which mappings, where one is dumped. */
struct search_found search_memory(const struct search *search);

/* The same of one mapping: the one that @pointer is in. */
struct search_mapping {
	bool readable, dumped, locked;
	const unsigned char *start, *end;
};

struct search_mapping search_mapping_of(const void *pointer);

#endif
