// SPDX-License-Identifier: MIT
/* What a client shows: signatures of Azure's shared key, and the files that secrets come from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/blob/credentials.h"
#include "backends/blob/sign.h"
#include "core/log.h"
#include "tests/lib/check.h"
#include "tests/lib/scratch.h"

/* ---- Shared key. ---- */

/* RFC 4231, test cases 2 and 6: HMAC-SHA-256. */
static void test_hmac(void **state)
{
	char signature[AZURE_SIGNATURE_SIZE];
	unsigned char key[131];

	(void)state;
	CHECK(azure_sign(signature, "what do ya want for nothing?", "Jefe", 4));
	CHECK_TEXT(signature, "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
	memset(key, 0xaa, sizeof(key));
	CHECK(azure_sign(signature, "Test Using Larger Than Block-Size Key - Hash Key First", key,
			 sizeof(key)));
	CHECK_TEXT(signature, "YOQxWR7gtn8Niiaqy/W3f44LxiE3KMUUBUYEDw7jf1Q=");
	check_finish();
}

/* As Microsoft's "Authorize with Shared Key" describes it. */
static void test_string_to_sign(void **state)
{
	struct azure_request request = {
		.account = "acct",
		.url = "https://acct.blob.core.windows.net/cont/a%20b",
		.range = "bytes=0-511",
		.if_match = "\"0x8D\"",
		.date = "Fri, 26 Jun 2015 23:39:12 GMT",
		.version = "2020-10-02",
	};
	char *text = azure_string_to_sign(&request);

	(void)state;
	CHECK_TEXT(text, "GET\n\n\n\n\n\n\n\n\"0x8D\"\n\n\nbytes=0-511\n"
			 "x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2020-10-02\n"
			 "/acct/cont/a%20b");
	free(text);
	/* Parameters: sorted, names in lower case, values as they were before the URL. */
	request.url = "http://127.0.0.1:10000/acct/cont/b?versionid=2&Snapshot=2011-03%3a09&&c&a=";
	request.if_match = NULL;
	request.if_unmodified_since = "then";
	text = azure_string_to_sign(&request);
	CHECK_TEXT(text, "GET\n\n\n\n\n\n\n\n\n\nthen\nbytes=0-511\n"
			 "x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2020-10-02\n"
			 "/acct/acct/cont/b\na:\nc:\nsnapshot:2011-03:09\nversionid:2");
	free(text);
	request.url = "nonsense\n";
	CHECK(!azure_string_to_sign(&request));
	check_finish();
}

/* ---- Files. ---- */

#define OK NULL

struct file_case {
	const char *content;
	const char *why; /* a part of the sentence, or OK */
	const char *first, *second, *third;
};

/* Reads the file "secret" as @files says; its values are what @values makes of them. */
static void check_file(const struct file_case *file, const struct credential_files *files,
		       enum blob_store store,
		       void (*check)(const struct credentials *credentials,
				     const struct file_case *file))
{
	struct credentials credentials = {.user = NULL};
	struct err err = {.text = ""};
	int result;

	check_context("'%s'", file->content);
	scratch_write("secret", file->content, strlen(file->content));
	result = credentials_read(&credentials, files, store, "node", &err);
	CHECK_EQ(result, file->why ? -1 : 0);
	if (file->why && !CHECK(strstr(err.text, file->why)))
		print_error("%s\n", err.text);
	CHECK(!strstr(err.text, "hush"));
	if (result == 0)
		check(&credentials, file);
	credentials_destroy(&credentials);
}

static void check_pair(const struct credentials *credentials, const struct file_case *file)
{
	CHECK_TEXT(credentials->user, file->first);
	CHECK_TEXT(credentials->password, file->second);
}

static void test_auth_file(void **state)
{
	static const struct file_case cases[] = {
		{"me:hush", OK, "me", "hush", NULL},
		{"me:hush\nmore\n", OK, "me", "hush", NULL},
		{"me:hu:sh \r\n", OK, "me", "hu:sh", NULL},
		{":", OK, "", "", NULL},
		{"hush", "user:password", NULL, NULL, NULL},
		{"", "empty", NULL, NULL, NULL},
		{"\nme:hush", "empty", NULL, NULL, NULL},
		{"me:hush\x01", "control", NULL, NULL, NULL},
	};
	struct credential_files files = {.auth_file = "secret"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_file(&cases[i], &files, BLOB_HTTP, check_pair);
	check_finish();
}

static void check_query(const struct credentials *credentials, const struct file_case *file)
{
	CHECK_TEXT(credentials->query, file->first);
}

static void test_query_file(void **state)
{
	static const struct file_case cases[] = {
		{"sv=1&sig=hush%3D", OK, "sv=1&sig=hush%3D", NULL, NULL},
		{"?sv=1&sig=hush\n", OK, "sv=1&sig=hush", NULL, NULL},
		{"sv=1 &sig=hush", "blank", NULL, NULL, NULL},
		{"sv=1#hush", "'#'", NULL, NULL, NULL},
	};
	struct credential_files files = {.query_file = "secret"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_file(&cases[i], &files, BLOB_AZURE, check_query);
	check_finish();
}

static void check_key(const struct credentials *credentials, const struct file_case *file)
{
	CHECK_EQ(credentials->account_key_length, strlen(file->first));
	CHECK(memcmp(credentials->account_key, file->first, strlen(file->first)) == 0);
}

static void test_account_key_file(void **state)
{
	static const struct file_case cases[] = {
		{"aHVzaA==\n", OK, "hush", NULL, NULL}, {"aHVzaGg=", OK, "hushh", NULL, NULL},
		{"aHVzaGho", OK, "hushhh", NULL, NULL}, {"aHVza", "base64", NULL, NULL, NULL},
		{"a-_a", "base64", NULL, NULL, NULL},	{"=", "base64", NULL, NULL, NULL},
	};
	struct credential_files files = {.account_key_file = "secret"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_file(&cases[i], &files, BLOB_AZURE, check_key);
	check_finish();
}

static void check_s3(const struct credentials *credentials, const struct file_case *file)
{
	check_pair(credentials, file);
	if (CHECK_EQ(credentials->session_token != NULL, file->third != NULL) && file->third)
		CHECK_TEXT(credentials->session_token, file->third);
}

static void test_credentials_file(void **state)
{
	static const struct file_case cases[] = {
		{"aws_access_key_id=AK\naws_secret_access_key=hush/+=", OK, "AK", "hush/+=", NULL},
		{"# of mine\n[default]\r\n aws_access_key_id = AK \r\nregion = x\n\n"
		 "aws_secret_access_key = hush\naws_session_token = tok\n",
		 OK, "AK", "hush", "tok"},
		{"[other]\naws_access_key_id=x\naws_secret_access_key=y\n[default]\n"
		 "aws_access_key_id=AK\naws_secret_access_key=hush\n",
		 OK, "AK", "hush", NULL},
		{"aws_access_key_id=AK\naws_secret_access_key=hush\naws_session_token=\n[b]\n"
		 "aws_access_key_id=x\n",
		 OK, "AK", "hush", NULL},
		{"[other]\naws_access_key_id=AK\naws_secret_access_key=hush\n", "[default]", NULL,
		 NULL, NULL},
		{"aws_access_key_id=AK\n", "no lines", NULL, NULL, NULL},
		{"AK:hush", "no lines", NULL, NULL, NULL},
		{"aws_access_key_id=A\x02K\naws_secret_access_key=hush\n", "control", NULL, NULL,
		 NULL},
	};
	struct credential_files files = {.credentials_file = "secret"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_file(&cases[i], &files, BLOB_S3, check_s3);
	check_finish();
}

/* Each file belongs to a store, and to itself. */
static void test_which_file(void **state)
{
	const struct credential_files auth = {.auth_file = "secret"};
	const struct credential_files account = {.account_key_file = "secret"};
	const struct credential_files s3 = {.credentials_file = "secret"};
	const struct credential_files both = {.credentials_file = "secret", .query_file = "secret"};
	const struct credential_files missing = {.proxy_auth_file = "missing"};
	const struct {
		const struct credential_files *files;
		enum blob_store store;
		const char *key;
	} cases[] = {
		{&auth, BLOB_AZURE, "auth_file"},	 {&auth, BLOB_S3, "auth_file"},
		{&account, BLOB_S3, "account_key_file"}, {&account, BLOB_HTTP, "account_key_file"},
		{&s3, BLOB_HTTP, "credentials_file"},	 {&s3, BLOB_AZURE, "credentials_file"},
		{&both, BLOB_S3, "query_file"},		 {&missing, BLOB_HTTP, "proxy_auth_file"},
	};

	(void)state;
	scratch_write("secret", "a:b", 3);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct credentials credentials = {.user = NULL};
		struct err err = {.key = ""};

		CHECK_EQ(credentials_read(&credentials, cases[i].files, cases[i].store, "node",
					  &err),
			 -1);
		CHECK_TEXT(err.key, cases[i].key);
		credentials_destroy(&credentials);
	}
	check_finish();
}

static int enter(void **state)
{
	(void)state;
	/* Others than its owner may read a scratch file, which would be told each time. */
	log_set_level(LOG_LEVEL_ERROR);
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
		cmocka_unit_test(test_hmac),
		cmocka_unit_test(test_string_to_sign),
		cmocka_unit_test(test_auth_file),
		cmocka_unit_test(test_query_file),
		cmocka_unit_test(test_account_key_file),
		cmocka_unit_test(test_credentials_file),
		cmocka_unit_test(test_which_file),
	};

	return cmocka_run_group_tests_name("blob: credentials and signatures", tests, enter, leave);
}
