// SPDX-License-Identifier: GPL-2.0-only
/* The VMCB that our L1 enters L2 with on AMD (APM volume 2, appendix B). */
#include <string.h>

#include "json.h"
#include "standalone.h"

/* Offsets into the VMCB. */
enum {
	INTERCEPT_EXCEPTIONS = 0x8,
	INTERCEPT_3 = 0xc,
	INTERCEPT_4 = 0x10,
	ASID = 0x58,
	EXIT_CODE = 0x70,
	EXIT_INFO_1 = 0x78,
	EXIT_INFO_2 = 0x80,
	EXIT_INT_INFO = 0x88,
	ES = 0x400, CS = 0x410, SS = 0x420, DS = 0x430,
	GDTR = 0x460, IDTR = 0x480,
	EFER = 0x4d0, CR4 = 0x548, CR3 = 0x550, CR0 = 0x558, DR7 = 0x560, DR6 = 0x568,
	CPL = 0x4cb, RFLAGS = 0x570, RIP = 0x578, RSP = 0x5d8, CR2 = 0x640, PAT = 0x668,
};

#define NMI (1U << 1)		/* in INTERCEPT_3 */
#define CPUID (1U << 18)
#define SHUTDOWN (1U << 31)
#define VMRUN (1U << 0)		/* in INTERCEPT_4 */

enum { CODE_64 = 0xa9b, DATA_32 = 0xc93, DPL_3 = 0x60 };

static void put32(struct standalone_vm *vm, uint64_t offset, uint32_t value)
{
	memcpy(vm->memory + GPA_VMCS + offset, &value, sizeof(value));
}

static void put64(struct standalone_vm *vm, uint64_t offset, uint64_t value)
{
	memcpy(vm->memory + GPA_VMCS + offset, &value, sizeof(value));
}

static void put_segment(struct standalone_vm *vm, uint64_t offset, uint16_t selector, uint16_t attributes,
			uint32_t limit, uint64_t base)
{
	put32(vm, offset, selector | (uint32_t)attributes << 16);
	put32(vm, offset + 4, limit);
	put64(vm, offset + 8, base);
}

void svm_prepare(struct standalone_vm *vm, const struct standalone_plan *plan)
{
	memset(vm->memory + GPA_VMCS, 0, 0x1000);
	put32(vm, INTERCEPT_EXCEPTIONS, plan->exceptions);
	put32(vm, INTERCEPT_3, CPUID | SHUTDOWN | (plan->nmi_exiting ? NMI : 0));
	put32(vm, INTERCEPT_4, VMRUN); /* it must be */
	put32(vm, ASID, 1);
	for (uint64_t offset = ES; offset <= DS; offset += 0x10)
		put_segment(vm, offset, DATA_SELECTOR, DATA_32, ~0U, 0);
	put_segment(vm, CS, CODE_SELECTOR, CODE_64, ~0U, 0);
	if (plan->user) {
		put_segment(vm, CS, CODE_SELECTOR | 3, CODE_64 | DPL_3, ~0U, 0);
		put_segment(vm, SS, DATA_SELECTOR | 3, DATA_32 | DPL_3, ~0U, 0);
		vm->memory[GPA_VMCS + CPL] = 3;
	}
	put_segment(vm, GDTR, 0, 0, GDT_LIMIT, GPA_GDT);
	put_segment(vm, IDTR, 0, 0, IDT_LIMIT, GPA_IDT);
	put64(vm, EFER, EFER_FLAT_SVM);
	put64(vm, CR0, CR0_FLAT);
	put64(vm, CR2, CR2_BEFORE);
	put64(vm, CR3, GPA_L2_CR3);
	put64(vm, CR4, CR4_FLAT);
	put64(vm, DR6, DR6_BEFORE);
	put64(vm, DR7, plan->dr7);
	put64(vm, RFLAGS, plan->user ? RFLAGS_USER : RFLAGS_INITIAL);
	put64(vm, RIP, standalone_symbol(standalone_l2));
	put64(vm, RSP, GPA_L2_STACK);
	put64(vm, PAT, 0x0007040600070406);
}

static uint64_t get(struct standalone_vm *vm, uint64_t offset)
{
	return *standalone_at(vm, GPA_VMCS + offset);
}

void svm_print_exit(struct standalone_vm *vm)
{
	json_hex("reason", get(vm, EXIT_CODE));
	json_hex("info_1", get(vm, EXIT_INFO_1));
	json_hex("info_2", get(vm, EXIT_INFO_2));
	json_hex("exit_int_info", get(vm, EXIT_INT_INFO));
	json_hex("rip", get(vm, RIP));
	json_hex("cr2", get(vm, CR2));
	json_hex("dr6", get(vm, DR6));
	json_hex("dr7", get(vm, DR7));
}
