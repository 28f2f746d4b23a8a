// SPDX-License-Identifier: MIT
#include "backends/lock.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include "core/util.h"

/*
 * QEMU's protocol (its docs/system/qemu-block-drivers, "Disk image file locking"): whoever has a
 * permission holds a shared OFD lock on byte 100 + permission, whoever does not share one with
 * others holds one on byte 200 + permission; after locking, each looks whether somebody else's
 * locks contradict. Permissions: 0 consistent read, 1 write, 3 resize.
 */
enum {
	BYTE_HELD = 100,
	BYTE_UNSHARED = 200,
	PERMISSION_READ = 0,
	PERMISSION_WRITE = 1,
	PERMISSION_RESIZE = 3,
};

/* Takes one byte's lock, and looks whether another has its counterpart. 0, or a positive errno:
 * EAGAIN, it is in use. */
static int lock_byte(int fd, off_t base, off_t counter_base, off_t permission)
{
	struct flock lock = {
		.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = base + permission, .l_len = 1};

	if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
		return errno == EACCES ? EAGAIN : errno;
	lock.l_type = F_WRLCK;
	lock.l_start = counter_base + permission;
	if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
		return errno;
	return lock.l_type == F_UNLCK ? 0 : EAGAIN;
}

/* A writer shares the file with nobody who writes, a reader with readers. */
int lock_as_qemu(int fd, bool writable)
{
	static const off_t written[] = {PERMISSION_WRITE, PERMISSION_RESIZE};
	int error = lock_byte(fd, BYTE_HELD, BYTE_UNSHARED, PERMISSION_READ);

	for (size_t i = 0; !error && i < ARRAY_SIZE(written); i++) {
		if (writable)
			error = lock_byte(fd, BYTE_HELD, BYTE_UNSHARED, written[i]);
		if (!error)
			error = lock_byte(fd, BYTE_UNSHARED, BYTE_HELD, written[i]);
	}
	return error;
}

int lock_image(int fd, bool writable)
{
	int error = lock_as_qemu(fd, writable);

	if (!error && flock(fd, (writable ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0)
		error = errno;
	return error;
}
