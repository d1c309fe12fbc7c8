// SPDX-License-Identifier: GPL-2.0-only
/* Running ioctls inside another process; see tracee.h. */
#include <ctype.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tracee.h"

#define STOP_SECONDS 20 /* an emulated machine is slow; a stopped vCPU answers at once */
#define RED_ZONE 128
#define FRAME_ROOM 24576 /* the frame and the largest FPU state (AMX: 11 KiB) */

/* What the interrupted system call left in rax for the kernel's own restart (linux/errno.h). */
enum { RESTARTSYS = -512, RESTARTNOINTR = -513, RESTARTNOHAND = -514, RESTART_BLOCK = -516 };

/* The kernel's signal frame from the ucontext on (arch/x86/include/uapi/asm/sigcontext.h). */
struct frame {
	uint64_t return_address;
	uint64_t uc_flags, uc_link;
	uint64_t stack_pointer;
	int32_t stack_flags, stack_padding;
	uint64_t stack_size;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t di, si, bp, bx, dx, ax, cx, sp, ip, flags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
	uint64_t signal_mask;
};

enum { UC_XSTATE = 1, UC_CONTEXT_SS = 2, UC_RESTORE_SS = 4 };

/* How the kernel marks a full XSAVE area in a signal frame (same header, _fpx_sw_bytes). */
struct xstate_mark {
	uint32_t magic1, extended_size;
	uint64_t features;
	uint32_t size, padding[7];
};

#define XSTATE_MARK_OFFSET 464
#define XSTATE_MAGIC1 0x46505853U
#define XSTATE_MAGIC2 0x46505845U

static bool problem(struct tracee *tracee, int number, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static bool problem(struct tracee *tracee, int number, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(tracee->problem, sizeof(tracee->problem), format, arguments);
	va_end(arguments);
	tracee->problem_errno = number;
	return false;
}

static bool peek(const struct tracee *tracee, uint64_t from, void *into, size_t size)
{
	struct iovec here = { into, size }, there = { (void *)from, size };

	return process_vm_readv(tracee->pid, &here, 1, &there, 1, 0) == (ssize_t)size;
}

static bool poke(const struct tracee *tracee, uint64_t to, const void *from, size_t size)
{
	struct iovec here = { (void *)from, size }, there = { (void *)to, size };

	return process_vm_writev(tracee->pid, &here, 1, &there, 1, 0) == (ssize_t)size;
}

/* --- finding the thread and the instructions ------------------------------------------------ */

/* The thread that QEMU calls "CPU N/KVM", else the first one. */
static pid_t vcpu_thread(pid_t pid, int vcpu)
{
	char path[300], name[32], wanted[32];
	struct dirent *entry;
	pid_t found = 0;
	DIR *dir;

	snprintf(wanted, sizeof(wanted), "CPU %d/KVM\n", vcpu);
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir))) {
		FILE *file;

		snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", pid, entry->d_name);
		file = isdigit((unsigned char)entry->d_name[0]) ? fopen(path, "re") : NULL;
		if (file && fgets(name, sizeof(name), file) && !strcmp(name, wanted))
			found = atoi(entry->d_name);
		if (file)
			fclose(file);
	}
	if (dir)
		closedir(dir);
	return found ? found : pid;
}

static uint64_t find_bytes(const uint8_t *code, size_t size, const void *wanted, size_t length)
{
	const uint8_t *at = memmem(code, size, wanted, length);

	return at ? (uint64_t)(at - code) + 1 : 0;
}

static void search_mapping(struct tracee *tracee, uint64_t start, uint64_t end)
{
	static const uint8_t syscall_ret[] = { 0x0f, 0x05, 0xc3 };
	static const uint8_t long_form[] = { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05 };
	static const uint8_t short_form[] = { 0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05 };
	size_t size = end - start;
	uint8_t *code = malloc(size);
	uint64_t at;

	if (code && peek(tracee, start, code, size)) {
		at = find_bytes(code, size, syscall_ret, sizeof(syscall_ret));
		if (at && !tracee->syscall_ret)
			tracee->syscall_ret = start + at - 1;
		at = find_bytes(code, size, long_form, sizeof(long_form));
		if (!at)
			at = find_bytes(code, size, short_form, sizeof(short_form));
		if (at && !tracee->restorer)
			tracee->restorer = start + at - 1;
	}
	free(code);
}

static bool find_instructions(struct tracee *tracee)
{
	char path[64], line[512], rights[8];
	unsigned long long start, end;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", tracee->pid);
	maps = fopen(path, "re");
	if (!maps)
		return problem(tracee, errno, "cannot read %s", path);
	/* libc first: scanning all of QEMU's own text takes an emulated machine a while */
	for (int pass = 0; pass < 2; pass++) {
		rewind(maps);
		while (fgets(line, sizeof(line), maps)) {
			bool libc = strstr(line, "/libc.so") || strstr(line, "/libc-");

			if (libc != (pass == 0) || strstr(line, "[vsyscall]") ||
			    sscanf(line, "%llx-%llx %7s", &start, &end, rights) != 3 ||
			    rights[2] != 'x')
				continue;
			if (!tracee->syscall_ret || !tracee->restorer)
				search_mapping(tracee, start, end);
		}
	}
	fclose(maps);
	if (tracee->syscall_ret && tracee->restorer)
		return true;
	return problem(tracee, 0, "process %d has no `syscall; ret` or no rt_sigreturn to borrow",
		       tracee->pid);
}

bool tracee_find(struct tracee *tracee, pid_t pid, pid_t tid, int vcpu)
{
	memset(tracee, 0, sizeof(*tracee));
	tracee->pid = pid;
	if (kill(pid, 0) != 0 && errno == ESRCH)
		return problem(tracee, ESRCH, "there is no process %d", pid);
	tracee->tid = tid ? tid : vcpu_thread(pid, vcpu);
	return find_instructions(tracee);
}

/* --- stopping it ---------------------------------------------------------------------------- */

static volatile sig_atomic_t alarms;

static void at_alarm(int signo)
{
	(void)signo;
	alarms = alarms + 1;
}

/* Lets SIGALRM interrupt a wait each second, so that it looks whether it has waited too long. */
static void count_seconds(bool on)
{
	struct sigaction action = { .sa_handler = at_alarm };
	struct itimerval each = { .it_interval.tv_sec = on, .it_value.tv_sec = on };
	sigset_t alarm;

	sigaction(SIGALRM, &action, NULL);
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	sigprocmask(SIG_UNBLOCK, &alarm, NULL);
	setitimer(ITIMER_REAL, &each, NULL);
}

/* Waits for the next stop, not longer than STOP_SECONDS; count_seconds must be on. */
static bool wait_stop(struct tracee *tracee, int *status)
{
	sig_atomic_t start = alarms;

	for (;;) {
		pid_t got = waitpid(tracee->tid, status, __WALL);

		if (got == tracee->tid && WIFSTOPPED(*status))
			return true;
		if (got >= 0 || errno != EINTR) {
			tracee->attached = false;
			return problem(tracee, ESRCH, "thread %d is gone", tracee->tid);
		}
		if (alarms - start > STOP_SECONDS)
			return problem(tracee, ETIMEDOUT, "thread %d did not stop within %d s",
				       tracee->tid, STOP_SECONDS);
	}
}

/* Lets it run to its next stop of the wanted kind; signals that come first are passed on. */
static bool run_to_stop(struct tracee *tracee, int how, int wanted)
{
	int signal = 0, status;

	for (;;) {
		if (ptrace(how, tracee->tid, 0, signal) != 0)
			return problem(tracee, errno, "ptrace on thread %d", tracee->tid);
		if (!wait_stop(tracee, &status))
			return false;
		if (WSTOPSIG(status) == wanted)
			return true;
		signal = status >> 16 ? 0 : WSTOPSIG(status);
	}
}

static bool interrupt(struct tracee *tracee)
{
	int status;

	if (ptrace(PTRACE_INTERRUPT, tracee->tid, 0, 0) != 0)
		return problem(tracee, errno, "PTRACE_INTERRUPT of thread %d", tracee->tid);
	if (!wait_stop(tracee, &status))
		return false;
	while (status >> 16 != PTRACE_EVENT_STOP) {
		if (ptrace(PTRACE_CONT, tracee->tid, 0, WSTOPSIG(status)) != 0)
			return problem(tracee, errno, "PTRACE_CONT of thread %d", tracee->tid);
		if (!wait_stop(tracee, &status))
			return false;
	}
	return true;
}

/* --- laying out the frame ------------------------------------------------------------------- */

/* As the kernel would: a system call that a stop interrupted is made again (signal.c). */
static void apply_restart(struct user_regs_struct *regs)
{
	long result = (long)regs->rax;

	if ((long)regs->orig_rax >= 0) {
		if (result == RESTARTSYS || result == RESTARTNOINTR || result == RESTARTNOHAND) {
			regs->rax = regs->orig_rax;
			regs->rip -= 2;
		} else if (result == RESTART_BLOCK) {
			regs->rax = SYS_restart_syscall;
			regs->rip -= 2;
		}
	}
	regs->orig_rax = (unsigned long)-1;
}

/*
 * Whether [start, end) is all in one writable mapping of the tracee. QEMU has hundreds of mappings,
 * and one thread's stack stays where it is: it is looked for once.
 */
static bool writable(struct tracee *tracee, uint64_t start, uint64_t end)
{
	char path[64], line[512], rights[8];
	unsigned long long from, to;
	FILE *maps;

	if (tracee->stack_from <= start && end <= tracee->stack_to)
		return true;
	snprintf(path, sizeof(path), "/proc/%d/maps", tracee->pid);
	maps = fopen(path, "re");
	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%llx-%llx %7s", &from, &to, rights) == 3 && rights[1] == 'w' &&
		    from <= start && end <= to) {
			tracee->stack_from = from;
			tracee->stack_to = to;
			break;
		}
	if (maps)
		fclose(maps);
	return tracee->stack_from <= start && end <= tracee->stack_to;
}

static bool save_fpu(struct tracee *tracee, uint64_t place)
{
	static uint8_t state[FRAME_ROOM - 2048] __attribute__((aligned(64)));
	struct iovec vector = { state, sizeof(state) - 64 }; /* room for the second mark */
	struct xstate_mark mark = { .magic1 = XSTATE_MAGIC1 };
	uint32_t magic2 = XSTATE_MAGIC2;

	if (ptrace(PTRACE_GETREGSET, tracee->tid, NT_X86_XSTATE, &vector) != 0)
		return problem(tracee, errno, "reading the FPU state of thread %d", tracee->tid);
	memcpy(&mark.features, state + XSTATE_MARK_OFFSET, 8);
	mark.size = (uint32_t)vector.iov_len;
	mark.extended_size = mark.size + 4;
	memcpy(state + XSTATE_MARK_OFFSET, &mark, sizeof(mark));
	memcpy(state + vector.iov_len, &magic2, 4);
	return poke(tracee, place, state, vector.iov_len + 4) ||
	       problem(tracee, errno, "writing to the stack of thread %d", tracee->tid);
}

static bool lay_frame(struct tracee *tracee)
{
	const struct user_regs_struct *r = &tracee->original;
	uint64_t fpu = (r->rsp - RED_ZONE - FRAME_ROOM + 2048) & ~63ULL;
	struct frame frame = {
		.return_address = tracee->restorer,
		.uc_flags = UC_XSTATE | UC_CONTEXT_SS | UC_RESTORE_SS,
		.stack_flags = 0x7f, /* not a valid mode: the alternate stack stays as it is */
		.r8 = r->r8,
		.r9 = r->r9,
		.r10 = r->r10,
		.r11 = r->r11,
		.r12 = r->r12,
		.r13 = r->r13,
		.r14 = r->r14,
		.r15 = r->r15,
		.di = r->rdi,
		.si = r->rsi,
		.bp = r->rbp,
		.bx = r->rbx,
		.dx = r->rdx,
		.ax = r->rax,
		.cx = r->rcx,
		.sp = r->rsp,
		.ip = r->rip,
		.flags = r->eflags,
		.cs = (uint16_t)r->cs,
		.ss = (uint16_t)r->ss,
		.fpstate = fpu,
		.signal_mask = tracee->signal_mask,
	};

	tracee->frame = ((r->rsp - RED_ZONE - FRAME_ROOM) & ~63ULL) + 8;
	tracee->scratch = ((tracee->frame - TRACEE_ARGUMENT) & ~63ULL) - 64;
	if (!writable(tracee, tracee->scratch, r->rsp))
		return problem(tracee, 0, "thread %d has too little stack below what it uses",
			       tracee->tid);
	if (!poke(tracee, tracee->frame, &frame, sizeof(frame)))
		return problem(tracee, errno, "writing to the stack of thread %d", tracee->tid);
	return save_fpu(tracee, fpu);
}

/* --- the verbs of tracee.h ------------------------------------------------------------------ */

/* Lets it make a system call with the scratch room as its third argument, and then return into the
   frame. */
static bool aim(struct tracee *tracee, unsigned long number, unsigned long first,
		unsigned long second)
{
	struct user_regs_struct *call = &tracee->call;

	*call = tracee->original;
	call->rip = tracee->syscall_ret;
	call->rsp = tracee->frame;
	call->rax = number;
	call->rdi = first;
	call->rsi = second;
	call->rdx = tracee->scratch;
	call->orig_rax = (unsigned long)-1;
	return ptrace(PTRACE_SETREGS, tracee->tid, 0, call) == 0 ||
	       problem(tracee, errno, "setting the registers of thread %d", tracee->tid);
}

/*
 * Its signals are blocked only while it is on its way into the frame, which unblocks them: a vCPU's
 * thread that lost its tracer with all of them blocked could never be stopped again.
 */
bool tracee_attach(struct tracee *tracee)
{
	uint64_t all = ~0ULL;

	if (ptrace(PTRACE_SEIZE, tracee->tid, 0, PTRACE_O_TRACESYSGOOD) != 0)
		return problem(tracee, errno, "PTRACE_SEIZE of thread %d", tracee->tid);
	tracee->attached = true;
	count_seconds(true);
	if (!interrupt(tracee))
		return false;
	if (ptrace(PTRACE_GETREGS, tracee->tid, 0, &tracee->original) != 0 ||
	    ptrace(PTRACE_GETSIGMASK, tracee->tid, 8, &tracee->signal_mask) != 0) {
		problem(tracee, errno, "reading the registers of thread %d", tracee->tid);
		ptrace(PTRACE_DETACH, tracee->tid, 0, 0);
		tracee->attached = false;
		count_seconds(false);
		return false;
	}
	apply_restart(&tracee->original);
	if (lay_frame(tracee) && aim(tracee, SYS_gettid, 0, 0) &&
	    (ptrace(PTRACE_SETSIGMASK, tracee->tid, 8, &all) == 0 ||
	     problem(tracee, errno, "blocking signals of thread %d", tracee->tid)))
		return true;
	tracee_detach(tracee);
	return false;
}

void tracee_detach(struct tracee *tracee)
{
	if (!tracee->attached)
		return;
	/* in this order: see tracee_attach */
	ptrace(PTRACE_SETSIGMASK, tracee->tid, 8, &tracee->signal_mask);
	ptrace(PTRACE_SETREGS, tracee->tid, 0, &tracee->original);
	ptrace(PTRACE_DETACH, tracee->tid, 0, 0);
	tracee->attached = false;
	count_seconds(false);
}

long tracee_again(struct tracee *tracee, bool *ran)
{
	long result;

	*ran = false;
	if (ptrace(PTRACE_SETREGS, tracee->tid, 0, &tracee->call) != 0) {
		problem(tracee, errno, "setting the registers of thread %d", tracee->tid);
		return 0;
	}
	/* to the system call's entry, then to its exit; never by single steps: 4.12 warns */
	for (int stop = 0; stop < 2; stop++)
		if (!run_to_stop(tracee, PTRACE_SYSCALL, SIGTRAP | 0x80))
			return 0;
	errno = 0;
	result = ptrace(PTRACE_PEEKUSER, tracee->tid, offsetof(struct user, regs.rax), 0);
	if (errno) {
		problem(tracee, errno, "reading the answer of thread %d", tracee->tid);
		return 0;
	}
	*ran = true;
	return result;
}

long tracee_ioctl(struct tracee *tracee, int fd, unsigned long request, void *argument, size_t size,
		  bool *ran)
{
	long result;

	*ran = false;
	if (!poke(tracee, tracee->scratch, argument, size)) {
		problem(tracee, errno, "writing to the stack of thread %d", tracee->tid);
		return 0;
	}
	if (!aim(tracee, SYS_ioctl, (unsigned long)fd, request))
		return 0;
	result = tracee_again(tracee, ran);
	if (*ran && !peek(tracee, tracee->scratch, argument, size)) {
		problem(tracee, errno, "reading the answer of thread %d", tracee->tid);
		*ran = false;
	}
	return result;
}
