// SPDX-License-Identifier: MIT
#include "fs/passthrough.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "core/log.h"
#include "fs/mount.h"
#include "fs/wire.h"

/* Returns 0 or a negative errno; -EMEDIUMTYPE, with the reason in @err: the disk is no raw file. */
static int image_register(struct mount *mount, struct image *image, struct err *err)
{
	int result = 0;

	pthread_mutex_lock(&image->mutex);
	if (image->backing_id == 0) {
		int fd = disk_raw_file(image->disk, err);

		result = fd < 0 ? -EMEDIUMTYPE : wire_backing_open(mount->link.fds[0], fd);
		if (result > 0)
			image->backing_id = result;
	}
	pthread_mutex_unlock(&image->mutex);
	return result < 0 ? result : 0;
}

static const char *reason_of(int error, const struct err *err)
{
	switch (-error) {
	case EMEDIUMTYPE:
		return err->text;
	case EPERM:
		return "only root may do that (CAP_SYS_ADMIN)";
	case ELOOP:
		return "the file system of its file stands on others already";
	default:
		return strerror(-error);
	}
}

int passthrough_begin(struct mount *mount, struct err *err)
{
	if (mount->passthrough && mount->settings->cache == CACHE_WRITEBACK)
		return err_set_key(err, "passthrough", "not with cache = writeback");
	if (mount->passthrough && !wire_passthrough(&mount->link.init))
		return err_set_key(err, "passthrough",
				   "the kernel does not offer it (Linux 6.9 and later can)");
	for (size_t i = 0; i < mount->image_count; i++) {
		struct image *image = &mount->images[i];
		struct err reason = {0};
		int error = image->passthrough ? image_register(mount, image, &reason) : 0;

		if (error)
			return err_set_key(err, "passthrough", "not for '%s': %s", image->name,
					   reason_of(error, &reason));
	}
	return 0;
}

int passthrough_open(struct mount *mount, struct image *image)
{
	struct err reason = {0};

	return image_register(mount, image, &reason) ? -EIO : 0;
}

void passthrough_check(struct mount *mount)
{
	for (size_t i = 0; i < mount->image_count; i++) {
		struct image *image = &mount->images[i];
		struct err reason = {0};
		struct stat stat;

		if (image->backing_id == 0 ||
		    fstat(disk_raw_file(image->disk, &reason), &stat) < 0 ||
		    (uint64_t)stat.st_size <= disk_size(image->disk))
			continue;
		log_warning(image->name,
			    "somebody has written beyond its end: its file has grown by %llu bytes",
			    (unsigned long long)((uint64_t)stat.st_size - disk_size(image->disk)));
	}
}
