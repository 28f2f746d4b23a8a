// SPDX-License-Identifier: MIT
/* UTF-16, which names in a VHD are in, and UTF-8. */
#include <string.h>
#include "backends/vhd/format.h"

#define SURROGATE_HIGH 0xd800U
#define SURROGATE_LOW  0xdc00U
#define SURROGATE_END  0xe000U
#define BEYOND_16_BITS 0x10000U
#define UNICODE_END    0x110000U

static uint32_t unit_at(const uint8_t *bytes, bool big_endian)
{
	return big_endian ? (uint32_t)bytes[0] << 8 | bytes[1] : (uint32_t)bytes[1] << 8 | bytes[0];
}

static bool is_control(uint32_t character)
{
	return character < 0x20 || (character >= 0x7f && character < 0xa0);
}

static bool is_surrogate(uint32_t unit)
{
	return unit >= SURROGATE_HIGH && unit < SURROGATE_END;
}

/* Bytes written. */
static size_t utf8_put(char *text, uint32_t character)
{
	size_t more = character < 0x80		   ? 0
		      : character < 0x800	   ? 1
		      : character < BEYOND_16_BITS ? 2
						   : 3;
	static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};

	text[0] = (char)(lead[more] | (character >> (6 * more)));
	for (size_t i = 1; i <= more; i++)
		text[i] = (char)(0x80 | (character >> (6 * (more - i)) & 0x3f));
	return more + 1;
}

/* Bytes read; 0: it is none. */
static size_t utf8_get(const unsigned char *text, uint32_t *character)
{
	static const uint32_t least[] = {0, 0x80, 0x800, BEYOND_16_BITS};
	size_t more = text[0] < 0x80 ? 0 : text[0] < 0xe0 ? 1 : text[0] < 0xf0 ? 2 : 3;

	if (text[0] >= 0x80 && (text[0] < 0xc0 || text[0] >= 0xf8))
		return 0;
	*character = more == 0 ? text[0] : text[0] & (0x3fU >> more);
	for (size_t i = 1; i <= more; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		*character = *character << 6 | (text[i] & 0x3f);
	}
	if (*character < least[more] || *character >= UNICODE_END || is_surrogate(*character))
		return 0;
	return more + 1;
}

int vhd_text_decode(char *text, const uint8_t *bytes, size_t length, bool big_endian)
{
	size_t at = 0;

	if (length % 2 != 0)
		return -1;
	while (at < length) {
		uint32_t character = unit_at(bytes + at, big_endian);

		at += 2;
		if (character == 0)
			break;
		if (is_surrogate(character)) {
			uint32_t low = at < length ? unit_at(bytes + at, big_endian) : 0;

			if (character >= SURROGATE_LOW || low < SURROGATE_LOW ||
			    low >= SURROGATE_END)
				return -1;
			character = BEYOND_16_BITS + ((character - SURROGATE_HIGH) << 10) +
				    (low - SURROGATE_LOW);
			at += 2;
		}
		if (is_control(character))
			return -1;
		text += utf8_put(text, character);
	}
	*text = '\0';
	return 0;
}

static void unit_put(uint8_t *bytes, uint32_t unit, bool big_endian)
{
	bytes[big_endian ? 0 : 1] = (uint8_t)(unit >> 8);
	bytes[big_endian ? 1 : 0] = (uint8_t)unit;
}

int vhd_text_encode(uint8_t *bytes, size_t max, const char *text, bool big_endian)
{
	const unsigned char *rest = (const unsigned char *)text;
	size_t length = 0;

	while (*rest) {
		uint32_t character;
		size_t taken = utf8_get(rest, &character);
		size_t needed = taken > 3 ? 4 : 2;

		if (taken == 0 || is_control(character) || length + needed > max)
			return -1;
		if (needed == 4) {
			character -= BEYOND_16_BITS;
			unit_put(bytes + length, SURROGATE_HIGH + (character >> 10), big_endian);
			unit_put(bytes + length + 2, SURROGATE_LOW + (character & 0x3ff),
				 big_endian);
		} else {
			unit_put(bytes + length, character, big_endian);
		}
		length += needed;
		rest += taken;
	}
	return (int)length;
}
