// SPDX-License-Identifier: MIT
/* Scratch files and captured output for tests. */
#include "tests/lib/scratch.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/run.h"

static char scratch_path[] = "/dev/shm/diskfs-test.XXXXXX";

void scratch_enter(void)
{
	memset(scratch_path + strlen(scratch_path) - 6, 'X', 6);
	assert_non_null(mkdtemp(scratch_path));
	assert_int_equal(chdir(scratch_path), 0);
}

void scratch_leave(void)
{
	DIR *folder = opendir(scratch_path);
	struct dirent *entry;

	assert_non_null(folder);
	while ((entry = readdir(folder)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			assert_int_equal(unlinkat(dirfd(folder), entry->d_name, 0), 0);
	closedir(folder);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(rmdir(scratch_path), 0);
}

int scratch_enter_4_workers(void **state)
{
	scratch_enter();
	return setup_4_workers(state);
}

int scratch_leave_workers(void **state)
{
	teardown_workers(state);
	scratch_leave();
	return 0;
}

void scratch_write(const char *name, const void *data, size_t length)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, length), (ssize_t)length);
	assert_int_equal(close(fd), 0);
}

void capture_begin(struct capture *capture)
{
	*capture = (struct capture){0};
	capture->stream = open_memstream(&capture->text, &capture->length);
	assert_non_null(capture->stream);
}

const char *capture_end(struct capture *capture)
{
	assert_int_equal(fclose(capture->stream), 0);
	return capture->text;
}

void capture_free(struct capture *capture)
{
	free(capture->text);
	capture->text = NULL;
}
