// SPDX-License-Identifier: GPL-2.0-only
/*
 * bridge --unix PATH
 *
 * Carries stdin to a unix stream socket and the socket to stdout, until either side closes.
 * It is a wire: it prints nothing of its own on stdout.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "helper.h"

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int end = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (end < 0 || strlen(path) >= sizeof(address.sun_path))
		return -1;
	strcpy(address.sun_path, path);
	if (connect(end, (struct sockaddr *)&address, sizeof(address)) == 0)
		return end;
	close(end);
	return -1;
}

/* Moves what is there; false at the end of the source or where the target is gone. */
static bool carry(int from, int to)
{
	char data[16384];
	ssize_t got = read(from, data, sizeof(data));

	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (got <= 0)
		return false;
	for (ssize_t sent = 0; sent < got;) {
		ssize_t step = write(to, data + sent, (size_t)(got - sent));

		if (step < 0 && errno == EINTR)
			continue;
		if (step < 0)
			return false;
		sent += step;
	}
	return true;
}

int verb_bridge(int argc, char **argv)
{
	const char *path = option(argc, argv, "--unix");
	int end;

	if (!path)
		return MISUSED;
	end = connect_to(path);
	if (end < 0) {
		fprintf(stderr, "bridge: %s: %s\n", path, strerror(errno));
		return FAILED;
	}
	for (;;) {
		struct pollfd ends[] = {
			{ .fd = STDIN_FILENO, .events = POLLIN },
			{ .fd = end, .events = POLLIN },
		};

		if (poll(ends, 2, -1) < 0 && errno != EINTR)
			return FAILED;
		if (ends[1].revents && !carry(end, STDOUT_FILENO))
			return DONE;
		if (ends[0].revents && !carry(STDIN_FILENO, end))
			return DONE;
	}
}
