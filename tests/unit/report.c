// SPDX-License-Identifier: MIT
/* Reports: the same tree as text and as JSON, to the letter. */
#include "core/report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void assert_report(struct report *report, const char *wanted)
{
	size_t length;
	char *text = report_finish(report, &length);

	assert_non_null(text);
	assert_string_equal(text, wanted);
	assert_int_equal(length, strlen(wanted));
	free(text);
}

static struct report *fill(enum report_format format)
{
	struct report *report = report_new(format);

	assert_non_null(report);
	report_string(report, "node", "vm \"1\"\\");
	report_bytes(report, "size", 4 * GIB);
	report_bytes(report, "small", 512);
	report_u64(report, "count", UINT64_MAX);
	report_bool(report, "on", true);
	report_bool(report, "off", false);
	report_object_begin(report, "operations");
	report_object_begin(report, "read");
	report_format(report, "rate", "%d/%s", 3, "s");
	report_object_end(report);
	report_object_begin(report, "none");
	report_object_end(report);
	report_object_end(report);
	report_list_begin(report, "below");
	report_object_begin(report, NULL);
	report_string(report, "node", "base");
	report_object_end(report);
	report_u64(report, NULL, 7);
	report_list_end(report);
	report_list_begin(report, "nothing");
	report_list_end(report);
	return report;
}

static void test_text(void **state)
{
	(void)state;
	assert_report(fill(REPORT_TEXT), "node: vm \"1\"\\\n"
					 "size: 4294967296 (4 GiB)\n"
					 "small: 512\n"
					 "count: 18446744073709551615\n"
					 "on: yes\n"
					 "off: no\n"
					 "operations:\n"
					 "  read:\n"
					 "    rate: 3/s\n"
					 "  none:\n"
					 "below:\n"
					 "  -\n"
					 "    node: base\n"
					 "  - 7\n"
					 "nothing:\n");
}

static void test_json(void **state)
{
	(void)state;
	assert_report(fill(REPORT_JSON), "{\n"
					 "  \"node\": \"vm \\\"1\\\"\\\\\",\n"
					 "  \"size\": 4294967296,\n"
					 "  \"small\": 512,\n"
					 "  \"count\": 18446744073709551615,\n"
					 "  \"on\": true,\n"
					 "  \"off\": false,\n"
					 "  \"operations\": {\n"
					 "    \"read\": {\n"
					 "      \"rate\": \"3/s\"\n"
					 "    },\n"
					 "    \"none\": {}\n"
					 "  },\n"
					 "  \"below\": [\n"
					 "    {\n"
					 "      \"node\": \"base\"\n"
					 "    },\n"
					 "    7\n"
					 "  ],\n"
					 "  \"nothing\": []\n"
					 "}\n");
}

static void test_empty(void **state)
{
	(void)state;
	assert_report(report_new(REPORT_TEXT), "");
	assert_report(report_new(REPORT_JSON), "{\n}\n");
}

static void test_control_characters(void **state)
{
	struct report *report = report_new(REPORT_JSON);

	(void)state;
	report_string(report, "a\nb", "\t\x01\x1f\x7f");
	assert_report(report, "{\n  \"a\\u000ab\": \"\\u0009\\u0001\\u001f\x7f\"\n}\n");
}

static void test_long_and_deep(void **state)
{
	struct report *report = report_new(REPORT_JSON);
	char *long_text = malloc(100001);
	size_t length;
	char *text;

	(void)state;
	memset(long_text, 'x', 100000);
	long_text[100000] = '\0';
	report_string(report, "long", long_text);
	for (unsigned i = 0; i < 500; i++)
		report_object_begin(report, "deep");
	for (unsigned i = 0; i < 500; i++)
		report_object_end(report);
	text = report_finish(report, &length);
	assert_non_null(text);
	assert_non_null(strstr(text, long_text));
	assert_true(length > 100000);
	free(text);
	free(long_text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),	      cmocka_unit_test(test_json),
		cmocka_unit_test(test_empty),	      cmocka_unit_test(test_control_characters),
		cmocka_unit_test(test_long_and_deep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
