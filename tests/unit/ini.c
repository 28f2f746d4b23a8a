// SPDX-License-Identifier: MIT
/*
 * The INI reader: what it accepts with the exact values, what it refuses with the exact messages,
 * and random damage, which must never crash it nor be refused without a word.
 */
#include "conf/ini.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/scratch.h"

#define MUTATIONS 20000

/* A string literal with its length, for texts with NUL bytes. */
#define TEXT(literal) literal, sizeof(literal) - 1

static struct ini *load(const char *text, size_t length, struct capture *errors)
{
	struct ini *ini;

	scratch_write("t.conf", text, length);
	capture_begin(errors);
	ini = ini_load("t.conf", errors->stream);
	capture_end(errors);
	return ini;
}

struct good_case {
	const char *text;
	size_t length;
	const char *section, *key, *value;
	unsigned line;
};

static const struct good_case good_cases[] = {
	{TEXT("[a]\nk=v"), "a", "k", "v", 2},
	{TEXT("\n; c\n# c\n  [ a ]  \n\tk \t=\t v w \t\n"), "a", "k", "v w", 5},
	{TEXT("[a] ; optional: x = y [z]\nk = v ; comment = \"x\n"), "a", "k", "v", 2},
	{TEXT("[a];c\nk = v\t# comment ; 'two\n"), "a", "k", "v", 2},
	{TEXT("[a]\r\nk = v\r\nl = w\r\n"), "a", "k", "v", 2},
	{TEXT("\xef\xbb\xbf[a]\nk = v\n"), "a", "k", "v", 2},
	{TEXT("[a]\nk = \"a;b # c\" ; c\n"), "a", "k", "a;b # c", 2},
	{TEXT("[a]\nk = 'say \"x\"'# c\n"), "a", "k", "say \"x\"", 2},
	{TEXT("[a]\nk = \"it's\"\n"), "a", "k", "it's", 2},
	{TEXT("[a]\nk = \" two blanks  \"\n"), "a", "k", " two blanks  ", 2},
	{TEXT("[a]\nk = 'a\\'\n"), "a", "k", "a\\", 2},
	{TEXT("[a]\nk =\n"), "a", "k", "", 2},
	{TEXT("[a]\nk = ; c\n"), "a", "k", "", 2},
	{TEXT("[a]\nk = \"\" # c\n"), "a", "k", "", 2},
	{TEXT("[a]\nk = ''"), "a", "k", "", 2},
	{TEXT("[a]\nk = '  '\n"), "a", "k", "  ", 2},
	{TEXT("[a]\nk = a=b = c\n"), "a", "k", "a=b = c", 2},
	{TEXT("[a]\nk == b\n"), "a", "k", "= b", 2},
	{TEXT("[a]\nk = [b]\n"), "a", "k", "[b]", 2},
	{TEXT("[a]\nk = /srv/\xc3\xa4 \xe2\x82\xac \xf0\x9f\x92\xbe.raw\n"), "a", "k",
	 "/srv/\xc3\xa4 \xe2\x82\xac \xf0\x9f\x92\xbe.raw", 2},
	{TEXT("[0.a_b-c]\nk_1 = v\n[b]\nk_1 = w\n"), "b", "k_1", "w", 4},
	{TEXT("[a]\nk = a:b%s%n\n"), "a", "k", "a:b%s%n", 2},
};

static void test_accepted(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good_cases); i++) {
		const struct good_case *c = &good_cases[i];
		const struct ini_section *section;
		const struct ini_key *key;
		struct capture errors;
		struct ini *ini = load(c->text, c->length, &errors);

		assert_string_equal(errors.text, "");
		assert_non_null(ini);
		section = ini_section_find(ini, c->section);
		assert_non_null(section);
		key = ini_key_find(section, c->key);
		assert_non_null(key);
		assert_string_equal(key->value, c->value);
		assert_int_equal(key->line, c->line);
		assert_null(ini_key_find(section, "none"));
		assert_null(ini_section_find(ini, "none"));
		ini_free(ini);
		capture_free(&errors);
	}
}

static void test_order_and_lines(void **state)
{
	static const char text[] = "[z]\nb = 1\na = 2\n\n[y]\n[x]\nb = 3\n";
	struct capture errors;
	struct ini *ini = load(TEXT(text), &errors);

	(void)state;
	assert_non_null(ini);
	assert_string_equal(ini->path, "t.conf");
	assert_int_equal(ini->section_count, 3);
	assert_string_equal(ini->sections[0].name, "z");
	assert_int_equal(ini->sections[0].key_count, 2);
	assert_string_equal(ini->sections[0].keys[1].name, "a");
	assert_int_equal(ini->sections[1].line, 5);
	assert_int_equal(ini->sections[1].key_count, 0);
	assert_string_equal(ini->sections[2].keys[0].value, "3");
	ini_free(ini);
	capture_free(&errors);
}

struct bad_case {
	const char *text;
	size_t length;
	const char *errors;
};

#define BAD_NAME   "a name is of a-z, 0-9, '-', '_' and '.', and begins with a letter or digit"
#define LOWER_CASE "write the name in lower case"
#define IMAGE_NAME " (`file =` gives an image any name)"

static const struct bad_case bad_cases[] = {
	{TEXT("[a]\nk=1\n[b]\n[a]\nk=2\n"),
	 "t.conf:4: [a]: the section is repeated; the first is in line 1\n"},
	{TEXT("[a]\nk=1\nl=2\nk=1\n"), "t.conf:4: [a] k: is repeated; the first is in line 2\n"},
	{TEXT("[Vm1]\nk=1\n"), "t.conf:1: [Vm1]: " LOWER_CASE IMAGE_NAME "\n"},
	{TEXT("[a]\nPath=1\n"), "t.conf:2: [a] Path: " LOWER_CASE "\n"},
	{TEXT("[a:b]\n"), "t.conf:1: [a:b]: " BAD_NAME "\n"},
	{TEXT("[a b]\n"), "t.conf:1: [a b]: " BAD_NAME "\n"},
	{TEXT("[.a]\n"), "t.conf:1: [.a]: " BAD_NAME "\n"},
	{TEXT("[a=b]\n"), "t.conf:1: [a=b]: " BAD_NAME "\n"},
	{TEXT("[\xc3\xa4]\n"), "t.conf:1: [\xc3\xa4]: " BAD_NAME "\n"},
	{TEXT("[]\n"), "t.conf:1: []: the name is missing\n"},
	{TEXT("[  ]\n"), "t.conf:1: []: the name is missing\n"},
	{TEXT("k=1\n[a]\n"), "t.conf:1: 'k' stands before the first [section]\n"},
	{TEXT("[a]\nhello\n"), "t.conf:2: [a]: no '=' in 'hello': write key = value\n"},
	{TEXT("[a]\nx"), "t.conf:2: [a]: no '=' in 'x': write key = value\n"},
	{TEXT("[a\nk=1\n"), "t.conf:1: '[' without ']'\n"
			    "t.conf:2: 'k' stands before the first [section]\n"},
	{TEXT("[a] b\n"), "t.conf:1: [a]: text behind the ']'\n"},
	{TEXT("[a]]\n"), "t.conf:1: [a]: text behind the ']'\n"},
	{TEXT("[a]\n=1\n"), "t.conf:2: [a]: the name is missing\n"},
	{TEXT("[a]\nk:x=1\n"), "t.conf:2: [a] k:x: " BAD_NAME "\n"},
	{TEXT("[a]\nk ; x=1\n"), "t.conf:2: [a] k ; x: " BAD_NAME "\n"},
	{TEXT("[a]\nk = \"v\n"), "t.conf:2: [a] k: the closing quote is missing\n"},
	{TEXT("[a]\nk = 'v\"\n"), "t.conf:2: [a] k: the closing quote is missing\n"},
	{TEXT("[a]\nk = \"v\" w\n"), "t.conf:2: [a] k: text behind the closing quote\n"},
	{TEXT("[a]\nk = \"\"v\"\"\n"), "t.conf:2: [a] k: text behind the closing quote\n"},
	{TEXT("[a]\nk = it's\n"), "t.conf:2: [a] k: a quote inside a value: put the whole value "
				  "into quotes of the other kind\n"},
	{TEXT("[a]\nk = a;b\n"), "t.conf:2: [a] k: ';' in a value: put the value into quotes, or a "
				 "blank in front of a comment\n"},
	{TEXT("[a]\nk = a#b\n"), "t.conf:2: [a] k: '#' in a value: put the value into quotes, or a "
				 "blank in front of a comment\n"},
	{TEXT("[a]\nk = v\\\nl = w\n"), "t.conf:2: [a]: the line ends with a backslash; values "
					"cannot go on in the next line\n"},
	{TEXT("# c \\ \n[a]\n"), "t.conf:1: the line ends with a backslash; values cannot go on in "
				 "the next line\n"},
	{TEXT("[a]\nk = v\0w\n"), "t.conf:2: [a]: column 6: control characters are not allowed\n"},
	{TEXT("[a]\nk = v\x1b[31m\n"),
	 "t.conf:2: [a]: column 6: control characters are not allowed\n"},
	{TEXT("[a]\nk = \x7f\n"), "t.conf:2: [a]: column 5: control characters are not allowed\n"},
	{TEXT("[a]\nk = \xc2\x9b\n"),
	 "t.conf:2: [a]: column 5: control characters are not allowed\n"},
	{TEXT("[a]\rk = v\r"), "t.conf:1: column 4: control characters are not allowed\n"},
	{TEXT("[a]\nk = \xe4\n"), "t.conf:2: [a]: column 5: this is not UTF-8\n"},
	{TEXT("# \xc0\xaf\n"), "t.conf:1: column 3: this is not UTF-8\n"},
	{TEXT("# \xe0\x80\xaf\n"), "t.conf:1: column 3: this is not UTF-8\n"},
	{TEXT("# \xed\xa0\x80\n"), "t.conf:1: column 3: this is not UTF-8\n"},
	{TEXT("# \xf0\x80\x80\x80\n"), "t.conf:1: column 3: this is not UTF-8\n"},
	{TEXT("# \xf4\x90\x80\x80\n"), "t.conf:1: column 3: this is not UTF-8\n"},
	{TEXT("# \xe2\x82"), "t.conf:1: column 3: this is not UTF-8\n"},
	{TEXT("\n\xef\xbb\xbf[a]\n"), "t.conf:2: no '=' in '\xef\xbb\xbf[a]': write key = value\n"},
	/* All errors are reported. */
	{TEXT("x\n[a]\ny\nk=1\nk=2\n"), "t.conf:1: no '=' in 'x': write key = value\n"
					"t.conf:3: [a]: no '=' in 'y': write key = value\n"
					"t.conf:5: [a] k: is repeated; the first is in line 4\n"},
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_cases); i++) {
		struct capture errors;

		assert_null(load(bad_cases[i].text, bad_cases[i].length, &errors));
		assert_string_equal(errors.text, bad_cases[i].errors);
		capture_free(&errors);
	}
}

static void test_long_lines(void **state)
{
	char text[1100];
	struct capture errors;
	struct ini *ini;

	(void)state;
	memset(text, 'v', sizeof(text));
	memcpy(text, "[a]\nk=", 6);
	text[1004] = '\n'; /* 1000 bytes in the second line */
	ini = load(text, 1005, &errors);
	assert_string_equal(errors.text, "");
	assert_non_null(ini);
	assert_int_equal(strlen(ini_key_find(ini_section_find(ini, "a"), "k")->value), 998);
	ini_free(ini);
	capture_free(&errors);

	text[1004] = 'v';
	assert_null(load(text, 1005, &errors));
	assert_string_equal(errors.text, "t.conf:2: [a]: the line is longer than 1000 bytes\n");
	capture_free(&errors);

	memset(text, 'n', 103);
	text[0] = '[';
	text[102] = ']'; /* a name of 101 bytes */
	assert_null(load(text, 103, &errors));
	assert_non_null(strstr(errors.text, "]: the name is longer than 100 bytes\n"));
	capture_free(&errors);
}

static void test_too_much(void **state)
{
	struct capture errors, many;

	(void)state;
	capture_begin(&many);
	for (int i = 0; i < 10001; i++)
		fprintf(many.stream, "[s%d]\n", i);
	capture_end(&many);
	assert_null(load(many.text, many.length, &errors));
	assert_string_equal(errors.text,
			    "t.conf:10001: [s9999]: more than 10000 sections and keys\n");
	capture_free(&errors);
	capture_free(&many);

	capture_begin(&many);
	for (int i = 0; i < 100; i++)
		fputs("x\n", many.stream);
	capture_end(&many);
	assert_null(load(many.text, many.length, &errors));
	assert_null(strstr(errors.text, "t.conf:21:")); /* then it gives up */
	assert_non_null(strstr(errors.text, "t.conf:20:"));
	capture_free(&errors);
	capture_free(&many);
}

static void expect_unreadable(const char *path, const char *message)
{
	struct capture errors;

	capture_begin(&errors);
	assert_null(ini_load(path, errors.stream));
	assert_string_equal(capture_end(&errors), message);
	capture_free(&errors);
}

static void test_unreadable(void **state)
{
	(void)state;
	expect_unreadable("none.conf", "cannot read 'none.conf': No such file or directory\n");
	expect_unreadable(".", "cannot read '.': Is a directory\n");
	expect_unreadable("", "cannot read '': No such file or directory\n");
	assert_int_equal(mkfifo("fifo", 0600), 0);
	expect_unreadable("fifo", "cannot read 'fifo': it is not a regular file\n");
	scratch_write("large.conf", "", 0);
	assert_int_equal(truncate("large.conf", 16 * 1024 * 1024 + 1), 0);
	expect_unreadable("large.conf", "cannot read 'large.conf': it is larger than 16 MiB\n");
	if (geteuid() != 0) {
		assert_int_equal(chmod("large.conf", 0), 0);
		expect_unreadable("large.conf", "cannot read 'large.conf': Permission denied\n");
	}
}

static void test_empty(void **state)
{
	struct capture errors;
	struct ini *ini = load("", 0, &errors);

	(void)state;
	assert_string_equal(errors.text, "");
	assert_non_null(ini);
	assert_int_equal(ini->section_count, 0);
	ini_free(ini);
	capture_free(&errors);
	ini_free(NULL);
}

/* ---- Random damage ---- */

static const char valid_text[] = "[diskfs] ; settings\n"
				 "workers = 2\n"
				 "\n"
				 "[base]\n"
				 "driver = file ; comment\n"
				 "path = \"/srv/images/debian;1.raw\" # more\n"
				 "readonly = yes\r\n"
				 "[vm1]\n"
				 "driver = layered\n"
				 "below = scratch, base\n"
				 "file = 'Debian 12.img'\n";

/* Changes 1 to 4 places of @text, of *length bytes and room for @room. */
static void damage(char *text, size_t *length, size_t room)
{
	static const char pieces[] = "[]=;#\"'\\\n\r\t :.%aZ0\0\x1b\x80\xc3\xff";

	for (long changes = random() % 4; changes >= 0; changes--) {
		size_t at = (size_t)random() % *length;
		size_t rest = *length - at;
		size_t run = (size_t)random() % rest + 1;
		char piece = pieces[(size_t)random() % (sizeof(pieces) - 1)];

		switch (random() % 4) {
		case 0: /* replace */
			text[at] = piece;
			break;
		case 1: /* insert */
			if (*length == room)
				break;
			memmove(text + at + 1, text + at, rest);
			text[at] = piece;
			++*length;
			break;
		case 2: /* delete a run */
			run = run > 20 ? 20 : run;
			if (run == *length)
				break;
			memmove(text + at, text + at + run, rest - run);
			*length -= run;
			break;
		default: /* repeat the end */
			if (*length + run > room)
				break;
			memcpy(text + *length, text + at, run);
			*length += run;
			break;
		}
	}
}

static void test_random_damage(void **state)
{
	unsigned accepted = 0;

	(void)state;
	srandom(20240607);
	for (int i = 0; i < MUTATIONS; i++) {
		char text[2048];
		size_t length = sizeof(valid_text) - 1;
		struct capture errors;
		struct ini *ini;

		memcpy(text, valid_text, length);
		damage(text, &length, sizeof(text));
		ini = load(text, length, &errors);
		if (ini) {
			assert_string_equal(errors.text, "");
			accepted++;
		} else {
			assert_non_null(strstr(errors.text, "t.conf:"));
			/* The scan is to see everything that iniparser would read differently. */
			assert_null(strstr(errors.text, "INI parser"));
		}
		ini_free(ini);
		capture_free(&errors);
	}
	/* Both ways must have been taken often. */
	assert_in_range(accepted, MUTATIONS / 20, MUTATIONS * 19 / 20);
}

static int enter(void **state)
{
	(void)state;
	scratch_enter();
	return 0;
}

static int leave(void **state)
{
	(void)state;
	scratch_leave();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepted), cmocka_unit_test(test_order_and_lines),
		cmocka_unit_test(test_refused),	 cmocka_unit_test(test_long_lines),
		cmocka_unit_test(test_too_much), cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_empty),	 cmocka_unit_test(test_random_damage),
	};

	return cmocka_run_group_tests(tests, enter, leave);
}
