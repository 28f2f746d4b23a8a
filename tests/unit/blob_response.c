// SPDX-License-Identifier: MIT
/* What is believed of a response: the parsers of its head, the verdict on it, and the waits before
 * another try. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/blob/backoff.h"
#include "backends/blob/response.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

/* ---- Values. ---- */

static void test_content_range(void **state)
{
	static const struct {
		const char *text;
		bool valid;
		struct content_range range;
	} cases[] = {
		{"bytes 0-0/1", true, {0, 0, 1}},
		{"BYTES 5-9/10", true, {5, 9, 10}},
		{"bytes 0-18446744073709551613/18446744073709551614",
		 true,
		 {0, UINT64_MAX - 2, UINT64_MAX - 1}},
		{"bytes 0-0/18446744073709551616", false, {0}},
		{"bytes 0-9/9", false, {0}},
		{"bytes 9-8/10", false, {0}},
		{"bytes 0-9/*", false, {0}},
		{"bytes */10", false, {0}},
		{"bytes 0-9", false, {0}},
		{"bytes 0-9/10 ", false, {0}},
		{"bytes  0-9/10", false, {0}},
		{"bytes 0 -9/10", false, {0}},
		{"bytes -9/10", false, {0}},
		{"bytes +0-9/10", false, {0}},
		{"bytes 0x0-9/10", false, {0}},
		{"bytes=0-9/10", false, {0}},
		{"items 0-9/10", false, {0}},
		{"", false, {0}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct content_range range = {0};

		check_context("'%s'", cases[i].text);
		if (CHECK_EQ(content_range_parse(&range, cases[i].text), cases[i].valid) &&
		    cases[i].valid)
			CHECK(memcmp(&range, &cases[i].range, sizeof(range)) == 0);
	}
	check_finish();
}

static void test_retry_after(void **state)
{
	static const struct {
		const char *text;
		bool valid;
		uint64_t seconds;
	} cases[] = {
		{"0", true, 0},
		{"120", true, 120},
		{"18446744073709551615", true, UINT64_MAX},
		{"18446744073709551616", false, 0},
		{"Sun, 06 Nov 1994 08:49:37 GMT", true, 37},
		{"Sun, 06 Nov 1994 08:48:00 GMT", true, 0},
		{"soon", false, 0},
		{"-1", false, 0},
		{"1.5", false, 0},
		{"", false, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t seconds = 0;

		check_context("'%s'", cases[i].text);
		if (CHECK_EQ(retry_after_parse(&seconds, cases[i].text, 784111740),
			     cases[i].valid) &&
		    cases[i].valid)
			CHECK_EQ(seconds, cases[i].seconds);
	}
	check_finish();
}

/* ---- Heads. ---- */

/* @head has lines that end with LF. */
static bool take_head(struct response *response, const char *head)
{
	*response = (struct response){.status = 0};
	while (*head) {
		size_t length = strcspn(head, "\n");

		length += head[length] == '\n';
		if (!response_take_line(response, head, length))
			return false;
		head += length;
	}
	return true;
}

#define HEAD                                                                                 \
	"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 10-19/100\r\nContent-Length: " \
	"10\r\nETag: \"x\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

static void test_head(void **state)
{
	struct response response;

	(void)state;
	CHECK(take_head(&response, HEAD "Retry-After:7\r\n\r\n"));
	CHECK_EQ(response.status, 206);
	CHECK(response.has_range && response.range.first == 10 && response.range.last == 19 &&
	      response.range.total == 100);
	CHECK(response.has_length && response.length == 10);
	CHECK(response.has_retry_after && response.retry_after_s == 7);
	CHECK_TEXT(response.validator.etag, "\"x\"");
	CHECK_TEXT(response.validator.last_modified, "Sun, 06 Nov 1994 08:49:37 GMT");
	CHECK(!response.malformed && !response.has_encoding);

	/* What came before the last status line does not count, but for its length. */
	CHECK(take_head(&response, HEAD "\r\nHTTP/2 200 \r\netag:\t\"y\" \r\n\r\n"));
	CHECK_EQ(response.status, 200);
	CHECK(!response.has_range && !response.has_length && !response.validator.last_modified[0]);
	CHECK_TEXT(response.validator.etag, "\"y\"");
	CHECK(response.head_bytes > strlen(HEAD));
	check_finish();
}

static void test_malformed_heads(void **state)
{
	static const char *const lines[] = {
		"Content-Range: bytes 10-19/101\r\n", /* contradicts the first */
		"Content-Range: bytes 10-19\r\n",
		"Content-Range:\r\n",
		"ETag:\r\n",
		"ETag: \"a\x01\"\r\n",
		"Content-Length: -1\r\n",
		"Content-Length: 10, 10\r\n",
		"HTTP/1.1 2060\r\n",
		"HTTP/1.1\r\n",
	};
	struct response response;
	char head[2000], tag[600];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		snprintf(head, sizeof(head), "%s%s", HEAD, lines[i]);
		check_context("%s", lines[i]);
		CHECK(take_head(&response, head) && response.malformed);
	}
	/* Too long for what has to be sent back. */
	for (size_t length = ETAG_MAX; length < sizeof(tag); length += 300) {
		memset(tag, 'x', length);
		tag[length] = '\0';
		snprintf(head, sizeof(head), "%sETag: %s\r\n", HEAD, tag);
		CHECK(take_head(&response, head) && response.malformed);
	}
	/* Twice the same is no contradiction. */
	CHECK(take_head(&response, HEAD "Content-Range: bytes 10-19/100\r\n"));
	CHECK(!response.malformed);
	/* What nobody asks for may be as long as it likes. */
	snprintf(head, sizeof(head), "%sX-Other: %s\r\n", HEAD, tag);
	CHECK(take_head(&response, head) && !response.malformed);
	check_finish();
}

static void test_shown(void **state)
{
	char shown[8];

	(void)state;
	CHECK_TEXT(response_show(shown, sizeof(shown), "a\n\xc3\x7f b"), "a??? b");
	CHECK_TEXT(response_show(shown, sizeof(shown), "abcdefghij"), "abcdefg");
	check_finish();
}

static void test_endless_head(void **state)
{
	struct response response = {.status = 0};
	size_t bytes = 0;

	(void)state;
	while (response_take_line(&response, "HTTP/1.1 100 Continue\r\n", 23))
		bytes += 23;
	CHECK(bytes <= HEAD_MAX && bytes > HEAD_MAX / 2);
	check_finish();
}

/* ---- Verdicts. ---- */

#define SAME  "ETag: \"x\"\r\n"
#define RANGE "HTTP/1.1 206 x\r\nContent-Range: bytes 10-19/100\r\n"

static void test_verdicts(void **state)
{
	static const struct {
		const char *head;
		const char *why; /* a part of it; NULL: it is right */
		bool changed;
	} cases[] = {
		{RANGE SAME, NULL, false},
		{RANGE SAME "Content-Length: 10\r\n", NULL, false},
		{RANGE SAME "Content-Encoding: identity\r\n", NULL, false},
		{RANGE SAME "Content-Encoding: gzip\r\n", "encoded", false},
		{RANGE SAME "Content-Length: 11\r\n", "length", false},
		{RANGE, "changed", true},
		{RANGE "ETag: \"y\"\r\n", "changed", true},
		{RANGE "ETag: W/\"x\"\r\n", "changed", true},
		{"HTTP/1.1 206 x\r\nContent-Range: bytes 10-19/101\r\n" SAME, "changed", true},
		{"HTTP/1.1 206 x\r\nContent-Range: bytes 11-20/100\r\n" SAME, "another range",
		 false},
		{"HTTP/1.1 206 x\r\nContent-Range: bytes 10-18/100\r\n" SAME, "another range",
		 false},
		{"HTTP/1.1 206 x\r\n" SAME, "without a Content-Range", false},
		{"HTTP/1.1 206 x\r\nContent-Range: bytes 10-19/*\r\n" SAME, "malformed", false},
		{"HTTP/1.1 200 x\r\nContent-Length: 10\r\n" SAME, "whole object", false},
		{"HTTP/1.1 200 x\r\nContent-Length: 100\r\n" SAME, "whole object", false},
	};
	const struct validator validator = {.etag = "\"x\"", .last_modified = "then"};
	const struct expectation expected = {10, 19, 100, &validator};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct response response;
		bool changed = false;
		const char *why;

		check_context("%s", cases[i].head);
		CHECK(take_head(&response, cases[i].head));
		why = response_refuse(&response, &expected, &changed);
		CHECK_EQ(why == NULL, cases[i].why == NULL);
		if (why && cases[i].why)
			CHECK(strstr(why, cases[i].why));
		CHECK_EQ(changed, cases[i].changed);
	}
	check_finish();
}

/* 200 is an answer only to who asked for everything. */
static void test_whole(void **state)
{
	const struct validator validator = {.last_modified = "then"};
	struct expectation expected = {0, 99, 100, &validator};
	struct response response;
	bool changed = false;

	(void)state;
	CHECK(take_head(&response,
			"HTTP/1.1 200 x\r\nContent-Length: 100\r\nLast-Modified: then\n"));
	CHECK(!response_refuse(&response, &expected, &changed));
	expected.total = 0;
	CHECK(response_refuse(&response, &expected, &changed) && !changed);
	expected.total = 100;
	CHECK(take_head(&response,
			"HTTP/1.1 200 x\r\nContent-Length: 99\r\nLast-Modified: then\n"));
	CHECK(response_refuse(&response, &expected, &changed) && changed);
	changed = false;
	CHECK(take_head(&response, "HTTP/1.1 200 x\r\nLast-Modified: then\n"));
	CHECK(response_refuse(&response, &expected, &changed) && !changed);
	CHECK(take_head(&response,
			"HTTP/1.1 200 x\r\nContent-Length: 100\r\nLast-Modified: now\n"));
	CHECK(response_refuse(&response, &expected, &changed) && changed);
	check_finish();
}

static void test_statuses(void **state)
{
	(void)state;
	for (unsigned status = 100; status < 1000; status++) {
		CHECK_EQ(status_is_temporary(status),
			 status == 408 || status == 429 || status / 100 == 5);
		CHECK_EQ(status_is_redirect(status),
			 (status >= 301 && status <= 303) || status == 307 || status == 308);
	}
	CHECK(validator_is_strong(&(struct validator){.etag = "\"x\""}));
	CHECK(!validator_is_strong(&(struct validator){.etag = "W/\"x\""}));
	CHECK(!validator_is_strong(&(struct validator){.last_modified = "then"}));
	check_finish();
}

/* Nothing that a server sends does more than be refused; what passes is what was asked for. */
static void test_heads_random(void **state)
{
	static const char *const pieces[] = {
		"HTTP/1.1 ",
		"HTTP/2 ",
		"206",
		"200",
		"\r\n",
		"\r\n",
		"Content-Range: ",
		"bytes ",
		"10-19/100",
		"10",
		"-",
		"/",
		"ETag: ",
		"\"x\"",
		"Content-Length: ",
		"0",
		":",
		" ",
		"\x01",
		"*",
		"Retry-After: ",
		"99999999999999999999",
		"Content-Encoding: ",
		"gzip",
		"Last-Modified: ",
		RANGE SAME,
	};
	const struct validator validator = {.etag = "\"x\""};
	const struct expectation expected = {10, 19, 100, &validator};
	struct random random = {.state = 10};
	unsigned passed = 0;

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		char head[1000] = "";
		struct response response;
		bool changed = false;

		for (uint64_t n = random_below(&random, 14); n > 0; n--)
			strcat(head, pieces[random_below(&random, ARRAY_SIZE(pieces))]);
		if (random_below(&random, 3) == 0 && head[0])
			head[random_below(&random, strlen(head))] = (char)random_next(&random);
		if (!take_head(&response, head) ||
		    response_refuse(&response, &expected, &changed) || response.status != 206)
			continue;
		passed++;
		check_context("'%s'", head);
		CHECK(strstr(head, "10-19/100") && strstr(head, "\"x\""));
	}
	CHECK(passed > 100);
	check_finish();
}

/* ---- Waits. ---- */

static void test_backoff(void **state)
{
	struct backoff backoff;
	uint64_t sum = 0, least = UINT64_MAX, most = 0;

	(void)state;
	backoff_init(&backoff, 100, 1000, 1);
	CHECK_EQ(backoff_bound(&backoff, 0), 100);
	CHECK_EQ(backoff_bound(&backoff, 1), 200);
	CHECK_EQ(backoff_bound(&backoff, 3), 800);
	CHECK_EQ(backoff_bound(&backoff, 4), 1000);
	CHECK_EQ(backoff_bound(&backoff, UINT32_MAX), 1000);
	for (unsigned i = 0; i < 10000; i++) {
		uint64_t wait = backoff_draw(&backoff, 2);

		sum += wait;
		least = min_u64(least, wait);
		most = max_u64(most, wait);
	}
	/* Full jitter: all of it from 0 on, evenly. */
	CHECK(least < 4 && most > 396 && most <= 400);
	CHECK(sum / 10000 > 190 && sum / 10000 < 210);

	backoff_init(&backoff, UINT64_MAX - 1, UINT64_MAX, 1);
	CHECK_EQ(backoff_bound(&backoff, 5), UINT64_MAX);
	backoff_init(&backoff, 0, 1000, 1);
	CHECK_EQ(backoff_draw(&backoff, 3), 0);
	CHECK_EQ(backoff_seconds(3), 3 * NS_PER_S);
	CHECK_EQ(backoff_seconds(UINT64_MAX), UINT64_MAX);
	check_finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_content_range), cmocka_unit_test(test_retry_after),
		cmocka_unit_test(test_head),	      cmocka_unit_test(test_malformed_heads),
		cmocka_unit_test(test_endless_head),  cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_whole),	      cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_shown),	      cmocka_unit_test(test_heads_random),
		cmocka_unit_test(test_backoff),
	};

	return cmocka_run_group_tests_name("blob: responses", tests, NULL, NULL);
}
