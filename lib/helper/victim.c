// SPDX-License-Identifier: GPL-2.0-only
/*
 * victim
 *
 * A user process whose spinning thread takes exceptions as signals and goes on. Prints
 *   {"type":"ready","pid","r15","rip_first","rip_last","int3","spare"}
 * once it spins (R15 and RIP are how L0 knows it on the vCPU; at `int3` is its INT3, at `spare` an
 * instruction that nobody executes), and then answers each line:
 *
 *   state         -> {"type":"victim","alive","heartbeat","count","signals":[{"signo","name",
 *                    "code","addr","trapno","error_code"}]}, the last ones first come first
 *   wait N        -> the same after N more turns of the loop, and "advanced"
 *   waitsignal N  -> the same once there were N signals since `clear`, and "reached"
 *   clear         -> forgets the signals; the same
 *   trap N        -> it executes an INT3 after N more turns; no answer, for it may come to none
 *   quit, or the end of stdin
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "helper.h"
#include "json.h"

#define MARK 0x6c32676174654c31 /* "l2gateL1" */
#define KEPT 64
#define WAIT_SECONDS 10

/*
 * Counts at (%rdi) for ever, and executes one INT3 once the count is that at 8(%rdi). The jumps
 * behind the first catch a CPU that steps over one: KVM does so to tell where #BP, which it takes
 * for an INT3, has come from.
 */
__asm__(".globl victim_loop, victim_first, victim_last\n"
	"victim_loop:\n"
	"	movabs $0x6c32676174654c31, %r15\n"
	"victim_first:\n"
	"	incq (%rdi)\n"
	"	mov (%rdi), %rax\n"
	"	cmp 8(%rdi), %rax\n"
	"	jb victim_first\n"
	"	movq $-1, 8(%rdi)\n"
	".globl victim_int3\n"
	"victim_int3:\n"
	"	int3\n"
	"	jmp victim_first\n"
	"	jmp victim_first\n"
	"	jmp victim_first\n"
	"victim_last:\n"
	"	jmp victim_first\n"
	".globl victim_spare\n"
	"victim_spare:\n"
	"	nop\n");
extern void victim_loop(volatile uint64_t *count);
extern const char victim_first[], victim_last[], victim_int3[], victim_spare[];

struct taken {
	int signo, code;
	uint64_t address, trap, error;
};

static volatile uint64_t beats[2] = { 0, UINT64_MAX }; /* turns so far; when to INT3 */
static struct taken taken[KEPT];
static volatile sig_atomic_t count;

static void take(int signo, siginfo_t *info, void *context)
{
	const greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	taken[count % KEPT] = (struct taken){
		.signo = signo,
		.code = info->si_code,
		.address = (uint64_t)info->si_addr,
		.trap = (uint64_t)regs[REG_TRAPNO],
		.error = (uint64_t)regs[REG_ERR],
	};
	count = count + 1;
}

static void *spin(void *unused)
{
	static uint8_t stack[65536];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };

	(void)unused;
	sigaltstack(&alternate, NULL);
	victim_loop(beats);
	return NULL;
}

static bool urgent; /* the thread that answers; the spinning one is not */

static bool wait_until(uint64_t more, long signals)
{
	uint64_t start = beats[0];
	double end = seconds() + WAIT_SECONDS;

	while ((beats[0] - start < more || count < signals) && seconds() < end)
		let_others_run(urgent);
	return beats[0] - start >= more && count >= signals;
}

static const char *signal_name(int signo)
{
	static char name[24];

	snprintf(name, sizeof(name), "SIG%s", sigabbrev_np(signo));
	return name;
}

static void print_victim(const char *key, bool value)
{
	long from = count > KEPT ? count - KEPT : 0;

	json_begin("victim");
	json_bool("alive", true);
	json_number("heartbeat", (long long)beats[0]);
	json_number("count", count);
	json_list("signals");
	for (long i = from; i < count; i++) {
		const struct taken *one = &taken[i % KEPT];

		json_object(NULL);
		json_number("signo", one->signo);
		json_text("name", signal_name(one->signo));
		json_number("code", one->code);
		json_hex("addr", one->address);
		json_number("trapno", (long long)one->trap);
		json_hex("error_code", one->error);
		json_close_object();
	}
	json_close_list();
	if (key)
		json_bool(key, value);
	json_end();
}

static void converse(void)
{
	char line[128];

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strcmp(line, "quit"))
			return;
		if (!strncmp(line, "wait ", 5))
			print_victim("advanced", wait_until(strtoull(line + 5, NULL, 0), 0));
		else if (!strncmp(line, "waitsignal ", 11))
			print_victim("reached", wait_until(0, atol(line + 11)));
		else if (!strcmp(line, "clear")) {
			count = 0;
			print_victim(NULL, false);
		} else if (!strncmp(line, "trap ", 5)) {
			beats[1] = beats[0] + strtoull(line + 5, NULL, 0);
		} else if (!strcmp(line, "state"))
			print_victim(NULL, false);
		else
			json_error(EINVAL, "state | wait N | waitsignal N | clear | trap N | quit",
				   "cannot do %s", line);
	}
}

int verb_victim(int argc, char **argv)
{
	static const int signals[] = { SIGILL, SIGFPE, SIGSEGV, SIGTRAP, SIGBUS };
	struct sigaction action = { .sa_sigaction = take, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	pthread_t thread;

	(void)argc;
	(void)argv;
	for (size_t i = 0; i < COUNT(signals); i++)
		sigaction(signals[i], &action, NULL);
	if (pthread_create(&thread, NULL, spin, NULL) != 0 || !wait_until(1, 0))
		return json_error(errno, NULL, "the spinning thread does not start");
	urgent = become_urgent();
	json_begin("ready");
	json_number("pid", getpid());
	json_hex("r15", MARK);
	json_hex("rip_first", (uint64_t)victim_first);
	json_hex("rip_last", (uint64_t)victim_last);
	json_hex("int3", (uint64_t)victim_int3);
	json_hex("spare", (uint64_t)victim_spare);
	json_end();
	converse();
	return DONE;
}
