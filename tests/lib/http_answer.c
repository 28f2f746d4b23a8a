// SPDX-License-Identifier: MIT
/* The HTTP server for tests: the answers, proper ones and what the rules make of them. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include "tests/lib/http_private.h"

/* An answer that is being made. */
struct answer {
	struct http_connection *connection;
	const struct http_request *request;
	const struct http_object *object;
	const struct http_rule *rule;
	_Atomic uint64_t *sent;
	unsigned status;
	uint64_t first, last; /* of the object, where the status is 206 */
	const char *body;     /* NULL: zeros */
	uint64_t body_length;
	char *composed; /* what the body is in, if it was made for it */
	enum http_end end;
};

#define BOUNDARY "the-next-part"

/* ---- Bytes to the peer; false if it has gone. ---- */

static bool send_bytes(struct http_connection *connection, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t sent = send(connection->fd, data, length, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		data += sent;
		length -= (size_t)sent;
	}
	return true;
}

static bool send_text(struct http_connection *connection, const char *text)
{
	return send_bytes(connection, text, strlen(text));
}

/* A part of a body; @data NULL: zeros. */
static bool send_part(struct answer *answer, const char *data, uint64_t length)
{
	static const char zeros[65536];
	char size[32];

	if (answer->rule->chunked) {
		snprintf(size, sizeof(size), "%" PRIx64 "\r\n", length);
		if (!send_text(answer->connection, size))
			return false;
	}
	for (uint64_t at = 0; at < length;) {
		size_t part = min_u64(length - at, data ? MIB : sizeof(zeros));

		if (!send_bytes(answer->connection, data ? data + at : zeros, part))
			return false;
		atomic_fetch_add(answer->sent, part);
		at += part;
	}
	return !answer->rule->chunked || send_text(answer->connection, "\r\n");
}

/* @length bytes of the body, in parts where they drip or come in chunks. */
static bool send_body(struct answer *answer, uint64_t length)
{
	const struct http_rule *rule = answer->rule;
	uint64_t step = rule->drip_bytes ? rule->drip_bytes : rule->chunked ? 10000 : length;

	for (uint64_t at = 0; at < length;) {
		uint64_t part = min_u64(length - at, step);

		if (!send_part(answer, answer->body ? answer->body + at : NULL, part))
			return false;
		at += part;
		if (rule->drip_ms && !http_wait(answer->connection, (int)rule->drip_ms))
			return false;
	}
	return true;
}

static bool send_more(struct answer *answer)
{
	char filler[16384];

	memset(filler, 'M', sizeof(filler));
	for (uint64_t left = answer->rule->more; left > 0;) {
		size_t part = min_u64(left, sizeof(filler));

		if (!send_part(answer, filler, part))
			return false;
		left -= part;
	}
	return true;
}

/* ---- What is answered. ---- */

static bool precondition_holds(const struct answer *answer)
{
	const struct http_object *object = answer->object;
	char value[1024];
	struct tm since = {.tm_year = 0};

	if (answer->rule->unconditional)
		return true;
	if (http_header(answer->request, "If-Match", value))
		return strcmp(value, "*") == 0 ||
		       (object->etag && object->etag[0] == '"' && strstr(value, object->etag));
	if (object->modified && http_header(answer->request, "If-Unmodified-Since", value) &&
	    strptime(value, "%a, %d %b %Y %H:%M:%S GMT", &since))
		return object->modified <= timegm(&since);
	return true;
}

static void answer_page(struct answer *answer, unsigned status)
{
	static const char page[] = "This is the server for tests.\n";

	answer->status = status;
	answer->body = page;
	answer->body_length = sizeof(page) - 1;
}

static void answer_range(struct answer *answer)
{
	const struct http_object *object = answer->object;

	answer->first = answer->request->first;
	answer->last = min_u64(answer->request->last, object->length - 1);
	answer->status = 206;
	answer->body = object->data ? (const char *)object->data + answer->first : NULL;
	answer->body_length = answer->last - answer->first + 1;
}

static void choose(struct answer *answer)
{
	const struct http_rule *rule = answer->rule;
	const struct http_request *request = answer->request;

	if (rule->status || rule->location[0])
		answer_page(answer, rule->status ? rule->status : 302);
	else if (strcmp(request->method, "GET") != 0 && strcmp(request->method, "HEAD") != 0)
		answer_page(answer, 405);
	else if (!answer->object)
		answer_page(answer, 404);
	else if (!precondition_holds(answer))
		answer_page(answer, 412);
	else if (!request->ranged || rule->full) {
		answer->status = 200;
		answer->body = answer->object->data;
		answer->body_length = answer->object->length;
	} else if (request->first >= answer->object->length || request->last < request->first)
		answer_page(answer, 416);
	else
		answer_range(answer);
}

/* Puts the range into a part of its own. */
static void compose_multipart(struct answer *answer)
{
	size_t length;
	FILE *out = open_memstream(&answer->composed, &length);

	if (!out)
		abort();
	fprintf(out,
		"--" BOUNDARY "\r\nContent-Type: application/octet-stream\r\n"
		"Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n\r\n",
		answer->first, answer->last, answer->object->length);
	for (uint64_t i = 0; i < answer->body_length; i++)
		fputc(answer->body ? answer->body[i] : 0, out);
	fputs("\r\n--" BOUNDARY "--\r\n", out);
	if (fclose(out) != 0)
		abort();
	answer->body = answer->composed;
	answer->body_length = length;
}

/* ---- The head of the answer. ---- */

static const char *reason_of(unsigned status)
{
	static const struct {
		unsigned status;
		const char *reason;
	} reasons[] = {
		{200, "OK"},
		{206, "Partial Content"},
		{302, "Found"},
		{404, "Not Found"},
		{412, "Precondition Failed"},
		{416, "Range Not Satisfiable"},
		{429, "Too Many Requests"},
		{500, "Internal Server Error"},
		{503, "Service Unavailable"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Whatever";
}

/* With %F, %L and %T replaced. */
static void print_pattern(FILE *out, const char *pattern, const struct answer *answer)
{
	for (; *pattern; pattern++) {
		uint64_t number;

		if (*pattern != '%' || !pattern[1] || !strchr("FLT", pattern[1])) {
			fputc(*pattern, out);
			continue;
		}
		pattern++;
		number = *pattern == 'F'   ? answer->first
			 : *pattern == 'L' ? answer->last
			 : answer->object  ? answer->object->length
					   : 0;
		fprintf(out, "%" PRIu64, number);
	}
}

static void print_content_range(FILE *out, const struct answer *answer)
{
	const char *pattern = answer->rule->content_range;

	if (!pattern[0] && answer->status == 206 && !answer->rule->multipart)
		pattern = "bytes %F-%L/%T";
	else if (!pattern[0] && answer->status == 416 && answer->object)
		pattern = "bytes */%T";
	if (!pattern[0] || strcmp(pattern, "none") == 0)
		return;
	fputs("Content-Range: ", out);
	print_pattern(out, pattern, answer);
	fputs("\r\n", out);
}

static void print_validators(FILE *out, const struct answer *answer)
{
	const char *etag = answer->rule->etag[0] ? answer->rule->etag : answer->object->etag;
	char date[64];
	struct tm tm;

	fputs("Accept-Ranges: bytes\r\n", out);
	if (etag && strcmp(etag, "none") != 0)
		fprintf(out, "ETag: %s\r\n", etag);
	if (!answer->object->modified || !gmtime_r(&answer->object->modified, &tm))
		return;
	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	fprintf(out, "Last-Modified: %s\r\n", date);
}

static void print_length(FILE *out, struct answer *answer)
{
	const char *length = answer->rule->length;

	if (answer->rule->chunked)
		fputs("Transfer-Encoding: chunked\r\n", out);
	else if (!length[0])
		fprintf(out, "Content-Length: %" PRIu64 "\r\n", answer->body_length);
	else if (strcmp(length, "none") != 0)
		fprintf(out, "Content-Length: %s\r\n", length);
	else if (answer->end == HTTP_KEEP)
		answer->end = HTTP_CLOSE; /* nothing else tells where the body ends */
}

static void print_head(FILE *out, struct answer *answer)
{
	const struct http_rule *rule = answer->rule;

	fprintf(out, "HTTP/1.1 %u %s\r\n", answer->status, reason_of(answer->status));
	if (rule->folded)
		fputs(" and so on\r\n", out);
	if (answer->status == 200 || answer->status == 206)
		print_validators(out, answer);
	if (rule->multipart && answer->status == 206)
		fputs("Content-Type: multipart/byteranges; boundary=" BOUNDARY "\r\n", out);
	print_content_range(out, answer);
	if (rule->content_encoding[0])
		fprintf(out, "Content-Encoding: %s\r\n", rule->content_encoding);
	if (rule->location[0])
		fprintf(out, "Location: %s\r\n", rule->location);
	if (rule->header[0])
		fprintf(out, "%s\r\n", rule->header);
	for (unsigned i = 0; i < rule->headers; i++)
		fprintf(out, "X-Filler-%u: %040u\r\n", i, i);
	print_length(out, answer);
	if (answer->end == HTTP_CLOSE)
		fputs("Connection: close\r\n", out);
	fputs("\r\n", out);
}

static void mangle(char *head, size_t length, unsigned count)
{
	static const char bytes[] = " \t:;,-/*=\"\001\033\177\200\377\0000123456789abcXYZ";
	static _Atomic uint64_t dice;

	for (unsigned i = 0; i < count; i++) {
		char *at = &head[random_at(7, atomic_fetch_add(&dice, 1)) % length];
		char byte = bytes[random_at(7, atomic_fetch_add(&dice, 1)) % (sizeof(bytes) - 1)];

		if (*at != '\r' && *at != '\n')
			*at = byte;
	}
}

static bool send_head(struct answer *answer)
{
	char *head = NULL;
	size_t length;
	FILE *out = open_memstream(&head, &length);
	bool sent;

	if (!out)
		abort();
	print_head(out, answer);
	if (fclose(out) != 0)
		abort();
	mangle(head, length, answer->rule->mangle);
	sent = send_bytes(answer->connection, head, length);
	free(head);
	return sent;
}

/* ---- All of it. ---- */

static bool send_answer(struct answer *answer)
{
	const struct http_rule *rule = answer->rule;
	uint64_t length = answer->body_length;

	if (!send_head(answer))
		return false;
	if (strcmp(answer->request->method, "HEAD") == 0)
		return true;
	if (rule->cut && rule->body < length) {
		length = rule->body;
		if (answer->end == HTTP_KEEP)
			answer->end = HTTP_CLOSE;
		return send_body(answer, length);
	}
	return send_body(answer, length) && send_more(answer) &&
	       (!rule->chunked || send_text(answer->connection, "0\r\n\r\n"));
}

static bool wants_close(const struct http_request *request)
{
	char value[1024];
	const char *found = http_header(request, "Connection", value);

	return (found && strcasecmp(found, "close") == 0) || strstr(request->head, " HTTP/1.0\r\n");
}

static bool send_before(struct http_connection *connection, const struct http_rule *rule)
{
	if (rule->delay_ms && !http_wait(connection, (int)rule->delay_ms))
		return false;
	for (unsigned i = 0; i < rule->interim; i++)
		if (!send_text(connection, "HTTP/1.1 100 Continue\r\n\r\n"))
			return false;
	return true;
}

enum http_end http_answer(struct http_connection *connection, const struct http_request *request,
			  const struct http_object *object, const struct http_rule *rule,
			  _Atomic uint64_t *sent)
{
	struct answer answer = {.connection = connection,
				.request = request,
				.object = object,
				.rule = rule,
				.sent = sent,
				.end = rule->end};
	bool whole;

	if (!send_before(connection, rule))
		return HTTP_RESET;
	if (rule->silent)
		return rule->end;
	if (rule->garbage)
		return send_text(connection, "\x16\x03\x01 what is this?\r\n\r\n") ? HTTP_CLOSE
										   : HTTP_RESET;
	if (answer.end == HTTP_KEEP && wants_close(request))
		answer.end = HTTP_CLOSE;
	choose(&answer);
	if (rule->multipart && answer.status == 206)
		compose_multipart(&answer);
	whole = send_answer(&answer);
	free(answer.composed);
	return whole ? answer.end : HTTP_RESET;
}
