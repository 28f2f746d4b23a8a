// SPDX-License-Identifier: MIT
/* The client of a remote object: right answers, wrong ones, those that come after another try, and
 * those that never come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core/task.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/subject.h"

#define NS_MS (NS_PER_S / 1000)

/* ---- Right answers. ---- */

static void test_reads_task(void *argument)
{
	struct random random = {.state = 1};
	struct subject subject;
	struct http_counts counts;

	(void)argument;
	if (!subject_ready(&subject))
		return;
	CHECK_EQ(client_length(subject.client), SUBJECT_LENGTH);
	CHECK_TEXT(client_validator(subject.client)->etag, SUBJECT_ETAG);
	for (unsigned i = 0; i < 200; i++) {
		uint64_t offset = random_below(&random, SUBJECT_LENGTH);

		subject_is_right(&subject, offset,
				 1 + random_below(&random,
						  min_u64(SUBJECT_LENGTH - offset, 65536)));
	}
	subject_is_right(&subject, 0, SUBJECT_LENGTH);
	subject_is_right(&subject, SUBJECT_LENGTH - 1, 1);
	/* One after the other needs one connection. */
	http_counts(subject_server, &counts);
	client_close(subject.client);
	CHECK(counts.open <= 1);
}
RUN_IN_TASK(test_reads)

/* Memory in pieces is filled in order. */
static void test_pieces_task(void *argument)
{
	static char data[30000];
	struct iovec iov[4] = {{data, 1}, {data + 1, 0}, {data + 1, 9999}, {data + 10000, 20000}};
	struct sg sg = {.iov = iov, .len = sizeof(data)};
	struct subject subject;

	(void)argument;
	if (!subject_ready(&subject))
		return;
	CHECK_OK(blob_fetch(subject.client, 777, &sg));
	CHECK(memcmp(data, subject_content + 777, sizeof(data)) == 0);
	client_close(subject.client);
}
RUN_IN_TASK(test_pieces)

/* What is asked for, and how. */
static void test_request_task(void *argument)
{
	struct http_request request;
	struct subject subject;
	unsigned before;
	char value[1024];

	(void)argument;
	if (!subject_ready(&subject))
		return;
	before = subject_requests();
	subject_is_right(&subject, 512, 1024);
	if (CHECK(http_request(subject_server, before, &request))) {
		CHECK_TEXT(request.method, "GET");
		CHECK(request.ranged && request.first == 512 && request.last == 1535);
		CHECK_TEXT(http_header(&request, "If-Match", value), SUBJECT_ETAG);
		CHECK_TEXT(http_header(&request, "Accept-Encoding", value), "identity");
		CHECK(!http_header(&request, "Authorization", value));
		CHECK(!http_header(&request, "If-Unmodified-Since", value));
	}
	client_close(subject.client);
}
RUN_IN_TASK(test_request)

/* Without a strong ETag the date has to do. */
static void test_weak_validators_task(void *argument)
{
	static const char *const tags[] = {"W/\"one\"", NULL};
	struct http_request request;
	struct subject subject;
	char value[1024];

	(void)argument;
	for (size_t i = 0; i < ARRAY_SIZE(tags); i++) {
		struct http_object weak = {subject_content, SUBJECT_LENGTH, tags[i], 784111740};
		unsigned before;

		subject_init(&subject, "/weak");
		http_put(subject_server, "/weak", &weak);
		if (!subject_open(&subject))
			return;
		before = subject_requests();
		subject_is_right(&subject, 0, 512);
		if (CHECK(http_request(subject_server, before, &request))) {
			CHECK(!http_header(&request, "If-Match", value));
			CHECK_TEXT(http_header(&request, "If-Unmodified-Since", value),
				   "Sun, 06 Nov 1994 08:49:00 GMT");
		}
		weak.modified++;
		http_put(subject_server, "/weak", &weak);
		subject_fails(&subject, 0, 512);
		client_close(subject.client);
	}
}
RUN_IN_TASK(test_weak_validators)

/* ---- Answers that are refused at once. ---- */

static void test_refused_task(void *argument)
{
	static const char *const rules[] = {
		"content-range=bytes%20513-1024/%T",
		"content-range=bytes%20%F-%L/2000000",
		"content-range=bytes%20%F-%L/*",
		"content-range=nonsense",
		"content-range=none",
		"full",
		"full chunked",
		"more=10 chunked",
		"content-encoding=gzip",
		"etag=\"two\"",
		"etag=none",
		"length=5",
		"status=400",
		"status=401",
		"status=403",
		"status=404",
		"status=412",
		"status=416",
		"status=204",
		"headers=10000",
		"header=X:%20y interim=100000",
		"status=302",
		"location=ftp://127.0.0.1/o",
		"location=file:///etc/passwd",
		"location=http://u:p@127.0.0.1/o",
		"multipart",
	};
	struct subject subject;

	(void)argument;
	if (!subject_ready(&subject))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		unsigned before;

		subject_rules(rules[i]);
		before = subject_requests();
		subject_fails(&subject, 512, 2048);
		CHECK_EQ(subject_requests() - before, 1);
		subject_rules("");
		check_context("after %s", rules[i]);
		subject_is_right(&subject, 512, 2048);
	}
	client_close(subject.client);
}
RUN_IN_TASK(test_refused)

static void test_replaced_task(void *argument)
{
	struct http_object other = subject_object;
	struct subject subject;

	(void)argument;
	if (!subject_ready(&subject))
		return;
	other.etag = "\"two\"";
	http_put(subject_server, "/o", &other);
	subject_fails(&subject, 0, 4096);
	http_put(subject_server, "/o", &subject_object);
	subject_is_right(&subject, 0, 4096);
	client_close(subject.client);
}
RUN_IN_TASK(test_replaced)

/* ---- Answers that come after another try. ---- */

static void test_retried_task(void *argument)
{
	static const struct {
		const char *rules;
		unsigned requests;
	} cases[] = {
		{"status=500 times=1", 2},
		{"status=503 times=3", 4},
		{"status=503 header=Retry-After:%200 times=2", 3},
		{"status=408 times=1", 2},
		{"status=429 times=1", 2},
		{"status=599 times=1", 2},
		{"silent reset times=2", 3},
		{"silent close times=2 skip=0", 3},
		{"garbage close times=1", 2},
		{"body=100 reset times=3", 4},
		{"body=100 close times=3", 4},
		{"chunked body=1000 close times=1", 2},
		{"status=502 body=10 reset times=1", 2},
	};
	struct subject subject;

	(void)argument;
	if (!subject_ready(&subject))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned before;

		subject_rules(cases[i].rules);
		before = subject_requests();
		subject_is_right(&subject, 1000, 50000);
		/* libcurl itself tries again where a connection that had been used before
		 * breaks. */
		CHECK(subject_requests() - before >= cases[i].requests &&
		      subject_requests() - before <= cases[i].requests + 1);
	}
	client_close(subject.client);
}
RUN_IN_TASK(test_retried)

/* Where all bytes have come, what becomes of the connection does not matter. */
static void test_complete_task(void *argument)
{
	static const char *const rules[] = {"length=none reset", "length=none stall",
					    "chunked body=50000 reset"};
	struct subject subject;

	(void)argument;
	if (!subject_ready(&subject))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		unsigned before;

		subject_rules(rules[i]);
		before = subject_requests();
		subject_is_right(&subject, 1000, 50000);
		CHECK_EQ(subject_requests() - before, 1);
	}
	client_close(subject.client);
}
RUN_IN_TASK(test_complete)

/* What has come is not asked for again. */
static void test_resumed_task(void *argument)
{
	struct http_request request;
	struct subject subject;
	unsigned before;

	(void)argument;
	if (!subject_ready(&subject))
		return;
	subject_rules("body=30000 reset times=1; body=100 close times=1");
	before = subject_requests();
	subject_is_right(&subject, 1000, 50000);
	if (CHECK(http_request(subject_server, before + 1, &request)))
		CHECK(request.first > 1000 && request.first <= 31000 && request.last == 50999);
	client_close(subject.client);
}
RUN_IN_TASK(test_resumed)

static void test_budget_task(void *argument)
{
	static const char *const rules[] = {"status=503", "silent reset", "body=0 close"};
	struct subject subject;

	(void)argument;
	if (!subject_ready(&subject))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		unsigned before, used;

		subject_rules(rules[i]);
		before = subject_requests();
		subject_fails(&subject, 0, 512);
		used = subject_requests() - before;
		CHECK(used >= 4 && used <= 8);
	}
	client_close(subject.client);
}
RUN_IN_TASK(test_budget)

/* The server says when. */
static void test_retry_after_task(void *argument)
{
	struct subject subject;
	uint64_t begin;

	(void)argument;
	if (!subject_ready(&subject))
		return;
	subject_rules("status=429 header=Retry-After:%201 times=1");
	begin = now_ns();
	subject_is_right(&subject, 0, 512);
	CHECK(now_ns() - begin >= NS_PER_S);
	/* No time for that: an error at once. */
	subject_rules("status=503 header=Retry-After:%20100");
	begin = now_ns();
	subject_fails(&subject, 0, 512);
	CHECK(now_ns() - begin < 2 * NS_PER_S);
	subject_rules("status=503 header=Retry-After:%2099999999999999999999");
	subject_fails(&subject, 0, 512);
	client_close(subject.client);
}
RUN_IN_TASK(test_retry_after)

/* ---- Answers that never come. ---- */

static void test_stalls_task(void *argument)
{
	static const char *const rules[] = {
		"silent stall times=1",
		"body=1000 stall times=1",
	};
	struct subject subject;

	(void)argument;
	if (!subject_ready(&subject))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		uint64_t begin = now_ns();

		subject_rules(rules[i]);
		subject_is_right(&subject, 0, 2000);
		CHECK(now_ns() - begin < 5 * NS_PER_S);
	}
	client_close(subject.client);
}
RUN_IN_TASK(test_stalls)

/* The whole budget of time. */
static void test_timeout_task(void *argument)
{
	static const char *const rules[] = {"silent stall", "drip=500,100", "status=503"};
	struct subject subject;

	(void)argument;
	subject_init(&subject, "/o");
	subject.options.timeout_ns = NS_PER_S / 2;
	subject.options.retries = 1000;
	subject.options.retry_delay_max_ns = subject.options.retry_delay_ns = 50 * NS_MS;
	if (!subject_open(&subject))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		uint64_t begin = now_ns(), end;

		subject_rules(rules[i]);
		subject_fails(&subject, 0, 100000);
		end = now_ns();
		CHECK(end - begin > NS_PER_S / 4 && end - begin < 3 * NS_PER_S);
	}
	client_close(subject.client);
}
RUN_IN_TASK(test_timeout)

/* ---- Opening. ---- */

static void test_open_errors_task(void *argument)
{
	static const struct {
		const char *rules, *why;
	} cases[] = {
		{"status=404", "status 404"},
		{"status=503", "status 503"},
		{"status=416", "is empty"},
		{"full", "no ranges"},
		{"full chunked", "no ranges"},
		{"content-encoding=gzip", "encoded"},
		{"content-range=bytes%200-0/*", "malformed"},
		{"silent reset", "the object"},
		{"headers=10000", "too long"},
	};
	struct subject subject;

	(void)argument;
	subject_init(&subject, "/o");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		subject_rules(cases[i].rules);
		subject.err.text[0] = '\0';
		CHECK(!client_open(&subject.options, &subject.err));
		if (!CHECK(strstr(subject.err.text, cases[i].why)))
			print_error("%s\n", subject.err.text);
		CHECK_TEXT(subject.err.key, "url");
	}
	/* Nobody there, and no such name. */
	snprintf(subject.url, sizeof(subject.url), "http://127.0.0.1:1/o");
	CHECK(!client_open(&subject.options, &subject.err));
	snprintf(subject.url, sizeof(subject.url), "http://nowhere.invalid/o");
	CHECK(!client_open(&subject.options, &subject.err));
}
RUN_IN_TASK(test_open_errors)

/* ---- Many at once, on several workers. ---- */

#define READERS 64

struct crowd {
	struct subject subject;
	atomic_uint right, failed;
};

static void crowd_open(void *argument)
{
	struct crowd *crowd = argument;

	subject_ready(&crowd->subject);
}

static void crowd_close(void *argument)
{
	struct crowd *crowd = argument;

	client_close(crowd->subject.client);
}

static void crowd_read(unsigned index, void *argument)
{
	struct crowd *crowd = argument;
	struct random random = {.state = index};
	char *data = malloc(65536);

	for (unsigned i = 0; i < 10; i++) {
		uint64_t offset = random_below(&random, SUBJECT_LENGTH);
		size_t length = 1 + random_below(&random, min_u64(SUBJECT_LENGTH - offset, 65536));
		int error = subject_get(&crowd->subject, data, offset, length);

		if (error == 0 && CHECK(memcmp(data, subject_content + offset, length) == 0))
			atomic_fetch_add(&crowd->right, 1);
		if (error)
			atomic_fetch_add(&crowd->failed, 1);
	}
	free(data);
}

static void test_crowd(void **state)
{
	struct crowd crowd = {.right = 0};
	struct http_counts counts;

	(void)state;
	run_task(crowd_open, &crowd);
	subject_rules("chance=5 status=503; chance=5 body=100 reset; chance=3 silent close");
	run_tasks(READERS, crowd_read, &crowd);
	http_counts(subject_server, &counts);
	run_task(crowd_close, &crowd);
	/* Four tries, each of which fails with one in eight. */
	CHECK(atomic_load(&crowd.right) > 10 * READERS * 95 / 100);
	CHECK_EQ(atomic_load(&crowd.right) + atomic_load(&crowd.failed), 10 * READERS);
	CHECK(counts.waiting_max <= crowd.subject.options.max_requests);
	check_finish();
}

/* Who waits for a server that says nothing holds up nobody, and an abort ends it. */
struct abortion {
	struct subject subject;
	atomic_uint waiting;
};

static void abort_read(unsigned index, void *argument)
{
	struct abortion *abortion = argument;
	char data[512];
	uint64_t begin = now_ns();

	if (index == 0) {
		while (atomic_load(&abortion->waiting) < READERS - 1)
			task_sleep_ns(NS_MS);
		task_sleep_ns(50 * NS_MS);
		CHECK(now_ns() - begin < 5 * NS_PER_S);
		client_abort(abortion->subject.client);
		return;
	}
	atomic_fetch_add(&abortion->waiting, 1);
	CHECK_KIND(subject_get(&abortion->subject, data, 0, sizeof(data)), ERROR_IO);
	CHECK_KIND(subject_get(&abortion->subject, data, 0, sizeof(data)), ERROR_IO);
	CHECK(now_ns() - begin < 5 * NS_PER_S);
}

static void test_abort(void **state)
{
	static const char *const rules[] = {"silent stall", "status=503 header=Retry-After:%206"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		struct abortion abortion = {.waiting = 0};

		run_task(crowd_open, &abortion.subject);
		subject_rules(rules[i]);
		run_tasks(READERS, abort_read, &abortion);
		run_task(crowd_close, &abortion.subject);
	}
	check_finish();
}

/* ---- What is counted. ---- */

static void test_numbers_task(void *argument)
{
	struct client_numbers numbers;
	struct stats_totals totals;
	struct subject subject;
	char text[LAST_ERROR_MAX];
	time_t when;

	(void)argument;
	if (!subject_ready(&subject))
		return;
	CHECK(!client_last_error(subject.client, text, &when));
	subject_rules("status=503 times=2");
	subject_is_right(&subject, 0, 1000);
	CHECK(client_last_error(subject.client, text, &when));
	CHECK_TEXT(text, "the object, bytes 0-999, status 503: the server refuses");
	subject_rules("status=403");
	subject_fails(&subject, 0, 1000);
	client_read_numbers(subject.client, &numbers);
	CHECK_EQ(numbers.outcomes[EXCHANGE_DONE], 2);
	CHECK_EQ(numbers.outcomes[EXCHANGE_AGAIN], 2);
	CHECK_EQ(numbers.outcomes[EXCHANGE_REFUSED], 1);
	CHECK_EQ(numbers.retries, 2);
	CHECK_EQ(numbers.failures, 1);
	CHECK_EQ(numbers.bytes, 1001);
	CHECK_EQ(numbers.active, 0);
	CHECK_EQ(numbers.waiting, 0);
	CHECK_EQ(numbers.connections, 1);
	CHECK_EQ(numbers.connected, 1);
	CHECK(client_last_error(subject.client, text, &when));
	CHECK_TEXT(text, "the object, bytes 0-999, status 403: the server refuses");
	CHECK(when > 1700000000);
	for (unsigned i = 0; i < CLIENT_TIMES; i++) {
		client_read_times(subject.client, (enum client_time)i, &totals);
		CHECK_EQ(totals.requests, 2);
		CHECK(totals.total_ns > 0);
	}
	client_close(subject.client);
}
RUN_IN_TASK(test_numbers)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads),	    cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_request),	    cmocka_unit_test(test_weak_validators),
		cmocka_unit_test(test_refused),	    cmocka_unit_test(test_replaced),
		cmocka_unit_test(test_retried),	    cmocka_unit_test(test_complete),
		cmocka_unit_test(test_resumed),	    cmocka_unit_test(test_budget),
		cmocka_unit_test(test_retry_after), cmocka_unit_test(test_stalls),
		cmocka_unit_test(test_timeout),	    cmocka_unit_test(test_open_errors),
		cmocka_unit_test(test_crowd),	    cmocka_unit_test(test_abort),
		cmocka_unit_test(test_numbers),
	};

	return cmocka_run_group_tests_name("blob: the client", tests, subject_set_up,
					   subject_tear_down);
}
