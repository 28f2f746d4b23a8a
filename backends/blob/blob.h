/* SPDX-License-Identifier: MIT */
/* What the parts of the driver share: blob.c is the driver, status.c what is told of it. */
#ifndef BACKENDS_BLOB_BLOB_H
#define BACKENDS_BLOB_BLOB_H

#include "backends/blob/cache.h"
#include "backends/blob/client.h"
#include "core/disk.h"

struct blob {
	struct blob_url url;
	struct credentials credentials;
	char *request_url; /* with the query of a file */
	char *shown;
	struct blob_client *client;
	struct blob_cache_object *cache;
};

/* As struct driver says. */
void blob_inspect(struct disk *disk, struct report *report);
extern const struct disk_metric blob_metrics[];

/* Of the object's end, which are no whole sector. */
static inline uint64_t blob_unreachable_bytes(const struct disk *disk)
{
	const struct blob *blob = disk->state;

	return client_length(blob->client) & (disk_sector_size(disk) - 1);
}

#endif
