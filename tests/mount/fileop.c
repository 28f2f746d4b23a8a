// SPDX-License-Identifier: MIT
/*
 * fileop: odd system calls on one file, for the tests in tests/mount.
 *
 *	fileop [-o FLAG,...] [-m BYTES] FILE COMMAND ARGUMENTS [COMMAND ARGUMENTS]...
 *
 * Opens FILE (read-write where no flag says otherwise) and runs the commands on that descriptor.
 * Prints a line for each: its result, or the name of its errno. Exit status 2 for a wrong command
 * line, 3 for data that is not what it must be, else 0: what a call should return is for the test
 * to judge. Numbers may be hexadecimal and may end with K, M or G.
 *
 * -m puts the buffer that many bytes behind a page boundary.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct word {
	const char *name;
	int value;
};

static const struct word open_words[] = {
	{"rdonly", O_RDONLY}, {"wronly", O_WRONLY},
	{"rdwr", O_RDWR},     {"direct", O_DIRECT},
	{"sync", O_SYNC},     {"dsync", O_DSYNC},
	{"trunc", O_TRUNC},   {"append", O_APPEND},
	{"creat", O_CREAT},   {NULL, 0},
};

static const struct word falloc_words[] = {
	{"plain", 0},
	{"keep", FALLOC_FL_KEEP_SIZE},
	{"punch", FALLOC_FL_PUNCH_HOLE},
	{"zero", FALLOC_FL_ZERO_RANGE},
	{"collapse", FALLOC_FL_COLLAPSE_RANGE},
	{"insert", FALLOC_FL_INSERT_RANGE},
	{"unshare", FALLOC_FL_UNSHARE_RANGE},
	{NULL, 0},
};

struct op {
	const char *path;
	int fd;
	size_t misalign; /* of the buffer */
};

static void __attribute__((noreturn, format(printf, 2, 3))) die(int status, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("fileop: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(status);
}

static void result(long long value)
{
	if (value < 0)
		puts(strerrorname_np(errno));
	else
		printf("%lld\n", value);
}

static int words(const struct word *table, const char *text)
{
	int value = 0;
	char copy[128];

	snprintf(copy, sizeof(copy), "%s", text);
	for (char *item = strtok(copy, ","); item; item = strtok(NULL, ",")) {
		const struct word *word = table;

		while (word->name && strcmp(word->name, item) != 0)
			word++;
		if (!word->name)
			die(2, "unknown flag '%s'", item);
		value |= word->value;
	}
	return value;
}

static long long number(const char *text)
{
	char *end;
	long long value = strtoll(text, &end, 0);

	switch (*end) {
	case 'G':
		return value << 30;
	case 'M':
		return value << 20;
	case 'K':
		return value << 10;
	case '\0':
		return value;
	default:
		die(2, "'%s' is no number", text);
	}
}

static size_t length(const char *text)
{
	return (size_t)number(text);
}

static char *buffer(const struct op *op, size_t size)
{
	void *memory;

	if (posix_memalign(&memory, 4096, size + op->misalign + 1) != 0)
		die(2, "no memory");
	return (char *)memory + op->misalign;
}

static void buffer_free(const struct op *op, char *data)
{
	free(data - op->misalign);
}

/* ---- Commands: argv are their arguments, as many as the table below says. ---- */

static void op_pread(struct op *op, char **argv)
{
	char *data = buffer(op, length(argv[1]));

	result(pread(op->fd, data, length(argv[1]), number(argv[0])));
	buffer_free(op, data);
}

static void op_save(struct op *op, char **argv)
{
	char *data = buffer(op, length(argv[1]));
	ssize_t got = pread(op->fd, data, length(argv[1]), number(argv[0]));
	FILE *out = fopen(argv[2], "w");

	if (!out)
		die(2, "cannot write %s", argv[2]);
	if (got > 0)
		fwrite(data, 1, (size_t)got, out);
	fclose(out);
	result(got);
	buffer_free(op, data);
}

static void op_pwrite(struct op *op, char **argv)
{
	char *data = buffer(op, length(argv[1]));

	memset(data, (int)number(argv[2]), length(argv[1]));
	result(pwrite(op->fd, data, length(argv[1]), number(argv[0])));
	buffer_free(op, data);
}

/* Every byte of the range is the given one: prints "same", or where it is not. */
static void op_all(struct op *op, char **argv)
{
	size_t size = length(argv[1]), at = 0;
	char *data = buffer(op, size);
	ssize_t got = pread(op->fd, data, size, number(argv[0]));

	if (got < 0) {
		result(got);
	} else if ((size_t)got != size) {
		printf("short %zd\n", got);
	} else {
		while (at < size && data[at] == (char)number(argv[2]))
			at++;
		if (at == size)
			puts("same");
		else
			printf("differs at %lld: %u\n", number(argv[0]) + (long long)at,
			       (unsigned char)data[at]);
	}
	buffer_free(op, data);
}

static void op_fallocate(struct op *op, char **argv)
{
	result(fallocate(op->fd, words(falloc_words, argv[0]), number(argv[1]), number(argv[2])));
}

static void op_data(struct op *op, char **argv)
{
	result(lseek(op->fd, number(argv[0]), SEEK_DATA));
}

static void op_hole(struct op *op, char **argv)
{
	result(lseek(op->fd, number(argv[0]), SEEK_HOLE));
}

static void op_end(struct op *op, char **argv)
{
	(void)argv;
	result(lseek(op->fd, 0, SEEK_END));
}

static void op_write(struct op *op, char **argv)
{
	char *data = buffer(op, length(argv[0]));

	memset(data, (int)number(argv[1]), length(argv[0]));
	result(write(op->fd, data, length(argv[0])));
	buffer_free(op, data);
}

static void op_truncate(struct op *op, char **argv)
{
	result(truncate(op->path, number(argv[0])));
}

static void op_ftruncate(struct op *op, char **argv)
{
	result(ftruncate(op->fd, number(argv[0])));
}

static void op_fsync(struct op *op, char **argv)
{
	(void)argv;
	result(fsync(op->fd));
}

static void op_fdatasync(struct op *op, char **argv)
{
	(void)argv;
	result(fdatasync(op->fd));
}

static void op_size64(struct op *op, char **argv)
{
	uint64_t size = 0;

	(void)argv;
	result(ioctl(op->fd, BLKGETSIZE64, &size) < 0 ? -1 : (long long)size);
}

static void op_sector_size(struct op *op, char **argv)
{
	int size = 0;

	(void)argv;
	result(ioctl(op->fd, BLKSSZGET, &size) < 0 ? -1 : size);
}

static void op_ioctl(struct op *op, char **argv)
{
	char data[4096] = {0};

	result(ioctl(op->fd, (unsigned long)number(argv[0]), data));
}

/* O_DIRECT switched on later, as some programs do. */
static void op_setdirect(struct op *op, char **argv)
{
	(void)argv;
	result(fcntl(op->fd, F_SETFL, fcntl(op->fd, F_GETFL) | O_DIRECT));
}

/*
 * Maps the range, whose bytes must all be argv[3], and writes argv[4] over it. A shared mapping
 * changes the file, a private one does not.
 */
static void map(struct op *op, char **argv, int how)
{
	size_t size = length(argv[1]);
	char *data = mmap(NULL, size, PROT_READ | PROT_WRITE, how, op->fd, number(argv[0]));

	if (data == MAP_FAILED) {
		result(-1);
		return;
	}
	for (size_t at = 0; at < size; at++)
		if (data[at] != (char)number(argv[2]))
			die(3, "mapped byte %zu is %u", at, (unsigned char)data[at]);
	memset(data, (int)number(argv[3]), size);
	result(how == MAP_SHARED ? msync(data, size, MS_SYNC) : 0);
	munmap(data, size);
}

static void op_map_shared(struct op *op, char **argv)
{
	map(op, argv, MAP_SHARED);
}

static void op_map_private(struct op *op, char **argv)
{
	map(op, argv, MAP_PRIVATE);
}

/*
 * @count reads or writes at once, one behind the other from @offset on, of @size bytes each, by the
 * system's asynchronous I/O. Prints how many were complete.
 */
static void transfer_at_once(struct op *op, long count, off_t offset, size_t size, uint16_t opcode,
			     int value)
{
	enum { MAX = 256 };
	static struct iocb iocbs[MAX], *list[MAX];
	static struct io_event events[MAX];
	aio_context_t context = 0;
	long done = 0, complete = 0;

	if (count > MAX || syscall(SYS_io_setup, MAX, &context) < 0)
		die(2, "no asynchronous I/O for %ld at once", count);
	for (long i = 0; i < count; i++) {
		char *data = buffer(op, size);

		memset(data, value, size);
		iocbs[i] = (struct iocb){.aio_fildes = (uint32_t)op->fd,
					 .aio_lio_opcode = opcode,
					 .aio_buf = (uintptr_t)data,
					 .aio_nbytes = size,
					 .aio_offset = offset + i * (long)size};
		list[i] = &iocbs[i];
	}
	while (done < count) {
		long got = syscall(SYS_io_submit, context, count - done, list + done);

		if (got <= 0)
			die(2, "io_submit: %s", strerror(errno));
		done += got;
	}
	done = syscall(SYS_io_getevents, context, count, count, events, NULL);
	for (long i = 0; i < done; i++)
		complete += events[i].res == (long long)size;
	for (long i = 0; i < count; i++)
		buffer_free(op, (char *)(uintptr_t)iocbs[i].aio_buf);
	syscall(SYS_io_destroy, context);
	result(complete);
}

static void op_aio_read(struct op *op, char **argv)
{
	transfer_at_once(op, (long)number(argv[0]), 0, length(argv[1]), IOCB_CMD_PREAD, 0);
}

static void op_aio_write(struct op *op, char **argv)
{
	transfer_at_once(op, (long)number(argv[0]), 0, length(argv[1]), IOCB_CMD_PWRITE,
			 (int)number(argv[2]));
}

static void op_aio_pwrite(struct op *op, char **argv)
{
	transfer_at_once(op, 1, (off_t)number(argv[0]), length(argv[1]), IOCB_CMD_PWRITE,
			 (int)number(argv[2]));
}

static void op_flock(struct op *op, char **argv)
{
	result(flock(op->fd, (*argv[0] == 'e' ? LOCK_EX : LOCK_SH) | LOCK_NB));
}

/* An open-file-description lock on one byte, as QEMU takes them. */
static void op_ofd(struct op *op, char **argv)
{
	struct flock lock = {
		.l_type = *argv[0] == 'e' ? F_WRLCK : F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = number(argv[1]),
		.l_len = 1,
	};

	result(fcntl(op->fd, F_OFD_SETLK, &lock));
}

/* Waits for the end of standard input, so that a test can hold a file or a lock. */
static void op_hold(struct op *op, char **argv)
{
	(void)op;
	(void)argv;
	fflush(stdout);
	while (getchar() != EOF)
		;
	puts("0");
}

static const struct command {
	const char *name;
	int arguments;
	void (*run)(struct op *op, char **argv);
	const char *help;
} commands[] = {
	{"pread", 2, op_pread, "OFFSET LENGTH"},
	{"save", 3, op_save, "OFFSET LENGTH FILE: pread, and what it read into FILE"},
	{"pwrite", 3, op_pwrite, "OFFSET LENGTH BYTE"},
	{"write", 2, op_write, "LENGTH BYTE: at the file's position"},
	{"all", 3, op_all, "OFFSET LENGTH BYTE: is every byte this one?"},
	{"fallocate", 3, op_fallocate, "plain|keep|punch|zero|...,... OFFSET LENGTH"},
	{"data", 1, op_data, "OFFSET: SEEK_DATA"},
	{"hole", 1, op_hole, "OFFSET: SEEK_HOLE"},
	{"end", 0, op_end, ": SEEK_END"},
	{"truncate", 1, op_truncate, "LENGTH"},
	{"ftruncate", 1, op_ftruncate, "LENGTH"},
	{"fsync", 0, op_fsync, ""},
	{"fdatasync", 0, op_fdatasync, ""},
	{"size64", 0, op_size64, ": BLKGETSIZE64"},
	{"sector_size", 0, op_sector_size, ": BLKSSZGET"},
	{"ioctl", 1, op_ioctl, "NUMBER"},
	{"setdirect", 0, op_setdirect, ": F_SETFL with O_DIRECT"},
	{"map_shared", 4, op_map_shared, "OFFSET LENGTH OLD-BYTE NEW-BYTE"},
	{"map_private", 4, op_map_private, "OFFSET LENGTH OLD-BYTE NEW-BYTE"},
	{"aio_read", 2, op_aio_read, "COUNT LENGTH: COUNT at once"},
	{"aio_write", 3, op_aio_write, "COUNT LENGTH BYTE: COUNT at once"},
	{"aio_pwrite", 3, op_aio_pwrite, "OFFSET LENGTH BYTE: one"},
	{"flock", 1, op_flock, "sh|ex"},
	{"ofd", 2, op_ofd, "sh|ex OFFSET"},
	{"hold", 0, op_hold, ": until standard input ends"},
	{NULL, 0, NULL, NULL},
};

static const struct command *command_find(const char *name)
{
	const struct command *command = commands;

	while (command->name && strcmp(command->name, name) != 0)
		command++;
	if (!command->name)
		die(2, "unknown command '%s'", name);
	return command;
}

int main(int argc, char **argv)
{
	struct op op = {.fd = -1};
	int flags = O_RDWR, option;

	while ((option = getopt(argc, argv, "+o:m:")) != -1) {
		if (option == 'o') {
			flags = words(open_words, optarg);
			if (!strstr(optarg, "rdonly") && !(flags & O_ACCMODE))
				flags |= O_RDWR;
		} else if (option == 'm') {
			op.misalign = length(optarg);
		} else {
			return 2;
		}
	}
	if (optind >= argc) {
		puts("fileop [-o FLAG,...] [-m BYTES] FILE COMMAND...");
		for (const struct command *command = commands; command->name; command++)
			printf("\t%s %s\n", command->name, command->help);
		return 2;
	}
	op.path = argv[optind++];
	op.fd = open(op.path, flags | O_CLOEXEC, 0600);
	if (op.fd < 0) {
		result(-1);
		return 0;
	}
	if (optind == argc)
		puts("opened");
	while (optind < argc) {
		const struct command *command = command_find(argv[optind++]);

		if (argc - optind < command->arguments)
			die(2, "%s %s", command->name, command->help);
		command->run(&op, argv + optind);
		optind += command->arguments;
	}
	close(op.fd);
	return 0;
}
