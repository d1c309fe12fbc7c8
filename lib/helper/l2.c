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
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "helper.h"
#include "json.h"
#include "l2.h"

#define WAIT_SECONDS 10
#define CPUID_ENTRIES 256

extern const uint8_t l2_guest_start[], l2_guest_end[], l2_guest_stubs[];

static struct {
	int vcpu;
	struct kvm_run *run;
	uint8_t *data, *code;
	volatile bool dead;
	volatile int run_errno;
	volatile unsigned long exits;
} l2;

static volatile uint64_t *shared(size_t offset)
{
	return (volatile uint64_t *)(l2.data + (L2_SHARED - L2_DATA) + offset);
}

static volatile uint64_t *record(int vector, size_t offset)
{
	return shared(L2_RECORDS + ((size_t)vector << L2_RECORD_SHIFT) + offset);
}

/* --- building the VM ------------------------------------------------------------------------ */

static bool fail(const char *what)
{
	json_error(errno, "L1 needs /dev/kvm with a working vendor module", "%s", what);
	return false;
}

static uint8_t *add_memory(int vm, unsigned slot, uint64_t where, size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = where,
		.memory_size = size,
		.userspace_addr = (uint64_t)memory,
	};

	if (memory == MAP_FAILED || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) != 0)
		return NULL;
	return memory;
}

static uint64_t *data_at(uint64_t where)
{
	return (uint64_t *)(l2.data + (where - L2_DATA));
}

/* Identity-maps the first GiB by 2 MiB pages: PML4, PDPT and PD in a row from L2_CR3. */
static void build_page_tables(void)
{
	enum { PRESENT_WRITE = 3, LARGE = 0x80 };

	data_at(L2_CR3)[0] = (L2_CR3 + 0x1000) | PRESENT_WRITE;
	data_at(L2_CR3 + 0x1000)[0] = (L2_CR3 + 0x2000) | PRESENT_WRITE;
	for (uint64_t i = 0; i < 512; i++)
		data_at(L2_CR3 + 0x2000)[i] = (i << 21) | LARGE | PRESENT_WRITE;
}

static void build_descriptors(void)
{
	uint64_t stubs = L2_CODE + (uint64_t)(l2_guest_stubs - l2_guest_start);

	data_at(L2_GDT)[1] = 0x00af9b000000ffff; /* 64-bit code */
	data_at(L2_GDT)[2] = 0x00cf93000000ffff; /* data */
	for (uint64_t i = 0; i < 256; i++) {
		uint64_t to = stubs + i * L2_STUB_SIZE;

		/* an interrupt gate, present, to selector 8 (SDM volume 3, figure 6-8) */
		data_at(L2_IDT)[2 * i] = (to & 0xffff) | 8 << 16 | 0x8e00ULL << 32 |
					 (to & 0xffff0000) << 32;
		data_at(L2_IDT)[2 * i + 1] = to >> 32;
	}
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff, .selector = selector, .type = type, .present = 1,
		.db = !code, .s = 1, .l = code, .g = 1,
	};
}

static bool set_registers(void)
{
	struct kvm_segment data = segment(0x10, 3, false);
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = L2_CODE, .rsp = L2_STACK_TOP, .rflags = L2_RFLAGS };

	if (ioctl(l2.vcpu, KVM_GET_SREGS, &sregs) != 0)
		return false;
	sregs.cs = segment(8, 11, true);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = (struct kvm_segment){
		.base = L2_TSS, .limit = 0x67, .selector = 0x18, .type = 11, .present = 1,
	};
	sregs.ldt = (struct kvm_segment){ .unusable = 1 };
	sregs.gdt = (struct kvm_dtable){ .base = L2_GDT, .limit = 0x2f };
	sregs.idt = (struct kvm_dtable){ .base = L2_IDT, .limit = 0xfff };
	sregs.cr0 = 0x80010033; /* PG WP NE ET MP PE */
	sregs.cr3 = L2_CR3;
	sregs.cr4 = 0x60;	/* PAE MCE: without MCE a machine check would be a shutdown */
	sregs.efer = 0x500;	/* LMA LME */
	return ioctl(l2.vcpu, KVM_SET_SREGS, &sregs) == 0 &&
	       ioctl(l2.vcpu, KVM_SET_REGS, &regs) == 0;
}

/* Without the CPU's own CPUID KVM would not let the guest into 64-bit mode. */
static bool set_cpuid(int kvm)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[CPUID_ENTRIES];
	} cpuid = { .head.nent = CPUID_ENTRIES };

	return ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) == 0 &&
	       ioctl(l2.vcpu, KVM_SET_CPUID2, &cpuid) == 0;
}

static bool build(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, size;

	if (kvm < 0)
		return fail("opening /dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return fail("KVM_CREATE_VM");
	ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL); /* Intel wants it; AMD ignores it */
	l2.data = add_memory(vm, 0, L2_DATA, L2_DATA_SIZE);
	l2.code = add_memory(vm, 1, L2_CODE, L2_CODE_SIZE);
	if (!l2.data || !l2.code)
		return fail("KVM_SET_USER_MEMORY_REGION");
	l2.vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (l2.vcpu < 0)
		return fail("KVM_CREATE_VCPU");
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	l2.run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, l2.vcpu, 0);
	if (l2.run == MAP_FAILED)
		return fail("mapping kvm_run");
	memcpy(l2.code, l2_guest_start, (size_t)(l2_guest_end - l2_guest_start));
	*shared(L2_TRAP) = UINT64_MAX;
	build_page_tables();
	build_descriptors();
	if (!set_cpuid(kvm))
		return fail("KVM_SET_CPUID2");
	return set_registers() || fail("KVM_SET_SREGS");
}

/* --- running it ----------------------------------------------------------------------------- */

static void *run_loop(void *unused)
{
	(void)unused;
	for (;;) {
		int result = ioctl(l2.vcpu, KVM_RUN, 0);

		l2.exits++;
		if (result < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (result == 0 && l2.run->exit_reason == KVM_EXIT_INTR)
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

static bool wait_beats(uint64_t more)
{
	uint64_t start = *shared(L2_HEARTBEAT);
	struct timespec now;
	time_t end;

	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now.tv_sec + WAIT_SECONDS;
	while (*shared(L2_HEARTBEAT) - start < more && !l2.dead && now.tv_sec < end) {
		sched_yield(); /* never a sleep: beside a busy L2 in an emulator it lasts long */
		clock_gettime(CLOCK_MONOTONIC, &now);
	}
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
	for (int vector = 0; vector < 256; vector++)
		if (*record(vector, L2_COUNT))
			print_hit(vector);
	json_close_list();
	print_order();
	json_object("last_exit");
	json_number("reason", l2.run->exit_reason);
	json_text("name", exit_name(l2.run->exit_reason));
	json_text("errno", errno_name(l2.run_errno));
	json_close_object();
	json_number("exits", (long long)l2.exits);
	if (advanced)
		json_bool("advanced", *advanced);
	json_end();
}

static void clear_hits(void)
{
	memset((void *)shared(L2_RECORDS), 0, 256 << L2_RECORD_SHIFT);
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
			json_error(EINVAL, "state | wait N | clear | trap N | quit", "cannot do %s", line);
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
			   "the tiny guest does not start: %s", exit_name(l2.run->exit_reason));
		return FAILED;
	}
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
