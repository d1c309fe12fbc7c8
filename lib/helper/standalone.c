// SPDX-License-Identifier: GPL-2.0-only
/* Building, resetting and running the helper's own VM; see standalone.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "standalone.h"

#define RUN_SECONDS 20
#define CPUID_ENTRIES 256
#define NESTED_BUFFER 16384
#define MACHINE_CHECK_BANKS 1

enum {
	MSR_FEATURE_CONTROL = 0x3a,
	MSR_MCG_STATUS = 0x17a,
	MSR_VMX_BASIC = 0x480,
	MSR_VMX_TRUE_PIN = 0x48d, /* then primary, exit and entry controls */
};
#define MSR_VM_HSAVE_PA 0xc0010117

bool standalone_fail(const char *what)
{
	json_error(errno, "L0 needs /dev/kvm with nested=1", "the helper's own VM: %s", what);
	return false;
}

uint64_t *standalone_at(struct standalone_vm *vm, uint64_t where)
{
	return (uint64_t *)(vm->memory + where);
}

uint64_t standalone_symbol(const uint8_t *symbol)
{
	return GPA_CODE + (uint64_t)(symbol - standalone_start);
}

/* --- building -------------------------------------------------------------------------------- */

/* Identity-maps the first GiB by 2 MiB pages, under two roots. */
static void build_page_tables(struct standalone_vm *vm)
{
	enum { PRESENT_WRITE_USER = 7, LARGE = 0x80 };

	*standalone_at(vm, GPA_L1_CR3) = GPA_PDPT | PRESENT_WRITE_USER;
	*standalone_at(vm, GPA_L2_CR3) = GPA_PDPT | PRESENT_WRITE_USER;
	*standalone_at(vm, GPA_PDPT) = GPA_PD | PRESENT_WRITE_USER;
	for (uint64_t i = 0; i < 512; i++)
		standalone_at(vm, GPA_PD)[i] = i << 21 | LARGE | PRESENT_WRITE_USER;
}

static void build_descriptors(struct standalone_vm *vm)
{
	standalone_at(vm, GPA_GDT)[1] = 0x00af9b000000ffff; /* 64-bit code */
	standalone_at(vm, GPA_GDT)[2] = 0x00cf93000000ffff; /* data */
	standalone_at(vm, GPA_GDT)[3] = 0x00008b0000000067 | (uint64_t)GPA_TSS << 16;
	*(uint32_t *)(vm->memory + GPA_TSS + 4) = GPA_L2_STACK; /* RSP0, for a handler of CPL 3 */
	for (uint64_t i = 0; i < VECTORS; i++) {
		uint64_t to = standalone_symbol(standalone_stubs) + i * STUB_SIZE;

		/* a trap gate, present: interrupts stay on (SDM volume 3, figure 6-8) */
		standalone_at(vm, GPA_IDT)[2 * i] = (to & 0xffff) | CODE_SELECTOR << 16 |
					     0x8f00ULL << 32 | (to & 0xffff0000) << 32;
	}
}

static bool build_memory(struct standalone_vm *vm)
{
	vm->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			  0);
	if (vm->memory == MAP_FAILED)
		return standalone_fail("its memory");
	memcpy(standalone_at(vm, GPA_CODE), standalone_start, (size_t)(standalone_end - standalone_start));
	build_page_tables(vm);
	build_descriptors(vm);
	return true;
}

static bool add_memory(struct standalone_vm *vm)
{
	struct kvm_userspace_memory_region region = {
		.memory_size = MEMORY_SIZE,
		.userspace_addr = (uint64_t)vm->memory,
	};

	return ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &region) == 0 ||
	       standalone_fail("KVM_SET_USER_MEMORY_REGION");
}

static bool enable(struct standalone_vm *vm, uint32_t capability)
{
	struct kvm_enable_cap cap = { .cap = capability, .args = { 1 } };

	return ioctl(vm->vm, KVM_ENABLE_CAP, &cap) == 0;
}

/*
 * Addresses of 48 bits, all that the VM uses: kernels before 4.14 refuse others (kvm_check_cpuid),
 * though they hand on what the CPU has.
 */
static void clamp(struct kvm_cpuid_entry2 *entry)
{
	enum { LA57 = 1 << 16 };

	if (entry->function == 0x80000008 && (entry->eax >> 8 & 0xff) > 48)
		entry->eax = (entry->eax & ~0xff00U) | 48 << 8;
	if (entry->function == 7)
		entry->ecx &= ~(uint32_t)LA57;
}

/* Without the CPU's own CPUID KVM would let the guest have neither VMX nor SVM. */
static bool set_cpuid(struct standalone_vm *vm)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[CPUID_ENTRIES];
	} cpuid;

	if (!cpuid.head.nent) { /* an emulated CPU takes its time over each CPUID */
		cpuid.head.nent = CPUID_ENTRIES;
		if (ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) != 0)
			return false;
	}
	for (uint32_t i = 0; i < cpuid.head.nent; i++) {
		clamp(&cpuid.entries[i]);
		if (cpuid.entries[i].function == 0x80000001)
			vm->svm = cpuid.entries[i].ecx & 1 << 2;
	}
	return ioctl(vm->vcpu, KVM_SET_CPUID2, &cpuid) == 0;
}

static bool set_msr(struct standalone_vm *vm, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry = { .index = index, .data = value } };

	return ioctl(vm->vcpu, KVM_SET_MSRS, &msrs) == 1;
}

static bool get_msr(struct standalone_vm *vm, uint32_t index, uint64_t *value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry.index = index };
	bool good = ioctl(vm->vcpu, KVM_GET_MSRS, &msrs) == 1;

	*value = msrs.entry.data;
	return good;
}

static bool enable_virtualization(struct standalone_vm *vm)
{
	uint64_t value;

	if (vm->svm)
		return set_msr(vm, MSR_VM_HSAVE_PA, GPA_VMXON);
	if (!set_msr(vm, MSR_FEATURE_CONTROL, 5) || !get_msr(vm, MSR_VMX_BASIC, &value))
		return false;
	vm->vmcs_revision = (uint32_t)value;
	for (uint32_t i = 0; i < 4; i++) {
		if (!get_msr(vm, MSR_VMX_TRUE_PIN + i, &value))
			return false;
		vm->vmx_low[i] = (uint32_t)value;
		vm->vmx_high[i] = (uint32_t)(value >> 32);
	}
	return true;
}

static bool build_vcpu(struct standalone_vm *vm)
{
	uint64_t mcg_cap = MACHINE_CHECK_BANKS;

	vm->vcpu = ioctl(vm->vm, KVM_CREATE_VCPU, 0);
	if (vm->vcpu < 0)
		return standalone_fail("KVM_CREATE_VCPU");
	vm->run_size = (size_t)ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	vm->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
	if (vm->run == MAP_FAILED)
		return standalone_fail("mapping kvm_run");
	if (!set_cpuid(vm))
		return standalone_fail("KVM_SET_CPUID2");
	if (ioctl(vm->vcpu, KVM_X86_SETUP_MCE, &mcg_cap) != 0)
		return standalone_fail("KVM_X86_SETUP_MCE");
	return enable_virtualization(vm) || standalone_fail("the MSRs of VMX or SVM");
}

static void on_alarm(int number)
{
	(void)number; /* KVM_RUN returns EINTR, that is all */
}

/* A VM that has no memory yet. */
static bool build_vm(struct standalone_vm *vm, bool payload, bool triple_fault)
{
	struct sigaction action = { .sa_handler = on_alarm };

	memset(vm, 0, sizeof(*vm));
	vm->up = true;
	vm->vm = vm->vcpu = -1;
	sigaction(SIGALRM, &action, NULL);
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		return standalone_fail("opening /dev/kvm");
	vm->vm = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->vm < 0)
		return standalone_fail("KVM_CREATE_VM");
	ioctl(vm->vm, KVM_SET_TSS_ADDR, 0xfffbd000UL); /* Intel wants it; AMD ignores it */
	if (payload && !enable(vm, KVM_CAP_EXCEPTION_PAYLOAD))
		return standalone_fail("KVM_ENABLE_CAP of KVM_CAP_EXCEPTION_PAYLOAD");
	if (triple_fault && !enable(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT))
		return standalone_fail("KVM_ENABLE_CAP of KVM_CAP_X86_TRIPLE_FAULT_EVENT");
	vm->immediate_exit = ioctl(vm->kvm, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) > 0;
	vm->payload = payload;
	vm->triple_fault = triple_fault;
	return true;
}

bool standalone_up(struct standalone_vm *vm, bool payload, bool triple_fault)
{
	return build_vm(vm, payload, triple_fault) && build_memory(vm) && add_memory(vm) &&
	       build_vcpu(vm);
}

void standalone_down(struct standalone_vm *vm)
{
	if (!vm->up)
		return;
	if (vm->run && vm->run != MAP_FAILED)
		munmap(vm->run, vm->run_size);
	close(vm->vcpu);
	close(vm->vm);
	close(vm->kvm);
	if (vm->memory && vm->memory != MAP_FAILED)
		munmap(vm->memory, MEMORY_SIZE);
	vm->up = false;
}

/* --- resetting ------------------------------------------------------------------------------- */

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff, .selector = selector, .type = type, .present = 1,
		.db = !code, .s = 1, .l = code, .g = 1,
	};
}

static bool reset_sregs(struct standalone_vm *vm)
{
	struct kvm_segment data = segment(DATA_SELECTOR, 3, false);
	struct kvm_sregs sregs;

	if (ioctl(vm->vcpu, KVM_GET_SREGS, &sregs) != 0)
		return false;
	sregs.cs = segment(CODE_SELECTOR, 11, true);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = (struct kvm_segment){
		.base = GPA_TSS, .limit = 0x67, .selector = TSS_SELECTOR, .type = 11,
		.present = 1,
	};
	sregs.ldt = (struct kvm_segment){ .unusable = 1 };
	sregs.gdt = (struct kvm_dtable){ .base = GPA_GDT, .limit = GDT_LIMIT };
	sregs.idt = (struct kvm_dtable){ .base = GPA_IDT, .limit = IDT_LIMIT };
	sregs.cr0 = CR0_FLAT;
	sregs.cr2 = CR2_BEFORE;
	sregs.cr3 = GPA_L1_CR3;
	sregs.cr4 = vm->svm ? CR4_FLAT : CR4_FLAT_VMX;
	sregs.efer = vm->svm ? EFER_FLAT_SVM : EFER_FLAT;
	memset(sregs.interrupt_bitmap, 0, sizeof(sregs.interrupt_bitmap));
	return ioctl(vm->vcpu, KVM_SET_SREGS, &sregs) == 0;
}

static bool reset_events(struct standalone_vm *vm)
{
	struct kvm_vcpu_events events = {
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
			 (vm->payload ? KVM_VCPUEVENT_VALID_PAYLOAD : 0) |
			 (vm->triple_fault ? KVM_VCPUEVENT_VALID_TRIPLE_FAULT : 0),
	};
	struct kvm_guest_debug debug = { 0 };

	return ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, &events) == 0 &&
	       ioctl(vm->vcpu, KVM_SET_GUEST_DEBUG, &debug) == 0;
}

bool standalone_reset(struct standalone_vm *vm, const struct standalone_plan *plan)
{
	struct kvm_regs regs = {
		.rip = standalone_symbol(vm->svm ? standalone_l1_svm : standalone_l1_vmx),
		.rsp = GPA_L1_STACK,
		.rflags = RFLAGS_INITIAL,
	};
	struct kvm_debugregs debugregs = { .dr6 = DR6_BEFORE, .dr7 = DR7_RESET };

	memset(standalone_at(vm, GPA_SHARED + SHARED_LOG), 0, 0x1000 - SHARED_LOG);
	*standalone_at(vm, GPA_SHARED + SHARED_STAY_IN_L1) = !plan->enter_l2;
	*standalone_at(vm, GPA_SHARED + SHARED_HIT_COUNT) = 0;
	*standalone_at(vm, GPA_SHARED + SHARED_FAULT) = plan->fault_first;
	*standalone_at(vm, GPA_SHARED + SHARED_RESUME) = plan->fault_first;
	*standalone_at(vm, GPA_SHARED + SHARED_LONG_OUT) = plan->long_out;
	if (vm->svm)
		svm_prepare(vm, plan);
	else
		vmx_prepare(vm, plan);
	if (!reset_sregs(vm) || !reset_events(vm))
		return standalone_fail("KVM_SET_SREGS or KVM_SET_VCPU_EVENTS");
	if (ioctl(vm->vcpu, KVM_SET_DEBUGREGS, &debugregs) != 0 ||
	    ioctl(vm->vcpu, KVM_SET_REGS, &regs) != 0 || !set_msr(vm, MSR_MCG_STATUS, 0))
		return standalone_fail("KVM_SET_DEBUGREGS, KVM_SET_REGS or KVM_SET_MSRS");
	return true;
}

/* --- moving ----------------------------------------------------------------------------------- */

static union {
	struct kvm_nested_state state;
	uint8_t room[NESTED_BUFFER];
} nested_buffer;

static bool save_nested(struct standalone_vm *vm)
{
	nested_buffer.state.size = sizeof(nested_buffer);
	return ioctl(vm->vcpu, KVM_GET_NESTED_STATE, &nested_buffer) == 0;
}

/* The nested state wants EFER.SVME or CR4.VMXE to be there before it. */
static bool load(struct standalone_vm *vm, struct vcpu_state *state)
{
	return (ioctl(vm->vcpu, KVM_SET_SREGS, &state->sregs) == 0 &&
		ioctl(vm->vcpu, KVM_SET_REGS, &state->regs) == 0 &&
		ioctl(vm->vcpu, KVM_SET_NESTED_STATE, &nested_buffer) == 0 &&
		ioctl(vm->vcpu, KVM_SET_DEBUGREGS, &state->debugregs) == 0 &&
		ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, &state->events) == 0) ||
	       standalone_fail("moving it: KVM_SET_NESTED_STATE or another");
}

bool standalone_move(struct standalone_vm *from, struct standalone_vm *to)
{
	struct vcpu_state state;

	if (!standalone_read(from, &state) || !save_nested(from))
		return standalone_fail("moving it: KVM_GET_NESTED_STATE");
	if (!build_vm(to, from->payload, from->triple_fault))
		return false;
	to->memory = from->memory;
	from->memory = NULL;
	to->vmcs_written = from->vmcs_written;
	standalone_down(from);
	return add_memory(to) && build_vcpu(to) && load(to, &state);
}

bool standalone_unmap(struct standalone_vm *vm, uint64_t page)
{
	/* shared memory: its contents stay */
	return madvise(vm->memory + page, 0x1000, MADV_DONTNEED) == 0 || standalone_fail("madvise");
}

/* --- running --------------------------------------------------------------------------------- */

/* A signal that waits, and that KVM_RUN alone lets in, ends KVM_RUN before the guest is entered. */
static int run_into_signal(struct standalone_vm *vm)
{
	static const struct timespec at_once;
	struct {
		struct kvm_signal_mask head;
		uint8_t none[8];
	} mask = { .head.len = 8 };
	sigset_t waiting;
	int error;

	sigemptyset(&waiting);
	sigaddset(&waiting, SIGUSR1);
	sigprocmask(SIG_BLOCK, &waiting, NULL);
	if (ioctl(vm->vcpu, KVM_SET_SIGNAL_MASK, &mask) != 0)
		return errno;
	raise(SIGUSR1);
	error = ioctl(vm->vcpu, KVM_RUN, 0) == 0 ? 0 : errno;
	sigtimedwait(&waiting, NULL, &at_once);
	return error;
}

int standalone_settle(struct standalone_vm *vm)
{
	int error;

	if (!vm->immediate_exit)
		return run_into_signal(vm) == EINTR ? 0 : EIO;
	vm->run->immediate_exit = 1;
	error = ioctl(vm->vcpu, KVM_RUN, 0) == 0 ? 0 : errno;
	vm->run->immediate_exit = 0;
	return error == EINTR ? 0 : error;
}

struct standalone_stop standalone_run(struct standalone_vm *vm)
{
	struct standalone_stop stop = { .port = -1 };

	alarm(RUN_SECONDS);
	stop.error = ioctl(vm->vcpu, KVM_RUN, 0) == 0 ? 0 : errno;
	alarm(0);
	stop.reason = vm->run->exit_reason;
	if (!stop.error && stop.reason == KVM_EXIT_IO) {
		stop.port = vm->run->io.port;
		stop.error = standalone_settle(vm);
	}
	return stop;
}

static bool read_nested(struct standalone_vm *vm, struct nested *nested)
{
	nested->supported = save_nested(vm);
	if (!nested->supported)
		return true;
	nested->flags = nested_buffer.state.flags;
	nested->format = nested_buffer.state.format;
	nested->size = nested_buffer.state.size;
	return true;
}

bool standalone_read(struct standalone_vm *vm, struct vcpu_state *state)
{
	memset(state, 0, sizeof(*state));
	return (read_nested(vm, &state->nested) &&
		ioctl(vm->vcpu, KVM_GET_REGS, &state->regs) == 0 &&
		ioctl(vm->vcpu, KVM_GET_SREGS, &state->sregs) == 0 &&
		ioctl(vm->vcpu, KVM_GET_DEBUGREGS, &state->debugregs) == 0 &&
		ioctl(vm->vcpu, KVM_GET_VCPU_EVENTS, &state->events) == 0) ||
	       standalone_fail("reading the vCPU");
}
