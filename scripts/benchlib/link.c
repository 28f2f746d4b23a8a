// SPDX-License-Identifier: MIT
/*
 * A link with a delay and a rate, in front of a TCP server on this machine, for benchmarks:
 *
 *	link PORT ROUND-TRIP-MS MBIT-PER-S
 *
 * It listens on a free port of 127.0.0.1, which it prints, and passes every connection on to PORT.
 * Each direction is one line for all connections: bytes go onto it in the order in which the
 * connections take turns, at its rate (0: any), and come out half a round trip later. Little waits in
 * front of the line (as in a short queue of a router), the rest waits at the sender. The first bytes
 * that the client sends take one round trip more: that is when a real connection is made.
 *
 * What it does not have: losses, and the slow start of TCP, which would meet all alike.
 *
 * One thread; it ends when it is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S	1000000000ULL
#define CHUNK		32768
#define CONNECTIONS_MAX 1024
/* How far ahead of now the line may be taken; and behind, since this program is late at times, which a
 * line is not. */
#define QUEUE_NS 2000000ULL
/* What one connection may have on it. */
#define WINDOW_MAX (16 << 20)

/* Bytes on the line. */
struct chunk {
	struct chunk *next;
	uint64_t arrives_ns;
	uint32_t at, length;
	char data[CHUNK];
};

struct line {
	uint64_t free_ns; /* when the last byte that was given to it has left */
};

/* One direction of a connection. */
struct flow {
	int from, to;
	struct line *line;
	struct chunk *first, **last;
	uint64_t waiting;	/* bytes in the chunks */
	uint64_t not_before_ns; /* nothing arrives earlier */
	bool ended;		/* the sender has */
	bool shut;		/* and the receiver was told */
	bool blocked;		/* the receiver takes no more now */
};

struct connection {
	struct flow up, down;
};

static struct connection *connections[CONNECTIONS_MAX];
static unsigned connection_count;
static struct line up_line, down_line;
static struct chunk *spare;
static uint64_t delay_ns, ns_per_mib;

static uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

static struct chunk *chunk_new(void)
{
	struct chunk *chunk = spare;

	if (chunk)
		spare = chunk->next;
	else
		chunk = malloc(sizeof(*chunk));
	if (!chunk)
		exit(1);
	return chunk;
}

/* ---- One direction. ---- */

static bool wants_to_read(const struct flow *flow, uint64_t now)
{
	return !flow->ended && flow->waiting < WINDOW_MAX && flow->line->free_ns <= now + QUEUE_NS;
}

/* Takes what the sender has, one chunk. */
static void flow_read(struct flow *flow, uint64_t now)
{
	struct chunk *chunk = chunk_new();
	ssize_t got = recv(flow->from, chunk->data, CHUNK, MSG_DONTWAIT);

	if (got <= 0) {
		flow->ended |= got == 0 || (errno != EAGAIN && errno != EINTR);
		chunk->next = spare;
		spare = chunk;
		return;
	}
	if (flow->line->free_ns + QUEUE_NS < now)
		flow->line->free_ns = now;
	flow->line->free_ns += (uint64_t)got * ns_per_mib >> 20;
	chunk->arrives_ns = flow->line->free_ns + delay_ns;
	if (chunk->arrives_ns < flow->not_before_ns)
		chunk->arrives_ns = flow->not_before_ns;
	chunk->at = 0;
	chunk->length = (uint32_t)got;
	chunk->next = NULL;
	*flow->last = chunk;
	flow->last = &chunk->next;
	flow->waiting += (uint64_t)got;
}

/* Gives the receiver what has arrived. */
static void flow_write(struct flow *flow, uint64_t now)
{
	flow->blocked = false;
	while (flow->first && flow->first->arrives_ns <= now) {
		struct chunk *chunk = flow->first;
		ssize_t sent = send(flow->to, chunk->data + chunk->at, chunk->length - chunk->at,
				    MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
			flow->blocked = true;
			return;
		}
		/* Where the receiver has gone, nothing matters any more. */
		if (sent < 0) {
			flow->ended = true;
			sent = chunk->length - chunk->at;
		}
		chunk->at += (uint32_t)sent;
		flow->waiting -= (uint64_t)sent;
		if (chunk->at < chunk->length)
			continue;
		flow->first = chunk->next;
		if (!flow->first)
			flow->last = &flow->first;
		chunk->next = spare;
		spare = chunk;
	}
	if (flow->ended && !flow->first && !flow->shut) {
		shutdown(flow->to, SHUT_WR);
		flow->shut = true;
	}
}

/* When there is something to do for it, without an event of its sockets. */
static uint64_t flow_due(const struct flow *flow, uint64_t now)
{
	uint64_t due = UINT64_MAX;

	if (flow->first && !flow->blocked)
		due = flow->first->arrives_ns;
	if (!flow->ended && flow->waiting < WINDOW_MAX && flow->line->free_ns > now + QUEUE_NS &&
	    flow->line->free_ns - QUEUE_NS < due)
		due = flow->line->free_ns - QUEUE_NS;
	return due;
}

/* ---- Connections. ---- */

static struct flow flow_of(int from, int to, struct line *line)
{
	return (struct flow){.from = from, .to = to, .line = line};
}

static void tune(int fd)
{
	int yes = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void connection_open(int listener, uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons(port),
				      .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
	int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC), server;
	struct connection *connection = malloc(sizeof(*connection));

	server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!connection || client < 0 || server < 0 || connection_count == CONNECTIONS_MAX ||
	    connect(server, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(client);
		close(server);
		free(connection);
		return;
	}
	tune(client);
	tune(server);
	connection->up = flow_of(client, server, &up_line);
	connection->down = flow_of(server, client, &down_line);
	connection->up.last = &connection->up.first;
	connection->down.last = &connection->down.first;
	connection->up.not_before_ns = now_ns() + 3 * delay_ns;
	connections[connection_count++] = connection;
}

static void flow_forget(struct flow *flow)
{
	while (flow->first) {
		struct chunk *chunk = flow->first;

		flow->first = chunk->next;
		chunk->next = spare;
		spare = chunk;
	}
}

/* Both have ended, or nobody is left to take what is sent. */
static bool is_over(const struct connection *connection)
{
	return connection->down.shut || (connection->up.shut && connection->down.ended);
}

static void close_ended(void)
{
	for (unsigned i = 0; i < connection_count;) {
		struct connection *connection = connections[i];

		if (!is_over(connection)) {
			i++;
			continue;
		}
		close(connection->up.from);
		close(connection->up.to);
		flow_forget(&connection->up);
		flow_forget(&connection->down);
		free(connection);
		connections[i] = connections[--connection_count];
	}
}

/* ---- The loop. ---- */

static short events_of(const struct flow *reads, const struct flow *writes, uint64_t now)
{
	return (short)((wants_to_read(reads, now) ? POLLIN : 0) | (writes->blocked ? POLLOUT : 0));
}

/* Waits for the sockets, or until something is due. */
static void wait_for_any(struct pollfd *fds, uint64_t now)
{
	uint64_t due = UINT64_MAX;
	struct timespec timeout;

	for (unsigned i = 0; i < connection_count; i++) {
		struct connection *connection = connections[i];
		uint64_t up = flow_due(&connection->up, now),
			 down = flow_due(&connection->down, now);

		due = up < due ? up : due;
		due = down < due ? down : due;
		fds[1 + 2 * i] =
			(struct pollfd){connection->up.from,
					events_of(&connection->up, &connection->down, now), 0};
		fds[2 + 2 * i] =
			(struct pollfd){connection->up.to,
					events_of(&connection->down, &connection->up, now), 0};
		/* One that is of no interest now would be reported all the time once it is closed. */
		for (unsigned j = 1; j <= 2; j++)
			if (!fds[2 * i + j].events)
				fds[2 * i + j].fd = -1;
	}
	now = now_ns();
	due = due > now ? due - now : 0;
	if (due > NS_PER_S)
		due = NS_PER_S;
	timeout = (struct timespec){(time_t)(due / NS_PER_S), (long)(due % NS_PER_S)};
	if (ppoll(fds, 1 + 2 * connection_count, &timeout, NULL) < 0 && errno != EINTR)
		exit(1);
}

static void serve(int listener, uint16_t port)
{
	static struct pollfd fds[1 + 2 * CONNECTIONS_MAX];
	static unsigned turn;

	for (;;) {
		unsigned count = connection_count;
		uint64_t now = now_ns();

		fds[0] = (struct pollfd){listener, POLLIN, 0};
		wait_for_any(fds, now);
		now = now_ns();
		/* Who begins takes turns, so that nobody has the line alone. */
		turn++;
		for (unsigned j = 0; j < count; j++) {
			unsigned i = (j + turn) % count;
			struct connection *connection = connections[i];

			if (fds[1 + 2 * i].revents && wants_to_read(&connection->up, now))
				flow_read(&connection->up, now);
			if (fds[2 + 2 * i].revents && wants_to_read(&connection->down, now))
				flow_read(&connection->down, now);
			flow_write(&connection->up, now);
			flow_write(&connection->down, now);
		}
		close_ended();
		if (fds[0].revents)
			connection_open(listener, port);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t mbit;

	if (argc != 4)
		return 2;
	delay_ns = strtoull(argv[2], NULL, 10) * (NS_PER_S / 1000) / 2;
	mbit = strtoull(argv[3], NULL, 10);
	ns_per_mib = mbit ? (8 * NS_PER_S << 20) / (mbit * 1000000) : 0;
	/* A link does not compete with those who use it: it wakes when it has to. Without root it does
	 * as well as it can. */
	prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
	(void)setpriority(PRIO_PROCESS, 0, -20);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 ||
	    listen(listener, 1024) < 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &length) < 0) {
		perror("link");
		return 1;
	}
	printf("%u\n", ntohs(address.sin_port));
	fflush(stdout);
	serve(listener, (uint16_t)strtoul(argv[1], NULL, 10));
	return 0;
}
