/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What runs in the helper's own VM, copied to OWN_CODE: L1, a hypervisor that enters L2 once, and
 * L2, which says that it is there and then leaves. Both in 64-bit mode on flat memory. What L1 has
 * to write into its VMCS lies in OWN_WRITES (pairs of field and value), what it has to read after a
 * VM-exit in OWN_READS (fields); both lists end with -1. The VMCB is written by the helper itself.
 */
#include "own_layout.h"

	.macro say port
	out %al, $\port
	.endm

	.section .rodata
	.balign 16
	.globl own_start, own_end, own_l1_vmx, own_l1_vmx_exit, own_l1_svm, own_l2, own_stubs
own_start:

/* --- L1 on Intel -------------------------------------------------------------------------------- */

own_l1_vmx:
	cmpq $0, OWN_SHARED + OWN_IN_VMX
	jne 1f
	vmxon vmxon_region
	movq $1, OWN_SHARED + OWN_IN_VMX
1:	vmclear vmcs
	vmptrld vmcs
	mov $OWN_WRITES, %esi
2:	mov (%rsi), %rax
	cmp $-1, %rax
	je 3f
	vmwrite 8(%rsi), %rax
	jbe failed
	add $16, %rsi
	jmp 2b
3:	say OWN_PORT_L1_READY
	cmpq $0, OWN_SHARED + OWN_STAY_IN_L1
	jne stay
	vmlaunch
failed:
	mov $0x4400, %eax		/* VM-instruction error */
	vmread %rax, OWN_SHARED + OWN_LOG
	say OWN_PORT_FAILED

own_l1_vmx_exit:
	sti				/* a VM-exit clears RFLAGS */
	mov $OWN_READS, %esi
	mov $OWN_SHARED + OWN_LOG, %edi
1:	mov (%rsi), %rax
	cmp $-1, %rax
	je left
	vmread %rax, (%rdi)
	add $8, %rsi
	add $8, %rdi
	jmp 1b

resume:
	movq $0, OWN_SHARED + OWN_RESUME
	mov $0x681e, %eax		/* RIP */
	mov $ready, %ecx
	vmwrite %rcx, %rax
	vmresume
	jmp failed

	ready = OWN_CODE + l2_ready - own_start
	vmxon_region = OWN_CODE + vmxon_pointer - own_start
	vmcs = OWN_CODE + vmcs_pointer - own_start
vmxon_pointer:
	.quad OWN_VMXON
vmcs_pointer:
	.quad OWN_VMCS

/* --- L1 on AMD ---------------------------------------------------------------------------------- */

own_l1_svm:
	stgi
	say OWN_PORT_L1_READY
	cmpq $0, OWN_SHARED + OWN_STAY_IN_L1
	jne stay
	mov $OWN_VMCS, %eax
	vmrun %rax
	/* GIF stays 0: an NMI that L1 has intercepted is still pending, and STGI would let it in. */

/* --- both --------------------------------------------------------------------------------------- */

left:
	mov %cr2, %rax
	mov %rax, OWN_SHARED + OWN_L1_CR2
	mov %dr6, %rax
	mov %rax, OWN_SHARED + OWN_L1_DR6
	say OWN_PORT_EXIT
	cmpq $0, OWN_SHARED + OWN_RESUME
	jne resume
stay:
	say OWN_PORT_NOTHING

/* --- L2 ----------------------------------------------------------------------------------------- */

own_l2:
	cmpq $0, OWN_SHARED + OWN_FAULT
	je l2_ready
	mov %eax, OWN_FAULT_ADDRESS
l2_ready:
	cmpq $0, OWN_SHARED + OWN_LONG_OUT
	je 1f
	.byte 0x3e			/* a DS prefix: means nothing here, but is a byte more */
	say OWN_PORT_L2_READY
	jmp 2f
1:	say OWN_PORT_L2_READY
2:	say OWN_PORT_NOTHING
leave:
	cpuid				/* always a VM-exit on Intel; our VMCB intercepts it */
	jmp leave

/* --- the IDT of both: records what came, and leaves ------------------------------------------- */

	.balign OWN_STUB_SIZE
own_stubs:
	vector = 0
	.rept OWN_VECTORS
	.balign OWN_STUB_SIZE
	pushq $vector
	jmp common
	vector = vector + 1
	.endr

/*
 * An injection may or may not come with an error code, whatever the vector. The stack tells: the
 * CPU aligns it to 16 and pushes 40 bytes, or 48 with an error code (SDM volume 3, 6.14.2).
 */
common:
	mov OWN_SHARED + OWN_HIT_COUNT, %rbx
	incq OWN_SHARED + OWN_HIT_COUNT
	and $15, %ebx
	shl $OWN_HIT_SHIFT, %ebx
	add $OWN_SHARED + OWN_HITS, %ebx
	pop OWN_VECTOR(%rbx)
	movq $0, OWN_HAS_CODE(%rbx)
	movq $0, OWN_ERROR_CODE(%rbx)
	test $8, %spl
	jnz 1f
	movq $1, OWN_HAS_CODE(%rbx)
	pop OWN_ERROR_CODE(%rbx)
1:	pop OWN_RIP(%rbx)
	mov %cr2, %rax
	mov %rax, OWN_CR2(%rbx)
	mov %cr3, %rax
	mov %rax, OWN_CR3(%rbx)
	/* With DR7.GD still set the next MOV would be a #DB: the helper has a look first. */
	say OWN_PORT_HIT
	mov %dr6, %rax
	mov %rax, OWN_DR6(%rbx)
	mov %dr7, %rax
	mov %rax, OWN_DR7(%rbx)
	say OWN_PORT_RECORDED
	jmp leave
own_end:

	.section .note.GNU-stack, "", @progbits
