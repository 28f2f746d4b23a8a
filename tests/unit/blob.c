// SPDX-License-Identifier: MIT
/* The driver blob: what disk becomes of an object, which id it has, what is refused, and that no
 * secret is shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/list.h"
#include "core/disk.h"
#include "core/log.h"
#include "core/report.h"
#include "tests/lib/check.h"
#include "tests/lib/http.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"
#include "tests/lib/stacks.h"

#define LENGTH ((size_t)300 * 1024)
#define TAIL   300

static char content[LENGTH + TAIL];
static struct http_server *server;

static struct http_object object_of(uint64_t length, const char *etag)
{
	return (struct http_object){content, length, etag, 0};
}

static void put(const char *path, uint64_t length, const char *etag)
{
	struct http_object object = object_of(length, etag);

	http_put(server, path, &object);
}

/* A disk over @url, with one option more, whose key may be NULL. */
static struct disk *open_url(const char *url, const char *key, const char *value, struct err *err)
{
	const char *options[][2] = {{"url", url}, {"retries", "1"}, {key, value}};

	*err = (struct err){.text = ""};
	return driver_open(driver_find("blob"), options, key ? 3 : 2, 0, NULL, err);
}

static struct disk *open_path(const char *path, const char *key, const char *value)
{
	struct err err;
	char url[200];
	struct disk *disk = open_url(http_url(server, path, url), key, value, &err);

	if (!CHECK(disk))
		print_error("%s: %s\n", err.key, err.text);
	return disk;
}

static bool reads(struct disk *disk, uint64_t sector, size_t length)
{
	char *data = malloc(length);
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, length);
	bool right = CHECK_OK(disk_read(disk, &sg, sector)) &&
		     CHECK(memcmp(data, content + sector * disk_sector_size(disk), length) == 0);

	free(data);
	return right;
}

static void test_geometry_task(void *argument)
{
	struct disk *disk;

	(void)argument;
	put("/o", LENGTH + TAIL, "\"x\"");
	disk = open_path("/o", NULL, NULL);
	if (disk) {
		CHECK_EQ(disk_sector_size(disk), 512);
		CHECK_EQ(disk->geometry.physical_sector_size, 4096);
		CHECK_EQ(disk_sector_count(disk), LENGTH / 512);
		CHECK(disk_is_read_only(disk) && disk->geometry.unmap == UNMAP_IGNORED);
		reads(disk, 0, LENGTH);
		reads(disk, LENGTH / 512 - 1, 512);
		CHECK_OK(disk_flush(disk));
		CHECK_KIND(disk_write_zeroes(disk, 0, 1, 0), ERROR_READ_ONLY);
	}
	disk_close(disk);
	disk = open_path("/o", "sector_size", "8K");
	if (disk) {
		CHECK_EQ(disk->geometry.physical_sector_size, 8192);
		CHECK_EQ(disk_sector_count(disk), LENGTH / 8192);
		reads(disk, LENGTH / 8192 - 1, 8192);
	}
	disk_close(disk);
}
RUN_IN_TASK(test_geometry)

/* ---- The id. ---- */

struct id {
	bool is_there;
	uint8_t bytes[16];
};

static struct id id_of(const char *path, const char *key, const char *value)
{
	struct disk *disk = open_path(path, key, value);
	struct id id = {false, {0}};

	if (disk) {
		id.is_there = disk->geometry.has_id;
		memcpy(id.bytes, disk->geometry.id, sizeof(id.bytes));
	}
	disk_close(disk);
	return id;
}

static bool same_id(const struct id *a, const struct id *b)
{
	return a->is_there && b->is_there && memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static void test_id_task(void *argument)
{
	struct http_object dated = {content, LENGTH, NULL, 784111740};
	struct id first, other;

	(void)argument;
	scratch_write("query", "sig=secret\n", 11);
	put("/o", LENGTH, "\"x\"");
	put("/p", LENGTH, "\"x\"");
	first = id_of("/o", NULL, NULL);
	other = id_of("/o", "query_file", "query");
	CHECK(same_id(&first, &other)); /* signatures change, the object does not */
	other = id_of("/o", "sector_size", "4K");
	CHECK(same_id(&first, &other));
	other = id_of("/p", NULL, NULL);
	CHECK(!same_id(&first, &other));
	other = id_of("/o?version=2", NULL, NULL);
	CHECK(!same_id(&first, &other));
	put("/o", LENGTH, "\"y\"");
	other = id_of("/o", NULL, NULL);
	CHECK(!same_id(&first, &other));
	put("/o", LENGTH - 512, "\"x\"");
	other = id_of("/o", NULL, NULL);
	CHECK(!same_id(&first, &other));

	/* By the date where there is nothing better; and nothing where there is not even that. */
	http_put(server, "/o", &dated);
	first = id_of("/o", NULL, NULL);
	dated.modified++;
	http_put(server, "/o", &dated);
	other = id_of("/o", NULL, NULL);
	CHECK(first.is_there && other.is_there && !same_id(&first, &other));
	put("/o", LENGTH, NULL);
	first = id_of("/o", NULL, NULL);
	CHECK(!first.is_there);
}
RUN_IN_TASK(test_id)

/* ---- What is refused. ---- */

static void refused(const char *url, const char *key, const char *value, const char *wanted_key,
		    const char *why)
{
	struct err err;
	struct disk *disk = open_url(url, key, value, &err);

	check_context("%s, %s = %s", url, key ? key : "-", value ? value : "-");
	CHECK(!disk);
	CHECK_TEXT(err.key, wanted_key);
	if (!CHECK(strstr(err.text, why)))
		print_error("%s\n", err.text);
	CHECK(!strstr(err.text, "secret"));
	disk_close(disk);
}

static void test_refused_task(void *argument)
{
	char url[200], query[220];

	(void)argument;
	put("/small", 511, "\"x\"");
	put("/empty", 0, "\"x\"");
	put("/o", LENGTH, "\"x\"");
	refused(http_url(server, "/small", url), NULL, NULL, "url", "smaller than one sector");
	refused(http_url(server, "/empty", url), NULL, NULL, "url", "is empty");
	refused(http_url(server, "/none", url), NULL, NULL, "url", "status 404");
	snprintf(query, sizeof(query), "%s?secret", url);
	refused(query, NULL, NULL, "url", "status 404");
	http_url(server, "/o", url);
	refused("http://me:secret@127.0.0.1/o", NULL, NULL, "url", "auth_file");
	refused(url, "proxy", "http://me:secret@127.0.0.1:1", "proxy", "proxy_auth_file");
	refused(url, "auth_file", "missing", "auth_file", "cannot open");
	refused(url, "account_key_file", "missing", "account_key_file", "azure://");
	refused(url, "endpoint", "http://127.0.0.1", "endpoint", "azure://");
}
RUN_IN_TASK(test_refused)

/* ---- Proxies: by the option, never by the environment. ---- */

static void test_proxy_task(void *argument)
{
	struct http_server *proxy = http_start();
	struct http_request request;
	struct http_counts counts;
	char address[200], value[1024];
	struct http_object object = object_of(LENGTH, "\"x\"");
	const char *options[][2] = {{"url", "http://somewhere.invalid/o"},
				    {"proxy", address},
				    {"proxy_auth_file", "auth"},
				    {"retries", "0"}};
	struct disk *disk;
	struct err err = {.text = ""};

	(void)argument;
	if (!CHECK(proxy))
		return;
	http_url(proxy, "", address);
	setenv("http_proxy", address, 1);
	setenv("ALL_PROXY", address, 1);
	put("/o", LENGTH, "\"x\"");
	disk_close(open_path("/o", NULL, NULL));
	http_counts(proxy, &counts);
	CHECK_EQ(counts.requests, 0);
	unsetenv("http_proxy");
	unsetenv("ALL_PROXY");

	setenv("no_proxy", "*", 1);
	scratch_write("auth", "me:secret", 9);
	http_put(proxy, "http://somewhere.invalid/o", &object);
	disk = driver_open(driver_find("blob"), options, ARRAY_SIZE(options), 0, NULL, &err);
	CHECK_TEXT(err.text, "");
	if (CHECK(disk))
		reads(disk, 0, LENGTH);
	disk_close(disk);
	if (CHECK(http_request(proxy, 0, &request))) {
		CHECK_TEXT(request.target, "http://somewhere.invalid/o");
		CHECK_TEXT(http_header(&request, "Proxy-Authorization", value),
			   "Basic bWU6c2VjcmV0");
	}
	unsetenv("no_proxy");
	http_stop(proxy);
}
RUN_IN_TASK(test_proxy)

/* ---- What is shown. ---- */

static void test_inspect_task(void *argument)
{
	struct report *report = report_new(REPORT_JSON);
	struct disk *disk;
	size_t length;
	char *text;

	(void)argument;
	scratch_write("query", "sig=secret\n", 11);
	put("/o", LENGTH, "\"x\xe4\"");
	disk = open_path("/o?also=secret", "query_file", "query");
	if (!disk)
		return;
	http_rules(server, "status=403");
	{
		char data[512];
		struct iovec iov;
		struct sg sg = sg_of(&iov, data, sizeof(data));

		CHECK_KIND(disk_read(disk, &sg, 0), ERROR_IO);
	}
	http_rules(server, "");
	disk_inspect(disk, report);
	text = report_finish(report, &length);
	CHECK(strstr(text, "/o\"") && strstr(text, "\"\\\"x?\\\"\"") && strstr(text, "status 403"));
	CHECK(!strstr(text, "secret"));
	CHECK(strstr(text, "\"cache\"") && strstr(text, "\"requests_sent\""));
	free(text);
	disk_close(disk);
}
RUN_IN_TASK(test_inspect)

static int set_up(void **state)
{
	log_set_level(LOG_LEVEL_ERROR);
	pattern_fill(content, sizeof(content), 4);
	scratch_enter();
	server = http_start();
	return server ? setup_2_workers(state) : -1;
}

static int tear_down(void **state)
{
	teardown_workers(state);
	http_stop(server);
	scratch_leave();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_geometry), cmocka_unit_test(test_id),
		cmocka_unit_test(test_refused),	 cmocka_unit_test(test_proxy),
		cmocka_unit_test(test_inspect),
	};

	return cmocka_run_group_tests_name("blob: the driver", tests, set_up, tear_down);
}
