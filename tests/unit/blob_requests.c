// SPDX-License-Identifier: MIT
/* The client of a remote object: where its requests go when they are redirected, and what they carry
 * there: passwords and signatures, for those whom they are for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "backends/blob/target.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/subject.h"

/* ---- Redirects. ---- */

static void test_redirects_task(void *argument)
{
	struct subject subject;
	unsigned before;

	(void)argument;
	subject_init(&subject, "/moved?secret");
	http_put(subject_server, "/moved", &subject_object);
	for (unsigned status = 301; status <= 308; status += status == 303 ? 4 : 1) {
		char rules[100];

		if (!subject_open(&subject))
			return;
		snprintf(rules, sizeof(rules), "path=/moved location=/o status=%u", status);
		subject_rules(rules);
		before = subject_requests();
		subject_is_right(&subject, 100, 1000);
		CHECK_EQ(subject_requests() - before, 2);
		client_close(subject.client);
	}
	/* A loop ends. */
	if (!subject_open(&subject))
		return;
	subject_rules("location=/moved");
	before = subject_requests();
	subject_fails(&subject, 0, 512);
	CHECK_EQ(subject_requests() - before, 11);
	client_close(subject.client);
}
RUN_IN_TASK(test_redirects)

/* Whether the next read takes requests to just these paths, divided by blanks. */
static void check_path(struct subject *subject, const char *paths)
{
	struct http_request request;
	unsigned before = subject_requests();
	char taken[1000] = "";

	subject_is_right(subject, 100, 1000);
	for (unsigned i = before; i < subject_requests(); i++)
		if (CHECK(http_request(subject_server, i, &request)))
			snprintf(taken + strlen(taken), sizeof(taken) - strlen(taken), "%s%s",
				 taken[0] ? " " : "", request.target);
	CHECK_TEXT(taken, paths);
}

/* Where a redirect has led to, the next request goes, until that is no good. */
static void test_remembered_task(void *argument)
{
	/* What the target does for once, and where that leads to. */
	static const struct {
		const char *does, *paths;
	} cases[] = {
		{"status=403", "/o /moved /o"},
		{"status=410", "/o /moved /o"},
		{"location=/elsewhere", "/o /moved /o"},
		{"location=file:///o", "/o /moved /o"},
		{"status=412", "/o /moved /o"},
		{"etag=\"two\" unconditional", "/o /moved /o"},
		{"full", "/o /moved /o"},
		{"body=100 reset", "/o /moved /o"},
		{"status=503", "/o /moved /o"},
	};
	struct subject subject;

	(void)argument;
	subject_init(&subject, "/moved");
	http_put(subject_server, "/moved", &subject_object);
	if (!subject_open(&subject))
		return;
	subject_rules("path=/moved location=/o status=302");
	check_path(&subject, "/moved /o");
	check_path(&subject, "/o");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char rules[200];

		snprintf(rules, sizeof(rules), "path=/o %s times=1; path=/moved location=/o",
			 cases[i].does);
		subject_rules(rules);
		check_path(&subject, cases[i].paths);
		check_path(&subject, "/o");
	}
	/* The object itself has it, and there is nothing to remember. */
	subject_rules("path=/o status=404");
	check_path(&subject, "/o /moved");
	check_path(&subject, "/moved");
	client_close(subject.client);
}
RUN_IN_TASK(test_remembered)

/* Where the object's own URL knows nothing better, its answer is the error. */
static void test_misled_task(void *argument)
{
	struct subject subject;
	char text[LAST_ERROR_MAX];
	unsigned before;
	time_t when;

	(void)argument;
	subject_init(&subject, "/moved");
	http_put(subject_server, "/moved", &subject_object);
	if (!subject_open(&subject))
		return;
	subject_rules("path=/moved location=/o");
	check_path(&subject, "/moved /o");
	subject_rules("path=/o status=403; path=/moved status=404");
	before = subject_requests();
	subject_fails(&subject, 0, 512);
	CHECK_EQ(subject_requests() - before, 2);
	CHECK(client_last_error(subject.client, text, &when));
	CHECK_TEXT(text, "the object, bytes 0-511, status 404: the server refuses");
	/* Another content is not taken from anywhere. */
	subject_rules("path=/moved location=/o");
	check_path(&subject, "/moved /o");
	subject_rules("path=/o etag=\"two\" unconditional; path=/moved location=/o");
	subject_fails(&subject, 0, 512);
	client_close(subject.client);
}
RUN_IN_TASK(test_misled)

/* For how long. */
static void test_memory(void **state)
{
	struct target_memory memory;
	struct target *first, *second;

	(void)state;
	target_memory_init(&memory);
	CHECK(!target_recall(&memory, 0));
	target_remember(&memory, "http://a/", false, 1000);
	first = target_recall(&memory, 1000 + 60 * NS_PER_S - 1);
	if (CHECK(first))
		CHECK_TEXT(target_url(first), "http://a/");
	CHECK(!target_recall(&memory, 1000 + 60 * NS_PER_S));
	target_remember(&memory, "http://b/", true, 1000);
	second = target_recall(&memory, UINT64_MAX - 1);
	if (CHECK(second))
		CHECK_TEXT(target_url(second), "http://b/");
	/* Who is disappointed by the first says nothing of the second. */
	target_forget(&memory, first);
	target_release(first);
	first = target_recall(&memory, 1000);
	CHECK(first == second);
	target_release(first);
	target_forget(&memory, second);
	CHECK(!target_recall(&memory, 1000));
	CHECK_TEXT(target_url(second), "http://b/");
	target_release(second);
	target_memory_destroy(&memory);
	check_finish();
}

/* Another server that has the object; NULL after a failed check. The subject has a name and password,
 * or what a store takes for them. */
static struct http_server *other_start(struct subject *subject, const char *user)
{
	struct http_server *other = http_start();

	if (!CHECK(other))
		return NULL;
	subject_init(subject, "/o");
	subject->credentials.user = user;
	subject->credentials.password = "hush";
	http_put(other, "/o", &subject_object);
	return other;
}

/* To be asked there. */
static void lead_to(const struct http_server *other)
{
	char rules[300], url[200];

	snprintf(rules, sizeof(rules), "location=%s", http_url(other, "/o", url));
	subject_rules(rules);
}

/* A password goes to the host that it is for, and nowhere else. */
static void test_redirect_credentials_task(void *argument)
{
	struct subject subject;
	struct http_server *other = other_start(&subject, "me");
	struct http_request request;
	char value[1024];
	unsigned before;

	(void)argument;
	if (!other)
		return;
	if (subject_open(&subject)) {
		before = subject_requests();
		lead_to(other);
		subject_is_right(&subject, 0, 512);
		if (CHECK(http_request(subject_server, before, &request)))
			CHECK_TEXT(http_header(&request, "Authorization", value),
				   "Basic bWU6aHVzaA==");
		/* The second is sent there without being redirected. */
		subject_is_right(&subject, 0, 512);
		for (unsigned i = 0; i < 2; i++)
			if (CHECK(http_request(other, i, &request)))
				CHECK(!http_header(&request, "Authorization", value));
		client_close(subject.client);
	}
	if (subject_open(&subject)) {
		subject_rules("path=/o location=/p times=1; path=/p location=/o times=1");
		before = subject_requests();
		subject_is_right(&subject, 0, 512);
		if (CHECK(http_request(subject_server, before + 2, &request)))
			CHECK_TEXT(http_header(&request, "Authorization", value),
				   "Basic bWU6aHVzaA==");
		client_close(subject.client);
	}
	http_stop(other);
}
RUN_IN_TASK(test_redirect_credentials)

/* ---- Signatures. ---- */

static void test_s3_headers_task(void *argument)
{
	struct subject subject;
	struct http_server *other = other_start(&subject, "AK");
	struct http_request request;
	char value[1024];
	unsigned before;

	(void)argument;
	if (!other)
		return;
	subject.options.exchange.store = BLOB_S3;
	subject.credentials.session_token = "token";
	before = subject_requests();
	if (subject_open(&subject)) {
		if (CHECK(http_request(subject_server, before, &request))) {
			CHECK(strncmp(http_header(&request, "Authorization", value),
				      "AWS4-HMAC-SHA256 Credential=AK/", 31) == 0);
			CHECK(strstr(value, "/r/s3/aws4_request"));
			/* All of what matters is signed. */
			CHECK(strstr(value, ";x-amz-content-sha256;x-amz-date;"
					    "x-amz-security-token"));
			CHECK_TEXT(http_header(&request, "x-amz-security-token", value), "token");
			CHECK(http_header(&request, "x-amz-content-sha256", value));
			CHECK(!strstr(request.head, "hush"));
		}
		/* Elsewhere nothing of it is shown. */
		lead_to(other);
		subject_is_right(&subject, 0, 512);
		if (CHECK(http_request(other, 0, &request))) {
			CHECK(!http_header(&request, "Authorization", value));
			CHECK(!http_header(&request, "x-amz-security-token", value));
		}
		client_close(subject.client);
	}
	http_stop(other);
}
RUN_IN_TASK(test_s3_headers)

static void test_azure_headers_task(void *argument)
{
	struct http_request request;
	struct subject subject;
	char value[1024];
	unsigned before;

	(void)argument;
	subject_init(&subject, "/o");
	subject.options.exchange.store = BLOB_AZURE;
	subject.options.exchange.account = "acct";
	subject.credentials.account_key = (const unsigned char *)"hush";
	subject.credentials.account_key_length = 4;
	before = subject_requests();
	if (!subject_open(&subject))
		return;
	if (CHECK(http_request(subject_server, before, &request))) {
		CHECK(strncmp(http_header(&request, "Authorization", value),
			      "SharedKey acct:", 15) == 0);
		CHECK(http_header(&request, "x-ms-date", value));
		CHECK(http_header(&request, "x-ms-version", value));
	}
	client_close(subject.client);
}
RUN_IN_TASK(test_azure_headers)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_redirects),
		cmocka_unit_test(test_remembered),
		cmocka_unit_test(test_misled),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_redirect_credentials),
		cmocka_unit_test(test_s3_headers),
		cmocka_unit_test(test_azure_headers),
	};

	return cmocka_run_group_tests_name("blob: requests of the client", tests, subject_set_up,
					   subject_tear_down);
}
