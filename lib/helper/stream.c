// SPDX-License-Identifier: GPL-2.0-only
/* The streams of `serve`: processes and sockets. See serve.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helper.h"
#include "json.h"
#include "serve.h"

#define MOST_STREAMS 256
#define MOST_WORDS 64
#define CHUNK (16 << 10)
#define GRACE_MS 2000	/* between a closed pipe, SIGTERM and SIGKILL */
#define HOLD_MS 5	/* a process that closes its files mostly ends: all is told at once */
#define RETRY_MS 20	/* between two tries of a socket whose queue is full */
#define CONNECT_MS 5000 /* of such tries */

struct stream *stream_find(struct server *server, uint32_t id)
{
	struct stream *stream = server->streams;

	while (stream && (stream->id != id || stream->closed))
		stream = stream->next;
	return stream;
}

static struct stream *add_stream(struct server *server, uint32_t id)
{
	struct stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return NULL;
	*stream = (struct stream){
		.next = server->streams,
		.id = id,
		.in = -1,
		.out = { .file = -1, .credit = SERVE_WINDOW },
		.err = { .file = -1, .credit = SERVE_WINDOW },
	};
	server->streams = stream;
	server->count++;
	return stream;
}

static void drop_stream(struct server *server, struct stream *stream)
{
	struct stream **place = &server->streams;

	while (*place != stream)
		place = &(*place)->next;
	*place = stream->next;
	server->count--;
	free(stream->to.data);
	free(stream);
}

static void close_file(int *file)
{
	if (*file >= 0)
		close(*file);
	*file = -1;
}

static void close_in(struct stream *stream)
{
	if (stream->socket && stream->in >= 0)
		shutdown(stream->in, SHUT_WR);
	close_file(&stream->in);
	buffer_drop(&stream->to, stream->to.used);
}

static void fail(struct server *server, struct stream *stream, const char *what, int number)
{
	char text[512];
	const char *name = errno_name(number);

	snprintf(text, sizeof(text), "%.300s: %s%s%s", what, name ? name : "", name ? ": " : "",
		 strerror(number));
	put_frame(server, SERVE_FAILED, stream->id, text, strlen(text));
	stream->closed = true;
	close_in(stream);
	close_file(&stream->out.file);
	close_file(&stream->err.file);
}

/* ---- processes ---- */

static void forget_files(const struct server *server)
{
	for (const struct stream *stream = server->streams; stream; stream = stream->next) {
		int files[] = { stream->in, stream->out.file, stream->err.file };

		for (size_t i = 0; i < COUNT(files); i++)
			if (files[i] >= 0)
				close(files[i]);
	}
}

/* In the child: `ends` are its stdin, stdout and stderr. */
static _Noreturn void become(const struct server *server, const int *ends, int count, char **words)
{
	setsid();
	forget_files(server);
	for (int i = 0; i < 3; i++) {
		dup2(ends[i], i);
		close(ends[i]);
	}
	reset_signals();
	if (!strcmp(words[0], "verb") && verb_keeps(words[1])) {
		words[0] = program_invocation_name;
		execv("/proc/self/exe", words);
		_exit(127);
	}
	if (!strcmp(words[0], "verb"))
		exit(run_verb(count - 1, words + 1));
	execl("/bin/sh", "sh", "-c", words[1], (char *)NULL);
	_exit(127);
}

/* The ends of three pipes: for the child, and for us, which do not block. */
static bool make_pipes(int *theirs, int *ours)
{
	for (int i = 0; i < 3; i++)
		theirs[i] = ours[i] = -1;
	for (int i = 0; i < 3; i++) {
		int ends[2];

		if (pipe2(ends, O_CLOEXEC) < 0)
			return false;
		theirs[i] = ends[i ? 1 : 0];
		ours[i] = ends[i ? 0 : 1];
		fcntl(ours[i], F_SETFL, O_NONBLOCK);
	}
	return true;
}

static void open_process(struct server *server, struct stream *stream, int count, char **words)
{
	int theirs[3], ours[3];
	bool good = make_pipes(theirs, ours);

	stream->in = ours[0];
	stream->out.file = ours[1];
	stream->err.file = ours[2];
	stream->pid = good ? fork() : -1;
	if (!stream->pid)
		become(server, theirs, count, words);
	if (stream->pid < 0)
		fail(server, stream, words[0], errno);
	for (int i = 0; i < 3; i++)
		close_file(&theirs[i]);
	if (stream->pid < 0) {
		stream->exited = true;
		return;
	}
	stream->keeps = !strcmp(words[0], "verb") && verb_keeps(words[1]);
}

static void tell_exit(struct server *server, struct stream *stream)
{
	uint8_t told[5] = { stream->signalled };
	uint32_t number = htonl((uint32_t)stream->status);

	memcpy(told + 1, &number, sizeof(number));
	if (!stream->closed)
		put_frame(server, SERVE_EXIT, stream->id, told, sizeof(told));
	stream->told_exit = true;
}

void streams_reap(struct server *server)
{
	for (struct stream *stream = server->streams; stream; stream = stream->next) {
		siginfo_t info = { 0 };

		if (stream->pid <= 0 || stream->exited)
			continue;
		/* not waited for until it is cleared: its number is its group's */
		if (waitid(P_PID, (id_t)stream->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
		    !info.si_pid)
			continue;
		stream->exited = true;
		stream->status = info.si_status;
		stream->signalled = info.si_code != CLD_EXITED;
		tell_exit(server, stream);
	}
}

static void signal_group(const struct stream *stream, int signo)
{
	if (stream->keeps)
		return;
	if (kill(-stream->pid, signo) < 0)
		kill(stream->pid, signo);
}

void stream_signal(struct stream *stream)
{
	stream->due_ms = 0;
	if (stream->exited || stream->keeps || stream->pid <= 0)
		return;
	signal_group(stream, stream->signals ? SIGKILL : SIGTERM);
	if (!stream->signals++)
		stream->due_ms = now_ms() + GRACE_MS;
}

/* ---- sockets ---- */

static bool read_address(struct stream *stream, int count, char **words)
{
	struct sockaddr_un *path = (void *)&stream->address;
	struct sockaddr_in *four = (void *)&stream->address;
	struct sockaddr_in6 *six = (void *)&stream->address;

	if (!strcmp(words[0], "unix")) {
		if (count != 2 || strlen(words[1]) >= sizeof(path->sun_path))
			return false;
		path->sun_family = AF_UNIX;
		strcpy(path->sun_path, words[1]);
		stream->address_size = sizeof(*path);
		return true;
	}
	if (count != 3)
		return false;
	if (inet_pton(AF_INET, words[1], &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = htons((uint16_t)atoi(words[2]));
		stream->address_size = sizeof(*four);
		return true;
	}
	if (inet_pton(AF_INET6, words[1], &six->sin6_addr) != 1)
		return false;
	six->sin6_family = AF_INET6;
	six->sin6_port = htons((uint16_t)atoi(words[2]));
	stream->address_size = sizeof(*six);
	return true;
}

static void connected(struct server *server, struct stream *stream)
{
	stream->connecting = false;
	stream->due_ms = 0;
	stream->out.file = fcntl(stream->in, F_DUPFD_CLOEXEC, 3);
	if (stream->out.file < 0) {
		fail(server, stream, "dup", errno);
		return;
	}
	put_frame(server, SERVE_OPENED, stream->id, NULL, 0);
	stream_write(server, stream);
}

static void connect_anew(struct server *server, struct stream *stream)
{
	const struct sockaddr *address = (const void *)&stream->address;

	if (connect(stream->in, address, stream->address_size) == 0) {
		connected(server, stream);
	} else if (errno == EAGAIN && now_ms() < stream->give_up_ms) {
		stream->due_ms = now_ms() + RETRY_MS; /* a unix socket with a full queue */
	} else if (errno != EINPROGRESS && errno != EINTR) {
		fail(server, stream, "connect", errno);
	}
}

/* It can be written to, or it is time for another try. */
void stream_connect(struct server *server, struct stream *stream)
{
	socklen_t size = sizeof(int);
	int number = 0;

	if (stream->due_ms) {
		stream->due_ms = 0;
		connect_anew(server, stream);
		return;
	}
	if (getsockopt(stream->in, SOL_SOCKET, SO_ERROR, &number, &size) < 0)
		number = errno;
	if (number)
		fail(server, stream, "connect", number);
	else
		connected(server, stream);
}

static void open_socket(struct server *server, struct stream *stream, int count, char **words)
{
	int yes = 1;

	stream->socket = true;
	if (!read_address(stream, count, words)) {
		fail(server, stream, words[0], EINVAL);
		return;
	}
	stream->in =
		socket(stream->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (stream->in < 0) {
		fail(server, stream, "socket", errno);
		return;
	}
	if (stream->address.ss_family != AF_UNIX)
		setsockopt(stream->in, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	stream->connecting = true;
	stream->give_up_ms = now_ms() + CONNECT_MS;
	connect_anew(server, stream);
}

/* ---- all of them ---- */

static int split(char *text, size_t size, char **words)
{
	int count = 0;

	if (!size || text[size - 1])
		return 0;
	for (char *word = text; word < text + size; word += strlen(word) + 1) {
		if (count == MOST_WORDS)
			return 0;
		words[count++] = word;
	}
	words[count] = NULL;
	return count;
}

void stream_open(struct server *server, uint32_t id, char *text, size_t size)
{
	char *words[MOST_WORDS + 1];
	int count = split(text, size, words);
	struct stream *stream = add_stream(server, id);

	if (!stream) {
		put_frame(server, SERVE_FAILED, id, "no memory", 9);
		return;
	}
	if (server->count > MOST_STREAMS)
		fail(server, stream, "too many streams", EMFILE);
	else if (count >= 2 &&
		 (!strcmp(words[0], "verb") || (count == 2 && !strcmp(words[0], "exec"))))
		open_process(server, stream, count, words);
	else if (count >= 2 && (!strcmp(words[0], "unix") || !strcmp(words[0], "tcp")))
		open_socket(server, stream, count, words);
	else
		fail(server, stream, "what to open", EINVAL);
}

/* False if the client had no leave to send so much. */
bool stream_data(struct server *server, struct stream *stream, const void *data, size_t size)
{
	if (!size)
		stream->in_end = true;
	else if (stream->in < 0)
		stream->taken += (uint32_t)size; /* it does not listen any more */
	else if (stream->in_end || stream->to.used + stream->taken + size > SERVE_WINDOW)
		return false;
	else
		buffer_append(&stream->to, data, size);
	stream_write(server, stream);
	return true;
}

void stream_write(struct server *server, struct stream *stream)
{
	ssize_t sent = 0;

	if (stream->connecting)
		return;
	if (stream->to.used && stream->in >= 0)
		sent = write(stream->in, stream->to.data + stream->to.start, stream->to.used);
	if (sent > 0) {
		buffer_drop(&stream->to, (size_t)sent);
		stream->taken += (uint32_t)sent;
	} else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		stream->taken += (uint32_t)stream->to.used;
		close_in(stream);
	}
	if (stream->taken >= SERVE_WINDOW / 4) {
		put_number(server, SERVE_TAKEN, stream->id, stream->taken);
		stream->taken = 0;
	}
	if (stream->in_end && !stream->to.used)
		close_in(stream);
}

void stream_read(struct server *server, struct stream *stream, struct outlet *outlet)
{
	enum frame_type type = outlet == &stream->err ? SERVE_ERR : SERVE_OUT;
	size_t most = outlet->credit < CHUNK ? outlet->credit : CHUNK;
	char data[CHUNK];
	ssize_t got = read(outlet->file, data, most);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got > 0) {
		outlet->credit -= (uint32_t)got;
		put_frame(server, type, stream->id, data, (size_t)got);
		return;
	}
	close_file(&outlet->file);
	if (!server->to.used && stream->pid > 0 && !stream->exited)
		server->hold_ms = now_ms() + HOLD_MS;
	put_frame(server, type, stream->id, NULL, 0);
	if (stream->socket)
		tell_exit(server, stream);
}

void stream_close(struct server *server, struct stream *stream)
{
	(void)server;
	stream->closed = true;
	stream->connecting = false;
	close_in(stream);
	close_file(&stream->out.file);
	close_file(&stream->err.file);
	stream->due_ms = now_ms() + GRACE_MS;
}

static bool over(const struct server *server, const struct stream *stream)
{
	if (stream->pid > 0 && !stream->exited)
		return server->ending && stream->keeps;
	if (stream->closed)
		return true;
	return stream->told_exit && stream->out.file < 0 && stream->err.file < 0 &&
	       (!stream->socket || stream->in < 0);
}

void streams_clear(struct server *server)
{
	struct stream *next;

	for (struct stream *stream = server->streams; stream; stream = next) {
		next = stream->next;
		if (!over(server, stream))
			continue;
		/* of a process that was not wanted any more nothing stays */
		if (stream->exited && stream->pid > 0 && stream->closed)
			signal_group(stream, SIGKILL);
		if (stream->exited && stream->pid > 0)
			waitpid(stream->pid, NULL, 0);
		close_in(stream);
		close_file(&stream->out.file);
		close_file(&stream->err.file);
		drop_stream(server, stream);
	}
}
