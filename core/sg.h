/* SPDX-License-Identifier: MIT */
/*
 * Scatter lists: where the bytes of a request lie in memory.
 *
 * A struct sg is a *view*: it points at iovecs that somebody else owns, and begins and ends
 * anywhere inside them. Taking a part of a list therefore copies nothing and allocates nothing; the
 * iovecs and the memory must outlive every view.
 */
#ifndef CORE_SG_H
#define CORE_SG_H

#include <sys/uio.h>
#include "core/util.h"

struct sg {
	const struct iovec *iov;
	size_t skip; /* bytes of iov[0] that are before the view; less than iov[0].iov_len unless
			len is 0 */
	size_t len;  /* bytes of the view */
};

/* A view of one buffer; @iov is the caller's storage for it. */
struct sg sg_of(struct iovec *iov, void *data, size_t len);

/* The @len bytes of @sg from @offset; both must lie inside @sg. */
struct sg sg_slice(const struct sg *sg, size_t offset, size_t len);

/* Takes the first @len bytes off @rest, which has as many, and returns them. */
static inline struct sg sg_take(struct sg *rest, size_t len)
{
	struct sg taken = {.iov = rest->iov, .skip = rest->skip, .len = len};

	if (len == rest->len)
		rest->len = 0;
	else
		*rest = sg_slice(rest, len, rest->len - len);
	return taken;
}

/*
 * Writes at most @max iovecs that describe the beginning of @sg to @out; returns how many, and in
 * *bytes how many bytes they hold. Empty segments are left out.
 */
unsigned sg_iovecs(const struct sg *sg, struct iovec *out, unsigned max, size_t *bytes);

/*
 * Takes the next non-empty segment off @rest: returns where it begins, and its length in *len; NULL
 * at the end.
 */
char *sg_next(struct sg *rest, size_t *len);

/* How many non-empty segments the view has. */
unsigned sg_segments(const struct sg *sg);

/* Whether every segment begins at a multiple of @align, and is as long as a multiple of
 * @length_align (powers of two). */
bool sg_is_aligned(const struct sg *sg, size_t align, size_t length_align);

/* Copies all of @sg to or from @data, which holds sg->len bytes. */
void sg_copy_to(const struct sg *sg, void *data);
void sg_copy_from(const struct sg *sg, const void *data);
void sg_zero(const struct sg *sg);

#endif
