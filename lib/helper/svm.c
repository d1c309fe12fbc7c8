// SPDX-License-Identifier: GPL-2.0-only
/* The VMCB that our L1 enters L2 with on AMD (APM volume 2, appendix B). */
#include <asm/svm.h>
#include <stdio.h>
#include <string.h>

#include "cpu.h"
#include "json.h"
#include "nested.h"
#include "standalone.h"

#define MSR_VM_HSAVE_PA 0xc0010117

/* Offsets into the VMCB. */
enum vmcb_field {
	INTERCEPT_EXCEPTIONS = 0x8,
	INTERCEPT_WORD3 = 0xc,
	INTERCEPT_WORD4 = 0x10,
	ASID = 0x58,
	EXIT_CODE = 0x70,
	EXIT_INFO_1 = 0x78,
	EXIT_INFO_2 = 0x80,
	EXIT_INT_INFO = 0x88,
	SAVE_ES = 0x400,
	SAVE_CS = 0x410,
	SAVE_SS = 0x420,
	SAVE_DS = 0x430,
	SAVE_GDTR = 0x460,
	SAVE_IDTR = 0x480,
	SAVE_CPL = 0x4cb,
	SAVE_EFER = 0x4d0,
	SAVE_CR4 = 0x548,
	SAVE_CR3 = 0x550,
	SAVE_CR0 = 0x558,
	SAVE_DR7 = 0x560,
	SAVE_DR6 = 0x568,
	SAVE_RFLAGS = 0x570,
	SAVE_RIP = 0x578,
	SAVE_RSP = 0x5d8,
	SAVE_CR2 = 0x640,
	SAVE_G_PAT = 0x668,
	VMCB_SIZE = 0x1000,
};

/* In the third and the fourth word of intercepts. */
#define INTERCEPT_NMI (1U << 1)
#define INTERCEPT_CPUID (1U << 18)
#define INTERCEPT_SHUTDOWN (1U << 31)
#define INTERCEPT_VMRUN (1U << 0)

#define PAT_RESET 0x0007040600070406

enum { CODE_64 = 0xa9b, DATA_32 = 0xc93, DPL_3 = 0x60 };

static void put32(struct standalone_vm *vm, uint64_t field, uint32_t value)
{
	memcpy(standalone_at(vm, GPA_VMCB + field), &value, sizeof(value));
}

static void put64(struct standalone_vm *vm, uint64_t field, uint64_t value)
{
	*standalone_at(vm, GPA_VMCB + field) = value;
}

static void put_segment(struct standalone_vm *vm, uint64_t field, uint16_t selector,
			uint16_t attributes, uint32_t limit, uint64_t base)
{
	put32(vm, field, selector | (uint32_t)attributes << 16);
	put32(vm, field + 4, limit);
	put64(vm, field + 8, base);
}

static void put_segments(struct standalone_vm *vm, bool user)
{
	uint16_t rpl = user ? 3 : 0, dpl = user ? DPL_3 : 0;

	put_segment(vm, SAVE_ES, DATA_SELECTOR, DATA_32, ~0U, 0);
	put_segment(vm, SAVE_CS, CODE_SELECTOR | rpl, CODE_64 | dpl, ~0U, 0);
	put_segment(vm, SAVE_SS, DATA_SELECTOR | rpl, DATA_32 | dpl, ~0U, 0);
	put_segment(vm, SAVE_DS, DATA_SELECTOR, DATA_32, ~0U, 0);
	put_segment(vm, SAVE_GDTR, 0, 0, GDT_LIMIT, GPA_GDT);
	put_segment(vm, SAVE_IDTR, 0, 0, IDT_LIMIT, GPA_IDT);
	*(uint8_t *)memory_at(&vm->memory, GPA_VMCB + SAVE_CPL) = user ? 3 : 0;
}

static void prepare(struct standalone_vm *vm, const struct standalone_plan *plan)
{
	memset(standalone_at(vm, GPA_VMCB), 0, VMCB_SIZE);
	put32(vm, INTERCEPT_EXCEPTIONS, plan->exceptions);
	put32(vm, INTERCEPT_WORD3,
	      INTERCEPT_CPUID | INTERCEPT_SHUTDOWN | (plan->nmi_exiting ? INTERCEPT_NMI : 0));
	put32(vm, INTERCEPT_WORD4, INTERCEPT_VMRUN); /* it must be */
	put32(vm, ASID, 1);
	put_segments(vm, plan->user);
	put64(vm, SAVE_EFER, EFER_FLAT_SVM);
	put64(vm, SAVE_CR0, CR0_FLAT);
	put64(vm, SAVE_CR2, CR2_BEFORE);
	put64(vm, SAVE_CR3, GPA_L2_CR3);
	put64(vm, SAVE_CR4, CR4_FLAT);
	put64(vm, SAVE_DR6, DR6_BEFORE);
	put64(vm, SAVE_DR7, plan->dr7);
	put64(vm, SAVE_RFLAGS, plan->user ? RFLAGS_FLAT_USER : RFLAGS_FLAT);
	put64(vm, SAVE_RIP, standalone_symbol(standalone_l2));
	put64(vm, SAVE_RSP, GPA_L2_STACK);
	put64(vm, SAVE_G_PAT, PAT_RESET);
}

/* Whether kvm_amd was told to do without; before 5.3 it could not be (d647eb63e671). */
static bool told_to_do_without_nrips(void)
{
	FILE *file = fopen("/sys/module/kvm_amd/parameters/nrips", "re");
	int said = file ? fgetc(file) : 'Y';

	if (file)
		fclose(file);
	return said == 'N' || said == '0';
}

static bool soft_exceptions(void)
{
	return cpu_has_nrips() && !told_to_do_without_nrips();
}

static bool enable(struct standalone_vm *vm)
{
	return standalone_set_msr(vm, MSR_VM_HSAVE_PA, GPA_HOST_SAVE);
}

static uint64_t get(const struct standalone_vm *vm, uint64_t field)
{
	return *standalone_at(vm, GPA_VMCB + field);
}

static uint64_t exit_reason(const struct standalone_vm *vm)
{
	return get(vm, EXIT_CODE);
}

static void print_exit(const struct standalone_vm *vm)
{
	json_hex("reason", get(vm, EXIT_CODE));
	json_hex("info_1", get(vm, EXIT_INFO_1));
	json_hex("info_2", get(vm, EXIT_INFO_2));
	json_hex("exit_int_info", get(vm, EXIT_INT_INFO));
	json_hex("rip", get(vm, SAVE_RIP));
	json_hex("cr2", get(vm, SAVE_CR2));
	json_hex("dr6", get(vm, SAVE_DR6));
	json_hex("dr7", get(vm, SAVE_DR7));
}

const struct nested_ops svm_ops = {
	.name = "svm",
	.module = "kvm_amd",
	.l1_entry = standalone_l1_svm,
	.l1_cr4 = CR4_FLAT,
	.l1_efer = EFER_FLAT_SVM,
	.cpuid_exit = SVM_EXIT_CPUID,
	.soft_exceptions = soft_exceptions,
	.enable = enable,
	.prepare = prepare,
	.exit_reason = exit_reason,
	.print_exit = print_exit,
};
