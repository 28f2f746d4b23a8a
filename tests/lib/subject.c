// SPDX-License-Identifier: MIT
#include "tests/lib/subject.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/check.h"
#include "tests/lib/run.h"

#define NS_MS (NS_PER_S / 1000)

char subject_content[SUBJECT_LENGTH];
struct http_server *subject_server;
const struct http_object subject_object = {subject_content, SUBJECT_LENGTH, SUBJECT_ETAG,
					   784111740};

int subject_set_up(void **state)
{
	log_set_level(LOG_LEVEL_ERROR);
	pattern_fill(subject_content, SUBJECT_LENGTH, 3);
	subject_server = http_start();
	return subject_server ? setup_4_workers(state) : -1;
}

int subject_tear_down(void **state)
{
	teardown_workers(state);
	http_stop(subject_server);
	return 0;
}

void subject_init(struct subject *subject, const char *path)
{
	*subject = (struct subject){.client = NULL};
	http_url(subject_server, path, subject->url);
	http_put(subject_server, "/o", &subject_object);
	subject->options = (struct client_options){
		.exchange =
			{
				.url = subject->url,
				.credentials = &subject->credentials,
				.region = "r",
				.verify = true,
				.connect_timeout_ns = NS_PER_S,
				.low_speed = 1000,
				.low_speed_time_ns = NS_PER_S,
			},
		.shown = "the object",
		.node = "node",
		.max_requests = 8,
		.retries = 3,
		.retry_delay_ns = NS_MS,
		.retry_delay_max_ns = 4 * NS_MS,
		.timeout_ns = 8 * NS_PER_S,
	};
}

bool subject_open(struct subject *subject)
{
	http_rules(subject_server, "");
	subject->client = client_open(&subject->options, &subject->err);
	if (!CHECK(subject->client))
		print_error("%s\n", subject->err.text);
	return subject->client != NULL;
}

bool subject_ready(struct subject *subject)
{
	subject_init(subject, "/o");
	return subject_open(subject);
}

void subject_rules(const char *rules)
{
	const char *wrong = http_rules(subject_server, rules);

	check_context("%s", rules);
	if (!CHECK(!wrong))
		print_error("wrong: %s\n", wrong);
}

int subject_get(struct subject *subject, void *data, uint64_t offset, size_t length)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, length);

	memset(data, 0xff, length);
	return blob_fetch(subject->client, offset, &sg);
}

bool subject_is_right(struct subject *subject, uint64_t offset, size_t length)
{
	char *data = malloc(length);
	bool right = CHECK_OK(subject_get(subject, data, offset, length)) &&
		     CHECK(memcmp(data, subject_content + offset, length) == 0);

	free(data);
	return right;
}

bool subject_fails(struct subject *subject, uint64_t offset, size_t length)
{
	unsigned char *data = malloc(length);
	bool failed = CHECK_KIND(subject_get(subject, data, offset, length), ERROR_IO);

	for (size_t i = 0; i < length; i++)
		if (data[i] != 0xff && data[i] != (unsigned char)subject_content[offset + i]) {
			failed = CHECK(!"wrong bytes have landed");
			break;
		}
	free(data);
	return failed;
}

unsigned subject_requests(void)
{
	struct http_counts counts;

	http_counts(subject_server, &counts);
	return counts.requests;
}
