// SPDX-License-Identifier: MIT
/*
 * For LD_PRELOAD, by tests/mount/endings.sh: a request that cannot be read from /dev/fuse. While the
 * file that UNREADABLE names is there, the next read of a whole request
 *
 *	has no place to go, if the file says "place": the kernel really loses the request, with EFAULT;
 *	fails with the errno that the file says otherwise, and reads nothing;
 *
 * and the file is gone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REQUEST_MIN ((size_t)1024 * 1024)

/* What the file says: false where there is none. */
static int answer_read(char *answer, int size)
{
	const char *path = getenv("UNREADABLE");
	FILE *file = path ? fopen(path, "re") : NULL;

	if (!file)
		return 0;
	if (!fgets(answer, size, file))
		*answer = '\0';
	fclose(file);
	answer[strcspn(answer, "\n")] = '\0';
	return *answer != '\0';
}

static ssize_t read_to_no_place(int fd, size_t length)
{
	void *place = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ssize_t result = syscall(SYS_read, fd, place, length);
	int errnum = errno;

	munmap(place, length);
	if (result < 0 && errnum == EFAULT)
		unlink(getenv("UNREADABLE"));
	errno = errnum;
	return result;
}

ssize_t read(int fd, void *buffer, size_t length)
{
	char answer[16];

	if (length < REQUEST_MIN || !answer_read(answer, sizeof(answer)))
		return syscall(SYS_read, fd, buffer, length);
	if (strcmp(answer, "place") == 0)
		return read_to_no_place(fd, length);
	unlink(getenv("UNREADABLE"));
	errno = atoi(answer);
	return -1;
}
