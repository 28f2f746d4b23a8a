/* SPDX-License-Identifier: MIT */
/* What a remote object offers to whoever caches it. */
#ifndef BACKENDS_BLOB_FETCH_H
#define BACKENDS_BLOB_FETCH_H

#include "core/sg.h"

struct blob_client;

/*
 * Reads the @sg->len bytes from @offset of the object, which must lie inside it, into the memory of
 * @sg. In a task, which waits without holding its worker; any number at once, of which a limited
 * number of requests is under way. 0, or an error, which the log explains.
 */
int blob_fetch(struct blob_client *client, uint64_t offset, const struct sg *sg);

#endif
