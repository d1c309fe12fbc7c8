// SPDX-License-Identifier: GPL-2.0-only
/*
 * kmsg [--after SEQ] [--follow]
 * kmsg --last
 *
 * Prints the kernel's messages as plain text, `[SECONDS.MICROSECONDS] TEXT` a line: all, or those
 * with a sequence number above SEQ. Ends at the last one; with --follow it goes on until stdin
 * closes or nobody reads its stdout. Says `l2gate: kernel messages were lost` where the kernel has
 * overwritten some.
 * --last prints {"type":"kmsg","last"} instead: the newest sequence number, -1 if there is none.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helper.h"
#include "json.h"

#define NEVER (-2) /* no --after: what went by before is not missed */

struct reader {
	int file;
	long long last; /* the sequence number read last */
	bool silent;
};

static void print_lost(const struct reader *reader)
{
	if (!reader->silent)
		puts("l2gate: kernel messages were lost");
	fflush(stdout);
}

/* `priority,sequence,microseconds,flags[,...];text` and then lines ` KEY=value` */
static void take(struct reader *reader, char *record, bool lost)
{
	unsigned long long sequence, time;
	char *text = strchr(record, ';');

	if (!text || sscanf(record, "%*u,%llu,%llu,", &sequence, &time) != 2)
		return;
	if ((long long)sequence <= reader->last)
		return;
	if (lost || (reader->last != NEVER && (long long)sequence > reader->last + 1))
		print_lost(reader);
	reader->last = (long long)sequence;
	text[strcspn(text, "\n")] = 0;
	if (!reader->silent)
		printf("[%5llu.%06llu] %s\n", time / 1000000, time % 1000000, text + 1);
	fflush(stdout);
}

/* Reads up to the last record there is. False if that fails, or if nobody reads stdout. */
static bool drain(struct reader *reader)
{
	char record[16384];
	bool lost = false;

	for (;;) {
		ssize_t got = read(reader->file, record, sizeof(record) - 1);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EPIPE) {
			lost = true;
			continue;
		}
		if (got <= 0)
			return got == 0 || errno == EAGAIN;
		record[got] = 0;
		take(reader, record, lost);
		lost = false;
		if (ferror(stdout)) {
			errno = EPIPE;
			return false;
		}
	}
}

/* Waits for another record; false once stdin has ended or stdout is gone. */
static bool wait_for_more(const struct reader *reader)
{
	char data[4096];
	struct pollfd ends[] = {
		{ .fd = reader->file, .events = POLLIN },
		{ .fd = STDIN_FILENO, .events = POLLIN },
		{ .fd = STDOUT_FILENO },
	};

	while (poll(ends, 3, -1) < 0)
		if (errno != EINTR)
			return false;
	if (ends[1].revents && read(STDIN_FILENO, data, sizeof(data)) <= 0 && errno != EINTR)
		return false;
	return !ends[2].revents;
}

int verb_kmsg(int argc, char **argv)
{
	bool last = given(argc, argv, "--last"), follow = given(argc, argv, "--follow"), good;
	const char *after = option(argc, argv, "--after");
	struct reader reader = { .last = after ? atoll(after) : NEVER, .silent = last };

	reader.file = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	good = reader.file >= 0 && drain(&reader);
	while (good && follow && !last && wait_for_more(&reader))
		good = drain(&reader);
	/* what came between the last look and the end of stdin */
	good = good && drain(&reader);
	if (!good && last)
		return json_error(errno, "be root, and not in a container", "/dev/kmsg");
	if (!good) {
		fprintf(stderr, "kmsg: /dev/kmsg: %s\n", strerror(errno));
		return FAILED;
	}
	if (last) {
		json_begin("kmsg");
		json_number("last", reader.last == NEVER ? -1 : reader.last);
		json_end();
	}
	return DONE;
}
