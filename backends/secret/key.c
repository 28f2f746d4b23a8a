// SPDX-License-Identifier: MIT
#include "backends/secret/key.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/log.h"

/* Whether the open file can be a key; warns of one that is badly kept. */
static int key_check_file(int fd, const char *path, const char *option, const char *node,
			  struct err *err)
{
	struct stat stat;

	if (fstat(fd, &stat) < 0)
		return err_set_key(err, option, "cannot stat '%s': %s", path, strerror(errno));
	if (!S_ISREG(stat.st_mode))
		return err_set_key(err, option, "'%s' is no regular file", path);
	if (stat.st_mode & (S_IRWXG | S_IRWXO))
		log_warning(node, "%s: others than its owner can use '%s' (mode %04o): chmod 600",
			    option, path, (unsigned)stat.st_mode & 07777);
	return 0;
}

static int key_read_fd(struct key *key, int fd, const char *path, const char *option,
		       const char *node, struct err *err)
{
	int error = secret_init(&key->secret, KEY_FILE_MAX + KEY_ROOM, node);

	if (error)
		return err_set_key(err, option, "no memory for keys: %s", strerror(error));
	key->data = secret_take(&key->secret, KEY_FILE_MAX);
	for (;;) {
		char more;
		bool full = key->length == KEY_FILE_MAX;
		ssize_t got = full ? read(fd, &more, 1)
				   : read(fd, key->data + key->length, KEY_FILE_MAX - key->length);

		if (got < 0 && errno != EINTR)
			return err_set_key(err, option, "cannot read '%s': %s", path,
					   strerror(errno));
		if (got > 0 && full)
			return err_set_key(err, option, "'%s' is longer than %zu bytes", path,
					   KEY_FILE_MAX);
		if (got == 0 && key->length == 0)
			return err_set_key(err, option, "'%s' is empty", path);
		if (got == 0)
			return 0;
		if (got > 0)
			key->length += (size_t)got;
	}
}

int key_read(struct key *key, const char *path, const char *option, const char *node,
	     struct err *err)
{
	/* A FIFO is refused, not waited for. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int result;

	*key = (struct key){.length = 0};
	if (fd < 0)
		return err_set_key(err, option, "cannot open '%s': %s", path, strerror(errno));
	result = key_check_file(fd, path, option, node, err);
	if (result == 0)
		result = key_read_fd(key, fd, path, option, node, err);
	close(fd);
	if (result < 0)
		key_destroy(key);
	return result;
}

static void key_cut(struct key *key, size_t length)
{
	if (length > 0 && key->data[length - 1] == '\r')
		length--;
	key->length = length;
}

void key_keep_line(struct key *key)
{
	const unsigned char *end = memchr(key->data, '\n', key->length);

	if (end)
		key_cut(key, (size_t)(end - key->data));
}

static int hex_digit(unsigned char character)
{
	if (character >= '0' && character <= '9')
		return character - '0';
	character |= 'a' ^ 'A';
	return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

int key_decode(struct key *key, size_t size, const char *path, struct err *err)
{
	size_t length = key->length;

	if (length == size)
		return 0;
	if (key->data[length - 1] == '\n')
		key_cut(key, length - 1);
	if (key->length != 2 * size)
		return err_set_key(
			err, "key_file",
			"'%s' has %zu bytes: a key is %zu bytes, or %zu hexadecimal digits", path,
			length, size, 2 * size);
	for (size_t i = 0; i < size; i++) {
		int high = hex_digit(key->data[2 * i]), low = hex_digit(key->data[2 * i + 1]);

		if (high < 0 || low < 0)
			return err_set_key(err, "key_file",
					   "'%s' is as long as a key of hexadecimal digits, but "
					   "has other characters",
					   path);
		key->data[i] = (unsigned char)(high << 4 | low);
	}
	key->length = size;
	return 0;
}

void key_destroy(struct key *key)
{
	secret_destroy(&key->secret);
	*key = (struct key){.length = 0};
}
