// SPDX-License-Identifier: MIT
/*
 * The HTTP server for tests: connections, and the reading of requests.
 *
 * One thread accepts; each connection has a thread of its own, which answers one request after the
 * other. Everything of the server but the sockets' bytes is guarded by its mutex. To stop, the
 * sockets are shut down, which ends whatever a thread waits for; the last thread to end wakes
 * http_stop().
 */
#include "tests/lib/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/lib/http_private.h"

struct entry {
	char path[512];
	struct http_object object;
};

struct http_server {
	int fd;
	unsigned port;
	pthread_t acceptor;
	pthread_mutex_t mutex;
	pthread_cond_t ended; /* a connection has */
	bool stopping;
	struct http_connection *connections;
	struct entry *entries;
	unsigned entry_count;
	struct http_rule *rules;
	unsigned rule_count;
	uint64_t dice; /* how often chance was asked */
	struct http_request *log;
	struct http_counts counts;
	unsigned waiting;
	_Atomic uint64_t body_bytes;
};

/* ---- What is served. ---- */

static struct entry *entry_find(struct http_server *server, const char *target)
{
	size_t length = strcspn(target, "?");

	for (unsigned i = 0; i < server->entry_count; i++)
		if (strlen(server->entries[i].path) == length &&
		    memcmp(server->entries[i].path, target, length) == 0)
			return &server->entries[i];
	return NULL;
}

void http_put(struct http_server *server, const char *path, const struct http_object *object)
{
	struct entry *entry;

	pthread_mutex_lock(&server->mutex);
	entry = entry_find(server, path);
	if (!entry) {
		server->entries = realloc(server->entries,
					  (server->entry_count + 1) * sizeof(*server->entries));
		if (!server->entries)
			abort();
		entry = &server->entries[server->entry_count++];
		snprintf(entry->path, sizeof(entry->path), "%s", path);
	}
	entry->object = *object;
	pthread_mutex_unlock(&server->mutex);
}

const char *http_rules(struct http_server *server, const char *text)
{
	const char *wrong;
	unsigned count;
	struct http_rule *rules = http_rules_parse(text, &count, &wrong);

	pthread_mutex_lock(&server->mutex);
	free(server->rules);
	server->rules = rules;
	server->rule_count = count;
	pthread_mutex_unlock(&server->mutex);
	return wrong;
}

static bool path_matches(const char *pattern, const char *target)
{
	size_t length = strcspn(target, "?"), wanted = strlen(pattern);

	if (wanted > 0 && pattern[wanted - 1] == '*')
		return length >= wanted - 1 && memcmp(pattern, target, wanted - 1) == 0;
	return length == wanted && memcmp(pattern, target, wanted) == 0;
}

static bool rule_matches(struct http_server *server, struct http_rule *rule,
			 const struct http_request *request)
{
	if (rule->path[0] && !path_matches(rule->path, request->target))
		return false;
	if (rule->method[0] && strcmp(rule->method, request->method) != 0)
		return false;
	if (rule->ranged &&
	    (!request->ranged || request->first > rule->last || request->last < rule->first))
		return false;
	if (rule->chance && random_at(1, server->dice++) % 100 >= rule->chance)
		return false;
	if (rule->skip > 0) {
		rule->skip--;
		return false;
	}
	if (rule->limited && rule->times == 0)
		return false;
	rule->times -= rule->limited;
	return true;
}

/* What a request meets: an object, if there is one, and a rule, which is empty if none applies. */
static bool find_answer(struct http_server *server, const struct http_request *request,
			struct http_object *object, struct http_rule *rule)
{
	const struct entry *entry;

	pthread_mutex_lock(&server->mutex);
	entry = entry_find(server, request->target);
	if (entry)
		*object = entry->object;
	memset(rule, 0, sizeof(*rule));
	for (unsigned i = 0; i < server->rule_count; i++)
		if (rule_matches(server, &server->rules[i], request)) {
			*rule = server->rules[i];
			break;
		}
	pthread_mutex_unlock(&server->mutex);
	return entry;
}

/* ---- Requests. ---- */

/* Where the head in the input ends, behind its empty line; 0: not yet. */
static size_t head_length(const struct http_connection *connection)
{
	const char *end = memmem(connection->input, connection->input_length, "\r\n\r\n", 4);

	return end ? (size_t)(end - connection->input) + 4 : 0;
}

/* Reads until a head is there; its length, or 0 when the peer has gone. */
static size_t read_head(struct http_connection *connection)
{
	for (;;) {
		size_t length = head_length(connection);
		ssize_t got;

		if (length > 0)
			return length;
		if (connection->input_length == sizeof(connection->input))
			return 0;
		got = recv(connection->fd, connection->input + connection->input_length,
			   sizeof(connection->input) - connection->input_length, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return 0;
		connection->input_length += (size_t)got;
	}
}

const char *http_header(const struct http_request *request, const char *name,
			char value[static 1024])
{
	size_t length = strlen(name);

	for (const char *line = request->head; (line = strstr(line, "\r\n"));) {
		line += 2;
		if (strncasecmp(line, name, length) != 0 || line[length] != ':')
			continue;
		line += length + 1;
		line += strspn(line, " \t");
		snprintf(value, 1024, "%.*s", (int)strcspn(line, "\r"), line);
		return value;
	}
	return NULL;
}

/* "bytes=5-9" and "bytes=5-"; others are taken as none. */
static void parse_range(struct http_request *request)
{
	char value[1024];
	const char *text = http_header(request, "Range", value);
	char *end;

	if (!text || strncmp(text, "bytes=", 6) != 0 || text[6] < '0' || text[6] > '9')
		return;
	request->first = strtoull(text + 6, &end, 10);
	if (*end != '-')
		return;
	request->last = end[1] ? strtoull(end + 1, &end, 10) : UINT64_MAX;
	request->ranged = true;
}

/* Makes a request of the head, and puts it into the log, which takes the text. */
static bool log_request(struct http_connection *connection, size_t length,
			struct http_request *request)
{
	struct http_server *server = connection->server;
	char *head = strndup(connection->input, length);
	bool logged;

	if (!head)
		abort();
	connection->input_length -= length;
	memmove(connection->input, connection->input + length, connection->input_length);
	*request = (struct http_request){.head = head, .connection = connection->number};
	if (sscanf(head, "%7s %511s", request->method, request->target) != 2) {
		free(head);
		return false;
	}
	parse_range(request);
	pthread_mutex_lock(&server->mutex);
	logged = server->counts.requests < HTTP_LOG_MAX;
	if (logged)
		server->log[server->counts.requests] = *request;
	server->counts.requests++;
	server->waiting++;
	if (server->waiting > server->counts.waiting_max)
		server->counts.waiting_max = server->waiting;
	pthread_mutex_unlock(&server->mutex);
	connection->unlogged = logged ? NULL : head;
	return true;
}

static enum http_end serve_request(struct http_connection *connection,
				   const struct http_request *request)
{
	struct http_server *server = connection->server;
	struct http_object object = {.length = 0};
	struct http_rule rule;
	bool found = find_answer(server, request, &object, &rule);
	enum http_end end = http_answer(connection, request, found ? &object : NULL, &rule,
					&server->body_bytes);

	pthread_mutex_lock(&server->mutex);
	server->waiting--;
	server->counts.answers += end == HTTP_KEEP || (end == HTTP_CLOSE && !rule.cut);
	pthread_mutex_unlock(&server->mutex);
	free(connection->unlogged);
	return end;
}

/* ---- Connections. ---- */

bool http_wait(struct http_connection *connection, int ms)
{
	struct pollfd peer = {.fd = connection->fd, .events = POLLRDHUP};
	int ready = poll(&peer, 1, ms);

	/* What is readable meanwhile is read later. */
	return ready <= 0;
}

static void connection_close(struct http_connection *connection, enum http_end end)
{
	struct http_server *server = connection->server;
	struct http_connection **link = &server->connections;
	struct linger linger = {.l_onoff = 1};

	/* Who still sends, or has not read all, sees the end of our bytes, not a reset. */
	if (end == HTTP_CLOSE && shutdown(connection->fd, SHUT_WR) == 0)
		http_wait(connection, 1000);
	if (end == HTTP_RESET)
		setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	pthread_mutex_lock(&server->mutex);
	close(connection->fd);
	while (*link != connection)
		link = &(*link)->next;
	*link = connection->next;
	server->counts.open--;
	free(connection);
	pthread_cond_signal(&server->ended);
	pthread_mutex_unlock(&server->mutex);
}

static void *connection_main(void *argument)
{
	struct http_connection *connection = argument;
	enum http_end end = HTTP_KEEP;

	while (end == HTTP_KEEP) {
		struct http_request request;
		size_t length = read_head(connection);

		if (length == 0 || !log_request(connection, length, &request))
			end = HTTP_CLOSE;
		else
			end = serve_request(connection, &request);
		if (end == HTTP_STALL)
			http_wait(connection, -1);
	}
	connection_close(connection, end);
	return NULL;
}

/* With the server's mutex. */
static void connection_start(struct http_server *server, int fd)
{
	struct http_connection *connection = malloc(sizeof(*connection));
	int yes = 1;
	pthread_attr_t attributes;
	pthread_t thread;

	if (!connection)
		abort();
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	connection->fd = fd;
	connection->number = server->counts.connections++;
	connection->server = server;
	connection->input_length = 0;
	connection->next = server->connections;
	server->connections = connection;
	server->counts.open++;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attributes, connection_main, connection) != 0)
		abort();
	pthread_attr_destroy(&attributes);
}

static void *acceptor_main(void *argument)
{
	struct http_server *server = argument;

	for (;;) {
		int fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC);
		bool stopping;

		pthread_mutex_lock(&server->mutex);
		stopping = server->stopping;
		if (fd >= 0 && !stopping)
			connection_start(server, fd);
		pthread_mutex_unlock(&server->mutex);
		if (fd >= 0 && stopping)
			close(fd);
		if (stopping)
			return NULL;
	}
}

/* ---- Life. ---- */

static int listen_on_loopback(unsigned *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 1024) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
		close(fd);
		return -1;
	}
	*port = ntohs(address.sin_port);
	return fd;
}

struct http_server *http_start(void)
{
	struct http_server *server = calloc(1, sizeof(*server));

	if (!server)
		return NULL;
	server->log = calloc(HTTP_LOG_MAX, sizeof(*server->log));
	server->fd = listen_on_loopback(&server->port);
	pthread_mutex_init(&server->mutex, NULL);
	pthread_cond_init(&server->ended, NULL);
	if (server->log && server->fd >= 0 &&
	    pthread_create(&server->acceptor, NULL, acceptor_main, server) == 0)
		return server;
	if (server->fd >= 0)
		close(server->fd);
	free(server->log);
	free(server);
	return NULL;
}

void http_stop(struct http_server *server)
{
	if (!server)
		return;
	pthread_mutex_lock(&server->mutex);
	server->stopping = true;
	pthread_mutex_unlock(&server->mutex);
	/* Ends an accept(). */
	shutdown(server->fd, SHUT_RDWR);
	pthread_join(server->acceptor, NULL);
	pthread_mutex_lock(&server->mutex);
	for (struct http_connection *each = server->connections; each; each = each->next)
		shutdown(each->fd, SHUT_RDWR);
	while (server->connections)
		pthread_cond_wait(&server->ended, &server->mutex);
	pthread_mutex_unlock(&server->mutex);
	close(server->fd);
	for (unsigned i = 0; i < server->counts.requests && i < HTTP_LOG_MAX; i++)
		free((char *)(uintptr_t)server->log[i].head);
	pthread_mutex_destroy(&server->mutex);
	pthread_cond_destroy(&server->ended);
	free(server->log);
	free(server->rules);
	free(server->entries);
	free(server);
}

unsigned http_port(const struct http_server *server)
{
	return server->port;
}

const char *http_url(const struct http_server *server, const char *path, char url[static 200])
{
	snprintf(url, 200, "http://127.0.0.1:%u%s", server->port, path);
	return url;
}

void http_counts(struct http_server *server, struct http_counts *counts)
{
	pthread_mutex_lock(&server->mutex);
	*counts = server->counts;
	pthread_mutex_unlock(&server->mutex);
	counts->body_bytes = atomic_load(&server->body_bytes);
}

bool http_request(struct http_server *server, unsigned index, struct http_request *request)
{
	bool found;

	pthread_mutex_lock(&server->mutex);
	found = index < server->counts.requests && index < HTTP_LOG_MAX;
	if (found)
		*request = server->log[index];
	pthread_mutex_unlock(&server->mutex);
	return found;
}
