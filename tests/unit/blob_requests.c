// SPDX-License-Identifier: MIT
/* The client of a remote object: where its requests go when they are redirected, and what they carry
 * there: passwords and signatures, for those whom they are for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/subject.h"

/* ---- Redirects. ---- */

static void test_redirects_task(void *argument)
{
	struct http_request request;
	struct subject subject;
	unsigned before;

	(void)argument;
	subject_init(&subject, "/moved?secret");
	http_put(subject_server, "/moved", &subject_object);
	if (!subject_open(&subject))
		return;
	/* Each request begins at the beginning, whatever the last one has found. */
	subject_rules("path=/moved location=/o status=308");
	for (unsigned i = 0; i < 2; i++) {
		before = subject_requests();
		subject_is_right(&subject, 100, 1000);
		CHECK_EQ(subject_requests() - before, 2);
		if (CHECK(http_request(subject_server, before + 1, &request)))
			CHECK_TEXT(request.target, "/o");
	}
	for (unsigned status = 301; status <= 308; status += status == 303 ? 4 : 1) {
		char rules[100];

		snprintf(rules, sizeof(rules), "path=/moved location=/o status=%u", status);
		subject_rules(rules);
		subject_is_right(&subject, 100, 1000);
	}
	/* A loop ends. */
	subject_rules("location=/moved");
	before = subject_requests();
	subject_fails(&subject, 0, 512);
	CHECK_EQ(subject_requests() - before, 11);
	client_close(subject.client);
}
RUN_IN_TASK(test_redirects)

/* A password goes to the host that it is for, and nowhere else. */
static void test_redirect_credentials_task(void *argument)
{
	struct http_server *other = http_start();
	struct http_request request;
	struct subject subject;
	char rules[300], url[200], value[1024];
	unsigned before;

	(void)argument;
	if (!CHECK(other))
		return;
	subject_init(&subject, "/o");
	subject.credentials.user = "me";
	subject.credentials.password = "hush";
	http_put(other, "/o", &subject_object);
	if (subject_open(&subject)) {
		before = subject_requests();
		snprintf(rules, sizeof(rules), "location=%s", http_url(other, "/o", url));
		subject_rules(rules);
		subject_is_right(&subject, 0, 512);
		if (CHECK(http_request(subject_server, before, &request)))
			CHECK_TEXT(http_header(&request, "Authorization", value),
				   "Basic bWU6aHVzaA==");
		if (CHECK(http_request(other, 0, &request)))
			CHECK(!http_header(&request, "Authorization", value));
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
	struct http_server *other = http_start();
	struct http_request request;
	struct subject subject;
	char rules[300], url[200], value[1024];
	unsigned before;

	(void)argument;
	if (!CHECK(other))
		return;
	subject_init(&subject, "/o");
	subject.options.exchange.store = BLOB_S3;
	subject.credentials.user = "AK";
	subject.credentials.password = "hush";
	subject.credentials.session_token = "token";
	http_put(other, "/o", &subject_object);
	before = subject_requests();
	if (subject_open(&subject)) {
		if (CHECK(http_request(subject_server, before, &request))) {
			CHECK(strncmp(http_header(&request, "Authorization", value),
				      "AWS4-HMAC-SHA256 Credential=AK/", 31) == 0);
			CHECK(strstr(value, "/r/s3/aws4_request"));
			CHECK_TEXT(http_header(&request, "x-amz-security-token", value), "token");
			CHECK(http_header(&request, "x-amz-content-sha256", value));
			CHECK(!strstr(request.head, "hush"));
		}
		/* Elsewhere nothing of it is shown. */
		snprintf(rules, sizeof(rules), "location=%s", http_url(other, "/o", url));
		subject_rules(rules);
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
		cmocka_unit_test(test_redirect_credentials),
		cmocka_unit_test(test_s3_headers),
		cmocka_unit_test(test_azure_headers),
	};

	return cmocka_run_group_tests_name("blob: requests of the client", tests, subject_set_up,
					   subject_tear_down);
}
