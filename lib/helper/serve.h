/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The protocol of `serve`, version 1: many streams over one pair of pipes.
 *
 * serve first prints one line, {"type":"serve","protocol","window","payload","digest","pid"}; the
 * client goes on only if it speaks that protocol. Then both sides send frames and nothing else:
 *
 *   type   1 byte
 *   stream 4 bytes, big-endian: chosen by the client, never used twice; 0 is the conversation
 *   size   4 bytes, big-endian, at most `payload`
 *   size bytes
 *
 * From the client:
 *   OPEN   words, each ended by NUL:
 *            exec LINE        /bin/sh -c LINE
 *            verb WORD ...    a verb of this helper: a fork, without an exec
 *            unix PATH        a connection to a unix stream socket
 *            tcp ADDRESS PORT a TCP connection, ADDRESS in numbers
 *   DATA   for its stdin; of size 0: the end of stdin (a socket is shut down for writing)
 *   CREDIT 1 byte OUT or ERR, 4 bytes: so much more may be sent of it
 *   CLOSE  the stream is not wanted any more: its pipes are closed; a process that has not ended
 *          2 s later gets SIGTERM, 2 s later SIGKILL, with its group. Nothing is sent of it from
 *          then on. Also for a stream that has ended.
 *   PING   answered by PONG with the same stream and payload, once all that had happened before has
 *          been told
 *
 * From serve:
 *   OPENED a socket is connected
 *   FAILED text: it was not opened; nothing else comes of that stream
 *   OUT    of its stdout, or of a socket; of size 0: the end of it
 *   ERR    the same of its stderr; a socket has none
 *   TAKEN  4 bytes: so much of DATA has gone on, and may be sent again
 *   EXIT   1 byte, 4 bytes: 0 and the exit status, or 1 and the signal that it died of. A process
 *          has ended; OUT and ERR may still come, each with its end. Of a socket: 0 and 0, once the
 *          other side has closed it.
 *   PONG
 *   ERROR  text, stream 0: why the conversation ends
 *
 * Flow control: of each stream at most `window` bytes of DATA, of OUT and of ERR may be under way,
 * counted each for itself; TAKEN and CREDIT give bytes back. So a stream that nobody reads holds
 * up neither the others nor takes memory, and who sends more breaks the protocol.
 *
 * At the end of its stdin, and at SIGHUP, SIGINT or SIGTERM, serve closes all streams, as CLOSE
 * does, and ends when their processes have. A verb that puts away what it holds at the end of its
 * stdin (supervise, serve) gets no signal and is not waited for; it is executed, to have a command
 * line of its own, by which others know it. A process is in a session of its own; what it has
 * started in another one is not ended with it, nor is anything when serve is killed: but then the
 * pipes are closed as well.
 */
#ifndef L2GATE_SERVE_H
#define L2GATE_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define SERVE_PROTOCOL 1
#define SERVE_HEAD 9
#define SERVE_WINDOW (256 << 10)
#define SERVE_PAYLOAD (132 << 10) /* a LINE as long as the kernel takes, and its word */

enum frame_type {
	SERVE_OPEN = 1,
	SERVE_DATA = 2,
	SERVE_CREDIT = 3,
	SERVE_CLOSE = 4,
	SERVE_PING = 5,
	SERVE_OPENED = 17,
	SERVE_FAILED = 18,
	SERVE_OUT = 19,
	SERVE_ERR = 20,
	SERVE_TAKEN = 21,
	SERVE_EXIT = 22,
	SERVE_PONG = 23,
	SERVE_ERROR = 24,
};

struct buffer {
	char *data;
	size_t start, used, size;
};

/* What one of the two ways out of a stream still may send. */
struct outlet {
	int file; /* -1: closed */
	uint32_t credit;
	int slot; /* in the list of poll(), -1: not looked at */
};

struct stream {
	struct stream *next;
	uint32_t id;
	bool socket, connecting;
	bool keeps;  /* gets no signal, is not waited for */
	bool closed; /* the client does not want it any more */
	bool exited, told_exit;
	int status; /* of waitid(): si_status, and whether it was a signal */
	bool signalled;
	pid_t pid;
	int in, in_slot;
	bool in_end;	  /* the client has sent the end of stdin */
	uint32_t taken;	  /* not told yet */
	struct buffer to; /* DATA on its way */
	struct outlet out, err;
	long due_ms; /* the next signal, or the next try to connect; 0: none */
	int signals; /* sent so far */
	long give_up_ms;
	struct sockaddr_storage address;
	socklen_t address_size;
};

struct server {
	struct stream *streams;
	int count;
	struct buffer from, to; /* the client */
	struct buffer pongs;	/* to be told after so many more looks at the streams */
	int looks;
	bool ending, failed;
	int in_slot, out_slot;
	long end_ms;  /* when it ends, whoever has not read all */
	long hold_ms; /* what there is to tell can wait until then; 0: it cannot */
};

void buffer_append(struct buffer *buffer, const void *data, size_t size);
void buffer_drop(struct buffer *buffer, size_t size);

void put_frame(struct server *server, enum frame_type type, uint32_t id, const void *data,
	       size_t size);
void put_number(struct server *server, enum frame_type type, uint32_t id, uint32_t number);
uint32_t big_endian(const void *data);
long now_ms(void);
void reset_signals(void); /* as a program finds them */

/* stream.c */
struct stream *stream_find(struct server *server, uint32_t id);
void stream_open(struct server *server, uint32_t id, char *words, size_t size);
bool stream_data(struct server *server, struct stream *stream, const void *data, size_t size);
void stream_close(struct server *server, struct stream *stream);
void stream_read(struct server *server, struct stream *stream, struct outlet *outlet);
void stream_write(struct server *server, struct stream *stream);
void stream_connect(struct server *server, struct stream *stream);
void stream_signal(struct stream *stream);
void streams_reap(struct server *server);  /* those that have ended */
void streams_clear(struct server *server); /* those of which nothing is left to tell */

#endif
