// SPDX-License-Identifier: MIT
/* Declared options: every type with good and bad values, the exact messages, help, suggestions. */
#include "conf/option.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/scratch.h"

struct values {
	bool flag;
	uint64_t number, small, size, disk, range, power, time, wait, mode;
	int kind;
	char *text, *path;
	struct string_list names;
};

static const char *const kinds[] = {"none", "writethrough", "writeback", NULL};

#define OPTION(option_name, option_type, field, ...)                     \
	{                                                                \
		.name = option_name, .type = option_type,                \
		.offset = offsetof(struct values, field), ##__VA_ARGS__, \
	}

static const struct option table[] = {
	OPTION("flag", OPTION_BOOL, flag, .fallback = "yes", .help = "A flag"),
	OPTION("number", OPTION_U64, number),
	OPTION("small", OPTION_U64, small, .min = 1, .max = 64, .fallback = "2"),
	OPTION("size", OPTION_SIZE, size, .flags = OPTION_REQUIRED, .help = "How large it is"),
	OPTION("disk", OPTION_SIZE, disk, .min = 512, .max = INT64_MAX, .fallback = "1G"),
	OPTION("range", OPTION_SIZE, range, .min = 1536, .max = 4 * MIB, .fallback = "1M"),
	OPTION("power", OPTION_SIZE, power, .flags = OPTION_POWER_OF_TWO, .min = 512,
	       .fallback = "512"),
	OPTION("time", OPTION_DURATION, time),
	OPTION("wait", OPTION_DURATION, wait, .min = NS_PER_US * 1000, .max = 90 * NS_PER_S,
	       .fallback = "1s"),
	OPTION("mode", OPTION_OCTAL, mode, .max = 0777, .fallback = "0640"),
	OPTION("kind", OPTION_ENUM, kind, .choices = kinds, .fallback = "writethrough",
	       .help = "A help that is long enough to be broken into two lines, because no line "
		       "may be wider than a terminal"),
	OPTION("text", OPTION_STRING, text),
	OPTION("path", OPTION_PATH, path, .fallback = "/tmp"),
	OPTION("names", OPTION_LIST, names),
	{.name = NULL},
};

static void test_defaults(void **state)
{
	struct values values;

	(void)state;
	memset(&values, 0x5a, sizeof(values));
	options_init(table, &values);
	assert_true(values.flag);
	assert_int_equal(values.number, 0);
	assert_int_equal(values.small, 2);
	assert_int_equal(values.range, MIB);
	assert_int_equal(values.wait, NS_PER_S);
	assert_int_equal(values.mode, 0640);
	assert_int_equal(values.kind, 1);
	assert_null(values.text);
	assert_string_equal(values.path, "/tmp");
	assert_int_equal(values.names.count, 0);
	options_free(table, &values);
	assert_null(values.path);
	options_free(table, &values);
}

/* A value of a number, or the message. */
struct number_case {
	const char *option, *text;
	uint64_t value;
	const char *error;
};

#define NO_NUMBER "' is no number: write digits, or 0x and hexadecimal ones"
#define NO_SIZE	  "' is no size: write a number of bytes, or one with K, M, G or T"
#define NO_TIME	  "' is no duration: write a number with ns, us, ms or s"

static const struct number_case number_cases[] = {
	{"number", "0", 0, NULL},
	{"number", "18446744073709551615", UINT64_MAX, NULL},
	{"number", "0xfF", 255, NULL},
	{"number", "010", 10, NULL},
	{"number", "18446744073709551616", 0, "'18446744073709551616' is too large"},
	{"number", "99999999999999999999", 0, "'99999999999999999999' is too large"},
	{"number", "0x10000000000000000", 0, "'0x10000000000000000' is too large"},
	{"number", "-1", 0, "'-1" NO_NUMBER},
	{"number", "+1", 0, "'+1" NO_NUMBER},
	{"number", "0x", 0, "'0x" NO_NUMBER},
	{"number", "1x", 0, "'1x" NO_NUMBER},
	{"number", "1 2", 0, "'1 2" NO_NUMBER},
	{"number", " 1", 0, "' 1" NO_NUMBER},
	{"number", "1K", 0, "'1K" NO_NUMBER},
	{"number", "", 0, "has no value"},
	{"number", " \t ", 0, "has no value"},
	{"small", "1", 1, NULL},
	{"small", "64", 64, NULL},
	{"small", "0", 0, "'0' is out of range: it must be 1 to 64"},
	{"small", "65", 0, "'65' is out of range: it must be 1 to 64"},
	{"small", "99999999999999999999", 0,
	 "'99999999999999999999' is out of range: it must be 1 to 64"},
	{"size", "12", 12, NULL},
	{"size", "64M", 64 * MIB, NULL},
	{"size", "64m", 64 * MIB, NULL},
	{"size", "64MiB", 64 * MIB, NULL},
	{"size", "64mib", 64 * MIB, NULL},
	{"size", "10 GiB", 10 * GIB, NULL},
	{"size", "3K", 3 * KIB, NULL},
	{"size", "2T", 2048 * GIB, NULL},
	{"size", "1P", 1024 * 1024 * GIB, NULL},
	{"size", "15E", 15 * GIB *GIB, NULL},
	{"size", "16E", 0, "'16E' is too large"},
	{"size", "17179869184G", 0, "'17179869184G' is too large"},
	{"size", "99999999999999999999", 0, "'99999999999999999999' is too large"},
	{"size", "12x", 0, "'12x" NO_SIZE},
	{"size", "12KB", 0, "'12KB" NO_SIZE},
	{"size", "12Ki", 0, "'12Ki" NO_SIZE},
	{"size", "12iB", 0, "'12iB" NO_SIZE},
	{"size", "1.5G", 0, "'1.5G" NO_SIZE},
	{"size", "-1", 0, "'-1" NO_SIZE},
	{"size", "K", 0, "'K" NO_SIZE},
	{"size", "0x10", 0, "'0x10" NO_SIZE},
	{"size", "1K ", 0, "'1K " NO_SIZE},
	{"disk", "9223372036854775807", INT64_MAX, NULL},
	{"disk", "8E", 0, "'8E' is out of range: it must be 512 to just below 8E"},
	{"range", "1536", 1536, NULL},
	{"range", "4M", 4 * MIB, NULL},
	{"range", "1K", 0, "'1K' is out of range: it must be 1536 to 4M"},
	{"range", "5M", 0, "'5M' is out of range: it must be 1536 to 4M"},
	{"range", "16E", 0, "'16E' is out of range: it must be 1536 to 4M"},
	{"power", "4K", 4096, NULL},
	{"power", "5000", 0, "'5000' is no power of two"},
	{"power", "256", 0, "'256' is out of range: it must be at least 512"},
	{"time", "0", 0, NULL},
	{"time", "5ns", 5, NULL},
	{"time", "5us", 5000, NULL},
	{"time", "5 MS", 5000000, NULL},
	{"time", "5s", 5 * NS_PER_S, NULL},
	{"time", "5", 0, "'5" NO_TIME},
	{"time", "5m", 0, "'5m" NO_TIME},
	{"time", "s", 0, "'s" NO_TIME},
	{"time", "-5s", 0, "'-5s" NO_TIME},
	{"time", "18446744074s", 0, "'18446744074s' is too large"},
	{"wait", "90s", 90 * NS_PER_S, NULL},
	{"wait", "10us", 0, "'10us' is out of range: it must be 1ms to 90s"},
	{"wait", "2000000ms", 0, "'2000000ms' is out of range: it must be 1ms to 90s"},
	{"mode", "0777", 0777, NULL},
	{"mode", "600", 0600, NULL},
	{"mode", "1000", 0, "'1000' is out of range: it must be 0 to 0777"},
	{"mode", "0689", 0, "'0689' is no octal mode: write one like 0640"},
	{"mode", "rw", 0, "'rw' is no octal mode: write one like 0640"},
	{"mode", "7777777777777777777777777", 0,
	 "'7777777777777777777777777' is out of range: it must be 0 to 0777"},
};

static void test_numbers(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(number_cases); i++) {
		const struct number_case *c = &number_cases[i];
		const struct option *option = option_find(table, c->option);
		struct values values = {0};
		uint64_t *value = (uint64_t *)(void *)((char *)&values + option->offset);
		struct err err = {0};
		int result;

		*value = 4711;
		result = option_parse(option, c->text, NULL, &values, &err);
		if (c->error) {
			assert_string_equal(err.text, c->error);
			assert_string_equal(err.key, c->option);
			assert_int_equal(result, -1);
			assert_int_equal(*value, 4711); /* untouched */
		} else {
			assert_string_equal(err.text, "");
			assert_int_equal(result, 0);
			assert_int_equal(*value, c->value);
		}
	}
}

static void test_booleans(void **state)
{
	static const char *const words[2][6] = {{"no", "off", "false", "0", "NO", "Off"},
						{"yes", "on", "true", "1", "YES", "True"}};
	static const char *const bad[] = {"y", "ja", "2", "yes ", "01", "yesno"};
	const struct option *option = option_find(table, "flag");
	struct values values = {0};
	struct err err;

	(void)state;
	for (unsigned truth = 0; truth < 2; truth++) {
		for (size_t i = 0; i < ARRAY_SIZE(words[truth]); i++) {
			values.flag = !truth;
			assert_int_equal(option_parse(option, words[truth][i], NULL, &values, &err),
					 0);
			assert_int_equal(values.flag, truth);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(option_parse(option, bad[i], NULL, &values, &err), -1);
	assert_string_equal(err.text, "'yesno' is neither yes nor no");
}

static void test_choices(void **state)
{
	const struct option *option = option_find(table, "kind");
	struct values values = {.kind = 7};
	struct err err;

	(void)state;
	assert_int_equal(option_parse(option, "writebakc", NULL, &values, &err), -1);
	assert_string_equal(err.text, "'writebakc' is none of none, writethrough or writeback (did "
				      "you mean 'writeback'?)");
	assert_int_equal(option_parse(option, "Writeback", NULL, &values, &err), -1);
	assert_int_equal(option_parse(option, "fast", NULL, &values, &err), -1);
	assert_string_equal(err.text, "'fast' is none of none, writethrough or writeback");
	assert_int_equal(values.kind, 7);
	assert_int_equal(option_parse(option, "writeback", NULL, &values, &err), 0);
	assert_int_equal(values.kind, 2);
}

static void test_strings_and_paths(void **state)
{
	static const char *const paths[][3] = {
		{"/a/b", "/srv", "/a/b"},	   {"a.raw", "/srv", "/srv/a.raw"},
		{"a.raw", "/", "/a.raw"},	   {"a.raw", NULL, "a.raw"},
		{"../a", "/srv/x", "/srv/x/../a"},
	};
	struct values values = {0};
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		assert_int_equal(option_parse(option_find(table, "path"), paths[i][0], paths[i][1],
					      &values, &err),
				 0);
		assert_string_equal(values.path, paths[i][2]);
	}
	assert_int_equal(option_parse(option_find(table, "text"), " a b ", NULL, &values, &err), 0);
	assert_string_equal(values.text, " a b ");
	assert_int_equal(option_parse(option_find(table, "text"), "  ", NULL, &values, &err), -1);
	assert_string_equal(err.text, "has no value");
	assert_string_equal(values.text, " a b ");
	options_free(table, &values);
}

static void test_lists(void **state)
{
	static const char missing[] = "a name is missing before, after or between the commas";
	static const char *const bad[][2] = {
		{"a,,b", missing},    {",a", missing}, {"a,", missing},
		{" , ", missing},     {",", missing},  {"a, b, a", "'a' is named twice"},
		{"", "has no value"},
	};
	const struct option *option = option_find(table, "names");
	struct values values = {0};
	struct err err;

	(void)state;
	assert_int_equal(option_parse(option, "one", NULL, &values, &err), 0);
	assert_int_equal(values.names.count, 1);
	assert_int_equal(option_parse(option, " top ,mid,\tbase one", NULL, &values, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(option_parse(option, bad[i][0], NULL, &values, &err), -1);
		assert_string_equal(err.text, bad[i][1]);
		assert_string_equal(err.key, "names");
	}
	assert_int_equal(values.names.count, 3); /* as before the errors */
	assert_string_equal(values.names.items[0], "top");
	assert_string_equal(values.names.items[1], "mid");
	assert_string_equal(values.names.items[2], "base one");
	options_free(table, &values);
}

static void test_suggestions(void **state)
{
	static const char *const names[] = {"path", "size", "sector_size", "ram", "null", NULL};
	static const char *const cases[][2] = {
		{"pathh", "path"},
		{"paht", "path"},
		{"PATH", "path"},
		{"sixe", "size"},
		{"sector_sizes", "sector_size"},
		{"sektor_siz", "sector_size"},
		{"sektor_sz", NULL},
		{"rm", NULL},
		{"rma", "ram"},
		{"nul", "null"},
		{"", NULL},
		{"x", NULL},
		{"lap", NULL},
	};
	const struct option *tables[] = {table, table};
	char long_name[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *nearest = name_suggest(names, cases[i][0]);

		if (cases[i][1]) {
			assert_non_null(nearest);
			assert_string_equal(nearest, cases[i][1]);
		} else {
			assert_null(nearest);
		}
	}
	memset(long_name, 'a', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	assert_null(name_suggest(names, long_name));
	assert_string_equal(option_suggest(tables, 2, "nmaes"), "names");
	assert_null(option_suggest(tables, 2, "frobnicate"));
	assert_null(option_suggest(tables, 0, "names"));
	assert_null(option_find(table, "nmaes"));
}

static void test_help(void **state)
{
	static const char expected[] =
		"  flag: yes or no; default yes\n"
		"      A flag\n"
		"  number: number\n"
		"  small: number, 1 to 64; default 2\n"
		"  size: size; required\n"
		"      How large it is\n"
		"  disk: size, 512 to just below 8E; default 1G\n"
		"  range: size, 1536 to 4M; default 1M\n"
		"  power: size, a power of two, at least 512; default 512\n"
		"  time: duration\n"
		"  wait: duration, 1ms to 90s; default 1s\n"
		"  mode: octal mode, 0 to 0777; default 0640\n"
		"  kind: one of none, writethrough or writeback; default writethrough\n"
		"      A help that is long enough to be broken into two lines, because no line\n"
		"      may be wider than a terminal\n"
		"  text: text\n"
		"  path: path; default /tmp\n"
		"  names: names separated by commas\n";
	struct capture help;

	(void)state;
	capture_begin(&help);
	options_help(table, help.stream);
	assert_string_equal(capture_end(&help), expected);
	capture_free(&help);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),	  cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_booleans),	  cmocka_unit_test(test_choices),
		cmocka_unit_test(test_strings_and_paths), cmocka_unit_test(test_lists),
		cmocka_unit_test(test_suggestions),	  cmocka_unit_test(test_help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
