// SPDX-License-Identifier: MIT
/* URLs of remote disks: the forms and what is made of them, what is shown of them, and where a
 * request may be sent on to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/blob/url.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"

/* ---- Forms. ---- */

struct form {
	struct blob_place place;
	const char *text; /* NULL: refused, and */
	const char *why;  /* is a part of the sentence */
	const char *account;
};

#define PLACE(...)                                 \
	{                                          \
		.region = "eu-west-1", __VA_ARGS__ \
	}
#define URL(text)	   PLACE(.url = (text))
#define AT(text, at)	   PLACE(.url = (text), .endpoint = (at))
#define ADDRESS(text, how) PLACE(.url = (text), .addressing = BLOB_ADDRESS_##how)

/* clang-format off */
#define MADE(of, to)	  {.place = of, .text = (to)}
#define ACCOUNT(of, to, name) {.place = of, .text = (to), .account = (name)}
#define REFUSED(of, part) {.place = of, .why = (part)}

static const struct form forms[] = {
	MADE(URL("http://a/b"), "http://a/b"),
	MADE(URL("HTTPS://a.example:8443/b/c%20d?x=1&y"), "HTTPS://a.example:8443/b/c%20d?x=1&y"),
	MADE(URL("http://[::1]:80/b"), "http://[::1]:80/b"),
	MADE(URL("http://a"), "http://a"),
	REFUSED(URL("http://user@a/b"), "auth_file"),
	REFUSED(URL("http://user:secret@a/b"), "auth_file"),
	REFUSED(URL("http://:secret@a/b"), "auth_file"),
	REFUSED(URL("http://a/b c"), "blank"),
	REFUSED(URL("http://a/b\nc"), "blank"),
	REFUSED(URL("http://a/b#c"), "fragment"),
	REFUSED(URL("http://"), "no URL"),
	REFUSED(URL("http:///b"), "no URL"),
	REFUSED(URL("http://a:99999/b"), "no URL"),
	REFUSED(URL("ftp://a/b"), "does not begin with"),
	REFUSED(URL("file:///etc/passwd"), "does not begin with"),
	REFUSED(URL("a/b"), "does not begin with"),
	REFUSED(URL(""), "does not begin with"),
	REFUSED(AT("http://a/b", "http://c"), "endpoint"),
	ACCOUNT(URL("azure://acct/cont/b/c.vhd"),
		"https://acct.blob.core.windows.net/cont/b/c.vhd", "acct"),
	ACCOUNT(URL("azure://acct/cont/a b+%20%c3%a4?snapshot=2020"),
		"https://acct.blob.core.windows.net/cont/a%20b%2B%20%C3%A4?snapshot=2020", "acct"),
	ACCOUNT(AT("azure://dev/c/b", "http://127.0.0.1:10000/dev/"),
		"http://127.0.0.1:10000/dev/c/b", "dev"),
	REFUSED(URL("azure://acct/blob"), "azure://ACCOUNT/CONTAINER/BLOB"),
	REFUSED(URL("azure://acct"), "a '/'"),
	REFUSED(URL("azure:///a/b"), "a name"),
	REFUSED(URL("azure://a.b/c/d"), "azure://ACCOUNT"),
	REFUSED(AT("azure://a/c/b", "127.0.0.1"), "http"),
	REFUSED(AT("azure://a/c/b", "http://x/?y"), "query"),
	MADE(URL("s3://bucket/key"), "https://bucket.s3.eu-west-1.amazonaws.com/key"),
	MADE(URL("s3://bucket/a//b/../c?versionId=x"),
		"https://bucket.s3.eu-west-1.amazonaws.com/a//b/../c?versionId=x"),
	MADE(URL("s3://buck.et/key"), "https://s3.eu-west-1.amazonaws.com/buck.et/key"),
	MADE(AT("s3://bucket/key", "http://127.0.0.1:7480"), "http://127.0.0.1:7480/bucket/key"),
	MADE(ADDRESS("s3://bucket/key", PATH), "https://s3.eu-west-1.amazonaws.com/bucket/key"),
	MADE(PLACE(.url = "s3://bucket/key", .endpoint = "http://localhost:7480",
		   .addressing = BLOB_ADDRESS_VIRTUAL),
		"http://bucket.localhost:7480/key"),
	MADE(URL("s3://bucket/100%"), "https://bucket.s3.eu-west-1.amazonaws.com/100%25"),
	MADE(URL("s3://bucket/100%4"), "https://bucket.s3.eu-west-1.amazonaws.com/100%254"),
	MADE(URL("s3://bucket/100%41"), "https://bucket.s3.eu-west-1.amazonaws.com/100A"),
	MADE(URL("s3://bucket/a%2fb"), "https://bucket.s3.eu-west-1.amazonaws.com/a%2Fb"),
	REFUSED(URL("s3://bucket/"), "no object"),
	REFUSED(URL("s3://bucket"), "a '/'"),
	REFUSED(URL("s3://bucket?x/y"), "a '/'"),
	REFUSED(URL("s3://Bucket/key"), "small letters"),
	REFUSED(URL("s3://bucket/a#b"), "#"),
	REFUSED(URL("s3://user:secret@bucket/a"), "a '/'"),
};
/* clang-format on */

static void test_forms(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		const struct form *form = &forms[i];
		struct blob_url url;
		struct err err = {.text = ""};
		int result = blob_url_make(&url, &form->place, &err);

		check_context("%s", form->place.url);
		CHECK_EQ(result, form->text ? 0 : -1);
		if (result == 0)
			CHECK_TEXT(url.text, form->text);
		if (form->account)
			CHECK_TEXT(url.account, form->account);
		if (form->why && !CHECK(strstr(err.text, form->why)))
			print_error("%s\n", err.text);
		CHECK(!strstr(err.text, "secret"));
		blob_url_free(&url);
	}
	check_finish();
}

/* ---- What is shown. ---- */

static const struct {
	const char *url, *shown;
} redactions[] = {
	{"http://a/b", "http://a/b"},
	{"http://a/b?sig=secret", "http://a/b"},
	{"http://a/b#secret", "http://a/b"},
	{"http://a?secret", "http://a"},
	{"http://u:secret@a/b", "http://a/b"},
	{"http://secret@a", "http://a"},
	{"http://x@secret@a/b", "http://a/b"},
	{"http://a/b@c", "http://a/b@c"},
	{"http://a/b?c://secret@d/e", "http://a/b"},
	{"secret@a/b", "a/b"},
	{"?secret", ""},
	{"secret?://x", "secret"},
	{"", ""},
	{"http://a/\x1b[31m\n", "http://a/?[31m?"},
	{"http://secret@a\\b/c", "http://a\\b/c"},
};

static void test_redaction(void **state)
{
	char shown[100], small[8];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(redactions); i++)
		CHECK_TEXT(url_redact(shown, sizeof(shown), redactions[i].url),
			   redactions[i].shown);
	CHECK_TEXT(url_redact(small, sizeof(small), "http://a.example/b"), "http://");
	CHECK_TEXT(url_redact(small, sizeof(small), "u:secret@abcdefghij"), "abcdefg");
	check_finish();
}

/* Whatever the text, nothing behind a "?" and nothing that could be a password is shown. */
static void test_redaction_random(void **state)
{
	static const char *const pieces[] = {"http://", "https://", "s3://", "@", ":",
					     "/",	"?",	    "#",     "a", "b.c",
					     "%",	"\\",	    "[::1]", "\n"};
	struct random random = {.state = 8};

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		char url[200] = "", shown[200], cut[16];
		const char *query;

		for (uint64_t n = random_below(&random, 12); n > 0; n--)
			strcat(url, pieces[random_below(&random, ARRAY_SIZE(pieces))]);
		url_redact(shown, sizeof(shown), url);
		check_context("'%s'", url);
		CHECK(strlen(shown) <= strlen(url));
		query = strpbrk(url, "?#");
		CHECK(!query || strlen(shown) <= (size_t)(query - url));
		CHECK(!strstr(shown, "://") || strcspn(strstr(shown, "://") + 3, "@") >=
						       strcspn(strstr(shown, "://") + 3, "/\\"));
		url_redact(cut, sizeof(cut), url);
		CHECK(strncmp(cut, shown, sizeof(cut) - 1) == 0);
	}
	check_finish();
}

/* ---- Origins and redirects. ---- */

static void test_origins(void **state)
{
	(void)state;
	CHECK(url_same_origin("http://a/b", "http://A:80/c?d"));
	CHECK(url_same_origin("https://a:443/", "https://a"));
	CHECK(!url_same_origin("https://a/", "http://a/"));
	CHECK(!url_same_origin("https://a/", "https://a:444/"));
	CHECK(!url_same_origin("https://a/", "https://b.a/"));
	CHECK(!url_same_origin("https://a/", "https://a.b/"));
	CHECK(!url_same_origin("https://a/", "https://a@b/"));
	CHECK(!url_same_origin("", ""));
	CHECK(!url_same_origin("nonsense", "nonsense"));
	check_finish();
}

static void test_redirects(void **state)
{
	static const struct {
		const char *from, *to;
		bool allowed;
	} cases[] = {
		{"http://a/", "http://b/", true},    {"http://a/", "https://b/", true},
		{"https://a/", "https://b/", true},  {"https://a/", "http://a/", false},
		{"https://a/", "HTTP://a/", false},  {"http://a/", "ftp://a/", false},
		{"http://a/", "file:///a", false},   {"http://a/", "gopher://a", false},
		{"http://a/", "http://", false},     {"http://a/", "", false},
		{"http://a/", "http://u@b/", false}, {"http://a/", "http://u:p@b/", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		check_context("%s to %s", cases[i].from, cases[i].to);
		CHECK_EQ(url_refuse_redirect(cases[i].from, cases[i].to) == NULL, cases[i].allowed);
	}
	check_finish();
}

/* Where the user is that a request was made with, nobody sees. */
static void test_locations(void **state)
{
	static const struct {
		const char *url, *location, *to;
	} cases[] = {
		{"http://a/b/c?d", "http://e/f?g", "http://e/f?g"},
		{"http://a/b/c?d", "/f", "http://a/f"},
		{"http://a/b/c?d", "f?g", "http://a/b/f?g"},
		{"https://a:1/b/c", "//e/f", "https://e/f"},
		{"http://a/b", "https://e/f g", "https://e/f%20g"},
		{"http://a/b", "http://u:p@e/f", "http://u:p@e/f"},
		{"http://a/b", "http://[::1/", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *to = url_resolve(cases[i].url, cases[i].location);

		check_context("%s from %s", cases[i].location, cases[i].url);
		if (CHECK_EQ(to != NULL, cases[i].to != NULL) && to)
			CHECK_TEXT(to, cases[i].to);
		free(to);
	}
	check_finish();
}

static void test_query(void **state)
{
	char *url;

	(void)state;
	url = url_with_query("http://a/b", NULL);
	CHECK_TEXT(url, "http://a/b");
	free(url);
	url = url_with_query("http://a/b", "x=1");
	CHECK_TEXT(url, "http://a/b?x=1");
	free(url);
	url = url_with_query("http://a/b?y", "x=1");
	CHECK_TEXT(url, "http://a/b?y&x=1");
	free(url);
	check_finish();
}

/* Nothing that anybody writes does more than fail. */
static void test_forms_random(void **state)
{
	static const char *const pieces[] = {"http://", "azure://", "s3://", "@", ":",	"/",   "?",
					     "#",	"a",	    "b.c",   "%", "%4", "%41", "[",
					     "]",	"\xc3",	    " ",     "&", "=",	"..",  "0"};
	struct random random = {.state = 9};

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		char text[100] = "", endpoint[100] = "";
		struct blob_place place = {.url = text, .region = "r"};
		struct blob_url url;
		struct err err;

		place.addressing = (enum blob_addressing)random_below(&random, 3);
		for (uint64_t n = random_below(&random, 10); n > 0; n--)
			strcat(text, pieces[random_below(&random, ARRAY_SIZE(pieces))]);
		for (uint64_t n = random_below(&random, 5); n > 0; n--)
			strcat(endpoint, pieces[random_below(&random, ARRAY_SIZE(pieces))]);
		if (random_below(&random, 4) == 0)
			place.endpoint = endpoint;
		check_context("'%s' at '%s'", text, endpoint);
		if (blob_url_make(&url, &place, &err) == 0) {
			CHECK(strncasecmp(url.text, "http", 4) == 0);
			CHECK(!strpbrk(url.text, " #\n"));
			CHECK(!url_has_user(url.text));
			CHECK(url_same_origin(url.text, url.text));
		}
		blob_url_free(&url);
	}
	check_finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_redaction),
		cmocka_unit_test(test_origins),
		cmocka_unit_test(test_redirects),
		cmocka_unit_test(test_locations),
		cmocka_unit_test(test_query),
		cmocka_unit_test(test_redaction_random),
		cmocka_unit_test(test_forms_random),
	};

	return cmocka_run_group_tests_name("blob: URLs", tests, NULL, NULL);
}
