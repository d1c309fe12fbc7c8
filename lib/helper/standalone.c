// SPDX-License-Identifier: GPL-2.0-only
/* Building, resetting and running the standalone VM; see standalone.h. */
#include "standalone.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "json.h"

#define RUN_SECONDS 20
#define MACHINE_CHECK_BANKS 1

enum { MSR_MCG_STATUS = 0x17a };

static const struct flat l1_flat = {
	.cr3 = GPA_L1_CR3,
	.gdt = GPA_GDT,
	.idt = GPA_IDT,
	.tss = GPA_TSS,
	.idt_limit = IDT_LIMIT,
};

bool standalone_fail(const struct standalone_vm *vm, const char *what)
{
	return vm_fail(&vm->base, what);
}

uint64_t *standalone_at(const struct standalone_vm *vm, uint64_t where)
{
	return memory_at(&vm->memory, where);
}

uint64_t standalone_symbol(const uint8_t *symbol)
{
	return GPA_CODE + (uint64_t)(symbol - standalone_start);
}

int standalone_ioctl(const struct standalone_vm *vm, unsigned long request, void *argument)
{
	return ioctl(vm->base.vcpu, request, argument) == 0 ? 0 : errno;
}

/* --- building -------------------------------------------------------------------------------- */

static void build_descriptors(struct standalone_vm *vm)
{
	uint32_t *rsp0 = (uint32_t *)(vm->memory.host + GPA_TSS + 4);

	flat_descriptors(&vm->memory, &l1_flat, GATE_TRAP, standalone_symbol(standalone_stubs),
			 VECTORS);
	standalone_at(vm, GPA_GDT)[TSS_SELECTOR / 8] = 0x00008b0000000067 | (uint64_t)GPA_TSS << 16;
	*rsp0 = GPA_L2_STACK; /* for a handler of CPL 3 */
}

static bool build_memory(struct standalone_vm *vm)
{
	vm->memory.size = MEMORY_SIZE;
	if (!vm_allocate(&vm->base, &vm->memory))
		return false;
	memcpy(standalone_at(vm, GPA_CODE), standalone_start,
	       (size_t)(standalone_end - standalone_start));
	flat_page_tables(&vm->memory, GPA_L1_CR3, GPA_PDPT, GPA_PD, PAGE_USER);
	flat_page_tables(&vm->memory, GPA_L2_CR3, GPA_PDPT, GPA_PD, PAGE_USER);
	build_descriptors(vm);
	return true;
}

static bool enable(struct standalone_vm *vm, uint32_t capability)
{
	struct kvm_enable_cap cap = { .cap = capability, .args = { 1 } };

	return ioctl(vm->base.vm, KVM_ENABLE_CAP, &cap) == 0;
}

bool standalone_set_msr(const struct standalone_vm *vm, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry = { .index = index, .data = value } };

	return ioctl(vm->base.vcpu, KVM_SET_MSRS, &msrs) == 1;
}

bool standalone_get_msr(const struct standalone_vm *vm, uint32_t index, uint64_t *value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry.index = index };
	bool good = ioctl(vm->base.vcpu, KVM_GET_MSRS, &msrs) == 1;

	*value = msrs.entry.data;
	return good;
}

static bool build_vcpu(struct standalone_vm *vm)
{
	uint64_t mcg_cap = MACHINE_CHECK_BANKS;

	if (!vm_create_vcpu(&vm->base))
		return false;
	vm->ops = nested_ops_of_guests();
	if (standalone_ioctl(vm, KVM_X86_SETUP_MCE, &mcg_cap) != 0)
		return standalone_fail(vm, "KVM_X86_SETUP_MCE");
	return vm->ops->enable(vm) || standalone_fail(vm, "the MSRs of VMX or SVM");
}

static void on_alarm(int number)
{
	(void)number; /* KVM_RUN returns EINTR, that is all */
}

/* A VM that has no memory yet. */
static bool build_vm(struct standalone_vm *vm, bool payload, bool triple_fault)
{
	struct sigaction action = { .sa_handler = on_alarm };

	*vm = (struct standalone_vm){ .up = true,
				      .payload = payload,
				      .triple_fault = triple_fault };
	sigaction(SIGALRM, &action, NULL);
	if (!vm_create(&vm->base, "the standalone VM", "L0 needs /dev/kvm with nested=1"))
		return false;
	if (payload && !enable(vm, KVM_CAP_EXCEPTION_PAYLOAD))
		return standalone_fail(vm, "KVM_ENABLE_CAP of KVM_CAP_EXCEPTION_PAYLOAD");
	if (triple_fault && !enable(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT))
		return standalone_fail(vm, "KVM_ENABLE_CAP of KVM_CAP_X86_TRIPLE_FAULT_EVENT");
	vm->immediate_exit = ioctl(vm->base.kvm, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) > 0;
	return true;
}

bool standalone_up(struct standalone_vm *vm, bool payload, bool triple_fault)
{
	return build_vm(vm, payload, triple_fault) && build_memory(vm) &&
	       vm_add_memory(&vm->base, 0, &vm->memory) && build_vcpu(vm);
}

void standalone_down(struct standalone_vm *vm)
{
	if (!vm->up)
		return;
	vm_destroy(&vm->base);
	if (vm->memory.host)
		munmap(vm->memory.host, vm->memory.size);
	vm->up = false;
}

/* --- resetting ------------------------------------------------------------------------------- */

static bool reset_sregs(struct standalone_vm *vm)
{
	struct kvm_sregs sregs;

	if (standalone_ioctl(vm, KVM_GET_SREGS, &sregs) != 0)
		return false;
	flat_sregs(&sregs, &l1_flat);
	sregs.cr2 = CR2_BEFORE;
	sregs.cr4 = vm->ops->l1_cr4;
	sregs.efer = vm->ops->l1_efer;
	memset(sregs.interrupt_bitmap, 0, sizeof(sregs.interrupt_bitmap));
	return standalone_ioctl(vm, KVM_SET_SREGS, &sregs) == 0;
}

static bool reset_events(struct standalone_vm *vm)
{
	struct kvm_vcpu_events events = {
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
			 (vm->payload ? KVM_VCPUEVENT_VALID_PAYLOAD : 0) |
			 (vm->triple_fault ? KVM_VCPUEVENT_VALID_TRIPLE_FAULT : 0),
	};
	struct kvm_guest_debug debug = { 0 };

	return standalone_ioctl(vm, KVM_SET_VCPU_EVENTS, &events) == 0 &&
	       standalone_ioctl(vm, KVM_SET_GUEST_DEBUG, &debug) == 0;
}

bool standalone_reset(struct standalone_vm *vm, const struct standalone_plan *plan)
{
	struct kvm_regs regs = {
		.rip = standalone_symbol(vm->ops->l1_entry),
		.rsp = GPA_L1_STACK,
		.rflags = RFLAGS_FLAT,
	};
	struct kvm_debugregs debugregs = { .dr6 = DR6_BEFORE, .dr7 = DR7_RESET };

	memset(standalone_at(vm, GPA_SHARED + SHARED_LOG), 0, 0x1000 - SHARED_LOG);
	*standalone_at(vm, GPA_SHARED + SHARED_STAY_IN_L1) = !plan->enter_l2;
	*standalone_at(vm, GPA_SHARED + SHARED_HIT_COUNT) = 0;
	*standalone_at(vm, GPA_SHARED + SHARED_FAULT) = plan->fault_first;
	*standalone_at(vm, GPA_SHARED + SHARED_RESUME) = plan->fault_first;
	*standalone_at(vm, GPA_SHARED + SHARED_LONG_OUT) = plan->long_out;
	vm->ops->prepare(vm, plan);
	if (!reset_sregs(vm) || !reset_events(vm))
		return standalone_fail(vm, "KVM_SET_SREGS or KVM_SET_VCPU_EVENTS");
	if (standalone_ioctl(vm, KVM_SET_DEBUGREGS, &debugregs) != 0 ||
	    standalone_ioctl(vm, KVM_SET_REGS, &regs) != 0 ||
	    !standalone_set_msr(vm, MSR_MCG_STATUS, 0))
		return standalone_fail(vm, "KVM_SET_DEBUGREGS, KVM_SET_REGS or KVM_SET_MSRS");
	return true;
}

/* --- moving ----------------------------------------------------------------------------------- */

static union nested_buffer nested_buffer;

static bool save_nested(struct standalone_vm *vm)
{
	nested_buffer.state.size = sizeof(nested_buffer);
	return standalone_ioctl(vm, KVM_GET_NESTED_STATE, &nested_buffer) == 0;
}

/* The nested state wants EFER.SVME or CR4.VMXE to be there before it. */
static bool load(struct standalone_vm *vm, struct vcpu_state *state)
{
	return (standalone_ioctl(vm, KVM_SET_SREGS, &state->sregs) == 0 &&
		standalone_ioctl(vm, KVM_SET_REGS, &state->regs) == 0 &&
		standalone_ioctl(vm, KVM_SET_NESTED_STATE, &nested_buffer) == 0 &&
		standalone_ioctl(vm, KVM_SET_DEBUGREGS, &state->debugregs) == 0 &&
		standalone_ioctl(vm, KVM_SET_VCPU_EVENTS, &state->events) == 0) ||
	       standalone_fail(vm, "moving it: KVM_SET_NESTED_STATE or another");
}

bool standalone_move(struct standalone_vm *from, struct standalone_vm *to)
{
	struct vcpu_state state;

	if (!standalone_read(from, &state) || !save_nested(from))
		return standalone_fail(from, "moving it: KVM_GET_NESTED_STATE");
	if (!build_vm(to, from->payload, from->triple_fault))
		return false;
	to->memory = from->memory;
	from->memory.host = NULL;
	to->vmx.vmcs_written = from->vmx.vmcs_written;
	standalone_down(from);
	return vm_add_memory(&to->base, 0, &to->memory) && build_vcpu(to) && load(to, &state);
}

bool standalone_unmap(struct standalone_vm *vm, uint64_t page)
{
	/* shared memory: its contents stay */
	return madvise(vm->memory.host + page, 0x1000, MADV_DONTNEED) == 0 ||
	       standalone_fail(vm, "madvise");
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
	if (standalone_ioctl(vm, KVM_SET_SIGNAL_MASK, &mask) != 0)
		return errno;
	raise(SIGUSR1);
	error = standalone_ioctl(vm, KVM_RUN, NULL);
	sigtimedwait(&waiting, NULL, &at_once);
	return error;
}

int standalone_settle(struct standalone_vm *vm)
{
	int error;

	if (!vm->immediate_exit)
		return run_into_signal(vm) == EINTR ? 0 : EIO;
	vm->base.run->immediate_exit = 1;
	error = standalone_ioctl(vm, KVM_RUN, NULL);
	vm->base.run->immediate_exit = 0;
	return error == EINTR ? 0 : error;
}

struct standalone_stop standalone_run(struct standalone_vm *vm)
{
	struct standalone_stop stop = { .port = -1 };

	alarm(RUN_SECONDS);
	stop.error = standalone_ioctl(vm, KVM_RUN, NULL);
	alarm(0);
	stop.reason = vm->base.run->exit_reason;
	if (!stop.error && stop.reason == KVM_EXIT_IO) {
		stop.port = vm->base.run->io.port;
		stop.error = standalone_settle(vm);
	}
	return stop;
}

bool standalone_read(struct standalone_vm *vm, struct vcpu_state *state)
{
	memset(state, 0, sizeof(*state));
	if (save_nested(vm))
		vcpu_note_nested(&state->nested, &nested_buffer.state);
	return (standalone_ioctl(vm, KVM_GET_REGS, &state->regs) == 0 &&
		standalone_ioctl(vm, KVM_GET_SREGS, &state->sregs) == 0 &&
		standalone_ioctl(vm, KVM_GET_DEBUGREGS, &state->debugregs) == 0 &&
		standalone_ioctl(vm, KVM_GET_VCPU_EVENTS, &state->events) == 0) ||
	       standalone_fail(vm, "reading the vCPU");
}
