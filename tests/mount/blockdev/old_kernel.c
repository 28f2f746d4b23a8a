// SPDX-License-Identifier: MIT
/* Preloaded: a kernel without IOC_PR_READ_KEYS and IOC_PR_READ_RESERVATION (before Linux 7.0). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/ioctl.h>
#include <stdarg.h>

int ioctl(int fd, unsigned long request, ...)
{
	int (*next)(int, unsigned long, ...) =
		(int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
	va_list arguments;
	void *argument;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (_IOC_TYPE(request) == 'p' && (_IOC_NR(request) == 206 || _IOC_NR(request) == 207)) {
		errno = ENOTTY;
		return -1;
	}
	return next(fd, request, argument);
}
