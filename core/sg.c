// SPDX-License-Identifier: MIT
#include "core/sg.h"
#include <assert.h>
#include <string.h>

struct sg sg_of(struct iovec *iov, void *data, size_t len)
{
	*iov = (struct iovec){.iov_base = data, .iov_len = len};
	return (struct sg){.iov = iov, .skip = 0, .len = len};
}

struct sg sg_slice(const struct sg *sg, size_t offset, size_t len)
{
	assert(offset <= sg->len && len <= sg->len - offset);

	struct sg slice = {.iov = sg->iov, .skip = sg->skip + offset, .len = len};

	while (len > 0 && slice.skip >= slice.iov->iov_len) {
		slice.skip -= slice.iov->iov_len;
		slice.iov++;
	}
	return slice;
}

char *sg_next(struct sg *rest, size_t *len)
{
	while (rest->len > 0) {
		const struct iovec *iov = rest->iov;
		char *segment = (char *)iov->iov_base + rest->skip;

		*len = min_u64(iov->iov_len - rest->skip, rest->len);
		rest->len -= *len;
		rest->skip = 0;
		rest->iov++;
		if (*len > 0)
			return segment;
	}
	return NULL;
}

unsigned sg_iovecs(const struct sg *sg, struct iovec *out, unsigned max, size_t *bytes)
{
	struct sg rest = *sg;
	unsigned count = 0;
	size_t len;
	char *segment;

	*bytes = 0;
	while (count < max && (segment = sg_next(&rest, &len))) {
		out[count++] = (struct iovec){.iov_base = segment, .iov_len = len};
		*bytes += len;
	}
	return count;
}

unsigned sg_segments(const struct sg *sg)
{
	struct sg rest = *sg;
	unsigned count = 0;
	size_t len;

	while (sg_next(&rest, &len))
		count++;
	return count;
}

bool sg_is_aligned(const struct sg *sg, size_t align, size_t length_align)
{
	struct sg rest = *sg;
	size_t len;
	char *segment;

	while ((segment = sg_next(&rest, &len)))
		if (!is_aligned((uintptr_t)segment, align) || !is_aligned(len, length_align))
			return false;
	return true;
}

void sg_copy_to(const struct sg *sg, void *data)
{
	struct sg rest = *sg;
	size_t len;
	char *segment, *to = data;

	for (; (segment = sg_next(&rest, &len)); to += len)
		memcpy(to, segment, len);
}

void sg_copy_from(const struct sg *sg, const void *data)
{
	struct sg rest = *sg;
	size_t len;
	char *segment;

	for (const char *from = data; (segment = sg_next(&rest, &len)); from += len)
		memcpy(segment, from, len);
}

void sg_zero(const struct sg *sg)
{
	struct sg rest = *sg;
	size_t len;
	char *segment;

	while ((segment = sg_next(&rest, &len)))
		memset(segment, 0, len);
}
