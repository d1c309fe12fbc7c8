/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tiny L2: a loop that counts, and an IDT whose every entry records what came and returns.
 * Copied to L2_CODE and run there in 64-bit mode with interrupts on.
 */
#include "idt_stubs.S"
#include "l2.h"

	.section .rodata
	.balign 16
	.globl l2_guest_start, l2_guest_end, l2_guest_stubs
l2_guest_start:
	movabs $L2_R15, %r15
	mov $L2_R14, %r14d
1:	incq L2_SHARED + L2_HEARTBEAT
	mov L2_SHARED + L2_HEARTBEAT, %rax
	cmp L2_SHARED + L2_TRAP, %rax
	jb 1b
	movq $-1, L2_SHARED + L2_TRAP
	int3
	jmp 1b
	/* KVM may step over an instruction when it is made to inject #BP or #OF: fall back in. */
	jmp 1b
	jmp 1b

	.balign 16
l2_guest_stubs:
	idt_stubs 256

common:
	push %rax
	push %rbx
	push %rcx
	mov 24(%rsp), %rbx		/* the vector */
	mov %ebx, %ecx
	shl $L2_RECORD_SHIFT, %ebx
	add $L2_SHARED + L2_RECORDS, %ebx
	incq L2_COUNT(%rbx)

	mov L2_SHARED + L2_HITS, %eax
	and $15, %eax
	mov %rcx, L2_SHARED + L2_ORDER(, %rax, 8)
	incq L2_SHARED + L2_HITS

	mov %cr2, %rax
	mov %rax, L2_CR2(%rbx)
	mov %dr6, %rax
	mov %rax, L2_DR6(%rbx)
	mov $0xffff0ff0, %eax
	mov %rax, %dr6

	lea 24(%rsp), %rax		/* an error code? see idt_stubs.S */
	test $8, %al
	jnz 2f
	movq $0, L2_HAS_CODE(%rbx)
	mov 32(%rsp), %rax
	mov %rax, L2_RIP(%rbx)
	pop %rcx
	pop %rbx
	pop %rax
	add $8, %rsp
	iretq
2:	movq $1, L2_HAS_CODE(%rbx)
	mov 32(%rsp), %rax
	mov %rax, L2_CODE_VALUE(%rbx)
	mov 40(%rsp), %rax
	mov %rax, L2_RIP(%rbx)
	pop %rcx
	pop %rbx
	pop %rax
	add $16, %rsp
	iretq
l2_guest_end:

	.section .note.GNU-stack, "", @progbits
