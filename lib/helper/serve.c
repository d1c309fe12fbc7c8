// SPDX-License-Identifier: GPL-2.0-only
/*
 * serve
 *
 * Serves one conversation on stdin and stdout: commands, verbs of this helper and connections to
 * sockets, many at once, each a stream. The protocol is in serve.h. It ends, with all that it has
 * started, at the end of its stdin, when nobody reads its stdout, or at SIGHUP, SIGINT or SIGTERM, of
 * which it dies then. Exit status 1: the client has broken the protocol; an ERROR frame and stderr
 * say how.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helper.h"
#include "json.h"
#include "serve.h"

#define READ_SIZE (64 << 10)
#define OUTPUT_SIZE (512 << 10) /* more waits in the pipes of the streams */
#define LAST_WORDS_MS 2000	/* for the client to read them */
#define MOST_SLOTS (2 + 3 * 300)

#ifndef HELPER_DIGEST
#define HELPER_DIGEST "unknown"
#endif

static const int ending[] = { SIGHUP, SIGINT, SIGTERM };
static volatile sig_atomic_t child_ended, told_to_end;

static void at_child_end(int signo)
{
	(void)signo;
	child_ended = 1;
}

static void at_end(int signo)
{
	told_to_end = signo;
}

long now_ms(void)
{
	return (long)(seconds() * 1000);
}

uint32_t big_endian(const void *data)
{
	uint32_t number;

	memcpy(&number, data, sizeof(number));
	return ntohl(number);
}

void buffer_append(struct buffer *buffer, const void *data, size_t size)
{
	if (buffer->start && buffer->start + buffer->used + size > buffer->size) {
		memmove(buffer->data, buffer->data + buffer->start, buffer->used);
		buffer->start = 0;
	}
	if (buffer->used + size > buffer->size) {
		buffer->size = 2 * (buffer->used + size);
		buffer->data = realloc(buffer->data, buffer->size);
		if (!buffer->data)
			abort(); /* bounded by the windows: the machine has no memory left */
	}
	if (size)
		memcpy(buffer->data + buffer->start + buffer->used, data, size);
	buffer->used += size;
}

void buffer_drop(struct buffer *buffer, size_t size)
{
	buffer->start += size;
	buffer->used -= size;
	if (!buffer->used)
		buffer->start = 0;
}

static void append_frame(struct buffer *buffer, enum frame_type type, uint32_t id, const void *data,
			 size_t size)
{
	uint8_t head[SERVE_HEAD] = { (uint8_t)type };
	uint32_t stream = htonl(id), length = htonl((uint32_t)size);

	memcpy(head + 1, &stream, 4);
	memcpy(head + 5, &length, 4);
	buffer_append(buffer, head, sizeof(head));
	buffer_append(buffer, data, size);
}

void put_frame(struct server *server, enum frame_type type, uint32_t id, const void *data,
	       size_t size)
{
	if (size) /* it takes the end of an output, which may wait, along */
		server->hold_ms = 0;
	append_frame(&server->to, type, id, data, size);
}

static void tell_pongs(struct server *server)
{
	if (!server->pongs.used)
		return;
	server->hold_ms = 0;
	buffer_append(&server->to, server->pongs.data + server->pongs.start, server->pongs.used);
	buffer_drop(&server->pongs, server->pongs.used);
}

void put_number(struct server *server, enum frame_type type, uint32_t id, uint32_t number)
{
	uint32_t told = htonl(number);

	put_frame(server, type, id, &told, sizeof(told));
}

static void end(struct server *server)
{
	if (server->ending)
		return;
	server->ending = true;
	server->end_ms = now_ms() + LAST_WORDS_MS;
	tell_pongs(server);
	for (struct stream *stream = server->streams; stream; stream = stream->next)
		if (!stream->closed)
			stream_close(server, stream);
}

/* The client cannot be understood: it is told so, and everything ends. */
__attribute__((format(printf, 2, 3))) static void refuse(struct server *server, const char *format,
							 ...)
{
	char text[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	fprintf(stderr, "serve: %s\n", text);
	tell_pongs(server);
	put_frame(server, SERVE_ERROR, 0, text, strlen(text));
	server->failed = true;
	end(server);
}

/* ---- what the client says ---- */

static void give_credit(struct server *server, struct stream *stream, const char *data, size_t size)
{
	struct outlet *outlet = data[0] == SERVE_ERR ? &stream->err : &stream->out;
	uint32_t more = size == 5 ? big_endian(data + 1) : 0;

	if (size != 5 || (data[0] != SERVE_ERR && data[0] != SERVE_OUT) ||
	    more > SERVE_WINDOW - outlet->credit) {
		refuse(server, "stream %u: a credit of %u where %u are left", stream->id, more,
		       outlet->credit);
		return;
	}
	outlet->credit += more;
}

/* One for what has ended, and one for the last that it said. */
enum { LOOKS = 2 };

static void put_pong(struct server *server, uint32_t id, const void *data, size_t size)
{
	append_frame(&server->pongs, SERVE_PONG, id, data, size);
	server->looks = LOOKS;
	if (server->pongs.used > SERVE_PAYLOAD)
		tell_pongs(server);
}

static void obey(struct server *server, uint8_t type, uint32_t id, char *data, size_t size)
{
	struct stream *stream = stream_find(server, id);

	if (type == SERVE_PING)
		put_pong(server, id, data, size);
	else if (type == SERVE_OPEN && (stream || !id))
		refuse(server, "stream %u is open", id);
	else if (type == SERVE_OPEN)
		stream_open(server, id, data, size);
	else if (type < SERVE_OPEN || type > SERVE_PING)
		refuse(server, "a frame of type %u", type);
	else if (!stream)
		return; /* it has ended: the client did not know it yet */
	else if (type == SERVE_DATA && !stream_data(server, stream, data, size))
		refuse(server, "stream %u: more data than its window", id);
	else if (type == SERVE_CREDIT)
		give_credit(server, stream, data, size);
	else if (type == SERVE_CLOSE)
		stream_close(server, stream);
}

static void hear(struct server *server)
{
	char data[READ_SIZE];
	ssize_t got = read(STDIN_FILENO, data, sizeof(data));

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		end(server);
		return;
	}
	buffer_append(&server->from, data, (size_t)got);
	while (server->from.used >= SERVE_HEAD && !server->ending) {
		char *head = server->from.data + server->from.start;
		uint32_t size = big_endian(head + 5);

		if (size > SERVE_PAYLOAD) {
			refuse(server, "a frame of %u bytes, %u is the most", size, SERVE_PAYLOAD);
			return;
		}
		if (server->from.used < SERVE_HEAD + size)
			return;
		obey(server, (uint8_t)head[0], big_endian(head + 1), head + SERVE_HEAD, size);
		buffer_drop(&server->from, SERVE_HEAD + size);
	}
}

static void speak(struct server *server)
{
	ssize_t sent;

	if (server->hold_ms > now_ms() && !server->ending)
		return;
	server->hold_ms = 0;
	if (!server->to.used)
		return;
	sent = write(STDOUT_FILENO, server->to.data + server->to.start, server->to.used);
	if (sent > 0)
		buffer_drop(&server->to, (size_t)sent);
	else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		buffer_drop(&server->to, server->to.used);
		end(server);
	}
}

/* ---- waiting ---- */

struct slots {
	struct pollfd list[MOST_SLOTS];
	int count;
};

/* A file that nobody waits for is left out: poll() would tell of its end again and again. */
static int look(struct slots *slots, int file, short events)
{
	if (file < 0 || !events || slots->count == MOST_SLOTS)
		return -1;
	slots->list[slots->count] = (struct pollfd){ .fd = file, .events = events };
	return slots->count++;
}

static void list_slots(struct server *server, struct slots *slots)
{
	bool room = server->to.used < OUTPUT_SIZE;

	slots->count = 0;
	server->in_slot = look(slots, server->ending || !room ? -1 : STDIN_FILENO, POLLIN);
	/* POLLERR comes unasked: nobody reads there any more */
	server->out_slot = look(slots, server->ending && !server->to.used ? -1 : STDOUT_FILENO,
				server->to.used && !server->hold_ms ? POLLOUT : POLLPRI);
	for (struct stream *stream = server->streams; stream; stream = stream->next) {
		bool write = stream->to.used || (stream->connecting && !stream->due_ms);
		bool read = room && !stream->connecting;

		stream->in_slot = look(slots, stream->in, write ? POLLOUT : 0);
		stream->out.slot =
			look(slots, stream->out.file, read && stream->out.credit ? POLLIN : 0);
		stream->err.slot =
			look(slots, stream->err.file, read && stream->err.credit ? POLLIN : 0);
	}
}

static struct timespec *time_left(const struct server *server, struct timespec *limit)
{
	long first = server->hold_ms, left;

	if (server->pongs.used) {
		*limit = (struct timespec){ 0 };
		return limit;
	}
	if (server->ending && server->to.used && (!first || server->end_ms < first))
		first = server->end_ms;
	for (struct stream *stream = server->streams; stream; stream = stream->next)
		if (stream->due_ms && (!first || stream->due_ms < first))
			first = stream->due_ms;
	if (!first)
		return NULL;
	left = first - now_ms();
	if (left < 0)
		left = 0;
	*limit = (struct timespec){ left / 1000, left % 1000 * 1000000 };
	return limit;
}

static void see_to_stream(struct server *server, const struct slots *slots, struct stream *stream)
{
	if (stream->due_ms && stream->due_ms <= now_ms()) {
		if (stream->connecting)
			stream_connect(server, stream);
		else
			stream_signal(stream);
	}
	if (stream->in_slot >= 0 && slots->list[stream->in_slot].revents) {
		if (stream->connecting)
			stream_connect(server, stream);
		else
			stream_write(server, stream);
	}
	if (stream->out.slot >= 0 && slots->list[stream->out.slot].revents && !stream->closed)
		stream_read(server, stream, &stream->out);
	if (stream->err.slot >= 0 && slots->list[stream->err.slot].revents && !stream->closed)
		stream_read(server, stream, &stream->err);
}

/* Waits until something happens, and sees to it. */
static void attend(struct server *server)
{
	struct slots slots;
	struct timespec limit;
	sigset_t none;

	sigemptyset(&none);
	list_slots(server, &slots);
	if (ppoll(slots.list, (nfds_t)slots.count, time_left(server, &limit), &none) < 0)
		for (int i = 0; i < slots.count; i++)
			slots.list[i].revents = 0;
	if (child_ended) {
		child_ended = 0;
		streams_reap(server);
	}
	if (told_to_end)
		end(server);
	for (struct stream *stream = server->streams; stream; stream = stream->next)
		see_to_stream(server, &slots, stream);
	if (server->in_slot >= 0 && slots.list[server->in_slot].revents)
		hear(server);
	if (server->out_slot >= 0 &&
	    slots.list[server->out_slot].revents & (POLLERR | POLLHUP | POLLNVAL)) {
		buffer_drop(&server->to, server->to.used);
		end(server);
	}
	if (server->ending && now_ms() >= server->end_ms)
		buffer_drop(&server->to, server->to.used);
	if (!server->looks || !--server->looks)
		tell_pongs(server);
	speak(server);
	streams_clear(server);
}

static void print_hello(struct server *server)
{
	char text[256];
	int size = snprintf(text, sizeof(text),
			    "{\"type\":\"serve\",\"protocol\":%d,\"window\":%d,\"payload\":%d,"
			    "\"digest\":\"%s\",\"pid\":%d}\n",
			    SERVE_PROTOCOL, SERVE_WINDOW, SERVE_PAYLOAD, HELPER_DIGEST, getpid());

	buffer_append(&server->to, text, (size_t)size);
}

/* They are blocked but while waiting, so that none goes by unseen. */
static void set_signals(void)
{
	struct sigaction ended = { .sa_handler = at_child_end }, how = { .sa_handler = at_end };
	sigset_t blocked;

	child_ended = told_to_end = 0;
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGCHLD, &ended, NULL);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	for (size_t i = 0; i < COUNT(ending); i++) {
		sigaction(ending[i], &how, NULL);
		sigaddset(&blocked, ending[i]);
	}
	sigprocmask(SIG_BLOCK, &blocked, NULL);
}

void reset_signals(void)
{
	sigset_t none;

	for (size_t i = 0; i < COUNT(ending); i++)
		signal(ending[i], SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

int verb_serve(int argc, char **argv)
{
	struct server server = { 0 };

	(void)argv;
	if (argc)
		return MISUSED;
	set_signals();
	fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
	fcntl(STDOUT_FILENO, F_SETFL, fcntl(STDOUT_FILENO, F_GETFL) | O_NONBLOCK);
	print_hello(&server);
	speak(&server);
	while (!server.ending || server.streams || server.to.used)
		attend(&server);
	free(server.from.data);
	free(server.to.data);
	free(server.pongs.data);
	if (told_to_end) { /* who waits for it is to see why */
		reset_signals();
		raise(told_to_end);
	}
	return server.failed ? FAILED : DONE;
}
