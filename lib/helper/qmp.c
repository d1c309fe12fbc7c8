// SPDX-License-Identifier: GPL-2.0-only
/* See qmp.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "json.h"
#include "qmp.h"

#define ANSWER_MS 60000 /* the client has deadlines of its own; this one is for when it is gone */

static struct {
	int fd;
	char *data; /* what was read and is not consumed: whole lines, and one that is not */
	size_t used, size;
	bool stopped;
} qmp = { .fd = -1 };

static bool lost(int number, const char *what)
{
	json_error(number, "is another client connected to it?", "QMP: %s", what);
	return false;
}

static bool read_more(void)
{
	struct pollfd there = { .fd = qmp.fd, .events = POLLIN };
	ssize_t got;

	if (qmp.used + 4096 > qmp.size) {
		char *larger = realloc(qmp.data, qmp.size + 65536);

		if (!larger)
			return lost(ENOMEM, "a long answer");
		qmp.data = larger;
		qmp.size += 65536;
	}
	if (poll(&there, 1, ANSWER_MS) != 1)
		return lost(ETIMEDOUT, "QEMU does not answer");
	got = read(qmp.fd, qmp.data + qmp.used, qmp.size - qmp.used);
	if (got <= 0)
		return lost(got ? errno : ECONNRESET, "QEMU is gone");
	qmp.used += (size_t)got;
	return true;
}

/* Drops the first `length` bytes of what was read. */
static void consume(size_t length)
{
	qmp.used -= length;
	memmove(qmp.data, qmp.data + length, qmp.used);
}

/*
 * The length of the next line that is an answer, at the start of qmp.data; 0 if there is none.
 * Whatever else QEMU says, its greeting and events, begins otherwise.
 */
static size_t next_answer(void)
{
	for (;;) {
		char *end = qmp.used ? memchr(qmp.data, '\n', qmp.used) : NULL;
		size_t length = end ? (size_t)(end - qmp.data) + 1 : 0;

		if (!end && !read_more())
			return 0;
		if (!end)
			continue;
		if (!strncmp(qmp.data, "{\"return\"", 9) || !strncmp(qmp.data, "{\"error\"", 8))
			return length;
		consume(length);
	}
}

static size_t ask(const char *line)
{
	size_t length = strlen(line);

	if (qmp.fd < 0) {
		json_error(0, "inject --monitor PATH", "no monitor was named");
		return 0;
	}
	if (write(qmp.fd, line, length) != (ssize_t)length || write(qmp.fd, "\n", 1) != 1) {
		lost(errno, "QEMU is gone");
		return 0;
	}
	return next_answer();
}

bool qmp_command(const char *line)
{
	size_t length = ask(line), end = length;

	while (end && (qmp.data[end - 1] == '\n' || qmp.data[end - 1] == '\r'))
		end--;
	if (!end)
		return false;
	json_begin("qmp");
	json_raw("reply", qmp.data, end);
	json_end();
	consume(length);
	return true;
}

bool qmp_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length;

	qmp.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (qmp.fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return lost(ENAMETOOLONG, path);
	strcpy(address.sun_path, path);
	if (connect(qmp.fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		return lost(errno, path);
	length = ask("{\"execute\":\"qmp_capabilities\"}");
	if (!length)
		return false;
	consume(length);
	return true;
}

bool qmp_stop(void)
{
	qmp.stopped = true;
	return qmp_command("{\"execute\":\"stop\"}");
}

bool qmp_cont(void)
{
	if (!qmp_command("{\"execute\":\"cont\"}"))
		return false;
	qmp.stopped = false;
	return true;
}

void qmp_close(void)
{
	size_t length = qmp.stopped ? ask("{\"execute\":\"cont\"}") : 0;

	if (length)
		consume(length);
	if (qmp.fd >= 0)
		close(qmp.fd);
	qmp.fd = -1;
}
