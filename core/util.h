/* SPDX-License-Identifier: MIT */
/*
 * Small helpers that every room uses: sizes of arrays, minima, powers of two, checked arithmetic,
 * memory of zeros.
 */
#ifndef CORE_UTIL_H
#define CORE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define CONTAINER_OF(pointer, type, member) \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))
#define PRINTF_LIKE(format_at, first_at) __attribute__((format(printf, format_at, first_at)))

#define KIB				 ((uint64_t)1024)
#define MIB				 (KIB * 1024)
#define GIB				 (MIB * 1024)

#define NS_PER_S			 ((uint64_t)1000000000)
#define NS_PER_US			 ((uint64_t)1000)

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline bool is_power_of_two(uint64_t value)
{
	return value != 0 && (value & (value - 1)) == 0;
}

/* @align is a power of two. */
static inline uint64_t align_down(uint64_t value, uint64_t align)
{
	return value & ~(align - 1);
}

/* @align is a power of two; the caller knows that @value is at least @align below 2^64. */
static inline uint64_t align_up(uint64_t value, uint64_t align)
{
	return align_down(value + align - 1, align);
}

static inline bool is_aligned(uint64_t value, uint64_t align)
{
	return (value & (align - 1)) == 0;
}

/* log2 of a power of two. */
static inline unsigned log2_of(uint64_t power)
{
	return (unsigned)__builtin_ctzll(power);
}

/* Whether all of the memory is zeros; so it is where there is none. Fast where it begins otherwise. */
static inline bool is_zeros(const void *memory, size_t length)
{
	const unsigned char *bytes = memory;

	return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* FNV-1a of 64 bits (draft-eastlake-fnv): the same at every start. */
uint64_t hash_name(const char *name);

/* Number @index of the pseudo-random sequence that @seed starts (splitmix64: Steele, Lea, Flood,
 * "Fast splittable pseudorandom number generators"). */
static inline uint64_t random_at(uint64_t seed, uint64_t index)
{
	uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* Monotonic time in nanoseconds. */
uint64_t now_ns(void);

/* Writes @bytes as "4 GiB", "1.5 MiB", "12 bytes" into @text and returns @text. */
const char *format_size(char text[static 48], uint64_t bytes);

/* Writes the 32 hexadecimal digits of @id into @text and returns @text. */
const char *format_id(char text[static 33], const uint8_t id[static 16]);

#endif
