// SPDX-License-Identifier: GPL-2.0-only
/*
 * supervise --lock FILE --folder DIR --within SECONDS
 *           [--exclusive] [--finally COMMAND] [--who TEXT]
 *
 * Owns what a job has on a lab host, and puts it away whatever becomes of the job. Takes the lock
 * FILE (shared, or exclusive), makes the folder DIR, and then answers lines of stdin:
 *
 *   {"type":"waiting","holder"}   once, if the lock is not free; it goes on trying
 *   {"type":"ready","pid"}        the lock and the folder are ours
 *
 *   (an empty line)  a sign of life; no answer
 *   start LINE       runs /bin/sh -c LINE, one at a time -> {"type":"started","pid"}
 *   stop             kills it, with all that it has started
 *
 *   {"type":"ended","pid","status"}   when the child has ended, by itself or not, and nothing that
 *                    it had started is left: its exit status, or 128 + the signal
 *
 * What cannot be done is an error line. It ends at the end of stdin, when no line came for SECONDS,
 * or when nobody reads its stdout: it kills the child, runs COMMAND, removes DIR, frees the lock.
 * If it never had the lock, it only ends. The child writes to our stderr; COMMAND, and the
 * supervisor itself, to FILE.log, and to stderr as long as somebody reads it. Exit status 1: it
 * never had the lock and the folder, or COMMAND failed, or something could not be put away.
 *
 * Should the supervisor itself be killed, the kernel kills the child, but only the process that
 * /bin/sh is: a LINE of one command, or one that ends with `exec`, leaves nothing behind.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "helper.h"
#include "json.h"

#define RETRY_MS 200	      /* between two tries for the lock */
#define KILL_MS 10000	      /* for a killed process to go: one in the kernel may never */
#define LINE_SIZE (128 << 10) /* the kernel's limit for one argument */
#define LOG_SIZE (1 << 20)    /* a log longer than this starts anew */

struct supervisor {
	const char *lock_path, *folder, *finally, *who;
	bool exclusive;
	int lock, log;
	long within_ms, heard_ms; /* when the last line came */
	bool ours;		  /* the lock */
	pid_t child;
	char line[LINE_SIZE];
	size_t used;
	bool too_long; /* the rest of this line is dropped */
};

static long now_ms(void)
{
	return (long)(seconds() * 1000);
}

static const char *iso_now(void)
{
	static char text[32];
	time_t now = time(NULL);
	struct tm parts;

	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &parts));
	return text;
}

/* Whether somebody reads there, and has room: a stuck reader must not hold up the end. */
static bool writable(int fd, int within_ms)
{
	struct pollfd end = { .fd = fd, .events = POLLOUT };

	return poll(&end, 1, within_ms) == 1 && !(end.revents & (POLLERR | POLLHUP | POLLNVAL));
}

static void tell(int fd, const char *text, size_t length, int within_ms)
{
	if (fd >= 0 && writable(fd, within_ms) && write(fd, text, length) < 0)
		return; /* there is nobody left to tell */
}

__attribute__((format(printf, 2, 3))) static void say(struct supervisor *super, const char *format,
						      ...)
{
	char text[1024];
	va_list arguments;
	size_t length;

	length = (size_t)snprintf(text, sizeof(text), "%s supervisor %d: ", iso_now(), getpid());
	va_start(arguments, format);
	vsnprintf(text + length, sizeof(text) - length - 1, format, arguments);
	va_end(arguments);
	strcat(text, "\n");
	tell(super->log, text, strlen(text), 0);
	tell(STDERR_FILENO, text, strlen(text), 0);
}

/* ---- processes ---- */

static void at_child_end(int signo)
{
	(void)signo;
}

/* SIGCHLD is blocked but while waiting for something, so that none goes by unseen. */
static void set_signals(void)
{
	static const int ignored[] = { SIGHUP, SIGPIPE, SIGINT, SIGTERM };
	struct sigaction end = { .sa_handler = at_child_end };
	sigset_t child;

	for (size_t i = 0; i < COUNT(ignored); i++)
		signal(ignored[i], SIG_IGN);
	sigaction(SIGCHLD, &end, NULL);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
}

static void reset_signals(void)
{
	sigset_t none;

	for (int signo = 1; signo < NSIG; signo++)
		signal(signo, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Runs it in this process. All our own files are O_CLOEXEC. */
static _Noreturn void run_shell(const char *line, int output)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	dup2(null, STDIN_FILENO);
	dup2(output < 0 ? null : output, STDOUT_FILENO);
	dup2(output < 0 ? null : output, STDERR_FILENO);
	execl("/bin/sh", "sh", "-c", line, (char *)NULL);
	_exit(127);
}

static void start(struct supervisor *super, const char *line)
{
	pid_t parent = getpid(), pid;

	if (super->child) {
		json_error(EBUSY, "stop it first", "%d still runs", super->child);
		return;
	}
	pid = fork();
	if (pid < 0) {
		json_error(errno, NULL, "fork");
		return;
	}
	if (!pid) {
		reset_signals();
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(128 + SIGKILL);
		setsid();
		run_shell(line, STDERR_FILENO);
	}
	super->child = pid;
	json_begin("started");
	json_number("pid", pid);
	json_end();
}

/* /proc/PID/stat: its state, parent and session. */
static bool read_stat(pid_t pid, char *state, pid_t *parent, pid_t *session)
{
	char path[64], text[1024], *rest;
	int group, file;
	ssize_t got;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return false;
	got = read(file, text, sizeof(text) - 1);
	close(file);
	text[got < 0 ? 0 : got] = 0;
	rest = strrchr(text, ')'); /* the name before it may hold anything */
	return rest && sscanf(rest + 1, " %c %d %d %d", state, parent, &group, session) == 4;
}

/*
 * Kills each process of the session, and each that was left to us (we are their subreaper).
 * Returns how many were there.
 */
static int kill_others(pid_t session)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	int count = 0;

	while (proc && (entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name), parent, its_session;
		char state;

		if (pid <= 0 || pid == session || pid == getpid() ||
		    !read_stat(pid, &state, &parent, &its_session))
			continue;
		if (parent != getpid() && (!session || its_session != session))
			continue;
		if (state == 'Z' || state == 'X') {
			if (parent == getpid())
				waitpid(pid, NULL, WNOHANG);
			continue;
		}
		count++;
		kill(pid, SIGKILL);
	}
	if (proc)
		closedir(proc);
	return count;
}

static void end_others(struct supervisor *super, pid_t session)
{
	struct timespec pause = { .tv_nsec = 10 * 1000000 };
	long last = now_ms() + KILL_MS;
	int count;

	while ((count = kill_others(session)) && now_ms() < last)
		nanosleep(&pause, NULL);
	if (count)
		say(super, "%d processes were killed but do not go", count);
}

static int status_of(const siginfo_t *info)
{
	return info->si_code == CLD_EXITED ? info->si_status : 128 + info->si_status;
}

/* Sees to the processes that have ended. */
static void reap(struct supervisor *super)
{
	siginfo_t info = { 0 };

	/* until it is waited for, no other session can bear the number of the child */
	while (!waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid) {
		bool child = info.si_pid == super->child;

		if (child)
			end_others(super, super->child);
		waitpid(info.si_pid, NULL, 0);
		if (child) {
			super->child = 0;
			if (writable(STDOUT_FILENO, 1000)) {
				json_begin("ended");
				json_number("pid", info.si_pid);
				json_number("status", status_of(&info));
				json_end();
			}
		}
		info.si_pid = 0;
	}
}

static void stop(struct supervisor *super)
{
	kill(-super->child, SIGKILL);
	kill(super->child, SIGKILL);
}

/* ---- stdin ---- */

static void obey(struct supervisor *super, const char *line)
{
	if (!*line)
		return;
	if (!super->ours)
		json_error(EAGAIN, "wait for the ready line", "the lock is not ours yet");
	else if (!strncmp(line, "start ", 6))
		start(super, line + 6);
	else if (strcmp(line, "stop"))
		json_error(EINVAL, "start LINE | stop | an empty line", "cannot do %.80s", line);
	else if (super->child)
		stop(super);
	else
		json_error(ESRCH, NULL, "nothing runs");
}

/* Takes what is there; false at the end. A line that the end cuts short is not obeyed. */
static bool hear(struct supervisor *super)
{
	ssize_t got = read(STDIN_FILENO, super->line + super->used, LINE_SIZE - super->used);
	char *begin = super->line, *end;

	if (got < 0)
		return errno == EINTR || errno == EAGAIN;
	if (!got)
		return false;
	super->used += (size_t)got;
	while ((end = memchr(begin, '\n', super->used - (size_t)(begin - super->line)))) {
		*end = 0;
		super->heard_ms = now_ms();
		if (super->too_long)
			json_error(E2BIG, NULL, "a line of more than %d bytes", LINE_SIZE - 1);
		else
			obey(super, begin);
		super->too_long = false;
		begin = end + 1;
	}
	super->used -= (size_t)(begin - super->line);
	memmove(super->line, begin, super->used);
	if (super->used == LINE_SIZE) {
		super->too_long = true;
		super->used = 0;
	}
	return true;
}

/*
 * Waits until something happens, for `most_ms` (-1: as long as it takes), and sees to it.
 * False if it is time to end.
 */
static bool attend(struct supervisor *super, long most_ms)
{
	struct pollfd ends[] = {
		{ .fd = STDIN_FILENO, .events = POLLIN },
		{ .fd = STDOUT_FILENO },
	};
	long left = super->heard_ms + super->within_ms - now_ms();
	struct timespec limit;
	sigset_t none;
	int count;

	if (left < 0)
		left = 0;
	if (most_ms >= 0 && most_ms < left)
		left = most_ms;
	limit = (struct timespec){ left / 1000, left % 1000 * 1000000 };
	sigemptyset(&none);
	count = ppoll(ends, 2, &limit, &none);
	if (count < 0 && errno != EINTR) {
		say(super, "poll: %s", strerror(errno));
		return false;
	}
	reap(super);
	if (count > 0 && ends[0].revents && !hear(super))
		return false;
	if ((count > 0 && ends[1].revents) || ferror(stdout)) {
		say(super, "nobody reads the answers any more");
		return false;
	}
	if (count >= 0 && now_ms() - super->heard_ms >= super->within_ms) {
		say(super, "no line came for %ld seconds", super->within_ms / 1000);
		return false;
	}
	return true;
}

/* ---- the lock and the folder ---- */

static void print_waiting(const struct supervisor *super)
{
	char holder[256];
	ssize_t got = pread(super->lock, holder, sizeof(holder) - 1, 0);

	holder[got < 0 ? 0 : got] = 0;
	holder[strcspn(holder, "\n")] = 0;
	json_begin("waiting");
	json_text("holder", holder[0] ? holder : "unknown");
	json_end();
}

static void write_holder(struct supervisor *super)
{
	char text[256];
	int length = snprintf(text, sizeof(text) - 1, "%.160s, pid %d, since %s", super->who,
			      getpid(), iso_now());

	text[length] = '\n';
	if (ftruncate(super->lock, 0) < 0 || pwrite(super->lock, text, (size_t)length + 1, 0) < 0)
		say(super, "%s: %s", super->lock_path, strerror(errno));
}

/* An empty holder is better than a former one; the last of those who share the lock sees to it. */
static void clear_holder(const struct supervisor *super)
{
	if (flock(super->lock, LOCK_EX | LOCK_NB) == 0 && ftruncate(super->lock, 0) < 0)
		return;
}

/* False if it is time to end; `status` is then what the verb returns. */
static bool take_lock(struct supervisor *super, int *status)
{
	bool told = false;

	*status = FAILED;
	super->lock = open(super->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (super->lock < 0) {
		json_error(errno, "make its folder, or take the user whose file it is", "open %s",
			   super->lock_path);
		return false;
	}
	while (flock(super->lock, (super->exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK) {
			json_error(errno, NULL, "flock %s", super->lock_path);
			return false;
		}
		if (!told)
			print_waiting(super);
		told = true;
		if (!attend(super, RETRY_MS))
			return false;
	}
	super->ours = true;
	write_holder(super);
	return true;
}

static void open_log(struct supervisor *super)
{
	char path[PATH_MAX];
	struct stat file;

	snprintf(path, sizeof(path), "%s.log", super->lock_path);
	super->log = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (super->log >= 0 && !fstat(super->log, &file) && file.st_size > LOG_SIZE &&
	    ftruncate(super->log, 0) < 0)
		say(super, "%s: %s", path, strerror(errno));
}

static bool make_folder(const char *path)
{
	struct stat file;

	if (mkdir(path, 0700) == 0)
		return true;
	if (errno != EEXIST || lstat(path, &file) < 0)
		return json_error(errno, NULL, "mkdir %s", path) == DONE;
	if (!S_ISDIR(file.st_mode) || file.st_uid != geteuid())
		return json_error(EEXIST, "remove it, or name another folder",
				  "%s is not a folder of ours", path) == DONE;
	if (chmod(path, 0700) < 0)
		return json_error(errno, NULL, "chmod %s", path) == DONE;
	return true;
}

static int remove_one(const char *path, const struct stat *file, int kind, struct FTW *place)
{
	(void)file;
	(void)kind;
	(void)place;
	remove(path); /* what stays makes the folder stay, which is told */
	return 0;
}

/* ---- the end ---- */

/* Lets stderr have what COMMAND has written to the log. */
static void copy_log(struct supervisor *super, off_t from)
{
	char text[1024]; /* less than a pipe takes at once */
	ssize_t got;

	while ((got = pread(super->log, text, sizeof(text), from)) > 0 &&
	       writable(STDERR_FILENO, 1000) && write(STDERR_FILENO, text, (size_t)got) == got)
		from += got;
}

static bool run_finally(struct supervisor *super)
{
	off_t from = super->log < 0 ? 0 : lseek(super->log, 0, SEEK_END);
	pid_t pid = fork();
	int status = -1;

	if (!pid) {
		reset_signals();
		setsid(); /* no signal of the connection's reaches it */
		run_shell(super->finally, super->log);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (super->log >= 0)
		copy_log(super, from);
	if (status)
		say(super, "the last command ended with status %d: %s",
		    WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
		    super->finally);
	return !status;
}

/* Puts everything away; true if nothing is left. */
static bool finish(struct supervisor *super)
{
	struct timespec pause = { .tv_nsec = 10 * 1000000 };
	long last = now_ms() + KILL_MS;
	bool good = true;

	if (super->child)
		stop(super);
	for (reap(super); super->child && now_ms() < last; reap(super))
		nanosleep(&pause, NULL);
	if (super->child) {
		say(super, "%d was killed but does not go", super->child);
		good = false;
	}
	end_others(super, super->child);
	if (super->finally)
		good = run_finally(super) && good;
	nftw(super->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	if (access(super->folder, F_OK) == 0) {
		say(super, "%s cannot be removed", super->folder);
		good = false;
	}
	clear_holder(super);
	return good;
}

int verb_supervise(int argc, char **argv)
{
	static struct supervisor super = { .lock = -1, .log = -1 };
	const char *within = option(argc, argv, "--within");
	int status;

	super.lock_path = option(argc, argv, "--lock");
	super.folder = option(argc, argv, "--folder");
	super.finally = option(argc, argv, "--finally");
	super.who = option(argc, argv, "--who");
	super.exclusive = given(argc, argv, "--exclusive");
	super.within_ms = within ? atol(within) * 1000 : 0;
	if (!super.lock_path || !super.folder || super.within_ms <= 0)
		return MISUSED;
	if (!super.who)
		super.who = "unknown";
	set_signals();
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	super.heard_ms = now_ms();
	if (!take_lock(&super, &status))
		return status;
	open_log(&super);
	if (!make_folder(super.folder)) {
		clear_holder(&super);
		return FAILED;
	}
	json_begin("ready");
	json_number("pid", getpid());
	json_end();
	while (attend(&super, -1))
		;
	return finish(&super) ? DONE : FAILED;
}
