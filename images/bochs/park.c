/* SPDX-License-Identifier: MIT */
/*
 * A library that is loaded into Bochs (LD_PRELOAD) so that a booted machine can be forked.
 *
 * It stands between Bochs' display and ncurses: the display asks for a key, by wgetch, in its event
 * handler, where the machine is between two instructions and nothing of a device is under way. There
 * the process looks whether its owner, a job of l2gate, asks for something.
 *
 *   machine ──park──> template ──fork──> machine ──park──> ...
 *
 * A machine runs. It has a link to its owner, a socket, and ends when that is closed or the owner's
 * process has gone. A template is a copy of one that only waits: it has no terminal, no port, no owner
 * and no parent, and uses no CPU. The machine it was taken from runs on unharmed, and so do several
 * machines that are forked from a template, each with descriptors of its own under the old numbers.
 *
 * Without L2GATE_PARK, the number of the link's descriptor, nothing of this happens.
 *
 * A request is one message (SOCK_SEQPACKET) of plain words, with descriptors beside it; so is an
 * answer. What cannot be done is answered `error WORDS`.
 *
 *   by a machine, on its link:
 *     here                          said once, when the machine runs
 *     park SECONDS                  with: console, log, listening control socket
 *       -> parked PID BYTES         the template's process; what the console file held by then. It
 *                                   ends by itself after so many seconds without a machine; 0 is
 *                                   never
 *   by a template, on a connection to its control socket, one request each:
 *     fork                          with: listening port, console, log, link, pidfd of the owner
 *       -> forked PID               with: pidfd. The connection stays, until
 *       -> ended STATUS             as waitpid(2) gives it
 *     status
 *       -> status PID MACHINES IDLE its own process, machines that run, seconds since it had work
 *     end
 *       -> ended 0                  machines that were forked from it run on
 *
 * lib/l2gate/hosts/emulated/parked.py is the other side.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	TEXT = 256,	    /* bytes of a message */
	PASSED = 5,	    /* descriptors beside it */
	NAME = 16,	    /* bytes of a process's name */
	SLOTS = 8,	    /* descriptors of one kind that Bochs has open */
	MACHINES = 64,	    /* that run at once from one template */
	FIRST_SECONDS = 60, /* by then the template's maker has asked for its status */
	CLIENT_SECONDS = 5, /* a client that says nothing is given up */
};

struct message {
	char text[TEXT];
	int fds[PASSED];
	int count;
};

/* Descriptors that a machine gets anew, under the numbers by which Bochs knows them. */
struct slots {
	int fd[SLOTS];
	int flags[SLOTS]; /* F_GETFL */
	int count;
};

struct machine {
	pid_t pid;
	int pidfd;
	int client;
};

static int link_fd = -1;
static int owner_fd = -1;

static struct slots listeners, consoles, logs;
static unsigned int alarm_seconds;

static int control_fd = -1;
static struct machine machines[MACHINES];
static int running;

/* ---- messages ---- */

static int receive(int from, struct message *message)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(message->fds))];
	} control;
	struct iovec part = { message->text, TEXT - 1 };
	struct msghdr header = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t size;

	message->count = 0;
	do
		size = recvmsg(from, &header, MSG_CMSG_CLOEXEC);
	while (size < 0 && errno == EINTR);
	message->text[size > 0 ? size : 0] = 0;
	if (size <= 0)
		return (int)size;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		message->count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(message->fds, CMSG_DATA(c), (size_t)message->count * sizeof(int));
	}
	return 1;
}

static void drop(struct message *message)
{
	for (int i = 0; i < message->count; i++)
		close(message->fds[i]);
	message->count = 0;
}

static void answer(int to, const char *text, int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = { (void *)(unsigned long)text, strlen(text) };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		header.msg_control = &control;
		header.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
	}
	/* One who does not listen any more has gone, and is told nothing. */
	sendmsg(to, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* The number at `text`; -1 if there is none. strtol is not used: it has another name in each glibc,
 * and the one that compiles this is not the one that Bochs runs with. */
static long number(const char *text)
{
	long value = 0;

	if (!*text)
		return -1;
	for (; *text >= '0' && *text <= '9'; text++) {
		if (value > 100000000)
			return -1;
		value = value * 10 + (*text - '0');
	}
	return *text ? -1 : value;
}

/* ---- telling the one who forked how it went ---- */

static void tell(int report, const char *format, ...)
{
	char text[TEXT];
	va_list words;
	ssize_t ignored;

	va_start(words, format);
	vsnprintf(text, sizeof(text), format, words);
	va_end(words);
	ignored = write(report, text, strlen(text));
	(void)ignored;
	close(report);
}

static void __attribute__((noreturn)) fail(int report, const char *what)
{
	tell(report, "error %s: %s", what, strerror(errno));
	_exit(1);
}

static void heard(int report, char *text)
{
	size_t size = 0;
	ssize_t got;

	do {
		got = read(report, text + size, TEXT - 1 - size);
		if (got > 0)
			size += (size_t)got;
	} while (got > 0 || (got < 0 && errno == EINTR));
	close(report);
	text[size] = 0;
	if (!size)
		strcpy(text, "error the copy of the machine ended before it was one");
}

/* ---- descriptors ---- */

static int only_thread(void)
{
	DIR *folder = opendir("/proc/self/task");
	struct dirent *entry;
	int count = 0;

	if (!folder)
		return 0;
	while ((entry = readdir(folder)))
		count += entry->d_name[0] != '.';
	closedir(folder);
	return count == 1;
}

/* Calls `each` for every descriptor that is open, but those of `request` and `report`. */
static void all_descriptors(void (*each)(int fd, const struct stat *, const struct message *, int),
			    const struct message *request, int report)
{
	DIR *folder = opendir("/proc/self/fd");
	struct dirent *entry;
	struct stat stat;

	if (!folder)
		fail(report, "/proc/self/fd");
	while ((entry = readdir(folder))) {
		int fd = (int)number(entry->d_name);
		bool ours = fd == report || fd == dirfd(folder) || fd == control_fd;

		for (int i = 0; i < request->count; i++)
			ours |= fd == request->fds[i];
		if (fd >= 0 && !ours && !fstat(fd, &stat))
			each(fd, &stat, request, report);
	}
	closedir(folder);
}

static void put(int from, int to, int report)
{
	if (dup3(from, to, O_CLOEXEC) < 0)
		fail(report, "dup3");
}

static void null(int fd, int report)
{
	int from = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (from < 0)
		fail(report, "/dev/null");
	put(from, fd, report);
	close(from);
}

/* A connection whose other end is gone: slirp reads its end, and closes it towards the guest. */
static void hang_up(int fd, int report)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		fail(report, "socketpair");
	close(pair[1]);
	put(pair[0], fd, report);
	close(pair[0]);
}

static void keep(struct slots *slots, int fd, int report)
{
	if (slots->count == SLOTS) {
		errno = EMFILE;
		fail(report, "Bochs has too many descriptors of one kind");
	}
	slots->fd[slots->count] = fd;
	slots->flags[slots->count++] = fcntl(fd, F_GETFL);
	null(fd, report); /* the number stays taken */
}

static bool is(const struct stat *stat, int fd)
{
	struct stat other;

	return !fstat(fd, &other) && other.st_dev == stat->st_dev && other.st_ino == stat->st_ino;
}

static void let_go(int fd, const struct stat *stat, const struct message *request, int report)
{
	int listening = 0, domain = 0;
	socklen_t size = sizeof(int);

	if (is(stat, request->fds[0]))
		keep(&consoles, fd, report);
	else if (is(stat, request->fds[1]))
		keep(&logs, fd, report);
	else if (isatty(fd))
		null(fd, report);
	else if (S_ISSOCK(stat->st_mode)) {
		getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size);
		getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
		if (listening && domain == AF_INET)
			keep(&listeners, fd, report);
		else
			hang_up(fd, report);
	}
}

/* A disk's position belongs to the open file, which a fork shares: it is opened once more. */
static void reopen(int fd, const struct stat *stat, const struct message *request, int report)
{
	char name[32];
	off_t place;
	int copy;

	(void)request;
	if (!S_ISREG(stat->st_mode))
		return;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	place = lseek(fd, 0, SEEK_CUR);
	copy = open(name, (fcntl(fd, F_GETFL) & ~(O_CREAT | O_EXCL | O_TRUNC)) | O_CLOEXEC);
	if (copy < 0 || place < 0 || lseek(copy, place, SEEK_SET) != place)
		fail(report, "opening a file of the machine once more");
	put(copy, fd, report);
	close(copy);
}

static void fill(const struct slots *slots, int from, int report)
{
	for (int i = 0; i < slots->count; i++) {
		put(from, slots->fd[i], report);
		if (slots == &listeners && fcntl(slots->fd[i], F_SETFL, slots->flags[i]))
			fail(report, "fcntl");
	}
	close(from);
}

/* ---- a template ---- */

static long seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void reap(int which)
{
	struct machine *machine = &machines[which];
	char text[TEXT];
	int status = 0;

	if (waitpid(machine->pid, &status, WNOHANG) != machine->pid)
		return;
	snprintf(text, sizeof(text), "ended %d", status);
	answer(machine->client, text, -1);
	close(machine->client);
	close(machine->pidfd);
	*machine = machines[--running];
}

/* Wait for a client, and end if none comes and no machine runs for `idle` seconds. */
static int wait_for_client(long idle, long *since)
{
	struct pollfd polls[1 + MACHINES];

	for (;;) {
		long left = *since + idle - seconds();

		if (idle && !running && left <= 0)
			_exit(0);
		polls[0] = (struct pollfd){ .fd = control_fd, .events = POLLIN };
		for (int i = 0; i < running; i++)
			polls[1 + i] = (struct pollfd){ .fd = machines[i].pidfd, .events = POLLIN };
		if (poll(polls, (nfds_t)(1 + running),
			 idle && !running ? (int)(left > 1000000 ? 1000000 : left) * 1000 : -1) <=
		    0)
			continue;
		for (int i = running; i-- > 0;)
			if (polls[1 + i].revents) {
				reap(i);
				*since = seconds();
			}
		if (polls[0].revents)
			return accept4(control_fd, NULL, NULL, SOCK_CLOEXEC);
	}
}

static bool stranger(int client)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size) || peer.uid != geteuid();
}

/* The new machine's own side: take what `request` brought, and leave what is the template's. */
static void become_machine(struct message *request, int client, int report)
{
	int number = control_fd;

	setsid();
	control_fd = -1;
	close(number);
	close(client);
	for (int i = 0; i < running; i++) {
		close(machines[i].client);
		close(machines[i].pidfd);
	}
	running = 0;
	all_descriptors(reopen, request, report);
	fill(&listeners, request->fds[0], report);
	fill(&consoles, request->fds[1], report);
	fill(&logs, request->fds[2], report);
	link_fd = request->fds[3];
	owner_fd = request->fds[4];
	listeners.count = consoles.count = logs.count = 0;
	request->count = 0;
	alarm(alarm_seconds);
	tell(report, "forked");
}

/* True in the new machine. */
static bool fork_machine(struct message *request, int client)
{
	char text[TEXT];
	int report[2], pidfd;
	pid_t pid;

	if (request->count != PASSED) {
		answer(client, "error fork needs five descriptors", -1);
		return false;
	}
	if (running == MACHINES) {
		answer(client, "error too many machines run from this template", -1);
		return false;
	}
	if (pipe2(report, O_CLOEXEC)) {
		answer(client, "error no pipe", -1);
		return false;
	}
	pid = fork();
	if (!pid) {
		close(report[0]);
		become_machine(request, client, report[1]);
		return true;
	}
	close(report[1]);
	if (pid < 0) {
		snprintf(text, sizeof(text), "error fork: %s", strerror(errno));
		close(report[0]);
		answer(client, text, -1);
		return false;
	}
	heard(report[0], text);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (strcmp(text, "forked") || pidfd < 0) {
		if (!strcmp(text, "forked"))
			snprintf(text, sizeof(text), "error pidfd_open: %s", strerror(errno));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		answer(client, text, -1);
		return false;
	}
	machines[running++] = (struct machine){ pid, pidfd, dup(client) };
	snprintf(text, sizeof(text), "forked %d", (int)pid);
	answer(client, text, pidfd);
	return false;
}

/* True in a new machine. */
static bool serve(int client, long *since)
{
	struct timeval patience = { .tv_sec = CLIENT_SECONDS };
	struct message request;
	char text[TEXT];
	bool machine = false;

	setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (stranger(client) || receive(client, &request) <= 0)
		return false;
	if (!strcmp(request.text, "fork")) {
		machine = fork_machine(&request, client);
		*since = seconds();
	} else if (!strcmp(request.text, "status")) {
		snprintf(text, sizeof(text), "status %d %d %ld", (int)getpid(), running,
			 running ? 0 : seconds() - *since);
		answer(client, text, -1);
	} else if (!strcmp(request.text, "end")) {
		answer(client, "ended 0", -1);
		_exit(0);
	} else {
		answer(client, "error a template knows fork, status and end", -1);
	}
	drop(&request);
	return machine;
}

/* How it is called in ps(1), and how soon it is killed for memory's sake (proc(5), oom_score_adj): a
 * template costs a boot, a machine a job. What was there before is in the arguments afterwards. */
static void exchange_standing(char *name, char *score)
{
	char before[NAME], adjusted[NAME] = "";
	int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
	ssize_t size;

	prctl(PR_GET_NAME, before);
	prctl(PR_SET_NAME, name);
	strcpy(name, before);
	if (fd < 0)
		return;
	size = read(fd, adjusted, NAME - 1);
	if (size > 0 && write(fd, score, strlen(score)) > 0)
		memcpy(score, adjusted, NAME);
	close(fd);
}

static void wait_as_template(long idle)
{
	long since = seconds();
	/* One whose maker has given up hears of nobody: it does not stay. */
	long limit = FIRST_SECONDS;

	for (;;) {
		int client = wait_for_client(limit, &since);

		if (client < 0)
			continue;
		limit = idle;
		if (serve(client, &since))
			return;
		close(client);
	}
}

/* Returns in a machine that was forked from this template. */
static void become_template(struct message *request, long idle, int report)
{
	char name[NAME] = "l2gate-parked", score[NAME] = "800";
	struct stat console;

	exchange_standing(name, score);
	setsid();
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN); /* what slirp writes to a connection that was hung up */
	signal(SIGCHLD, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	if (link_fd >= 0)
		close(link_fd);
	if (owner_fd >= 0)
		close(owner_fd);
	link_fd = owner_fd = -1;
	if (chdir("/") || fstat(request->fds[0], &console))
		fail(report, "leaving the job's folder");
	all_descriptors(let_go, request, report);
	if (!consoles.count || !logs.count) {
		errno = ENOENT;
		fail(report, "Bochs does not write to this console and log");
	}
	if (listeners.count > 1) {
		errno = EMFILE;
		fail(report, "Bochs listens on more than one port");
	}
	control_fd = request->fds[2];
	request->count = 2;
	drop(request);
	tell(report, "parked %d %ld", (int)getpid(), (long)console.st_size);
	wait_as_template(idle);
	exchange_standing(name, score);
}

/* ---- a machine ---- */

/* True in a machine that was forked from the template. */
static bool park(struct message *request, char *text)
{
	long idle = number(request->text + strlen("park "));
	int report[2];
	pid_t pid;

	if (idle < 0 || request->count != 3) {
		strcpy(text, "error park needs a number of seconds and three descriptors");
		return false;
	}
	if (!only_thread()) {
		strcpy(text, "error this Bochs has more than one thread: it cannot be forked");
		return false;
	}
	fflush(NULL); /* or both would write what is left */
	if (pipe2(report, O_CLOEXEC)) {
		snprintf(text, TEXT, "error pipe: %s", strerror(errno));
		return false;
	}
	alarm_seconds = alarm(0);
	pid = fork();
	if (!pid) {
		/* Twice, so that the template is nobody's child and nobody's zombie. */
		close(report[0]);
		pid = fork();
		if (pid < 0)
			fail(report[1], "fork");
		if (pid)
			_exit(0);
		become_template(request, idle, report[1]);
		return true;
	}
	alarm(alarm_seconds);
	close(report[1]);
	if (pid < 0) {
		snprintf(text, TEXT, "error fork: %s", strerror(errno));
		close(report[0]);
		return false;
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	heard(report[0], text);
	return false;
}

static void hear_owner(void)
{
	struct message request;
	char text[TEXT] = "error a machine knows park";

	if (receive(link_fd, &request) <= 0)
		_exit(0); /* the owner has closed its end */
	if (!strncmp(request.text, "park ", 5) && park(&request, text))
		return;
	drop(&request);
	answer(link_fd, text, -1);
}

static void look_around(void)
{
	struct pollfd polls[2] = {
		{ .fd = link_fd, .events = POLLIN },
		{ .fd = owner_fd, .events = POLLIN },
	};

	if (poll(polls, 2, 0) <= 0)
		return;
	if (polls[1].revents)
		_exit(0); /* the owner's process has gone */
	if (polls[0].revents)
		hear_owner();
}

static void begin(void)
{
	const char *told = getenv("L2GATE_PARK");
	long fd = told ? number(told) : -1;

	/* For Bochs alone, not for a program that it might start. */
	unsetenv("LD_PRELOAD");
	unsetenv("L2GATE_PARK");
	if (fd < 0 || fcntl((int)fd, F_SETFD, FD_CLOEXEC))
		return;
	link_fd = (int)fd;
	answer(link_fd, "here", -1);
}

typedef int (*getter)(void *);

__attribute__((visibility("default"))) int wgetch(void *window);

/* ncurses came with Bochs' display plug-in, as its own: what comes next in the order of the whole
 * program need not have it, but what the caller itself was linked with does. */
static getter ncurses(void *caller)
{
	void *found = dlsym(RTLD_NEXT, "wgetch");
	Dl_info where;
	void *plugin;

	if (!found && dladdr(caller, &where)) {
		plugin = dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
		if (plugin)
			found = dlsym(plugin, "wgetch");
	}
	return found == (void *)wgetch ? NULL : (getter)found;
}

int wgetch(void *window)
{
	static getter next;

	if (!next) {
		next = ncurses(__builtin_return_address(0));
		if (!next)
			return -1; /* ERR: no key */
		begin();
	}
	if (link_fd >= 0)
		look_around();
	return next(window);
}
