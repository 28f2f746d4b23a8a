// SPDX-License-Identifier: MIT
/* The server that blobs of the stacks lie on: started with the first, it ends with the program. */
#include "tests/lib/objects.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include "tests/lib/http.h"
#include "tests/lib/run.h"

/* The largest of them. */
#define OBJECT_MAX (8 * MIB)

/* What a path that begins with /ill does: all of it passes when it is tried again. */
static const char ill_rules[] = "path=/ill* chance=1 silent reset;"
				"path=/ill* chance=1 body=1000 reset;"
				"path=/ill* chance=1 body=5000;"
				"path=/ill* chance=1 status=503;"
				"path=/ill* chance=1 status=429 header=Retry-After:%200;"
				"path=/ill* chance=5 delay=1;"
				"path=/ill* chance=5 chunked;"
				"path=/ill* chance=1 length=none";

static struct http_server *object_server;
static char *object_data;

static void object_server_stop(void)
{
	http_stop(object_server);
	free(object_data);
}

/* A server with the pattern that read-only stacks have, until the program ends. */
static void object_server_start(void)
{
	const char *wrong;

	if (object_server)
		return;
	object_data = malloc(OBJECT_MAX);
	object_server = http_start();
	assert(object_data && object_server);
	pattern_fill(object_data, OBJECT_MAX, 0);
	wrong = http_rules(object_server, ill_rules);
	assert(!wrong);
	atexit(object_server_stop);
}

const char *object_url(uint64_t length, bool ill, char url[static 200])
{
	struct http_object object = {.length = length, .etag = "\"of the tests\""};
	char path[48];

	assert(length <= OBJECT_MAX);
	object_server_start();
	object.data = object_data;
	snprintf(path, sizeof(path), "/%s%llu", ill ? "ill/" : "", (unsigned long long)length);
	http_put(object_server, path, &object);
	return http_url(object_server, path, url);
}
