// SPDX-License-Identifier: MIT
/* The server that blobs of the stacks lie on: started with the first, it ends with the program. */
#include "tests/lib/objects.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/lib/http.h"
#include "tests/lib/run.h"
#include "tests/lib/vhd.h"

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

#define IMAGES_MAX 16

static struct image {
	char path[64];
	uint8_t *bytes; /* NULL behind the last */
	size_t length;
} images[IMAGES_MAX];

static void object_server_stop(void)
{
	http_stop(object_server);
	free(object_data);
	for (unsigned i = 0; i < IMAGES_MAX; i++)
		free(images[i].bytes);
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

static const char *object_put(const char *path, const void *data, uint64_t length,
			      char url[static 200])
{
	struct http_object object = {.data = data, .length = length, .etag = "\"of the tests\""};

	http_put(object_server, path, &object);
	return http_url(object_server, path, url);
}

const char *object_url(uint64_t length, bool ill, char url[static 200])
{
	char path[48];

	assert(length <= OBJECT_MAX);
	object_server_start();
	snprintf(path, sizeof(path), "/%s%llu", ill ? "ill/" : "", (unsigned long long)length);
	return object_put(path, object_data, length, url);
}

/* The one called @path; it is there as long as the server. */
static struct image *image_find(const char *path)
{
	unsigned i = 0;

	while (i < IMAGES_MAX && images[i].bytes && strcmp(images[i].path, path) != 0)
		i++;
	assert(i < IMAGES_MAX);
	return &images[i];
}

const char *object_url_of_image(uint64_t size, const char *name, char url[static 200])
{
	struct vhd_recipe recipe = vhd_recipe_named(name, size);
	char path[64];
	struct image *image;

	assert(size <= OBJECT_MAX);
	object_server_start();
	snprintf(path, sizeof(path), "/%s-%llu", name, (unsigned long long)size);
	image = image_find(path);
	if (!image->bytes) {
		recipe.data = (const uint8_t *)object_data;
		recipe.fill_blocks = recipe.fill_bits = 0xff;
		image->bytes = vhd_bytes(&recipe, &image->length);
		snprintf(image->path, sizeof(image->path), "%s", path);
	}
	return object_put(path, image->bytes, image->length, url);
}
