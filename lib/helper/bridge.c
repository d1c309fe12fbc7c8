// SPDX-License-Identifier: GPL-2.0-only
/*
 * bridge --unix PATH [--within SECONDS]
 *
 * Waits until the socket is there if --within is given: a look from outside, again and again, would
 * take an emulated CPU from the program that is to make it. Says "connected" on stderr then.
 * Carries stdin to a unix stream socket and the socket to stdout, until either side closes.
 * It is a pipe: it prints nothing of its own on stdout.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
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

/* Connects, at once or when the folder of the socket has changed, until the time is over. */
static int connect_within(const char *path, int seconds)
{
	int end, notify = inotify_init1(IN_CLOEXEC);
	struct pollfd change = { .fd = notify, .events = POLLIN };
	time_t last = time(NULL) + seconds;
	char folder[PATH_MAX], events[4096];

	snprintf(folder, sizeof(folder), "%s", path);
	inotify_add_watch(notify, dirname(folder), IN_CREATE);
	while ((end = connect_to(path)) < 0 && time(NULL) < last) {
		/* a socket that is bound but does not listen yet tells no one when it does */
		if (poll(&change, 1, access(path, F_OK) == 0 ? 10 : 1000) > 0 &&
		    read(notify, events, sizeof(events)) < 0)
			break;
	}
	close(notify);
	if (end >= 0)
		fprintf(stderr, "connected\n");
	return end;
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
	const char *path = option(argc, argv, "--unix"), *within;
	int end;

	if (!path)
		return MISUSED;
	within = option(argc, argv, "--within");
	end = within ? connect_within(path, atoi(within)) : connect_to(path);
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
