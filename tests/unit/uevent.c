// SPDX-License-Identifier: MIT
/* Events of block devices: what is understood of a message, and that messages come. */
#include "core/uevent.h"

#include <errno.h>
#include <glob.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <cmocka.h>

#define PARSE(text, device) uevent_parse(text, sizeof(text), device)

static void test_understood(void **state)
{
	dev_t device;

	(void)state;
	assert_int_equal(PARSE("change@/devices/virtual/block/loop3\0ACTION=change\0"
			       "DEVPATH=/devices/virtual/block/loop3\0SUBSYSTEM=block\0RESIZE=1\0"
			       "MAJOR=7\0MINOR=3\0DEVNAME=loop3\0DEVTYPE=disk\0SEQNUM=1234",
			       &device),
			 1);
	assert_true(device == makedev(7, 3));
	assert_int_equal(PARSE("remove@/d\0MINOR=4095\0MAJOR=259\0SUBSYSTEM=block", &device), 1);
	assert_true(device == makedev(259, 4095));
}

static void test_of_no_interest(void **state)
{
	static const char *const texts[] = {
		"change@/d|SUBSYSTEM=net|MAJOR=7|MINOR=3",
		"change@/d|SUBSYSTEM=block|MINOR=3",
		"change@/d|SUBSYSTEM=block|MAJOR=7",
		"change@/d|SUBSYSTEM=blocks|MAJOR=7|MINOR=3",
		"change@/d|SUBSYSTEM=block|MAJOR=|MINOR=3",
		"change@/d|SUBSYSTEM=block|MAJOR=7x|MINOR=3",
		"change@/d|SUBSYSTEM=block|MAJOR=-7|MINOR=3",
		"change@/d|SUBSYSTEM=block|MAJOR=99999999999999999999|MINOR=3",
		"libudev|SUBSYSTEM=block|MAJOR=7|MINOR=3", /* what udev repeats */
		"",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		char text[200];
		size_t length = (size_t)snprintf(text, sizeof(text), "%s", texts[i]) + 1;
		dev_t device;

		for (char *at = text; (at = strchr(at, '|'));)
			*at = '\0';
		assert_int_equal(uevent_parse(text, length, &device), 0);
		assert_int_equal(uevent_parse(text, 0, &device), 0);
	}

	/* The end is missing: nothing behind it is read. */
	static const char cut[] = {'@', 'M', 'A', 'J', 'O', 'R', '=', '7'};
	dev_t device;

	assert_int_equal(uevent_parse(cut, sizeof(cut), &device), 0);
}

/* Any block device can be asked to send one. */
static void test_they_come(void **state)
{
	glob_t found = {0};
	int fd = uevent_open();
	FILE *out = NULL;
	int result = 0;
	dev_t device;

	(void)state;
	if (fd >= 0 && glob("/sys/class/block/*/uevent", 0, NULL, &found) == 0)
		out = fopen(found.gl_pathv[0], "w");
	globfree(&found);
	if (!out)
		skip(); /* not allowed, or no block device */
	fputs("change", out);
	assert_int_equal(fclose(out), 0);
	for (unsigned i = 0; i < 100 && result != 1; i++) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};

		if (poll(&wait, 1, 100) == 1)
			result = uevent_read(fd, &device);
	}
	if (result == 0)
		skip(); /* a network namespace that the kernel sends none to */
	assert_int_equal(result, 1);
	assert_true(major(device) != 0);
	while ((result = uevent_read(fd, &device)) >= 0)
		;
	assert_int_equal(result, -EAGAIN);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_understood),
		cmocka_unit_test(test_of_no_interest),
		cmocka_unit_test(test_they_come),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
