// SPDX-License-Identifier: GPL-2.0-only
/*
 * l2
 *
 * Runs the tiny nested guest (l2_guest.S) on this machine's KVM. Prints
 *   {"type":"ready","cr3","rip_first","rip_last","r15","r14","pid"}
 * once its heart beats, and then answers each line of stdin with one line:
 *
 *   state   -> {"type":"l2","alive","heartbeat","hits":[{"vector","count","has_error_code",
 *              "error_code","cr2","dr6","rip"}],"order":[...],"last_exit":{...},"exits"}
 *   wait N  -> the same once the heart has beaten N times more, and "advanced": whether it did
 *   clear   -> forgets the hits; the same
 *   trap N  -> L2 executes an INT3 after N more beats; no answer, for it may never come to one
 *   quit    -> {"type":"bye"}; so does the end of stdin
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "helper.h"
#include "json.h"
#include "l2.h"
#include "vm.h"

#define WAIT_SECONDS 10

extern const uint8_t l2_guest_start[], l2_guest_end[], l2_guest_stubs[];

#define VECTORS 256

static struct {
	struct vm vm;
	struct memory data, code;
	volatile bool dead;
	volatile int run_errno;
	volatile unsigned long exits;
} l2 = {
	.data = { .gpa = L2_DATA, .size = L2_DATA_SIZE },
	.code = { .gpa = L2_CODE, .size = L2_CODE_SIZE },
};

static const struct flat flat = {
	.cr3 = L2_CR3,
	.gdt = L2_GDT,
	.idt = L2_IDT,
	.tss = L2_TSS,
	.idt_limit = VECTORS * 16 - 1,
};

static volatile uint64_t *shared(size_t offset)
{
	return memory_at(&l2.data, L2_SHARED + offset);
}

static volatile uint64_t *record(int vector, size_t offset)
{
	return shared(L2_RECORDS + ((size_t)vector << L2_RECORD_SHIFT) + offset);
}

/* --- building the VM ------------------------------------------------------------------------ */

static bool set_registers(void)
{
	struct kvm_regs regs = { .rip = L2_CODE, .rsp = L2_STACK_TOP, .rflags = RFLAGS_FLAT };
	struct kvm_sregs sregs;

	if (ioctl(l2.vm.vcpu, KVM_GET_SREGS, &sregs) != 0)
		return false;
	flat_sregs(&sregs, &flat);
	return ioctl(l2.vm.vcpu, KVM_SET_SREGS, &sregs) == 0 &&
	       ioctl(l2.vm.vcpu, KVM_SET_REGS, &regs) == 0;
}

static bool build_memory(void)
{
	return vm_allocate(&l2.vm, &l2.data) && vm_allocate(&l2.vm, &l2.code) &&
	       vm_add_memory(&l2.vm, 0, &l2.data) && vm_add_memory(&l2.vm, 1, &l2.code);
}

/* PML4, PDPT and PD lie in a row from L2_CR3. */
static void fill_memory(void)
{
	memcpy(l2.code.host, l2_guest_start, (size_t)(l2_guest_end - l2_guest_start));
	flat_page_tables(&l2.data, L2_CR3, L2_CR3 + 0x1000, L2_CR3 + 0x2000, PAGE_KERNEL);
	flat_descriptors(&l2.data, &flat, GATE_INTERRUPT,
			 L2_CODE + (uint64_t)(l2_guest_stubs - l2_guest_start), VECTORS);
	*shared(L2_TRAP) = UINT64_MAX;
}

static bool build(void)
{
	if (!vm_create(&l2.vm, "the tiny L2", "L1 needs /dev/kvm with a working vendor module") ||
	    !build_memory() || !vm_create_vcpu(&l2.vm))
		return false;
	fill_memory();
	return set_registers() || vm_fail(&l2.vm, "KVM_SET_SREGS");
}

/* --- running it ----------------------------------------------------------------------------- */

static void *run_loop(void *unused)
{
	(void)unused;
	for (;;) {
		int result = ioctl(l2.vm.vcpu, KVM_RUN, 0);

		l2.exits++;
		if (result < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (result == 0 && l2.vm.run->exit_reason == KVM_EXIT_INTR)
			continue;
		l2.run_errno = result < 0 ? errno : 0;
		l2.dead = true;
		return NULL;
	}
}

static const char *exit_name(uint32_t reason)
{
	switch (reason) {
	case KVM_EXIT_UNKNOWN: return "KVM_EXIT_UNKNOWN";
	case KVM_EXIT_EXCEPTION: return "KVM_EXIT_EXCEPTION";
	case KVM_EXIT_IO: return "KVM_EXIT_IO";
	case KVM_EXIT_DEBUG: return "KVM_EXIT_DEBUG";
	case KVM_EXIT_HLT: return "KVM_EXIT_HLT";
	case KVM_EXIT_MMIO: return "KVM_EXIT_MMIO";
	case KVM_EXIT_SHUTDOWN: return "KVM_EXIT_SHUTDOWN";
	case KVM_EXIT_FAIL_ENTRY: return "KVM_EXIT_FAIL_ENTRY";
	case KVM_EXIT_INTR: return "KVM_EXIT_INTR";
	case KVM_EXIT_INTERNAL_ERROR: return "KVM_EXIT_INTERNAL_ERROR";
	default: return "another";
	}
}

static bool urgent; /* the thread that answers; L2's is not */

static bool wait_beats(uint64_t more)
{
	uint64_t start = *shared(L2_HEARTBEAT);
	double end = seconds() + WAIT_SECONDS;

	while (*shared(L2_HEARTBEAT) - start < more && !l2.dead && seconds() < end)
		let_others_run(urgent);
	return *shared(L2_HEARTBEAT) - start >= more;
}

/* --- the conversation ----------------------------------------------------------------------- */

static void print_hit(int vector)
{
	json_object(NULL);
	json_number("vector", vector);
	json_number("count", (long long)*record(vector, L2_COUNT));
	json_bool("has_error_code", *record(vector, L2_HAS_CODE));
	json_hex("error_code", *record(vector, L2_CODE_VALUE));
	json_hex("cr2", *record(vector, L2_CR2));
	json_hex("dr6", *record(vector, L2_DR6));
	json_hex("rip", *record(vector, L2_RIP));
	json_close_object();
}

static void print_order(void)
{
	uint64_t hits = *shared(L2_HITS);

	json_list("order");
	for (uint64_t i = hits > 16 ? hits - 16 : 0; i < hits; i++)
		json_number(NULL, (long long)*shared(L2_ORDER + 8 * (i & 15)));
	json_close_list();
}

static void print_l2(const bool *advanced)
{
	json_begin("l2");
	json_bool("alive", !l2.dead);
	json_number("heartbeat", (long long)*shared(L2_HEARTBEAT));
	json_list("hits");
	for (int vector = 0; vector < VECTORS; vector++)
		if (*record(vector, L2_COUNT))
			print_hit(vector);
	json_close_list();
	print_order();
	json_object("last_exit");
	json_number("reason", l2.vm.run->exit_reason);
	json_text("name", exit_name(l2.vm.run->exit_reason));
	json_text("errno", errno_name(l2.run_errno));
	json_close_object();
	json_number("exits", (long long)l2.exits);
	if (advanced)
		json_bool("advanced", *advanced);
	json_end();
}

static void clear_hits(void)
{
	memset((void *)shared(L2_RECORDS), 0, VECTORS << L2_RECORD_SHIFT);
	*shared(L2_HITS) = 0;
}

static void converse(void)
{
	char line[128];

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strcmp(line, "quit"))
			return;
		if (!strncmp(line, "wait ", 5)) {
			bool advanced = wait_beats(strtoull(line + 5, NULL, 0));

			print_l2(&advanced);
			continue;
		}
		if (!strncmp(line, "trap ", 5)) {
			*shared(L2_TRAP) = *shared(L2_HEARTBEAT) + strtoull(line + 5, NULL, 0);
			continue;
		}
		if (!strcmp(line, "clear"))
			clear_hits();
		else if (strcmp(line, "state")) {
			json_error(EINVAL, "state | wait N | clear | trap N | quit", "cannot do %s",
				   line);
			continue;
		}
		print_l2(NULL);
	}
}

int verb_l2(int argc, char **argv)
{
	pthread_t thread;

	(void)argc;
	(void)argv;
	if (!build())
		return FAILED;
	if (pthread_create(&thread, NULL, run_loop, NULL) != 0 || !wait_beats(1)) {
		json_error(l2.run_errno, "see L1's and L0's consoles",
			   "the tiny guest does not start: %s", exit_name(l2.vm.run->exit_reason));
		return FAILED;
	}
	urgent = become_urgent();
	json_begin("ready");
	json_hex("cr3", L2_CR3);
	json_hex("rip_first", L2_CODE);
	json_hex("rip_last", L2_CODE + (uint64_t)(l2_guest_end - l2_guest_start));
	json_hex("r15", L2_R15);
	json_hex("r14", L2_R14);
	json_number("pid", getpid());
	json_end();
	converse();
	json_begin("bye");
	json_end();
	return DONE; /* the process's end is the VM's end */
}
