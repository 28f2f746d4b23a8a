// SPDX-License-Identifier: MIT
/*
 * "Did you mean ...?": the name of a list that a mistyped one most likely stands for.
 *
 * The distance is the number of letters to insert, to delete, to replace, or of neighbours to swap;
 * case does not count. A name is near enough at a distance of at most 2 that is less than half of
 * its length, so that short names do not suggest each other at random.
 */
#include "conf/option.h"

#include <ctype.h>
#include <string.h>

#define NAME_MAX_LENGTH ((size_t)64) /* longer ones are not compared */
#define DISTANCE_MAX	((size_t)2)

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t least = a < b ? a : b;

	return least < c ? least : c;
}

static bool same_letter(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Both are at most NAME_MAX_LENGTH long. */
static size_t edit_distance(const char *a, const char *b)
{
	/* The current row of the usual table and the two before it, rotating. */
	size_t rows[3][NAME_MAX_LENGTH + 1];
	size_t a_length = strlen(a), b_length = strlen(b);

	for (size_t j = 0; j <= b_length; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= a_length; i++) {
		size_t *row = rows[i % 3];
		const size_t *above = rows[(i - 1) % 3];
		const size_t *above2 = rows[(i + 1) % 3];

		row[0] = i;
		for (size_t j = 1; j <= b_length; j++) {
			size_t replaced = above[j - 1] + (same_letter(a[i - 1], b[j - 1]) ? 0 : 1);

			row[j] = min3(above[j] + 1, row[j - 1] + 1, replaced);
			if (i > 1 && j > 1 && same_letter(a[i - 1], b[j - 2]) &&
			    same_letter(a[i - 2], b[j - 1]))
				row[j] = min3(row[j], above2[j - 2] + 1, row[j]);
		}
	}
	return rows[a_length % 3][b_length];
}

/* The best of the candidates so far. */
struct suggestion {
	const char *name;
	size_t distance;
};

static void suggestion_try(struct suggestion *best, const char *wanted, const char *candidate)
{
	size_t length = strlen(wanted), distance;

	if (length > NAME_MAX_LENGTH || strlen(candidate) > NAME_MAX_LENGTH)
		return;
	distance = edit_distance(wanted, candidate);
	if (distance > DISTANCE_MAX || distance * 2 >= length)
		return;
	if (!best->name || distance < best->distance)
		*best = (struct suggestion){.name = candidate, .distance = distance};
}

const char *option_suggest(const struct option *const *tables, size_t count, const char *name)
{
	struct suggestion best = {0};

	for (size_t i = 0; i < count; i++)
		for (const struct option *option = tables[i]; option->name; option++)
			suggestion_try(&best, name, option->name);
	return best.name;
}

const char *name_suggest(const char *const *names, const char *name)
{
	struct suggestion best = {0};

	for (; *names; names++)
		suggestion_try(&best, name, *names);
	return best.name;
}
