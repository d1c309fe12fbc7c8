/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What runs in the standalone VM, copied to GPA_CODE: L1, a hypervisor that enters L2 once, and L2,
 * which says that it is there and then leaves. Both in 64-bit mode on flat memory. What L1 has to
 * write into its VMCS lies in GPA_VMWRITES (pairs of field and value), what it has to read after a
 * VM-exit in GPA_VMREADS (fields); both lists end with -1. The helper writes the VMCB itself.
 */
#include "idt_stubs.S"
#include "standalone_layout.h"

	.macro say port
	out %al, $\port
	.endm

	.section .rodata
	.balign 16
	.globl standalone_start, standalone_end, standalone_stubs, standalone_l2
	.globl standalone_l1_vmx, standalone_l1_vmx_exit, standalone_l1_svm
standalone_start:

/* --- L1 on Intel ------------------------------------------------------------------------------ */

standalone_l1_vmx:
	cmpq $0, GPA_SHARED + SHARED_IN_VMX
	jne 1f
	vmxon vmxon_region
	movq $1, GPA_SHARED + SHARED_IN_VMX
1:	vmclear vmcs
	vmptrld vmcs
	mov $GPA_VMWRITES, %esi
2:	mov (%rsi), %rax
	cmp $-1, %rax
	je 3f
	vmwrite 8(%rsi), %rax
	jbe failed
	add $16, %rsi
	jmp 2b
3:	say PORT_L1_READY
	cmpq $0, GPA_SHARED + SHARED_STAY_IN_L1
	jne stay
	vmlaunch
failed:
	mov $FIELD_VM_INSTRUCTION_ERROR, %eax
	vmread %rax, GPA_SHARED + SHARED_LOG
	say PORT_FAILED

standalone_l1_vmx_exit:
	sti				/* a VM-exit clears RFLAGS */
	mov $GPA_VMREADS, %esi
	mov $GPA_SHARED + SHARED_LOG, %edi
1:	mov (%rsi), %rax
	cmp $-1, %rax
	je left
	vmread %rax, (%rdi)
	add $8, %rsi
	add $8, %rdi
	jmp 1b

resume:
	movq $0, GPA_SHARED + SHARED_RESUME
	mov $FIELD_GUEST_RIP, %eax
	mov $ready, %ecx
	vmwrite %rcx, %rax
	vmresume
	jmp failed

	ready = GPA_CODE + l2_ready - standalone_start
	vmxon_region = GPA_CODE + vmxon_pointer - standalone_start
	vmcs = GPA_CODE + vmcs_pointer - standalone_start
vmxon_pointer:
	.quad GPA_VMXON
vmcs_pointer:
	.quad GPA_VMCS

/* --- L1 on AMD -------------------------------------------------------------------------------- */

standalone_l1_svm:
	stgi
	say PORT_L1_READY
	cmpq $0, GPA_SHARED + SHARED_STAY_IN_L1
	jne stay
	mov $GPA_VMCS, %eax
	vmrun %rax
	/* GIF stays 0: STGI would let in an NMI that L1 has intercepted and that still waits. */

/* --- both ------------------------------------------------------------------------------------- */

left:
	mov %cr2, %rax
	mov %rax, GPA_SHARED + SHARED_L1_CR2
	mov %dr6, %rax
	mov %rax, GPA_SHARED + SHARED_L1_DR6
	say PORT_EXIT
	cmpq $0, GPA_SHARED + SHARED_RESUME
	jne resume
stay:
	say PORT_NOTHING

/* --- L2 --------------------------------------------------------------------------------------- */

standalone_l2:
	cmpq $0, GPA_SHARED + SHARED_FAULT
	je l2_ready
	mov %eax, GVA_NOT_MAPPED
l2_ready:
	cmpq $0, GPA_SHARED + SHARED_LONG_OUT
	je 1f
	.byte 0x3e			/* a DS prefix: means nothing here, but is a byte more */
	say PORT_L2_READY
	jmp 2f
1:	say PORT_L2_READY
2:	say PORT_NOTHING
leave:
	cpuid				/* always a VM-exit on Intel; our VMCB intercepts it */
	jmp leave

/* --- the IDT of both: records what came, and leaves ------------------------------------------- */

	.balign STUB_SIZE
standalone_stubs:
	idt_stubs VECTORS

common:
	mov GPA_SHARED + SHARED_HIT_COUNT, %rbx
	incq GPA_SHARED + SHARED_HIT_COUNT
	and $15, %ebx
	shl $HIT_SHIFT, %ebx
	add $GPA_SHARED + SHARED_HITS, %ebx
	pop HIT_VECTOR(%rbx)
	movq $0, HIT_HAS_CODE(%rbx)
	movq $0, HIT_ERROR_CODE(%rbx)
	test $8, %spl			/* an error code? see idt_stubs.S */
	jnz 1f
	movq $1, HIT_HAS_CODE(%rbx)
	pop HIT_ERROR_CODE(%rbx)
1:	pop HIT_RIP(%rbx)
	mov %cr2, %rax
	mov %rax, HIT_CR2(%rbx)
	mov %cr3, %rax
	mov %rax, HIT_CR3(%rbx)
	/* With DR7.GD still set the next MOV would be a #DB: the helper has a look first. */
	say PORT_HIT
	mov %dr6, %rax
	mov %rax, HIT_DR6(%rbx)
	mov %dr7, %rax
	mov %rax, HIT_DR7(%rbx)
	say PORT_RECORDED
	jmp leave
standalone_end:

	.section .note.GNU-stack, "", @progbits
