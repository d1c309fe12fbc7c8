// SPDX-License-Identifier: GPL-2.0-only
/* The VMCS that our L1 makes on Intel (SDM volume 3, chapters 25 to 28). */
#include "vmx.h"

#include <asm/vmx.h>
#include <string.h>

#include "helper.h"
#include "json.h"
#include "nested.h"
#include "standalone.h"

enum {
	MSR_FEATURE_CONTROL = 0x3a,
	MSR_VMX_BASIC = 0x480,
	MSR_VMX_TRUE_PIN = 0x48d, /* then primary, exit and entry controls */
};

enum { FEATURE_CONTROL_LOCKED = 1, FEATURE_CONTROL_VMX_OUTSIDE_SMX = 4 };

enum { PIN, PRIMARY, EXIT, ENTRY };

enum {
	PIN_NMI_EXITING = 1 << 3,
	EXIT_SAVE_DEBUG_CONTROLS = 1 << 2,
	EXIT_HOST_ADDRESS_SPACE_SIZE = 1 << 9,
	ENTRY_LOAD_DEBUG_CONTROLS = 1 << 2,
	ENTRY_IA32E_MODE_GUEST = 1 << 9,
};

/* Access rights (SDM volume 3, table 25-2). */
enum { CODE_64 = 0xa09b, DATA_32 = 0xc093, BUSY_TSS = 0x8b, DPL_3 = 0x60, UNUSABLE = 0x10000 };

/* What L1 reads after a VM-exit, in the order of its log. */
static const struct {
	const char *name;
	enum vmcs_field field;
} reads[] = {
	{ "reason", VM_EXIT_REASON },
	{ "interruption_info", VM_EXIT_INTR_INFO },
	{ "error_code", VM_EXIT_INTR_ERROR_CODE },
	{ "idt_vectoring_info", IDT_VECTORING_INFO_FIELD },
	{ "length", VM_EXIT_INSTRUCTION_LEN },
	{ "qualification", EXIT_QUALIFICATION },
	{ "rip", GUEST_RIP },
	{ "dr7", GUEST_DR7 },
	{ "pending_debug", GUEST_PENDING_DBG_EXCEPTIONS },
};

/* The end of L1's lists. */
#define LIST_END (~0ULL)

struct list {
	uint64_t *at;
};

static void put(struct list *list, uint32_t field, uint64_t value)
{
	*list->at++ = field;
	*list->at++ = value;
}

static uint32_t control(const struct standalone_vm *vm, int which, uint32_t wanted)
{
	return (wanted | vm->vmx.must_be_1[which]) & vm->vmx.may_be_1[which];
}

/* What is the same for every case: written once into the VMCS of a VM. */
static void put_controls(struct list *list, const struct standalone_vm *vm)
{
	put(list, CPU_BASED_VM_EXEC_CONTROL, control(vm, PRIMARY, 0));
	put(list, VM_EXIT_CONTROLS,
	    control(vm, EXIT, EXIT_SAVE_DEBUG_CONTROLS | EXIT_HOST_ADDRESS_SPACE_SIZE));
	put(list, VM_ENTRY_CONTROLS,
	    control(vm, ENTRY, ENTRY_LOAD_DEBUG_CONTROLS | ENTRY_IA32E_MODE_GUEST));
	put(list, CR3_TARGET_COUNT, 0);
	put(list, VM_EXIT_MSR_STORE_COUNT, 0);
	put(list, VM_EXIT_MSR_LOAD_COUNT, 0);
	put(list, VM_ENTRY_MSR_LOAD_COUNT, 0);
	put(list, VM_ENTRY_INTR_INFO_FIELD, 0);
	put(list, CR0_GUEST_HOST_MASK, 0);
	put(list, CR4_GUEST_HOST_MASK, 0);
	put(list, VMCS_LINK_POINTER, ~0ULL); /* there is none */
}

static void put_segment(struct list *list, enum segment segment, uint16_t selector, uint64_t base,
			uint32_t limit, uint32_t rights)
{
	uint32_t field = 2 * (uint32_t)segment;

	put(list, GUEST_ES_SELECTOR + field, selector);
	put(list, GUEST_ES_LIMIT + field, limit);
	put(list, GUEST_ES_AR_BYTES + field, rights);
	put(list, GUEST_ES_BASE + field, base);
}

/* What a case chooses, and what running L2 changes. */
static void put_case(struct list *list, const struct standalone_vm *vm,
		     const struct standalone_plan *plan)
{
	uint16_t rpl = plan->user ? 3 : 0, dpl = plan->user ? DPL_3 : 0;

	put(list, PIN_BASED_VM_EXEC_CONTROL,
	    control(vm, PIN, plan->nmi_exiting ? PIN_NMI_EXITING : 0));
	put(list, EXCEPTION_BITMAP, plan->exceptions);
	put(list, PAGE_FAULT_ERROR_CODE_MASK, plan->pfec_mask);
	put(list, PAGE_FAULT_ERROR_CODE_MATCH, plan->pfec_match);
	put(list, GUEST_DR7, plan->dr7);
	put(list, GUEST_RSP, GPA_L2_STACK);
	put(list, GUEST_RIP, standalone_symbol(standalone_l2));
	put(list, GUEST_RFLAGS, plan->user ? RFLAGS_FLAT_USER : RFLAGS_FLAT);
	put(list, GUEST_INTERRUPTIBILITY_INFO, 0);
	put(list, GUEST_ACTIVITY_STATE, 0);
	put(list, GUEST_PENDING_DBG_EXCEPTIONS, 0);
	put_segment(list, CS, CODE_SELECTOR | rpl, 0, ~0U, CODE_64 | dpl);
	put_segment(list, SS, DATA_SELECTOR | rpl, 0, ~0U, DATA_32 | dpl);
}

static void put_host(struct list *list)
{
	put(list, HOST_ES_SELECTOR, DATA_SELECTOR);
	put(list, HOST_CS_SELECTOR, CODE_SELECTOR);
	put(list, HOST_SS_SELECTOR, DATA_SELECTOR);
	put(list, HOST_DS_SELECTOR, DATA_SELECTOR);
	put(list, HOST_FS_SELECTOR, DATA_SELECTOR);
	put(list, HOST_GS_SELECTOR, DATA_SELECTOR);
	put(list, HOST_TR_SELECTOR, TSS_SELECTOR);
	put(list, HOST_CR0, CR0_FLAT);
	put(list, HOST_CR3, GPA_L1_CR3);
	put(list, HOST_CR4, CR4_FLAT_VMX);
	put(list, HOST_FS_BASE, 0);
	put(list, HOST_GS_BASE, 0);
	put(list, HOST_TR_BASE, GPA_TSS);
	put(list, HOST_GDTR_BASE, GPA_GDT);
	put(list, HOST_IDTR_BASE, GPA_IDT);
	put(list, HOST_IA32_SYSENTER_CS, 0);
	put(list, HOST_IA32_SYSENTER_ESP, 0);
	put(list, HOST_IA32_SYSENTER_EIP, 0);
	put(list, HOST_RSP, GPA_L1_STACK);
	put(list, HOST_RIP, standalone_symbol(standalone_l1_vmx_exit));
}

static void put_guest(struct list *list)
{
	put_segment(list, ES, DATA_SELECTOR, 0, ~0U, DATA_32);
	put_segment(list, DS, DATA_SELECTOR, 0, ~0U, DATA_32);
	put_segment(list, FS, DATA_SELECTOR, 0, ~0U, DATA_32);
	put_segment(list, GS, DATA_SELECTOR, 0, ~0U, DATA_32);
	put_segment(list, LDTR, 0, 0, 0, UNUSABLE);
	put_segment(list, TR, TSS_SELECTOR, GPA_TSS, TSS_LIMIT, BUSY_TSS);
	put(list, GUEST_GDTR_LIMIT, GDT_LIMIT);
	put(list, GUEST_IDTR_LIMIT, IDT_LIMIT);
	put(list, GUEST_GDTR_BASE, GPA_GDT);
	put(list, GUEST_IDTR_BASE, GPA_IDT);
	put(list, GUEST_CR0, CR0_FLAT);
	put(list, GUEST_CR3, GPA_L2_CR3);
	put(list, GUEST_CR4, CR4_FLAT_VMX);
	put(list, GUEST_IA32_DEBUGCTL, 0);
	put(list, GUEST_SYSENTER_CS, 0);
	put(list, GUEST_SYSENTER_ESP, 0);
	put(list, GUEST_SYSENTER_EIP, 0);
}

static bool soft_exceptions(void)
{
	return true;
}

static bool enable(struct standalone_vm *vm)
{
	uint64_t value;

	if (!standalone_set_msr(vm, MSR_FEATURE_CONTROL,
				FEATURE_CONTROL_LOCKED | FEATURE_CONTROL_VMX_OUTSIDE_SMX) ||
	    !standalone_get_msr(vm, MSR_VMX_BASIC, &value))
		return false;
	vm->vmx.vmcs_revision = (uint32_t)value;
	for (uint32_t i = PIN; i <= ENTRY; i++) {
		if (!standalone_get_msr(vm, MSR_VMX_TRUE_PIN + i, &value))
			return false;
		vm->vmx.must_be_1[i] = (uint32_t)value;
		vm->vmx.may_be_1[i] = (uint32_t)(value >> 32);
	}
	return true;
}

static void prepare(struct standalone_vm *vm, const struct standalone_plan *plan)
{
	struct list list = { standalone_at(vm, GPA_VMWRITES) };
	uint64_t *read = standalone_at(vm, GPA_VMREADS);

	if (!vm->vmx.vmcs_written) { /* each VMWRITE is an exit to L0 */
		*(uint32_t *)standalone_at(vm, GPA_VMXON) = vm->vmx.vmcs_revision;
		*(uint32_t *)standalone_at(vm, GPA_VMCS) = vm->vmx.vmcs_revision;
		put_controls(&list, vm);
		put_host(&list);
		put_guest(&list);
		vm->vmx.vmcs_written = true;
	}
	put_case(&list, vm, plan);
	*list.at = LIST_END;
	for (size_t i = 0; i < COUNT(reads); i++)
		*read++ = reads[i].field;
	*read = LIST_END;
}

static uint64_t exit_reason(const struct standalone_vm *vm)
{
	return *standalone_at(vm, GPA_SHARED + SHARED_LOG);
}

static void print_log(const uint64_t *log)
{
	for (size_t i = 0; i < COUNT(reads); i++)
		json_hex(reads[i].name, log[i]);
}

static void print_exit(const struct standalone_vm *vm)
{
	print_log(standalone_at(vm, GPA_SHARED + SHARED_LOG));
	json_hex("cr2", *standalone_at(vm, GPA_SHARED + SHARED_L1_CR2));
	json_hex("dr6", *standalone_at(vm, GPA_SHARED + SHARED_L1_DR6));
}

static void keep_exit(const struct standalone_vm *vm)
{
	memcpy(standalone_at(vm, GPA_SHARED + SHARED_EARLIER_LOG),
	       standalone_at(vm, GPA_SHARED + SHARED_LOG), COUNT(reads) * sizeof(uint64_t));
}

static void print_kept_exit(const struct standalone_vm *vm)
{
	print_log(standalone_at(vm, GPA_SHARED + SHARED_EARLIER_LOG));
}

const struct nested_ops vmx_ops = {
	.name = "vmx",
	.module = "kvm_intel",
	.l1_entry = standalone_l1_vmx,
	.l1_cr4 = CR4_FLAT_VMX,
	.l1_efer = EFER_FLAT,
	.cpuid_exit = EXIT_REASON_CPUID,
	.soft_exceptions = soft_exceptions,
	.enable = enable,
	.prepare = prepare,
	.exit_reason = exit_reason,
	.print_exit = print_exit,
	.keep_exit = keep_exit,
	.print_kept_exit = print_kept_exit,
};
