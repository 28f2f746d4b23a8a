// SPDX-License-Identifier: MIT
/*
 * A message is "ACTION@PATH", and then KEY=VALUE strings, each with its NUL. Only what the kernel
 * itself sends is believed. All actions on a block device count: a new size comes as a "change",
 * with RESIZE=1 from some drivers and without from others.
 */
#include "core/uevent.h"
#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The kernel's own limit is 2 KiB of strings and the path. */
#define MESSAGE_MAX  8192

#define KERNEL_GROUP 1 /* udev repeats what it has worked on in another */

int uevent_open(void)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_GROUP};
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			NETLINK_KOBJECT_UEVENT);

	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		int error = -errno;

		close(fd);
		return error;
	}
	return fd;
}

/* Decimal, and nothing else. */
static bool parse_number(const char *text, unsigned *number)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	*number = (unsigned)value;
	return *text >= '0' && *text <= '9' && *end == '\0' && value <= UINT32_MAX;
}

int uevent_parse(const char *message, size_t length, dev_t *device)
{
	bool is_block = false, has_major = false, has_minor = false;
	unsigned major = 0, minor = 0;

	/* Strings end inside the message. */
	if (length == 0 || message[length - 1] != '\0' || !strchr(message, '@'))
		return 0;
	for (const char *at = message; at < message + length; at += strlen(at) + 1) {
		if (strcmp(at, "SUBSYSTEM=block") == 0)
			is_block = true;
		else if (strncmp(at, "MAJOR=", 6) == 0)
			has_major = parse_number(at + 6, &major);
		else if (strncmp(at, "MINOR=", 6) == 0)
			has_minor = parse_number(at + 6, &minor);
	}
	*device = makedev(major, minor);
	return is_block && has_major && has_minor;
}

int uevent_read(int fd, dev_t *device)
{
	char message[MESSAGE_MAX];
	struct sockaddr_nl sender = {.nl_family = AF_NETLINK};
	socklen_t sender_size = sizeof(sender);
	ssize_t length;

	do
		length = recvfrom(fd, message, sizeof(message), 0, (struct sockaddr *)&sender,
				  &sender_size);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		return -errno;
	if (sender_size != sizeof(sender) || sender.nl_pid != 0)
		return 0;
	return uevent_parse(message, (size_t)length, device);
}
