// SPDX-License-Identifier: GPL-2.0-only
/* The VMCS that our L1 makes on Intel (SDM volume 3, chapters 25 to 28; encodings: appendix B). */
#include <string.h>

#include "json.h"
#include "standalone.h"

enum { PIN, PRIMARY, EXIT, ENTRY };
enum { ES, CS, SS, DS, FS, GS, LDTR, TR };

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
	uint32_t encoding;
} reads[] = {
	{ "reason", 0x4402 },
	{ "interruption_info", 0x4404 },
	{ "error_code", 0x4406 },
	{ "idt_vectoring_info", 0x4408 },
	{ "length", 0x440c },
	{ "qualification", 0x6400 },
	{ "rip", 0x681e },
	{ "dr7", 0x681a },
	{ "pending_debug", 0x6822 },
};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

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
	return (wanted | vm->vmx_low[which]) & vm->vmx_high[which];
}

/* What is the same for every case: written once into the VMCS of a VM. */
static void put_controls(struct list *list, const struct standalone_vm *vm)
{
	put(list, 0x4002, control(vm, PRIMARY, 0));
	put(list, 0x400c, control(vm, EXIT, EXIT_SAVE_DEBUG_CONTROLS | EXIT_HOST_ADDRESS_SPACE_SIZE));
	put(list, 0x4012, control(vm, ENTRY, ENTRY_LOAD_DEBUG_CONTROLS | ENTRY_IA32E_MODE_GUEST));
	/* counts of CR3 targets and of MSRs to store and load, interruption info, TPR threshold */
	for (uint32_t zero = 0; zero < 5; zero++)
		put(list, (const uint32_t[]){ 0x400a, 0x400e, 0x4010, 0x4014, 0x4016 }[zero], 0);
	put(list, 0x6000, 0); /* CR0 and CR4 guest/host masks */
	put(list, 0x6002, 0);
	put(list, 0x2800, ~0ULL); /* no linked VMCS */
}

static void put_segment(struct list *list, uint32_t number, uint16_t selector, uint64_t base,
			uint32_t limit, uint32_t rights)
{
	put(list, 0x800 + 2 * number, selector);
	put(list, 0x4800 + 2 * number, limit);
	put(list, 0x4814 + 2 * number, rights);
	put(list, 0x6806 + 2 * number, base);
}

/* What a case chooses, and what running L2 changes. */
static void put_case(struct list *list, const struct standalone_vm *vm, const struct standalone_plan *plan)
{
	uint16_t rpl = plan->user ? 3 : 0, dpl = plan->user ? DPL_3 : 0;

	put(list, 0x4000, control(vm, PIN, plan->nmi_exiting ? PIN_NMI_EXITING : 0));
	put(list, 0x4004, plan->exceptions);
	put(list, 0x4006, plan->pfec_mask);
	put(list, 0x4008, plan->pfec_match);
	put(list, 0x681a, plan->dr7);
	put(list, 0x681c, GPA_L2_STACK);
	put(list, 0x681e, standalone_symbol(standalone_l2));
	put(list, 0x6820, plan->user ? RFLAGS_USER : RFLAGS_INITIAL);
	put(list, 0x4824, 0); /* interruptibility, activity, pending debug exceptions */
	put(list, 0x4826, 0);
	put(list, 0x6822, 0);
	put_segment(list, CS, CODE_SELECTOR | rpl, 0, ~0U, CODE_64 | dpl);
	put_segment(list, SS, DATA_SELECTOR | rpl, 0, ~0U, DATA_32 | dpl);
}

static void put_host(struct list *list)
{
	for (uint32_t field = 0xc00; field <= 0xc0a; field += 2) /* ES CS SS DS FS GS */
		put(list, field, field == 0xc02 ? CODE_SELECTOR : DATA_SELECTOR);
	put(list, 0xc0c, TSS_SELECTOR);
	put(list, 0x6c00, CR0_FLAT);
	put(list, 0x6c02, GPA_L1_CR3);
	put(list, 0x6c04, CR4_FLAT_VMX);
	put(list, 0x6c06, 0); /* FS, GS */
	put(list, 0x6c08, 0);
	put(list, 0x6c0a, GPA_TSS);
	put(list, 0x6c0c, GPA_GDT);
	put(list, 0x6c0e, GPA_IDT);
	put(list, 0x4c00, 0); /* SYSENTER_CS, _ESP, _EIP */
	put(list, 0x6c10, 0);
	put(list, 0x6c12, 0);
	put(list, 0x6c14, GPA_L1_STACK);
	put(list, 0x6c16, standalone_symbol(standalone_l1_vmx_exit));
}

static void put_guest(struct list *list)
{
	put_segment(list, ES, DATA_SELECTOR, 0, ~0U, DATA_32);
	for (uint32_t number = DS; number <= GS; number++)
		put_segment(list, number, DATA_SELECTOR, 0, ~0U, DATA_32);
	put_segment(list, LDTR, 0, 0, 0, UNUSABLE);
	put_segment(list, TR, TSS_SELECTOR, GPA_TSS, 0x67, BUSY_TSS);
	put(list, 0x4810, GDT_LIMIT);
	put(list, 0x4812, IDT_LIMIT);
	put(list, 0x6816, GPA_GDT);
	put(list, 0x6818, GPA_IDT);
	put(list, 0x6800, CR0_FLAT);
	put(list, 0x6802, GPA_L2_CR3);
	put(list, 0x6804, CR4_FLAT_VMX);
	put(list, 0x2802, 0); /* DEBUGCTL */
	put(list, 0x482a, 0); /* SYSENTER_CS, _ESP, _EIP */
	put(list, 0x6824, 0);
	put(list, 0x6826, 0);
}

void vmx_prepare(struct standalone_vm *vm, const struct standalone_plan *plan)
{
	struct list list = { standalone_at(vm, GPA_VMWRITES) };
	uint64_t *read = standalone_at(vm, GPA_VMREADS);

	if (!vm->vmcs_written) { /* each VMWRITE is an exit to L0 */
		*(uint32_t *)standalone_at(vm, GPA_VMXON) = vm->vmcs_revision;
		*(uint32_t *)standalone_at(vm, GPA_VMCS) = vm->vmcs_revision;
		put_controls(&list, vm);
		put_host(&list);
		put_guest(&list);
		vm->vmcs_written = true;
	}
	put_case(&list, vm, plan);
	*list.at = ~0ULL;
	for (size_t i = 0; i < COUNT(reads); i++)
		*read++ = reads[i].encoding;
	*read = ~0ULL;
}

static void print_log(const uint64_t *log)
{
	for (size_t i = 0; i < COUNT(reads); i++)
		json_hex(reads[i].name, log[i]);
}

void vmx_keep_exit(struct standalone_vm *vm)
{
	memcpy(standalone_at(vm, GPA_SHARED + SHARED_EARLIER_LOG), standalone_at(vm, GPA_SHARED + SHARED_LOG),
	       COUNT(reads) * sizeof(uint64_t));
}

void vmx_print_kept(struct standalone_vm *vm)
{
	json_object("earlier");
	print_log(standalone_at(vm, GPA_SHARED + SHARED_EARLIER_LOG));
	json_close_object();
}

void vmx_print_exit(struct standalone_vm *vm)
{
	print_log(standalone_at(vm, GPA_SHARED + SHARED_LOG));
	json_hex("cr2", *standalone_at(vm, GPA_SHARED + SHARED_L1_CR2));
	json_hex("dr6", *standalone_at(vm, GPA_SHARED + SHARED_L1_DR6));
}
