// SPDX-License-Identifier: MIT
/*
 * The HTTP server for tests (tests/lib/http.h) as a program, for the scripts here:
 *
 *	http_server PATH=FILE...	serves each file at its path
 *
 * It prints its port, then does what it is told on its standard input, a line each, and answers each
 * by a line:
 *
 *	rules TEXT	as http_rules(); "ok", or "wrong: " and the rest of the text
 *	put PATH FILE	reads the file again, or another one: a new object with another ETag; "ok"
 *	counts		"requests N answers N connections N open N waiting N bytes N"
 *	log		the requests since the last log, with all their headers; "ok" on a line of its
 *			own behind them
 *
 * It ends at the end of its input.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/lib/http.h"

static unsigned versions;

/* Never released: the server may be sending it. */
static int put_file(struct http_server *server, const char *path, const char *file)
{
	struct http_object object = {.modified = 1700000000 + (time_t)++versions};
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	struct stat stat;
	char *etag;

	if (fd < 0 || fstat(fd, &stat) < 0 || asprintf(&etag, "\"v%u\"", versions) < 0)
		return -1;
	object.length = (uint64_t)stat.st_size;
	object.etag = etag;
	if (stat.st_size > 0)
		object.data = mmap(NULL, object.length, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (object.data == MAP_FAILED)
		return -1;
	http_put(server, path, &object);
	return 0;
}

static void print_counts(struct http_server *server)
{
	struct http_counts counts;

	http_counts(server, &counts);
	printf("requests %u answers %u connections %u open %u waiting %u bytes %" PRIu64 "\n",
	       counts.requests, counts.answers, counts.connections, counts.open, counts.waiting_max,
	       counts.body_bytes);
}

static void print_log(struct http_server *server)
{
	static unsigned printed;
	struct http_request request;

	for (; http_request(server, printed, &request); printed++)
		fputs(request.head, stdout);
	puts("ok");
}

static void obey(struct http_server *server, char *line)
{
	char path[512], file[1024];

	line[strcspn(line, "\n")] = '\0';
	if (strncmp(line, "rules", 5) == 0) {
		const char *wrong = http_rules(server, line + 5);

		printf("%s%s\n", wrong ? "wrong: " : "ok", wrong ? wrong : "");
	} else if (sscanf(line, "put %511s %1023s", path, file) == 2) {
		puts(put_file(server, path, file) == 0 ? "ok" : "cannot read it");
	} else if (strcmp(line, "counts") == 0) {
		print_counts(server);
	} else if (strcmp(line, "log") == 0) {
		print_log(server);
	} else {
		puts("what?");
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct http_server *server = http_start();
	char *line = NULL;
	size_t room = 0;

	if (!server) {
		perror("http_server");
		return 1;
	}
	for (int i = 1; i < argc; i++) {
		char *file = strchr(argv[i], '=');

		if (!file)
			return 2;
		*file++ = '\0';
		if (put_file(server, argv[i], file) < 0) {
			perror(file);
			return 1;
		}
	}
	printf("%u\n", http_port(server));
	fflush(stdout);
	while (getline(&line, &room, stdin) > 0)
		obey(server, line);
	free(line);
	http_stop(server);
	return 0;
}
