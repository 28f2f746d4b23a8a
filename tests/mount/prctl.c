// SPDX-License-Identifier: MIT
/*
 * prctl: persistent reservations by the ioctls of block devices, on any file.
 *
 *	prctl [-r] FILE COMMAND ARGUMENTS [COMMAND ARGUMENTS]...
 *
 * Opens FILE (read-only with -r) and runs the commands on that descriptor. Prints a line for each:
 * 0, what it has found out, or the name of its errno. Keys and types are numbers. Exit status 2 for
 * a wrong command line, else 0.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/pr.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef IOC_PR_READ_KEYS
struct pr_read_keys {
	uint32_t generation, num_keys;
	uint64_t keys_ptr;
};

struct pr_read_reservation {
	uint64_t key;
	uint32_t generation, type;
};

#define IOC_PR_READ_KEYS	_IOWR('p', 206, struct pr_read_keys)
#define IOC_PR_READ_RESERVATION _IOR('p', 207, struct pr_read_reservation)
#endif

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (*end || !*text) {
		fprintf(stderr, "prctl: '%s' is no number\n", text);
		exit(2);
	}
	return value;
}

static void result(int value)
{
	if (value < 0)
		puts(strerrorname_np(errno));
	else
		printf("%d\n", value);
}

/* ---- Commands: argv are their arguments, as many as the table below says. ---- */

static void do_register(int fd, char **argv, uint32_t flags)
{
	struct pr_registration argument = {number(argv[0]), number(argv[1]), flags, 0};

	result(ioctl(fd, IOC_PR_REGISTER, &argument));
}

static void op_register(int fd, char **argv)
{
	do_register(fd, argv, 0);
}

static void op_ignore(int fd, char **argv)
{
	do_register(fd, argv, PR_FL_IGNORE_KEY);
}

/* With a flag that there is not. */
static void op_register_flag(int fd, char **argv)
{
	do_register(fd, argv, 1U << 5);
}

static void op_reserve(int fd, char **argv)
{
	struct pr_reservation argument = {number(argv[0]), (uint32_t)number(argv[1]), 0};

	result(ioctl(fd, IOC_PR_RESERVE, &argument));
}

static void op_reserve_flag(int fd, char **argv)
{
	struct pr_reservation argument = {number(argv[0]), (uint32_t)number(argv[1]),
					  PR_FL_IGNORE_KEY};

	result(ioctl(fd, IOC_PR_RESERVE, &argument));
}

static void op_release(int fd, char **argv)
{
	struct pr_reservation argument = {number(argv[0]), (uint32_t)number(argv[1]), 0};

	result(ioctl(fd, IOC_PR_RELEASE, &argument));
}

static void do_preempt(int fd, char **argv, unsigned long command)
{
	struct pr_preempt argument = {.old_key = number(argv[0]), /* the own */
				      .new_key = number(argv[1]), /* the victim's */
				      .type = (uint32_t)number(argv[2])};

	result(ioctl(fd, command, &argument));
}

static void op_preempt(int fd, char **argv)
{
	do_preempt(fd, argv, IOC_PR_PREEMPT);
}

static void op_preempt_abort(int fd, char **argv)
{
	do_preempt(fd, argv, IOC_PR_PREEMPT_ABORT);
}

static void op_clear(int fd, char **argv)
{
	struct pr_clear argument = {.key = number(argv[0])};

	result(ioctl(fd, IOC_PR_CLEAR, &argument));
}

/* With room for argv[0] keys: prints the generation, and how many there are. */
static void op_keys(int fd, char **argv)
{
	static uint64_t keys[1000];
	struct pr_read_keys argument = {.num_keys = (uint32_t)number(argv[0]),
					.keys_ptr = (uintptr_t)keys};

	if (ioctl(fd, IOC_PR_READ_KEYS, &argument) < 0)
		result(-1);
	else
		printf("%" PRIu32 " %" PRIu32 "\n", argument.generation, argument.num_keys);
}

/* Prints the generation, the key and the type. */
static void op_reservation(int fd, char **argv)
{
	struct pr_read_reservation argument;

	(void)argv;
	memset(&argument, 0xff, sizeof(argument));
	if (ioctl(fd, IOC_PR_READ_RESERVATION, &argument) < 0)
		result(-1);
	else
		printf("%" PRIu32 " 0x%" PRIx64 " %" PRIu32 "\n", argument.generation,
		       (uint64_t)argument.key, argument.type);
}

static const struct command {
	const char *name;
	int arguments;
	void (*run)(int fd, char **argv);
} commands[] = {
	{"register", 2, op_register},
	{"ignore", 2, op_ignore},
	{"register_flag", 2, op_register_flag},
	{"reserve", 2, op_reserve},
	{"reserve_flag", 2, op_reserve_flag},
	{"release", 2, op_release},
	{"preempt", 3, op_preempt},
	{"preempt_abort", 3, op_preempt_abort},
	{"clear", 1, op_clear},
	{"keys", 1, op_keys},
	{"reservation", 0, op_reservation},
};

static int run(int fd, int argc, char **argv)
{
	const struct command *command = commands;

	while (strcmp(command->name, argv[0]) != 0)
		if (++command == commands + sizeof(commands) / sizeof(commands[0])) {
			fprintf(stderr, "prctl: unknown command '%s'\n", argv[0]);
			exit(2);
		}
	if (argc - 1 < command->arguments) {
		fprintf(stderr, "prctl: %s needs %d arguments\n", argv[0], command->arguments);
		exit(2);
	}
	command->run(fd, argv + 1);
	return command->arguments + 1;
}

int main(int argc, char **argv)
{
	int flags = O_RDWR, fd, at = 1;

	if (argc > 1 && strcmp(argv[1], "-r") == 0) {
		flags = O_RDONLY;
		at++;
	}
	if (argc - at < 2) {
		fputs("usage: prctl [-r] FILE COMMAND ARGUMENTS...\n", stderr);
		return 2;
	}
	fd = open(argv[at++], flags);
	if (fd < 0) {
		result(-1);
		return 0;
	}
	while (at < argc)
		at += run(fd, argc - at, argv + at);
	close(fd);
	return 0;
}
